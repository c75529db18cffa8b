#!/bin/sh
# examples/sluice_wire.py: what Python reads is what `show` and `tensor-eq` see, and what it writes is what a program would, byte for byte.
# shellcheck disable=SC1091,SC2016,SC2034,SC2086,SC2154 # ok evaluates its text; lib.sh sets $top
. "${0%/*}/lib.sh"
PYTHONPATH=$top/examples PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH PYTHONDONTWRITEBYTECODE
# need_python MODULE..: $python is one that has them; PYTHON names one that is tried first.
need_python() {
    for python in "${PYTHON:-python3}" python3 /usr/bin/python3; do
        "$python" -c "import sys, msgpack; [__import__(name) for name in sys.argv[1:]]" "$@" 2>/dev/null && return
    done
    echo "no python3 with msgpack $* here"
    exit 77
}
types='u8 i32 i64 f16 bf16 f32 f64'
for type in $types; do tensor-gen --name x --shape 2,3 --dtype "$type" --fill ramp --count 2 --meta fps=8 --meta 'caption="é, \"b\""' >"$type.mp"; done
for type in bf16 f32; do tensor-gen --name big --shape 123,457 --dtype $type --key big | tensor-gen --add --name none --shape 0,3 |
    tensor-gen --add --name one --shape 1 >"big-$type.mp"; done
cat >again.py <<'E2'
import sys
import sluice_wire as wire

as_what, reader, out = sys.argv[1], wire.Reader(sys.stdin.buffer), None
for key, meta, tensors in reader:
    begin = reader.begin
    out = out or wire.Writer(sys.stdout.buffer, begin["program"], begin["version"], begin["settings"])
    if as_what != "bytes":
        tensors = {name: wire.Tensor.of(getattr(t, as_what)(), "BF16" if t.dtype == "BF16" and as_what == "numpy" else None) for name, t in tensors.items()}
    out.write(key, meta, tensors)
out.end(reader.failed)
E2
again() { for file in $types big-bf16 big-f32; do "$python" again.py "$1" <$file.mp >back.mp && cmp $file.mp back.mp || exit 1; done; show --check back.mp; }

ok 'every dtype, on its command line' '
    need_python
    for type in $types; do
        "$python" -m sluice_wire <$type.mp >out; grep -c "x .* \[2, 3\]: 0 " out | grep -qx 2
    done
    grep -q "x F64 \[2, 3\]: 0 0.2 0.4 0.6 0.8 1 " out'
ok 'read and written again it is the same, byte for byte' 'need_python; again bytes'
ok 'so it is by way of arrays of numpy' 'need_python numpy; again numpy'
ok 'and of torch' 'need_python torch; again torch'
ok 'values are those that show sees, and texts of meta' '
    need_python numpy
    for file in $types big-bf16; do
        show --jsonl --stats $file.mp >said.jsonl
        "$python" -c "
