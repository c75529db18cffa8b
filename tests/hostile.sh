#!/bin/sh
# What every program must withstand: wrong usage, damaged input, full disks, readers that leave, short reads, closed
# descriptors, signals, keys that look like paths; and what must not change a byte: a second run, threads, sharding.
# Each program of the Makefile's list needs a row in the table.
#
# shellcheck disable=SC2086,SC2154,SC2317 # $arguments is a list of words; lib.sh sets $work and $top, and calls the checks
. "${0%/*}/lib.sh"

programs=${PROGRAMS:-$(sed -n '/^FILTERS/,/[^\\]$/{s/^FILTERS *:=//;s/\\$//;p;}' "$top/Makefile")}
compute='-m random:tiny --device cpu --threads 1'
records='0 1 2 3'

# ---- the table -------------------------------------------------------------------------------------------------------
# input: a file below, or none. arguments: of a good run, in an empty working folder. out: what goes to stdout, `frames`,
# `text`, or `nothing` (files only).
row() {
    input=none arguments='' out=frames
    case $1 in
    curate)     input=clips.csv arguments=--no-filter out=text ;;
    prompts)    input=clips.csv out=text ;;
    decode)     input=clips arguments='--frames 5 --size 48x32' ;;
    vae-encode) input=video arguments=$compute ;;
    vae-decode) input=latents arguments=$compute ;;
    t5-encode)  input=prompts arguments=$compute ;;
    pack)       input=training arguments='-o store' out=nothing ;;
    draw)       arguments="--count 9 $work/store" ;;
    train-step) input=training arguments="$compute --adapter standard --state run" out=text ;;
    sample)     input=embeds arguments="$compute --frames 5 --size 48x32 --steps 2" ;;
    encode-mp4) input=video arguments='-o videos' out=text ;;
    grade)      input=video arguments='-m random:owl-tiny --device cpu --threads 1 --task pc --frames 3 --max-new-tokens 2 --csv scores.csv' out=text ;;
    collect)    input=prompts arguments='--missing nothing-yet.jsonl' out=text ;;
    compare)    input=scores arguments='--base base --format json base=/dev/stdin' out=text ;;
    report)     input=scores arguments='--base base base=/dev/stdin' out=text ;;
    plot)       input=metrics arguments='--format svg' out=text ;;
    show)       input=training out=text ;;
    tensor-gen) arguments='--name x --shape 2,3' ;;
    tensor-eq)  input=video arguments="- $work/video" out=text ;;
    toy-world)  arguments='--count 4 --unlawful 0.5 --frames 5 --size 48x32' ;;
    toy-check)  input=toys out=text ;;
    model-init) arguments='tiny model' out=nothing ;;
    model-convert) arguments="$tests/data/torch/sharded model" out=nothing ;;
    *) return 1 ;;
    esac
}

# Each input is four records, the files NAME.0 to NAME.3 one after another; NAME.key is one whose key is ../../x.
make_inputs() {
    for i in $records key; do
        key=k$i
        [ $i = key ] && key=../../x
        tensor-gen --name video --dtype u8 --fill ramp --shape 5,32,48,3 --key $key --meta fps=8 >video.$i
        tensor-gen --name latents --shape 2,16,4,6 --key $key >latents.$i
        printf '{"key":"%s","prompt":"a kettle, take %s, boils"}\n' $key $i >prompts.$i
        t5-encode $compute <prompts.$i >embeds.$i
        tensor-gen --add --name latents --shape 2,16,4,6 <embeds.$i >training.$i
        printf '{"key":"%s","path":"%s/clip.mp4"}\n' $key "$work" >clips.$i
        tensor-gen --name video --dtype u8 --shape 5,32,48,3 --key $key --meta kind=roll --meta colour=red --meta direction=left >toys.$i
    done
    for name in video latents prompts embeds training clips toys; do
        (cd "$work" && cat $name.0 $name.1 $name.2 $name.3 >$name)
    done
    { echo video,caption,upsampled_caption; seq 2000 | sed 's/.*/&.mp4,"a kettle, take &, boils","a long text &"/'; } >clips.csv
    encode-mp4 -o clip <video.0
    mv clip/*.mp4 clip.mp4
    pack -o store <training
    for i in 1 2 3 4; do printf '{"step":%d,"loss":0.%d,"grad_norm":1,"lr":1e-4,"s":0.5,"key":"k"}\n' $i $i; done >metrics
    seq 400 | sed 's/.*/{"key":"&","caption":"a kettle, take &, boils","sa":4,"pc":3}/' >scores
}

