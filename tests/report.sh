#!/bin/sh
# report: a page that stands alone, says what compare says, shows the videos, and takes every text for a text.
# shellcheck disable=SC1091,SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/browser
. "$tests/browser"

video() { # FILE COLOUR: a second of it
    ffmpeg -v error -f lavfi -i "color=$2:size=96x64:rate=8:duration=1" -pix_fmt yuv420p -y "$1"
}
scores() { # RUN JOINT-ON SETTINGS: six prompts
    for i in 0 1 2 3 4 5; do
        printf '{"key":"p%d","path":"%s.mp4","caption":"Caption %d","action":"rolling","sa":%d,"pc":%d,"fps":8.0,"sample":%s,"grade":{"model":"owl"}}\n' \
            $i "$1" $i $((i < $2 ? 4 : 2)) $((i < $2 ? 5 : 3)) "$3"
    done
}
command -v ffmpeg >/dev/null && video base.mp4 magenta && video k1.mp4 lime
scores base 2 '{"model":"m","steps":50,"seed":42,"adapters":[]}' >base.jsonl
scores k1 5 '{"model":"m","steps":50,"seed":42,"adapters":[{"variant":"gdn_cssm","rank":16}]}' >k1.jsonl
page() { report --base base "$@"; }
ready() { need gnuplot; need ffmpeg; }
has() { grep -F -e "$1" page.html >/dev/null || { echo "no $1"; return 1; }; }
images() { grep -c "<img alt=[^>]*src=\"data:image/$1" page.html || true; }

ok 'a page with the figures of compare, two charts and the first four prompts, the same again' '
    ready
    page base.jsonl k1.jsonl >page.html
    head -n 1 page.html | grep -x "<!DOCTYPE html>"; tail -n 1 page.html | grep -x "</html>"
    for text in "<title>Comparison with base</title>" "<td>33.33</td>" "<td>83.33</td>" "<td>+50.00 [" "p Holm" "SA&gt;=4 %" "seed 42"; do has "$text"; done
    compare --base base base.jsonl k1.jsonl | grep -o "+50.00 \[[^]]*\]" >cell; has "$(cat cell)"
    [ "$(images svg+xml)" = 2 ]; [ "$(images png)" = 8 ]; [ "$(grep -c "<h3>Prompt" page.html)" = 4 ]
    has "<b>base</b> SA 4, PC 5, Joint<"; has "<b>base</b> SA 2, PC 3<"
    page -o again.html base.jsonl k1.jsonl; cmp page.html again.html'
ok 'a picture holds eight frames of the video' '
    ready; need ffprobe
    grep -o "data:image/png;base64,[^\"]*" page.html | head -n 1 | sed "s/.*,//" | base64 -d >strip.png
    ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 strip.png | grep -x "png,1536,129"
    colours=$(ffmpeg -v error -i strip.png -vf "crop=150:100:10:10" -f rawvideo -pix_fmt rgb24 - | od -An -v -tu1 -w3 | sort -u)
    echo "$colours" | awk "\$1 < 240 || \$2 > 15 || \$3 < 240 { exit 1 }"'
ok 'nothing in it is fetched, nothing runs' '
    ready
    fails 1 grep -i "<script\|<link\|<iframe\|<object\|javascript:\|@import\|url(\| on[a-z]*=\"" page.html
    grep -o "\(src\|href\)=\"[^\"]\{0,16\}" page.html | grep -v "^src=\"data:\(image/\(png\|svg\)\|video/mp4\)" >other || true; [ ! -s other ]
    has "default-src &#39;none&#39;" || has "default-src '\''none'\''"; has "name=\"viewport\""; has "@media print"'
# row CELLS: a row of a table, its cells parted by |
row() { tr "\n" " " <page.html | sed "s/<wbr.>//g; s/<t[hd][^>]*>//g; s/<.t[hd]>/|/g; s/<tr>/\n/g" | sed "s/| /|/g; s/|<.*//" | grep -xF -e "$1" >/dev/null || { echo "no $1"; return 1; }; }
ok 'how the runs were made: what differs, and what they share, folded' '
    ready
    for line in "sample.steps|50" "grade.model|owl" "fps|8.0" "scores from|base.jsonl|base" "|k1.jsonl|k1" \
        "sample.adapters.0.variant|-|base" "|gdn_cssm|k1" "sample.adapters.0.rank|-|base" "|16|k1"; do row "$line"; done
    has "<details><summary>What differs</summary>"; has "<details><summary>What the runs share</summary>"
    has "report (sluice) $(report --version | sed "s/.* //")"'
