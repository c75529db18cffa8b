/* thin_down_*, thin_up_*: an adapter's products, against the formulas. */
#include "tests/kernels.h"

/* As in kernels-products.c: rounding of sums of some thousand products. */
static const double TOLERANCE = 2e-6;

struct sizes {
    int64_t rows, wide, rank; /* in or out */
    int n;
};

/* To add to a tolerance where `n` modules are added to one tensor: how often it is rounded before it is rounded at the
 * end, which near() knows of. Without thin.cu each module is a matmul(), which may round the product, too, before it
 * adds it (see kernels-products.c). thin.cu adds up in F32 and rounds once for every 64 ranks. */
static double added(const struct sizes *s, int n)
{
    const bool thin = (s->rank == 16 || s->rank == 32) && s->wide % 8 == 0;
    return roundings(thin ? (double)((n * s->rank + 63) / 64 - 1) : 2.0 * n - 1);
}

/* c [m,n] += scale op(a) op(b) */
static void multiply(double *c, const double *a, bool ta, const double *b, bool tb, int64_t m, int64_t n,
                     int64_t depth, double scale)
{
#pragma omp parallel for if (m * n * depth > 1 << 20)
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t p = 0; p < depth; p++)
                s += a[ta ? p * m + i : i * depth + p] * b[tb ? j * depth + p : p * n + j];
            c[i * n + j] += scale * s;
        }
}

static const char *named(const char *what, const struct sizes *s)
{
    static char name[100];
    snprintf(name, sizeof name, "%s, %d of rank %d, %d rows of %d", what, s->n, (int)s->rank, (int)s->rows,
             (int)s->wide);
    return name;
}

static void test_down_forward(struct sizes s)
{
    struct tensor a[THIN_MODULES], z[THIN_MODULES], x;
    fresh();
    x = given(2, s.rows, s.wide);
    for (int i = 0; i < s.n; i++) a[i] = given(2, s.rank, s.wide);
    for (int i = 0; i < s.n; i++) z[i] = result(X, 2, s.rows, s.rank);
    const char *what = named("thin_down_forward", &s);
    double *in = wide(&x);
    RUN(what, thin_down_forward(k, z, &x, a, s.n));
    for (int i = 0; i < s.n; i++) {
        double *expected = wide_array(s.rows * s.rank);
        multiply(expected, in, false, wide(&a[i]), true, s.rows, s.rank, s.wide, 1);
        near(&z[i], expected, TOLERANCE, what);
    }
}

/* without: dx is not wanted */
static void test_down_backward(struct sizes s, bool without)
{
    struct tensor a[THIN_MODULES], dz[THIN_MODULES], da[THIN_MODULES], x, dx;
    double *expected[THIN_MODULES], *sum, *in;
    fresh();
    x = given(2, s.rows, s.wide);
    for (int i = 0; i < s.n; i++) a[i] = given(2, s.rank, s.wide), dz[i] = given(2, s.rows, s.rank);
    dx = given(2, s.rows, s.wide);
    if (!without) updated(&dx);
    sum = wide(&dx), in = wide(&x);
    for (int i = 0; i < s.n; i++) {
        double *of_z = wide(&dz[i]);
        da[i] = given_in(DT_F32, 2, s.rank, s.wide);
        updated(&da[i]);
        expected[i] = wide(&da[i]);
        multiply(expected[i], of_z, true, in, false, s.rank, s.wide, s.rows, 1);
        multiply(sum, of_z, false, wide(&a[i]), false, s.rows, s.wide, s.rank, 1);
    }
    const char *what = named(without ? "thin_down_backward without dx" : "thin_down_backward", &s);
    RUN(what, thin_down_backward(k, without ? NULL : &dx, da, dz, &x, a, s.n));
    for (int i = 0; i < s.n; i++) near(&da[i], expected[i], TOLERANCE, what);
    if (!without) near(&dx, sum, TOLERANCE + added(&s, s.n), what);
}

static void test_up_forward(struct sizes s)
{
    struct tensor b[THIN_MODULES], z[THIN_MODULES], y[THIN_MODULES];
    double *expected[THIN_MODULES];
    fresh();
    for (int i = 0; i < s.n; i++) b[i] = given(2, s.wide, s.rank), z[i] = given(2, s.rows, s.rank);
    for (int i = 0; i < s.n; i++) {
        y[i] = given(2, s.rows, s.wide);
        updated(&y[i]);
        expected[i] = wide(&y[i]);
        multiply(expected[i], wide(&z[i]), false, wide(&b[i]), true, s.rows, s.wide, s.rank, 0.75);
    }
    const char *what = named("thin_up_forward", &s);
    RUN(what, thin_up_forward(k, y, z, b, 0.75, s.n));
    for (int i = 0; i < s.n; i++) near(&y[i], expected[i], TOLERANCE + added(&s, 1), what);
}

