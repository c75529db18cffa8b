"""Two blocks of Wan2.1-T2V-14B at full size by diffusers and peft on this GPU, random weights, for `block` to compare with:

    PYTHONPATH=<folder with diffusers> python3 wan_block.py FOLDER

As block.py, which says what becomes of FOLDER/block, with an adapter on all ten linear layers of each block, 17 frames of 832x480 and a
text of 77 tokens. Both models come from the BF16 files: the one in BF16 keeps in F32 what diffusers keeps so, and runs under autocast,
as training scripts do: without it, peft computes the adapter, which is in F32, in F32.
"""

import os
import shutil
import sys

import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from safetensors.torch import save_file

DEVICE, LAYERS, S, TOKENS = "cuda", 2, 0.4, 77
FOLDER = os.path.join(sys.argv[1], "block")
PRESET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/presets/wan-14b")
TARGETS = [f"attn{i}.to_{x}" for i in (1, 2) for x in ("q", "k", "v", "out.0")] + ["ffn.net.0.proj", "ffn.net.2"]


def randomise(model):
    """Every parameter, also those the library starts at zero or one; sizes as in trained networks, more or less."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, device=DEVICE)
            if name.endswith("scale_shift_table"):
                p.copy_(0.3 * r)
            elif p.ndim >= 2:
                p.copy_(r / (p.numel() / p.shape[0]) ** 0.5)
            else:
                p.copy_(0.1 * r + (0 if name.endswith("bias") else 1))
    return model


def with_adapter(dtype):
    """The model as it loads in that dtype; its adapter, in F32, by its names in files."""
    torch.manual_seed(8)
    model = WanTransformer3DModel.from_pretrained(os.path.join(FOLDER, "transformer"), torch_dtype=dtype).to(DEVICE).requires_grad_(False)
    model.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS))
    adapter = {n: p for n, p in model.named_parameters() if "lora_" in n}
    for n, p in adapter.items():
        p.data = torch.randn(p.shape, device=DEVICE) * (0.02 if "lora_B" in n else p.shape[1] ** -0.5)
        p.requires_grad_(True)
    return model, {"transformer." + n.replace(".default", ""): p for n, p in adapter.items()}


def main():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(7)
    with torch.device(DEVICE):
        model = WanTransformer3DModel(num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, num_layers=LAYERS)
    randomise(model).to(torch.bfloat16).save_pretrained(os.path.join(FOLDER, "transformer"))
    shutil.copytree(os.path.join(PRESET, "scheduler"), os.path.join(FOLDER, "scheduler"), dirs_exist_ok=True)
    del model

    x0, eps = [torch.randn(1, 16, 5, 60, 104, device=DEVICE) for _ in range(2)]
    text = torch.zeros(1, 512, 4096, device=DEVICE)
    text[:, :TOKENS] = torch.randn(1, TOKENS, 4096, device=DEVICE).to(torch.bfloat16)
    x, t = (1 - S) * x0 + S * eps, torch.tensor([1000 * S], device=DEVICE)
    put = {n: v[0].transpose(0, 1) for n, v in (("x0", x0), ("eps", eps), ("x", x))}
    put |= {"text": text[0, :TOKENS], "s": torch.tensor([S]), "timestep": t}
    for dtype in (torch.bfloat16, torch.float32):
        name = "bf16" if dtype == torch.bfloat16 else "f32"
        model, adapter = with_adapter(dtype)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = model(x.to(dtype), t, text.to(dtype), return_dict=False)[0].float()
        loss = ((out - (eps - x0)) ** 2).mean()
        loss.backward()
        put[f"{name}.out"], put[f"{name}.loss"] = out[0].transpose(0, 1), loss.reshape(1)
        for n, p in adapter.items():
            put[f"{name}.{n}"] = p.grad
        print(name, "loss", loss.item(), "output's size", out.pow(2).mean().sqrt().item(), flush=True)
    save_file({n: p.detach().cpu().contiguous() for n, p in adapter.items()}, os.path.join(FOLDER, "adapter.safetensors"))
    save_file({n: v.detach().cpu().contiguous() for n, v in put.items()}, os.path.join(FOLDER, "cases.safetensors"))
    with open(os.path.join(FOLDER, "cases.json"), "w") as f:
        f.write("[]\n")


main()
