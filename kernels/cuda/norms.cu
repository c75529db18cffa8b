/* Norms over rows. A row is read once and kept in the registers of a warp; statistics are F32, the variance
 * about the mean. Rows that do not fit, or have no 16 bytes' alignment, go through a block, which reads them from cache
 * again. */
#include "kernels/cuda/vectors.h"

enum { ROWS = 4, BLOCK = 256 }; /* warps of a block, and threads of one that has a single row */

struct
    affine { /* (x̂ w + b) (1 + scale) + shift; those that are not there are NULL, the others of one dtype */
    const void *w, *b, *scale, *shift;
};

static const void *data_of(const struct tensor *t)
{
    return t ? t->data : NULL;
}

/* Of what stands in an affine; x's where nothing does. */
static enum dtype dtype_of(const struct tensor *x, const struct tensor *w, const struct tensor *scale)
{
    return w ? w->dtype : scale ? scale->dtype : x->dtype;
}

struct moments { /* the mean, 0 unless CENTRED, and 1/√(variance about it + eps) */
    float mean, rstd;
};

/* ---- a warp for a row ---------------------------------------------------------------------------------- */

template <typename M, int N> __device__ static void values(float *u, const void *p, int64_t col)
{
    load_floats<N>(u, (const M *)p + col);
}

/* Of N parameters as many as 16 bytes hold are in registers at once. */
template <typename M, int N> struct some {
    enum { H = N < pack<M>::N ? N : (int)pack<M>::N };
};

/* What affine makes of N normalised values at column `col`; without a mean it is a weight alone. */
template <typename M, int N, bool CENTRED>
__device__ static void transform(float *u, const struct affine &p, int64_t col)
{
    enum { H = some<M, N>::H };
    float a[H], b[H];
    for (int h = 0; h < N; h += H) {
        if (!CENTRED || p.w) values<M, H>(a, p.w, col + h);
        if (CENTRED && p.w) values<M, H>(b, p.b, col + h);
        if (!CENTRED || p.w)
            for (int j = 0; j < H; j++) u[h + j] = CENTRED ? u[h + j] * a[j] + b[j] : u[h + j] * a[j];
        if (!CENTRED || !p.scale) continue;
        values<M, H>(a, p.scale, col + h);
        values<M, H>(b, p.shift, col + h);
        for (int j = 0; j < H; j++) u[h + j] = u[h + j] * (1 + a[j]) + b[j];
    }
}

/* The same for the gradient that reaches the normalised values: dy w (1 + scale). Each product is rounded,
 * never part of a fused sum: its mean is taken away from it, and of equal values nothing must be left. */
template <typename M, typename T, int N>
__device__ static void transform_gradient(float *g, const vec<T, N> &dy, const struct affine &p, int64_t col)
{
    enum { H = some<M, N>::H };
    float a[H];
    unpack<N>(g, dy);
    for (int h = 0; h < N; h += H) {
        if (p.w) {
            values<M, H>(a, p.w, col + h);
            for (int j = 0; j < H; j++) g[h + j] = __fmul_rn(g[h + j], a[j]);
        }
        if (!p.scale) continue;
        values<M, H>(a, p.scale, col + h);
        for (int j = 0; j < H; j++) g[h + j] = __fmul_rn(g[h + j], 1 + a[j]);
    }
}

template <typename T, typename M, int RUNS, bool CENTRED>
__global__ static void __launch_bounds__(32 * ROWS)
    norm_rows(T *y, const T *x, struct affine p, int64_t rows, int64_t width, float eps)
{
    enum { N = pack<T>::N };
    const int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    vec<T, N> v[RUNS];
    float u[RUNS][N], mean = 0, square = 0;
    if (row >= rows) return;
#pragma unroll
    for (int i = 0; i < RUNS; i++)
        if ((i * 32 + lane) * N < width) v[i] = load<N>(x + row * width + (i * 32 + lane) * N);
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        if ((i * 32 + lane) * N >= width) break;
        unpack<N>(u[i], v[i]);
        for (int j = 0; j < N && CENTRED; j++) mean += u[i][j];
    }
    if (CENTRED) mean = warp_sum(mean) / (float)width;
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        if ((i * 32 + lane) * N >= width) break;
        for (int j = 0; j < N; j++) square += (u[i][j] - mean) * (u[i][j] - mean);
    }
    const float rstd = 1 / sqrtf(warp_sum(square) / (float)width + eps);
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        const int64_t col = (i * 32 + lane) * N;
        if (col >= width) break;
        for (int j = 0; j < N; j++) u[i][j] = (u[i][j] - mean) * rstd;
        transform<M, N, CENTRED>(u[i], p, col);
        store<N>(y + row * width + col, u[i]);
    }
}

