#!/bin/sh
# pipelines/drift: what an approximation costs, from few prompts: measured figures, none where nothing differs, and what is refused.
# shellcheck disable=SC1091,SC2154 # ok evaluates its text; lib.sh sets $tests
. "${0%/*}/lib.sh"
. "$tests/pipelines"
measured() { little drift STEPS=4 "$@"; }
field() { awk -v way="$1" -v n="$2" '$1 == way { gsub(",", ""); print $n; exit }' work/drift/base/drift.txt; }

ok '--dry-run prints the pipelines and makes nothing' '
    need_parallel; need gnuplot
    measured --dry-run APPROXIMATE="2 0-3 fp8 fp8-2" >dry
    [ ! -e work ]
    [ "$(grep -c "^sample .*--trajectory" dry)" = 10 ] # two parts: exact and four approximations
    [ "$(grep -c "compute-steps 2 " dry) $(grep -c "dtype fp8 " dry) $(grep -c "dtype fp8 --compute-steps 2 " dry)" = "4 4 2" ]; grep -q "^compare --mixed --base exact" dry'
ok 'two prompts: figures of each approximation, none of one that leaves out nothing' '
    need_parallel; need gnuplot
    measured -j 2 APPROXIMATE="2 0-3" >table 2>err
    fails 1 grep "not found" err
    diff table work/drift/base/drift.txt
    [ "$(field exact 2)" = 4 ]; [ "$(field 2 2)" = 2 ]; [ "$(field 0-3 2)" = 4 ]
    awk "BEGIN { exit !($(field 2 4) > 0.001 && $(field 2 4) <= $(field 2 5) && $(field 2 6) < 99) }"
    [ "$(field 0-3 4) $(field 0-3 5) $(field 0-3 6) $(field 0-3 7)" = "0.0000 0.0000 inf inf" ]
    [ "$(cut -f 1,3 work/drift/base/steps.tsv | tr "\t\n" "= ")" = "step=0-3 0=0 1=0 2=0 3=0 " ]
    awk "NR == 2 && \$2 != 0 || NR == 3 && \$2 <= 0 || NR > 3 && \$2 <= 0 { exit 1 }" work/drift/base/steps.tsv # step 0 is computed
    grep -q "^0-3  *+0.00 \[+0.00, +0.00\] *0 *0 *1.000" table
    for picture in drift forest; do head -c 4 work/drift/base/$picture.png | grep -q PNG; done
    [ "$(find work/drift/base/videos -name "*.mp4" | wc -l)" = 6 ]
    [ -z "$(find work -name ".tmp-*")" ]'
ok 'the drift is what sample and tensor-eq say by themselves' '
    need_parallel; need gnuplot
    t5-encode -m random:tiny <work/lists/prompts.0.jsonl >embeds
    for s in 4 2; do
        sample -m random:tiny --frames 5 --size 64x32 --steps 4 --compute-steps $s <embeds >$s.mp
    done
    fails 1 tensor-eq 2.mp 4.mp >eq
    sed -n "s/.*rel \([^\t]*\).*/\1/p" eq >one
    cut -f 4 work/drift/base/42.0/2.steps.txt | sed -n "s/rel //p" >steps
    [ -s one ]; grep -qxF "$(cat one)" steps'
ok 'again nothing is made, what is lost is made again, other settings are refused' '
    need_parallel; need gnuplot
    measured -j 2 APPROXIMATE="2 0-3" >table 2>err; grep -q "0 of 2 jobs" err
    rm -r work/drift/base/42.1; cp work/drift/base/steps.tsv steps.tsv
    measured -j 2 APPROXIMATE="2 0-3" >table 2>err; grep -q "1 of 2 jobs" err; diff steps.tsv work/drift/base/steps.tsv
    fails 1 measured APPROXIMATE=3; grep -q "now *APPROXIMATE=3" err'
ok 'wrong approximations end in the first second' '
    need_parallel; need gnuplot
    fails 2 measured WORK=other APPROXIMATE=1-3; grep -q "step 0 must be computed" err
    fails 2 measured WORK=other; grep -q "careful is a list for 50 steps, not for 4" err
    fails 2 measured WORK=other "APPROXIMATE=\$(touch hit)"; grep -q "APPROXIMATE is values" err
    fails 2 measured WORK=other "APPROXIMATE=2 2"; grep -q "names one twice" err
    fails 2 measured WORK=other APPROXIMATE=exact; fails 2 measured WORK=other APPROXIMATE=all GUIDANCE_STEPS=3
    [ ! -e other ]; [ ! -e hit ]'
finish
