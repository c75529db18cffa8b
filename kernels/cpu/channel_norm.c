#include "kernels/cpu/cpu.h"

#include <math.h>

HOT static void scale_pixel(float *y, const float *x, const float *restrict w, float by, int64_t C)
{
    for (int64_t c = 0; c < C; c++) y[c] = x[c] * by * w[c];
}

HOT static void silu_pixel(float *y, int64_t C)
{
    for (int64_t c = 0; c < C; c++) y[c] = vsilu(y[c]);
}

void cpu_channel_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                              const struct tensor *w, bool silu)
{
    const int64_t C = x->shape[3], pixels = x->shape[0] * x->shape[1] * x->shape[2], tile = row_tile(C);
    PARALLEL_FOR(k, pixels * C)
    for (int64_t first = 0; first < pixels; first += tile)
        for (int64_t p = first; p < min64(first + tile, pixels); p++) {
            float *to = f32(y) + p * C;
            const float *from = f32(x) + p * C;
            const double length = fmax(sqrt(sum_about(from, 0, C)), 1e-12);
            scale_pixel(to, from, f32(w), (float)(sqrt((double)C) / length), C);
            if (silu) silu_pixel(to, C);
        }
}
