# Makes wan/sample/: the latents that WanPipeline gives with UniPC for wan/h20's transformer, and plain Euler integration of the same
# network over shifted levels; and the scheduler's configuration. Texts are of fewer rows than the network reads: here they are padded by
# zeros, as the pipeline does it with what its text encoder gives. "amplification" as in sample/.
import math, os

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging

from common import Cases, DATA, randn

SCHEDULER = dict(num_train_timesteps=1000, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
LENGTH = 512

# As in make_sample.py. flow_shift differs from the folder's file where given; shift is the option's.
BASE = dict(scheduler="unipc", steps=4, guidance=5.0, frames=9, height=32, width=48, seed=None, brought=True, text=7, negative=3)
TORCH = {**BASE, "seed": 42, "brought": False}
CASES = [
    BASE,
    {**BASE, "steps": 1, "frames": 5},
    {**BASE, "steps": 2, "guidance": 1.0, "height": 48},
    {**BASE, "steps": 10, "flow_shift": 5.0, "text": 512, "negative": 1},
    {**BASE, "steps": 3, "shift": 12.0, "frames": 1},
    {**TORCH, "steps": 4, "frames": 13},
    {**TORCH, "steps": 5, "guidance": 1.0, "seed": 123456789012345, "height": 16},
    {**BASE, "scheduler": "euler", "steps": 4},
    {**BASE, "scheduler": "euler", "steps": 7, "guidance": 1.0, "flow_shift": 8.0},
]


def padded(text):
    return torch.cat([text, torch.zeros(LENGTH - text.shape[0], text.shape[1])])[None]


def euler(model, x, text, negative, steps, guidance, shift):
    """dx/ds = u(x, s) from noise at s = 1 to data at s = 0, at levels s = shift p / (1 + (shift - 1) p) of p even from 1 to 1/1000."""
    p = [1 - i * 0.999 / steps for i in range(steps)]
    levels = [shift * q / (1 + (shift - 1) * q) for q in p] + [0.0]
    for s, after in zip(levels, levels[1:]):
        t = torch.tensor([min(math.floor(1000 * s), 999)])
        u = model(hidden_states=x, timestep=t, encoder_hidden_states=text, return_dict=False)[0]
        if guidance > 1:
            un = model(hidden_states=x, timestep=t, encoder_hidden_states=negative, return_dict=False)[0]
            u = un + guidance * (u - un)
        x = x + (after - s) * u
    return x


def sample(pipe, c, text, negative, noise):
    shift, text, negative, noise = c.get("shift", c.get("flow_shift", 3.0)), padded(text), padded(negative), noise.transpose(0, 1)[None]
    if c["scheduler"] == "euler":
        return euler(pipe.transformer, noise, text, negative, c["steps"], c["guidance"], shift)[0].transpose(0, 1)
    pipe.scheduler = UniPCMultistepScheduler(**{**SCHEDULER, "flow_shift": shift})
    return pipe(prompt_embeds=text, negative_prompt_embeds=negative, output_type="latent", latents=noise if c["brought"] else None,
                generator=None if c["seed"] is None else torch.Generator("cpu").manual_seed(c["seed"]),
                num_inference_steps=c["steps"], guidance_scale=c["guidance"],
                num_frames=c["frames"], height=c["height"], width=c["width"]).frames[0].transpose(0, 1)


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    cases = Cases("wan", "sample")
    transformer = WanTransformer3DModel.from_pretrained(os.path.join(DATA, "wan", "h20", "transformer")).eval()
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=transformer,
                       scheduler=UniPCMultistepScheduler(**SCHEDULER))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.save_pretrained(os.path.join(cases.folder, "scheduler"))
    for n, c in enumerate(CASES):
        text, negative = randn(910 + n, c["text"], 16), randn(930 + n, c["negative"], 16)
        noise = randn(950 + n, (c["frames"] - 1) // 4 + 1, 16, c["height"] // 8, c["width"] // 8)
        out = sample(pipe, c, text, negative, noise)
        nudged = sample(pipe, c, text * (1 + 1e-5 * randn(970, c["text"], 16)), negative, noise)
        cases.put(f"{n}.prompt_embeds", text)
        cases.put(f"{n}.negative_embeds", negative)
        if c["brought"]:
            cases.put(f"{n}.noise", noise)
        cases.put(f"{n}.out", out)
        cases.add(n, **c, amplification=round(((out - nudged).norm() / out.norm()).item() / 1e-5, 2))
    cases.write()


if __name__ == "__main__":
    main()
