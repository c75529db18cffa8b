/* map - y = f(a, b), element by element. Bound by memory: a thread asks for all that it works on before it
 * uses any of it. Inputs may be the output. */
#ifndef KERNELS_CUDA_MAP_H
#define KERNELS_CUDA_MAP_H

#include "kernels/cuda/vectors.h"

enum { MAP_THREADS = 256, MAP_AHEAD = 4 };

/* y[i] = f(a[i], b[i]) for n vectors, and `rest` more values; b is read when TWO. Three blocks
 * a multiprocessor leave 80 registers a thread; without a number ptxas keeps one kernel to 40, and spills. */
template <typename T, int N, bool TWO, typename F>
__global__ static void __launch_bounds__(MAP_THREADS, 3)
    map(T *y, const T *a, const T *b, int64_t n, int rest, F f)
{
    const int64_t first = (int64_t)blockIdx.x * (MAP_THREADS * MAP_AHEAD) + threadIdx.x;
    vec<T, N> x[MAP_AHEAD], z[MAP_AHEAD];
#pragma unroll
    for (int i = 0; i < MAP_AHEAD; i++) {
        const int64_t at = first + i * MAP_THREADS;
        if (at >= n) break;
        x[i] = load<N>(a + at * N);
        if (TWO) z[i] = load<N>(b + at * N);
    }
#pragma unroll
    for (int i = 0; i < MAP_AHEAD; i++) {
        const int64_t at = first + i * MAP_THREADS;
        if (at >= n) break;
        float u[N];
        for (int j = 0; j < N; j++) u[j] = f(to_float(x[i].v[j]), TWO ? to_float(z[i].v[j]) : 0);
        store<N>(y + at * N, u);
    }
    if (blockIdx.x == 0 && threadIdx.x < rest) {
        const int64_t at = n * N + threadIdx.x;
        y[at] = from_float<T>(f(to_float(a[at]), TWO ? to_float(b[at]) : 0));
    }
}

template <typename T, bool TWO, typename F>
static bool map_as(struct kern *k, const char *what, struct tensor *y, const struct tensor *a,
                   const struct tensor *b, F f)
{
    const int64_t count = tensor_count(y), vectors = count / pack<T>::N;
    const T *from = (const T *)a->data, *other = TWO ? (const T *)b->data : NULL;
    if (count == 0) return true;
    if (vectors && aligned(y->data, 16) && aligned(from, 16) && aligned(other, 16))
        map<T, pack<T>::N, TWO>
            <<<(unsigned)ceil_div(vectors, MAP_THREADS * MAP_AHEAD), MAP_THREADS, 0, stream_of(k)>>>(
                (T *)y->data, from, other, vectors, (int)(count % pack<T>::N), f);
    else
        map<T, 1, TWO><<<(unsigned)ceil_div(count, MAP_THREADS * MAP_AHEAD), MAP_THREADS, 0, stream_of(k)>>>(
            (T *)y->data, from, other, count, 0, f);
    return cuda_good(k, what, cudaGetLastError());
}

template <bool TWO, typename F>
static bool map_all(struct kern *k, const char *what, struct tensor *y, const struct tensor *a,
                    const struct tensor *b, F f)
{
    CALL_BY_DTYPE(y->dtype, T, return map_as<T, TWO>(k, what, y, a, b, f));
}

#endif
