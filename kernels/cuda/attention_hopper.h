/* attention_hopper - what both passes of attention on Hopper's own instructions share.
 *
 * A tile [rows,64] of bf16 in shared memory has rows of 128 bytes, as wgmma and TMA take them (instructions.h). Of
 * heads of 128 there are two such tiles, one after the other: channels 0 to 63, then 64 to 127. */
#ifndef KERNELS_CUDA_ATTENTION_HOPPER_H
#define KERNELS_CUDA_ATTENTION_HOPPER_H

#include "kernels/cuda/attention.h"
#include "kernels/cuda/instructions.h"

enum {
    WARPGROUP = 128,
    WIDTH = 64,                      /* channels of a tile */
    ROW = WIDTH * (int)sizeof(bf16), /* bytes of its rows */
    ALIGN = 1024,                    /* of tiles in shared memory */
};

/* The dynamic shared memory, from the first address on that tiles may have. */
template <typename S> __device__ static S &aligned(unsigned char *p)
{
    return *(S *)(p + (ALIGN - shared_address(p) % ALIGN) % ALIGN);
}

/* This thread's warpgroup, in a way that tells the compiler that a warp's threads are of one: what depends on it alone,
 * such as wgmma's descriptors, then stays in uniform registers. */
__device__ static inline int warpgroup_of()
{
    return __shfl_sync(0xffffffff, threadIdx.x / WARPGROUP, 0);
}

#if defined(HOPPER) || !defined(__CUDA_ARCH__)
/* ROWS rows of head h from row `first` of sequence b on, in D / 64 tiles */
template <int D, int ROWS>
__device__ static void load_rows(unsigned char *to, const CUtensorMap &map, uint64_t *full, int h, int first,
                                 int b)
{
#pragma unroll
    for (int c = 0; c < D / WIDTH; c++)
        tma_load(to + c * ROWS * ROW, &map, full, h * D + c * WIDTH, first, b);
}

/* How far the operand of channels 16 c on lies from that of the first ones, where rows are channels long and a
 * tile has ROWS of them. */
template <int ROWS> __host__ __device__ static constexpr int channels_at(int c)
{
    return c / 4 * ROWS * ROW + c % 4 * 32;
}
#endif

/* attention_hopper_backward.cu */
bool attention_hopper_takes_backward(struct kern *k, const struct attention_shape *s,
                                     const struct attention_backward *t);
void attention_hopper_backward(struct kern *k, const struct attention_shape *s,
                               const struct attention_backward *t);

/* attention_hopper.cu: a Hopper card, and code for it, since from PTX of less than 9.0a the kernels have no body. */
bool attention_is_hopper(struct kern *k);

/* [batch*rows,heads*d] as boxes of `box` rows of 64 channels: coordinates channel, row, sequence. False after a
 * failure. */
bool attention_describe(struct kern *k, CUtensorMap *map, const struct tensor *t, int64_t batch, int box);

#endif
