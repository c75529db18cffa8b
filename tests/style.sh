#!/bin/sh
# What is promised of the code: every program has a test and says all it can do, scripts are clean, files are short, rooms include only
# what the law allows, and the texts that explain the house are there.
. "${0%/*}/lib.sh"
pipelines=$(sed -n 's/^PIPELINES := //p' "$top/Makefile")
programs=$(sed -n '/^FILTERS :=/,/[^\\]$/p' "$top/Makefile" | sed 's/FILTERS :=//; s/\\$//')

ok "every program has a test of its own, and the README names it" '
    for p in $programs; do
        [ -e "$tests/$p.sh" ] || [ -e "$tests/$p.c" ] || { echo "no test for $p"; exit 1; }
        grep -q "\`$p\`" "$top/README.md" || { echo "$p is not in the README"; exit 1; }
    done'
ok "--help goes to stdout with 0 and names every option (a program whose help lacks one aborts)" '
    for p in $programs; do
        $p --help >help 2>err || { echo "$p: exit $?"; cat err; exit 1; }
        [ ! -s err ] && head -n 1 help | grep -q "^$p - " || { echo "$p"; cat err; exit 1; }
        grep -q "^usage: $p" help && grep -q "^exit " help && grep -q "^e.g. " help || { echo "$p: no usage, exit or e.g."; exit 1; }
        $p -h 2>err | cmp - help || { echo "$p: -h"; cat err; exit 1; }
        $p --version | grep -q "^$p (sluice) [0-9]" || { echo "$p: --version"; exit 1; }
        fails 2 $p --no-such-option </dev/null >out
        [ ! -s out ] && [ "$(wc -l <err)" = 1 ] || { echo "$p: wrong usage"; cat err out; exit 1; }
    done'
