"""families.py - what train.py trains: the parts of a CogVideoX and of a Wan at a toy's size, and how each is taught to remove noise."""
import argparse

import torch
from diffusers import (
    AutoencoderKLCogVideoX, AutoencoderKLWan, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel,
    UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from transformers import T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

WORDS = 32  # text tokens
TEXT = dict(
    d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, vocab_size=560, feed_forward_proj="gated-gelu", dropout_rate=0.0,
    tie_word_embeddings=False)


class CogVideoX:
    """v-prediction; every token of the padded text takes part, as in the pipeline."""

    pipeline, vae_class, transformer_class, text_class = CogVideoXPipeline, AutoencoderKLCogVideoX, CogVideoXTransformer3DModel, T5EncoderModel
    SCHEDULER = dict(  # CogVideoX-5b's
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        snr_shift_scale=1.0, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)

    def vae(self):
        return AutoencoderKLCogVideoX(
            block_out_channels=(16, 32, 32, 32), latent_channels=16, layers_per_block=1, norm_num_groups=8, sample_height=64, sample_width=96,
            down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4, scaling_factor=1.0)

    def transformer(self):
        return CogVideoXTransformer3DModel(
            num_attention_heads=3, attention_head_dim=64, num_layers=6, time_embed_dim=64, text_embed_dim=64, max_text_seq_length=WORDS,
            in_channels=16, out_channels=16, sample_width=12, sample_height=8, sample_frames=17, use_rotary_positional_embeddings=True)

    def blocks(self, transformer):
        return transformer.transformer_blocks

    def text(self):
        return T5EncoderModel(T5Config(**TEXT))

    def scheduler(self):
        return CogVideoXDDIMScheduler(**self.SCHEDULER)

    def encode(self, vae, x):
        return vae.encode(x).latent_dist

    def decode(self, vae, z):
        return vae.decode(z).sample

    def scale(self, vae, latents):
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))

    def scaled(self, vae, latents):
        """[n,C,T,h,w] of the VAE -> as the transformer sees them"""
        return latents.transpose(1, 2) * vae.config.scaling_factor

    def noised(self, x, level, noise):
        """At level 0 .. 1: what the transformer is shown, its timestep, and the right answer."""
        if not hasattr(self, "alphas"):
            self.alphas = self.scheduler().alphas_cumprod.float().to(x.device)
        t = (level * 1000).long().clamp(max=999)
        a = self.alphas[t].view(-1, 1, 1, 1, 1)
        return a.sqrt() * x + (1 - a).sqrt() * noise, t, a.sqrt() * noise - (1 - a).sqrt() * x

    def answer(self, transformer, text, x, ids, t):
        rotary = CogVideoXPipeline._prepare_rotary_positional_embeddings(
            argparse.Namespace(vae_scale_factor_spatial=8, transformer=transformer), 64, 96, 5, x.device)
        return transformer(x, text(ids).last_hidden_state, t, image_rotary_emb=rotary, return_dict=False)[0]


class Wan:
    """Flow: noise minus data; the text's real tokens, and nothing in place of the others."""

    pipeline, vae_class, transformer_class, text_class = WanPipeline, AutoencoderKLWan, WanTransformer3DModel, UMT5EncoderModel

    def vae(self):
        return AutoencoderKLWan(base_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1)

    def transformer(self):
        model = WanTransformer3DModel(
            num_attention_heads=3, attention_head_dim=64, num_layers=6, ffn_dim=512, text_dim=64, freq_dim=64, rope_max_seq_len=64)
        model.register_to_config(text_len=WORDS, sample_frames=17, sample_height=8, sample_width=12)  # which Sluice asks for
        return model

    def blocks(self, transformer):
        return transformer.blocks

    def text(self):
        return UMT5EncoderModel(UMT5Config(**TEXT))

    def scheduler(self):
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)

    def encode(self, vae, x):
        """The first frame, and then all others at once: the library's passes of four frames give the same, and take longer."""
        vae.clear_cache()
        cache = vae._enc_feat_map
        parts = [vae.encoder(part, feat_cache=cache, feat_idx=[0]) for part in (x[:, :, :1], x[:, :, 1:])]
        return DiagonalGaussianDistribution(vae.quant_conv(torch.cat(parts, 2)))

    def decode(self, vae, z):
        vae.clear_cache()
        cache, z = vae._feat_map, vae.post_quant_conv(z)
        return torch.cat([vae.decoder(z[:, :, :1], feat_cache=cache, feat_idx=[0], first_chunk=True),
                          vae.decoder(z[:, :, 1:], feat_cache=cache, feat_idx=[0])], 2)

    def scale(self, vae, latents):
        over = (0, 2, 3, 4)
        vae.register_to_config(latents_mean=[round(v, 4) for v in latents.mean(over).tolist()],
                               latents_std=[round(v, 4) for v in latents.std(over).tolist()])

    def scaled(self, vae, latents):
        mean, std = [torch.tensor(v, device=latents.device).view(-1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std)]
        return (latents - mean) / std

    def noised(self, x, level, noise):
        s = level.view(-1, 1, 1, 1, 1)
        return (1 - s) * x + s * noise, 1000 * level, noise - x

    def answer(self, transformer, text, x, ids, t):
        real = ids != 0
        words = text(ids, real.long()).last_hidden_state * real.unsqueeze(-1)
        return transformer(x, t, words, return_dict=False)[0]


FAMILIES = {"cogvideox": CogVideoX, "wan": Wan}


def tokenizer(path):
    return T5Tokenizer(path, extra_ids=0, legacy=True)
