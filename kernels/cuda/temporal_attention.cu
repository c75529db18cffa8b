/* Attention between frames. Between the sums over tokens and the additions to them there are only T rows:
 * one block computes those, in double. Three launches either way. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 512 };

struct pooled {
    int64_t T, S;
    int r, heads, d;
    const float *w[3];
    float *dw[3];
    float *mean, *da;        /* [T,r]: means of z, sums of dy */
    double *qkv[3], *p;      /* [T,r], [heads,T,T] */
    double *dqkv[3], *slope; /* their gradients; slope that of q kᵀ */
    float *row;              /* [T,r]: what is added to each token of a frame */
};

/* sums[t,c] = scale Σ z[t,i,c] over the S tokens of frame t, which is the block */
template <typename E>
__global__ static void __launch_bounds__(THREADS)
    sum_frames(float *sums, float scale, const E *z, int64_t S, int r)
{
    __shared__ float shared[THREADS];
    const int tid = (int)threadIdx.x;
    z += blockIdx.x * S * r;
    sums += blockIdx.x * (int64_t)r;
    for (int c0 = 0; c0 < r; c0 += THREADS) {
        const int n = min(r - c0, (int)THREADS), rows = THREADS / n, c = tid % n;
        float s = 0;
        if (tid < rows * n)
#pragma unroll 8
            for (int64_t i = tid / n; i < S; i += rows) s += to_float(z[i * r + c0 + c]);
        shared[tid] = s;
        __syncthreads();
        if (tid < n) {
            for (int i = 1; i < rows; i++) s += shared[i * n + c];
            sums[c0 + c] = scale * s;
        }
        __syncthreads();
    }
}

/* y = x + each frame's row; y may be x. n elements, each pack in one frame. */
template <typename E, int N>
__global__ static void add_to_frames(E *y, const E *x, const float *row, int64_t n, int64_t of_frame, int r)
{
    const int64_t i = N * (blockIdx.x * (int64_t)blockDim.x + threadIdx.x);
    if (i >= n) return;
    const float *add = row + i / of_frame * r + i % r;
    if (N == 1) {
        y[i] = from_float<E>(to_float(x[i]) + add[0]);
        return;
    }
    pack<E> v = load_pack(x + i);
#pragma unroll
    for (int j = 0; j < N; j++) v.v[j] = from_float<E>(to_float(v.v[j]) + add[j]);
    store_pack(y + i, v);
}

/* for every i < n, by a whole block, which then has seen them all */
#define EACH(i, n) for (int64_t i = threadIdx.x; i < (n); i += THREADS)

template <typename A, typename B>
__device__ static double dot(const A *a, const B *b, int64_t n, int64_t stride)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)a[i * stride] * (double)b[i * stride];
    return s;
}

/* q, k, v = mean Wᵀ; p = softmax(q kᵀ / √d) per head; row = p v */
__device__ static void attend(const pooled &g)
{
    const int64_t T = g.T, r = g.r, d = g.d;
    EACH(i, 3 * T * r)
    {
        const int64_t which = i / (T * r), t = i / r % T, c = i % r;
        g.qkv[which][t * r + c] = dot(g.w[which] + c * r, g.mean + t * r, r, 1);
    }
    __syncthreads();
    EACH(i, g.heads * T)
    {
        const int64_t h = i / T, t = i % T;
        double *p = g.p + i * T, most = -INFINITY, sum = 0;
        for (int64_t s = 0; s < T; s++) {
            p[s] = dot(g.qkv[0] + t * r + h * d, g.qkv[1] + s * r + h * d, d, 1) / sqrt((double)d);
            most = fmax(most, p[s]);
        }
        for (int64_t s = 0; s < T; s++) sum += p[s] = exp(p[s] - most);
        for (int64_t s = 0; s < T; s++) p[s] /= sum;
    }
    __syncthreads();
}

__global__ static void __launch_bounds__(THREADS) attend_forward(const pooled g)
{
    const int64_t T = g.T, r = g.r;
    attend(g);
    EACH(i, T * r)
    {
        const int64_t t = i / r, c = i % r, h = c / g.d;
        double a = 0;
        for (int64_t s = 0; s < T; s++) a += g.p[(h * T + t) * T + s] * g.qkv[2][s * r + c];
        g.row[i] = (float)a;
    }
}

