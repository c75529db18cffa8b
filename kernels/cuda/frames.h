/* frames - sums over the tokens of a frame, for the operations between an adapter's projections. */
#ifndef KERNELS_CUDA_FRAMES_H
#define KERNELS_CUDA_FRAMES_H

#include "kernels/cuda/cuda.h"

/* sums[c] = scale Σ z[i,c] over a frame's tokens z [S,r], by a whole block of THREADS; afterwards all of it
 * sees them. */
template <int THREADS, typename E>
__device__ static void frame_sums(float *sums, float scale, const E *z, int64_t S, int r)
{
    __shared__ float shared[THREADS];
    const int tid = (int)threadIdx.x;
    for (int c0 = 0; c0 < r; c0 += THREADS) {
        const int n = min(r - c0, THREADS), rows = THREADS / n, c = tid % n;
        float s = 0;
        if (tid < rows * n)
#pragma unroll 8
            for (int64_t i = tid / n; i < S; i += rows) s += to_float(z[i * r + c0 + c]);
        shared[tid] = s;
        __syncthreads();
        if (tid < n) {
            for (int i = 1; i < rows; i++) s += shared[i * n + c];
            sums[c0 + c] = scale * s;
        }
        __syncthreads();
    }
}

#endif
