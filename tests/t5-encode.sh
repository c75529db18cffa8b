#!/bin/sh
# t5-encode: which text is read, its length, what passes through, and records without text. The numbers themselves are
# held to transformers' in t5.c, the ids to sentencepiece's in tokenizer.c.
# shellcheck disable=SC1091,SC2094,SC2154 # lib.sh sets $tests and $top; a function writes its own file only
. "${0%/*}/lib.sh"

t5='-m random:tiny --device cpu'
line() { # KEY FIELD TEXT
    printf '{"key":"%s","%s":"%s"}\n' "$1" "$2" "$3"
}
config() { # FIELD: of the tiny transformer
    sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$top/examples/presets/tiny/transformer/config.json"
}

# shellcheck disable=SC2094 # the field is called as the file is
line k prompt 'a red kettle boils on the stove' >prompt
ok 'embeddings have the length and width that the transformer reads' "
    t5-encode $t5 <prompt >out
    tensor-gen --name prompt_embeds --shape \$(config max_text_seq_length),\$(config text_embed_dim) --key k >want
    tensor-eq --quiet --abs 1e30 out want"

ok 'output is BF16, F32 on demand, and the one is the other rounded' "
    t5-encode $t5 <prompt >bf16
    t5-encode $t5 --dtype f32 <prompt >f32
    tensor-eq --rel 4e-3 bf16 f32
    fails 1 tensor-eq bf16 f32"

ok 'the prompt is read, failing that the caption' "
    line k caption 'a red kettle boils on the stove' >caption
    line k prompt 'a blue kettle' | sed 's/}/,\"caption\":\"a red kettle boils on the stove\"}/' >both
    line k prompt 'a blue kettle' >blue
    line k caption 'a red kettle boils on the stove' | sed 's/}/,\"prompt\":null}/' >null
    for f in prompt caption both blue null; do t5-encode $t5 <\$f >\$f.out; done
    tensor-eq prompt.out caption.out
    tensor-eq both.out blue.out
    tensor-eq null.out caption.out
    fails 1 tensor-eq --rel 0.01 both.out prompt.out"

ok 'the empty text is a text' "
    line k prompt '' >empty
    t5-encode $t5 <empty >out
    t5-encode $t5 <prompt >other
    fails 1 tensor-eq --rel 0.01 out other"

ok 'a text that is too long is cut, and that is told' "
    words=\$(for i in \$(seq 300); do printf 'kettle '; done)
    line k prompt \"\$words\" >long
    line k prompt \"\$words and a pot\" >longer
    t5-encode $t5 <long >a 2>err
    grep 'k: .*tokens cut to' err
    t5-encode $t5 <longer >b
    tensor-eq a b"

