#!/bin/sh
# toy-world: a toy world's clips, and what is said of them.
# shellcheck disable=SC1091,SC2016,SC2034 # ok evaluates its text
. "${0%/*}/lib.sh"

# value FIELD FILE: its values in JSON lines, a line each.
value() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" "$2"; }

ok 'lawful clips of every kind show the colour and the movement that their captions name' '
    for kind in fall bounce roll slide throw hit; do
        toy-world --count 60 --kinds $kind --seed 7 >$kind.mp
        toy-check --least 1 <$kind.mp >$kind.jsonl
        [ "$(value true_sa $kind.jsonl | sort -u)$(value true_pc $kind.jsonl | sort -u)" = 55 ]
        value kind $kind.jsonl | sort -u | grep -qx $kind
    done'
ok 'a clip depends on the seed and its key alone' '
    toy-world --count 6 --unlawful 0.5 --mismatch 0.5 --seed 3 >six.mp; toy-world --count 3 --unlawful 0.5 --mismatch 0.5 --seed 3 >three.mp
    toy-world --count 6 --unlawful 0.5 --mismatch 0.5 --seed 3 | cmp - six.mp
    show --jsonl three.mp | grep key | while read -r line; do show --jsonl six.mp | grep -qF "$line"; done
    toy-world --count 6 --unlawful 0.5 --mismatch 0.5 --seed 4 >four.mp; fails 1 tensor-eq four.mp six.mp'
ok 'other sizes and lengths show the same scenes' '
    toy-world --count 12 --frames 25 --size 192x128 >big.mp; toy-check --least 1 <big.mp >/dev/null
    show big.mp | grep -c "U8 \[25,128,192,3\]" | grep -qx 12'
ok 'no caption of one split is in the other, and a fifth or so is in the test split' '
    toy-world --captions --count 3000 --split train >train.jsonl; toy-world --captions --count 600 --split test >test.jsonl
    value caption train.jsonl | sort -u >train.txt; value caption test.jsonl | sort -u >test.txt
    [ "$(comm -12 train.txt test.txt | wc -l)" = 0 ]
    toy-world --captions --count 3000 | sed "s/.*\"caption\":\"\([^\"]*\).*/\1/" | sort | uniq >all.txt
    share=$((100 * $(comm -12 all.txt test.txt | wc -l) / $(wc -l <all.txt)))
    echo "$share %"; [ $share -ge 12 ]; [ $share -le 28 ]'
ok 'of every kind there is something in either split, and captions of something else keep to it, too' '
    for kind in fall bounce roll slide throw hit; do for split in train test; do
        timeout 60 toy-world --count 40 --kinds $kind --split $split --mismatch 1 --frames 2 --size 8x8 >wrong.mp
        show --jsonl wrong.mp | grep -c "true_sa\": *5" | grep -qx 0
    done; done
    toy-world --count 400 --split train --mismatch 0.5 --frames 2 --size 8x8 | show --jsonl >wrong.jsonl
    value caption wrong.jsonl | sort -u | comm -12 - test.txt >shared.txt
    [ "$(value caption wrong.jsonl | wc -l)" = 400 ]; [ ! -s shared.txt ]'
ok '--distinct: every caption comes as often as every other, or once more' '
    toy-world --captions --count 4000 --split test >some; toy-world --captions --distinct --count 104 --split test >each
    value caption some | sort -u >there; value caption each | sort | cmp - there
    toy-world --captions --distinct --count 44 --split test --kinds fall,hit --key x >more
    toy-world --distinct --count 44 --split test --kinds fall,hit --key x --frames 2 --size 8x8 --unlawful 0.5 | show --jsonl | grep -o "\"key\": *\"x[0-9]*" | sed "s/.*\"//" >keys
    value key more | cmp - keys
    toy-world --captions --distinct --count 30 --split test --kinds bounce >turns
    value caption turns | sort | uniq -c | awk "{ n++; if (\$1 < 3 || \$1 > 4) exit 1 } END { exit n != 8 }"'
ok 'captions are prompts for t5-encode' '[ "$(wc -l <test.jsonl)" = 600 ]; toy-world --captions --count 0 >none; [ ! -s none ]; head -n 2 test.jsonl | t5-encode -m random:tiny >prompts.mp; show prompts.mp | grep -c embeds | grep -qx 2'
ok 'physics: lawful is 5, and the stronger a violation, the less' '
    toy-world --count 400 --unlawful 0.5 --frames 2 --size 8x8 >half.mp; show --jsonl half.mp | grep true_pc >half.jsonl
    awk "{ pc = \$0; sub(/.*\"true_pc\": */, \"\", pc); pc += 0; s = \$0; sub(/.*\"strength\": */, \"\", s); s += 0
           if ((s == 0) != (pc == 5) || (s > 0 && pc != 4 - int(3.999 * s))) { print; bad = 1 } seen[pc]++ }
         END { for (i = 1; i <= 5; i++) if (!seen[i]) bad = 1
               if (seen[5] < 160 || seen[5] > 240) bad = 1; exit bad }" half.jsonl
    for v in through hover gain reverse teleport ghost none; do grep -q "\"violation\": *\"$v\"" half.jsonl; done'
ok '--strong: violations are at least so strong' '
    toy-world --count 100 --unlawful 1 --strong 0.6 --frames 2 --size 8x8 | show --jsonl | sed -n "s/.*strength\": *\([0-9.e-]*\).*/\1/p" >strong
    [ "$(wc -l <strong)" = 100 ]; awk "\$1 < 0.6 || \$1 > 1 { exit 1 }" strong
    fails 2 toy-world --strong 2 >out'
ok 'adherence: a caption of something else is worth less, in every degree' '
    toy-world --count 400 --mismatch 0.5 --frames 2 --size 8x8 >told.mp; show --jsonl told.mp | sed -n "s/.*true_sa\": *\([0-9]\).*/\1/p" >sa
    for n in 1 2 3 4 5; do grep -q $n sa; done
    n=$(grep -c 5 sa); [ "$n" -ge 160 ]; [ "$n" -le 240 ]'
ok 'a broken law shows: the clip is another' '
    toy-world --count 30 --kinds bounce,roll,hit --seed 9 >lawful.mp; toy-world --count 30 --kinds bounce,roll,hit --seed 9 --unlawful 1 >unlawful.mp
    tensor-eq --psnr 40 lawful.mp unlawful.mp >same 2>differ || true
    [ "$(grep -c "video. differs" differ)" -ge 25 ]'
ok 'wrong usage' '
    fails 2 toy-world --kinds fly >out; grep "is none of" err
    fails 2 toy-world --kinds fall, >out
    fails 2 toy-world --kinds "" >out
    fails 2 toy-world --frames 1 >out
    fails 2 toy-world --unlawful 1.5 >out
    fails 2 toy-world --captions --unlawful 0.5 >out; grep "of what is to be" err
    fails 2 toy-world --captions --frames 5 >out; fails 2 toy-world --captions --size 8x8 >out; fails 2 toy-world --strong 0.4 >out; grep "^toy-world: --strong: " err
    fails 2 toy-world --key "" >out'
finish
