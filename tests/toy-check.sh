#!/bin/sh
# toy-check: what can be seen in a toy clip.
# shellcheck disable=SC1091,SC2016,SC2034 # ok evaluates its text
. "${0%/*}/lib.sh"

# value FIELD FILE: its values in JSON lines, a line each.
value() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" "$2"; }

toy-world --count 20 --seed 7 --kinds throw >throw.mp

ok 'toy-check sees a wrong colour, a wrong way, and nothing at all' '
    toy-world --count 1 --kinds roll >one.mp; toy-check <one.mp >one.jsonl
    colour=$(value colour one.jsonl) way=$(value direction one.jsonl)
    other=red; [ "$colour" != red ] || other=blue
    back=left; [ "$way" != left ] || back=right
    encode-mp4 -o clip <one.mp >/dev/null
    for fields in "$other $way" "$colour $back" "$colour down"; do
        set -- $fields
        printf "{\"key\":\"a\",\"path\":\"clip/toy00000.mp4\",\"colour\":\"%s\",\"direction\":\"%s\",\"kind\":\"roll\"}\n" "$1" "$2" |
            decode --frames 17 --size 96x64 | toy-check >seen.jsonl
        grep "_right\":false" seen.jsonl
    done
    tensor-gen --name video --dtype u8 --fill ramp --shape 5,32,48,3 --meta colour=red --meta direction=left --meta kind=roll |
        toy-check >grey.jsonl
    grep "\"share\":0.0,.*\"colour_right\":false,\"direction_right\":false" grey.jsonl'
ok 'lossy video is seen as well' '
    encode-mp4 -o videos <throw.mp >list.jsonl
    decode --frames 17 --size 96x64 <list.jsonl | toy-check --least 1 >/dev/null'
ok 'lawful clips are on a lawful course and broken ones are not, after lossy coding and the size it comes in, too' '
    toy-world --count 120 --unlawful 0.5 --strong 0.4 --key law | encode-mp4 -o law >law.list
    toy-world --count 30 --unlawful 0.5 --strong 0.4 --size 144x96 --frames 25 --key big | toy-check >law.jsonl
    decode --frames 17 --size 96x64 <law.list | toy-check >>law.jsonl
    awk "{ lawful = /\"violation\":\"none\"/; pc = \$0; sub(/.*\"pc\":/, \"\", pc); n[lawful, pc + 0 >= 4]++ }
         END { print n[1, 1], n[1, 0], n[0, 0], n[0, 1]; exit !(n[1, 1] > 50 && n[0, 0] > 50 && n[1, 0] + n[0, 1] <= 1) }" law.jsonl
    for kind in fall bounce roll slide throw hit; do grep -q "\"kind\":\"$kind\"" law.jsonl; done'
ok 'its lines are scores for compare' '
    toy-world --count 8 --key a | toy-check >good.jsonl; toy-world --count 8 --key a --unlawful 1 --strong 0.5 | toy-check >bad.jsonl
    compare --base good good.jsonl bad.jsonl >said; grep "^good  *100" said; grep "^bad  *-[1-9]" said'
ok '--least: too few, and none' '
    toy-world --count 20 --kinds fall --unlawful 0 | toy-check >/dev/null 2>err; grep "20 of 20" err
    tensor-gen --name video --dtype u8 --fill zero --shape 5,8,8,3 --meta colour=red --meta direction=left --meta kind=roll >dark.mp
    fails 1 toy-check --least 0.1 <dark.mp >out; grep "less than --least" err; [ "$(wc -l <out)" = 1 ]'
ok 'what no toy is fails by itself' '
    tensor-gen --name video --dtype u8 --fill zero --shape 5,8,8,3 --key plain >plain.mp
    fails 1 toy-check <plain.mp >out; grep "plain: no colour in its meta" err
    tensor-gen --name video --dtype u8 --shape 5,8,8,3 --meta colour=mauve --key m >m.mp
    fails 1 toy-check <m.mp >out; grep "m: its colour is none of the toy world" err
    tensor-gen --name video --dtype u8 --shape 5,8,8,1 --meta colour=red --meta direction=left --meta kind=roll >g.mp
    fails 1 toy-check <g.mp >out; grep "1 channels, not 3" err
    tensor-gen --name latents --shape 5,8,8,1 --key l >l.mp; fails 1 toy-check <l.mp >out; grep "l: .*video" err'
ok 'wrong usage' '
    fails 2 toy-check --least 2 <one.mp >out
    fails 2 toy-check extra <one.mp >out'
finish
