/* runs - values of T that a thread loads, works on and stores together: 16 bytes where shapes and addresses
 * allow, else one by one. */
#ifndef KERNELS_CUDA_RUNS_H
#define KERNELS_CUDA_RUNS_H

#include "kernels/cuda/cuda.h"

template <typename T, int N> struct alignas(N * sizeof(T)) run {
    T v[N];
};
template <int N, typename T> __device__ static inline run<T, N> load(const T *p)
{
    return *reinterpret_cast<const run<T, N> *>(p);
}
template <int N, typename T> __device__ static inline void store(T *p, const run<T, N> &v)
{
    *reinterpret_cast<run<T, N> *>(p) = v;
}
/* N floats, 16 bytes at a time. */
template <int N> __device__ static inline void load_floats(float *to, const float *p)
{
    if (N % 4)
        for (int i = 0; i < N; i++) to[i] = p[i];
    else
        for (int i = 0; i < N; i += 4) *(run<float, 4> *)(to + i) = load<4>(p + i);
}

static inline bool aligned(const void *p, size_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}

/* May rows of `width` values of all these tensors be worked on 16 bytes at a time? Those that are NULL may.
 */
template <typename... Tensor> static inline bool in_runs(int64_t width, const Tensor *...t)
{
    return (... && (!t || (aligned(t->data, 16) && width * (int64_t)dtype_size(t->dtype) % 16 == 0)));
}

/* CALL_IN_RUNS(dtype, wide, T, N, kernel<T, N><<<...>>>(...)): N is 1 unless `wide`. */
#define CALL_IN_RUNS(dtype, wide, T, N, ...)                                                                 \
    CALL_BY_DTYPE(                                                                                           \
        dtype, T,                                                                                            \
        if (wide) {                                                                                          \
            enum { N = pack<T>::N };                                                                         \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            enum { N = 1 };                                                                                  \
            __VA_ARGS__;                                                                                     \
        })

#endif
