#!/bin/sh
# Training the 5B model at full size on a GPU, random weights, records of 49 frames of 720x480: the same bytes whatever is computed again and
# wherever the run is killed, within the memory of a 24 GiB card when all is. Two and a half minutes on an H200. STEPS: of a run, 10 or more.
# shellcheck disable=SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"
STEPS=${STEPS:-20}
exec 3>&1

# Three records as vae-encode and t5-encode leave them; a step looks at one.
draws() {
    [ -e draws.mp ] && return
    tensor-gen --name latents --shape 13,16,60,90 --dtype bf16 --count 3 --key clip |
        tensor-gen --add --name prompt_embeds --shape 226,4096 --dtype bf16 | pack -o train 2>/dev/null
    draw --count "$STEPS" train >draws.mp
}
# exec, so that its process is the one that can be killed
start() { exec train-step -m random:cogvideox-5b --device cuda --lr 1e-3 --warmup 2 --max-steps "$STEPS" --save-every 5 "$@" <draws.mp >/dev/null; }
train() { (start "$@"); }
whole() { [ -e whole/last.safetensors ] || { draws; train --state whole --recompute none --dump-grads none.safetensors; }; }
same_run() { for file in last.safetensors state.safetensors metrics.jsonl; do cmp "$1/$file" "$2/$file" || return 1; done; }
used() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i "${CUDA_VISIBLE_DEVICES:-0}"; }

ok "$STEPS steps, every loss a number, and the adapter is no longer a fresh one" '
    need cuda
    whole
    [ "$(grep -c grad_norm whole/metrics.jsonl)" = "$STEPS" ]
    show --check whole/last.safetensors
    echo "# steps: $(cat whole/speed.json)" >&3'
ok "all of it again with --recompute full: the same bytes, in 24 GiB" '
    need cuda
    whole
    before=$(used) most=0
    start --state full --recompute full --dump-grads full.safetensors & pid=$!
    while kill -0 $pid 2>/dev/null; do now=$(used); [ "$now" -le "$most" ] || most=$now; sleep 0.2; done
    wait $pid
    echo "# memory used at most: $((most - before)) MiB; steps: $(cat full/speed.json)" >&3
    cmp none.safetensors full.safetensors
    same_run whole full
    [ $((most - before)) -le 24576 ]'
ok "killed with -9 after a save, and on from there with --recompute ffn: the same bytes" '
    need cuda
    whole
    start --state killed --recompute ffn --dump-grads ffn.safetensors & pid=$!
    for i in $(seq 300); do [ ! -e killed/state.safetensors ] || break; sleep 0.2; done
    sleep 3
    kill -9 $pid
    wait $pid || [ $? = 137 ]
    fails 1 grep "\"step\":$STEPS," killed/metrics.jsonl
    train --state killed --recompute ffn 2>err
    grep "going on after step" err
    cmp none.safetensors ffn.safetensors
    same_run whole killed'
finish
