/* attention_forward on the tensor cores of any device since Ampere: BF16, heads of 64 or 128,
 * with bias, causal, many sequences, ragged ends. Used where the work is small or not of the
 * plain kind: T5, ViT, LLaMA. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/instructions.h"

enum {
    THREADS = 128, /* 4 warps of 16 queries */
    QUERIES = 64,
    KEYS = 64, /* of a step, in two buffers */
};

static const float LOG2E = 1.44269504f, LN2 = 0.69314718f;

/* Rows of D values in shared memory lie in pieces of 16 bytes; within a row they are exchanged by its number,
 * so that eight rows' same pieces lie in different banks. */
template <int D> __device__ static bf16 *piece(bf16 *tile, int row, int c)
{
    return tile + row * D + ((c ^ (row & 7)) * 8);
}

/* 64 rows from `first` on; zeros past the end. */
template <int D>
__device__ static void load_tile(bf16 *tile, const bf16 *rows, int64_t first, int64_t end, int64_t stride)
{
    for (int i = threadIdx.x; i < 64 * D / 8; i += THREADS) {
        const int r = i / (D / 8), c = i % (D / 8);
        const bool there = first + r < end;
        copy_16(piece<D>(tile, r, c), there ? rows + (first + r) * stride + c * 8 : rows, there);
    }
}

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

/* What is added to a thread's scores of KEYS keys from `key` on, in the scores' order. */
__device__ static void load_bias(float (&to)[KEYS / 8][4], const float *bias, const int64_t (&row)[2],
                                 int64_t key, const struct attention_shape &s)
{
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t at = key + j * 8 + i % 2;
            to[j][i] = row[i / 2] < s.queries && at < s.keys ? bias[row[i / 2] * s.keys + at] : 0;
        }
}

/* A block has 64 queries of a head; scores and softmax in units of log 2. */
template <int D>
__global__ static void __launch_bounds__(THREADS)
    forward(bf16 *o, float *lse, const bf16 *q, const bf16 *kk, const bf16 *v, const float *bias,
            struct attention_shape s)
{
    extern __shared__ __align__(128) bf16 shared[];
    bf16 *const qs = shared, *const ks = qs + QUERIES * D, *const vs = ks + 2 * KEYS * D;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t tiles = (s.queries + QUERIES - 1) / QUERIES, first = blockIdx.x % tiles * QUERIES,
                  h = blockIdx.x / tiles % s.heads, b = blockIdx.x / tiles / s.heads,
                  stride = (int64_t)s.heads * D, history = s.keys - s.queries;
    q += b * s.queries * stride + h * D;
    o += b * s.queries * stride + h * D;
    kk += b * s.keys * stride + h * D;
    v += b * s.keys * stride + h * D;
    const int64_t end = s.causal ? min(s.keys, first + QUERIES + history) : s.keys;
    const int steps = (int)((end + KEYS - 1) / KEYS);
    const int64_t row[2] = {first + warp * 16 + lane / 4, first + warp * 16 + lane / 4 + 8};
    const float unit = s.scale * LOG2E;

