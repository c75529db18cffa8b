#include "kernels/cuda/spectrum.h"

#include <cufft.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

/* A thread's tile of results is ROWS rows of two numbers; SHARED leaves room for two blocks on a
 * multiprocessor. */
enum { ROWS = 5, THREADS = 288, SHARED = 112 << 10 };

struct spectrum_tables {
    int H, W;
    float2 *rows, *cols; /* [H,H] e^(-2πi u h / H), [W,F] e^(-2πi f w / W) */
    struct spectrum_tables *next;
};

struct spectrum_plans {
    int H, W;
    int64_t count;
    cufftHandle real, complex, back; /* along w, along h in either direction, back along w */
    size_t work;
    struct spectrum_plans *next;
};

struct cuda_spectra {
    struct spectrum_tables *tables;
    struct spectrum_plans *plans;
    bool fft_only;
};

/* ---- dense ------------------------------------------------------------------------------------------ */

/* y = x b, for x [rows, 4 quads] and b [4 quads, 2 pairs] in shared memory: put(row, pair, two results) */
template <typename Put>
__device__ static void multiply(const float4 *x, int rows, int quads, const float2 *b, int pairs, Put put)
{
    for (int task = threadIdx.x; task < (rows + ROWS - 1) / ROWS * pairs; task += THREADS) {
        const int pair = task % pairs, first = task / pairs * ROWS;
        float2 sum[ROWS] = {};
        for (int q = 0; q < quads; q++) {
            const float2 *e = b + 4 * q * pairs + pair;
            const float2 e0 = e[0], e1 = e[pairs], e2 = e[2 * pairs], e3 = e[3 * pairs];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const float4 v = x[min(first + i, rows - 1) * quads + q];
                sum[i].x += v.x * e0.x + v.y * e1.x + v.z * e2.x + v.w * e3.x;
                sum[i].y += v.x * e0.y + v.y * e1.y + v.z * e2.y + v.w * e3.y;
            }
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (first + i < rows) put(first + i, pair, sum[i]);
    }
}

/* y[u] = Σ_h m[u,h] x[h] of every column of x [planes,n,cols]: put(plane, u, column, result) */
template <typename Put>
__device__ static void mix_rows(const float2 *x, int planes, int n, int cols, const float2 *m, Put put)
{
    const int groups = (n + ROWS - 1) / ROWS;
    for (int task = threadIdx.x; task < planes * groups * cols; task += THREADS) {
        const int col = task % cols, first = task / cols % groups * ROWS, plane = task / (cols * groups);
        const float2 *in = x + plane * n * cols + col;
        float2 sum[ROWS] = {};
        for (int h = 0; h < n; h++) {
            const float2 v = in[h * cols];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const float2 e = m[min(first + i, n - 1) * n + h];
                sum[i].x += e.x * v.x - e.y * v.y;
                sum[i].y += e.x * v.y + e.y * v.x;
            }
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (first + i < n) put(plane, first + i, col, sum[i]);
    }
}

__host__ __device__ static inline int quads_of(int n)
{
    return (n + 3) / 4;
}

struct dense {
    int H, W, F, group;
    int64_t count;
    const float2 *rows, *cols;
    bool weighted;
};

__device__ static inline float column_weight(const struct dense &d, int f)
{
    return !d.weighted ? 1 : (f == 0 || 2 * f == d.W ? 1.0f : 2.0f) / (float)(d.H * d.W);
}

/* All threads of a block over rows, a warp a row */
#define EACH_ROW(row, n)    for (int row = threadIdx.x / 32; row < (n); row += THREADS / 32)
#define EACH_COLUMN(col, n) for (int col = threadIdx.x % 32; col < (n); col += 32)

/* A block transforms `group` planes, along w and then along h. */
__global__ static void __launch_bounds__(THREADS)
    dense_to_spectrum(const struct dense d, stack<float2> x, stack<float> in)
{
    extern __shared__ float4 shared[];
    const int H = d.H, W = d.W, F = d.F, quads = quads_of(W);
    float4 *space = shared;                                 /* [group H, quads] */
    float2 *half = (float2 *)(space + d.group * H * quads); /* [group H, F] */
    float2 *cols = half + d.group * H * F;                  /* [4 quads, F] */
    float2 *rows = cols + 4 * quads * F;                    /* [H, H] */
    const int64_t first = (int64_t)blockIdx.x * d.group;
    const int planes = (int)min((int64_t)d.group, d.count - first);

    EACH_ROW(row, planes * H)
    EACH_COLUMN(w, 4 * quads)
    ((float *)space)[row * 4 * quads + w] = w < W ? in(first + row / H, row % H, w) : 0;
    EACH_ROW(w, 4 * quads)
    EACH_COLUMN(f, F)
    {
        const float2 e = w < W ? d.cols[w * F + f] : make_float2(0, 0);
        cols[w * F + f] = make_float2(e.x * column_weight(d, f), e.y * column_weight(d, f));
    }
    for (int i = threadIdx.x; i < H * H; i += THREADS) rows[i] = d.rows[i];
    __syncthreads();
    multiply(space, planes * H, quads, cols, F, [=](int row, int f, float2 y) { half[row * F + f] = y; });
    __syncthreads();
    mix_rows(half, planes, H, F, rows, [=](int p, int u, int f, float2 y) { x(first + p, u, f) = y; });
}

