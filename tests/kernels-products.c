/* matmul, linear_*, linear_gelu_*, embedding. With the argument `bench`: the speed of matmul against one BLAS
 * call. */
#include "tests/kernels.h"

#include <cblas.h>
#include <time.h>

static double gelu(double u)
{
    return u / 2 * (1 + tanh(sqrt(2 / M_PI) * (u + 0.044715 * u * u * u)));
}

/* Sums of k products of numbers below 1: rounding grows like √k 2^-24 of the sum's own size; 2e-6 covers k =
 * 1100. In BF16 what is added to, or goes through an activation, may be rounded before that, too:
 * roundings(1). */
static const double TOLERANCE = 2e-6;

static void test_matmul_in(enum dtype in, enum dtype out, int64_t m, int64_t n, int64_t depth, bool ta,
                           bool tb, double alpha, double beta)
{
    char what[100];
    fresh();
    struct tensor a = ta ? given_in(in, 2, depth, m) : given_in(in, 2, m, depth),
                  b = tb ? given_in(in, 2, n, depth) : given_in(in, 2, depth, n);
    struct tensor c = given_in(out, 2, m, n);
    double *expected = wide(&c);
    if (beta == 0) { /* then c is not even read */
        c = result(out, 2, m, n);
    } else {
        updated(&c);
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t p = 0; p < depth; p++)
                s += tensor_get(&a, ta ? p * m + i : i * depth + p) *
                     tensor_get(&b, tb ? j * depth + p : p * n + j);
            expected[i * n + j] = alpha * s + (beta ? beta * expected[i * n + j] : 0);
        }
    snprintf(what, sizeof what, "matmul %s to %s %dx%dx%d%s%s alpha %g beta %g", dtype_name(in),
             dtype_name(out), (int)m, (int)n, (int)depth, ta ? " ta" : "", tb ? " tb" : "", alpha, beta);
    RUN(what, matmul(k, &c, &a, ta, &b, tb, alpha, beta));
    near(&c, expected, TOLERANCE + (beta ? roundings(1) : 0), what);
}

/* Of the compute dtype, and with it sums in F32, and all in F32: where X is F32 these are one. */
static void test_matmul(int64_t m, int64_t n, int64_t depth, bool ta, bool tb, double alpha, double beta)
{
    test_matmul_in(X, X, m, n, depth, ta, tb, alpha, beta);
    if (X == DT_F32) return;
    test_matmul_in(X, DT_F32, m, n, depth, ta, tb, alpha, beta);
    test_matmul_in(DT_F32, DT_F32, m, n, depth, ta, tb, alpha, beta);
}

/* An adapter's products, where one side is its rank and another all tokens, which a device may do its own
 * way. */
static void test_adapters(bool ta, bool tb)
{
    for (int64_t rank = 16; rank <= 64; rank *= 2) {
        test_matmul(550 + rank, rank, 96, ta, tb, 0.5, 0);
        test_matmul(601, 8 + rank, rank, ta, tb, 0.5, 1);
        test_matmul(rank, 136, 1030 + rank, ta, tb, -1, 1);
        test_matmul(72, rank, 1101, ta, tb, 2, 0);
    }
}

static void test_matmul_f64(int64_t m, int64_t n, int64_t depth, bool ta, bool tb)
{
    fresh();
    struct tensor a = buffer_shape(DT_F64, (int64_t[]){2, ta ? depth : m, ta ? m : depth});
    struct tensor b = buffer_shape(DT_F64, (int64_t[]){2, tb ? n : depth, tb ? depth : n}),
                  c = result(DT_F64, 2, m, n);
    double *pa = a.data, *pb = b.data, *expected = wide_array(m * n);
    for (int64_t i = 0; i < m * depth; i++) pa[i] = random_unit();
    for (int64_t i = 0; i < n * depth; i++) pb[i] = random_unit();
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t p = 0; p < depth; p++)
                expected[i * n + j] +=
                    pa[ta ? p * m + i : i * depth + p] * pb[tb ? j * depth + p : p * n + j];
    RUN("matmul in double", matmul(k, &c, &a, ta, &b, tb, 1, 0));
    near(&c, expected, 1e-14, "matmul in double");
}

struct sizes {
    int64_t n, in, out;
};

/* in: x [n,in], w [out,in], b [out] */
static void linear(double *y, double *const *in, const void *sizes)
{
    const struct sizes *s = sizes;
#pragma omp parallel for if (s->n * s->in * s->out > 1 << 20)
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t o = 0; o < s->out; o++) {
            double sum = in[2] ? in[2][o] : 0;
            for (int64_t p = 0; p < s->in; p++) sum += in[0][i * s->in + p] * in[1][o * s->in + p];
            y[i * s->out + o] = sum;
        }
}

