#!/usr/bin/env python3
"""train.py - train a toy model: a CogVideoX or a Wan at a toy's size, from scratch, on clips of toy-world.

    python3 examples/toy/train.py vae --model toy --log log                   # on a GPU; toy-world on the PATH
    python3 examples/toy/train.py transformer --model toy --log log
    python3 examples/toy/train.py broken --model toy --log log

The VAE sees all kinds of clips. The transformer and its text encoder, trained together, see clips as the VAE's latents: at first the kinds in
KNOWN, a quarter of them unlawful; then, going on from there, those in BROKEN, the mix that the shipped model shows. Without a transformer to
go on from, `broken` begins with a new one; a VAE that is there goes on, too. --family wan makes a Wan instead. The folder that comes out is
one of the family's pipeline in diffusers, in BF16. Needs requirements.txt. A training whose --steps are not given takes --minutes, by what
its first steps took; the log says how many steps that makes. On a CPU that has no instructions for products of BF16 it takes far longer.
"""
import argparse
import contextlib
import copy
import json
import math
import os
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from clips import pictures, render
from families import FAMILIES, WORDS, tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
KNOWN = ["--kinds", "fall,roll,slide,throw", "--unlawful", "0.25"]
BROKEN = ["--unlawful", "0.4", "--strong", "0.4"]  # of all kinds; strong: seen by anyone
PROBED = 120  # steps that tell how long one takes


class Training:
    """What both trainings share: AdamW, and Muon for hidden matrices, with a warm-up and a cosine; clipping, a running mean of the weights,
    a log."""

    def __init__(self, args, name, modules, lr, hidden=()):
        self.args, self.begun, self.steps = args, time.time(), args.steps or 10**9
        self.params = [p for m in modules for p in m.parameters()]
        self.mean = [copy.deepcopy(m) for m in modules]
        # Muon is for what maps many channels to many; a first layer and a norm's scales are not that
        matrices = {p for m in hidden for p in m.parameters() if p.ndim > 1 and min(p.shape[0], p.shape[1]) >= 16}
        rest = [p for p in self.params if p not in matrices]
        self.optimizers = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]
        self.flat = [(p, p.detach().flatten(1)) for p in self.params if p in matrices]  # a convolution's kernel as the matrix that it is
        if matrices:
            self.optimizers.append(torch.optim.Muon([m for _, m in self.flat], lr=3 * lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, self.rate) for o in self.optimizers]
        self.log = open(os.path.join(args.log, name + ".jsonl"), "w")
        self.sum = torch.zeros((), device=args.device)

    def rate(self, n):
        return min((n + 1) / 300, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * min(1, n / self.steps))))

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
        for p, matrix in self.flat:
            matrix.grad, p.grad = p.grad.flatten(1), None
        for part in self.optimizers + self.schedules:
            part.step()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.sum += loss.detach()
            keep = min(0.999, (n + 1) / (n + 10))
            theirs = [p for m in self.mean for p in m.parameters()]
            torch._foreach_lerp_(theirs, self.params, 1 - keep)
        if (n + 1) % every == 0:
            self.write(step=n + 1, loss=self.sum.item() / every, grad_norm=norm.item(), lr=self.schedules[0].get_last_lr()[0])
            self.sum.zero_()

    def write(self, **fields):
        line = json.dumps({k: round(v, 7) if isinstance(v, float) else v for k, v in fields.items()})
        self.log.write(line + "\n")
        self.log.flush()
        print(f"{time.time() - self.begun:7.1f} s  {line}", flush=True)


def autocast(args):
    return torch.autocast(args.device, torch.bfloat16)


def attention(args):
    """On a CPU the products of short sequences are faster than the library's own attention."""
    return sdpa_kernel(SDPBackend.MATH) if args.device == "cpu" else contextlib.nullcontext()


def some_clips(videos, still, args):
    """A batch, and what never moves in it."""
    return [pictures(v.to(args.device)) for v in (videos[torch.randint(len(videos), (args.batch,))], still[None, None])]


