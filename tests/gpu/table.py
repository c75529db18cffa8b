"""The figures of two runs side by side: table.py OURS.jsonl PEERS.jsonl"""

import json
import sys

# Ours against the peers' figures that it is measured by.
AGAINST = {
    "dit_fwd_B1": ["dit_fwd_B1"],
    "dit_fwd_B2": ["dit_fwd_B2", "dit_fwd_B2_compiled"],
    "train standard, recompute none": ["train_checkpointing", "train", "train_compiled"],
    "train standard, recompute full": ["train_checkpointing"],
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
