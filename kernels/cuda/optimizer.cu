/* The loss, the norm of a gradient, AdamW. Everything is F32 here; sums that the host sees are double. */
#include "kernels/cuda/vectors.h"

#include <math.h>

enum { THREADS = 256, PARTS = 1024 };

/* Σ over a block, in a fixed order, for thread 0. */
__device__ static double block_total(double x)
{
    __shared__ double shared[32];
    for (int n = 16; n; n /= 2) x += __shfl_xor_sync(0xffffffff, x, n);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x < (blockDim.x + 31) / 32 ? shared[threadIdx.x] : 0;
    for (int n = 16; n && threadIdx.x < 32; n /= 2) x += __shfl_xor_sync(0xffffffff, x, n);
    return x;
}

/* part[block] = Σ (a - b)², and the gradient slope (a - b) into d; without b, Σ a². N values at a time, and
 * `rest` more. */
template <int N>
__global__ static void __launch_bounds__(THREADS)
    squares(double *part, float *d, const float *a, const float *b, double slope, int64_t n, int rest)
{
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
        vec<float, N> x = load<N>(a + i * N);
        const vec<float, N> y = b ? load<N>(b + i * N) : vec<float, N>{};
        for (int j = 0; j < N; j++) {
            const double e = (double)x.v[j] - (double)y.v[j];
            sum += e * e;
            x.v[j] = (float)(slope * e);
        }
        if (d) store<N>(d + i * N, x);
    }
    if (blockIdx.x == 0 && threadIdx.x < rest) {
        const double e = (double)a[n * N + threadIdx.x] - (b ? (double)b[n * N + threadIdx.x] : 0);
        sum += e * e;
        if (d) d[n * N + threadIdx.x] = (float)(slope * e);
    }
    sum = block_total(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

__global__ static void add_up(double *to, const double *part, int n)
{
    const double sum = block_total(threadIdx.x < n ? part[threadIdx.x] : 0);
    if (threadIdx.x == 0) *to = sum;
}

/* Waits, since the host wants the sum. How it is cut into parts depends on the number of values alone. */
static double sum_of_squares(struct kern *k, const char *what, struct tensor *d, const struct tensor *a,
                             const struct tensor *b, double slope)
{
    struct cuda *c = cuda_of(k);
    const int64_t count = tensor_count(a), blocks = ceil_div(count, 4 * THREADS);
    const int parts = (int)(blocks < 1 ? 1 : blocks < PARTS ? blocks : (int64_t)PARTS);
    float *to = d ? (float *)d->data : NULL;
    const float *x = (const float *)a->data, *y = b ? (const float *)b->data : NULL;
    double *part = (double *)c->workspace;
    if (aligned(to, 16) && aligned(x, 16) && aligned(y, 16))
        squares<4><<<parts, THREADS, 0, c->stream>>>(part, to, x, y, slope, count / 4, (int)(count % 4));
    else
        squares<1><<<parts, THREADS, 0, c->stream>>>(part, to, x, y, slope, count, 0);
    add_up<<<1, PARTS, 0, c->stream>>>(c->sums, part, parts);
    if (cuda_good(k, what, cudaGetLastError()) && cuda_good(k, what, cudaStreamSynchronize(c->stream)))
        return c->sums[0];
    return 0;
}

extern "C" void cuda_mse_forward_backward(struct kern *k, double *loss, struct tensor *dpred,
                                          const struct tensor *pred, const struct tensor *target,
                                          double weight)
{
    const double n = (double)tensor_count(pred);
    *loss = weight / n * sum_of_squares(k, "mse_forward_backward", dpred, pred, target, 2 * weight / n);
}

extern "C" void cuda_sum_squares(struct kern *k, double *sum, const struct tensor *x)
{
    *sum = sum_of_squares(k, "sum_squares", NULL, x, NULL, 0);
}

struct step { /* adamw, for one step: what the host can work out in double */
    float keep, rate, beta1, rest1, beta2, rest2, unbias2, eps, gscale;
};

template <int N>
__global__ static void __launch_bounds__(THREADS)
    adamw(float *p, float *m, float *v, const float *g, int64_t n, struct step o)
{
    const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (i >= n) return;
    vec<float, N> value = load<N>(p + i), mean = load<N>(m + i), square = load<N>(v + i);
    const vec<float, N> slope = load<N>(g + i);
    for (int j = 0; j < N; j++) {
        const float grad = o.gscale * slope.v[j];
        mean.v[j] = o.beta1 * mean.v[j] + o.rest1 * grad;
        square.v[j] = o.beta2 * square.v[j] + o.rest2 * grad * grad;
        value.v[j] = o.keep * value.v[j] - o.rate * mean.v[j] / (sqrtf(square.v[j] * o.unbias2) + o.eps);
    }
    store<N>(p + i, value);
    store<N>(m + i, mean);
    store<N>(v + i, square);
}

extern "C" void cuda_adamw_step(struct kern *k, struct tensor *p, struct tensor *m, struct tensor *v,
                                const struct tensor *g, double gscale, int64_t t, const struct adamw *o)
{
    const int64_t n = tensor_count(p);
    const struct step s = {(float)(1 - o->lr * o->weight_decay),
                           (float)(o->lr / (1 - pow(o->beta1, (double)t))),
                           (float)o->beta1,
                           (float)(1 - o->beta1),
                           (float)o->beta2,
                           (float)(1 - o->beta2),
                           (float)(1 / (1 - pow(o->beta2, (double)t))),
                           (float)o->eps,
                           (float)gscale};
    float *fp = (float *)p->data, *fm = (float *)m->data, *fv = (float *)v->data;
    const float *fg = (const float *)g->data;
    const int64_t whole = vectorizable(4, p, m, v, g) ? n / 4 * 4 : 0, rest = n - whole;
    if (whole)
        adamw<4>
            <<<(unsigned)ceil_div(whole, 4 * THREADS), THREADS, 0, stream_of(k)>>>(fp, fm, fv, fg, whole, s);
    if (rest)
        adamw<1><<<(unsigned)ceil_div(rest, THREADS), THREADS, 0, stream_of(k)>>>(
            fp + whole, fm + whole, fv + whole, fg + whole, rest, s);
    cuda_good(k, "adamw_step", cudaGetLastError());
}
