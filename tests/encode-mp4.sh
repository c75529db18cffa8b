#!/bin/sh
# encode-mp4: what the files are, that they repeat, and that nothing is lost, half-written or written elsewhere.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $shared
. "${0%/*}/lib.sh"

# Six frames of soft colours.
tensor-gen --name video --dtype u8 --fill ramp --shape 6,48,64,3 --key clip --meta caption='a ramp' --meta fps=30 >clip.mp
# probe FILE FIELD: what ffprobe says
probe() { ffprobe -v error -select_streams v -count_frames -show_entries "stream=$2" -of default=nw=1:nk=1 "$1"; }

ok 'the file is H.264 at 8 frames a second, with every frame, tagged with its colours' '
    need ffprobe
    encode-mp4 -o videos <clip.mp >list.jsonl
    [ "$(probe videos/clip.mp4 codec_name)" = h264 ] || { encode-mp4 --codec libx264 -o x <clip.mp || exit 77; exit 1; }
    [ "$(probe videos/clip.mp4 r_frame_rate)" = 8/1 ]
    [ "$(probe videos/clip.mp4 nb_read_frames)" = 6 ]
    [ "$(probe videos/clip.mp4 duration)" = 0.750000 ]
    [ "$(probe videos/clip.mp4 width,height | tr "\n" x)" = 64x48x ]
    [ "$(probe videos/clip.mp4 pix_fmt)" = yuv420p ]
    [ "$(probe videos/clip.mp4 color_space,color_transfer,color_primaries | sort -u)" = bt709 ]
    [ "$(probe videos/clip.mp4 color_range)" = tv ]'

ok 'without --fps: what sample says of the model, and not the source'"'"'s' '
    tensor-gen --name video --dtype u8 --shape 5,16,16,3 --key a --meta fps=30 --meta "sample={\"fps\":16.0}" >wan.mp
    encode-mp4 -o wan <wan.mp | grep -F "\"fps\":16.0"
    encode-mp4 -o wan --fps 12 <wan.mp | grep -F "\"fps\":12.0"
    tensor-gen --name video --dtype u8 --shape 5,16,16,3 --key a --meta fps=30 --meta "sample={\"fps\":-1}" | encode-mp4 -o wan | grep -F "\"fps\":8.0"'
ok '--fps is the file'"'"'s, and not the record'"'"'s' '
    need ffprobe
    encode-mp4 --fps 12.5 -o rate <clip.mp >list.jsonl
    [ "$(probe rate/clip.mp4 avg_frame_rate)" = 25/2 ]
    grep -F "\"fps\":12.5" list.jsonl
    encode-mp4 --fps 23.976 -o rate <clip.mp >list.jsonl
    [ "$(probe rate/clip.mp4 avg_frame_rate)" = 2997/125 ]'

ok 'the index comes first, so that a player can begin at once' '
    encode-mp4 -o first <clip.mp >/dev/null
    perl -0777 -ne "exit(index(\$_, q(moov)) > index(\$_, q(mdat)))" first/clip.mp4'

ok 'the list has key, path and what was known' '
    tensor-gen --name video --dtype u8 --shape 2,8,8,3 --key k --meta path=in/from.mp4 --meta prompt=p | encode-mp4 -o list/ >k.jsonl
    cat k.jsonl
    grep -F "\"key\":\"k\"" k.jsonl
    grep -F "\"path\":\"list/k.mp4\"" k.jsonl
    grep -F "\"source\":\"in/from.mp4\"" k.jsonl
    grep -F "\"prompt\":\"p\"" k.jsonl
    grep -F "\"frames\":2" k.jsonl
    [ -s list/k.mp4 ]'

ok 'there and back loses little' '
    tensor-gen --name video --dtype u8 --fill ramp --shape 6,48,64,3 --key k >k.mp
    encode-mp4 -o back <k.mp | decode --frames 6 --size 64x48 >back.mp
    tensor-eq --psnr 38 back.mp k.mp'

ok 'real frames come back, too' '
    need shared
    echo "{\"key\":\"k\",\"path\":\"$shared/data/clips/carpenter.mp4\"}" | decode --frames 9 >real.mp
    encode-mp4 -o real <real.mp | decode --frames 9 >again.mp
    tensor-eq --psnr 38 again.mp real.mp'

ok 'the same frames are the same bytes' '
    encode-mp4 -o one <clip.mp >/dev/null
    encode-mp4 -o two <clip.mp >/dev/null
    cmp one/clip.mp4 two/clip.mp4
    ! grep -a -i lavf one/clip.mp4'

