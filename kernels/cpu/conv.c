/* Convolutions as products: the 3x3, 3x3x3 or, in time alone, 3x1x1 neighbourhoods of a tile of output pixels are laid out as rows,
 * which w, seen as [Co, taps Ci], then multiplies. */
#include "kernels/cpu/cpu.h"

#include <cblas.h>
#include <limits.h>
#include <string.h>

enum { PIXELS = 256 };

struct conv {
    const float *x;
    int64_t H, W, C;             /* of a frame of x */
    int64_t out_h, out_w, count; /* output pixels of a frame, of all frames */
    int depth, stride, pad;      /* taps in time; step and zero rows above in space */
    int across, step;            /* taps in each axis of space: 3, or 1; step in time */
    int up;                      /* each pixel of x stands for 2^up by 2^up */
};

/* As many neighbours as there are taps, of row i of a frame, from column j on: zero outside the frame. */
static float *gather_row(float *to, const struct conv *g, const float *from, int64_t i, int64_t j)
{
    size_t pixel = (size_t)g->C * sizeof(float);
    for (int64_t end = j + g->across; j < end; j++, to += g->C) {
        if (i < 0 || i >= g->H << g->up || j < 0 || j >= g->W << g->up)
            memset(to, 0, pixel);
        else
            memcpy(to, from + ((i >> g->up) * g->W + (j >> g->up)) * g->C, pixel);
    }
    return to;
}

static void gather(float *to, const struct conv *g, int64_t pixel, int64_t n)
{
    for (int64_t p = pixel; p < pixel + n; p++) {
        int64_t t = p / (g->out_h * g->out_w), i = p / g->out_w % g->out_h, j = p % g->out_w;
        for (int64_t dt = 0; dt < g->depth; dt++)
            for (int di = 0; di < g->across; di++)
                to = gather_row(to, g, g->x + (t * g->step + dt) * g->H * g->W * g->C,
                                i * g->stride + di - g->pad, j * g->stride - g->pad);
    }
}

HOT static void add_bias(float *restrict y, const float *restrict b, int64_t pixels, int64_t C)
{
    for (int64_t p = 0; p < pixels; p++, y += C)
        for (int64_t c = 0; c < C; c++) y[c] += b[c];
}

static void convolve(struct kern *k, struct tensor *y, const struct conv *g, const struct tensor *w,
                     const struct tensor *b, const struct tensor *residual)
{
    int64_t taps = g->depth * g->across * g->across * g->C, out = w->shape[0], tile = min64(PIXELS, g->count);
    float *scratch = cpu_scratch(k, DT_F32, k->threads * tile * taps);
    if (!scratch || !taps || !out) return;
    if (taps > INT_MAX || out > INT_MAX) {
        kern_fail(k, "a convolution from %lld to %lld channels is too large for BLAS", (long long)g->C,
                  (long long)out);
        return;
    }
    PARALLEL_FOR(k, g->count * out * (taps / 32 + 1))
    for (int64_t pixel = 0; pixel < g->count; pixel += tile) {
        float *rows = scratch + omp_get_thread_num() * tile * taps, *to = f32(y) + pixel * out;
        int64_t n = min64(tile, g->count - pixel);
        gather(rows, g, pixel, n);
        if (residual && residual->data != y->data)
            memcpy(to, f32(residual) + pixel * out, (size_t)(n * out) * sizeof *to);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)out, (int)taps, 1, rows, (int)taps,
                    f32(w), (int)taps, residual != NULL, to, (int)out);
        add_bias(to, f32(b), n, out);
    }
}

/* From frames x [n,H,W,C] to y [T,h,w,out], without what else makes the convolution. */
static struct conv frames(const struct tensor *x, const struct tensor *y)
{
    return (struct conv){.x = f32(x),
                         .H = x->shape[1],
                         .W = x->shape[2],
                         .C = x->shape[3],
                         .out_h = y->shape[1],
                         .out_w = y->shape[2],
                         .depth = 1,
                         .stride = 1,
                         .across = 3,
                         .step = 1,
                         .count = y->shape[0] * y->shape[1] * y->shape[2]};
}

void cpu_causal_conv3d_forward(struct kern *k, struct tensor *y, struct tensor *x, struct tensor *history,
                               bool first, const struct tensor *w, const struct tensor *b,
                               const struct tensor *residual)
{
    int64_t T = x->shape[0] - 2, size = x->shape[1] * x->shape[2] * x->shape[3];
    struct conv g = frames(x, y);
    g.depth = 3;
    g.pad = 1;
    if (!k->planning) {
        const size_t frame = (size_t)size * sizeof(float);
        memcpy(f32(x), first ? f32(x) + 2 * size : f32(history), frame);
        memcpy(f32(x) + size, first ? f32(x) + 2 * size : f32(history) + size, frame);
        memcpy(f32(history), f32(x) + T * size, 2 * frame);
    }
    convolve(k, y, &g, w, b, residual);
}

void cpu_conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                        const struct tensor *b, int stride)
{
    struct conv g = frames(x, y);
    g.stride = stride;
    g.pad = stride == 1;
    convolve(k, y, &g, w, b, NULL);
}

void cpu_upsample_conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                 const struct tensor *w, const struct tensor *b)
{
    struct conv g = frames(x, y);
    g.pad = 1;
    g.up = 1;
    convolve(k, y, &g, w, b, NULL);
}

void cpu_time_conv_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                           const struct tensor *b, int stride)
{
    struct conv g = frames(x, y);
    g.depth = 3;
    g.across = 1;
    g.step = stride;
    convolve(k, y, &g, w, b, NULL);
}
