#!/usr/bin/env python3
"""make-clips.py - draw the clips that clips/clips.csv describes. It also shows how to write a stream.

    cd examples && python3 make-clips.py <clips/clips.csv | encode-mp4 -o clips >/dev/null
"""
import csv, math, sys

from sluice_wire import Tensor, Writer

FRAMES, HEIGHT, WIDTH = 25, 64, 96

# ---- the drawings: a scene is sky and ground, the horizon's height, and shapes; t goes from 0 to 1 ----

RED, YELLOW, BLUE, GREEN = (210, 40, 40), (240, 205, 40), (50, 90, 210), (40, 160, 70)
ORANGE, PURPLE = (240, 140, 30), (140, 60, 170)
WHITE, GREY, DARK, WOOD, GRASS = (240, 240, 240), (130, 130, 135), (45, 45, 55), (165, 115, 65), (80, 150, 60)
WALL, SKY, SEA = (225, 215, 200), (150, 195, 235), (40, 100, 150)


def mix(a, b, t):
    return tuple(x + (y - x) * t for x, y in zip(a, b))


def disc(x, y, radius, colour):
    return colour, lambda px, py: radius - math.hypot(px - x, py - y)


def box(x, y, half_width, half_height, angle, colour):
    cos, sin = math.cos(angle), math.sin(angle)

    def inside(px, py):
        u, v = px - x, py - y
        return min(half_width - abs(u * cos + v * sin), half_height - abs(v * cos - u * sin))

    return colour, inside


def roll(t):
    x, angle = 12 + 72 * t, 72 * t / 9
    spot = disc(x + 5 * math.cos(angle), 39 + 5 * math.sin(angle), 2, DARK)  # what makes rolling visible
    return WALL, WOOD, 44, [disc(x, 39, 9, RED), spot]


def bounce(t):
    height, period, start = 36, 0.4, -0.2  # each bounce is shorter and lower than the one before
    while t >= start + period:
        start, period, height = start + period, period * 0.75, height * 0.56
    phase = (t - start) / period
    return WALL, GREY, 50, [disc(20 + 56 * t, 50 - 7 - height * 4 * phase * (1 - phase), 7, YELLOW)]


def fall(t):
    angle = min(1.0, 2.2 * t * t) * math.pi / 2  # it turns about its right lower corner
    cx, cy = -8 * math.cos(angle) + 16 * math.sin(angle), -8 * math.sin(angle) - 16 * math.cos(angle)
    return SKY, GRASS, 50, [box(48 + cx, 52 + cy, 8, 16, angle, BLUE)]


def swing(t):
    angle = 0.8 * math.cos(2 * math.pi * 1.5 * t)
    x, y = 48 + 38 * math.sin(angle), 4 + 38 * math.cos(angle)
    return DARK, GREY, 58, [box((48 + x) / 2, (4 + y) / 2, 1, 19, -angle, GREY), disc(x, y, 7, WHITE)]


def spin(t):
    return SKY, SKY, HEIGHT, [box(48, 32, 16, 16, 1.2 * math.pi * t, ORANGE)]


def sink(t):
    y = 2 + 90 * t * t if t < 0.6 else 34.4 + 38 * (t - 0.6)  # free, then against the water
    return SKY, SEA, 34, [disc(48, y, 8, mix(GREEN, SEA, max(0.0, min(0.7, (y - 34) / 20))))]


def hit(t):
    first, second = 8 + 76 * min(t, 0.5), 62 + 64 * max(0.0, t - 0.5)
    return WALL, WOOD, 44, [disc(first, 36, 8, PURPLE), disc(second, 36, 8, WHITE)]


def sunrise(t):
    sun = disc(48, 56 - 36 * t, 10, mix(RED, YELLOW, t))
    return mix((25, 30, 80), (245, 175, 165), t), mix((10, 25, 60), SEA, t), 42, [sun]


def draw(scene, t):
    sky, ground, horizon, shapes = scene(t)
    hidden = scene is sunrise  # the sun comes from behind the sea
    pixels = bytearray()
    for y in range(HEIGHT):
        below = y >= horizon
        back = mix(ground if below else sky, WHITE, 0.15 * y / HEIGHT)
        for x in range(WIDTH):
            colour = back
            for paint, inside in [] if hidden and below else shapes:
                colour = mix(colour, paint, max(0.0, min(1.0, inside(x + 0.5, y + 0.5) + 0.5)))
            pixels += bytes(round(c) for c in colour)
    return bytes(pixels)


if __name__ == "__main__":
    with Writer(sys.stdout.buffer, "make-clips") as wire:
        for row in csv.DictReader(sys.stdin):
            key = row["video"].removesuffix(".mp4")
            video = b"".join(draw(globals()[key], k / (FRAMES - 1)) for k in range(FRAMES))
            wire.write(key, {"caption": row["caption"], "fps": 8}, {"video": Tensor("U8", [FRAMES, HEIGHT, WIDTH, 3], video)})
