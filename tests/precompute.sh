#!/bin/sh
# pipelines/precompute: the same store for any number of workers, and after whatever interruption.
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"

ok "one worker and four give the same stores, of all clips, parted for training and validation" '
    need_parallel
    little precompute -j 1 WORK=one
    little precompute -j 4 WORK=four
    same_results one four
    [ "$(show --jsonl four/train four/val | wc -l)" = 8 ]
    [ "$(show --jsonl four/val | wc -l)" = 2 ]
    draw --count 9 four/train | show --check'
ok "run again, it makes nothing; a record that is damaged is made again" '
    need_parallel
    little precompute WORK=four 2>err
    grep "0 of 4 jobs to do" err
    printf x | dd of=four/train/1/000000.mp bs=1 seek=5000 conv=notrunc 2>/dev/null
    fails 1 show --check four
    little precompute WORK=four 2>err
    grep "1 of 4 jobs to do" err
    grep "precompute: train 1: 1 done, 0 left" err
    [ "$(show --jsonl four/train four/val | wc -l)" = 8 ]'
ok "killed, and run again" '
    need_parallel
    set -- precompute --config little.conf -j 1 WORK=killed
    hold curate "--split val" 0; killed session "$@"; [ ! -e killed/lists/val.jsonl ]
    hold pack "-o killed/train/0" 9000 2; killed session "$@"
    hold pack "-o killed/train/1" 9000 2; killed group "$@"
    little precompute -j 2 WORK=killed
    draw --count 9 one/train >one.mp
    draw --count 9 killed/train | cmp - one.mp
    little precompute WORK=killed 2>err
    grep "0 of 4 jobs to do" err'
ok "a clip that fails is named, the others are in the store, and a second run tries only that one" '
    need_parallel
    mkdir clips
    cp "$top/examples/clips"/* clips
    echo nonsense >clips/hit.mp4
    fails 1 little precompute CLIPS=clips/clips.csv VIDEOS=clips
    grep "decode: hit.mp4: " err
    grep "precompute: .*: not done: hit.mp4" err
    [ "$(show --jsonl work/train work/val | wc -l)" = 7 ]
    fails 1 little precompute CLIPS=clips/clips.csv VIDEOS=clips
    grep "1 of 4 jobs to do" err
    grep "precompute: .*: 0 done, 1 left" err
    cp "$top/examples/clips/hit.mp4" clips
    little precompute CLIPS=clips/clips.csv VIDEOS=clips
    [ "$(show --jsonl work/train work/val | wc -l)" = 8 ]'
ok "a program makes the inputs, once, before anything else; if it fails nothing is left of them" '
    need_parallel
    inputs() { printf "#!/bin/sh\nmkdir \"\$1\" && cp %s/examples/clips/* \"\$1\" && echo >>count\n%s\n" "$top" "${1:-}" >inputs; chmod +x inputs; }
    set -- INPUTS=./inputs CLIPS=WORK/inputs/clips.csv VIDEOS=WORK/inputs WORK="made there"
    little precompute --dry-run "$@" 2>err | grep "^./inputs made.* there/.tmp-inputs && mv"
    inputs "exit 3"
    fails 1 little precompute "$@"; grep "precompute: ./inputs: it failed" err; [ ! -e "made there/inputs" ]; [ ! -e "made there/train" ]
    inputs
    little precompute "$@"; little precompute "$@" 2>err; grep "0 of 4 jobs to do" err
    [ "$(wc -l <count)" = 2 ]; [ ! -e "made there/inputs.new" ]
    mv "made there" moved; little precompute "$@" WORK=moved 2>err; grep "0 of 4 jobs to do" err; mv moved "made there"
    [ "$(show --jsonl "made there/train" "made there/val" | wc -l)" = 8 ]'
ok "what was made with other settings is not gone on with" '
    need_parallel
    fails 1 little precompute CLIPS=clips/clips.csv VIDEOS=clips FRAMES=9
    grep "made with  FRAMES=5" err
    grep "now        FRAMES=9" err
    fails 1 little precompute CLIPS=clips/clips.csv VIDEOS=clips VAL_FRACTION=0.5
    grep "now        VAL_FRACTION=0.5" err'
ok "wrong usage" '
    precompute --help | grep usage
    fails 2 precompute --nonsense
    fails 2 precompute standard_r16
    fails 2 precompute NONSENSE=1
    grep "no setting NONSENSE" err
    fails 2 precompute -j zero
    fails 2 precompute SHARDS=0
    fails 2 precompute FIRST=0
    fails 2 precompute --stage
    fails 1 precompute --config nowhere.conf
    echo "FRAMSE=5" >bad.conf
    fails 2 precompute --config bad.conf
    grep "no setting FRAMSE" err
    fails 1 little precompute WORK=none CLIPS=nowhere.csv
    grep "nowhere.csv" err'
finish
