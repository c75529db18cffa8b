#!/bin/sh
# curate at its full size: a million rows as long as OpenVid's, 0.7 GB of text, in 60 s and 100 MB.
# shellcheck disable=SC2016 # ok evaluates its text
. "${0%/*}/lib.sh"

# rows SECONDS: a million of them; quoted captions of a few hundred bytes, every tenth with a line end in it.
rows() {
    awk -v seconds="$1" 'BEGIN {
        print "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds"
        text = "\"In the video, a person in a \"\"red\"\" jacket, holding an umbrella, walks past a café"
        for (i = 0; i < 8; i++) text = text "; the camera follows, and the background shows a street with many people"
        for (i = 0; i < 1000000; i++) {
            name = sprintf("clip_%08d_%d_0to%d.mp4", (i * 7919) % 1000003, i % 50, i % 300)
            printf "%s,%s%s\",%.6f,%.6f,0.99,static,240,24.0,%s\n", name, text, i % 10 ? "." : ".\nIt rains.", 5 + i % 3, 1 + i % 7 / 3, seconds
        }
    }'
}
# limited COMMAND...: at most 60 s and 100 MB; both are told.
limited() {
    status=0
    /usr/bin/time -o spent -f '%e %M' "$@" || status=$?
    tail -n 1 spent | awk '{ print $1 " s, " $2 / 1000 " MB"; exit !($1 < 60 && $2 < 100000) }' >&2 || return 9
    return "$status"
}

ok 'a million rows, all of them kept' 'rows 10 >all.csv; ls -l all.csv
    limited curate all.csv >out; [ "$(wc -l <out)" = 1000000 ]'
ok 'the same, split' '
    limited curate --split val all.csv >val; [ "$(wc -l <val)" = 50000 ]
    limited curate --split train all.csv >train; [ "$(wc -l <train)" = 950000 ]; cat train val | sort >both; sort out | cmp - both'
ok 'none kept' 'limited curate --max-seconds 9 all.csv >out; [ ! -s out ]'
ok 'a quote that is never closed, far inside, costs its own row' '
    awk "{ print } NR > 700000 && /^It rains/ && !line { print \"\\\"x,y\"; line = NR + 1; print line >\"line\" }" all.csv >broken.csv
    fails 1 limited curate broken.csv >out; [ "$(wc -l <out)" = 1000000 ]; [ "$(wc -l <err)" -lt 5 ]
    grep "broken.csv: line $(($(cat line) + 1)): a quote inside an unquoted field.*; the row starts in line $(cat line)" err'
finish