ok 'values of settings are told once, with the runs that have them' '
    ready
    for run in a b c; do scores $run 3 "{\"steps\":$([ $run = b ] && echo 9 || echo 5)}" >$run.jsonl; done
    report --base a --first 0 a.jsonl b.jsonl c.jsonl >page.html; row "sample.steps|5|a, c"; row "|9|b"'
ok 'videos play in the page when they are small enough, and are linked when not, from wherever the page is' '
    ready
    page -o page.html base.jsonl k1.jsonl
    [ "$(grep -c "^<video controls=.* src=\"data:video/mp4;base64," page.html)" = 8 ]; fails 1 grep "<a href" page.html
    grep -o "data:video/mp4;base64,[^\"]*" page.html | head -n 1 | sed "s/.*,//" | base64 -d | cmp - base.mp4
    cp base.mp4 "b &\"<%.mp4"; mkdir -p deep/er
    for where in page.html deep/er/page.html "$PWD/deep/page.html"; do
        sed "s/base\.mp4/b \&\\\\\"<%.mp4/" base.jsonl | report --embed 0 --base base --first 1 -o "$where" base=/dev/stdin k1.jsonl
        fails 1 grep "<video" "$where"; grep -o "<a href=\"[^\"]*" "$where" | sed "s/.*\"//" >links; [ "$(wc -l <links)" = 2 ]
        while read -r link; do [ -e "$(dirname "$where")/$(echo "$link" | perl -pe "s/%(..)/chr hex \$1/ge")" ] || { echo "no $link beside $where"; exit 1; }; done <links
    done
    size=$(($(wc -c <base.mp4) / 1000)); page --embed $size --first 1 base.jsonl >page.html; fails 1 grep "<video" page.html
    page --embed $((size + 1)) --first 1 base.jsonl >page.html; grep "<video" page.html >found'

cat >strange.py <<'END'
import html.parser, json, sys, xml.etree.ElementTree as xml
nasty = ['"><script>alert(1)</script>', "'single' & &amp; &lt;", '`touch hit` $(touch hit) $HOME ${x}', '</style></title><!-- ]]> %s%n',
         'caf\u00e9 \u7269\u7406 \U0001f600 \u202eabc', 'tab\there\nnew line', '<img src=x onerror=alert(1)>', 'back\\slash {@} ^_']
if sys.argv[1] == 'write':
    for run in ('base', nasty[1]):
        with open('s%d.jsonl' % (run != 'base'), 'w') as f:
            for i, text in enumerate(nasty):
                print(json.dumps({'key': text, 'caption': text, 'action': text, 'sa': 4, 'pc': 4 if run == 'base' else i % 2 + 3, 'sample': {'model': text}}), file=f)
    print(nasty[0])
else:
    page = open('page.html', encoding='utf-8').read()
    tree = xml.fromstring(page.replace('<!DOCTYPE html>', ''))
    texts = [''.join(e.itertext()) for e in tree.iter()]
    for text in nasty:
        assert texts.count(text) >= 2, text
    assert tree.find('head/title').text == nasty[0]
    assert not list(tree.iter('script')) and len(list(tree.iter('img'))) == 2
    html.parser.HTMLParser().feed(page)
END
ok 'quotes, tags, backticks and dollars are texts in captions, keys, names, titles and settings' '
    ready; need python3
    title=$(python3 strange.py write)
    page --first 9 --title "$title" base=s0.jsonl "'\''single'\'' & &amp; &lt;=s1.jsonl" >page.html
    python3 strange.py check; [ ! -e hit ]'
ok 'what no browser should see becomes a question mark' '
    ready
    printf "{\"key\":\"a\\\\u0001b\\\\u007f\\\\u0085c\\\\uffff\",\"sa\":1,\"pc\":1}\n" >base2.jsonl
    page --title "$(printf "x\377y")" base=base2.jsonl >page.html; has "<title>x?y</title>"; has ">a?b??c?<"'
