#include "kernels/cpu/cpu.h"

HOT static void norm_head(float *restrict y, const float *restrict x, struct moments s,
                          const float *restrict w, const float *restrict b, float times, int64_t d)
{
    for (int64_t i = 0; i < d; i++) y[i] = ((x[i] - s.mean) * s.rstd * w[i] + b[i]) * times;
}

static void rotate(float *y, const float *cos, const float *sin, int64_t d)
{
    for (int64_t i = 0; i < d; i += 2) {
        float even = y[i], odd = y[i + 1];
        y[i] = even * cos[i] - odd * sin[i];
        y[i + 1] = odd * cos[i + 1] + even * sin[i + 1];
    }
}

/* The transpose of rotate(), which is its gradient. */
static void rotate_back(float *y, const float *cos, const float *sin, int64_t d)
{
    for (int64_t i = 0; i < d; i += 2) {
        float even = y[i], odd = y[i + 1];
        y[i] = even * cos[i] + odd * sin[i + 1];
        y[i + 1] = odd * cos[i + 1] - even * sin[i];
    }
}

void cpu_qk_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                              const struct tensor *w, const struct tensor *b, const struct tensor *cos,
                              const struct tensor *sin, int64_t first, float eps, float times)
{
    int64_t rows = x->shape[0], width = x->shape[1], d = w->shape[0], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t start = 0; start < rows; start += tile)
        for (int64_t r = start; r < min64(start + tile, rows); r++)
            for (int64_t i = r * width; i < (r + 1) * width; i += d) {
                norm_head(f32(y) + i, f32(x) + i, moments_of(f32(x) + i, d, eps), f32(w), f32(b), times, d);
                if (cos && r >= first)
                    rotate(f32(y) + i, f32(cos) + (r - first) * d, f32(sin) + (r - first) * d, d);
            }
}

void cpu_qk_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                               const struct tensor *x, const struct tensor *w, const struct tensor *cos,
                               const struct tensor *sin, int64_t first, float eps, float times)
{
    int64_t rows = x->shape[0], width = x->shape[1], d = w->shape[0], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t start = 0; start < rows; start += tile)
        for (int64_t r = start; r < min64(start + tile, rows); r++)
            for (int64_t i = r * width; i < (r + 1) * width; i += d) {
                float *g = f32(dx) + i;
                for (int64_t j = 0; j < d; j++) g[j] = times * f32(dy)[i + j];
                if (cos && r >= first)
                    rotate_back(g, f32(cos) + (r - first) * d, f32(sin) + (r - first) * d, d);
                norm_backward_row(g, g, f32(x) + i, f32(w), NULL, moments_of(f32(x) + i, d, eps), d, false);
            }
}
