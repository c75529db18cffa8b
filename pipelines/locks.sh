# shellcheck shell=bash disable=SC2154 # stages.sh sets what is not set here
# locks.sh - for stages.sh: who may write what, when several pipelines are at work in one WORK, on one host or on many.
#
#   claim.lock      for the moments in which a start looks who is at work and says that it is
#   NAME-N.lock     a pipeline with its runs (NAME.lock: with all); NAME-N.who beside it says who has it, for over SMB nobody else can
#                   read a file that is locked
#   shared.lock     held while what pipelines share is written: settings, inputs, lists, tables
#   NAME.workers.lock   workers hold it together, who sweeps up holds it alone
#   NAME/JOB.lock   one job
#
# All below WORK/log, all flock's: they end with the last process that has them open, in whatever way that ends. They are opened for
# reading and writing, as NFS wants it.

# locked NAME: waits for this lock; until unlocked, or until this process and what it started meanwhile have ended. One at a time.
locked() {
    [ -z "$dry" ] || return 0
    local said
    said=$(mkdir -p -- "$WORK/log" 2>&1) || die "$said"
    { exec {lock}<>"$WORK/log/$1.lock"; } 2>/dev/null || die "$WORK/log/$1.lock: it cannot be written"
    flock -n "$lock" || { say "another pipeline is writing in $WORK: waiting"; flock "$lock"; }
}
unlocked() { [ -n "$dry" ] || exec {lock}>&-; }

exec {claimed}</dev/null # what is claimed later; those that are started are not to keep it

# claim: this pipeline with these runs is at work, and no second one, for as long as this process lives.
claim() {
    local who
    key=$name
    [ -n "$whole" ] || key+=-$(printf '%s\n' "${chosen[@]}" | sort | cksum | cut -d ' ' -f 1)
    [ -z "$dry" ] || return 0
    locked claim
    exec {claimed}>&-
    exec {claimed}<>"$WORK/log/$key.lock"
    if ! flock -n "$claimed"; then
        who=$(cat "$WORK/log/$key.who" 2>/dev/null || echo 'another process')
        unlocked
        [ -n "$wait" ] || die "at work already, with the same runs in $WORK: $who (--wait waits for its end)"
        say "waiting for the end of $who"
        flock "$claimed"
        locked claim
    fi
    printf 'process %s on %s, since %s\n' $$ "$HOSTNAME" "$(date '+%F %T')" | put "$WORK/log/$key.who"
    unlocked
}

# new_name FILE: what it is called until it is whole: a name of this process's own.
new_name() {
    local new=${1%/*}/.tmp-${1##*/}
    [ -n "$dry" ] || new+=-$HOSTNAME-$$
    printf '%s\n' "$new"
}
put() { # stdin to a file that is whole or not there
    local new
    new=$(new_name "$1")
    mkdir -p -- "${1%/*}" && cat >"$new" && mv -f -- "$new" "$1"
}

# sweep FOLDER [CONDITIONS]: what writers that were killed left half done, unless workers of this pipeline are at it. To be called with
# the shared lock held.
sweep() {
    local alone
    [ -z "$dry" ] && [ -d "$1" ] || return 0
    exec {alone}<>"$WORK/log/$name.workers.lock"
    if flock -n "$alone"; then find "$1/." "${@:2}" -name '.tmp-*' -delete; fi
    exec {alone}>&-
}
