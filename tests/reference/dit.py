# Shared by make_dit.py, make_sample.py, make_train.py: small random CogVideoX transformers, and how to call one.
from types import SimpleNamespace

import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel

from common import randomise

SMALL = dict(num_attention_heads=3, attention_head_dim=16, num_layers=2, time_embed_dim=24, text_embed_dim=32,
             max_text_seq_length=20, in_channels=16, out_channels=16, sample_width=24, sample_height=16,
             sample_frames=17, spatial_interpolation_scale=1.875, use_rotary_positional_embeddings=True)
MODELS = {
    "rope": SMALL,
    "rope226": {**SMALL, "num_attention_heads": 1, "attention_head_dim": 64, "num_layers": 1, "time_embed_dim": 32,
                "max_text_seq_length": 226},
    "sincos": {**SMALL, "use_rotary_positional_embeddings": False, "sample_width": 12, "sample_height": 8},
    "sharded": {**SMALL, "num_layers": 3},
}


def make(name, seed, **changes):
    return randomise(CogVideoXTransformer3DModel(**{**MODELS[name], **changes}), seed)


def rotary(model, latents):
    """The tables as the pipeline makes them; None for a model that adds a sin-cos table instead."""
    if not model.config.use_rotary_positional_embeddings:
        return None
    stand_in = SimpleNamespace(vae_scale_factor_spatial=8, transformer=model)
    t, _, h, w = latents.shape[-4:]
    return CogVideoXPipeline._prepare_rotary_positional_embeddings(stand_in, 8 * h, 8 * w, t, torch.device("cpu"))


def forward(model, latents, text, timestep):
    """[T,16,h,w], [L,D], float -> [T,16,h,w]"""
    return model(hidden_states=latents[None], encoder_hidden_states=text[None], timestep=torch.tensor([float(timestep)]),
                 image_rotary_emb=rotary(model, latents), return_dict=False)[0][0]
