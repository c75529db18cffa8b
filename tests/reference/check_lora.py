#!/usr/bin/env python3
# Checks that diffusers loads one of our adapter files, of CogVideoX or Wan, and then answers what we answered.
#   check_lora.py MODEL_DIR ADAPTER.safetensors CASE.safetensors [TOLERANCE=1e-4]
# MODEL_DIR has transformer/; CASE has latents [T,16,h,w], text [L,D], timestep [1] and out [T,16,h,w] (with the adapter).
# Prints TAP; SKIPs without the Python packages.
import json
import os
import sys

try:
    import torch
    from diffusers import (CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel, UniPCMultistepScheduler,
                           WanPipeline, WanTransformer3DModel)
    from safetensors.torch import load_file
    import peft  # noqa: F401 (diffusers needs it for adapters)
except ImportError as missing:
    print(f"1..0 # SKIP no Python package {missing.name}")
    sys.exit(0)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import dit
import wan_dit

if len(sys.argv) not in (4, 5):
    sys.exit("usage: check_lora.py MODEL_DIR ADAPTER.safetensors CASE.safetensors [TOLERANCE]")
model_dir, adapter, case_file = sys.argv[1:4]
tolerance = float(sys.argv[4]) if len(sys.argv) == 5 else 1e-4

with open(os.path.join(model_dir, "transformer", "config.json")) as f:
    config = json.load(f)
wan = config["_class_name"] == "WanTransformer3DModel"
load = WanTransformer3DModel if wan else CogVideoXTransformer3DModel
model = load.from_pretrained(model_dir, subfolder="transformer", torch_dtype=torch.float32).eval()
if wan:
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=model, scheduler=UniPCMultistepScheduler())
else:
    pipe = CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=model, scheduler=CogVideoXDDIMScheduler())


def forward(latents, text, timestep):
    if wan:
        return wan_dit.forward(model, latents, text, timestep, config.get("text_len", 512))
    return dit.forward(model, latents, text, timestep)


case = {name: t.float() for name, t in load_file(case_file).items()}
with torch.no_grad():
    inputs = case["latents"], case["text"], case["timestep"].item()
    base = forward(*inputs)
    pipe.load_lora_weights(os.path.dirname(os.path.abspath(adapter)), weight_name=os.path.basename(adapter))
    out = forward(*inputs)

expected = sum(not name.endswith(".alpha") for name in load_file(adapter))
taken = sum("lora_" in name for name, _ in model.named_parameters())
error = (out - case["out"]).abs().max().item()
effect = (out - base).abs().max().item()
print("1..2")
print(f"{'ok' if taken == expected else 'not ok'} 1 - diffusers took {taken} of the file's {expected} tensors")
print(f"{'ok' if error <= tolerance else 'not ok'} 2 - largest difference {error:.3g} (the adapter changes up to {effect:.3g})")
sys.exit(0 if taken == expected and error <= tolerance else 1)
