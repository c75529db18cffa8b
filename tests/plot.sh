#!/bin/sh
# plot: a picture of the runs, or one line that says why not; no name and no number is ever a command.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $tests
. "${0%/*}/lib.sh"
# shellcheck source=tests/browser
. "$tests/browser"

# run FOLDER STEPS: metrics as train-step writes them.
run() {
    mkdir -p "$1"
    awk -v n="$2" 'BEGIN { for (i = 1; i <= n; i++) {
        printf "{\"step\":%d,\"position\":%d,\"key\":\"clip\",\"s\":0.5,\"loss\":%g,\"grad_norm\":%g,\"lr\":%g}\n",
            i, i - 1, 0.2 + 0.5 / i, 1 + 3 / i, 1e-4 * i / n
        if (i % 5 == 0) printf "{\"step\":%d,\"val_loss\":%g}\n", i, 0.2 + 1 / i } }' >"$1/metrics.jsonl"
}
png() { ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 "$1" | grep -x "png,$2"; }

run one 40
run two 60
ok 'a PNG of one run, of several, of a size' '
    need gnuplot; need ffprobe
    plot -o a.png one/metrics.jsonl; png a.png 1400,900
    plot -o b.png one two/; png b.png 1400,900; fails 1 cmp -s a.png b.png
    plot -o c.png --size 800x500 one; png c.png 800,500'
ok 'an SVG, with the runs in the legend by their folders' '
    need gnuplot
    plot -o a.svg one two/metrics.jsonl; head -c 200 a.svg | grep "<?xml"; tail -n 2 a.svg | grep "</svg>"
    grep ">one<" a.svg; grep ">two<" a.svg; grep "validation loss" a.svg
    plot --format svg one/metrics.jsonl two >b.svg; cmp a.svg b.svg'
ok 'the main panel is validation, or training where nothing was evaluated; raw values are drawn of one or two runs, not of more' '
    need gnuplot; run three 50
    grep -v val_loss one/metrics.jsonl >train.jsonl
    plot --format svg one two >a.svg; plot --format svg one two three >b.svg; plot --format svg train.jsonl >c.svg
    for first in a:validation b:validation c:training; do grep -o ">[a-z]* loss" ${first%:*}.svg | head -n 1 | grep ">${first#*:}"; done
    [ "$(grep -c "opacity=.0.25" a.svg)" = 4 ]; [ "$(grep -c "opacity=.0.25" b.svg)" = 0 ]'
ok 'stdin to stdout, and the same bytes again' '
    need gnuplot
    plot <one/metrics.jsonl >a.png; plot <one/metrics.jsonl >b.png; head -c 4 a.png | grep -a PNG; cmp a.png b.png'
ok 'runs of one name are told apart by their paths' '
    need gnuplot
    run x/same 5; run y/same 5; plot --format svg x/same y/same/metrics.jsonl >a.svg
    grep ">x/same<" a.svg; grep ">y/same/metrics.jsonl<" a.svg'
ok 'a run without evaluations, one without steps, one of a single step' '
    need gnuplot
    grep -v val_loss one/metrics.jsonl >train.jsonl; grep val_loss one/metrics.jsonl >val.jsonl; head -n 1 one/metrics.jsonl >first.jsonl
    plot --format svg train.jsonl >a.svg; [ "$(grep -c "none yet" a.svg)" = 1 ]
    plot --format svg val.jsonl >a.svg; [ "$(grep -c "none yet" a.svg)" = 3 ]
    plot --format svg first.jsonl >a.svg; plot --format svg train.jsonl val.jsonl >a.svg; fails 1 grep "none yet" a.svg
    printf "%s\n" "{\"step\":1,\"loss\":0}" "{\"step\":2,\"loss\":-1,\"grad_norm\":0}" | plot --format svg >a.svg; [ "$(grep -c "none yet" a.svg)" = 2 ]'
ok 'no folder name means anything to gnuplot' '
    need gnuplot
    i=0
    for name in "\$(touch hit)" "\`touch hit\`" "a\"; system \"touch hit\"; \"" "a'\''b" "@m" "a^{big}_x &{y}" "%s%n" "back\\slash\\" "a & <b>" "caf\303\251" "tab	line
