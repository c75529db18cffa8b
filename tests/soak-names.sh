#!/bin/sh
# Every sign alone and all together, in the names of WORK, models, clips, prompts and configuration, in every pipeline. And ten double starts.
# shellcheck disable=SC1091,SC2016,SC2154,SC2089,SC2090 # ok evaluates its text; names of signs
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"
mkdir plain
(cd plain && cp ../little.conf ../prompts.csv . && little reproduce -j 2 base standard_r16 >table 2>err) || cat plain/err

all=$odd
for odd in 'a b' 'é物' 'a&b' 'a(b' 'a[b]' '{}' '{1}' '{%}' '{= $_=1 =}' "a'b" 'a"b' '$HOME' '`touch hit`' 'a;b' '*' '?' 'a%b%%' 'a\b\\n' '|' '<' '>>' '&&' '!' '(' -n --help '#' '~' 'a=b' 'a,b' 'a:0.5' WORK "$all"; do
    export odd
    echo "# $odd"
    ok "every pipeline, with that name" '
        need_parallel; need gnuplot
        rm -rf names; mkdir names; cd names
        odd_inputs
        mkdir other; cp "$work/plain/table" other
        set -- --config "$odd.conf" WORK="$odd" CLIPS="$odd.clips/$odd.csv" VIDEOS="$odd.clips" PROMPTS="$odd.csv" MODEL="$odd.model" GRADER="$odd.grader"
        for p in plan probe precompute train generate grade-all reproduce; do
            runs=standard_r16
            case $p in precompute | probe) runs= ;; generate | grade-all) runs="base standard_r16" ;; esac
            $p "$@" $runs >out 2>err || { echo "$p:"; cat err; exit 1; }
        done
        [ "$(find "./$odd/videos" -name "*.mp4" | wc -l)" = 4 ]
        [ "$(show --jsonl "./$odd/train" "./$odd/val" | grep -c .)" = 8 ]
        mkdir left; mv "./$odd" left; [ "$(ls | wc -l)" = 9 ] || { ls; exit 1; }
        [ -z "$(find "$work" -name hit)" ]'
done
ok 'ten double starts: one works, the other says so, and nothing is lost' '
    need_parallel; need gnuplot
    for n in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf double; mkdir double; cd double; cp ../little.conf ../prompts.csv .
        little reproduce -j 1 standard_r16 >one 2>one.err & first=$!
        little reproduce -j 1 standard_r16 >two 2>two.err & second=$!
        a=0 b=0
        wait $first || a=$?
        wait $second || b=$?
        [ $((a + b)) = 1 ] || { cat one.err two.err; exit 1; }
        cat one.err two.err | grep -c "^reproduce: at work already, with the same runs in work: process" | grep -x 1
        [ "$(cat one two | grep -c "^2 prompts")" = 1 ]
        for run in base standard_r16; do diff -r -x "*.[0-9].jsonl" work/videos/$run ../plain/work/videos/$run; cmp work/scores/$run.jsonl ../plain/work/scores/$run.jsonl; done
        cd ..
    done'
finish
