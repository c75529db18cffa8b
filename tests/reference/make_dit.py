# Makes dit/<case>/: small random CogVideoX transformers and what diffusers' model answers: with rotary tables (5B-like)
# and with the added sin-cos table (2B-like), for grids of the base size, wider, taller, smaller, larger; whole and
# fractional timesteps. "sharded" holds bf16 weights in several files; its answers are computed in f32 from those weights.
import os

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

import dit
from common import Cases, DATA
from make_sample import SCHEDULER

# latent frames, height, width (even), timestep, dump of the stages; the base grid is 16x24 (sincos: 8x12)
GRIDS = {
    "rope": [(2, 4, 6, 999, True), (1, 16, 24, 19, False), (3, 4, 12, 500, True), (5, 8, 6, 0, False),
             (13, 4, 4, 979, False), (2, 6, 8, 123.456, False), (1, 12, 40, 999, False), (1, 30, 20, 7.25, False),
             (2, 2, 2, 700.5, False)],
    "rope226": [(2, 4, 6, 999, True), (3, 8, 4, 250.125, False), (1, 20, 36, 19, False), (13, 2, 4, 981, False)],
    "sincos": [(5, 8, 12, 999, False), (2, 4, 6, 19, True), (1, 6, 20, 500, False), (3, 10, 4, 0.5, False),
               (13, 4, 4, 979, False)],
    "sharded": [(2, 4, 6, 999, False), (3, 6, 4, 499.5, False)],
}


def with_stages(model, cases, n):
    """Dumps what passes between the parts of the network during one call."""
    def patch(module, args, out):
        cases.put(f"{n}.patch", out[0])  # text tokens, then video tokens

    def temb(module, args, out):
        cases.put(f"{n}.temb", out[0])

    def block(i):
        def hook(module, args, out):
            cases.put(f"{n}.block.{i}.video", out[0][0])
            cases.put(f"{n}.block.{i}.text", out[1][0])
        return hook

    hooks = [model.patch_embed.register_forward_hook(patch), model.time_embedding.register_forward_hook(temb)]
    return hooks + [b.register_forward_hook(block(i)) for i, b in enumerate(model.transformer_blocks)]


@torch.no_grad()
def main():
    for seed, (name, grids) in enumerate(GRIDS.items()):
        folder = os.path.join(DATA, "dit", name, "transformer")
        model = dit.make(name, 500 + seed)
        if name == "sharded":
            model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="100KB")
            model = CogVideoXTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32)
        else:
            model.save_pretrained(folder)
        if name == "rope":  # so that training cases, which use it, find a schedule there
            CogVideoXDDIMScheduler(**SCHEDULER).save_pretrained(os.path.join(DATA, "dit", name, "scheduler"))
        g = torch.Generator().manual_seed(600 + seed)
        cases = Cases("dit", name)
        for n, (t, h, w, timestep, stages) in enumerate(grids):
            latents = torch.randn(t, 16, h, w, generator=g)
            text = torch.randn(model.config.max_text_seq_length, model.config.text_embed_dim, generator=g)
            hooks = with_stages(model, cases, n) if stages else []
            out = dit.forward(model, latents, text, timestep)
            for hook in hooks:
                hook.remove()
            cases.put(f"{n}.latents", latents)
            cases.put(f"{n}.text", text)
            cases.put(f"{n}.timestep", torch.tensor([float(timestep)]))
            cases.put(f"{n}.out", out)
            cases.add(n, latents=[t, 16, h, w], timestep=timestep, stages=stages)
        cases.write()


main()
