#!/usr/bin/env bash
# tour.sh - what the programs do and how they go together, in a minute, on the tiny model with made-up weights.
#
#     examples/tour.sh [FOLDER]       works in FOLDER, or in a temporary one that is removed
#
# Each block below says what it shows; the run prints every command before its output.
# shellcheck disable=SC2016 # run expands what it is given
set -euo pipefail

examples=$(cd "$(dirname "$0")" && pwd)
command -v decode >/dev/null || PATH=$examples/../bin:$PATH
if [ $# -gt 0 ]; then
    mkdir -p "$1" && cd "$1"
else
    work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cd "$work"
fi
M=random:tiny # or a model folder, or another preset: every command below stays the same
export M examples

say() { printf '\n# %s\n' "$1"; }
run() {
    printf '$ %s\n' "$1"
    bash -o pipefail -c "$1" || [ $? = 141 ] # 141: a writer whose reader had enough, as head has
}

say 'A table of clips becomes a list, one JSON line a clip; files that are not there would be dropped.'
run 'curate --no-filter --videos "$examples/clips" "$examples/clips/clips.csv" >clips.jsonl'
run 'head -n 2 clips.jsonl | cut -c 1-100'

say 'decode reads the list and writes records: a key, what is known about the clip, and its frames as a tensor.'
run 'decode --frames 17 --size 96x64 <clips.jsonl >video.mp'
run 'show video.mp | head -n 6'

say 'A stage is a tool of its own: there and back through the VAE. (Made-up weights know nothing of pictures.)'
run 'head -n 2 clips.jsonl | decode --frames 17 --size 96x64 >two.mp'
run 'vae-encode -m $M --mode --dtype f32 <two.mp | vae-decode -m $M | tensor-eq --psnr 5 - two.mp'

say 'No result depends on its neighbours: two halves, made apart, are the whole.'
run 'head -n 4 clips.jsonl | decode --frames 17 --size 96x64 | vae-encode -m $M >a.mp'
run 'tail -n +5 clips.jsonl | decode --frames 17 --size 96x64 | vae-encode -m $M >b.mp'
run 'vae-encode -m $M <video.mp >whole.mp; cat a.mp b.mp | tensor-eq --quiet - whole.mp && echo the same'

say 'A clip that fails is named, counted and left out; the others go on, and the exit code tells.'
run '{ head -n 1 clips.jsonl; echo "{\"path\":\"gone.mp4\"}"; } | decode --frames 17 --size 96x64 >one.mp || echo "exit $?"'

say 'A stream that was cut never passes for a short one.'
run 'head -c 500000 video.mp | vae-encode -m $M >cut.mp || echo "exit $?"'

say 'All that training needs goes into a store. Typed again, it makes only what is missing: nothing.'
store='pack --missing -o train <clips.jsonl | decode --frames 17 --size 96x64 | vae-encode -m $M | t5-encode -m $M | pack -o train'
run "$store"
run "$store"

say 'A store is drawn from in an order that a seed decides.'
run 'draw --seed 1 --count 4 train | show --jsonl | cut -c 1-60'

say 'Ten steps of training; typed again, the run is found finished.'
train='draw --from run train | train-step -m $M --state run --max-steps 10 --warmup 2 --lr 1e-3 | cut -c 1-110'
run "$train"
run "$train"

say 'Prompts to videos, without the adapter and with it, from the same noise. It learned a flow: euler follows one.'
run 'head -n 2 "$examples/prompts.jsonl" | t5-encode -m $M >prompts.mp'
run 'sample -m $M --frames 17 --size 96x64 --steps 10 <prompts.mp |
    vae-decode -m $M | encode-mp4 -o before | cut -c 1-110'
run 'sample -m $M --frames 17 --size 96x64 --steps 10 --scheduler euler -a run/last.safetensors <prompts.mp |
    vae-decode -m $M | encode-mp4 -o after --sheet after.png | cut -c 1-110'

say 'Any language that has msgpack reads along.'
if python3 -c 'import msgpack' 2>/dev/null; then
    run 'python3 "$examples/sluice_wire.py" <prompts.mp | head -n 2 | cut -c 1-110'
else
    echo "(python3 has no msgpack module here)"
fi
