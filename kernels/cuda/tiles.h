/* tiles - of bf16 in shared memory, and the operands of mma.sync that are loaded from them.
 *
 * Operands of mma.m16n8k16 (r = lane / 4, c = 2 (lane % 4)): a thread has of A [16,16] rows r and r + 8 at columns
 * c, + 1 and again 8 further; of C [16,8] rows r and r + 8 at columns c, + 1. So the C of two neighbouring
 * products, rounded, is the A of one. */
#ifndef KERNELS_CUDA_TILES_H
#define KERNELS_CUDA_TILES_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/instructions.h"

/* A tile [rows,W] of bf16 in shared memory, in chunks of 16 bytes. Within a row these are permuted by an XOR with
 * the row's number, so that the same chunk of eight rows lies in all 32 banks: ldmatrix has no bank conflicts.
 * The offset in bytes of chunk c of a row; that of chunk c ^ x in the same row is this ^ 16 x. */
template <int W> __device__ static inline unsigned swizzle(int row, int c)
{
    enum { CHUNKS = W / 8 < 8 ? W / 8 : 8, ROWS = 8 / CHUNKS }; /* rows that the banks hold once */
    return (unsigned)(row * W * 2 + ((c ^ (row / ROWS % CHUNKS)) << 4));
}

/* Starts the copy of ROWS rows of W from row `first` of a [end,stride] array; zeros from row `end` on. */
template <int ROWS, int W, int THREADS>
__device__ static inline void load_tile(unsigned tile, const bf16 *rows, int first, int end, int64_t stride)
{
#pragma unroll
    for (int n = 0; n < ROWS * W / 8 / THREADS; n++) {
        const int i = threadIdx.x + n * THREADS, r = i / (W / 8), c = i % (W / 8);
        const bool there = first + r < end;
        cp_async_16(tile + swizzle<W>(r, c), rows + (there ? (int64_t)(first + r) * stride : 0) + c * 8,
                    there);
    }
}

/* Operands at rows `row` and columns `col` (multiples of 16) of a tile:
 * load_a: A [16 rows,16 columns]         load_a_trans: A [16 columns,16 rows]
 * load_b: two B [16 columns,8 rows]      load_b_trans: two B [16 rows,8 columns] */
template <int W> __device__ static inline unsigned place_a(unsigned tile, int row, int col)
{
    const int lane = threadIdx.x % 32;
    return tile + row * W * 2 + (swizzle<W>(lane % 16, lane / 16) ^ col * 2);
}
template <int W> __device__ static inline unsigned place_b(unsigned tile, int row, int col)
{
    const int lane = threadIdx.x % 32;
    return tile + row * W * 2 + (swizzle<W>(lane / 16 * 8 + lane % 8, lane / 8 % 2) ^ col * 2);
}
template <int W> __device__ static inline void load_a(unsigned (&a)[4], unsigned tile, int row, int col)
{
    ldmatrix_x4(a, place_a<W>(tile, row, col));
}
template <int W> __device__ static inline void load_a_trans(unsigned (&a)[4], unsigned tile, int row, int col)
{
    ldmatrix_x4_trans(a, place_b<W>(tile, row, col));
}
template <int W> __device__ static inline void load_b(unsigned (&b)[4], unsigned tile, int row, int col)
{
    ldmatrix_x4(b, place_b<W>(tile, row, col));
}
template <int W> __device__ static inline void load_b_trans(unsigned (&b)[4], unsigned tile, int row, int col)
{
    ldmatrix_x4_trans(b, place_a<W>(tile, row, col));
}

/* c [16,16] += a times two B of 8 columns each */
__device__ static inline void mma_pair(float (&c0)[4], float (&c1)[4], const unsigned (&a)[4],
                                       const unsigned (&b)[4])
{
    mma_m16n8k16(c0, a, b[0], b[1]);
    mma_m16n8k16(c1, a, b[2], b[3]);
}

/* The A operand out of the C of two products side by side, rounded. */
__device__ static inline void pack_a(unsigned (&a)[4], const float (&left)[4], const float (&right)[4])
{
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
}

#endif
