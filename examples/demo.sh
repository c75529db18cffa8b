#!/usr/bin/env bash
# demo.sh - a model that generates, taught to obey physics, and graded: on this machine's CPU in under three minutes.
#
#     make demo                      results below build/demo
#     examples/demo.sh [DIR]         the same into DIR
#
# What is typed here is what one types by hand; for the full size only the models, --frames, --size and --guidance differ. The toy model
# is a CogVideoX like the published one, but of 4.6 million parameters. It knows how balls and boxes fall, bounce, roll, slide, are thrown
# and collide, from clips of which two in five break a law of physics, and so does a third of its own. Here it is trained on lawful ones. The toy grader
# has VideoPhy-2's network and its questions.
set -euo pipefail

examples=$(cd "$(dirname "$0")" && pwd)
for bin in "$examples/../bin" "${BIN:-}"; do # BIN: the programs of another build
    [ ! -x "$bin/decode" ] || PATH=$bin:$PATH
done
out=${1:-$examples/../build/demo}
if [ $# -gt 0 ] && [ -n "$(ls -A -- "$out" 2>/dev/null)" ] && [ ! -e "$out/.demo" ]; then # it would be removed
    echo "demo.sh: $out: it is there, and no demo's: name another folder" >&2
    exit 1
fi
rm -rf -- "$out" && mkdir -p -- "$out" && cd -- "$out" && : >.demo
out=$PWD
model=$examples/toy/model grader=$examples/toy/grader

step() { printf '\n== %s\n' "$*" >&2; }
videos() { # RUN ADAPTER..: of the prompts, from the same noise for every run
    sample -m "$model" --steps 25 --guidance 1 "${@:2}" <prompts.mp | vae-decode -m "$model" | encode-mp4 -o "$1" --sheet "$1.png" >"$1.jsonl"
    decode --frames 17 --size 96x64 <"$1.jsonl" | toy-check >"$1-checked.jsonl"
}

step '1. What the model makes of captions that it has not seen: the right things, about a third of them against a law of physics'
show -m "$model" | grep parameters
"$examples/toy/inputs" clips
head -n 24 clips/prompts.jsonl | t5-encode -m "$model" >prompts.mp
videos base

step '2. Lawful clips, to latents and text embeddings, once; of 320 some 48 are kept for validation'
curate --no-filter --videos clips --split train --fraction 0.15 clips/clips.csv >train.jsonl
curate --no-filter --videos clips --split val --fraction 0.15 clips/clips.csv >val.jsonl
for part in train val; do
    decode --frames 17 --size 96x64 <$part.jsonl | vae-encode -m "$model" | t5-encode -m "$model" | pack -o $part
done

step '3. Fine-tune a low-rank adapter, 600 steps. The validation loss falls by about a hundredth: most of it is the noise that nobody can foretell'
draw --seed 42 --count 1200 train |
    train-step -m "$model" --adapter standard --objective flow-snr --lr 1e-3 --warmup 20 --max-steps 600 --accumulate 2 \
        --val val --eval-every 100 --eval-clips 40 --patience 0 --state run >metrics.jsonl
plot --table run
plot -o loss.png run/metrics.jsonl

step '4. The same captions with the adapter, from the same noise: fewer break a law'
videos tuned -a run/best.safetensors

step '5. Grade both and compare: Joint and PC rise, and SA stays where it is'
mkdir scores
for run in base tuned; do grade -m "$grader" --frames 16 --max-new-tokens 4 --csv scores/$run.csv <$run.jsonl >scores/$run.jsonl; done
compare --base base scores/base.jsonl scores/tuned.jsonl
compare --base base --format json scores/base.jsonl scores/tuned.jsonl | plot --kind bars -o scores.png
report --base base --run run --title 'A demonstration, with a toy model' -o report.html scores/base.jsonl scores/tuned.jsonl
printf '\nthe same by measurement (toy-check)\n'
compare --base base base=base-checked.jsonl tuned=tuned-checked.jsonl | head -n 6

cat <<EOF

what the model makes         $out/base.png  $out/base/
the same with the adapter    $out/tuned.png  $out/tuned/
loss curve                   $out/loss.png
scores                       $out/scores.png  $out/scores/
all of it as one page        $out/report.html
the adapter, for diffusers   $out/run/best.safetensors
EOF
