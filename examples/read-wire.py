#!/usr/bin/env python3
"""read-wire.py - what another language needs to read the wire: a msgpack library and this.

    tensor-gen --name x --shape 2,3 | python3 examples/read-wire.py

It leaves the CRCs alone; make-clips.py, which writes the wire, has the sum they need.
"""
import math, signal, struct, sys

import msgpack

CODE = {"U8": "B", "I32": "i", "I64": "q", "F16": "e", "BF16": "f", "F32": "f", "F64": "d"}


def records(file):
    """Yields each record's key, meta and {tensor name: (dtype, shape, bytes)}."""
    kind, stream = None, msgpack.Unpacker(file, max_buffer_size=2**32 - 1)
    for header in stream:  # an ext of type 83: the CRC-32C of a map, then the map
        record = msgpack.unpackb(header.data[4:])
        kind = record["kind"]
        if kind == "record":  # its tensors follow, one bin each
            tensors = {t["name"]: (t["dtype"], t["shape"], next(stream)) for t in record["tensors"]}
            yield record["key"], record["meta"], tensors
    if kind != "end":
        raise EOFError("the stream was cut: no end")


def numbers(dtype, shape, data):
    if dtype == "BF16":  # the upper half of an F32
        data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
    return struct.unpack(f"<{math.prod(shape)}{CODE[dtype]}", data)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for key, meta, tensors in records(sys.stdin.buffer):
        print(key, meta)
        for name, tensor in tensors.items():
            print(f"    {name} {tensor[0]} {tensor[1]}:", *(f"{x:.6g}" for x in numbers(*tensor)[:6]), "...")
