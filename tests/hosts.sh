#!/bin/sh
# pipelines/ over several hosts: two SSH servers of the test's own, on loopback, that share its folder. On them there is no GNU parallel.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"
PATH=$PATH:/usr/sbin
need_hosts() { need_parallel; need ssh; need sshd; [ -e up ] || { echo "no SSH server can be started here"; exit 77; }; }

# What runs on a host knows it by this name; so all of it can be found, and told in the ledger.
of_host() { grep -lsz "^HOSTNAME=$1\$" /proc/[0-9]*/environ | sed 's/[^0-9]//g'; }
die_host() {
    kill -s KILL "$(cat "$1.pid" 2>/dev/null)" 2>/dev/null
    of_host "$1" | xargs -r kill -s KILL 2>/dev/null || true # some are gone by themselves by then
    rm -f "$1.pid"
}
start_host() { # NAME PORT
    cat >"$1.conf" <<E2
Port $2
ListenAddress 127.0.0.1
HostKey $work/key
AuthorizedKeysFile $work/key.pub
PidFile $work/$1.pid
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv HOSTNAME=$1 PATH=$work/remote OMP_WAIT_POLICY=passive SLUICE_DATA=$SLUICE_DATA ${OPENBLAS_CORETYPE:+OPENBLAS_CORETYPE=$OPENBLAS_CORETYPE}
E2
    "$(command -v sshd)" -f "$work/$1.conf" -E "$work/$1.log" || return 1
    printf 'Host %s\nHostName 127.0.0.1\nPort %s\nIdentityFile %s/key\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' \
        "$1" "$2" "$work" >>ssh.conf
    for wait in 1 2 3 4 5; do
        if ssh -F ssh.conf "$1" true; then return 0; fi
        sleep "0.$wait"
    done
    return 1
}
start_hosts() {
    command -v sshd >/dev/null && command -v ssh >/dev/null || return 1
    [ "$(id -u)" != 0 ] || mkdir -p /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f key
    mkdir remote # the programs, and of the system's all but one
    for folder in /bin /usr/bin "${BIN:-$top/bin}" "$top/pipelines"; do
        find "$folder/" -maxdepth 1 -type f -o -maxdepth 1 -type l | grep -v '/parallel$' | xargs ln -sf -t remote 2>/dev/null
    done
    port=$((20000 + $$ % 20000))
    for host in hosta hostb; do
        while ! start_host $host $port; do
            port=$((port + 7))
            [ $port -lt 45000 ] || return 1
        done
        port=$((port + 7))
    done 2>/dev/null
    touch up
}
start_hosts
trap 'die_host hosta; die_host hostb; rm -rf "$work"' EXIT
hosts="ssh -F $work/ssh.conf hosta,ssh -F $work/ssh.conf hostb"
ledger() { cat "$1"/ledger/generate-*.jsonl; }

ok 'the same as here, before it' '
    need_hosts
    little precompute 2>err; little train 2>err
    cp -r work before
    little generate 2>err; mv work here; cp -r before work'
ok 'generate on two hosts, without GNU parallel there: both work, and the videos are the same' '
    need_hosts
    ssh -F ssh.conf hosta "command -v parallel" && exit 1
    little generate -j 1 --sshlogin "$hosts" 2>err || { cat err; exit 1; }
    for host in hosta hostb; do ledger work | grep "\"end\".*\"host\":\"$host\".*\"done\":[1-9]"; done
    same_results work here
    little generate -j 1 --sshlogin "$hosts" 2>err; grep "0 of 6 jobs" err'
ok 'names of every sign get there' '
    need_hosts
    mkdir -- "./$odd"; cd -- "./$odd"
    odd_inputs
    set -- --config "$odd.conf" WORK="$odd" CLIPS="$odd.clips/$odd.csv" VIDEOS="$odd.clips" PROMPTS="$odd.csv" MODEL="$odd.model" -j 1 --sshlogin "$hosts"
    precompute "$@" 2>err || { cat err; exit 1; }; [ "$(show --jsonl "./$odd/train" "./$odd/val" | grep -c .)" = 8 ]
    generate "$@" base 2>err || { cat err; exit 1; }
    mv "./$odd/videos" ../away; generate "$@" HOSTS= base 2>err || { cat err; exit 1; }
    diff -r "./$odd/videos/base/42" ../away/base/42
    [ -z "$(find "$work" -name hit)" ]'
ok 'a host that dies in the middle: another does its work, and nothing is lost' '
    need_hosts
    rm -r work; cp -r before work
    little generate -j 1 --sshlogin "$hosts" 2>err &
    until ledger work 2>/dev/null | grep -q "\"start\".*\"host\":\"hostb\""; do sleep 0.02; kill -0 $! || { cat err; exit 1; }; done
    die_host hostb
    wait $! || { cat err; exit 1; }
    ledger work | grep -c "\"end\".*\"host\":\"hosta\"" | grep -vx 0
    same_results work here'
ok 'a host that is down from the start' '
    need_hosts
    rm -r work; cp -r before work
    little generate -j 1 --sshlogin "$hosts" 2>err || { cat err; exit 1; }
    ledger work | grep "\"host\":\"hostb\"" && exit 1
    same_results work here'
finish
