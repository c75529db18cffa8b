# Makes wan/<model>/: small random Wan transformers and what diffusers' model answers, for grids wide, tall, of odd frames, and
# texts of all and of fewer rows; and wan/train: LoRA by peft on h12: adapter files as diffusers writes them, what the model answers
# with each, the flow loss and every gradient. h128 holds bf16 weights; its answers are computed in f32 from those.
import json
import os

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import logging
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

import wan_dit
from common import Cases, DATA, randn

# latent frames, height, width, rows of text, timestep
GRIDS = {
    "h12": [(2, 4, 6, 12, 999), (3, 2, 10, 12, 123.456), (1, 8, 2, 5, 0), (5, 6, 4, 1, 500.5)],
    "h20": [(1, 4, 4, 7, 999), (3, 6, 2, 40, 37)],
    "h24": [(2, 4, 4, 16, 721), (7, 2, 6, 3, 1)],
    "h128": [(5, 4, 6, 20, 999), (1, 6, 10, 4, 250.25)],
}
ATTN1, ATTN2, FFN = [[f"attn{i}.to_{x}" for x in ("q", "k", "v", "out.0")] for i in (1, 2)] + [["ffn.net.0.proj", "ffn.net.2"]]
BARE = ["to_q", "to_k", "to_v", "to_out.0"]  # which are both attentions'
ADAPTERS = {"attn1": (ATTN1, 4), "attn2": (ATTN2, 10), "ffn": (FFN, 4), "all": (ATTN1 + ATTN2 + FFN, 6), "bare": (BARE, 4)}  # alpha
GRADIENTS = [("attn1", 0.375, 12), ("attn2", 0.71, 5), ("ffn", 1.0, 12), ("all", 0.25, 9), ("bare", 0.5, 12)]  # level, rows of text


@torch.no_grad()
def answers():
    for seed, (name, grids) in enumerate(GRIDS.items()):
        folder, length = os.path.join(DATA, "wan", name, "transformer"), wan_dit.TEXT[name]
        model = wan_dit.make(name, 500 + seed)
        if name == "h128":
            model = model.to(torch.bfloat16)
        wan_dit.save(model, folder, length)
        model = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
        cases = Cases("wan", name)
        for n, (t, h, w, rows, timestep) in enumerate(grids):
            latents, text = randn(600 + 10 * seed + n, t, model.config.in_channels, h, w), randn(700 + 10 * seed + n, rows, 16)
            cases.put(f"{n}.latents", latents)
            cases.put(f"{n}.text", text)
            cases.put(f"{n}.timestep", torch.tensor([float(timestep)]))
            cases.put(f"{n}.out", wan_dit.forward(model, latents, text, timestep, length))
            cases.add(n, latents=list(latents.shape), text=rows, timestep=timestep)
        cases.write()


def with_adapter(name):
    """The model h12 with an adapter whose every value matters, and its parameters by their names in files."""
    targets, alpha = ADAPTERS[name]
    torch.manual_seed(800)
    model = WanTransformer3DModel.from_pretrained(os.path.join(DATA, "wan", "h12", "transformer")).eval().requires_grad_(False)
    model.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=targets))
    params = {"transformer." + n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n}
    assert len(params) == 2 * (8 if name == "bare" else len(targets)) * model.config.num_layers
    with torch.no_grad():
        for n, p in params.items():
            if "lora_B" in n:  # zero in a fresh adapter; its A would then have no gradient
                p.copy_(0.3 * torch.randn(p.shape))
    return model, params


def training():
    logging.set_verbosity_error()
    cases, length = Cases("wan", "train"), wan_dit.TEXT["h12"]
    for n, (name, s, rows) in enumerate(GRADIENTS):
        model, params = with_adapter(name)
        WanPipeline.save_lora_weights(cases.folder, get_peft_model_state_dict(model), weight_name=name + ".safetensors",
                                      **_collate_lora_metadata({"transformer": model}))
        x0, eps, text = randn(820 + n, 3, 4, 4, 6), randn(840 + n, 3, 4, 4, 6), randn(860 + n, rows, 16)
        out = wan_dit.forward(model, (1 - s) * x0 + s * eps, text, min(1000 * s, 999), length)
        loss = ((out - (eps - x0)) ** 2).mean()
        loss.backward()
        for key, value in (("x0", x0), ("eps", eps), ("text", text), ("out", out)):
            cases.put(f"{n}.{key}", value)
        for key, p in params.items():
            cases.put(f"{n}.{key}", p.grad)
        cases.add(n, adapter=name + ".safetensors", s=s, loss=loss.item(),
                  grad_norm=torch.stack([p.grad.norm() for p in params.values()]).norm().item())
    cases.write()
    with safe_open(os.path.join(cases.folder, "attn1.safetensors"), "pt") as f:  # as who wraps attn1 alone may call it
        config = {**json.loads(f.metadata()["lora_adapter_metadata"]), "transformer.target_modules": BARE}
        save_file({n: f.get_tensor(n) for n in f.keys()}, os.path.join(cases.folder, "attn1_bare.safetensors"),
                  metadata={"format": "pt", "lora_adapter_metadata": json.dumps(config)})


answers()
training()
