# lib.sh - TAP for shell tests: . "${0%/*}/lib.sh"; ok 'what must hold' 'commands'; finish
# shellcheck shell=sh disable=SC2034,SC1007
#
# Each test file runs in a fresh temporary folder, with the built programs first on the PATH. $tests is the tests folder,
# $shared the folder of real clips and scores, if there is one. Give each program its own line: a pipe keeps only its last
# status.
set -u
tests=$(CDPATH= cd -- "${0%/*}" && pwd)
top=${tests%/*}
shared=$top/../shared
BUILD=${BUILD:-$top/build/release}
SLUICE_DATA=${SLUICE_DATA:-$top/examples}
export SLUICE_DATA
PATH=${BIN:-$top/bin}:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work" || exit 1
count=0 bad=0

# ok NAME COMMANDS: run the commands (in a subshell, -e); a failure shows what they said, and the end of what they sent
# to ./err. Exit 77 with a line on stdout means SKIP for that reason.
ok() {
    count=$((count + 1))
    (trap 'last_words $?' EXIT; set -e; eval "$2") >"$work/.said" 2>&1
    status=$?
    if [ $status = 77 ]; then
        if [ -n "${NEED_CUDA:-}" ] && grep -qi cuda "$work/.said"; then
            bad=$((bad + 1)); echo "not ok $count - $1 (skipped: $(tail -n 1 "$work/.said"))"
        else
            echo "ok $count - $1 # SKIP $(tail -n 1 "$work/.said")"
        fi
    elif [ $status = 0 ]; then
        echo "ok $count - $1"
    else
        bad=$((bad + 1)); echo "not ok $count - $1"; echo "# exit $status"; sed 's/^/# /' "$work/.said" | tail -n 30
    fi
}

last_words() { if [ "$1" != 0 ] && [ "$1" != 77 ] && [ -s err ]; then echo 'in err:'; tail -n 5 err; fi; }

# need WHAT: leave the test with SKIP unless it is there: cuda, shared, or a program's name.
need() {
    case $1 in
    cuda) nvidia-smi -L >/dev/null 2>&1 && return 0 ;;
    shared) [ -d "$shared/data" ] && return 0 ;;
    *) command -v "$1" >/dev/null && return 0 ;;
    esac
    echo "no $1 here"
    exit 77
}

# fast: leave the test with SKIP when the programs are sanitized: it would take too long.
fast() { [ -z "${SAN:-}" ] || { echo "too slow with sanitizers"; exit 77; }; }

# fails CODE COMMAND...: the command must exit with just that code. Its stderr is left in ./err.
fails() {
    want=$1 got=0; shift
    "$@" 2>err || got=$?
    [ $got = "$want" ] || { echo "exit $got, not $want: $*"; cat err; return 1; }
}

# blocks FILE MARK: block1, block2 .. are the blocks of a README that are marked so
blocks() {
    rm -f block*
    awk -v mark="\`\`\`$2" '/^```/ { inside = $0 == mark; n += inside; next } inside { print >"block" n }' "$top/$1"
}
# like_the_repository: the commands of a README find what they name in this folder.
like_the_repository() { for name in bin examples pipelines tests; do [ -e $name ] || ln -s "$top/$name" $name; done; [ -z "${BIN:-}" ] || ln -sfn "$BIN" bin; }

finish() {
    echo "1..$count"
    [ $bad = 0 ]
    exit
}
