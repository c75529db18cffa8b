# Makes train/: LoRA on the model dit/rope with peft: adapter files as diffusers writes them, what the model answers with each
# loaded by diffusers, loss and LoRA gradients of the three objectives, and five AdamW steps with clipping and a schedule.
import os

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import logging
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import dit
from common import Cases, DATA, randn
from make_sample import SCHEDULER

MODEL = os.path.join(DATA, "dit", "rope", "transformer")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
ADAPTERS = {"init_a4": 4, "init_a10": 10, "init_a24": 24}  # alpha; the rank is 4
# v takes a whole timestep t = 1000 s, so its s are multiples of 1/8
GRADIENTS = [("init_a4", "flow", 0.375), ("init_a10", "flow", 0.71), ("init_a4", "flow", 1.0), ("init_a4", "flow", 0.0),
             ("init_a4", "flow-snr", 0.5), ("init_a10", "flow-snr", 0.93), ("init_a4", "flow-snr", 0.02),
             ("init_a4", "flow-snr", 1.0), ("init_a4", "v", 0.125), ("init_a10", "v", 0.875)]
RUNS = [dict(init="init_a4", objective="flow", schedule="constant", warmup=0),
        dict(init="init_a24", objective="flow", schedule="cosine", warmup=3),
        dict(init="init_a4", objective="flow-snr", schedule="cosine", warmup=1)]
STEPS, LR, CLIP = 5, 1e-3, 1.0
STEP_S = [0.25, 0.9, 0.55, 0.05, 0.7]

ALPHAS = CogVideoXDDIMScheduler(**SCHEDULER).alphas_cumprod.double()


def table_position(root):
    """The real-valued t with sqrt(alpha-bar at t) = root, sqrt(alpha-bar) being linear between table entries."""
    roots = ALPHAS.sqrt().tolist()  # falls from entry 0 to 0.0 at entry 999
    if root >= roots[0]:
        return 0.0
    for i in range(999):
        if root >= roots[i + 1]:
            return i + (roots[i] - root) / (roots[i] - roots[i + 1])
    return 999.0


def loss_of(model, objective, x0, eps, s, text):
    if objective == "flow":
        out = dit.forward(model, (1 - s) * x0 + s * eps, text, min(1000 * s, 999))
        return ((out - (eps - x0)) ** 2).mean(), min(1000 * s, 999)
    if objective == "flow-snr":
        k = ((1 - s) ** 2 + s**2) ** 0.5
        a, b = (1 - s) / k, s / k  # sqrt(alpha-bar), sqrt(1 - alpha-bar)
        x, t = a * x0 + b * eps, table_position(a)
        u = (a + b) * dit.forward(model, x, text, t) + (b - a) * x
        return ((u - (eps - x0)) ** 2).mean(), t
    t = round(1000 * s)
    a, b = ALPHAS[t].item() ** 0.5, (1 - ALPHAS[t].item()) ** 0.5
    return ((dit.forward(model, a * x0 + b * eps, text, t) - (a * eps - b * x0)) ** 2).mean(), t


def base_model():
    return CogVideoXTransformer3DModel.from_pretrained(MODEL).eval().requires_grad_(False)


def pipeline(model):
    return CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=None, transformer=model,
                             scheduler=CogVideoXDDIMScheduler(**SCHEDULER))


def with_adapter(init):
    """The base model with the adapter of a file, its LoRA parameters trainable, and those by their names in the file."""
    model = base_model()
    model.add_adapter(LoraConfig(r=4, lora_alpha=ADAPTERS[init], target_modules=TARGETS))
    params = {"transformer." + n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    stored = load_file(os.path.join(DATA, "train", init + ".safetensors"))
    assert stored.keys() == params.keys() and len(params) == 2 * 4 * 2
    with torch.no_grad():
        for n, p in params.items():
            p.copy_(stored[n])
    return model, params


def write_adapters(folder):
    for seed, (init, alpha) in enumerate(ADAPTERS.items()):
        torch.manual_seed(800 + seed)
        model = base_model()
        model.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=TARGETS))
        with torch.no_grad():
            for n, p in model.named_parameters():
                if "lora_B" in n:  # zero in a fresh adapter; its A would then have no gradient
                    p.copy_(0.3 * torch.randn(p.shape))
        layers = get_peft_model_state_dict(model)
        if init == "init_a10":
            save_file({"transformer." + n: t.contiguous() for n, t in layers.items()},
                      os.path.join(folder, "init_a10_no_metadata.safetensors"), metadata={"format": "pt"})
        CogVideoXPipeline.save_lora_weights(folder, layers, weight_name=init + ".safetensors",
                                            **_collate_lora_metadata({"transformer": model}))


