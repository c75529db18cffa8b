#include "kernels/cpu/cpu.h"

#include <math.h>

HOT static void scale_row(float *restrict y, const float *restrict x, const float *restrict w, float rms,
                          int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * rms * w[i];
}

void cpu_rms_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                          float eps)
{
    int64_t rows = x->shape[0], width = x->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++) {
            const float *in = f32(x) + r * width;
            double mean_square = sum_about(in, 0, width) / (double)width;
            scale_row(f32(y) + r * width, in, f32(w), (float)(1 / sqrt(mean_square + eps)), width);
        }
}
