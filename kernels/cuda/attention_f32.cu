/* Attention without tensor cores: every dtype, heads of up to 256, with bias, causal, many sequences. Products
 * and sums are in F32. */
#include "kernels/cuda/attention.h"

#include <float.h>

enum {
    MAX_D = 256,
    THREADS = 256, /* 16 x 16, each with a square of the scores */
};

/* Rows of a tile, by the head size: so many that no tile set needs more than 99 KB of shared memory. */
__host__ __device__ static constexpr int forward_tile(int d)
{
    return d <= 128 ? 64 : 32;
}
__host__ __device__ static constexpr int backward_tile(int d)
{
    return d <= 128 ? 32 : 16;
}

/* A tile of rows from `first` on, transposed to [d][pad]; zeros past the last row. */
template <int ROWS, int PAD, typename T>
__device__ static void load_transposed(float *tile, const T *rows, int64_t first, int64_t end, int64_t stride,
                                       int d)
{
    for (int r = threadIdx.x / 32; r < ROWS; r += THREADS / 32)
        for (int c = threadIdx.x % 32; c < d; c += 32)
            tile[c * PAD + r] = first + r < end ? to_float(rows[(first + r) * stride + c]) : 0;
}

/* R neighbouring values of shared memory, at a multiple of R. */
template <int R> __device__ static void take(float (&to)[R], const float *from)
{
    if (R == 4)
        memcpy(to, &(const float4 &)*from, sizeof to);
    else
        memcpy(to, &(const float2 &)*from, sizeof to);
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

/* One block for a tile of queries of a head: scores of as many keys at a time, the softmax kept up as they
 * come. A thread has R x R scores, and of its R rows of the result every 16th column. */
template <typename T, int D>
__global__ static void __launch_bounds__(THREADS)
    forward(T *o, float *lse, const T *q, const T *kk, const T *v, const float *bias, int64_t distances,
            struct attention_shape s)
{
    enum { TILE = forward_tile(D), PAD = TILE + 4, R = TILE / 16 };
    extern __shared__ float shared[];
    float *const qs = shared, *const ps = qs + s.d * PAD, *const ks = ps + TILE * PAD,
                 *const vs = ks; /* v comes when the scores are there */
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t tiles = (s.queries + TILE - 1) / TILE, first = blockIdx.x % tiles * TILE,
                  h = blockIdx.x / tiles % s.heads, b = blockIdx.x / tiles / s.heads,
                  stride = (int64_t)s.heads * s.d, history = s.keys - s.queries;
    q += b * s.queries * stride + h * s.d;
    o += b * s.queries * stride + h * s.d;
    kk += b * s.keys * stride + h * s.d;
    v += b * s.keys * stride + h * s.d;
    if (bias) bias += h * distances + distances / 2;
    float acc[R][D / 16] = {}, max[R], sum[R] = {};
    for (int i = 0; i < R; i++) max[i] = -FLT_MAX;
    load_transposed<TILE, PAD>(qs, q, first, s.queries, stride, s.d);

    const int64_t end = s.causal ? min(s.keys, first + TILE + history) : s.keys;
    for (int64_t key = 0; key < end; key += TILE) {
        __syncthreads();
        load_transposed<TILE, PAD>(ks, kk, key, s.keys, stride, s.d);
        __syncthreads();
        float p[R][R] = {};
        for (int c = 0; c < s.d; c++) {
            float left[R], right[R];
            take(left, &qs[c * PAD + y * R]);
            take(right, &ks[c * PAD + x * R]);
            for (int i = 0; i < R; i++)
                for (int j = 0; j < R; j++) p[i][j] += left[i] * right[j];
        }
        for (int i = 0; i < R; i++) {
            const int64_t row = first + y * R + i;
            const int64_t seen = row >= s.queries ? 0 : s.causal ? row + 1 + history : s.keys;
            float highest = max[i];
            for (int j = 0; j < R; j++) {
                const int64_t at = key + x * R + j;
                p[i][j] *= s.scale;
                if (bias && at < seen) p[i][j] += bias[at - row];
                if (at < seen) highest = fmaxf(highest, p[i][j]);
            }
            highest = row_max(highest);
            const float shrink = expf(max[i] - highest);
            max[i] = highest;
            sum[i] *= shrink;
            for (int j = 0; j < D / 16; j++) acc[i][j] *= shrink;
            for (int j = 0; j < R; j++)
                sum[i] += p[i][j] = key + x * R + j < seen ? expf(p[i][j] - highest) : 0;
        }
        for (int j = 0; j < R; j++)
            for (int i = 0; i < R; i++) ps[(x * R + j) * PAD + y * R + i] = p[i][j];
        __syncthreads();
        for (int r = threadIdx.x / 32; r < TILE; r += THREADS / 32)
            for (int c = threadIdx.x % 32; c < s.d; c += 32)
                vs[r * s.d + c] = key + r < s.keys ? to_float(v[(key + r) * stride + c]) : 0;
        __syncthreads();
        for (int r = 0; r < TILE; r++) {
            float left[R];
            take(left, &ps[r * PAD + y * R]);
            for (int j = 0; j < D / 16; j++) {
                const float right = x + 16 * j < s.d ? vs[r * s.d + x + 16 * j] : 0;
                for (int i = 0; i < R; i++) acc[i][j] += left[i] * right;
            }
        }
    }
    for (int i = 0; i < R; i++) {
        const int64_t row = first + y * R + i;
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

/* Gradients of a tile of rows of one side, which a block keeps, over all rows of the other, which pass by.
 * KEYS: dk and dv of keys (a k, b v) past queries (c q, e do); else dq of queries (a q, b do) past keys (c k,
 * e v). Either way the scores are a cᵀ and dP is b eᵀ; then  da = scale Σ dS c  and  db = Σ P e. */
template <typename T, int D, bool KEYS>
__global__ static void __launch_bounds__(THREADS)
    backward(T *da, T *db, const T *a, const T *b, const T *c, const T *e, const float *lse,
             const float *delta, struct attention_shape s)
{
    enum { SIDE = backward_tile(D), PAD = SIDE + 2, R = SIDE / 16 };
    extern __shared__ float shared[];
    float *const as = shared, *const bs = as + s.d * PAD, *const cs = bs + s.d * PAD,
                 *const es = cs + s.d * PAD, *const ps = es + s.d * PAD, *const ss = ps + SIDE * PAD;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t rows = KEYS ? s.keys : s.queries, others = KEYS ? s.queries : s.keys,
                  history = s.keys - s.queries, tiles = (rows + SIDE - 1) / SIDE,
                  first = blockIdx.x % tiles * SIDE, h = blockIdx.x / tiles % s.heads,
                  sequence = blockIdx.x / tiles / s.heads, stride = (int64_t)s.heads * s.d;
    /* of the other side, only those that see or are seen by one of these */
    const int64_t from = s.causal && KEYS ? max((int64_t)0, first - history) / SIDE * SIDE : 0,
                  to = s.causal && !KEYS ? min(others, first + SIDE + history) : others;
    a += sequence * rows * stride + h * s.d;
    b += sequence * rows * stride + h * s.d;
    c += sequence * others * stride + h * s.d;
    e += sequence * others * stride + h * s.d;
    lse += (h * s.batch + sequence) * s.queries;
    delta += (h * s.batch + sequence) * s.queries;
    float sum_a[R][D / 16] = {}, sum_b[R][D / 16] = {};
    load_transposed<SIDE, PAD>(as, a, first, rows, stride, s.d);
    load_transposed<SIDE, PAD>(bs, b, first, rows, stride, s.d);
    for (int64_t other = from; other < to; other += SIDE) {
        __syncthreads();
        load_transposed<SIDE, PAD>(cs, c, other, others, stride, s.d);
        load_transposed<SIDE, PAD>(es, e, other, others, stride, s.d);
        __syncthreads();
        float score[R][R] = {}, dp[R][R] = {};
        for (int n = 0; n < s.d; n++) {
            const float *const at = shared + n * PAD;
            for (int i = 0; i < R; i++)
                for (int j = 0; j < R; j++) {
                    score[i][j] += at[y * R + i] * at[2 * s.d * PAD + x * R + j];
                    dp[i][j] += at[s.d * PAD + y * R + i] * at[3 * s.d * PAD + x * R + j];
                }
        }
        for (int i = 0; i < R; i++)
            for (int j = 0; j < R; j++) {
                const int64_t mine = first + y * R + i, its = other + x * R + j, query = KEYS ? its : mine,
                              key = KEYS ? mine : its;
                const bool seen = query < s.queries && key < (s.causal ? query + 1 + history : s.keys);
                const float p = seen ? expf(score[i][j] * s.scale - lse[query]) : 0;
                ps[(x * R + j) * PAD + y * R + i] = p;
                ss[(x * R + j) * PAD + y * R + i] = p != 0 ? p * (dp[i][j] - delta[query]) : 0;
            }
        __syncthreads();
        for (int r = 0; r < SIDE; r++)
            for (int j = 0; j < D / 16; j++) {
                const int at = (x + 16 * j) * PAD + r;
                if (x + 16 * j >= s.d) continue;
                for (int i = 0; i < R; i++) {
                    sum_a[i][j] += ss[r * PAD + y * R + i] * cs[at];
                    if (KEYS) sum_b[i][j] += ps[r * PAD + y * R + i] * es[at];
                }
            }
    }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < D / 16; j++) {
            const int64_t row = first + y * R + i,
                          at = (sequence * rows + row) * stride + h * s.d + x + 16 * j;
            if (row >= rows || x + 16 * j >= s.d) continue;
            da[at] = from_float<T>(sum_a[i][j] * s.scale);
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

template <typename T, int D>
static void launch_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    enum { TILE = forward_tile(D), PAD = TILE + 4 };
    const size_t bytes = (size_t)(2 * s->d * PAD + TILE * PAD) * sizeof(float);
    const unsigned blocks = (unsigned)(ceil_div(s->queries, TILE) * s->heads * s->batch);
    if (!cuda_allow_shared(k, "attention", (const void *)forward<T, D>, bytes)) return;
    forward<T, D><<<blocks, THREADS, bytes, stream_of(k)>>>(
        (T *)t->o->data, t->lse ? (float *)t->lse->data : NULL, (const T *)t->q->data, (const T *)t->k->data,
        (const T *)t->v->data, t->bias ? (const float *)t->bias->data : NULL, t->bias ? t->bias->shape[1] : 0,
        *s);
}

template <typename T, int D>
static void launch_backward(struct kern *k, const struct attention_shape *s,
                            const struct attention_backward *t, float *delta)
{
    enum { SIDE = backward_tile(D), PAD = SIDE + 2 };
    const int64_t rows = s->batch * s->queries;
    const size_t bytes = (size_t)(4 * s->d * PAD + 2 * SIDE * PAD) * sizeof(float);
    const unsigned by_keys = (unsigned)(ceil_div(s->keys, SIDE) * s->heads * s->batch),
                   by_queries = (unsigned)(ceil_div(s->queries, SIDE) * s->heads * s->batch);
    const float *lse = (const float *)t->lse->data;
    if (!cuda_allow_shared(k, "attention", (const void *)backward<T, D, true>, bytes) ||
        !cuda_allow_shared(k, "attention", (const void *)backward<T, D, false>, bytes))
        return;
#define DATA(x) ((T *)t->x->data)
    row_products<<<(unsigned)ceil_div(rows * s->heads, THREADS / 32), THREADS, 0, stream_of(k)>>>(
        delta, DATA(dout), DATA(o), rows, s->heads, s->d);
    if (t->dk)
        backward<T, D, true><<<by_keys, THREADS, bytes, stream_of(k)>>>(DATA(dk), DATA(dv), DATA(k), DATA(v),
                                                                        DATA(q), DATA(dout), lse, delta, *s);
    backward<T, D, false><<<by_queries, THREADS, bytes, stream_of(k)>>>(
        DATA(dq), (T *)NULL, DATA(q), DATA(dout), DATA(k), DATA(v), lse, delta, *s);
#undef DATA
}

static bool takes_forward(struct kern *, const struct attention_shape *s, const struct attention_forward *)
{
    return s->d <= MAX_D;
}

static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    if (!t->q->data) return; /* planning: there is no scratch */
    CALL_BY_DTYPE(t->q->dtype, T, CALL_BY_HEAD(s->d, D, launch_forward<T, D>(k, s, t)));
    cuda_good(k, "attention_forward", cudaGetLastError());
}

static bool takes_backward(struct kern *, const struct attention_shape *s, const struct attention_backward *)
{
    return s->d <= MAX_D;
}

static void run_backward(struct kern *k, const struct attention_shape *s, const struct attention_backward *t)
{
    float *delta = (float *)cuda_scratch(k, DT_F32, s->batch * s->queries * s->heads);
    if (!delta) return;
    CALL_BY_DTYPE(t->q->dtype, T, CALL_BY_HEAD(s->d, D, launch_backward<T, D>(k, s, t, delta)));
    cuda_good(k, "attention_backward", cudaGetLastError());
}

const struct attention_way attention_f32 = {"f32", takes_forward, run_forward, takes_backward, run_backward};
