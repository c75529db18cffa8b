#!/bin/sh
# The wire against another implementation: Python's msgpack reads what we write and writes what we read.
# shellcheck disable=SC2016,SC2154 # the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

python=$(for p in python3 /usr/bin/python3; do $p -c 'import msgpack' 2>/dev/null && echo $p && break; done)
need_msgpack() { [ -n "$python" ] || { echo 'no msgpack for Python here'; exit 77; }; }

cat >wire.py <<'END'
"""The wire by its description: wire.py read <stream | wire.py write >stream | wire.py copy <stream >stream"""
import itertools, json, math, struct, sys
import msgpack

table = [0] * 256
for i in range(256):
    c = i
    for _ in range(8):
        c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
    table[i] = c

def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF

def sum_bytes(crc):
    return struct.pack("<I", crc)

SIZE = {"U8": 1, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}

def read(file):
    """Yields (header, payloads) of everything, begin and end too, and checks what can be checked."""
    objects, sums, count, inside = iter(msgpack.Unpacker(file, strict_map_key=True)), b"", 0, False
    for ext in objects:
        assert isinstance(ext, msgpack.ExtType) and ext.code == 83, ext
        assert ext.data[:4] == sum_bytes(crc32c(ext.data[4:]))
        head = msgpack.unpackb(ext.data[4:])
        assert inside == (head["kind"] != "begin")
        payloads = []
        if head["kind"] == "begin":
            assert head["sluice"] == 1 and set(head) >= {"program", "version", "settings"}
            sums, count, inside = b"", 0, True
        if head["kind"] == "record":
            assert head["seq"] == count and isinstance(head["meta"], dict) and head["key"]
            for t in head["tensors"]:
                data = next(objects)
                assert isinstance(data, bytes) and len(data) == t["nbytes"] and crc32c(data) == t["crc32c"]
                assert t["nbytes"] == math.prod(t["shape"]) * SIZE[t["dtype"]]
                payloads.append(data)
            count += 1
        if head["kind"] == "end":
            assert head["records"] == count and head["crc32c"] == crc32c(sums) and head["failed"] >= 0
            inside = False
        sums += ext.data[:4]
        yield head, payloads
    assert not inside and count is not None

def write(items, file, **how):
    sums, count = b"", 0
    for head, payloads in items:
        if head["kind"] == "begin":
            sums, count = b"", 0
        if head["kind"] == "end":
            head = dict(head, crc32c=crc32c(sums), records=count)
        data = msgpack.packb(head, **how)
        sums += sum_bytes(crc32c(data))
        file.write(msgpack.packb(msgpack.ExtType(83, sum_bytes(crc32c(data)) + data)))
        for payload in payloads:
            file.write(msgpack.packb(payload))
        count += head["kind"] == "record"

def made():
    yield {"kind": "begin", "sluice": 1, "program": "wire.py", "version": "1", "settings": {}, "new": None}, []
    for i in range(40):
        data = struct.pack(f"<{i}f", *range(i))
        scalar = struct.pack("<q", -i)
        yield {"tensors": [{"crc32c": crc32c(data), "nbytes": len(data), "shape": [i, 1], "dtype": "F32", "name": "x"},
                           {"name": "n", "dtype": "I64", "shape": [], "nbytes": 8, "crc32c": crc32c(scalar), "unit": "s"}],
               "meta": {"caption": "größer" * i, "n": -i << 33, "x": i / 3, "list": [i] * i, "none": None, "deep": {"a": [{}]}},
               "key": f"k{i}", "seq": i, "kind": "record", "extra": True}, [data, scalar]
    yield {"kind": "end", "failed": 0, "records": 0, "crc32c": 0}, []

if sys.argv[1] == "read":
    for head, payloads in read(sys.stdin.buffer):
        print(json.dumps(head, sort_keys=True), sum(map(len, payloads)))
