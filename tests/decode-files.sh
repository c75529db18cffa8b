#!/bin/sh
# decode: colours of RGB and gray, turned pictures, files that are cut short, pictures whose references are lost, and metadata
# that does not parse. tests/decode.sh has the rest.
# shellcheck disable=SC1091,SC2016,SC2154,SC2317 # ok runs the quoted commands; lib.sh sets $tests and $shared
. "${0%/*}/lib.sh"
data=$tests/data/video

line() { echo "{\"key\":\"k\",\"path\":\"$1\"}"; }
ff() { ffmpeg -nostdin -v error "$@" >/dev/null; }
# encoder NAME: leave the test with SKIP unless the ffmpeg program has it.
encoder() { need ffmpeg; ffmpeg -nostdin -v error -h "encoder=$1" | grep -q ^Encoder || { echo "no $1 in this ffmpeg"; exit 77; }; }
# moving FILE OPTIONS: a clip of 30 frames that move, encoded as the options say.
moving() { file=$1; shift; ff -f lavfi -i testsrc2=s=64x48:d=3:r=10 -pix_fmt yuv420p "$@" -y "$file"; }
# picture WxH PERL: that many pixels by a Perl expression of $x and $y, as a raw RGB clip of two frames.
picture() {
    perl -e 'my ($w, $h) = split /x/, $ARGV[0]; for (1, 2) { for my $y (0 .. $h - 1) { for my $x (0 .. $w - 1) {
        print pack(q(C3), eval $ARGV[1]) } } }' "$1" "$2" >picture.rgb
    ff -f rawvideo -pix_fmt rgb24 -s "$1" -r 8 -i picture.rgb -c:v rawvideo -y picture.nut
}
# shows FILE WxH OFF PERL: scaled to that size it is that picture, off by no more than OFF.
shows() {
    picture "$2" "$4"
    line picture.nut | decode --frames 2 --size "$2" >theirs.mp
    line "$1" | decode --frames 2 --size "$2" >ours.mp
    tensor-eq --abs "$3" ours.mp theirs.mp
}
# refused FILE TEXT: decode names it with a reason that holds the text.
refused() { line "$1" >refused.jsonl; fails 1 decode --frames 2 --size 8x8 <refused.jsonl >out.mp; grep -F "$2" err; }
taken() { line "$1" | decode --frames "${2:-2}" --size 64x48 >taken.mp; }

ok 'a clip of one colour that is coded as RGB keeps it at every size' '
    need ffmpeg
    for size in 64x64 32x24 100x36 128x128; do shows "$data/red-rgb.mkv" $size 1 "253, 0, 0"; done'
for spec in 'libx264rgb rgb24 mp4 -qp 0' 'libx265 gbrp mp4 -x265-params lossless=1:log-level=none' 'libaom-av1 gbrp mp4 -cpu-used 8 -aom-params lossless=1' \
    'libvpx-vp9 gbrp webm -lossless 1' 'ffv1 gbrp mkv' 'png rgb24 mov' 'ffvhuff bgr24 avi' 'rawvideo bgr24 avi' 'qtrle rgb24 mov'; do
    # shellcheck disable=SC2086 # a list of words
    set -- $spec
    name=$1 format=$2 kind=$3; shift 3
    ok "$name: RGB keeps its colour when it is scaled" "
        encoder $name
        picture 64x64 '40, 64, 200'
        ff -strict -2 -i picture.nut -pix_fmt $format -c:v $name $* -y rgb.$kind
        for size in 64x64 40x24 90x90; do shows rgb.$kind \$size 1 '40, 64, 200'; done"
done

