/* layer_norm, rms_norm, qk_norm_rope, rms_norm_rope, group_norm_silu, spatial_norm_silu, channel_norm. */
#include "tests/kernels.h"

/* Statistics are in double, the few operations on each element round to float: some 2^-24 each. */
static const double TOLERANCE = 1e-6;
/* A backward pass subtracts means from gradients, so its last bits weigh a little more. */
static const double GRADIENT = 3e-6;

struct sizes {
    int64_t rows, width, d, first;
    double eps, times;
};

static void statistics(const double *x, int64_t n, double eps, double *mean, double *rstd)
{
    double variance = *mean = 0;
    for (int64_t i = 0; i < n; i++) *mean += x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) variance += (x[i] - *mean) * (x[i] - *mean) / (double)n;
    *rstd = 1 / sqrt(variance + eps);
}

/* in: x, w, b, scale, shift; NULL for w and b, and for scale and shift, where there are none */
static void layer_norm(double *y, double *const *in, const void *sizes)
{
    const struct sizes *s = sizes;
    for (int64_t r = 0; r < s->rows; r++) {
        double mean, rstd;
        statistics(in[0] + r * s->width, s->width, s->eps, &mean, &rstd);
        for (int64_t i = 0; i < s->width; i++) {
            double u = (in[0][r * s->width + i] - mean) * rstd;
            if (in[1]) u = u * in[1][i] + in[2][i];
            y[r * s->width + i] = in[3] ? u * (1 + in[3][i]) + in[4][i] : u;
        }
    }
}

enum { WEIGHTS = 1, MODULATED = 2, FLOATS = 4 }; /* which there are; that they are F32 whatever x is */

static void test_layer_norm(int64_t rows, int64_t width, int parts, double offset)
{
    const enum dtype d = parts & FLOATS ? DT_F32 : X;
    struct sizes s = {.rows = rows, .width = width, .eps = 1e-5f};
    for (int pass = 0; pass < 3; pass++) { /* forward, backward, backward that adds */
        fresh();
        struct tensor x = given(2, rows, width), ws = given_in(d, 1, width), bs = given_in(d, 1, width),
                      scale = given_in(d, 1, width);
        struct tensor shift = given_in(d, 1, width), dy = given(2, rows, width),
                      *m = parts & MODULATED ? &scale : NULL, *w = parts & WEIGHTS ? &ws : NULL,
                      *b = w ? &bs : NULL;
        for (int64_t i = 0; i < rows * width; i++) set(&x, i, tensor_get(&x, i) + offset);
        double *in[] = {wide(&x), w ? wide(w) : NULL, w ? wide(b) : NULL, m ? wide(m) : NULL, wide(&shift)},
               *slope = wide(&dy);
        if (pass == 0) {
            double *expected = wide_array(rows * width);
            struct tensor y = result(X, 2, rows, width);
            layer_norm(expected, in, &s);
            RUN("layer_norm_forward", layer_norm_forward(k, &y, &x, w, b, m, m ? &shift : NULL, 1e-5f));
            /* an offset is rounded away from the mean: its last bit, against a spread of about 1/2 */
            near(&y, expected, TOLERANCE + offset * 2e-7, "layer_norm_forward");
        } else if (pass == 1) {
            struct tensor dx = result(X, 2, rows, width);
            RUN("layer_norm_backward", layer_norm_backward(k, &dx, &dy, &x, w, m, 1e-5f, false));
            gradient_near(&dx, layer_norm, &s, in, 0, slope, rows * width, GRADIENT + offset * 4e-7,
                          "layer_norm_backward");
        } else {
            struct tensor added = buffer_shape(DT_F32, (int64_t[]){2, rows, width}),
                          dx = given(2, rows, width);
            double *before = wide(&dx);
            updated(&dx);
            RUN("layer_norm_backward adds", layer_norm_backward(k, &dx, &dy, &x, w, m, 1e-5f, true));
            for (int64_t i = 0; i < rows * width; i++) set(&added, i, tensor_get(&dx, i) - before[i]);
            /* rounded as a sum, which may be some times larger than what was added */
            gradient_near(&added, layer_norm, &s, in, 0, slope, rows * width,
                          GRADIENT + offset * 4e-7 + roundings(4), "layer_norm_backward adds");
        }
    }
}