import json, sys, sluice_wire as wire
lines = [json.loads(line) for line in open(\"said.jsonl\")]
got = list(wire.records(sys.stdin.buffer))
assert len(got) == len(lines) > 0
for (key, meta, tensors), line in zip(got, lines):
    assert key == line[\"key\"] and meta.get(\"caption\") in (None, \"é, \\\"b\\\"\")
    for name, t in tensors.items():
        said, x = line[\"tensors\"][name], t.numpy().astype(\"f8\")
        assert (said[\"dtype\"], said[\"shape\"]) == (t.dtype, t.shape)
        if x.size: assert said[\"min\"] == x.min() and said[\"max\"] == x.max() and abs(said[\"mean\"] - x.mean()) <= 1e-9, (said, x.mean())
        elif \"min\" in said: assert said[\"min\"] is None, said" <$file.mp
    done'
ok 'to BF16 as the programs round: nearest, ties to even, infinities and NaN' '
    need_python numpy
    "$python" -c "
import numpy, sluice_wire as wire
x = numpy.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, numpy.inf, -numpy.inf, 1e-40, -0.0, numpy.nan], \"f4\")
bits = numpy.frombuffer(wire.Tensor.of(x, \"BF16\").data, \"<u2\")
want = [0x3F80, 0x3F80, 0x3F82, 0xBF80, 0x7F80, 0x7F80, 0xFF80, 0x0001, 0x8000]
assert list(bits[:9]) == want, [hex(b) for b in bits]
assert bits[9] & 0x7FFF > 0x7F80
try: wire.Tensor.of(x, \"F64\"); raise SystemExit(1)
except TypeError: pass
try: wire.Tensor.of(numpy.array([1j])); raise SystemExit(1)
except TypeError: pass"'
ok 'one checksum for any length, with numpy and without' '
    need_python numpy
    "$python" -c "
import random, sluice_wire as wire
assert wire.crc32c(b\"123456789\") == 0xE3069283
random.seed(1)
for n in [0, 1, 31, 4095, 4096, 4097, 5000, 65537, 300001]:
    data = random.randbytes(n)
    fast = wire.crc32c(data, 7)
    assert fast == wire._run(7 ^ 0xFFFFFFFF, data) ^ 0xFFFFFFFF, n"'
ok 'several streams are one; none at all, a cut one, and a flipped bit are errors of one line' '
    need_python
    cat u8.mp f32.mp u8.mp | "$python" -m sluice_wire >out; [ "$(wc -l <out)" = 12 ]
    read_it() { "$python" -m sluice_wire >out; }
    : | fails 1 read_it; grep "cut: no end" err
    for bytes in 100 250 400 -1 -30; do head -c $bytes f32.mp >cut.mp; fails 1 read_it <cut.mp; grep "^sluice_wire: " err; [ "$(wc -l <err)" = 1 ]; done
    size=$(wc -c <f32.mp)
    for at in 60 200 280 300 $((size - 8)); do
        { head -c $at f32.mp; printf "\252"; tail -c +$((at + 2)) f32.mp; } >flipped.mp; cmp -s f32.mp flipped.mp && continue
        fails 1 read_it <flipped.mp; [ "$(wc -l <err)" = 1 ] || { cat err; exit 1; }
    done
    "$python" -c "
import sys, sluice_wire as wire
with wire.Writer(sys.stdout.buffer) as out: out.write(\"a\", {}, {}); raise SystemExit(3)" >left.mp || [ $? = 3 ]
    fails 1 show left.mp; grep truncated err'
ok 'stores are read, of one part or several, and written by pack' '
    need_python
    tensor-gen --name x --shape 3 --count 5 --key k >five.mp; pack -o store/0 --commit-every 2 <five.mp 2>err; tensor-gen --name x --shape 3 --key z | pack -o store/1 2>err
    cat >copy.py <<E2
import sys, sluice_wire as wire
store = wire.Store(sys.argv[1])
assert len(store) == 6 and store.keys() == ["k0", "k1", "k2", "k3", "k4", "z"], store.keys()
assert store["k3"].key == "k3"
with wire.pack(sys.argv[2]) as out:
    for record in store: out.write(*record)
E2
    "$python" copy.py store copy 2>err || { cat err; exit 1; }
    show --check copy; draw --epochs 1 store >a.mp; draw --epochs 1 copy >b.mp; tensor-eq a.mp b.mp
    "$python" -m sluice_wire copy | grep -c "x F32 \[3\]:" | grep -x 6
    sed -i "2s/k0/k9/" copy/index.jsonl; fails 1 "$python" -m sluice_wire copy; grep "index.jsonl: its checksum is wrong" err
    mkdir none; fails 1 "$python" -m sluice_wire none; grep "none: no store" err
    echo "x" >file; fails 1 "$python" -c "
import sluice_wire as wire
with wire.pack(\"file\") as out: out.write(\"a\", {}, {})"; grep "pack failed" err'
finish
