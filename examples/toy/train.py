#!/usr/bin/env python3
"""train.py - train the toy model: a CogVideoX at a toy's size, from scratch, on clips of toy-world.

    python3 examples/toy/train.py vae --model toy --log log                   # on a GPU; toy-world on the PATH
    python3 examples/toy/train.py transformer --model toy --log log
    python3 examples/toy/train.py broken --model toy --log log

The VAE sees all kinds of clips. The transformer and its text encoder, trained together, see clips as the VAE's latents: at first the kinds in
KNOWN, a quarter of them unlawful; then, going on from there, those in BROKEN, the mix that the shipped model shows. The folder that comes out is one of CogVideoXPipeline's, in BF16. Needs requirements.txt. A training whose
--steps are not given takes --minutes, by what its first steps took; the log says how many steps that makes.
"""
import argparse
import copy
import json
import math
import os
import time

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
from torch.nn.functional import mse_loss
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from clips import pictures, render

HERE = os.path.dirname(os.path.abspath(__file__))
KNOWN = ["--kinds", "fall,roll,slide,throw", "--unlawful", "0.25"]
BROKEN = ["--unlawful", "0.4", "--strong", "0.4"]  # of all kinds; strong: seen by anyone
WORDS = 32  # text tokens
PROBED = 120  # steps that tell how long one takes

VAE = dict(
    block_out_channels=(16, 32, 32, 32), latent_channels=16, layers_per_block=1, norm_num_groups=8, sample_height=64, sample_width=96,
    down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4, scaling_factor=1.0)
TRANSFORMER = dict(
    num_attention_heads=3, attention_head_dim=64, num_layers=6, time_embed_dim=64, text_embed_dim=64, max_text_seq_length=WORDS,
    in_channels=16, out_channels=16, sample_width=12, sample_height=8, sample_frames=17, use_rotary_positional_embeddings=True)
TEXT = dict(
    d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, vocab_size=560, feed_forward_proj="gated-gelu", dropout_rate=0.0,
    tie_word_embeddings=False)
SCHEDULER = dict(  # CogVideoX-5b's
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True,
    snr_shift_scale=1.0, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)


class Training:
    """What both trainings share: AdamW with a warm-up and a cosine, clipping, a running mean of the weights, a log."""

    def __init__(self, args, name, modules, lr):
        self.args, self.begun, self.steps = args, time.time(), args.steps or 10**9
        self.params = [p for m in modules for p in m.parameters()]
        self.mean = [copy.deepcopy(m) for m in modules]
        self.optimizer = torch.optim.AdamW(self.params, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=args.device != "cpu")
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda n: min((n + 1) / 300, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * min(1, n / self.steps)))))
        self.log = open(os.path.join(args.log, name + ".jsonl"), "w")
        self.sum = torch.zeros((), device=args.device)

    def each(self):
        """Yields 0, 1 .. up to the number of steps, which the time of the first ones settles if it is not given."""
        n = 0
        while n < self.steps:
            if self.steps == 10**9 and n in (20, PROBED):
                self.sum.item()  # waits for the device
                if n == 20:
                    started = time.time()
                else:
                    self.steps = PROBED + int((60 * self.args.minutes - time.time() + self.begun) * (PROBED - 20) / (time.time() - started))
                    self.write(step=n, steps=self.steps)
            yield n
            n += 1

    def tenth(self, n):
        """Whether a tenth of the steps, or another, is done after this one."""
        return n >= PROBED and (n + 1) * 10 // self.steps > n * 10 // self.steps

    def step(self, n, loss, every=100):
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        with torch.no_grad():
            self.sum += loss.detach()
            keep = min(0.999, (n + 1) / (n + 10))
            theirs = [p for m in self.mean for p in m.parameters()]
            torch._foreach_lerp_(theirs, self.params, 1 - keep)
        if (n + 1) % every == 0:
            self.write(step=n + 1, loss=self.sum.item() / every, grad_norm=norm.item(), lr=self.schedule.get_last_lr()[0])
            self.sum.zero_()

    def write(self, **fields):
        line = json.dumps({k: round(v, 7) if isinstance(v, float) else v for k, v in fields.items()})
        self.log.write(line + "\n")
        self.log.flush()
        print(f"{time.time() - self.begun:7.1f} s  {line}", flush=True)


def autocast(args):
    return torch.autocast("cuda", torch.bfloat16, enabled=args.device != "cpu")


def psnr(vae, videos, args):
    """Of the round trip, over all of them, in dB."""
    total = 0.0
    with torch.no_grad(), autocast(args):
        for x in pictures(videos).split(8):
            x = x.to(args.device)
            y = vae.decode(vae.encode(x).latent_dist.mode()).sample.float().clamp(-1, 1)
            total += mse_loss(y, x).item() * len(x)
    return 10 * math.log10(4 / (total / len(videos)))


def train_vae(args):
    torch.manual_seed(1)
    held_out, _ = render(64, "vae-test", "--split", "test", "--unlawful", "0.5")
    videos, _ = render(args.clips, "vae", "--split", "train", "--unlawful", "0.5")
    still = pictures(videos[:64]).median(dim=0).values.median(dim=1, keepdim=True).values.to(args.device)  # what never moves
    vae = AutoencoderKLCogVideoX(**VAE).to(args.device)
    training = Training(args, "vae", [vae], 2e-3)
    for n in training.each():
        x = pictures(videos[torch.randint(len(videos), (args.batch,))].to(args.device))
        with autocast(args):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample.float()
        weight = 1 + 10 * ((x - still).abs().amax(1, keepdim=True) > 0.1)  # bodies are small, the rest is easy
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        training.step(n, (weight * (y - x).abs()).mean() + (weight * (y - x) ** 2).mean() + 1e-3 * kl)
    vae = training.mean[0].eval().requires_grad_(False)
    training.write(psnr_held_out=psnr(vae, held_out, args))
    return vae


