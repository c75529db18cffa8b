"""The whole of Wan2.1-T2V-1.3B, random weights as model-init writes them, for four steps of UniPC with guidance: ours, in F32 and BF16,
beside diffusers' WanPipeline on the same GPU. 17 frames of 832x480, a text of 77 tokens.

    PYTHONPATH=<folder with diffusers> python3 wan_whole.py FOLDER      (sample on the PATH; model-init wan-1.3b FOLDER made it)

Ends with 1 when F32 differs by more than 1e-3, or BF16 is further from F32 than PyTorch's BF16 by more than a
twentieth: both are sums of as many roundings, and differ as two draws of them do.
"""

import io
import os
import subprocess
import sys

import numpy
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples"))
from sluice_wire import records

FOLDER, STEPS, GUIDANCE, FRAMES, HEIGHT, WIDTH, TOKENS = sys.argv[1], 4, 5.0, 17, 480, 832, 77
SHAPE = ((FRAMES - 1) // 4 + 1, 16, HEIGHT // 8, WIDTH // 8)


def theirs(dtype, text, negative, noise):
    model = WanTransformer3DModel.from_pretrained(os.path.join(FOLDER, "transformer"), torch_dtype=dtype).to("cuda")
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=model,
                       scheduler=UniPCMultistepScheduler.from_pretrained(os.path.join(FOLDER, "scheduler")))
    pipe.set_progress_bar_config(disable=True)
    rows = [torch.cat([x, torch.zeros(512 - TOKENS, 4096)])[None].to("cuda", dtype) for x in (text, negative)]
    with torch.no_grad():
        return pipe(prompt_embeds=rows[0], negative_prompt_embeds=rows[1], latents=noise.transpose(0, 1)[None].cuda(), output_type="latent",
                    num_inference_steps=STEPS, guidance_scale=GUIDANCE, num_frames=FRAMES, height=HEIGHT, width=WIDTH).frames[0].cpu()


def stream():
    """A record with the prompt's rows, those of the negative prompt, and the noise."""
    shapes = {"prompt_embeds": (TOKENS, 4096), "negative_embeds": (TOKENS, 4096), "noise": SHAPE}
    out = b""
    for name, shape in shapes.items():
        program = ["tensor-gen", *(["--add"] if out else []), "--name", name, "--shape", ",".join(map(str, shape)), "--dtype", "f32"]
        out = subprocess.run(program, input=out, stdout=subprocess.PIPE, check=True).stdout
    return out


def tensors(stream):
    ((_, _, found),) = records(io.BytesIO(stream))
    return {name: torch.from_numpy(numpy.frombuffer(data, "float32").reshape(shape).copy())
            for name, (dtype, shape, data) in found.items() if dtype == "F32"}


def ours(dtype, stream):
    """Latents are written in the dtype that is computed in; --keep and F32 leave nothing to round."""
    out = subprocess.run(["sample", "-m", FOLDER, "--device", "cuda", "--dtype", dtype, "--frames", str(FRAMES),
                          "--size", f"{WIDTH}x{HEIGHT}", "--steps", str(STEPS), "--guidance", str(GUIDANCE)],
                         input=stream, stdout=subprocess.PIPE, check=True).stdout
    ((_, _, found),) = records(io.BytesIO(out))
    kind, shape, data = found["latents"]
    if kind == "BF16":
        data = (numpy.frombuffer(data, "uint16").astype("uint32") << 16).tobytes()
    return torch.from_numpy(numpy.frombuffer(data, "float32").reshape(shape).copy()).transpose(0, 1)


def main():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    record = stream()
    given = tensors(record)
    inputs = given["prompt_embeds"], given["negative_embeds"], given["noise"]
    exact, half = theirs(torch.float32, *inputs), theirs(torch.bfloat16, *inputs)
    off = lambda x: ((x.float() - exact).norm() / exact.norm()).item()  # noqa: E731
    f32, bf16, peer = off(ours("f32", record)), off(ours("bf16", record)), off(half)
    print(f"F32 off by {f32:.3g}; BF16 by {bf16:.3g}, diffusers' BF16 by {peer:.3g}")
    sys.exit(not (f32 <= 1e-3 and bf16 <= 1.05 * peer))


if __name__ == "__main__":
    main()