/* dx = rstd (g - mean(g) - x̂ mean(g x̂)). All sums but the mean's are taken in one go. */
template <typename T, typename M, int RUNS>
__global__ static void __launch_bounds__(32 * ROWS)
    norm_rows_back(T *dx, const T *dy, const T *x, struct affine p, int64_t rows, int64_t width, float eps,
                   bool add)
{
    enum { N = pack<T>::N };
    const int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    vec<T, N> v[RUNS], d[RUNS];
    float u[N], g[RUNS][N], mean = 0, square = 0, sum = 0, dot = 0;
    if (row >= rows) return;
#pragma unroll
    for (int i = 0; i < RUNS; i++)
        if ((i * 32 + lane) * N < width) {
            v[i] = load<N>(x + row * width + (i * 32 + lane) * N);
            d[i] = load<N>(dy + row * width + (i * 32 + lane) * N);
        }
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        if ((i * 32 + lane) * N >= width) break;
        unpack<N>(u, v[i]);
        for (int j = 0; j < N; j++) mean += u[j];
    }
    mean = warp_sum(mean) / (float)width;
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        const int64_t col = (i * 32 + lane) * N;
        if (col >= width) break;
        unpack<N>(u, v[i]);
        transform_gradient<M, T, N>(g[i], d[i], p, col);
        for (int j = 0; j < N; j++) {
            u[j] -= mean;
            square += u[j] * u[j];
            sum += g[i][j];
            dot += g[i][j] * u[j];
        }
    }
    const float rstd = 1 / sqrtf(warp_sum(square) / (float)width + eps);
    sum = warp_sum(sum) / (float)width;
    dot = warp_sum(dot) * rstd / (float)width * rstd; /* times u is x̂ mean(g x̂) */
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        const int64_t col = (i * 32 + lane) * N;
        if (col >= width) break;
        float old[N];
        unpack<N>(u, v[i]);
        for (int j = 0; j < N; j++) g[i][j] = rstd * (g[i][j] - sum - (u[j] - mean) * dot);
        if (add) {
            unpack<N>(old, load<N>(dx + row * width + col));
            for (int j = 0; j < N; j++) g[i][j] += old[j];
        }
        store<N>(dx + row * width + col, g[i]);
    }
}

/* ---- a block for a row, of any width; a thread takes N values at once ---------------------------------- */

template <bool CENTRED, int N, typename T>
__device__ static struct moments block_moments(const T *x, int64_t width, float eps, float *shared)
{
    float u[N], sum = 0, square = 0;
    for (int64_t i = threadIdx.x * N; i < width && CENTRED; i += BLOCK * N) {
        values<T, N>(u, x, i);
        for (int j = 0; j < N; j++) sum += u[j];
    }
    if (CENTRED) sum = block_sum(sum, shared) / (float)width;
    for (int64_t i = threadIdx.x * N; i < width; i += BLOCK * N) {
        values<T, N>(u, x, i);
        for (int j = 0; j < N; j++) square += (u[j] - sum) * (u[j] - sum);
    }
    return moments{sum, 1 / sqrtf(block_sum(square, shared) / (float)width + eps)};
}

template <typename T, typename M, int N, bool CENTRED>
__global__ static void norm_row(T *y, const T *x, struct affine p, int64_t width, float eps)
{
    __shared__ float shared[32];
    const int64_t at = (int64_t)blockIdx.x * width;
    const struct moments s = block_moments<CENTRED, N>(x + at, width, eps, shared);
    float u[N];
    for (int64_t i = threadIdx.x * N; i < width; i += BLOCK * N) {
        values<T, N>(u, x, at + i);
        for (int j = 0; j < N; j++) u[j] = (u[j] - s.mean) * s.rstd;
        transform<M, N, CENTRED>(u, p, i);
        store<N>(y + at + i, u);
    }
}

template <typename T, typename M, int N>
__global__ static void norm_row_back(T *dx, const T *dy, const T *x, struct affine p, int64_t width,
                                     float eps, bool add)
{
    __shared__ float shared[32];
    const int64_t at = (int64_t)blockIdx.x * width;
    const struct moments s = block_moments<true, N>(x + at, width, eps, shared);
    float u[N], g[N], old[N], sum = 0, dot = 0;
    for (int64_t i = threadIdx.x * N; i < width; i += BLOCK * N) {
        values<T, N>(u, x, at + i);
        transform_gradient<M, T, N>(g, load<N>(dy + at + i), p, i);
        for (int j = 0; j < N; j++) sum += g[j], dot += g[j] * ((u[j] - s.mean) * s.rstd);
    }
    sum = block_sum(sum, shared) / (float)width, dot = block_sum(dot, shared) / (float)width;
    for (int64_t i = threadIdx.x * N; i < width; i += BLOCK * N) {
        values<T, N>(u, x, at + i);
        transform_gradient<M, T, N>(g, load<N>(dy + at + i), p, i);
        for (int j = 0; j < N; j++) g[j] = s.rstd * (g[j] - sum - (u[j] - s.mean) * s.rstd * dot);
        if (add) {
            values<T, N>(old, dx, at + i);
            for (int j = 0; j < N; j++) g[j] += old[j];
        }
        store<N>(dx + at + i, g);
    }
}

