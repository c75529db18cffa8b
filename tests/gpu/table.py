"""The figures of bench-gpu side by side: table.py [--markdown] FOLDER, with ours.jsonl, other.jsonl, peers.jsonl and clocks"""

import datetime
import json
import os
import statistics
import sys

# Ours against the peers' figures that it is measured by.
AGAINST = {
    "dit_fwd_B1": ["dit_fwd_B1"],
    "dit_fwd_B2": ["dit_fwd_B2", "dit_fwd_B2_compiled"],
    "train standard, recompute none": ["train_checkpointing", "train", "train_compiled", "train_repeatable"],
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




def read(name):
    """Of each figure the rounds' median, by its name."""
    rounds = {}
    for line in open(os.path.join(folder, name + ".jsonl")):
        line = json.loads(line)
        rounds.setdefault(line.pop("name"), []).append(line)
    return {name: sorted(lines, key=lambda line: line.get("ms", 0))[len(lines) // 2] for name, lines in rounds.items()}


def clocks():
    """[(seconds since 1970, MHz)], of lines such as "0, 2026/11/29 19:20:01.123, 1755"."""
    seen = []
    for line in open(os.path.join(folder, "clocks")):
        try:
            _, at, mhz = line.split(", ")
            seen.append((datetime.datetime.strptime(at, "%Y/%m/%d %H:%M:%S.%f").timestamp(), float(mhz)))
        except ValueError:  # a card that does not tell
            pass
    return seen


def megahertz(figure):
    start, end = figure.get("when", (0, 0))
    during = [mhz for at, mhz in seen if start <= at <= end]
    return round(statistics.median(during)) if during else ""


def compared(figure, other, unit="ms"):
    """(ours / other), of two figures that may be lacking."""
    return f"{figure[unit] / other[unit]:.3f}" if other and unit in figure and unit in other else ""


def row(name, figure):
    rivals = [(p, peers[p]) for p in AGAINST.get(name, [name]) if "ms" in peers.get(p, {})]
    said = [f"{p} {rival['ms']:.1f} ({rival['ms'] / figure['ms']:.2f}x)" + (
        f", {rival['joules']:.0f} J" if "joules" in rival else "") for p, rival in rivals]
    if "floor" in figure:
        said.append(f"{figure['share']:.0%} of what bytes or arithmetic allow ({figure['floor']:.4f})")
    share = f"{figure['tflops'] / ceiling:.2f}" if ceiling and "tflops" in figure else ""
    cells = [name, f"{figure['ms']:.4g}", figure.get("gib", ""), figure.get("tflops", ""), share, figure.get("joules", ""), megahertz(figure)]
    if others:
        other = others.get(name)
        cells += [compared(figure, other), compared(figure, other, "joules")]
    return [str(cell) for cell in cells] + ["; ".join(said)]


def show(rows):
    if markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        for cells in rows:
            print("| " + " | ".join(cells) + " |")
        return
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        print("  ".join([cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:-1], widths[1:])] + cells[-1:]).rstrip())


markdown, folder = "--markdown" in sys.argv[1:-1], sys.argv[-1]
ours, others, peers, seen = read("ours"), read("other"), read("peers"), clocks()
ceiling = max((f["tflops"] for name, f in peers.items() if name.startswith("gemm_") and "tflops" in f), default=0)
head = ["", "ours, ms", "GiB", "TFLOP/s", "share", "J", "MHz"] + ["of the other's ms", "of its J"] * bool(others) + ["peers, ms"]
show([head] + [row(name, figure) for name, figure in ours.items() if "ms" in figure])
for name, figure in ours.items():
    if "ms" not in figure:
        print(name, figure)
named = {p for name in ours for p in AGAINST.get(name, [name])}
for name, figure in peers.items():
    if name not in named:
        print(name, figure)