/* The other way about: a complex number of `half` is two columns of the last product's left side. */
__global__ static void __launch_bounds__(THREADS)
    dense_from_spectrum(const struct dense d, stack<float> out, stack<float2> x)
{
    extern __shared__ float4 shared[];
    const int H = d.H, W = d.W, F = d.F, quads = quads_of(2 * F), pairs = (W + 1) / 2;
    float4 *half = shared;                                 /* [group H, quads] */
    float2 *from = (float2 *)(half + d.group * H * quads); /* [group H, F] */
    float2 *cols = from + d.group * H * F;                 /* [4 quads, pairs] */
    float2 *rows = cols + 4 * quads * pairs;               /* [H, H] */
    const int64_t first = (int64_t)blockIdx.x * d.group;
    const int planes = (int)min((int64_t)d.group, d.count - first);

    EACH_ROW(row, planes * H)
    {
        EACH_COLUMN(f, F)
        from[row * F + f] = x(first + row / H, row % H, f);
        EACH_COLUMN(f, 2 * quads - F)
        ((float2 *)half)[row * 2 * quads + F + f] = make_float2(0, 0);
    }
    EACH_ROW(w, 2 * pairs)
    EACH_COLUMN(f, 2 * quads)
    {
        const float2 e = w < W && f < F ? d.cols[w * F + f] : make_float2(0, 0);
        ((float *)cols)[2 * f * 2 * pairs + w] = e.x * column_weight(d, f);
        ((float *)cols)[(2 * f + 1) * 2 * pairs + w] = e.y * column_weight(d, f);
    }
    for (int i = threadIdx.x; i < H * H; i += THREADS) rows[i] = make_float2(d.rows[i].x, -d.rows[i].y);
    __syncthreads();
    mix_rows(from, planes, H, F, rows,
             [=](int p, int h, int f, float2 y) { ((float2 *)half)[(p * H + h) * 2 * quads + f] = y; });
    __syncthreads();
    multiply(half, planes * H, quads, cols, pairs, [=](int row, int pair, float2 y) {
        float *to = &out(first + row / H, row % H, 2 * pair);
        to[0] = y.x;
        if (2 * pair + 1 < W) to[1] = y.y;
    });
}

/* Bytes of shared memory, whichever kernel needs more. */
static size_t dense_bytes(int64_t H, int64_t W, int64_t group)
{
    const int64_t F = W / 2 + 1, to = quads_of((int)W), from = quads_of((int)(2 * F));
    const int64_t a = group * H * to + 2 * to * F, b = group * H * from + 2 * from * ((W + 1) / 2);
    return (size_t)(16 * (a > b ? a : b) + 8 * (group * H * F + H * H));
}

/* Planes a block takes: as many as give each thread a tile; 0: none fits. */
static int dense_group(int64_t H, int64_t W)
{
    const int64_t F = W / 2 + 1;
    if (H > SHARED || W > SHARED) return 0;
    int64_t group = THREADS * ROWS / (H * F) > 1 ? THREADS * ROWS / (H * F) : 1;
    while (group && dense_bytes(H, W, group) > SHARED) group--;
    return (int)group;
}

/* e^(-2πi m / n), exact at the quarters: the sines of columns 0 and W/2 are zero. */
static float2 root(int64_t m, int64_t n)
{
    static const float2 quarter[] = {{1, 0}, {0, -1}, {-1, 0}, {0, 1}};
    m %= n;
    if (4 * m % n == 0) return quarter[4 * m / n];
    const double a = 2 * M_PI * (double)m / (double)n;
    return make_float2((float)cos(a), (float)-sin(a));
}

static bool upload_roots(struct kern *k, float2 **table, int n, int rows, int cols)
{
    const size_t bytes = (size_t)rows * cols * sizeof **table;
    float2 *host = (float2 *)malloc(bytes);
    if (!host) kern_fail(k, "out of memory");
    for (int i = 0; host && i < rows * cols; i++) host[i] = root((int64_t)(i / cols) * (i % cols), n);
    const bool good = host && cuda_good(k, "spectrum", cudaMalloc((void **)table, bytes)) &&
                      cuda_good(k, "spectrum",
                                cudaMemcpyAsync(*table, host, bytes, cudaMemcpyHostToDevice, stream_of(k))) &&
                      cuda_good(k, "spectrum", cudaStreamSynchronize(stream_of(k)));
    free(host);
    return good;
}