/* in: pre [n,hidden] as s->in, w [out,hidden]: z = gelu(pre) wᵀ */
static void gelu_linear(double *z, double *const *in, const void *sizes)
{
    const struct sizes *s = sizes;
    double *hidden = calloc((size_t)(s->n * s->in) + 1, sizeof *hidden);
    for (int64_t i = 0; i < s->n * s->in; i++) hidden[i] = gelu(in[0][i]);
    linear(z, (double *const[]){hidden, in[1], NULL}, sizes);
    free(hidden);
}

/* What a layer's tests start from; in[] for the formulas above. */
struct layer {
    struct sizes s;
    struct tensor x, w, b, dy;
    double *in[3], *slope;
};

static struct layer layer(int64_t n, int64_t in, int64_t out, bool bias)
{
    fresh();
    struct layer l = {{n, in, out}, given(2, n, in), given(2, out, in), given(1, out), given(2, n, out), {0},
                      NULL};
    l.in[0] = wide(&l.x), l.in[1] = wide(&l.w), l.in[2] = bias ? wide(&l.b) : NULL;
    l.slope = wide(&l.dy);
    return l;
}

static void test_linear(int64_t n, int64_t in, int64_t out, bool bias)
{
    struct layer l = layer(n, in, out, bias);
    double *expected = wide_array(n * out);
    struct tensor y = result(X, 2, n, out), *b = bias ? &l.b : NULL;
    linear(expected, l.in, &l.s);
    RUN("linear_forward", linear_forward(k, &y, &l.x, &l.w, b));
    near(&y, expected, TOLERANCE, "linear_forward");

    l = layer(n, in, out, bias);
    struct tensor dx = result(X, 2, n, in);
    RUN("linear_backward", linear_backward(k, &dx, &l.dy, &l.w, false));
    gradient_near(&dx, linear, &l.s, l.in, 0, l.slope, n * out, TOLERANCE, "linear_backward");

    l = layer(n, in, out, bias);
    expected = wide(&l.x);
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = 0; p < in; p++)
            for (int64_t o = 0; o < out; o++)
                expected[i * in + p] += l.slope[i * out + o] * l.in[1][o * in + p];
    updated(&l.x);
    RUN("linear_backward adds", linear_backward(k, &l.x, &l.dy, &l.w, true));
    near(&l.x, expected, TOLERANCE + roundings(1), "linear_backward adds");
}

static void test_linear_gelu(int64_t n, int64_t in, int64_t out, bool bias)
{
    for (int keep = 0; keep < 2; keep++) {
        struct layer l = layer(n, in, out, bias);
        double *expected = wide_array(n * out);
        linear(expected, l.in, &l.s);
        struct tensor y = result(X, 2, n, out), pre = {0}, *b = bias ? &l.b : NULL;
        if (keep) pre = result(X, 2, n, out);
        RUN("linear_gelu_forward", linear_gelu_forward(k, &y, keep ? &pre : NULL, &l.x, &l.w, b));
        if (keep) near(&pre, expected, TOLERANCE, "linear_gelu_forward keeps what came before gelu");
        for (int64_t i = 0; i < n * out; i++) expected[i] = gelu(expected[i]);
        near(&y, expected, TOLERANCE + roundings(1), "linear_gelu_forward");
    }
    struct layer l = layer(n, in, out, bias);
    struct tensor dpre = result(X, 2, n, in);
    RUN("linear_gelu_backward", linear_gelu_backward(k, &dpre, &l.dy, &l.w, &l.x));
    gradient_near(&dpre, gelu_linear, &l.s, l.in, 0, l.slope, n * out, TOLERANCE + roundings(1),
                  "linear_gelu_backward");
}

