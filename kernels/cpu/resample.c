#include "kernels/cpu/cpu.h"

HOT static void average(float *restrict y, const float *restrict a, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = 0.5f * (a[i] + b[i]);
}

void cpu_halve_time_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    int64_t odd = x->shape[0] % 2, size = x->shape[1] * x->shape[2] * x->shape[3];
    if (odd) memcpy(f32(y), f32(x), (size_t)size * sizeof(float));
    PARALLEL_FOR(k, y->shape[0] * size, collapse(2))
    for (int64_t t = odd; t < y->shape[0]; t++)
        for (int64_t i = 0; i < size; i += TILE) {
            const float *a = f32(x) + (2 * t - odd) * size + i;
            average(f32(y) + t * size + i, a, a + size, min64(TILE, size - i));
        }
}

void cpu_copy_window(struct kern *k, struct tensor *y, int64_t y0, int64_t x0, const struct tensor *x,
                     int64_t i0, int64_t j0, int64_t rows, int64_t cols)
{
    int64_t C = x->shape[3];
    PARALLEL_FOR(k, x->shape[0] * rows * cols * C, collapse(2))
    for (int64_t t = 0; t < x->shape[0]; t++)
        for (int64_t i = 0; i < rows; i++)
            memcpy(f32(y) + ((t * y->shape[1] + y0 + i) * y->shape[2] + x0) * C,
                   f32(x) + ((t * x->shape[1] + i0 + i) * x->shape[2] + j0) * C,
                   (size_t)(cols * C) * sizeof(float));
}

static void blend_run(float *b, const float *a, int64_t e, int64_t extent, int64_t n)
{
    float weight = (float)((double)e / (double)extent), rest = (float)(1 - (double)e / (double)extent);
    for (int64_t i = 0; i < n; i++) b[i] = a[i] * rest + b[i] * weight;
}

void cpu_blend_edge(struct kern *k, struct tensor *b, const struct tensor *a, int64_t extent, bool vertical)
{
    int64_t C = b->shape[3], Hb = b->shape[1], Wb = b->shape[2], Ha = a->shape[1], Wa = a->shape[2];
    PARALLEL_FOR(k, b->shape[0] * extent * (vertical ? Wb : Hb) * C)
    for (int64_t t = 0; t < b->shape[0]; t++) {
        float *tb = f32(b) + t * Hb * Wb * C;
        const float *ta = f32(a) + t * Ha * Wa * C;
        for (int64_t e = 0; e < extent; e++) {
            if (vertical) blend_run(tb + e * Wb * C, ta + (Ha - extent + e) * Wa * C, e, extent, Wb * C);
            for (int64_t i = 0; i < Hb && !vertical; i++)
                blend_run(tb + (i * Wb + e) * C, ta + (i * Wa + Wa - extent + e) * C, e, extent, C);
        }
    }
}
