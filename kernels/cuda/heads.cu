/* What is done head by head: the norms of queries and keys with their rotation, and rotation alone. */
#include "kernels/cuda/vectors.h"

enum { ROWS = 4 }; /* warps of a block */

/* Σ over LANES neighbouring lanes. */
template <int LANES> __device__ static float lanes_sum(float x)
{
    for (int n = LANES / 2; n; n /= 2) x += __shfl_xor_sync(0xffffffff, x, n);
    return x;
}

/* The gradient of qk_norm_rope's rotation is its transpose. */
template <bool BACK>
__device__ static void rotate(float &even, float &odd, const float cos[2], const float sin[2])
{
    const float e = even, o = odd;
    even = BACK ? e * cos[0] + o * sin[1] : e * cos[0] - o * sin[0];
    odd = BACK ? o * cos[1] - e * sin[0] : o * cos[1] + e * sin[1];
}

/* A warp has a row: LANES lanes, of N values each, for a head. Where a lane stands within its head is the
 * same in every head, so the tables and weights for it are read once. For the backward pass y is dx. */
template <typename T, int LANES, bool BACK>
__global__ static void __launch_bounds__(32 * ROWS)
    norm_rope(T *y, const T *dy, const T *x, const T *__restrict__ w, const T *__restrict__ b,
              const float *__restrict__ cos, const float *__restrict__ sin, int64_t rows, int64_t width,
              int64_t first, float eps, float times)
{
    enum { N = pack<T>::N, D = LANES * N, AHEAD = 4 };
    const int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.x / 32;
    const int at = threadIdx.x % LANES * N;
    if (row >= rows) return;
    float c[N], s[N], weight[N], bias[N];
    const bool turned = cos && row >= first;
    if (turned) {
        load_floats<N>(c, cos + (row - first) * D + at);
        load_floats<N>(s, sin + (row - first) * D + at);
    }
    vec<T, N> v = load<N>(w + at);
    for (int j = 0; j < N; j++) weight[j] = to_float(v.v[j]) * times;
    if (!BACK) v = load<N>(b + at);
    for (int j = 0; j < N; j++) bias[j] = BACK ? 0 : to_float(v.v[j]) * times;
    /* All lanes go on to the last head together, since they add up together. */
    const int64_t begin = threadIdx.x % 32 * N;
    for (int64_t i = 0; i < width; i += 32 * N * AHEAD) {
        vec<T, N> in[AHEAD], grad[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int64_t col = begin + i + a * 32 * N;
            if (col >= width) continue;
            in[a] = load<N>(x + row * width + col);
            if (BACK) grad[a] = load<N>(dy + row * width + col);
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int64_t col = begin + i + a * 32 * N;
            float u[N], g[N], mean = 0, square = 0;
            if (i + a * 32 * N >= width) break;
            for (int j = 0; j < N; j++) mean += u[j] = col < width ? to_float(in[a].v[j]) : 0;
            mean = lanes_sum<LANES>(mean) / D;
            for (int j = 0; j < N; j++) u[j] -= mean, square += u[j] * u[j];
            const float rstd = 1 / sqrtf(lanes_sum<LANES>(square) / D + eps);
            for (int j = 0; j < N; j++) u[j] *= rstd;
            if (BACK) {
                float sum = 0, dot = 0;
                for (int j = 0; j < N; j++) g[j] = col < width ? to_float(grad[a].v[j]) : 0;
                for (int j = 0; j < N && turned; j += 2) rotate<true>(g[j], g[j + 1], c + j, s + j);
                for (int j = 0; j < N; j++)
                    g[j] = __fmul_rn(g[j], weight[j]), sum += g[j], dot += g[j] * u[j];
                sum = lanes_sum<LANES>(sum) / D, dot = lanes_sum<LANES>(dot) / D;
                for (int j = 0; j < N; j++) u[j] = rstd * (g[j] - sum - u[j] * dot);
            } else {
                for (int j = 0; j < N; j++) u[j] = u[j] * weight[j] + bias[j];
                for (int j = 0; j < N && turned; j += 2) rotate<false>(u[j], u[j + 1], c + j, s + j);
            }
            if (col < width) store<N>(y + row * width + col, u);
        }
    }
}

