#!/bin/sh
# model-convert: what torch.save() wrote comes out as safetensors, value for value; what is no plain tensor does not. Adapters come out in
# other tools' forms.
# shellcheck disable=SC2016,SC2154 # ok evaluates its text; lib.sh sets $tests
. "${0%/*}/lib.sh"
data=$tests/data/torch

values() { show --jsonl --stats "$@" | sort; }

ok 'a folder of two shards comes out as two, with an index, its other files beside them' '
    model-convert "$data/sharded" out 2>err
    ls out >got
    printf "%s\n" config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json | diff - got
    values out/*.safetensors >got; values "$data/sharded.safetensors" | diff - got
    cmp out/config.json "$data/sharded/config.json"
    grep -q "model-convert: out/model-00002-of-00002.safetensors: 3 tensors, 72 bytes" err'
ok 'the index names the new files, and the loader agrees with it' '
    model-convert "$data/sharded" out2 2>err
    sed "s/pytorch_model-/model-/; s/\.bin\"/.safetensors\"/" "$data/sharded/pytorch_model.bin.index.json" >want
    need python3
    python3 -c "import json; a, b = [json.load(open(n)) for n in (\"want\", \"out2/model.safetensors.index.json\")]; assert a == b, (a, b)"'
ok 'a folder with one file comes out with one, whatever it is called' '
    for name in pytorch_model diffusion_pytorch_model; do
        mkdir $name; cp "$data/views.bin" $name/$name.bin; echo text >$name/README.md; echo x >$name/optimizer.pt; mkdir $name/part
        model-convert $name out-$name
        values out-$name/*model.safetensors >got; values "$data/views.safetensors" | diff - got
    done
    ls out-pytorch_model out-diffusion_pytorch_model >got
    printf "%s\n" out-diffusion_pytorch_model: README.md diffusion_pytorch_model.safetensors "" out-pytorch_model: README.md model.safetensors | diff - got'
ok 'one file by itself' '
    for name in dtypes shapes views module empty many; do
        model-convert "$data/$name.bin" $name.safetensors
        values $name.safetensors >got; values "$data/$name.safetensors" | diff - got
        show --check $name.safetensors
    done
    model-convert "$data/views.bin" "$PWD/again.safetensors"
    cmp views.safetensors again.safetensors'

ok 'what is more than plain tensors is refused by its name, and not executed' '
    for name in print parameter nested epoch loss list bool complex expanded protocol4 before_1.6 sparse; do
        fails 1 model-convert "$data/$name.pt" bad.safetensors >said
        [ ! -s said ]; [ ! -e bad.safetensors ]; [ "$(wc -l <err)" = 1 ]
        grep -q "^model-convert: .*/$name.pt: " err
    done
    fails 1 model-convert "$data/print.pt" bad.safetensors; grep -q "asks for __builtin__.print" err'
ok 'a file that was cut anywhere leaves nothing' '
    size=$(wc -c <"$data/module.bin")
    for cut in 0 1 4 100 1000 $((size - 100)) $((size - 1)); do
        head -c $cut "$data/module.bin" >cut.bin
        fails 1 model-convert cut.bin cut.safetensors; [ ! -e cut.safetensors ]; [ "$(wc -l <err)" = 1 ]
    done'
ok 'a changed number is noticed, and the file that would hold it does not appear' '
    at=$(grep -abo "module/data/0" "$data/module.bin" | head -n 1 | cut -d: -f1)
    at=$(((at + 17 + 63) / 64 * 64)) # storages are aligned
    { head -c $at "$data/module.bin"; printf "\001"; tail -c +$((at + 2)) "$data/module.bin"; } >changed.bin
    [ "$(wc -c <changed.bin)" = "$(wc -c <"$data/module.bin")" ]
    fails 1 model-convert changed.bin changed.safetensors
    grep -q "changed.bin: tensor 0.weight: its bytes do not match their checksum" err
    [ ! -e changed.safetensors ]; [ -z "$(find . -name ".tmp*")" ]'

# edited WORDS: the sharded folder with its index put through sed; must be refused, without a new index.
edited() {
    rm -rf edited edited-out
    cp -r "$data/sharded" edited
    sed "$1" "$data/sharded/pytorch_model.bin.index.json" >edited/pytorch_model.bin.index.json
    fails 1 model-convert edited edited-out
    [ ! -e edited-out/model.safetensors.index.json ]
}
ok 'index and shards must agree' '
    edited "/embed/d"; grep -q "tensor embed is in no file by the index" err
    edited "/embed/s/00001/00002/"; grep -q "tensor embed is in pytorch_model-00002-of-00002.bin by the index" err
    edited "s/\"embed\"/\"extra\": \"pytorch_model-00001-of-00002.bin\", &/"; grep -q "6 tensors, but its files hold 5" err
    edited "s/00001-of-00002.bin/00007-of-00002.bin/"; grep -q "pytorch_model-00007-of-00002.bin: No such file" err
    edited "/embed/s,pytorch,../pytorch,"; grep -q "tensor embed: \"../pytorch_model-00001-of-00002.bin\" is no .bin file of this folder" err
    edited "/embed/s,\.bin,.exe,"; grep -q "is no .bin file" err
    edited "s/weight_map/map/"; grep -q "no weight_map" err
    edited "s/}//"; grep -q "pytorch_model.bin.index.json: line" err'
