# Shared by the make_wan_*.py scripts: small random Wan transformers, and how to call one.
import json, os

import torch
from diffusers import WanTransformer3DModel

from common import randomise

SMALL = dict(patch_size=(1, 2, 2), in_channels=4, out_channels=4, text_dim=16, freq_dim=32, ffn_dim=40, num_layers=2,
             cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=64)
MODELS = {  # head sizes that divide three ways, and not; 128 is the published one
    "h12": {**SMALL, "num_attention_heads": 2, "attention_head_dim": 12},
    "h20": {**SMALL, "num_attention_heads": 1, "attention_head_dim": 20, "in_channels": 16, "out_channels": 16},
    "h24": {**SMALL, "num_attention_heads": 1, "attention_head_dim": 24, "num_layers": 1, "freq_dim": 256},
    "h8": {**SMALL, "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 48, "out_channels": 48},
    "h128": {**SMALL, "num_attention_heads": 1, "attention_head_dim": 128, "num_layers": 1, "in_channels": 16, "out_channels": 16},
}
TEXT = {"h12": 12, "h20": 512, "h8": 512, "h24": 16, "h128": 20}  # rows of text; 512 is the pipeline's, and stands in no config


def make(name, seed):
    model = randomise(WanTransformer3DModel(**MODELS[name]), seed)
    with torch.no_grad():
        for i, p in enumerate(p for n, p in model.named_parameters() if n.endswith("scale_shift_table")):
            p.copy_(0.4 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed + 1000 + i)))
    return model


def save(model, folder, length):
    model.save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    if length != 512:
        config["text_len"] = length
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def forward(model, latents, text, timestep, length):
    """[T,C,h,w], [L,D] with L <= length, float -> [T,C,h,w]"""
    padded = torch.zeros(length, text.shape[1])
    padded[: text.shape[0]] = text
    return model(hidden_states=latents.transpose(0, 1)[None], encoder_hidden_states=padded[None],
                 timestep=torch.tensor([timestep]), return_dict=False)[0][0].transpose(0, 1)