def main():
    logging.set_verbosity_error()
    cases = Cases("train")
    write_adapters(cases.folder)

    # what the model answers with each file; "weight" is that of diffusers' set_adapters
    x, text, t = randn(810, 2, 16, 4, 6), randn(811, 20, 32), 321.0
    cases.put("load.latents", x), cases.put("load.text", text), cases.put("load.timestep", torch.tensor([t]))
    for n, (file, weight) in enumerate([(None, 1.0), ("init_a4", 1.0), ("init_a10", 1.0), ("init_a10_no_metadata", 1.0),
                                        ("init_a10", 0.5), ("init_a10_no_metadata", 2.5)]):
        pipe = pipeline(base_model())
        if file:
            pipe.load_lora_weights(cases.folder, weight_name=file + ".safetensors", adapter_name="it")
            if weight != 1.0:
                pipe.set_adapters("it", weight)
        with torch.no_grad():
            cases.put(f"load.{n}.out", dit.forward(pipe.transformer, x, text, t))
        cases.add(f"load.{n}", adapter=file and file + ".safetensors", weight=weight)

    for n, (init, objective, s) in enumerate(GRADIENTS):
        model, params = with_adapter(init)
        x0, eps, text = randn(820 + n, 2, 16, 4, 6), randn(840 + n, 2, 16, 4, 6), randn(860 + n, 20, 32)
        loss, t = loss_of(model, objective, x0, eps, s, text)
        loss.backward()
        for name, value in (("x0", x0), ("eps", eps), ("text", text), ("loss", loss)):
            cases.put(f"grad.{n}.{name}", value)
        for name, p in params.items():
            cases.put(f"grad.{n}.{name}", p.grad)
        cases.add(f"grad.{n}", init=init + ".safetensors", objective=objective, s=s, timestep=t, loss=loss.item(),
                  grad_norm=torch.stack([p.grad.norm() for p in params.values()]).norm().item())

    # the same five inputs for every run
    batches = [(randn(880 + i, 3, 16, 4, 4), randn(890 + i, 3, 16, 4, 4), s, randn(900 + i, 20, 32))
               for i, s in enumerate(STEP_S)]
    for i, (x0, eps, s, text) in enumerate(batches):
        cases.put(f"step.{i}.x0", x0), cases.put(f"step.{i}.eps", eps), cases.put(f"step.{i}.text", text)
        cases.add(f"step.{i}", s=s)
    for n, run in enumerate(RUNS):
        model, params = with_adapter(run["init"])
        optimiser = torch.optim.AdamW(params.values(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
        schedule = get_scheduler(run["schedule"], optimiser, num_warmup_steps=run["warmup"], num_training_steps=STEPS)
        losses, norms, rates = [], [], []
        for x0, eps, s, text in batches:
            loss, _ = loss_of(model, run["objective"], x0, eps, s, text)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(params.values(), CLIP).item())  # the norm before clipping
            losses.append(loss.item())
            rates.append(optimiser.param_groups[0]["lr"])  # what this step uses
            optimiser.step(), schedule.step(), optimiser.zero_grad()
        for name, p in params.items():
            cases.put(f"run.{n}.{name}", p)
        cases.add(f"run.{n}", **{**run, "init": run["init"] + ".safetensors"}, max_steps=STEPS, base_lr=LR, betas=[0.9, 0.999],
                  eps=1e-8, weight_decay=0.01, clip=CLIP, lr=rates, loss=losses, grad_norm=norms)
    cases.write()


if __name__ == "__main__":
    main()
