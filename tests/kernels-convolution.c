/* Convolutions, resampling in time and space, blocks, windows and blending. */
#include "tests/kernels.h"

/* Sums of 27 C products of numbers below 1. */
static const double TOLERANCE = 2e-6;

/* The whole clip as one sum, without chunks: frame t-2+a for tap a, the first frame repeated in front. */
static double *causal_conv(const struct tensor *x, const struct tensor *w, const struct tensor *b)
{
    int64_t T = x->shape[0], H = x->shape[1], W = x->shape[2], C = x->shape[3], O = w->shape[0];
    double *y = wide_array(T * H * W * O), *in = wide(x), *kernel = wide(w);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < H; i++)
            for (int64_t j = 0; j < W; j++)
                for (int64_t o = 0; o < O; o++) {
                    double s = tensor_get(b, o);
                    for (int tap = 0; tap < 27; tap++) {
                        int64_t from = t + tap / 9 - 2, p = i + tap / 3 % 3 - 1, q = j + tap % 3 - 1;
                        if (from < 0) from = 0;
                        if (p < 0 || p >= H || q < 0 || q >= W) continue;
                        for (int64_t c = 0; c < C; c++)
                            s += in[((from * H + p) * W + q) * C + c] * kernel[(o * 27 + tap) * C + c];
                    }
                    y[((t * H + i) * W + j) * O + o] = s;
                }
    return y;
}

/* Each chunk is given with two frames of room before it, where it finds its history. */
static void convolve_chunks(struct kern *k, struct tensor *y, struct tensor *x, struct tensor *room,
                            struct tensor *history, struct tensor *w, struct tensor *b,
                            struct tensor *residual, const int64_t *chunks)
{
    int64_t t = 0;
    for (int i = 0; chunks[i]; t += chunks[i++]) {
        struct tensor in = tensor_rows(x, t, chunks[i]), out = tensor_rows(y, t, chunks[i]), more = out;
        struct tensor whole = tensor_rows(room, 0, 2 + chunks[i]), inner = tensor_rows(room, 2, chunks[i]);
        if (residual) more = tensor_rows(residual, t, chunks[i]);
        kern_copy(k, &inner, &in);
        causal_conv3d_forward(k, &out, &whole, history, i == 0, w, b, residual ? &more : NULL);
    }
}

/* A clip in chunks of these lengths must give what the whole gives, and leave its last two frames behind. */
static void test_causal_conv(const int64_t size[4], const int64_t *chunks)
{
    int64_t T = 0, longest = 0, H = size[0], W = size[1], C = size[2], O = size[3];
    char what[100];
    for (int i = 0; chunks[i]; i++) {
        T += chunks[i];
        longest = chunks[i] > longest ? chunks[i] : longest;
    }
    fresh();
    struct tensor x = given(4, T, H, W, C), w = given(5, O, 3, 3, 3, C), b = given(1, O),
                  residual = given(4, T, H, W, O);
    double *expected = causal_conv(&x, &w, &b), *history_expected = wide_array(2 * H * W * C);
    struct tensor history = result(X, 4, 2, H, W, C), y = result(X, 4, T, H, W, O),
                  room = result(X, 4, 2 + longest, H, W, C);
    for (int64_t i = 0; i < 2 * H * W * C; i++) {
        int64_t frame = T - 2 + i / (H * W * C);
        history_expected[i] = tensor_get(&x, (frame > 0 ? frame : 0) * H * W * C + i % (H * W * C));
    }
    snprintf(what, sizeof what, "causal_conv3d %dx%dx%dx%d to %d, first chunk of %d", (int)T, (int)H, (int)W,
             (int)C, (int)O, (int)chunks[0]);
    RUN(what, convolve_chunks(k, &y, &x, &room, &history, &w, &b, NULL, chunks));
    near(&y, expected, TOLERANCE, what);
    near(&history, history_expected, 0, "its history");
    for (int64_t i = 0; i < T * H * W * O; i++) expected[i] += tensor_get(&residual, i);
    RUN(what, convolve_chunks(k, &y, &x, &room, &history, &w, &b, &residual, chunks));
    near(&y, expected, TOLERANCE + roundings(1), "with a residual"); /* of the sum, before it is added */
    RUN(what, (kern_copy(k, &y, &residual), convolve_chunks(k, &y, &x, &room, &history, &w, &b, &y, chunks)));
    near(&y, expected, TOLERANCE + roundings(1), "with a residual in its own place");
}

