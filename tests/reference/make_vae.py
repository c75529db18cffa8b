# Makes vae/<case>/: two small random AutoencoderKLCogVideoX and what diffusers' encode and decode answer, whole
# and tiled, for frame counts that meet every kind of chunk (one frame, remainder, several chunks, even counts).
import os

import torch
from diffusers import AutoencoderKLCogVideoX

from common import Cases, randomise, DATA

# Half the sample size is the tile; in latents its height must divide by 6 and its width by 5 for the tile grid to be exact.
MODELS = {
    "a": dict(block_out_channels=(8, 8, 16, 16), layers_per_block=3, norm_num_groups=4, scaling_factor=0.7,
              sample_height=96, sample_width=80),  # tile 6x5 latents, blend 1x1
    "b": dict(block_out_channels=(4, 8, 8, 12), layers_per_block=1, norm_num_groups=2, scaling_factor=1.15258426,
              sample_height=96, sample_width=160),  # tile 6x10 latents, blend 1x2
}
# frames, height, width in pixels / latent frames, height, width in latents
ENCODE = {"a": [(1, 16, 24), (5, 24, 40), (9, 16, 24), (13, 24, 16), (17, 24, 40), (49, 16, 24), (8, 16, 24)],
          "b": [(1, 24, 40), (5, 16, 24), (9, 24, 16), (13, 24, 40), (17, 16, 24), (49, 24, 16)]}
DECODE = {"a": [(1, 3, 5), (2, 2, 3), (3, 2, 3), (4, 3, 2), (5, 2, 3), (13, 2, 3)],
          "b": [(1, 2, 3), (2, 3, 5), (3, 3, 2), (4, 2, 2), (5, 2, 3), (13, 1, 2)]}
ENCODE_TILED = {"a": [(1, 104, 88), (17, 56, 64), (9, 64, 40), (9, 32, 56)], "b": [(17, 56, 96), (1, 104, 160)]}
DECODE_TILED = {"a": [(1, 13, 11), (4, 7, 6), (1, 8, 5)], "b": [(1, 7, 12), (1, 11, 12)]}


def encode(vae, video_u8):
    x = (video_u8.float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
    return vae.encode(x).latent_dist.parameters[0].permute(1, 0, 2, 3)


def decode(vae, latents):
    return vae.decode(latents.permute(1, 0, 2, 3)[None]).sample[0].permute(1, 2, 3, 0)


@torch.no_grad()
def main():
    for seed, (name, dims) in enumerate(MODELS.items()):
        vae = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
            latent_channels=16, temporal_compression_ratio=4, **dims)
        randomise(vae, 300 + seed)
        vae.save_pretrained(os.path.join(DATA, "vae", name, "vae"))
        g = torch.Generator().manual_seed(400 + seed)
        cases = Cases("vae", name)
        for tiled, todo_enc, todo_dec in (("", ENCODE, DECODE), ("_tiled", ENCODE_TILED, DECODE_TILED)):
            vae.enable_tiling() if tiled else vae.disable_tiling()
            for n, (f, h, w) in enumerate(todo_enc[name]):
                video = torch.randint(0, 256, (f, h, w, 3), generator=g, dtype=torch.uint8)
                moments = encode(vae, video)
                cases.put(f"enc{tiled}.{n}.video_u8", video)
                cases.put(f"enc{tiled}.{n}.moments", moments)
                cases.add(f"enc{tiled}.{n}", video=list(video.shape), moments=list(moments.shape))
                assert moments.shape[2:] == (h // 8, w // 8)
            for n, (t, h, w) in enumerate(todo_dec[name]):
                latents = torch.randn(t, 16, h, w, generator=g)
                video = decode(vae, latents)
                cases.put(f"dec{tiled}.{n}.latents", latents)
                cases.put(f"dec{tiled}.{n}.video", video)
                cases.add(f"dec{tiled}.{n}", latents=list(latents.shape), video=list(video.shape))
                assert video.shape[1:3] == (8 * h, 8 * w)
        cases.write()


main()
