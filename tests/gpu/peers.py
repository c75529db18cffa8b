"""What diffusers, peft and PyTorch need on this GPU for the work that `nets` times: CogVideoX-5B at full size,
random weights, bf16, medians of CUDA-event times.

    PYTHONPATH=<folder with diffusers> python3 peers.py SECTION...      ceil dit compile train best repeatable gdn vae t5 owl pipeline fp8

One JSON line a figure on stdout, as `nets` writes them.
"""

import json
import os
import subprocess
import sys
import time
import traceback

if "repeatable" in sys.argv:  # alone in its process: what follows may cost the others time
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
import torch
import torch.nn.functional as F

DEVICE = "cuda"
TOKENS, WIDTH = 13 * 30 * 45 + 226, 3072
SECTIONS = {}


def section(f):
    SECTIONS[f.__name__] = f
    return f


def tell(name, **values):
    print(json.dumps({"name": name, **values}), flush=True)


def joules():
    """What the card has used, as Sluice's `show` tells it; None where there is no counter, or no `show` on the PATH."""
    uuid = "GPU-" + str(torch.cuda.get_device_properties(0).uuid).removeprefix("GPU-")
    try:
        said = subprocess.run(["show", "--joules", uuid], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None
    return float(said.stdout) if said.returncode == 0 else None


def timed(name, f, runs=3, warm=2, tflop=0):
    for _ in range(warm):
        f()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times, begun, used = [], time.time(), joules()
    for _ in range(runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        f()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    times.sort()
    ms = times[len(times) // 2]
    more = {"tflops": round(tflop / ms * 1e3)} if tflop else {}
    if used is not None and time.time() - begun >= 1:  # the counter moves ten times a second
        more["joules"] = round((joules() - used) / runs, 2)
    tell(name, ms=round(ms, 2), least=round(times[0], 2), most=round(times[-1], 2), runs=runs,
         gib=round(torch.cuda.max_memory_allocated() / 2**30, 1), when=[round(begun, 2), round(time.time(), 2)], **more)
    return ms


def in_bf16(make):
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        made = make()
    torch.set_default_dtype(torch.float32)
    return made.to(torch.bfloat16)


def cudnn_attention_only():
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(True)


def transformer():
    from diffusers import CogVideoXTransformer3DModel

    return in_bf16(lambda: CogVideoXTransformer3DModel(
        num_attention_heads=48, attention_head_dim=64, in_channels=16, out_channels=16, num_layers=42,
        sample_width=90, sample_height=60, sample_frames=49, text_embed_dim=4096, time_embed_dim=512,
        use_rotary_positional_embeddings=True, use_learned_positional_embeddings=False))


def inputs(batch=1):
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    x = torch.randn(batch, 13, 16, 60, 90, device=DEVICE, dtype=torch.bfloat16)
    text = torch.randn(batch, 226, 4096, device=DEVICE, dtype=torch.bfloat16)
    rope = get_3d_rotary_pos_embed(64, ((0, 0), (30, 45)), (30, 45), 13, device=DEVICE)
    return x, text, torch.full((batch,), 500, device=DEVICE, dtype=torch.long), rope


def forward(m, batch):
    x, text, t, rope = inputs(batch)

    def run():
        with torch.no_grad():
            m(x, text, t, image_rotary_emb=rope, return_dict=False)

    return run


@section
def ceil():
    tell("gpu", device=torch.cuda.get_device_name(0), torch=torch.__version__, cudnn=torch.backends.cudnn.version())
    x = torch.randint(0, 255, (1 << 32,), dtype=torch.uint8, device=DEVICE)
    y = torch.empty_like(x)
    ms = timed("copy of 4 GiB", lambda: y.copy_(x))
    tell("copy", tbps=round(2 * x.numel() / ms / 1e9, 2))
    del x, y
    for m, k, n in [(8192, 8192, 8192), (TOKENS, WIDTH, WIDTH), (TOKENS, WIDTH, 4 * WIDTH), (TOKENS, 4 * WIDTH, WIDTH)]:
        a = torch.randn(m, k, device=DEVICE, dtype=torch.bfloat16)
        b = torch.randn(n, k, device=DEVICE, dtype=torch.bfloat16)
        timed(f"gemm_{m}x{k}x{n}", lambda: F.linear(a, b), 20, 5, 2e-12 * m * k * n)
    from torch.nn.attention import SDPBackend, sdpa_kernel
    flop = 4e-12 * TOKENS * TOKENS * WIDTH
    for name, backend in [("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)]:
        q, k, v = [torch.randn(1, 48, TOKENS, 64, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        with sdpa_kernel([backend]):
            with torch.no_grad():
                timed(f"attention_{name}_fwd", lambda: F.scaled_dot_product_attention(q, k, v), 10, 2, flop)
            o = F.scaled_dot_product_attention(q, k, v)
            g = torch.randn_like(o)
            timed(f"attention_{name}_bwd", lambda: torch.autograd.grad(o, (q, k, v), g, retain_graph=True), 10, 2, 2.5 * flop)


@section
def dit():
    m = transformer().eval()
    timed("dit_fwd_B1", forward(m, 1), 3, 2, 332)
    timed("dit_fwd_B2", forward(m, 2), 3, 2, 664)


@section
def compile():
    cudnn_attention_only()
    m = transformer().eval()
    for b in m.transformer_blocks:
        b.compile()
    timed("dit_fwd_B2_compiled", forward(m, 2), 3, 2, 664)


def training_step(m, name, checkpointing, runs=3):
    x, text, t, rope = inputs(1)
    m.enable_gradient_checkpointing() if checkpointing else m.disable_gradient_checkpointing()
    m.train()
    parameters = [p for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)

    def step():
        noise = torch.randn_like(x)
        s = torch.rand((), device=DEVICE).to(x.dtype)
        with torch.autocast("cuda", torch.bfloat16):
            out = m((1 - s) * x + s * noise, text, t, image_rotary_emb=rope, return_dict=False)[0]
        F.mse_loss(out.float(), (noise - x).float()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    timed(name, step, runs, 2, 1241 if checkpointing else 909)


def with_lora(m):
    from peft import LoraConfig

    m.requires_grad_(False)
    m.add_adapter(LoraConfig(r=16, lora_alpha=16, init_lora_weights=True, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    for p in m.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return m


@section
def train():
    m = with_lora(transformer())
    training_step(m, "train_checkpointing", True)
    training_step(m, "train", False)


@section
def best():
    """The strongest form found: compiled blocks, cuDNN attention, nothing computed again."""
    cudnn_attention_only()
    m = with_lora(transformer())
    for b in m.transformer_blocks:
        b.compile()
    training_step(m, "train_compiled", False)


@section
def repeatable():
    """The peer that repeats its bits: gradients are added in one order, above all those of attention."""
    torch.use_deterministic_algorithms(True)
    training_step(with_lora(transformer()), "train_repeatable", False)
    torch.use_deterministic_algorithms(False)


def autoencoder():
    from diffusers import AutoencoderKLCogVideoX

    return in_bf16(lambda: AutoencoderKLCogVideoX(
        in_channels=3, out_channels=3, block_out_channels=(128, 256, 256, 512), latent_channels=16,
        layers_per_block=3, temporal_compression_ratio=4, scaling_factor=0.7,
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4)).eval()


@section
def vae():
    v = autoencoder()
    x = torch.rand(1, 3, 49, 480, 720, device=DEVICE, dtype=torch.bfloat16) * 2 - 1
    z = torch.randn(1, 16, 13, 60, 90, device=DEVICE, dtype=torch.bfloat16)
    with torch.no_grad():
        for name, switch in [("whole", v.disable_tiling), ("tiled", v.enable_tiling)]:
            switch()
            timed(f"vae_enc_{name}", lambda: v.encode(x), 2, 1)
            timed(f"vae_dec_{name}", lambda: v.decode(z), 2, 1)


def text_encoder():
    from transformers import T5Config, T5EncoderModel

    return in_bf16(lambda: T5EncoderModel(T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False))).eval()


@section
def t5():
    m = text_encoder()
    with torch.no_grad():
        for batch in (1, 32):
            ids = torch.randint(0, 32000, (batch, 226), device=DEVICE)
            timed(f"t5_B{batch}", lambda: m(ids)[0], 5, 2, 2.1 * batch)


@section
def owl():
    """The nearest that transformers has: a ViT-L without the temporal convolutions, and LLaMA-7B's prefill."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    llama = in_bf16(lambda: LlamaForCausalLM(LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32))).eval()
    vit = in_bf16(lambda: CLIPVisionModel(CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=14))).eval()
    with torch.no_grad():
        images = torch.randn(32, 3, 224, 224, device=DEVICE, dtype=torch.bfloat16)
        timed("owl_vit32", lambda: vit(images), 5, 2)
        ids = torch.randint(0, 32000, (1, 180), device=DEVICE)
        timed("owl_prefill180", lambda: llama(ids), 5, 2)


@section
def pipeline():
    """One clip, from text to pixels: 50 DPM steps with guidance 6. Tokens are made up, so that no file is needed."""
    from diffusers import CogVideoXDPMScheduler, CogVideoXPipeline

    encoder = text_encoder()
    scheduler = CogVideoXDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", snr_shift_scale=1.0,
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing", set_alpha_to_one=True)
    p = CogVideoXPipeline(tokenizer=None, text_encoder=encoder, vae=autoencoder(), transformer=transformer(), scheduler=scheduler)
    p.set_progress_bar_config(disable=True)
    ids = torch.randint(0, 32000, (2, 226), device=DEVICE)

    def clip():
        with torch.no_grad():
            embeds = encoder(ids)[0]
            p(prompt=None, prompt_embeds=embeds[:1], negative_prompt_embeds=embeds[1:], num_frames=49, height=480,
              width=720, num_inference_steps=50, guidance_scale=6.0, output_type="pt")

    timed("clip", clip, 1, 0, 33200)


@section
def fp8():
    """Products of rows in FP8 with scales, beside BF16, and how far they are from the exact product."""
    calls = 20

    def rows(t):
        most = t.float().abs().amax(1, keepdim=True)
        return (t.float() * (448 / most)).to(torch.float8_e4m3fn), most / 448

    for wide, out in (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH):
        x, w, b = (torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) for shape in ((TOKENS, wide), (out, wide), (out,)))
        (xc, xs), (wc, ws) = rows(x), rows(w)
        name, tflop = f"{calls} calls, {TOKENS} rows, {wide} to {out}: ", 2e-12 * calls * TOKENS * wide * out

        def scaled():
            return torch._scaled_mm(xc, wc.T, xs, ws.T, bias=b, out_dtype=torch.bfloat16)

        timed(name + "BF16", lambda: [F.linear(x, w, b) for _ in range(calls)], 7, 2, tflop)
        timed(name + "FP8", lambda: [scaled() for _ in range(calls)], 7, 2, tflop)
        exact = x[:512].double() @ w.double().T + b.double()
        tell(name + "error", fp8=((scaled()[:512] - exact).norm() / exact.norm()).item())


def run(names):
    """One section after the other; the others run when one fails."""
    torch.manual_seed(42)
    for name in names:
        try:
            SECTIONS[name]()
        except Exception:
            traceback.print_exc()
            tell(f"{name} failed")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    run(sys.argv[1:])
