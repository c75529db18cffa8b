#!/bin/sh
# pipelines/: train, generate, grade-all and reproduce on the tiny model: the same bytes for any number of workers and after any
# interruption, whatever the paths; what fails is named, and what is there is left alone.
# shellcheck disable=SC1091,SC2016,SC2034,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"
need_all() { need_parallel; need gnuplot; }

# videos FOLDER: how many there are
videos() { find "$1" -name '*.mp4' | wc -l; }

ok 'the whole experiment, by four workers' '
    need_all
    mkdir four; cp prompts.csv little.conf four; cd four
    little reproduce -j 4 >table 2>err || { cat err; exit 1; }
    grep "^2 prompts, " table
    [ "$(videos work/videos)" = 6 ]
    for file in runs.txt curves.png comparison.txt comparison.json results.json bars.png forest.png report.html; do [ -s work/$file ]; done
    for run in base standard_r16 gdn_cssm_r16_k5; do [ "$(wc -l <work/scores/$run.jsonl)" = 2 ]; done'
ok 'by one, killed at work in each stage, and run again: the same videos, scores and results' '
    need_all
    mkdir one; cp prompts.csv little.conf one; cd one
    set -- reproduce --config little.conf -j 1
    killed "[ -e work/train/1/index.jsonl ]" group "$@"
    killed "[ -e work/runs/standard_r16/state.safetensors ]" session "$@"
    killed "[ -e work/runs/gdn_cssm_r16_k5/metrics.jsonl ]" group "$@"
    killed "[ -s work/videos/base/42.1.jsonl ]" session "$@"
    killed "[ -e work/videos/standard_r16/42.0.jsonl ]" group "$@"
    killed "[ -s work/scores/base/42.0.jsonl ]" session "$@"
    killed "[ -e work/scores/gdn_cssm_r16_k5.made ]" session "$@"
    "$@" >table
    same_results work ../four/work
    cmp table ../four/table'
ok 'run once more, nothing is made' '
    need_all
    cd one; touch before
    reproduce --config little.conf -j 4 >table 2>err
    grep -c "precompute: 0 of 4\|train: 0 of 2\|generate: 0 of 6\|grade-all: 0 of 6" err | grep -x 4
    [ -z "$(find work/videos work/runs work/train -name "*.mp4" -newer before -o -name "*.mp" -newer before -o -name "*.safetensors" -newer before)" ]'
ok 'a video that is damaged is made again, and graded again only if it is another; half a line is no line' '
    need_all
    cp -r one damaged; cd damaged
    printf x | dd of=work/videos/standard_r16/42/0.mp4 bs=1 seek=900 conv=notrunc 2>/dev/null
    touch work/videos/base/42/.tmp-1-2 work/.tmp-1-2
    truncate -s -30 work/videos/gdn_cssm_r16_k5/42.1.jsonl
    truncate -s -30 work/scores/base/42.1.jsonl
    reproduce --config little.conf >table 2>err
    grep "generate: 2 of 6 jobs" err; grep "generate: standard_r16 42 1: 1 done, 0 left" err
    grep "grade-all: 1 of 6 jobs" err; grep "grade-all: base 42 1: 1 done, 0 left" err
    same_results work ../four/work'
ok 'a prompt that fails is named, the others are made, and a second run tries only that one' '
    need_all
    cp -r one failing; cd failing; rm -r work/videos work/scores work/lists/prompts*
    { prompts prompts.csv; echo "{\"key\":\"none\"}"; } >prompts.jsonl 2>/dev/null
    fails 1 generate --config little.conf PROMPTS=prompts.jsonl
    grep "t5-encode: none: neither" err; grep "generate: base 42 .: not done: none" err; [ "$(videos work/videos)" = 6 ]
    fails 1 generate --config little.conf PROMPTS=prompts.jsonl base
    grep "generate: 1 of 2 jobs" err; grep "generate: base 42 .: 0 done, 1 left" err
    fails 1 grade-all --config little.conf PROMPTS=prompts.jsonl base
    grep "grade-all: base 42 .: not done: none" err; [ "$(cat work/scores/base/42.*.jsonl | grep -c "\"sa\":[0-5]")" = 2 ]'
ok 'runs share the noise of a prompt and seed: adapters that learned nothing give the videos of the base, for each of two seeds' '
    need_all
    mkdir same; cp prompts.csv little.conf same; cd same
    little precompute 2>err
    little train LR=0 standard_r16 2>err
    little generate LR=0 SEEDS="1 2" base standard_r16 2>err
    diff -r work/videos/base/1 work/videos/standard_r16/1; diff -r work/videos/base/2 work/videos/standard_r16/2
    fails 1 cmp -s work/videos/base/1/0.mp4 work/videos/base/2/0.mp4
    little reproduce LR=0 SEEDS="1 2" standard_r16 >table 2>err
    grep "\"scores\":4,.*\"scores\":4," work/comparison.json
    grep "^standard_r16  *+0.00 \[+0.00, +0.00\]" table'
