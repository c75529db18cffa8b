#!/bin/sh
# Models of two transformers: both in one process or each in its own give the same bytes; what is whose; what is refused. tests/sample.c
# compares them with WanPipeline.
# shellcheck disable=SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"

model-init wan-tiny two 2>/dev/null
model-init --seed 7 wan-tiny other 2>/dev/null
mv other/transformer two/transformer_2
sed -i 's/"boundary_ratio": null/"boundary_ratio": 0.875/' two/model_index.json
tensor-gen --name prompt_embeds --shape 9,64 --count 2 --key prompt | tensor-gen --add --name negative_embeds --shape 3,64 >embeds.mp
made() { sample -m two --device cpu --frames 5 --size 48x32 --steps 6 --shift 5 --guidance 4 "$@"; }
adapter() { # NAME MODEL: of a rate that nobody can overlook
    tensor-gen --name latents --shape 2,16,4,6 --count 3 --key clip | tensor-gen --add --name prompt_embeds --shape 9,64 |
        train-step -m "$2" --device cpu --lr 0.05 --warmup 0 --max-steps 3 --state "$1" >/dev/null 2>&1
    mv "$1/last.safetensors" "$1.safetensors"
}
adapter a random:wan-tiny:42
adapter b random:wan-tiny:7

ok 'two processes give the bytes of one, and tell the same of them' '
    made --guidance-low 3 <embeds.mp >both.mp
    made --expert high <embeds.mp >half.mp
    made --expert low --guidance-low 3 <half.mp >low.mp
    tensor-eq both.mp low.mp
    show --jsonl half.mp | grep -F "\"high_latents\":{\"dtype\":\"F32\",\"shape\":[2,16,4,6]}" | grep -F "\"expert\":\"high\""
    fails 1 grep -aq high_latents low.mp
    need python3
    for one in both low; do show --jsonl $one.mp >$one.jsonl; done
    python3 -c "import json; a, b = [[json.loads(l) for l in open(n)] for n in (\"both.jsonl\", \"low.jsonl\")]; assert len(a) == 2 and a == b, (a, b)"'
ok 'the noise of a record, other threads and a record alone change nothing' '
    made --expert high --threads 1 <embeds.mp | made --expert low --guidance-low 3 --threads 2 | tensor-eq both.mp -
    tensor-gen --name prompt_embeds --shape 9,64 --count 1 --key prompt | tensor-gen --add --name negative_embeds --shape 3,64 |
        tensor-gen --add --name noise --shape 2,16,4,6 >own.mp
    made <own.mp >whole.mp; made --expert high <own.mp | made --expert low | tensor-eq whole.mp -'
ok 'both in FP8, in one process and in two' '
    made --dtype fp8 <embeds.mp >fp8.mp; fails 1 tensor-eq --rel 0.001 --quiet both.mp fp8.mp
    made --expert high --dtype fp8 <embeds.mp | made --expert low --dtype fp8 | tensor-eq fp8.mp -'
ok 'each has its guidance and its adapter' '
    made <embeds.mp >same.mp; fails 1 tensor-eq --quiet both.mp same.mp
    made --guidance-low 4 <embeds.mp | tensor-eq same.mp -
    made -a a.safetensors <embeds.mp >high.mp; made --adapter-low b.safetensors <embeds.mp >low.mp
    made -a a.safetensors --adapter-low b.safetensors <embeds.mp >ab.mp
    for other in same high low; do fails 1 tensor-eq --rel 1e-3 --quiet ab.mp $other.mp; done
    made --expert high -a a.safetensors <embeds.mp | made --expert low --adapter-low b.safetensors | tensor-eq ab.mp -
    made --merge -a a.safetensors --adapter-low b.safetensors --dtype f32 <embeds.mp >merged.mp
    made -a a.safetensors --adapter-low b.safetensors --dtype f32 <embeds.mp | tensor-eq --rel 1e-4 --quiet merged.mp -'
ok 'an adapter of either in another form is the same adapter' '
    for e in a b; do model-convert --to kohya -m two $e.safetensors $e-kohya.safetensors 2>/dev/null; done
    made -a a-kohya.safetensors --adapter-low b-kohya.safetensors <embeds.mp >forms.mp
    made -a a.safetensors --adapter-low b.safetensors <embeds.mp | tensor-eq forms.mp -'
ok 'without guidance at the high one there is none at the low one, as in WanPipeline' '
    made --guidance 1 --guidance-low 3 <embeds.mp >none.mp; made --guidance 1 <embeds.mp | tensor-eq none.mp -'
tensor-gen --name latents --shape 2,16,4,6 --count 4 --key clip | tensor-gen --add --name prompt_embeds --shape 9,64 | pack -o store 2>/dev/null
train() { train-step -m two --device cpu --lr 1e-3 --warmup 1 --max-steps 40 --val store --eval-every 40 --eval-clips 4 "$@"; }
seen() { sed -n 's/.*"s":\([0-9.e-]*\).*/\1/p' "$1" | sort -g | sed -n '1p;$p' | tr '\n' ' '; } # the least level and the largest
ok 'an expert is trained on its own levels, and is the network that is meant' '
    for e in high low; do draw --count 40 store | train --expert $e --state $e >$e.jsonl 2>/dev/null; done
    seen high.jsonl | awk "{ exit !(\$1 >= 0.875 && \$1 < 0.9 && \$2 > 0.97 && \$2 < 1) }"
    seen low.jsonl | awk "{ exit !(\$1 >= 0 && \$1 < 0.1 && \$2 > 0.8 && \$2 < 0.875) }"
    mkdir alone; cp -r two/scheduler two/model_index.json alone; cp -r two/transformer_2 alone/transformer
    draw --count 40 store | train-step -m alone --device cpu --lr 1e-3 --warmup 1 --max-steps 40 --val store --eval-every 40 --eval-clips 4 \
        --levels-to 0.875 --state alone-run >alone.jsonl 2>/dev/null
    [ "$(show --jsonl --stats low/last.safetensors)" = "$(show --jsonl --stats alone-run/last.safetensors)" ]
    made --adapter-low low/last.safetensors -a high/best.safetensors <embeds.mp >trained.mp'