static const struct spectrum_tables *tables_for(struct kern *k, struct cuda_spectra *s, int H, int W)
{
    for (struct spectrum_tables *t = s->tables; t; t = t->next)
        if (t->H == H && t->W == W) return t;
    struct spectrum_tables *t = (struct spectrum_tables *)calloc(1, sizeof *t);
    if (!t) {
        kern_fail(k, "out of memory");
        return NULL;
    }
    *t = {H, W, NULL, NULL, s->tables};
    if (upload_roots(k, &t->rows, H, H, H) && upload_roots(k, &t->cols, W, W, W / 2 + 1) &&
        cuda_good(
            k, "spectrum",
            cudaFuncSetAttribute(dense_to_spectrum, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED)) &&
        cuda_good(
            k, "spectrum",
            cudaFuncSetAttribute(dense_from_spectrum, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED)))
        return s->tables = t;
    cudaFree(t->rows);
    cudaFree(t->cols);
    free(t);
    return NULL;
}

/* ---- cuFFT ------------------------------------------------------------------------------------------ */

static bool fft_good(struct kern *k, cufftResult e)
{
    if (e != CUFFT_SUCCESS) kern_fail(k, "spectrum: cuFFT error %d on %s", (int)e, k->device);
    return e == CUFFT_SUCCESS;
}

/* `batch` transforms of n numbers, `stride` apart; the first numbers of two transforms are in_apart
 * (out_apart) apart. */
static bool make_plan(struct kern *k, cufftHandle *plan, cufftType type, long long n, long long stride,
                      long long in_apart, long long out_apart, long long batch, size_t *work)
{
    size_t bytes = 0;
    if (!fft_good(k, cufftCreate(plan)) || !fft_good(k, cufftSetAutoAllocation(*plan, 0)) ||
        !fft_good(k, cufftSetStream(*plan, stream_of(k))) ||
        !fft_good(k, cufftMakePlanMany64(*plan, 1, &n, &n, stride, in_apart, &n, stride, out_apart, type,
                                         batch, &bytes)))
        return false;
    if (bytes > *work) *work = bytes;
    return true;
}

static void free_plans(struct spectrum_plans *p)
{
    cufftDestroy(p->real);
    cufftDestroy(p->complex);
    cufftDestroy(p->back);
    free(p);
}

/* Planes lie side by side, row by row: only so is the transform along h one batch. */
static const struct spectrum_plans *plans_for(struct kern *k, struct cuda_spectra *s, int H, int W,
                                              int64_t count)
{
    const int64_t F = W / 2 + 1;
    for (struct spectrum_plans *p = s->plans; p; p = p->next)
        if (p->H == H && p->W == W && p->count == count) return p;
    struct spectrum_plans *p = (struct spectrum_plans *)calloc(1, sizeof *p);
    if (!p) {
        kern_fail(k, "out of memory");
        return NULL;
    }
    *p = {H, W, count, -1, -1, -1, 0, s->plans};
    if (make_plan(k, &p->real, CUFFT_R2C, W, 1, W, F, H * count, &p->work) &&
        make_plan(k, &p->complex, CUFFT_C2C, H, count * F, 1, 1, count * F, &p->work) &&
        make_plan(k, &p->back, CUFFT_C2R, W, 1, F, W, H * count, &p->work))
        return s->plans = p;
    free_plans(p);
    return NULL;
}

/* x [n/F,F]: column 0, and W/2 when there is one, times `self`, the others times `other`. real: of those
 * columns keep the real part only, for the transform back to real numbers may take it for granted. */
__global__ static void weigh(float2 *x, int64_t n, int F, int W, float self, float other, bool real)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int f = (int)(i % F);
        const bool own = f == 0 || 2 * f == W;
        const float w = own ? self : other;
        x[i] = make_float2(w * x[i].x, own && real ? 0 : w * x[i].y);
    }
}

static void weigh_columns(const struct cuda_spectrum *s, float2 *x, float self, float other, bool real)
{
    const int64_t n = s->count * s->H * s->F, blocks = ceil_div(n, 1024);
    weigh<<<(unsigned)(blocks < 4096 ? blocks : 4096), 256, 0, stream_of(s->k)>>>(x, n, s->F, s->W, self,
                                                                                  other, real);
    CUDA_LAUNCHED(s->k);
}

/* ---- either ------------------------------------------------------------------------------------------ */

