#!/usr/bin/env python3
"""sluice_wire - the wire and stores in Python. It needs msgpack; for arrays also numpy or torch.

    import sluice_wire as wire
    for key, meta, tensors in wire.records(sys.stdin.buffer):     # or wire.Store("train"), which has len() and [key]
        x = tensors["latents"].numpy()                            # or .torch(); .dtype, .shape and .data are there without either
    with wire.Writer(sys.stdout.buffer) as out:                   # or wire.pack("train"), which needs Sluice's pack on PATH
        out.write("a key", {"caption": "a ball rolls"}, {"latents": x})

Every checksum is verified. BF16 is torch.bfloat16; in numpy it is ml_dtypes' bfloat16 where that is installed, else float32, which holds
each of its values: write such an array back with Tensor.of(x, "BF16"), which rounds to nearest, ties to even.

    tensor-gen --name x --shape 2,3 | python3 examples/sluice_wire.py     prints a stream, or the stores that are named
"""
import contextlib
import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
from typing import NamedTuple

import msgpack

try:
    import numpy
except ImportError:
    numpy = None

EXT = 83
CODES = {"U8": "B", "I32": "i", "I64": "q", "F16": "e", "BF16": "H", "F32": "f", "F64": "d"}  # of struct
NAMES = {"U8": "uint8", "I32": "int32", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class WireError(ValueError):
    """A stream or store that is damaged, or cut."""


# ---- CRC-32C, bit by bit as RFC 3720 has it; many bytes at once where numpy is there ----

TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    TABLE.append(_byte)


def _run(state, data):
    for byte in data:
        state = state >> 8 ^ TABLE[(state ^ byte) & 0xFF]
    return state


def _apply(operator, state):
    """A linear map of 32 bits, given by the images of each, of every element of state."""
    out = numpy.zeros_like(state)
    for bit in range(32):
        out ^= numpy.where(state >> numpy.uint32(bit) & numpy.uint32(1), operator[bit], numpy.uint32(0))
    return out


def _run_lanes(state, data):
    """_run() of lanes side by side, which are put together in pairs: past m bytes a state is a linear map of what it was."""
    lanes = 1 << (len(data).bit_length() // 2)
    length, rest = divmod(len(data), lanes)
    state = _run(state, data[:rest])
    table, byte, eight = numpy.array(TABLE, numpy.uint32), numpy.uint32(0xFF), numpy.uint32(8)
    part = numpy.zeros(lanes, numpy.uint32)
    for column in numpy.ascontiguousarray(numpy.frombuffer(data, numpy.uint8)[rest:].reshape(lanes, length).T):
        part = table[(part ^ column) & byte] ^ (part >> eight)
    bits = numpy.uint32(1) << numpy.arange(32, dtype=numpy.uint32)
    one, past = table[bits & byte] ^ (bits >> eight), bits
    for digit in bin(length)[2:]:  # past `length` bytes: by squares
        past = _apply(past, past)
        past = _apply(one, past) if digit == "1" else past
    while len(part) > 1:
        part, past = _apply(past, part[0::2]) ^ part[1::2], _apply(past, past)
    return int(_apply(past, numpy.array([state], numpy.uint32))[0] ^ part[0])


def crc32c(data, crc=0):
    run = _run_lanes if numpy is not None and len(data) > 4096 else _run
    return run(crc ^ 0xFFFFFFFF, data) ^ 0xFFFFFFFF


# ---- tensors ----


class Tensor(NamedTuple):
    dtype: str  # U8 I32 I64 F16 BF16 F32 F64
    shape: list
    data: bytes  # little-endian, row-major

    def numpy(self):
        if self.dtype != "BF16":
            return numpy.frombuffer(self.data, "<" + numpy.dtype(NAMES[self.dtype]).str[1:]).reshape(self.shape)
        half = numpy.frombuffer(self.data, "<u2").reshape(self.shape)
        with contextlib.suppress(ImportError):
            import ml_dtypes

            return half.view(ml_dtypes.bfloat16)
        return (half.astype(numpy.uint32) << 16).view(numpy.float32)

    def torch(self):
        import torch

        dtype = getattr(torch, NAMES[self.dtype])
        empty = math.prod(self.shape) == 0
        return torch.empty(self.shape, dtype=dtype) if empty else torch.frombuffer(bytearray(self.data), dtype=dtype).reshape(self.shape)

    @classmethod
    def of(cls, array, dtype=None):
        """Of an array of numpy or torch, or what numpy makes one of; dtype: "BF16" of floats, else only its own."""
        if isinstance(array, Tensor):
            return array
        if "torch" in sys.modules and isinstance(array, sys.modules["torch"].Tensor):
            array = array.detach().cpu().contiguous()
            if array.dtype == sys.modules["torch"].bfloat16:
                return cls("BF16", list(array.shape), array.view(sys.modules["torch"].int16).numpy().astype("<i2").tobytes())
            array = array.numpy()
        array = numpy.asarray(array)
        found = {name: code for code, name in NAMES.items()}.get(array.dtype.name)
        if dtype == "BF16" and found in ("F16", "F32", "F64"):
            return cls("BF16", list(array.shape), _to_bf16(array).astype("<u2").tobytes())
        if found is None or dtype not in (None, found):
            raise TypeError(f"no tensor of {dtype or 'the wire'} is made of {array.dtype}")
        return cls(found, list(array.shape), array.astype(array.dtype.newbyteorder("<")).tobytes())


def _to_bf16(array):
    """To nearest, ties to even, by way of float32; a NaN stays one."""
    bits = numpy.ascontiguousarray(array, numpy.float32).view(numpy.uint32)
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    rounded = (bits.astype(numpy.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
    return numpy.where(nan, bits >> 16 | 0x40, rounded).astype(numpy.uint16).reshape(array.shape)


# ---- streams ----


class Record(NamedTuple):
    key: str
    meta: dict
    tensors: dict  # of Tensor, by name


class Reader:
    """Records of a binary file. begin: the header of the stream at hand; failed: what the streams' ends say."""

    def __init__(self, file):
        self.begin, self.failed, self.crc, self.count, self.streams = None, 0, 0, 0, 0
        self.objects = iter(msgpack.Unpacker(file, max_buffer_size=2**32 - 1))

    def _next(self):
        try:
            return next(self.objects)
        except StopIteration:
            return None
        except (ValueError, msgpack.exceptions.UnpackException) as e:
            raise WireError(f"record {self.count}: no msgpack: {e}") from None

    def header(self):
        """The next header as a map and its checksum; None at the end of the file."""
        found = self._next()
        if found is None:
            return None, 0
        if not isinstance(found, msgpack.ExtType) or found.code != EXT or len(found.data) < 5:
            raise WireError(f"record {self.count}: no header")
        crc = struct.unpack("<I", found.data[:4])[0]
        if crc != crc32c(found.data[4:]):
            raise WireError(f"record {self.count}: its header's checksum is wrong")
        return msgpack.unpackb(found.data[4:]), crc

    def record(self, head):
        tensors = {}
        for t in head["tensors"]:
            data = self._next()
            if data is None:
                raise WireError(f"the stream was cut within {t['name']} of {head['key']}")
            if not isinstance(data, bytes) or len(data) != t["nbytes"] or crc32c(data) != t["crc32c"]:
                raise WireError(f"{head['key']}: the checksum of {t['name']} is wrong")
            tensors[t["name"]] = Tensor(t["dtype"], t["shape"], data)
        return Record(head["key"], head["meta"], tensors)

    def __iter__(self):
        while True:
            head, crc = self.header()
            kind = head and head["kind"]
            if head is None and self.begin is None and self.streams:
                return
            if head is None:
                raise WireError("the stream was cut: no end")
            if (kind == "begin") != (self.begin is None):
                raise WireError(f"record {self.count}: a {kind} out of place")
            if kind == "end":
                if head["crc32c"] != self.crc or head["records"] != self.count:
                    raise WireError("the end does not fit the stream: records are missing or there are too many")
                self.failed += head["failed"]
                self.begin = None
                continue
            self.crc = crc32c(struct.pack("<I", crc), self.crc if kind == "record" else 0)
            if kind == "begin":
                self.begin, self.count, self.streams = head, 0, self.streams + 1
                continue
            yield self.record(head)
            self.count += 1


def records(file):
    """Yields each record of a stream, or of several one after another, as (key, meta, {name: Tensor})."""
    return iter(Reader(file))


class Writer:
    """A stream into a binary file. Without its end, which leaving `with` writes unless by an exception, it is a cut one."""

    def __init__(self, file, program="python", version="1", settings=None):
        self.file, self.count, self.crc = file, 0, 0
        self.header({"kind": "begin", "sluice": 1, "program": program, "version": version, "settings": settings or {}})

    def header(self, fields):
        body = msgpack.packb(fields)
        crc = struct.pack("<I", crc32c(body))
        self.file.write(msgpack.packb(msgpack.ExtType(EXT, crc + body)))
        self.crc = crc32c(crc, self.crc)

    def write(self, key, meta, tensors):
        """tensors: {name: Tensor, or an array}"""
        made = {name: Tensor.of(t) for name, t in tensors.items()}
        entries = [{"name": name, "dtype": t.dtype, "shape": list(t.shape), "nbytes": len(t.data), "crc32c": crc32c(t.data)}
                   for name, t in made.items()]
        self.header({"kind": "record", "seq": self.count, "key": key, "meta": meta, "tensors": entries})
        for t in made.values():
            self.file.write(msgpack.packb(t.data))
        self.count += 1

    def end(self, failed=0):
        self.header({"kind": "end", "records": self.count, "failed": failed, "crc32c": self.crc})
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.end()


# ---- stores ----


class Store:
    """A folder as `pack` makes it, or of such folders, read as one: len(), [key], and records in the order of keys."""

    def __init__(self, folder):
        self.place = {}
        parts = [folder, *(e.path for e in os.scandir(folder) if e.is_dir())]
        for part in sorted(p for p in parts if os.path.exists(os.path.join(p, "index.jsonl"))):
            self._add(part)
        if not any(os.path.exists(os.path.join(p, "index.jsonl")) for p in parts):
            raise WireError(f"{folder}: no store: it has no index.jsonl")

    def _add(self, part):
        with open(os.path.join(part, "index.jsonl"), "rb") as f:
            head, rest = json.loads(f.readline()), f.read()
        if head["crc32c"] != crc32c(rest):
            raise WireError(f"{part}/index.jsonl: its checksum is wrong")
        for line in map(json.loads, rest.splitlines()):
            if line["key"] in self.place:
                raise WireError(f"{part}: {line['key']} is in another part, too")
            self.place[line["key"]] = os.path.join(part, line["shard"]), line["offset"], line["bytes"], line["crc32c"]

    def __len__(self):
        return len(self.place)

    def keys(self):
        return sorted(self.place, key=str.encode)

    def __getitem__(self, key):
        path, offset, size, crc = self.place[key]
        with open(path, "rb") as f:
            f.seek(offset)
            reader = Reader(io.BytesIO(f.read(size)))
        head, found = reader.header()
        if head is None or found != crc or head["key"] != key:
            raise WireError(f"{path}: {key} is not where the index says")
        return reader.record(head)

    def __iter__(self):
        return (self[key] for key in self.keys())


@contextlib.contextmanager
def pack(folder):
    """A Writer into a store, which is made if need be, by Sluice's program: what is there already is left, what has changed replaced."""
    with subprocess.Popen(["pack", "-o", folder], stdin=subprocess.PIPE) as program:
        with contextlib.suppress(BrokenPipeError):  # it ended early, and has said why
            with program.stdin as f, Writer(f) as writer:
                yield writer
    if program.returncode:
        raise WireError(f"{folder}: pack failed")


def _first(tensor, count=6):
    """The first values, without numpy."""
    code = CODES[tensor.dtype]
    values = struct.unpack(f"<{min(count, math.prod(tensor.shape))}{code}", tensor.data[: count * struct.calcsize(code)])
    if tensor.dtype == "BF16":  # the upper half of an F32
        values = [struct.unpack("<f", struct.pack("<I", v << 16))[0] for v in values]
    return values


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        for source in map(Store, sys.argv[1:]) if sys.argv[1:] else [records(sys.stdin.buffer)]:
            for key, meta, tensors in source:
                print(key, meta)
                for name, t in tensors.items():
                    print(f"    {name} {t.dtype} {t.shape}:", *(f"{x:.6g}" for x in _first(t)), "...")
    except (OSError, WireError) as e:
        sys.exit(f"sluice_wire: {e}")


if __name__ == "__main__":
    main()
