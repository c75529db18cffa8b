# Makes wan/forms/: wan/train's adapters in the forms of ComfyUI and of kohya's scripts (musubi-tuner's), renamed here by a table of our
# own, and what diffusers answers for wan/h12 after WanPipeline.load_lora_weights() has read each of these files.
import os

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file

import wan_dit
from common import Cases, DATA, randn

NAMES = {"attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v", "attn1.to_out.0": "self_attn.o",
         "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k", "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o",
         "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}
ALPHA = {"attn1": 4.0, "attn2": 10.0, "all": 6.0}
EXACT = 8.0  # diffusers rounds alpha/rank A to the file's dtype, so that a file of two bytes a value gets a power of two
RANK = 4
# adapter, form, dtype. folded: alpha/rank in the second matrix; alpha: lora_down, lora_up and a scalar; kohya: zeros where the adapter
# has no module, since diffusers takes every module for granted; own: as the transformer's own save_lora_adapter() writes it
CASES = [("attn1", "folded", torch.float32), ("attn1", "kohya", torch.float32), ("attn1", "alpha", torch.float16),
         ("attn2", "folded", torch.float32), ("all", "folded", torch.float32), ("all", "alpha", torch.float32),
         ("all", "kohya", torch.bfloat16), ("attn2", "own", torch.float32)]


def read(name):
    with safe_open(os.path.join(DATA, "wan", "train", name + ".safetensors"), "pt") as f:
        return {n: f.get_tensor(n) for n in f.keys()}


def module(name, block, own, shapes):
    """A and B of a module; zeros where the adapter has none."""
    key = f"transformer.blocks.{block}.{own}.lora_"
    if key + "A.weight" in name:
        return name[key + "A.weight"], name[key + "B.weight"]
    out, inner = shapes[f"blocks.{block}.{own}.weight"]
    return torch.zeros(RANK, inner), torch.zeros(out, RANK)


def renamed(name, form, dtype, shapes):
    made, given = {}, read(name)
    for block in range(2):
        for own, original in NAMES.items():
            if form != "kohya" and f"transformer.blocks.{block}.{own}.lora_A.weight" not in given:
                continue
            a, b = module(given, block, own, shapes)
            path = f"blocks.{block}.{original}"
            alpha = alpha_of(name, dtype)
            if form == "folded":
                made[f"diffusion_model.{path}.lora_A.weight"] = a.to(dtype)
                made[f"diffusion_model.{path}.lora_B.weight"] = (b.double() * (alpha / RANK)).to(dtype)
            else:
                stem = f"diffusion_model.{path}" if form == "alpha" else "lora_unet_" + path.replace(".", "_")
                made.update({stem + ".lora_down.weight": a.to(dtype), stem + ".lora_up.weight": b.to(dtype), stem + ".alpha": torch.tensor(alpha).to(dtype)})
    return made


def save_own(model, name, folder, file):
    """The adapter through PEFT, which names and describes it."""
    given = {n.removeprefix("transformer."): t for n, t in read(name).items()}
    targets = sorted({n.split(".lora_")[0].split(".", 2)[2] for n in given})
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA[name], target_modules=targets))
    for n, p in model.named_parameters():
        if "lora_" in n:
            p.copy_(given[n.replace(".default", "")])
    model.save_lora_adapter(folder, weight_name=file)


def alpha_of(name, dtype):
    return ALPHA[name] if dtype == torch.float32 else EXACT


def header(name, form, dtype):
    if form != "kohya":
        return {"format": "pt"}
    return {"ss_network_module": "networks.lora_wan", "ss_network_dim": str(RANK), "ss_network_alpha": str(alpha_of(name, dtype)),
            "sshs_model_hash": "0" * 64}


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    cases = Cases("wan", "forms")
    latents, text, timestep = randn(990, 3, 4, 4, 6), randn(991, 7, 16), 500.0
    for name, tensor in (("latents", latents), ("text", text), ("timestep", torch.tensor([timestep]))):
        cases.put(name, tensor)
    for n, (name, form, dtype) in enumerate(CASES):
        model = WanTransformer3DModel.from_pretrained(os.path.join(DATA, "wan", "h12", "transformer")).eval()
        pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=model, scheduler=UniPCMultistepScheduler())
        base = wan_dit.forward(model, latents, text, timestep, wan_dit.TEXT["h12"])
        file = f"{name}_{form}.safetensors"
        if form == "own":
            save_own(model, name, cases.folder, file)
        else:
            tensors = renamed(name, form, dtype, dict((n, p.shape) for n, p in model.named_parameters()))
            save_file(tensors, os.path.join(cases.folder, file), metadata=header(name, form, dtype))
            pipe.load_lora_weights(cases.folder, weight_name=file)
            taken = sum("lora_" in n for n, _ in model.named_parameters())
            assert taken == sum(not n.endswith("alpha") for n in tensors), (file, taken, len(tensors))
        out = wan_dit.forward(model, latents, text, timestep, wan_dit.TEXT["h12"])
        cases.put(f"{n}.out", out)
        cases.add(n, file=file, adapter=name + ".safetensors", form=form, dtype=str(dtype)[6:], alpha=alpha_of(name, dtype),
                  effect=((out - base).norm() / base.norm()).item())
    cases.write()


if __name__ == "__main__":
    main()
