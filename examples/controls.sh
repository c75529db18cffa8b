#!/usr/bin/env bash
# controls.sh - is the measurement to be trusted? Three adapters whose effect is known beforehand, trained, sampled and graded as any other.
#
#     examples/controls.sh [DIR]     results below DIR [build/controls]; half an hour on two cores, a third of that with SEEDS=1
#
# The toy model saw clips of which two in five break a law, and shows it. Three adapters are trained on new clips of all kinds:
#
#     lawful   none breaks a law         a positive control: it must raise Joint
#     same     two in five, as before    a null control: it must leave Joint as it is
#     broken   each breaks one           a negative control: it must lower Joint
#
# Each is validated on clips of its own mix. The learning rate (of RATES) is the one with the lowest validation loss, and so is the step; no
# video is looked at for that. RATES is 1e-3 because that had a lower validation loss than 3e-3 with each of the three, on the toy CogVideoX. Then videos of
# held-out captions, as many of each kind, from the same noise; their scores by the grader, and by toy-check, which measures. All of it for
# each of SEEDS, which decides on the adapter's start, the order of clips, and all noise. Of the toy Wan:
#
#     MODEL=$PWD/examples/toy/wan OBJECTIVE=flow examples/controls.sh build/controls-wan
set -euo pipefail

examples=$(cd "$(dirname "$0")" && pwd)
for bin in "$examples/../bin" "${BIN:-}"; do # BIN: the programs of another build
    [ ! -x "$bin/decode" ] || PATH=$bin:$PATH
done
out=${1:-$examples/../build/controls}
mkdir -p "$out" && cd "$out"
SEEDS=${SEEDS:-1 2 3} RATES=${RATES:-1e-3} STEPS=${STEPS:-800} CLIPS=${CLIPS:-512} EACH=${EACH:-44} JOBS=${JOBS:-2} OBJECTIVE=${OBJECTIVE:-flow-snr}
kinds='fall bounce roll slide throw hit' controls='lawful same broken'
export M=${MODEL:-$examples/toy/model} G=$examples/toy/grader OBJECTIVE STEPS CLIPS EACH OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

clips() { # CONTROL PART: a store
    local mix=() count=$CLIPS
    [ "$1" != same ] || mix=(--unlawful 0.4 --strong 0.4)
    [ "$1" != broken ] || mix=(--unlawful 1 --strong 0.4)
    [ "$2" = train ] || count=$((CLIPS / 8))
    toy-world --split train --key "$1-$2-" --count "$count" "${mix[@]}" | vae-encode -m "$M" | t5-encode -m "$M" | pack -o "clips/$1/$2"
}
fine_tune() { # CONTROL SEED RATE
    draw --seed "$2" --count $((2 * STEPS)) "clips/$1/train" |
        train-step -m "$M" --seed "$2" --adapter standard --objective "$OBJECTIVE" --lr "$3" --warmup 20 --max-steps "$STEPS" --accumulate 2 \
            --val "clips/$1/val" --eval-every 50 --eval-clips 64 --patience 0 --min-delta 0 --state "runs/$1/$2/$3" >/dev/null
}
judged() { # RUN SEED KIND: videos of one kind, and what is said of them
    local adapter=() to=$1/$2
    [ "$1" = base ] || adapter=(-a "runs/$to/best.safetensors")
    toy-world --captions --distinct --split test --kinds "$3" --count "$EACH" --key "$3" | t5-encode -m "$M" |
        sample -m "$M" --seed "$2" --steps 25 --guidance 1 "${adapter[@]}" | vae-decode -m "$M" | encode-mp4 -o "videos/$to" >"videos/$to.$3"
    grade -m "$G" --frames 16 --max-new-tokens 4 <"videos/$to.$3" >"grader/$to.$3"
    decode --frames 17 --size 96x64 <"videos/$to.$3" | toy-check >"truth/$to.$3"
}
export -f clips fine_tune judged
each() { xargs -P "$JOBS" -L 1 bash -euo pipefail -c '"$@" 2>>log || { echo "failed, see log: $*" >&2; exit 255; }' -; } # a command a line
say() { printf '== %s\n' "$*" >&2; }
lowest() { sed -n 's/.*"val_loss":\([^,]*\),.*/\1/p' "$1" | sort -g | head -n 1; }

say "1. Clips: $CLIPS of each mix to train on, and an eighth of that to validate"
for control in $controls; do printf "clips $control %s\n" train val; done | each

say '2. Adapters: each control with each seed and each learning rate'
for control in $controls; do for seed in $SEEDS; do for rate in $RATES; do echo "fine_tune $control $seed $rate"; done; done; done | each
for control in $controls; do for seed in $SEEDS; do
    rate=$(for rate in $RATES; do echo "$(lowest "runs/$control/$seed/$rate/metrics.jsonl") $rate"; done | sort -g | head -n 1)
    printf '%s\n' "$control, seed $seed: validation loss $(grep -m 1 val_loss "runs/$control/$seed/${rate#* }/metrics.jsonl" |
        sed 's/.*"val_loss":\([^,]*\),.*/\1/') to ${rate% *} with rate ${rate#* }"
    cp "runs/$control/$seed/${rate#* }/best.safetensors" "runs/$control/$seed/"
done; done | tee chosen.txt

say "3. Videos, scores and measurements: $EACH captions of each of six kinds"
for run in base $controls; do mkdir -p {videos,grader,truth}/"$run"; done
for run in base $controls; do for seed in $SEEDS; do for kind in $kinds; do echo "judged $run $seed $kind"; done; done; done | each

say '4. Joint, minus base: of all videos, and by kind'
for judge in grader truth; do for seed in $SEEDS; do
    for run in base $controls; do (cd "$judge/$run" && for kind in $kinds; do cat "$seed.$kind"; done >"$seed.jsonl"); done
    printf '\nby the %s, seed %s\n' $judge "$seed"
    compare --base base --by kind "base=$judge/base/$seed.jsonl" "lawful=$judge/lawful/$seed.jsonl" "same=$judge/same/$seed.jsonl" \
        "broken=$judge/broken/$seed.jsonl"
done; done | tee comparison.txt