    load_tile<D>(qs, q, first, s.queries, stride);
    load_tile<D>(ks, kk, 0, s.keys, stride);
    load_tile<D>(vs, v, 0, s.keys, stride);
    copies_commit();
    unsigned qf[D / 16][4];
    float acc[D / 8][4] = {}, max[2] = {-1e30f, -1e30f}, sum[2] = {}, extra[KEYS / 8][4];
    if (bias) load_bias(extra, bias += h * s.queries * s.keys, row, lane % 4 * 2, s);
    for (int n = 0; n < steps; n++) {
        const bf16 *const kt = ks + n % 2 * KEYS * D, *const vt = vs + n % 2 * KEYS * D;
        if (n + 1 < steps) {
            load_tile<D>(ks + (n + 1) % 2 * KEYS * D, kk, (n + 1) * KEYS, s.keys, stride);
            load_tile<D>(vs + (n + 1) % 2 * KEYS * D, v, (n + 1) * KEYS, s.keys, stride);
        }
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        if (n == 0)
#pragma unroll
            for (int c = 0; c < D / 16; c++)
                load_matrices(qf[c], piece<D>(qs, warp * 16 + lane % 16, 2 * c + lane / 16));
        float p[KEYS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < D / 16; c++)
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                unsigned kf[4];
                load_matrices(kf,
                              piece<D>((bf16 *)kt, j * 16 + lane / 16 * 8 + lane % 8, 2 * c + lane / 8 % 2));
                multiply(p[2 * j], qf[c], kf[0], kf[1]);
                multiply(p[2 * j + 1], qf[c], kf[2], kf[3]);
            }
        const int64_t key = (int64_t)n * KEYS + lane % 4 * 2;
        const bool partial = (n + 1) * KEYS > s.keys || (s.causal && (n + 1) * KEYS > first + 1 + history);
        float shrink[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int64_t seen = s.causal ? min(s.keys, row[i] + 1 + history) : s.keys;
            float highest = max[i];
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *const x = &p[j][2 * i + e];
                    const int64_t at = key + j * 8 + e;
                    *x *= unit;
                    if (bias) *x += extra[j][2 * i + e] * LOG2E;
                    if (partial && at >= seen) *x = -INFINITY;
                    highest = fmaxf(highest, *x);
                }
            highest = row_max(highest);
            shrink[i] = power_of_2(max[i] - highest);
            max[i] = highest;
            float total = 0;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) total += p[j][2 * i + e] = power_of_2(p[j][2 * i + e] - highest);
            sum[i] = sum[i] * shrink[i] + total;
        }
        if (bias && n + 1 < steps) load_bias(extra, bias, row, key + KEYS, s); /* on its way meanwhile */
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[j][i] *= shrink[i / 2];
#pragma unroll
        for (int c = 0; c < KEYS / 16; c++) {
            const unsigned pf[4] = {pack_bf16(p[2 * c][0], p[2 * c][1]), pack_bf16(p[2 * c][2], p[2 * c][3]),
                                    pack_bf16(p[2 * c + 1][0], p[2 * c + 1][1]),
                                    pack_bf16(p[2 * c + 1][2], p[2 * c + 1][3])};
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                unsigned vf[4];
                load_matrices_transposed(vf, piece<D>((bf16 *)vt, c * 16 + lane % 16, 2 * j + lane / 16));
                multiply(acc[2 * j], pf, vf[0], vf[1]);
                multiply(acc[2 * j + 1], pf, vf[2], vf[3]);
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++) {
        const float total = row_sum(sum[i]), part = 1 / total;
        if (row[i] >= s.queries) continue;
        if (lse && lane % 4 == 0) lse[(h * s.batch + b) * s.queries + row[i]] = (max[i] + log2f(total)) * LN2;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *(unsigned *)&o[row[i] * stride + j * 8 + lane % 4 * 2] =
                pack_bf16(acc[j][2 * i] * part, acc[j][2 * i + 1] * part);
    }
}

template <int D>
static void launch(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    const size_t bytes = (QUERIES + 4 * KEYS) * D * sizeof(bf16);
    const unsigned blocks = (unsigned)(ceil_div(s->queries, QUERIES) * s->heads * s->batch);
    if (!attention_allow_shared(k, (const void *)forward<D>, bytes)) return;
    forward<D><<<blocks, THREADS, bytes, stream_of(k)>>>(
        (bf16 *)t->o->data, t->lse ? (float *)t->lse->data : NULL, (const bf16 *)t->q->data,
        (const bf16 *)t->k->data, (const bf16 *)t->v->data, t->bias ? (const float *)t->bias->data : NULL,
        *s);
    cuda_good(k, "attention_forward", cudaGetLastError());
}

static bool takes_forward(struct kern *, const struct attention_shape *s, const struct attention_forward *t)
{
    return (s->d == 64 || s->d == 128) && attention_aligned(t->o) && attention_aligned(t->q) &&
           attention_aligned(t->k) && attention_aligned(t->v);
}

static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    if (!t->q->data) return; /* planning: there is no scratch */
    (s->d == 64 ? launch<64> : launch<128>)(k, s, t);
}

static bool takes_backward(struct kern *, const struct attention_shape *, const struct attention_backward *)
{
    return false;
}

const struct attention_way attention_mma = {"mma", takes_forward, run_forward, takes_backward, NULL};
