/* attention_forward and attention_backward: the choice of a way, and the plain one, which takes every dtype
 * and head sizes to 256 and multiplies in F32. */
#include "kernels/cuda/attention.h"

#include <float.h>

enum {
    MAX_D = 256,
    THREADS = 256, /* 16 x 16, each with a square of the scores */
    TILE = 64,     /* forward: queries and keys of a tile */
    TILE_PAD = TILE + 4,
    SIDE = 32, /* backward: rows of either side */
    SIDE_PAD = SIDE + 2,
};

/* A tile of rows from `first` on, transposed to [d][pad]; zeros past the last row. */
template <int ROWS, int PAD, typename T>
__device__ static void load_transposed(float *tile, const T *rows, int64_t first, int64_t end, int64_t stride,
                                       int d)
{
    for (int r = threadIdx.x / 32; r < ROWS; r += THREADS / 32)
        for (int c = threadIdx.x % 32; c < d; c += 32)
            tile[c * PAD + r] = first + r < end ? to_float(rows[(first + r) * stride + c]) : 0;
}

/* Over the 16 threads that share rows of scores. */
__device__ static float row_max(float x)
{
    for (int n = 8; n; n /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, n));
    return x;
}
__device__ static float row_sum(float x)
{
    for (int n = 8; n; n /= 2) x += __shfl_xor_sync(0xffffffff, x, n);
    return x;
}

/* One block for 64 queries of a head: scores of 64 keys at a time, the softmax kept up as they come. A thread
 * has 4 x 4 scores, and of its 4 rows of the result every 16th column. */
template <typename T, int D>
__global__ static void __launch_bounds__(THREADS)
    forward(T *o, float *lse, const T *q, const T *kk, const T *v, const float *bias,
            struct attention_shape s)
{
    extern __shared__ float shared[];
    float *const qs = shared, *const ks = qs + s.d * TILE_PAD, *const ps = ks + s.d * TILE_PAD,
                 *const vs = ps + TILE * TILE_PAD;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t tiles = (s.queries + TILE - 1) / TILE, first = blockIdx.x % tiles * TILE,
                  h = blockIdx.x / tiles % s.heads, b = blockIdx.x / tiles / s.heads,
                  stride = (int64_t)s.heads * s.d, history = s.keys - s.queries;
    q += b * s.queries * stride + h * s.d;
    o += b * s.queries * stride + h * s.d;
    kk += b * s.keys * stride + h * s.d;
    v += b * s.keys * stride + h * s.d;
    if (bias) bias += h * s.queries * s.keys;
    float acc[4][D / 16] = {}, max[4], sum[4] = {};
    for (int i = 0; i < 4; i++) max[i] = -FLT_MAX;
    load_transposed<TILE, TILE_PAD>(qs, q, first, s.queries, stride, s.d);

