#!/bin/sh
# make install: the programs run from where they are installed, with manual pages and completion, and want nothing of the source.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
unset SLUICE_DATA
root=$work/root all=$(sed -n '/^FILTERS :=/,/^$/{s/^[A-Z]* :=//;s/\\$//;p;}' "$top/Makefile")
installed() { env -i HOME="$work" TMPDIR="$work" OMP_WAIT_POLICY=passive PATH="$root/usr/bin:/usr/bin:/bin" "$@"; }

ok 'into a root of its own' '
    make -C "$top" install BIN="${BIN:-$top/bin}" BUILD="$BUILD" SAN="${SAN:-}" DESTDIR="$root" PREFIX=/usr >said 2>&1 || { cat said; exit 1; }
    for p in $all; do [ -x "$root/usr/bin/$p" ]; [ -s "$root/usr/share/man/man1/$p.1" ]; [ -s "$root/usr/share/bash-completion/completions/$p" ]; done
    [ "$(find "$root" -name "*.1" | wc -l)" = "$(echo $all | wc -w)" ]'
ok 'the manual pages say what --help says, and troff has nothing to complain of' '
    need groff
    for p in $all; do
        groff -man -ww -Tutf8 "$root/usr/share/man/man1/$p.1" >page 2>err
        [ ! -s err ] || { echo "$p:"; cat err; exit 1; }
        sed "s/.\x08//g; s/\x1b\[[0-9;]*m//g" page >plain
        for section in NAME SYNOPSIS OPTIONS "EXIT STATUS" EXAMPLES "SEE ALSO"; do
            grep -A1 "^$section" plain | grep "^   *[^ ]" >/dev/null || { echo "$p: no $section"; cat plain; exit 1; }
        done
        installed "$p" --help >help
        for option in $(grep -o -e "^ *-., --[a-z-]*\|^ *--[a-z-]*" help); do
            grep -q -e "^ .*${option%,}\b" plain || { echo "$p: $option is not in its page"; exit 1; }
        done
        words() { tr -cd "a-zA-Z0-9" <"$1" | sed "s/seealso.*//" | wc -c; }
        [ "$(words plain)" -gt "$(($(words help) * 9 / 10))" ]
    done'
ok 'man finds a page, and its first lines are for apropos' '
    need lexgrog
    for p in $all; do lexgrog "$root/usr/share/man/man1/$p.1" | grep "\"$p - "; done'
ok 'completion: options, and the words for one' '
    completed() { installed bash -c ". $root/usr/share/bash-completion/completions/sample; COMP_WORDS=(\"\$@\") COMP_CWORD=\$((\$# - 1)); _sluice; echo \${COMPREPLY[*]}" - "$@"; }
    [ "$(completed sample --ste)" = --steps ]
    for word in dpm ddim euler; do completed sample --scheduler "" | grep -w $word; done
    [ "$(completed sample --scheduler eu)" = euler ]
    [ "$(completed train-step --objective flow-)" = flow-snr ]
    completed generate -- | grep -w -e --dry-run
    [ -z "$(completed sample x)" ]
    installed bash -c ". $root/usr/share/bash-completion/completions/sample; complete -p grade-all" | grep _sluice'
ok 'the tiny experiment runs from there' '
    need parallel; need gnuplot
    mkdir elsewhere; cd elsewhere
    data=$root/usr/share/sluice
    installed reproduce --config tiny INPUTS= CLIPS="$data/clips/clips.csv" VIDEOS="$data/clips" VAL_FRACTION=0.25 PROMPTS="$data/prompts.csv" SHARDS=1 STEPS=2 MAX_STEPS=12 WARMUP=2 EVAL_EVERY=4 FRAMES=5 standard_r16 gdn_cssm_r16_k1_rope >table 2>err || { cat err; exit 1; }
    grep "^12 prompts, " table
    [ "$(find . -name "*.mp4" | wc -l)" = 36 ]; [ -s experiment-tiny/report.html ]
    fails 1 grep -rIl "$top/" . '
finish
