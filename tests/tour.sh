#!/bin/sh
# The first hour: the tour of the front page, typed once, typed again and with real clips, and `make demo`. What they make plays.
. "${0%/*}/lib.sh"

plays() { # FILE: what ffprobe says of a video of the demo
    [ "$(ffprobe -v error -count_frames -show_entries stream=codec_name,width,height,r_frame_rate,nb_read_frames -of csv=p=0 "$1")" = h264,96,64,8/1,17 ]
}
falls() { # METRICS SHARE: the lowest validation loss is below this share of the first. On the toy's own kinds of clips it falls by little
    grep val_loss "$1" | sed 's/.*"val_loss":\([^,]*\),.*/\1/' |
        awk -v share="$2" 'NR == 1 { first = least = $1 } $1 < least { least = $1 } END { exit !(least < share * first) }'
}

like_the_repository
blocks README.md sh
mv block1 commands
ok "the README's tour runs" '
    fast
    bash -euo pipefail ./commands >said
    falls work/run/metrics.jsonl 1
    show work/run/best.safetensors | grep "\"step\":[1-9]" # not the untouched one
    for key in base tuned; do
        [ "$(ls work/$key | wc -l)" = 8 ]
        for video in work/$key/*.mp4; do plays "$video"; done
        ffprobe -v error work/$key.png
    done
    grep "^8 prompts, " said
    grep "^minus base  *SA" said'
ok "typed again, it makes what is missing and changes nothing" '
    fast
    [ -d work/run ]
    cp work/run/best.safetensors before
    bash -eu ./commands >said 2>err
    grep "0 added, 0 replaced, . skipped" err
    cmp before work/run/best.safetensors'
ok "it runs on six real clips" '
    fast
    need shared
    rm -rf work
    CLIPS=$shared/data/clips bash -euo pipefail ./commands >said 2>err || { cat err; exit 1; }
    [ "$(grep -o "[0-9]* added" err | tr "\n" " ")" = "5 added 1 added " ]
    falls work/run/metrics.jsonl 0.9
    for video in work/tuned/*.mp4; do plays "$video"; done'
ok "a demo removes no folder but its own" '
    mkdir mine; echo x >mine/thesis; echo x >file
    for demo in demo demo-adapters; do
        for there in mine file; do fails 1 "$top/examples/$demo.sh" $there; grep "^$demo.sh: $there: it is there" err; done
    done
    [ -s mine/thesis ] && [ -s file ]'
ok "make demo: videos, contact sheets, scores, a report and a loss that falls" '
    fast
    "$top/examples/demo.sh" demo >said 2>err || { cat err; exit 1; }
    falls demo/run/metrics.jsonl 1
    [ "$(grep -c "toy-check: 2[0-4] of 24 show" err)" = 2 ]
    for video in demo/base/*.mp4 demo/tuned/*.mp4; do plays "$video"; done
    for name in base tuned loss scores; do ffprobe -v error demo/$name.png; grep "$name.png" said; done
    for run in base tuned; do
        [ "$(wc -l <demo/scores/$run.jsonl)" = 24 ]
        [ "$(wc -l <demo/scores/$run.sa.csv)" = 25 ]
    done
    grep "^tuned  *+[0-9.]* \[+" said # the interval of the gain in Joint is above 0
    grep "demo/report.html\$" said
    grep "toy model" demo/report.html
    [ "$(grep -c "src=\"data:image/png" demo/report.html)" = 8 ]
    [ "$(grep -c "src=\"data:image/svg" demo/report.html)" = 2 ]
    fails 1 cmp -s demo/base/fall00000.mp4 demo/tuned/fall00000.mp4'
finish
