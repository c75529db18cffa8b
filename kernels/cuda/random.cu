/* Made-up weights. This file alone is compiled with -fmad=false, so that the arithmetic of philox.h is
 * rounded as everywhere else. One H200 fills the 5B model's 5.6e9 values, 11 GB in 1,024 tensors, in 39 ms,
 * allocations included; sixteen cores took 22 s (2026-11-22). */
#include "kernels/cuda/vectors.h"
#include "kernels/philox.h"

/* A value is held by BF16, so by T. */
template <typename T> __device__ static inline T weight(const struct random_normal &r, float z)
{
    return from_float<T>(to_float(__float2bfloat16_rn((float)(r.mean + r.std * z))));
}

/* N values a thread, a multiple of 2; `first` is even */
template <typename T, int N> __global__ static void fill_vectors(T *y, struct random_normal r, int64_t n)
{
    const int64_t from = N * (blockIdx.x * (int64_t)blockDim.x + threadIdx.x);
    if (from >= n) return;
    vec<T, N> out;
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        float z[2];
        philox_normals(z, r.key[0], r.key[1], r.stream, (r.first + from + i) / 2);
        out.v[i] = weight<T>(r, z[0]);
        out.v[i + 1] = weight<T>(r, z[1]);
    }
    store<N>(y + from, out);
}

/* A block of philox a thread, to wherever its two values lie: number i of [out,in,taps] in [out,taps,in] */
template <typename T>
__global__ static void fill(T *y, struct random_normal r, int64_t n, int64_t in, int64_t taps)
{
    const int64_t block = r.first / 2 + blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    float z[2];
    philox_normals(z, r.key[0], r.key[1], r.stream, block);
    for (int half = 0; half < 2; half++) {
        const int64_t i = 2 * block + half - (int64_t)r.first;
        if (i < 0 || i >= n) continue;
        const int64_t row = i / (in * taps) * in * taps, within = i - row;
        y[row + within % taps * in + within / taps] = weight<T>(r, z[half]);
    }
}

void cuda_random_normal(struct kern *k, struct tensor *y, const struct random_normal *r)
{
    const int64_t n = tensor_count(y);
    if (!n) return;
    const int64_t in = r->channels_last ? y->shape[y->rank - 1] : 1,
                  taps = r->channels_last ? n / y->shape[0] / in : 1;
    if (taps == 1 && r->first % 2 == 0 && vectorizable(n, y))
        CALL_VECTORIZED(y->dtype, true, T, N,
                        fill_vectors<T, N>
                        <<<(unsigned)ceil_div(n / N, 256), 256, 0, stream_of(k)>>>((T *)y->data, *r, n));
    else
        CALL_BY_DTYPE(y->dtype, T,
                      fill<T><<<(unsigned)ceil_div(n / 2 + 1, 256), 256, 0, stream_of(k)>>>((T *)y->data, *r,
                                                                                            n, in, taps));
    CUDA_LAUNCHED(k);
}
