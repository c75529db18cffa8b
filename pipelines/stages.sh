# shellcheck shell=bash
# stages.sh - what the pipelines share: settings, stages, pipelines that can be shown instead of run. locks.sh and jobs.sh belong to it.
#
# A pipeline sets $help, $whole when its work is not divided by runs, $several when its jobs can use several GPUs, and defines, when it
# has jobs, functions that are given a job's words:
#
#   job WORDS       does what of it is missing, by calls of run
#   left WORDS      prints what is missing, verified, one a line; nothing when all is there
#   records WORDS   how many records there are, where that is not told by what left prints
#   amount WORDS    how many records are to be made, where it is not as many as left prints; $counted is what they are called
#   lines_of WORDS  prints the file that gets a line with a key for each record that is made
#
# then calls  start "$@"  which reads options and settings, or, for a worker, does one job and ends, and goes on with its stages:
#
#   if stage 1 'what it is'; then run ...; fan_out <jobs; fi
#
# and ends with  exit $failed
#
# A rehearsal goes through the same stages and makes nothing: --dry-run shows what run would run; a check, which every start begins
# with, has the programs check the options that they would get.

name=${0##*/}
: "${help:?}" "${whole=}" "${several=}"
counted=records
stages=$(sed -n 's/^stages .* \([0-9]\) .*/\1/p' <<<"$help") # how many
say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }
tell() { printf '%s\n' "$*" 2>/dev/null || die 'stdout: it cannot be written'; }
wrong() { say "$* (see $name --help)"; exit 2; }
shopt -u patsub_replacement 2>/dev/null || true # bash 5.2: a & in a name would stand for what was replaced

common_help='  --config NAME|FILE  settings; paper, paper-wan, tiny, tiny-wan or a file with what differs from paper. It is a
                      part of the shell program, and runs what is in it              [paper]
  NAME=VALUE          one setting, before all files; paper.conf tells them all
  --stage N           begin with stage N                                             [1]
  -j N                jobs at the same time on a machine (JOBS)                      [one for each GPU, or one]
  --sshlogin HOSTS    work there, as GNU parallel has it (HOSTS)                     [here]
  --slurm OPTIONS     jobs as an array of Slurm, with these options for sbatch       [GNU parallel]
  --wait              wait for one that is at work with the same runs in WORK        [say so, and end with 1]
  --dry-run           print the pipelines that would be run; how jobs would be started, as comments
  -h, --help
  --version'

here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd)
lib=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
command -v train-step >/dev/null || PATH=$here/../bin:$here:$PATH
for examples in "${SLUICE_DATA:-}" "$here/../examples" "$here/../share/sluice"; do [ ! -d "$examples" ] || break; done
examples=$(CDPATH='' cd -- "$examples" && pwd)
export LC_ALL=C.UTF-8
# shellcheck source=pipelines/locks.sh
. "$lib/locks.sh"
# shellcheck source=pipelines/jobs.sh
. "$lib/jobs.sh"

# ---- settings ------------------------------------------------------------------------------------------------------------------------

configurations() { local file; for file in "$lib"/*.conf; do file=${file##*/}; printf ' %s,' "${file%.conf}"; done; }
names() { sed -n 's/^\([A-Z][A-Z_]*\)=.*/\1/p' "$1" | tr '\n' ' '; } # of a file's settings
settings=$(names "$lib/paper.conf")
paths=' MODEL GRADER CLIPS VIDEOS ZIPS PROMPTS UPSAMPLED INPUTS '

