# shellcheck shell=bash disable=SC2154 # stages.sh sets what is not set here
# jobs.sh - for stages.sh: jobs done at the same time, here, on other hosts or by Slurm; a worker's device, log and ledger.

# fan_out <jobs: one a line, done at the same time. Whether a job is to be done, and was done, is seen from what is there: logs may
# tell of outputs that are gone, and know nothing of a worker that was killed behind its last line.
fan_out() {
    local jobs line rest amount watch todo=()
    mapfile -t jobs
    if [ -n "$checking" ]; then
        # Jobs of a run have the same options.
        local -A seen=()
        for line in "${jobs[@]}"; do [ -n "${seen[${line%% *}]-}" ] || { choose_device && job_of "$line"; }; seen[${line%% *}]=yes; done
        return
    fi
    amount=0
    for line in "${jobs[@]}"; do
        rest=$(left_of "$line")
        [ -n "$rest" ] || continue
        todo+=("$line")
        amount=$((amount + $(amount_of "$line")))
    done
    say "${#todo[@]} of ${#jobs[@]} jobs to do"
    [ ${#todo[@]} -gt 0 ] || return 0
    if [ -n "$dry" ]; then
        tell_jobs ${#todo[@]}
        for line in "${todo[@]}"; do
            choose_device
            job_of "$line"
            slot=$((slot + 1))
        done
        return
    fi
    watch </dev/null >/dev/null {claimed}>&- &
    watch=$!
    printf '%s\n' "${todo[@]}" | if [ -n "$SLURM" ]; then by_slurm ${#todo[@]}; else on_terminal by_parallel; fi || true
    if kill "$watch" 2>/dev/null; then wait "$watch" || true; fi
    for line in "${todo[@]}"; do
        rest=$(left_of "$line")
        [ -n "$rest" ] || continue
        say "$line: not done: $(awk 'NR <= 10 { printf "%s ", $0 } END { if (NR > 10) print "and " NR - 10 " more" }' <<<"$rest")"
        failed=1
    done
}
tell_jobs() { # N: what a rehearsal says of them, as a comment
    if [ -n "$SLURM" ]; then
        local command
        sbatch_command "$1"
        printf '# %s jobs, by:' "$1"
        printf ' %q' "${command[@]}"
        printf ' <SCRIPT\n'
    else
        echo "# $1 jobs${HOSTS:+ on $HOSTS}, ${JOBS:-one for each GPU} at a time, their starts $DELAY s apart:"
    fi
}

# ---- how far they are ----------------------------------------------------------------------------------------------------------------

# What a job has to do, in records: as many as left prints, unless a pipeline has a function `amount`.
amount() { grep -c . <<<"$rest" || true; }
# shellcheck disable=SC2086
amount_of() { amount $1; }
# shellcheck disable=SC2046,SC2086 # jobs are words
growing() { for line in "${todo[@]}"; do lines_of $line; done; }

# watch: jobs done and time left, on a terminal in place, elsewhere a line a minute; until it is killed, or the pipeline has ended. It looks
# at what is there: ledgers, and the files that get a line with each record, on whatever host that is done.
watch() {
    local files ledgers=() line done_at_first made_at_first made=0 before ended at=$EPOCHSECONDS told=$EPOCHSECONDS passed last=0 left text
    local every=5 clear='' pause=''
    [ ! -t 2 ] || every=1 clear=$'\r\033[K'
    trap 'kill "$pause" 2>/dev/null; printf %s "$clear" >&2; exit' TERM
    mapfile -t files < <(growing)
    for line in "${todo[@]}"; do ledgers+=("$WORK/ledger/$name-${line// /-}.jsonl"); done
    made_at_first=$(count '"key":' "${files[@]}") done_at_first=$(count '"event":"end"' "${ledgers[@]}")
    while kill -0 $$ 2>/dev/null; do
        sleep "$every" 2>/dev/null &
        pause=$!
        wait "$pause"
        [ -n "$clear" ] || [ $((EPOCHSECONDS - told)) -ge 60 ] || continue
        before=$made passed=$((EPOCHSECONDS - at)) told=$EPOCHSECONDS
        ended=$(($(count '"event":"end"' "${ledgers[@]}") - done_at_first)) made=$(($(count '"key":' "${files[@]}") - made_at_first))
        [ "$made" = "$before" ] || last=$passed # they may come many at a time
        text="${at_stage:+stage $at_stage, }$((ended < ${#todo[@]} ? ended : ${#todo[@]})) of ${#todo[@]} jobs done, $made of $amount $counted, $(duration "$passed")"
        left=$((made > 0 ? last * (amount - made) / made - (passed - last) : 0))
        [ "$left" -le 0 ] || text+=", $(duration "$left") left"
        if [ -n "$clear" ]; then printf '%s%s: %s' "$clear" "$name" "$text" >&2; else say "$text"; fi
    done
}
count() { cat -- "${@:2}" 2>/dev/null | grep -c -e "$1" || true; } # lines with this text
duration() { if [ "$1" -lt 60 ]; then echo "$1 s"; elif [ "$1" -lt 3600 ]; then echo "$(($1 / 60)) min $(($1 % 60)) s"; else echo "$(($1 / 3600)) h $(($1 / 60 % 60)) min"; fi; }

# on_terminal COMMAND: what it says, there, begins where the line of watch does.
on_terminal() { if [ -t 2 ]; then "$@" 2> >(sed -u $'s/^/\r\033[K/' >&2 {claimed}>&-); else "$@"; fi; }

# shellcheck disable=SC2086 # a job is words
left_of() { left $1 || echo '(which, cannot be told)'; }
# shellcheck disable=SC2086
job_of() { job $1; }

# ---- workers' commands ---------------------------------------------------------------------------------------------------------------
#
# A worker's command has all settings in it, and so names and texts of every kind. GNU parallel, ssh, the shell behind it and Slurm each
# give some signs a meaning of their own. So the command goes through them spelled: letters, digits and . _ / - as they are, every other
# byte as %XX, none of which means anything to any of them; and nothing else of a user's goes there.

spelled() {
    local LC_ALL=C i c
    for ((i = 0; i < ${#1}; i++)); do
        c=${1:i:1}
        case $c in
        [A-Za-z0-9._/-]) ;;
        *) printf -v c %d "'$c" && printf -v c '%%%02X' $((c & 255)) ;;
        esac
        printf %s "$c"
    done
}
# For bash -c: does the command that $1 spells; $2 is a job, $3 a slot. Without braces, which are parallel's.
# shellcheck disable=SC2016,SC2089 # another shell's
obey='eval "$(printf %b "$(printf %s "$1" | sed s/%/\\\\x/g)")"'

worker() { # the command, as bash reads it
    local setting
    printf 'cd -- %q && exec %q --job "$2" --slot "$3"' "$PWD" "$0"
    for setting in $settings; do printf ' %q' "$setting=$(given_as "$setting")"; done
}

by_parallel() {
    local hosts=() workers=${JOBS:-$(($(gpus | grep -c . || true) / $(cards_of_job)))} log
    [ -z "$HOSTS" ] || hosts=(--sshlogin "$HOSTS" --retries 3)
    exec {log}>>"$WORK/log/$key.joblog"
    # shellcheck disable=SC2090 # it is quoted by parallel's -q
    parallel --will-cite -q --jobs "$((workers ? workers : 1))" --delay "$DELAY" --joblog "+/dev/fd/$log" --line-buffer "${hosts[@]}" \
        bash -c "$obey" "$name" "$(spelled "$(worker)")" '{}' '{%}' {claimed}>&-
}

sbatch_command() { # N: into $command
    local options
    read -r -d '' -a options <<<"$SLURM" || true
    command=(sbatch --wait --quiet --array="1-$1${JOBS:+%$JOBS}" --job-name="$name" --chdir=/ --output=/dev/null "${options[@]}")
}

by_slurm() { # N: how many. A folder that Slurm is given would be a pattern; so the worker goes to its folder and opens its log itself.
    local command log
    sbatch_command "$1"
    printf -v log 'exec >>%q."$SLURM_ARRAY_JOB_ID.$SLURM_ARRAY_TASK_ID".slurm 2>&1 && ' "$(cd -- "$WORK/log" && pwd)/$name"
    {
        printf '#!/bin/sh\njob=$(sed -n "${SLURM_ARRAY_TASK_ID}p" <<"END"\n'
        cat
        printf 'END\n)\nexec bash -c '"'%s' %s %s"' "$job" 1\n' "$obey" "$name" "$(spelled "$log$(worker)")"
    } | "${command[@]}" {claimed}>&-
}

# ---- a worker ------------------------------------------------------------------------------------------------------------------------

# The GPUs that this process may use, one a line.
gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep . || true
    else
        { nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true; } | grep -x '[0-9]*' || true
    fi
}

# The folder of this host's GPU locks: the user's own, for a lock that somebody else can take or make stops every job. Homes may be
# shared by hosts.
gpu_locks() {
    local folder=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/sluice/gpus-$HOSTNAME
    (umask 077 && mkdir -p -- "$folder") 2>/dev/null || folder=${TMPDIR:-/tmp}/sluice-$UID
    mkdir -m 700 -- "$folder" 2>/dev/null || true
    if [ -L "$folder" ] || [ ! -d "$folder" ] || [ ! -O "$folder" ]; then
        die "$folder: not a folder of this user's, as the locks of GPUs want it; set XDG_CACHE_HOME to one"
    fi
    chmod 700 -- "$folder"
    printf '%s\n' "$folder"
}

# How many GPUs a job of this pipeline has: of one that sets $several, so many as the setting says.
cards_of_job() { if [ -n "$several" ]; then printf '%s\n' "$CARDS_PER_JOB"; else echo 1; fi; }

# A worker's devices: the GPUs of its slot. Slots are counted over all hosts, and somebody else may be here, too, so what
# counts is who holds a GPU's lock: when one is taken it is the next that is free. The locks go with the worker's last process.
# Programs get the first as "${compute[@]}", those that take several all of them, as device_list N and --device.
choose_device() {
    local gpu i at locks held=() want
    want=$(cards_of_job)
    mapfile -t gpu < <(gpus)
    cards=()
    if [ -n "$DEVICE" ] || [ ${#gpu[@]} = 0 ]; then
        for ((i = 0; i < want; i++)); do cards+=("${DEVICE:-cpu}"); done
    else
        [ "$want" -le ${#gpu[@]} ] || die "CARDS_PER_JOB=$want: there are ${#gpu[@]} GPUs"
        [ -n "$dry" ] || locks=$(gpu_locks)
        for ((i = 0; i < ${#gpu[@]} && ${#cards[@]} < want; i++)); do
            at=$((((slot - 1) * want + i) % ${#gpu[@]}))
            [ -n "$dry" ] || take_gpu -n || continue
            cards+=("cuda:$at")
        done
        if [ ${#cards[@]} -lt "$want" ]; then # too many are taken: wait for one's own. All wait in this order, and hold none before
            for i in "${held[@]}"; do exec {i}>&-; done
            cards=() held=()
            for at in $(seq 1 "$want" | awk -v from="$(((slot - 1) * want))" -v n=${#gpu[@]} '{ print (from + $1 - 1) % n }' | sort -n); do
                take_gpu
                cards+=("cuda:$at")
            done
        fi
    fi
    device=${cards[0]}
    compute=(--device "$device" --threads "$THREADS")
}
# take_gpu [-n], for choose_device: the lock of GPU $at.
take_gpu() {
    local lock
    exec {lock}<>"$locks/${gpu[$at]//\//-}.lock"
    if flock "$@" "$lock"; then held+=("$lock"); else exec {lock}>&-; return 1; fi
}
# device_list N: so many of the worker's devices at most.
device_list() { local IFS=,; printf '%s\n' "${cards[*]:0:$1}"; }

# A worker's part: one job, alone at it and on its device, with a log of its own and two lines in the ledger.
work() {
    local job=$1 log=$WORK/log/$name/${1// /-} alone together rest began used before lines=0 status made missing
    mkdir -p -- "$WORK/log/$name" "$WORK/ledger"
    exec {alone}<>"$log.lock"
    flock -n "$alone" || { say "$job: another worker is at it: waiting"; flock "$alone"; }
    exec {together}<>"$WORK/log/$name.workers.lock"
    flock -s "$together" # for sweep
    choose_device
    rest=$(left_of "$job" 2>/dev/null) began=$EPOCHREALTIME
    before=$(records_of "$job")
    used=$(joules)
    ledger start
    [ ! -e "$log" ] || lines=$(wc -l <"$log")
    set +e
    [ -z "$rest" ] || (set -e; job_of "$job") >>"$log" 2>&1
    status=$?
    set -e
    rest=$(left_of "$job" 2>/dev/null)
    made=$(($(records_of "$job") - before)) missing=$(grep -c . <<<"$rest" || true)
    ledger end
    [ $status = 0 ] || tail -n "+$((lines + 1))" "$log" | tail -n 20 >&2
    say "$job: $made done, $missing left"
    [ -z "$rest" ] || exit 1
    exit "$status"
}

# What the worker's GPUs have used so far, in joules; nothing where one of them does not count.
joules() {
    local i gpu
    [[ $device == cuda* ]] || return 0
    mapfile -t gpu < <(gpus)
    for i in "${cards[@]}"; do show --joules "${gpu[${i#*:}]-none}" 2>/dev/null || echo none; done |
        awk '!/^[0-9.]+$/ { none = 1 } { sum += $1 } END { if (!none) printf "%.3f", sum }'
}

# What rises by one with each record that is made; only differences count.
records() { echo "-$(grep -c . <<<"$rest" || true)"; }
# shellcheck disable=SC2086
records_of() { records $1; }

# The ledger is append-only, a file for each job: hosts that share a folder do not share appends. A start without an end is a worker
# that was killed.
ledger() { # EVENT
    local file=$WORK/ledger/$name-${job// /-}.jsonl now=$EPOCHREALTIME end='' wall gpu energy='' # gpu_s: of all its GPUs together
    if [ "$1" = end ]; then
        wall=$(awk -v a="$began" -v b="$now" 'BEGIN { printf "%.3f", b - a }')
        case $device in cuda*) gpu=$(awk -v a="$wall" -v n=${#cards[@]} 'BEGIN { printf "%.3f", a * n }') ;; *) gpu=0 ;; esac
        [ -z "$used" ] || energy=$(joules)
        [ -z "$energy" ] || energy=$(awk -v a="$used" -v b="$energy" 'BEGIN { printf ",\"joules\":%.3f", b - a }')
        printf -v end ',"wall_s":%s,"gpu_s":%s%s,"done":%d,"failed":%d,"exit":%d' "$wall" "$gpu" "$energy" "$made" "$missing" "$status"
    fi
    [ ! -s "$file" ] || [ -z "$(tail -c 1 -- "$file")" ] || echo >>"$file" # behind half a line
    printf '{"event":"%s","phase":"%s","job":"%s","at":%s,"host":"%s","device":"%s"%s}\n' \
        "$1" "$name" "$job" "$now" "$HOSTNAME" "$device" "$end" >>"$file"
}
