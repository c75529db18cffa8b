#include "kernels/cpu/cpu.h"

/* y = x̂ w + b; x̂ where there are none. y may be x. */
HOT static void norm_row(float *y, const float *x, struct moments s, const float *w, const float *b,
                         int64_t n)
{
    if (w)
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - s.mean) * s.rstd * w[i] + b[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - s.mean) * s.rstd;
}

HOT static void modulate_row(float *restrict y, const float *restrict scale, const float *restrict shift,
                             int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = y[i] * (1.0f + scale[i]) + shift[i];
}

void cpu_layer_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                            const struct tensor *b, const struct tensor *scale, const struct tensor *shift,
                            float eps)
{
    int64_t rows = x->shape[0], width = x->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++) {
            const float *in = f32(x) + r * width;
            float *out = f32(y) + r * width;
            struct moments s = moments_of(in, width, eps);
            norm_row(out, in, s, w ? f32(w) : NULL, b ? f32(b) : NULL, width);
            if (scale) modulate_row(out, f32(scale), f32(shift), width);
        }
}

/* The gradient that reaches the normalised row: dy w (1+scale); w and scale may be NULL. */
static inline float gradient(const float *dy, const float *w, const float *scale, int64_t i)
{
    return dy[i] * (w ? w[i] : 1.0f) * (scale ? 1.0f + scale[i] : 1.0f);
}

HOT void norm_backward_row(float *dx, const float *dy, const float *x, const float *w, const float *scale,
                           struct moments s, int64_t n, bool add)
{
    enum { LANES = 4 };
    double sum[LANES] = {0}, dot[LANES] = {0}; /* Σ g, Σ g x̂ */
    for (int64_t i = 0; i < n; i += LANES)
        for (int64_t j = i; j < min64(i + LANES, n); j++) {
            float g = gradient(dy, w, scale, j);
            sum[j - i] += g;
            dot[j - i] += (double)g * ((x[j] - s.mean) * s.rstd);
        }
    float mean_g = (float)(((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)n);
    float mean_gx = (float)(((dot[0] + dot[1]) + (dot[2] + dot[3])) / (double)n);
    for (int64_t i = 0; i < n; i++) {
        float d = s.rstd * (gradient(dy, w, scale, i) - mean_g - (x[i] - s.mean) * s.rstd * mean_gx);
        dx[i] = add ? dx[i] + d : d;
    }
}

void cpu_layer_norm_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                             const struct tensor *x, const struct tensor *w, const struct tensor *scale,
                             float eps, bool add)
{
    int64_t rows = x->shape[0], width = x->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++) {
            const float *in = f32(x) + r * width;
            norm_backward_row(f32(dx) + r * width, f32(dy) + r * width, in, w ? f32(w) : NULL,
                              scale ? f32(scale) : NULL, moments_of(in, width, eps), width, add);
        }
}