static void test_up_backward(struct sizes s)
{
    struct tensor b[THIN_MODULES], z[THIN_MODULES], dy[THIN_MODULES], db[THIN_MODULES], dz[THIN_MODULES];
    double *expected[THIN_MODULES], *down[THIN_MODULES];
    fresh();
    for (int i = 0; i < s.n; i++) {
        b[i] = given(2, s.wide, s.rank), z[i] = given(2, s.rows, s.rank), dy[i] = given(2, s.rows, s.wide);
        down[i] = wide_array(s.rows * s.rank);
        multiply(down[i], wide(&dy[i]), false, wide(&b[i]), false, s.rows, s.rank, s.wide, 0.75);
    }
    for (int i = 0; i < s.n; i++) {
        dz[i] = result(X, 2, s.rows, s.rank);
        db[i] = given_in(DT_F32, 2, s.wide, s.rank);
        updated(&db[i]);
        expected[i] = wide(&db[i]);
        multiply(expected[i], wide(&dy[i]), true, wide(&z[i]), false, s.wide, s.rank, s.rows, 0.75);
    }
    const char *what = named("thin_up_backward", &s);
    RUN(what, thin_up_backward(k, dz, db, dy, z, b, 0.75, s.n));
    for (int i = 0; i < s.n; i++)
        near(&db[i], expected[i], TOLERANCE, what), near(&dz[i], down[i], TOLERANCE, what);
}

/* What is added to may differ in width. */
static void test_widths(void)
{
    static const int64_t widths[4] = {40, 40, 392, 24};
    struct tensor b[4], z[4], y[4], dy[4], db[4], dz[4];
    double *expected[4], *gradient[4];
    fresh();
    for (int i = 0; i < 4; i++)
        b[i] = given(2, widths[i], 16), z[i] = given(2, 70, 16), dy[i] = given(2, 70, widths[i]);
    for (int i = 0; i < 4; i++) {
        y[i] = given(2, 70, widths[i]);
        updated(&y[i]);
        expected[i] = wide(&y[i]);
        multiply(expected[i], wide(&z[i]), false, wide(&b[i]), true, 70, widths[i], 16, -2);
    }
    RUN("thin_up_forward of several widths", thin_up_forward(k, y, z, b, -2, 4));
    for (int i = 0; i < 4; i++) near(&y[i], expected[i], TOLERANCE, "thin_up_forward of several widths");
    settle(4);
    for (int i = 0; i < 4; i++) {
        dz[i] = result(X, 2, 70, 16);
        db[i] = given_in(DT_F32, 2, widths[i], 16);
        updated(&db[i]);
        gradient[i] = wide(&db[i]);
        multiply(gradient[i], wide(&dy[i]), true, wide(&z[i]), false, widths[i], 16, 70, -2);
    }
    RUN("thin_up_backward of several widths", thin_up_backward(k, dz, db, dy, z, b, -2, 4));
    for (int i = 0; i < 4; i++) near(&db[i], gradient[i], TOLERANCE, "thin_up_backward of several widths");
}

/* With a b of zeros y keeps every bit, in BF16 that of a zero's sign, too. */
static void test_fresh(int64_t rank)
{
    fresh();
    struct tensor b = given(2, 72, rank), z = given(2, 45, rank), y = given(2, 45, 72),
                  before = given(2, 45, 72);
    memset(b.data, 0, tensor_bytes(&b));
    for (int i = 0; i < 72 && X == DT_BF16 && rank % 16 == 0; i++) set(&y, 5 * i, -0.0);
    memcpy(before.data, y.data, tensor_bytes(&y));
    thin_up_forward(kerns[0], &y, &z, &b, 1, 1);
    kern_wait(kerns[0]);
    ok(kern_ok(kerns[0]) && !memcmp(y.data, before.data, tensor_bytes(&y)),
       "%sthin_up_forward of zeros at rank %d changes no bit %s", mode->label, (int)rank,
       kern_error(kerns[0]));
}

int main(void)
{
    static const struct sizes cases[] = {
        {1, 8, 16, 1},     {7, 12, 4, 2},     {33, 24, 16, 3},   {31, 72, 32, 2},
        {100, 400, 16, 4}, {161, 392, 32, 3}, {530, 776, 16, 3}, {1300, 392, 16, 1},
        {70, 1160, 16, 8}, {90, 136, 32, 8},  {190, 264, 16, 5}, {77, 40, 64, 2},
        {65, 30, 16, 2},   {40, 384, 48, 1},  {9000, 64, 16, 2}, {2500, 520, 32, 1}};
    while (next_mode()) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            test_down_forward(cases[i]);
            test_down_backward(cases[i], false);
            if (i % 3 == 0) test_down_backward(cases[i], true);
            test_up_forward(cases[i]);
            test_up_backward(cases[i]);
        }
        test_widths();
        test_fresh(16), test_fresh(32), test_fresh(4);
    }
    return done();
}
