#include "kernels/cpu/cpu.h"

/* Both halves are read before either is written, so y may be x. */
static void rotate_head(float *y, const float *x, const float *cos, const float *sin, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float low = x[i], high = x[i + half];
        y[i] = low * cos[i] - high * sin[i];
        y[i + half] = high * cos[i] + low * sin[i];
    }
}

void cpu_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *cos,
                      const struct tensor *sin, int64_t first)
{
    int64_t rows = x->shape[0], width = x->shape[1], half = cos->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t start = 0; start < rows; start += tile)
        for (int64_t r = start; r < min64(start + tile, rows); r++)
            for (int64_t i = r * width; i < (r + 1) * width; i += 2 * half)
                rotate_head(f32(y) + i, f32(x) + i, f32(cos) + (first + r) * half,
                            f32(sin) + (first + r) * half, half);
}
