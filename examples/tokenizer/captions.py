#!/usr/bin/env python3
"""captions.py - print 4,000 made-up video captions: what the example tokenizer was trained on (see make.sh)."""
import random

pick = random.Random(0).choice


def phrases(text):
    return text.replace("\n", "").split("|")


COLOUR = """red orange yellow green blue purple pink brown black white grey golden silver turquoise crimson dark pale
bright transparent striped""".split()
LOOK = """small large heavy light round flat old new shiny wet dry soft rough hollow wooden metal glass rubber
paper""".split()
THING = """ball box cup bottle plate spoon knife kettle candle balloon umbrella chair ladder bucket rope brick stone
hammer wheel kite boat car bicycle truck train drone coin leaf feather apple orange melon egg cake pancake towel shirt
book lamp door gate fence ribbon marble domino pendulum spring magnet sponge curtain skateboard basketball
tennis racket shuttlecock cube sphere disc ring cone""".split()
ALIVE = """man woman child boy girl carpenter cook dancer farmer gardener swimmer climber surfer painter runner dog cat
horse bird duck fish butterfly bee squirrel elephant chef potter player worker person""".split()
DOES = """rolls falls bounces spins slides floats swings tips flies drifts shatters melts burns freezes rises sinks
stretches bends breaks rocks turns stops""".split()
ACTS = """throws catches kicks pushes pulls lifts drops cuts paints folds washes carries stacks hits shakes pours rolls
opens closes hangs climbs balances juggles polishes sharpens""".split()
HOW = "slowly quickly gently smoothly suddenly steadily freely twice again backwards evenly carefully".split()
COUNT = "two three four five ten several many 2 3 10 100".split()
WHERE = phrases("""across the table|down the hill|into the water|over the fence|through the air|along the street|in the garden|
on the beach|under the bridge|near the window|against the wall|on a frozen lake|in a dark room|at the edge of a forest|
on a wooden floor|inside a workshop|in front of a brick house|beside the river|above the city|between two trees|
in a bowl of milk|onto the grass|from left to right|from right to left|towards the camera|away from the camera""")
WHEN = phrases("""in the morning|at sunset|at night|in heavy rain|in the snow|in strong wind|under a clear blue sky|by candlelight|
in summer|on a cloudy day|while the sun shines|during a storm|before it stops""")
CAMERA = phrases("""The camera stays still.|The camera pans left.|The camera follows slowly.|A close-up view.|Seen from above.|
The background is blurred.|In slow motion.|The light is soft and warm.|Shadows move on the ground.|
The video is a short clip.|The scene is calm and quiet.|The overall atmosphere is one of focus and concentration.|
Shot at 24 frames per second.|The colours are vivid, and the details are sharp.|
The video doesn't contain any text.|It's filmed with a handheld camera.""")
# A few words with accents and other scripts, so that such text has pieces as well as unknowns.
ELSEWHERE = phrases("a café in Málaga|a façade in Zürich|a street in São Paulo|the fjord near Tromsø|東京の夜|красный мяч")


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def thing():
    return article(" ".join(pick([[pick(LOOK)], [pick(COLOUR)], [pick(LOOK), pick(COLOUR)]]) + [pick(THING)]))


def caption():
    text = pick([
        lambda: f"{thing()} {pick(DOES)} {pick(WHERE)}",
        lambda: f"{thing()} {pick(DOES)} {pick(HOW)} {pick(WHERE)} {pick(WHEN)}",
        lambda: f"{article(pick(ALIVE))} {pick(ACTS)} {thing()} {pick(WHERE)}",
        lambda: f"{article(pick(ALIVE))} {pick(HOW)} {pick(ACTS)} {thing()} and {pick(ACTS)} it {pick(WHEN)}",
        lambda: f"{thing()} {pick(DOES)} and hits {thing()}, which {pick(DOES)} {pick(HOW)}",
        lambda: f"the video shows {article(pick(ALIVE))} who {pick(ACTS)} {pick(COUNT)} {pick(THING)}s {pick(WHERE)}",
        lambda: f"{thing()} {pick(DOES)} in {pick(ELSEWHERE)}",
    ])()
    return " ".join([text[0].upper() + text[1:] + "."] + [pick(CAMERA) for _ in range(pick([0, 1, 1, 2]))])


if __name__ == "__main__":
    for _ in range(4000):
        print(caption())
