#!/bin/sh
# CogVideoX-2B: its counts, and a folder of its layout, with its own configs but for the sizes, trained, sampled and encoded. That its
# network is diffusers' is checked in tests/dit.c (sincos).
# shellcheck disable=SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
sized() { # FILE NAME=VALUE..: with these numbers
    file=$1; shift
    for pair; do grep -q "\"${pair%%=*}\": [0-9]" "$file"; sed -i "s/\"${pair%%=*}\": [0-9]*/\"${pair%%=*}\": ${pair#*=}/" "$file"; done
}
cp -r "$top/examples/presets/cogvideox-2b" configs
chmod -R u+w configs
sized configs/transformer/config.json num_layers=3 num_attention_heads=2 attention_head_dim=32 text_embed_dim=64 time_embed_dim=64 \
    max_text_seq_length=32 sample_frames=17 sample_height=8 sample_width=12
sized configs/text_encoder/config.json d_model=64 d_ff=128 d_kv=16 num_heads=4 num_layers=2 vocab_size=1024
sized configs/vae/config.json layers_per_block=1 norm_num_groups=8 sample_height=64 sample_width=96
sed -i 's/\<128,/16,/; s/\<256,/32,/; s/\<512$/48/' configs/vae/config.json

ok "the published sizes: parameters and the adapter of rank 16" '
    [ -z "${SAN:-}" ] || { echo "a sanitizer wants all the address space"; exit 77; }
    train-step --dry-run -m random:cogvideox-2b --device cpu >said
    grep "^model  *1693783872 parameters" said; grep "^adapter .* 120 modules, 7372800 trainable parameters" said
    train-step --dry-run -m random:cogvideox-2b --adapter transformer --device cpu | grep " 7464960 trainable"
    train-step --dry-run -m random:cogvideox-2b --adapter gdn_cssm:k=5 --device cpu | grep " 8383920 trainable"'
ok "a folder: sound, encoded, trained, and sampled with the adapter" '
    model-init --shard-bytes 100000 ./configs model 2>err; show --check -m model; [ -e model/transformer/diffusion_pytorch_model.safetensors.index.json ]
    echo "{\"path\":\"$top/examples/clips/roll.mp4\",\"caption\":\"a ball rolls\"}" | decode --frames 9 --size 96x64 |
        vae-encode -m model --device cpu | t5-encode -m model --device cpu >clip.mp
    pack -o store <clip.mp 2>err
    draw --count 3 store | train-step -m model --device cpu --max-steps 3 --warmup 1 --objective v --lr 1e-2 --state run >steps; grep -c loss steps | grep -x 3
    for a in "" "-a run/last.safetensors"; do
        echo "{\"key\":\"a\",\"prompt\":\"a ball\"}" | t5-encode -m model --device cpu | sample -m model --device cpu --frames 9 --size 96x64 --steps 4 $a >video.mp
        vae-decode -m model --device cpu <video.mp | show --stats | grep "video .*U8" >>videos
    done
    [ "$(wc -l <videos)" = 2 ]; [ "$(sort -u videos | wc -l)" = 2 ]'
ok "its own numbers: the scale of latents, and no rotation of positions" '
    scale() { sed -i "s/\"scaling_factor\": [0-9.]*/\"scaling_factor\": $1/" model/vae/config.json; }
    frames() { echo "{\"path\":\"$top/examples/clips/roll.mp4\",\"caption\":\"a\"}" | decode --frames 5 --size 64x64 | vae-encode -m model --device cpu "$@"; }
    largest() { show --jsonl --stats | sed "s/.*\"max\":\([-0-9.e]*\).*/\1/"; }
    frames | largest >two; scale 0.7; frames | largest >five; scale 1.15258426
    paste two five | awk "{ r = \$1 / \$2 * 0.7 / 1.15258426; print r; exit !(r > 0.98 && r < 1.02) }" # BF16
    echo "{\"key\":\"a\",\"prompt\":\"a ball\"}" | t5-encode -m model --device cpu >p.mp
    sample -m model --device cpu --frames 9 --size 96x64 --steps 2 <p.mp >sums.mp
    sed -i "s/\"use_rotary_positional_embeddings\": false/\"use_rotary_positional_embeddings\": true/" model/transformer/config.json
    sample -m model --device cpu --frames 9 --size 96x64 --steps 2 <p.mp >turns.mp; fails 1 tensor-eq sums.mp turns.mp'
finish
