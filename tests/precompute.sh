#!/bin/sh
# pipelines/precompute: the same store however the work was split, and after whatever interruption.
. "${0%/*}/lib.sh"
PATH=$top/pipelines:$PATH
curate --no-filter --videos "$top/examples/clips" "$top/examples/clips/clips.csv" >clips.jsonl 2>/dev/null
run() { out=$1 jobs=$2; shift 2; precompute -m random:tiny -o "$out" -j "$jobs" --frames 5 --size 64x32 "$@"; }
drawn() { draw --count 8 "$1" >"$1.mp"; }

ok "one part and four give the same records" '
    need parallel
    run one 1 clips.jsonl; drawn one
    run four 4 clips.jsonl; drawn four
    cmp one.mp four.mp'
ok "run again, it makes nothing" '
    need parallel
    run four 4 clips.jsonl 2>err
    [ "$(grep -c "0 added, 0 replaced" err)" = 4 ]'
ok "killed, and run again" '
    need parallel
    run killed.$$ 2 clips.jsonl >/dev/null 2>&1 &
    sleep 0.5
    pkill -9 -f -- "-o killed.$$" || true
    wait
    run killed.$$ 2 clips.jsonl
    drawn killed.$$
    cmp one.mp killed.$$.mp'
ok "a clip that fails is named, the others are in the store, and a second run tries only that one" '
    need parallel
    echo nonsense >broken.mp4
    { cat clips.jsonl; echo "{\"path\":\"broken.mp4\"}"; } >bad.jsonl
    fails 1 run bad 2 bad.jsonl
    grep "decode: broken.mp4: " err
    [ "$(show --jsonl bad | wc -l)" = 8 ]
    fails 1 run bad 2 bad.jsonl
    grep "decode: broken.mp4: " err
    [ "$(grep -c "0 added, 0 replaced" err)" = 2 ]'
ok "--dry-run runs nothing; wrong usage" '
    need parallel
    run dry 2 --dry-run clips.jsonl | grep "one 0 dry"
    [ ! -e dry/0 ]
    fails 2 precompute -o x clips.jsonl
    fails 2 run x zero clips.jsonl
    fails 1 run x 1 nowhere.jsonl
    precompute --help | grep usage'
finish
