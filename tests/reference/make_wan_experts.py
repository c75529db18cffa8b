# Makes wan/experts/: the latents that WanPipeline gives with two transformers, wan/h20's for the levels from the boundary on and another
# one (transformer_2/) below, each with its guidance; UniPC carries its history across the boundary. As make_wan_sample.py else.
import os

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging

import wan_dit
from common import Cases, DATA, randn
from make_wan_sample import SCHEDULER, padded

BASE = dict(scheduler="unipc", steps=8, guidance=4.0, guidance_low=3.0, boundary=0.875, flow_shift=12.0, frames=5, height=32, width=48)
CASES = [BASE, {**BASE, "steps": 40}, {**BASE, "steps": 5, "guidance_low": None, "boundary": 0.9, "flow_shift": 5.0},
         {**BASE, "steps": 3, "guidance": 1.0}, {**BASE, "steps": 4, "flow_shift": 1.0}, {**BASE, "steps": 2}]


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    cases = Cases("wan", "experts")
    high = WanTransformer3DModel.from_pretrained(os.path.join(DATA, "wan", "h20", "transformer")).eval()
    low = wan_dit.make("h20", 590)
    wan_dit.save(low, os.path.join(cases.folder, "transformer_2"), wan_dit.TEXT["h20"])
    UniPCMultistepScheduler(**SCHEDULER).save_pretrained(os.path.join(cases.folder, "scheduler"))
    for n, c in enumerate(CASES):
        pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=high, transformer_2=low, boundary_ratio=c["boundary"],
                           scheduler=UniPCMultistepScheduler(**{**SCHEDULER, "flow_shift": c["flow_shift"]}))
        pipe.set_progress_bar_config(disable=True)
        text, negative = randn(1010 + n, 7, 16), randn(1030 + n, 3, 16)
        noise = randn(1050 + n, (c["frames"] - 1) // 4 + 1, 16, c["height"] // 8, c["width"] // 8)
        out = pipe(prompt_embeds=padded(text), negative_prompt_embeds=padded(negative), output_type="latent",
                   latents=noise.transpose(0, 1)[None], num_inference_steps=c["steps"], guidance_scale=c["guidance"],
                   guidance_scale_2=c["guidance_low"], num_frames=c["frames"], height=c["height"], width=c["width"]).frames[0].transpose(0, 1)
        for name, tensor in (("prompt_embeds", text), ("negative_embeds", negative), ("noise", noise), ("out", out)):
            cases.put(f"{n}.{name}", tensor)
        above = sum(t >= 1000 * c["boundary"] for t in pipe.scheduler.timesteps.tolist())
        cases.add(n, **{k: v for k, v in c.items() if v is not None}, high=above)
    cases.write()


if __name__ == "__main__":
    main()
