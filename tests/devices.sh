#!/bin/sh
# sample and train-step --device A,B: the bytes of one device, whatever each is asked for. Two devices of the CPU stand for two cards; where
# there is a card, it is used twice, too.
# shellcheck disable=SC1091,SC2154 # ok evaluates its text
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
    same --dtype fp8 -a x.safetensors
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
# trained DEVICES NAME OPTIONS...: a run of six steps of four records
trained() {
    devices=$1 state=$2
    shift 2
    train-step -m "$M" --device "$devices" --objective v --lr 0.01 --warmup 1 --max-steps 6 --accumulate 4 --state "$state" "$@"
}
same_state() { # RUN RUN
    for file in metrics.jsonl last.safetensors state.safetensors; do cmp "$1/$file" "$2/$file"; done
}
tensor-gen --name latents --shape 2,16,4,8 --count 24 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 >many.mp
ok "train-step: the same run on one, two and four devices, each kind of adapter, each recompute" '
    for adapter in standard:rank=4 transformer:rank=4 gdn_cssm:rank=4; do
        rm -rf one two four
        trained cpu one --adapter $adapter <many.mp >one.metrics
        trained cpu,cpu two --adapter $adapter --recompute full <many.mp >two.metrics
        cmp one.metrics two.metrics
        same_state one two
        [ "$(grep -c grad_norm one.metrics)" = 6 ]
    done
    trained cpu,cpu,cpu,cpu four --adapter gdn_cssm:rank=4 <many.mp >/dev/null
    same_state one four
    fails 1 cmp -s one/last.safetensors x.safetensors'
ok "train-step: stopped within a step and gone on with, on other numbers of devices, with validation and an initial adapter" '
    pack -o val <clips.mp
    more() { trained "$1" "$2" --init x.safetensors --val val --eval-every 2 --eval-clips 2 --save-every 1; }
    more cpu whole <many.mp >/dev/null
    tensor-gen --name latents --shape 2,16,4,8 --count 11 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 |
        more cpu,cpu parts >/dev/null 2>err
    grep "after step 2 of 6" err
    tensor-gen --name latents --shape 2,16,4,8 --count 18 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 |
        more cpu,cpu,cpu,cpu parts >/dev/null 2>err
    grep "after step 4 of 6" err
    more cpu parts <many.mp >/dev/null
    same_state whole parts'
ok "train-step: a record that fails on whichever device is named, and nothing of its step is kept" '
    for bad in 4 5 6 7; do
        tensor-gen --name latents --shape 2,16,4,8 --count $bad --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 >good.mp
        tensor-gen --name latents --shape 2,16,4,8 --count 1 --key huge --scale 1e38 | tensor-gen --add --name prompt_embeds --shape 32,64 >huge.mp
        tensor-gen --name latents --shape 2,16,4,8 --count 4 --key rest | tensor-gen --add --name prompt_embeds --shape 32,64 >rest.mp
        cat good.mp huge.mp rest.mp >all.mp
        rm -rf bad
        fails 1 trained cpu,cpu bad <all.mp >metrics
        grep "step 2.*huge" err
        [ "$(grep -c grad_norm metrics)" = 1 ]
    done'
ok "train-step: records are read ahead, but none after the last step, and before damage the step at work is finished" '
    rm -rf one
    mkfifo feed
    exec 8<>feed
    (trained cpu,cpu open <feed >open.metrics) & # the feed does not end
    cat many.mp >&8
    wait $!
    exec 8>&-
    trained cpu one <many.mp >one.metrics
    cmp one.metrics open.metrics
    same_state one open
    head -c $(($(wc -c <many.mp) * 9 / 24)) many.mp >cut.mp
    fails 1 trained cpu,cpu cut <cut.mp >cut.metrics
    grep "stdin" err
    head -n 2 one.metrics | cmp cut.metrics -'
ok "one card twice, and two where there are" '
    need cuda
    on cuda:0 >one.mp
    on cuda:0 -a x.safetensors --compute-steps 0-1,4 >one-x.mp
    trained cuda:0 one-card <many.mp >/dev/null
    for other in cuda:0 cuda:1; do
        [ "$other" = cuda:0 ] || [ "$(nvidia-smi -L | grep -c ^GPU)" -gt 1 ] || continue
        on "cuda:0,$other" >two.mp
        cmp one.mp two.mp
        on "cuda:0,$other" -a x.safetensors --compute-steps 0-1,4 >two.mp
        cmp one-x.mp two.mp
        rm -rf two
        trained "cuda:0,$other" two <many.mp >/dev/null
        same_state one-card two
    done'
