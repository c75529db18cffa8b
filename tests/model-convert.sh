#!/bin/sh
# model-convert: what torch.save() wrote comes out as safetensors, value for value; what is no plain tensor does not.
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
    mkdir neither; fails 1 model-convert neither out-neither; grep -q "neither: neither pytorch_model.bin nor" err; [ ! -e out-neither ]
    fails 1 model-convert nowhere out-nowhere; grep -q "nowhere: No such file" err
    fails 1 model-convert "$data/views.bin" neither; grep -q "not a regular file" err'
ok 'a grader of pickles says what to do, and after that is none' '
    model-init owl-tiny grader; mkdir pickled; cp grader/config.json grader/tokenizer.model pickled; cp "$data/views.bin" pickled/pytorch_model.bin
    fails 1 show -m pickled; grep -q "pytorch_model.bin), which are never executed here: model-convert makes safetensors of them" err
    model-convert pickled converted; fails 1 show -m converted >said; fails 1 grep pickle err'
ok 'wrong usage is 2' 'fails 2 model-convert; fails 2 model-convert a; fails 2 model-convert a b c; fails 2 model-convert --fast a b'
ok 'help and version' 'model-convert --help | grep -q "usage: model-convert"; model-convert --version | grep -q "^model-convert (sluice)"'
finish
