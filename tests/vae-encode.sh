#!/bin/sh
# vae-encode: shapes for every kind of frame count, sample and mode, image latents, tiles, and clips it cannot take.
# The numbers themselves are held to diffusers' in vae.c.
# shellcheck disable=SC1091,SC2154 # lib.sh sets $tests and $top
. "${0%/*}/lib.sh"

vae="-m $tests/data/vae/a --device cpu"
clip() { # KEY FRAMES HEIGHT WIDTH: a clip unlike any other key's
    tensor-gen --name video --dtype u8 --fill uniform --shape "$2,$3,$4,3" --key "$1"
}
shape() { # FILE TENSOR N,N,..: the one record of FILE, which is called k, holds it in that shape
    tensor-gen --name "$2" --shape "$3" --key k >want
    tensor-eq --quiet --name "$2" --abs 1e30 "$1" want
}

for pair in 1:1 2:1 5:2 8:2 9:3 11:3 13:4 16:4 17:5 49:13; do
    ok "${pair%:*} frames make ${pair#*:} latents" "
        clip k ${pair%:*} 16 24 >in
        vae-encode $vae <in >out
        shape out latents ${pair#*:},16,2,3
        fails 1 tensor-eq --quiet --name video in out"
done

clip k 9 16 24 >in
clip other 9 16 24 >second
ok 'output is BF16, F32 on demand, and the one is the other rounded' "
    vae-encode $vae <in >bf16
    vae-encode $vae --dtype f32 <in >f32
    tensor-eq --rel 4e-3 bf16 f32
    fails 1 tensor-eq bf16 f32
    show bf16 | grep -w BF16
    show f32 | grep -w F32"

ok 'a sample depends on seed and key; the mode on neither' "
    vae-encode $vae --dtype f32 <in >a
    vae-encode $vae --dtype f32 --sample <in >b
    vae-encode $vae --dtype f32 --seed 7 <in >c
    tensor-eq a b
    fails 1 tensor-eq --rel 0.1 a c
    vae-encode $vae --dtype f32 --mode <in >d
    vae-encode $vae --dtype f32 --mode --seed 7 <in >e
    tensor-eq d e
    fails 1 tensor-eq --rel 0.1 a d"

payload() { tail -c 400 "$1" | head -c 300; } # from within the one tensor: only the end header, of some 60 bytes, follows
ok 'two clips alike but for their key have other noise, but the same mode' "
    for key in one two; do
        tensor-gen --name video --dtype u8 --fill ramp --shape 5,16,24,3 --key \$key >in.\$key
        vae-encode $vae <in.\$key | payload - >sample.\$key
        vae-encode $vae --mode <in.\$key | payload - >mode.\$key
    done
    cmp mode.one mode.two
    fails 1 cmp sample.one sample.two"

ok 'the order of clips, their sizes before and threads change no bit' "
    clip big 5 32 40 >big
    cat big in second >all
    vae-encode $vae --threads 2 <all >a
    vae-encode $vae --threads 1 <second >b
    cat b >c
    vae-encode $vae --threads 1 <in >>c
    vae-encode $vae --threads 1 <big >>c
    tensor-eq --by-key a c"

ok 'image latents are those of frame 0 by itself' "
    vae-encode $vae --mode --image-latents --dtype f32 <in >a
    shape a latents 3,16,2,3
    shape a image_latents 1,16,2,3
    clip k 1 16 24 >short # its values are the first of the longer one's
    vae-encode $vae --mode --image-latents --dtype f32 <short >b
    tensor-eq --name image_latents a b
    fails 1 tensor-eq --name latents a b"

ok 'tiling changes only what is larger than a tile' "
    vae-encode $vae --mode --dtype f32 <in >whole
    vae-encode $vae --mode --dtype f32 --tiling <in >tiled
    tensor-eq whole tiled
    clip k 5 64 48 >large
    vae-encode $vae --mode --dtype f32 <large >whole
    vae-encode $vae --mode --dtype f32 --tiling <large >tiled
    shape tiled latents 2,16,8,6
    fails 1 tensor-eq whole tiled"

ok 'other tensors and meta pass through; the video does with --keep' "
    tensor-gen --add --name prompt_embeds --shape 4,8 --meta caption='a cat' <in >more
    vae-encode $vae <more >a
    tensor-eq --name prompt_embeds more a
    vae-encode $vae --keep <more >b
    tensor-eq --name video more b
    tensor-eq --name latents a b
    show --jsonl a >text
    grep -q 'a cat' text
    grep -q '\"posterior\": *\"sample\"' text
    grep -q '\"vae\": *\"[0-9a-f]\{16\}\"' text"

ok 'a clip it cannot take is named; the others are encoded' "
    clip odd 5 16 20 >odd
    tensor-gen --name video --dtype f32 --shape 5,16,24,3 --key float >float
    tensor-gen --name video --dtype u8 --shape 5,16,24,4 --key alpha >alpha
    tensor-gen --name video --dtype u8 --shape 0,16,24,3 --key none >none
    tensor-gen --name movie --dtype u8 --shape 5,16,24,3 --key missing >missing
    cat odd float alpha none missing in >all
    fails 1 vae-encode $vae <all >out
    grep 'odd: .*20x16.* multiples of 8' err
    grep 'float: .*video' err
    grep 'alpha: .*video' err
    grep 'none: .*video' err
    grep 'missing: .*video' err
    shape out latents 3,16,2,3
    fails 1 vae-encode $vae --strict <all >out
    [ \$(wc -l <err) = 1 ]"

ok 'the next clip is read while one is encoded, and failures stay where they belong' "
    clip k 9 224 320 >large
    { cat large large; wc -c <out >when; } | vae-encode $vae >out
    [ \"\$(cat when)\" = 0 ] # more than a pipe holds was taken before anything was written
    clip short 9 15 24 >odd
    cat in odd second odd in >five
    fails 1 vae-encode $vae <five >out
    [ \"\$(grep -c '^vae-encode: short: ' err)\" = 2 ]
    for n in in second in; do vae-encode $vae <\$n; done >alone
    tensor-eq out alone
    head -c \$((\$(wc -c <in) + 100)) five >cut
    fails 1 vae-encode $vae <cut >out
    grep truncated err
    [ \"\$(wc -c <out)\" -gt 192 ]"

ok 'wrong usage, models that are none or broken' "
    fails 2 vae-encode <in >out
    grep -e --model err
    fails 2 vae-encode $vae --mode --sample <in >out
    fails 1 vae-encode -m nowhere <in >out
    grep nowhere err
    cp -r $tests/data/vae/a broken
    head -c 100000 broken/vae/diffusion_pytorch_model.safetensors >cut
    mv cut broken/vae/diffusion_pytorch_model.safetensors
    fails 1 vae-encode -m broken <in >out
    grep diffusion_pytorch_model err
    cp -r $tests/data/vae/a other-config
    sed 's/\"layers_per_block\": 3/\"layers_per_block\": 2/' $tests/data/vae/a/vae/config.json >other-config/vae/config.json
    fails 1 vae-encode -m other-config <in >out
    grep 'resnets' err"

ok 'what cannot fit in memory is refused with the numbers, and the next clip is encoded' "
    [ -z '${SAN:-}' ] || { echo sanitizers need all the addresses; exit 77; }
    tensor-gen --name video --dtype u8 --fill zero --shape 1,4000,4000,3 --key large >all
    cat in >>all
    (ulimit -v 1000000; fails 1 vae-encode $vae --threads 1 <all >out)
    grep 'large: .*MiB needed' err
    shape out latents 3,16,2,3"

ok '--profile tells where the time went, the longest first' "
    vae-encode $vae --profile <in 2>err >out
    grep -E 'profile: +[0-9.]+ % +[0-9.]+ s +[0-9]+ calls  causal_conv3d_forward' err
    sed -n 's/.*profile: *\([0-9.]*\) %.*/\1/p' err | sort -rnc"
ok "what has no room whole, and has in tiles, says so: the values are others, so the user decides" '
    tensor-gen --name video --dtype u8 --fill ramp --shape 9,256,384,3 >large.mp
    export SLUICE_MEMORY=0.1
    fails 1 vae-encode -m random:tiny --device cpu <large.mp >out
    grep -q "0.252 GiB of memory needed, 0\.0[0-9]* are free on cpu; --tiling fits, with 0.0[0-9]*" err
    vae-encode -m random:tiny --device cpu --tiling <large.mp >tiled.mp
    export SLUICE_MEMORY=
    vae-encode -m random:tiny --device cpu --tiling <large.mp | cmp - tiled.mp
    export SLUICE_MEMORY=0.01
    fails 1 vae-encode -m random:tiny --device cpu <large.mp >out
    fails 1 grep tiling err'
finish
