#!/bin/sh
# sample and train-step --device A,B: the bytes of one device, whatever each is asked for. Two devices of the CPU stand for two cards; where
# there is a card, it is used twice, too.
# shellcheck disable=SC1091
. "${0%/*}/lib.sh"
M=random:tiny
tensor-gen --name prompt_embeds --shape 32,64 --count 3 --key prompt >prompts.mp
tensor-gen --name latents --shape 2,16,4,8 --count 3 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 >clips.mp
train-step -m "$M" --device cpu --objective v --lr 0.05 --warmup 0 --max-steps 3 --state run --adapter standard:rank=4 <clips.mp >/dev/null 2>&1
mv run/last.safetensors x.safetensors
on() { # DEVICES OPTIONS...
    devices=$1
    shift
    sample -m "$M" --device "$devices" --frames 5 --size 64x32 --steps 8 "$@" <prompts.mp
}
same() { # OPTIONS...
    on cpu "$@" >one.mp
    on cpu,cpu "$@" >two.mp
    cmp one.mp two.mp
}

ok "sample: the same bytes, plain, approximated, with adapters, merged, by other schedulers" '
    same
    same --compute-steps 0-1,4 --guidance-steps 1-6
    same --dynamic --trajectory -a x.safetensors
    same -a x.safetensors:0.5 --merge --dtype f32 --rng torch-cpu
    same --scheduler euler --threads 1
    fails 1 cmp -s one.mp x.safetensors'
ok "sample: a Wan, whose text is digested on the device that reads it" '
    t5-encode -m random:wan-tiny --device cpu <"$SLUICE_DATA/prompts.jsonl" | head -c 100000000 >texts.mp
    sample -m random:wan-tiny --device cpu --frames 5 --size 64x32 --steps 4 <texts.mp >one.mp
    sample -m random:wan-tiny --device cpu,cpu --frames 5 --size 64x32 --steps 4 <texts.mp >two.mp
    cmp one.mp two.mp'
ok "sample: a record that fails is named, and the next one is made" '
    tensor-gen --name prompt_embeds --shape 32,64 --count 1 --key prompt0 >good.mp
    tensor-gen --name prompt_embeds --shape 31,64 --count 1 --key bad >bad.mp
    cat bad.mp good.mp >both.mp
    fails 1 sample -m "$M" --device cpu,cpu --frames 5 --size 64x32 --steps 8 <both.mp >out.mp
    grep -q "bad: prompt_embeds" err
    on cpu >one.mp
    show --jsonl one.mp | head -n 1 >want
    show --jsonl out.mp | diff want -'
ok "sample: memory that is wanting on both is said in one line" '
    SLUICE_MEMORY=0.001 fails 1 on cpu,cpu >out.mp
    [ "$(grep -c . err)" -le 2 ]'
ok "one card twice" '
    need cuda
    on cuda:0 >one.mp
    on cuda:0,cuda:0 >two.mp
    cmp one.mp two.mp
    on cuda:0 -a x.safetensors --compute-steps 0-1,4 >one.mp
    on cuda:0,cuda:0 -a x.safetensors --compute-steps 0-1,4 >two.mp
    cmp one.mp two.mp'
ok "lists of devices that are none, and programs that take one" '
    for devices in cpu, ,cpu cpu,,cpu auto,cpu cpu,cuda:x cpu,tpu; do fails 2 on $devices >out; grep -q -e "--device is a list of" err; done
    fails 2 on cpu,cpu,cpu >out; grep -q "two at most" err
    fails 2 on cpu,cpu --guidance 1 >out; grep -q "a second one is for guidance" err
    fails 2 vae-decode -m "$M" --device cpu,cpu <prompts.mp >out; grep -q "cpu, cuda or cuda:N" err
    fails 1 on cpu,cuda:99 >out
    sample -m "$M" --check-options --device cuda:0,cuda:1'
finish
