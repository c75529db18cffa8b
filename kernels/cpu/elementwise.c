#include "kernels/cpu/cpu.h"

HOT static void gated_add_row(float *out, const float *x, const float *restrict y, const float *restrict gate,
                              int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = x[i] + gate[i] * y[i];
}

HOT static void multiply_row(float *restrict y, const float *restrict a, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

/* With b = 0, y is not read: it may be fresh scratch. */
HOT static void axpby_run(float *y, float a, const float *x, float b, int64_t n)
{
    if (b == 0)
        for (int64_t i = 0; i < n; i++) y[i] = a * x[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = a * x[i] + b * y[i];
}

HOT static void silu_run(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = vsilu(x[i]);
}

HOT static void gelu_run(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = vgelu(x[i]);
}

HOT static void gelu_slope_run(float *dx, const float *dy, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * vgelu_slope(x[i]);
}

HOT static void gelu_mul_run(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = vgelu(a[i]) * b[i];
}

HOT static void silu_mul_run(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = vsilu(a[i]) * b[i];
}

void cpu_gated_add_forward(struct kern *k, struct tensor *out, const struct tensor *x, const struct tensor *y,
                           const struct tensor *gate)
{
    int64_t rows = x->shape[0], width = x->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++)
            gated_add_row(f32(out) + r * width, f32(x) + r * width, f32(y) + r * width, f32(gate), width);
}

void cpu_gated_add_backward(struct kern *k, struct tensor *dy, const struct tensor *dx,
                            const struct tensor *gate)
{
    int64_t rows = dx->shape[0], width = dx->shape[1], tile = row_tile(width);
    PARALLEL_FOR(k, rows * width)
    for (int64_t first = 0; first < rows; first += tile)
        for (int64_t r = first; r < min64(first + tile, rows); r++)
            multiply_row(f32(dy) + r * width, f32(gate), f32(dx) + r * width, width);
}

void cpu_add(struct kern *k, struct tensor *y, const struct tensor *x)
{
    cpu_axpby(k, y, 1, x, 1);
}

void cpu_axpby(struct kern *k, struct tensor *y, double a, const struct tensor *x, double b)
{
    int64_t n = tensor_count(x);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE)
        axpby_run(f32(y) + i, (float)a, f32(x) + i, (float)b, min64(TILE, n - i));
}

void cpu_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    int64_t n = tensor_count(x);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE) silu_run(f32(y) + i, f32(x) + i, min64(TILE, n - i));
}

void cpu_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    int64_t n = tensor_count(x);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE) gelu_run(f32(y) + i, f32(x) + i, min64(TILE, n - i));
}

void cpu_gelu_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x)
{
    int64_t n = tensor_count(x);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE)
        gelu_slope_run(f32(dx) + i, f32(dy) + i, f32(x) + i, min64(TILE, n - i));
}

void cpu_gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    int64_t n = tensor_count(a);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE)
        gelu_mul_run(f32(y) + i, f32(a) + i, f32(b) + i, min64(TILE, n - i));
}

void cpu_silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    int64_t n = tensor_count(a);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE)
        silu_mul_run(f32(y) + i, f32(a) + i, f32(b) + i, min64(TILE, n - i));
}
