# Makes sample/: a pipeline folder (transformer/, scheduler/) with a small random transformer, and the latents that
# CogVideoXPipeline gives for it with its DDIM and DPM schedulers; plus plain Euler integration of a flow network.
# "amplification" in cases.json: relative change of the result per relative change of the text embeddings, a hint for tolerances.
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline
from diffusers.utils import logging

import dit
from common import Cases, randn

SCHEDULER = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                 prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0,
                 timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False, steps_offset=0)

# noise "brought": N.noise is the starting latent. seed: one torch.Generator("cpu") gives everything not brought, in
# the pipeline's order. dynamic: use_dynamic_cfg. snr_shift_scale differs from the folder's file where given.
BASE = dict(scheduler="ddim", steps=4, guidance=6.0, dynamic=False, frames=9, height=32, width=48, seed=None, brought=True)
DPM = {**BASE, "scheduler": "dpm", "seed": 42, "brought": False}
CASES = [
    BASE,
    {**BASE, "steps": 10, "frames": 5, "height": 64},
    {**DPM, "steps": 8},
    {**DPM, "steps": 10},
    {**DPM, "steps": 10, "guidance": 1.0},
    {**DPM, "steps": 10, "dynamic": True},
    {**DPM, "steps": 5, "brought": True, "frames": 1, "height": 48},
    {**DPM, "steps": 1, "frames": 17, "height": 16},
    {**DPM, "steps": 4, "seed": 123456789012345, "width": 80},
    {**BASE, "steps": 5, "snr_shift_scale": 3.0},
    {**BASE, "scheduler": "euler", "steps": 4},
    {**BASE, "scheduler": "euler", "steps": 10, "guidance": 1.0, "frames": 13},
]


def euler(model, x, text, negative, steps, guidance):
    """dx/ds = u(x, s) from noise at s = 1 to data at s = 0."""
    for i in range(steps):
        s, s_next = 1 - i / steps, 1 - (i + 1) / steps
        t = min(1000 * s, 999)
        u = dit.forward(model, x, text, t)
        if guidance > 1:
            u_negative = dit.forward(model, x, negative, t)
            u = u_negative + guidance * (u - u_negative)
        x = x + (s_next - s) * u
    return x


def sample(pipe, c, text, negative, noise):
    if c["scheduler"] == "euler":
        return euler(pipe.transformer, noise, text, negative, c["steps"], c["guidance"])
    config = {**SCHEDULER, "snr_shift_scale": c.get("snr_shift_scale", 1.0)}
    pipe.scheduler = {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}[c["scheduler"]].from_config(config)
    return pipe(prompt_embeds=text[None], negative_prompt_embeds=negative[None], output_type="latent",
                latents=noise[None] if c["brought"] else None,
                generator=None if c["seed"] is None else torch.Generator("cpu").manual_seed(c["seed"]),
                num_inference_steps=c["steps"], guidance_scale=c["guidance"], use_dynamic_cfg=c["dynamic"],
                num_frames=c["frames"], height=c["height"], width=c["width"]).frames[0]


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    cases = Cases("sample")
    pipe = CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=dit.make("rope", 700, num_layers=1),
                             scheduler=CogVideoXDDIMScheduler(**SCHEDULER))
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(cases.folder)
    for n, c in enumerate(CASES):
        text, negative = randn(710 + n, 20, 32), randn(730 + n, 20, 32)
        noise = randn(750 + n, (c["frames"] - 1) // 4 + 1, 16, c["height"] // 8, c["width"] // 8)
        out = sample(pipe, c, text, negative, noise)
        nudged = sample(pipe, c, text * (1 + 1e-5 * randn(770, 20, 32)), negative, noise)
        cases.put(f"{n}.prompt_embeds", text)
        cases.put(f"{n}.negative_embeds", negative)
        if c["brought"]:
            cases.put(f"{n}.noise", noise)
        cases.put(f"{n}.out", out)
        cases.add(n, **c, amplification=round(((out - nudged).norm() / out.norm()).item() / 1e-5, 2))
    cases.write()


if __name__ == "__main__":
    main()