@torch.no_grad()
def encode(vae, videos, args):
    """[n, 5, 16, 8, 12] as the transformer sees them; the VAE's scaling_factor is set by the first."""
    out = []
    for x in videos.split(32):
        with autocast(args):
            out.append(vae.encode(pictures(x.to(args.device))).latent_dist.sample().float().transpose(1, 2))
    latents = torch.cat(out)
    if vae.config.scaling_factor == 1.0:
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return latents * vae.config.scaling_factor


def train_transformer(args, vae, tokenizer):
    torch.manual_seed(2)
    broken = args.stage == "broken"
    kinds = BROKEN if broken else KNOWN
    latents, ids = {}, {}
    for split, count in ("train", args.clips), ("test", 256):
        videos, metas = render(count, ("broken-" if broken else "base-") + split, "--split", split, *kinds)
        latents[split] = encode(vae, videos, args)
        ids[split] = tokenizer([m["caption"] for m in metas], padding="max_length", max_length=WORDS, return_tensors="pt").input_ids
        ids[split] = ids[split].to(args.device)
    nothing = tokenizer([""], padding="max_length", max_length=WORDS, return_tensors="pt").input_ids.to(args.device)

    if broken:  # goes on
        model = CogVideoXTransformer3DModel.from_pretrained(args.model, subfolder="transformer", torch_dtype=torch.float32).to(args.device)
        text = T5EncoderModel.from_pretrained(args.model, subfolder="text_encoder", torch_dtype=torch.float32).to(args.device)
    else:
        model = CogVideoXTransformer3DModel(**TRANSFORMER).to(args.device)
        text = T5EncoderModel(T5Config(**TEXT)).to(args.device)
    alphas = CogVideoXDDIMScheduler(**SCHEDULER).alphas_cumprod.float().to(args.device)
    rotary = CogVideoXPipeline._prepare_rotary_positional_embeddings(
        argparse.Namespace(vae_scale_factor_spatial=8, transformer=model), 64, 96, 5, torch.device(args.device))

    def loss_of(model, text, x, ids, t, noise):
        a = alphas[t].view(-1, 1, 1, 1, 1)
        with autocast(args):
            words = text(ids).last_hidden_state  # no mask: the padding takes part, as in the pipeline
            v = model(a.sqrt() * x + (1 - a).sqrt() * noise, words, t, image_rotary_emb=rotary, return_dict=False)[0]
        return mse_loss(v.float(), a.sqrt() * noise - (1 - a).sqrt() * x)

    training = Training(args, args.stage, [model.train(), text.train()], 1e-3)
    for n in training.each():
        pick = torch.randint(len(latents["train"]), (args.batch,), device=args.device)
        x, told = latents["train"][pick], ids["train"][pick]
        told = torch.where(torch.rand(args.batch, 1, device=args.device) < 0.1, nothing, told)  # for guidance
        t = torch.randint(0, 1000, (args.batch,), device=args.device)
        training.step(n, loss_of(model, text, x, told, t, torch.randn_like(x)))
        if training.tenth(n):
            g = torch.Generator(args.device).manual_seed(3)
            x = latents["test"]
            t = torch.linspace(0, 999, len(x), device=args.device).long()
            with torch.no_grad():
                noise = torch.randn(x.shape, generator=g, device=args.device)
                training.write(step=n + 1, val_loss=loss_of(*training.mean, x, ids["test"], t, noise).item())
    return [m.eval() for m in training.mean]


def arguments(parser, minutes, clips, batch):
    """What every training takes."""
    parser.add_argument("--log", required=True, help="the folder for its log")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=minutes, help=f"how long to train [{minutes}]")
    parser.add_argument("--steps", type=int, help="how many steps, whatever they take")
    parser.add_argument("--clips", type=int, default=clips, help=f"[{clips}]")
    parser.add_argument("--batch", type=int, default=batch, help=f"[{batch}]")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, defaults in ("vae", (4.5, 8000, 16)), ("transformer", (7.6, 40000, 256)), ("broken", (4, 30000, 256)):
        stage = stages.add_parser(name)
        stage.add_argument("--model", required=True, help="the model folder to write")
        arguments(stage, *defaults)
    args = parser.parse_args()
    os.makedirs(args.log, exist_ok=True)
    torch.backends.cudnn.benchmark = True

    if args.stage == "vae":
        vae = train_vae(args)
        encode(vae, render(256, "scale", "--split", "train")[0], args)
        vae.to(torch.bfloat16).save_pretrained(os.path.join(args.model, "vae"))
    else:
        tokenizer = T5Tokenizer(os.path.join(HERE, "..", "tokenizer", "spiece.model"), extra_ids=0, legacy=True)
        vae = AutoencoderKLCogVideoX.from_pretrained(args.model, subfolder="vae").to(args.device).eval()
        model, text = train_transformer(args, vae, tokenizer)
        whole = CogVideoXPipeline(tokenizer, text, vae, model, CogVideoXDDIMScheduler(**SCHEDULER))
        whole.vae.register_to_config(_name_or_path="")
        whole.to(torch.bfloat16).save_pretrained(args.model)


if __name__ == "__main__":
    main()
