#!/bin/sh
# What the READMEs and the demo say is true: their commands run, and what they make plays.
#
# A block of a README that is marked ```sh is run here, with all others of its file, in a folder that looks like the repository. One that
# is marked ```sh checked cannot run here, as it needs a GPU, a network or hours: its programs, their options and the files that it reads of
# the repository must exist. A drawing or an output is ```text, and there are no other blocks.
. "${0%/*}/lib.sh"
programs=$(sed -n '/^FILTERS :=/,/[^\\]$/p' "$top/Makefile" | sed 's/FILTERS :=//; s/\\$//')
pipelines=$(sed -n 's/^PIPELINES := //p' "$top/Makefile")
readmes=$(cd "$top" && find . -path ./build -prune -o -name node_modules -prune -o -name '*.md' -print | sed 's|^\./||' | sort)

like_the_repository
blocks README.md sh
ok "the experiment runs as written, from clips and prompts to the report" '
    fast
    need parallel
    [ "$(ls block*)" = "$(printf "%s\n" block1 block2)" ]
    bash -euo pipefail ./block2 >said 2>err || { cat err; exit 1; }
    grep "^12 prompts, " said
    [ "$(find experiment-tiny/videos -name "*.mp4" | wc -l)" = 84 ]
    [ "$(cat experiment-tiny/scores/*.jsonl | wc -l)" = 84 ]
    grep "gdn_cssm_r16_k5_rope" experiment-tiny/report.html
    plot --table experiment-tiny/runs/*/ >trained; cat trained
    [ "$(grep -c "its best adapter is the untrained one" trained)" -lt 3 ] # of six; else the comparison is of the base with itself'
cat block2 >ran 2>/dev/null
for file in $readmes; do
    [ "$file" != README.md ] || continue
    grep -qx '```sh' "$top/$file" || continue
    ok "the commands of $file run" '
        fast
        mkdir -p "of/$file"; cd "of/$file"
        like_the_repository
        blocks "$file" sh
        for i in $(seq "$(ls block* | wc -l)"); do
            if cmp -s block$i "$work/ran"; then continue; fi # the experiment: once is enough
            bash -euo pipefail ./block$i >said 2>err || { echo "block $i:"; cat block$i said err; exit 1; }
        done'
done

ok "nobody is told to validate on what is trained on" '
    for file in $readmes; do
        awk -v file="$file" "
            /draw .*[|]\$|draw .*[|] train-step/ { from = \$0; sub(/ *[|].*/, \"\", from); sub(/.* /, \"\", from) }
            / --val / { val = \$0; sub(/.* --val /, \"\", val); sub(/ .*/, \"\", val); if (val == from) { print file \": \" \$0; bad = 1 } }
            END { exit bad }" "$top/$file" || exit 1
    done'

# What stands for a program in blocks that are only checked. It must exist, and know every option that it is given.
mkdir stubs
for name in cat cut grep head ls mkdir sed seq tail tee; do ln -s "$(command -v $name)" stubs/$name; done
real=$PATH
export real top
for name in $programs $pipelines; do
    case " $pipelines " in *" $name "*) path=$top/pipelines/$name ;; *) path=$(command -v "$name") ;; esac
    cat >stubs/"$name" <<E2
#!/bin/sh
PATH=\$real
help=\$("$path" --help) || exit 1
for a; do
    case \$a in
    --?*) o=\${a%%=*} ;;
    -[a-z]*) o=\$(echo "\$a" | cut -c 1-2) ;;
    *) continue ;;
    esac
    echo "\$help" | grep -qE -e "(^|[^a-z-])\$o([^a-z-]|\\\$)" || { echo "$name has no option \$o" >&2; exit 1; }