/* up: each pixel of x stands for 2x2 first */
static void test_conv2d(int64_t T, int64_t H, int64_t W, int64_t C, int64_t O, int stride, int up)
{
    int64_t h = (H << up) / stride, width = (W << up) / stride;
    char what[100];
    fresh();
    struct tensor x = given(4, T, H, W, C), w = given(4, O, 3, 3, C), b = given(1, O),
                  y = result(X, 4, T, h, width, O);
    double *expected = wide_array(T * h * width * O);
    for (int64_t n = 0; n < T * h * width * O; n++) {
        int64_t o = n % O, j = n / O % width, i = n / O / width % h, t = n / O / width / h;
        expected[n] = tensor_get(&b, o);
        for (int tap = 0; tap < 9; tap++) {
            int64_t p = i * stride + tap / 3 - (stride == 1), q = j * stride + tap % 3 - (stride == 1);
            for (int64_t c = 0; c < C && p >= 0 && p < H << up && q >= 0 && q < W << up; c++)
                expected[n] += tensor_get(&x, ((t * H + (p >> up)) * W + (q >> up)) * C + c) *
                               tensor_get(&w, (o * 9 + tap) * C + c);
        }
    }
    snprintf(what, sizeof what, "%sconv2d %dx%dx%dx%d to %d, stride %d", up ? "upsample_" : "", (int)T,
             (int)H, (int)W, (int)C, (int)O, stride);
    if (up)
        RUN(what, upsample_conv2d_forward(k, &y, &x, &w, &b));
    else
        RUN(what, conv2d_forward(k, &y, &x, &w, &b, stride));
    near(&y, expected, TOLERANCE, what);
}

static void test_time_conv(int64_t T, int64_t H, int64_t W, int64_t C, int64_t O, int stride)
{
    const int64_t frames = stride * (T - 1) + 3;
    char what[100];
    fresh();
    struct tensor x = given(4, frames, H, W, C), w = given(5, O, 3, 1, 1, C), b = given(1, O),
                  y = result(X, 4, T, H, W, O);
    double *in = wide(&x), *kernel = wide(&w), *expected = wide_array(T * H * W * O);
    for (int64_t n = 0; n < T * H * W * O; n++) {
        const int64_t o = n % O, pixel = n / O % (H * W), t = n / O / (H * W);
        expected[n] = tensor_get(&b, o);
        for (int64_t a = 0; a < 3; a++)
            for (int64_t c = 0; c < C; c++)
                expected[n] += in[((t * stride + a) * H * W + pixel) * C + c] * kernel[(o * 3 + a) * C + c];
    }
    snprintf(what, sizeof what, "time_conv %dx%dx%dx%d to %d, stride %d", (int)frames, (int)H, (int)W, (int)C,
             (int)O, stride);
    RUN(what, time_conv_forward(k, &y, &x, &w, &b, stride));
    near(&y, expected, TOLERANCE, what);
}

static void test_halve_time(int64_t T, int64_t size)
{
    int64_t half = (T + 1) / 2;
    fresh();
    struct tensor x = given(4, T, 1, size, 3), y = result(X, 4, half, 1, size, 3);
    double *in = wide(&x), *expected = wide_array(half * size * 3);
    for (int64_t t = 0; t < half; t++)
        for (int64_t i = 0; i < size * 3; i++) {
            int64_t a = T % 2 ? (t ? 2 * t - 1 : 0) : 2 * t, b = T % 2 ? 2 * t : 2 * t + 1;
            expected[t * size * 3 + i] = (in[a * size * 3 + i] + in[b * size * 3 + i]) / 2;
        }
    RUN("halve_time_forward", halve_time_forward(k, &y, &x));
    near(&y, expected, 1e-7, "halve_time_forward");
}

static void test_fold(int64_t T, int64_t h, int64_t w, int64_t C, int patch)
{
    const int64_t P = patch, D = C * P * P;
    fresh();
    struct tensor x = given(4, T, h * P, w * P, C), y = result(X, 4, T, h, w, D),
                  back = result(X, 4, T, h * P, w * P, C);
    double *in = wide(&x), *expected = wide_array(T * h * w * D);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < h * P; i++)
            for (int64_t j = 0; j < w * P; j++)
                for (int64_t c = 0; c < C; c++)
                    expected[((t * h + i / P) * w + j / P) * D + c * P * P + j % P * P + i % P] =
                        in[((t * h * P + i) * w * P + j) * C + c];
    RUN("fold_pixels and back", (fold_pixels(k, &y, &x, patch), unfold_pixels(k, &back, &y, patch)));
    near(&y, expected, 0, "fold_pixels");
    near(&back, in, 0, "unfold_pixels");
}

