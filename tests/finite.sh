#!/bin/sh
# What a network makes is finite, or the record fails: no NaN goes on as latents, as black pixels or as a score.
# shellcheck disable=SC1091,SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"
export OMP_NUM_THREADS=1
where='--device cpu --threads 1'

# huge FILE: every weight of a BF16 file becomes the largest that there is.
huge() { perl -e 'open F, "+<", shift or die; read F, $n, 8; seek F, 8 + unpack("Q<", $n), 0; print F "\x7f\x7f" x ((-s F) / 2 - 4 - unpack("Q<", $n) / 2)' "$1"; }
# two KIND ARGUMENTS: a record of the tensor with infinities, and a good one.
two() { tensor-gen "$@" --key bad --scale 1e38; tensor-gen "$@" --key good; }

ok 'sample: embeddings that are not finite' '
    two --name prompt_embeds --dtype f16 --shape 32,64 >embeds
    fails 1 sample -m random:tiny $where --steps 1 --frames 1 --size 32x32 <embeds >out
    grep -x "sample: bad: the latents: values that are not finite.*" err
    show --jsonl out >lines; [ "$(wc -l <lines)" = 1 ]; grep "\"key\":\"good\"" lines'
ok 'vae-decode: latents whose frames are past what the type holds' '
    two --name latents --shape 1,16,4,4 >latents
    for how in "" --tiling; do
        fails 1 vae-decode -m random:tiny $where $how <latents >out
        grep -x "vae-decode: bad: the decoder.s frames: values that are not finite.*" err
        show --jsonl out >lines; [ "$(wc -l <lines)" = 1 ]; grep "\"key\":\"good\"" lines
    done'
ok 't5-encode: weights with which values overflow' '
    model-init tiny model; huge model/text_encoder/model.safetensors
    echo "{\"key\":\"a\",\"prompt\":\"a ball\"}" | fails 1 t5-encode -m model $where >out
    grep -x "t5-encode: a: the text encoder.s output: values that are not finite.*" err'
ok 'sample: weights with which values overflow' '
    huge model/transformer/diffusion_pytorch_model.safetensors
    tensor-gen --name prompt_embeds --shape 32,64 | fails 1 sample -m model $where --guidance 1 --steps 1 --frames 1 --size 32x32 >out
    grep -x "sample: gen: the latents: values that are not finite.*" err'
ok 'grade: weights with which values overflow' '
    model-init owl-tiny grader; huge grader/model.safetensors
    tensor-gen --name video --dtype u8 --fill ramp --shape 2,56,56,3 --meta caption=ball |
        fails 1 grade -m grader $where --frames 2 --max-new-tokens 2 >out
    grep -x "grade: gen: the logit of id [0-9]* is -\{0,1\}[a-z]*.*" err; [ ! -s out ]'
ok 'train-step: nothing is updated' '
    tensor-gen --name latents --dtype f16 --shape 1,16,4,4 --scale 1e38 | tensor-gen --add --name prompt_embeds --shape 32,64 |
        fails 1 train-step -m random:tiny $where --state run >out
    grep "train-step: step 1, position 0: gen: loss or gradient is not finite; nothing was updated" err'
finish