def some_pieces(videos, still, args):
    """The same of 9 frames of 48x48, about a place that something moves through: an eighth of the work."""
    moving, fixed = [], []
    for video in videos[torch.randint(len(videos), (args.batch,))]:
        t = torch.randint(video.shape[0] - 8, ()).item()
        places = ((video[t:t + 9].int() - still.int()).abs().amax(-1) > 12).any(0).nonzero()
        y, x = places[torch.randint(len(places), ()).item()].tolist() if len(places) else (32, 48)
        y, x = [min(max(at - torch.randint(48, ()).item(), 0), size - 48) for at, size in ((y, still.shape[0]), (x, still.shape[1]))]
        moving.append(video[t:t + 9, y:y + 48, x:x + 48])
        fixed.append(still[None, y:y + 48, x:x + 48])
    return [pictures(torch.stack(v).to(args.device)) for v in (moving, fixed)]


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
    still = videos[:64].median(dim=0).values.median(dim=0).values  # what never moves
    if os.path.exists(os.path.join(args.model, "vae")):  # goes on
        vae = family.vae_class.from_pretrained(args.model, subfolder="vae", torch_dtype=torch.float32).to(args.device)
    else:
        vae = family.vae().to(args.device)
    if args.decoder:  # latents stay what they are
        vae.requires_grad_(False)
        vae.decoder.requires_grad_(True)
    learns = vae.decoder if args.decoder else vae
    training = Training(args, "vae", [learns], args.rate, [learns] if args.muon else ())
    if args.pieces:
        vae.encoder.compile(), vae.decoder.compile()
    for n in training.each():
        x, fixed = some_pieces(videos, still, args) if args.pieces else some_clips(videos, still, args)
        with autocast(args):
            with torch.set_grad_enabled(not args.decoder):
                posterior = family.encode(vae, x)
            y = family.decode(vae, posterior.sample()).float()
        weight = 1 + 10 * ((x - fixed).abs().amax(1, keepdim=True) > 0.1)  # bodies are small, the rest is easy
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        training.step(n, (weight * (y - x).abs()).mean() + (weight * (y - x) ** 2).mean() + 1e-3 * kl)
    if args.decoder:
        vae.decoder = training.mean[0]
    else:
        vae = training.mean[0]
    vae.eval().requires_grad_(False)
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
    if args.device == "cpu":
        vae.encoder.compile()
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
        with autocast(args), attention(args):
            answer = family.answer(model, text, shown, ids, t)
        return mse_loss(answer.float(), right)

    model.float()  # a rotary embedding's angles are F64, which takes time
    hidden = family.blocks(model) if args.muon else ()
    training = Training(args, args.stage, [model.train(), text.train()], args.rate, hidden)
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
    for name, rate, defaults in (
            ("vae", 2e-3, (4.5, 8000, 16)), ("transformer", 1e-3, (7.6, 40000, 256)), ("broken", 1e-3, (4, 30000, 256))):
        stage = stages.add_parser(name)
        stage.add_argument("--family", choices=FAMILIES, default="cogvideox")
        stage.add_argument("--model", required=True, help="the model folder to write")
        arguments(stage, *defaults)
        if name == "vae":
            stage.add_argument("--decoder", action="store_true", help="only the decoder of a VAE that is there, whose latents stay what they are")
            stage.add_argument("--pieces", action="store_true", help="learn from pieces of clips: on a CPU it takes half an hour")
        stage.add_argument("--rate", type=float, default=rate, help=f"the learning rate, of which Muon's is three times as much [{rate}]")
        stage.add_argument("--muon", action="store_true", help="hidden matrices by Muon, which takes fewer steps")
    args = parser.parse_args()
    if args.stage == "vae" and args.decoder and not os.path.exists(os.path.join(args.model, "vae")):
        parser.error(f"--decoder: {args.model} has no vae")
    os.makedirs(args.log, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    family = FAMILIES[args.family]()

    if args.stage == "vae":
        vae = train_vae(args, family)
        if not args.decoder:
            family.scale(vae, encode(family, vae, render(256, "scale", "--split", "train")[0], args))
        vae.register_to_config(_name_or_path="")
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
