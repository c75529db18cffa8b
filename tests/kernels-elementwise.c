/* vmath, and the operations that go over their elements one by one: gates, sums, activations, patches,
 * layouts, pixels. */
#include "tests/kernels.h"

#include "kernels/cpu/vmath.h"

/* A few roundings to float per element. */
static const double TOLERANCE = 4e-7;

static double gelu(double u)
{
    return u / 2 * (1 + tanh(sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
}

static double silu(double u)
{
    return u / (1 + exp(-u));
}

static double gelu_slope(double u)
{
    return (gelu(u + 1e-5) - gelu(u - 1e-5)) / 2e-5;
}

/* The largest error, in units of the result's last place, over every 1013th float between two. Results below
 * the normal range have fewer bits, of which the last is the unit. */
static double worst_ulp(float (*f)(float), double (*exact)(double), float from, float to)
{
    double worst = 0;
    for (int sign = 0; sign < 2; sign++)
        for (uint32_t bits = 0; bits < 0x7f800000; bits += 1013) {
            uint32_t signed_bits = bits | (uint32_t)sign << 31;
            float x;
            memcpy(&x, &signed_bits, sizeof x);
            if (x < from || x > to) continue;
            double want = exact(x), unit = ldexp(1, (int)fmax(ilogb(want), -126) - 23);
            worst = fmax(worst, fabs(f(x) - want) / unit);
        }
    return worst;
}

static void test_vmath(void)
{
    double exp_ulp = worst_ulp(vexp, exp, -104, 88.72f), silu_ulp = worst_ulp(vsilu, silu, -80, 80);
    ok(exp_ulp <= 1.1, "vexp is within %.2f units in the last place of at most 1.1", exp_ulp);
    ok(silu_ulp <= 4, "vsilu is within %.2f units in the last place of at most 4", silu_ulp);
    ok(vexp(INFINITY) == INFINITY && vexp(100) == INFINITY && vexp(-INFINITY) == 0 && vexp(-200) == 0 &&
           vexp(0) == 1,
       "vexp at the ends of its range");
    ok(isnan(vexp(NAN)) && isnan(vsilu(NAN)) && isnan(vgelu(NAN)) && isnan(vgelu_slope(NAN)),
       "NaN stays NaN");
    double worst = 0, slope = 0;
    for (float x = -30; x < 30; x += 1.0f / 1024) {
        worst = fmax(worst, fabs(vgelu(x) - gelu(x)) / (1e-3 + fabs(gelu(x))));
        slope = fmax(slope, fabs(vgelu_slope(x) - gelu_slope(x)));
    }
    ok(worst < 1e-6, "vgelu: error %.2g", worst);
    ok(slope < 1e-6, "vgelu_slope: error %.2g", slope);
    ok(vgelu(1e20f) == 1e20f && fabsf(vgelu(-1e20f)) < 1e-15f, "vgelu far out");
    ok(vsilu(1e30f) == 1e30f && fabsf(vsilu(-1e30f)) < 1e-5f, "vsilu far out");
}

static void test_gated(int64_t rows, int64_t width, enum dtype of_gate)
{
    int64_t n = rows * width;
    fresh();
    struct tensor x = given(2, rows, width), y = given(2, rows, width), gate = given_in(of_gate, 1, width),
                  dy = result(X, 2, rows, width);
    double *expected = wide(&x), *back = wide_array(n);
    for (int64_t i = 0; i < n; i++) {
        expected[i] += tensor_get(&gate, i % width) * tensor_get(&y, i);
        back[i] = tensor_get(&gate, i % width) * tensor_get(&x, i);
    }
    RUN("gated_add_backward", gated_add_backward(k, &dy, &x, &gate));
    near(&dy, back, TOLERANCE, "gated_add_backward");
    settle(1);
    struct tensor out = result(X, 2, rows, width);
    RUN("gated_add_forward", gated_add_forward(k, &out, &x, &y, &gate));
    near(&out, expected, TOLERANCE, "gated_add_forward");
    settle(1);
    updated(&x);
    RUN("gated_add_forward to x itself", gated_add_forward(k, &x, &x, &y, &gate));
    near(&x, expected, TOLERANCE, "gated_add_forward to x itself");
}

static void test_sums(int64_t n, enum dtype of_axpby)
{
    for (int b = -2; b < 2; b++) { /* y = 0.3 x + b y; for 1, add() */
        enum dtype d = b == 1 ? X : of_axpby;
        fresh();
        struct tensor x = given_in(d, 1, n), y = given_in(d, 1, n);
        double *expected = wide(&y);
        for (int64_t i = 0; i < n; i++)
            expected[i] = (b == 1 ? 1 : 0.3) * tensor_get(&x, i) + b * expected[i];
        if (b == 0)
            y = result(d, 1, n); /* is not read then: it may be fresh memory */
        else
            updated(&y);
        if (b == 1)
            RUN("add", add(k, &y, &x));
        else
            RUN("axpby", axpby(k, &y, 0.3, &x, b));
        near(&y, expected, TOLERANCE, b == 1 ? "add" : "axpby");
    }
}

static void test_copies(int64_t n)
{
    fresh();
    struct tensor x = given_in(DT_F32, 1, n), copied = result(DT_F32, 1, n), zeroed = result(X, 1, n);
    struct tensor half = result(DT_BF16, 1, n), there = result(DT_F32, 1, n), back = result(DT_F16, 1, n),
                  narrow = result(X, 1, n), again = result(DT_F32, 1, n);
    RUN("copies", (kern_copy(k, &copied, &x), kern_zero(k, &zeroed), kern_download(k, &half, &x),
                   kern_upload(k, &there, &half), kern_upload(k, &back, &there), kern_copy(k, &narrow, &x),
                   kern_copy(k, &again, &narrow)));
    near(&copied, wide(&x), 0, "kern_copy");
    near(&zeroed, wide_array(n), 0, "kern_zero");
    near(&half, wide(&x), 0x1p-8, "kern_download to BF16");
    near(&there, wide(&half), 0, "kern_upload from BF16");
    near(&narrow, wide(X == DT_BF16 ? &half : &x), 0, "kern_copy to the compute dtype");
    near(&again, wide(&narrow), 0, "kern_copy from the compute dtype");
    near(&back, wide(&half), 0x1p-14,
         "kern_upload to F16"); /* all 8 bits of a BF16 in (-1, 1), but for the very small */
}

static void test_activations(int64_t n)
{
    fresh();
    struct tensor a = given(1, n), b = given(1, n), y = result(X, 1, n);
    double *silu_of = wide_array(n), *product = wide_array(n), *gated = wide_array(n);
    for (int64_t i = 0; i < n; i++) {
        if (n > 1) /* alone, a value of e^-50 would be measured against itself */
            set(&a, i, 10 * tensor_get(&a, i));
        silu_of[i] = silu(tensor_get(&a, i));
        product[i] = gelu(tensor_get(&a, i)) * tensor_get(&b, i);
        gated[i] = silu_of[i] * tensor_get(&b, i);
    }
    RUN("silu_forward", silu_forward(k, &y, &a));
    near(&y, silu_of, TOLERANCE, "silu_forward");
    RUN("gelu_mul_forward", gelu_mul_forward(k, &y, &a, &b));
    near(&y, product, TOLERANCE, "gelu_mul_forward");
    RUN("silu_mul_forward", silu_mul_forward(k, &y, &a, &b));
    near(&y, gated, TOLERANCE, "silu_mul_forward");
    settle(1);
    updated(&b);
    RUN("silu_mul_forward in place", silu_mul_forward(k, &b, &a, &b));
    near(&b, gated, TOLERANCE, "silu_mul_forward in place");
    settle(1);
    updated(&a);
    RUN("silu_forward in place", silu_forward(k, &a, &a));
    near(&a, silu_of, TOLERANCE, "silu_forward in place");
}

static void test_gelu(int64_t n)
{
    fresh();
    struct tensor x = given(1, n), dy = given(1, n), floats = given_in(DT_F32, 1, n), y = result(X, 1, n),
                  silu_y = result(DT_F32, 1, n);
    double *expected = wide_array(n), *slope = wide_array(n), *silu_of = wide_array(n);
    for (int64_t i = 0; i < n; i++) {
        if (n > 1) set(&x, i, 4 * tensor_get(&x, i));
        expected[i] = gelu(tensor_get(&x, i));
        slope[i] = tensor_get(&dy, i) * gelu_slope(tensor_get(&x, i));
        silu_of[i] = silu(tensor_get(&floats, i));
    }
    RUN("gelu_forward, and silu_forward in F32",
        (gelu_forward(k, &y, &x), silu_forward(k, &silu_y, &floats)));
    near(&y, expected, TOLERANCE, "gelu_forward");
    near(&silu_y, silu_of, TOLERANCE, "silu_forward in F32");
    settle(2);
    updated(&dy);
    RUN("gelu_backward in place", gelu_backward(k, &dy, &dy, &x));
    near(&dy, slope, TOLERANCE, "gelu_backward in place");
}

static void test_patches(int64_t F, int64_t C, int64_t h, int64_t w, int P)
{
    int64_t n = F * C * h * w, tokens = F * (h / P) * (w / P), width = C * P * P;
    fresh();
    struct tensor exact = given(4, F, C, h, w), x = given_in(DT_F32, 4, F, C, h, w),
                  y = result(X, 2, tokens, width), back = result(DT_F32, 4, F, C, h, w);
    tensor_convert(&x, &exact);
    double *expected = wide_array(n), *latents = wide(&x);
    for (int64_t f = 0; f < F; f++)
        for (int64_t i = 0; i < h / P; i++)
            for (int64_t j = 0; j < w / P; j++)
                for (int64_t c = 0; c < C; c++)
                    for (int64_t p = 0; p < P; p++)
                        for (int64_t q = 0; q < P; q++)
                            expected[(((f * (h / P) + i) * (w / P) + j) * C + c) * P * P + p * P + q] =
                                latents[((f * C + c) * h + P * i + p) * w + P * j + q];
    RUN("patchify and unpatchify", (patchify(k, &y, &x, P), unpatchify(k, &back, &y, P)));
    near(&y, expected, 0, "patchify");
    near(&back, latents, 0, "unpatchify");
}

static void test_layouts(int64_t T, int64_t C, int64_t H, int64_t W)
{
    int64_t n = T * C * H * W;
    fresh();
    struct tensor x = given_in(DT_F32, 4, T, C, H, W), last = result(X, 4, T, H, W, C),
                  back = result(DT_F32, 4, T, C, H, W);
    double *expected = wide_array(n), *same = wide(&x);
    for (int64_t t = 0; t < T; t++)
        for (int64_t c = 0; c < C; c++)
            for (int64_t p = 0; p < H * W; p++)
                expected[(t * H * W + p) * C + c] = 0.7f * same[(t * C + c) * H * W + p];
    RUN("channels_last and channels_second",
        (channels_last(k, &last, &x, 0.7f), channels_second(k, &back, &last, 1 / 0.7f)));
    near(&last, expected, TOLERANCE, "channels_last");
    near(&back, same, TOLERANCE + roundings(1), "channels_second");
}

static void test_pixels(void)
{
    enum { N = 256 * 300 };
    fresh();
    struct tensor u8 = buffer_shape(DT_U8, (int64_t[]){1, N}), y = result(X, 1, N),
                  back = result(DT_U8, 1, N);
    double *unit = wide_array(N), *same = wide_array(N);
    for (int i = 0; i < N; i++) {
        same[i] = ((uint8_t *)u8.data)[i] = (uint8_t)i;
        unit[i] = (i & 255) / 127.5 - 1;
    }
    RUN("pixels_to_unit and unit_to_pixels", (pixels_to_unit(k, &y, &u8), unit_to_pixels(k, &back, &y)));
    near(&y, unit, TOLERANCE, "pixels_to_unit");
    near(&back, same, 0, "unit_to_pixels brings every pixel back");

    static const float given_values[] = {
        -5, -1, 1, 5, NAN, INFINITY, -INFINITY, 0, 0.5f / 255 * 2 - 1, 2.5f / 255 * 2 - 1, 0.999f};
    static const uint8_t expected[] = {0, 0, 255, 255, 0, 255, 0, 128, 0, 2, 255};
    fresh();
    int64_t n = sizeof expected;
    y = given(1, n);
    for (int i = 0; i < n; i++) set(&y, i, given_values[i]);
    back = result(DT_U8, 1, n);
    RUN("unit_to_pixels off the range", unit_to_pixels(k, &back, &y));
    for (int i = 0; i < n; i++)
        ok(((uint8_t *)back.data)[i] == expected[i], "%s%g becomes %d", mode->label, (double)given_values[i],
           expected[i]);
}

int main(void)
{
    while (next_mode()) {
        if (mode == modes) test_vmath();
        static const int64_t sizes[][2] = {{1, 1}, {3, 5}, {70, 513}, {2, 40000}, {0, 4}};
        for (int i = 0; i < 5; i++) {
            test_gated(sizes[i][0], sizes[i][1], X);
            if (X != DT_F32) test_gated(sizes[i][0], sizes[i][1], DT_F32);
        }
        static const int64_t counts[] = {0, 1, 7, 16384, 70001};
        for (int i = 0; i < 5; i++) {
            test_sums(counts[i], DT_F32), test_sums(counts[i], X);
            test_copies(counts[i]);
            test_activations(counts[i]);
            test_gelu(counts[i]);
        }
        test_patches(1, 1, 1, 1, 1);
        test_patches(3, 5, 4, 6, 2);
        test_patches(2, 3, 6, 3, 3);
        test_patches(3, 8, 48, 64, 2);
        test_layouts(1, 1, 1, 1);
        test_layouts(3, 5, 4, 7);
        test_layouts(3, 8, 50, 60);
        test_pixels();
    }
    return done();
}