    const int64_t end = s.causal ? min(s.keys, first + TILE + history) : s.keys;
    for (int64_t key = 0; key < end; key += TILE) {
        __syncthreads();
        load_transposed<TILE, TILE_PAD>(ks, kk, key, s.keys, stride, s.d);
        for (int r = threadIdx.x / 32; r < TILE; r += THREADS / 32)
            for (int c = threadIdx.x % 32; c < s.d; c += 32)
                vs[r * s.d + c] = key + r < s.keys ? to_float(v[(key + r) * stride + c]) : 0;
        __syncthreads();
        float p[4][4] = {};
        for (int c = 0; c < s.d; c++) {
            const float4 a = *(const float4 *)&qs[c * TILE_PAD + y * 4];
            const float4 e = *(const float4 *)&ks[c * TILE_PAD + x * 4];
            const float left[4] = {a.x, a.y, a.z, a.w}, right[4] = {e.x, e.y, e.z, e.w};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) p[i][j] += left[i] * right[j];
        }
        for (int i = 0; i < 4; i++) {
            const int64_t row = first + y * 4 + i;
            const int64_t seen = row >= s.queries ? 0 : s.causal ? row + 1 + history : s.keys;
            float highest = max[i];
            for (int j = 0; j < 4; j++) {
                const int64_t at = key + x * 4 + j;
                p[i][j] *= s.scale;
                if (bias && at < seen) p[i][j] += bias[row * s.keys + at];
                if (at < seen) highest = fmaxf(highest, p[i][j]);
            }
            highest = row_max(highest);
            const float shrink = expf(max[i] - highest);
            max[i] = highest;
            sum[i] *= shrink;
            for (int j = 0; j < D / 16; j++) acc[i][j] *= shrink;
            for (int j = 0; j < 4; j++)
                sum[i] += p[i][j] = key + x * 4 + j < seen ? expf(p[i][j] - highest) : 0;
        }
        for (int j = 0; j < 4; j++)
            *(float4 *)&ps[(x * 4 + j) * TILE_PAD + y * 4] = make_float4(p[0][j], p[1][j], p[2][j], p[3][j]);
        __syncthreads();
        for (int r = 0; r < TILE; r++) {
            const float4 a = *(const float4 *)&ps[r * TILE_PAD + y * 4];
            const float left[4] = {a.x, a.y, a.z, a.w};
            for (int j = 0; j < D / 16; j++) {
                const float right = x + 16 * j < s.d ? vs[r * s.d + x + 16 * j] : 0;
                for (int i = 0; i < 4; i++) acc[i][j] += left[i] * right;
            }
        }
    }
    for (int i = 0; i < 4; i++) {
        const int64_t row = first + y * 4 + i;
        const float total = row_sum(sum[i]), part = 1 / total;
        if (row >= s.queries) continue;
        if (lse && x == 0) lse[(h * s.batch + b) * s.queries + row] = max[i] + logf(total);
        for (int j = 0; j < D / 16; j++)
            if (x + 16 * j < s.d) o[row * stride + x + 16 * j] = from_float<T>(acc[i][j] * part);
    }
}