two" "END" "nul\\000 q"; do
        i=$((i + 1))
        run "$(printf "w/$i/%s" "$name")" 3
    done
    plot -o weird.svg w/*/*; plot -o weird.png w/*/*; [ ! -e hit ]
    grep -F "a^{big}_x &amp;{y}" weird.svg; grep -F "a &amp; &lt;b" weird.svg; grep -F "@m" weird.svg; grep -F "back\\slash\\" weird.svg
    grep -F "a'\''b" weird.svg; grep -F "tab?line?two" weird.svg; grep -F "touch hit" weird.svg'
ok 'nor is a name that is not UTF-8 written to an SVG' '
    need gnuplot
    bad=$(printf "w/x\377y"); run "$bad" 3; plot --format svg "$bad" >a.svg; grep ">x?y<" a.svg'
ok 'more runs than colours' 'need gnuplot; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do run many/r$i 4; done; plot -o a.svg many/*; grep ">r16<" a.svg'

# trained NAME STEPS OPTIONS...: a real run's folder
tensor-gen --name latents --shape 1,16,4,4 --count 6 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 >clips.mp
pack -o store <clips.mp 2>/dev/null
trained() {
    name=$1 steps=$2; shift 2
    train-step -m random:tiny --device cpu --warmup 0 --lr 0.01 --max-steps "$steps" --state "$name" "$@" <clips.mp >/dev/null 2>&1
}
trained runs/standard_r4 4 --adapter standard:rank=4,alpha=8 --objective v --val store --eval-every 2
trained runs/unfinished 99 --targets to_q,to_v --val store --eval-every 100
trained runs/no_val 6
ok 'a pipe in the place of metrics.jsonl is refused, not waited for' '
    cp -r runs/standard_r4 piped; rm piped/metrics.jsonl; mkfifo piped/metrics.jsonl
    fails 1 timeout 20 plot -o piped.svg piped; grep "piped/metrics.jsonl: not a regular file" err; [ ! -e piped.svg ]
    fails 1 timeout 20 plot --table piped >out; grep "piped/metrics.jsonl: not a regular file" err'
ok 'a table: parameters as counted by hand, the stop step, the best loss as evaluated' '
    plot --table runs/standard_r4 runs/unfinished/ runs/no_val >table
    [ "$(wc -l <table)" = 4 ]
    best=$(grep val_loss runs/standard_r4/metrics.jsonl | sed "s/.*\"step\":\([0-9]*\),\"val_loss\":\([^,]*\),.*/\2 \1/" | sort -g | head -n 1)
    grep -E "^standard_r4 +standard:rank=4,alpha=8 +16,384 +[0-9.e-]+ +4 +$(printf "%.4f +%d" $best) +-?[0-9.]+ ± [0-9.]+\$" table # 4 blocks, 4 targets, 2 matrices of 4 x 128
    grep -E "^unfinished +standard:rank=16,alpha=16 to_q,to_v +32,768 +[0-9.e-]+ +6 so far +[0-9.]+ +0 +0.0000 ± 0.0000\$" table
    grep -E "^no_val +standard:rank=16,alpha=16 +65,536 +[0-9.e-]+ +6 +- +- +-\$" table
    [ "$(sed "s/±/+/" table | awk "{ print length }" | sort -u | wc -l)" = 1 ]'
ok 'a run that found nothing better than where it began says so' '
    trained runs/idle 4 --lr 0 --val store --eval-every 2
    plot --table runs/standard_r4 runs/idle >table
    [ "$(tail -n 1 table)" = "idle: no evaluation was better than that before the first step; its best adapter is the untrained one." ]
    rm -r runs/idle'
ok 'the same as JSON' '
    plot --table --json runs/standard_r4 runs/no_val >table.jsonl
    [ "$(wc -l <table.jsonl)" = 2 ]
    head -n 1 table.jsonl | grep "\"run\":\"standard_r4\",\"adapter\":{.*\"rank\":4,.*\"variant\":\"standard\".*},\"objective\":\"v\",\"parameters\":16384,\"step_s\":[0-9.e-]*,\"steps\":4,\"finished\":true,\"best_val_loss\":"
    tail -n 1 table.jsonl | grep "\"best_val_loss\":null,\"best_step\":null,\"gain\":null,\"gain_se\":null,\"computed_on\":\[{\"on\":\"CPU, OpenBLAS [^\"]*\",\"step\":0}\]}"'
