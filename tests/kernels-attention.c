/* attention_forward and attention_backward. */
#include "tests/kernels.h"

/* Scores are sums of d products and outputs sums of `rows` weights that add to 1: a few
 * 2^-24 of the largest. */
static const double TOLERANCE = 2e-6;
/* In BF16 the weights are rounded before they meet v: roundings(1). The backward pass is given a rounded o,
 * and rounds the weights and their gradients: roundings(4). */
/* The backward pass takes P from the saved sums, whose last bit is one of a number of size log(rows). */
static const double GRADIENT = 1e-5;

struct sizes {
    int64_t rows, heads, d;
    double scale;
};

/* Sequences of queries that see other rows than themselves, perhaps only the earlier ones. */
static void test_sequences(int64_t batch, int64_t queries, int64_t keys, int heads, int64_t d, bool causal)
{
    int64_t width = heads * d;
    char what[120];
    snprintf(what, sizeof what, "attention of %d sequences, %d queries to %d keys, %d heads of %d%s",
             (int)batch, (int)queries, (int)keys, heads, (int)d, causal ? ", causal" : "");
    fresh();
    struct tensor q = given(2, batch * queries, width), kk = given(2, batch * keys, width),
                  v = given(2, batch * keys, width);
    struct tensor o = result(X, 2, batch * queries, width),
                  lse = result(DT_F32, 2, (int64_t)heads, batch * queries);
    double *qw = wide(&q), *kw = wide(&kk), *vw = wide(&v), *out = wide_array(batch * queries * width),
           *sums = wide_array(heads * batch * queries), *p = wide_array(keys);
    float scale = 0.7f;
    for (int64_t r = 0; r < batch * queries; r++)
        for (int64_t h = 0; h < heads; h++) {
            int64_t b = r / queries, seen = causal ? r % queries + 1 + keys - queries : keys;
            double sum = 0;
            for (int64_t j = 0; j < seen; j++) {
                p[j] = 0;
                for (int64_t c = h * d; c < (h + 1) * d; c++)
                    p[j] += (double)scale * qw[r * width + c] * kw[(b * keys + j) * width + c];
                sum += p[j] = exp(p[j]);
            }
            sums[h * batch * queries + r] = log(sum);
            for (int64_t j = 0; j < seen; j++)
                for (int64_t c = h * d; c < (h + 1) * d; c++)
                    out[r * width + c] += p[j] / sum * vw[(b * keys + j) * width + c];
        }
    struct attention a = {heads, scale, batch, causal};
    RUN(what, attention_forward(k, &o, &lse, &q, &kk, &v, NULL, &a));
    near(&o, out, TOLERANCE + roundings(1), what);
    near(&lse, sums, TOLERANCE, "its log-sums");
}

