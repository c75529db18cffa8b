#!/bin/sh
# The examples: that they run, and that what other languages read and write is the wire.
# shellcheck disable=SC1091,SC2016,SC2034,SC2154 # ok evaluates its text; lib.sh sets $top
. "${0%/*}/lib.sh"
examples=$top/examples
python=
for p in python3 /usr/bin/python3; do
    [ -z "$python" ] && "$p" -c 'import msgpack' 2>/dev/null && python=$p
done
need_python() { [ -n "$python" ] || { echo "no python3 with msgpack here"; exit 77; }; }

ok 'every clip of the table is there, has 25 frames, and is small' '
    curate --no-filter --videos "$examples/clips" "$examples/clips/clips.csv" >clips.jsonl 2>err
    grep -q "8 rows: 8 kept" err
    sed "s/\.mp4\"/\"/" clips.jsonl | decode --frames 25 --size 96x64 --strict >clips.mp
    show --jsonl clips.mp | grep -c "\"source_frames\": *25" | grep -qx 8
    [ -z "$(find "$examples/clips" -name "*.mp4" -size +15k)" ]'
ok 'Python writes the wire: the clips are what it draws' '
    need_python; cd "$examples"; PYTHONDONTWRITEBYTECODE=1 "$python" make-clips.py <clips/clips.csv >"$work/drawn.mp"; cd "$work"
    show --check drawn.mp
    tensor-eq --psnr 28 clips.mp drawn.mp'
ok 'the tour runs to its end' '
    fast
    "$examples/tour.sh" tour >tour.txt 2>&1 || { cat tour.txt; false; }
    grep -q "^the same" tour.txt; grep -q "^pack: 8 added" tour.txt; grep -q "^pack: 0 added" tour.txt; ls tour/before/*.mp4 tour/after/*.mp4 | grep -c . | grep -qx 4'
finish