/* y [p] = x w[p]ᵀ, y += x wᵀ, and gated, with the same weights: as two halves. */
static void test_prompt(int64_t n, int64_t in, int64_t out)
{
    struct layer l = layer(n, in, 2 * out, false);
    struct tensor y = result(X, 3, (int64_t)2, n, out);
    double *flat = wide_array(n * 2 * out), *parts = wide_array(n * 2 * out);
    linear(flat, l.in, &l.s);
    for (int64_t i = 0; i < n * 2 * out; i++)
        parts[(i / out % 2 * n + i / (2 * out)) * out + i % out] = flat[i];
    RUN("linear_parts_forward", linear_parts_forward(k, &y, &l.x, &l.w));
    near(&y, parts, TOLERANCE, "linear_parts_forward");

    for (int silu = 0; silu < 2; silu++) {
        settle(1);
        double *gated = wide_array(n * out);
        y = result(X, 2, n, out);
        for (int64_t i = 0; i < n * out; i++) {
            double u = parts[i];
            gated[i] = (silu ? u / (1 + exp(-u)) : gelu(u)) * parts[n * out + i];
        }
        if (silu)
            RUN("linear_silu_mul_forward", linear_silu_mul_forward(k, &y, &l.x, &l.w));
        else
            RUN("linear_gelu_mul_forward", linear_gelu_mul_forward(k, &y, &l.x, &l.w));
        near(&y, gated, TOLERANCE + roundings(2),
             silu ? "linear_silu_mul_forward" : "linear_gelu_mul_forward");
    }

    l = layer(n, in, out, false);
    struct tensor sum = given(2, n, out);
    double *expected = wide(&sum), *product = wide_array(n * out);
    linear(product, l.in, &l.s);
    for (int64_t i = 0; i < n * out; i++) expected[i] += product[i];
    updated(&sum);
    RUN("linear_add_forward", linear_add_forward(k, &sum, &l.x, &l.w));
    near(&sum, expected, TOLERANCE + roundings(1), "linear_add_forward");
}

/* The first m rows' products, added to y, or as a single part. */
static void multiply_few(struct tensor *y, const struct tensor *x, const struct tensor *w, bool adds)
{
    struct tensor part = tensor_as(y, 3, 1, y->shape[0], y->shape[1]);
    if (adds)
        linear_add_forward(kerns[0], y, x, w);
    else
        linear_parts_forward(kerns[0], &part, x, w);
    kern_wait(kerns[0]);
}

/* On a GPU a row has the same bits alone as among few, and among some more as among many. */
static void test_any_rows(int64_t in, int64_t out, bool adds, int most)
{
    const int rows[2][6] = {{1, 2, 3, FEW_ROWS}, {FEW_ROWS + 1, 65, 131, 175, 226, most}};
    for (int many = 0; many < 2; many++) {
        fresh();
        struct tensor x = given(2, most, in), w = given(2, out, in), y = given(2, most, out),
                      start = given(2, most, out), first = given(2, most, out);
        for (int i = 0; i < 6 && rows[many][i]; i++) {
            const int m = rows[many][i], last = i ? rows[many][i - 1] : 0;
            struct tensor from = tensor_rows(&x, 0, m), to = tensor_rows(&y, 0, m),
                          same = tensor_rows(&y, 0, last);
            memcpy(y.data, start.data, tensor_bytes(&start));
            multiply_few(&to, &from, &w, adds);
            ok(kern_ok(kerns[0]) && !memcmp(same.data, first.data, tensor_bytes(&same)),
               "%s%d rows of %lld to %lld%s have the bits of fewer %s", mode->label, m, (long long)in,
               (long long)out, adds ? ", added," : "", kern_error(kerns[0]));
            memcpy(first.data, y.data, tensor_bytes(&y));
        }
    }
}

static void test_embedding(int64_t n, int64_t vocab, int64_t width)
{
    fresh();
    struct tensor table = given(2, vocab, width), ids = buffer_shape(DT_I32, (int64_t[]){1, n});
    struct tensor y = result(X, 2, n, width);
    double *expected = wide_array(n * width);
    for (int64_t i = 0; i < n; i++) {
        int32_t id = ((int32_t *)ids.data)[i] = (int32_t)(i * 7 % vocab);
        for (int64_t c = 0; c < width; c++) expected[i * width + c] = tensor_get(&table, id * width + c);
    }
    RUN("embedding_forward", embedding_forward(k, &y, &table, &ids));
    near(&y, expected, 0, "embedding_forward");
}

/* Where all of u is near -3, GELU's tanh form is 10% away from the one with erf. */
static void test_gelu_form(void)
{
    fresh();
    struct tensor x = given(2, 40, 16), w = given(2, 64, 16), b = given(1, 64), y = result(X, 2, 40, 64);
    double *expected = wide_array(40 * 64), *in[3] = {wide(&x), wide(&w), wide(&b)};
    for (int i = 0; i < 64; i++) set(&b, i, in[2][i] = -3);
    for (int i = 0; i < 64 * 16; i++) set(&w, i, in[1][i] /= 64);
    linear(expected, in, &(struct sizes){40, 16, 64});
    for (int i = 0; i < 40 * 64; i++) expected[i] = gelu(expected[i]);
    RUN("linear_gelu_forward far left", linear_gelu_forward(k, &y, NULL, &x, &w, &b));
    near(&y, expected, TOLERANCE, "linear_gelu_forward far left is the tanh form");
}

