/* Attention's forward pass on mma.sync, the tensor cores of every card since Ampere: BF16, heads of 64 or 128,
 * with bias, causal, many sequences, ragged ends. */
#include "kernels/cuda/attention_mma.h"

enum { WARPS = 4, THREADS = 32 * WARPS };

/* What a kernel is made for: a warp has 16 R queries of a head of D, in steps of KEYS keys, of which STAGES are
 * in shared memory; BLOCKS of blocks fit the registers of a multiprocessor. */
template <int D_, int R_, int KEYS_, int STAGES_, int BLOCKS_, bool BIAS_> struct instance {
    enum {
        D = D_,
        R = R_,
        KEYS = KEYS_,
        STAGES = STAGES_,
        BLOCKS = BLOCKS_,
        BIAS = BIAS_,
        QUERIES = 16 * R * WARPS,
        Q_HELD = D * R <= 128, /* q's operands stay in registers */
        TILE = KEYS * D * (int)sizeof(bf16),
        SHARED = QUERIES * D * (int)sizeof(bf16) + 2 * STAGES * TILE,
    };
};

/* Over the four threads that share a row. */
__device__ static float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ static float row_sum(float x)
{
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}

/* Of a warp: scores of 16 R queries and KEYS keys, which become weights; the weighted sums of v; of each of a
 * thread's 2 R rows the sum of weights, which are 2^(unit (score - base)). */
template <typename I> struct work {
    float s[I::R][I::KEYS / 8][4], acc[I::R][I::D / 8][4], base[I::R][2], sum[I::R][2];
    unsigned q[I::Q_HELD ? I::D / 16 : 1][I::R][4];
};

/* s = q kᵀ */
template <typename I> __device__ static void make_scores(work<I> &w, unsigned q, unsigned k)
{
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int j = 0; j < I::KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) w.s[r][j][e] = 0;
#pragma unroll
    for (int c = 0; c < I::D / 16; c++) {
        if (!I::Q_HELD)
#pragma unroll
            for (int r = 0; r < I::R; r++) load_a<I::D>(w.q[0][r], q, 16 * r, 16 * c);
#pragma unroll
        for (int j = 0; j < I::KEYS / 16; j++) {
            unsigned b[4];
            load_b<I::D>(b, k, 16 * j, 16 * c);
#pragma unroll
            for (int r = 0; r < I::R; r++)
                mma_pair(w.s[r][2 * j], w.s[r][2 * j + 1], w.q[I::Q_HELD ? c : 0][r], b);
        }
    }
}

/* acc += s v */
template <typename I> __device__ static void add_sums(work<I> &w, unsigned v)
{
#pragma unroll
    for (int c = 0; c < I::KEYS / 16; c++) {
        unsigned p[I::R][4];
#pragma unroll
        for (int r = 0; r < I::R; r++) pack_a(p[r], w.s[r][2 * c], w.s[r][2 * c + 1]);
#pragma unroll
        for (int j = 0; j < I::D / 16; j++) {
            unsigned b[4];
            load_b_trans<I::D>(b, v, 16 * c, 16 * j);
#pragma unroll
            for (int r = 0; r < I::R; r++) mma_pair(w.acc[r][2 * j], w.acc[r][2 * j + 1], p[r], b);
        }
    }
}

/* What the bias, at its value of distance 0, adds to a thread's scores of keys from `key` on. */
template <typename I>
__device__ static void load_bias(float (&extra)[I::R][I::KEYS / 8][4], const float *bias, int row, int key,
                                 int queries, int keys)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int j = 0; j < I::KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int q = row + 16 * r + e / 2 * 8 + lane / 4, k = key + 8 * j + lane % 4 * 2 + e % 2;
                extra[r][j][e] = q < queries && k < keys ? bias[k - q] : 0;
            }
}

/* Scores in units of log 2, with the bias; -infinity for keys that a row does not see. */
template <typename I>
__device__ static void finish_scores(work<I> &w, const float (&extra)[I::BIAS ? I::R : 1][I::KEYS / 8][4],
                                     const struct attention_shape &s, int row, int key)
{
    const int lane = threadIdx.x % 32, keys = (int)s.keys;
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = row + 16 * r + 8 * i + lane / 4;
            const int seen =
                (s.causal ? min(keys, at + 1 + keys - (int)s.queries) : keys) - key - lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < I::KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float &x = w.s[r][j][2 * i + e];
                    x *= s.scale * LOG2E;
                    if (I::BIAS) x += extra[I::BIAS ? r : 0][j][2 * i + e] * LOG2E;
                    if (j * 8 + e >= seen) x = -INFINITY;
                }
        }
}

