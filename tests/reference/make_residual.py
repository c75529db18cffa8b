# Makes residual/ and wan/residual/: the latents that CogVideoXPipeline and WanPipeline give, for the networks of sample/ and wan/h20, when the
# blocks of the network run at some steps only and what they added the last time is added at the others, for each half of guidance by itself;
# and when guidance is left out at some steps. diffusers knows neither: the rule stands here.
import os

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging
from safetensors.torch import load_file

import make_sample, make_wan_sample
from common import Cases, DATA, randn

COGVIDEOX = {**make_sample.BASE, "scheduler": "dpm", "steps": 8, "seed": 42, "brought": False}
WAN = {**make_wan_sample.BASE, "steps": 8}
CASES = {
    "residual": [
        {**COGVIDEOX, "compute_steps": "0-1,3,6-7", "computed": [0, 1, 3, 6, 7]},
        {**COGVIDEOX, "steps": 10, "frames": 5, "guidance": 1.0, "compute_steps": "4", "computed": [0, 3, 6, 9]},
        {**COGVIDEOX, "compute_steps": "0,2-3,5", "computed": [0, 2, 3, 5], "guidance_steps": "2-6", "guided": [2, 6]},
        {**make_sample.BASE, "steps": 5, "guidance_steps": "0-1", "guided": [0, 1]},
    ],
    "wan/residual": [
        {**WAN, "compute_steps": "0-1,3,6-7", "computed": [0, 1, 3, 6, 7]},
        {**WAN, "steps": 6, "guidance": 1.0, "compute_steps": "1", "computed": [0]},
        {**WAN, "frames": 5, "compute_steps": "0,2-3,5", "computed": [0, 2, 3, 5], "guidance_steps": "2-6", "guided": [2, 6]},
    ],
}


class Blocks(torch.nn.Module):
    """All blocks of a network in the place of one."""

    def __init__(self, blocks, run):
        super().__init__()
        self.blocks, self.run, self.added = blocks, run, {}

    def forward(self, hidden_states, encoder_hidden_states, *rest, **named):
        if self.run.computes():
            x, text = hidden_states, encoder_hidden_states
            for block in self.blocks:
                out = block(x, text, *rest, **named)
                x, text = out if isinstance(out, tuple) else (out, text)
            self.added[self.run.half()] = x - hidden_states
            return (x, text) if isinstance(out, tuple) else x
        x = hidden_states + self.added[self.run.half()]
        return (x, encoder_hidden_states) if self.run.pairs else x


class Run:
    """Counts the calls of a transformer during one run. pairs: both halves of guidance come in one call, the negative one first."""

    def __init__(self, transformer, name, pairs):
        self.transformer, self.pairs, self.name, self.plain = transformer, pairs, name, getattr(transformer, name)
        self.forward = transformer.forward
        transformer.forward = self.answer

    def start(self, case):
        self.case, self.calls, self.each = case, 0, 1 if self.pairs or case["guidance"] <= 1 else 2
        setattr(self.transformer, self.name, torch.nn.ModuleList([Blocks(self.plain, self)]))

    def step(self):
        return self.calls // self.each

    def half(self):
        return self.calls % self.each

    def computes(self):
        return self.step() in self.case.get("computed", range(self.case["steps"]))

    def answer(self, *args, **named):
        out = self.forward(*args, **named)[0]
        first, last = self.case.get("guided", (0, self.case["steps"]))
        if not first <= self.step() <= last:  # both halves alike: no guidance, whatever its scale
            if self.pairs and out.shape[0] == 2:
                out = torch.cat([out[1:], out[1:]])
            elif self.half():
                out = self.text
        self.text = out
        self.calls += 1
        return (out,)


def make(folder, pipe, run, sample, text_width, lengths):
    cases = Cases(*folder.split("/"))
    pipe.set_progress_bar_config(disable=True)
    for n, c in enumerate(CASES[folder]):
        text, negative = randn(1010 + n, lengths[0], text_width), randn(1030 + n, lengths[1], text_width)
        noise = randn(1050 + n, (c["frames"] - 1) // 4 + 1, 16, c["height"] // 8, c["width"] // 8)
        run.start({"steps": c["steps"], "guidance": c["guidance"]})
        whole = sample(pipe, c, text, negative, noise)
        run.start(c)
        out = sample(pipe, c, text, negative, noise)
        cases.put(f"{n}.prompt_embeds", text)
        cases.put(f"{n}.negative_embeds", negative)
        if c["brought"]:
            cases.put(f"{n}.noise", noise)
        cases.put(f"{n}.out", out)
        cases.add(n, **c, drift=round(((out - whole).norm() / whole.norm()).item(), 4))
    cases.write()


@torch.no_grad()
def main():
    logging.set_verbosity_error()
    network = CogVideoXTransformer3DModel.from_pretrained(os.path.join(DATA, "sample", "transformer")).eval()
    pipe = CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=network,
                             scheduler=CogVideoXDPMScheduler(**make_sample.SCHEDULER))
    make("residual", pipe, Run(network, "transformer_blocks", True), make_sample.sample, 32, (20, 20))
    folder = os.path.join(DATA, "wan", "h20", "transformer")
    network = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(folder)).eval()
    network.load_state_dict(load_file(os.path.join(folder, "diffusion_pytorch_model.safetensors")))
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=network,
                       scheduler=UniPCMultistepScheduler(**make_wan_sample.SCHEDULER))
    make("wan/residual", pipe, Run(network, "blocks", False), make_wan_sample.sample, 16, (7, 3))


if __name__ == "__main__":
    main()