static void test_rms_norm(int64_t rows, int64_t width)
{
    fresh();
    struct tensor x = given(2, rows, width), w = given(1, width), y = result(X, 2, rows, width);
    double *expected = wide_array(rows * width);
    for (int64_t r = 0; r < rows; r++) {
        double square = 0;
        for (int64_t i = 0; i < width; i++) square += pow(tensor_get(&x, r * width + i), 2) / (double)width;
        for (int64_t i = 0; i < width; i++)
            expected[r * width + i] =
                tensor_get(&x, r * width + i) / sqrt(square + 1e-6f) * tensor_get(&w, i);
    }
    RUN("rms_norm_forward", rms_norm_forward(k, &y, &x, &w, 1e-6f));
    near(&y, expected, TOLERANCE, "rms_norm_forward");
}

/* in: x, w, b, cos or NULL, sin or NULL. The tables are random and differ within a pair, which holds the
 * formula to the letter: a gradient that took one of a pair for the other would show. */
static void qk_norm_rope(double *y, double *const *in, const void *sizes)
{
    const struct sizes *s = sizes;
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t h = 0; h < s->width / s->d; h++) {
            double mean, rstd, *out = y + r * s->width + h * s->d;
            const double *x = in[0] + r * s->width + h * s->d;
            statistics(x, s->d, s->eps, &mean, &rstd);
            for (int64_t i = 0; i < s->d; i++)
                out[i] = ((x[i] - mean) * rstd * in[1][i] + in[2][i]) * s->times;
            for (int64_t i = 0; i < s->d && in[3] && r >= s->first; i += 2) {
                const double *c = in[3] + (r - s->first) * s->d, *n = in[4] + (r - s->first) * s->d;
                double even = out[i], odd = out[i + 1];
                out[i] = even * c[i] - odd * n[i];
                out[i + 1] = odd * c[i + 1] + even * n[i + 1];
            }
        }
}

static void test_qk_norm_rope(int64_t rows, int64_t heads, int64_t d, int64_t first, bool rope, float times)
{
    struct sizes s = {rows, heads * d, d, first, 1e-6f, times};
    for (int backward = 0; backward < 2; backward++) {
        fresh();
        struct tensor x = given(2, rows, heads * d), w = given(1, d), b = given(1, d),
                      dy = given(2, rows, heads * d);
        struct tensor cos = given_in(DT_F32, 2, rows - first, d), sin = given_in(DT_F32, 2, rows - first, d),
                      y = result(X, 2, rows, heads * d);
        double *in[] = {wide(&x), wide(&w), wide(&b), rope ? wide(&cos) : NULL, wide(&sin)},
               *slope = wide(&dy);
        double *expected = wide_array(rows * heads * d);
        const struct tensor *c = rope ? &cos : NULL, *n = rope ? &sin : NULL;
        if (backward) {
            RUN("qk_norm_rope_backward",
                qk_norm_rope_backward(k, &y, &dy, &x, &w, c, n, first, 1e-6f, times));
            gradient_near(&y, qk_norm_rope, &s, in, 0, slope, rows * heads * d, GRADIENT,
                          "qk_norm_rope_backward");
        } else {
            qk_norm_rope(expected, in, &s);
            RUN("qk_norm_rope_forward", qk_norm_rope_forward(k, &y, &x, &w, &b, c, n, first, 1e-6f, times));
            near(&y, expected, TOLERANCE, "qk_norm_rope_forward");
        }
    }
}

/* in: x, w, cos or NULL, sin */
static void rms_norm_rope(double *y, double *const *in, const void *sizes)
{
    const struct sizes *s = sizes;
    for (int64_t r = 0; r < s->rows; r++) {
        double square = 0, *out = y + r * s->width;
        const double *x = in[0] + r * s->width;
        for (int64_t i = 0; i < s->width; i++) square += x[i] * x[i] / (double)s->width;
        for (int64_t i = 0; i < s->width; i++) out[i] = x[i] / sqrt(square + s->eps) * in[1][i] * s->times;
        for (int64_t i = 0; i < s->width && in[2]; i += 2) {
            const double c = in[2][(r * s->d + i % s->d) / 2], n = in[3][(r * s->d + i % s->d) / 2];
            const double even = out[i], odd = out[i + 1];
            out[i] = even * c - odd * n;
            out[i + 1] = odd * c + even * n;
        }
    }
}