ok '--dry-run tells the pipelines, and they give the same videos' '
    need_all
    mkdir dry; cp prompts.csv little.conf dry; cd dry
    little reproduce --dry-run >told 2>err
    [ ! -e work ]
    [ "$(grep -c "^collect --missing .* | t5-encode .* | sample .* | vae-decode .* | encode-mp4 .*" told)" = 6 ]
    [ "$(grep -c "^draw .* | train-step .*" told)" = 2 ]; grep "^curate " told; grep "^compare " told; grep "^report " told
    cp -r ../one/work .; rm -r work/videos/base/42*
    little generate --dry-run base >told 2>err
    bash -e ./told
    diff -r work/videos/base/42 ../one/work/videos/base/42'
ok 'each worker has a GPU of its own, and no two have one' '
    need_all
    mkdir -p fake run; printf "#!/bin/sh\nprintf \"0\\n1\\n\"\n" >fake/nvidia-smi; chmod +x fake/nvidia-smi
    mkdir gpus; cp prompts.csv little.conf gpus; cd gpus
    unset CUDA_VISIBLE_DEVICES
    PATH=$work/fake:$PATH; export XDG_RUNTIME_DIR=$work/run
    little train --dry-run >told 2>err
    grep -o "train-step .* --device [^ ]*" told | sed "s/.* //" | tr "\n" " " | grep -x "cuda:0 cuda:1 "
    CUDA_VISIBLE_DEVICES=5 little train --dry-run 2>err | grep -c -e "--device cuda:0" | grep -x 2
    little train --dry-run DEVICE=cpu 2>err | grep -c -e "--device cpu" | grep -x 2
    printf "#!/bin/sh\necho \"\$@\" >>$work/told; sleep 1\n" >../fake/train-step; chmod +x ../fake/train-step
    little precompute DEVICE=cpu 2>err
    flock "$work/run/sluice-$(id -u)-gpu-0.lock" sleep 3 &
    sleep 0.2
    little train -j 1 >out 2>err || true
    grep -o "cuda:[01]" ../told | head -n 1 | grep -x cuda:1'
ok 'paths with spaces, quotes, unicode and a leading dash' '
    need_all
    odd="-it'"'"'s “odd” \$HOME \"dir\""
    mkdir -- "$odd"; cp little.conf "./$odd/-little.conf"; cp prompts.csv "./$odd/-p.csv"; cd -- "./$odd"
    cp -r "$top/examples/clips" "./-clips ü"; model-init tiny "./-model ü" 2>err
    set -- --config -little.conf WORK="-w é '"'"'" CLIPS="-clips ü/clips.csv" VIDEOS="-clips ü" PROMPTS=-p.csv MODEL="-model ü"
    reproduce "$@" standard_r16 >table 2>err || { cat err; exit 1; }
    [ "$(videos "./-w é '"'"'/videos")" = 4 ]
    reproduce "$@" standard_r16 >again 2>err; grep -c " 0 of " err | grep -x 4; cmp table again'
ok 'a clip that fails stops it, or with KEEP_GOING is left out, and counts' '
    need_all
    mkdir without; cp prompts.csv little.conf without; cd without
    cp -r "$top/examples/clips" clips; echo nonsense >clips/hit.mp4
    set -- CLIPS=clips/clips.csv VIDEOS=clips standard_r16
    fails 1 little reproduce "$@" >table; grep "not done: hit.mp4" err; [ ! -e work/runs ]
    fails 1 little reproduce "$@" KEEP_GOING=yes >table; grep "precompute: 1 of 4 jobs" err; grep "not done: hit.mp4" err; [ -s work/report.html ]
    grep "^2 prompts" table
    cp "$top/examples/clips/hit.mp4" clips; fails 1 little reproduce "$@" >table; grep "now  *RECORDS=" err'
ok 'what was made with other settings is not gone on with; wrong usage' '
    need_all
    cd one
    fails 1 little generate STEPS=4; grep "now  *STEPS=4" err
    fails 1 little grade-all LOOK=3; grep "now  *LOOK=3" err
    fails 1 little train LR=1e-2; grep "now  *LR=1e-2" err
    cp -r work/train train; rm -r work/train/0; fails 1 little train; grep "now  *RECORDS=" err; rm -r work/train; mv train work
    cp -r work/runs runs; printf x | dd of=work/runs/standard_r16/best.safetensors bs=1 seek=9 conv=notrunc 2>/dev/null
    fails 1 little generate standard_r16; grep "standard_r16: its adapter" err; rm -r work/runs; mv runs work
    fails 2 little train nonsense; grep "no run nonsense" err
    fails 2 little generate -j 0; fails 2 little grade-all --stage x; fails 2 little reproduce RUNS="../x standard"
    for p in train generate grade-all reproduce; do $p --help | grep "^usage: $p"; done'
finish