ramp='4 * $x, 4 * $x, 4 * $x'
ok 'gray without a word about its range is full' 'need ffmpeg; shows "$data/ramp-ffv1.mkv" 64x16 0 "$ramp"'
for spec in 'ffv1 gray mkv' 'jpegls gray avi' 'jpeg2000 gray avi' 'ffvhuff gray avi' 'rawvideo gray avi' 'rawvideo gray nut' 'rawvideo ya8 nut' \
    'ffv1 gray10le mkv' 'rawvideo gray16le nut' 'wrapped_avframe gray y4m'; do
    # shellcheck disable=SC2086 # a list of words
    set -- $spec
    ok "$1 as $2 in $3: gray is the file's" "
        encoder $1
        ff -i $data/ramp-ffv1.mkv -strict -1 -pix_fmt $2 -c:v $1 -y gray.$3
        shows gray.$3 64x16 1 '$ramp'"
done
ok 'gray that says that it is limited, or full, is so' '
    need ffmpeg
    ff -i "$data/ramp-ffv1.mkv" -vf setparams=range=pc -color_range pc -c:v ffv1 -y full.mkv; shows full.mkv 64x16 0 "$ramp"
    ff -i "$data/ramp-ffv1.mkv" -vf setparams=range=tv -color_range tv -c:v ffv1 -y limited.mkv
    shows limited.mkv 64x16 1 "map { \$_ < 0 ? 0 : \$_ > 255 ? 255 : \$_ } ((4 * \$x - 16) * 255 / 219) x 3"'

# turn A B C D: up.mp4 with that display matrix, in 1/65536; its place in tkhd is behind 40 bytes.
turn() {
    perl -e 'local $/; $_ = <STDIN>; my $at = index($_, q(tkhd)) + 44; $at > 44 or die;
        substr($_, $at, 8) = pack(q(l>2), $ARGV[0], $ARGV[1]); substr($_, $at + 12, 8) = pack(q(l>2), $ARGV[2], $ARGV[3]); print' -- "$@" <up.mp4 >turned.mp4
}
size() { line turned.mp4 | decode --frames 2 --size 24x24 >turned.mp; encode-mp4 -o list <turned.mp | grep -F "\"source_size\":\"$1\""; }
ok 'a display matrix that is degenerate turns nothing; near a quarter turn is one; any other is refused' '
    need ffmpeg
    moving up.mp4
    turn 0 0 0 0; size 64x48; cp turned.mp zero.mp
    turn 65536 0 0 65536; size 64x48; tensor-eq turned.mp zero.mp
    turn 0 65536 0 65536; size 64x48
    turn 65536 0 0 0; size 64x48
    turn 0 65536 -65536 0; size 48x64; cp turned.mp quarter.mp
    turn 1 65535 -65533 -2; size 48x64; tensor-eq turned.mp quarter.mp
    turn 1100 65526 -65526 1100; size 48x64; tensor-eq turned.mp quarter.mp
    turn -65536 3 2 -65535; size 64x48; cp turned.mp near.mp
    turn -65536 0 0 -65536; size 64x48; tensor-eq turned.mp near.mp
    turn 46341 46341 -46341 46341; refused turned.mp4 "quarter turns"
    turn 1300 65523 -65523 1300; refused turned.mp4 "quarter turns"
    turn 65536 0 30000 65536; refused turned.mp4 "quarter turns"'

# cut FILE: its beginnings of several lengths are refused as cut short, and all of it is taken.
cut() {
    taken "$1"
    size=$(wc -c <"$1")
    for percent in 55 75 95; do head -c $((size * percent / 100)) "$1" >"cut.$1"; refused "cut.$1" "cut short"; done
}
for spec in 'mkv ffv1' 'webm libvpx' 'gif gif' 'ogv libtheora' 'y4m wrapped_avframe' 'flv flv1' 'asf msmpeg4' 'wmv wmv2' 'nut ffv1' 'avi mpeg4'; do
    # shellcheck disable=SC2086 # a list of words
    set -- $spec
    ok "$1: one that is cut short is refused, and named so" "
        encoder $2
        if [ $1 = gif ]; then ff -f lavfi -i testsrc2=s=64x48:d=3:r=10 -y whole.gif; else moving whole.$1 -c:v $2 -g 10; fi
        cut whole.$1"
