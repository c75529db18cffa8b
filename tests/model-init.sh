#!/bin/sh
# model-init: a folder in the published layout, whose weights are those of random:PRESET:SEED; what filters say of folders
# with something wrong in them.
# shellcheck disable=SC2016,SC2086,SC2094,SC2154 # $cpu is a list of words; the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

cpu='--device cpu --threads 1'
tensor-gen --name video --dtype u8 --fill ramp --shape 5,32,48,3 >video
printf '{"key":"a","prompt":"a kettle boils"}\n' >prompt
model-init --seed 7 tiny model
t5-encode -m random:tiny:7 $cpu <prompt >embeds
tensor-gen --add --name noise --shape 2,16,4,6 <embeds >noise

# made MODEL FOLDER: what each of the three networks makes of it
made() {
    mkdir -p "$2"
    vae-encode -m "$1" $cpu <video >"$2/latents"
    t5-encode -m "$1" $cpu <prompt >"$2/embeds"
    sample -m "$1" $cpu --frames 5 --size 48x32 --steps 1 --keep <noise >"$2/sample"
}
made random:tiny:7 seven
same_as_seven() {
    made "$1" "$2"
    for part in latents embeds sample; do tensor-eq --quiet "$2/$part" "seven/$part" || return 1; done
}
# changed PYTHON: a copy of the model in ./changed, after the code has had the header h of the VAE's file
changed() {
    need python3
    rm -rf changed
    cp -r model changed
    python3 -c '
import json, struct, sys
path = "changed/vae/diffusion_pytorch_model.safetensors"
file = open(path, "rb").read()
n = struct.unpack("<Q", file[:8])[0]
h = json.loads(file[8 : 8 + n])
name = "decoder.conv_in.conv.bias"
exec(sys.argv[1])
head = json.dumps(h).encode()
open(path, "wb").write(struct.pack("<Q", len(head)) + head + file[8 + n :])' "$1"
}

ok 'the folder is as published' '
    (cd model && find . -type f) | sort >said
    cat >expected <<END
