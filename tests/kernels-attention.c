/* attention_forward and attention_backward. */
#include "tests/kernels.h"

/* Scores are sums of d products and outputs sums of `rows` weights that add to 1: a few
 * 2^-24 of the largest. */
static const double TOLERANCE = 2e-6;
/* In BF16 the weights are rounded before they meet v: roundings(1). The backward pass is given a rounded o,
 * and rounds the weights and their gradients: roundings(4). */
/* A row's log-sum may be that of its weights as they were rounded, each by 2^-9 of itself at most. */
static double log_sums(void)
{
    return TOLERANCE + (X == DT_BF16 ? 0x1p-9 : 0);
}
/* The backward pass takes P from the saved sums, whose last bit is one of a number of size log(rows). */
static const double GRADIENT = 1e-5;

struct sizes {
    int64_t rows, heads, d;
    double scale;
    int64_t distances; /* of the bias */
};

/* in: q, k, v, bias by distance (in a table that may be for more rows) or NULL; lse may be NULL */
static void attention_and_sums(double *o, double *lse, double *const *in, const struct sizes *s)
{
    int64_t width = s->heads * s->d;
    double *p = calloc((size_t)s->rows + 1, sizeof *p);
    for (int64_t h = 0; h < s->heads; h++)
        for (int64_t i = 0; i < s->rows; i++) {
            double max = -INFINITY, sum = 0;
            for (int64_t j = 0; j < s->rows; j++) {
                p[j] = in[3] ? in[3][h * s->distances + s->distances / 2 + j - i] : 0;
                for (int64_t c = h * s->d; c < (h + 1) * s->d; c++)
                    p[j] += s->scale * in[0][i * width + c] * in[1][j * width + c];
                max = fmax(max, p[j]);
            }
            for (int64_t j = 0; j < s->rows; j++) sum += p[j] = exp(p[j] - max);
            if (lse) lse[h * s->rows + i] = max + log(sum);
            for (int64_t c = h * s->d; c < (h + 1) * s->d; c++) {
                o[i * width + c] = 0;
                for (int64_t j = 0; j < s->rows; j++) o[i * width + c] += p[j] / sum * in[2][j * width + c];
            }
        }
    free(p);
}

static void attention(double *o, double *const *in, const void *sizes)
{
    attention_and_sums(o, NULL, in, sizes);
}

static void test_attention(int64_t rows, int heads, int64_t d, bool bias, double loud)
{
    int64_t n = rows * heads * d;
    struct sizes s = {rows, heads, d, (float)(1 / sqrt((double)d)), 2 * (rows + rows % 7) - 1};
    struct attention a = {heads, (float)s.scale, 0, false};
    char what[100];
    snprintf(what, sizeof what, "attention of %d rows, %d heads of %d%s", (int)rows, heads, (int)d,
             bias ? ", biased" : "");
    fresh();
    struct tensor q = given(2, rows, heads * d), kk = given(2, rows, heads * d),
                  v = given(2, rows, heads * d);
    struct tensor dout = given(2, rows, heads * d), b = {0}, *bp = bias ? &b : NULL;
    if (bias) b = given_in(DT_F32, 2, heads, s.distances);
    for (int64_t i = 0; i < n; i++) /* large scores: a softmax that forgot the maximum overflows */
        set(&q, i, tensor_get(&q, i) * loud);
    double *in[] = {wide(&q), wide(&kk), wide(&v), bias ? wide(&b) : NULL}, *slope = wide(&dout);
    double *expected = wide_array(n), *sums = wide_array(heads * rows);
    attention_and_sums(expected, sums, in, &s);
    struct tensor o = result(X, 2, rows, heads * d), lse = result(DT_F32, 2, heads, rows);
    RUN(what, attention_forward(k, &o, &lse, &q, &kk, &v, bp, &a));
    near(&o, expected, TOLERANCE * loud + roundings(1), what);
    near(&lse, sums, log_sums(), "its log-sums");
    if (bias) {
        settle(1); /* lse keeps what it has */
        RUN("the same without log-sums", attention_forward(k, &o, NULL, &q, &kk, &v, bp, &a));
        near(&o, expected, TOLERANCE * loud + roundings(1), "the same without log-sums");
        return;
    }
    settle(2); /* o and lse are inputs now */
    struct tensor dq = result(X, 2, rows, heads * d), dk = result(X, 2, rows, heads * d);
    struct tensor dv = result(X, 2, rows, heads * d);
    RUN(what, attention_backward(k, &dq, &dk, &dv, &dout, &o, &lse, &q, &kk, &v, &a));
    /* δ comes from o as it was rounded; where a softmax has nearly decided, little else is left of dS. In
     * double, over forty draws of the loud case, rounding o alone moves dq by up to 0.043 and dk by up to
     * 0.080 of their largest value. */
    const int few = loud > 1 ? 16 : 4;
    gradient_near(&dv, attention, &s, in, 2, slope, n, GRADIENT * loud + roundings(4), "dv");
    if (rows == 1) { /* one weight, always 1: no gradient, but for rounding */
        near(&dq, wide_array(n), TOLERANCE + roundings(4), "dq of one row is 0");
        return;
    }
    gradient_near(&dq, attention, &s, in, 0, slope, n, GRADIENT * loud + roundings(few), "dq");
    gradient_near(&dk, attention, &s, in, 1, slope, n, GRADIENT * loud + roundings(few), "dk");
}