/* Heads of any width: a warp for each, value by value. Of a pair's two values either lane works out both. */
template <typename T, bool BACK>
__global__ static void norm_rope_any(T *y, const T *dy, const T *x, const T *w, const T *b, const float *cos,
                                     const float *sin, int64_t heads, int64_t d, int64_t per_row,
                                     int64_t first, float eps, float times)
{
    const int64_t head = (int64_t)blockIdx.x * ROWS + threadIdx.x / 32, row = head / per_row;
    const int lane = threadIdx.x % 32;
    if (head >= heads) return;
    x += head * d, y += head * d;
    if (BACK) dy += head * d;
    const bool turned = cos && row >= first;
    if (turned) cos += (row - first) * d, sin += (row - first) * d;
    float mean = 0, square = 0, sum = 0, dot = 0;
    for (int64_t i = lane; i < d; i += 32) mean += to_float(x[i]);
    mean = warp_sum(mean) / (float)d;
    for (int64_t i = lane; i < d; i += 32) square += (to_float(x[i]) - mean) * (to_float(x[i]) - mean);
    const float rstd = 1 / sqrtf(warp_sum(square) / (float)d + eps);
    for (int pass = BACK ? 0 : 1; pass < 2; pass++) { /* 0 adds up, 1 writes */
        for (int64_t i = lane; i < d; i += 32) {
            const int64_t even = i / 2 * 2, odd = even + 1 < d ? even + 1 : even;
            float u[2] = {(to_float(x[even]) - mean) * rstd, (to_float(x[odd]) - mean) * rstd}, g[2];
            if (BACK) {
                g[0] = to_float(dy[even]), g[1] = to_float(dy[odd]);
                if (turned) rotate<true>(g[0], g[1], cos + even, sin + even);
                const float mine = __fmul_rn(i > even ? g[1] : g[0], to_float(w[i]) * times),
                            x_hat = i > even ? u[1] : u[0];
                if (pass == 0)
                    sum += mine, dot += mine * x_hat;
                else
                    y[i] = from_float<T>(rstd * (mine - sum - x_hat * dot));
            } else {
                u[0] = u[0] * (to_float(w[even]) * times) + to_float(b[even]) * times;
                u[1] = u[1] * (to_float(w[odd]) * times) + to_float(b[odd]) * times;
                if (turned) rotate<false>(u[0], u[1], cos + even, sin + even);
                y[i] = from_float<T>(i > even ? u[1] : u[0]);
            }
        }
        if (pass == 0) sum = warp_sum(sum) / (float)d, dot = warp_sum(dot) / (float)d;
    }
}

template <bool BACK>
static void norm_rope_all(struct kern *k, const char *what, struct tensor *y, const struct tensor *dy,
                          const struct tensor *x, const struct tensor *w, const struct tensor *b,
                          const struct tensor *cos, const struct tensor *sin, int64_t first, float eps,
                          float times)
{
    const int64_t rows = x->shape[0], width = x->shape[1], d = w->shape[0], heads = rows * (width / d);
    const float *cosines = cos ? (const float *)cos->data : NULL,
                *sines = sin ? (const float *)sin->data : NULL;
    const int64_t bytes = d * (int64_t)dtype_size(x->dtype);
    const bool wide = vectorizable(d, y, dy, x, w, b) && aligned(cosines, 16) && aligned(sines, 16);
    const unsigned blocks = (unsigned)ceil_div(rows, ROWS);
    if (heads == 0) return;
#define LAUNCH(T, kernel, blocks, ...)                                                                       \
    kernel<<<blocks, 32 * ROWS, 0, stream_of(k)>>>(                                                          \
        (T *)y->data, BACK ? (const T *)dy->data : NULL, (const T *)x->data, (const T *)w->data,             \
        b ? (const T *)b->data : NULL, cosines, sines, __VA_ARGS__, first, eps, times)
#define FAST(T, lanes) LAUNCH(T, (norm_rope<T, lanes, BACK>), blocks, rows, width)
    CALL_BY_DTYPE(
        x->dtype, T, switch (wide ? bytes : 0) {
            case 16: FAST(T, 1); break;
            case 32: FAST(T, 2); break;
            case 64: FAST(T, 4); break;
            case 128: FAST(T, 8); break;
            case 256: FAST(T, 16); break;
            case 512: FAST(T, 32); break;
            default:
                LAUNCH(T, (norm_rope_any<T, BACK>), (unsigned)ceil_div(heads, ROWS), heads, d, width / d);
        });
#undef FAST
#undef LAUNCH
    cuda_good(k, what, cudaGetLastError());
}

