"""clips.py - toy-world's clips as tensors."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from sluice_wire import records


def render(count, key, *options, share=250):
    """Videos U8 [count, 17, 64, 96, 3] and their metas; (key, options) decide on every bit of them."""
    videos, metas = torch.empty(count, 17, 64, 96, 3, dtype=torch.uint8), [None] * count

    def some(at):
        command = ["toy-world", "--count", str(min(share, count - at)), "--key", f"{key}-{at}-", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as maker:
            for n, (_, meta, tensors) in enumerate(records(maker.stdout), at):
                videos[n] = torch.frombuffer(bytearray(tensors["video"][2]), dtype=torch.uint8).view(17, 64, 96, 3)
                metas[n] = meta
        if maker.returncode:
            raise SystemExit("toy-world failed")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(some, range(0, count, share)))
    return videos, metas


def pictures(videos):
    """[n, 17, 64, 96, 3] U8 -> [n, 3, 17, 64, 96] in -1 .. 1, as the pipeline's video processor has them."""
    return videos.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