ok "so have the pipelines" '
    for p in $pipelines; do
        [ -e "$tests/$p.sh" ] || grep -q "little $p" "$tests"/*.sh || { echo "no test for $p"; exit 1; }
        grep -q "\`$p\`" "$top/README.md" || { echo "$p is not in the README"; exit 1; }
        "$top/pipelines/$p" --help >help 2>err || { echo "$p: exit $?"; cat err; exit 1; }
        [ ! -s err ] && head -n 1 help | grep -q "^$p - " || { echo "$p"; cat err; exit 1; }
        grep -q "^usage: $p" help && grep -q "^exit " help && grep -q "^e.g. " help || { echo "$p: no usage, exit or e.g."; exit 1; }
        "$top/pipelines/$p" -h 2>err | cmp - help || { echo "$p: -h"; cat err; exit 1; }
        "$top/pipelines/$p" --version | grep -q "^$p (sluice) [0-9]" || { echo "$p: --version"; exit 1; }
    done
    (cd "$top/pipelines"; ls) | grep -v "\.conf\$\|\.sh\$\|^README\.md\$" >have
    printf "%s\n" $pipelines | sort | diff have -'
ok "shellcheck" '
    need shellcheck
    cd "$top"
    shellcheck -x .ci/run .ci/deps .debian/prepare filters/lib/*.bash $(ls -d pipelines/* | grep -v "\.md\$") examples/*.sh examples/tokenizer/*.sh tests/*.sh tests/bench tests/cards tests/bench.d/*'
ok "no file is past a thousand lines, and no folder is called utils" '
    cd "$top"
    find filters kernels formats tests examples -name "*.[ch]" -o -name "*.cc" -o -name "*.sh" | xargs wc -l |
        awk "\$2 != \"total\" && \$1 > 1000 { print; bad = 1 } END { exit bad }"
    [ -z "$(find . -type d -name utils)" ]'

# ---- who may include whom ----------------------------------------------------------------------------------------------
only() { # FOLDER PATTERN...: of the project's own files, those in FOLDER include only such as match one of the patterns
    folder=$1; shift
    [ -d "$top/$folder" ] || { echo "there is no $folder"; return 1; }
    allowed=$(printf "|%s" "$@")
    ! (cd "$top" && grep -rn "^#include \"" --include="*.c" --include="*.h" --include="*.cc" --include="*.cu" "$folder") |
        grep -vE "#include \"(${allowed#|})" || { echo "$folder may include $* alone"; return 1; }
}
ok "formats know no network and no device, kernels no file format" '
    only formats formats/
    only kernels kernels/ formats/tensor.h formats/clock.h'
ok "what programs share knows none of them, and no network" 'only filters/lib filters/lib/ formats/ kernels/'
ok "a network knows no adapter, and of formats model, safetensors and tokenizer alone" '
    only filters/nets filters/nets/ filters/lib/rng.h kernels/ formats/model.h formats/safetensors.h formats/tokenizer.h
    ! grep -nE "struct adapter|adapter\.h|ADAPTER_" "$top"/filters/nets/*'
ok "adapters, trainer and sampler know no program, no grader and no report" 'only filters/learning filters/learning/ filters/nets/ filters/lib/ formats/ kernels/'
ok "an adapter attaches to linear layers and knows no network" '
    only filters/learning/adapters filters/learning/adapter filters/nets/linears.h filters/lib/ kernels/ formats/error.h
    ! grep -n "include \"filters/nets/" "$top"/filters/learning/adapter*.[ch] | grep -v "filters/nets/linears.h"
    only filters/learning/schedulers filters/learning/schedulers.h formats/error.h'
ok "a grader knows no adapter and no report" 'only filters/grading filters/grading/ filters/nets/ filters/lib/ formats/ kernels/'
ok "a report, the choice of clips and the toy world know no network" '
    only filters/reporting filters/reporting/ filters/lib/ formats/
    only filters/clips filters/clips/ filters/lib/ formats/
    only filters/toy filters/toy/ filters/lib/ formats/'
ok "filters/ holds programs and nothing else at its top, and every room is in the law above" '
    cd "$top/filters"
    for file in *; do
        case $file in
        README.md | lib | nets | learning | grading | reporting | clips | toy) continue ;;
        *.c) case " $(echo $programs) " in *" ${file%.c} "*) continue ;; esac ;;
        esac
        echo "filters/$file is no program and no known room"; failed=1
    done
    [ -z "${failed:-}" ]'
ok "programs open a device in one place, with all that its options asked for" '
    [ "$(grep -rlE "kern_(open|compute_in|profile_start)\(" "$top/filters")" = "$top/filters/lib/compute.c" ]'

# ---- texts -------------------------------------------------------------------------------------------------------------
ok "the README is a front page: 200 lines of 140 columns, 1600 words" '
    [ "$(wc -l <"$top/README.md")" -le 200 ]
    [ "$(wc -w <"$top/README.md")" -le 1600 ]
    awk "length > 140 { print FILENAME \": line \" FNR \" has \" length \" columns\"; bad = 1 } END { exit bad }" "$top/README.md"'
ok "CONTRIBUTING.md is a page or two, and says how a commit is described" '
    [ "$(wc -l <"$top/CONTRIBUTING.md")" -le 140 ]
    grep -v "^|" "$top/CONTRIBUTING.md" | awk "length > 140 { print; bad = 1 } END { exit bad }"
    grep -q "72 columns" "$top/CONTRIBUTING.md"
    grep -q "The body says why" "$top/CONTRIBUTING.md"'
ok "what CONTRIBUTING.md says must be touched is there" '
    cd "$top"
    for path in $(sed -n "/^## What to touch/,/^## Rules/p" CONTRIBUTING.md | grep -oE "(filters|kernels|tests|examples)/[A-Za-z0-9_./*-]+" | sort -u); do
        case $path in *NAME*) path=${path%/*} ;; esac
        ls -d $path >/dev/null || { echo "$path is not there"; failed=1; }
    done
    [ -z "${failed:-}" ]'
ok "every folder has its README.md" '
    cd "$top"
    for folder in filters kernels kernels/cuda formats pipelines tests examples; do
        [ -s $folder/README.md ] || { echo "$folder has none"; failed=1; }
    done
    [ -z "${failed:-}" ]'
ok "formats/README.md names every format" '
    cd "$top/formats"
    for file in *.h; do
        grep -qE "\`${file%.h}\`|\[${file%.h}\]\(" README.md || { echo "$file is not in it"; failed=1; }
    done
    [ -z "${failed:-}" ]'
ok "no end of a comment stands alone on a line, and clang-format breaks none" '
    cd "$top"
    grep -qx "ReflowComments: false" .clang-format
    ! grep -rnE --include="*.[ch]" --include="*.cc" --include="*.cu" "^[ *]*\*/$" filters formats kernels tests examples'
ok "a program loads only the libraries that it uses" '
    need ldd
    for p in draw train-step sample compare tensor-eq; do fails 1 sh -c "ldd $(command -v $p) | grep libav"; done
    ldd "$(command -v decode)" | grep -q libavcodec'
ok "tests/data stays small" '[ "$(du -sk "$tests/data" | cut -f1)" -lt 15000 ]'
finish