extern "C" void cuda_qk_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                          const struct tensor *w, const struct tensor *b,
                                          const struct tensor *cos, const struct tensor *sin, int64_t first,
                                          float eps, float times)
{
    norm_rope_all<false>(k, "qk_norm_rope_forward", y, NULL, x, w, b, cos, sin, first, eps, times);
}

extern "C" void cuda_qk_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                                           const struct tensor *x, const struct tensor *w,
                                           const struct tensor *cos, const struct tensor *sin, int64_t first,
                                           float eps, float times)
{
    norm_rope_all<true>(k, "qk_norm_rope_backward", dx, dy, x, w, NULL, cos, sin, first, eps, times);
}

/* ---- a norm over the whole row, then the rotation of pairs --------------------------------------------- */

enum { ROW_THREADS = 128 };

/* u[0..N-1] turned, from column `col` on; back for a gradient. Of a head `half` pairs. */
template <int N>
__device__ static void rotate_pairs(float *u, const float *cos, const float *sin, int64_t col, int half,
                                    float turn)
{
    int at = (int)(col / 2 % half);
    for (int j = 0; j + 1 < N; j += 2) {
        const float e = u[j], o = u[j + 1], c = cos[at], s = turn * sin[at];
        u[j] = e * c - o * s, u[j + 1] = o * c + e * s;
        at = at + 1 == half ? 0 : at + 1;
    }
}

/* N values of a row, 16 bytes at once or one by one. */
template <int N, typename T> __device__ static void read(float *u, const T *p)
{
    if constexpr (N * sizeof(T) == 16)
        load_floats<N>(u, p);
    else
        for (int j = 0; j < N; j++) u[j] = to_float(p[j]);
}
template <int N, typename T> __device__ static void write(T *p, const float *u)
{
    if constexpr (N * sizeof(T) == 16)
        store<N>(p, u);
    else
        for (int j = 0; j < N; j++) p[j] = from_float<T>(u[j]);
}

/* A block has a row, which it reads twice, the second time out of cache; for the backward pass y is dx. */
template <typename T, int N, bool BACK>
__global__ static void __launch_bounds__(ROW_THREADS)
    norm_row_rope(T *y, const T *dy, const T *x, const T *__restrict__ w, const float *__restrict__ cos,
                  const float *__restrict__ sin, int64_t width, int half, float eps, float times)
{
    __shared__ float shared[32];
    const int64_t row = blockIdx.x;
    float u[N], g[N], weight[N], square = 0, dot = 0;
    x += row * width, y += row * width;
    if (BACK) dy += row * width;
    if (cos) cos += row * half, sin += row * half;
    for (int64_t col = threadIdx.x * N; col < width; col += ROW_THREADS * N) {
        read<N>(u, x + col);
        for (int j = 0; j < N; j++) square += u[j] * u[j];
        if (!BACK) continue;
        read<N>(g, dy + col);
        read<N>(weight, w + col);
        if (cos) rotate_pairs<N>(g, cos, sin, col, half, -1);
        for (int j = 0; j < N; j++) dot += g[j] * weight[j] * u[j];
    }
    const float r = 1 / sqrtf(block_sum(square, shared) / (float)width + eps);
    if (BACK) dot = block_sum(dot, shared) / (float)width * r * r;
    for (int64_t col = threadIdx.x * N; col < width; col += ROW_THREADS * N) {
        read<N>(u, x + col);
        read<N>(weight, w + col);
        if (BACK) {
            read<N>(g, dy + col);
            if (cos) rotate_pairs<N>(g, cos, sin, col, half, -1);
            for (int j = 0; j < N; j++) u[j] = r * times * (g[j] * weight[j] - u[j] * dot);
        } else {
            for (int j = 0; j < N; j++) u[j] = u[j] * (r * times) * weight[j];
            if (cos) rotate_pairs<N>(u, cos, sin, col, half, 1);
        }
        write<N>(y + col, u);
    }
}

