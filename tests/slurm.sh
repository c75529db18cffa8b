#!/bin/sh
# pipelines/ as arrays of a real Slurm: a controller and two nodes of the test's own, on this machine.
# shellcheck disable=SC1091,SC2016,SC2154 # ok evaluates its text
. "${0%/*}/lib.sh"
# shellcheck source=tests/pipelines
. "$tests/pipelines"
PATH=$PATH:/usr/sbin
need_slurm() { need_parallel; need sbatch; need slurmctld; need slurmd; need munged; [ -e up ] || { echo "no Slurm can be started here"; exit 77; }; }

SLURM_CONF=$work/slurm.conf
export SLURM_CONF
start_slurm() {
    for program in munged slurmctld slurmd sbatch; do command -v $program >/dev/null || return 1; done
    [ "$(id -u)" = 0 ] || return 1 # for slurmd
    host=$(hostname -s) port=$((20000 + $$ % 20000))
    mkdir state
    head -c 1024 /dev/urandom >munge.key
    chmod 600 munge.key
    cat >slurm.conf <<E2
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_min_interval=200000
ReturnToService=2
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 RealMemory=100
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 RealMemory=100
PartitionName=all Nodes=node1,node2 Default=YES State=UP
E2
    munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munged.pid" \
        --log-file="$work/munged.log" --seed-file="$work/munge.seed" || return 1
    slurmctld -i && slurmd -N node1 && slurmd -N node2 || return 1
    for wait in 1 2 3 4 5 6 7 8 9; do
        if [ "$(sinfo -h -o '%T %D')" = "idle 2" ]; then touch up; return; fi
        sleep "0.$wait"
    done
    return 1
}
stop_slurm() {
    if [ -e up ]; then scancel -u "$(id -un)"; fi
    for pid in node1 node2 slurmctld munged; do [ ! -s "$pid.pid" ] || kill "$(cat "$pid.pid")"; done
} 2>/dev/null
start_slurm >start.log 2>&1
trap 'cd "$work"; stop_slurm; sleep 0.3; rm -rf "$work"' EXIT

ok '--dry-run shows what sbatch would get, and no Slurm is asked' '
    need_parallel; mkdir dry; cp prompts.csv little.conf dry; cd dry
    printf "#!/bin/sh\ntouch %s/asked\n" "$work" >sbatch; chmod +x sbatch; PATH=$PWD:$PATH
    little train --dry-run --slurm "--partition=gpu --comment=\$(hit)" -j 3 >told 2>err
    grep -xF "# 2 jobs, by: sbatch --wait --quiet --array=1-2%3 --job-name=train --chdir=/ --output=/dev/null --partition=gpu --comment=\\\$\\(hit\\) <SCRIPT" told
    little train --dry-run --slurm --ntasks=1 JOBS= >told 2>err; grep -F -e "--array=1-2 --job" told
    little train --dry-run -j 2 DELAY=7 --sshlogin "a,b" >told 2>err; grep -x "# 2 jobs on a,b, 2 at a time, their starts 7 s apart:" told
    [ ! -e ../asked ] && [ ! -e work ]'
ok 'adapters and videos by arrays: the same bytes as without' '
    need_slurm
    mkdir here there; cp prompts.csv little.conf here; cp prompts.csv little.conf there
    cd here; little precompute 2>err; cp -r work ../there; little train 2>err; little generate 2>err
    cd ../there; little train --slurm "--ntasks=1" 2>err || { cat err; exit 1; }
    little generate --slurm "--ntasks=1" 2>err || { cat err; exit 1; }
    same_results work ../here/work
    ls work/log/generate.*.slurm | wc -l | grep -x 6; ls work/log/train.*.slurm | wc -l | grep -x 2
    little generate --slurm "--ntasks=1" 2>err; grep "0 of 6 jobs" err'
ok 'names of every sign get there' '
    need_slurm
    mkdir -- "./$odd"; cd -- "./$odd"
    odd_inputs
    set -- --config "$odd.conf" WORK="$odd" CLIPS="$odd.clips/$odd.csv" VIDEOS="$odd.clips" PROMPTS="$odd.csv" MODEL="$odd.model" --slurm --ntasks=1
    precompute "$@" 2>err || { cat err; exit 1; }; [ "$(show --jsonl "./$odd/train" "./$odd/val" | grep -c .)" = 8 ]
    ls "./$odd/log/" | grep -c "^precompute.*\.slurm" | grep -x 4
    generate "$@" base 2>err || { cat err; exit 1; }
    mv "./$odd/videos" ../away; generate "$@" SLURM= base 2>err || { cat err; exit 1; }
    diff -r "./$odd/videos/base/42" ../away/base/42
    [ -z "$(find "$work" -name hit)" ]'
ok 'a task that is killed loses nothing: what it left is named, and done by the next run' '
    need_slurm
    cd there; rm -r work/videos
    little generate --slurm "--ntasks=1" STEPS=1000 base 2>err &
    until squeue -h -t R -o %A | grep -q .; do kill -0 $! || { cat err; exit 1; }; sleep 0.02; done
    scancel --full --signal=KILL "$(squeue -h -t R -o %A | head -n 1)"
    if wait $!; then cat err; exit 1; fi
    grep "generate: base 42 .: not done:" err
    rm -r work/videos
    little generate 2>err; diff -r -x "*.[0-9].jsonl" work/videos ../here/work/videos'
finish
