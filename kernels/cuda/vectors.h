/* vectors - vectorized access: the values of T that a thread loads, works on and stores together are 16 bytes
 * (eight bf16, four floats) where shapes and addresses allow, else one. */
#ifndef KERNELS_CUDA_VECTORS_H
#define KERNELS_CUDA_VECTORS_H

#include "kernels/cuda/cuda.h"

template <typename T, int N> struct alignas(N * sizeof(T)) vec {
    T v[N];
};
template <int N, typename T> __device__ static inline vec<T, N> load(const T *p)
{
    return *reinterpret_cast<const vec<T, N> *>(p);
}

template <int N, typename T> __device__ static inline void store(T *p, const vec<T, N> &v)
{
    if (sizeof v == 16) {
        uint4 words;
        memcpy(&words, &v, sizeof words);
        __stwb(reinterpret_cast<uint4 *>(p), words);
    } else {
        *reinterpret_cast<vec<T, N> *>(p) = v;
    }
}

/* p[0..N-1] = u[0..N-1], rounded to p's type, two at a time. Here as above stores are spelled out in words:
 * those of a struct's values the compiler does not put together. */
template <int N> __device__ static inline void store(float *p, const float *u)
{
    if (N % 4)
        for (int i = 0; i < N; i++) p[i] = u[i];
    else
        for (int i = 0; i < N; i += 4)
            *reinterpret_cast<float4 *>(p + i) = make_float4(u[i], u[i + 1], u[i + 2], u[i + 3]);
}
template <int N> __device__ static inline void store(bf16 *p, const float *u)
{
    if constexpr (N == 1) {
        *p = from_float<bf16>(*u);
    } else {
        unsigned w[4];
        static_assert(N == 8);
        for (int i = 0; i < 4; i++)
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(u[2 * i + 1]), "f"(u[2 * i]));
        *reinterpret_cast<uint4 *>(p) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

/* u = the values of v: a bf16 is the upper half of a float. */
template <int N> __device__ static inline void unpack(float *u, const vec<float, N> &v)
{
    for (int i = 0; i < N; i++) u[i] = v.v[i];
}
template <int N> __device__ static inline void unpack(float *u, const vec<bf16, N> &v)
{
    if constexpr (N == 1) {
        *u = to_float(v.v[0]);
    } else {
        unsigned w[N / 2];
        memcpy(w, &v, sizeof w);
        for (int i = 0; i < N / 2; i++) {
            u[2 * i] = __uint_as_float(w[i] << 16);
            u[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
        }
    }
}

/* N values as floats. */
template <int N> __device__ static inline void load_floats(float *to, const bf16 *p)
{
    unpack<N>(to, load<N>(p));
}
template <int N> __device__ static inline void load_floats(float *to, const float *p)
{
    if (N % 4)
        for (int i = 0; i < N; i++) to[i] = p[i];
    else
        for (int i = 0; i < N; i += 4) *(vec<float, 4> *)(to + i) = load<4>(p + i);
}

static inline bool aligned(const void *p, size_t bytes)
{
    return (uintptr_t)p % bytes == 0;
}

/* May rows of `width` values of all these tensors be worked on 16 bytes at a time? Those
 * that are NULL may. */
template <typename... Tensor> static inline bool vectorizable(int64_t width, const Tensor *...t)
{
    return (... && (!t || (aligned(t->data, 16) && width * (int64_t)dtype_size(t->dtype) % 16 == 0)));
}

/* CALL_BY_DTYPES(x->dtype, w->dtype, T, M, ..): what is T's may have parameters that are M's: T's, or floats. */
#define CALL_BY_DTYPES(dtype, other, T, M, ...)                                                              \
    CALL_BY_DTYPE(                                                                                           \
        dtype, T,                                                                                            \
        if ((other) == (dtype)) {                                                                            \
            typedef T M;                                                                                     \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            typedef float M;                                                                                 \
            __VA_ARGS__;                                                                                     \
        })

/* CALL_VECTORIZED(dtype, wide, T, N, kernel<T, N><<<...>>>(...)): N is 1 unless `wide`. */
#define CALL_VECTORIZED(dtype, wide, T, N, ...)                                                              \
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
