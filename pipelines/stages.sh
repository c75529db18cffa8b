# shellcheck shell=bash
# stages.sh - what the pipelines share: settings, stages, pipelines that can be shown instead of run, jobs for many workers, the ledger.
#
# A pipeline sets $help and defines, when it has jobs, functions that are given a job's words:
#
#   job WORDS       does what of it is missing, by calls of run
#   left WORDS      prints what is missing, verified, one a line; nothing when all is there
#   records WORDS   how many records there are, where that is not told by what left prints
#
# then calls  start "$@"  which reads options and settings, or, for a worker, does one job and ends, and goes on with its stages:
#
#   if stage 1 'what it is'; then run ...; fan_out <jobs; fi
#
# and ends with  exit $failed

name=${0##*/}
: "${help:?}"
say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }
wrong() { say "$* (see $name --help)"; exit 2; }

common_help='  --config NAME|FILE  settings; paper, tiny or a file with what differs from paper   [paper]
  NAME=VALUE          one setting, before all files; paper.conf tells them all
  --stage N           begin with stage N                                             [1]
  -j N                jobs at the same time on a machine (JOBS)                      [one for each GPU, or one]
  --sshlogin HOSTS    work there, as GNU parallel has it (HOSTS)                     [here]
  --slurm OPTIONS     jobs as an array of Slurm, with these options for sbatch       [GNU parallel]
  --dry-run           print the pipelines that would be run
  --help, --version'

# ---- settings ------------------------------------------------------------------------------------------------------------------------

here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
lib=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
command -v train-step >/dev/null || PATH=$here/../bin:$here:$PATH
for examples in "${SLUICE_DATA:-}" "$here/../examples" "$here/../share/sluice"; do [ ! -d "$examples" ] || break; done
examples=$(CDPATH='' cd -- "$examples" && pwd)
export LC_ALL=C.UTF-8

names() { sed -n 's/^\([A-Z][A-Z_]*\)=.*/\1/p' "$1"; } # of a file's settings

