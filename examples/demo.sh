#!/usr/bin/env bash
# demo.sh - clips in, a fine-tuned model's videos out, and their scores, on this machine's CPU in a minute or two.
#
#     make demo                      the clips in examples/clips, the tiny model, results below build/demo
#     examples/demo.sh [DIR]         the same into DIR
#
# What is typed here is what one types by hand; for the full size only the model, --frames and --size differ. The tiny model
# has made-up weights, so its videos are noise; what can be watched is that training lowers the loss. So has the tiny grader,
# whose scores mean nothing: they show how videos are graded and runs compared.
set -euo pipefail

examples=$(cd "$(dirname "$0")" && pwd)
for bin in "$examples/../bin" "${BIN:-}"; do # BIN: the programs of another build
    [ ! -x "$bin/decode" ] || PATH=$bin:$PATH
done
out=${1:-$examples/../build/demo}
rm -rf "$out" && mkdir -p "$out" && cd "$out"
out=$PWD
size=96x64 frames=17

step() { printf '\n== %s\n' "$*" >&2; }

step '1. A model folder in the published layout'
model-init tiny model
show -m model | grep parameters

step '2. Precompute: clips to latents and text embeddings, once'
curate --no-filter --videos "$examples/clips" "$examples/clips/clips.csv" >clips.jsonl
decode --frames $frames --size $size <clips.jsonl | vae-encode -m model | t5-encode -m model | pack -o train

step '3. Fine-tune a low-rank adapter, 400 steps'
draw --seed 42 --count 400 train |
    train-step -m model --adapter standard --objective flow-snr --lr 2e-3 --warmup 20 --max-steps 400 \
        --val train --eval-every 50 --state run >metrics.jsonl
grep val_loss metrics.jsonl
plot -o loss.png run/metrics.jsonl

step '4. Generate, without the adapter and with it, from the same noise'
t5-encode -m model <"$examples/prompts.jsonl" >prompts.mp
sample -m model <prompts.mp | vae-decode -m model | encode-mp4 -o base --sheet base.png >base.jsonl
sample -m model -a run/best.safetensors <prompts.mp | vae-decode -m model | encode-mp4 -o tuned --sheet tuned.png >tuned.jsonl

step '5. Grade them (owl-tiny: random weights, so the scores mean nothing) and compare'
mkdir scores
for run in base tuned; do
    grade -m random:owl-tiny:9 --max-new-tokens 4 --csv scores/$run.csv <$run.jsonl >scores/$run.jsonl
done
compare --base base scores/base.jsonl scores/tuned.jsonl
compare --base base --format json scores/base.jsonl scores/tuned.jsonl | plot --kind bars -o scores.png
report --base base --title 'A demonstration: random weights, scores that mean nothing' -o report.html scores/base.jsonl scores/tuned.jsonl

cat <<EOF

videos of the base model     $out/base/
videos with the adapter      $out/tuned/
contact sheets               $out/base.png  $out/tuned.png
loss curve                   $out/loss.png
scores of a random grader    $out/scores.png  $out/scores/
all of it as one page        $out/report.html
the adapter, for diffusers   $out/run/best.safetensors
EOF