done
ok 'the same of an mp4 in fragments: by mfra, sidx or mehd' '
    need ffmpeg
    moving plain.mp4 -g 5 -movflags frag_keyframe+empty_moov; cut plain.mp4
    moving sidx.mp4 -g 5 -movflags frag_keyframe+dash+global_sidx; cut sidx.mp4
    refused "$data/cut-fragmented.mp4" "cut short"
    # mvex with a mehd of 3 seconds in front, and no mfra
    moving bare.mp4 -g 5 -movflags frag_keyframe+empty_moov+default_base_moof+skip_trailer
    with_mehd() {
        perl -e "local \$/; \$_ = <STDIN>; my \$at = index(\$_, q(mvex)); \$at > 0 or die; my \$moov = index(\$_, q(moov));
            substr(\$_, \$at + 4, 0) = pack(q(NA4NN), 16, q(mehd), 0, $1);
            for my \$p (\$at - 4, \$moov - 4) { substr(\$_, \$p, 4) = pack(q(N), 16 + unpack(q(N), substr(\$_, \$p, 4))) } print" <bare.mp4
    }
    with_mehd 3000 >mehd.mp4; taken mehd.mp4; cut mehd.mp4
    with_mehd 5000 >long.mp4; refused long.mp4 "cut short"'
ok 'a frame is never looked for behind the end: cut between two fragments, two clusters, two tags' '
    need ffmpeg
    moving whole.flv -c:v flv1 -g 10
    perl -e "local \$/; \$_ = <STDIN>; my (\$at, @tags) = (13);
        while (\$at < length) { push @tags, \$at; \$at += 15 + unpack(q(N), qq(\0) . substr(\$_, \$at + 1, 3)) }
        print substr(\$_, 0, \$tags[20])" <whole.flv >tag.flv
    refused tag.flv "cut short: it ends after"
    ff -i whole.flv -c:v mpeg4 -y -f matroska pipe:1 || true
    moving live.mkv -c:v mpeg4 -g 5 -cluster_time_limit 500
    size=$(wc -c <live.mkv); head -c $((size - 40)) live.mkv >short.mkv; refused short.mkv "cut short"'
ok 'live files, which know no end, are taken' '
    encoder libvpx
    for kind in "matroska libvpx" "webm libvpx" "flv flv1" "asf wmv2" "ogg libtheora" "mpegts mpeg4" "avi mpeg4" "nut ffv1" "nut ffv1 -write_index 0" "mpeg mpeg1video -r 25"; do
        set -- $kind
        ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=64x48:d=3:r=10 -pix_fmt yuv420p -c:v $2 ${3:+$3 $4} -f $1 - >live.$1
        echo "$1"; taken live.$1
    done
    ffmpeg -nostdin -v error -f lavfi -i testsrc2=s=64x48:d=3:r=10 -pix_fmt yuv420p -c:v mpeg4 -f mp4 -movflags frag_keyframe+empty_moov - >live.mp4
    taken live.mp4'

lose() { ff -i "$1" -c copy -bsf:v "noise=drop=eq(n\\,$3)" -y "$2"; }
for spec in 'libx264 20' 'libx265 20' 'libx265 0' 'mpeg4 0' 'flv1 0' 'h263p 0' 'msmpeg4v2 0' 'wmv2 0' 'libtheora 0'; do
    # shellcheck disable=SC2086 # a list of words
    set -- $spec
    ok "$1: pictures that are built on packet $2, which is lost, do not pass" "
        encoder $1
        moving full.mkv -c:v $1 -g 60 -bf 0
        taken full.mkv
        lose full.mkv lost.mkv $2
        refused lost.mkv \"damaged near frame $2: a picture that it is built on is missing\""
done
ok 'HEVC that starts in the middle of a group is damaged from the start' '
    refused "$data/starts-mid-gop-hevc.ts" "damaged near frame 0: a picture that it is built on is missing"'
