/* What the grader's network brought: pixel_patches, class_tokens, time_conv_quick_gelu, linear_quick_gelu,
 * rope. */
#include "tests/kernels.h"

/* A few roundings to float per element. */
static const double TOLERANCE = 4e-7;

static double quick_gelu(double u)
{
    return u / (1 + exp(-1.702 * u));
}

static void test_pixel_patches(int64_t T, int64_t H, int64_t W, int P)
{
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f},
                       std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    int64_t rows = H / P, cols = W / P, width = 3 * P * P;
    fresh();
    struct tensor u8 = buffer_shape(DT_U8, (int64_t[]){4, T, H, W, 3}),
                  y = result(X, 2, T * rows * cols, width);
    double *expected = wide_array(T * rows * cols * width);
    for (int64_t i = 0; i < T * H * W * 3; i++) ((uint8_t *)u8.data)[i] = (uint8_t)(i * 37 + i / 251);
    for (int64_t t = 0; t < T; t++)
        for (int64_t y0 = 0; y0 < rows * P; y0++)
            for (int64_t x0 = 0; x0 < cols * P; x0++)
                for (int64_t c = 0; c < 3; c++)
                    expected[((t * rows + y0 / P) * cols + x0 / P) * width + (c * P + y0 % P) * P + x0 % P] =
                        (tensor_get(&u8, ((t * H + y0) * W + x0) * 3 + c) / 255 - mean[c]) / std[c];
    RUN("pixel_patches", pixel_patches(k, &y, &u8, P, mean, std));
    near(&y, expected, TOLERANCE, "pixel_patches");
}

/* A few values that CLIP's image processor gives for these statistics. */
static void test_pixel_values(void)
{
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f},
                       std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    static const double expected[] = {-1.792263, -1.752097, -1.480220, 0.061738, 0.153889, 0.325729,
                                      0.076336,  0.168897,  0.339949,  1.930336, 2.074884, 2.145897};
    fresh();
    struct tensor u8 = buffer_shape(DT_U8, (int64_t[]){4, 1, 2, 2, 3}), y = result(X, 2, 4, 3);
    memcpy(u8.data, (const uint8_t[]){0, 0, 0, 127, 127, 127, 128, 128, 128, 255, 255, 255}, 12);
    RUN("pixel_patches of one pixel", pixel_patches(k, &y, &u8, 1, mean, std));
    near(&y, expected, 3e-7, "the values of 0, 127, 128 and 255 in red, green and blue");
}

static void test_class_tokens(int64_t T, int64_t n, int64_t width)
{
    fresh();
    struct tensor x = given(2, T * n, width), cls = given(1, width), pos = given(2, n + 1, width),
                  y = result(X, 2, T * (n + 1), width);
    double *expected = wide_array(T * (n + 1) * width);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i <= n; i++)
            for (int64_t c = 0; c < width; c++)
                expected[(t * (n + 1) + i) * width + c] =
                    (i ? tensor_get(&x, (t * n + i - 1) * width + c) : tensor_get(&cls, c)) +
                    tensor_get(&pos, i * width + c);
    RUN("class_tokens_forward", class_tokens_forward(k, &y, &x, &cls, &pos));
    near(&y, expected, TOLERANCE, "class_tokens_forward");
}

static void test_time_conv(int64_t T, int64_t n, int64_t width)
{
    fresh();
    struct tensor x = given(3, T, n, width), w = given(2, width, 3), b = given(1, width),
                  y = result(X, 3, T, n, width);
    double *expected = wide_array(T * n * width);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < n * width; i++) {
            double sum = tensor_get(&b, i % width);
            for (int64_t tap = 0; tap < 3; tap++)
                if (t + tap - 1 >= 0 && t + tap - 1 < T)
                    sum +=
                        tensor_get(&w, i % width * 3 + tap) * tensor_get(&x, (t + tap - 1) * n * width + i);
            expected[t * n * width + i] = quick_gelu(sum);
        }
    RUN("time_conv_quick_gelu_forward", time_conv_quick_gelu_forward(k, &y, &x, &w, &b));
    near(&y, expected, TOLERANCE, "time_conv_quick_gelu_forward");
}

/* Sums of `in` products: as linear_forward's. */
static void test_linear_quick_gelu(int64_t n, int64_t in, int64_t out)
{
    fresh();
    struct tensor x = given(2, n, in), w = given(2, out, in), b = given(1, out), y = result(X, 2, n, out);
    double *expected = wide_array(n * out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t o = 0; o < out; o++) {
            double sum = tensor_get(&b, o);
            for (int64_t p = 0; p < in; p++) sum += tensor_get(&x, i * in + p) * tensor_get(&w, o * in + p);
            expected[i * out + o] = quick_gelu(sum);
        }
    RUN("linear_quick_gelu_forward", linear_quick_gelu_forward(k, &y, &x, &w, &b));
    near(&y, expected, 2e-6 + roundings(1),
         "linear_quick_gelu_forward"); /* in BF16 first the sum is rounded */
}

static void test_rope(int64_t rows, int64_t heads, int64_t half, int64_t first, int64_t positions)
{
    int64_t width = heads * 2 * half;
    fresh();
    struct tensor x = given(2, rows, width), cos = given_in(DT_F32, 2, positions, half),
                  sin = given_in(DT_F32, 2, positions, half), y = result(X, 2, rows, width);
    double *expected = wide_array(rows * width);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) { /* the other of the pair, and the sign with which it comes in */
            int64_t d = i % (2 * half), at = (first + r) * half + d % half;
            double other = tensor_get(&x, r * width + (d < half ? i + half : i - half));
            expected[r * width + i] = tensor_get(&x, r * width + i) * tensor_get(&cos, at) +
                                      (d < half ? -1 : 1) * other * tensor_get(&sin, at);
        }
    RUN("rope_forward", rope_forward(k, &y, &x, &cos, &sin, first));
    near(&y, expected, TOLERANCE, "rope_forward");
    settle(1);
    updated(&x);
    RUN("rope_forward in place", rope_forward(k, &x, &x, &cos, &sin, first));
    near(&x, expected, TOLERANCE, "rope_forward in place");
}

int main(void)
{
    while (next_mode()) {
        test_pixel_values();
        test_pixel_patches(1, 1, 1, 1);
        test_pixel_patches(3, 6, 9, 3);
        test_pixel_patches(2, 140, 126, 14);
        test_class_tokens(1, 1, 1);
        test_class_tokens(3, 5, 7);
        test_class_tokens(4, 64, 300);
        test_time_conv(1, 3, 5);
        test_time_conv(2, 3, 5);
        test_time_conv(7, 20, 600);
        test_linear_quick_gelu(1, 1, 1);
        test_linear_quick_gelu(9, 31, 17);
        test_linear_quick_gelu(600, 33, 120);
        test_rope(1, 1, 1, 0, 1);
        test_rope(3, 5, 4, 2, 7);
        test_rope(130, 8, 64, 40, 256);
    }
    return done();
}