/* Keys past the last have no weight. */
template <typename I> __device__ static void cut_scores(work<I> &w, int keys)
{
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int j = 0; j < I::KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (8 * j + threadIdx.x % 4 * 2 + e % 2 >= keys) w.s[r][j][e] = -INFINITY;
}

/* s becomes weights, which add to the sums. A row's base is near its largest score: it stays until a score
 * passes it by more than 2^8, so what the weights multiply stays in range and is seldom scaled anew. */
template <typename I> __device__ static void make_weights(work<I> &w, float unit)
{
    float highest[I::R][2];
    bool passed = false;
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float &x = highest[r][i] = fmaxf(w.s[r][0][2 * i], w.s[r][0][2 * i + 1]);
#pragma unroll
            for (int j = 1; j < I::KEYS / 8; j++) x = fmaxf(x, fmaxf(w.s[r][j][2 * i], w.s[r][j][2 * i + 1]));
            passed = passed || (x - w.base[r][i]) * unit > 8;
        }
    if (__any_sync(0xffffffff, passed))
#pragma unroll
        for (int r = 0; r < I::R; r++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float base = fmaxf(w.base[r][i], row_max(highest[r][i])),
                            shrink = power_of_2((w.base[r][i] - base) * unit);
                w.base[r][i] = base;
                w.sum[r][i] *= shrink;
#pragma unroll
                for (int j = 0; j < I::D / 8; j++) {
                    w.acc[r][j][2 * i] *= shrink;
                    w.acc[r][j][2 * i + 1] *= shrink;
                }
            }
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float shift = -w.base[r][i] * unit;
            float sum[2] = {};
#pragma unroll
            for (int j = 0; j < I::KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float &x = w.s[r][j][2 * i + e];
                    x = power_of_2(fmaf(x, unit, shift));
                    sum[e] += x;
                }
            w.sum[r][i] += sum[0] + sum[1];
        }
}

template <typename I>
__device__ static void store_rows(work<I> &w, bf16 *o, float *lse, float unit, int row, int queries,
                                  int64_t stride)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = row + 16 * r + 8 * i + lane / 4;
            const float total = row_sum(w.sum[r][i]), part = 1 / total;
            if (at >= queries) continue;
            if (lse && lane % 4 == 0) lse[at] = (w.base[r][i] * unit + log2f(total)) * LOG_2;
            bf16 *const to = o + at * stride + lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < I::D / 8; j++)
                *(unsigned *)&to[8 * j] = pack_bf16(w.acc[r][j][2 * i] * part, w.acc[r][j][2 * i + 1] * part);
        }
}

/* A block has 64 R queries of a head. `plain`: a positive scale, no bias, not causal: then only the last keys
 * need a look at who sees whom, and the scale is folded into the exponent. */
