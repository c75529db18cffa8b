#!/bin/sh
# vae-decode: shapes for every kind of frame count, dtypes, tiles, there and back, and latents it cannot take.
# The numbers themselves are held to diffusers' in vae.c.
# shellcheck disable=SC1091,SC2154 # lib.sh sets $tests and $top
. "${0%/*}/lib.sh"

vae="-m $tests/data/vae/b --device cpu"
latents() { # KEY SHAPE
    tensor-gen --name latents --shape "$2" --key "$1"
}
shape() { # FILE N,N,..: the one record of FILE, which is called k, holds a video in that shape
    tensor-gen --name video --dtype u8 --shape "$2" --key k >want
    tensor-eq --quiet --name video --abs 255 "$1" want
}

for pair in 1:1 2:8 3:9 4:16 5:17 13:49; do
    ok "${pair%:*} latents make ${pair#*:} frames" "
        latents k ${pair%:*},16,2,3 >in
        vae-decode $vae <in >out
        shape out ${pair#*:},16,24,3
        fails 1 tensor-eq --quiet --name latents in out"
done

latents k 3,16,2,3 >in
ok 'it undoes what vae-encode does to a shape' "
    tensor-gen --name video --dtype u8 --fill ramp --shape 9,24,16,3 --key k >video
    vae-encode $vae <video >latents
    vae-decode $vae <latents >back
    shape back 9,24,16,3"

ok 'F32, F16 and BF16 latents are taken, and differ by their rounding' "
    for type in f16 bf16; do
        tensor-gen --name latents --dtype \$type --shape 3,16,2,3 --key k >\$type.in
        vae-decode $vae <\$type.in >\$type
    done
    vae-decode $vae <in >f32
    tensor-eq --abs 2 f16 f32
    tensor-eq --abs 12 bf16 f32"

ok 'pixels do not depend on threads, on order, nor on the seed' "
    latents big 1,16,4,6 >big
    cat big in >all
    vae-decode $vae --threads 2 --seed 7 <all >a
    vae-decode $vae --threads 1 <in >b
    vae-decode $vae --threads 1 <big >>b
    tensor-eq --by-key a b"

ok 'tiling changes only what is larger than a tile' "
    vae-decode $vae <in >whole
    vae-decode $vae --tiling <in >tiled
    tensor-eq whole tiled
    latents k 2,16,7,12 >large
    vae-decode $vae <large >whole
    vae-decode $vae --tiling <large >tiled
    shape tiled 8,56,96,3
    fails 1 tensor-eq whole tiled
    tensor-eq --psnr 15 whole tiled"

ok 'other tensors and meta pass through; the latents do with --keep' "
    tensor-gen --add --name prompt_embeds --shape 4,8 --meta prompt='a cat' <in >more
    vae-decode $vae <more >a
    tensor-eq --name prompt_embeds more a
    vae-decode $vae --keep <more >b
    tensor-eq --name latents more b
    show --jsonl a >text
    grep -q 'a cat' text
    grep -q '\"vae\": *\"[0-9a-f]\{16\}\"' text"

ok 'latents it cannot take are named; the others are decoded' "
    latents channels 3,8,2,3 >channels
    latents flat 3,16,2 >flat
    latents none 0,16,2,3 >none
    latents thin 3,16,0,3 >thin
    tensor-gen --name latents --dtype u8 --shape 3,16,2,3 --key bytes >bytes
    tensor-gen --name video --dtype u8 --shape 3,16,16,3 --key missing >missing
    cat channels flat none thin bytes missing in >all
    fails 1 vae-decode $vae <all >out
    for key in channels flat none thin bytes missing; do grep \"\$key: .*latents\" err; done
    shape out 9,16,24,3"

ok 'wrong usage, models that are none' "
    fails 2 vae-decode <in >out
    fails 2 vae-decode $vae --mode <in >out
    fails 1 vae-decode -m $tests/data/t5/wide <in >out
    grep vae err"
finish
