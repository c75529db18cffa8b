#!/bin/sh
# What is promised of the code: every program has a test and says all it can do, scripts are clean, files are short.
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
        "$top/pipelines/$p" --version | grep -q "^$p (sluice) [0-9]" || { echo "$p: --version"; exit 1; }
    done
    (cd "$top/pipelines"; ls) | grep -v "\.conf\$\|\.sh\$\|\.md\$" >have
    printf "%s\n" $pipelines | sort | diff have -'
ok "shellcheck" '
    need shellcheck
    cd "$top"
    shellcheck -x .ci/run .ci/deps filters/lib/*.bash $(ls -d pipelines/* | grep -v "\.md\$") examples/*.sh examples/tokenizer/*.sh tests/*.sh tests/bench tests/bench.d/*'
ok "no file is past a thousand lines, and no folder is called utils" '
    cd "$top"
    find filters kernels formats tests examples -name "*.[ch]" -o -name "*.cc" -o -name "*.sh" | xargs wc -l |
        awk "\$2 != \"total\" && \$1 > 1000 { print; bad = 1 } END { exit bad }"
    [ -z "$(find . -type d -name utils)" ]'
ok "an arrow only points down: kernels and formats know no network, kernels no file format" '
    fails 1 grep -rn "include \"filters/" "$top/kernels" "$top/formats"
    fails 1 grep -rnE "include \"formats/(record|safetensors|model|store|video)" "$top/kernels"
    fails 1 grep -rn "include \"kernels/" "$top/formats"'
ok "tests/data stays small" '[ "$(du -sk "$tests/data" | cut -f1)" -lt 15000 ]'
finish
