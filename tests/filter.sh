#!/bin/sh
# What filters/lib/filter.c does for every program, seen through the small ones: messages, settings, stdout, progress.
# shellcheck disable=SC2016,SC2154 # the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

add='tensor-gen --add --name x --shape 1'
printf '{"key":"a"}\n{"key":"b"}\n' >lines

ok 'a message is one line, whatever the key and the path are' '
    esc=$(printf "\033")
    printf "{\"key\":\"two\\\\nlines \\\\u001b[2J\",\"deep\":%s1%s}\n" "$(printf "%040d" 0 | tr 0 "[")" "$(printf "%040d" 0 | tr 0 "]")" >deep
    fails 1 $add <deep >out
    grep "^tensor-gen: two?lines ?\[2J: its header would nest too deep" err
    [ $(wc -l <err) = 2 ]
    if grep "$esc" err; then exit 1; fi
    fails 1 show "$(printf "no\nsuch\033file")"
    grep "^show: no?such?file: No such file" err'
ok 'a key of a million bytes leaves room for the reason' '
    { printf "{\"key\":\""; head -c 1048560 /dev/zero | tr "\0" k; printf "\"}\n{\"key\":\"next\"}\n"; } >long
    fails 1 $add <long >out
    grep "^tensor-gen: kkkk.*k: its header would pass 1 MiB$" err
    show out | grep "^0  *next$"'
ok 'input of another kind is told by what it looks like, in whatever pieces it comes' '
    printf "video,caption\na.mp4,one\n" >table.csv
    fails 1 $add <table.csv >out
    grep -F "stdin: byte 0: looks like a CSV, not like records or JSON lines, {\"key\": ..}: it starts with \`video,caption\`" err
    mv err whole
    dd bs=1 if=table.csv 2>/dev/null | fails 1 $add >out
    diff whole err'
ok 'a line that has no good name says why' '
    printf "%s\n" "{\"key\":\"\"}" "{\"key\":3}" "{\"path\":\"\"}" "{\"path\":[]}" "{\"x\":1}" "{\"key\":\"a\"}" >named
    fails 1 $add <named >out
    cat >expected <<END