ok 'folders that leave a question are refused' '
    fails 1 model-convert "$data/sharded" out; grep -q "out: not empty" err
    mkdir both; cp "$data/views.bin" both/pytorch_model.bin; cp "$data/views.bin" both/diffusion_pytorch_model.bin
    fails 1 model-convert both out-both; grep -q "only one of them can hold the weights" err; [ ! -e out-both ]
    cp -r "$data/sharded" linked; ln -s gone linked/tokenizer.json; ln -s gone linked/other.bin
    fails 1 model-convert linked out-linked; grep -q "linked/tokenizer.json: a link to what is not there" err; [ ! -e out-linked ]
    mkdir neither; fails 1 model-convert neither out-neither; grep -q "neither: neither pytorch_model.bin nor" err; [ ! -e out-neither ]
    fails 1 model-convert nowhere out-nowhere; grep -q "nowhere: No such file" err
    fails 1 model-convert "$data/views.bin" neither; grep -q "not a regular file" err'
ok 'a grader of pickles says what to do, and after that is none' '
    model-init owl-tiny grader; mkdir pickled; cp grader/config.json grader/tokenizer.model pickled; cp "$data/views.bin" pickled/pytorch_model.bin
    fails 1 show -m pickled; grep -q "pytorch_model.bin), which are never executed here: model-convert makes safetensors of them" err
    model-convert pickled converted; fails 1 show -m converted >said; fails 1 grep pickle err'

# A LoRA whose alpha is not its rank, trained for two steps at a rate that nobody can overlook.
M=random:wan-tiny
tensor-gen --name latents --shape 2,16,4,8 --count 3 --key clip | tensor-gen --add --name prompt_embeds --shape 9,64 >clips.mp
tensor-gen --name prompt_embeds --shape 9,64 | tensor-gen --add --name negative_embeds --shape 3,64 >embeds.mp
trained() { train-step -m "$M" --device cpu --lr 0.05 --warmup 0 --max-steps 3 "$@" <clips.mp >/dev/null 2>&1; }
trained --adapter standard:rank=4,alpha=12 --state run
lora=$PWD/run/last.safetensors
made_with() { sample -m "$M" --device cpu --dtype f32 --frames 5 --size 64x32 --steps 3 -a "$1" <embeds.mp; }
ok 'an adapter in each form makes the same video, and comes back as the same file' '
    made_with "$lora" >want.mp
    for form in peft comfyui kohya; do
        model-convert --to $form "$lora" $form.safetensors 2>said; grep -q "^model-convert: $form.safetensors: 16 modules of rank 4, alpha" said
        made_with $form.safetensors >got.mp
        [ $form = comfyui ] || tensor-eq want.mp got.mp
        tensor-eq --rel 1e-5 --quiet want.mp got.mp
        show --check $form.safetensors
        model-convert --to peft -m $M $form.safetensors back-$form.safetensors
        model-convert --to peft $form.safetensors by-names.safetensors; cmp by-names.safetensors back-$form.safetensors
    done
    cmp "$lora" back-peft.safetensors; cmp "$lora" back-kohya.safetensors
    [ "$(show comfyui.safetensors | grep -c "^diffusion_model.blocks.[0-3].self_attn.[qkvo].lora_[AB].weight")" = 32 ]
    show --jsonl kohya.safetensors | grep -c "\"lora_unet_blocks_[0-3]_self_attn_[qkvo].alpha\"" | grep -x 16
    show kohya.safetensors | grep -x "ss_network_alpha = 12"'
ok 'an adapter_config.json that cannot be read is not one that is not there' '
    mkdir saved; model-convert --to peft "$lora" saved/adapter_model.safetensors; ln -s adapter_config.json saved/adapter_config.json
    fails 1 made_with saved >got.mp; grep -q "^sample: saved/adapter_config.json: " err
    rm saved/adapter_config.json; ln -sf adapter_model.safetensors saved/adapter_model.safetensors; cp "$lora" saved/pytorch_lora_weights.safetensors
    fails 1 made_with saved >got.mp; grep -q "^sample: saved/adapter_model.safetensors: " err'
ok 'training goes on from each of them to the same adapter' '
    for form in peft comfyui kohya; do
        model-convert --to $form "$lora" $form.safetensors
        trained --init $form.safetensors --state from-$form
        [ $form = comfyui ] || values from-$form/last.safetensors >$form
    done
    diff peft kohya; show from-comfyui/last.safetensors | grep "^sluice = {\"alpha\":4,"'