bool cuda_spectrum_make(struct kern *k, struct cuda_spectrum *s, int64_t H, int64_t W, int64_t count)
{
    struct cuda *c = cuda_of(k);
    if (!kern_ok(k)) return false;
    if (H > INT_MAX / 4 || W > INT_MAX / 4 || H * (W / 2 + 1) > INT_MAX / 4) {
        kern_fail(k, "spectrum: %lld x %lld tokens are too many", (long long)H, (long long)W);
        return false;
    }
    if (!c->spectra && !(c->spectra = (struct cuda_spectra *)calloc(1, sizeof *c->spectra))) {
        kern_fail(k, "out of memory");
        return false;
    }
    *s = {k, (int)H, (int)W, (int)W / 2 + 1, c->spectra->fft_only ? 0 : dense_group(H, W), count, NULL, NULL, NULL};
    if (s->group) {
        s->tables = tables_for(k, c->spectra, s->H, s->W);
    } else if ((s->plans = plans_for(k, c->spectra, s->H, s->W, count))) {
        s->work = cuda_scratch(k, DT_U8, (int64_t)s->plans->work);
    }
    return kern_ok(k);
}

stack<float> cuda_spectrum_space(const struct cuda_spectrum *s)
{
    float *at = (float *)cuda_scratch(s->k, DT_F32, s->count * s->H * s->W);
    if (s->group) return {at, (int64_t)s->H * s->W, s->W};
    return {at, s->W, s->count * s->W};
}

stack<float2> cuda_spectrum_frequencies(const struct cuda_spectrum *s)
{
    float2 *at = (float2 *)cuda_scratch(s->k, DT_F32, 2 * s->count * s->H * s->F);
    if (s->group) return {at, (int64_t)s->H * s->F, s->F};
    return {at, s->F, s->count * s->F};
}

static struct dense dense_of(const struct cuda_spectrum *s, bool weighted)
{
    return {s->H, s->W, s->F, s->group, s->count, s->tables->rows, s->tables->cols, weighted};
}

void cuda_to_spectrum(const struct cuda_spectrum *s, stack<float2> x, stack<float> in, bool weighted)
{
    struct kern *k = s->k;
    if (!kern_ok(k)) return;
    if (s->group) {
        dense_to_spectrum<<<(unsigned)ceil_div(s->count, s->group), THREADS,
                            dense_bytes(s->H, s->W, s->group), stream_of(k)>>>(dense_of(s, weighted), x, in);
        CUDA_LAUNCHED(k);
        return;
    }
    cufftComplex *to = (cufftComplex *)x.at;
    const float each = 1 / ((float)s->H * (float)s->W);
    if (fft_good(k, cufftSetWorkArea(s->plans->real, s->work)) &&
        fft_good(k, cufftSetWorkArea(s->plans->complex, s->work)) &&
        fft_good(k, cufftExecR2C(s->plans->real, in.at, to)) &&
        fft_good(k, cufftExecC2C(s->plans->complex, to, to, CUFFT_FORWARD)) && weighted)
        weigh_columns(s, x.at, each, 2 * each, false);
}

void cuda_from_spectrum(const struct cuda_spectrum *s, stack<float> out, stack<float2> x, bool weighted)
{
    struct kern *k = s->k;
    if (!kern_ok(k)) return;
    if (s->group) {
        dense_from_spectrum<<<(unsigned)ceil_div(s->count, s->group), THREADS,
                              dense_bytes(s->H, s->W, s->group), stream_of(k)>>>(dense_of(s, weighted), out,
                                                                                 x);
        CUDA_LAUNCHED(k);
        return;
    }
    /* cuFFT's transform to real numbers counts the other columns twice. */
    cufftComplex *from = (cufftComplex *)x.at;
    const float each = 1 / ((float)s->H * (float)s->W);
    if (!fft_good(k, cufftSetWorkArea(s->plans->complex, s->work)) ||
        !fft_good(k, cufftSetWorkArea(s->plans->back, s->work)) ||
        !fft_good(k, cufftExecC2C(s->plans->complex, from, from, CUFFT_INVERSE)))
        return;
    weigh_columns(s, x.at, weighted ? each : 1, weighted ? each : 0.5f, true);
    fft_good(k, cufftExecC2R(s->plans->back, from, out.at));
}

void cuda_spectra_close(struct cuda *c)
{
    struct cuda_spectra *s = c->spectra;
    while (s && s->tables) {
        struct spectrum_tables *t = s->tables;
        s->tables = t->next;
        cudaFree(t->rows);
        cudaFree(t->cols);
        free(t);
    }
    while (s && s->plans) {
        struct spectrum_plans *p = s->plans;
        s->plans = p->next;
        free_plans(p);
    }
    free(s);
    c->spectra = NULL;
}

/* For tests: cuFFT for every grid. */
extern "C" __attribute__((visibility("default"))) bool cuda_test_fft(struct kern *k, bool only)
{
    struct cuda *c = cuda_of(k);
    if (!c->spectra) c->spectra = (struct cuda_spectra *)calloc(1, sizeof *c->spectra);
    if (c->spectra) c->spectra->fft_only = only;
    return c->spectra;
}
