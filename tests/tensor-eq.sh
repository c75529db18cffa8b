#!/bin/sh
# tensor-eq: what agrees, what differs and how it says so.
# shellcheck disable=SC2016,SC2154 # the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

# values KEY NUMBER...: a record with an F32 tensor x of just these values
cat >values.py <<'END'
import struct, sys
def crc32c(data, crc=0xFFFFFFFF):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
def text(s): return bytes([0xD9, len(s)]) + s.encode()
def number(n): return b"\xCE" + struct.pack(">I", n)
def fields(**f): return bytes([0x80 | len(f)]) + b"".join(text(k) + v for k, v in f.items())
sums = b""
def header(body):
    global sums
    crc = struct.pack("<I", crc32c(body))
    sums += crc
    sys.stdout.buffer.write(b"\xC8" + struct.pack(">H", len(body) + 4) + b"S" + crc + body)
data = b"".join(struct.pack("<f", float(v)) for v in sys.argv[2:])
header(fields(kind=text("begin"), sluice=b"\x01", program=text("values"), version=text("0"), settings=b"\x80"))
tensor = fields(name=text("x"), dtype=text("F32"), shape=b"\x91" + number(len(data) // 4), nbytes=number(len(data)), crc32c=number(crc32c(data)))
header(fields(kind=text("record"), seq=b"\x00", key=text(sys.argv[1]), meta=b"\x80", tensors=b"\x91" + tensor))
sys.stdout.buffer.write(b"\xC4" + bytes([len(data)]) + data)
header(fields(kind=text("end"), records=b"\x01", failed=b"\x00", crc32c=number(crc32c(sums))))
END
values() { need python3; python3 "$work/values.py" "$@"; }
tensor-gen --name x --shape 3,4 --key k --count 3 | tensor-gen --add --name y --shape 5 --dtype u8 >a

ok 'a stream agrees with itself, a line for each tensor' '
    tensor-eq a a >said
    [ $(grep -c "max abs 0.*rel 0.*PSNR inf dB.*identical$" said) = 6 ]
    grep "^k1	y	" said'
ok '--quiet says nothing of what agrees' '
    tensor-eq --quiet a a >said
    [ ! -s said ]'
ok 'one stream may come from stdin, not both' '
    tensor-eq - a <a >said
    tensor-eq a - <a >said
    fails 2 tensor-eq - - <a
    fails 2 tensor-eq a
    fails 2 tensor-eq a a a'
ok 'the measures are right' '
    values k 1 2 3 4 >p
    values k 1 2 3 2 >q
    fails 1 tensor-eq p q >said
    grep "max abs 2	rel 0.471	PSNR 9.5 dB	DIFFER" said # 2 / sqrt 18; 20 log10 3 for a mean square of 1
    grep "^tensor-eq: k: tensor .x. differs" err'
ok 'a tolerance is met or not, and each that is given must be' '
    tensor-eq --abs 2 p q
    fails 1 tensor-eq --abs 1.99 p q
    tensor-eq --rel 0.4715 p q
    fails 1 tensor-eq --rel 0.4713 p q
    tensor-eq --psnr 9.54 p q
    fails 1 tensor-eq --psnr 9.55 p q
    fails 1 tensor-eq --abs 2 --rel 0.1 p q
    tensor-eq --abs 2 --rel 1 --psnr 9 p q >said
    grep "agree$" said
    tensor-eq --abs 0 p p'
ok 'a NaN passes no tolerance, wherever it stands' '
    for x in "nan 1 1" "1 nan 1" "1 1 nan"; do
        values k $x >n
        values k 1 1 1 >o
        for t in "--abs 1e300" "--rel 1e300" "--psnr 0"; do
            fails 1 tensor-eq $t n o
            fails 1 tensor-eq $t o n
            fails 1 tensor-eq $t n n
        done
        tensor-eq n n
        show --stats n | grep "min nan max nan mean nan"
    done'
ok 'equal infinities agree, unequal ones do not' '
    values k inf -inf 1 >i
    values k inf inf 1 >j
    tensor-eq --abs 0 i i
    fails 1 tensor-eq --abs 1e300 i j'
ok 'zeros of two signs agree within any tolerance, but are not identical' '
    values k 0 >i
    values k -0 >j
    tensor-eq --abs 0 i j
    fails 1 tensor-eq i j'
ok 'against zeros only zeros agree relatively' '
    values k 0 0 >z
    values k 0 1e-30 >s
    tensor-eq --rel 0 z z
    fails 1 tensor-eq --rel 1e300 s z'
ok 'dtypes matter only when every bit does' '
    tensor-gen --name x --shape 3,4 --key k --dtype bf16 >b
    tensor-gen --name x --shape 3,4 --key k >c
    fails 1 tensor-eq b c
    grep "k: tensor .x. is BF16 \[3,4\], not F32 \[3,4\]" err
    tensor-eq --rel 0.01 b c'
ok 'shapes always do' '
    tensor-gen --name x --shape 4,3 --key k >b
    fails 1 tensor-eq --rel 1 b c
    grep "k: tensor .x. is F32 \[4,3\], not F32 \[3,4\]" err'
ok 'a tensor that only one has is named; --name looks at one' '
    tensor-gen --name x --shape 3,4 --key k --count 3 >b
    fails 1 tensor-eq a b >said
    [ $(grep -c "only the first has tensor .y." err) = 3 ]
    fails 1 tensor-eq b a >said
    [ $(grep -c "only the second has tensor .y." err) = 3 ]
    tensor-eq --name x a b
    fails 1 tensor-eq --name y a b
    fails 1 tensor-eq --name z a b
    grep "k0: has no tensor .z." err'
ok 'records that only one has are named' '
    tensor-gen --name x --shape 2 --key k --count 2 >two
    tensor-gen --name x --shape 2 --key k --count 3 >three
    fails 1 tensor-eq two three
    grep "k2: is only in the second" err
    fails 1 tensor-eq three two
    grep "k2: is only in the first" err
    for by in "" --by-key; do
        tensor-gen --name x --shape 2 --key k --count 0 >none
        tensor-eq $by none none
        fails 1 tensor-eq $by none two
        fails 1 tensor-eq $by two none
    done'
ok 'another order: told, or paired by key' '
    for i in 2 0 1; do tensor-gen --name x --shape 2 --key k$i; done >other
    fails 1 tensor-eq three other
    grep "k0: stands where .k2. does" err
    tensor-eq --by-key three other
    fails 1 tensor-eq --by-key two other
    grep "k2: is only in the second" err
    fails 1 tensor-eq --by-key other two
    grep "k2: is only in the first" err'
ok '--by-key: a key that is there twice is an error' '
    cat two two >twice
    fails 1 tensor-eq --by-key twice two
    grep "k0: is there twice in the first" err
    fails 1 tensor-eq --by-key two twice
    grep "k0: is there twice in the second" err
    tensor-eq twice twice'
ok 'a damaged stream is named' '
    head -c 500 a >cut
    fails 1 tensor-eq a cut
    grep "tensor-eq: cut: .*truncated" err
    fails 1 tensor-eq missing a
    grep "tensor-eq: missing: No such file" err'
ok '--strict stops at the first difference' '
    fails 1 tensor-eq --strict a b
    [ $(wc -l <err) = 1 ]'
finish
