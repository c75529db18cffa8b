#include "kernels/cuda/spectrum.h"

#include <cufft.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

struct spectrum_plans {
    int H, W;
    int64_t count;
    cufftHandle real, complex, back; /* along w, along h in either direction, back along w */
    size_t work;
    struct spectrum_plans *next;
};

struct cuda_spectra {
    float *tables; /* of the folded transform, on the device */
    struct spectrum_plans *plans;
    bool fft_only;
};

/* ---- folded ------------------------------------------------------------------------------------------ */

/* For one size of grid the transform is written out: cosines are even and sines odd in every index, so rows h
 * and H-h, columns w and W-w are first added and subtracted. That leaves four quarters of a plane, each a
 * small real matrix between two tables of cosines or sines, and 2.5 times fewer products than the plain
 * matrices need. With q even and odd in (h, w) and its transform named by the tables' functions,
 *   x[u,f] = cc - ss - i (sc + cs),  x[-u,f] = cc + ss - i (cs - sc),
 * and the same tables, being symmetric, lead back. */
enum {
    H = 30,
    W = 45,
    F = W / 2 + 1,
    HALF = H / 2 + 1,
    PAD = (F + 3) / 4 * 4,
    PLANES = 4, /* of a block */
    PARTS = 2,  /* threads that share the rows of a column of a plane */
    ROWS = HALF / PARTS,
    ACTIVE = F * PARTS * PLANES,
    THREADS = (ACTIVE + 31) / 32 * 32
};
static_assert(HALF % (4 * PARTS) == 0, "rows are read four by four");

struct alignas(16) tables {
    float cols[2][PAD][PAD], rows[2][HALF][HALF]; /* cosines, then sines; zero from F on */
};

struct alignas(16) quarters { /* [even, odd in w even in h, odd in h even in w, odd] */
    float at[PLANES][4][HALF][PAD];
};

struct shared {
    struct tables table;
    struct quarters in, between;
};

