/* attention_forward and attention_backward: the choice of a way. */
#include "kernels/cuda/attention.h"

#include <stdio.h>
#include <stdlib.h>

static const struct attention_way *const ways[] = {&attention_hopper, &attention_cudnn, &attention_mma,
                                                   &attention_f32, &attention_products};
enum { LONG_ENOUGH = 1 << 24 }; /* scores, from which on a slow way is felt */
static const char names[] = "hopper, cudnn, mma, f32, products";

/* The first of these that takes a call computes it. Forward on an H200, TFLOP/s: heads of 64 (17,776 rows, 48 heads)
 * hopper 593, cudnn 441, mma 370; of 128 (8192 rows) hopper 712, cudnn 679, mma 361. The tensor cores of compute
 * capability 10 have instructions of their own, too, which cuDNN alone uses; those of 8 and 12 have none but mma.sync.
 * SLUICE_ATTENTION holds another such list, for tests and comparisons: what none of its ways takes is refused. */
static const char *preference(struct kern *k)
{
    const char *given = getenv("SLUICE_ATTENTION");
    if (given && *given) return given;
    switch (cuda_of(k)->capability / 10) {
    case 9: return "hopper,cudnn,mma,f32,products";
    case 10: return "cudnn,mma,f32,products";
    default: return "mma,f32,products";
    }
}

void cuda_attention_ways(struct kern *k, char *text, size_t size)
{
    snprintf(text, size, ", attention %s", preference(k));
}

static const struct attention_way *way_named(const char *name, size_t length)
{
    for (const struct attention_way *w : ways)
        if (strlen(w->name) == length && !memcmp(w->name, name, length)) return w;
    return NULL;
}

/* The first way of the list that takes the call; NULL after a failure. */
template <typename Takes>
static const struct attention_way *choose(struct kern *k, const char *op, const struct tensor *q,
                                          const struct attention_shape *s, Takes takes)
{
    const char *const list = preference(k);
    const struct attention_way *way = NULL;
    for (const char *at = list; *at;) {
        const size_t length = strcspn(at, ",");
        const struct attention_way *w = way_named(at, length);
        if (!w) {
            kern_fail(k, "SLUICE_ATTENTION: \"%.*s\" is no way of attention; there are %s", (int)length, at,
                      names);
            return NULL;
        }
        if (!way && takes(w)) way = w;
        at += length + (at[length] == ',');
    }
    if (!way)
        kern_fail(k, "%s: heads of %d in %s: not by %s on %s", op, s->d, dtype_name(q->dtype), list,
                  k->device);
    else
        kern_took(k, way->name);
    if (way == &attention_f32 && q->dtype == DT_BF16 && s->queries * s->keys * s->heads > LONG_ENOUGH)
        kern_note(k, "%s with heads of %d goes without tensor cores on this card: slow", op, s->d);
    return way;
}

static struct attention_shape shape_of(const struct tensor *q, const struct tensor *kk,
                                       const struct attention *a)
{
    const int64_t batch = a->batch ? a->batch : 1;
    return {
        a->heads, (int)(q->shape[1] / a->heads), batch, q->shape[0] / batch, kk->shape[0] / batch, a->scale,
        a->causal};
}

extern "C" void cuda_attention_forward(struct kern *k, struct tensor *o, struct tensor *lse,
                                       const struct tensor *q, const struct tensor *kk,
                                       const struct tensor *v, const struct tensor *bias,
                                       const struct attention *a)
{
    const struct attention_shape s = shape_of(q, kk, a);
    const struct attention_forward t = {o, lse, q, kk, v, bias};
    if (!s.queries || !s.d) return;
    const struct attention_way *w = choose(k, "attention_forward", q, &s, [&](const struct attention_way *w) {
        return w->takes_forward(k, &s, &t);
    });
    if (w == &attention_mma && strstr(preference(k), "cudnn,mma") && !cuda_cudnn_version(cuda_of(k)))
        kern_note(k, "attention_forward goes without cuDNN, which is not here: slow for this card");
    if (w) w->forward(k, &s, &t);
}

extern "C" void cuda_attention_backward(struct kern *k, struct tensor *dq, struct tensor *dk,
                                        struct tensor *dv, const struct tensor *dout, const struct tensor *o,
                                        const struct tensor *lse, const struct tensor *q,
                                        const struct tensor *kk, const struct tensor *v,
                                        const struct attention *a)
{
    const struct attention_shape s = shape_of(q, kk, a);
    const struct attention_backward t = {dq, dk, dv, dout, o, lse, q, kk, v};
    if (!s.queries && dk && dk->data) /* no query has a gradient to give */
        for (struct tensor *none : {dk, dv})
            cuda_good(k, "attention_backward",
                      cudaMemsetAsync(none->data, 0, tensor_bytes(none), stream_of(k)));
    if (!s.queries || !s.d) return;
    const struct attention_way *w =
        choose(k, "attention_backward", q, &s,
               [&](const struct attention_way *w) { return w->takes_backward(k, &s, &t); });
    if (w) w->backward(k, &s, &t);
}

int attention_side_by_side(struct kern *k, int blocks, int steps)
{
    return (int)ceil_div((int64_t)6 * blocks * cuda_of(k)->processors, steps);
}
