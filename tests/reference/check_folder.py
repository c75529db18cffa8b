#!/usr/bin/env python3
# Checks that diffusers makes of a whole model folder what our programs make of it: text embeddings, sampled latents, video.
#   check_folder.py MODEL_DIR CAPTION [TOLERANCE=1e-4]            (the programs on the PATH)
# Prints TAP; SKIPs without the Python packages. The noise is that of torch's generator on the CPU, everything in F32.
import io
import json
import os
import subprocess
import sys

try:
    import msgpack  # noqa: F401 (sluice_wire.py needs it)
    import numpy
    import torch
    from diffusers import CogVideoXDPMScheduler, DiffusionPipeline
except ImportError as missing:
    print(f"1..0 # SKIP no Python package {missing.name}")
    sys.exit(0)

if len(sys.argv) not in (3, 4):
    sys.exit("usage: check_folder.py MODEL_DIR CAPTION [TOLERANCE]")
model, caption = sys.argv[1:3]
tolerance = float(sys.argv[3]) if len(sys.argv) == 4 else 1e-4
STEPS, SEED = 20, 5
TYPES = {"F32": "float32", "U8": "uint8"}

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples"))
from sluice_wire import records


def ours(name, program, stream):
    """What a program of ours answers, and its tensor of that name."""
    common = ["-m", model, "--device", "cpu", "--dtype", "f32", "--strict"]
    answer = subprocess.run([*program, *common], input=stream, stdout=subprocess.PIPE, check=True).stdout
    ((_, _, tensors),) = records(io.BytesIO(answer))
    dtype, shape, data = tensors[name]
    return answer, torch.from_numpy(numpy.frombuffer(data, TYPES[dtype]).reshape(shape).copy())


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


prompt = json.dumps({"key": "k", "prompt": caption}).encode()
embeds_stream, embeds = ours("prompt_embeds", ["t5-encode"], prompt)
latents_stream, latents = ours(
    "latents", ["sample", "--rng", "torch-cpu", "--seed", str(SEED), "--steps", str(STEPS), "--guidance", "6", "--keep"], embeds_stream)
_, video = ours("video", ["vae-decode"], latents_stream)

pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
wan = type(pipe).__name__ == "WanPipeline"
if not wan:
    pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
frames, height, width, _ = video.shape
text = dict(max_sequence_length=pipe.transformer.config.text_len if wan else embeds.shape[0])
how = dict(num_inference_steps=STEPS, guidance_scale=6.0, num_frames=frames, height=height, width=width, output_type="latent", **text)


def decoded(latents):
    """[1, ...] as the pipeline hands them to the VAE"""
    if not wan:
        return pipe.decode_latents(latents)
    mean, std = [torch.tensor(v).view(-1, 1, 1, 1) for v in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)]
    return pipe.vae.decode(latents * std + mean).sample


with torch.no_grad():
    theirs_embeds = pipe.encode_prompt(caption, None, False, 1, **text)[0][0][:len(embeds)]
    theirs_latents = pipe(caption, generator=torch.Generator("cpu").manual_seed(SEED), **how).frames
    theirs_video = pipe.video_processor.postprocess_video(decoded(theirs_latents), output_type="np")[0]
    theirs_latents = theirs_latents[0].transpose(0, 1) if wan else theirs_latents[0]

levels = numpy.abs(theirs_video * 255 - video.numpy()).max()
checks = [
    ("text embeddings", relative(embeds, theirs_embeds), tolerance),
    ("latents", relative(latents, theirs_latents), tolerance),
    ("video, in levels of 255", float(levels), 0.5 + 255 * tolerance),  # ours are whole levels
]
print(f"1..{len(checks)}")
for n, (what, error, allowed) in enumerate(checks, 1):
    print(f"{'ok' if error <= allowed else 'not ok'} {n} - {what}: {error:.3g}")
sys.exit(any(error > allowed for _, error, allowed in checks))
