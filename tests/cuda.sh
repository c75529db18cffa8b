#!/bin/sh
# The networks on a GPU: the same tests against the same references as on the CPU, in F32 and in BF16, and what
# happens when there is no such device.
# shellcheck shell=sh disable=SC2016
. "${0%/*}/lib.sh"

# All that was not right, or how it ended.
network() {
    need cuda
    out=$PWD/out code=0
    cd "$top"
    TEST_DEVICE=cuda TEST_DTYPE=$2 timeout 300 "$BUILD/tests/$1" >"$out" || code=$?
    [ "$code" = 0 ] || { grep -A 2 '^not ok' "$out" || tail -n 3 "$out"; return 1; }
}
for name in t5 vae dit train; do
    for dtype in f32 bf16; do ok "$name in $dtype on the GPU" "network $name $dtype"; done
done

ok 'a device that does not exist is one line, and no other is taken instead' '
    fails 1 vae-encode --device cuda:97 -m random:tiny </dev/null >out
    [ "$(wc -l <err)" = 1 ]
    [ ! -s out ]
    fails 2 vae-encode --device cuda:x -m random:tiny </dev/null'
ok '--device cuda without a GPU fails' '
    if nvidia-smi -L >/dev/null 2>&1; then echo there is a GPU here; exit 77; fi
    fails 1 vae-encode --device cuda -m random:tiny </dev/null
    [ "$(wc -l <err)" = 1 ]
    grep "no CUDA" err'
ok 'without --device the CPU serves where there is no GPU, and it is said' '
    if nvidia-smi -L >/dev/null 2>&1; then echo there is a GPU here; exit 77; fi
    tensor-gen --name video --dtype u8 --shape 1,16,16,3 | vae-encode -m random:tiny 2>err >/dev/null
    grep "computing on cpu" err'
finish