meant() { # NAME: a hint at the setting of which it is the beginning, or that is its beginning
    local setting
    for setting in $settings; do
        case $setting/$1 in "$1"*/* | "$setting/$setting"*) echo "did you mean $setting? "; return ;; esac
    done
}

# read_settings FILE: as paper.conf has them, then as FILE, then as the command line, has it.
read_settings() {
    local setting
    for setting in $(names "$1") "${given[@]%%=*}"; do
        [[ $setting != *' '* && " $settings" == *" $setting "* ]] || wrong "no setting $setting: $(meant "$setting")there are $settings"
    done
    # shellcheck source=pipelines/paper.conf
    . "$lib/paper.conf"
    # shellcheck source=pipelines/tiny.conf
    . "$1"
    for setting in "${given[@]}"; do printf -v "${setting%%=*}" %s "${setting#*=}"; done
    trained=() sampled=() adapter_option=-a # what a model of two transformers needs besides
    [ -z "$EXPERT" ] || trained=(--expert "$EXPERT")
    [ -z "$GUIDANCE_LOW" ] || sampled=(--guidance-low "$GUIDANCE_LOW")
    [ "$EXPERT" != low ] || adapter_option=--adapter-low
    [ -n "$WORK" ] || wrong 'WORK is a folder'
    for setting in WORK $paths; do
        case ${!setting} in
        -*) printf -v "$setting" %s "./${!setting}" ;; # a path that looks like an option
        WORK/*) [ "$setting" = WORK ] || printf -v "$setting" %s "$WORK/${!setting#WORK/}" ;;
        esac
    done
    [ ! -e "$WORK" ] || [ -d "$WORK" ] || wrong "WORK is a folder, which $WORK is not"
    # the clips are to be as long as the videos: so many seconds
    [ "$FILTER" != length ] || FILTER=$(awk -v frames="$FRAMES" -v fps="$FPS" 'BEGIN { if (fps + 0 > 0) printf "%.4f", frames / fps }')
    check_settings
}

# given_as NAME: the setting as it would be given again, with WORK/ for what lies there: a folder may be moved.
given_as() {
    local value=${!1}
    [[ $paths != *" $1 "* ]] || value=${value/#"$WORK/"/WORK/}
    printf %s "$value"
}

# What is wrong with settings that no program gets as they are; the programs check the rest. A line break would end a line in lists of
# names and in the shell's.
check_settings() {
    local setting number='[0-9]+(\.[0-9]*)?(e-?[0-9]+)?' seed='(0|[1-9][0-9]{0,17})'
    for setting in $settings; do
        [ "$setting" = RUNS ] || [[ ${!setting} != *$'\n'* ]] || wrong "$setting has a line break in it"
    done
    for setting in SHARDS FRAMES MAX_STEPS STEPS CARDS_PER_JOB ACCUMULATE; do
        [[ ${!setting} =~ ^[1-9][0-9]{0,8}$ ]] || wrong "$setting is a number, not \`${!setting}\`"
    done
    for setting in DELAY COST_CLIP COST_VIDEO COST_SCORE; do
        [[ ${!setting} =~ ^$number$ ]] || wrong "$setting is a number, not \`${!setting}\`"
    done
    [[ $FILTER =~ ^(yes|no|$number)$ ]] || wrong "FILTER is yes, no, length (of FRAMES at FPS) or seconds, not \`$FILTER\`"
    for setting in TILING KEEP_GOING; do
        [[ ${!setting} =~ ^(yes|no)$ ]] || wrong "$setting is yes or no, not \`${!setting}\`"
    done
    [[ $COST_STEP =~ ^(\ *[a-z_]+\ +$number)*\ *$ ]] || wrong "COST_STEP is kinds of adapters, each with a number, not \`$COST_STEP\`"
    [[ $EXPERT =~ ^(high|low)?$ ]] || wrong "EXPERT is high, low or empty, not \`$EXPERT\`"
    [[ $FIRST =~ ^([1-9][0-9]{0,8})?$ ]] || wrong "FIRST is a number, not \`$FIRST\`"
    [[ $JOBS =~ ^([1-9][0-9]{0,8})?$ ]] || wrong "-j (JOBS) is a number, not \`$JOBS\`"
    [[ $SIZE =~ ^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$ ]] || wrong "SIZE is WIDTHxHEIGHT, not \`$SIZE\`"
    [[ $SEEDS =~ ^$seed(\ +$seed)*\ *$ ]] || wrong "SEEDS are numbers, without zeros in front, not \`$SEEDS\`"
    [ -z "$(tr -s ' ' '\n' <<<"$SEEDS" | sort | uniq -d)" ] || wrong "SEEDS names one twice: \`$SEEDS\`"
    check_runs
}

check_runs() {
    local run
    while read -r run; do
        [[ $run =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || wrong "\`$run\` is no name for a run: letters, digits, _ . and -"
        case $run in *.made | *.jsonl | *.lock) wrong "\`$run\` is no name for a run: its end is that of a file beside it" ;; esac
    done < <(runs; printf '%s\n' "${operands[@]}" | grep . || true)
    run=$(runs | sort | uniq -d | head -n 1)
    [ -z "$run" ] || wrong "RUNS has $run twice"
    run=$(awk '/^[^#]/ && NF > 2' <<<"$RUNS" | head -n 1)
    [ -z "$run" ] || wrong "RUNS: \`$run\`: a line is a name and an adapter"
    runs | grep -qxF -e "$BASE" || wrong "BASE is one of RUNS, not \`$BASE\`: $(runs | tr '\n' ' ')"
}

# settled FILE NAME...: refuses to go on with what was made with other values of these settings, which FILE keeps.
settled() {
    local file=$1 setting now
    shift
    [ -z "$checking" ] || return 0
    now=$(for setting; do printf '%s=%q\n' "$setting" "${!setting/#"$WORK/"/WORK/}"; done)
    locked shared
    if [ -e "$file" ] && [ "$now" != "$(cat "$file")" ]; then
        say "$file: made with other settings; remove what they made, or choose another WORK:"
        diff "$file" - <<<"$now" | sed -n 's/^< /    made with  /p; s/^> /    now        /p' >&2
        exit 1
    fi
    [ -n "$dry" ] || put "$file" <<<"$now"
    unlocked
}

runs() { awk '/^[^#]/ && NF { print $1 }' <<<"$RUNS"; }
adapter_of() { awk -v run="$1" '$1 == run { print $2 }' <<<"$RUNS"; } # nothing: it is a base

# The runs that operands name, all when there are none.
choose_runs() {
    local run
    for run in "${operands[@]}"; do runs | grep -qxF -e "$run" || wrong "no run $run in RUNS: $(runs | tr '\n' ' ')"; done
    run=$(printf '%s\n' "${operands[@]}" | sort | uniq -d | head -n 1)
    [ -z "$run" ] || wrong "$run is named twice"
    chosen=("${operands[@]}")
    [ ${#chosen[@]} -gt 0 ] || mapfile -t chosen < <(runs)
}

# A run whose adapter is trained to its end, and sound.
finished() {
    plot --table --json "$WORK/runs/$1" 2>/dev/null | grep -q '"finished":true' &&
        show --check "$WORK/runs/$1/best.safetensors" "$WORK/runs/$1/last.safetensors" 2>/dev/null
}

# The checksum of a run's adapter; of a base `none`. A rehearsal prints nothing where it is not there yet.
adapter_sum() {
    if [ -n "$checking" ]; then return; fi
    if [ -z "$(adapter_of "$1")" ]; then
        echo none
    elif finished "$1"; then
        cksum <"$WORK/runs/$1/best.safetensors"
    elif [ -z "$dry" ]; then
        die "$1: its adapter is not there, or not finished: train $1"
    fi
}

# What adapters learn to answer and what the scheduler reads as an answer; one line when these are not the same.
misfit() {
    [ "$(adapter_of "${chosen[-1]}")" ] || [ ${#chosen[@]} -gt 1 ] || return 0
    case $OBJECTIVE/$SCHEDULER in
    flow/euler | flow/unipc) ;;
    flow/*) echo "OBJECTIVE=flow and SCHEDULER=$SCHEDULER do not fit: $SCHEDULER reads the adapters' answers as something else; with OBJECTIVE=flow fits SCHEDULER=euler, with SCHEDULER=$SCHEDULER fits OBJECTIVE=flow-snr" ;;
    */euler | */unipc) echo "OBJECTIVE=$OBJECTIVE and SCHEDULER=$SCHEDULER do not fit: $SCHEDULER reads the adapters' answers as something else; with OBJECTIVE=$OBJECTIVE fits SCHEDULER=dpm, with SCHEDULER=$SCHEDULER fits OBJECTIVE=flow" ;;
    esac
}