ok 'chosen prompts, in that order; keys with commas; none at all' '
    ready
    page --prompts p5,p1 --prompts p3 base.jsonl k1.jsonl >page.html
    [ "$(grep -o "Prompt <span class=\"text\">p." page.html | tr -d "\n" | sed "s/Prompt <span class=\"text\">/ /g")" = " p5 p1 p3" ]
    sed "s/\"p3\"/\"p5,p1\"/" base.jsonl >comma.jsonl; page --prompts p5,p1 base=comma.jsonl >page.html; [ "$(grep -c "<h3>Prompt" page.html)" = 1 ]
    page --first 0 base.jsonl k1.jsonl >page.html; [ "$(images png)" = 0 ]; fails 1 grep "<h3>" page.html
    fails 1 page --prompts p1,p9 base.jsonl k1.jsonl >out; grep "no prompt of all runs is called .p9." err; [ ! -s out ]'
ok 'videos from a list, for scores that know none' '
    ready
    { echo "key,variant,sa,pc"; echo "p0,base,4,4"; echo "p0,k1,1,1"; } >scores.csv
    page scores.csv >page.html; [ "$(images png)" = 0 ]; has "SA 4, PC 4, Joint"
    printf "%s\n" "{\"key\":\"other\",\"path\":\"gone.mp4\",\"sample\":{\"steps\":9}}" "{\"key\":\"p0\",\"path\":\"k1.mp4\"}" >list.jsonl
    page --videos k1=list.jsonl scores.csv >page.html; [ "$(images png)" = 1 ]; row "sample.steps|-|base"; row "|9|k1"
    fails 1 page --videos k2=list.jsonl scores.csv; grep "no variant is called .k2." err; fails 1 page --videos list.jsonl scores.csv; grep "NAME=LIST" err
    fails 1 page --videos k1=gone.jsonl scores.csv; grep "gone.jsonl: No such file" err
    echo "[]" >list.jsonl; fails 1 page --videos k1=list.jsonl scores.csv; grep "list.jsonl: line 1: not a JSON object" err'
ok 'a video that is not there or not whole is told in its place, and the rest comes through' '
    ready
    head -c 700 base.mp4 >cut.mp4
    sed "2s/base.mp4/gone.mp4/; 3s/base.mp4/cut.mp4/" base.jsonl >base2.jsonl
    fails 1 page base=base2.jsonl k1.jsonl >page.html; grep "gone.mp4: .*No such file" err; grep "^report: cut.mp4: " err; grep "2 failed, 6 done" err
    [ "$(images png)" = 6 ]; [ "$(grep -c "class=\"missing\"" page.html)" = 2 ]; tail -n 1 page.html | grep "</html>"
    fails 1 page --strict -o none.html base=base2.jsonl k1.jsonl; [ ! -e none.html ]'
ok 'repeats are shown one after another; published results tell of themselves' '
    ready
    { cat base.jsonl; sed "s/^{\"key\":\"\(p.\)\"/{\"prompt_id\":\"\1\",\"key\":\"\1@2\"/; s/base.mp4/k1.mp4/" base.jsonl; } >twice.jsonl
    page --first 1 base=twice.jsonl >page.html; [ "$(images png)" = 2 ]
    compare --base base --results r.json base.jsonl k1.jsonl >out; page --first 1 r.json >page.html
    row "inference_settings.steps|50"; [ "$(images png)" = 0 ]; has "Caption 0"'

# pixels CONDITION: how many of every fourth row and column, $1 $2 $3 being red, green and blue
pixels() { ffmpeg -v error -i shot.png -vf scale=iw/4:ih/4:flags=neighbor -f rawvideo -pix_fmt rgb24 - | od -An -v -tu1 -w3 | awk "$1 { n++ } END { print n + 0 }"; }
ok 'a browser shows the tables, the charts and the videos, on a desk and on a phone' '
    ready; need chromium
    page --first 2 base.jsonl k1.jsonl >page.html
    for size in 1100x2400 480x2400; do
        shot page.html $size
        bars=$(pixels "\$1 > 97 && \$1 < 117 && \$2 > 164 && \$2 < 184 && \$3 > 204 && \$3 < 224")
        magenta=$(pixels "\$1 > 220 && \$2 < 40 && \$3 > 220"); lime=$(pixels "\$1 < 40 && \$2 > 220 && \$3 < 40")
        text=$(pixels "\$1 < 90 && \$2 < 90 && \$3 < 90")
        sed "s/<table.*//; s/<\/table>//; s/<caption>.*//; s/<thead>.*//; s/^<t[hd]>.*//" page.html >bare.html; shot bare.html $size
        bare=$(pixels "\$1 < 90 && \$2 < 90 && \$3 < 90")
        echo "$size: bars $bars, magenta $magenta, lime $lime, dark $text, without tables $bare"
        [ "$bars" -gt 100 ]; [ "$magenta" -gt 2000 ]; [ "$lime" -gt 2000 ]; [ $((text - bare)) -gt 300 ]
    done'