/* As the reference has it: x with zeros in front is laid out as [O,G,T',h,w], a mean over G. */
static void test_average_blocks(int64_t T, int64_t h, int64_t w, int64_t C, int64_t O, int frames, int side)
{
    const int64_t S = side, made = (T + frames - 1) / frames, before = made * frames - T,
                  G = C * frames * S * S / O;
    char what[100];
    fresh();
    struct tensor x = given(4, T, h * S, w * S, C), y = result(X, 4, made, h, w, O);
    double *in = wide(&x), *expected = wide_array(made * h * w * O);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < h * S; i++)
            for (int64_t j = 0; j < w * S; j++)
                for (int64_t c = 0; c < C; c++) {
                    const int64_t at = t + before, n = ((c * frames + at % frames) * S + i % S) * S + j % S;
                    expected[((at / frames * h + i / S) * w + j / S) * O + n / G] +=
                        in[((t * h * S + i) * w * S + j) * C + c] / (double)G;
                }
    snprintf(what, sizeof what, "average_blocks %dx%dx%dx%d to %d, %d frames, side %d", (int)T, (int)h,
             (int)w, (int)C, (int)O, frames, side);
    RUN(what, average_blocks_forward(k, &y, &x, frames, side));
    near(&y, expected, TOLERANCE, what);
}

/* Channels repeated, then laid out, then without the first frames. */
static void test_repeat_blocks(int64_t T, int64_t h, int64_t w, int64_t C, int64_t O, int frames, int side,
                               int dropped)
{
    const int64_t S = side, made = T * frames - dropped, R = O * frames * S * S / C;
    char what[100];
    fresh();
    struct tensor x = given(4, T, h, w, C), y = given(4, made, h * S, w * S, O);
    double *in = wide(&x), *expected = wide(&y);
    for (int64_t t = 0; t < made; t++)
        for (int64_t i = 0; i < h * S; i++)
            for (int64_t j = 0; j < w * S; j++)
                for (int64_t o = 0; o < O; o++) {
                    const int64_t at = t + dropped, n = ((o * frames + at % frames) * S + i % S) * S + j % S;
                    expected[((t * h * S + i) * w * S + j) * O + o] +=
                        in[((at / frames * h + i / S) * w + j / S) * C + n / R];
                }
    snprintf(what, sizeof what, "repeat_blocks %dx%dx%dx%d to %d, %d frames, side %d, but %d", (int)T, (int)h,
             (int)w, (int)C, (int)O, frames, side, dropped);
    updated(&y);
    RUN(what, repeat_blocks_add(k, &y, &x, frames, side));
    near(&y, expected, TOLERANCE, what);
}

/* The shapes of Wan 2.2's levels, small, and larger than a thread's share */
static void test_blocks(void)
{
    test_fold(1, 1, 1, 1, 1);
    test_fold(3, 2, 5, 3, 2);
    test_fold(2, 3, 2, 2, 3);
    test_fold(3, 60, 50, 3, 2);
    test_average_blocks(1, 1, 1, 1, 1, 1, 1);
    test_average_blocks(1, 3, 2, 5, 5, 1, 2);
    test_average_blocks(1, 2, 3, 4, 8, 2, 2); /* half of it zeros */
    test_average_blocks(4, 3, 2, 4, 8, 2, 2);
    test_average_blocks(5, 2, 1, 3, 4, 2, 2);
    test_average_blocks(3, 2, 2, 12, 4, 1, 1);
    test_average_blocks(4, 20, 24, 20, 40, 2, 2);
    test_repeat_blocks(1, 1, 1, 1, 1, 1, 1, 0);
    test_repeat_blocks(3, 2, 3, 8, 4, 1, 2, 0);
    test_repeat_blocks(1, 3, 2, 8, 8, 2, 2, 1);
    test_repeat_blocks(2, 3, 2, 6, 3, 2, 2, 0);
    test_repeat_blocks(2, 2, 2, 3, 6, 3, 1, 2);
    test_repeat_blocks(3, 20, 24, 48, 24, 2, 2, 1);
}

