#include "kernels/cpu/cpu.h"

#include <math.h>

enum { PARTS = 64, MIN_PIXELS = 256 };

/* s += x and q += x² for each channel of a run of pixels */
HOT static void accumulate(double *restrict s, double *restrict q, const float *restrict x, int64_t pixels,
                           int64_t C)
{
    for (int64_t p = 0; p < pixels; p++, x += C)
        for (int64_t c = 0; c < C; c++) {
            s[c] += x[c];
            q[c] += (double)x[c] * x[c];
        }
}

/* What (x - mean) gain + b needs, for each channel: mean[c], gain[c] = rstd of its group times w[c]. The
 * pixels are cut into parts by their number alone; parts, then channels of a group, are summed in order. In
 * double the squares of floats are exact, so Σx² - (Σx)²/n loses nothing that matters. NULL while planning or
 * without room. */
static float *channel_gains(struct kern *k, const struct tensor *x, const struct tensor *w, int groups,
                            float eps)
{
    int64_t C = x->shape[3], pixels = x->shape[0] * x->shape[1] * x->shape[2];
    int64_t tile = tiles_of(pixels, PARTS) > MIN_PIXELS ? tiles_of(pixels, PARTS) : MIN_PIXELS;
    int64_t parts = tiles_of(pixels, tile), size = C / groups;
    float *mean = cpu_scratch(k, DT_F32, 2 * C);
    double *sums = cpu_scratch(k, DT_F64, parts * 2 * C);
    if (!mean || !sums) return NULL;
    PARALLEL_FOR(k, pixels * C)
    for (int64_t part = 0; part < parts; part++) {
        double *s = sums + part * 2 * C;
        memset(s, 0, 2 * (size_t)C * sizeof *s);
        accumulate(s, s + C, f32(x) + part * tile * C, min64(tile, pixels - part * tile), C);
    }
    for (int g = 0; g < groups; g++) {
        double s = 0, q = 0, n = (double)(pixels * size);
        for (int64_t part = 0; part < parts; part++)
            for (int64_t c = g * size; c < (g + 1) * size; c++) {
                s += sums[part * 2 * C + c];
                q += sums[part * 2 * C + C + c];
            }
        double m = s / n, variance = fmax(q / n - m * m, 0);
        for (int64_t c = g * size; c < (g + 1) * size; c++) {
            mean[c] = (float)m;
            mean[C + c] = (float)(f32(w)[c] / sqrt(variance + eps));
        }
    }
    return mean;
}

HOT static void norm_silu(float *y, const float *x, const float *restrict mean, const float *restrict gain,
                          const float *restrict b, int64_t C)
{
    for (int64_t c = 0; c < C; c++) y[c] = vsilu((x[c] - mean[c]) * gain[c] + b[c]);
}

HOT static void norm_modulate_silu(float *y, const float *x, const float *restrict mean,
                                   const float *restrict gain, const float *restrict b,
                                   const float *restrict mul, const float *restrict add, int64_t C)
{
    for (int64_t c = 0; c < C; c++) y[c] = vsilu(((x[c] - mean[c]) * gain[c] + b[c]) * mul[c] + add[c]);
}

void cpu_group_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                 const struct tensor *w, const struct tensor *b, int groups, float eps)
{
    int64_t C = x->shape[3], pixels = x->shape[0] * x->shape[1] * x->shape[2], tile = row_tile(C);
    const float *mean = channel_gains(k, x, w, groups, eps);
    if (!mean) return;
    PARALLEL_FOR(k, pixels * C)
    for (int64_t first = 0; first < pixels; first += tile)
        for (int64_t p = first; p < min64(first + tile, pixels); p++)
            norm_silu(f32(y) + p * C, f32(x) + p * C, mean, mean + C, f32(b), C);
}

/* The latent frame that shows in frame t: when T > 1 is odd, frame 0 comes from frame 0 and the rest from the
 * rest. */
static int64_t latent_frame(int64_t t, int64_t T, int64_t Tz)
{
    if (T == 1 || T % 2 == 0) return t * Tz / T;
    return t == 0 ? 0 : 1 + (t - 1) * (Tz - 1) / (T - 1);
}

void cpu_spatial_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                   const struct tensor *w, const struct tensor *b, const struct tensor *mul,
                                   const struct tensor *add, int groups, float eps)
{
    int64_t T = x->shape[0], H = x->shape[1], W = x->shape[2], C = x->shape[3];
    int64_t Tz = mul->shape[0], h = mul->shape[1], width = mul->shape[2];
    const float *mean = channel_gains(k, x, w, groups, eps);
    if (!mean) return;
    PARALLEL_FOR(k, T * H * W * C)
    for (int64_t row = 0; row < T * H; row++)
        for (int64_t j = 0; j < W; j++) {
            int64_t p = (row * W + j) * C;
            int64_t z = ((latent_frame(row / H, T, Tz) * h + row % H * h / H) * width + j * width / W) * C;
            norm_modulate_silu(f32(y) + p, f32(x) + p, mean, mean + C, f32(b), f32(mul) + z, f32(add) + z, C);
        }
}