/* Along w, then along h: put(plane, u, f, the four quarters' results there). */
template <typename Put> __device__ static void transform(struct shared &s, Put put)
{
    const int tid = (int)threadIdx.x, f = tid % F, part = tid / F;
    __syncthreads();
    for (int odd = 0; odd < 2 && tid < ACTIVE; odd++) {
        float e[PAD];
#pragma unroll
        for (int w = 0; w < PAD; w++) e[w] = s.table.cols[odd][w][f];
#pragma unroll 4
        for (int row = part; row < PLANES * 2 * HALF; row += PARTS * PLANES) {
            const int plane = row / (2 * HALF), quarter = row / HALF % 2 * 2 + odd;
            const float4 *from = (const float4 *)s.in.at[plane][quarter][row % HALF];
            float sum = 0;
#pragma unroll
            for (int i = 0; i < PAD / 4; i++) {
                const float4 v = from[i];
                sum += v.x * e[4 * i] + v.y * e[4 * i + 1] + v.z * e[4 * i + 2] + v.w * e[4 * i + 3];
            }
            s.between.at[plane][quarter][row % HALF][f] = sum;
        }
    }
    __syncthreads();
    if (tid >= ACTIVE) return;
    const int plane = part / PARTS, first = part % PARTS * ROWS;
    float sum[4][ROWS] = {};
#pragma unroll 4
    for (int h = 0; h < HALF; h++) {
        float e[2][ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            e[0][i] = s.table.rows[0][h][first + i], e[1][i] = s.table.rows[1][h][first + i];
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const float v = s.between.at[plane][q][h][f];
#pragma unroll
            for (int i = 0; i < ROWS; i++) sum[q][i] += v * e[q / 2][i];
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) put(plane, first + i, f, sum[0][i], sum[1][i], sum[2][i], sum[3][i]);
}

/* What any card of compute capability 8.0 or later lets a block have. */
static_assert(sizeof(struct shared) <= 99 << 10, "too much shared memory");

/* Where an index is its own mirror image there is one of it, not two. */
__device__ static inline bool own_mirror(int i, int n)
{
    return i == 0 || 2 * i == n;
}

__device__ static inline void load_tables(struct shared &s, const struct tables *from)
{
    for (int i = (int)threadIdx.x; i < (int)(sizeof s.table / 16); i += THREADS)
        ((float4 *)&s.table)[i] = ((const float4 *)from)[i];
}

__device__ static inline float column_weight(int f, bool weighted)
{
    return !weighted ? 1 : (own_mirror(f, W) ? 1.0f : 2.0f) / (float)(H * W);
}

__global__ static void __launch_bounds__(THREADS, 4)
    folded_to_spectrum(stack<float2> x, stack<float> in, int64_t count, const struct tables *tables,
                       bool weighted)
{
    extern __shared__ float4 memory[];
    struct shared &s = *(struct shared *)memory;
    const int64_t first = (int64_t)blockIdx.x * PLANES;
    load_tables(s, tables);
    for (int i = (int)threadIdx.x; i < PLANES * HALF * PAD; i += THREADS) {
        const int p = i / (HALF * PAD), h = i / PAD % HALF, w = i % PAD;
        const bool there = w < F && first + p < count;
        const bool two_h = there && !own_mirror(h, H), two_w = there && !own_mirror(w, W);
        const float a = there ? in(first + p, h, w) : 0, b = two_w ? in(first + p, h, W - w) : 0;
        const float c = two_h ? in(first + p, H - h, w) : 0,
                    d = two_h && two_w ? in(first + p, H - h, W - w) : 0;
        s.in.at[p][0][h][w] = (a + b) + (c + d);
        s.in.at[p][1][h][w] = (a - b) + (c - d);
        s.in.at[p][2][h][w] = (a + b) - (c + d);
        s.in.at[p][3][h][w] = (a - b) - (c - d);
    }
    transform(s, [=](int p, int u, int f, float cc, float cs, float sc, float ss) {
        const float weight = column_weight(f, weighted);
        if (first + p >= count) return;
        x(first + p, u, f) = make_float2(weight * (cc - ss), -weight * (sc + cs));
        if (!own_mirror(u, H)) x(first + p, H - u, f) = make_float2(weight * (cc + ss), weight * (sc - cs));
    });
}

__global__ static void __launch_bounds__(THREADS, 4)
    folded_from_spectrum(stack<float> out, stack<float2> x, int64_t count, const struct tables *tables,
                         bool weighted)
{
    extern __shared__ float4 memory[];
    struct shared &s = *(struct shared *)memory;
    const int64_t first = (int64_t)blockIdx.x * PLANES;
    load_tables(s, tables);
    for (int i = (int)threadIdx.x; i < PLANES * HALF * PAD; i += THREADS) {
        const int p = i / (HALF * PAD), u = i / PAD % HALF, f = i % PAD;
        const bool there = f < F && first + p < count;
        const float weight = column_weight(f, weighted);
        const float2 none = make_float2(0, 0), a = there ? x(first + p, u, f) : none;
        const float2 b = there && !own_mirror(u, H) ? x(first + p, H - u, f) : none;
        s.in.at[p][0][u][f] = weight * (a.x + b.x);
        s.in.at[p][1][u][f] = -weight * (a.y + b.y);
        s.in.at[p][2][u][f] = -weight * (a.y - b.y);
        s.in.at[p][3][u][f] = -weight * (a.x - b.x);
    }
    transform(s, [=](int p, int h, int w, float cc, float cs, float sc, float ss) {
        const bool two_h = !own_mirror(h, H), two_w = !own_mirror(w, W);
        if (first + p >= count) return;
        out(first + p, h, w) = (cc + ss) + (cs + sc);
        if (two_w) out(first + p, h, W - w) = (cc - ss) - (cs - sc);
        if (two_h) out(first + p, H - h, w) = (cc - ss) + (cs - sc);
        if (two_h && two_w) out(first + p, H - h, W - w) = (cc + ss) - (cs + sc);
    });
}

/* cos or sin of 2π m / n, exact at the quarters: the sines that must be zero are. */
static float circle(bool sine, int64_t m, int64_t n)
{
    static const float quarter[] = {1, 0, -1, 0};
    m %= n;
    if (4 * m % n == 0) return quarter[(4 * m / n + (sine ? 3 : 0)) % 4];
    const double a = 2 * M_PI * (double)m / (double)n;
    return (float)(sine ? sin(a) : cos(a));
}

static bool make_tables(struct kern *k, struct cuda_spectra *s)
{
    static thread_local struct tables t;
    if (s->tables) return true;
    for (int odd = 0; odd < 2; odd++) {
        for (int w = 0; w < F; w++)
            for (int f = 0; f < F; f++) t.cols[odd][w][f] = circle(odd, w * f, W);
        for (int h = 0; h < HALF; h++)
            for (int u = 0; u < HALF; u++) t.rows[odd][h][u] = circle(odd, h * u, H);
    }
    if (cuda_good(k, "spectrum", cudaMalloc((void **)&s->tables, sizeof t)) &&
        cuda_good(k, "spectrum",
                  cudaMemcpyAsync(s->tables, &t, sizeof t, cudaMemcpyHostToDevice, stream_of(k))) &&
        cuda_good(k, "spectrum", cudaStreamSynchronize(stream_of(k))) &&
        cuda_good(k, "spectrum",
                  cudaFuncSetAttribute(folded_to_spectrum, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       sizeof(struct shared))) &&
        cuda_good(k, "spectrum",
                  cudaFuncSetAttribute(folded_from_spectrum, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       sizeof(struct shared))))
        return true;
    cudaFree(s->tables);
    s->tables = NULL;
    return false;
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
static const struct spectrum_plans *plans_for(struct kern *k, struct cuda_spectra *s, int rows, int cols,
                                              int64_t count)
{
    const int64_t half = cols / 2 + 1;
    for (struct spectrum_plans *p = s->plans; p; p = p->next)
        if (p->H == rows && p->W == cols && p->count == count) return p;
    struct spectrum_plans *p = (struct spectrum_plans *)calloc(1, sizeof *p);
    if (!p) {
        kern_fail(k, "out of memory");
        return NULL;
    }
    *p = {rows, cols, count, -1, -1, -1, 0, s->plans};
    if (make_plan(k, &p->real, CUFFT_R2C, cols, 1, cols, half, rows * count, &p->work) &&
        make_plan(k, &p->complex, CUFFT_C2C, rows, count * half, 1, 1, count * half, &p->work) &&
        make_plan(k, &p->back, CUFFT_C2R, cols, 1, half, cols, rows * count, &p->work))
        return s->plans = p;
    free_plans(p);
    return NULL;
}

/* x [n/half,half]: column 0, and W/2 when there is one, times `self`, the others times `other`. real: of
 * those columns keep the real part only, for the transform back to real numbers may take it for granted. */
__global__ static void weigh(float2 *x, int64_t n, int half, int cols, float self, float other, bool real)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x) {
        const int f = (int)(i % half);
        const bool own = own_mirror(f, cols);
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

bool cuda_spectrum_make(struct kern *k, struct cuda_spectrum *s, int64_t rows, int64_t cols, int64_t count)
{
    struct cuda *c = cuda_of(k);
    if (!kern_ok(k)) return false;
    if (rows > INT_MAX / 4 || cols > INT_MAX / 4 || rows * (cols / 2 + 1) > INT_MAX / 4) {
        kern_fail(k, "spectrum: %lld x %lld tokens are too many", (long long)rows, (long long)cols);
        return false;
    }
    if (!c->spectra && !(c->spectra = (struct cuda_spectra *)calloc(1, sizeof *c->spectra))) {
        kern_fail(k, "out of memory");
        return false;
    }
    *s = {k, (int)rows, (int)cols, (int)cols / 2 + 1, count, NULL, NULL};
    if (rows == H && cols == W && !c->spectra->fft_only) return make_tables(k, c->spectra);
    if ((s->plans = plans_for(k, c->spectra, s->H, s->W, count)))
        s->work = cuda_scratch(k, DT_U8, (int64_t)s->plans->work);
    return kern_ok(k);
}

stack<float> cuda_spectrum_space(const struct cuda_spectrum *s)
{
    float *at = (float *)cuda_scratch(s->k, DT_F32, s->count * s->H * s->W);
    if (s->plans) return {at, s->W, s->count * s->W};
    return {at, (int64_t)s->H * s->W, s->W};
}

stack<float2> cuda_spectrum_frequencies(const struct cuda_spectrum *s)
{
    float2 *at = (float2 *)cuda_scratch(s->k, DT_F32, 2 * s->count * s->H * s->F);
    if (s->plans) return {at, s->F, s->count * s->F};
    return {at, (int64_t)s->H * s->F, s->F};
}

static const struct tables *tables_of(struct kern *k)
{
    return (const struct tables *)cuda_of(k)->spectra->tables;
}

void cuda_to_spectrum(const struct cuda_spectrum *s, stack<float2> x, stack<float> in, bool weighted)
{
    struct kern *k = s->k;
    if (!kern_ok(k)) return;
    if (!s->plans) {
        folded_to_spectrum<<<(unsigned)ceil_div(s->count, PLANES), THREADS, sizeof(struct shared),
                             stream_of(k)>>>(x, in, s->count, tables_of(k), weighted);
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
    if (!s->plans) {
        folded_from_spectrum<<<(unsigned)ceil_div(s->count, PLANES), THREADS, sizeof(struct shared),
                               stream_of(k)>>>(out, x, s->count, tables_of(k), weighted);
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
    while (s && s->plans) {
        struct spectrum_plans *p = s->plans;
        s->plans = p->next;
        free_plans(p);
    }
    if (s) cudaFree(s->tables);
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

size_t cuda_cufft_version(void)
{
    int version = 0;
    return cufftGetVersion(&version) == CUFFT_SUCCESS ? (size_t)version : 0;
}
