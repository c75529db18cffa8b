#!/bin/sh
# The networks on a GPU: the same tests against the same references as on the CPU, in F32 and in BF16, and what
# happens when there is no such device.
# shellcheck shell=sh disable=SC2016
. "${0%/*}/lib.sh"

# All that was not right, or how it ended.
network() {
    need cuda
    out=$PWD/out code=0
    cd "$top"
    TEST_DEVICE=cuda TEST_DTYPE=$2 timeout 300 "$BUILD/tests/$1" >"$out" || code=$?
    [ "$code" = 0 ] || { grep -A 2 '^not ok' "$out" || tail -n 3 "$out"; return 1; }
}
for name in t5 vae wan_vae dit wan_dit train wan_train owl; do
    for dtype in f32 bf16; do ok "$name in $dtype on the GPU" "network $name $dtype"; done
done

ok 'a device that does not exist is one line, and no other is taken instead' '
    fails 1 vae-encode --device cuda:97 -m random:tiny </dev/null >out
    [ "$(wc -l <err)" = 1 ]
    [ ! -s out ]
    fails 2 vae-encode --device cuda:x -m random:tiny </dev/null'
ok '--device cuda without a GPU fails' '
    if nvidia-smi -L >/dev/null 2>&1; then echo there is a GPU here; exit 77; fi
    fails 1 vae-encode --device cuda -m random:tiny </dev/null
    [ "$(wc -l <err)" = 1 ]
    grep "no CUDA" err'
ok 'without --device the CPU serves where there is no GPU, and it is said why' '
    if nvidia-smi -L >/dev/null 2>&1; then echo there is a GPU here; exit 77; fi
    tensor-gen --name video --dtype u8 --shape 1,16,16,3 | vae-encode -m random:tiny 2>err >/dev/null
    grep "computing on cpu: no CUDA" err'
ok 'a GPU that is kept from the program is none' '
    need cuda
    CUDA_VISIBLE_DEVICES= fails 1 vae-encode --device cuda -m random:tiny </dev/null
    [ "$(wc -l <err)" = 1 ]
    grep "no CUDA device" err'

# sample computes its own negative prompt on a device that it opens for this alone.
prompt() { tensor-gen --name prompt_embeds --shape 32,64 >prompt.mp; }
few_steps() { sample -m random:tiny --frames 5 --size 64x32 --steps 2 --negative "a blur" "$@"; }
ok 'a second device is opened with what the first one was asked for: --profile' '
    prompt
    few_steps --device cpu --profile <prompt.mp 2>err >/dev/null
    grep "profile: .* calls  linear_gelu_mul_forward" err # no other part of it has such a product
    few_steps <prompt.mp 2>err >/dev/null
    [ "$(grep -c "computing on" err)" = 1 ]'
ok 'and --dtype f32, on the GPU' '
    need cuda
    prompt
    few_steps --device cuda --dtype f32 <prompt.mp >own.mp
    few_steps --device cpu --dtype f32 <prompt.mp >cpu.mp
    few_steps --device cuda <prompt.mp >bf16.mp
    fails 1 tensor-eq --rel 1e-4 --quiet bf16.mp cpu.mp # in BF16 it would show
    tensor-eq --rel 1e-5 own.mp cpu.mp'

ok '--dtype fp8 on the GPU: near bf16, the same twice, both halves alike; what has no such products says so' '
    need cuda
    prompt
    few_steps --device cuda <prompt.mp >bf16.mp
    if ! few_steps --device cuda --dtype fp8 <prompt.mp 2>err >fp8.mp; then
        cat err
        grep -q "^sample: FP8: cuda:0 is a .* cuBLASLt has products of rows with scales for 9.0 alone" err
        echo "no FP8 on this card"
        exit 77
    fi
    few_steps --device cuda:0,cuda:0 --dtype fp8 <prompt.mp >again.mp
    cmp fp8.mp again.mp
    tensor-eq --rel 0.15 --quiet bf16.mp fp8.mp # on the CPU it is 0.064
    fails 1 tensor-eq --rel 0.01 --quiet bf16.mp fp8.mp'

# driver INIT VERSION: a CUDA driver whose cuInit() returns INIT, for programs run by `driven`.
driver() {
    need cc
    [ -e "$(dirname "$(command -v vae-encode)")/sluice-cuda.so" ] || { echo "no CUDA backend in this build"; exit 77; }
    mkdir -p driver
    cc -shared -fPIC -o driver/libcuda.so.1 -x c - <<EOF
#include <string.h>
int cuInit(unsigned flags) { return (void)flags, $1; }
int cuDriverGetVersion(int *v) { return *v = $2, 0; }
static int done(void) { return 0; }
static int tables(const void **table, const void *id)
{
    static void *all[512];
    for (int i = 1; i < 512; i++) all[i] = (void *)done;
    all[0] = (void *)sizeof all;
    return (void)id, *table = all, 0;
}
int cuGetProcAddress_v2(const char *name, void **p, int version, unsigned long flags, int *status)
{
    *p = !strcmp(name, "cuDriverGetVersion") ? (void *)cuDriverGetVersion
         : !strcmp(name, "cuInit")           ? (void *)cuInit
         : !strcmp(name, "cuGetExportTable") ? (void *)tables
         : !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2
                                             : (void *)done;
    if (status) *status = 0;
    return (void)version, (void)flags, 0;
}
EOF
}
driven() { LD_LIBRARY_PATH=$PWD/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"; }
ok 'a driver that is too old, finds no device, or fails is told as such, in one line' '
    driver 0 12000
    fails 1 driven vae-encode --device cuda -m random:tiny </dev/null; cat err; [ "$(wc -l <err)" = 1 ]
    grep "one older than this build needs" err
    driver 100 13000
    fails 1 driven vae-encode --device cuda -m random:tiny </dev/null; cat err; [ "$(wc -l <err)" = 1 ]
    grep "no CUDA device" err
    driver 999 13000
    fails 1 driven vae-encode --device cuda -m random:tiny </dev/null; cat err; [ "$(wc -l <err)" = 1 ]
    grep "CUDA: unknown error" err'

# 82 billion parameters, 164 GB in BF16
large() {
    cp -r "$SLUICE_DATA/presets/cogvideox-5b" large
    sed -i "s/\"num_layers\": *[0-9]*/\"num_layers\": 96/; s/\"num_attention_heads\": *[0-9]*/\"num_attention_heads\": 128/" large/transformer/config.json
}
no_room() { # DEVICE ITS-NAME-IN-FULL
    [ -e large ] || large
    fails 1 train-step -m random:./large --state run --device "$1" </dev/null
    cat err
    [ "$(wc -l <err)" = 1 ]
    grep "the weights of transformer: [0-9.]* MiB needed, [0-9.]* MiB available on $2" err
}
ok 'weights that there is no room for are refused before any is made, with the numbers' 'no_room cpu cpu'
ok 'so are they on the GPU' 'need cuda; no_room cuda cuda:0'
ok 'and activations of a record that is too large' '
    need cuda
    tensor-gen --name latents --shape 13,16,240,360 --dtype bf16 --key wide |
        tensor-gen --add --name prompt_embeds --shape 226,4096 --dtype bf16 >wide.mp
    fails 1 train-step -m random:cogvideox-5b --state run --device cuda --recompute none <wide.mp
    cat err
    [ "$(wc -l <err)" = 1 ]
    grep "position 0: wide: scratch memory: [0-9.]* MiB needed, [0-9.]* MiB available on cuda:0" err'
finish
