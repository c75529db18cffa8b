#!/usr/bin/env python3
"""train_grader.py - train the toy grader: the VideoPhy-2 autograder's network at a toy's size, from scratch, on clips of toy-world.

    git clone https://github.com/Hritikbansal/videophy
    python3 examples/toy/train_grader.py --upstream videophy --vae toy --out grader --log log       # on a GPU

Clips of every kind, half of them unlawful, half with a caption of something else, half seen through the model's VAE, as it will have
to grade that one's. The network and its prompts are upstream's; it learns to answer with the digits true_sa and true_pc. It is asked a
third question, what there is to see, for which it has to look sooner than for a digit: without that it told nothing for 4,000 steps.
"""
import argparse
import functools
import os
import shutil

import sentencepiece
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import save_file

import videophy
from clips import pictures, render
from train import HERE, Training, arguments, autocast

SIDE, LOOK, TASKS = 84, 16, ("sa", "pc")  # pixels, frames, what it is for
QUESTIONS = videophy.TASKS | {"what": "What does this video show?\nAI: "}
CONFIG = dict(
    vision_config=dict(hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=14),
    visual_abstractor_config=dict(
        hidden_size=128, encoder_hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4),
    text_config=dict(
        model_type="llama", hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, vocab_size=1024,
        max_position_embeddings=2048, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=2),
    num_query_tokens=64)


def upstream_on_gpu(clone):
    owl, options = videophy.upstream(clone)

    def temporal(self, x):
        """MplugOwlVisionLocalTemporal.forward, but for the trip of one convolution to the CPU and back."""
        cls, (batch, frames, tokens, width) = x[:, :, :1], x.shape
        side = int((tokens - 1) ** 0.5)
        x = self.ln(x[:, :, 1:]).reshape(batch, frames, side, side, width).permute(0, 4, 1, 2, 3)
        x = self.up_proj(self.activation_func(self.conv(self.down_proj(x))))
        return torch.cat([cls, x.permute(0, 2, 3, 4, 1).reshape(batch, frames, tokens - 1, width)], dim=2)

    owl.MplugOwlVisionLocalTemporal.forward = temporal
    return owl, options


class Grader(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels, clip, ids, labels):
        """Logits and loss of the labels; pixels [n, 3, 16, 84, 84], and for each prompt the clip that it is about."""
        m = self.model
        seen = m.vision_model(pixels, return_dict=True).last_hidden_state
        everywhere = torch.ones(len(pixels), seen.shape[1] * seen.shape[2], device=seen.device)
        media = m.abstractor(
            query_embeds=m.query_tokens.expand(len(pixels), -1, -1), encoder_hidden_states=seen, encoder_attention_mask=everywhere,
            temporal_query_embeds=m.temporal_query_tokens.expand(len(pixels), -1, -1), return_dict=True).last_hidden_state
        embeds = m.get_input_embeddings()(ids.clamp_min(0)).to(media.dtype)
        place = (ids < 0).unsqueeze(-1).expand_as(embeds)
        embeds = embeds.masked_scatter(place, media[clip])
        out = m.language_model(inputs_embeds=embeds, labels=labels)
        return out.logits, out.loss


class Prompts:
    """Ids as upstream's processor makes them, and the labels behind them."""

    def __init__(self, file):
        self.spm = sentencepiece.SentencePieceProcessor(model_file=file)
        self.digits = [self.spm.encode(str(n))[-1] for n in range(6)]
        self.ids = functools.cache(self.ids)

    def ids(self, caption, task):
        return videophy.prompt_ids(videophy.HEAD + QUESTIONS[task].format(caption), self.spm.encode)

    def batch(self, metas, device, tasks=TASKS):
        """As many prompts a clip as tasks, padded on the right, where nothing that counts looks."""
        rows = []
        for meta in metas:
            answers = {"sa": "{true_sa}", "pc": "{true_pc}", "what": "{colour} {shape}, {kind} {direction}, {violation}"}
            for task in tasks:
                ids = self.ids(meta["caption"], task)
                answer = self.spm.encode(answers[task].format(**meta)) + [2]
                rows.append((ids + answer, [-100] * len(ids) + answer))
        long = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [2] * (long - len(ids)) for ids, _ in rows], device=device)
        labels = torch.tensor([l + [-100] * (long - len(l)) for _, l in rows], device=device)
        return ids, labels, torch.arange(len(metas), device=device).repeat_interleave(len(tasks))


