#include "kernels/cpu/cpu.h"

/* Of 256 values a channel can have, each is worked out once. */
static void patch_row(float *y, const uint8_t *pixels, int64_t frame_width, int patch, float table[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < patch; p++)
            for (int q = 0; q < patch; q++) *y++ = table[c][pixels[(p * frame_width + q) * 3 + c]];
}

void cpu_pixel_patches(struct kern *k, struct tensor *y, const struct tensor *u8, int patch,
                       const float mean[3], const float std[3])
{
    int64_t H = u8->shape[1], W = u8->shape[2], rows = H / patch, cols = W / patch, width = y->shape[1];
    float table[3][256];
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) table[c][v] = ((float)(v / 255.0) - mean[c]) / std[c];
    PARALLEL_FOR(k, tensor_count(y), collapse(2))
    for (int64_t t = 0; t < u8->shape[0]; t++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++)
                patch_row(f32(y) + ((t * rows + i) * cols + j) * width,
                          (const uint8_t *)u8->data + ((t * H + i * patch) * W + j * patch) * 3, W, patch,
                          table);
}

HOT static void add_rows(float *restrict y, const float *restrict a, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void cpu_class_tokens_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                              const struct tensor *cls, const struct tensor *pos)
{
    int64_t width = x->shape[1], tokens = pos->shape[0], frames = y->shape[0] / tokens;
    PARALLEL_FOR(k, tensor_count(y))
    for (int64_t t = 0; t < frames; t++) {
        float *to = f32(y) + t * tokens * width;
        add_rows(to, f32(cls), f32(pos), width);
        add_rows(to + width, f32(x) + t * (tokens - 1) * width, f32(pos) + width, (tokens - 1) * width);
    }
}

/* before and after are NULL where there is no such frame. */
HOT static void mix_row(float *restrict y, const float *before, const float *x, const float *after,
                        const float *restrict w, const float *restrict b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float sum = b[i] + w[3 * i + 1] * x[i];
        if (before) sum += w[3 * i] * before[i];
        if (after) sum += w[3 * i + 2] * after[i];
        y[i] = vquick_gelu(sum);
    }
}

void cpu_time_conv_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                      const struct tensor *w, const struct tensor *b)
{
    int64_t frames = x->shape[0], tokens = x->shape[1], width = x->shape[2], frame = tokens * width;
    PARALLEL_FOR(k, tensor_count(x), collapse(2))
    for (int64_t t = 0; t < frames; t++)
        for (int64_t s = 0; s < tokens; s++) {
            const float *row = f32(x) + t * frame + s * width;
            mix_row(f32(y) + t * frame + s * width, t > 0 ? row - frame : NULL, row,
                    t + 1 < frames ? row + frame : NULL, f32(w), f32(b), width);
        }
}