ok 'whatever the number of processors' '
    need taskset
    taskset -c "$(taskset -cp $$ | sed "s/.*: *\([0-9]*\).*/\1/")" encode-mp4 -o three <clip.mp >/dev/null
    encode-mp4 -o four <clip.mp >/dev/null
    cmp three/clip.mp4 four/clip.mp4'

ok 'a duplicate key is an error, and the first file stands' '
    encode-mp4 -o once <clip.mp >/dev/null
    tensor-gen --name video --dtype u8 --fill zero --shape 2,8,8,3 --key clip >other.mp
    cat clip.mp other.mp >both.mp
    fails 1 encode-mp4 -o twice <both.mp >list.jsonl
    grep "clip: duplicate key" err
    [ "$(wc -l <list.jsonl)" = 1 ]
    cmp once/clip.mp4 twice/clip.mp4'

ok 'a key is a name, never a path' '
    mkdir -p deep/er
    tensor-gen --name video --dtype u8 --fill zero --shape 2,8,8,3 --key "../../x y/\$(touch z)" >evil.mp
    tensor-gen --name video --dtype u8 --fill zero --shape 2,8,8,3 --key .. >>evil.mp
    find . -type f ! -name list.jsonl ! -name before | sort >before
    encode-mp4 -o deep/er/videos <evil.mp >list.jsonl
    find . -type f ! -path "./deep/er/videos/*" ! -name list.jsonl ! -name before | sort | cmp - before
    ls -A deep/er/videos
    [ -s "deep/er/videos/%2E.%2F..%2Fx%20y%2F%24%28touch%20z%29.mp4" ]
    [ "$(find deep -type f | wc -l)" = 2 ]'

ok 'a key that makes too long a name is refused, and the rest comes through' '
    tensor-gen --name video --dtype u8 --fill zero --shape 2,8,8,3 --key "$(printf "%0300d" 0)" >long.mp
    cat clip.mp >>long.mp
    fails 1 encode-mp4 -o long <long.mp >list.jsonl
    grep "too long" err
    [ "$(ls -A long)" = clip.mp4 ]'

ok 'what is no video is refused by name, and the rest comes through' '
    {
        tensor-gen --name latents --shape 2,8,8,3 --key none
        tensor-gen --name video --dtype f32 --shape 2,8,8,3 --key floats
        tensor-gen --name video --dtype u8 --shape 2,8,8 --key flat
        tensor-gen --name video --dtype u8 --shape 2,8,8,4 --key four
        tensor-gen --name video --dtype u8 --shape 2,8,9,3 --key odd
        tensor-gen --name video --dtype u8 --shape 0,8,8,3 --key empty
        cat clip.mp
    } >mixed.mp
    need gnuplot
    fails 1 encode-mp4 --sheet mixed.png -o mixed <mixed.mp >list.jsonl
    cat err
    for key in none floats flat four odd empty; do grep "^encode-mp4: $key: " err; done
    grep "odd: .*even" err
    [ "$(wc -l <err)" = 7 ]
    [ "$(wc -l <list.jsonl)" = 1 ]
    [ "$(ls -A mixed)" = clip.mp4 ]'

ok 'another encoder' '
    need ffprobe
    encode-mp4 --codec mpeg4 -o other <clip.mp | decode --frames 6 --size 64x48 >other.mp
    [ "$(probe other/clip.mp4 codec_name)" = mpeg4 ]
    tensor-gen --name video --dtype u8 --fill ramp --shape 6,48,64,3 --key clip | tensor-eq --psnr 33 other.mp -
    fails 2 encode-mp4 --codec none -o other <clip.mp'

# rows FILE: of its first 1,520 columns, how many rows there are, and how many that are not white
rows() { ffmpeg -nostdin -v error -i "$1" -vf crop=1520:ih:0:0 -pix_fmt gray -f rawvideo - | od -An -v -tu1 -w1520 | awk '{ n++; for (i = 1; i <= NF; i++) if ($i < 200) { dark++; break } } END { print n, dark + 0 }'; }
ok 'the contact sheet has a row for each video, up to 40, with its key above it' '
    need ffprobe; need gnuplot
    tensor-gen --name video --dtype u8 --fill ramp --shape 3,48,64,3 --count 42 >many.mp
    encode-mp4 --sheet sheet.png -o many <many.mp >list.jsonl
    encode-mp4 --sheet again.png -o many <many.mp >list.jsonl
    cmp sheet.png again.png
    [ "$(wc -l <list.jsonl)" = 42 ]
    [ "$(probe sheet.png codec_name)" = png ]
    [ "$(probe sheet.png width)" = 1536 ]
    [ "$(probe sheet.png height)" = $((40 * (26 + 143 + 2))) ]'
