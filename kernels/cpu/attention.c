#include "kernels/cpu/cpu.h"

#include <cblas.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

enum { QUERIES = 128 }; /* rows of scores that are worked on at once */

HOT static float row_max(const float *x, int64_t n)
{
    enum { LANES = 8 };
    float m[LANES];
    for (int j = 0; j < LANES; j++) m[j] = -FLT_MAX;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) m[j] = x[i + j] > m[j] ? x[i + j] : m[j];
    for (; i < n; i++) m[0] = x[i] > m[0] ? x[i] : m[0];
    for (int j = 1; j < LANES; j++) m[0] = m[j] > m[0] ? m[j] : m[0];
    return m[0];
}

HOT static void exp_row(float *x, float shift, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = vexp(x[i] - shift);
}

HOT static void scale_row(float *restrict x, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
}

HOT static void add_row(float *restrict x, const float *restrict y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

/* ds = p (ds - delta) */
HOT static void softmax_slope_row(float *restrict ds, const float *restrict p, float delta, int64_t n)
{
    for (int64_t i = 0; i < n; i++) ds[i] = p[i] * (ds[i] - delta);
}

static bool fits_blas(struct kern *k, int64_t rows, int64_t width)
{
    if (rows <= INT_MAX && width <= INT_MAX) return true;
    kern_fail(k, "attention over %lld rows of %lld is too large for BLAS", (long long)rows, (long long)width);
    return false;
}

void cpu_attention_forward(struct kern *k, struct tensor *o, struct tensor *lse, const struct tensor *q,
                           const struct tensor *kk, const struct tensor *v, const struct tensor *bias,
                           const struct attention *a)
{
    int64_t batch = a->batch ? a->batch : 1, rows = q->shape[0] / batch, keys = kk->shape[0] / batch;
    int64_t width = q->shape[1], d = width / a->heads, tile = min64(QUERIES, rows);
    float *scratch = cpu_scratch(k, DT_F32, k->threads * tile * keys);
    if (!scratch || !rows || !d || !fits_blas(k, keys, width)) return;
    const float *middle = bias ? f32(bias) + bias->shape[1] / 2 : NULL; /* of distance 0 */
    int n = (int)keys, depth = (int)d, stride = (int)width;
    PARALLEL_FOR(k, batch * a->heads * rows * keys, collapse(3))
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int64_t first = 0; first < rows; first += tile) {
                float *p = scratch + omp_get_thread_num() * tile * keys;
                int m = (int)min64(tile, rows - first);
                int64_t at = (b * rows + first) * width + h * d, key_at = b * keys * width + h * d;
                float *out = f32(o) + at;
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, depth, a->scale, f32(q) + at,
                            stride, f32(kk) + key_at, stride, 0, p, n);
                double sum[QUERIES];
                for (int64_t i = 0; i < m; i++) {
                    int64_t seen = a->causal ? first + i + 1 + keys - rows : keys;
                    float *row = p + i * keys;
                    if (bias) add_row(row, middle + h * bias->shape[1] - first - i, seen);
                    float max = row_max(row, seen);
                    exp_row(row, max, seen);
                    memset(row + seen, 0, (size_t)(keys - seen) * sizeof *row);
                    sum[i] = sum_of(row, seen);
                    if (lse) f32(lse)[(h * batch + b) * rows + first + i] = (float)(max + log(sum[i]));
                }
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, depth, n, 1, p, n, f32(v) + key_at,
                            stride, 0, out, stride);
                for (int64_t i = 0; i < m; i++) scale_row(out + i * width, (float)(1 / sum[i]), d);
            }
}

/* dk and dv sum over the query tiles of a head, so one thread does these in order. */
void cpu_attention_backward(struct kern *k, struct tensor *dq, struct tensor *dk, struct tensor *dv,
                            const struct tensor *dout, const struct tensor *o, const struct tensor *lse,
                            const struct tensor *q, const struct tensor *kk, const struct tensor *v,
                            const struct attention *a)
{
    int64_t batch = a->batch ? a->batch : 1, rows = q->shape[0] / batch, keys = kk->shape[0] / batch;
    int64_t width = q->shape[1], d = width / a->heads, tile = min64(QUERIES, rows);
    float *scratch = cpu_scratch(k, DT_F32, k->threads * 2 * tile * keys);
    if (!rows && dk && dk->data) { /* no query has a gradient to give */
        memset(dk->data, 0, tensor_bytes(dk));
        memset(dv->data, 0, tensor_bytes(dv));
    }
    if (!scratch || !rows || !d || !fits_blas(k, keys, width)) return;
    int n = (int)keys, depth = (int)d, stride = (int)width;
    PARALLEL_FOR(k, batch * a->heads * rows * keys, collapse(2))
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int64_t first = 0; first < rows; first += tile) {
                float *p = scratch + omp_get_thread_num() * 2 * tile * keys, *ds = p + tile * keys;
                int m = (int)min64(tile, rows - first);
                int64_t at = (b * rows + first) * width + h * d, key_at = b * keys * width + h * d;
                const float *sums = f32(lse) + (h * batch + b) * rows + first;
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, depth, a->scale, f32(q) + at,
                            stride, f32(kk) + key_at, stride, 0, p, n);
                for (int64_t i = 0; i < m; i++) {
                    int64_t seen = a->causal ? first + i + 1 + keys - rows : keys;
                    exp_row(p + i * keys, sums[i], seen);
                    memset(p + i * keys + seen, 0, (size_t)(keys - seen) * sizeof *p);
                }
                if (dv)
                    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, depth, m, 1, p, n, f32(dout) + at,
                                stride, first > 0, f32(dv) + key_at, stride);
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, depth, 1, f32(dout) + at, stride,
                            f32(v) + key_at, stride, 0, ds, n);
                for (int64_t i = 0; i < m; i++) {
                    double delta = dot_of(f32(dout) + at + i * width, f32(o) + at + i * width, d);
                    softmax_slope_row(ds + i * keys, p + i * keys, (float)delta, keys);
                }
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, depth, n, a->scale, ds, n,
                            f32(kk) + key_at, stride, 0, f32(dq) + at, stride);
                if (dk)
                    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, depth, m, a->scale, ds, n,
                                f32(q) + at, stride, first > 0, f32(dk) + key_at, stride);
            }
}
