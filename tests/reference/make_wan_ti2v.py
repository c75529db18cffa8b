# Makes wan/ti2v/: the latents that WanPipeline gives as TI2V-5B's does, with expand_timesteps (every token is told its timestep; without
# an image all are the same), 48 channels and wan_vae/r4's factor of 16 pixels a latent. As make_wan_sample.py else.
import os

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
from diffusers.utils import logging

import wan_dit
from common import Cases, DATA, randn
from make_wan_sample import SCHEDULER, padded

FLOW = {**SCHEDULER, "flow_shift": 5.0}
BASE = dict(scheduler="unipc", steps=4, guidance=5.0, frames=9, height=64, width=96, seed=None, expand_timesteps=True)
CASES = [BASE, {**BASE, "steps": 3, "guidance": 1.0, "frames": 1, "height": 32}, {**BASE, "steps": 8, "frames": 5, "seed": 42}]


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    cases = Cases("wan", "ti2v")
    transformer = wan_dit.make("h8", 600)
    wan_dit.save(transformer, os.path.join(cases.folder, "transformer"), wan_dit.TEXT["h8"])
    vae = AutoencoderKLWan.from_pretrained(os.path.join(DATA, "wan_vae", "r4", "vae"))
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=UniPCMultistepScheduler(**FLOW),
                       expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler.save_pretrained(os.path.join(cases.folder, "scheduler"))
    for n, c in enumerate(CASES):
        text, negative = randn(1110 + n, 7, 16), randn(1130 + n, 3, 16)
        noise = randn(1150 + n, (c["frames"] - 1) // 4 + 1, 48, c["height"] // 16, c["width"] // 16)
        pipe.scheduler = UniPCMultistepScheduler(**FLOW)
        out = pipe(prompt_embeds=padded(text), negative_prompt_embeds=padded(negative), output_type="latent",
                   latents=noise.transpose(0, 1)[None] if c["seed"] is None else None,
                   generator=None if c["seed"] is None else torch.Generator("cpu").manual_seed(c["seed"]),
                   num_inference_steps=c["steps"], guidance_scale=c["guidance"],
                   num_frames=c["frames"], height=c["height"], width=c["width"]).frames[0].transpose(0, 1)
        assert out.shape == noise.shape
        for name, tensor in (("prompt_embeds", text), ("negative_embeds", negative), ("out", out)):
            cases.put(f"{n}.{name}", tensor)
        if c["seed"] is None:
            cases.put(f"{n}.noise", noise)
        cases.add(n, **c)
    cases.write()


main()