ok 'a range of levels, stopped and gone on with, gives the same; another range does not go on' '
    for at in 15 40; do draw --count $at store | train --expert high --state parts >/dev/null 2>&1; done
    cmp parts/last.safetensors high/last.safetensors
    draw --count 40 store >all.mp
    fails 1 train --expert high --levels-from 0.5 --state high <all.mp >out; grep "level_range" err
    fails 2 train --expert high --levels-from 0.5 --levels-to 0.5 --state x <all.mp; grep -e "--levels-from 0.5 is not below" err
    fails 2 train-step -m random:wan-tiny --expert low --state x <all.mp >out; grep "this model has one transformer" err
    [ ! -e x ]'
ok 'the preset: twice the network of wan-14b; show and model-init know both' '
    for e in high low; do
        train-step --dry-run -m random:wan-a14b --expert $e </dev/null | grep "^model *14288491584 parameters"
    done
    show -m random:wan-a14b | grep -c "^transformer_2/blocks\." >second
    show -m random:wan-a14b | grep -c "^transformer/blocks\." | diff second -; grep -x 1080 second
    show -m two --check
    model-init --seed 42 ./two copy 2>/dev/null; [ -s copy/transformer_2/diffusion_pytorch_model.safetensors ]; cmp copy/model_index.json two/model_index.json
    mv copy/transformer_2/config.json away; fails 1 show -m copy >out; grep "transformer_2" err'
ok 'what does not belong together is refused by name' '
    fails 1 made --expert low <embeds.mp >out; grep "no sample --expert high has made it" err
    fails 1 made --expert low <both.mp >out
    fails 1 made --expert low --steps 7 <half.mp >out; grep "prompt.*: steps: the high expert had another" err
    fails 1 made --expert low --guidance 5 <half.mp >out; grep "guidance: the high expert had another" err
    fails 1 made --expert low --dtype fp8 <half.mp >out; grep "dtype: the high expert had another" err
    fails 1 made --expert low --shift 3 <half.mp >out; grep "shift: the high" err
    fails 1 made --expert low --size 32x48 <half.mp >out; grep "high_latents is of another size than asked for" err
    fails 1 vae-decode -m two <half.mp >out; grep "latents" err
    fails 2 made --expert low -a a.safetensors; grep "for the high expert" err
    fails 2 made --expert high --guidance-low 3; grep "for the low expert" err
    fails 2 made --expert high --adapter-low a.safetensors; grep "for the low expert" err
    for o in "--compute-steps 2" "--guidance-steps 0-1" --trajectory "--device cpu,cpu"; do
        # shellcheck disable=SC2086
        fails 2 made $o; grep "not with a model of two transformers" err
    done
    for o in "--expert high" "--guidance-low 3" "--adapter-low a.safetensors"; do
        # shellcheck disable=SC2086
        fails 2 sample -m random:wan-tiny $o; grep "this model has one transformer" err
    done
    cp -r two without; sed -i "s/0.875/null/" without/model_index.json
    fails 1 sample -m without --steps 2 <embeds.mp >out; grep "model_index.json: no boundary_ratio" err
    fails 1 train-step -m two --state r <embeds.mp >out; grep "transformer_2: a model of two transformers" err'
ok 'the pipelines: EXPERT is trained, and its adapter is where it belongs; GUIDANCE_LOW' '
    need parallel
    echo "{\"key\":\"a\",\"prompt\":\"A ball.\"}" >prompts.jsonl
    piped() { program=$1; shift; "$top/pipelines/$program" --config paper-wan MODEL=two GRADER=random:owl-tiny CLIPS=x.csv VIDEOS=. PROMPTS=prompts.jsonl \
        FRAMES=5 SIZE=48x32 STEPS=6 DEVICE=cpu --dry-run RUNS="base
r standard" "$@"; }
    for expert in high low; do piped train EXPERT=$expert >said; grep -e "train-step -m two .* --expert $expert --lr 1e-4 " said; done
    piped generate EXPERT=high GUIDANCE_LOW=3 >said; grep -e "sample -m two .* -a experiment-wan/runs/r/best.safetensors .* --guidance 5 --guidance-low 3 " said
    piped generate EXPERT=low >said; grep -e "--adapter-low experiment-wan/runs/r/best.safetensors" said; fails 1 grep -e --guidance-low said
    fails 2 piped train EXPERT=both; grep "EXPERT is high, low or empty, not .both." err
    fails 2 piped train; grep "EXPERT is high or low for a model of two transformers, which two is" err
    piped train MODEL=random:wan-tiny >said; grep -e "train-step -m random:wan-tiny " said'
finish