# ---- running -----------------------------------------------------------------------------------------------------------

# go FOLDER [MORE ARGUMENTS]: $program in a new folder, its stdout there as `out`, its stderr as FOLDER.err. A minute is
# for ever.
go() {
    folder=$1
    shift
    mkdir -p "$folder"
    (cd "$folder" && exec timeout 60 "$program" $arguments "$@" >out 2>"../${folder##*/}.err")
}

# good FOLDER [MORE ARGUMENTS]: the same with the good input.
good() { go "$@" <"$source"; }

# redirected FOLDER HOW: the same but for its standard descriptors, `>&-` say.
redirected() {
    mkdir "$1"
    timeout 60 sh -c "cd $1 && exec \"\$@\" $2" - "$program" $arguments <"$source"
}

# refused CODE FOLDER [MORE ARGUMENTS]: it must say why in its own name, and leave no stream that looks whole, no
# temporary file.
refused() {
    code=$1
    shift
    fails "$code" go "$@" || { cat "$1.err"; return 1; }
    grep "^$program: " "$1.err" || { echo "no message"; cat "$1.err"; return 1; }
    [ -z "$(find "$1" -name '.tmp*')" ] || { find "$1"; return 1; }
    [ $out != frames ] || ! is_frames || ! is_whole "$1/out" # of JSON lines, those before a bad one count
}

is_whole() { tensor-eq --quiet "$1" "$1" >/dev/null 2>&1; }
is_frames() { case $input in video | latents | embeds | training) ;; *) return 1 ;; esac; }
same() { diff -r -x speed.json "$1" "$2"; }
takes() { "$program" --help | grep -qe "--$1\b"; }

# Records numbered anew, so that streams with the same records are the same bytes.
renumbered() { tensor-gen --add --name mark --shape 0; }

# ---- the checks, each in a folder of the program's own -----------------------------------------------------------------

check_usage() {
    refused 2 unknown --no-such-option </dev/null
    refused 2 unwanted --help=yes </dev/null
    fails 2 "$program" --no-such-option >said </dev/null
    [ ! -s said ]
    ! takes threads || refused 2 threads --threads many </dev/null
    ! takes device || refused 2 device --device abacus </dev/null
}

# What the source gives to getopt, and those of the common options that it does not call unknown.
accepted() {
    sed -n 's/.*{\.name = "\([^"]*\)".*/\1/p' "$top/filters/$program.c"
    for option in device dtype model seed threads keep strict log-json; do
        "$program" --$option </dev/null 2>&1 >/dev/null | grep -q "no option --$option\b" || echo $option
    done
}

check_help() {
    "$program" --help >help 2>complaints
    [ ! -s complaints ]
    head -n 1 help | grep "^$program - "
    for option in $(accepted) help version; do
        grep -qe "--$option\b" help || { echo "--$option is not in the help"; return 1; }
    done
    "$program" --version >version 2>complaints
    [ ! -s complaints ]
    grep -x "$program (sluice) [0-9.]*" version
    fails 1 "$program" --help >/dev/full
    grep 'No space left' err
}

check_damage() {
    refused 1 folder <.
    refused 1 nothing </dev/null
    printf 'hello, world\n' | refused 1 text
    fails 1 go json --log-json </dev/null
    grep "^{\"program\":\"$program\",\"level\":.*}$" json.err
    size=$(wc -c <"$source")
    for cut in 5 $((size / 3)) $((size - 2)); do
        head -c $cut "$source" | refused 1 cut$cut
    done
    is_frames || return 0
    for at in 20 $((size / 2)) $((size - 3)); do # the byte there, and no other, becomes U
        { head -c $at "$source"; printf U; tail -c +$((at + 2)) "$source"; } >flipped
        cmp -s flipped "$source" || refused 1 flip$at <flipped
    done
}

check_full_disk() {
    fails 1 redirected full '>/dev/full'
    grep 'No space left' err
}

# Files of at most 512 bytes: what cannot be written whole is not there at all. Lists of lines may be shorter.
check_small_disk() {
    [ -n "$(find good -type f -size +1)" ] || return 0
    mkdir small
    fails 1 sh -c 'cd small && trap "" XFSZ && ulimit -f 1 && exec "$@" >out' - "$program" $arguments <"$source"
    grep "^$program: .*File too large" err
    find small -type f ! -name out ! -name '*.jsonl' | while read -r file; do
        cmp "$file" "good${file#small}" || exit 1
    done
}