/* Both passes against the sums written out, in double: sequences of queries that see other rows than
 * themselves, perhaps only the earlier ones; many rows, so that tiles are worked on side by side and add up. */
struct written {
    double *o, *lse, *dq, *dk, *dv;
};

static struct written written_out(int64_t batch, int64_t queries, int64_t keys, int heads, int64_t d,
                                  const struct attention *a, double *const in[4])
{
    const int64_t width = heads * d, rows = batch * queries, others = batch * keys;
    const struct written w = {wide_array(rows * width), wide_array(heads * rows), wide_array(rows * width),
                              wide_array(others * width), wide_array(others * width)};
    double *p = malloc((size_t)keys * sizeof *p), *dp = malloc((size_t)keys * sizeof *dp);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t seen = a->causal ? r % queries + 1 + keys - queries : keys, at = r * width + h * d;
            const double *q = in[0] + at, *dout = in[3] + at;
            double *o = w.o + at, *dq = w.dq + at, max = -INFINITY, sum = 0, delta = 0;
            for (int64_t j = 0; j < seen; j++) {
                const int64_t key = (r / queries * keys + j) * width + h * d;
                p[j] = dp[j] = 0;
                for (int64_t c = 0; c < d; c++) {
                    p[j] += (double)a->scale * q[c] * in[1][key + c];
                    dp[j] += dout[c] * in[2][key + c];
                }
                max = fmax(max, p[j]);
            }
            for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
            w.lse[h * rows + r] = max + log(sum);
            for (int64_t j = 0; j < seen; j++) {
                const double *v = in[2] + (r / queries * keys + j) * width + h * d;
                p[j] /= sum;
                delta += p[j] * dp[j];
                for (int64_t c = 0; c < d; c++) o[c] += p[j] * v[c];
            }
            for (int64_t j = 0; j < seen; j++) {
                const int64_t key = (r / queries * keys + j) * width + h * d;
                const double ds = a->scale * p[j] * (dp[j] - delta);
                for (int64_t c = 0; c < d; c++) {
                    dq[c] += ds * in[1][key + c];
                    w.dk[key + c] += ds * q[c];
                    w.dv[key + c] += p[j] * dout[c];
                }
            }
        }
    free(p);
    free(dp);
    return w;
}

static void copy(const struct tensor *to, const double *from)
{
    for (int64_t i = 0; i < tensor_count(to); i++) set(to, i, from[i]);
}

static void test_sequences(int64_t batch, int64_t queries, int64_t keys, int heads, int64_t d, bool causal)
{
    const int64_t width = heads * d, rows = batch * queries, others = batch * keys;
    const struct attention a = {heads, 0.3f, batch, causal};
    char what[120];
    snprintf(what, sizeof what, "attention of %d sequences, %d queries to %d keys, %d heads of %d%s",
             (int)batch, (int)queries, (int)keys, heads, (int)d, causal ? ", causal" : "");
    fresh();
    struct tensor q = given(2, rows, width), kk = given(2, others, width), v = given(2, others, width),
                  dout = given(2, rows, width), o = buffer_shape(X, (int64_t[]){2, rows, width}),
                  lse = buffer_shape(DT_F32, (int64_t[]){2, heads, rows});
    double *const in[] = {wide(&q), wide(&kk), wide(&v), wide(&dout)};
    const struct written want = written_out(batch, queries, keys, heads, d, &a, in);
    copy(&o, want.o);
    copy(&lse, want.lse);

    struct tensor out = result(X, 2, rows, width), sums = result(DT_F32, 2, heads, rows);
    RUN(what, attention_forward(k, &out, &sums, &q, &kk, &v, NULL, &a));
    near(&out, want.o, TOLERANCE + roundings(1), what);
    near(&sums, want.lse, log_sums(), "its log-sums");
    if (batch == 1) { /* what is computed again for backward has the bits that it had without log-sums */
        const size_t bytes = tensor_bytes(&out);
        void *first = malloc(bytes);
        memcpy(first, out.data, bytes);
        settle(1);
        RUN("the same without log-sums", attention_forward(k, &out, NULL, &q, &kk, &v, NULL, &a));
        ok(!memcmp(first, out.data, bytes), "%swithout log-sums: the same bytes", mode->label);
        free(first);
    }
    settle(result_count);
    struct tensor dq = result(X, 2, rows, width), dk = result(X, 2, others, width),
                  dv = result(X, 2, others, width);
    RUN("its gradients", attention_backward(k, &dq, &dk, &dv, &dout, &o, &lse, &q, &kk, &v, &a));
    /* with one key no score has a gradient, but for the rounding of o */
    const double size = keys == 1 ? 1 : 0;
    near_size(&dq, want.dq, size, GRADIENT + roundings(4), "its dq");
    near_size(&dk, want.dk, size, GRADIENT + roundings(4), "its dk");
    near(&dv, want.dv, GRADIENT + roundings(4), "its dv");
    settle(3);
    struct tensor alone = result(X, 2, rows, width);
    RUN("dq without dk and dv", attention_backward(k, &alone, NULL, NULL, &dout, &o, &lse, &q, &kk, &v, &a));
    near_size(&alone, want.dq, size, GRADIENT + roundings(4), "dq without dk and dv");
}