ok '--for diffusers adds what the adapter leaves out, which changes nothing and needs the model' '
    fails 1 model-convert --to kohya --for diffusers "$lora" whole.safetensors; grep "blocks.0.attn2.to_q, which the adapter leaves out, is the model" err
    [ ! -e whole.safetensors ]
    model-convert --to kohya --for diffusers -m $M "$lora" whole.safetensors 2>said; grep "40 modules of rank 4, alpha 12, 24 of them zeros for diffusers" said
    made_with "$lora" >want.mp; made_with whole.safetensors | tensor-eq - want.mp'
ok 'dtype, and what a header says beside rank and alpha, stay' '
    need python3
    cat >two.py <<"E2"
import json, struct, sys
names = ["lora_unet_blocks_%d_self_attn_%s.%s" % (b, o, p) for b in range(4) for o in "qkvo" for p in ("lora_down.weight", "lora_up.weight", "alpha")]
header, at, data = {"__metadata__": {"ss_tag": "a tag", "sshs_model_hash": "00", "ss_network_dim": "2"}}, 0, b""
for n in names:
    shape = [] if n.endswith("alpha") else [2, 128] if "down" in n else [128, 2]
    bytes = b"\x80\x3f" * (1 if not shape else 256)
    header[n] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(bytes)]}
    at, data = at + len(bytes), data + bytes
text = json.dumps(header).encode()
open("theirs.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
E2
    python3 two.py
    model-convert --to comfyui -m $M theirs.safetensors ours.safetensors 2>said
    grep "its alpha was 1, so the second matrices are 0.5 times what they were" said
    show ours.safetensors | grep -x "ss_tag = a tag"; fails 1 grep -q "hash\|network_dim" ours.safetensors
    show --jsonl --stats ours.safetensors | grep -c "lora_B.*BF16.*0\.5" | grep -x 16
    model-convert --to peft theirs.safetensors ours.safetensors; show ours.safetensors | grep "^lora_adapter_metadata = .*lora_alpha\":1,.*r\":2,"'
ok 'another kind than plain LoRA, another model, what is no adapter: refused by name, and nothing is written' '
    trained --adapter transformer:rank=4 --state other
    fails 1 model-convert --to kohya other/last.safetensors none; grep "adapter transformer is no plain LoRA" err
    fails 1 model-convert --to kohya -m random:tiny "$lora" none; grep "tensor transformer.blocks.0.attn1.to_q.lora_A.weight names no linear layer" err
    fails 1 model-convert --to kohya -m random:wan-1.3b "$lora" none; grep "made for 4 layers of width 128, the model has 30 of 1536" err
    fails 1 model-convert --to comfyui "$data/sharded.safetensors" none; grep "names no linear layer" err
    fails 1 model-convert --to peft nowhere none; grep "nowhere: No such file" err
    fails 1 sample -m $M -a "$data/sharded.safetensors" --steps 1 <embeds.mp >said; grep "names no linear layer" err
    [ ! -e none ]; [ -z "$(find . -name ".tmp*")" ]'
ok 'an adapter of CogVideoX: PEFT and VideoX-Fun, not ComfyUI' '
    tensor-gen --name latents --shape 2,16,4,8 | tensor-gen --add --name prompt_embeds --shape 32,64 |
        train-step -m random:tiny --device cpu --objective v --lr 0.05 --warmup 0 --max-steps 1 --state cog >/dev/null 2>&1
    model-convert --to kohya cog/last.safetensors fun.safetensors; show fun.safetensors | grep "^lora_unet__transformer_blocks_0_attn1_to_q.lora_down.weight"
    model-convert --to peft fun.safetensors back.safetensors; cmp back.safetensors cog/last.safetensors
    fails 1 model-convert --to comfyui cog/last.safetensors none; grep "comfyui has no form for adapters of this network" err
    fails 1 model-convert --to kohya --for diffusers -m random:tiny cog/last.safetensors none; grep "diffusers reads no kohya form" err
    [ ! -e none ]'
ok 'diffusers loads each form and answers the same' '
    py=${REFERENCE_PYTHON:-python3}
    need "$py"
    "$py" -c "import torch, diffusers, peft" 2>/dev/null || { echo "no Python packages for the reference"; exit 77; }
    model-init wan-tiny wan 2>/dev/null
    for form in "peft" "comfyui" "kohya --for diffusers -m wan"; do
        # shellcheck disable=SC2086
        model-convert --to $form "$lora" form.safetensors
        "$BUILD/tests/train" case wan form.safetensors case.safetensors
        "$py" "$tests/reference/check_lora.py" wan form.safetensors case.safetensors 1e-5
    done'
ok 'wrong usage is 2' 'fails 2 model-convert; fails 2 model-convert a; fails 2 model-convert a b c; fails 2 model-convert --fast a b
    fails 2 model-convert --to gguf a b; fails 2 model-convert -m random:tiny a b; grep "model is for --to" err
    fails 2 model-convert --to peft --for diffusers a b; grep "for is for --to kohya" err; fails 2 model-convert --for diffusers a b'
ok 'help and version' 'model-convert --help | grep -q "usage: model-convert"; model-convert --version | grep -q "^model-convert (sluice)"'
finish
