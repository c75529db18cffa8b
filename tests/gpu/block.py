"""Two blocks of CogVideoX-5B at full size by diffusers and peft on this GPU, random weights, for `block` to compare with:

    PYTHONPATH=<folder with diffusers> python3 block.py FOLDER

FOLDER/block becomes a model folder (BF16 weights), adapter.safetensors (rank 16, nothing zero) and cases: what the model answers to
latents of 49 frames of 720x480, the flow loss of the same clip and every gradient of the adapter, each in F32 from the same weights and
as BF16 computes it here, so that BF16's own error is known. There is no TF32, neither in products nor, where it is PyTorch's default,
in convolutions.
"""

import os
import shutil
import sys

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from peft import LoraConfig
from safetensors.torch import save_file

DEVICE, LAYERS, S = "cuda", 2, 0.4
FOLDER = os.path.join(sys.argv[1], "block")
PRESET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/presets/cogvideox-5b")


def randomise(model):
    """Every parameter, also those the library starts at zero or one; sizes as in trained networks, more or less."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, device=DEVICE)
            if p.ndim >= 2:
                p.copy_(r / (p.numel() / p.shape[0]) ** 0.5)
            else:
                p.copy_(0.1 * r + (0 if name.endswith("bias") else 1))
    return model


def main():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(7)
    with torch.device(DEVICE):
        model = CogVideoXTransformer3DModel(
            num_attention_heads=48, attention_head_dim=64, in_channels=16, out_channels=16, num_layers=LAYERS, sample_width=90,
            sample_height=60, sample_frames=49, text_embed_dim=4096, time_embed_dim=512, max_text_seq_length=226,
            use_rotary_positional_embeddings=True, use_learned_positional_embeddings=False)
    model = randomise(model).requires_grad_(False).to(torch.bfloat16)
    model.save_pretrained(os.path.join(FOLDER, "transformer"))
    shutil.copytree(os.path.join(PRESET, "scheduler"), os.path.join(FOLDER, "scheduler"), dirs_exist_ok=True)
    model.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    adapter = {n: p for n, p in model.named_parameters() if "lora_" in n}
    for n, p in adapter.items():
        p.data = torch.randn(p.shape, device=DEVICE) * (0.02 if "lora_B" in n else p.shape[1] ** -0.5)
        p.requires_grad_(True)
    names = {n: "transformer." + n.replace(".default", "") for n in adapter}
    save_file({names[n]: p.detach().cpu().contiguous() for n, p in adapter.items()}, os.path.join(FOLDER, "adapter.safetensors"))

    x0, eps = [torch.randn(1, 13, 16, 60, 90, device=DEVICE) for _ in range(2)]
    text = torch.randn(1, 226, 4096, device=DEVICE).to(torch.bfloat16)
    rope = get_3d_rotary_pos_embed(64, ((0, 0), (30, 45)), (30, 45), 13, device=DEVICE)
    x, t = (1 - S) * x0 + S * eps, torch.tensor([1000 * S], device=DEVICE)
    put = {"x0": x0[0], "eps": eps[0], "x": x[0], "text": text[0].float(), "s": torch.tensor([S]), "timestep": t}
    for dtype in (torch.bfloat16, torch.float32):
        name = "bf16" if dtype == torch.bfloat16 else "f32"
        for n, p in model.named_parameters():
            if "lora_" not in n:
                p.data = p.data.to(dtype)
        out = model(x.to(dtype), text.to(dtype), t, image_rotary_emb=rope, return_dict=False)[0].float()
        loss = ((out - (eps - x0)) ** 2).mean()
        loss.backward()
        put[f"{name}.out"], put[f"{name}.loss"] = out[0], loss.reshape(1)
        for n, p in adapter.items():
            put[f"{name}.{names[n]}"], p.grad = p.grad, None
        print(name, "loss", loss.item(), "output's size", out.pow(2).mean().sqrt().item(), flush=True)
    save_file({n: v.detach().cpu().contiguous() for n, v in put.items()}, os.path.join(FOLDER, "cases.safetensors"))
    with open(os.path.join(FOLDER, "cases.json"), "w") as f:
        f.write("[]\n")


main()
