#!/bin/sh
# curate: the bounds, the join with the folder, the split, and CSVs as they come.
# shellcheck disable=SC1091,SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"

header='video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds'
{
    echo "$header"
    echo 'edge-low.mp4,kept,5,1,0.9,static,156,24.0,6.5'
    echo 'edge-high.mp4,kept,9.5,80,0.9,pan_left,720,24,30'
    echo 'still.mp4,dropped,5,0.999,0.9,static,156,24,6.5'
    echo 'ugly.mp4,dropped,4.999,1,0.9,static,156,24,6.5'
    echo 'short.mp4,dropped,5,1,0.9,static,156,24,6.499'
    echo 'long.mp4,dropped,5,1,0.9,static,156,24,30.001'
    echo 'empty.mp4,dropped,5,,0.9,static,156,24,10'
    echo 'word.mp4,dropped,good,1,0.9,static,156,24,10'
    echo 'nan.mp4,dropped,5,nan,0.9,static,156,24,10'
    echo 'inf.mp4,dropped,5,inf,0.9,static,156,24,10'
    printf '%s\n' 'text.mp4,"A ball, ""red"",' 'on a second line",6.25,2,,,,,12'
} >openvid.csv
keys() { sed 's/^{"key":"\([^"]*\)".*/\1/' "$1"; }
rows() { # N of them, named in a scrambled order
    echo "$header"
    awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "v%05d.mp4,caption %d,6,2,1,static,240,24,10\n", (i * 7919) % n, i }'
}

ok 'bounds are inclusive; a missing, odd, NaN or infinite number is out of all' '
    curate openvid.csv >out 2>err
    keys out >got; printf "%s\n" edge-low.mp4 edge-high.mp4 text.mp4 | diff - got
    grep -q "11 rows: 3 kept; dropped: 4 by motion, 2 by aesthetic, 2 by seconds, 0 not there, 0 again" err'
ok 'a line holds the key, the path, the caption and what OpenVid knows' '
    curate openvid.csv 2>err >out
    head -n 1 out >got
    echo "{\"key\":\"edge-low.mp4\",\"path\":\"edge-low.mp4\",\"caption\":\"kept\",\"aesthetic_score\":5,\"motion_score\":1,\"temporal_consistency_score\":0.90000000000000002,\"frame\":156,\"fps\":24,\"seconds\":6.5,\"camera_motion\":\"static\"}" | diff - got'
ok 'a quoted caption keeps commas, quotes and line ends; empty cells are left out' '
    curate openvid.csv 2>err >out
    tail -n 1 out >got
    printf "%s\n" "{\"key\":\"text.mp4\",\"path\":\"text.mp4\",\"caption\":\"A ball, \\\"red\\\",\\non a second line\",\"aesthetic_score\":6.25,\"motion_score\":2,\"seconds\":12}" | diff - got'
ok 'underscores in the header, another order, CR LF and a byte order mark make no difference' '
    curate openvid.csv 2>err >want
    sed "1s/ /_/g; s/\$/\r/" openvid.csv | { printf "\357\273\277"; cat; } >other.csv
    curate other.csv 2>err >out; sed "s/\\\\r\\\\n/\\\\n/" out | diff want -
    { echo "seconds,caption,video,x,motion_score,aesthetic score"; echo "7,c,v,x,1,5"; } | curate 2>err >out
    echo "{\"key\":\"v\",\"path\":\"v\",\"caption\":\"c\",\"aesthetic_score\":5,\"motion_score\":1,\"seconds\":7}" | diff - out'
ok 'stdin and a named file are the same, and so are single bytes' '
    curate openvid.csv 2>err >want
    curate <openvid.csv 2>err >out; diff want out
    dd if=openvid.csv bs=1 2>/dev/null | curate 2>err >out; diff want out'
ok 'the bounds can be set' '
    curate --min-motion 0.999 --min-aesthetic 4.999 --min-seconds 6.499 --max-seconds 30.001 openvid.csv 2>err >out
    keys out >got; printf "%s.mp4\n" edge-low edge-high still ugly short long text | diff - got'