done
E2
done
cat >stubs/make <<'E2'
#!/bin/sh
PATH=$real exec make -C "$top" -n NVCC= "$@" >/dev/null
E2
cat >stubs/pip <<'E2'
#!/bin/sh
[ "$1 $2" = "install -r" ] && [ -e "$top/$3" ]
E2
cat >stubs/python3 <<'E2'
#!/bin/sh
PATH=$real script=$top/$1
shift
[ -e "$script" ] || { echo "$script is not there" >&2; exit 1; }
for a; do
    case $a in --?*) cat "${script%/*}"/*.py | grep -q -e "[\"']${a%%=*}[\"']" || { echo "$script has no option $a" >&2; exit 1; } ;; esac
done
E2
cat >stubs/hf <<'E2'
#!/bin/sh
[ "$1" = download ] && [ $# -gt 3 ] || exit 1
shift 2 # of somebody else's repository
for a; do case $a in --include | --exclude | --local-dir | --repo-type | --revision) ;; -*) echo "hf download has no option $a" >&2; exit 1 ;; esac; done
E2
cat >stubs/git <<'E2'
#!/bin/sh
[ "$1" = clone ] # of somebody else's repository
E2
cat >stubs/sh <<'E2'
#!/bin/sh
[ -e "$top/$1" ]
E2
chmod +x stubs/*
sound() { # BLOCK: every program, option and file of the repository in it exists
    grep -oE '<[A-Za-z0-9./_-]+' "$1" | sed 's/^<//' | while read -r file; do mkdir -p "$(dirname "$file")"; : >>"$file"; done
    mkdir -p bin
    grep -oE '(^|[ =(])(pipelines|examples|tests)/[A-Za-z0-9._/-]+' "$1" | sed 's/^[ =(]//' >paths
    while read -r path; do [ -e "$top/$path" ] || { echo "$path is not there"; return 1; }; done <paths
    sed -E 's,(^|[ (|])pipelines/,\1,g' "$1" >checked
    PATH=$work/stubs "$(command -v bash)" -euo pipefail checked >said 2>err </dev/null || { cat "$1" said err; return 1; }
}
for file in $readmes; do
    grep -qx '```sh checked' "$top/$file" || continue
    ok "the commands of $file that cannot run here: programs, options and files exist" '
        mkdir -p "checked/$file"; cd "checked/$file"
        blocks "$file" "sh checked"
        for block in block*; do sound $block; done'
done
ok "a command that does not exist, or an option, is noticed" '
    mkdir noticed; cd noticed
    echo "decode --frames 9 <clips.jsonl | vae-encode -m M >latents.mp; make test" >good; sound good
    for bad in "decoed <x" "decode --farmes 9" "train-step -x 3" "make tets" "pipelines/generete" "python3 examples/toy/train.py vae --modle x" "hf download a/b --locl-dir b" "echo \$M | show"; do
        echo "$bad" >bad
        if sound bad; then echo "not noticed: $bad"; exit 1; fi
    done'
ok "every block of every README says what it is" '
    cd "$top"
    names=$(echo $programs $pipelines make | tr " " "|")
    for file in $readmes; do
        awk -v names="^(    |\t)[^|]*($names) " "
            /^\`\`\`/ { inside = !inside; if (inside && \$0 !~ /^\`\`\`(sh|sh checked|text)\$/) bad(\"a block marked \" \$0) ; next }
            !inside && \$0 ~ names { bad(\"commands outside of a block: \" \$0) }
            function bad(why) { print FILENAME \": line \" FNR \": \" why; failed = 1 }
            END { exit failed }" "$file" || failed=1
    done
    [ -z "${failed:-}" ]'
ok "links within the repository lead somewhere" '
    cd "$top"
    for file in $readmes; do
        for link in $(grep -oE "\]\([^)]*\)" "$file" | sed "s/^](//; s/)\$//" | grep -v "^https\?:"); do
            path=${link%%#*}
            [ -z "$path" ] || [ -e "$(dirname "$file")/$path" ] || { echo "$file: $link leads nowhere"; failed=1; }
            case $link in
            *#*)
                target=$file
                [ -z "$path" ] || target=$(dirname "$file")/$path
                sed -n "s/^##* //p" "$target" | tr "A-Z " "a-z-" | tr -cd "a-z0-9\n-" | grep -qx -e "${link#*#}" ||
                    { echo "$file: $link: no such heading"; failed=1; } ;;
            esac
        done
    done
    [ -z "${failed:-}" ]'
finish
