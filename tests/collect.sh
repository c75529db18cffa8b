#!/bin/sh
# collect: what was made of a list and is still good, in the list's order; and what is to be made.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"

for i in 1 2 3 4; do echo "{\"key\":\"clip$i\",\"prompt\":\"a ball, $i\",\"action\":\"roll\"}"; done >prompts.jsonl
made() { # LINES: the videos of those lines of the prompts
    sed -n "$1" prompts.jsonl >some.jsonl
    while read -r line; do
        tensor-gen --name video --dtype u8 --shape 2,16,16,3 --key "$(expr "$line" : '.*"key":"\([^"]*\)"')" \
            --meta "$(expr "$line" : '.*"\(prompt":"[^"]*\)' | sed 's/":"/="/')\"" --meta action=roll
    done <some.jsonl | encode-mp4 -o videos
}
keys() { sed 's/.*"key":"\([^"]*\)".*/\1/' "$@" | tr '\n' ' '; }

ok 'what was made comes in the order of the list, whatever the order of the files' '
    made 3,4p >b.jsonl; made 1,2p >a.jsonl
    collect b.jsonl a.jsonl <prompts.jsonl >all.jsonl
    [ "$(keys all.jsonl)" = "clip1 clip2 clip3 clip4 " ]
    cat a.jsonl b.jsonl | cmp all.jsonl
    collect --missing a.jsonl b.jsonl <prompts.jsonl >left.jsonl; [ "$(wc -c <left.jsonl)" = 1 ]
    collect all.jsonl <left.jsonl >none.jsonl; [ "$(wc -c <none.jsonl)" = 1 ]; collect none.jsonl <left.jsonl | cmp - none.jsonl'
ok 'what is missing is named, and is the line of the list' '
    fails 1 collect a.jsonl nowhere.jsonl <prompts.jsonl >some.jsonl; cmp a.jsonl some.jsonl
    grep "^collect: clip3: missing$" err; grep "^collect: clip4: missing$" err; grep "2 failed, 2 done" err
    collect --missing a.jsonl nowhere.jsonl <prompts.jsonl >left.jsonl
    sed -n 3,4p prompts.jsonl | cmp left.jsonl -'
ok 'a video that is damaged, shorter or gone is to be made again, and then all is well' '
    cp -r videos whole
    printf x | dd of=videos/clip1.mp4 bs=1 seek=100 conv=notrunc 2>/dev/null
    truncate -s -1 videos/clip2.mp4; rm videos/clip3.mp4
    collect --missing all.jsonl <prompts.jsonl >left.jsonl 2>err; [ "$(keys left.jsonl)" = "clip1 clip2 clip3 " ]
    grep "clip1: videos/clip1.mp4: damaged" err; grep "clip2: videos/clip2.mp4: [0-9]* bytes, not " err; grep "clip3: .*No such file" err
    fails 1 collect all.jsonl <prompts.jsonl >left.jsonl; [ "$(keys left.jsonl)" = "clip4 " ]
    made 1,3p >>all.jsonl; collect all.jsonl <prompts.jsonl >again.jsonl; cat a.jsonl b.jsonl | cmp again.jsonl
    diff -r videos whole'
ok 'what was made of another prompt, caption, rule or video is not it' '
    for change in s/ball/box/ "s/action/caption/" "s/roll\"/&,\"rule\":\"it stays\"/" "s/roll\"/&,\"path\":\"x.mp4\"/" "s/roll\"/&,\"crc32c\":1/"; do
        sed "2$change" prompts.jsonl >other.jsonl
        collect --missing all.jsonl <other.jsonl >left.jsonl 2>err; sed -n 2p other.jsonl | cmp left.jsonl -; grep "clip2: made of another \`" err
    done
    sed "2s/roll/fall/" prompts.jsonl | collect all.jsonl >other.jsonl; cmp other.jsonl again.jsonl'
ok 'scores are of their videos, and of a rule that its score replaced' '
    sed "s/}\$/,\"rule\":\"it falls\"}/" again.jsonl >videos.jsonl
    sed "s/}\$/,\"rule_asked\":\"it falls\",\"rule\":1,\"sa\":4}/" again.jsonl >scores.jsonl
    collect scores.jsonl <videos.jsonl | cmp - scores.jsonl
    sed "2s/\"crc32c\":/&1/" videos.jsonl | collect --missing scores.jsonl 2>err | cut -c 1-14 | grep -x "{\"key\":\"clip2\""
    sed "s/\"path\":/\"path\":\"videos.jsonl\",\"source\":/; s/,\"bytes\":[0-9]*,\"crc32c\":[0-9]*//" scores.jsonl >moved.jsonl
    sed "s/,\"bytes\":[0-9]*,\"crc32c\":[0-9]*//" videos.jsonl | collect moved.jsonl | cmp - moved.jsonl'
ok 'a last line that was cut off does not count; of one key the last does' '
    head -c -10 again.jsonl >cut.jsonl
    [ "$(collect --missing cut.jsonl <prompts.jsonl | keys)" = "clip4 " ]
    { sed "s/ball/box/" again.jsonl; cat again.jsonl; } >twice.jsonl; collect twice.jsonl <prompts.jsonl | cmp - again.jsonl
    { cat again.jsonl; sed "s/ball/box/" again.jsonl; } >twice.jsonl; [ "$(collect --missing twice.jsonl <prompts.jsonl | grep -c .)" = 4 ]'
ok 'files that are no such lines are refused by line; wrong usage' '
    for line in nonsense "[1]" "{}" "{\"key\":1}" "{\"key\":\"\"}" "{\"key\":\"a\",\"key\":\"b\"}"; do
        { head -n 1 again.jsonl; echo "$line"; } >bad.jsonl
        fails 1 collect bad.jsonl <prompts.jsonl; grep "^collect: bad.jsonl: line 2: " err
    done
    fails 1 collect videos <prompts.jsonl; grep "collect: videos: Is a directory" err
    fails 2 collect <prompts.jsonl; fails 1 collect again.jsonl </dev/null'
finish