/* CALL_FOR_WIDTH(wide, vectors, R, fast<R>, slow): a row is `vectors` vectors for each lane of a warp; slow where they
 * are too many for its registers. */
#define CALL_FOR_WIDTH(wide, vectors, R, fast, slow)                                                         \
    do {                                                                                                     \
        if ((wide) && (vectors) <= 1) {                                                                      \
            enum { R = 1 };                                                                                  \
            fast;                                                                                            \
        } else if ((wide) && (vectors) <= 4) {                                                               \
            enum { R = 4 };                                                                                  \
            fast;                                                                                            \
        } else if ((wide) && (vectors) <= 8) {                                                               \
            enum { R = 8 };                                                                                  \
            fast;                                                                                            \
        } else if ((wide) && (vectors) <= 12) {                                                              \
            enum { R = 12 };                                                                                 \
            fast;                                                                                            \
        } else if ((wide) && (vectors) <= 16) {                                                              \
            enum { R = 16 };                                                                                 \
            fast;                                                                                            \
        } else {                                                                                             \
            slow;                                                                                            \
        }                                                                                                    \
    } while (0)

template <bool CENTRED>
static void norm_forward(struct kern *k, const char *what, struct tensor *y, const struct tensor *x,
                         const struct affine *p, enum dtype of_p, bool wide, float eps)
{
    const int64_t rows = x->shape[0], width = x->shape[1];
    if (rows == 0 || width == 0) return;
    CALL_BY_DTYPES(x->dtype, of_p, T, M,
                   const auto block = wide ? norm_row<T, M, pack<T>::N, CENTRED> : norm_row<T, M, 1, CENTRED>;
                   CALL_FOR_WIDTH(wide, ceil_div(width, 32 * pack<T>::N), R,
                                  (norm_rows<T, M, R, CENTRED>
                                   <<<(unsigned)ceil_div(rows, ROWS), 32 * ROWS, 0, stream_of(k)>>>(
                                       (T *)y->data, (const T *)x->data, *p, rows, width, eps)),
                                  (block<<<(unsigned)rows, BLOCK, 0, stream_of(k)>>>(
                                      (T *)y->data, (const T *)x->data, *p, width, eps))));
    cuda_good(k, what, cudaGetLastError());
}

extern "C" void cuda_layer_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                        const struct tensor *w, const struct tensor *b,
                                        const struct tensor *scale, const struct tensor *shift, float eps)
{
    const struct affine p = {data_of(w), data_of(b), data_of(scale), data_of(shift)};
    const int64_t n = x->shape[1];
    norm_forward<true>(k, "layer_norm_forward", y, x, &p, dtype_of(x, w, scale),
                       vectorizable(n, y, x, w, b, scale, shift), eps);
}

extern "C" void cuda_rms_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                      const struct tensor *w, float eps)
{
    const struct affine p = {w->data, NULL, NULL, NULL};
    const int64_t n = x->shape[1];
    norm_forward<false>(k, "rms_norm_forward", y, x, &p, w->dtype, vectorizable(n, y, x, w), eps);
}

extern "C" void cuda_layer_norm_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                                         const struct tensor *x, const struct tensor *w,
                                         const struct tensor *scale, float eps, bool add)
{
    const struct affine p = {data_of(w), NULL, data_of(scale), NULL};
    const int64_t rows = x->shape[0], width = x->shape[1];
    const bool wide = vectorizable(width, dx, dy, x, w, scale);
    if (rows == 0 || width == 0) return;
    CALL_BY_DTYPES(
        x->dtype, dtype_of(x, w, scale), T, M,
        const auto block = wide ? norm_row_back<T, M, pack<T>::N> : norm_row_back<T, M, 1>;
        CALL_FOR_WIDTH(
            wide, ceil_div(width, 32 * pack<T>::N), R,
            (norm_rows_back<T, M, R><<<(unsigned)ceil_div(rows, ROWS), 32 * ROWS, 0, stream_of(k)>>>(
                (T *)dx->data, (const T *)dy->data, (const T *)x->data, p, rows, width, eps, add)),
            (block<<<(unsigned)rows, BLOCK, 0, stream_of(k)>>>((T *)dx->data, (const T *)dy->data,
                                                               (const T *)x->data, p, width, eps, add))));
    cuda_good(k, "layer_norm_backward", cudaGetLastError());
}