/* Pairs stand at even columns, so that 2 values hold one wherever rows are of pairs. */
template <bool BACK>
static void norm_row_rope_all(struct kern *k, const char *what, struct tensor *y, const struct tensor *dy,
                              const struct tensor *x, const struct tensor *w, const struct tensor *cos,
                              const struct tensor *sin, float eps, float times)
{
    const int64_t rows = x->shape[0], width = x->shape[1];
    const bool wide = vectorizable(width, y, dy, x, w);
    if (rows == 0 || width == 0) return;
    CALL_BY_DTYPE(x->dtype, T,
                  const auto kernel = wide        ? norm_row_rope<T, pack<T>::N, BACK>
                                      : width % 2 ? norm_row_rope<T, 1, BACK>
                                                  : norm_row_rope<T, 2, BACK>;
                  kernel<<<(unsigned)rows, ROW_THREADS, 0, stream_of(k)>>>(
                      (T *)y->data, BACK ? (const T *)dy->data : NULL, (const T *)x->data, (const T *)w->data,
                      cos ? (const float *)cos->data : NULL, sin ? (const float *)sin->data : NULL, width,
                      cos ? (int)cos->shape[1] : 1, eps, times));
    cuda_good(k, what, cudaGetLastError());
}

extern "C" void cuda_rms_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                           const struct tensor *w, const struct tensor *cos,
                                           const struct tensor *sin, float eps, float times)
{
    norm_row_rope_all<false>(k, "rms_norm_rope_forward", y, NULL, x, w, cos, sin, eps, times);
}

extern "C" void cuda_rms_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                                            const struct tensor *x, const struct tensor *w,
                                            const struct tensor *cos, const struct tensor *sin, float eps,
                                            float times)
{
    norm_row_rope_all<true>(k, "rms_norm_rope_backward", dx, dy, x, w, cos, sin, eps, times);
}

/* ---- LLaMA's rotation: of i and i + half --------------------------------------------------------------- */

/* A thread has N pairs. cos and sin begin at the first row's position. */
template <typename T, int N>
__global__ static void rope(T *y, const T *x, const float *__restrict__ cos, const float *__restrict__ sin,
                            int64_t vectors, int64_t half, int64_t width)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= vectors) return;
    const int64_t pair = i * N, row = pair / (width / 2), at = pair % half,
                  low = row * width + pair % (width / 2) / half * 2 * half + at;
    const vec<T, N> a = load<N>(x + low), b = load<N>(x + low + half);
    float c[N], s[N], u[N], v[N];
    load_floats<N>(c, cos + row * half + at);
    load_floats<N>(s, sin + row * half + at);
    for (int j = 0; j < N; j++) {
        u[j] = to_float(a.v[j]) * c[j] - to_float(b.v[j]) * s[j];
        v[j] = to_float(b.v[j]) * c[j] + to_float(a.v[j]) * s[j];
    }
    store<N>(y + low, u);
    store<N>(y + low + half, v);
}

extern "C" void cuda_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                  const struct tensor *cos, const struct tensor *sin, int64_t first)
{
    const int64_t half = cos->shape[1], width = x->shape[1], pairs = tensor_count(x) / 2;
    const float *c = (const float *)cos->data + first * half, *s = (const float *)sin->data + first * half;
    const bool wide = vectorizable(half, y, x) && aligned(c, 16) && aligned(s, 16);
    if (pairs == 0) return;
    CALL_VECTORIZED(x->dtype, wide, T, N,
                    rope<T, N><<<(unsigned)ceil_div(pairs / N, 256), 256, 0, stream_of(k)>>>(
                        (T *)y->data, (const T *)x->data, c, s, pairs / N, half, width));
    cuda_good(k, "rope_forward", cudaGetLastError());
}
