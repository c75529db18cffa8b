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
    grep "^reproduce: stage 4 of 8: generate" err; grep "^train: stage 1 of 2: adapters" err
    [ "$(videos work/videos)" = 6 ]
    for file in runs.txt curves.png comparison.txt comparison.json results.json bars.png forest.png report.html; do [ -s work/$file ]; done
    for run in base standard_r16 gdn_cssm_r16_k5; do
        [ "$(wc -l <work/scores/$run.jsonl)" = 2 ]
        for task in sa pc; do
            head -n 1 work/scores/$run/scores_$task.csv | grep -x ",caption,videopath,score"
            sed "1d; s/.*\(.\)[.]0\$/\1/" work/scores/$run/scores_$task.csv >graded
            sed "s/.*\"$task\":\([0-5]\).*/\1/" work/scores/$run.jsonl | diff graded -
        done
    done
    tr -d "\n " <work/results.json >results
    grep "\"use_upsampled_captions\":true" results
    grep "\"training\":{\"data\":\"clips.csv\",\"n_train_videos\":6,\"rank\":16,\"lora_alpha\":16,\"lr\":0.001,\"max_steps\":6,\"eval_every\":3,\"patience\":5," results
    grep "\"standard_r16\":{\"label\":\"standard_r16\",\"params_M\":0.065536,\"step_s\":[0-9.e-]*," results; grep "\"label\":\"base\",\"params_M\":null,\"step_s\":null" results'
ok 'by one, killed at work in each stage, and run again: the same videos, scores and results' '
    need_all
    mkdir one; cp prompts.csv little.conf one; cd one
    set -- reproduce --config little.conf -j 1
    hold vae-encode "" 40000 2; killed group "$@"
    hold train-step "--state work/runs/standard_r16" 22000 1 work/runs/standard_r16/state.safetensors; killed session "$@"
    hold train-step "--state work/runs/gdn_cssm_r16_k5" 22000 1 work/runs/gdn_cssm_r16_k5/metrics.jsonl; killed group "$@"
    hold encode-mp4 "videos/base/42" 9000 2; killed session "$@"; [ -s work/videos/base/42.0.jsonl ]
    hold encode-mp4 "videos/standard_r16/42" 9000; killed group "$@"
    hold grade "" 99 2; killed session "$@"; [ -s work/scores/base/42.0.jsonl ]
    hold grade "" 99 4; killed session "$@"
    "$@" >table
    same_results work ../four/work
    cmp table ../four/table'
ok 'on a terminal a line tells the stage, the jobs that are done, and the time left; nothing of that goes on after the end' '
    need_all; need script
    mkdir typed; cp prompts.csv little.conf typed; cp -r four/work typed; cd typed; rm -r work/videos
    script -qec "generate --config little.conf -j 1 DELAY=0.7" typescript </dev/null >/dev/null
    tr "\r" "\n" <typescript | sed "s/^$(printf "\033")\[K//" >said
    grep -E "^generate: stage 2 of 3, [1-5] of 6 jobs done, [1-5] of 6 videos, [0-9]+ s, [0-9]+ s left\$" said
    grep "^generate: base 42 0: 1 done, 0 left" said; tail -n 2 said; for job in $(find work/log -name "*.lock"); do flock -n "$job" true; done
    diff -r work/videos ../four/work/videos -x "*.[0-9].jsonl"'
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
ok 'a rehearsal of what is made finds nothing to do, and notices other settings' '
    need_all
    cd one
    little reproduce --dry-run >told 2>err
    grep -c "precompute: 0 of 4\|train: 0 of 2\|generate: 0 of 6\|grade-all: 0 of 6" err | grep -x 4
    fails 1 little train --dry-run LR=1e-2; grep "now  *LR=1e-2" err
    fails 1 little generate --dry-run STEPS=4; grep "now  *STEPS=4" err
    little drift --dry-run standard_r16 APPROXIMATE=1 >told; grep "^sample " told
    mkdir -p work/drift; : >work/drift/standard_r16.made
    fails 1 little drift --dry-run standard_r16 APPROXIMATE=1; grep "now  *ADAPTER=[0-9]" err; rm -r work/drift'