# read_settings FILE: as paper.conf has them, then as FILE, then as the command line, has it.
read_settings() {
    local known setting
    known=" $(names "$lib/paper.conf" | tr '\n' ' ')"
    for setting in $(names "$1") "${given[@]%%=*}"; do
        [[ $known == *" $setting "* ]] || wrong "no setting $setting"
    done
    # shellcheck source=pipelines/paper.conf
    . "$lib/paper.conf"
    # shellcheck source=pipelines/tiny.conf
    . "$1"
    for setting in "${given[@]}"; do printf -v "${setting%%=*}" %s "${setting#*=}"; done
    for setting in WORK MODEL GRADER CLIPS VIDEOS ZIPS PROMPTS UPSAMPLED INPUTS; do
        case ${!setting} in
        -*) printf -v "$setting" %s "./${!setting}" ;; # a path that looks like an option
        WORK/*) printf -v "$setting" %s "$WORK/${!setting#WORK/}" ;;
        esac
    done
    for setting in SHARDS FRAMES MAX_STEPS; do
        [[ ${!setting} =~ ^[1-9][0-9]*$ ]] || wrong "$setting is a number, not \`${!setting}\`"
    done
    [[ $FIRST =~ ^([1-9][0-9]*)?$ ]] || wrong "FIRST is a number, not \`$FIRST\`"
    [[ $JOBS =~ ^([1-9][0-9]*)?$ ]] || wrong "-j (JOBS) is a number, not \`$JOBS\`"
    [[ $SEEDS =~ ^[0-9]+(\ +[0-9]+)*$ ]] || wrong "SEEDS are numbers, not \`$SEEDS\`"
    [ -n "$WORK" ] || wrong 'WORK is a folder'
}

# The settings where workers find them, and where everybody sees how this was made.
write_settings() {
    local setting
    for setting in $(names "$lib/paper.conf"); do printf '%s=%q\n' "$setting" "${!setting}"; done | put "$WORK/settings.conf"
}

put() { mkdir -p -- "${1%/*}" && cat >"$1.new" && mv -f -- "$1.new" "$1"; } # stdin to a file that is whole or not there

# settled FILE NAME...: refuses to go on with what was made with other values of these settings, which FILE keeps.
settled() {
    local file=$1 setting now
    shift
    now=$(for setting; do printf '%s=%q\n' "$setting" "${!setting/#"$WORK/"/WORK/}"; done) # a folder may be moved
    if [ -e "$file" ] && [ "$now" != "$(cat "$file")" ]; then
        say "$file: made with other settings; remove what they made, or choose another WORK:"
        diff "$file" - <<<"$now" | sed -n 's/^< /    made with  /p; s/^> /    now        /p' >&2
        exit 1
    fi
    [ -n "$dry" ] || put "$file" <<<"$now"
}

runs() { awk '/^[^#]/ { print $1 }' <<<"$RUNS"; }
adapter_of() { awk -v run="$1" '$1 == run { print $2 }' <<<"$RUNS"; } # nothing: it is a base

# The runs that operands name, all when there are none.
choose_runs() {
    local run
    for run in $(runs) "${operands[@]}"; do
        [[ $run =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || wrong "\`$run\` is no name for a run: letters, digits, _ . and -"
    done
    for run in "${operands[@]}"; do runs | grep -qxF -- "$run" || wrong "no run $run in RUNS: $(runs | tr '\n' ' ')"; done
    chosen=("${operands[@]}")
    [ ${#chosen[@]} -gt 0 ] || mapfile -t chosen < <(runs)
}

# A run whose adapter is trained to its end, and sound.
finished() {
    plot --table --json "$WORK/runs/$1" 2>/dev/null | grep -q '"finished":true' &&
        show --check "$WORK/runs/$1/best.safetensors" "$WORK/runs/$1/last.safetensors" 2>/dev/null
}

start() {
    local worker='' value
    config=paper
    given=() operands=() chosen=() first=1 slot=1 dry=''
    while [ $# -gt 0 ]; do
        case $1 in
        --help) printf '%s\n' "${help/COMMON/"$common_help"}"; exit ;;
        --version) train-step --version | sed "s/^[^ ]*/$name/"; exit ;;
        --config | --stage | -j | --sshlogin | --slurm | --job | --slot)
            [ $# -gt 1 ] || wrong "$1 wants a value"
            value=$2
            case $1 in
            --config) config=$value ;;
            --stage) first=$value ;;
            -j) given+=("JOBS=$value") ;;
            --sshlogin) given+=("HOSTS=$value") ;;
            --slurm) given+=("SLURM=${value:- }") ;;
            --job) worker=$value ;; # for workers, as is the next
            --slot) slot=$value ;;
            esac
            shift
            ;;
        --dry-run) dry=--dry-run ;;
        -*) wrong "no option $1" ;;
        *=*) given+=("$1") ;;
        *) operands+=("$1") ;;
        esac
        shift
    done
    [[ $first =~ ^[0-9]+$ ]] || wrong "--stage is a number, not \`$first\`"
    case $config in paper | tiny) config=$lib/$config.conf ;; -*) config=./$config ;; esac
    if [ ! -f "$config" ] || [ ! -r "$config" ]; then die "$config: no such configuration"; fi
    case $config in /*) ;; *) config=$PWD/$config ;; esac # for the shell's `.`, which would look for it along PATH
    read_settings "$config"
    settings=$WORK/settings.conf
    if [ -n "$worker" ]; then work "$worker"; fi
    choose_runs
    case $dry$name in --dry-run* | plan | probe) ;; *) write_settings ;; esac # those two begin nothing
    failed=0
    [ -z "$INPUTS" ] || [ -e "$WORK/inputs" ] || make_inputs
}

make_inputs() { # whole, or not there
    printf '\n%s: inputs\n' "$name" >&2
    [ -n "$dry" ] || { mkdir -p -- "$WORK" && rm -rf -- "$WORK/inputs.new"; }
    run "$INPUTS" "$WORK/inputs.new" '&&' mv "$WORK/inputs.new" "$WORK/inputs" || die "$INPUTS: it failed, so there are no inputs"
}

stage() { # N WHAT
    [ "$1" -ge "$first" ] || return 1
    printf '\n%s: stage %s: %s\n' "$name" "$1" "$2" >&2
}

# ---- pipelines -----------------------------------------------------------------------------------------------------------------------

# run WORDS: one pipeline, its words as they are, but for '|', '<', '>', '>>' and '&&', which are the shell's. Shown by --dry-run.
run() {
    local word line=
    for word; do
        case $word in '|' | '<' | '>' | '>>' | '&&') ;; *) printf -v word %q "$word" ;; esac
        line+="${line:+ }$word"
    done
    if [ -n "$dry" ]; then echo "$line"; else eval "$line"; fi
}

# list_by NAME: the list that `command` makes, unless it is there, and its parts.
list_by() {
    if [ -e "$(list "$1")" ]; then say "$(list "$1") is there"; else run_to "$(list "$1")" "${command[@]}"; fi
    split_list "$1"
}

# run_to FILE WORDS: the same into a file that is whole or not there.
run_to() {
    local file=$1
    shift
    [ -n "$dry" ] || mkdir -p -- "${file%/*}"
    run "$@" '>' "$file.new" '&&' mv "$file.new" "$file"
}

# The commands that make lists, of a part of the clips and of the prompts.
clips_command() {
    command=(curate --videos "$VIDEOS" --split "$1" --fraction "$VAL_FRACTION" --split-seed "$SPLIT_SEED")
    [ "$FILTER" != no ] || command+=(--no-filter)
    [ -z "$ZIPS" ] || command+=(--zips "$ZIPS")
    command+=("$CLIPS")
}
prompts_command() {
    command=(prompts)
    [ -z "$PROMPT_MODEL" ] || command+=(--model-name "$PROMPT_MODEL")
    [ -z "$UPSAMPLED" ] || command+=(--upsampled "$UPSAMPLED")
    command+=("$PROMPTS")
    case $PROMPTS in *.jsonl) command=(cat "$PROMPTS") ;; esac
    [ -z "$FIRST" ] || command+=('|' sed -n "1,${FIRST}p")
}
# The list of train, val or prompts, as it is there or as it will be. What lies in archives is not unpacked for that.
foresee() {
    if [ -e "$(list "$1")" ]; then
        cat "$(list "$1")"
    else
        case $1 in prompts) prompts_command ;; *) [ -z "$ZIPS" ] || VIDEOS='' ZIPS=''; clips_command "$1" ;; esac
        dry='' run "${command[@]}" 2>/dev/null
    fi
}

# What probe's measurements hold for.
probed_for() { echo "$MODEL $GRADER $({ nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || true; } | sort -u | tr "\n" " ")$FRAMES $SIZE $STEPS $SCHEDULER $LOOK $ANSWER"; }

# A list, and its parts for jobs: line i is in part i mod SHARDS, so that the parts are the same every time.
list() { echo "$WORK/lists/$1.jsonl"; }
split_list() {
    local part
    [ -z "$dry" ] || return 0
    for ((part = 0; part < SHARDS; part++)); do
        awk -v n="$SHARDS" -v part="$part" 'NR % n == part' "$(list "$1")" | put "$(list "$1.$part")"
    done
}
parts() { # of a list, those with lines in them; all when there is no list yet, and this is but a rehearsal
    local part
    for ((part = 0; part < SHARDS; part++)); do
        if [ -s "$(list "$1.$part")" ] || { [ -n "$dry" ] && [ ! -e "$(list "$1")" ]; }; then echo "$part"; fi
    done
}
keys() { sed -n 's/^{"key":"\(\([^"\\]\|\\.\)*\)".*/\1/p'; }

