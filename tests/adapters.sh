#!/bin/sh
# The kinds of adapters in train-step and sample: short runs, files, and a kind that is added.
. "${0%/*}/lib.sh"
# shellcheck source=tests/train-kills
. "$tests/train-kills"
M=random:tiny
kinds="standard transformer gdn_cssm gdn_cssm:k=5 gdn_cssm:rope=1 gdn_cssm:k=5,rope=1"

# 2 clips of 17 frames, 96x64 pixels: a grid of 4x6 tokens, 5 frames.
clips() { tensor-gen --name latents --shape "$1" --count "${2:-2}" --key clip | tensor-gen --add --name prompt_embeds --shape 32,64; }
clips 5,16,8,12 | pack -o train 2>/dev/null
tensor-gen --name prompt_embeds --shape 32,64 >prompt.mp
train() { train-step -m "$M" --device cpu --objective flow-snr --lr 2e-2 --warmup 4 --max-steps 60 --val train --eval-every 20 --eval-clips 4 --save-every 10 "$@"; }
run() { [ -e "$1/last.safetensors" ] || { draw --count 60 train | train --adapter "$1" --state "$1" >"$1.jsonl" 2>"$1.err"; }; }
make_video() { sample -m "$M" --device cpu --dtype f32 --frames 17 --size 96x64 --steps 4 "$@" <prompt.mp; }

ok "parameter counts at full size" '
    count() { train-step --dry-run --device cpu -m random:cogvideox-5b --adapter "$1" </dev/null | grep "168 modules, $2 trainable"; }
    count standard 16515072
    count transformer 16644096
    for a in gdn_cssm gdn_cssm:k=5 gdn_cssm:rope=1 gdn_cssm:k=5,rope=1; do count $a 17930640; done'
for kind in $kinds; do
    ok "$kind learns" '
        run $kind
        show --check $kind/best.safetensors
        sed -n "s/.*\"val_loss\":\([^,]*\),.*/\1/p" $kind.jsonl | awk "{ v[n++] = \$1 } END { print v[0], v[n - 1]; exit !(n == 4 && v[n - 1] < 0.85 * v[0]) }"'
    ok "$kind resumes to the same bytes, with other threads" '
        run $kind
        draw --count 23 train | train --adapter $kind --state parts-$kind --threads 1 >/dev/null 2>&1
        draw --count 60 train | train --adapter $kind --state parts-$kind --threads 2 >/dev/null 2>&1
        same_run $kind parts-$kind'
    ok "$kind: fresh it changes not one bit of what sample makes, trained it does" '
        run $kind
        clips 5,16,8,12 1 | train --adapter $kind --state fresh-$kind >/dev/null 2>&1
        [ -e base.mp ] || make_video >base.mp
        make_video -a fresh-$kind/last.safetensors >fresh.mp
        tensor-eq base.mp fresh.mp
        make_video -a $kind/best.safetensors >tuned.mp
        fails 1 tensor-eq base.mp tuned.mp'
done
for kind in transformer gdn_cssm:k=5,rope=1; do
    ok "$kind: --recompute changes no bit" '
        run $kind
        draw --count 60 train | train --adapter $kind --state full-$kind --recompute full >/dev/null 2>&1
        same_run $kind full-$kind'
done
for kind in $kinds; do
    ok "$kind, killed with -9 at a random moment and started again: the same bytes" 'survive_kills 1 $kind'
done
ok "the runs differ, each from each" '
    for kind in $kinds; do run $kind; tail -n 1 $kind.jsonl; done | sort -u | wc -l | grep -x "$(echo "$kinds" | wc -w)"'
ok "a kernel larger than the grid is cropped, and that is said" '
    run gdn_cssm:k=5
    run gdn_cssm
    grep "kernel of 5x5 is larger than the grid of 4x6" gdn_cssm:k=5.err
    fails 1 grep larger gdn_cssm.err'
ok "the grid belongs to the adapter: other sizes are refused, naming both" '
    run gdn_cssm
    fails 1 sample -m $M --device cpu --frames 17 --size 64x96 --steps 4 -a gdn_cssm/best.safetensors <prompt.mp >/dev/null
    grep "made for frames of 4x6 tokens, this has 6x4" err
    clips 5,16,12,8 >other.mp
    fails 1 train --init gdn_cssm/best.safetensors --state other <other.mp
    grep "made for frames of 4x6 tokens, these have 6x4" err
    { clips 5,16,8,12; tensor-gen --name latents --shape 5,16,12,8 --key tall --meta position=2 | tensor-gen --add --name prompt_embeds --shape 32,64; } >mixed.mp
    fails 1 train --adapter gdn_cssm --state mixed <mixed.mp
    grep "tall: .*made for frames of 4x6 tokens, this has 6x4" err
    run transformer
    sample -m $M --device cpu --frames 9 --size 64x96 --steps 4 -a transformer/best.safetensors <prompt.mp >/dev/null'
