#!/bin/sh
# tensor-gen: values by seed, key and name alone; every dtype; what it refuses.
# shellcheck disable=SC2016,SC2154 # the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

ok 'the same again is the same bytes; another seed, key or name is not' '
    tensor-gen --name x --shape 4,5 >a
    tensor-gen --name x --shape 4,5 >b
    cmp a b
    tensor-gen --name x --shape 4,5 --seed 7 >seed
    fails 1 tensor-eq a seed
    tensor-gen --name x --shape 4,5 --count 2 >keys
    show --stats --jsonl keys | sed "s/.*tensors//" | sort -u | wc -l | grep 2'
ok 'a value depends on neither the count nor what else there is' '
    tensor-gen --name x --shape 6 --key k7 >alone
    tensor-gen --name x --shape 6 --key k --count 9 | tensor-gen --add --name y --shape 3 >many
    fails 1 tensor-eq --by-key --name x alone many >said
    grep "^k7.x.*identical" said
    tensor-gen --name y --shape 2 --key k7 | tensor-gen --add --name x --shape 6 >other
    tensor-eq --name x alone other'
ok 'every dtype and every kind' '
    for type in u8 i32 i64 f16 bf16 f32 f64; do
        for fill in normal uniform ramp zero; do
            tensor-gen --name x --shape 2,3 --dtype $type --fill $fill >t
            show t | grep -i "x  *$type \[2,3\]$"
        done
    done'
ok 'a ramp rises from 0 to 1, for u8 to 255' '
    tensor-gen --name x --shape 5,1 --fill ramp | show --stats | grep "min 0 max 1 mean 0.5"
    tensor-gen --name x --shape 256 --fill ramp --dtype u8 | show --stats | grep "min 0 max 255 mean 127.5"
    tensor-gen --name x --shape 1 --fill ramp | show --stats | grep "min 0 max 0"
    tensor-gen --name x --shape 3 --fill ramp --scale 2 | show --stats | grep "min 0 max 2 mean 1"'
ok 'normal numbers are normal, uniform ones uniform' '
    tensor-gen --name x --shape 100000 | show --stats --jsonl >said
    tensor-gen --name x --shape 100000 --fill uniform | show --stats --jsonl >>said
    need python3
    python3 -c "
import json, sys
n, u = (json.loads(l)[\"tensors\"][\"x\"] for l in open(\"said\"))
assert abs(n[\"mean\"]) < 0.015 and 3.5 < n[\"max\"] < 6 and -6 < n[\"min\"] < -3.5, n
assert abs(u[\"mean\"] - 0.5) < 0.005 and 0 <= u[\"min\"] < 1e-3 and 1 - 1e-3 < u[\"max\"] < 1, u"'
ok 'scalars, empty tensors, no records at all' '
    tensor-gen --name x --shape "" | show | grep "x  *F32 \[\]$"
    tensor-gen --name x --shape 0,3 | show | grep "x  *F32 \[0,3\]$"
    tensor-gen --name x --shape 1 --count 0 | show | grep "^end  *0 records"'
ok 'meta is JSON, or else text' '
    tensor-gen --name x --shape 1 --meta fps=8 --meta "s={\"a\":[1,2]}" --meta "t=a = b" --meta "u=" >m
    show --jsonl m | grep -F "\"fps\":8,\"s\":{\"a\":[1,2]},\"t\":\"a = b\",\"u\":\"\""'
ok 'a long key is not cut' '
    key=$(printf "%02000d" 7)
    tensor-gen --name x --shape 1 --key "$key" --count 2 | show | grep "^1  *${key}1$"'
ok '--add: one more tensor, or the same one anew' '
    tensor-gen --name x --shape 2 --count 2 >two
    tensor-gen --add --name y --shape 3 <two | tensor-gen --add --name x --shape 4 | show >said
    [ $(grep -c "x  *F32 \[4\]" said) = 2 ]
    [ $(grep -c "y  *F32 \[3\]" said) = 2 ]'
ok '--add to a record that is full fails with its key; the others are done' '
    need python3
    tensor-gen --name t --shape 1 --key fine >fine
    n=1
    tensor-gen --name t0 --shape "" --key full >full
    while [ $n -lt 256 ]; do
        arguments=
        for i in 0 1 2 3 4 5 6 7 8 9; do
            [ $n -lt 256 ] || break
            arguments="$arguments | tensor-gen --add --name t$n --shape \"\""
            n=$((n + 1))
        done
        eval "cat full $arguments >more"
        mv more full
    done
    cat full fine >both
    fails 1 tensor-gen --add --name last --shape 1 <both >out
    grep "^tensor-gen: full: more than 256 tensors" err
    show out | grep -A 99 "^0  *fine" | grep "^end  *1 records, 1 failed"'
ok 'what is wrong is said before anything is written' '
    refused() { fails 2 tensor-gen "$@" </dev/null >out; [ ! -s out ]; grep "^tensor-gen: .*(see --help)" err; }
    refused
    refused --name x
    refused --shape 1
    for shape in , 1, ,1 1,,2 -1 1x 1.5 99999999999999999999 1,1,1,1,1,1,1,1,1; do refused --name x --shape "$shape"; done
    refused --name x --shape 1 --dtype f8
    refused --name x --shape 1 --fill noise
    refused --name x --shape 1 --count -1
    refused --name x --shape 1 --meta fps
    refused --name x --shape 1 --meta =8
    refused --name x --shape 1 --key ""
    refused --name x --shape 1 --key "$(printf "\377")"
    refused --name "$(printf "\377")" --shape 1
    refused --name x --shape 1 --add --key k
    refused --name x --shape 1 --add --count 2
    refused --name x --shape 1 operand'
ok 'a tensor that no record holds is an error' '
    fails 1 tensor-gen --name x --shape 4294967296 --dtype u8 >out
    grep "too large" err
    fails 1 tensor-gen --name "$(printf "%064d" 1)" --shape 1 >out
    grep "no name for a tensor" err'
finish
