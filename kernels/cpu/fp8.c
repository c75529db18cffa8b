#include "kernels/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* The seven bits of magnitude moved to where F32 has them are the value times 2^-120, subnormals included. */
static float value_of(uint8_t code)
{
    uint32_t bits = (uint32_t)(code & 0x7f) << 20;
    float f;
    if ((code & 0x7f) == 0x7f) return NAN;
    memcpy(&f, &bits, sizeof f);
    f *= 0x1p120f;
    return code & 0x80 ? -f : f;
}

static uint8_t code_of(float v)
{
    const uint8_t sign = signbit(v) ? 0x80 : 0;
    const float a = fabsf(v) > 448 ? 448 : fabsf(v);
    uint32_t bits;
    if (isnan(v)) return 0x7f;
    if (a < 0x1p-6f) return sign | (uint8_t)nearbyintf(a * 0x1p9f); /* subnormal, or the first that is not */
    memcpy(&bits, &a, sizeof bits);
    bits += 0x7ffff + (bits >> 20 & 1); /* to nearest even, of the 20 bits that go */
    return sign | (uint8_t)((bits >> 20) - (120 << 3));
}

static void row_codes(uint8_t *codes, float *scale, const float *x, int64_t n)
{
    float most = 0x1p-100f;
    for (int64_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    const float by = 448 / most;
    for (int64_t i = 0; i < n; i++) codes[i] = code_of(x[i] * by);
    *scale = most / 448;
}

void cpu_fp8_rows(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x)
{
    const int64_t rows = x->shape[0], n = x->shape[1], tile = row_tile(n);
    PARALLEL_FOR(k, rows * n)
    for (int64_t from = 0; from < rows; from += tile)
        for (int64_t r = from; r < min64(from + tile, rows); r++)
            row_codes((uint8_t *)codes->data + r * n, f32(scale) + r, f32(x) + r * n, n);
}

void cpu_fp8_gelu_rows(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x)
{
    struct tensor y = kern_tensor(k, DT_F32, 2, x->shape[0], x->shape[1]);
    if (!y.data) return;
    cpu_gelu_forward(k, &y, x);
    cpu_fp8_rows(k, codes, scale, &y);
}

static void values_of(struct kern *k, float *to, const struct tensor *codes)
{
    const int64_t n = tensor_count(codes);
    float value[256];
    for (int i = 0; i < 256; i++) value[i] = value_of((uint8_t)i);
    PARALLEL_FOR(k, n)
    for (int64_t from = 0; from < n; from += TILE)
        for (int64_t i = from; i < min64(from + TILE, n); i++)
            to[i] = value[((const uint8_t *)codes->data)[i]];
}

HOT static void scale_and_add_bias(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t r = row; r < row + rows; r++) {
        float *restrict y = (float *)g->c + r * g->n + col;
        const float *restrict s = g->col_scale + col, *restrict b = g->bias ? g->bias + col : NULL;
        for (int64_t i = 0; i < cols; i++) y[i] = y[i] * (g->row_scale[r] * s[i]) + (b ? b[i] : 0);
    }
}

void cpu_linear_fp8_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                            const struct tensor *x_scale, const struct tensor *w,
                            const struct tensor *w_scale, const struct tensor *b)
{
    float *a = cpu_scratch(k, DT_F32, tensor_count(x)), *by = cpu_scratch(k, DT_F32, tensor_count(w));
    if (!a || !by) return;
    values_of(k, a, x);
    values_of(k, by, w);
    cpu_gemm(k, &(struct gemm){.dtype = DT_F32,
                               .m = y->shape[0],
                               .n = y->shape[1],
                               .k = x->shape[1],
                               .tb = true,
                               .alpha = 1,
                               .a = a,
                               .b = by,
                               .c = y->data,
                               .finish = scale_and_add_bias,
                               .bias = b ? b->data : NULL,
                               .row_scale = x_scale->data,
                               .col_scale = w_scale->data});
}