ok "--init goes on from each kind, and adapters add up" '
    run gdn_cssm
    run transformer
    draw --count 3 train | train --init gdn_cssm/best.safetensors --state more >/dev/null 2>&1
    show more/last.safetensors | grep "attn1.to_out.0.kernel  *F32 .4,4,4,2"
    make_video -a gdn_cssm/best.safetensors -a transformer/best.safetensors:0.5 >both.mp
    make_video -a gdn_cssm/best.safetensors >one.mp
    fails 1 tensor-eq both.mp one.mp'
ok "another setting does not go on with a state, a default that is spelled out does" '
    run gdn_cssm
    draw --count 60 train >all.mp
    fails 1 train --adapter gdn_cssm:rope=1 --state gdn_cssm <all.mp; grep "\`adapter\`" err
    train --adapter gdn_cssm:k=1,rope=0,dk=4,rank=16 --state gdn_cssm <all.mp 2>err; grep finished err'
ok "wrong settings are named" '
    draw --count 1 train >one.mp
    fails 2 train --adapter gdn_cssm:kernel=5 --state w <one.mp; grep "no setting .kernel.: there are rank, alpha, k, rope, dk" err
    fails 2 train --adapter gdn_cssm:rank=6 --state w <one.mp; grep "dk=4 does not divide rank 6" err
    fails 2 train --adapter transformer:rank=3 --state w <one.mp; grep "rank 3 is odd" err'

# One file and one row: the table of a copy of adapter.c gets a row, the file below is compiled, and that is all.
seventh() {
    cat <<'C'
#include "filters/learning/adapter.h"

static int declare(struct adapter *a, struct adapter_layout *l, char *err, size_t errlen)
{
    (void)a, (void)err, (void)errlen;
    l->param[0] = (struct adapter_param){"shift", 2, {1, l->out}, INIT_ZERO, 0};
    return 1;
}

static int64_t saved_count(const struct adapter *a, const struct token_rows *r)
{
    (void)a;
    return token_count(r);
}

static void ones(struct adapter *a, struct tensor *t)
{
    float one[256];
    for (int i = 0; i < 256; i++) one[i] = 1;
    for (int64_t i = 0; i < t->shape[0]; i += 256) {
        struct tensor part = tensor_rows(t, i, t->shape[0] - i < 256 ? t->shape[0] - i : 256), host = part;
        host.data = one;
        kern_upload(a->k, &part, &host);
    }
}

static void forward(struct adapter *a, const struct adapter_call *c, int n)
{
    for (; n--; c++) {
        struct tensor w = adapter_view(a, &a->values, c->module, 0), s = tensor_as(c->saved, 2, c->x->shape[0], 1);
        ones(a, &s);
        matmul(a->k, c->y, &s, false, &w, false, adapter_scale(a), 1);
    }
}

static void backward(struct adapter *a, const struct adapter_call *c, int n)
{
    for (; n--; c++) {
        struct tensor w = adapter_view(a, &a->grads, c->module, 0), s = tensor_as(c->saved, 2, c->x->shape[0], 1);
        matmul(a->k, &w, &s, true, c->dy, false, adapter_scale(a), 1);
    }
}

const struct adapter_kind adapter_seventh = {
    .name = "seventh", .declare = declare, .saved_count = saved_count, .forward = forward, .backward = backward};
C
}
ok "a seventh kind is one file and one row" '
    need "${CC:-cc}"
    [ -z "${SAN:-}" ] || { echo "links without sanitizers"; exit 77; }
    seventh >seventh.c
    sed "s/^    ROW(standard)/    ROW(seventh) ROW(standard)/" "$top/filters/learning/adapter.c" >adapter.c
    [ "$(diff "$top/filters/learning/adapter.c" adapter.c | grep -c "^>")" = 1 ]
    msgpack=msgpack-c blas=openblas
    pkg-config --exists $msgpack || msgpack=msgpack
    pkg-config --exists $blas || blas=blas
    flags=$(pkg-config --cflags --libs jansson $msgpack $blas)
    # shellcheck disable=SC2086
    "${CC:-cc}" -std=c11 -O1 -Wall -Wextra -Werror -D_GNU_SOURCE -I"$top" -fopenmp -o seventh-step seventh.c adapter.c \
        "$BUILD/filters/train-step.c.o" "$BUILD/libsluice.a" $flags -lm -lstdc++
    draw --count 60 train | ./seventh-step -m $M --device cpu --objective flow-snr --adapter seventh --lr 2e-2 --warmup 4 --max-steps 60 \
        --val train --eval-every 20 --eval-clips 4 --state seventh >seventh.jsonl 2>/dev/null
    show seventh/last.safetensors | grep "attn1.to_q.shift  *F32 .1,128"
    sed -n "s/.*\"val_loss\":\([^,]*\),.*/\1/p" seventh.jsonl | awk "{ v[n++] = \$1 } END { exit !(v[n - 1] < v[0]) }"'
finish
