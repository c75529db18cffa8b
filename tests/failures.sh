#!/bin/sh
# A few programs of which the n-th call fails; soak-failures.sh has all of them, and thousands of calls.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $tests
. "${0%/*}/lib.sh"
# shellcheck source=tests/failures
. "$tests/failures"

ok 'the n-th allocation, write, sync, rename, seek or stat that fails ends in exit 1, one line, and a state that goes on' '
    fast; prepare
    perl "$tests/failures.pl" "$work/fail.so" 3 tensor-gen:memory pack:write pack:sync model-convert:rename model-convert:memory \
        encode-mp4:seek grade-done:stat train-resume:seek show:memory compare:memory'
finish