ok 'key, run and caption stand above the frames, in at most three lines, whatever their letters' '
    need ffmpeg; need gnuplot
    one() { tensor-gen --name video --dtype u8 --fill zero --shape 3,48,64,3 --key "$@" >one.mp; encode-mp4 --sheet one.png -o "$to" <one.mp >/dev/null; probe one.png height; }
    to=a; [ "$(one k)" = 171 ]; cp one.png plain.png; [ "$(one k --meta caption=short)" = 191 ]
    many=$(for i in $(seq 300); do printf "word%d " $i; done)
    [ "$(one k --meta prompt="$many" --meta caption=short)" = 231 ]; [ "$(one k --meta caption="$(printf "word%0900d" 0)")" = 231 ]
    [ "$(one k --meta caption="$(for i in $(seq 99); do printf "\347\211\251"; done)")" -gt 190 ]
    set -- $(rows one.png); [ $(($1 - $2)) -gt 10 ] # not a band of one colour
    for to in b a; do for key in k l; do one $key >/dev/null; if [ $to$key = ak ]; then cmp one.png plain.png; else fails 1 cmp -s one.png plain.png; fi; done; done
    one k --meta "sample={\"seed\":7,\"adapters\":[{\"variant\":\"gdn_cssm\",\"rank\":16}]}"; fails 1 cmp -s one.png plain.png
    one "\$(touch hit) \`touch hit\` \"; system \"touch hit" --meta caption="a{b}^c_d %s @e \\ &"; [ ! -e hit ]'
ok 'without gnuplot there is no sheet, which is said before any work' '
    program=$(command -v encode-mp4)
    (PATH=/nonexistent; fails_here=0; "$program" --sheet no.png -o without <clip.mp 2>err || fails_here=$?; [ $fails_here = 1 ])
    grep "encode-mp4: --sheet: gnuplot: .*is it installed" err; [ ! -e without ]; [ ! -e no.png ]'

ok 'its cells are the frames, from the first to the last' '
    tensor-gen --name video --dtype u8 --fill ramp --shape 8,190,190,3 >ramp.mp
    need ffmpeg; need gnuplot
    encode-mp4 --sheet ramp.png -o ramp <ramp.mp >/dev/null
    ffmpeg -nostdin -v error -i ramp.png -vf crop=1520:190:0:26,scale=8:1:flags=area -pix_fmt gray -f rawvideo - |
        od -An -tu1 -w1 | sort -nc'

ok 'a sheet that cannot be written is said before any video is made; it may lie in the folder of the videos' '
    for bad in . gone/sheet.png /dev/full; do
        fails 1 encode-mp4 --sheet $bad -o unmade <many.mp >out; grep "^encode-mp4: --sheet: $bad: " err; [ ! -s out ]
    done
    [ -z "$(ls unmade)" ]
    tensor-gen --name video --dtype u8 --shape 1,48,64,3 | encode-mp4 --sheet inside/sheet.png -o inside >list.jsonl; [ -s inside/sheet.png ]'
ok 'no video, no contact sheet' '
    need gnuplot
    tensor-gen --name video --shape 1 --count 0 | encode-mp4 --sheet none.png -o none >list.jsonl
    [ ! -s list.jsonl ]
    [ ! -e none.png ]'

ok 'a full disk leaves no file behind' '
    tensor-gen --name video --dtype u8 --fill uniform --shape 20,128,128,3 --key noise >noise.mp
    mkdir full
    fails 1 sh -c "trap \"\" XFSZ; ulimit -f 64; exec encode-mp4 -o full" <noise.mp >list.jsonl
    cat err
    grep "noise: .*File too large" err
    [ -z "$(ls -A full)" ]
    [ ! -s list.jsonl ]'

ok 'nor does a list that cannot be written go unnoticed' '
    [ -c /dev/full ] || need /dev/full
    fails 1 encode-mp4 -o dev <clip.mp >/dev/full
    grep space err'

ok 'a folder that cannot be made is said before any work' '
    echo >file
    fails 1 encode-mp4 -o file/videos <clip.mp
    fails 2 encode-mp4 <clip.mp'

finish
