/* attention_mma - what both passes of attention on mma.sync share. */
#ifndef KERNELS_CUDA_ATTENTION_MMA_H
#define KERNELS_CUDA_ATTENTION_MMA_H

#include "kernels/cuda/attention.h"
#include "kernels/cuda/tiles.h"

/* attention_mma_backward.cu: the backward pass of the way in attention_mma.cu */
bool attention_mma_takes_backward(struct kern *k, const struct attention_shape *s,
                                  const struct attention_backward *t);
void attention_mma_backward(struct kern *k, const struct attention_shape *s,
                            const struct attention_backward *t);

#endif
