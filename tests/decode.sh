#!/bin/sh
# decode: which frames, whose colours, and what becomes of files that are none. tests/video.c has the frame lists.
# shellcheck disable=SC1091,SC2016,SC2154 # ok runs the quoted commands; lib.sh sets $shared
. "${0%/*}/lib.sh"

# A clip to work with, lossy as clips are: 30 frames that all differ, made by our own encoder.
tensor-gen --name video --dtype u8 --fill uniform --shape 30,8,8,3 --key noise --seed 7 >noise.mp
encode-mp4 -o . <noise.mp >/dev/null
echo '{"path":"noise.mp4","caption":"a caption, with \"quotes\"","n":7}' >one.jsonl

# as_frames FILE FILTERS: the same file by the ffmpeg program, as frames that need no conversion any more.
as_frames() {
    ffmpeg -nostdin -v error -i "$1" -vf "$2" -fps_mode passthrough -c:v rawvideo -pix_fmt rgb24 -y theirs.nut
    size=$(ffprobe -v error -select_streams v -show_entries stream=width,height -of csv=p=0:s=x theirs.nut)
    echo "{\"key\":\"k\",\"path\":\"theirs.nut\"}" | decode --frames "$3" --size "$size" >theirs.mp
}
line() { echo "{\"key\":\"k\",\"path\":\"$1\"}"; }

# like_ffmpeg DB FILE WxH FRAMES-IN-FILE [OPTIONS]: 49 of its frames, scaled to WxH, are as ffmpeg would pick and scale them.
like_ffmpeg() {
    pick=$(awk -v n="$4" 'BEGIN { for (k = 0; k < 49; k++) printf "%seq(n,%d)", k ? "+" : "", int(k * (n - 1) / 48) }')
    as_frames "$2" "select='$pick',scale=$(echo "$3" | tr x :)${5:-}" 49
    line "$2" | decode --size "$3" >ours.mp
    tensor-eq --psnr "$1" ours.mp theirs.mp
}

ok 'everything known about a clip goes on, and what was found out is added' '
    decode --size 8x8 <one.jsonl >clip.mp
    encode-mp4 -o list <clip.mp >list.jsonl
    grep -F "a caption, with \\\"quotes\\\"" list.jsonl
    grep -F "\"n\":7" list.jsonl
    grep -F "\"source_frames\":30" list.jsonl
    grep -F "\"source_size\":\"8x8\"" list.jsonl
    grep -F "\"key\":\"noise.mp4\"" list.jsonl'

ok 'records with a path do as well as JSON lines' '
    tensor-gen --name extra --shape 2 --key noise.mp4 --meta path=noise.mp4 >record.mp
    decode --size 8x8 <record.mp >with.mp
    echo "{\"path\":\"noise.mp4\"}" | decode --size 8x8 >without.mp
    tensor-eq --name video with.mp without.mp
    tensor-eq --name extra with.mp record.mp'

# Clips of several lengths, so that later ones are done first; among them what fails, a record that is none, and what has no path.
mixed_clips() {
    for n in 40 1 12 3; do
        tensor-gen --name video --dtype u8 --fill uniform --shape "$n,48,64,3" --key "long$n" --seed "$n" | encode-mp4 -o . >/dev/null
        echo "{\"path\":\"long$n.mp4\"}"
    done
    echo "{\"path\":\"gone.mp4\"}"
    echo "no JSON"
    echo "{\"key\":\"pathless\"}"
    head -c 3000 noise.mp4 >short.mp4
    for n in 1 2 3 4 5 6 7 8 9; do printf "{\"key\":\"k%d\",\"path\":\"%s.mp4\"}\n" "$n" long12 $((n + 10)) short; done
}
ok 'clips at once change no bit, nor the order of clips and of what is said of them' '
    mixed_clips >mixed_clips.jsonl
    for t in 1 3 8; do decode --threads $t --frames 5 --size 40x24 <mixed_clips.jsonl >mixed$t.mp 2>mixed$t.err && false || [ $? = 1 ]; done
    for t in 3 8; do cmp mixed1.mp mixed$t.mp; cmp mixed1.err mixed$t.err; done
    [ "$(grep -c "cut short" mixed1.err)" = 9 ]
    grep "^decode: stdin: line 6: " mixed1.err
    grep -x "decode: 12 failed, 13 done" mixed1.err'

