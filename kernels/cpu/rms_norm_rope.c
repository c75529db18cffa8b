#include "kernels/cpu/cpu.h"

#include <math.h>

HOT static void scale_row(float *restrict y, const float *restrict x, const float *restrict w, float r,
                          int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * w[i];
}

/* dx = r (dx - x r² mean(dx x)), where dx begins as the gradient of x̂ = r x */
HOT static void slope_row(float *restrict dx, const float *restrict x, float r, int64_t n)
{
    const float part = (float)(dot_of(dx, x, n) / (double)n * r * r);
    for (int64_t i = 0; i < n; i++) dx[i] = r * (dx[i] - x[i] * part);
}

HOT static void multiply_row(float *restrict x, const float *restrict w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= w[i];
}

/* Pairs of one head; with turn -1 back again, which is the gradient. */
static void rotate(float *y, const float *cos, const float *sin, float turn, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        const float even = y[2 * i], odd = y[2 * i + 1], s = turn * sin[i];
        y[2 * i] = even * cos[i] - odd * s;
        y[2 * i + 1] = odd * cos[i] + even * s;
    }
}

static void rotate_row(float *y, const struct tensor *cos, const struct tensor *sin, float turn, int64_t row,
                       int64_t width)
{
    const int64_t half = cos ? cos->shape[1] : 0;
    for (int64_t h = 0; cos && h < width; h += 2 * half)
        rotate(y + h, f32(cos) + row * half, f32(sin) + row * half, turn, half);
}

static float root(const float *x, int64_t width, float eps)
{
    return (float)(1 / sqrt(sum_about(x, 0, width) / (double)width + eps));
}

void cpu_rms_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                               const struct tensor *w, const struct tensor *cos, const struct tensor *sin,
                               float eps, float times)
{
    int64_t rows = x->shape[0], width = x->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++) {
            const float *in = f32(x) + r * width;
            scale_row(f32(y) + r * width, in, f32(w), times * root(in, width, eps), width);
            rotate_row(f32(y) + r * width, cos, sin, 1, r, width);
        }
}

void cpu_rms_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                                const struct tensor *x, const struct tensor *w, const struct tensor *cos,
                                const struct tensor *sin, float eps, float times)
{
    int64_t rows = x->shape[0], width = x->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++) {
            const float *in = f32(x) + r * width;
            float *g = f32(dx) + r * width;
            for (int64_t i = 0; i < width; i++) g[i] = times * f32(dy)[r * width + i];
            rotate_row(g, cos, sin, -1, r, width);
            multiply_row(g, f32(w), width);
            slope_row(g, in, root(in, width, eps), width);
        }
}