./model_index.json
./scheduler/scheduler_config.json
./text_encoder/config.json
./text_encoder/model.safetensors
./tokenizer/spiece.model
./transformer/config.json
./transformer/diffusion_pytorch_model.safetensors
./vae/config.json
./vae/diffusion_pytorch_model.safetensors
END
    diff expected said
    show model/vae/*.safetensors | grep -c F32
    if show model/vae/*.safetensors | grep BF16; then exit 1; fi
    if show model/transformer/*.safetensors model/text_encoder/*.safetensors | grep "  F32"; then exit 1; fi'
ok 'its weights are those of random:tiny and the seed, bit for bit' 'same_as_seven model whole'
ok 'another seed makes another model' '
    made random:tiny:8 eight
    for part in latents embeds sample; do fails 1 tensor-eq --quiet eight/$part seven/$part; done'
ok 'the same command makes the same bytes' '
    model-init --seed 7 tiny again
    diff -r model again'
ok 'a preset may be a folder, a model too' '
    model-init --seed 7 ./model copy
    diff -r model copy'
ok 'shards: an index, no file past the size, the same model' '
    model-init --seed 7 --shard-bytes 100000 tiny shards
    for part in transformer text_encoder vae; do
        [ $(ls shards/$part/*-of-*.safetensors | wc -l) -gt 2 ]
        ls shards/$part/*.safetensors.index.json
        [ ! -e shards/$part/diffusion_pytorch_model.safetensors ]
    done
    for file in shards/*/*.safetensors; do
        [ $(show $file | tail -n 1 | cut -d" " -f1) = 1 ] || [ $(wc -c <$file) -lt 110000 ]
    done
    show -m shards --check
    same_as_seven shards sharded
    show -m model >listed
    show -m shards | diff listed -
    for part in transformer:2 text_encoder:2 vae:4; do
        count=$(grep "^${part%:*}: " listed | sed "s/.* \([0-9]*\) parameters/\1/")
        grep "\"total_size\": $((count * ${part#*:}))$" shards/${part%:*}/*.index.json
    done'
ok 'a folder with all that is published beside the weights: shards here, one file there, F32 and BF16' '
    mkdir published
    cp -r shards/transformer shards/text_encoder model/vae model/scheduler model/tokenizer model/model_index.json published
    printf "{}" | tee published/tokenizer/tokenizer_config.json published/tokenizer/added_tokens.json published/configuration.json \
        >published/tokenizer/special_tokens_map.json
    printf "# A model\n" >published/README.md
    show -m published --check
    same_as_seven published full'
ok 'a tensor that is missing is named' '
    changed "del h[name]; at = 0
for e in h.values():
    if \"shape\" in e:
        e[\"data_offsets\"] = [at, at := at + e[\"data_offsets\"][1] - e[\"data_offsets\"][0]]
n += len(file) - 8 - n - at"
    fails 1 show -m changed --check
    grep "decoder.conv_in.conv.bias" err
    fails 1 vae-encode -m changed $cpu <video >out
    grep "^vae-encode: .*decoder.conv_in.conv.bias" err'
ok 'so is one that is extra' '
    changed "h[\"surplus.weight\"] = {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [0, 0]}"
    fails 1 show -m changed --check
    grep "surplus.weight" err
    fails 1 vae-encode -m changed $cpu <video >out
    grep "surplus.weight" err'
ok 'and one of another shape, with both shapes' '
    changed "h[name][\"shape\"] = [1] + h[name][\"shape\"]"
    fails 1 show -m changed --check
    grep "decoder.conv_in.conv.bias.*\[1,[0-9]*\].*\[[0-9]*\]" err
    fails 1 vae-encode -m changed $cpu <video >out
    grep "decoder.conv_in.conv.bias" err'
ok 'and one that is not floating point' '
    changed "h[name][\"dtype\"] = \"I32\""
    fails 1 show -m changed --check
    grep "decoder.conv_in.conv.bias" err'
ok 'a shard that is missing, and a part without weights' '
    cp -r shards broken
    rm broken/transformer/*-00002-of-*
    fails 1 show -m broken --check
    grep "00002-of-" err
    rm -r broken/vae/*.safetensors
    fails 1 show -m broken --check
    grep "vae" err'
ok 'a folder that holds something is left alone' '
    mkdir occupied
    : >occupied/file
    fails 1 model-init tiny occupied
    grep "^model-init: occupied: not empty" err
    [ "$(ls -A occupied)" = file ]
    fails 1 model-init tiny prompt
    grep "^model-init: prompt" err
    mkdir empty
    model-init tiny empty
    fails 1 model-init tiny empty'
ok 'the grader: config, weights and tokenizer at the top, one file or shards, and again from a folder' '
    model-init --seed 7 owl-tiny owl
    (cd owl && echo *) >said
    echo config.json model.safetensors tokenizer.model | diff said -
    show -m owl >listed
    tail -n 1 listed | grep "^owl: 119 tensors, 996160 parameters$"
    if grep F32 listed; then exit 1; fi
    show -m random:owl-tiny | sed "s/ F32 / BF16 /" | diff - listed
    show -m owl --check
    model-init --seed 7 --shard-bytes 500000 ./owl parts
    ls parts | grep -c "^model-0000.-of-0000.*safetensors$"
    show -m parts | diff listed -
    cmp owl/tokenizer.model parts/tokenizer.model'
ok 'what is wrong in the grader'\''s folder is named' '
    rm parts/model-00002-of-*
    fails 1 show -m parts --check
    grep "00002-of-" err
    sed -i "s/quick_gelu/gelu/" owl/config.json
    fails 1 show -m owl --check
    grep "config.json: vision_config: hidden_act" err
    rm owl/model.safetensors
    : >owl/pytorch_model.bin
    cp -r owl broken-owl
    sed -i "s/\"gelu/\"quick_gelu/" broken-owl/config.json
    fails 1 show -m broken-owl --check
    grep "pytorch_model.bin" err'
ok 'diffusers makes of the folder what our programs make of it' '
    py=${REFERENCE_PYTHON:-python3}
    need "$py"
    "$py" -c "import torch, diffusers, transformers, msgpack" 2>/dev/null || { echo "no Python packages for the reference"; exit 77; }
    model-init tiny in-diffusers
    PYTHONDONTWRITEBYTECODE=1 "$py" "$tests/reference/check_folder.py" in-diffusers "A small red ball rolls to the left."'
ok 'a preset that is not there, wrong usage' '
    fails 1 model-init huge new
    grep "huge" err
    [ ! -e new ]
    fails 2 model-init tiny
    fails 2 model-init tiny a b
    fails 2 model-init --shard-bytes 0 tiny new
    [ ! -e new ]'
ok 'a small disk leaves no file half-written' '
    ulimit -f 100
    fails 1 model-init tiny small
    grep "^model-init: .*File too large" err
    for file in $(find small -name "*.safetensors"); do show --check $file; done
    [ -z "$(find small -name ".tmp*")" ]
    [ ! -e small/model_index.json ]'
finish
