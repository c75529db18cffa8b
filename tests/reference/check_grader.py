#!/usr/bin/env python3
# Checks that upstream's grader, loaded from the same folder, answers what our grade answers.
#   check_grader.py CLONE_OF_VIDEOPHY GRADER_DIR [FRAMES=16] [TOLERANCE=1e-4] <videos        (frames on stdin; grade on the PATH)
# Prints TAP; SKIPs without the Python packages (requirements-owl.txt and msgpack). Everything in F32 and on the CPU, but the rotation's
# frequencies, which upstream's driver rounds to BF16. Scores must be the same; the tolerance, which is for the digits' probabilities, holds
# for frames of the grader's own size, as of `toy-world --size 84x84`: others are stretched to bytes that may be one off, which changes
# probabilities of the toy grader by up to 3e-3.
import io
import json
import os
import subprocess
import sys

try:
    import msgpack  # noqa: F401 (sluice_wire.py needs it)
    import numpy
    import sentencepiece
    import torch
    from safetensors.torch import load_file
except ImportError as missing:
    print(f"1..0 # SKIP no Python package {missing.name}")
    sys.exit(0)

if len(sys.argv) not in (3, 4, 5):
    sys.exit("usage: check_grader.py CLONE_OF_VIDEOPHY GRADER_DIR [FRAMES] [TOLERANCE] <videos")
clone, folder = sys.argv[1:3]
look = int(sys.argv[3]) if len(sys.argv) > 3 else 16
tolerance = float(sys.argv[4]) if len(sys.argv) > 4 else 1e-4
HERE = os.path.dirname(os.path.abspath(__file__))

sys.path[:0] = [os.path.join(HERE, "..", "..", "examples"), os.path.join(HERE, "..", "..", "examples", "toy")]
from sluice_wire import records
import videophy

owl, options = videophy.upstream(clone)


def load():
    config = options.MplugOwlConfig(**json.load(open(os.path.join(folder, "config.json"))))
    model = owl.MplugOwlForConditionalGeneration(config).eval()
    tensors = {k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items() if "inv_freq" not in k}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all("inv_freq" in k for k in missing), (missing, unexpected)
    rotary = model.language_model.model.rotary_emb
    rotary.inv_freq = rotary.inv_freq.to(torch.bfloat16).float()
    return config, model


def pixels(video, side):
    """[1, 3, look, side, side]: the frames chosen as upstream chooses them."""
    apart = (len(video) - 1) / look
    index = [int(apart / 2) + int(numpy.round(apart * k)) for k in range(look)]
    return videophy.look(torch.from_numpy(video[index].copy()), side).transpose(0, 1)[None]


stream = sys.stdin.buffer.read()
graded = subprocess.run(["grade", "-m", folder, "--device", "cpu", "--dtype", "f32", "--frames", str(look),
                         "--max-new-tokens", "6", "--logits", "exact", "--strict"], input=stream,
                        stdout=subprocess.PIPE, check=True).stdout
ours = {line["key"]: line for line in map(json.loads, graded.splitlines())}
config, model = load()
spm = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "tokenizer.model"))
digits = [spm.encode(str(n))[-1] for n in range(6)]

same, count, worst = 0, 0, 0.0
for key, meta, tensors in records(io.BytesIO(stream)):
    _, shape, data = tensors["video"]
    x = pixels(numpy.frombuffer(data, "uint8").reshape(shape), config.vision_config.image_size)
    for task in ("sa", "pc"):
        prompt = videophy.HEAD + videophy.TASKS[task].format(meta.get("caption", ""))
        ids = torch.tensor([videophy.prompt_ids(prompt, spm.encode)])
        with torch.no_grad():
            out = model.generate(video_pixel_values=x, input_ids=ids, do_sample=False, max_new_tokens=6, eos_token_id=2,
                                 output_logits=True, return_dict_in_generate=True)
        made = out.sequences[0].tolist()
        at = next((n for n, i in enumerate(made) if i in digits), None)
        probs = None if at is None else out.logits[at][0].softmax(-1)[digits].tolist()
        mine = ours[key][task + "_probs"]
        count += 1
        same += spm.decode([i for i in made if i > 2]).strip().lower() == ours[key][task + "_text"].strip().lower()
        if (probs is None) != (mine is None):
            worst = float("inf")
        elif probs:
            worst = max(worst, max(abs(a - b) for a, b in zip(probs, mine)))
print("1..2")
print(f"{'ok' if count and same == count else 'not ok'} 1 - {same} of {count} answers are the same text")
print(f"{'ok' if worst <= tolerance else 'not ok'} 2 - the digits' probabilities differ by at most {worst:.3g}")
sys.exit(not count or same != count or worst > tolerance)
