#!/bin/sh
# show: streams, files, stores and models as text, as JSON lines, and checked.
# shellcheck disable=SC2016,SC2154 # the checks are eval'ed; lib.sh sets what they use
. "${0%/*}/lib.sh"

tensor-gen --name x --shape 2,3 --dtype bf16 --count 2 --key clip --meta 'caption=a "cat"' --meta fps=8 >s
printf '{"key":"a","n":[1,2]}\n{bad\n{"path":"b"}\n' >lines
model-init tiny model
vae=model/vae/diffusion_pytorch_model.safetensors

ok 'a stream: its begin, its records, its end' '
    show s >said
    cat >expected <<END
begin  tensor-gen 0.1.0 {"name":"x","shape":"2,3","dtype":"bf16","fill":"normal","scale":1.0,"seed":42}
0      clip0
       x                BF16 [2,3]
       caption          "a \"cat\""
       fps              8
1      clip1
       x                BF16 [2,3]
       caption          "a \"cat\""
       fps              8
end    2 records, 0 failed
END
    diff expected said
    show <s | diff expected -'
ok 'JSON lines, which are records again' '
    show --jsonl s >said
    [ $(wc -l <said) = 2 ]
    grep -F "{\"key\":\"clip0\",\"caption\":\"a \\\"cat\\\"\",\"fps\":8,\"tensors\":{\"x\":{\"dtype\":\"BF16\",\"shape\":[2,3]}}}" said
    show said | grep "^1  *clip1$"'
ok '--stats tells the values' '
    tensor-gen --name v --shape 3 --fill ramp >ramp
    show --stats ramp | grep "v  *F32 \[3\]  min 0 max 1 mean 0.5"
    show --stats --jsonl ramp | grep -F "{\"dtype\":\"F32\",\"shape\":[3],\"min\":0.0,\"max\":1.0,\"mean\":0.5}"
    tensor-gen --name v --shape 0 | show --stats | grep "v  *F32 \[0\]$"'
ok 'JSON lines as input; bad ones are told and the others shown' '
    fails 1 show lines >said
    grep "^0  *a$" said
    grep "^1  *b$" said
    grep "^show: lines: line 2: " err'
ok 'several files; one that is not there is named, the others shown' '
    fails 1 show s missing s >said
    [ $(grep -c "^end" said) = 2 ]
    grep "^show: missing: No such file" err'
ok 'control characters of a stream reach no terminal' '
    esc=$(printf "\033[31m")
    tensor-gen --name "x$esc" --key "k$esc" --shape 1 --meta "m$esc=1" | show >said
    if grep -F "$esc" said; then exit 1; fi
    grep "^0  *k?\[31m" said
    tensor-gen --name x --key "k$esc" --shape 1000 | head -c 1000 >cut
    fails 1 show cut >said
    grep "tensor .x. of k?\[31m" err
    if grep -F "$esc" err said; then exit 1; fi'
ok 'nor do the controls from U+0080 on, or what turns the order of text; other letters do' '
    need script
    csi=$(printf "\302\233") turn=$(printf "\342\200\256") isolate=$(printf "\342\201\246") stray=$(printf "\233")
    echo "{\"key\":\"a${csi}31m${turn}é${isolate}東\",\"caption\":\"${csi}2J${turn}\"}" >turned
    show turned >said; grep "^0  *a?31m?é?東$" said; grep "caption  *\"?2J?\"" said
    fails 1 encode-mp4 -o . <turned; grep "^encode-mp4: a?31m?é?東: has no tensor" err
    fails 1 show "x$stray$csi"; grep "^show: x??: No such file" err
    script -qec "show --jsonl turned; encode-mp4 --log-json -o . <turned" /dev/null </dev/null >typed || [ $? = 1 ]
    grep "\"key\":\"a?31m?é?東\"" typed; grep "u009[Bb]31m" typed
    if grep -F -e "$csi" -e "$turn" -e "$isolate" said err typed; then exit 1; fi
    show --jsonl turned | grep -F "$csi" # for programs nothing is changed'
ok 'a safetensors file: metadata, every tensor, a count' '
    show $vae >said
    grep "^format = pt$" said
    grep "^decoder.conv_in.conv.bias  *F32 \[[0-9]*\]$" said
    show $vae --jsonl | head -n 1 | grep "^{\"name\":\".*\",\"dtype\":\"F32\",\"shape\":\["
    [ $(show --jsonl $vae | wc -l) = $(tail -n 1 said | cut -d" " -f1) ]
    show --stats $vae | grep "norm1.*weight.*  min .* max .* mean "'
