"""The figures of two runs side by side: table.py OURS.jsonl PEERS.jsonl"""

import json
import sys

# Ours against the peers' figures that it is measured by.
AGAINST = {
    "dit_fwd_B1": ["dit_fwd_B1"],
    "dit_fwd_B2": ["dit_fwd_B2", "dit_fwd_B2_compiled"],
    "train standard, recompute none": ["train_checkpointing", "train", "train_compiled"],
    "train standard, recompute full": ["train_checkpointing"],
    "wan13 pair": ["wan13 pair 81x480x832"],
    "wan14 pair": ["wan14 pair 81x480x832"],
    "wan5 pair": ["wan5 pair 121x704x1280"],
    "wan13 step standard, recompute none": ["wan13 step checkpointing", "wan13 step none", "wan13 step none compiled"],
    "wan13 step standard, recompute full": ["wan13 step checkpointing"],
    "wanvae encode": ["wan vae encode 81x480x832 torch.bfloat16", "wan vae encode 81x480x832 torch.float32"],
    "wanvae decode": ["wan vae decode 81x480x832 torch.bfloat16", "wan vae decode 81x480x832 torch.float32"],
    "wan5vae encode": ["wan5 vae encode 121x704x1280"],
    "wan5vae decode": ["wan5 vae decode 121x704x1280"],
    "umt5 60 tokens": ["umt5 one prompt, padded to 512"],
}


def read(path):
    figures = {}
    for line in open(path):
        line = json.loads(line)
        figures[line.pop("name")] = line
    return figures


ours, peers = read(sys.argv[1]), read(sys.argv[2])
print(f"{'':36} {'ours ms':>10} {'GiB':>6} {'TFLOP/s':>8}   peers ms (ratio)")
for name, figure in ours.items():
    if "ms" not in figure:
        print(name, figure)
        continue
    against = [(p, peers[p]["ms"]) for p in AGAINST.get(name, [name]) if "ms" in peers.get(p, {})]
    text = ", ".join(f"{p} {ms:.1f} ({ms / figure['ms']:.2f}x)" for p, ms in against)
    if "floor" in figure:
        text = f"{figure['share']:.0%} of what bytes or arithmetic allow ({figure['floor']:.4f})"
    print(f"{name:36} {figure['ms']:10.4g} {figure.get('gib', ''):>6} {figure.get('tflops', ''):>8}   {text}")
named = {p for name in ours for p in AGAINST.get(name, [name])}
for name, figure in peers.items():
    if name not in named:
        print(f"{name:36} {'':10} {'':6} {'':8}   {figure}")