# A recording that begins anywhere: the tables, then what follows the middle.
recorded() { packets=$(($(wc -c <"$1") * $2 / 18800)); { head -c 564 "$1"; tail -c +$((packets * 188 + 1)) "$1"; } >recorded.ts; }
for spec in 'libx264 -bf,2,-x264-params,open-gop=1:keyint=10:min-keyint=10:scenecut=0' 'libx264 -g,10' 'libx264 -bf,0,-x264-params,intra-refresh=1:keyint=10' \
    'mpeg2video -g,10,-bf,2,-r,25'; do
    # shellcheck disable=SC2086 # a list of words
    set -- $spec
    ok "a recording of $1 $2 may begin anywhere" "
        encoder $1
        moving all.ts -c:v $1 $(echo "$2" | tr , ' ')
        for at in 20 35 50 65; do recorded all.ts \$at; taken recorded.ts 4; done"
done
ok 'H.264 may leave numbers out where it says so' '
    encoder libx264
    moving full.mkv -c:v libx264 -g 60 -bf 0
    lose full.mkv lost.mkv 20
    # the flag lies behind the number of reference frames: profile 100, level, ids, depths .. all of one bit
    perl -e "use strict; local \$/; \$_ = <STDIN>; my \$at = index(\$_, qq(\x01\x64\x00)); \$at > 0 or die;
        my \$sps = \$at + 8; my \$n = unpack(q(n), substr(\$_, \$at + 6, 2)); my \$bits = unpack(qq(B*), substr(\$_, \$sps + 4, \$n - 4));
        my \$p = 0; my \$ue = sub { my \$z = 0; \$z++, \$p++ while !substr(\$bits, \$p, 1); my \$v = oct(q(0b) . substr(\$bits, \$p, \$z + 1)) - 1; \$p += \$z + 1; \$v };
        \$ue->() for 1 .. 4; \$p++; substr(\$bits, \$p++, 1) eq 0 or die; \$ue->(); \$ue->() == 0 and \$ue->(); \$ue->();
        substr(\$bits, \$p, 1) eq 0 or die; substr(\$bits, \$p, 1) = 1; substr(\$_, \$sps + 4, \$n - 4) = pack(q(B*), \$bits); print" <lost.mkv >leaves.mkv
    refused lost.mkv "is missing"
    perl -e "local \$/; \$a = <STDIN>; open F, q(lost.mkv); \$b = <F>; exit(\$a eq \$b)" <leaves.mkv
    taken leaves.mkv'

ok 'metadata that does not parse is no damaged picture' '
    need ffmpeg
    ff -i "$data/short-mastering-sei.mp4" -c copy -bsf:v "filter_units=remove_types=39|40" -y without.mp4
    for file in "$data/short-mastering-sei.mp4" without.mp4; do line "$file" | decode --frames 12 --size 160x120; done >both.mp
    line without.mp4 | decode --frames 12 --size 160x120 >theirs.mp
    line "$data/short-mastering-sei.mp4" | decode --frames 12 --size 160x120 >ours.mp
    tensor-eq ours.mp theirs.mp'
ok 'and a picture that is damaged is one, with metadata or without' '
    perl -e "local \$/; \$_ = <STDIN>; my \$at = index(\$_, q(mdat)) + 5000; substr(\$_, \$at, 3000) = chr(165) x 3000; print" \
        <"$data/short-mastering-sei.mp4" >damaged.mp4
    refused damaged.mp4 "damaged near frame"'

ok 'two recordings of a transport stream, joined: said why not' '
    need ffmpeg
    moving one.ts -c:v mpeg2video -r 25; moving two.ts -c:v mpeg2video -r 25 -vf hflip
    cat one.ts two.ts >joined.ts
    taken one.ts; taken two.ts
    refused joined.ts "two recordings were joined"'

finish
