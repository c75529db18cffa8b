#!/bin/sh
# A name that is none: one line that lists what there is, and the nearest when one was meant. tests/listed.c has how names are compared.
# shellcheck disable=SC1091,SC2015,SC2016,SC2086,SC2154 # ok evaluates its text; lib.sh sets $top
. "${0%/*}/lib.sh"

# says CODE WORDS COMMAND...: the command fails so, with one line on stderr that has these words, and writes nothing.
says() {
    code=$1 words=$2; shift 2
    fails "$code" "$@" >out </dev/null
    grep -qF -e "$words" err || { cat err; return 1; }
    [ "$(grep -vc "computing on" err)" = 1 ] && [ ! -s out ] || { echo "more than a line"; cat err out; return 1; }
}
m=random:tiny
tensor-gen --name lattents --shape 2,3 --dtype u8 >odd.mp
printf '%s\n' '{"key":"a","prompt":"a ball"}' | t5-encode -m $m --device cpu >prompt.mp
train() { head -c 0 /dev/null | train-step -m $m --device cpu "$@"; }

ok 'an option' '
    says 2 "no option --adaptr; did you mean \`--adapter\`?" sample --adaptr x
    says 2 "no option --xyzzy (see" sample --xyzzy; says 2 "--strict takes no value" sample --strict=1'
ok 'a preset' '
    for command in "show -m random:tiyn" "model-init tiyn new" "t5-encode -m random:tiyn" "show -m random:tiyn:7"; do
        says 1 "random:tiyn: no preset is called so: did you mean \`tiny\`? there are " $command
    done
    says 1 "there are cogvideox-2b, " show -m random:none; [ ! -e new ]
    for preset in "$top"/examples/presets/*; do grep -F "${preset##*/}" err; done'
ok 'a kind of adapter, its setting, its target' '
    says 2 "no adapter \`gnd_cssm\`: did you mean \`gdn_cssm\`? there are standard, transformer, gdn_cssm" train --adapter gnd_cssm --state s
    says 2 "adapter gdn_cssm has no setting \`rnak\`: did you mean \`rank\`? there are rank, alpha, k, rope, dk" train --adapter gdn_cssm:rnak=4 --state s
    says 2 "no target \`to_x\`: did you mean \`to_q\`? there are to_q, to_k, to_v" train --targets to_x --state s; [ ! -e s ]'
ok 'a scheduler, an objective' '
    says 2 "--scheduler is one of dpm|ddim|unipc|euler, not \`unpic\`; did you mean \`unipc\`?" sample -m $m --scheduler unpic
    says 2 "--objective is one of flow|flow-snr|v, not \`flo\`; did you mean \`flow\`?" train --objective flo --state s'
ok 'a column' '
    printf "%s\n" "vidoe,caption" "a.mp4,b" >clips.csv
    says 1 "clips.csv: line 1: no column \`video\`: did you mean \`vidoe\`? there are vidoe, caption" curate --no-filter clips.csv
    printf "%s\n" "video,caption,motion" "a.mp4,b,1" >clips.csv
    says 1 "(--no-filter does without)" curate clips.csv; grep "no column .*: .*there are video, caption, motion" err
    printf "%s\n" "caption,action" "a,b" >test.csv
    says 1 "test.csv: line 1: no column \`model_name\`: there are caption, action" prompts --model-name x test.csv
    says 1 "no column \`acton\`: did you mean \`action\`? there are caption, action" prompts --only acton=b test.csv
    printf "%s\n" "key,variant,sa" "a,b,1" >scores.csv
    says 1 "scores.csv: line 1: no column \`pc\`: there are key, variant, sa" compare --base b scores.csv'
ok 'a run, a prompt, a model of a table' '
    printf "%s\n" "key,variant,sa,pc" "a1,base,1,1" "a1,k1,1,1" >scores.csv
    says 1 "no variant is called \`bsae\`: did you mean \`base\`? there are base, k1" compare --base bsae scores.csv
    says 1 "no prompt of all runs is called \`a2\`: did you mean \`a1\`? there is a1" report --base base --format text --prompts a2 scores.csv
    says 1 "no variant is called \`k2\`: did you mean \`k1\`? there are base, k1" report --base base --format text --videos k2=/dev/null scores.csv
    printf "%s\n" "caption,model" "a,wan2.1" "b,other" >test.csv
    says 1 "no row of model \`wan21\`: did you mean \`wan2.1\`? there are " prompts --model-name wan21 test.csv'
ok 'a tensor of a record' '
    fails 1 vae-encode -m $m --device cpu <odd.mp >out; grep -F "has no tensor \`video\`: there is lattents" err
    fails 1 vae-decode -m $m --device cpu <odd.mp >out; grep -F "has no tensor \`latents\`: did you mean \`lattents\`? there is lattents" err'
ok 'a field of a config, a tensor of an adapter' '
    model-init tiny model; sed -i "s/\"num_layers\"/\"num_layer\"/" model/transformer/config.json
    fails 1 show -m model --check >out; grep -F "num_layers is missing, must be a whole number" err; grep -F "; did you mean \`num_layer\`?" err'
ok 'an adapter that is a run'"'"'s folder, or a folder without one' '
    mkdir run empty; echo x >run/best.safetensors; echo x >empty/other.safetensors
    fails 1 sample -m $m --device cpu -a run <prompt.mp >out; grep -F "run: a run'"'"'s folder, and no adapter; did you mean \`run/best.safetensors\`?" err
    fails 1 sample -m $m --device cpu -a run:0.5 <prompt.mp >out; grep -F "did you mean \`run/best.safetensors\`?" err
    fails 1 sample -m $m --device cpu -a empty <prompt.mp >out; grep -F "empty: a folder without an adapter; of .safetensors there is other.safetensors" err
    fails 1 sample -m $m --device cpu -a empty/other.safetensors <prompt.mp >out; grep "other.safetensors: only 2 bytes" err'
ok 'a setting of the pipelines, a configuration' '
    says 2 "no setting MAX_STEP: did you mean MAX_STEPS? there are " "$top/pipelines/plan" MAX_STEP=3
    says 1 "tyni: no such configuration: there are paper-wan, paper, tiny-wan, tiny, and files" "$top/pipelines/plan" --config tyni'
finish
