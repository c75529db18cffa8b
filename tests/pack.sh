#!/bin/sh
# pack: what goes in comes out, again and again; nothing half-written is trusted.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $tests
. "${0%/*}/lib.sh"
# shellcheck source=tests/pack-kills
. "$tests/pack-kills"

tensor-gen --count 12 --key clip --name latents --shape 5,7 --meta fps=8 --meta 'caption="a kettle boils"' >in.mp
tensor-gen --count 12 --key clip --name latents --shape 5,7 --meta fps=8 --meta 'caption="a kettle boils over"' >later.mp

ok 'what goes in comes out' '
    pack -o plain <in.mp >out; [ ! -s out ]
    draw --epochs 1 plain >drawn.mp
    tensor-eq --by-key drawn.mp in.mp'
ok 'shards are streams by themselves' '
    pack -o shards --commit-every 5 <in.mp; [ -e shards/000002.mp ]; [ ! -e shards/000003.mp ]
    cat shards/*.mp >all.mp
    tensor-eq all.mp in.mp'
ok 'shards are limited by their bytes' '
    pack -o bytes --shard-bytes 1000 <in.mp; [ -e bytes/000001.mp ]
    for shard in bytes/*.mp; do [ "$(wc -c <"$shard")" -lt 1500 ]; done
    cat bytes/*.mp >all.mp; tensor-eq all.mp in.mp'
ok 'the index has a line for each record, that says where it is' '
    [ "$(wc -l <shards/index.jsonl)" = 13 ]
    grep "\"key\":\"clip7\",\"shard\":\"000001.mp\",\"offset\":[0-9]*,\"bytes\":[0-9]*,\"crc32c\":[0-9]*,\"content\":\"[0-9a-f]*\",\"tensors\":\[{\"name\":\"latents\",\"dtype\":\"F32\",\"shape\":\[5,7\]}\]}" shards/index.jsonl'
ok 'a second time, everything is skipped and nothing changes' '
    cp -r shards before; pack -o shards --commit-every 5 <in.mp 2>err; grep "0 added, 0 replaced, 12 skipped" err
    diff -r shards before'
ok 'what was made with another setting is replaced' '
    pack -o shards <later.mp 2>err; grep "0 added, 12 replaced, 0 skipped" err
    head -n 1 shards/index.jsonl | grep "\"records\":12,.*\"replaced\":12,"
    draw --epochs 1 shards >drawn.mp
    [ "$(grep -ao "boils over" drawn.mp | wc -l)" = 12 ]; tensor-eq --by-key drawn.mp later.mp'
ok 'other bytes under the same meta replace, too' '
    tensor-gen --seed 7 --count 12 --key clip --name latents --shape 5,7 --meta fps=8 --meta "caption=\"a kettle boils\"" >seven.mp
    pack -o plain <seven.mp 2>err; grep "12 replaced" err; draw --epochs 1 plain >drawn.mp; tensor-eq --by-key drawn.mp seven.mp'
ok 'a key that comes twice in one run is an error, and named' '
    cat in.mp in.mp >twice.mp
    fails 1 pack -o twice <twice.mp; [ "$(grep -c "clip[0-9]*: this key came before" err)" = 12 ]
    draw --epochs 1 twice >drawn.mp; tensor-eq --by-key drawn.mp in.mp'
ok 'a cut stream is an error, and what came whole is kept' '
    head -c 1000 in.mp >cut.mp; fails 1 pack -o cut <cut.mp; grep truncated err
    kept=$(($(wc -l <cut/index.jsonl) - 1)); [ $kept -gt 2 ]
    draw --epochs 1 cut >drawn.mp
    tensor-gen --count $kept --key clip --name latents --shape 5,7 >want.mp; tensor-eq --by-key drawn.mp want.mp
    pack -o cut <in.mp 2>err; grep "$((12 - kept)) added, 0 replaced, $kept skipped" err'
ok 'so it is in a store that was there before, and nothing else is said' '
    tensor-gen --count 3 --key old --name latents --shape 5,7 | pack -o cut2
    fails 1 pack -o cut2 <cut.mp; grep truncated err; [ "$(wc -l <err)" = 1 ]
    [ "$(wc -l <cut2/index.jsonl)" -gt 6 ]; grep -q "\"key\":\"clip2\"" cut2/index.jsonl; show --check cut2
    for left in cut2/.tmp-*; do [ ! -e "$left" ]; done'
ok 'an empty stream makes an empty store, no bytes at all are an error' '
    head -c 0 /dev/null | fails 1 pack -o zero
    printf "\n" | pack -o empty; head -n 1 empty/index.jsonl | grep "\"records\":0,"'
ok 'records without tensors are kept' '
    printf "%s\n" "{\"key\":\"a\",\"caption\":\"x\"}" "{\"key\":\"b\"}" | pack -o bare; draw --epochs 1 bare >drawn.mp; grep -a caption drawn.mp'
ok 'no key leaves the folder' '
    tensor-gen --key ../../../x/.. --name a --shape 1 | pack -o sub/keys; [ "$(ls -A sub)" = keys ]
    tensor-gen --key ../../../x/.. --name a --shape 1 >x.mp; draw --count 1 sub/keys >drawn.mp; tensor-eq drawn.mp x.mp'
ok 'a second pack in the same folder is refused' '
    mkfifo slow
    pack -o busy <slow 2>first.err & first=$!
    exec 9>slow
    cat in.mp >&9
    until [ -e busy/index.jsonl ]; do sleep 0.05; done
    fails 1 pack -o busy <in.mp; grep "busy: another program is writing here" err
    exec 9>&-
    wait $first; draw --epochs 1 busy >drawn.mp; tensor-eq --by-key drawn.mp in.mp'
ok 'a damaged record is made good by the next run' '
    pack -o mend --commit-every 5 <in.mp
    printf X | dd of=mend/000000.mp bs=1 seek=250 conv=notrunc 2>/dev/null
    fails 1 draw --epochs 1 mend >/dev/null
    pack -o mend <in.mp 2>err; grep "0 added, 1 replaced, 11 skipped" err
    draw --epochs 1 mend >drawn.mp; tensor-eq --by-key drawn.mp in.mp'
ok 'a damaged index is refused, a lost one made anew' '
    pack -o lost --commit-every 5 <in.mp; sed s/clip3/clip4/ lost/index.jsonl >index; cp index lost/index.jsonl
    fails 1 pack -o lost <in.mp; grep "lost/index.jsonl: damaged" err
    rm lost/index.jsonl; pack -o lost <in.mp 2>err; grep "0 added, 0 replaced, 12 skipped" err
    draw --epochs 1 lost >drawn.mp; tensor-eq --by-key drawn.mp in.mp
    rm mend/index.jsonl; fails 1 pack -o mend <in.mp; grep "mend/000000.mp: .*checksum mismatch" err'
ok 'a full disk: a message, and what was committed stands' '
    tensor-gen --count 40 --key clip --name latents --shape 64,64 >big.mp
    tensor-gen --count 8 --key clip --name latents --shape 64,64 | pack -o full --commit-every 4
    (trap "" XFSZ; ulimit -f 100; fails 1 pack -o full <big.mp); grep "clip[0-9]*: full/000002.mp: File too large" err
    [ "$(ls full)" = "$(printf "%s\n" 000000.mp 000001.mp index.jsonl)" ]; [ -z "$(ls full/.tmp-* 2>/dev/null)" ]
    draw --count 8 full >/dev/null
    pack -o full <big.mp 2>err; grep "32 added, 0 replaced, 8 skipped" err'
ok 'a folder that cannot be made is named' 'touch file; fails 1 pack -o file/x <in.mp; grep "file" err'
ok 'a folder must be given' 'fails 2 pack <in.mp; grep -e "-o DIR" err'
ok '--missing writes no shards' 'for option in --shard-bytes --commit-every; do fails 2 pack -o s --missing $option 9 <in.mp; grep -e "$option: " err; done'

printf '%s\n' '{"key":"clip0","caption":"a kettle boils over"}' '{"key":"clip1","caption":"other"}' '{"key":"new"}' >list.jsonl
ok '--missing prints what is not there, or was made from something else' '
    pack --missing -o shards <list.jsonl >todo; printf "%s\n" "{\"key\":\"clip1\",\"caption\":\"other\"}" "{\"key\":\"new\"}" | diff - todo
    pack --missing -o nowhere <list.jsonl >todo; diff list.jsonl todo; [ ! -e nowhere ]'
ok 'and of nothing, an empty list, which the next program takes' '
    head -n 1 list.jsonl | pack --missing -o shards >todo; pack -o shards <todo 2>err; grep "0 added, 0 replaced, 0 skipped" err'
ok '--missing with a full disk' 'fails 1 pack --missing -o shards <list.jsonl >/dev/full'

ok 'kill -9 at any moment' 'survive_kills 3'
finish
