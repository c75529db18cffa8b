#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Between the means and the additions there are only T rows: those are computed in double
 * for either dtype. */
struct pooled {
    int64_t T, S, r, heads, d;
    double *mean, *w[3], *qkv[3]; /* [T,r], [r,r], [T,r] */
    double *p, *a;                /* [heads,T,T] attention, [T,r] what it gives */
};

static double *widened(struct kern *k, const struct tensor *t)
{
    struct tensor wide = kern_tensor(k, DT_F64, 1, tensor_count(t));
    if (wide.data) tensor_convert(&wide, t);
    return wide.data;
}

/* sums [T,r] of each frame's tokens */
static void sum_frames(struct kern *k, double *sums, const struct tensor *z)
{
    int64_t T = z->shape[0], S = z->shape[1], r = z->shape[2];
    memset(sums, 0, (size_t)(T * r) * sizeof *sums);
    PARALLEL_FOR(k, T * S * r)
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = t * S; i < (t + 1) * S; i++)
            for (int64_t c = 0; c < r; c++)
                sums[t * r + c] += z->dtype == DT_F64 ? ((double *)z->data)[i * r + c] : f32(z)[i * r + c];
}

/* y = x + each frame's row of `row` */
static void add_to_frames(struct kern *k, struct tensor *y, const struct tensor *x, const double *row)
{
    int64_t T = x->shape[0], S = x->shape[1], r = x->shape[2];
    PARALLEL_FOR(k, T * S * r)
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = t * S; i < (t + 1) * S; i++)
            for (int64_t c = 0; c < r; c++) {
                if (x->dtype == DT_F64)
                    ((double *)y->data)[i * r + c] = ((double *)x->data)[i * r + c] + row[t * r + c];
                else
                    f32(y)[i * r + c] = f32(x)[i * r + c] + (float)row[t * r + c];
            }
}

/* c [m,n] += op(a) b */
static void product(double *c, int64_t m, int64_t n, int64_t inner, const double *a, bool ta, const double *b,
                    bool tb)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t l = 0; l < inner; l++)
                c[i * n + j] +=
                    (ta ? a[l * m + i] : a[i * inner + l]) * (tb ? b[j * inner + l] : b[l * n + j]);
}

static bool prepare(struct pooled *p, struct kern *k, const struct tensor *z, const struct tensor *w,
                    int heads)
{
    int64_t T = z->shape[0], r = z->shape[2];
    *p = (struct pooled){.T = T, .S = z->shape[1], .r = r, .heads = heads, .d = r / heads};
    p->mean = cpu_scratch(k, DT_F64, T * r);
    for (int i = 0; i < 3; i++) {
        p->w[i] = widened(k, &w[i]);
        p->qkv[i] = cpu_scratch(k, DT_F64, T * r);
    }
    p->p = cpu_scratch(k, DT_F64, heads * T * T);
    p->a = cpu_scratch(k, DT_F64, T * r);
    return p->a != NULL;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void attend(struct pooled *p, struct kern *k, const struct tensor *z)
{
    int64_t T = p->T, r = p->r, d = p->d;
    sum_frames(k, p->mean, z);
    for (int64_t i = 0; i < T * r; i++) p->mean[i] /= (double)p->S;
    for (int i = 0; i < 3; i++) {
        memset(p->qkv[i], 0, (size_t)(T * r) * sizeof(double));
        product(p->qkv[i], T, r, r, p->mean, false, p->w[i], true);
    }
    memset(p->a, 0, (size_t)(T * r) * sizeof(double));
    for (int64_t h = 0; h < p->heads; h++)
        for (int64_t t = 0; t < T; t++) {
            double *row = p->p + (h * T + t) * T, most = -INFINITY, sum = 0;
            for (int64_t s = 0; s < T; s++) {
                row[s] = dot(p->qkv[0] + t * r + h * d, p->qkv[1] + s * r + h * d, d) / sqrt((double)d);
                most = row[s] > most ? row[s] : most;
            }
            for (int64_t s = 0; s < T; s++) sum += row[s] = exp(row[s] - most);
            for (int64_t s = 0; s < T; s++) {
                row[s] /= sum;
                for (int64_t c = h * d; c < (h + 1) * d; c++)
                    p->a[t * r + c] += row[s] * p->qkv[2][s * r + c];
            }
        }
}

void cpu_temporal_attention_forward(struct kern *k, struct tensor *y, const struct tensor *z,
                                    const struct tensor w[3], int heads)
{
    struct pooled p;
    if (!prepare(&p, k, z, w, heads)) return;
    attend(&p, k, z);
    add_to_frames(k, y, z, p.a);
}

/* With da = Σ_s dy of each frame:  dv = Pᵀ da, dS = P ⊙ (da vᵀ - rowsum(P ⊙ da vᵀ)), dq = dS k / √d, dk = dSᵀ
 * q / √d */
static void attend_back(struct pooled *p, double *const dqkv[3], const double *da)
{
    int64_t T = p->T, r = p->r, d = p->d;
    for (int i = 0; i < 3; i++) memset(dqkv[i], 0, (size_t)(T * r) * sizeof(double));
    for (int64_t h = 0; h < p->heads; h++)
        for (int64_t t = 0; t < T; t++) {
            const double *row = p->p + (h * T + t) * T, *grad = da + t * r + h * d;
            double mean = 0;
            for (int64_t s = 0; s < T; s++) mean += row[s] * dot(grad, p->qkv[2] + s * r + h * d, d);
            for (int64_t s = 0; s < T; s++) {
                double slope = row[s] * (dot(grad, p->qkv[2] + s * r + h * d, d) - mean) / sqrt((double)d);
                for (int64_t c = h * d; c < (h + 1) * d; c++) {
                    dqkv[0][t * r + c] += slope * p->qkv[1][s * r + c];
                    dqkv[1][s * r + c] += slope * p->qkv[0][t * r + c];
                    dqkv[2][s * r + c] += row[s] * da[t * r + c];
                }
            }
        }
}

void cpu_temporal_attention_backward(struct kern *k, struct tensor *dz, struct tensor dw[3],
                                     const struct tensor *dy, const struct tensor *z,
                                     const struct tensor w[3], int heads)
{
    struct pooled p;
    bool ready = prepare(&p, k, z, w, heads);
    int64_t T = p.T, r = p.r;
    double *dqkv[3], *da = cpu_scratch(k, DT_F64, T * r), *dmean = cpu_scratch(k, DT_F64, T * r);
    for (int i = 0; i < 3; i++) dqkv[i] = cpu_scratch(k, DT_F64, T * r);
    struct tensor sum = kern_tensor(k, DT_F64, 2, r, r), old = kern_tensor(k, DT_F64, 2, r, r);
    if (!ready || !old.data) return;

    attend(&p, k, z);
    sum_frames(k, da, dy);
    attend_back(&p, dqkv, da);
    memset(dmean, 0, (size_t)(T * r) * sizeof *dmean);
    for (int i = 0; i < 3; i++) {
        memset(sum.data, 0, tensor_bytes(&sum));
        product(sum.data, r, r, T, dqkv[i], true, p.mean, false);
        tensor_convert(&old, &dw[i]);
        for (int64_t j = 0; j < r * r; j++) ((double *)sum.data)[j] += ((double *)old.data)[j];
        tensor_convert(&dw[i], &sum);
        product(dmean, T, r, r, dqkv[i], false, p.w[i], false);
    }
    for (int64_t i = 0; i < T * r; i++) dmean[i] /= (double)p.S;
    add_to_frames(k, dz, dy, dmean);
}
