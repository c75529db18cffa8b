#!/bin/sh
# A model family that filters/ does not know, from its folder through the programs: nothing but a row of the table of families
# differs between these programs and the built ones. And what a folder says: which class it is of, and what is refused.
. "${0%/*}/lib.sh"
PATH=$BUILD/tests/family:$PATH
loom="-m random:$tests/data/family/:3"
cp "$SLUICE_DATA/prompts.jsonl" prompts.jsonl

ok "show: its latents, and its weights by their own names" '
    show $loom --geometry >geometry
    printf "%-12s %s\n" channels 5 temporal 2 spatial 16 patch 1 frames 5 width 64 height 48 text_length 7 text_width 24 transformers 1 | diff - geometry
    show $loom >weights
    grep -q "^transformer/blocks.1.spread.weight .*\[32,16\]" weights && grep -q "^transformer: 9 tensors" weights'
ok "t5-encode and sample: latents of its own shape, the same bytes twice" '
    head -n 2 prompts.jsonl | t5-encode $loom >embeds.mp
    show --jsonl embeds.mp | grep -q "\[7, *24\]"
    sample $loom --steps 4 <embeds.mp >a.mp
    sample $loom --steps 4 <embeds.mp >b.mp
    cmp a.mp b.mp
    show --jsonl a.mp | grep -q "\[3, *5, *3, *4\]"
    vae-decode $loom <a.mp >video.mp
    show --jsonl video.mp | grep -q "\[5, *48, *64, *3\]"'
ok "sample: frames and sizes that fit the family, by its own factors" '
    sample $loom --frames 3 --size 32x16 --steps 2 <embeds.mp >c.mp
    show --jsonl c.mp | grep -q "\[2, *5, *1, *2\]"
    fails 2 sample $loom --frames 4 --steps 2 <embeds.mp >out
    grep -q "one more than a multiple of 2" err
    fails 2 sample $loom --size 40x32 --steps 2 <embeds.mp >out
    grep -q "multiples of 16" err'
for adapter in standard:rank=4 transformer:rank=4 gdn_cssm:rank=4; do
    targets=spread,weave
    [ $adapter != standard:rank=4 ] || targets=context,spread,weave
    ok "train-step, $adapter: a run, killed state and all, and its adapter in sample" '
        tensor-gen --name video --shape 5,32,64,3 --dtype u8 --fill uniform --scale 255 --count 2 --meta caption=loom >clips.mp
        vae-encode $loom <clips.mp | t5-encode $loom >records.mp
        train-step $loom --adapter $adapter --targets $targets --warmup 1 --max-steps 2 --state "run-$adapter" <records.mp >metrics
        [ "$(wc -l <metrics)" = 2 ]
        train-step $loom --adapter $adapter --targets $targets --warmup 1 --max-steps 2 --state "run-$adapter" <records.mp >again
        [ ! -s again ]
        sample $loom --frames 5 --size 64x32 --steps 2 -a "run-$adapter/last.safetensors" <embeds.mp >with.mp
        sample $loom --frames 5 --size 64x32 --steps 2 <embeds.mp >without.mp
        ! cmp -s with.mp without.mp'
done
ok "train-step --dry-run counts its parameters and its memory" '
    train-step $loom --dry-run --adapter standard:rank=4 --targets spread,weave >out
    grep -q "^adapter .* 4 modules, 768 trainable parameters" out
    grep -q "5 frames of 64x48, latents \[3,5,3,4\]" out'

ok "plan: the records of its own size" '
    # shellcheck source=tests/pipelines
    . "$tests/pipelines"
    need_parallel; need gnuplot
    little plan "MODEL=${loom#-m }" FRAMES=5 SIZE=64x32 standard_r16 >table
    # 8 clips: latents [3,5,2,4] and a text of [7,24] in F32, and what the store keeps beside
    awk "\$1 == \"precompute\" { print \$4; exit !(\$4 > 8 * 1152 / 1e9 && \$4 < 8 * 2000 / 1e9) }" table'

ok "a folder of a class that is not known is refused by its name, and told which are" '
    for class in HunyuanVideoTransformer3DModel LTXVideoTransformer3DModel; do
        mkdir -p $class/transformer $class/scheduler
        echo "{\"_class_name\": \"$class\", \"patch_size\": [1, 2, 2]}" >$class/transformer/config.json
        cp "$SLUICE_DATA/presets/tiny/scheduler/scheduler_config.json" $class/scheduler
        for program in sample train-step\ --state\ run t5-encode; do
            fails 1 $program -m $class <embeds.mp >out
            grep -q "transformer/config.json: $class is not known here; known: CogVideoXTransformer3DModel" err
        done
    done
    mkdir -p other/vae other/text_encoder
    echo "{\"_class_name\": \"AutoencoderKLHunyuanVideo\"}" >other/vae/config.json
    fails 1 vae-encode -m other <clips.mp >out
    grep -q "vae/config.json: AutoencoderKLHunyuanVideo is not known here; known: AutoencoderKLCogVideoX" err'
ok "within a class, a field that is not supported is refused by its name: CogVideoX 1.5 and image to video" '
    cp -r "$SLUICE_DATA/presets/tiny" v15 && cp -r v15 i2v
    sed -i "s/\"patch_size\": 2/\"patch_size\": 2, \"patch_size_t\": 2/" v15/transformer/config.json
    fails 1 sample -m random:./v15 <embeds.mp >out
    grep -q "patch_size_t is 2" err
    sed -i "s/\"in_channels\": 16/\"in_channels\": 32/" i2v/transformer/config.json
    fails 1 sample -m random:./i2v <embeds.mp >out
    grep -q "in_channels" err'
ok "a model of two transformers is refused, where half of it would be trained or nothing says where they meet" '
    cp -r "$SLUICE_DATA/presets/tiny" two && mkdir two/transformer_2
    fails 1 train-step --state run -m random:./two <embeds.mp >out
    grep -q "transformer_2: a model of two transformers" err
    fails 1 sample -m random:./two <embeds.mp >out
    grep -q "model_index.json: no boundary_ratio" err'
ok "an unrelated config.json beside the parts does no harm; alone, its model_type is refused by its name" '
    cp -r "$SLUICE_DATA/presets/tiny" plain && cp -r plain beside
    echo "{\"model_type\": \"bert\"}" >beside/config.json
    show -m random:./plain >want
    show -m random:./beside >got
    diff want got
    echo "[1]" >beside/config.json
    show -m random:./beside | diff want -
    mkdir alone && cp plain/model_index.json alone
    echo "{\"model_type\": \"bert\"}" >alone/config.json
    fails 1 show -m random:./alone >out
    grep -q "config.json: bert is not known here; known: mplug-owl" err'
ok "without model_index.json, and with no class in a config, a CogVideoX folder opens" '
    cp -r plain bare && rm bare/model_index.json
    sed -i "/_class_name/d" bare/transformer/config.json bare/vae/config.json
    show -m random:./bare | diff want -'
finish