static void test_rms_norm_rope(int64_t rows, int64_t heads, int64_t d, bool rope, float times)
{
    const int64_t width = heads * d, half = rope ? d / 2 : 0;
    struct sizes s = {.rows = rows, .width = width, .d = d, .eps = 1e-6f, .times = times};
    for (int backward = 0; backward < 2; backward++) {
        fresh();
        struct tensor x = given(2, rows, width), w = given(1, width), dy = given(2, rows, width),
                      cos = given_in(DT_F32, 2, rows, half), sin = given_in(DT_F32, 2, rows, half),
                      y = result(X, 2, rows, width);
        double *in[] = {wide(&x), wide(&w), rope ? wide(&cos) : NULL, wide(&sin)}, *slope = wide(&dy);
        double *expected = wide_array(rows * width);
        const struct tensor *c = rope ? &cos : NULL, *n = rope ? &sin : NULL;
        if (backward) {
            RUN("rms_norm_rope_backward", rms_norm_rope_backward(k, &y, &dy, &x, &w, c, n, 1e-6f, times));
            gradient_near(&y, rms_norm_rope, &s, in, 0, slope, rows * width, GRADIENT,
                          "rms_norm_rope_backward");
        } else {
            rms_norm_rope(expected, in, &s);
            RUN("rms_norm_rope_forward", rms_norm_rope_forward(k, &y, &x, &w, c, n, 1e-6f, times));
            near(&y, expected, TOLERANCE, "rms_norm_rope_forward");
        }
    }
}

/* floor(dst in / out) along one axis; in time an odd number of frames keeps the first apart */
static int64_t nearest(int64_t dst, int64_t in, int64_t out)
{
    return (int64_t)floor((double)dst * (double)in / (double)out);
}

static void test_group_norm(const int64_t size[4], int groups, const int64_t latent[3], bool in_place)
{
    int64_t T = size[0], H = size[1], W = size[2], C = size[3], pixels = T * H * W, part = C / groups;
    char what[100];
    fresh();
    struct tensor x = given(4, T, H, W, C), w = given(1, C), b = given(1, C), mul = {0}, add = {0};
    for (int64_t i = 0; i < pixels * C; i++) set(&x, i, tensor_get(&x, i) + 0.5);
    double *expected = wide_array(pixels * C), *row = wide_array(pixels * part);
    if (latent) {
        mul = given(4, latent[0], latent[1], latent[2], C);
        add = given(4, latent[0], latent[1], latent[2], C);
    }
    for (int64_t c = 0; c < C; c++) {
        double mean, rstd;
        for (int64_t i = 0; i < pixels * part; i++)
            row[i] = tensor_get(&x, i / part * C + c / part * part + i % part);
        statistics(row, pixels * part, 1e-6f, &mean, &rstd);
        for (int64_t p = 0; p < pixels; p++) {
            double u = (tensor_get(&x, p * C + c) - mean) * rstd * tensor_get(&w, c) + tensor_get(&b, c);
            if (latent) {
                int64_t t = p / (H * W);
                int64_t tz = T > 1 && T % 2 ? (t ? 1 + nearest(t - 1, latent[0] - 1, T - 1) : 0)
                                            : nearest(t, latent[0], T);
                int64_t z = (tz * latent[1] + nearest(p / W % H, latent[1], H)) * latent[2] +
                            nearest(p % W, latent[2], W);
                u = u * tensor_get(&mul, z * C + c) + tensor_get(&add, z * C + c);
            }
            expected[p * C + c] = u / (1 + exp(-u));
        }
    }
    snprintf(what, sizeof what, "%s [%d,%d,%d,%d] in %d groups%s",
             latent ? "spatial_norm_silu" : "group_norm_silu", (int)T, (int)H, (int)W, (int)C, groups,
             in_place ? ", in place" : "");
    struct tensor y = x;
    if (in_place)
        updated(&x);
    else
        y = result(X, 4, T, H, W, C);
    if (latent)
        RUN(what, spatial_norm_silu_forward(k, &y, &x, &w, &b, &mul, &add, groups, 1e-6f));
    else
        RUN(what, group_norm_silu_forward(k, &y, &x, &w, &b, groups, 1e-6f));
    near(&y, expected, TOLERANCE, what);
}

