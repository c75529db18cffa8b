#!/bin/sh
# Adapters really learn: one clip, one level, one noise, again and again, and the loss falls to a fraction. A wrong sign or a
# gradient of something else would pass for training on ever new noise, where losses jump; not here.
. "${0%/*}/lib.sh"
steps=100

# One record that brings its noise and its level, and the same again for every step.
tensor-gen --name latents --shape 2,16,4,4 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 |
    tensor-gen --add --name noise --shape 2,16,4,4 --seed 7 --meta s=0.5 >one.mp
i=0; while [ $i -lt $steps ]; do cat one.mp; i=$((i + 1)); done >same.mp

learn() { train-step -m random:tiny --device cpu --lr 0.01 --warmup 10 --max-steps "$steps" "$@" <same.mp; }
# falls METRICS TIMES: the last loss is that many times below the first
falls() { sed -n 's/.*"loss":\([^,]*\),.*/\1/p' "$1" | awk -v times="$2" 'NR == 1 { first = $1 } { last = $1 } END { print first, last; exit !(last * times < first) }'; }

for adapter in standard standard:rank=4,alpha=8 transformer gdn_cssm gdn_cssm:k=3,rope=1; do
    ok "$adapter: the loss falls to less than a tenth" '
        learn --adapter $adapter --state $adapter >metrics
        falls metrics 10'
done
for objective in flow-snr v; do
    ok "objective $objective: to less than a fiftieth" '
        learn --objective $objective --state $objective >metrics
        falls metrics 50'
done
ok "accumulated over three records it falls, too" '
    learn --accumulate 3 --max-steps $((steps / 3)) --state accumulated >metrics
    falls metrics 5'
ok "and with a rate of 0 it does not fall" '
    learn --lr 0 --state still >metrics
    fails 1 falls metrics 1.001'
finish
