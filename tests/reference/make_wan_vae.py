# Makes wan_vae/<model>/: small random AutoencoderKLWan and what diffusers' encode and decode answer, whole and in tiles, for one frame,
# counts that fill chunks and counts that do not, and odd sizes of latents. c8 and r4 hold bf16 weights; their answers are computed in
# f32. r4 is of Wan 2.2's form: squares of 2x2 pixels as one, shortcuts around the levels.
import os

import torch
from diffusers import AutoencoderKLWan

from common import Cases, DATA

SMALL = dict(z_dim=16, attn_scales=[], temperal_downsample=[False, True, True])
MODELS = {
    "c3": dict(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
    "c8": dict(base_dim=8, dim_mult=[1, 1, 1, 2], num_res_blocks=1),
    "r4": dict(base_dim=4, decoder_base_dim=3, dim_mult=[1, 2, 4, 4], num_res_blocks=1, z_dim=5, is_residual=True, patch_size=2,
               in_channels=12, out_channels=12, scale_factor_spatial=16, latents_mean=[0.3, -0.2, 0.1, 0.0, -0.4],
               latents_std=[0.5, 1.5, 1.0, 2.0, 0.7]),
}
# frames, height, width in pixels / latent frames, height, width in latents
ENCODE = {"c3": [(1, 16, 24), (5, 16, 24), (9, 16, 16), (17, 8, 24), (4, 16, 16), (6, 8, 8), (21, 8, 16)],
          "c8": [(1, 24, 40), (5, 16, 24), (9, 24, 8), (17, 8, 24), (13, 8, 8)],
          "r4": [(1, 48, 80), (5, 16, 48), (9, 32, 16), (17, 16, 16), (4, 16, 16), (13, 16, 16)]}
DECODE = {"c3": [(1, 3, 5), (2, 1, 2), (3, 1, 1), (5, 1, 1), (6, 1, 1)], "c8": [(1, 3, 3), (2, 1, 3), (3, 1, 2), (5, 1, 1)],
          "r4": [(1, 3, 2), (2, 1, 3), (3, 1, 1), (5, 1, 1)]}
# A tile has 32 latents, and one begins at every 24th; r4's decoder has 16 and 12.
ENCODE_TILED = {"c3": [(1, 272, 16), (2, 8, 264)], "c8": [], "r4": [(1, 544, 16)]}
DECODE_TILED = {"c3": [(1, 34, 1), (1, 1, 33)], "c8": [], "r4": [(1, 18, 1), (1, 1, 17)]}


def randomise(model, seed):
    """Every path matters, and no output is clamped: a gain of 1.5 in all convolutions, little in those that end a half."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if name.endswith("gamma"):
                p.copy_(1 + 0.1 * r)
            elif p.ndim >= 2:
                gain = 0.2 if name.startswith("decoder.conv_out") else 0.6 if "quant_conv" in name else 1.5
                p.copy_(gain * r / (p.numel() / p.shape[0]) ** 0.5)
            else:
                p.copy_(0.1 * r)
    return model.float().eval().requires_grad_(False)


def encode(vae, video_u8):
    x = (video_u8.float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
    return vae.encode(x).latent_dist.parameters[0].permute(1, 0, 2, 3)


def decode(vae, z):
    return vae.decode(z.permute(1, 0, 2, 3)[None]).sample[0].permute(1, 2, 3, 0)


@torch.no_grad()
def main():
    for seed, (name, dims) in enumerate(MODELS.items()):
        vae = randomise(AutoencoderKLWan(**{**SMALL, **dims}), 900 + seed)
        side = vae.config.scale_factor_spatial
        folder = os.path.join(DATA, "wan_vae", name, "vae")
        if name != "c3":
            vae = vae.to(torch.bfloat16)
        vae.save_pretrained(folder)
        vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).eval().requires_grad_(False)
        g = torch.Generator().manual_seed(950 + seed)
        cases = Cases("wan_vae", name)
        for tiled, todo_enc, todo_dec in (("", ENCODE, DECODE), ("_tiled", ENCODE_TILED, DECODE_TILED)):
            if tiled:
                vae.enable_tiling()
            for n, (f, h, w) in enumerate(todo_enc[name]):
                video = torch.randint(0, 256, (f, h, w, 3), generator=g, dtype=torch.uint8)
                moments = encode(vae, video)
                cases.put(f"enc{tiled}.{n}.video_u8", video)
                cases.put(f"enc{tiled}.{n}.moments", moments)
                cases.add(f"enc{tiled}.{n}", video=list(video.shape), moments=list(moments.shape))
                assert moments.shape[2:] == (h // side, w // side) and moments.shape[0] == 1 + (f - 1) // 4
            for n, (t, h, w) in enumerate(todo_dec[name]):
                z = torch.randn(t, vae.config.z_dim, h, w, generator=g)
                video = decode(vae, z)
                cases.put(f"dec{tiled}.{n}.z", z)
                cases.put(f"dec{tiled}.{n}.video", video)
                cases.add(f"dec{tiled}.{n}", z=list(z.shape), video=list(video.shape))
                assert video.shape[:3] == (4 * t - 3, side * h, side * w)
                clamped = (video.abs() == 1).float().mean().item()
                print(name, tiled, n, "deviation %.3f, clamped %.4f" % (video.std().item(), clamped))
        cases.write()
        print(name, sum(p.numel() for p in vae.parameters()))


main()
