"""clips.py - toy-world's clips as tensors."""
import os
import subprocess
import sys

import numpy
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
records = __import__("read-wire").records


def render(count, key, *options, jobs=os.cpu_count()):
    """Videos U8 [count, 17, 64, 96, 3] and their metas; (key, options) decide on every bit of them."""
    share = -(-count // jobs)
    makers = [
        subprocess.Popen(
            ["toy-world", "--count", str(min(share, count - at)), "--key", f"{key}-{at}-", *options], stdout=subprocess.PIPE
        )
        for at in range(0, count, share)
    ]
    videos, metas = torch.empty(count, 17, 64, 96, 3, dtype=torch.uint8), []
    for maker in makers:
        for _, meta, tensors in records(maker.stdout):
            videos[len(metas)] = torch.from_numpy(numpy.frombuffer(tensors["video"][2], "uint8").reshape(17, 64, 96, 3).copy())
            metas.append(meta)
        if maker.wait():
            raise SystemExit("toy-world failed")
    return videos, metas


def pictures(videos):
    """[n, 17, 64, 96, 3] U8 -> [n, 3, 17, 64, 96] in -1 .. 1, as the pipeline's video processor has them."""
    return videos.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