/* delta[h,row] = Σ dout o over the channels of a head; a warp each */
template <typename T>
__global__ static void row_products(float *delta, const T *dout, const T *o, int64_t rows, int heads, int d)
{
    const int64_t i = blockIdx.x * (int64_t)(THREADS / 32) + threadIdx.x / 32;
    if (i >= rows * heads) return;
    const int64_t row = i / heads, h = i % heads, at = (row * heads + h) * d;
    float sum = 0;
    for (int c = threadIdx.x % 32; c < d; c += 32) sum += to_float(dout[at + c]) * to_float(o[at + c]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[h * rows + row] = sum;
}

/* Gradients of 32 rows of one side, which a block keeps, over all rows of the other, which pass by.
 * KEYS: dk and dv of keys (a k, b v) past queries (c q, e do); else dq of queries (a q, b do) past keys (c k,
 * e v). Either way the scores are a cᵀ and dP is b eᵀ; then  da = scale Σ dS c  and  db = Σ P e. */
template <typename T, int D, bool KEYS>
__global__ static void __launch_bounds__(THREADS)
    backward(T *da, T *db, const T *a, const T *b, const T *c, const T *e, const float *lse,
             const float *delta, int64_t rows, int heads, int d, float scale)
{
    extern __shared__ float shared[];
    float *const as = shared, *const bs = as + d * SIDE_PAD, *const cs = bs + d * SIDE_PAD,
                 *const es = cs + d * SIDE_PAD, *const ps = es + d * SIDE_PAD,
                 *const ss = ps + SIDE * SIDE_PAD;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t tiles = (rows + SIDE - 1) / SIDE, first = blockIdx.x % tiles * SIDE, h = blockIdx.x / tiles,
                  stride = (int64_t)heads * d;
    float sum_a[2][D / 16] = {}, sum_b[2][D / 16] = {};
    load_transposed<SIDE, SIDE_PAD>(as, a + h * d, first, rows, stride, d);
    load_transposed<SIDE, SIDE_PAD>(bs, b + h * d, first, rows, stride, d);
    for (int64_t other = 0; other < rows; other += SIDE) {
        __syncthreads();
        load_transposed<SIDE, SIDE_PAD>(cs, c + h * d, other, rows, stride, d);
        load_transposed<SIDE, SIDE_PAD>(es, e + h * d, other, rows, stride, d);
        __syncthreads();
        float score[2][2] = {}, dp[2][2] = {};
        for (int n = 0; n < d; n++) {
            const float *const at = shared + n * SIDE_PAD;
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) {
                    score[i][j] += at[y * 2 + i] * at[2 * d * SIDE_PAD + x * 2 + j];
                    dp[i][j] += at[d * SIDE_PAD + y * 2 + i] * at[3 * d * SIDE_PAD + x * 2 + j];
                }
        }
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) {
                const int64_t mine = first + y * 2 + i, its = other + x * 2 + j,
                              at = h * rows + (KEYS ? its : mine);
                const float p = mine < rows && its < rows ? expf(score[i][j] * scale - lse[at]) : 0;
                ps[(x * 2 + j) * SIDE_PAD + y * 2 + i] = p;
                ss[(x * 2 + j) * SIDE_PAD + y * 2 + i] = p != 0 ? p * (dp[i][j] - delta[at]) : 0;
            }
        __syncthreads();
        for (int r = 0; r < SIDE; r++)
            for (int j = 0; j < D / 16; j++) {
                const int at = (x + 16 * j) * SIDE_PAD + r;
                if (x + 16 * j >= d) continue;
                for (int i = 0; i < 2; i++) {
                    sum_a[i][j] += ss[r * SIDE_PAD + y * 2 + i] * cs[at];
                    if (KEYS) sum_b[i][j] += ps[r * SIDE_PAD + y * 2 + i] * es[at];
                }
            }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < D / 16; j++) {
            const int64_t row = first + y * 2 + i, at = row * stride + h * d + x + 16 * j;
            if (row >= rows || x + 16 * j >= d) continue;
            da[at] = from_float<T>(sum_a[i][j] * scale);
            if (KEYS) db[at] = from_float<T>(sum_b[i][j]);
        }
}

/* The smallest of the head sizes that the kernels are made for: CALL_BY_HEAD(d, D, kernel<T, D><<<..>>>) */
#define CALL_BY_HEAD(d, D, ...)                                                                              \
    do {                                                                                                     \
        if ((d) <= 16) {                                                                                     \
            enum { D = 16 };                                                                                 \
            __VA_ARGS__;                                                                                     \
        } else if ((d) <= 64) {                                                                              \
            enum { D = 64 };                                                                                 \
            __VA_ARGS__;                                                                                     \
        } else if ((d) <= 128) {                                                                             \
            enum { D = 128 };                                                                                \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            enum { D = 256 };                                                                                \
            __VA_ARGS__;                                                                                     \
        }                                                                                                    \
    } while (0)

