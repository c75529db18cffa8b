#!/bin/sh
# What cards use: NVML's counter, here a library of the test's own that counts 250 J at each question; where it is told, and that no byte of
# a result depends on it.
# shellcheck disable=SC1091
. "${0%/*}/lib.sh"
M=random:tiny
# A card by each of its names. Every question finds 250 J more, kept in a file, so that programs one after the other find more, too.
cat >nvml.c <<'END'
#include <stdio.h>
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = "card"; return i != 3; }
int nvmlDeviceGetHandleByUUID(const char *u, void **d) { *d = "card"; return strcmp(u, "GPU-1-2"); }
int nvmlDeviceGetHandleByPciBusId_v2(const char *b, void **d) { *d = "card"; return strcmp(b, "0000:01:00.0"); }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj)
{
    FILE *f = fopen(COUNT, "r+");
    if (!f || strcmp(d, "card") || fscanf(f, "%llu", mj) != 1) return 1;
    rewind(f);
    fprintf(f, "%llu\n", *mj += 250000);
    return fclose(f);
}
END
mkdir -p fake
"${CC:-cc}" -shared -fPIC -DCOUNT="\"$work/count\"" -o fake/libnvidia-ml.so.1 nvml.c || exit 1
echo 1000000 >count
counted() { LD_LIBRARY_PATH=$work/fake${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"; }
tensor-gen --name latents --shape 2,16,4,8 --count 8 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 >clips.mp
train() { # STATE OPTIONS...
    state=$1
    shift
    train-step -m "$M" --device cpu --objective v --warmup 1 --max-steps 4 --save-every 1 --state "$state" "$@" <clips.mp
}
speed() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" "$1/speed.json"; }

ok "show --joules: the counter, by each name of a card; in one line where there is none" '
    [ "$(counted show --joules 3)" = 1250.000 ]
    [ "$(counted show --joules GPU-1-2)" = 1500.000 ]
    [ "$(counted show --joules 0000:01:00.0)" = 1750.000 ]
    fails 1 counted show --joules 0
    fails 1 counted show --joules GPU-9
    grep -q "^show: GPU-9: no NVML here, no such card" err
    rm -f other; mv count other
    fails 1 counted show --joules 3
    mv other count
    nvidia-smi -L >nvidia 2>&1 || fails 1 show --joules 3
    fails 2 show --joules 3 clips.mp'
ok "train-step: joules beside seconds in speed.json, on over resumes, and in no other byte" '
    train plain >plain.metrics
    ! grep -q joules plain/speed.json
    export SLUICE_BUS=0000:01:00.0
    counted train-step -m "$M" --device cpu --objective v --warmup 1 --max-steps 4 --save-every 1 --state metered <clips.mp >metered.metrics
    cmp plain.metrics metered.metrics
    for file in metrics.jsonl last.safetensors state.safetensors; do cmp plain/$file metered/$file; done
    [ "$(speed metered steps)" = 4 ]; [ "$(speed metered metered_steps)" = 4 ]
    [ "$(speed metered joules)" = 1000.000 ] # 250 from the one question to the other, in each of four steps
    plot --table --json metered | grep -q "\"step_j\":250.0"'
ok "a run of which only some steps were metered counts those" '
    tensor-gen --name latents --shape 2,16,4,8 --count 3 --key clip | tensor-gen --add --name prompt_embeds --shape 32,64 |
        train-step -m "$M" --device cpu --objective v --warmup 1 --max-steps 4 --save-every 1 --state part >/dev/null
    SLUICE_BUS=0000:01:00.0 counted train-step -m "$M" --device cpu --objective v --warmup 1 --max-steps 4 --save-every 1 --state part <clips.mp >/dev/null
    [ "$(speed part steps)" = 4 ]; [ "$(speed part metered_steps)" = 1 ]; [ "$(speed part joules)" = 250.000 ]
    cmp plain/last.safetensors part/last.safetensors'
ok "sample --profile: joules beside milliseconds, the same latents" '
    tensor-gen --name prompt_embeds --shape 32,64 --count 2 --key prompt >prompts.mp
    sample -m $M --device cpu --frames 5 --size 64x32 --steps 2 <prompts.mp >plain.mp
    SLUICE_BUS=0000:01:00.0 counted sample -m $M --device cpu --frames 5 --size 64x32 --steps 2 --profile <prompts.mp >metered.mp 2>said
    cmp plain.mp metered.mp
    [ "$(grep -c "prompt[01]: profile: .* ms a step; 250.0 J, 125.00 a step" said)" = 2 ]
    grep -q "profile: [0-9.]* J in [0-9.]* s on cpu, [0-9]* W" said
    sample -m $M --device cpu --frames 5 --size 64x32 --steps 2 --profile <prompts.mp >metered.mp 2>said
    grep -q "ms a step\$" said; ! grep -q " J" said'
ok "the ledger of a GPU job has joules, and report kWh for each phase" '
    cat >work <<"END"
set -euo pipefail
name=generate several="" WORK=work DEVICE=cuda THREADS=0 dry="" slot=1 failed=0 HOSTNAME=here
say() { :; }
. "$1/pipelines/jobs.sh"
gpus() { echo 3; }
device=cuda:0 cards=(cuda:0) began=$EPOCHREALTIME made=2 missing=0 status=0 job="base 42 0"
mkdir -p work/ledger
used=$(joules); ledger start; ledger end
END
    rm -rf work.d; mkdir work.d; mv work work.d/run; cd work.d
    counted bash run "$top"
    grep -q "\"event\":\"end\".*\"gpu_s\":[0-9.]*,\"joules\":250.000,\"done\":2" work/ledger/generate-base-42-0.jsonl
    echo "{\"key\":\"a\",\"sa\":5,\"pc\":5}" >base.jsonl
    {
        echo "{\"event\":\"start\",\"phase\":\"train\",\"job\":\"r\",\"at\":1000,\"device\":\"cuda:0\"}"
        echo "{\"event\":\"end\",\"phase\":\"train\",\"job\":\"r\",\"at\":4600,\"device\":\"cuda:0\",\"wall_s\":3600,\"gpu_s\":3600,\"joules\":2520000,\"done\":5,\"failed\":0,\"exit\":0}"
    } >work/ledger/train-r.jsonl
    report --base base --ledger work/ledger --format text base.jsonl >text
    grep -Eq "^train .* 1 +0.7 +1 " text
    report --base base --ledger work/ledger --format json base.jsonl | grep -Eq "\"kwh\": ?0.(7|69999999)"
    sed "s/,\"joules\":[0-9.]*//" work/ledger/generate-base-42-0.jsonl >other
    mkdir none; cp other none/generate-base-42-0.jsonl
    report --base base --ledger none --format text base.jsonl >text
    ! grep -q kWh text
    sed "s/\"gpu_s\":[0-9.]*/\"gpu_s\":60/" other >work/ledger/generate-base-42-0.jsonl
    report --base base --ledger work/ledger --format text base.jsonl >text
    grep -Eq "^total .* >0.7 " text; grep -Eq "^generate .* - " text'
finish