elif sys.argv[1] == "write":
    write(made(), sys.stdout.buffer, **{name: True for name in sys.argv[2:]})
else:
    write(read(sys.stdin.buffer), sys.stdout.buffer)
END
wire() { "$python" wire.py "$@"; }

tensor-gen --name a --shape 2,3 --count 3 --key one --meta 'note={"x":[1,2.5,null,true,"é"]}' |
    tensor-gen --add --name b --dtype bf16 --shape '' | tensor-gen --add --name c --dtype u8 --shape 300,300 |
    tensor-gen --add --name d --dtype i64 --shape 0,7 >ours.mp
tensor-gen --name a --shape 5 --key two >more.mp

ok 'another msgpack reads our streams and finds every sum right' '
    need_msgpack
    wire read <ours.mp >said
    [ $(wc -l <said) = 5 ]
    grep "\"key\": \"one1\"" said | grep "\"note\": {\"x\": \[1, 2.5, null, true, \"\\\\u00e9\"\]}" | grep " 90026$"
    tail -n 1 said | grep "\"failed\": 0, .*\"records\": 3"'
ok 'what it writes again is the same bytes' '
    need_msgpack
    wire copy <ours.mp >copy.mp
    cmp ours.mp copy.mp'
ok 'we read what it writes' '
    need_msgpack
    wire write >theirs.mp
    show --check theirs.mp
    show --jsonl theirs.mp >said
    [ $(wc -l <said) = 40 ]
    grep "\"key\":\"k3\",\"caption\":\"größergrößergrößer\",\"n\":-25769803776,\"x\":1.0,\"list\":\[3,3,3\],\"none\":null" said
    show --stats theirs.mp | grep "x  *F32 \[4,1\]  min 0 max 3 mean 1.5"
    show --stats theirs.mp | grep "n  *I64 \[\]  min -39 max -39"'
ok 'short floats are numbers, too' '
    need_msgpack
    wire write use_single_float >short.mp
    tensor-eq --quiet theirs.mp short.mp'
ok 'fields that we do not know are passed on' '
    need_msgpack
    tensor-gen --add --name mark --shape 1 <theirs.mp | wire read >said
    [ $(grep -c "\"extra\": true" said) = 40 ]
    [ $(grep -c "\"unit\": \"s\"" said) = 40 ]'
ok 'streams one after the other are one' '
    cat ours.mp more.mp ours.mp | show >said
    [ $(grep -c ^begin said) = 3 ]
    tail -n 1 said | grep "^end *7 records, 0 failed"
    cat ours.mp more.mp | tensor-gen --add --name mark --shape 1 | show >said
    [ $(grep -c ^begin said) = 1 ]
    tail -n 1 said | grep "^end *4 records"'
ok 'what failed upstream is passed on, the exit code is of what one did oneself' '
    printf "%s\n" "{\"key\":\"a\"}" "{" "{\"key\":\"b\"}" >lines
    fails 1 tensor-gen --add --name x --shape 1 <lines >failed.mp
    grep "tensor-gen: stdin: line 2: " err
    cat failed.mp ours.mp failed.mp | tensor-gen --add --name y --shape 1 >more
    show more | tail -n 1 | grep "^end *7 records, 2 failed"'
ok '--strict stops at the first bad line, without an end' '
    fails 1 tensor-gen --strict --add --name x --shape 1 <lines >failed.mp
    fails 1 show failed.mp >said
    grep "truncated" err
    [ $(grep -c "^[0-9]" said) = 1 ]'
ok 'a stream whose writer was killed is not a short, good one' '
    head -c 3000 ours.mp >cut.mp
    fails 1 show cut.mp >said
    grep "^show: cut.mp: record 0, byte 3000: truncated within tensor .c. of one0" err
    [ $(wc -l <err) = 2 ]
    { head -c 3000 ours.mp; cat more.mp; } >joined.mp
    fails 1 show --check joined.mp
    grep "tensor .c. of one0" err'
finish