ok "pipelines: CARDS_PER_JOB GPUs for each job of generate and train, the next free ones, for as long as it lives" '
    cat >choose <<"END"
set -euo pipefail
several=yes CARDS_PER_JOB=$1 slot=$2 dry="" DEVICE="" THREADS=0
die() { echo "$*" >&2; exit 1; }
. "$3/pipelines/jobs.sh"
choose_device
echo "${cards[*]}, $(device_list 2), ${compute[*]}"
[ -z "${4-}" ] || { echo >"$4"; while [ ! -e ended ]; do sleep 0.05; done; }
END
    export XDG_CACHE_HOME="$work/cache" CUDA_VISIBLE_DEVICES=0,1,2,3,4
    [ "$(bash choose 2 1 "$top")" = "cuda:0 cuda:1, cuda:0,cuda:1, --device cuda:0 --threads 0" ]
    [ "$(bash choose 2 2 "$top")" = "cuda:2 cuda:3, cuda:2,cuda:3, --device cuda:2 --threads 0" ]
    bash choose 2 1 "$top" held >first &
    while [ ! -e held ]; do sleep 0.05; done
    [ "$(bash choose 2 1 "$top" | cut -d, -f 1)" = "cuda:2 cuda:3" ] # its own are taken
    [ "$(bash choose 1 1 "$top" | cut -d, -f 1)" = "cuda:2" ]
    bash choose 4 1 "$top" >waits &
    sleep 0.3
    [ ! -s waits ]
    [ "$(bash choose 1 3 "$top" | cut -d, -f 1)" = "cuda:2" ] # who waits holds none
    : >ended
    wait
    grep -q "^cuda:0 cuda:1 cuda:2 cuda:3," waits
    fails 1 bash choose 6 1 "$top"; grep -q "there are 5 GPUs" err'
ok "pipelines: what they give to the programs" '
    . "$tests/pipelines"
    need_parallel; need gnuplot
    little generate --dry-run DEVICE=cpu CARDS_PER_JOB=3 base >dry 2>/dev/null
    grep -q "sample [^|]*--device cpu.,cpu " dry
    little generate --dry-run DEVICE=cpu DTYPE=fp8 base 2>/dev/null | grep -q "| sample [^|]* --dtype fp8"
    little generate --dry-run DEVICE=cpu CARDS_PER_JOB=3 GUIDANCE=1 base >dry 2>/dev/null
    grep -q "sample [^|]*--device cpu " dry
    little train --dry-run DEVICE=cpu CARDS_PER_JOB=3 ACCUMULATE=4 standard_r16 >dry 2>/dev/null # two of three divide four
    grep -q "draw .*--count 24 .*train-step [^|]*--device cpu.,cpu [^|]*--accumulate 4" dry
    fails 2 little train CARDS_PER_JOB=0; fails 2 little train ACCUMULATE=x'
ok "lists of devices that are none, and programs that take one" '
    for devices in cpu, ,cpu cpu,,cpu auto,cpu cpu,cuda:x cpu,tpu; do fails 2 on $devices >out; grep -q -e "--device is a list of" err; done
    fails 2 on cpu,cpu,cpu >out; grep -q "two at most" err
    fails 2 on cpu,cpu --guidance 1 >out; grep -q "a second one is for guidance" err
    fails 2 vae-decode -m "$M" --device cpu,cpu <prompts.mp >out; grep -q "cpu, cuda or cuda:N" err
    fails 1 on cpu,cuda:99 >out
    fails 2 trained cpu,cpu,cpu three <many.mp; grep -q "3 devices do not share the 4 records" err
    fails 2 trained cpu,cpu one --accumulate 1 <many.mp; [ ! -e three ]
    sample -m "$M" --check-options --device cuda:0,cuda:1
    train-step -m "$M" --check-options --device cuda:0,cuda:1 --accumulate 2 --state none
    fails 2 train-step -m "$M" --check-options --device cuda:0,cuda:1 --accumulate 3 --state none'
finish