ok 'a file that is no such thing is told' '
    head -c 100 $vae >cut.safetensors
    fails 1 show cut.safetensors
    grep "^show: cut.safetensors: " err
    printf "hello, world" >hello
    fails 1 show hello
    grep "^show: hello: .*it starts with .hello, world.$" err
    printf "\033hello" >hello
    fails 1 show hello
    grep "^show: hello: .*not a record header" err
    : >empty
    fails 1 show empty
    grep "^show: empty: .*empty input" err'
ok 'a store: its records by position' '
    pack -o store <s 2>/dev/null
    show store >said
    [ $(grep -c "^[01]  *clip[01]$" said) = 2 ]
    show --jsonl store | cut -c1-14 | tr "\n" " " | grep -F "{\"key\":\"clip0\" {\"key\":\"clip1\""
    mkdir empty.d
    fails 1 show empty.d
    grep "^show: empty.d: no store" err'
ok '--check finds what is wrong and prints nothing else' '
    show --check s $vae store >said 2>err
    [ ! -s said ]
    grep "^show: sound$" err
    head -c 400 s >cut
    fails 1 show --check s cut >said
    [ ! -s said ]
    grep "^show: cut: .*truncated" err
    if grep sound err; then exit 1; fi
    shard=$(find store -name "*.mp" -o -name "shard*" -type f | head -n 1)
    size=$(wc -c <"$shard")
    printf "\125" | dd of="$shard" bs=1 seek=$((size - 60)) conv=notrunc 2>/dev/null
    fails 1 show --check store >said
    [ ! -s said ]'
ok '--check of JSON lines' '
    fails 1 show --check lines >said
    [ ! -s said ]
    grep "line 2" err'
ok 'a model: the tensors of its parts, by their names and shapes in the files' '
    show -m model >said
    grep "^transformer/patch_embed.proj.weight  *BF16 \[128,16,2,2\]$" said
    grep "^vae/decoder.conv_in.conv.weight  *F32 " said
    grep "^text_encoder: [0-9]* tensors, [0-9]* parameters$" said
    show -m random:tiny | grep : >random
    grep : said | diff - random
    show -m model --jsonl | head -n 1 | grep "{\"name\":\"transformer/.*\"dtype\":\"BF16\",\"shape\":\["
    show -m model --check 2>err >said
    [ ! -s said ]
    grep sound err'
ok 'the published sizes, counted without allocating them' '
    [ -z "${SAN:-}" ] || { echo "a sanitizer wants all the address space"; exit 77; }
    ulimit -v 400000
    show -m random:cogvideox-5b | grep : >said
    cat >expected <<END
transformer: 1024 tensors, 5570283072 parameters
vae: 436 tensors, 215583907 parameters
text_encoder: 219 tensors, 4762310656 parameters
END
    diff expected said
    show -m random:cogvideox-2b | grep "^transformer: 736 tensors, 1693783872 parameters$"
    show -m random:owl-7b | grep "^owl: 917 tensors, 7152633856 parameters$"
    [ "$(show -m random:owl-7b | wc -l)" = 918 ]
    show -m random:owl-7b --jsonl | grep "\"name\":\"query_tokens\".*\[1,64,1024\]"'
ok 'wrong usage' '
    fails 2 show -m model s
    fails 2 show -m model --stats
    for options in "--check --jsonl s" "--check --stats s" "-m model --geometry --jsonl" "-m model --geometry --check" "--joules 0 --stats"; do
        fails 2 show $options; grep "^show: --" err
    done
    fails 1 show -m random:huge
    grep "huge" err
    fails 1 show -m nowhere
    grep "nowhere" err'
ok 'a pipe in the place of an index or a shard is refused, not waited for' '
    tensor-gen --name x --shape 2 --count 3 | pack -o whole
    for file in index.jsonl 000000.mp; do
        rm -rf piped; cp -r whole piped; rm piped/$file; mkfifo piped/$file
        for program in "show" "show --check" "draw --count 1"; do fails 1 timeout 20 $program piped >out; done
    done
    rm -rf piped; cp -r whole piped; rm piped/index.jsonl; mkfifo piped/index.jsonl
    fails 1 timeout 20 pack -o piped <s; grep "piped/index.jsonl: not a regular file" err'
ok 'a full disk is noticed, however much there is to show' '
    fails 1 show s >/dev/full
    fails 1 show -m random:cogvideox-5b >/dev/full
    grep "^show: stdout: No space left" err'
finish