ok 'each worker has a GPU of its own, and no two have one' '
    need_all
    mkdir -p fake run; printf "#!/bin/sh\nprintf \"0\\n1\\n\"\n" >fake/nvidia-smi; chmod +x fake/nvidia-smi
    mkdir gpus; cp prompts.csv little.conf gpus; cd gpus
    unset CUDA_VISIBLE_DEVICES
    PATH=$work/fake:$PATH; export XDG_CACHE_HOME=$work/run
    little train --dry-run >told 2>err
    grep -o "train-step .* --device [^ ]*" told | sed "s/.* //" | tr "\n" " " | grep -x "cuda:0 cuda:1 "
    CUDA_VISIBLE_DEVICES=5 little train --dry-run 2>err | grep -c -e "--device cuda:0" | grep -x 2
    little train --dry-run DEVICE=cpu 2>err | grep -c -e "--device cpu" | grep -x 2
    printf "#!/bin/sh\necho \"\$@\" >>$work/told\n" >../fake/train-step; chmod +x ../fake/train-step
    little precompute DEVICE=cpu 2>err
    locks=$work/run/sluice/gpus-$(bash -c "echo \$HOSTNAME")
    mkdir -p "$locks"; chmod 755 "$locks"
    exec 9>"$locks/0.lock"; flock 9
    little train -j 1 >out 2>err || true
    [ "$(stat -c %a "$locks")" = 700 ]
    grep -v -e --check-options ../told | grep -o "cuda:[01]" | head -n 1 | grep -x cuda:1'
ok 'a name of every sign, for folder, WORK, models, clips, prompts and configuration; a neighbour with all but one of them is left alone' '
    need_all
    mkdir -- "./$odd"; cd -- "./$odd"
    odd_inputs
    neighbour=$(printf %s "$odd" | tr -d "&"); cp -r ../one/work "./$neighbour"; find "./$neighbour" -type f -exec cksum {} + >../before
    set -- --config "$odd.conf" WORK="$odd" CLIPS="$odd.clips/$odd.csv" VIDEOS="$odd.clips" PROMPTS="$odd.csv" MODEL="$odd.model" GRADER="$odd.grader"
    reproduce "$@" standard_r16 >table 2>err || { cat err; exit 1; }
    [ "$(videos "./$odd/videos")" = 4 ]; [ "$(show --jsonl "./$odd/train" "./$odd/val" | grep -c .)" = 8 ]
    reproduce "$@" standard_r16 >again 2>err; grep -c " 0 of " err | grep -x 4; cmp table again
    plan "$@" standard_r16 | grep -F "beside"
    find "./$neighbour" -type f -exec cksum {} + | cmp - ../before
    [ -z "$(find "$work" -name hit)" ]'
