#!/usr/bin/env bash
# demo.sh - a model that generates, taught what it does not know, and graded: on this machine's CPU in a few minutes.
#
#     make demo                      results below build/demo
#     examples/demo.sh [DIR]         the same into DIR
#
# What is typed here is what one types by hand; for the full size only the models, --frames, --size and --guidance differ. The toy model
# is a CogVideoX like the published one, but of 4.6 million parameters, and knows how balls and boxes fall, roll, slide and are thrown. How
# they bounce and collide it learns here. The toy grader, which saw all of that, has VideoPhy-2's network and its questions.
set -euo pipefail

examples=$(cd "$(dirname "$0")" && pwd)
for bin in "$examples/../bin" "${BIN:-}"; do # BIN: the programs of another build
    [ ! -x "$bin/decode" ] || PATH=$bin:$PATH
done
out=${1:-$examples/../build/demo}
rm -rf "$out" && mkdir -p "$out" && cd "$out"
out=$PWD
model=$examples/toy/model grader=$examples/toy/grader

step() { printf '\n== %s\n' "$*" >&2; }
captions() { awk -v n="$1" -F'"caption":' '!seen[$2]++ && made++ < n'; } # so many that differ

step '1. A model folder in the published layout, and what it makes of captions that it has not seen'
show -m "$model" | grep parameters
toy-world --captions --kinds fall,roll,slide,throw --split test --count 200 | captions 15 >known.jsonl
t5-encode -m "$model" <known.jsonl | sample -m "$model" --steps 25 --guidance 3 |
    vae-decode -m "$model" | encode-mp4 -o known --sheet known.png >known-videos.jsonl
decode --frames 17 --size 96x64 <known-videos.jsonl | toy-check --least 0.7 >known-checked.jsonl

step '2. Clips of what it does not know, to latents and text embeddings, once'
"$examples/toy/inputs" clips
curate --no-filter --videos clips --split train --fraction 0.15 clips/clips.csv >train.jsonl
curate --no-filter --videos clips --split val --fraction 0.15 clips/clips.csv >val.jsonl
for part in train val; do
    decode --frames 17 --size 96x64 <$part.jsonl | vae-encode -m "$model" | t5-encode -m "$model" | pack -o $part
done

step '3. Fine-tune a low-rank adapter, 600 steps'
draw --seed 42 --count 600 train |
    train-step -m "$model" --adapter standard --objective flow-snr --lr 2e-3 --warmup 20 --max-steps 600 \
        --val val --eval-every 100 --state run >metrics.jsonl
plot --table run
plot -o loss.png run/metrics.jsonl

step '4. Generate bounces and collisions, without the adapter and with it, from the same noise'
grep -m 15 '"kind":"\(bounce\|hit\)"' clips/prompts.jsonl >prompts.jsonl
t5-encode -m "$model" <prompts.jsonl >prompts.mp
sample -m "$model" --steps 25 --guidance 3 <prompts.mp | vae-decode -m "$model" | encode-mp4 -o base --sheet base.png >base.jsonl
sample -m "$model" --steps 25 --guidance 3 -a run/best.safetensors <prompts.mp |
    vae-decode -m "$model" | encode-mp4 -o tuned --sheet tuned.png >tuned.jsonl

step '5. Grade them and compare'
mkdir scores
for run in base tuned; do grade -m "$grader" --frames 16 --max-new-tokens 4 --csv scores/$run.csv <$run.jsonl >scores/$run.jsonl; done
compare --base base scores/base.jsonl scores/tuned.jsonl
compare --base base --format json scores/base.jsonl scores/tuned.jsonl | plot --kind bars -o scores.png
report --base base --run run --title 'A demonstration, with a toy model' -o report.html scores/base.jsonl scores/tuned.jsonl

cat <<EOF

what it knows                $out/known.png  $out/known/
bounces and collisions       $out/base.png  $out/base/
the same with the adapter    $out/tuned.png  $out/tuned/
loss curve                   $out/loss.png
scores                       $out/scores.png  $out/scores/
all of it as one page        $out/report.html
the adapter, for diffusers   $out/run/best.safetensors
EOF