template <typename I>
__global__ static void __launch_bounds__(THREADS, I::BLOCKS)
    forward(bf16 *o, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, const float *bias,
            int64_t distances, struct attention_shape s, bool plain)
{
    extern __shared__ __align__(1024) bf16 shared[];
    const unsigned qs = shared_address(shared), ks = qs + I::QUERIES * I::D * (int)sizeof(bf16),
                   vs = ks + I::STAGES * I::TILE,
                   qm = qs + threadIdx.x / 32 * 16 * I::R * I::D * (int)sizeof(bf16);
    const int tiles = (int)((s.queries + I::QUERIES - 1) / I::QUERIES),
              first = blockIdx.x % tiles * I::QUERIES, h = blockIdx.x / tiles % s.heads,
              b = blockIdx.x / tiles / s.heads, mine = threadIdx.x / 32 * 16 * I::R;
    const int64_t stride = (int64_t)s.heads * I::D;
    const int keys = (int)s.keys,
              end = s.causal ? (int)min(s.keys, first + I::QUERIES + s.keys - s.queries) : keys,
              steps = (end + I::KEYS - 1) / I::KEYS;
    const float unit = plain ? s.scale * LOG2E : 1;
    q += b * s.queries * stride + h * I::D;
    o += b * s.queries * stride + h * I::D;
    k += b * s.keys * stride + h * I::D;
    v += b * s.keys * stride + h * I::D;
    if (lse) lse += (h * s.batch + b) * s.queries;
    if (I::BIAS) bias += h * distances + distances / 2;

    auto load_step = [&](int i) {
        if (i < steps) {
            load_tile<I::KEYS, I::D, THREADS>(ks + i % I::STAGES * I::TILE, k, i * I::KEYS, keys, stride);
            load_tile<I::KEYS, I::D, THREADS>(vs + i % I::STAGES * I::TILE, v, i * I::KEYS, keys, stride);
        }
        cp_async_commit();
    };
    load_tile<I::QUERIES, I::D, THREADS>(qs, q, first, (int)s.queries, stride);
    for (int i = 0; i < I::STAGES - 1; i++) load_step(i);
    work<I> w;
#pragma unroll
    for (int r = 0; r < I::R; r++) {
        w.base[r][0] = w.base[r][1] = -1e30f;
        w.sum[r][0] = w.sum[r][1] = 0;
#pragma unroll
        for (int j = 0; j < I::D / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) w.acc[r][j][e] = 0;
    }
    for (int i = 0; i < steps; i++) {
        cp_async_wait<I::STAGES - 2>();
        __syncthreads();
        load_step(i + I::STAGES - 1);
        if (I::Q_HELD && i == 0)
#pragma unroll
            for (int c = 0; c < I::D / 16; c++)
#pragma unroll
                for (int r = 0; r < I::R; r++) load_a<I::D>(w.q[I::Q_HELD ? c : 0][r], qm, 16 * r, 16 * c);
        float extra[I::BIAS ? I::R : 1][I::KEYS / 8][4];
        if constexpr (I::BIAS) load_bias<I>(extra, bias, first + mine, i * I::KEYS, (int)s.queries, keys);
        make_scores(w, qm, ks + i % I::STAGES * I::TILE);
        if (!plain)
            finish_scores<I>(w, extra, s, first + mine, i * I::KEYS);
        else if ((i + 1) * I::KEYS > keys)
            cut_scores<I>(w, keys - i * I::KEYS);
        make_weights(w, unit);
        add_sums(w, vs + i % I::STAGES * I::TILE);
    }
    store_rows(w, o, lse, unit, first + mine, (int)s.queries, stride);
}

template <typename I>
static void launch(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    const unsigned blocks = (unsigned)(ceil_div(s->queries, I::QUERIES) * s->heads * s->batch);
    if (!cuda_allow_shared(k, "attention", (const void *)forward<I>, I::SHARED)) return;
    forward<I><<<blocks, THREADS, I::SHARED, stream_of(k)>>>(
        (bf16 *)t->o->data, t->lse ? (float *)t->lse->data : NULL, (const bf16 *)t->q->data,
        (const bf16 *)t->k->data, (const bf16 *)t->v->data, t->bias ? (const float *)t->bias->data : NULL,
        t->bias ? t->bias->shape[1] : 0, *s, s->scale > 0 && !s->causal && !t->bias);
}

static bool takes_forward(struct kern *, const struct attention_shape *s, const struct attention_forward *t)
{
    return (s->d == 64 || s->d == 128) && attention_aligned(t->o) && attention_aligned(t->q) &&
           attention_aligned(t->k) && attention_aligned(t->v);
}

/* Few queries are shared out among more blocks. */
static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    const bool many = s->queries >= 1024 && !t->bias;
    if (!t->q->data) return; /* planning: there is no scratch */
    if (s->d == 64)
        (many      ? launch<instance<64, 2, 64, 2, 2, false>>
         : t->bias ? launch<instance<64, 1, 64, 2, 3, true>>
                   : launch<instance<64, 1, 64, 2, 3, false>>)(k, s, t);
    else
        (many      ? launch<instance<128, 2, 32, 2, 2, false>>
         : t->bias ? launch<instance<128, 1, 32, 2, 2, true>>
                   : launch<instance<128, 1, 64, 2, 2, false>>)(k, s, t);
    cuda_good(k, "attention_forward", cudaGetLastError());
}

const struct attention_way attention_mma = {"mma", takes_forward, run_forward, attention_mma_takes_backward,
                                            attention_mma_backward};