# A writer that was killed may have left half a line, and the next would go on behind it.
end_lines() { [ ! -s "$1" ] || [ -z "$(tail -c 1 -- "$1" | tr -d '\n')" ] || sed -i '$d' "$1"; }

# ---- jobs ----------------------------------------------------------------------------------------------------------------------------

# fan_out <jobs: one a line, done at the same time. Whether a job is to be done, and was done, is seen from what is there: logs may
# tell of outputs that are gone, and know nothing of a worker that was killed behind its last line.
fan_out() {
    local jobs line rest todo=()
    mapfile -t jobs
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
    printf '%s\n' "${todo[@]}" | put "$WORK/log/$name.jobs"
    if [ -n "$SLURM" ]; then by_slurm ${#todo[@]}; else by_parallel; fi || true
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

by_parallel() {
    local hosts=() workers=${JOBS:-$(gpus | grep -c . || true)}
    [ -z "$HOSTS" ] || hosts=(--sshlogin "$HOSTS" --workdir "$PWD" --retries 3)
    parallel --will-cite -q --jobs "$((workers ? workers : 1))" --delay "$DELAY" --joblog "+$WORK/log/$name.joblog" --line-buffer \
        "${hosts[@]}" "$0" --config "$settings" --job '{}' --slot '{%}' <"$WORK/log/$name.jobs"
}

by_slurm() {
    local worker
    printf -v worker '%q ' "$0" --config "$settings"
    # shellcheck disable=SC2086 # SLURM is words
    sbatch --wait --quiet --array="1-$1${JOBS:+%$JOBS}" --job-name="$name" --chdir="$PWD" --output="$WORK/log/$name.%a.slurm" $SLURM \
        --wrap "$worker --job \"\$(sed -n \"\${SLURM_ARRAY_TASK_ID}p\" $(printf %q "$WORK/log/$name.jobs"))\""
}

# The GPUs that this process may use, one a line.
gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep . || true
    else
        { nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true; } | grep -x '[0-9]*' || true
    fi
}

# A worker's device: the GPU of its slot. Slots are counted over all hosts, and somebody else may be here, too, so what counts is who
# holds the GPU's lock: when that one is taken it is the next that is free. The lock goes with the worker's last process.
choose_device() {
    local gpu i held
    mapfile -t gpu < <(gpus)
    device=${DEVICE:-cpu}
    if [ -z "$DEVICE" ] && [ ${#gpu[@]} -gt 0 ]; then
        for ((i = 0; i <= ${#gpu[@]}; i++)); do
            device=cuda:$(((slot - 1 + i) % ${#gpu[@]}))
            [ -z "$dry" ] || break
            exec {held}>>"${XDG_RUNTIME_DIR:-/tmp}/sluice-$UID-gpu-${gpu[${device#*:}]}.lock"
            if [ "$i" = ${#gpu[@]} ]; then flock "$held"; fi # all are taken: wait for one's own
            flock -n "$held" && break
            exec {held}>&-
        done
    fi
    compute=(--device "$device" --threads "$THREADS")
}

# A worker's part: one job, alone at it and on its device, with a log of its own and two lines in the ledger.
work() {
    local job=$1 log=$WORK/log/$name/${1// /-} lock shared rest began before lines=0 status made missing
    mkdir -p "$WORK/log/$name" "$WORK/ledger"
    exec {lock}>>"$log.lock"
    flock -n "$lock" || { say "$job: another worker is at it: waiting"; flock "$lock"; }
    exec {shared}>>"$WORK/log/$name.lock"
    flock -s "$shared" # for sweep
    choose_device
    rest=$(left_of "$job" 2>/dev/null) began=$EPOCHREALTIME
    before=$(records_of "$job")
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

# sweep FOLDER..: what writers that were killed left half done, unless some are at work.
sweep() { [ -n "$dry" ] || flock -n "$WORK/log/$name.lock" find "$@" -name '.tmp-*' -delete || true; }

# What rises by one with each record that is made; only differences count.
records() { echo "-$(grep -c . <<<"$rest" || true)"; }
# shellcheck disable=SC2086
records_of() { records $1; }

# The ledger is append-only, a file for each job: hosts that share a folder do not share appends. A start without an end is a worker
# that was killed.
ledger() { # EVENT
    local file=$WORK/ledger/$name-${job// /-}.jsonl now=$EPOCHREALTIME end='' wall gpu
    if [ "$1" = end ]; then
        wall=$(awk -v a="$began" -v b="$now" 'BEGIN { printf "%.3f", b - a }')
        case $device in cuda*) gpu=$wall ;; *) gpu=0 ;; esac
        printf -v end ',"wall_s":%s,"gpu_s":%s,"done":%d,"failed":%d,"exit":%d' "$wall" "$gpu" "$made" "$missing" "$status"
    fi
    [ ! -s "$file" ] || [ -z "$(tail -c 1 -- "$file")" ] || echo >>"$file" # behind half a line
    printf '{"event":"%s","phase":"%s","job":"%s","at":%s,"host":"%s","device":"%s"%s}\n' \
        "$1" "$name" "$job" "$now" "$HOSTNAME" "$device" "$end" >>"$file"
}
