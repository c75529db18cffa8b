#!/bin/sh
# The toy models and the toy grader of examples/toy: that they do what the README says of them, on captions and clips that they have not seen.
# SOAK=1: forty captions with 50 steps for each of three seeds, instead of twelve with 20 for one.
# shellcheck disable=SC1091,SC2016,SC2034,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
exec 3>&1
toy=$top/examples/toy
bytes() { find "$1" -type f -size +9k -printf '%s\n' | awk '{ n += $1 } END { print n }'; } # of weights and tokenizers
grader() { grade -m "$toy/grader" --device cpu --frames 16 --max-new-tokens 4; }

# shown SEED COUNT STEPS: how many of so many captions, each another, are to be seen in what the model makes of them
shown() {
    toy-world --captions --distinct --split test --count "$2" >captions.jsonl
    [ "$(wc -l <captions.jsonl)" = "$2" ]
    t5-encode -m "$m" --device cpu <captions.jsonl | sample -m "$m" --device cpu --seed "$1" --steps "$3" --guidance 3 >latents.mp
    vae-decode -m "$m" --device cpu <latents.mp | encode-mp4 -o "videos$1" >videos.jsonl
    decode --frames 17 --size 96x64 <videos.jsonl | toy-check --least 0.8 2>err >checked.jsonl || { cat err; return 1; }
    echo "# seed $1, $3 steps: $(grep -o "[0-9]* of [0-9]* show.*" err)" >&3
}

# model NAME DECIBELS: what is asked of a model, in a folder of its own
model() {
    m=$toy/$1 least=$2
    mkdir "$1" && cd "$1" || exit 1
    ok "$1: smaller than 10 MB, and all of it verifies" '
        [ "$(bytes "$m")" -lt 10000000 ]; show --check -m "$m"'
    ok "$1: a clip there and back through the VAE: $2 dB, each of 24, of every kind and every violation" '
        fast
        toy-world --split test --unlawful 0.5 --count 24 >clips.mp
        vae-encode -m "$m" --device cpu --mode <clips.mp | vae-decode -m "$m" --device cpu >back.mp
        tensor-eq --psnr $least clips.mp back.mp >said || { cat said; exit 1; }
        echo "# $(grep -o "PSNR [0-9.]*" said | awk "{ n += \$2 } END { print n / NR }") dB on average" >&3'
    ok "$1: in at least 80 % of its videos, decoded from their files, colour and movement are those of the caption" '
        fast
        if [ -n "${SOAK:-}" ]; then
            for seed in 1 2 3; do shown $seed 40 50; done
        else
            shown 1 12 20
        fi'
    ok "$1: one clip, 50 steps with guidance, in under 10 s" '
        fast
        head -n 1 captions.jsonl | t5-encode -m "$m" --device cpu >one.mp
        began=$(date +%s%N)
        sample -m "$m" --device cpu --guidance 3 <one.mp | vae-decode -m "$m" --device cpu >clip.mp
        took=$((($(date +%s%N) - began) / 1000000))
        echo "# $took ms" >&3
        [ $took -lt 10000 ]'
    ok "$1: diffusers makes of the folder what our programs make of it" '
        fast
        py=${REFERENCE_PYTHON:-python3}
        "$py" -c "import torch, diffusers, transformers, msgpack" 2>/dev/null || { echo "no Python packages for the reference"; exit 77; }
        PYTHONDONTWRITEBYTECODE=1 "$py" "$tests/reference/check_folder.py" "$m" "A small red ball rolls to the left."'
    cd ..
}
model model 28
model wan 22

ok "of the first one's videos without guidance some break a law, and after 100 steps on clips that all break one more do" '
    fast
    toy-world --unlawful 1 --strong 0.4 --split train --count 64 | vae-encode -m "$toy/model" --device cpu |
        t5-encode -m "$toy/model" --device cpu | pack -o broken
    draw --count 100 broken | train-step -m "$toy/model" --device cpu --objective flow-snr --lr 3e-3 --warmup 20 --max-steps 100 \
        --state run >metrics
    toy-world --captions --split test --kinds fall,roll,slide,throw --count 24 --key law | t5-encode -m "$toy/model" --device cpu >law.mp
    lawful() { sample -m "$toy/model" --device cpu --steps 20 --guidance 1 "$@" <law.mp | vae-decode -m "$toy/model" --device cpu |
        toy-check | grep -c "\"pc\":[45]"; }
    base=$(lawful) tuned=$(lawful -a run/last.safetensors)
    echo "# $base of 24 lawful, then $tuned" >&3
    [ "$base" -gt 4 ]; [ "$base" -lt 24 ]; [ "$tuned" -lt $((base - 4)) ]'
ok "the grader is smaller than 5 MB, and all of it verifies" '
    [ "$(bytes "$toy/grader")" -lt 5000000 ]; show --check -m "$toy/grader"'
ok 'the grader: scores of clips that it has not seen are in the order of the truth, by 0.7 or more, and mostly are the truth' '
    fast
    need python3
    toy-world --split test --unlawful 0.5 --mismatch 0.5 --count 120 --key held | grader >held.jsonl
    python3 - held.jsonl >&3 <<-"EOF"
	import json, sys
	def ranks(x):
	    return [sum(b < a for b in x) + (sum(b == a for b in x) - 1) / 2 for a in x]
	def correlation(a, b):
	    a, b = ([v - sum(x) / len(x) for v in x] for x in (a, b))
	    return sum(p * q for p, q in zip(a, b)) / (sum(p * p for p in a) * sum(q * q for q in b)) ** 0.5
	lines = [json.loads(line) for line in open(sys.argv[1])]
	for task in "sa", "pc":
	    told, true = [l[task] for l in lines], [l["true_" + task] for l in lines]
	    r = correlation(ranks(told), ranks(true))
	    print(f"# {task}: rank correlation {r:.3f}, {sum(t == u for t, u in zip(told, true))} of {len(lines)} right")
	    assert r >= 0.7
	EOF'
ok 'and unlawful clips score lower in PC than the same scenes, lawful: p < 0.001' '
    fast
    for share in 0 1; do toy-world --split test --unlawful $share --count 30 --key pair | grader >unlawful$share.jsonl; done
    compare --base lawful lawful=unlawful0.jsonl unlawful=unlawful1.jsonl >said; cat said
    grep "^unlawful  *-.* <0.001  *<0.001 " said
    grep "^unlawful .* -[1-4]\.[0-9]* \[-" said'
finish