ok '--no-filter takes any CSV with video and caption' '
    printf "caption,video\na,1.mp4\n\"b, c\",sub/2.mp4\n" | curate --no-filter 2>err >out
    printf "%s\n" "{\"key\":\"1.mp4\",\"path\":\"1.mp4\",\"caption\":\"a\"}" "{\"key\":\"sub/2.mp4\",\"path\":\"sub/2.mp4\",\"caption\":\"b, c\"}" | diff - out
    curate --no-filter openvid.csv 2>err >out; [ "$(wc -l <out)" = 11 ]'

ok 'with --videos only files that are there are kept' '
    mkdir -p clips/edge-high.mp4; : >clips/edge-low.mp4
    curate --videos clips openvid.csv 2>err >out
    grep -q "\"path\":\"clips/edge-low.mp4\"" out; [ "$(wc -l <out)" = 1 ]; grep -q "1 kept.* 2 not there" err
    curate --videos clips/ openvid.csv 2>err | diff out -'
ok 'the first row of a video that is kept wins' '
    { echo "$header"; echo "a,bad,1,1,,,,,10"; echo "a,first,6,2,,,,,10"; echo "b,other,6,2,,,,,10"; echo "a,second,6,2,,,,,10"; } >again.csv
    curate again.csv 2>err >out
    grep -c . out | grep -qx 2; head -n 1 out | grep -q first; grep -q "2 kept.* 1 again" err'

ok 'what is dropped is listed with its rule, and the first few files that are missing or there twice are named' '
    curate --videos clips --dropped dropped.jsonl openvid.csv >out 2>err
    printf "%s %s\n" edge-high missing still motion ugly aesthetic short seconds long seconds empty motion word aesthetic nan motion inf motion text missing |
        sed "s/\(.*\) \(.*\)/{\"key\":\"\1.mp4\",\"rule\":\"\2\"}/" >want
    diff want dropped.jsonl
    grep -qx "curate: edge-high.mp4: not there" err; grep -qx "curate: text.mp4: not there" err
    curate again.csv 2>err >out; grep -qx "curate: a: again" err
    rows 1000 >absent.csv; curate --videos clips absent.csv 2>err >out; [ "$(grep -c "not there" err)" = 11 ]
    fails 1 curate --dropped nowhere/x openvid.csv; grep -q "nowhere/x: No such file" err
    echo "\"" >>absent.csv; fails 1 curate --strict --dropped half absent.csv >out; [ ! -e half ]; [ -z "$(find . -name ".tmp*")" ]'

