#!/usr/bin/env bash
# demo-adapters.sh - six forms of adapter, one recipe: trained side by side by GNU parallel, compared in a table and a picture.
#
#     make demo-adapters                  results below build/demo-adapters
#     examples/demo-adapters.sh [DIR]     the same into DIR
#
# Half of the example clips are for training, half for validation. Every run sees the same clips, noise levels and noise, and is
# evaluated on the same forty fixed triples of clip, level and noise; so runs differ by their adapter alone.
set -euo pipefail

examples=$(cd "$(dirname "$0")" && pwd)
for bin in "$examples/../bin" "${BIN:-}"; do # BIN: the programs of another build
    [ ! -x "$bin/decode" ] || PATH=$bin:$PATH
done
out=${1:-$examples/../build/demo-adapters}
if [ $# -gt 0 ] && [ -n "$(ls -A -- "$out" 2>/dev/null)" ] && [ ! -e "$out/.demo" ]; then # it would be removed
    echo "demo-adapters.sh: $out: it is there, and no demo's: name another folder" >&2
    exit 1
fi
rm -rf -- "$out" && mkdir -p -- "$out" && cd -- "$out" && : >.demo
out=$PWD

step() { printf '\n== %s\n' "$*" >&2; }
export OMP_WAIT_POLICY=passive

step '1. Model, training and validation clips'
model-init tiny model
curate --no-filter --videos "$examples/clips" "$examples/clips/clips.csv" >clips.jsonl
for part in train val; do
    awk -v part=$part 'NR % 2 == (part == "train")' clips.jsonl |
        decode --frames 17 --size 96x64 | vae-encode -m model | t5-encode -m model | pack -o $part
done

step '2. Six runs, two at a time'
train() {
    draw --seed 42 --count 300 train |
        train-step -m model --threads 1 --adapter "$2" --objective flow-snr --lr 1e-3 --warmup 20 --max-steps 300 \
            --val val --eval-every 50 --eval-clips 40 --patience 0 --state "$1" >/dev/null
}
export -f train
parallel --will-cite --colsep ' ' -j 2 --line-buffer --tagstring '{1}' "train {1} {2}" <<'EOF'
standard_r16 standard
transformer_r16 transformer
gdn_cssm_r16_k1 gdn_cssm:k=1
gdn_cssm_r16_k5 gdn_cssm:k=5
gdn_cssm_r16_k1_rope gdn_cssm:k=1,rope=1
gdn_cssm_r16_k5_rope gdn_cssm:k=5,rope=1
EOF

step '3. The table of runs, and their curves'
runs='standard_r16 transformer_r16 gdn_cssm_r16_k1 gdn_cssm_r16_k5 gdn_cssm_r16_k1_rope gdn_cssm_r16_k5_rope'
# shellcheck disable=SC2086 # a list of words
{ plot --table $runs | tee table.txt; plot -o curves.png $runs; }

printf '\ntable of runs   %s\ncurves          %s\n' "$out/table.txt" "$out/curves.png"
