#!/usr/bin/env python3
"""to-tensorboard.py - the metrics of training runs as TensorBoard's event files, a folder for each run.

    python3 examples/to-tensorboard.py LOGDIR RUN...     RUN: a run's folder, or a metrics.jsonl; NAME=RUN to call it NAME
    tensorboard --logdir LOGDIR

It needs the tensorboard package. The event files of a run in LOGDIR are made anew, so the command may be typed again while the run goes on. Beside loss, grad_norm and lr there are val_loss and, for an evaluation with a spread, val_loss's standard error.
"""
import json
import math
import os
import statistics
import sys
import time

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError:
    EventFileWriter = None

SCALARS = {"loss": "train/loss", "grad_norm": "train/grad_norm", "lr": "train/lr", "s": "train/noise_level", "val_loss": "val/loss"}


def open_writer(folder):
    """add(tag, value, step) and close() of a new event file, in the place of those that are there."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.startswith("events.out.tfevents."):
            os.unlink(os.path.join(folder, name))
    writer = EventFileWriter(folder)

    def add(tag, value, step):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    return add, writer.close


def scalars(line):
    """(tag, value) of one line of metrics.jsonl; null, as a loss that is not finite is written, is left out."""
    for field, tag in SCALARS.items():
        if isinstance(line.get(field), (int, float)):
            yield tag, line[field]
    losses = [x for x in line.get("val_losses", []) if x is not None]
    if len(losses) > 1:
        yield "val/loss_standard_error", statistics.stdev(losses) / math.sqrt(len(losses))


def convert(operand, logdir):
    name, path = operand.split("=", 1) if "=" in operand and not os.path.exists(operand) else ("", operand)
    file = os.path.join(path, "metrics.jsonl") if os.path.isdir(path) else path
    name = name or os.path.basename(os.path.normpath(path)).removesuffix(".jsonl")
    if name in ("", ".", "..") or "/" in name:
        sys.exit(f"to-tensorboard: {operand}: `{name}` is no name for a folder; NAME=RUN gives it one")
    folder, count = os.path.join(logdir, name), 0
    with open(file, encoding="utf-8") as f:
        lines = f.read().splitlines(keepends=True)
    add, close = open_writer(folder)
    for number, text in enumerate(lines, 1):
        if number == len(lines) and not text.endswith("\n"):
            break  # of a run at work: it is being written
        try:
            line = json.loads(text)
            step = line["step"]
        except (ValueError, KeyError, TypeError):
            sys.exit(f"to-tensorboard: {file}: line {number}: no line of metrics")
        for tag, value in scalars(line):
            add(tag, value, step)
            count += 1
    close()
    print(f"{folder}: {count} values of {len(lines)} lines")


def main():
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1:2] in (["-h"], ["--help"]) else 2)
    if not EventFileWriter:
        sys.exit("to-tensorboard: no tensorboard here: pip install tensorboard")
    for operand in sys.argv[2:]:
        try:
            convert(operand, sys.argv[1])
        except OSError as e:
            sys.exit(f"to-tensorboard: {e}")


if __name__ == "__main__":
    main()