static void test_copy_window(int64_t rows, int64_t cols)
{
    int64_t T = 3, Hx = rows + 3, Wx = cols + 4, Hy = rows + 2, Wy = cols + 3, C = 2;
    fresh();
    struct tensor x = given(4, T, Hx, Wx, C), y = given(4, T, Hy, Wy, C);
    double *in = wide(&x), *expected = wide(&y);
    for (int64_t n = 0; n < T * rows * cols * C; n++) {
        int64_t c = n % C, j = n / C % cols, i = n / C / cols % rows, t = n / C / cols / rows;
        expected[((t * Hy + 2 + i) * Wy + 1 + j) * C + c] = in[((t * Hx + 3 + i) * Wx + 4 + j) * C + c];
    }
    updated(&y);
    RUN("copy_window", copy_window(k, &y, 2, 1, &x, 3, 4, rows, cols));
    near(&y, expected, 0, "copy_window");
}

static void test_blend(int64_t extent, int64_t along, bool vertical)
{
    int64_t T = 2, C = 3, Ha = vertical ? extent + 2 : along, Wa = vertical ? along : extent;
    int64_t Hb = vertical ? extent + 1 : along, Wb = vertical ? along : extent + 3;
    fresh();
    struct tensor a = given(4, T, Ha, Wa, C), b = given(4, T, Hb, Wb, C);
    double *other = wide(&a), *expected = wide(&b);
    for (int64_t n = 0; n < T * Hb * Wb * C; n++) {
        int64_t c = n % C, j = n / C % Wb, i = n / C / Wb % Hb, t = n / C / Wb / Hb, e = vertical ? i : j;
        int64_t from = vertical ? (t * Ha + Ha - extent + e) * Wa + j : (t * Ha + i) * Wa + Wa - extent + e;
        double share = (double)e / (double)extent;
        if (e < extent) expected[n] = other[from * C + c] * (1 - share) + expected[n] * share;
    }
    updated(&b);
    RUN(vertical ? "blend_edge, rows" : "blend_edge, columns", blend_edge(k, &b, &a, extent, vertical));
    near(&b, expected, 2e-7, vertical ? "blend_edge, rows" : "blend_edge, columns");
}

int main(void)
{
    while (next_mode()) {
        test_causal_conv((int64_t[]){1, 1, 1, 1}, (int64_t[]){1, 0});
        test_causal_conv((int64_t[]){3, 2, 4, 5}, (int64_t[]){1, 1, 1, 0});
        test_causal_conv((int64_t[]){5, 7, 3, 6}, (int64_t[]){3, 2, 1, 2, 0});
        test_causal_conv((int64_t[]){12, 17, 5, 9},
                         (int64_t[]){5, 4, 0}); /* pixels over several tiles, and an odd rest */
        test_causal_conv((int64_t[]){9, 11, 40, 33}, (int64_t[]){2, 3, 0});
        test_causal_conv((int64_t[]){48, 40, 24, 32}, (int64_t[]){3, 2, 0}); /* many tiles, side by side */
        test_causal_conv((int64_t[]){11, 14, 64, 3}, (int64_t[]){3, 2, 0}); /* fewer results than arguments */
        test_conv2d(1, 1, 1, 1, 1, 1, 0);
        test_conv2d(3, 5, 1, 4, 3, 1, 0);
        test_conv2d(2, 16, 19, 7, 5, 1, 0);
        test_conv2d(2, 30, 34, 12, 17, 1, 0);
        test_conv2d(1, 2, 2, 1, 1, 2, 0);
        test_conv2d(2, 6, 10, 3, 4, 2, 0);
        test_conv2d(3, 31, 34, 6, 5, 2, 0); /* an odd height: the last row needs no zeros */
        test_conv2d(3, 61, 66, 12, 9, 2, 0);
        test_conv2d(1, 1, 1, 1, 1, 1, 1);
        test_conv2d(3, 5, 7, 3, 4, 1, 1);
        test_conv2d(2, 17, 20, 16, 10, 1, 1);
        for (int stride = 1; stride <= 2; stride++) {
            test_time_conv(1, 1, 1, 1, 1, stride);
            test_time_conv(1, 3, 5, 3, 6, stride);
            test_time_conv(3, 5, 4, 8, 16, stride);
            test_time_conv(4, 19, 21, 24, 9, stride);
        }
        test_time_conv(2, 60, 50, 96, 40, 1); /* many tiles, side by side */
        for (int64_t T = 1; T <= 5; T++) {
            test_halve_time(T, 11);
        }
        test_halve_time(9, 7000);
        test_blocks();
        test_copy_window(0, 0);
        test_copy_window(4, 5);
        test_copy_window(100, 120);
        for (int vertical = 0; vertical < 2; vertical++) {
            test_blend(1, 1, vertical);
            test_blend(4, 7, vertical);
            test_blend(40, 300, vertical);
        }
    }
    return done();
}