# Seven runs of long names, with all that a report may tell of them.
seven() {
    report --base base --first 2 --ledger ledger2 --run runs/gdn_cssm_r16_k5_rope_dk4_with_a_long_name --run runs/transformer_r16_alpha_32 "$@" \
        base.jsonl long/*.jsonl -o page.html
}
ok 'seven runs of long names: nothing is wider than the page, cut, or broken in a word; at two widths, with tables folded and not' '
    ready; need chromium
    mkdir -p long ledger2; n=0
    for run in standard_r16 transformer_r16_alpha_32 gdn_cssm_r16_k1 gdn_cssm_r16_k5 gdn_cssm_r16_k5_rope_dk4_with_a_long_name standard_r64_all_targets; do
        n=$((n + 1))
        scores k1 $n "{\"model\":\"CogVideoX-5b\",\"steps\":50,\"seed\":42,\"adapters\":[{\"variant\":\"gdn_cssm\",\"rank\":16,\"targets\":[\"to_q\",\"to_k\"],\"values\":\"$(printf %016d $n)\"}]}" |
            sed "s/\"sa\":/\"sa_expected\":3.$n,\"pc_expected\":4.$n,&/; s/\"p\([0-9]\)\"/\"p\1\"/" >long/$run.jsonl
        printf "%s\n" "{\"event\":\"start\",\"phase\":\"precompute\",\"job\":\"$run\",\"at\":1}" "{\"event\":\"end\",\"phase\":\"precompute\",\"job\":\"$run\",\"at\":9$n,\"wall_s\":99${n}000,\"gpu_s\":5$n,\"done\":9$n,\"failed\":0}" >ledger2/$run.jsonl
    done
    for i in 1 2 3 4; do tensor-gen --name latents --shape 2,16,4,8 --key c$i | tensor-gen --add --name prompt_embeds --shape 32,64; done >train.mp
    pack -o val <train.mp 2>/dev/null
    for run in "gdn_cssm:k=5,rope=1,dk=4 gdn_cssm_r16_k5_rope_dk4_with_a_long_name" "transformer:rank=16,alpha=32 transformer_r16_alpha_32"; do
        train-step -m random:tiny --device cpu --adapter "${run% *}" --max-steps 4 --warmup 1 --val val --eval-every 2 --state "runs/${run#* }" <train.mp >/dev/null 2>&1
    done
    seven; for width in 1300 800; do laid_out page.html $width; done
    sed "s/<details>/<details open=\"open\">/" page.html >open.html; for width in 1300 800; do laid_out open.html $width; done
    # and it would be seen
    sed "s/<wbr.>//g; s/long_name/long_name_with_no_end_and_so_much_more_and_more_and_more_and_more/g" page.html >bad.html; fails 1 laid_out bad.html 800
    sed "s/<.style>/th{word-break:break-all;max-width:4rem}&/" page.html >bad.html; fails 1 laid_out bad.html 800 >out; grep "a word is broken" out'
ok 'without gnuplot: one line, no file' '
    program=$(command -v report)
    (PATH=/nonexistent; status=0; "$program" --base base -o no.html base.jsonl k1.jsonl 2>err || status=$?; [ $status = 1 ])
    [ "$(wc -l <err)" = 1 ]; grep "gnuplot: .*is it installed" err; [ ! -e no.html ]
    for left in .tmp-*; do [ ! -e "$left" ]; done'
ok 'a full disk, no half page' '
    ready
    fails 1 page base.jsonl k1.jsonl >/dev/full; grep "No space" err
    echo old >old.html; (trap "" XFSZ; ulimit -f 20; fails 1 page -o old.html base.jsonl k1.jsonl); [ "$(cat old.html)" = old ]
    fails 1 page -o nowhere/p.html base.jsonl; grep nowhere err
    for left in .tmp-*; do [ ! -e "$left" ]; done'
ok 'what is wrong with the scores is said, as compare does' '
    fails 1 report --base gone base.jsonl >out; grep "no variant is called .gone." err; fails 1 page gone.jsonl >out; grep "gone.jsonl: No such file" err
    fails 1 page base.jsonl base.jsonl >out; grep "a duplicate key" err; [ ! -s out ]'
ok 'wrong usage' 'fails 2 report base.jsonl; fails 2 report --base base; fails 2 page --first many base.jsonl; fails 2 page --resamples 3 base.jsonl'
# A ledger: two jobs of one run, one of them taken up again and one killed then, its line cut off; a run that trained.
entry() { # EVENT PHASE JOB AT [WALL GPU DONE FAILED]
    printf '{"event":"%s","phase":"%s","job":"%s","at":%s%s}\n' "$1" "$2" "$3" "$4" "${5:+,\"wall_s\":$5,\"gpu_s\":$6,\"done\":$7,\"failed\":$8}"
}
mkdir ledger
{
    entry start generate 'base 42 0' 100; entry end generate 'base 42 0' 110 10 10 5 1
    entry start generate 'base 42 0' 200; entry end generate 'base 42 0' 205 5 5 1 0
} >ledger/generate-base-42-0.jsonl
{
    entry start generate 'base 42 1' 105; entry end generate 'base 42 1' 115 10 10 6 0
    entry start generate 'base 42 1' 300; entry start generate 'base 42 1' 400; printf '{"event":"en'
} >ledger/generate-base-42-1.jsonl
{ entry start train k1 10; entry end train k1 7210 7200 3600 100 0; } >ledger/train-k1.jsonl
ok 'a pipe in a ledger is refused, not waited for' '
    mkdir piped; mkfifo piped/train-k1.jsonl
    fails 1 timeout 20 report --base base --ledger piped --format text base.jsonl; grep "piped/train-k1.jsonl: not a regular file" err'
ok 'what it cost: overlapping work is one time, an attempt that was killed is told, half a line does not count' '
    page --format text --ledger ledger base.jsonl k1.jsonl >text 2>err
    grep "ledger: 1 lines" err
    grep -E "^train +2:00:00 +1\.0 +2 +1 +1 +100 +0 +0\$" text
    grep -E "^generate +0:00:20 +1\.2 +0\.00694 +0\.00694 +2 +12 +0 +2\$" text
    grep -E "^total +2:00:00 +1\.0 +2\.01 +1\.01 +3 +112 +0 +2\$" text
    grep -E "^generate +base +0:00:20" text
    ready; page --ledger ledger base.jsonl k1.jsonl >page.html 2>err; has "<h2>What it cost</h2>"; has "<td>2:00:00</td>"
    fails 1 page --ledger nowhere base.jsonl; grep "ledger nowhere: No such" err
    mkdir empty; page --format text --ledger empty base.jsonl | grep -E "^total +0:00:00"'
ok 'the same as text and as JSON: results, training, provenance of every video' '
    for i in 1 2 3 4; do tensor-gen --name latents --shape 2,16,4,8 --key c$i | tensor-gen --add --name prompt_embeds --shape 32,64; done >train.mp
    train-step -m random:tiny --device cpu --max-steps 4 --warmup 1 --state runs/k1 <train.mp >/dev/null 2>&1
    page --format text --run runs/k1 base.jsonl k1.jsonl >text
    compare --base base base.jsonl k1.jsonl >table; grep -vxF -f text table >other || true; [ ! -s other ]
    plot --table runs/k1 | tail -n 1 >row; grep -xF -f row text; grep "^sample.adapters.0.rank  *-  *16" text
    page --format json --run runs/k1 --ledger ledger base.jsonl k1.jsonl 2>err | tr -d "\n " >json
    grep "\"training\":\[{\"run\":\"k1\",\"adapter\":{.*\"parameters\":65536,.*\"steps\":4,\"finished\":true" json; grep "\"phases\":\[{\"phase\":\"train\",\"of\":null,\"wall_s\":7200" json
    grep "\"provenance\":{\"base\":\[{\"settings\":{.*\"outputs\":6}\],\"k1\":\[{\"settings\":.*\"outputs\":6}\]}}" json
    fails 1 page --format text --run nowhere base.jsonl; grep "run nowhere" err'
ok 'an adapter that was sampled with a scheduler that does not fit its objective is told' '
    sed "s/\"variant\":\"gdn_cssm\"/&,\"objective\":\"flow\"/; s/\"steps\":50/&,\"scheduler\":\"dpm\"/" k1.jsonl >k2.jsonl
    page --format text base.jsonl k2.jsonl >text; grep "^k2: an adapter of objective flow was sampled with dpm, .*objective flow fits scheduler euler, scheduler dpm fits objective flow-snr\$" text
    page --format json base.jsonl k2.jsonl | tr -d "\n" | grep "\"misfits\": \[ *\"k2: an adapter"
    page --format text base.jsonl k1.jsonl >text; fails 1 grep "was sampled with" text
    sed "s/\"dpm\"/\"euler\"/" k2.jsonl >k3.jsonl; page --format text base.jsonl k3.jsonl >text; fails 1 grep "was sampled with" text
    ready; page base.jsonl k2.jsonl >page.html; has "k2: an adapter of objective flow was sampled with dpm"'
ok 'a run that went on on another device says so below the table of training' '
    part() { OPENBLAS_CORETYPE=$1 train-step -m random:tiny --device cpu --max-steps 4 --warmup 1 --state runs/moved >/dev/null 2>&1; }
    pack -o store <train.mp 2>/dev/null
    draw --count 2 store >two.mp; part Nehalem <two.mp
    draw --count 4 store >four.mp; part Haswell <four.mp
    plot --table --json runs/moved | grep -q "Haswell" || { echo "this OpenBLAS has kernels of one kind alone"; exit 77; }
    said="moved: to step 2 on CPU, OpenBLAS .* for Nehalem.*, then to step 4 on CPU, OpenBLAS .* for Haswell.*; not the bytes that one of them alone gives."
    page --format text --run runs/moved --run runs/k1 base.jsonl k1.jsonl >text; [ "$(grep -cx "$said" text)" = 1 ]
    ready; page --run runs/moved base.jsonl k1.jsonl >page.html; grep "<p>$said</p>" page.html'
ok 'videos of a run that were not all made alike show as such' '
    { head -n 5 base.jsonl; tail -n 1 base.jsonl | sed "s/\"steps\":50/\"steps\":25/"; } >mixed.jsonl
    page --format text base=mixed.jsonl k1.jsonl >text; grep -E "^sample.steps +50, 25 +50 *\$" text
    page --format json base=mixed.jsonl | tr -d "\n " | grep "\"outputs\":5},{\"settings\":.*\"steps\":25.*\"outputs\":1}"'
ok 'as text, forty runs of other settings stand side by side' '
    mkdir many; for i in $(seq 40); do scores r$i 3 "{\"steps\":$i}" >many/r$i.jsonl; done
    report --base r1 --format text many/*.jsonl >many.text
    for i in $(seq 40); do grep -q "^sample.steps .* $i\( \|\$\)" many.text || { grep steps many.text; echo "no $i"; exit 1; }; done'
ok 'groups of a field and chosen prompts, as compare has them' '
    ready
    sed "1,3s/rolling/falling/" base.jsonl >g0.jsonl; sed "1,3s/rolling/falling/" k1.jsonl >g1.jsonl
    page --first 0 --by action base=g0.jsonl k1=g1.jsonl >page.html; has "<caption>By action.</caption>"; has "<td>falling</td>" || has ">falling<"; has "corrected for all 2 tests"
    page --first 0 --where action=falling base=g0.jsonl k1=g1.jsonl >page.html; has "3 prompts with action=falling; the base is"; has "Wilson"
    page --format text --by action base=g0.jsonl k1=g1.jsonl | grep -E "^falling +k1 +3 "
    page --format json --by action base=g0.jsonl k1=g1.jsonl >json; compare --base base --by action --format json base=g0.jsonl k1=g1.jsonl | grep -o "\"tests\":2"; tr -d " \n" <json | grep -o "\"by\":{\"field\":\"action\",\"tests\":2"
    fails 1 page --by kind base=g0.jsonl k1=g1.jsonl; grep "^report: --by: no prompt has a field .kind." err'
finish
