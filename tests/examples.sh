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
ok 'a run in TensorBoard: every value of its metrics, and the same when made again' '
    for board in "${PYTHON:-python3}" python3; do "$board" -c "import tensorboard" 2>/dev/null && break; done
    "$board" -c "import tensorboard" 2>/dev/null || { echo "no python3 with tensorboard here"; exit 77; }
    mkdir run
    printf "%s\n" "{\"step\":0,\"val_loss\":3.5,\"val_losses\":[3,4,3.5]}" "{\"step\":1,\"position\":0,\"key\":\"é\",\"s\":0.25,\"loss\":2.25,\"grad_norm\":0.5,\"lr\":0.0}" \
        "{\"step\":2,\"loss\":1.5,\"grad_norm\":null,\"lr\":1e-3}" "{\"step\":2,\"val_loss\":2.5}" >run/metrics.jsonl
    printf "{\"step\":3,\"lo" >>run/metrics.jsonl
    convert() { "$board" "$examples/to-tensorboard.py" "$@"; }
    for again in 1 2; do convert logs run "other=run/metrics.jsonl"; done
    [ "$(find logs -type f | wc -l)" = 2 ]
    "$board" -c "
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for run in \"run\", \"other\":
    events = EventAccumulator(\"logs/\" + run); events.Reload()
    got = {tag: [(e.step, round(e.value, 7)) for e in events.Scalars(tag)] for tag in events.Tags()[\"scalars\"]}
    assert got == {\"train/loss\": [(1, 2.25), (2, 1.5)], \"train/grad_norm\": [(1, 0.5)], \"train/lr\": [(1, 0), (2, 0.001)], \"train/noise_level\": [(1, 0.25)],
                   \"val/loss\": [(0, 3.5), (2, 2.5)], \"val/loss_standard_error\": [(0, 0.2886751)]}, got"
    fails 1 convert logs gone; grep "^to-tensorboard: .*gone" err; cd run; fails 1 convert logs ..; grep "no name for a folder\|No such file" err; cd ..
    echo "[1]" >bad.jsonl; echo "{}" >>bad.jsonl; fails 1 convert logs bad.jsonl; grep "^to-tensorboard: bad.jsonl: line 1: no line of metrics" err'
ok 'the tour runs to its end' '
    fast
    "$examples/tour.sh" tour >tour.txt 2>&1 || { cat tour.txt; false; }
    grep -q "^the same" tour.txt; grep -q "^pack: 8 added" tour.txt; grep -q "^pack: 0 added" tour.txt; ls tour/before/*.mp4 tour/after/*.mp4 | grep -c . | grep -qx 4'
finish