ok 'a run that went on on another device says so, in the table and when it does' '
    OPENBLAS_CORETYPE=Nehalem train-step -m random:tiny --device cpu --warmup 0 --max-steps 2 --state moved <clips.mp >/dev/null 2>err
    plot --table --json moved | grep -q "for Nehalem" || { echo "this OpenBLAS has kernels of one kind alone"; exit 77; }
    fails 1 grep "computed on" err
    steps_by() { OPENBLAS_CORETYPE=$1 train-step -m random:tiny --device cpu --warmup 0 --max-steps 9 --save-every 2 --state moving 2>err >/dev/null; }
    draw --count 2 store >two.mp; steps_by Nehalem <two.mp
    draw --count 4 store >four.mp; steps_by Haswell <four.mp
    grep "the steps so far were computed on CPU, OpenBLAS .* for Nehalem.*, those to come on CPU, OpenBLAS .* for Haswell" err
    plot --table moving moved >table
    [ "$(grep -c "not the bytes" table)" = 1 ]
    grep "^moving: to step 2 on CPU, OpenBLAS [^ ]* for Nehalem.*, then to step 4 on CPU, OpenBLAS [^ ]* for Haswell.*; not the bytes" table'
ok 'a run that is none is named, and the others are listed' '
    fails 1 plot --table runs/gone runs/no_val >table; grep "runs/gone/state.safetensors: " err; grep "^no_val" table
    cp -r runs/standard_r4 runs/odd; cp runs/odd/best.safetensors runs/odd/state.safetensors
    fails 1 plot --table runs/odd >table; grep "odd/state.safetensors: its header is not a training state" err
    cp runs/no_val/*.safetensors runs/odd/; cp runs/odd/last.safetensors runs/odd/best.safetensors
    fails 1 plot --table --json runs/odd >table; grep "odd/best.safetensors: its header tells no step and validation loss" err; [ ! -s table ]
    fails 1 plot --table runs/no_val >/dev/full; grep "No space" err'
ok 'two of one name, and names that would break a line' '
    mkdir -p again; cp -r runs/no_val again/; mv again/no_val "again/a
b"; cp -r runs/no_val again/
    plot --table runs/no_val again/no_val "again/a
b" >table; grep "^runs/no_val " table; grep "^again/no_val " table; grep "^a?b " table'
ok 'a table is no picture' 'for o in "-o x.png" "--size 3x3" "--format png"; do fails 2 plot --table $o runs/no_val >out; done; fails 2 plot --json one >out; fails 2 plot --table <one/metrics.jsonl >out; [ ! -s out ]'

# comparison NAME...: as compare would say it of these runs, the first the base
comparison() {
    printf '{"n":9,"base":"%s","variants":{' "$1"
    i=0
    for name in "$@"; do
        [ "$i" = 0 ] || printf ,
        printf '"%s":{"joint_pct":2%d.5,"sa_mean":3.25,"pc_mean":3.5,"sa_ge4_pct":30,"pc_ge4_pct":60,"ci":{"joint_pct":[20.5,30.5],"sa_mean":[3,3.5],"pc_mean":[3.25,3.75]}' "$name" $((i % 10))
        [ "$i" = 0 ] || printf ',"vs_base":{"joint":{"b":1,"c":2,"p_exact":1,"chi2":0,"p_chi2":1,"p_holm":1,"delta_pp":%d.25,"ci_low_pp":-2.5,"ci_high_pp":9.5,"detectable_pp":3.5},"sa":{"delta":0.125,"ci_low":-0.25,"ci_high":0.5},"pc":{"delta":0,"ci_low":0,"ci_high":0}}' "$i"
        printf '}'
        i=$((i + 1))
    done
    echo '}}'
}
ok 'a comparison as bars, and as a forest, with the values beside them' '
    need gnuplot; need ffprobe
    comparison base k1 k5 >c.json
    plot --kind bars -o a.svg c.json
    for text in base k1 k5 20.50 21.50 22.50 3.250 3.500 "Joint %"; do grep ">$text<" a.svg; done
    plot --kind forest -o b.svg <c.json
    for text in k1 k5 "+1.25 \[-2.50, +9.50\]" "+2.25 \[-2.50, +9.50\]" "+0.125 \[-0.250, +0.500\]" "+0.000 \[+0.000, +0.000\]"; do grep ">$text<" b.svg; done
    fails 1 grep ">base<" b.svg
    plot --kind bars -o a.png c.json; png a.png 1400,172; plot --kind forest c.json >b.png; png b.png 1400,143
    plot --kind forest --size 640x300 -o c.png c.json; png c.png 640,300; plot --kind forest c.json | cmp - b.png'
ok 'a PDF, of its size, the same bytes again' '
    need gnuplot; comparison base k1 >c.json
    plot -o a.pdf one two; head -c 5 a.pdf | grep -a "%PDF-"; grep -a "MediaBox.* 1050 675 " a.pdf
    plot --kind forest --size 960x480 -o b.pdf c.json; grep -a "MediaBox.* 720 360 " b.pdf
    sleep 1.1; plot --format pdf one two | cmp - a.pdf; plot --kind forest --size 960x480 --format pdf c.json | cmp - b.pdf
    need pdftotext; pdftotext b.pdf - | grep "+1.25 \[-2.50, +9.50\]"'
ok 'no text leaves its picture or lies on another, whatever the names, the runs and the size' '
    need gnuplot; need chromium
    comparison base r16 transformer_r16_alpha_32 gdn_cssm_r16_k1 gdn_cssm_r16_k5 gdn_cssm_r16_k5_rope_dk4_with_a_long_name standard_r64_all_targets >c.json
    sed "s/9.5,/1.25,/g; s/-2.5,/1.25,/g; s/\"delta\":0,/\"delta\":-0.5,/g" c.json >edge.json
    for kind in bars forest; do
        for size in 1400x500 1000x700 640x500; do plot --kind $kind --size $size -o a.svg c.json; laid_out a.svg 1500; done
        plot --kind $kind -o a.svg edge.json; laid_out a.svg 1500
    done
    for i in 1 2 3 4 5 6; do run lr/gdn_cssm_r16_k${i}_with_a_long_name 30; done; run lr/short 200
    plot -o a.svg lr/*; laid_out a.svg 1500; plot --size 800x600 -o a.svg lr/*; laid_out a.svg 1500'
ok 'what compare writes is what plot reads' '
    need gnuplot
    for i in 1 2 3 4 5 6; do echo "{\"key\":\"$i\",\"sa\":$((i % 5 + 1)),\"pc\":4}"; done >s.jsonl
    sed "s/\"pc\":4/\"pc\":3/" s.jsonl >t.jsonl
    compare --base s --format json s.jsonl t.jsonl u=s.jsonl >c.json; plot --kind bars -o a.svg c.json; plot --kind forest -o b.svg c.json
    grep ">33.33<" a.svg; grep ">-33.33 " b.svg; grep ">u<" b.svg'
ok 'a comparison without --kind is told which there are, however it is laid out and wherever it comes from' '
    comparison base k1 >c.json; sed "s/,/,\n /g" c.json >lines.json
    for file in c.json lines.json; do fails 1 plot -o none.png $file; grep -x "plot: $file: a comparison: say which picture of it with --kind bars or --kind forest" err; [ ! -e none.png ]; done
    cat lines.json | fails 1 plot >out; grep "stdin: a comparison: .*--kind bars" err; [ ! -s out ]
    fails 1 plot -o none.png one c.json; grep "c.json: a comparison" err'
ok 'a comparison without intervals of its own, of many runs, of long names' '
    need gnuplot
    comparison base k1 | sed "s/,\"ci\":{[^}]*}//g; s/,\"detectable_pp\":3.5/,\"detectable_pp\":null/" >c.json; plot --kind bars -o a.svg c.json; plot --kind forest -o b.svg c.json; grep ">21.50<" a.svg
    comparison r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 >c.json; plot --kind forest -o a.svg c.json; grep ">r14<" a.svg
    comparison base "a name of forty characters, so many are none" "éééééééééééééééééééééééééééééééééééééééé" >c.json; plot --kind bars -o a.svg c.json
    grep ">a name of forty characters, so many …<" a.svg; grep ">éééééééééééééééééééééééééééééééééééé…<" a.svg'
ok 'no name of a run means anything to gnuplot' '
    need gnuplot
    comparison "\$(touch hit)" "\`touch hit\`" "a\\\"; system \\\"touch hit\\\"; \\\"" "a'\''b" "@m" "a^{big}_x &{y}" "%s%n %d" "back\\\\slash" "a & <b>" "café ± 物理" "tab\\tline\\ntwo" "END" "" "k=5+16" >c.json
    for kind in bars forest; do
        plot --kind $kind -o $kind.svg c.json; plot --kind $kind -o $kind.png c.json; [ ! -e hit ]
        grep -F "a^{big}_x &amp;{y}" $kind.svg; grep -F "a &amp; &lt;b" $kind.svg; grep -F "@m" $kind.svg; grep -F "back\\slash" $kind.svg; grep -F "%s%n %d" $kind.svg
        grep -F "a'\''b" $kind.svg; grep -F "tab?line?two" $kind.svg; grep -F "touch hit" $kind.svg; grep -F "café ± 物理" $kind.svg; grep -F ">k=5+16<" $kind.svg
    done'
ok 'what is no comparison is said to be none' '
    comparison base k1 >good.json
    while read -r change words; do
        sed "$change" good.json >c.json; fails 1 plot --kind bars -o none.png c.json; grep "c.json: .*$words" err; [ ! -e none.png ]
    done <<END
s/"n":9,// no n
s/"base":"base",// no base
s/"base":"base"/"base":"k2"/ no variant of that name
s/"pc_mean":3.5,// not a comparison: .base. has no pc_mean
s/"delta_pp":1.25/"delta_pp":"1"/ .k1. has no delta_pp
s/"vs_base".*/"v":1}}}/ .k1. has no b
s/}}$// line 2:
s/$/x/ line 1:
s/"k1"/"base"/ duplicate object key
END
    fails 1 plot --kind bars one/metrics.jsonl >out; [ ! -s out ]; comparison base >c.json; fails 1 plot --kind forest c.json >out; grep "nothing but the base" err
    plot --kind bars c.json >out; fails 1 plot --kind bars gone.json >out; grep "gone.json: No such file" err; fails 1 plot --kind bars . >out; grep "[.]: .*Is a directory" err
    fails 2 plot --kind bars c.json good.json >out; fails 2 plot --table --kind bars runs/no_val >out; fails 2 plot --kind pie c.json >out; [ ! -s out ]'

