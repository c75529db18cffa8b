# shellcheck shell=bash disable=SC2154 # stages.sh sets what is not set here
# jobs.sh - for stages.sh: jobs done at the same time, here, on other hosts or by Slurm; a worker's device, log and ledger.

# fan_out <jobs: one a line, done at the same time. Whether a job is to be done, and was done, is seen from what is there: logs may
# tell of outputs that are gone, and know nothing of a worker that was killed behind its last line.
fan_out() {
    local jobs line rest todo=()
    mapfile -t jobs
    if [ -n "$checking" ]; then
        # Jobs of a run have the same options.
        local -A seen=()
        for line in "${jobs[@]}"; do [ -n "${seen[${line%% *}]-}" ] || { choose_device && job_of "$line"; }; seen[${line%% *}]=yes; done
        return
    fi
    for line in "${jobs[@]}"; do [ -z "$(left_of "$line")" ] || todo+=("$line"); done
    say "${#todo[@]} of ${#jobs[@]} jobs to do"
    [ ${#todo[@]} -gt 0 ] || return 0
    if [ -n "$dry" ]; then
        echo "# ${#todo[@]} jobs, ${JOBS:-one for each GPU} at a time:"
        for line in "${todo[@]}"; do
            choose_device
            job_of "$line"
            slot=$((slot + 1))
        done
        return
    fi
    printf '%s\n' "${todo[@]}" | if [ -n "$SLURM" ]; then by_slurm ${#todo[@]}; else by_parallel; fi || true
    for line in "${todo[@]}"; do
        rest=$(left_of "$line")
        [ -n "$rest" ] || continue
        say "$line: not done: $(awk 'NR <= 10 { printf "%s ", $0 } END { if (NR > 10) print "and " NR - 10 " more" }' <<<"$rest")"
        failed=1
    done
}
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

by_slurm() { # N: how many. A folder that Slurm is given would be a pattern; so the worker goes to its folder and opens its log itself.
    local options log
    read -r -d '' -a options <<<"$SLURM" || true
    printf -v log 'exec >>%q."$SLURM_ARRAY_JOB_ID.$SLURM_ARRAY_TASK_ID".slurm 2>&1 && ' "$(cd -- "$WORK/log" && pwd)/$name"
    {
        printf '#!/bin/sh\njob=$(sed -n "${SLURM_ARRAY_TASK_ID}p" <<"END"\n'
        cat
        printf 'END\n)\nexec bash -c '"'%s' %s %s"' "$job" 1\n' "$obey" "$name" "$(spelled "$log$(worker)")"
    } | sbatch --wait --quiet --array="1-$1${JOBS:+%$JOBS}" --job-name="$name" --chdir=/ --output=/dev/null \
        "${options[@]}" {claimed}>&-
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
