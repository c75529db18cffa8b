#!/bin/sh
# sample --dtype fp8: near the exact latents and not the same, the same twice, however the weights come; what is written down, what is refused.
# tests/kernels-fp8.c has the products.
# shellcheck disable=SC1091 # ok evaluates its text
. "${0%/*}/lib.sh"

M=random:tiny
tensor-gen --name prompt_embeds --shape 32,64 --count 2 --key prompt >prompts.mp
tensor-gen --name prompt_embeds --shape 9,64 --count 2 --key prompt >wan.mp
make_latents() { sample -m "$M" --device cpu --frames 5 --size 64x32 --steps 8 "$@" <prompts.mp; }
make_wan() { sample -m random:wan-tiny --device cpu --frames 5 --size 64x32 --steps 4 "$@" <wan.mp; }
how() { show --jsonl "$1" | sed -n 's/.*"dtype":"\([a-z0-9]*\)","seed.*/\1/p' | sort | uniq -c | tr -d ' '; }

ok "latents are near the exact ones, and are not those; every record says so" '
    make_latents --dtype f32 >exact.mp
    make_latents --dtype fp8 >fp8.mp
    tensor-eq --rel 0.1 exact.mp fp8.mp
    fails 1 tensor-eq --rel 0.01 exact.mp fp8.mp
    [ "$(how exact.mp) $(how fp8.mp)" = "2f32 2fp8" ]
    show --jsonl fp8.mp | grep -q "\"latents\":{\"dtype\":\"BF16\""'
ok "so are those of a Wan" '
    make_wan --dtype f32 >exact-wan.mp
    make_wan --dtype fp8 >fp8-wan.mp
    tensor-eq --rel 0.1 exact-wan.mp fp8-wan.mp
    fails 1 tensor-eq --rel 0.003 exact-wan.mp fp8-wan.mp'
ok "the same bytes twice, by any threads, on two devices, in any company" '
    for options in "" "--threads 1" "--device cpu,cpu"; do
        make_latents --dtype fp8 $options >again.mp
        cmp fp8.mp again.mp
    done
    tensor-gen --name prompt_embeds --shape 32,64 --count 1 --key prompt0 >alone.mp
    sample -m "$M" --device cpu --frames 5 --size 64x32 --steps 8 --dtype fp8 <alone.mp >one.mp
    show --jsonl fp8.mp | head -n 1 >want
    show --jsonl one.mp | diff want -'
ok "weights of files are put in FP8 as those that are made up are" '
    for preset in tiny wan-tiny; do
        model-init --seed 7 $preset $preset
        [ $preset = tiny ] && from=prompts.mp || from=wan.mp
        for m in $preset random:$preset:7; do
            sample -m $m --device cpu --frames 5 --size 64x32 --steps 4 --dtype fp8 <$from >${m%%:*}.mp
        done
        tensor-eq --quiet $preset.mp random.mp
    done'
# least OPTIONS...: the least memory in MiB, of a few, with which the weights are read
least() {
    for mib in 1 2 3 4 5 6 7 8 9 10 12 14 16; do
        if SLUICE_MEMORY=$(awk "BEGIN { print $mib / 1024 }") make_latents "$@" 2>err >/dev/null || ! grep -q "weights of" err; then
            echo "$mib"
            return
        fi
    done
}
ok "weights need less memory" '
    f32=$(least --dtype f32)
    fp8=$(least --dtype fp8)
    [ "$fp8" -lt "$f32" ]'
ok "an adapter is beside them, as exact as ever" '
    tensor-gen --name latents --shape 2,16,4,8 --count 3 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 |
        train-step -m "$M" --device cpu --objective v --lr 0.05 --warmup 0 --max-steps 3 --state run >/dev/null
    make_latents --dtype f32 -a run/last.safetensors >exact-adapter.mp
    make_latents --dtype fp8 -a run/last.safetensors >adapter.mp
    fails 1 tensor-eq --rel 0.1 exact.mp exact-adapter.mp
    tensor-eq --rel 0.1 exact-adapter.mp adapter.mp
    fails 2 make_latents --dtype fp8 -a run/last.safetensors --merge
    grep "merge: not with --dtype fp8" err'
ok "no other program has it" '
    for p in train-step vae-encode vae-decode t5-encode grade; do
        fails 2 $p -m "$M" --dtype fp8 </dev/null
        grep -q "dtype is one of bf16|f32, not .fp8" err
        $p --help | fails 1 grep fp8
    done
    sample --help | grep -q "bf16 | f32.*fp8"'
finish
