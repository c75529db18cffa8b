#!/bin/sh
# A hundred kills with -9 at random moments of a training run, each time started again: the same bytes as a run left alone.
. "${0%/*}/lib.sh"
KILLS=${KILLS:-100}

tensor-gen --name latents --shape 2,16,4,8 --dtype bf16 --count 9 --key clip |
    tensor-gen --add --name prompt_embeds --shape 32,64 --dtype bf16 | pack -o train 2>/dev/null
train() {
    draw --count "$1" train | train-step -m random:tiny --device cpu --objective flow-snr --lr 1e-3 --warmup 3 --max-steps 300 \
        --val train --eval-every 20 --eval-clips 3 --patience 0 --save-every 3 --state "$2" 2>err >/dev/null
}

ok "$KILLS kills, and the same adapter, state and metrics" '
    train 300 whole
    kills=0 tries=0
    while [ $kills -lt "$KILLS" ]; do
        tries=$((tries + 1))
        train 300 killed & pid=$!
        sleep "$(awk -v s=$tries "BEGIN { srand(s); printf \"%.3f\", 0.15 + 0.5 * rand() }")"
        if pkill -9 -f "state killed"; then kills=$((kills + 1)); fi
        wait $pid || true
        # a finished run has nothing left to kill: start it over, after comparing
        if [ -e killed/last.safetensors ] && grep -q "\"step\":300," killed/metrics.jsonl; then
            train 300 killed
            for file in best.safetensors last.safetensors state.safetensors metrics.jsonl; do cmp "whole/$file" "killed/$file"; done
            rm -rf killed
        fi
    done
    train 300 killed
    for file in best.safetensors last.safetensors state.safetensors metrics.jsonl; do cmp "whole/$file" "killed/$file"; done
    echo "$kills kills in $tries starts"'
finish