# ---- the start -----------------------------------------------------------------------------------------------------------------------

start() {
    local worker='' value checked=''
    config=paper
    given=() operands=() chosen=() first=1 slot=1 dry='' checking='' wait=''
    { : 3>&1; } 2>/dev/null || die 'stdout: it is closed'
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) tell "${help/COMMON/"$common_help"}"; exit ;;
        --version) value=$(train-step --version) && tell "$name${value#train-step}"; exit ;;
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
        --wait) wait=--wait ;;
        --dry-run) dry=--dry-run ;;
        --check) dry=--dry-run checking=yes ;; # a rehearsal, for starts
        --checked) checked=yes ;;
        -*) wrong "no option $1" ;;
        *=*) given+=("$1") ;;
        *) operands+=("$1") ;;
        esac
        shift
    done
    [[ $first =~ ^[1-9]$ && $first -le ${stages:-9} ]] || wrong "--stage is a number, 1 to ${stages:-9}, not \`$first\`"
    if [[ $config != */* ]] && [ -e "$lib/$config.conf" ]; then config=$lib/$config.conf; fi
    case $config in -*) config=./$config ;; esac
    if [ ! -f "$config" ] || [ ! -r "$config" ]; then die "$config: no such configuration: there are$(configurations) and files"; fi
    case $config in /*) ;; *) config=$PWD/$config ;; esac # for the shell's `.`, which would look for it along PATH
    read_settings "$config"
    if [ -n "$worker" ]; then work "$worker"; fi
    choose_runs
    failed=0
    if [ -n "$checking" ]; then
        SEEDS=${SEEDS%% *} # one shows what all get
        return
    fi
    case $name$checked in
    *yes) ;;
    plan) pipeline reproduce --check "${operands[@]}" || exit ;;
    *) pipeline "$name" --check --stage "$first" "${operands[@]}" || exit ;;
    esac
    key=$name
    case $dry$name in
    --dry-run* | plan) ;;
    *probe) claim ;;
    *) claim && begin ;;
    esac
    [ -z "$INPUTS" ] || [ -e "$WORK/inputs" ] || make_inputs
}

# The settings where everybody sees how this was made; and nothing of what a killed one left half done.
begin() {
    local setting
    locked shared
    find "$WORK/." "$WORK/lists/." -maxdepth 1 -name '.tmp-*' ! -name '.tmp-inputs-*' -delete 2>/dev/null || true
    for setting in $settings; do printf '%s=%q\n' "$setting" "$(given_as "$setting")"; done | put "$WORK/settings.conf"
    unlocked
}

make_inputs() { # whole, or not there
    local new
    new=$(new_name "$WORK/inputs")
    printf '\n%s: inputs\n' "$name" >&2
    locked shared
    if [ ! -e "$WORK/inputs" ]; then
        [ -n "$dry" ] || rm -rf -- "$WORK"/.tmp-inputs-*
        run "$INPUTS" "$new" "$then" mv "$new" "$WORK/inputs" || die "$INPUTS: it failed, so there are no inputs"
    fi
    unlocked
}

stage() { # N WHAT
    [ "$1" -ge "$first" ] || return 1
    at_stage=$1${stages:+ of $stages}
    [ -n "$checking" ] || printf '\n%s: stage %s: %s\n' "$name" "$at_stage" "$2" >&2
}

# pipeline NAME ARGUMENTS: another one, with the settings of this one.
pipeline() {
    local setting again=()
    for setting in $settings; do again+=("$setting=$(given_as "$setting")"); done
    "$here/$1" "${again[@]}" ${dry:+"$dry"} ${checking:+--check} "${@:2}" {claimed}>&-
}

# ---- pipelines -----------------------------------------------------------------------------------------------------------------------

# What is the shell's in the words of run. No setting has a line break, so none is ever taken for one of these.
from=$'<\n' to=$'>\n' onto=$'>>\n' pipe=$'|\n' then=$'&&\n'

# run WORDS: one pipeline, its words as they are, but for those above. Shown by --dry-run.
run() {
    local word line=
    if [ -n "$checking" ]; then check "$@"; return; fi
    for word; do
        case $word in "$from" | "$to" | "$onto" | "$pipe" | "$then") word=${word%$'\n'} ;; *) printf -v word %q "$word" ;; esac
        line+="${line:+ }$word"
    done
    if [ -n "$dry" ]; then echo "$line"; else eval "$line"; fi
}

# check WORDS: the same pipeline's options, by the programs themselves.
check() {
    local word file='' command=()
    for word in "$@" "$pipe"; do
        case $word in
        "$from" | "$to" | "$onto") file=yes ;;
        "$pipe" | "$then") check_command "${command[@]}"; command=() ;;
        *) [ -n "$file" ] || command+=("$word"); file='' ;;
        esac
    done
}
declare -A good=() # those that were checked before
check_command() {
    local said status=0
    case $1 in cat | sed | tee | mv | rm) return ;; esac
    [ -z "${good["$*"]-}" ] || return 0
    good["$*"]=yes
    said=$("$1" --check-options "${@:2}" 2>&1 >/dev/null </dev/null) || status=$?
    [ $status != 2 ] || { printf '%s\n' "$said" >&2; failed=2; } # 1: a model that is not there, say; plan tells
}

# A key that two prompts have, whose videos would be one file. A table's have numbers.
prompt_twice() { foresee prompts | collect --missing /dev/null 2>/dev/null | keys | sort | uniq -d | head -n 1 || true; }

# list_by NAME: the list that `command` makes, unless it is there, and its parts.
list_by() {
    local twice=''
    [ "$1$dry" != prompts ] || twice=$(prompt_twice)
    [ -z "$twice" ] || die "$PROMPTS: two prompts have the key $twice"
    locked shared
    if [ -z "$checking" ] && [ -e "$(list "$1")" ]; then say "$(list "$1") is there"; else run_to "$(list "$1")" "${command[@]}"; fi
    split_list "$1"
    unlocked
}

# run_to FILE WORDS: the same into a file that is whole or not there.
run_to() {
    local file=$1 new
    new=$(new_name "$file")
    shift
    [ -n "$dry" ] || mkdir -p -- "${file%/*}"
    run "$@" "$to" "$new" "$then" mv "$new" "$file"
}

# The commands that make lists, of a part of the clips and of the prompts.
clips_command() {
    command=(curate --split "$1" --fraction "$VAL_FRACTION" --split-seed "$SPLIT_SEED")
    [ -z "$VIDEOS" ] || command+=(--videos "$VIDEOS")
    case $FILTER in yes) ;; no) command+=(--no-filter) ;; *) command+=(--min-seconds "$FILTER") ;; esac
    [ -z "$ZIPS" ] || command+=(--zips "$ZIPS")
    command+=("$CLIPS")
}
prompts_command() {
    command=(prompts)
    [ -z "$PROMPT_MODEL" ] || command+=(--model-name "$PROMPT_MODEL")
    [ -z "$UPSAMPLED" ] || command+=(--upsampled "$UPSAMPLED")
    command+=("$PROMPTS")
    case $PROMPTS in *.jsonl) command=(cat "$PROMPTS") ;; esac
    [ -z "$FIRST" ] || command+=("$pipe" sed -n "1,${FIRST}p")
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
list() { printf '%s\n' "$WORK/lists/$1.jsonl"; }
split_list() {
    local part
    [ -z "$dry" ] || return 0
    for ((part = 0; part < SHARDS; part++)); do
        awk -v n="$SHARDS" -v part="$part" 'NR % n == part' <"$(list "$1")" | put "$(list "$1.$part")"
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
end_lines() { [ ! -s "$1" ] || [ -z "$(tail -c 1 -- "$1" | tr -d '\n')" ] || truncate -s "-$(tail -n 1 -- "$1" | wc -c)" -- "$1"; }