/* Scores that are exponents of 2, those of every other query so far from 0, all together, that their powers leave the
 * range of a float: a way that takes the powers as they are has to notice. */
static void test_powers(int64_t rows, int heads, int64_t d, double shift)
{
    const int64_t width = heads * d;
    const struct attention a = {heads, LOG_2, 0, false};
    char what[120];
    snprintf(what, sizeof what, "attention of %d rows, %d heads of %d, half of them shifted by %g", (int)rows,
             heads, (int)d, shift);
    fresh();
    struct tensor q = given(2, rows, width), kk = given(2, rows, width), v = given(2, rows, width),
                  dout = given(2, rows, width), o = buffer_shape(X, (int64_t[]){2, rows, width}),
                  lse = buffer_shape(DT_F32, (int64_t[]){2, heads, rows});
    const double part = sqrt(fabs(shift) / (double)d);
    for (int64_t i = 0; i < rows * width; i++) {
        if (i / width % 2) set(&q, i, tensor_get(&q, i) + part);
        set(&kk, i, tensor_get(&kk, i) + (shift < 0 ? -part : part));
    }
    double *const in[] = {wide(&q), wide(&kk), wide(&v), wide(&dout)};
    const struct written want = written_out(1, rows, rows, heads, d, &a, in);
    copy(&o, want.o);
    copy(&lse, want.lse);
    /* a score is off by 2^-24 of itself, and a weight by as much of a score; what of dS should add up to 0 is multiplied
     * by `part` in dq and dk */
    const double tolerance = GRADIENT + fabs(shift) * 0x1p-22, more = 1 + part;
    struct tensor out = result(X, 2, rows, width), sums = result(DT_F32, 2, heads, rows);
    RUN(what, attention_forward(k, &out, &sums, &q, &kk, &v, NULL, &a));
    near(&out, want.o, tolerance + roundings(1), what);
    near(&sums, want.lse, log_sums(), "its log-sums");
    settle(result_count);
    struct tensor dq = result(X, 2, rows, width), dk = result(X, 2, rows, width),
                  dv = result(X, 2, rows, width);
    RUN("its gradients", attention_backward(k, &dq, &dk, &dv, &dout, &o, &lse, &q, &kk, &v, &a));
    near(&dq, want.dq, more * (tolerance + roundings(4)), "its dq");
    near(&dk, want.dk, more * (tolerance + roundings(4)), "its dk");
    near(&dv, want.dv, tolerance + roundings(4), "its dv");
}

/* Heads so wide that no gradient is offered on a GPU: one, for images. */
static void test_wide(int64_t batch, int64_t queries, int64_t keys, int64_t d)
{
    const int64_t rows = batch * queries, others = batch * keys;
    const struct attention a = {1, (float)(2 / sqrt((double)d)), batch, false};
    char what[120];
    snprintf(what, sizeof what, "attention of %d sequences, %d queries to %d keys, one head of %d",
             (int)batch, (int)queries, (int)keys, (int)d);
    fresh();
    struct tensor q = given(2, rows, d), kk = given(2, others, d), v = given(2, others, d),
                  dout = given(2, rows, d);
    double *const in[] = {wide(&q), wide(&kk), wide(&v), wide(&dout)};
    const struct written want = written_out(batch, queries, keys, 1, d, &a, in);
    struct tensor o = result(X, 2, rows, d), lse = result(DT_F32, 2, 1, rows);
    RUN(what, attention_forward(k, &o, &lse, &q, &kk, &v, NULL, &a));
    near(&o, want.o, TOLERANCE + roundings(1), what);
    near(&lse, want.lse, log_sums(), "its log-sums");
    settle(1); /* lse keeps what it has */
    RUN(what, attention_forward(k, &o, NULL, &q, &kk, &v, NULL, &a));
    near(&o, want.o, TOLERANCE + roundings(1), "and without them");
}