ok 'a stream that is damaged in the middle of a batch: all texts before come' "
    tensor-gen --name x --shape 3 --count 5 --key p --meta prompt=kettle >five
    head -c -100 five >torn
    for n in 1 3 32; do fails 1 t5-encode $t5 --batch \$n <torn >torn\$n; grep -q 'truncated' err; show --jsonl torn\$n >torn.\$n 2>/dev/null || :; done
    [ \"\$(grep -c prompt_embeds torn.1)\" = 4 ]
    cmp torn.1 torn.3
    cmp torn.1 torn.32"

ok 'a line that is no record, in the middle of a batch' "
    { line a prompt one; line b prompt two; echo '{}'; line c prompt three; line d prompt four; } >lines
    for n in 1 3 32; do fails 1 t5-encode $t5 --batch \$n <lines >lines\$n; grep -q 'line 3' err; done
    cmp lines1 lines3
    cmp lines1 lines32"

ok 'threads, order and repetition change no bit' "
    line other caption 'a pot' >other
    cat other prompt >all
    t5-encode $t5 --threads 2 <all >a
    t5-encode $t5 --threads 1 <prompt >b
    t5-encode $t5 --threads 1 <other >>b
    tensor-eq --by-key a b"

ok 'nor does how many are encoded at once, with records that fail among them' "
    for i in \$(seq 11); do
        line k\$i prompt \"\$i pots\"
        [ \$((i % 4)) != 0 ] || line bad\$i path x.mp4
    done >many
    for n in 1 3 8; do fails 1 t5-encode $t5 --batch \$n <many >many\$n; grep -c 'neither' err; done >counts
    [ \"\$(sort -u counts)\" = 2 ]
    cmp many1 many3
    cmp many1 many8
    fails 2 t5-encode $t5 --batch 65 <many"

ok 'records keep their tensors and meta; encoding again changes nothing' "
    tensor-gen --name latents --shape 2,16,4,6 --key k --meta caption='a pot' --meta fps=8 >in
    t5-encode $t5 <in >a
    tensor-eq --name latents in a
    t5-encode $t5 <a >b
    cmp a b
    show --jsonl a >text
    grep -q '\"fps\": *8' text
    grep -q '\"text_encoder\": *\"[0-9a-f]\{16\}\"' text"

ok 'records without text are named; the others are encoded' "
    { line none path a.mp4; printf '{\"key\":\"number\",\"prompt\":5}\n'; cat prompt; } >all
    fails 1 t5-encode $t5 <all >out
    grep 'none: .*caption' err
    grep 'number: .*prompt' err
    t5-encode $t5 <prompt >alone
    tensor-eq out alone"

# ---- UMT5, which Wan has ------------------------------------------------------------------------------------------------
wan='-m random:wan-tiny --device cpu'
euler='--scheduler euler --frames 1 --size 32x32 --steps 1 --dtype f32'
ok 'UMT5: as many rows as the text has tokens, up to those that the transformer reads' '
    { line a prompt "a red kettle boils on the stove"; line b prompt ""; sed "s/\"k\"/\"c\"/" long; } >three
    t5-encode $wan <three >out 2>err
    show --jsonl out >text
    sed -n "s/.*BF16 *\[\([0-9]*\), *64\].*/\1/p; s/.*\"shape\": *\[\([0-9]*\), *64\].*/\1/p" text >rows
    printf "%s\n" 13 1 32 | diff rows -
    grep "c: .*tokens cut to 32" err
    [ "$(grep -c "\"text_encoder_class\": *\"umt5\"" text)" = 3 ]'
ok 'UMT5: threads and how many are encoded at once change no bit, whatever their lengths' '
    for text in "a pot" "a jar" "a red kettle boils" "" "" "a jar and a pot and a kettle" "a jar"; do
        line k$((n += 1)) prompt "$text"
    done >lengths
    t5-encode $wan --threads 1 --batch 1 <lengths >a
    t5-encode $wan --threads 2 --batch 5 <lengths >b
    cmp a b
    for i in 1 4 6; do sed -n ${i}p lengths | t5-encode $wan; done >alone
    sed -n "1p;4p;6p" lengths | t5-encode $wan --batch 3 >together
    tensor-eq alone together'
ok 'UMT5: prompts are cleaned; T5: they are not' '
    line k prompt "a  &amp; b" >entity
    line k prompt "a & b" >plain
    for f in entity plain; do
        t5-encode $wan <$f >$f.umt5
        t5-encode $t5 <$f >$f.t5
    done
    tensor-eq entity.umt5 plain.umt5
    fails 1 tensor-eq entity.t5 plain.t5'
ok 'embeddings of another width, or of another family at the same width, are refused by name' '
    line k prompt "a red kettle boils on the stove" | t5-encode $t5 >t5.mp
    line k prompt "a red kettle boils on the stove" | t5-encode $wan >umt5.mp
    fails 1 sample $wan $euler <t5.mp >out
    grep -x "sample: k: prompt_embeds is of t5, this model reads those of umt5" err
    fails 1 sample $t5 --steps 2 <umt5.mp >out
    grep -x "sample: k: prompt_embeds is of umt5, this model reads those of t5" err
    tensor-gen --name prompt_embeds --shape 5,24 --key k >narrow
    fails 1 sample $wan $euler <narrow >out
    grep -x "sample: k: prompt_embeds is \[5,24\], the model wants \[1..32,64\]" err
    tensor-gen --name latents --shape 2,16,4,6 --key k --meta caption="a pot" >latents
    t5-encode $wan <latents >both
    fails 1 train-step $t5 --state run <both >out
    grep "k: prompt_embeds are of umt5, this model reads those of t5" err
    fails 1 train-step $t5 --state run --caption-dropout 0.5 --empty-prompt umt5.mp <both >out
    grep "umt5.mp: prompt_embeds are of umt5, this model reads those of t5" err'
ok 'sample computes its own negative prompt, as t5-encode would' '
    sample $wan $euler --negative "a  &amp; b" <umt5.mp >own
    sample $wan $euler --negative "a & b" <umt5.mp >same
    sample $wan $euler <umt5.mp >none
    tensor-eq --name latents own same
    fails 1 tensor-eq --name latents own none'

ok 'wrong usage, models that lack a part' "
    fails 2 t5-encode <prompt >out
    fails 1 t5-encode -m $tests/data/t5/wide <prompt >out
    grep transformer err
    mkdir half
    cp -r $tests/data/t5/wide/text_encoder $top/examples/presets/tiny/transformer half
    fails 1 t5-encode -m half <prompt >out
    grep spiece.model err
    mkdir half/tokenizer
    cp $top/examples/tokenizer/spiece.model half/tokenizer
    fails 1 t5-encode -m half <prompt >out
    grep 'wide' err
    rm half/tokenizer/spiece.model
    echo '{}' >half/tokenizer/tokenizer.json
    fails 1 t5-encode -m half <prompt >out
    grep 'half/tokenizer/tokenizer.json is not read here, and there is no spiece.model beside it' err
    rm -r half/transformer half/tokenizer/tokenizer.json
    cp $top/examples/tokenizer/spiece.model half/tokenizer
    cp -r $top/examples/presets/wan-tiny/transformer half
    fails 1 t5-encode -m half <prompt >out
    grep 'the text encoder is a t5, which encodes padding; the transformer wants it left out' err"
finish
