/* Rows as codes of FP8 with a scale each. A block has a row, which it reads once and keeps in its registers; a row that
 * does not fit, or has no 16 bytes' alignment, is read a second time, from cache. */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/vectors.h"

#include <cuda_fp8.h>

/* A narrow row has so many threads, of which each keeps so many vectors at most; so does a wide one. */
enum { FEW = 128, FEW_RUNS = 4, MANY = 256, MANY_RUNS = 8 };

/* The largest of what the threads of a block have; every thread gets it. */
__device__ static float block_most(float x)
{
    __shared__ float of_warp[MANY / 32];
    for (int n = 16; n; n /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, n));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    for (int i = 0; i < blockDim.x / 32; i++) x = fmaxf(x, of_warp[i]);
    return x;
}

/* What values are multiplied by; and the row's scale is written. A product has no sum that it could be fused with. */
__device__ static float begin(float *scale, float most)
{
    most = block_most(most);
    if (threadIdx.x == 0) scale[blockIdx.x] = most / 448.f;
    return 448.f / most;
}

__device__ static unsigned two_codes(float a, float b)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

/* to[0..N-1]: N is 4 or 8 */
template <int N> __device__ static void store_codes(uint8_t *to, const float *u, float by)
{
    unsigned w[N / 4];
#pragma unroll
    for (int i = 0; i < N / 4; i++)
        w[i] = two_codes(u[4 * i] * by, u[4 * i + 1] * by) | two_codes(u[4 * i + 2] * by, u[4 * i + 3] * by)
                                                                 << 16;
    if constexpr (N == 8)
        *reinterpret_cast<uint2 *>(to) = make_uint2(w[0], w[1]);
    else
        *reinterpret_cast<unsigned *>(to) = w[0];
}

/* What is put in FP8: x, or gelu(x) as it would be stored. */
template <typename T, bool GELU> __device__ static T value_of(T x)
{
    return GELU ? from_float<T>(gelu(to_float(x))) : x;
}

/* v = u, rounded to v's type; in words, as unpack() has it. */
template <int N> __device__ static void round_to(vec<float, N> &v, const float *u)
{
    for (int i = 0; i < N; i++) v.v[i] = u[i];
}
template <int N> __device__ static void round_to(vec<bf16, N> &v, const float *u)
{
    unsigned w[N / 2];
    for (int i = 0; i < N / 2; i++)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(u[2 * i + 1]), "f"(u[2 * i]));
    memcpy(&v, w, sizeof v);
}

template <typename T, bool GELU, int THREADS, int RUNS>
__global__ static void __launch_bounds__(THREADS)
    rows_at_once(uint8_t *codes, float *scale, const T *x, int64_t width)
{
    enum { N = pack<T>::N };
    const int64_t row = blockIdx.x * width;
    vec<T, N> v[RUNS];
    float u[N], most = 0x1p-100f;
#pragma unroll
    for (int i = 0; i < RUNS; i++)
        if ((i * THREADS + threadIdx.x) * N < width)
            v[i] = load<N>(x + row + (i * THREADS + threadIdx.x) * N);
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        if ((i * THREADS + threadIdx.x) * N >= width) break;
        if (GELU) {
            unpack<N>(u, v[i]);
            for (int j = 0; j < N; j++) u[j] = gelu(u[j]);
            round_to<N>(v[i], u);
        }
        unpack<N>(u, v[i]);
        for (int j = 0; j < N; j++) most = fmaxf(most, fabsf(u[j]));
    }
    const float by = begin(scale, most);
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        const int64_t col = (i * THREADS + threadIdx.x) * N;
        if (col >= width) break;
        unpack<N>(u, v[i]);
        store_codes<N>(codes + row + col, u, by);
    }
}

template <typename T, bool GELU>
__global__ static void __launch_bounds__(MANY)
    rows_twice(uint8_t *codes, float *scale, const T *x, int64_t width)
{
    const int64_t row = blockIdx.x * width;
    float most = 0x1p-100f;
    for (int64_t i = threadIdx.x; i < width; i += MANY)
        most = fmaxf(most, fabsf(to_float(value_of<T, GELU>(x[row + i]))));
    const float by = begin(scale, most);
    for (int64_t i = threadIdx.x; i < width; i += MANY)
        codes[row + i] = (uint8_t)two_codes(to_float(value_of<T, GELU>(x[row + i])) * by, 0);
}

template <typename T, bool GELU>
static void rows_of(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x)
{
    enum { N = pack<T>::N };
    const int64_t width = x->shape[1];
    const bool vectors = width % N == 0 && aligned(x->data, 16) && aligned(codes->data, 8),
               few = vectors && width <= FEW * FEW_RUNS * N, many = vectors && width <= MANY * MANY_RUNS * N;
    auto f = few    ? rows_at_once<T, GELU, FEW, FEW_RUNS>
             : many ? rows_at_once<T, GELU, MANY, MANY_RUNS>
                    : rows_twice<T, GELU>;
    f<<<(unsigned)x->shape[0], few ? FEW : MANY, 0, stream_of(k)>>>(
        (uint8_t *)codes->data, (float *)scale->data, (const T *)x->data, width);
}

extern "C" void cuda_fp8_rows(struct kern *k, struct tensor *codes, struct tensor *scale,
                              const struct tensor *x)
{
    if (x->shape[0] == 0) return;
    CALL_BY_DTYPE(x->dtype, T, rows_of<T, false>(k, codes, scale, x));
    CUDA_LAUNCHED(k);
}

extern "C" void cuda_fp8_gelu_rows(struct kern *k, struct tensor *codes, struct tensor *scale,
                                   const struct tensor *x)
{
    if (k->planning || x->shape[0] == 0) return;
    CALL_BY_DTYPE(x->dtype, T, rows_of<T, true>(k, codes, scale, x));
    CUDA_LAUNCHED(k);
}
