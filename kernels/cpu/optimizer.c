#include "kernels/cpu/cpu.h"

#include <math.h>

enum { PARTS = 64 };

/* Sums run over at most 64 parts, cut by the number of elements alone and added in order. */
static int64_t part_size(int64_t n)
{
    int64_t size = tiles_of(n, PARTS);
    return size > TILE ? size : TILE;
}

static double total(const double *sums, int64_t parts)
{
    double s = 0;
    for (int64_t i = 0; i < parts; i++) s += sums[i];
    return s;
}

/* Σ (pred - target)²; the gradient into d, when there is one */
static double squared_error(float *d, const float *pred, const float *target, double slope, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = (double)pred[i] - target[i];
        s += e * e;
        if (d) d[i] = (float)(slope * e);
    }
    return s;
}

void cpu_mse_forward_backward(struct kern *k, double *loss, struct tensor *dpred, const struct tensor *pred,
                              const struct tensor *target, double weight)
{
    int64_t n = tensor_count(pred), size = part_size(n), parts = tiles_of(n, size);
    double sums[PARTS];
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < parts; i++)
        sums[i] = squared_error(dpred ? f32(dpred) + i * size : NULL, f32(pred) + i * size,
                                f32(target) + i * size, 2 * weight / (double)n, min64(size, n - i * size));
    *loss = weight * total(sums, parts) / (double)n;
}

void cpu_sum_squares(struct kern *k, double *sum, const struct tensor *x)
{
    int64_t n = tensor_count(x), size = part_size(n), parts = tiles_of(n, size);
    double sums[PARTS];
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < parts; i++) sums[i] = sum_about(f32(x) + i * size, 0, min64(size, n - i * size));
    *sum = total(sums, parts);
}

void cpu_adamw_step(struct kern *k, struct tensor *p, struct tensor *m, struct tensor *v,
                    const struct tensor *g, double gscale, int64_t t, const struct adamw *o)
{
    int64_t n = tensor_count(p);
    double bias1 = 1 - pow(o->beta1, (double)t), bias2 = 1 - pow(o->beta2, (double)t);
    PARALLEL_FOR(k, n)
    for (int64_t first = 0; first < n; first += TILE)
        for (int64_t i = first; i < min64(first + TILE, n); i++) {
            double grad = gscale * f32(g)[i];
            double mean = o->beta1 * f32(m)[i] + (1 - o->beta1) * grad;
            double square = o->beta2 * f32(v)[i] + (1 - o->beta2) * grad * grad;
            double decayed = f32(p)[i] - o->lr * o->weight_decay * f32(p)[i];
            f32(p)[i] = (float)(decayed - o->lr * (mean / bias1) / (sqrt(square / bias2) + o->eps));
            f32(m)[i] = (float)mean;
            f32(v)[i] = (float)square;
        }
}
