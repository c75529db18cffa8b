/* The loss, the norm of a gradient, AdamW. */
#include "tests/kernels.h"

static const int64_t counts[] = {1, 5, 16384, 16385, 1100003};

static double squared_error(const double *pred, const double *target, int64_t n, double weight)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (pred[i] - target[i]) * (pred[i] - target[i]);
    return weight * s / (double)n;
}

struct sizes {
    int64_t n;
    double weight;
};

static void loss_formula(double *out, double *const *in, const void *sizes)
{
    const struct sizes *s = sizes;
    *out = squared_error(in[0], in[1], s->n, s->weight);
}

static void test_mse(int64_t n)
{
    struct sizes s = {n, 1.5};
    double losses[2] = {NAN, NAN}, slope = 1;
    fresh();
    struct tensor pred = given_in(DT_F32, 1, n), target = given_in(DT_F32, 1, n),
                  dpred = result(DT_F32, 1, n);
    double *in[] = {wide(&pred), wide(&target)}, expected = squared_error(in[0], in[1], n, 1.5);
    RUN("mse_forward_backward", mse_forward_backward(k, &losses[k == kerns[1]], &dpred, &pred, &target, 1.5));
    ok(losses[0] == losses[1] && fabs(losses[0] - expected) <= 1e-12 * expected, "loss of %d: %.15g", (int)n,
       losses[0]);
    if (n < 10000) {
        gradient_near(&dpred, loss_formula, &s, in, 0, &slope, 1, 1e-6, "its gradient");
    } else { /* finite differences of a mean over so many would drown in rounding */
        double *d = wide_array(n);
        for (int64_t i = 0; i < n; i++) d[i] = 3 * (in[0][i] - in[1][i]) / (double)n;
        near(&dpred, d, 1e-7, "its gradient");
    }
    losses[0] = NAN;
    mse_forward_backward(kerns[0], &losses[0], NULL, &pred, &target, 1.5);
    ok(losses[0] == losses[1], "the same loss without a gradient");
}

static void test_sum_squares(int64_t n)
{
    double sums[2] = {NAN, NAN}, expected = 0;
    fresh();
    struct tensor x = given_in(DT_F32, 1, n);
    for (int64_t i = 0; i < n; i++) expected += tensor_get(&x, i) * tensor_get(&x, i);
    RUN("sum_squares", sum_squares(k, &sums[k == kerns[1]], &x));
    ok(sums[0] == sums[1] && fabs(sums[0] - expected) <= 1e-12 * expected, "sum_squares of %d: %.15g", (int)n,
       sums[0]);
}

/* Which of a tensor's values is not finite, and in what form, must not matter; nor how large the finite ones are. */
static void test_expect_finite(enum dtype d, int64_t n)
{
    static const struct {
        float f32;
        uint16_t bf16;
        bool finite;
    } value[] = {
        {NAN, 0x7fc0, false}, {INFINITY, 0x7f80, false}, {-INFINITY, 0xff80, false}, {3e38f, 0x7f62, true}};
    fresh();
    struct tensor x = given_in(d, 1, n);
    bool right = true;
    for (int i = 0; i < 4; i++)
        for (int64_t at = 0; at < n; at += n - 1) {
            const float f = ((float *)x.data)[at];
            const uint16_t b = ((uint16_t *)x.data)[at];
            if (d == DT_F32)
                ((float *)x.data)[at] = value[i].f32;
            else
                ((uint16_t *)x.data)[at] = value[i].bf16;
            kern_reserve(kerns[0], (size_t)4 * n + 1024); /* what widens BF16 to F32 */
            expect_finite(kerns[0], "the values", &x);
            right =
                right && kern_ok(kerns[0]) == value[i].finite &&
                (value[i].finite || strstr(kern_error(kerns[0]), "the values: values that are not finite"));
            kern_clear(kerns[0]);
            if (d == DT_F32)
                ((float *)x.data)[at] = f;
            else
                ((uint16_t *)x.data)[at] = b;
        }
    RUN("expect_finite", expect_finite(k, "the values", &x));
    ok(right, "expect_finite of %d %s", (int)n, dtype_name(d));
}

static void test_adamw(int64_t n)
{
    const struct adamw o = {1e-2, 0.9, 0.999, 1e-8, 0.01};
    fresh();
    struct tensor p = given_in(DT_F32, 1, n), m = given_in(DT_F32, 1, n), v = given_in(DT_F32, 1, n),
                  g = given_in(DT_F32, 1, n);
    memset(m.data, 0, tensor_bytes(&m));
    memset(v.data, 0, tensor_bytes(&v));
    double *pe = wide(&p), *me = wide(&m), *ve = wide(&v);
    for (int t = 1; t <= 3; t++)
        for (int64_t i = 0; i < n; i++) {
            double grad = 0.25 * tensor_get(&g, i);
            pe[i] -= o.lr * o.weight_decay * pe[i];
            me[i] = o.beta1 * me[i] + (1 - o.beta1) * grad;
            ve[i] = o.beta2 * ve[i] + (1 - o.beta2) * grad * grad;
            pe[i] -= o.lr * me[i] / (1 - pow(o.beta1, t)) / (sqrt(ve[i] / (1 - pow(o.beta2, t))) + o.eps);
        }
    updated(&p);
    updated(&m);
    updated(&v);
    RUN("adamw_step, three times", for (int t = 1; t <= 3; t++) adamw_step(k, &p, &m, &v, &g, 0.25, t, &o));
    near(&p, pe, 2e-7, "adamw_step: p");
    near(&m, me, 2e-7, "adamw_step: m");
    near(&v, ve, 2e-7, "adamw_step: v");
}

/* Known by hand: the first step moves against the gradient's sign by lr, whatever the gradient's size. */
static void test_first_step(void)
{
    const struct adamw o = {0.1, 0.9, 0.999, 0, 0};
    static const double slopes[3] = {5, -1e-3, 200}, expected[3] = {0.9, 1.1, 0.9};
    fresh();
    struct tensor p = given_in(DT_F32, 1, 3), m = given_in(DT_F32, 1, 3), v = given_in(DT_F32, 1, 3),
                  g = given_in(DT_F32, 1, 3);
    for (int i = 0; i < 3; i++) set(&p, i, 1), set(&m, i, 0), set(&v, i, 0), set(&g, i, slopes[i]);
    updated(&p);
    updated(&m);
    updated(&v);
    RUN("AdamW's first step", adamw_step(k, &p, &m, &v, &g, 1, 1, &o));
    near(&p, expected, 5e-7, "AdamW's first step is lr");
}

int main(void)
{
    while (next_mode()) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            test_mse(counts[i]);
            test_sum_squares(counts[i]);
            if (counts[i] > 1) test_expect_finite(DT_F32, counts[i]);
            if (counts[i] > 1) test_expect_finite(X, counts[i]);
            test_adamw(counts[i]);
        }
        test_first_step();
    }
    return done();
}