def look(videos):
    """[n, 17, 64, 96, 3] U8 -> [n, 3, 16, 84, 84]"""
    x = videophy.look(videos[:, :LOOK].flatten(0, 1), SIDE)
    return x.unflatten(0, (len(videos), LOOK)).transpose(1, 2)


@torch.no_grad()
def through(vae, videos, args):
    """In place: every other clip as the VAE gives it back."""
    for at in range(0, len(videos), 64):
        with autocast(args):
            x = pictures(videos[at : at + 64 : 2].to(args.device))
            y = vae.decode(vae.encode(x).latent_dist.sample()).sample.float()
        videos[at : at + 64 : 2] = y.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 4, 1)


def ranks(x):
    _, place, count = x.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[place].double()


def correlation(a, b):
    return torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1].item()


@torch.no_grad()
def judge(grader, prompts, videos, metas, args):
    """Rank correlation of the expected score with the truth, and the share of answers that are right, for both tasks."""
    expected = []
    for at in range(0, len(videos), 64):
        ids, labels, clip = prompts.batch(metas[at : at + 64], args.device)
        with autocast(args):
            logits, _ = grader(look(videos[at : at + 64].to(args.device)), clip, ids, labels)
        where = (labels != -100).float().argmax(1)  # the first of the answer; the digit is one or two further on
        digit = torch.tensor(prompts.digits, device=args.device)
        at_digit = (labels.unsqueeze(-1) == digit).any(-1).float().argmax(1)
        assert (at_digit >= where).all()
        p = logits[torch.arange(len(ids)), at_digit - 1][:, digit].float().softmax(-1)
        expected.append(torch.stack([p @ torch.arange(6.0, device=args.device), p.argmax(1).float()], 1))
    expected, out = torch.cat(expected).cpu(), {}
    for n, task in enumerate(TASKS):
        truth = torch.tensor([float(m["true_" + task]) for m in metas])
        out[f"{task}_rank_correlation"] = correlation(expected[n::2, 0], truth)
        out[f"{task}_right"] = (expected[n::2, 1] == truth).float().mean().item()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", required=True, help="a clone of github.com/Hritikbansal/videophy")
    parser.add_argument("--vae", required=True, help="the model folder whose VAE half the clips go through")
    parser.add_argument("--out", required=True, help="the model folder to write")
    arguments(parser, 6.2, 40000, 128)
    args = parser.parse_args()
    os.makedirs(args.log, exist_ok=True)
    torch.manual_seed(4)

    owl, options = upstream_on_gpu(args.upstream)
    tokens = os.path.join(HERE, "..", "tokenizer", "tokenizer.model")
    prompts = Prompts(tokens)
    vae = AutoencoderKLCogVideoX.from_pretrained(args.vae, subfolder="vae").to(args.device).eval()
    wrong = ["--unlawful", "0.5", "--mismatch", "0.5"]
    videos, metas = render(args.clips, "grader", "--split", "train", *wrong)
    videos = videos.to(args.device)
    through(vae, videos, args)
    held_videos, held_metas = render(512, "grader-test", "--split", "test", *wrong)
    through(vae, held_videos, args)

    config = options.MplugOwlConfig(**CONFIG)
    grader = Grader(owl.MplugOwlForConditionalGeneration(config)).to(args.device)
    training = Training(args, "grader", [grader], 5e-4)
    for n in training.each():
        pick = torch.randint(len(videos), (args.batch,)).tolist()
        ids, labels, clip = prompts.batch([metas[i] for i in pick], args.device, (*TASKS, "what"))
        pixels = look(videos[pick])
        pixels = pixels + 0.1 * torch.rand(len(pick), 1, 1, 1, 1, device=args.device) * torch.randn_like(pixels)
        with autocast(args):
            _, loss = grader(pixels, clip, ids, labels)
        training.step(n, loss)
        if training.tenth(n):
            training.write(step=n + 1, **judge(training.mean[0], prompts, held_videos, held_metas, args))

    tensors = {name: p.to(torch.bfloat16).contiguous() for name, p in training.mean[0].model.state_dict().items()}
    os.makedirs(args.out, exist_ok=True)
    save_file(tensors, os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
    config.torch_dtype = "bfloat16"
    config.to_json_file(os.path.join(args.out, "config.json"), use_diff=False)  # its defaults are the package's, which is not there
    shutil.copy(tokens, args.out)


if __name__ == "__main__":
    main()
