#!/bin/sh
# draw: each epoch has every record once, in an order that nothing but the seed, the epoch and the keys decides.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $tests
. "${0%/*}/lib.sh"

tensor-gen --count 10 --key clip --name latents --shape 3 --meta fps=8 >in.mp
pack -o s <in.mp 2>/dev/null

# The keys of a stream, in one line; the positions (below 128).
keys() { grep -ao 'clip[0-9]*' "$1" | tr '\n' ' '; }
positions() { perl -0777 -ne 'print map { ord . " " } /position(.)/sg' "$1"; }
# A run folder whose state waits for position $2.
state() {
    mkdir -p "$1"
    header="{\"__metadata__\":{\"position\":\"$2\"},\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"
    # shellcheck disable=SC2059 # the length, as the format
    { printf "$(printf '\\%03o\\0\\0\\0\\0\\0\\0\\0' ${#header})"; printf '%sx' "$header"; } >"$1/state.safetensors"
}

ok 'an epoch has every record once, unchanged, and its position' '
    draw --epochs 1 s >a.mp; tensor-eq --by-key a.mp in.mp
    [ "$(positions a.mp)" = "0 1 2 3 4 5 6 7 8 9 " ]; [ "$(grep -ao fps a.mp | wc -l)" = 10 ]'
ok 'the order is the one that this seed has always had' '
    draw --seed 42 --epochs 2 s >b.mp
    [ "$(keys b.mp)" = "clip4 clip8 clip7 clip2 clip1 clip9 clip5 clip0 clip6 clip3 clip3 clip9 clip6 clip8 clip0 clip4 clip5 clip1 clip2 clip7 " ]'
ok 'another seed, another order' 'draw --seed 43 --epochs 1 s >c.mp; [ "$(keys c.mp)" != "$(keys a.mp)" ]'
ok 'no byte depends on the shards or on the order of packing' '
    for i in 7 3 9 1 0 8; do tensor-gen --key clip$i --name latents --shape 3 --meta fps=8; done >some.mp
    pack -o t --commit-every 2 <some.mp; pack -o t --shard-bytes 200 <in.mp
    draw --epochs 3 s >a.mp; draw --epochs 3 t >b.mp; cmp a.mp b.mp'
ok 'nor on whether the shards lie in one folder' '
    tensor-gen --count 7 --key clip --name latents --shape 3 --meta fps=8 | pack -o parts/0
    for i in 7 8 9; do tensor-gen --key clip$i --name latents --shape 3 --meta fps=8; done | pack -o parts/1
    draw --epochs 3 parts >b.mp; cmp a.mp b.mp'
ok 'it can start anywhere' '
    for p in 1 9 10 11 25; do
        draw --position $p --epochs 3 s >b.mp
        [ "$(keys b.mp)" = "$(keys a.mp | cut -d " " -f $((p + 1))-)" ]
    done
    draw --position 9 --count 3 s >b.mp; [ "$(positions b.mp)" = "9 10 11 " ]
    draw --position 4000000000000 --count 1 s >b.mp; [ "$(keys b.mp | wc -w)" = 1 ]'
ok '--from starts where the run stands' '
    state run 13
    draw --from run --count 5 s >a.mp; draw --position 13 --count 5 s >b.mp; cmp a.mp b.mp; [ "$(positions a.mp)" = "13 14 15 16 17 " ]
    mkdir fresh; draw --from fresh --count 2 s >a.mp; [ "$(positions a.mp)" = "0 1 " ]
    draw --from not-there-yet --count 2 s >b.mp; cmp a.mp b.mp'
ok 'what is no run folder, or cannot be looked into, is not one whose state is still to come' '
    ln -s loop loop
    fails 1 draw --from run/state.safetensors --count 1 s >out; grep "^draw: run/state.safetensors: Not a directory" err
    fails 1 draw --from loop --count 1 s >out; grep "^draw: loop: " err
    fails 1 draw --from "$(seq -s / 2000)" --count 1 s >out
    fails 2 draw --from "" --count 1 s >out; grep -e "--from" err
    [ ! -s out ]'
ok 'a state without a good position is refused' '
    for bad in "" -1 x 7x 99999999999999999999; do
        state bad "$bad"; fails 1 draw --from bad --count 1 s >/dev/null; grep "bad/state.safetensors: .*position" err
    done
    head -c 20 run/state.safetensors >bad/state.safetensors; fails 1 draw --from bad --count 1 s >/dev/null'
ok '--count and --epochs: what comes first' '
    draw --count 25 --epochs 2 s >a.mp; [ "$(keys a.mp | wc -w)" = 20 ]
    draw --count 15 --epochs 2 s >a.mp; [ "$(keys a.mp | wc -w)" = 15 ]
    draw --position 20 --epochs 2 s >a.mp; [ "$(keys a.mp | wc -w)" = 0 ]'
ok 'it goes on until the reader leaves, and then ends quietly' '
    { status=0; draw s 2>err || status=$?; echo $status >status; } | head -c 1000000 | wc -c >size
    [ "$(cat size)" = 1000000 ]; [ "$(cat status)" = 141 ]; [ ! -s err ]'
ok 'an empty store is refused' '
    printf "\n" | pack -o empty; fails 1 draw --count 1 empty >out; grep "empty store" err; [ ! -s out ]'
ok 'no store, no folder, no operand' '
    mkdir bare; fails 1 draw bare >out; grep "bare: no store" err
    fails 1 draw gone >out; grep "gone: No such file" err
    fails 2 draw >out
    fails 2 draw s s >out
    fails 2 draw --from run --position 3 s >out'
ok 'a damaged record stops it, with key and place' '
    cp -r s hurt; printf X | dd of=hurt/000000.mp bs=1 seek=250 conv=notrunc 2>/dev/null
    fails 1 draw --epochs 1 hurt >out; grep "clip[0-9]: hurt/000000.mp: .*byte" err
    cat out >cut.mp; fails 1 pack -o x <cut.mp; grep truncated err'
ok 'so do a damaged index and a shard that is gone or cut' '
    cp -r t lost; rm lost/000001.mp; fails 1 draw lost >out; grep "lost/000001.mp" err
    cp -r t short; head -c 100 t/000001.mp >short/000001.mp; fails 1 draw short >out; grep "short/000001.mp: too short" err
    cp -r t index; sed "s/fps/fqs/;s/clip8/clip6/" t/index.jsonl >index/index.jsonl; fails 1 draw index >out; grep "index/index.jsonl: damaged" err'
ok 'a full disk is noticed' 'fails 1 draw --count 3 s >/dev/full; grep "No space" err'
finish