/* dv = pᵀ da, slope = p ⊙ (da vᵀ - rowsum(p ⊙ da vᵀ)) / √d, dq = slope k, dk = slopeᵀ q, row = dmean / S */
__global__ static void __launch_bounds__(THREADS) attend_backward(const pooled g)
{
    const int64_t T = g.T, r = g.r, d = g.d;
    attend(g);
    EACH(i, g.heads * T)
    {
        const int64_t h = i / T, t = i % T;
        const double *p = g.p + i * T;
        double *slope = g.slope + i * T, mean = 0;
        for (int64_t s = 0; s < T; s++) {
            slope[s] = dot(g.da + t * r + h * d, g.qkv[2] + s * r + h * d, d, 1);
            mean += p[s] * slope[s];
        }
        for (int64_t s = 0; s < T; s++) slope[s] = p[s] * (slope[s] - mean) / sqrt((double)d);
    }
    __syncthreads();
    EACH(i, T * r)
    {
        const int64_t t = i / r, c = i % r, h = c / d;
        const double *p = g.p + h * T * T, *slope = g.slope + h * T * T;
        double dq = 0, dk = 0, dv = 0;
        for (int64_t s = 0; s < T; s++) {
            dq += slope[t * T + s] * g.qkv[1][s * r + c];
            dk += slope[s * T + t] * g.qkv[0][s * r + c];
            dv += p[s * T + t] * (double)g.da[s * r + c];
        }
        g.dqkv[0][i] = dq, g.dqkv[1][i] = dk, g.dqkv[2][i] = dv;
    }
    __syncthreads();
    EACH(i, 3 * r * r)
    {
        const int64_t which = i / (r * r), c = i / r % r, j = i % r;
        float *dw = g.dw[which] + c * r + j;
        *dw = (float)((double)*dw + dot(g.dqkv[which] + c, g.mean + j, T, r));
    }
    EACH(i, T * r)
    {
        const int64_t t = i / r, j = i % r;
        double sum = 0;
        for (int which = 0; which < 3; which++)
            for (int64_t c = 0; c < r; c++) sum += g.dqkv[which][t * r + c] * (double)g.w[which][c * r + j];
        g.row[i] = (float)(sum / (double)g.S);
    }
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

/* Sizes and scratch; false while planning or when there is no room. */
static bool prepare(struct pooled *g, struct kern *k, const struct tensor *z, const struct tensor *w,
                    int heads)
{
    const int64_t T = z->shape[0], r = z->shape[2];
    if (z->dtype == DT_F64) {
        kern_fail(k, "temporal_attention: sums in doubles are for the CPU");
        return false;
    }
    *g = {};
    g->T = T, g->S = z->shape[1], g->r = (int)r, g->heads = heads, g->d = (int)(r / heads);
    for (int i = 0; i < 3; i++) {
        g->w[i] = (const float *)w[i].data;
        g->qkv[i] = (double *)cuda_scratch(k, DT_F64, T * r);
    }
    g->p = (double *)cuda_scratch(k, DT_F64, heads * T * T);
    g->mean = (float *)cuda_scratch(k, DT_F32, T * r);
    g->row = (float *)cuda_scratch(k, DT_F32, T * r);
    return kern_ok(k) && !kern_planning(k);
}

static void sums(struct kern *k, float *to, float scale, const struct tensor *z)
{
    CALL_BY_DTYPE(z->dtype, E,
                  sum_frames<E><<<(unsigned)z->shape[0], THREADS, 0, stream_of(k)>>>(
                      to, scale, (const E *)z->data, z->shape[1], (int)z->shape[2]));
    CUDA_LAUNCHED(k);
}

template <typename E>
static void add_rows(struct kern *k, struct tensor *y, const struct tensor *x, const float *row)
{
    enum { N = pack<E>::N };
    const int64_t n = tensor_count(x), of_frame = n / x->shape[0];
    const int r = (int)x->shape[2];
    const bool packs = r % N == 0 && (uintptr_t)x->data % 16 == 0 && (uintptr_t)y->data % 16 == 0;
    const unsigned blocks = (unsigned)ceil_div(packs ? n / N : n, 256);
    if (packs)
        add_to_frames<E, N>
            <<<blocks, 256, 0, stream_of(k)>>>((E *)y->data, (const E *)x->data, row, n, of_frame, r);
    else
        add_to_frames<E, 1>
            <<<blocks, 256, 0, stream_of(k)>>>((E *)y->data, (const E *)x->data, row, n, of_frame, r);
    CUDA_LAUNCHED(k);
}

void cuda_temporal_attention_forward(struct kern *k, struct tensor *y, const struct tensor *z,
                                     const struct tensor w[3], int heads)
{
    struct pooled g;
    if (!prepare(&g, k, z, w, heads)) return;
    sums(k, g.mean, 1 / (float)g.S, z);
    attend_forward<<<1, THREADS, 0, stream_of(k)>>>(g);
    CUDA_LAUNCHED(k);
    CALL_BY_DTYPE(z->dtype, E, add_rows<E>(k, y, z, g.row));
}

void cuda_temporal_attention_backward(struct kern *k, struct tensor *dz, struct tensor dw[3],
                                      const struct tensor *dy, const struct tensor *z,
                                      const struct tensor w[3], int heads)
{
    struct pooled g;
    const int64_t T = z->shape[0], r = z->shape[2];
    bool ready = prepare(&g, k, z, w, heads);
    for (int i = 0; i < 3; i++) {
        g.dw[i] = (float *)dw[i].data;
        g.dqkv[i] = (double *)cuda_scratch(k, DT_F64, T * r);
    }
    g.slope = (double *)cuda_scratch(k, DT_F64, heads * T * T);
    g.da = (float *)cuda_scratch(k, DT_F32, T * r);
    if (!ready || !kern_ok(k)) return;
    sums(k, g.mean, 1 / (float)g.S, z);
    sums(k, g.da, 1, dy);
    attend_backward<<<1, THREADS, 0, stream_of(k)>>>(g);
    CUDA_LAUNCHED(k);
    CALL_BY_DTYPE(z->dtype, E, add_rows<E>(k, dz, dy, g.row));
}