ok 'clips before one that --strict stops at, and before a damaged stream, come through' '
    for t in 1 8; do
        fails 1 decode --strict --threads $t --frames 5 --size 40x24 <mixed_clips.jsonl >strict$t.mp
        [ "$(wc -l <err)" = 1 ]
        tensor-gen --name extra --shape 2 --count 5 --meta path=noise.mp4 >five.mp
        head -c "$(($(wc -c <five.mp) - 90))" five.mp >cut.mp
        fails 1 decode --threads $t --size 8x8 <cut.mp >cut$t.mp
        grep truncated err
    done
    cmp strict1.mp strict8.mp
    cmp cut1.mp cut8.mp
    [ "$(wc -c <strict1.mp)" -gt $((4 * 5 * 40 * 24 * 3)) ]
    [ "$(wc -c <cut1.mp)" -gt $((4 * 49 * 8 * 8 * 3)) ]'

ok 'a clip comes out though the next one is still to come' '
    mkfifo slow; : >slow.mp
    decode --threads 8 --frames 2 --size 64x64 <slow >slow.mp & pid=$!
    exec 3>slow
    for n in 1 2; do
        echo "{\"path\":\"noise.mp4\",\"key\":\"$n\"}" >&3
        waited=0
        while [ "$(wc -c <slow.mp)" -lt $((n * 2 * 64 * 64 * 3)) ] && [ $waited -lt 300 ]; do sleep 0.1; waited=$((waited + 1)); done
    done
    size=$(wc -c <slow.mp)
    exec 3>&-
    wait $pid
    [ "$size" -ge $((2 * 2 * 64 * 64 * 3)) ]'

ok 'where nobody reads any more it ends by SIGPIPE, with clips under way' '
    while read -r clip; do for n in 1 2 3 4; do echo "$clip"; done; done <mixed_clips.jsonl >many.jsonl
    { decode --threads 8 --size 64x64 <many.jsonl 2>err || echo $? >status; } | head -c 1000 >/dev/null
    [ "$(cat status)" = 141 ]'

ok 'neither does what came before' '
    tensor-gen --name video --dtype u8 --fill ramp --shape 9,32,48,3 --key ramp | encode-mp4 -o . >/dev/null
    printf "%s\n" "{\"path\":\"ramp.mp4\"}" "{\"path\":\"noise.mp4\"}" >ab.jsonl
    sed "1!G;h;\$!d" ab.jsonl >ba.jsonl
    decode --size 24x16 <ab.jsonl >ab.mp
    decode --size 24x16 <ba.jsonl >ba.mp
    tensor-eq --by-key ab.mp ba.mp'

ok 'pixels that are RGB in the file come back as they are' '
    need ffmpeg
    ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=64x48:d=2:r=8 -pix_fmt rgb24 -c:v rawvideo -y source.nut
    ffmpeg -nostdin -v error -i source.nut -pix_fmt gbrp -c:v ffv1 -y source.mkv
    ffmpeg -nostdin -v error -i source.nut -f rawvideo -y source.rgb
    line source.nut | decode --frames 16 --size 64x48 >nut.mp
    line source.mkv | decode --frames 16 --size 64x48 >mkv.mp
    tensor-eq nut.mp mkv.mp
    perl -0777 -e "open A, shift; open B, shift; exit(index(<A>, <B>) < 0)" nut.mp source.rgb'

for clip in carpenter:61 knives:61 map:49 pot:49 shuttlecock:61 syrup:49; do
    ok "${clip%:*}: frames and colours are those of the ffmpeg program" "
        need ffmpeg; need shared
        like_ffmpeg 40 \"\$shared/data/clips/${clip%:*}.mp4\" 720x480 ${clip#*:}"
done