ok 'a bad line is named' '
    while read -r line; do
        printf "%s\n" "{\"step\":3,\"loss\":1}" "$line" >bad.jsonl
        fails 1 plot -o bad.png bad.jsonl; grep "bad.jsonl: line 2: " err; [ ! -e bad.png ]
    done <<END
{"step":4
[1]
nonsense

{"step":4}
{"loss":1}
{"step":-1,"loss":1}
{"step":"4","loss":1}
{"step":3,"loss":1}
{"step":4,"loss":"1"}
{"step":4,"loss":NaN}
{"step":4,"loss":1,"val_loss":1}
{"step":4,"loss":1,"step":5}
{"step":4,"loss":1} x
END'
ok 'a run with no steps yet is said to be one' ': >none.jsonl; fails 1 plot -o none.png none.jsonl; grep "none.jsonl: no steps yet" err; [ ! -e none.png ]'
ok 'a file that is not there' 'fails 1 plot -o gone.png one gone; grep "gone: No such file" err; fails 1 plot -o gone.png w; grep "w/metrics.jsonl" err; [ ! -e gone.png ]'
ok 'without gnuplot: one line, no file' '
    program=$(command -v plot)
    (PATH=/nonexistent; fails_here=0; "$program" -o no.png one 2>err || fails_here=$?; [ $fails_here = 1 ])
    [ "$(wc -l <err)" = 1 ]; grep "no.png: gnuplot: .*is it installed" err
    for left in no.png .tmp-*; do [ ! -e "$left" ]; done'
ok 'a gnuplot that fails is quoted, and the old picture stands' '
    mkdir fake; printf "#!/bin/sh\necho half\necho \"  line 1: it went wrong\" >&2\nexit 3\n" >fake/gnuplot; chmod +x fake/gnuplot
    echo old >old.png
    (PATH=$PWD/fake:$PATH; fails 1 plot -o old.png one); grep "gnuplot: line 1: it went wrong" err; [ "$(cat old.png)" = old ]
    printf "#!/bin/sh\nexit 0\n" >fake/gnuplot
    (PATH=$PWD/fake:$PATH; fails 1 plot -o old.png one); grep "drew nothing" err; [ "$(cat old.png)" = old ]
    printf "#!/bin/sh\nkill -9 \$\$\n" >fake/gnuplot
    (PATH=$PWD/fake:$PATH; fails 1 plot -o old.png one); grep "ended badly" err; [ "$(cat old.png)" = old ]
    for left in .tmp-*; do [ ! -e "$left" ]; done'
ok 'a full disk is noticed' '
    need gnuplot
    fails 1 plot one >/dev/full; grep "No space" err
    (trap "" XFSZ; ulimit -f 20; fails 1 plot -o big.png one); [ ! -e big.png ]
    fails 1 plot -o /dev/full one; grep "not a regular file" err'
ok 'wrong usage' 'fails 2 plot --format gif one >out; fails 2 plot --size 3 one >out; [ ! -s out ]'
finish
