#!/bin/sh
# pipelines/plan and probe: what will be needed is what was, what cannot be done is refused, and nothing is made.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"
need_plan() { need_parallel; need gnuplot; }
number() { awk -v stage="$1" -v column="$2" '$1 == stage { print $column }' table; } # of a row of the table
near() { awk -v a="$1" -v b="$2" 'BEGIN { print a, b; exit !(a > 0.8 * b && a < 1.25 * b) }'; }

ok 'what each stage will need: the published sizes' '
    need_plan
    little plan COST_CLIP=5.1 COST_STEP="standard 3.09 transformer 3.26 gdn_cssm 7.41" COST_VIDEO=135 COST_SCORE=2.6 MODEL=random:cogvideox-5b GRADER=random:owl-7b FRAMES=49 SIZE=720x480 STEPS=50 MAX_STEPS=5000 -j 1 >table 2>err || true
    cat table; [ "$(number precompute 2)" = 8 ]; [ "$(number generate 2)" = 6 ]; [ "$(number train 2)" = 2 ]
    near "$(number precompute 4)" 0.0327888; near "$(number precompute 6)" 19.9 # 8 records of 4,097,792 bytes and a name
    train-step --dry-run -m random:cogvideox-5b --adapter gdn_cssm:k=5 --device cpu | grep -o "[0-9.]* GB" | sed "1,2p;\$p;d" | awk "{ n += \$1 } END { print n }" >want
    near "$(number train 8)" "$(cat want)"
    [ "$(number generate 6)" = 42.2 ]; [ "$(number grade-all 6)" = 28.6 ]
    [ "$(number generate 7)" = 0.225 ]; [ "$(number train 9)" = 14.6 ]
    grep "cannot be done: train takes" err; grep "cannot be done: generate takes" err'
ok 'nothing is made, and what can be done ends with 0' '
    need_plan
    little plan >table; [ ! -e work ]
    little plan standard_r16 >table; [ "$(number generate 2)" = 2 ]; [ "$(number train 2)" = 1 ]
    little plan FIRST=1 >table; [ "$(number generate 2)" = 3 ]'
ok 'the small experiment in minutes, as it takes them, not in hours of another device' '
    need_plan
    for config in tiny tiny-wan; do
        plan --config $config WORK=$config >table; cat table; head -n 1 table | grep "device-minutes  *minutes\$"
        awk "\$1 == \"total\" && \$NF > 0.5 && \$NF < 10 { found = 1 } END { exit !found }" table
    done
    plan --config tiny WORK=tiny COST_VIDEO=135 >table; head -n 1 table | grep "device-hours  *hours\$"'
ok 'a probe: plans by what it measured, for these settings only' '
    need_plan
    little probe >measured 2>err || { cat err; exit 1; }
    [ "$(ls work | tr "\n" " ")" = "log measured.conf " ]; cmp measured work/measured.conf
    grep "^COST_CLIP=[0-9.]*[1-9]" measured; grep "^COST_VIDEO=[0-9.]*[1-9]" measured; grep "^COST_SCORE=[0-9.]*[1-9]" measured
    grep "^COST_STEP=. standard [0-9.]* transformer [0-9.]* gdn_cssm [0-9.]*.\$" measured
    fails 1 little probe --stage 5; grep "^probe: COST_CLIP is not measured: begin with an earlier stage" err; cmp measured work/measured.conf; rm -r work/probe
    little plan >table; grep "^minutes by: work/measured.conf" table
    little plan STEPS=4 >table; grep "^minutes by: the settings" table
    little probe --dry-run | grep -c "^t5-encode .* | sample .* | vae-decode .* | encode-mp4" | grep -x 2'
ok 'a folder of somebody else: nothing in measured.conf is run' '
    need_plan
    cp work/measured.conf measured; head -n 1 measured >line
    for evil in "touch hit" "COST_CLIP=1; touch hit" "COST_CLIP=\$(touch hit)" "COST_STEP='"'"'a 1'"'"'; touch hit" "PATH=1" "COST_CLIP=1e}system(\"touch hit\")" "COST_STEP='"'"'\$(touch hit) 1'"'"'"; do
        { cat line; printf "%s\n" "$evil"; } >work/measured.conf
        fails 1 little plan >table; grep -F "work/measured.conf: \`$evil\` is no measurement" err; [ ! -e hit ]
    done
    { cat line; echo "COST_VIDEO=3600.5"; echo "COST_STEP='"'"' standard 7200 gdn_cssm 1'"'"'"; } >work/measured.conf
    little plan >table; [ "$(number generate 7)" = 6 ]; [ "$(number train 9)" = 12 ]; cp measured work/measured.conf'
ok 'an objective and a scheduler that do not fit are told, with those that do' '
    need_plan
    little plan OBJECTIVE=flow >table 2>err; grep "^plan: OBJECTIVE=flow and SCHEDULER=dpm do not fit: .*OBJECTIVE=flow fits SCHEDULER=euler, .*SCHEDULER=dpm fits OBJECTIVE=flow-snr" err
    little plan SCHEDULER=euler >table 2>err; grep "^plan: OBJECTIVE=flow-snr and SCHEDULER=euler do not fit" err
    little plan OBJECTIVE=flow SCHEDULER=euler 2>err >table; little plan 2>>err >table; little plan OBJECTIVE=flow base 2>>err >table; fails 1 grep "do not fit" err'
ok 'it needs on disk what it said' '
    need_plan
    little reproduce >said 2>err || { cat err; exit 1; }
    little plan >table
    made() { find "$@" -type f -printf "%s\n" | awk "{ n += \$1 } END { print n / 1e9 }"; }
    near "$(number train 7)" "$(made work/runs -name "*.safetensors")"
    near "$(number generate 4)" "$(made work/videos -name "*.mp4")"
    near "$(number precompute 4)" "$(made work/train work/val -name "*.mp")"'
ok 'what cannot be done is refused, and told' '
    need_plan
    refused() { why=$1; shift; fails 1 little plan "$@" >table; grep "^plan: cannot be done: .*$why" err || { cat err; return 1; }; }
    for setting in STEPS=7 FRAMES=6 SIZE=60x32; do fails 2 little plan "$setting" >table; grep "^sample: --" err; done
    refused "nowhere: no such model" MODEL=nowhere
    refused "nowhere: no such model" GRADER=nowhere
    refused "no clips for val" VAL_FRACTION=0 WORK=other
    refused "no clips for train" CLIPS=nowhere.csv WORK=other
    refused "no prompts" PROMPTS=nowhere.csv WORK=other
    fails 2 little plan RUNS="base
odd nonsense" >table; grep "^train-step: no adapter .nonsense." err
    refused "GB of disk are needed" SIZE=1600x1600 FRAMES=49 SEEDS="$(seq -s " " 1 1000)" WORK=other
    fails 1 little reproduce CLIPS=nowhere.csv WORK=other >out; grep "no clips for train" err; [ ! -e other/train ]'
finish