tensor-gen: stdin: line 1: \`key\` is empty
tensor-gen: stdin: line 2: \`key\` is not text
tensor-gen: stdin: line 3: \`path\` is empty
tensor-gen: stdin: line 4: \`path\` is not text
tensor-gen: stdin: line 5: neither \`key\` nor \`path\`
tensor-gen: 5 failed, 1 done
END
    diff expected err'
ok '--log-json: an object a line, the whole key, and what is not UTF-8 without what makes it so' '
    need python3
    fails 1 $add --log-json <deep >out
    fails 1 show --log-json "$(printf "caf\351")" 2>more
    cat err >>more
    fails 1 $add --log-json <long 2>>more >out
    cat err >>more
    python3 -c "
import json
events = [json.loads(line) for line in open(\"more\")]
assert all(e[\"level\"] in (\"info\", \"error\", \"fatal\") and e[\"program\"] in (\"show\", \"tensor-gen\") for e in events)
assert any(e.get(\"key\") == \"caf?\" and e[\"level\"] == \"error\" for e in events), events
assert any(len(e.get(\"key\", \"\")) > 1000000 for e in events)"'
ok 'what changes the result is in the begin header, and nothing else' '
    tensor-gen --name x --shape 2,3 --seed 5 --log-json | show >said
    grep "^begin  tensor-gen [0-9.]* {\"name\":\"x\",\"shape\":\"2,3\",\"dtype\":\"f32\",.*\"seed\":5}$" said
    if grep log-json said; then exit 1; fi'
ok 'numbers that are none, out of range, or cut off are wrong usage' '
    for seed in "" x 1x 1.5 -1 9300000000000000000 99999999999999999999 0x1; do
        fails 2 tensor-gen --name x --shape 1 --seed "$seed"
        grep "^tensor-gen: --seed .*(see --help)" err
    done
    for scale in "" x nan inf 1e999 1,5; do
        fails 2 tensor-gen --name x --shape 1 --scale "$scale"
        grep "^tensor-gen: --scale " err
    done
    fails 2 tensor-gen --name x --shape
    grep "wants a value" err
    tensor-gen --name x --shape 1 --seed 9223372036854775 --scale -1e-3 >out'
ok 'a file past its limit is an error that is told' '
    (ulimit -f 8; fails 1 tensor-gen --name x --shape 100000 >small)
    grep "^tensor-gen: stdout: File too large" err'
ok 'text comes through a pipe that does not block, all of it' '
    need python3
    show -m random:cogvideox-5b >whole
    python3 -c "
import fcntl, os, sys
fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_NONBLOCK)
os.execvp(\"show\", [\"show\", \"-m\", \"random:cogvideox-5b\"])" 2>err | { sleep 0.5; cat; } >piped
    cmp whole piped'
ok 'a reader that leaves is no news' '
    for ignored in "" "trap \"\" PIPE;"; do
        { sh -c "$ignored exec show -m random:cogvideox-5b" 2>err || echo $? >status; } | head -n 1 >first
        [ ! -s err ]
        grep -x 141 status
        rm status
    done'
ok 'on a terminal there is a progress line with rate and time left, and it is gone at the end' '
    need script
    for i in 1 2 3 4; do tensor-gen --name y --shape 300,300,10 --key clip$i --seed $i; done >four
    script -qec "$add --name z --shape 300,300,20 <four >out" typescript </dev/null >/dev/null
    tr "\r" "\n" <typescript >said
    grep "tensor-gen: clip[1-4], [0-4] done, [0-9.e+-]*/s, [0-9]* s" said
    grep "^$(printf "\033")\[K" said
    script -qec "$add --log-json <four >out" typescript </dev/null >/dev/null
    if grep "[0-9] done" typescript; then exit 1; fi'
ok 'what it is computed on is told once a pipeline or script, whatever its stderr is' '
    through() { for i in 1 2; do echo "{\"key\":\"a\",\"prompt\":\"x\"}" | t5-encode -m random:tiny | sample -m random:tiny --steps 2 --frames 9 --size 64x32 | vae-decode -m random:tiny >video; done; }
    for again in 1 2; do through 2>err; cat err; [ "$(grep -c "computing on" err)" = 1 ]; done
    through 2>&1 | cat >err; [ "$(grep -c "computing on" err)" = 1 ]
    need setsid
    { for again in 1 2; do echo "{\"key\":\"a\",\"prompt\":\"x\"}" | setsid -w t5-encode -m random:tiny >none; done; } 2>err; cat err # of two pipelines as a shell that is typed at has them
    [ "$(grep -c "computing on" err)" = 2 ]'
ok '--check-options: 0 or 2, and nothing is read, written or opened' '
    while read -r command; do
        $command --check-options <&- >out 2>err || { echo "$command"; cat err; exit 1; }
        [ ! -s out ] && [ ! -s err ] && [ ! -e nothing ] || { echo "$command"; cat out err; exit 1; }
    done <<E2
curate --videos nothing --split val
prompts nothing
decode --frames 5
vae-encode -m nothing
vae-decode -m nothing
t5-encode -m nothing
pack -o nothing
draw nothing
train-step -m random:cogvideox-5b --state nothing
sample -m random:cogvideox-5b --steps 50
encode-mp4 -o nothing
grade -m nothing --csv nothing
collect nothing
compare --base b --results nothing --csv nothing nothing
plot -o nothing.png nothing
report --base b -o nothing nothing
show -m nothing
tensor-gen --name x --shape 2
tensor-eq nothing nothing
toy-world --count 2
toy-check
model-init tiny nothing
model-convert nothing nothing
E2
    fails 2 sample -m random:tiny --frames 6 --check-options; fails 2 sample -m nothing --scheduler ddim --steps 7 --check-options; fails 2 train-step -m random:tiny --state nothing --adapter odd --check-options
    fails 2 grade -m nothing --task sa,x --check-options; fails 2 grade -m nothing --columns caption --check-options; fails 2 prompts --only hard --check-options; fails 2 curate --fraction 0.1 --check-options; fails 2 toy-world --kinds odd --check-options'
finish
