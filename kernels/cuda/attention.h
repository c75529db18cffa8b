/* attention - the ways of attention on this device; attention.cu chooses among them. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

/* The shapes and scalars of attention_forward in kernels.h. */
struct attention_shape {
    int heads, d;
    int64_t batch, queries, keys; /* rows of one sequence */
    float scale;
    bool causal;
};

static inline struct attention_shape attention_shape(const struct tensor *q, const struct tensor *kk,
                                                     const struct attention *a)
{
    const int64_t batch = a->batch ? a->batch : 1;
    return {
        a->heads, (int)(q->shape[1] / a->heads), batch, q->shape[0] / batch, kk->shape[0] / batch, a->scale,
        a->causal};
}

/* mma.sync, BF16, heads of 64 or 128, rows that begin at 16 bytes: anything else that
 * attention_forward has. */
void attention_forward_mma(struct kern *k, struct tensor *o, struct tensor *lse, const struct tensor *q,
                           const struct tensor *kk, const struct tensor *v, const struct tensor *bias,
                           const struct attention_shape *s);

/* Hopper's own instructions, BF16, heads of 64, rows that begin at 16 bytes, a positive scale; without bias,
 * not causal. */
bool attention_has_hopper(struct kern *k);
void attention_forward_hopper(struct kern *k, struct tensor *o, struct tensor *lse, const struct tensor *q,
                              const struct tensor *kk, const struct tensor *v,
                              const struct attention_shape *s);
void attention_backward_hopper(struct kern *k, struct tensor *dq, struct tensor *dk, struct tensor *dv,
                               const struct tensor *dout, const struct tensor *o, const struct tensor *lse,
                               const struct tensor *q, const struct tensor *kk, const struct tensor *v,
                               int heads, float scale);

#endif
