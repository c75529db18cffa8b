/* Attention with one head too wide for the other ways, forward alone: the scores of some queries as a product, a
 * softmax over its rows, a second product. Without mask and bias. */
#include "kernels/cuda/attention.h"

#include <float.h>

enum { SCORES = 1 << 24, THREADS = 256 }; /* of the queries that are worked on at once */

/* The largest of a block's values; every thread gets it. `shared` has 32 floats. */
__device__ static float block_max(float x, float *shared)
{
    for (int n = 16; n; n /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, n));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[threadIdx.x % (THREADS / 32)];
    for (int n = 16; n; n /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, n));
    return x;
}

/* p = softmax(s) row by row, a block each; p may be s. lse, unless NULL: log Σ exp of each row. */
template <typename T> __global__ static void softmax_rows(T *p, const float *s, float *lse, int64_t keys)
{
    __shared__ float shared[32];
    const int64_t at = blockIdx.x * keys;
    float most = -FLT_MAX, sum = 0;
    for (int64_t j = threadIdx.x; j < keys; j += THREADS) most = fmaxf(most, s[at + j]);
    most = block_max(most, shared);
    for (int64_t j = threadIdx.x; j < keys; j += THREADS) sum += expf(s[at + j] - most);
    sum = block_sum(sum, shared);
    for (int64_t j = threadIdx.x; j < keys; j += THREADS)
        p[at + j] = from_float<T>(expf(s[at + j] - most) / sum);
    if (lse && !threadIdx.x) lse[blockIdx.x] = most + logf(sum);
}

static bool takes_forward(struct kern *, const struct attention_shape *s, const struct attention_forward *t)
{
    return s->heads == 1 && !s->causal && !t->bias;
}

static bool takes_backward(struct kern *, const struct attention_shape *, const struct attention_backward *)
{
    return false;
}

static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    const enum dtype d = t->q->dtype;
    const int64_t fit = SCORES / s->keys > 0 ? SCORES / s->keys : 1,
                  tile = fit < s->queries ? fit : s->queries;
    const int64_t shape[] = {2, tile, s->keys};
    struct tensor scores = kern_tensor_shape(k, DT_F32, shape), p = scores;
    if (d != DT_F32) p = kern_tensor_shape(k, d, shape);
    if (k->planning || !kern_ok(k)) return;
    for (int64_t b = 0; b < s->batch; b++) {
        const struct tensor keys = tensor_rows(t->k, b * s->keys, s->keys),
                            values = tensor_rows(t->v, b * s->keys, s->keys);
        for (int64_t from = 0; from < s->queries && kern_ok(k); from += tile) {
            const int64_t n = s->queries - from < tile ? s->queries - from : tile,
                          row = b * s->queries + from;
            const struct tensor q = tensor_rows(t->q, row, n);
            struct tensor o = tensor_rows(t->o, row, n);
            scores.shape[0] = p.shape[0] = n;
            cuda_matmul(k, &scores, &q, false, &keys, true, s->scale, 0);
            CALL_BY_DTYPE(d, T,
                          softmax_rows<T><<<(unsigned)n, THREADS, 0, stream_of(k)>>>(
                              (T *)p.data, (const float *)scores.data,
                              t->lse ? (float *)t->lse->data + row : NULL, s->keys));
            cuda_matmul(k, &o, &p, false, &values, false, 1, 0);
        }
    }
    cuda_good(k, "attention_forward", cudaGetLastError());
}

const struct attention_way attention_products = {"products", takes_forward, run_forward, takes_backward,
                                                 NULL};
