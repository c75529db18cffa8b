#!/bin/sh
# The tiny experiment, killed with -9 at five random moments and started again each time: the same videos, scores and results.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"

ok 'the experiment, undisturbed' '
    need_parallel
    mkdir undisturbed; cd undisturbed
    date +%s >began
    reproduce --config tiny >table 2>err || { cat err; exit 1; }
    date +%s >ended'
ok 'killed five times, and started again: the same bytes' '
    need_parallel
    mkdir killed; cd killed
    took=$(($(cat ../undisturbed/ended) - $(cat ../undisturbed/began) + 1))
    n=0 kills=0
    while [ $kills -lt 5 ]; do
        n=$((n + 1)); [ $n -le 50 ]
        if [ $((n % 2)) = 0 ]; then whom=group; else whom=session; fi
        pause=$(od -An -N2 -tu2 /dev/urandom | awk "{ printf \"%.2f\", \$1 / 65536 * $took / 3 }")
        if killed_when "sleep $pause" $whom reproduce --config tiny; then
            kills=$((kills + 1))
            echo "kill $kills, of its $whom, after $pause s: $(find . -name "*.mp4" | wc -l) videos, $(cat experiment-tiny/scores/*/*.jsonl 2>/dev/null | wc -l) scores"
        else # it had got to its end
            same_results experiment-tiny ../undisturbed/experiment-tiny; rm -r experiment-tiny
        fi
    done
    reproduce --config tiny >table 2>err || { cat err; exit 1; }
    same_results experiment-tiny ../undisturbed/experiment-tiny
    cmp table ../undisturbed/table'
sed 's/^/# /' .said
finish