check_short_reads() {
    dd bs=1 status=none <"$source" | go bytes
    same good bytes
}

check_nonblocking() {
    need python3
    nonblocking='import fcntl, os, sys
for fd in 0, 1: fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
os.execvp(sys.argv[1], sys.argv[1:])'
    mkdir polled
    { sleep 0.2; head -c 100 "$source"; sleep 0.2; tail -c +101 "$source"; } |
        if ! (cd polled && timeout 60 python3 -c "$nonblocking" "$program" $arguments 2>../polled.err); then touch failed; fi |
        { sleep 0.5; cat >polled.out; }
    mv polled.out polled/out
    [ ! -e failed ] || { cat polled.err; return 1; }
    same good polled
}

# Nobody reads: it ends by the signal, or as if, and says no more than a good run does.
check_reader_leaves() {
    { sleep 0.2; redirected left '2>../left.err' || echo $? >status; } | :
    grep -x 141 status || { cat status left.err; return 1; }
    ! grep -vxFf good.err left.err
}

check_terminal() {
    need script
    mkdir terminal
    fails 2 script -qec "cd terminal && $program $arguments" typescript </dev/null >/dev/null
    grep terminal typescript
}

check_closed() {
    [ $input = none ] || refused 1 no0 <&-
    redirected no2 '2>&- >out'
    same good no2
    [ $out != nothing ] || return 0
    fails 1 redirected no1 '>&-'
    grep "^$program: " err
    fails 1 redirected none '<&- >&- 2>&-'
}

check_sigterm() {
    mkfifo pipe
    mkdir killed
    (cd killed && exec "$program" $arguments <../pipe >out 2>../killed.err) &
    exec 9>pipe
    head -c $(($(wc -c <"$source") * 2 / 3)) "$source" >&9
    sleep 0.5
    kill -TERM $!
    wait $! && status=0 || status=$?
    exec 9>&-
    [ $status = 143 ] || { echo "exit $status"; cat killed.err; return 1; }
    [ $out != frames ] || ! is_whole killed/out
}

# A key is a name, not a place: whatever is written lies in the working folder.
check_key() {
    mkdir -p a/b
    go a/b/c <"$source.key" || { cat a/b/c.err; return 1; }
    find a | grep -v '^a\(/b\(/c\(\.err\|/.*\)\?\)\?\)\?$' >outside || true
    [ ! -s outside ] || { cat outside; return 1; }
    [ $out = nothing ] || grep -aF ../../x a/b/c/out >/dev/null
}

check_again() { good again && same good again; }

check_threads() {
    for n in 1 2 3; do
        good threads$n --threads $n
        same good threads$n
    done
}

check_shards() {
    for i in $records; do
        go shard$i <"$source.$i"
    done
    cat shard0/out shard1/out shard2/out shard3/out | renumbered >sharded
    renumbered <good/out >together
    cmp sharded together
}

# ---- all of them ---------------------------------------------------------------------------------------------------------

ok 'inputs can be made' make_inputs
for program in $programs; do
    mkdir "$work/$program.d"
    cd "$work/$program.d" || exit 1
    ok "$program: has a row in the table" "row $program"
    row $program || continue
    source=/dev/null
    [ $input = none ] || source=$work/$input

    ok "$program: wrong usage exits 2 and says why" check_usage
    ok "$program: --help tells every option, --version the version" check_help
    ok "$program: does its work" 'good good || { cat good.err; exit 1; }'
    ok "$program: does the same a second time" check_again
    ok "$program: leaves no half-written file on a small disk" check_small_disk
    ok "$program: notices closed descriptors" check_closed
    if takes threads; then
        ok "$program: threads change nothing" check_threads
    fi
    if [ $out != nothing ]; then
        ok "$program: notices a full disk" check_full_disk
        ok "$program: ends quietly when its reader leaves" check_reader_leaves
    fi
    if [ $out = frames ]; then
        ok "$program: sends no frames to a terminal" check_terminal
    fi
    [ $input != none ] || continue
    ok "$program: refuses damaged input" check_damage
    ok "$program: reads byte by byte" check_short_reads
    ok "$program: polls where it must not block" check_nonblocking
    ok "$program: ends by SIGTERM" check_sigterm
    if [ -e "$source.key" ] && [ "$program" != tensor-eq ]; then
        ok "$program: writes nothing where a key points" check_key
    fi
    if [ $out = frames ]; then
        ok "$program: works on shards as on the whole" check_shards
    fi
done
cd "$work" || exit 1
finish
