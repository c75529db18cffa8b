#!/bin/sh
# sample --merge: adapters folded into the weights give what adapters beside them give, within rounding.
. "${0%/*}/lib.sh"
M=random:tiny

tensor-gen --name latents --shape 2,16,4,8 --count 3 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 >clips.mp
tensor-gen --name prompt_embeds --shape 32,64 --count 2 --key prompt >prompts.mp
# adapter NAME OPTIONS...: two steps of a rate so high that nobody can overlook the adapter
adapter() {
    name=$1; shift
    train-step -m "$M" --device cpu --objective v --lr 0.05 --warmup 0 --max-steps 3 --state "$name" "$@" <clips.mp >/dev/null 2>&1
    mv "$name/last.safetensors" "$name.safetensors"
}
adapter x --adapter standard:rank=4,alpha=8
adapter y --adapter standard:rank=2 --targets to_v,to_out.0 --seed 7
make_latents() { sample -m "$M" --device cpu --dtype f32 --frames 5 --size 64x32 --steps 4 "$@" <prompts.mp; }
near() { tensor-eq --rel 1e-5 --quiet "$1" "$2"; }
make_latents >base.mp
make_latents -a x.safetensors >x.mp
make_latents -a x.safetensors:0.7 -a y.safetensors >both.mp

ok "one adapter, merged" '
    fails 1 tensor-eq --rel 0.05 base.mp x.mp
    make_latents --merge -a x.safetensors >merged.mp
    near merged.mp x.mp
    fails 1 tensor-eq merged.mp x.mp # it was another computation'
ok "several with weights, merged, in any order" '
    fails 1 tensor-eq --rel 0.01 x.mp both.mp
    make_latents --merge -a x.safetensors:0.7 -a y.safetensors >merged.mp
    near merged.mp both.mp
    make_latents --merge -a y.safetensors -a x.safetensors:0.7 >merged.mp
    near merged.mp both.mp
    make_latents -a y.safetensors -a x.safetensors:0.7 >turned.mp
    near turned.mp both.mp'
ok "two halves are a whole, and what is added and taken away leaves the model alone" '
    for merge in "" --merge; do
        make_latents $merge -a x.safetensors:0.5 -a x.safetensors:0.5 >halves.mp
        near halves.mp x.mp
        make_latents $merge -a x.safetensors:1.5 -a x.safetensors:-1.5 >none.mp
        near none.mp base.mp
        make_latents $merge -a x.safetensors:0 >none.mp
        tensor-eq none.mp base.mp
    done'
ok "records are told of it" '
    make_latents --merge -a x.safetensors | show --jsonl | head -n 2 | grep "\"merge\":true"'
ok "a kind that is no matrix is refused by its name" '
    for kind in transformer gdn_cssm; do
        adapter $kind --adapter $kind:rank=4
        fails 1 make_latents --merge -a x.safetensors -a $kind.safetensors
        grep "merge: adapter $kind is no matrix" err
        make_latents -a $kind.safetensors >other.mp
        fails 1 tensor-eq base.mp other.mp
    done'
ok "nothing to merge is wrong usage" 'fails 2 make_latents --merge'
finish
