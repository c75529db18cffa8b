"""clips.py - toy-world's clips as tensors."""
import mmap
import multiprocessing
import os
import subprocess
import sys

import numpy
import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from sluice_wire import records

SHAPE = 17, 64, 96, 3


def some(room, at, count, key, options):
    """Clips at .. at + count of the room that all processes share; their metas."""
    videos, metas = numpy.frombuffer(room, numpy.uint8).reshape(-1, *SHAPE), []
    command = ["toy-world", "--count", str(count), "--key", f"{key}-{at}-", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as maker:
        for n, (_, meta, tensors) in enumerate(records(maker.stdout), at):
            videos[n] = numpy.frombuffer(tensors["video"][2], numpy.uint8).reshape(SHAPE)
            metas.append(meta)
    if maker.returncode:
        raise SystemExit("toy-world failed")
    return metas


def render(count, key, *options, share=250):
    """Videos U8 [count, 17, 64, 96, 3] and their metas; (key, options) decide on every bit of them."""
    room = mmap.mmap(-1, count * int(numpy.prod(SHAPE)))
    global work  # for the processes, which are forked
    work = lambda at: some(room, at, min(share, count - at), key, options)
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        metas = sum(pool.map(call, range(0, count, share), chunksize=1), [])
    return torch.frombuffer(room, dtype=torch.uint8).view(count, *SHAPE), metas


def call(at):
    return work(at)


def pictures(videos):
    """[n, 17, 64, 96, 3] U8 -> [n, 3, 17, 64, 96] in -1 .. 1, as the pipeline's video processor has them."""
    return videos.permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)