/* pixels' lengths go over many orders of magnitude; one is zero */
static void test_channel_norm(int64_t T, int64_t H, int64_t W, int64_t C)
{
    for (int silu = 0; silu < 2; silu++) {
        fresh();
        struct tensor x = given(4, T, H, W, C), w = given(1, C), y = result(X, 4, T, H, W, C);
        for (int64_t p = 0; p < T * H * W; p++)
            for (int64_t c = 0; c < C; c++) {
                const double to = p == 1 ? 0 : p == 2 ? 1e-10 : p % 5 == 4 ? 1e4 : 1;
                set(&x, p * C + c, tensor_get(&x, p * C + c) * to);
            }
        double *expected = wide_array(T * H * W * C);
        for (int64_t p = 0; p < T * H * W; p++) {
            double square = 0;
            for (int64_t c = 0; c < C; c++) square += pow(tensor_get(&x, p * C + c), 2);
            for (int64_t c = 0; c < C; c++) {
                const double u = tensor_get(&x, p * C + c) / fmax(sqrt(square), 1e-12) * sqrt((double)C) *
                                 tensor_get(&w, c);
                expected[p * C + c] = silu ? u / (1 + exp(-u)) : u;
            }
        }
        RUN("channel_norm_forward", channel_norm_forward(k, &y, &x, &w, silu));
        near(&y, expected, TOLERANCE, silu ? "channel_norm_forward, with silu" : "channel_norm_forward");
        settle(1);
        struct tensor in_place = given(4, T, H, W, C);
        kern_copy(host, &in_place, &x);
        updated(&in_place);
        RUN("channel_norm_forward in place", channel_norm_forward(k, &in_place, &in_place, &w, silu));
        near(&in_place, expected, TOLERANCE, "the same in its own place");
    }
}

int main(void)
{
    while (next_mode()) {
        static const int64_t rows[][2] = {{1, 1}, {1, 5}, {3, 4}, {7, 33}, {70, 1030}, {4, 20000}};
        for (int i = 0; i < 6; i++) {
            test_layer_norm(rows[i][0], rows[i][1], i % 2 ? WEIGHTS | MODULATED : WEIGHTS, 0);
            test_layer_norm(rows[i][0], rows[i][1], i % 2 ? WEIGHTS : WEIGHTS | MODULATED, i == 4 ? 100 : 0);
            test_layer_norm(rows[i][0], rows[i][1], MODULATED | FLOATS, 0);
            test_rms_norm(rows[i][0], rows[i][1]);
        }
        test_layer_norm(0, 8, WEIGHTS | MODULATED, 0);
        test_layer_norm(5, 24, 0, 0);
        test_layer_norm(5, 24, WEIGHTS | FLOATS, 0);
        test_layer_norm(9, 1536, WEIGHTS | MODULATED | FLOATS, 0);
        test_qk_norm_rope(1, 1, 4, 0, true, 1);
        test_qk_norm_rope(7, 3, 6, 2, true, 0.3f);
        test_qk_norm_rope(7, 3, 5, 2, false, 2.5f);
        test_qk_norm_rope(5, 2, 64, 5, true, 1);
        test_qk_norm_rope(600, 2, 64, 26, true, attention_times(64));
        test_rms_norm_rope(1, 1, 2, true, 1);
        test_rms_norm_rope(7, 2, 12, true, 0.3f);
        test_rms_norm_rope(5, 3, 20, true, 1);
        test_rms_norm_rope(7, 3, 5, false, 2.5f);
        test_rms_norm_rope(3, 12, 128, true, attention_times(128));
        test_rms_norm_rope(300, 2, 128, true, 1);
        test_rms_norm_rope(0, 2, 12, true, 1);

        test_group_norm((int64_t[]){1, 1, 1, 4}, 2, NULL, false);
        test_group_norm((int64_t[]){3, 5, 7, 12}, 4, NULL, false);
        test_group_norm((int64_t[]){2, 31, 37, 8}, 8, NULL, true);
        test_group_norm((int64_t[]){5, 64, 61, 6}, 1, NULL, false);
        test_group_norm((int64_t[]){1, 4, 6, 8}, 2, (int64_t[]){1, 2, 3}, false);
        test_group_norm((int64_t[]){2, 4, 6, 8}, 2, (int64_t[]){1, 2, 3}, true);
        test_group_norm((int64_t[]){3, 4, 6, 8}, 2, (int64_t[]){2, 4, 6}, false);
        test_group_norm((int64_t[]){8, 6, 10, 4}, 1, (int64_t[]){2, 3, 5}, false);
        test_group_norm((int64_t[]){8, 32, 40, 8}, 2, (int64_t[]){2, 8, 10}, false);
        test_group_norm((int64_t[]){9, 8, 4, 4}, 2, (int64_t[]){3, 1, 1}, false);
        test_group_norm((int64_t[]){5, 7, 9, 4}, 2, (int64_t[]){3, 3, 4},
                        false); /* sizes that do not divide */
        test_channel_norm(1, 1, 1, 1);
        test_channel_norm(2, 3, 2, 3);
        test_channel_norm(1, 5, 7, 8);
        test_channel_norm(2, 40, 37, 96);
        test_channel_norm(1, 3, 5, 384);
        test_channel_norm(1, 2, 3, 1030);
    }
    return done();
}
