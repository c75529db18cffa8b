#!/bin/sh
# grade: videos from files and from records, what is asked and how it is told, the driver's CSV, taking up what was done.
# shellcheck disable=SC1091,SC2016,SC2034,SC2154 # ok evaluates its text; lib.sh sets $shared
. "${0%/*}/lib.sh"
model=random:owl-tiny:4 # of this seed, some answers begin with a digit, and some hold none
few='--frames 4 --max-new-tokens 4' side=56 # the preset's square

# fields NAME <lines: that field of each, as JSON.
fields() { perl -MJSON::PP -ne 'BEGIN { $j = JSON::PP->new->allow_nonref->canonical; $name = shift } print $j->encode($j->decode($_)->{$name}), "\n"' "$1"; }
# shellcheck disable=SC2086 # $few is a list of words
grader() { grade -m "$model" --device cpu --threads 1 $few "$@"; }

tensor-gen --name video --dtype u8 --fill uniform --shape 6,32,48,3 --count 20 --key clip >videos.mp
encode-mp4 -o videos <videos.mp >list.jsonl
n=0
while read -r line; do
    n=$((n + 1))
    echo "${line%\}},\"caption\":\"clip $n, with a \\\"quote\\\"\",\"rule\":\"rule $n holds\"}"
done <list.jsonl >clips.jsonl
grader --task sa,pc,rule <clips.jsonl >all.jsonl 2>all.err