ok 'WORK=w&0 beside w0: each has its own results' '
    need_all
    mkdir pair; cp prompts.csv little.conf pair; cd pair; cp -r ../one/work w0; cp -r ../one/work "w&0"; sed -i "s/\"sa\":[0-9]/\"sa\":1/" "w&0"/scores/*.jsonl
    little reproduce --stage 6 SHOWN=0 WORK="w&0" >table 2>err || { cat err; exit 1; }; cat table; grep "^base  *0.00 .* 1.000 " table'
ok 'a line break in a name is refused, before anything is there' '
    need_all
    broken=$(printf "a\nb")
    for setting in WORK MODEL GRADER CLIPS VIDEOS PROMPTS; do
        for p in plan probe precompute train generate grade-all reproduce; do
            fails 2 little $p WORK=nothing "$setting=$broken"; grep "$setting has a line break" err
        done
    done
    [ ! -e nothing ] && [ ! -e "$broken" ]'
ok 'a clip that fails stops it, or with KEEP_GOING is left out, and counts' '
    need_all
    mkdir without; cp prompts.csv little.conf without; cd without
    cp -r "$top/examples/clips" clips; echo nonsense >clips/hit.mp4
    set -- CLIPS=clips/clips.csv VIDEOS=clips standard_r16
    fails 1 little reproduce "$@" >table; grep "not done: hit.mp4" err; [ ! -e work/runs ]
    fails 1 little reproduce "$@" KEEP_GOING=yes >table; grep "precompute: 1 of 4 jobs" err; grep "not done: hit.mp4" err; [ -s work/report.html ]
    grep "^2 prompts" table
    cp "$top/examples/clips/hit.mp4" clips; fails 1 little reproduce "$@" >table; grep "now  *RECORDS=" err'
ok 'two at once: the second names the first and ends, and with --wait waits; other runs go on beside it; nothing is lost' '
    need_all
    mkdir two; cp prompts.csv little.conf two; cd two
    hold train-step "--state work/runs/standard_r16" 22000
    begun reproduce --config little.conf -j 1 standard_r16; first=$victim
    fails 1 little reproduce -j 1 standard_r16 >table
    grep "^reproduce: at work already, with the same runs in work: process $first on .*, since 2" err; [ ! -s table ]
    fails 1 little train base standard_r16; grep "^train: at work already" err
    little reproduce -j 1 gdn_cssm_r16_k5 >other 2>err || { cat err; exit 1; }
    grep "^gdn_cssm_r16_k5 " other; kill -0 $first
    little reproduce -j 1 --wait standard_r16 >waited 2>err & second=$!
    until grep "waiting for the end of process $first" err; do sleep 0.05; kill -0 $second; done
    released
    wait $first || { cat begun.err; exit 1; }; wait $second || { cat err; exit 1; }
    grep "0 of 1 jobs" err; cmp begun.out waited
    for run in base standard_r16 gdn_cssm_r16_k5; do
        diff -r work/videos/$run ../four/work/videos/$run -x "*.[0-9].jsonl"; cmp work/scores/$run.jsonl ../four/work/scores/$run.jsonl
    done
    [ -z "$(find work -name ".tmp-*")" ]'
ok 'settings that a program would refuse hours later are refused by it at the start' '
    need_all
    refused() { setting=$1 program=$2 where=$3; for p in plan reproduce $where; do fails 2 little $p WORK=nothing "$setting"; grep "^$program: " err; done; }
    refused RESAMPLES=50 compare ""; refused SHOWN=-1 report ""; refused TASKS=sa,pc,x grade grade-all; refused LOOK=1 grade grade-all
    refused GUIDANCE=much sample generate; refused SCHEDULER=ddpm sample generate; refused STEPS=7 sample generate; refused FPS=x encode-mp4 generate
    refused OBJECTIVE=v2 train-step train; refused LR=fast train-step train; refused WARMUP=6 train-step train; refused EVAL_EVERY=-3 train-step train
    refused "RUNS=base
odd nonsense" train-step train
    refused VAL_FRACTION=2 curate precompute; refused DEVICE=gpu "[a-z0-9-]*" precompute; refused THREADS=-1 "[a-z0-9-]*" precompute
    fails 2 little plan TASKS=sa WORK=nothing; grep "TASKS are sa and pc at least" err
    for setting in FILTER=maybe TILING=on KEEP_GOING=1 DELAY=soon COST_CLIP="1; touch hit" COST_STEP="standard \$(touch hit)" SEEDS="1 1" SEEDS="42 042" "MODEL GRADER=x" BASE=other "RUNS=base
base" "RUNS=base
a standard more" "RUNS=base
a.made standard"; do
        fails 2 little precompute "$setting" WORK=nothing; [ "$(wc -l <err)" = 1 ]
    done
    [ ! -e nothing ] && [ ! -e hit ]'
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
    for stage in 0 4 x 99999999999999999999; do fails 2 little generate --stage $stage; [ "$(wc -l <err)" = 1 ]; done
    fails 2 little generate base base; grep "base is named twice" err
    fails 2 little generate -j 0; fails 2 little reproduce RUNS="../x standard"
    for p in train generate grade-all reproduce; do $p --help | grep "^usage: $p"; done'
ok 'a WORK that is no folder, or cannot be written, and a stdout that is closed or full: one line each' '
    need_all
    echo >file; mkdir -p taken/log/claim.lock
    said() { [ "$(wc -l <err)" = 1 ]; grep "^$1: .*$2" err; }
    fails 2 little plan WORK=file; said plan file
    fails 1 little generate WORK=file/work; said generate file
    fails 1 little grade-all WORK=taken; said grade-all claim.lock
    fails 1 little plan >&-; said plan stdout
    for option in --help --version; do fails 1 train $option >/dev/full; said train stdout; done'
ok 'two prompts with one key, in a list or in its first part: refused before there is a list' '
    need_all
    printf "{\"key\": \"%s\",\"caption\":\"a ball\"}\n" "a \$b" c "a \$b" >twice.jsonl
    fails 1 little generate WORK=twice PROMPTS=twice.jsonl base; grep "^generate: twice.jsonl: two prompts have the key a .b\$" err
    [ -z "$(find twice/lists -name "*.jsonl*")" ]
    fails 1 little plan WORK=twice PROMPTS=twice.jsonl base; grep "cannot be done: two prompts in PROMPTS=twice.jsonl have the key a .b\$" err
    little plan WORK=twice PROMPTS=twice.jsonl FIRST=2 base'
ok 'a path with an = in it is that path, whatever is behind it' '
    for path in "$PWD/lr=-1/c.csv" "a=WORK/c.csv"; do
        little precompute --dry-run CLIPS="$path" 2>/dev/null | grep -F -e " $path > work/lists/"
    done'
finish