# OpenVid_partN.zip, flat and in folders, stored and deflated, one cut into three: clips c01 .. c40, some of them twice.
make_zips() {
    need python3
    rm -rf zips; mkdir -p zips/more
    cat >zips.py <<'END'
import zipfile, random
def content(i): return random.Random(i).randbytes(500 * i) + b"x" * 3000
def write(name, members, folder="", method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile("zips/" + name, "w", method) as z:
        if folder: z.mkdir(folder) if hasattr(z, "mkdir") else z.writestr(folder + "/", b"")
        for i in members: z.writestr((folder + "/" if folder else "") + "c%02d.mp4" % i, content(abs(i)))
write("OpenVid_part2.zip", range(1, 11), method=zipfile.ZIP_STORED)
write("OpenVid_part10.zip", range(8, 21), "video")
write("more/OpenVid_part11.zip", range(21, 31))
write("whole", range(31, 41), "a/b")
for i in range(1, 41): open("real/c%02d.mp4" % i, "wb").write(content(i))
END
    rm -rf real; mkdir real
    python3 zips.py
    split -b 80000 zips/whole zips/OpenVid_part3_part
    rm zips/whole
    { echo "$header"; seq 40 -1 1 | awk '{ printf "c%02d.mp4,caption %d,%d,2,,,,,10\n", $1, $1, $1 % 4 ? 6 : 4 }'; } >forty.csv
}
zipped() { curate --videos "$1" --zips zips forty.csv; }

ok 'with --zips the clips that are kept are unpacked, and no other' '
    make_zips; [ "$(ls zips/*_part3_part* | wc -l)" = 3 ]
    zipped u1 2>err >out
    seq 40 -1 1 | awk "\$1 % 4 { printf \"c%02d.mp4\n\", \$1 }" >want.keys; keys out | diff want.keys -
    sort want.keys >names; ls u1 | diff names -
    while read -r clip; do cmp "u1/$clip" "real/$clip"; done <names
    grep -q "4 archives: 30 clips unpacked, 0 there already, 2 again" err
    grep -qx "curate: c09.mp4: again in OpenVid_part10.zip: the first is kept" err
    grep -q "40 rows: 30 kept; dropped: 0 by motion, 10 by aesthetic" err
    grep -q "\"path\":\"u1/c39.mp4\"" out'
ok 'a second time nothing is unpacked; what is cut short is unpacked anew' '
    make_zips; zipped u2 2>err >want.out
    zipped u2 2>err >out; diff want.out out; grep -q "0 clips unpacked, 30 there already" err
    echo cut >u2/c22.mp4; rm u2/c31.mp4
    zipped u2 2>err >out; diff want.out out; grep -q "2 clips unpacked, 28 there already" err
    cmp u2/c22.mp4 real/c22.mp4; cmp u2/c31.mp4 real/c31.mp4
    rm -r zips; mkdir zips; fails 1 zipped u2 >out; grep -q "zips: no \*.zip and no \*_partaa" err'
ok 'what no archive has is named and left out, unless the folder has it already' '
    make_zips; rm zips/OpenVid_part2.zip; mkdir u3; cp real/c01.mp4 u3
    zipped u3 2>err >out
    seq 40 -1 1 | awk "\$1 % 4 && (\$1 > 7 || \$1 == 1) { printf \"c%02d.mp4\n\", \$1 }" >want.keys; keys out | diff want.keys -
    grep -qx "curate: c07.mp4: not there" err; grep -q "25 kept.* 5 not there" err'
ok 'a damaged clip, archive or piece is named; the rest comes through, and nothing is half there' '
    make_zips; at=$(grep -abo c05.mp4 zips/OpenVid_part2.zip | head -n 1 | cut -d: -f1)
    printf X | dd of=zips/OpenVid_part2.zip bs=1 seek=$((at + 100)) conv=notrunc 2>/dev/null
    head -c 2000 zips/OpenVid_part10.zip >short; mv short zips/OpenVid_part10.zip
    fails 1 zipped u4 >out
    grep -qx "curate: c05.mp4: zips/OpenVid_part2.zip: its bytes do not match their checksum" err
    grep -q "^curate: zips/OpenVid_part10.zip: not a zip archive, or one that was cut short" err
    [ "$(wc -l <out)" = 22 ]; fails 1 grep -q c05 out; [ ! -e u4/c05.mp4 ]; [ -z "$(find u4 -name ".tmp*")" ]
    make_zips; rm zips/OpenVid_part3_partab; fails 1 zipped u5 >out; grep -q "OpenVid_part3_partac: the piece before it is missing" err
    make_zips; rm zips/OpenVid_part3_partac; fails 1 zipped u6 >out; grep -q "OpenVid_part3_partaa: not a zip archive" err; [ "$(wc -l <out)" = 23 ]'
ok 'an archive that unpacks to far more than it is: its clips are named, and nothing of them is written' '
    need python3
    rm -rf zips; mkdir zips; python3 -c "
import zipfile
with zipfile.ZipFile(\"zips/a.zip\", \"w\", zipfile.ZIP_DEFLATED) as z:
    z.writestr(\"fine.mp4\", bytes(range(256)) * 4)
    z.writestr(\"bomb.mp4\", bytes(20000000))
    z.writestr(\"last.mp4\", b\"x\" * 1000)"
    { echo video,caption; printf "%s,c\n" fine.mp4 bomb.mp4 last.mp4; } >bomb.csv
    fails 1 curate --no-filter --videos grown --zips zips bomb.csv >out
    grep -qx "curate: bomb.mp4: zips/a.zip: with its 20000000 bytes more than 100 times the archive.s would come out of it" err
    keys out | tr "\n" " " | grep -qx "fine.mp4 last.mp4 "; [ ! -e grown/bomb.mp4 ]; [ -z "$(find grown -name ".tmp*")" ]
    curate --no-filter --videos grown --zips zips --max-growth 1050 bomb.csv >out 2>err; [ "$(wc -c <grown/bomb.mp4)" = 20000000 ]
    # what members have one by one they may not have together
    rm -r grown; python3 -c "
import zipfile
with zipfile.ZipFile(\"zips/a.zip\", \"w\", zipfile.ZIP_DEFLATED) as z:
    for name in \"fine\", \"bomb\", \"last\": z.writestr(name + \".mp4\", bytes(100000))"
    [ "$(wc -c <zips/a.zip)" -lt 2500 ]
    fails 1 curate --no-filter --videos grown --zips zips --max-growth 90 bomb.csv >out
    [ "$(wc -l <out)" -lt 3 ]; [ "$(cat grown/* | wc -c)" -lt $((90 * $(wc -c <zips/a.zip))) ]
    fails 2 curate --max-growth 3 openvid.csv'
ok 'names cannot lead out of the folder' '
    need python3
    rm -rf zips; mkdir -p zips deep/er; python3 -c "
import zipfile
with zipfile.ZipFile(\"zips/a.zip\", \"w\") as z:
    for name in \"../../evil.mp4\", \"/abs/olute.mp4\", \"x/..\", \"../\": z.writestr(name, b\"evil\")"
    { echo video,caption; printf "%s,c\n" evil.mp4 olute.mp4 ../../evil.mp4 .. . /etc/x; } >evil.csv
    fails 1 curate --no-filter --videos deep/er --zips zips evil.csv >out
    [ "$(grep -c "no plain file name" err)" = 4 ]; keys out | tr "\n" " " | grep -qx "evil.mp4 olute.mp4 "
    ls -A deep deep/er >got; printf "%s\n" deep: er "" deep/er: evil.mp4 olute.mp4 | diff - got; [ ! -e evil.mp4 ]'
ok 'a full disk leaves no part of a clip' '
    make_zips
    fails 1 sh -c "ulimit -f 8; curate --videos u7 --zips zips forty.csv" >out
    grep -q "curate: c39.mp4: .*File too large" err; [ -z "$(find u7 -size +8 -o -name ".tmp*")" ]; cmp u7/c01.mp4 real/c01.mp4'
ok 'the split of what was unpacked is that of the files, in whatever order archives and rows come' '
    make_zips; curate --videos u8 --zips zips --split val --fraction 0.3 forty.csv 2>err | keys /dev/stdin | sort >val
    [ "$(wc -l <val)" = 9 ]; curate --videos u8 --split val --fraction 0.3 forty.csv 2>err | keys /dev/stdin | sort | diff val -
    mv zips/OpenVid_part2.zip zips/z.zip; { echo "$header"; sed 1d forty.csv | sort; } >sorted.csv
    curate --videos u9 --zips zips --split val --fraction 0.3 sorted.csv 2>err | keys /dev/stdin | diff val -
    { curate --videos u9 --zips zips --split train --fraction 0.3 forty.csv 2>err | keys /dev/stdin; cat val; } | sort >all; seq 40 -1 1 | awk "\$1 % 4 { printf \"c%02d.mp4\n\", \$1 }" | sort | diff - all'

ok 'val is floor(0.05 N), and the parts are disjoint and complete' '
    for n in 0 1 19 20 21 39 40 1000 14857; do
        rows $n >all.csv
        curate --split val all.csv 2>err >val; curate --split train all.csv 2>err >train
        [ "$(wc -l <val)" = $((n / 20)) ]
        curate all.csv 2>err | sort >want; sort val train | diff want -
    done'
ok 'the split does not depend on the order of rows, and lists come in that order' '
    rows 500 >a.csv
    { echo "$header"; sed 1d a.csv | sort -r; } >b.csv
    curate --split val a.csv 2>err >va; curate --split val b.csv 2>err >vb; curate --split val a.csv 2>err | diff va -
    keys va | sort >ka; keys vb | sort | diff ka -
    keys vb | sort -r >kr; keys vb | diff kr -
    ! cmp -s va vb'
ok 'the seed and the fraction choose another' '
    rows 500 >a.csv
    curate --split val a.csv 2>err >va
    curate --split val --split-seed 0 --fraction 0.05 a.csv 2>err | diff va -
    curate --split val --split-seed 1 a.csv 2>err >vb; [ "$(wc -l <vb)" = 25 ]
    curate --split val --fraction 0.3 a.csv 2>err >vc; [ "$(wc -l <vc)" = 150 ]
    curate --split val --fraction 0 a.csv 2>err >vd; [ ! -s vd ]
    curate --split train --fraction 1 a.csv 2>err >ve; [ ! -s ve ]
    ! cmp -s va vb'
ok 'the shuffle is what it was: other versions must give the same split' '
    rows 60 >a.csv; curate --split val a.csv 2>err >out; keys out | sort | tr "\n" " " >got; cat got
    grep -qx "v00008.mp4 v00017.mp4 v00030.mp4 " got'

ok 'what is no such CSV is refused, with the line' '
    fails 1 curate /dev/null; grep -q "^curate: /dev/null: line 1: no header" err
    echo "video,text" | fails 1 curate; grep -q "line 1: no column .caption" err
    echo "video,caption,seconds" | fails 1 curate; grep -q "line 1: no column .motion score.*--no-filter" err
    fails 1 curate nowhere.csv; grep -q "nowhere.csv: No such file" err
    fails 1 curate .; grep -q "directory" err
    fails 1 curate --videos nowhere openvid.csv; grep -q "nowhere: No such file" err
    fails 1 curate --videos openvid.csv openvid.csv; grep -q "not a folder" err'
ok 'a row that is damaged is named and counted, and the rest goes on, unless --strict' '
    { echo "$header"; echo "a.mp4,one,6,2"; printf "b.mp4,caf\351,6,2,,,,,10\n"; echo ",no name,6,2,,,,,10"; echo "d.mp4,good,6,2,,,,,10"; echo "e.mp4,\"open,6,2,,,,,10"; echo "f.mp4,\"closed\",6,2,,,,,10"
        echo "g.mp4,6\" high,6,2,,,,,10"; echo "h.mp4,good,6,2,,,,,10"; echo "i.mp4,\"never closed,6,2,,,,,10"; echo "j.mp4,last,6,2,,,,,10"; } >bad.csv
    fails 1 curate bad.csv >out; keys out >got; printf "%s.mp4\n" d f h j | diff - got
    grep -q "bad.csv: line 2: 4 fields under 9 columns" err; grep -q "bad.csv: line 3: not UTF-8" err
    grep -q "bad.csv: line 4: no video" err; grep -q "bad.csv: line 7: a quote inside .*; the row starts in line 6" err
    grep -q "bad.csv: line 8: a quote inside an unquoted field[^;]*\$" err; grep -q "bad.csv: line 10: the file ends inside a quoted field" err; grep -q "6 failed, 4 done" err
    fails 1 curate --strict bad.csv >out; [ ! -s out ]
    ! grep -q "line 3" err'
ok 'wrong usage is 2, also options that would do nothing' '
    fails 2 curate --split test openvid.csv; fails 2 curate --split val --fraction 2 openvid.csv
    fails 2 curate --fraction 0.1 openvid.csv; fails 2 curate --split-seed 3 openvid.csv
    fails 2 curate --no-filter --min-motion 3 openvid.csv; fails 2 curate --min-seconds 9 --max-seconds 8 openvid.csv
    fails 2 curate --zips zips openvid.csv; fails 2 curate openvid.csv openvid.csv; fails 2 curate --min-motion x openvid.csv; fails 2 curate --fast'
ok 'help and version' 'curate --help | grep -q "usage: curate"; curate --version | grep -q "^curate (sluice)"'
ok 'a full disk is noticed, a reader that leaves is not' '
    [ -e /dev/full ] || { echo "no /dev/full here"; exit 77; }
    fails 1 curate openvid.csv >/dev/full; grep -q "No space left" err
    fails 1 curate --split train openvid.csv >/dev/full
    rows 20000 >many.csv
    { curate many.csv 2>err || echo $? >code; } | head -n 1 >out
    [ "$(cat code)" = 141 ] && [ ! -s err ]'
ok 'a million rows in little memory' '
    [ -z "${SAN:-}" ] || { echo "not with sanitizers"; exit 77; }
    rows 1000000 >million.csv
    ulimit -v 200000
    curate --min-motion 3 million.csv 2>err >out; [ ! -s out ]; grep -q "1000000 rows: 0 kept" err'
finish
