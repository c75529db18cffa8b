/* attention - the ways of attention on a CUDA device; attention.cu chooses among them. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

static const float LOG2E = 1.44269504f; /* 1 / LOG_2 */

/* The shapes and scalars of attention_forward in kernels.h. */
struct attention_shape {
    int heads, d;
    int64_t batch, queries, keys; /* rows of one sequence */
    float scale;
    bool causal;
};

/* The operands of attention_forward and attention_backward in kernels.h; NULL where one is left out. */
struct attention_forward {
    struct tensor *o, *lse;
    const struct tensor *q, *k, *v, *bias;
};
struct attention_backward {
    struct tensor *dq, *dk, *dv;
    const struct tensor *dout, *o, *lse, *q, *k, *v;
};

/* A way to compute both. Whether it takes a call depends on the card, dtype, shape and alignment alone, and
 * not on what is in memory or what was faster before: the same call goes the same way, always. Each way adds
 * up in one order, so its results are the same bytes every time. */
struct attention_way {
    const char *name;
    bool (*takes_forward)(struct kern *k, const struct attention_shape *s, const struct attention_forward *t);
    void (*forward)(struct kern *k, const struct attention_shape *s, const struct attention_forward *t);
    bool (*takes_backward)(struct kern *k, const struct attention_shape *s,
                           const struct attention_backward *t);
    void (*backward)(struct kern *k, const struct attention_shape *s, const struct attention_backward *t);
};

extern const struct attention_way attention_hopper, /* wgmma and TMA, BF16, heads of 64 and 128 */
    attention_mma,                                  /* mma.sync, BF16, heads of 64 and 128 */
    attention_cudnn,                                /* cuDNN, BF16, heads of 64 to 128; forward alone */
    attention_f32,                                  /* any dtype, heads to 256, without tensor cores */
    attention_products; /* one head of any width, as products; forward alone, no mask, no bias */

/* BF16 whose rows of whole heads begin at multiples of 16 bytes; a NULL tensor is. */
static inline bool attention_aligned(const struct tensor *t)
{
    return !t || (t->dtype == DT_BF16 && (uintptr_t)t->data % 16 == 0);
}

/* Where blocks add to dq in the order of their keys, each is a few steps behind the one before it, so a head alone
 * cannot keep a device busy whose blocks finish faster than that. Blocks begin with the first keys of some heads
 * side by side, then with the second of each, ..: the head and the block of keys of the item-th block to begin.
 * The order of the sums does not depend on it. */
__device__ static inline int attention_head(int item, int blocks, int heads, int side_by_side, int *block)
{
    const int first = item / (side_by_side * blocks) * side_by_side, count = min(side_by_side, heads - first),
              i = item - first * blocks;
    *block = i / count;
    return first + i % count;
}

/* So many heads that a block may be six steps behind, where so many blocks of so many steps share a
 * multiprocessor. */
int attention_side_by_side(struct kern *k, int blocks, int steps);

#endif
