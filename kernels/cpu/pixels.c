#include "kernels/cpu/cpu.h"

void cpu_channels_last(struct kern *k, struct tensor *y, const struct tensor *x, float scale)
{
    int64_t H = y->shape[1], W = y->shape[2], C = y->shape[3];
    PARALLEL_FOR(k, y->shape[0] * H * W * C)
    for (int64_t row = 0; row < y->shape[0] * H; row++)
        for (int64_t c = 0; c < C; c++) {
            const float *from = f32(x) + ((row / H * C + c) * H + row % H) * W;
            for (int64_t j = 0; j < W; j++) f32(y)[(row * W + j) * C + c] = scale * from[j];
        }
}

void cpu_channels_second(struct kern *k, struct tensor *y, const struct tensor *x, float scale)
{
    int64_t H = x->shape[1], W = x->shape[2], C = x->shape[3];
    PARALLEL_FOR(k, x->shape[0] * H * W * C)
    for (int64_t row = 0; row < x->shape[0] * H; row++)
        for (int64_t c = 0; c < C; c++) {
            float *to = f32(y) + ((row / H * C + c) * H + row % H) * W;
            for (int64_t j = 0; j < W; j++) to[j] = scale * f32(x)[(row * W + j) * C + c];
        }
}

HOT static void unit_run(float *restrict y, const uint8_t *restrict u8, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = u8[i] / 127.5f - 1.0f;
}

/* Adding and subtracting 1.5 2^23 rounds to an integer, halves to even. NaN becomes 0. */
HOT static void pixel_run(uint8_t *restrict u8, const float *restrict y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float u = y[i] * 0.5f + 0.5f;
        u = u > 0.0f ? u : 0.0f;
        u = u < 1.0f ? u : 1.0f;
        u8[i] = (uint8_t)(int32_t)(u * 255.0f + 0x1.8p23f - 0x1.8p23f);
    }
}

void cpu_pixels_to_unit(struct kern *k, struct tensor *y, const struct tensor *u8)
{
    int64_t n = tensor_count(y);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE)
        unit_run(f32(y) + i, (const uint8_t *)u8->data + i, min64(TILE, n - i));
}

void cpu_unit_to_pixels(struct kern *k, struct tensor *u8, const struct tensor *y)
{
    int64_t n = tensor_count(y);
    PARALLEL_FOR(k, n)
    for (int64_t i = 0; i < n; i += TILE) pixel_run((uint8_t *)u8->data + i, f32(y) + i, min64(TILE, n - i));
}