/* More shared memory than a kernel gets unasked. */
template <typename F> static void allow_shared(F *kernel, size_t bytes)
{
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

static bool head_fits(struct kern *k, int d)
{
    if (d > MAX_D) kern_fail(k, "attention with heads of %d; %s takes up to %d", d, k->device, MAX_D);
    return d <= MAX_D;
}

static bool begins_at_16(const struct tensor *t)
{
    return (uintptr_t)t->data % 16 == 0;
}

extern "C" void cuda_attention_forward(struct kern *k, struct tensor *o, struct tensor *lse,
                                       const struct tensor *q, const struct tensor *kk,
                                       const struct tensor *v, const struct tensor *bias,
                                       const struct attention *a)
{
    const struct attention_shape s = attention_shape(q, kk, a);
    if (!q->data || !s.queries || !s.d || !head_fits(k, s.d)) return;
    if (q->dtype == DT_BF16 && (s.d == 64 || s.d == 128) && begins_at_16(q) && begins_at_16(kk) &&
        begins_at_16(v) && begins_at_16(o)) {
        if (s.d == 64 && !bias && !s.causal && s.scale > 0 && attention_has_hopper(k))
            attention_forward_hopper(k, o, lse, q, kk, v, &s);
        else
            attention_forward_mma(k, o, lse, q, kk, v, bias, &s);
        return;
    }
    const size_t bytes = (size_t)(2 * s.d * TILE_PAD + TILE * TILE_PAD + TILE * s.d) * sizeof(float);
    const unsigned blocks = (unsigned)(ceil_div(s.queries, TILE) * s.heads * s.batch);
    CALL_BY_DTYPE(q->dtype, T,
                  CALL_BY_HEAD(s.d, D, allow_shared(forward<T, D>, bytes);
                               forward<T, D><<<blocks, THREADS, bytes, stream_of(k)>>>(
                                   (T *)o->data, lse ? (float *)lse->data : NULL, (const T *)q->data,
                                   (const T *)kk->data, (const T *)v->data,
                                   bias ? (const float *)bias->data : NULL, s)));
    CUDA_LAUNCHED(k);
}

template <typename T, int D>
static void launch_backward(cudaStream_t stream, const struct tensor *const t[9], float *delta, int heads,
                            int d, float scale)
{
    enum { DQ, DK, DV, DOUT, O, LSE, Q, K, V };
    const int64_t rows = t[Q]->shape[0];
    const size_t bytes = (size_t)(4 * d * SIDE_PAD + 2 * SIDE * SIDE_PAD) * sizeof(float);
    const unsigned blocks = (unsigned)(ceil_div(rows, SIDE) * heads);
    const float *lse = (const float *)t[LSE]->data;
#define AT(i) ((T *)t[i]->data)
    row_products<<<(unsigned)ceil_div(rows * heads, THREADS / 32), THREADS, 0, stream>>>(
        delta, AT(DOUT), AT(O), rows, heads, d);
    allow_shared(backward<T, D, true>, bytes);
    backward<T, D, true><<<blocks, THREADS, bytes, stream>>>(AT(DK), AT(DV), AT(K), AT(V), AT(Q), AT(DOUT),
                                                             lse, delta, rows, heads, d, scale);
    allow_shared(backward<T, D, false>, bytes);
    backward<T, D, false><<<blocks, THREADS, bytes, stream>>>(AT(DQ), (T *)NULL, AT(Q), AT(DOUT), AT(K),
                                                              AT(V), lse, delta, rows, heads, d, scale);
#undef AT
}

/* Each way adds up in one order, whatever the device does first: the same step gives the same bytes, always.
 * On Hopper that is also faster than cuDNN's backward pass, which adds in order of arrival, so there is no
 * other to choose. */
extern "C" void cuda_attention_backward(struct kern *k, struct tensor *dq, struct tensor *dk,
                                        struct tensor *dv, const struct tensor *dout, const struct tensor *o,
                                        const struct tensor *lse, const struct tensor *q,
                                        const struct tensor *kk, const struct tensor *v, int heads,
                                        float scale)
{
    const int64_t rows = q->shape[0], d = q->shape[1] / heads;
    if (!rows || !d || !head_fits(k, (int)d)) return;
    if (q->dtype == DT_BF16 && d == 64 && begins_at_16(q) && begins_at_16(kk) && begins_at_16(v) &&
        begins_at_16(o) && begins_at_16(dout) && begins_at_16(dq) && attention_has_hopper(k)) {
        attention_backward_hopper(k, dq, dk, dv, dout, o, lse, q, kk, v, heads, scale);
        return;
    }
    float *delta = (float *)cuda_scratch(k, DT_F32, rows * heads);
    if (!delta) return;
    const struct tensor *const t[] = {dq, dk, dv, dout, o, lse, q, kk, v};
    CALL_BY_DTYPE(q->dtype, T,
                  CALL_BY_HEAD(d, D, launch_backward<T, D>(stream_of(k), t, delta, heads, (int)d, scale)));
    CUDA_LAUNCHED(k);
}

void cuda_attentions_close(struct cuda *c)
{
    (void)c;
}