/* Nothing to add up, or nowhere to put it. */
static void test_empty(void)
{
    fresh();
    struct tensor a = given(2, 3, 0), b = given(2, 0, 5), c = given(2, 3, 5);
    double *expected = wide(&c);
    for (int i = 0; i < 15; i++) expected[i] *= 0.5; /* exact in BF16, too */
    updated(&c);
    RUN("matmul over nothing", matmul(k, &c, &a, false, &b, false, 1, 0.5));
    near(&c, expected, 0, "matmul over nothing scales");

    fresh();
    a = given(2, 3, 0), b = given(2, 5, 0);
    c = result(X, 2, 3, 5);
    RUN("linear over nothing", linear_forward(k, &c, &a, &b, NULL));
    near(&c, wide_array(15), 0, "linear over nothing is 0");

    fresh();
    a = given(2, 0, 3), b = given(2, 5, 3), c = given(2, 0, 5);
    updated(&c);
    RUN("linear of no rows", linear_forward(k, &c, &a, &b, NULL));
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One line a shape: name, our seconds, the BLAS call's seconds, ratio. Best of five, taking turns, on one
 * thread. */
static int bench(void)
{
    static const struct {
        const char *name;
        int m, n, k;
    } cases[] = {{"projection", 1024, 512, 512}, {"ffn-up", 1024, 2048, 512},  {"ffn-down", 1024, 512, 2048},
                 {"t5", 226, 4096, 4096},        {"square", 2048, 2048, 2048}, {"odd", 1000, 777, 555},
                 {"wide", 1024, 3072, 3072}};
    kernels_open();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int m = cases[i].m, n = cases[i].n, depth = cases[i].k;
        double ours = 1e9, direct = 1e9;
        fresh();
        struct tensor a = given(2, m, depth), b = given(2, n, depth), c = given(2, m, n);
        for (int round = 0; round < 5; round++) {
            double start = seconds();
            matmul(kerns[0], &c, &a, false, &b, true, 1, 0);
            double middle = seconds();
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, depth, 1, a.data, depth, b.data, depth,
                        0, c.data, n);
            ours = fmin(ours, middle - start);
            direct = fmin(direct, seconds() - middle);
        }
        printf("%-12s %.6f %.6f %.3f\n", cases[i].name, ours, direct, ours / direct);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "bench")) return bench();
    while (next_mode()) {
        for (int t = 0; t < 4; t++) {
            bool ta = t & 1, tb = t & 2;
            test_matmul(1, 1, 1, ta, tb, 1, 0);
            test_matmul(3, 5, 7, ta, tb, 0.5, 2);
            test_matmul(513, 530, 19, ta, tb, 1, 0);
            test_matmul(33, 1041, 1100, ta, tb, -1, 1);
            test_adapters(ta, tb);
            if (mode == modes) test_matmul_f64(13, 600, 17, ta, tb); /* no device but the CPU has doubles */
        }
        static const int64_t layers[][3] = {{1, 1, 1}, {1, 64, 700}, {7, 5, 3}, {9, 31, 17}, {600, 33, 120}};
        for (int i = 0; i < 5; i++) {
            test_linear(layers[i][0], layers[i][1], layers[i][2], i % 2);
            test_linear_gelu(layers[i][0], layers[i][1], layers[i][2], i % 2);
        }
        test_prompt(1, 8, 3);
        test_prompt(1, 264, 40);
        for (int n = 2; n <= FEW_ROWS; n++) test_prompt(n, 264, 40), test_prompt(n, 12, 5);
        test_prompt(2, 16, 8200); /* so many that a warp takes two */
        test_prompt(7, 12, 5);
        for (int adds = 0; adds < 2 && mode != modes; adds++) {
            test_any_rows(264, 40, adds, 400), test_any_rows(16, 8200, adds, 400);
            test_any_rows(1024, 1024, adds, 400);
            if (X == DT_BF16) test_any_rows(4096, 4096, adds, 1024); /* of rows in `preferred` */
        }
        test_prompt(33, 120, 264);
        test_prompt(226, 256, 136);
        test_gelu_form();
        test_embedding(1, 1, 1);
        test_embedding(19, 11, 37);
        test_empty();
    }
    return done();
}
