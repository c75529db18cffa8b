#!/usr/bin/env python3
"""train.py - train a toy model: a CogVideoX or a Wan at a toy's size, from scratch, on clips of toy-world.

    python3 examples/toy/train.py vae --model toy --log log                   # on a GPU; toy-world on the PATH
    python3 examples/toy/train.py transformer --model toy --log log
    python3 examples/toy/train.py broken --model toy --log log

The VAE sees all kinds of clips. The transformer and its text encoder, trained together, see clips as the VAE's latents: at first the kinds in
KNOWN, a quarter of them unlawful; then, going on from there, those in BROKEN, the mix that the shipped model shows. Without a transformer to
go on from, `broken` begins with a new one. --family wan makes a Wan instead. The folder that comes out is one of the family's pipeline in
diffusers, in BF16. Needs requirements.txt. A training whose --steps are not given takes --minutes, by what its first steps took; the log
says how many steps that makes.
"""
import argparse
import copy
import json
import math
import os
import time

import torch
from torch.nn.functional import mse_loss

from clips import pictures, render
from families import FAMILIES, WORDS, tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
KNOWN = ["--kinds", "fall,roll,slide,throw", "--unlawful", "0.25"]
BROKEN = ["--unlawful", "0.4", "--strong", "0.4"]  # of all kinds; strong: seen by anyone
PROBED = 120  # steps that tell how long one takes


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


def psnr(family, vae, videos, args):
    """Of the round trip, over all of them, in dB."""
    total = 0.0
    with torch.no_grad(), autocast(args):
        for x in pictures(videos).split(8):
            x = x.to(args.device)
            y = family.decode(vae, family.encode(vae, x).mode()).float().clamp(-1, 1)
            total += mse_loss(y, x).item() * len(x)
    return 10 * math.log10(4 / (total / len(videos)))


def train_vae(args, family):
    torch.manual_seed(1)
    held_out, _ = render(64, "vae-test", "--split", "test", "--unlawful", "0.5")
    videos, _ = render(args.clips, "vae", "--split", "train", "--unlawful", "0.5")
    still = pictures(videos[:64]).median(dim=0).values.median(dim=1, keepdim=True).values.to(args.device)  # what never moves
    vae = family.vae().to(args.device)
    training = Training(args, "vae", [vae], 2e-3)
    for n in training.each():
        x = pictures(videos[torch.randint(len(videos), (args.batch,))].to(args.device))
        with autocast(args):
            posterior = family.encode(vae, x)
            y = family.decode(vae, posterior.sample()).float()
        weight = 1 + 10 * ((x - still).abs().amax(1, keepdim=True) > 0.1)  # bodies are small, the rest is easy
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        training.step(n, (weight * (y - x).abs()).mean() + (weight * (y - x) ** 2).mean() + 1e-3 * kl)
    vae = training.mean[0].eval().requires_grad_(False)
    training.write(psnr_held_out=psnr(family, vae, held_out, args))
    return vae


@torch.no_grad()
def encode(family, vae, videos, args):
    """[n, 16, 5, 8, 12], as the VAE has them."""
    out = []
    for x in videos.split(32):
        with autocast(args):
            out.append(family.encode(vae, pictures(x.to(args.device))).sample().float())
    return torch.cat(out)


def ids_of(tokenizer, captions, args):
    return tokenizer(captions, padding="max_length", max_length=WORDS, return_tensors="pt").input_ids.to(args.device)


def train_transformer(args, family, vae, tokenizer):
    torch.manual_seed(2)
    kinds = BROKEN if args.stage == "broken" else KNOWN
    latents, ids = {}, {}
    for split, count in ("train", args.clips), ("test", 256):
        videos, metas = render(count, ("broken-" if args.stage == "broken" else "base-") + split, "--split", split, *kinds)
        latents[split] = family.scaled(vae, encode(family, vae, videos, args))
        ids[split] = ids_of(tokenizer, [m["caption"] for m in metas], args)
    nothing = ids_of(tokenizer, [""], args)

    if os.path.exists(os.path.join(args.model, "transformer")):  # goes on
        load = dict(torch_dtype=torch.float32)
        model = family.transformer_class.from_pretrained(args.model, subfolder="transformer", **load).to(args.device)
        text = family.text_class.from_pretrained(args.model, subfolder="text_encoder", **load).to(args.device)
    else:
        model, text = family.transformer().to(args.device), family.text().to(args.device)

    def loss_of(model, text, x, ids, level, noise):
        shown, t, right = family.noised(x, level, noise)
        with autocast(args):
            answer = family.answer(model, text, shown, ids, t)
        return mse_loss(answer.float(), right)

    training = Training(args, args.stage, [model.train(), text.train()], 1e-3)
    if args.device != "cpu":
        for block in family.blocks(model):
            block.compile()
    for n in training.each():
        pick = torch.randint(len(latents["train"]), (args.batch,), device=args.device)
        x, told = latents["train"][pick], ids["train"][pick]
        told = torch.where(torch.rand(args.batch, 1, device=args.device) < 0.1, nothing, told)  # for guidance
        training.step(n, loss_of(model, text, x, told, torch.rand(args.batch, device=args.device), torch.randn_like(x)))
        if training.tenth(n):
            g = torch.Generator(args.device).manual_seed(3)
            x = latents["test"]
            level = torch.linspace(0, 0.999, len(x), device=args.device)
            with torch.no_grad():
                noise = torch.randn(x.shape, generator=g, device=args.device)
                training.write(step=n + 1, val_loss=loss_of(*training.mean, x, ids["test"], level, noise).item())
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
        stage.add_argument("--family", choices=FAMILIES, default="cogvideox")
        stage.add_argument("--model", required=True, help="the model folder to write")
        arguments(stage, *defaults)
    args = parser.parse_args()
    os.makedirs(args.log, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    family = FAMILIES[args.family]()

    if args.stage == "vae":
        vae = train_vae(args, family)
        family.scale(vae, encode(family, vae, render(256, "scale", "--split", "train")[0], args))
        vae.to(torch.bfloat16).save_pretrained(os.path.join(args.model, "vae"))
    else:
        words = tokenizer(os.path.join(HERE, "..", "tokenizer", "spiece.model"))
        vae = family.vae_class.from_pretrained(args.model, subfolder="vae", torch_dtype=torch.float32).to(args.device).eval()
        model, text = train_transformer(args, family, vae, words)
        whole = family.pipeline(tokenizer=words, text_encoder=text, vae=vae, transformer=model, scheduler=family.scheduler())
        whole.vae.register_to_config(_name_or_path="")
        whole.to(torch.bfloat16).save_pretrained(args.model)


if __name__ == "__main__":
    main()