# The same picture stored in several ways, each compared with what ffmpeg makes of it.
for way in bt709-tv bt709-pc smpte170m-tv smpte170m-pc bt2020nc-tv; do
    ok "colours stored as $way" "
        need ffmpeg
        matrix=${way%-*} range=${way#*-}
        ffmpeg -nostdin -v error -f lavfi -i testsrc=s=320x240:d=1:r=49 \
            -vf scale=out_color_matrix=\${matrix%nc}:out_range=\$range,format=yuv444p,setparams=colorspace=\$matrix:range=\$range \
            -colorspace \$matrix -color_range \$range -c:v ffv1 -y way.mkv
        ffprobe -v error -show_entries stream=color_space,color_range way.mkv | grep -q \$matrix
        like_ffmpeg 45 way.mkv 320x240 49"
done

ok 'a file to be shown turned comes turned' '
    need ffmpeg
    ffmpeg -nostdin -v error -f lavfi -i testsrc=s=320x240:d=1:r=49 -pix_fmt yuv444p -y up.mp4
    # tkhd holds the matrix: a b 0, c d 0, x y 1, the first four of 16.16 bits
    turn() {
        perl -e "local \$/; \$_ = <STDIN>; my \$at = index(\$_, q(tkhd)) + 44; \$at > 44 or die;
            substr(\$_, \$at, 8) = pack(q(l>2), $1 * 65536, $2 * 65536);
            substr(\$_, \$at + 12, 8) = pack(q(l>2), $3 * 65536, $4 * 65536); print" <up.mp4 >turned.mp4
    }
    same() {
        turn "$1" "$2" "$3" "$4"
        as_frames up.mp4 "$5,scale=$6" 49
        line turned.mp4 | decode --size "$(echo "$6" | tr : x)" >ours.mp
        tensor-eq --psnr 45 --quiet ours.mp theirs.mp
    }
    same 1 0 0 1 null 320:240
    same 0 1 -1 0 transpose=clock 240:320
    same -1 0 0 -1 hflip,vflip 320:240
    same 0 -1 1 0 transpose=cclock 240:320
    same -1 0 0 1 hflip 320:240
    same 1 0 0 -1 vflip 320:240
    same 0 1 1 0 transpose=cclock_flip 240:320
    turn 0.7 0.7 -0.7 0.7
    line turned.mp4 >turned.jsonl
    fails 1 decode --frames 2 <turned.jsonl >out.mp
    grep "quarter turns" err'

ok 'frames are counted as they decode, not as the file has packets' '
    need ffmpeg
    for pass in 1 2; do
        ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=160x128:d=4:r=15 -c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 \
            -pass $pass -y hidden.webm || { echo "no libvpx in this ffmpeg"; exit 77; }
    done
    packets=$(ffprobe -v error -count_packets -show_entries stream=nb_read_packets -of csv=p=0 hidden.webm)
    [ "$packets" -gt 60 ] || { echo "this libvpx hid no frame"; exit 77; }
    line hidden.webm | decode --size 160x128 >ours.mp
    encode-mp4 -o list <ours.mp | grep "\"source_frames\":60"
    like_ffmpeg 45 hidden.webm 160x128 60 :flags=bicubic+accurate_rnd+full_chroma_int:in_h_chr_pos=0:in_v_chr_pos=128'

ok 'a cut made by an edit list is not looked behind' '
    need ffmpeg
    ffmpeg -nostdin -v error -f lavfi -i testsrc=s=160x128:d=4:r=15 -pix_fmt yuv444p -g 60 -y whole.mp4
    ffmpeg -nostdin -v error -ss 1 -i whole.mp4 -c copy -y edited.mp4
    frames=$(ffprobe -v error -count_frames -show_entries stream=nb_read_frames -of csv=p=0 edited.mp4)
    line edited.mp4 | decode --size 160x128 >ours.mp
    encode-mp4 -o list <ours.mp | grep "\"source_frames\":$frames"
    like_ffmpeg 45 edited.mp4 160x128 "$frames"'

ok 'files that are no clips are named with the reason, and the rest comes through' '
    mkdir folder.mp4
    mkfifo pipe.mp4
    : >empty.mp4
    echo "not a video, this" >text.mp4
    head -c 3000 noise.mp4 >cut.mp4
    printf "ffconcat version 1.0\nfile noise.mp4\n" >list.mp4
    for f in noise missing folder pipe empty text cut list; do echo "{\"path\":\"$f.mp4\"}"; done >mixed.jsonl
    echo "{\"path\":\"concat:noise.mp4|noise.mp4\"}" >>mixed.jsonl
    echo "{\"path\":\"http://127.0.0.1/x.mp4\"}" >>mixed.jsonl
    echo "{\"key\":\"pathless\"}" >>mixed.jsonl
    echo "{\"key\":\"again\",\"path\":\"noise.mp4\"}" >>mixed.jsonl
    fails 1 decode --size 8x8 <mixed.jsonl >mixed.mp
    cat err
    grep -F "decode: missing.mp4: No such file or directory" err
    grep -F "decode: folder.mp4: Is a directory" err
    grep -F "decode: pipe.mp4: not a regular file" err
    grep -F "decode: empty.mp4: the file is empty" err
    grep -F "decode: text.mp4: not a video file" err
    grep -F "decode: cut.mp4: the file is cut short" err
    grep -F "decode: list.mp4: none of the containers" err
    grep -F "decode: concat:noise.mp4|noise.mp4: No such file" err
    grep -F "decode: http://127.0.0.1/x.mp4: No such file" err
    grep -F "decode: pathless: no \`path\`" err
    grep -F "decode: 10 failed, 2 done" err
    [ "$(wc -l <err)" = 11 ]
    encode-mp4 -o list2 <mixed.mp >list2.jsonl
    [ "$(wc -l <list2.jsonl)" = 2 ]'

ok 'sound without pictures, and a picture as a cover, are no clips' '
    need ffmpeg
    ffmpeg -nostdin -v error -f lavfi -i sine=d=1 -y sound.mp4
    ffmpeg -nostdin -v error -f lavfi -i testsrc=s=64x48:d=1:r=1 -i sound.mp4 -map 1 -map 0 -c:v png -frames:v 1 \
        -disposition:v attached_pic -y cover.m4a
    printf "%s\n" "{\"path\":\"sound.mp4\"}" "{\"path\":\"cover.m4a\"}" >sound.jsonl
    fails 1 decode <sound.jsonl >out.mp
    [ "$(grep -c "no video stream" err)" = 2 ]'

ok '--strict stops at the first that fails' '
    printf "%s\n" "{\"path\":\"missing\"}" "{\"path\":\"noise.mp4\"}" >strict.jsonl
    fails 1 decode --strict <strict.jsonl >out.mp
    [ "$(wc -l <err)" = 1 ]'

ok 'one bit flipped somewhere among the pictures: the same verdict and bytes with any number of threads' '
    tensor-gen --name video --dtype u8 --fill uniform --shape 30,64,64,3 --key big --seed 8 | encode-mp4 -o . >/dev/null
    perl -e "local \$/; \$_ = <STDIN>; my \$from = index(\$_, q(mdat)) + 1000; my \$room = length(\$_) - \$from;
        srand(1); for my \$k (1 .. 20) { my \$bad = \$_; vec(\$bad, int(8 * (\$from + rand(\$room))), 1) ^= 1;
            open my \$f, q(>), qq(flip\$k.mp4); print \$f \$bad; close \$f; print qq({\"path\":\"flip\$k.mp4\"}\n) }" \
        <big.mp4 >flips.jsonl
    for t in 1 3 8; do decode --threads $t --size 64x64 <flips.jsonl >flips$t.mp 2>flips$t.err || true; done
    cmp flips1.mp flips3.mp
    cmp flips1.mp flips8.mp
    cmp flips1.err flips3.err
    cmp flips1.err flips8.err
    grep -c damaged flips1.err'

ok 'a full disk is noticed' '[ -c /dev/full ] || need /dev/full; fails 1 decode --size 8x8 <one.jsonl >/dev/full; grep space err'

ok 'what no tensor can hold is wrong usage' '
    fails 2 decode --frames 4000 --size 16000x16000 <one.jsonl
    grep "4 GiB" err
    fails 2 decode --frames 0 <one.jsonl
    fails 2 decode --size 0x10 <one.jsonl'

# Resident KiB of decode, fed through a pipe that stays open, once it has written so many bytes. Its threads' heaps fill in their
# own time, so the first reading comes late and the room is 4 MiB: less than a leak of each clip's pictures (24 KiB) would take.
ok 'memory stays flat over hundreds of clips' '
    [ -z "${SAN:-}" ] || { echo "a sanitizer keeps freed memory"; exit 77; }
    mkfifo feed; : >flat.mp
    decode --frames 2 --size 64x64 <feed >flat.mp & pid=$!
    exec 3>feed
    resident() {
        i=0
        while [ "$i" -lt "$1" ]; do i=$((i + 1)); echo "{\"key\":\"$1.$i\",\"path\":\"noise.mp4\"}"; done >&3
        clips=$((${clips:-0} + $1)) waited=0
        while [ "$(wc -c <flat.mp)" -lt $((clips * 2 * 64 * 64 * 3)) ] && [ $waited -lt 600 ]; do
            sleep 0.1; waited=$((waited + 1))
        done
        awk "/VmRSS/ { print \$2 }" /proc/$pid/status >rss
    }
    resident 100; early=$(cat rss)
    resident 300; late=$(cat rss)
    exec 3>&-
    wait $pid
    echo "after 100 clips $early KiB, after 400 $late KiB"
    [ "$late" -lt $((early + 4096)) ]'

finish