/* in: q, k, v, bias or NULL; lse may be NULL */
static void attention_and_sums(double *o, double *lse, double *const *in, const struct sizes *s)
{
    int64_t width = s->heads * s->d;
    double *p = calloc((size_t)s->rows + 1, sizeof *p);
    for (int64_t h = 0; h < s->heads; h++)
        for (int64_t i = 0; i < s->rows; i++) {
            double max = -INFINITY, sum = 0;
            for (int64_t j = 0; j < s->rows; j++) {
                p[j] = in[3] ? in[3][(h * s->rows + i) * s->rows + j] : 0;
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
    struct sizes s = {rows, heads, d, (float)(1 / sqrt((double)d))};
    struct attention a = {heads, (float)s.scale, 0, false};
    char what[100];
    snprintf(what, sizeof what, "attention of %d rows, %d heads of %d%s", (int)rows, heads, (int)d,
             bias ? ", biased" : "");
    fresh();
    struct tensor q = given(2, rows, heads * d), kk = given(2, rows, heads * d),
                  v = given(2, rows, heads * d);
    struct tensor dout = given(2, rows, heads * d), b = {0}, *bp = bias ? &b : NULL;
    if (bias) b = given_in(DT_F32, 3, heads, rows, rows);
    for (int64_t i = 0; i < n; i++) /* large scores: a softmax that forgot the maximum overflows */
        set(&q, i, tensor_get(&q, i) * loud);
    double *in[] = {wide(&q), wide(&kk), wide(&v), bias ? wide(&b) : NULL}, *slope = wide(&dout);
    double *expected = wide_array(n), *sums = wide_array(heads * rows);
    attention_and_sums(expected, sums, in, &s);
    struct tensor o = result(X, 2, rows, heads * d), lse = result(DT_F32, 2, heads, rows);
    RUN(what, attention_forward(k, &o, &lse, &q, &kk, &v, bp, &a));
    near(&o, expected, TOLERANCE * loud + roundings(1), what);
    near(&lse, sums, TOLERANCE, "its log-sums");
    if (bias) {
        settle(1); /* lse keeps what it has */
        RUN("the same without log-sums", attention_forward(k, &o, NULL, &q, &kk, &v, bp, &a));
        near(&o, expected, TOLERANCE * loud + roundings(1), "the same without log-sums");
        return;
    }
    settle(2); /* o and lse are inputs now */
    struct tensor dq = result(X, 2, rows, heads * d), dk = result(X, 2, rows, heads * d);
    struct tensor dv = result(X, 2, rows, heads * d);
    RUN(what, attention_backward(k, &dq, &dk, &dv, &dout, &o, &lse, &q, &kk, &v, heads, (float)s.scale));
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

/* Many rows, so that tiles are worked on side by side and their sums add up: against the sums written out. */
static void test_long(int64_t rows, int heads, int64_t d)
{
    int64_t width = heads * d, n = rows * width;
    fresh();
    struct sizes s = {rows, heads, d, 0.3f};
    struct tensor q = given(2, rows, width), kk = given(2, rows, width), v = given(2, rows, width),
                  dout = given(2, rows, width);
    double *in[] = {wide(&q), wide(&kk), wide(&v), NULL}, *o = wide_array(n), *lse = wide_array(heads * rows),
           *g = wide(&dout);
    double *want[] = {wide_array(n), wide_array(n), wide_array(n)};
    attention_and_sums(o, lse, in, &s);
    struct tensor of = buffer_shape(X, (int64_t[]){2, rows, width}),
                  lf = buffer_shape(DT_F32, (int64_t[]){2, heads, rows});
    for (int64_t i = 0; i < n; i++) set(&of, i, o[i]);
    for (int64_t i = 0; i < heads * rows; i++) set(&lf, i, lse[i]);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < rows; j++) {
                double score = 0, dp = 0, delta = 0;
                for (int64_t c = h * d; c < (h + 1) * d; c++) {
                    score += s.scale * in[0][i * width + c] * in[1][j * width + c];
                    dp += g[i * width + c] * in[2][j * width + c];
                    delta += g[i * width + c] * o[i * width + c];
                }
                double p = exp(score - lse[h * rows + i]), ds = p * (dp - delta);
                for (int64_t c = h * d; c < (h + 1) * d; c++) {
                    want[0][i * width + c] += s.scale * ds * in[1][j * width + c];
                    want[1][j * width + c] += s.scale * ds * in[0][i * width + c];
                    want[2][j * width + c] += p * g[i * width + c];
                }
            }
    struct tensor out = result(X, 2, rows, width), sums = result(DT_F32, 2, heads, rows);
    RUN("attention_forward over many tiles",
        attention_forward(k, &out, &sums, &q, &kk, &v, NULL,
                          &(struct attention){heads, (float)s.scale, 0, false}));
    near(&out, o, TOLERANCE + roundings(1), "attention_forward over many tiles");
    near(&sums, lse, TOLERANCE, "its log-sums");
    settle(2);
    struct tensor dq = result(X, 2, rows, width), dk = result(X, 2, rows, width),
                  dv = result(X, 2, rows, width);
    RUN("attention_backward over many tiles",
        attention_backward(k, &dq, &dk, &dv, &dout, &of, &lf, &q, &kk, &v, heads, (float)s.scale));
    near(&dq, want[0], GRADIENT + roundings(4), "dq over many tiles");
    near(&dk, want[1], GRADIENT + roundings(4), "dk over many tiles");
    near(&dv, want[2], GRADIENT + roundings(4), "dv over many tiles");
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
        test_long(900, 2, 9);
        test_sequences(1, 1, 1, 1, 1, true);
        test_sequences(3, 5, 7, 2, 4, false);
        test_sequences(2, 5, 5, 3, 4, true);
        test_sequences(1, 3, 200, 2, 8, true);   /* a step of decoding with what came before */
        test_sequences(4, 150, 150, 2, 8, true); /* over several tiles */
        test_sequences(1, 16, 300, 4, 8, false);
    }
    return done();
}