ok 'each video has its line, in order, with what came in and what was found' '
    cat all.err
    [ "$(wc -l <all.jsonl)" = 20 ]
    for field in key path caption fps frames; do
        fields $field <all.jsonl >a; fields $field <clips.jsonl >b; cmp a b
    done
    fields rule_asked <all.jsonl >a; fields rule <clips.jsonl >b; cmp a b
    perl -MJSON::PP -ne "\$l = decode_json(\$_);
        for \$t (qw(sa pc rule)) {
            die qq(\$t: \$l->{\$t}) if \$l->{\$t} !~ /^[0-5]\$/;
            die qq(\$t: no text) if !defined \$l->{qq(\${t}_text)};
            die qq(\$t: fell back to \$l->{\$t}) if \$l->{qq(\${t}_fallback)} && \$l->{\$t};
            \$p = \$l->{qq(\${t}_probs)} or next;
            die qq(\$t: not six) if @\$p != 6;
            \$sum = \$mean = 0;
            \$sum += \$p->[\$_], \$mean += \$_ * \$p->[\$_] for 0 .. 5;
            die qq(\$t: \$sum in all) if \$sum <= 0 || \$sum > 1.000001;
            die qq(\$t: \$mean / \$sum) if abs(\$mean / \$sum - \$l->{qq(\${t}_expected)}) > 1e-9;
            \$digits++ }
        }{ die qq(\$digits of 60 with a digit) if \$digits < 1 || \$digits > 59" all.jsonl
    fields grade <all.jsonl | sort -u >how
    [ "$(wc -l <how)" = 1 ]
    grep "\"frames\":4" how
    grep "\"model\":\"[0-9a-f]\{16\}\"" how'

ok 'not all videos look the same to it' '
    for field in sa_text sa_probs pc_text pc_probs; do fields $field <all.jsonl | sort -u; done >seen
    [ "$(wc -l <seen)" -gt 4 ]'

ok 'what was asked before does not matter: in reverse, one at a time, one task at a time' '
    tac clips.jsonl | grader --task sa,pc,rule | tac >reverse.jsonl
    cmp all.jsonl reverse.jsonl
    while read -r line; do echo "$line" | grader --task sa,pc,rule; done <clips.jsonl >single.jsonl
    cmp all.jsonl single.jsonl
    for task in sa pc rule; do
        grader --task $task <clips.jsonl >$task.jsonl
        for field in $task ${task}_text ${task}_probs; do
            fields $field <$task.jsonl >a; fields $field <all.jsonl >b; cmp a b
        done
    done
    fails 1 grep "\"pc" sa.jsonl
    grader --task rule,sa <clips.jsonl >two.jsonl
    for field in sa_text sa_probs rule_text rule_probs; do
        fields $field <two.jsonl >a; fields $field <all.jsonl >b; cmp a b
    done'

ok 'video records: of any size, and of any number of frames' '
    grader --task pc <videos.mp >records.jsonl
    [ "$(wc -l <records.jsonl)" = 20 ]
    fails 1 grep "\"path\"" records.jsonl
    for shape in 1,1,1 1,300,7 33,20,20; do
        tensor-gen --name video --dtype u8 --fill ramp --shape $shape,3 | grader --task pc >one.jsonl
        grep "\"pc\":[0-5]" one.jsonl
    done'

ok 'frames are the same video in a file and in a record' '
    need ffmpeg
    ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=${side}x$side:d=1:r=9 -pix_fmt rgb24 -c:v rawvideo -y rgb.nut
    echo "{\"key\":\"x\",\"path\":\"rgb.nut\",\"caption\":\"a test\"}" >rgb.jsonl
    decode --frames 9 --size ${side}x$side <rgb.jsonl >rgb.mp
    grader <rgb.jsonl >file.jsonl
    grader <rgb.mp >record.jsonl
    for field in sa sa_text sa_probs pc pc_text pc_probs; do
        fields $field <file.jsonl >a; fields $field <record.jsonl >b; cmp a b
    done'

ok 'a folder on disk is the random model that it was made from' '
    model-init --seed 4 owl-tiny owl
    head -n 3 clips.jsonl >three
    grader -m owl <three >folder.jsonl
    head -n 3 all.jsonl >random.jsonl
    for field in sa sa_text sa_probs pc pc_text pc_probs; do
        fields $field <folder.jsonl >a; fields $field <random.jsonl >b; cmp a b
    done
    rm owl/tokenizer.model
    fails 1 grader -m owl <three
    grep "tokenizer.model" err'

ok 'its stdin may be a pipe of frames: decode | grade' '
    head -n 2 clips.jsonl >two
    decode --frames 6 --size 48x32 <two | grader --csv piped.csv --columns caption,videopath >piped.jsonl
    [ "$(wc -l <piped.jsonl)" = 2 ]
    grep "^0,.*,videos/clip0.mp4,[0-5].0$" piped.sa.csv'

ok 'real clips, with a table for each task' '
    need shared
    curate --no-filter --videos "$shared/data/clips" "$shared/data/clips/clips.csv" >real.jsonl
    grade -m "$model" --device cpu --max-new-tokens 4 --csv real.csv <real.jsonl >real-out.jsonl
    [ "$(wc -l <real-out.jsonl)" = 6 ]
    for task in sa pc; do
        head -n 1 real.$task.csv | grep -x ",videopath,caption,score"
        [ "$(wc -l <real.$task.csv)" = 7 ]
        sed "1d; s/.*,//; s/\.0$//" real.$task.csv >a; fields $task <real-out.jsonl >b; cmp a b
        grep "^3,.*/pot\.mp4,\"A large, heavy pot .* in place\.\",[0-5]\.0$" real.$task.csv
    done'

ok 'one task: the table is the file itself; what was there is replaced' '
    echo old >one.csv
    head -n 3 clips.jsonl | grader --task rule --csv one.csv --columns videopath,rule >out
    [ "$(echo one*.csv)" = one.csv ]
    head -n 1 one.csv | grep -x ",videopath,rule,score"
    grep "^2,videos/clip2.mp4,rule 3 holds,[0-5]\.0$" one.csv
    [ "$(wc -l <one.csv)" = 4 ]'
ok 'a column that no record has is said' '
    head -n 2 clips.jsonl | grader --task pc --csv few.csv --columns videopath,captoin >out 2>err
    grep -x "grade: few.csv: no record has .captoin.: its column is empty" err
    head -n 1 few.csv | grep -x ",videopath,captoin,score"
    head -n 2 clips.jsonl | grader --task pc --csv few.csv --columns path,score >out 2>err
    fails 1 grep "no record" err'

# A run that is cut off somewhere and taken up leaves what one run leaves.
ok 'taken up anywhere, appending: the same lines, the same tables' '
    grader --csv whole.csv <clips.jsonl >whole.jsonl
    size=$(wc -c <whole.jsonl)
    for cut in 0 1 $((size / 3)) $((size - 1)) $size; do
        head -c $cut whole.jsonl >part.jsonl
        lines=$(wc -l <part.jsonl)
        bytes=$((cut - $(head -n $lines whole.jsonl | wc -c)))
        rm -f part.sa.csv part.pc.csv
        grader --done part.jsonl --csv part.csv <clips.jsonl >>part.jsonl 2>err
        cmp whole.jsonl part.jsonl
        for task in sa pc; do cmp whole.$task.csv part.$task.csv; done
        grep "^grade: part.jsonl: $lines done before" err
        grep "^grade: part.jsonl: its last line was cut off after $bytes bytes" err || [ $bytes = 0 ]
        grep -c "cut off" err >n || true
        [ "$(cat n)" = $((bytes > 0)) ]
    done
    rm part.jsonl
    grader --done part.jsonl <clips.jsonl >part.out 2>err
    cmp whole.jsonl part.out'

ok 'two on one file: the second says so and adds nothing; equal lines, as two may have left them, count once' '
    head -n 2 whole.jsonl >shared.jsonl
    mkfifo list
    grader --done shared.jsonl <list >>shared.jsonl 2>first.err &
    first=$!
    exec 3>list
    head -n 3 clips.jsonl >&3
    while kill -0 $first && [ "$(wc -l <shared.jsonl)" -lt 3 ]; do sleep 0.05; done # it is at work, and waits for the rest
    fails 1 grader --done shared.jsonl <clips.jsonl >>shared.jsonl
    grep -x "grade: shared.jsonl: another grade is at work on it" err
    tail -n +4 clips.jsonl >&3
    exec 3>&-
    wait $first
    cmp whole.jsonl shared.jsonl
    { cat whole.jsonl; tail -n 3 whole.jsonl; } >doubled.jsonl
    grader --done doubled.jsonl <clips.jsonl >more.jsonl 2>err
    [ ! -s more.jsonl ]; grep "20 done before" err'

ok 'what is done is not looked at again; into another file goes only what is new' '
    head -n 12 whole.jsonl >twelve.jsonl
    printf "{\"key\":\"videos" >>twelve.jsonl
    cp twelve.jsonl before
    mkdir hidden
    mv videos/clip0.mp4 videos/clip11.mp4 hidden
    grader --done twelve.jsonl <clips.jsonl >rest.jsonl
    mv hidden/* videos
    cmp twelve.jsonl before
    tail -n 8 whole.jsonl | cmp - rest.jsonl'

ok 'lines of another run are refused, with what differs' '
    head -n 2 clips.jsonl >two
    grader --frames 3 <two >frames.jsonl
    fails 1 grader --done frames.jsonl <clips.jsonl
    grep "frames.jsonl: line 1: made with another .frames." err
    grader -m random:owl-tiny:7 <two >other.jsonl
    fails 1 grader --done other.jsonl <clips.jsonl
    grep "other.jsonl: line 1: made with another .model." err
    fails 1 grader --done pc.jsonl <clips.jsonl
    grep "pc.jsonl: line 1: no score .sa." err
    fails 1 grader --done clips.jsonl <clips.jsonl
    grep "clips.jsonl: line 1: no line of grade" err
    fails 1 grader --done . <clips.jsonl
    grep "Is a directory" err
    sed "1s/clip 1, /clip one, /; 2s,videos/clip1.mp4,videos/clip0.mp4," clips.jsonl >changed.jsonl
    fails 1 grader --done whole.jsonl <changed.jsonl >changed.out
    cat err
    [ ! -s changed.out ]
    grep "^grade: clip0: whole.jsonl has it with another .caption." err
    grep "^grade: clip1: whole.jsonl has it with another .path." err
    grep "2 failed, 0 done" err'

ok 'what cannot be graded is named and counted, and the rest comes through' '
    head -c 3000 videos/clip3.mp4 >cut.mp4
    mkdir folder.mp4
    good="\"path\":\"videos/clip0.mp4\""
    {
        echo "{\"key\":\"one\",$good,\"caption\":\"c\"}"
        echo "{\"key\":\"missing\",\"path\":\"nowhere.mp4\",\"caption\":\"c\"}"
        echo "{\"key\":\"cut\",\"path\":\"cut.mp4\",\"caption\":\"c\"}"
        echo "{\"key\":\"folder\",\"path\":\"folder.mp4\",\"caption\":\"c\"}"
        echo "{\"key\":\"pathless\",\"caption\":\"c\"}"
        echo "{\"key\":\"mute\",$good}"
        echo "{\"key\":\"empty\",$good,\"caption\":\"\"}"
        echo "{\"key\":\"null\",$good,\"caption\":null}"
        echo "{\"key\":\"number\",$good,\"caption\":4}"
        echo "{\"key\":\"video\",$good,\"caption\":\"a <|video|> in it\"}"
        echo "{\"key\":\"one\",$good,\"caption\":\"c\"}"
        echo "no JSON at all"
        echo "{\"key\":\"two\",$good,\"caption\":\"c\"}"
    } >mixed.jsonl
    fails 1 grader --csv mixed.csv <mixed.jsonl >mixed.out
    cat err
    fields key <mixed.out >keys
    printf "\"one\"\n\"empty\"\n\"two\"\n" | cmp - keys
    [ "$(wc -l <mixed.sa.csv)" = 4 ]
    grep "^2,videos/clip0.mp4,c,[0-5]\.0$" mixed.sa.csv
    grep -F "grade: missing: No such file or directory" err
    grep -F "grade: cut: the file is cut short" err
    grep -F "grade: folder: Is a directory" err
    grep -F "grade: pathless: neither a video nor a \`path\` to one" err
    for key in mute null number; do grep -F "grade: $key: no \`caption\`, which sa asks about" err; done
    grep "^grade: video: .*<|video|>" err
    grep -F "grade: one: duplicate key: the first one counts (a \`key\` of its own tells a line apart)" err
    grep "^grade: stdin: line 12: " err
    grep -F "grade: 10 failed, 3 done" err
    fails 1 grader --task rule <mixed.jsonl >out
    grep -F "grade: one: no \`rule\`, which rule asks about" err
    fails 1 grader --strict <mixed.jsonl >out
    [ "$(grep -c "^grade: [a-z]*: " err)" = 1 ]
    [ "$(wc -l <out)" = 1 ]'

ok 'videos decoded ahead change no byte, nor the order of what is said' '
    for t in 1 3 8; do
        grader --threads $t --csv ahead$t.csv <mixed.jsonl >ahead$t.jsonl 2>ahead$t.err && false || [ $? = 1 ]
        grader --threads $t --strict <mixed.jsonl >first$t.jsonl 2>first$t.err && false || [ $? = 1 ]
    done
    cmp mixed.out ahead1.jsonl
    for t in 3 8; do
        for kind in jsonl err sa.csv pc.csv; do cmp ahead1.$kind ahead$t.$kind; done
        for kind in jsonl err; do cmp first1.$kind first$t.$kind; done
    done'

ok 'records that hold no video are refused' '
    for shape in 0,8,8,3 2,0,8,3 2,8,8,1 2,8,8,4; do
        tensor-gen --name video --dtype u8 --shape $shape >odd.mp
        fails 1 grader --task pc <odd.mp >out
        grep "^grade: gen: its video is not U8 \[F,H,W,3\]" err
    done
    for more in "--dtype f32 --shape 2,8,8,3" "--dtype u8 --shape 8,8,3"; do
        tensor-gen --name video $more >odd.mp
        fails 1 grader --task pc <odd.mp >out
        grep "^grade: gen: its video is not U8 \[F,H,W,3\]" err
    done
    tensor-gen --name other --shape 2 >odd.mp
    fails 1 grader --task pc <odd.mp >out
    grep "neither a video nor" err'

cat >captions <<'END'
`touch harm` $(touch harm) ${HOME} $HOME
a \"quoted\" text, with \"\"two\"\" quotes
back\\slashes \\n and a line\nend, a tab\tand \u0001
{caption} %s %n {} <s> </s> <unk>
d\u00e9j\u00e0 vu, \u65e5\u672c\u8a9e, \ud83d\ude00
NA
; rm -rf harm | cat > harm
END
ok 'captions of all kinds harm nothing' '
    n=0
    while read -r text; do
        n=$((n + 1))
        printf "{\"key\":\"c%d\",\"path\":\"videos/clip0.mp4\",\"caption\":\"%s\"}\n" $n "$text"
    done <captions >hostile.jsonl
    grader --csv hostile.csv <hostile.jsonl >hostile.out
    fields caption <hostile.out >a; fields caption <hostile.jsonl >b; cmp a b
    [ "$(wc -l <hostile.out)" = 7 ]
    [ ! -e harm ]
    grep "^1,videos/clip0.mp4,\"a \"\"quoted\"\" text, with \"\"\"\"two\"\"\"\" quotes\",[0-5]\.0$" hostile.sa.csv
    grep "^5,videos/clip0.mp4,,[0-5]\.0$" hostile.sa.csv'

ok 'wrong usage says so' '
    for task in "" , sa, sa,,pc sapc SA "sa pc" all; do
        fails 2 grader --task "$task" <clips.jsonl
        grep "task is a list of sa, pc and rule" err
    done
    fails 2 grader --task sa,pc,sa <clips.jsonl
    grep "names sa twice" err
    fails 2 grader --frames 1 <clips.jsonl
    fails 2 grader --max-new-tokens 0 <clips.jsonl
    fails 2 grader --frames-from decord <clips.jsonl
    fails 2 grader --columns caption <clips.jsonl
    fails 2 grader --rope f32 <clips.jsonl
    fails 2 grader --logits no <clips.jsonl
    fails 2 grade <clips.jsonl
    grep "model is required" err
    fails 1 grader --csv nowhere/x.csv <clips.jsonl
    grep "nowhere/x.sa.csv: No such file" err
    fails 1 grader --csv /dev/null --task pc <clips.jsonl
    grep "not a regular file" err
    fails 1 grader --lora nowhere.safetensors <clips.jsonl
    grep nowhere.safetensors err
    fails 1 grade -m nowhere <clips.jsonl'

ok 'settings are told, and do something' '
    head -n 1 clips.jsonl >first
    grader --rope exact --logits exact <first >exact.jsonl
    grep "\"rope\":\"exact\"" exact.jsonl
    grep "\"logits\":\"exact\"" exact.jsonl
    grader --max-new-tokens 1 <first >short.jsonl
    grep "\"max-new-tokens\":1" short.jsonl
    head -n 1 all.jsonl | fields pc_text | tr -d \" | head -c -1 >long
    fields pc_text <short.jsonl | tr -d \" | head -c -1 >short
    head -c "$(wc -c <short)" long | cmp - short'

same() { for field in sa_text sa_probs pc_text pc_probs; do fields "$field" <"$1" >a; fields "$field" <"$2" >b; cmp a b || return 1; done; }

# What upstream looks at is what libswscale makes of a file without any flag for exactness: ffmpeg with these flags. A raw clip of
# the square's size is looked at as it is.
as_upstream() { ffmpeg -nostdin -v error -noautorotate -i "$1" -vf "$2,scale=$side:$side:flags=bilinear" -sws_flags bilinear -pix_fmt rgb24 -c:v rawvideo -y theirs.nut; }
asked() { echo "{\"key\":\"k\",\"path\":\"$1\",\"caption\":\"a test\"}"; }
ok 'frames of a file are upstream'\''s by default, and exact ones by --frames-from exact' '
    need ffmpeg
    for format in yuv420p yuv444p yuv422p; do
        ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=161x121:d=1:r=9 -pix_fmt $format -y any.mp4
        as_upstream any.mp4 null
        asked theirs.nut | grader >theirs.jsonl
        asked any.mp4 | grader >ours.jsonl
        same ours.jsonl theirs.jsonl
        grep "\"frames-from\":\"upstream\"" ours.jsonl
        [ $format = yuv420p ] || continue
        asked any.mp4 | grader --frames-from exact >exact.jsonl
        grep "\"frames-from\":\"exact\"" exact.jsonl
        [ "$(fields sa_probs <exact.jsonl)" != "$(fields sa_probs <ours.jsonl)" ]
    done'
ok 'so are those of turned clips: turned first, then scaled' '
    need ffmpeg
    turned() {
        perl -e "local \$/; \$_ = <STDIN>; my \$at = index(\$_, q(tkhd)) + 44; \$at > 44 or die;
            substr(\$_, \$at, 8) = pack(q(l>2), $1 * 65536, $2 * 65536);
            substr(\$_, \$at + 12, 8) = pack(q(l>2), $3 * 65536, $4 * 65536); print" <any.mp4 >turned.mp4
        as_upstream any.mp4 "$5"
        asked theirs.nut | grader >theirs.jsonl
        asked turned.mp4 | grader >ours.jsonl
        same ours.jsonl theirs.jsonl
    }
    for format in yuv420p yuv422p; do
        ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=161x121:d=1:r=9 -pix_fmt $format -y any.mp4
        turned 0 1 -1 0 transpose=clock
        turned -1 0 0 -1 transpose=clock,transpose=clock
        turned 0 -1 1 0 transpose=cclock
        turned 1 0 0 -1 null
        turned -1 0 0 1 transpose=clock,transpose=clock
    done'
ok 'an answer may be as long as the prompt leaves of 256 tokens; a prompt of 256 has no upstream score, and is said to' '
    words() { awk -v n="$1" "BEGIN { while (n--) printf \"ball \" }"; }
    for n in 1 20 120; do echo "{\"key\":\"k$n\",\"path\":\"videos/clip0.mp4\",\"caption\":\"$(words $n)\"}"; done >lengths.jsonl
    grade -m "$model" --device cpu --frames 4 --task sa <lengths.jsonl >long.jsonl 2>err
    grade -m "$model" --device cpu --frames 4 --task sa --max-new-tokens 256 <lengths.jsonl >longer.jsonl 2>err2
    grep "\"max-new-tokens\":null" long.jsonl
    [ "$(fields sa_too_long <long.jsonl | tr "\n" " ")" = "null null true " ]
    grep "^grade: k120: its prompt for sa has [0-9]* tokens: upstream has no score from 256 on" err
    [ "$(grep -c "upstream has no score" err)" = 1 ]
    # the beginning of the longest answers, and all of it where the prompt leaves nothing
    for n in 1 2 3; do
        fields sa_text <long.jsonl | sed -n "${n}p; ${n}q" | sed "s/ *\"\$//" >a
        fields sa_text <longer.jsonl | sed -n "${n}p; ${n}q" | sed "s/ *\"\$//" >b
        head -c "$(($(wc -c <a) - 1))" b >c; head -c "$(($(wc -c <a) - 1))" a | cmp - c
        echo "$(wc -c <a) $(wc -c <b)"
    done >sizes
    awk "NR < 3 ? \$1 > .8 * \$2 : \$1 != \$2 { exit 1 }" sizes'
ok 'what was computed in is told' '
    head -n 1 clips.jsonl | grader >first.jsonl
    grep "\"dtype\":\"f32\"" first.jsonl'
ok 'an empty caption, NA, null and nan are asked as nan, and their cells are empty' '
    for text in nan "" NA null; do echo "{\"key\":\"k$text\",\"caption\":\"$text\",\"path\":\"videos/clip0.mp4\"}"; done >missing.jsonl
    grader --task sa --csv missing.csv <missing.jsonl >missing.out
    [ "$(fields sa_probs <missing.out | sort -u | wc -l)" = 1 ]
    [ "$(fields sa_text <missing.out | sort -u | wc -l)" = 1 ]
    head -n 1 missing.csv | grep -x ",caption,videopath,score"
    [ "$(grep -c "^[0-3],,videos/clip0.mp4,[0-5].0$" missing.csv)" = 4 ]'
ok 'two rules for one path: a key tells them apart' '
    printf "{\"path\":\"videos/clip0.mp4\",\"rule\":\"%s\"}\n" one two >rules.jsonl
    fails 1 grader --task rule <rules.jsonl >out
    grep -F "duplicate key: the first one counts (a \`key\` of its own tells a line apart)" err
    printf "{\"key\":\"%s\",\"path\":\"videos/clip0.mp4\",\"rule\":\"%s\"}\n" 1 one 2 two >rules.jsonl
    grader --task rule <rules.jsonl >out
    [ "$(wc -l <out)" = 2 ]'

finish