/* What follows goes by these ways of the CUDA backend (NULL: as it chooses), with so much shared memory. */
static void go_by(const char *ways, const char *shared)
{
    ways ? setenv("SLUICE_ATTENTION", ways, 1) : unsetenv("SLUICE_ATTENTION");
    shared ? setenv("SLUICE_SHARED_LIMIT", shared, 1) : unsetenv("SLUICE_SHARED_LIMIT");
    if (mode != modes)
        printf("# by %s%s%s\n", ways ? ways : "its own choice", shared ? ", shared memory " : "",
               shared ? shared : "");
}

/* Sizes of heads that tensor cores take, whole tiles and ragged ones. */
static void test_heads_of(int64_t d)
{
    test_attention(150, 2, d, true, 1);
    test_sequences(1, 257, 257, 2, d, false);
    test_sequences(1, 1, 1, 2, d, true);
    test_sequences(2, 130, 257, 2, d, false);
    test_sequences(3, 5, 70, 1, d, true);
    test_sequences(1, 200, 200, 3, d, true);
    test_sequences(1, 77, 512, 2, d, true);
    test_sequences(1, 1100, 70, 1, d, false); /* many queries, few keys */
    test_sequences(1, 70, 900, 2, d, false);  /* and the other way round */
    test_powers(300, 2, d, 0);
    test_powers(300, 2, d, 200);
    test_powers(300, 2, d, -200);
}

static void test_refused(const char *ways, const char *words)
{
    fresh();
    struct tensor q = given(2, 8, 64), o = given(2, 8, 64);
    go_by(ways, NULL);
    attention_forward(kerns[0], &o, NULL, &q, &q, &q, NULL, &(struct attention){.heads = 1, .scale = 1});
    ok(strstr(kern_error(kerns[0]), words), "%sSLUICE_ATTENTION=%s: %s", mode->label, ways,
       kern_error(kerns[0]));
    kern_clear(kerns[0]);
}

static void test_ways(void)
{
    static const char SMALL[] = "101376"; /* 99 KB: compute capability 8.6, 8.9, 12.0 */
    test_refused("mma,none", "\"none\" is no way");
    if (X == DT_F32) test_refused("mma", "not by mma");
    for (int64_t d = 64; d <= 128; d *= 2)
        for (int i = 0; i < 5; i++) {
            if (X == DT_F32 && i < 3) continue;
            go_by((const char *[]){"mma", "mma", "cudnn,mma", "f32", NULL}[i], i == 1 ? SMALL : NULL);
            test_heads_of(d);
        }
    go_by("f32", SMALL);
    test_sequences(1, 150, 150, 1, 256, true);
    test_sequences(1, 70, 90, 2, 128, false);
    go_by(NULL, NULL);
}

int main(void)
{
    while (next_mode()) {
        test_attention(1, 1, 1, false, 1);
        test_attention(2, 3, 4, false, 1);
        test_attention(19, 2, 5, false, 1);
        test_attention(130, 2, 8, false, 1); /* one query tile and a bit */
        test_attention(17, 2, 8, false, 300);
        test_attention(1, 2, 3, true, 1);
        test_attention(23, 3, 7, true, 1);
        test_attention(300, 1, 16, true, 1);
        test_sequences(1, 900, 900, 2, 9, false);
        test_sequences(1, 1, 1, 1, 1, true);
        test_sequences(3, 5, 7, 2, 4, false);
        test_sequences(2, 5, 5, 3, 4, true);
        test_sequences(1, 3, 200, 2, 8, true);   /* a step of decoding with what came before */
        test_sequences(4, 150, 150, 2, 8, true); /* over several tiles */
        test_sequences(1, 16, 300, 4, 8, false);
        test_sequences(2, 300, 70, 2, 8, false);
        test_sequences(1, 10, 140, 1, 200, true);
        test_powers(40, 2, 8, 0);
        test_powers(40, 2, 8, -200);
        test_wide(1, 1, 1, 384);
        test_wide(3, 15, 15, 384);
        test_wide(2, 9, 70, 300);
        test_wide(1, 150, 150, 640);
        if (mode != modes) test_ways();
    }
    return done();
}
