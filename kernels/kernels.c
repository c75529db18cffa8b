/* The shared entry of every operation: what kernels.h says about shapes and dtypes is checked here, once, for
 * all devices; then the device's function computes. */
#include "kernels/backend.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* While planning there is nothing to compute. */
#define RUN(op, ...)                                                                                         \
    do {                                                                                                     \
        if (k->planning) break;                                                                              \
        kern_profile_begin(k);                                                                               \
        k->backend->op(k, __VA_ARGS__);                                                                      \
        kern_profile_end(k, #op);                                                                            \
    } while (0)

/* For operations that take scratch: they are called while planning too, so that it is counted. */
#define RUN_WITH_SCRATCH(op, ...)                                                                            \
    do {                                                                                                     \
        size_t mark = kern_mark(k);                                                                          \
        kern_profile_begin(k);                                                                               \
        k->backend->op(k, __VA_ARGS__);                                                                      \
        kern_profile_end(k, #op);                                                                            \
        kern_release(k, mark);                                                                               \
    } while (0)

/* want(x, DT_F32, 2, rows, -1): argument x of this operation has this dtype and shape (-1: any size) and
 * memory. False also when an earlier error stands, so that the conditions of an entry read as one chain. */
#define want(t, dtype, ...)     wanted(k, __func__, #t, t, dtype, (const int64_t[]){__VA_ARGS__})
#define want_count(t, dtype, n) wanted_count(k, __func__, #t, t, dtype, n)
/* What activations and weights are. */
#define X kern_compute(k)
/* What may be F32 instead. */
#define X_OR_F32(t) ((t) && (t)->dtype == DT_F32 ? DT_F32 : X)
/* check(condition, "what is wrong, %d", x): anything else that has to hold */
#define check(condition, ...) ((condition) || refuse(k, __func__, __VA_ARGS__))

__attribute__((format(printf, 3, 4))) static bool refuse(struct kern *k, const char *op, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    kern_fail(k, "%s: %s", op, text);
    return false;
}

static bool present(struct kern *k, const char *op, const char *name, const struct tensor *t)
{
    if (!kern_ok(k)) return false;
    if (!t) return refuse(k, op, "%s is missing", name);
    if (!t->data && !k->planning && tensor_count(t)) return refuse(k, op, "%s has no memory", name);
    return true;
}

static bool wanted(struct kern *k, const char *op, const char *name, const struct tensor *t, enum dtype d,
                   const int64_t *rank_then_shape)
{
    char is[100], needed[100];
    if (!present(k, op, name, t)) return false;
    if (tensor_matches(t, d, rank_then_shape)) return true;
    struct tensor want = tensor_make(d, NULL, rank_then_shape);
    tensor_describe(is, sizeof is, t);
    tensor_describe(needed, sizeof needed, &want);
    return refuse(k, op, "%s is %s, not %s (-1: any)", name, is, needed);
}

static bool wanted_count(struct kern *k, const char *op, const char *name, const struct tensor *t,
                         enum dtype d, int64_t count)
{
    char is[100];
    if (!present(k, op, name, t)) return false;
    if (t->dtype == d && (count < 0 || tensor_count(t) == count)) return true;
    tensor_describe(is, sizeof is, t);
    return refuse(k, op, "%s is %s, not %s with %lld elements (-1: any)", name, is, dtype_name(d),
                  (long long)count);
}

/* ---- products --------------------------------------------------------------------------------------- */

void matmul(struct kern *k, struct tensor *c, const struct tensor *a, bool ta, const struct tensor *b,
            bool tb, double alpha, double beta)
{
    enum dtype d = a && (a->dtype == DT_F64 || a->dtype == DT_F32) ? a->dtype : X;
    enum dtype sum = c && c->dtype == DT_F32 && d == X ? DT_F32 : d;
    if (!want(a, d, 2, -1, -1) || !want(b, d, 2, tb ? -1 : a->shape[!ta], tb ? a->shape[!ta] : -1) ||
        !want(c, sum, 2, a->shape[ta], b->shape[!tb]))
        return;
    RUN(matmul, c, a, ta, b, tb, alpha, beta);
}

/* The arrays' items; a missing array is a missing item. */
#define ITEM(t) ((t) ? &(t)[i] : NULL)

static bool thin_modules(struct kern *k, const char *op, int n)
{
    if (!kern_ok(k)) return false;
    return (n >= 1 && n <= THIN_MODULES) || refuse(k, op, "%d modules", n);
}

/* x [rows,in], and of each module a [r,in] and z [rows,r], which is called so. */
static bool thin_down_shapes(struct kern *k, const char *op, const struct tensor *x, const struct tensor *a,
                             const struct tensor *z, const char *called, int n)
{
    const int64_t any[] = {2, -1, -1};
    if (!thin_modules(k, op, n) || !wanted(k, op, "x", x, X, any) || !present(k, op, "a", a)) return false;
    for (int i = 0; i < n; i++) {
        const int64_t of_a[] = {2, i ? a->shape[0] : -1, x->shape[1]}, of_z[] = {2, x->shape[0], a->shape[0]};
        if (!wanted(k, op, "a", &a[i], X, of_a) || !wanted(k, op, called, ITEM(z), X, of_z)) return false;
    }
    return true;
}

/* y [rows,out], called so, z [rows,r] and b [out,r] of each module. */
static bool thin_up_shapes(struct kern *k, const char *op, const struct tensor *y, const char *called,
                           const struct tensor *z, const struct tensor *b, int n)
{
    if (!thin_modules(k, op, n) || !present(k, op, "z", z)) return false;
    for (int i = 0; i < n; i++) {
        const int64_t of_z[] = {2, i ? z->shape[0] : -1, i ? z->shape[1] : -1};
        if (!wanted(k, op, "z", &z[i], X, of_z)) return false;
        const int64_t of_b[] = {2, -1, z->shape[1]};
        if (!wanted(k, op, "b", ITEM(b), X, of_b)) return false;
        const int64_t of_y[] = {2, z->shape[0], b[i].shape[0]};
        if (!wanted(k, op, called, ITEM(y), X, of_y)) return false;
    }
    return true;
}

static bool thin_gradients(struct kern *k, const char *op, const struct tensor *d, const char *called,
                           const struct tensor *of, int n)
{
    for (int i = 0; i < n; i++) {
        const int64_t shape[] = {2, of[i].shape[0], of[i].shape[1]};
        if (!wanted(k, op, called, ITEM(d), DT_F32, shape)) return false;
    }
    return true;
}

void thin_down_forward(struct kern *k, struct tensor *z, const struct tensor *x, const struct tensor *a,
                       int n)
{
    if (thin_down_shapes(k, __func__, x, a, z, "z", n)) RUN(thin_down_forward, z, x, a, n);
}

void thin_down_backward(struct kern *k, struct tensor *dx, struct tensor *da, const struct tensor *dz,
                        const struct tensor *x, const struct tensor *a, int n)
{
    if (!thin_down_shapes(k, __func__, x, a, dz, "dz", n) || !thin_gradients(k, __func__, da, "da", a, n) ||
        (dx && !want(dx, X, 2, x->shape[0], x->shape[1])))
        return;
    RUN_WITH_SCRATCH(thin_down_backward, dx, da, dz, x, a, n);
}

void thin_up_forward(struct kern *k, struct tensor *y, const struct tensor *z, const struct tensor *b,
                     double scale, int n)
{
    if (thin_up_shapes(k, __func__, y, "y", z, b, n)) RUN(thin_up_forward, y, z, b, scale, n);
}

void thin_up_backward(struct kern *k, struct tensor *dz, struct tensor *db, const struct tensor *dy,
                      const struct tensor *z, const struct tensor *b, double scale, int n)
{
    if (!thin_up_shapes(k, __func__, dy, "dy", z, b, n) || !thin_gradients(k, __func__, db, "db", b, n))
        return;
    for (int i = 0; i < n; i++) {
        const int64_t shape[] = {2, z->shape[0], z->shape[1]};
        if (!wanted(k, __func__, "dz", ITEM(dz), X, shape)) return;
    }
    RUN_WITH_SCRATCH(thin_up_backward, dz, db, dy, z, b, scale, n);
}

void linear_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                    const struct tensor *b)
{
    if (!want(x, X, 2, -1, -1) || !want(w, X, 2, -1, x->shape[1]) ||
        !want(y, X, 2, x->shape[0], w->shape[0]) || (b && !want(b, X, 1, w->shape[0])))
        return;
    RUN(linear_forward, y, x, w, b);
}

void linear_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *w,
                     bool add)
{
    if (!want(dy, X, 2, -1, -1) || !want(w, X, 2, dy->shape[1], -1) ||
        !want(dx, X, 2, dy->shape[0], w->shape[1]))
        return;
    RUN(linear_backward, dx, dy, w, add);
}

void linear_gelu_forward(struct kern *k, struct tensor *y, struct tensor *pre, const struct tensor *x,
                         const struct tensor *w, const struct tensor *b)
{
    if (!want(x, X, 2, -1, -1) || !want(w, X, 2, -1, x->shape[1]) ||
        !want(y, X, 2, x->shape[0], w->shape[0]) || (b && !want(b, X, 1, w->shape[0])) ||
        (pre && !want(pre, X, 2, x->shape[0], w->shape[0])))
        return;
    RUN(linear_gelu_forward, y, pre, x, w, b);
}

void linear_gelu_backward(struct kern *k, struct tensor *dpre, const struct tensor *dy,
                          const struct tensor *w, const struct tensor *pre)
{
    if (!want(dy, X, 2, -1, -1) || !want(w, X, 2, dy->shape[1], -1) ||
        !want(pre, X, 2, dy->shape[0], w->shape[1]) || !want(dpre, X, 2, dy->shape[0], w->shape[1]))
        return;
    RUN(linear_gelu_backward, dpre, dy, w, pre);
}

void linear_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                               const struct tensor *w, const struct tensor *b)
{
    if (!want(x, X, 2, -1, -1) || !want(w, X, 2, -1, x->shape[1]) || !want(b, X, 1, w->shape[0]) ||
        !want(y, X, 2, x->shape[0], w->shape[0]))
        return;
    RUN(linear_quick_gelu_forward, y, x, w, b);
}

void linear_parts_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w)
{
    if (!want(x, X, 2, -1, -1) || !want(y, X, 3, -1, x->shape[0], -1) ||
        !want(w, X, 2, y->shape[0] * y->shape[2], x->shape[1]))
        return;
    RUN(linear_parts_forward, y, x, w);
}

void linear_add_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w)
{
    if (!want(x, X, 2, -1, -1) || !want(w, X, 2, -1, x->shape[1]) || !want(y, X, 2, x->shape[0], w->shape[0]))
        return;
    RUN(linear_add_forward, y, x, w);
}

static bool gated_shapes(struct kern *k, const char *op, const struct tensor *y, const struct tensor *x,
                         const struct tensor *w)
{
    const int64_t any[] = {2, -1, -1};
    if (!wanted(k, op, "x", x, X, any)) return false;
    const int64_t of_y[] = {2, x->shape[0], -1};
    if (!wanted(k, op, "y", y, X, of_y)) return false;
    const int64_t of_w[] = {2, 2 * y->shape[1], x->shape[1]};
    return wanted(k, op, "w", w, X, of_w);
}

void linear_gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w)
{
    if (gated_shapes(k, __func__, y, x, w)) RUN_WITH_SCRATCH(linear_gelu_mul_forward, y, x, w);
}

void linear_silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w)
{
    if (gated_shapes(k, __func__, y, x, w)) RUN_WITH_SCRATCH(linear_silu_mul_forward, y, x, w);
}

void fp8_rows(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x)
{
    if (!want(x, X, 2, -1, -1) || !want(codes, DT_U8, 2, x->shape[0], x->shape[1]) ||
        !want(scale, DT_F32, 1, x->shape[0]))
        return;
    RUN(fp8_rows, codes, scale, x);
}

void fp8_gelu_rows(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x)
{
    if (!want(x, X, 2, -1, -1) || !want(codes, DT_U8, 2, x->shape[0], x->shape[1]) ||
        !want(scale, DT_F32, 1, x->shape[0]))
        return;
    RUN_WITH_SCRATCH(fp8_gelu_rows, codes, scale, x);
}

void linear_fp8_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                        const struct tensor *x_scale, const struct tensor *w, const struct tensor *w_scale,
                        const struct tensor *b)
{
    if (!want(x, DT_U8, 2, -1, -1) || !want(w, DT_U8, 2, -1, x->shape[1]) ||
        !want(x_scale, DT_F32, 1, x->shape[0]) || !want(w_scale, DT_F32, 1, w->shape[0]) ||
        !want(y, X, 2, x->shape[0], w->shape[0]) || (b && !want(b, X, 1, w->shape[0])))
        return;
    RUN_WITH_SCRATCH(linear_fp8_forward, y, x, x_scale, w, w_scale, b);
}

void embedding_forward(struct kern *k, struct tensor *y, const struct tensor *table, const struct tensor *ids)
{
    if (!want(table, X, 2, -1, -1) || !want(ids, DT_I32, 1, -1) ||
        !want(y, X, 2, ids->shape[0], table->shape[1]))
        return;
    RUN(embedding_forward, y, table, ids);
}

/* ---- normalisation ---------------------------------------------------------------------------------- */

void layer_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                        const struct tensor *b, const struct tensor *scale, const struct tensor *shift,
                        float eps)
{
    const enum dtype d = X_OR_F32(w ? w : scale);
    if (!want(x, X, 2, -1, -1) || !want(y, X, 2, x->shape[0], x->shape[1]) ||
        !check(!w == !b, "w and b go together") || !check(!scale == !shift, "scale and shift go together") ||
        (w && (!want(w, d, 1, x->shape[1]) || !want(b, d, 1, x->shape[1]))) ||
        (scale && (!want(scale, d, 1, x->shape[1]) || !want(shift, d, 1, x->shape[1]))))
        return;
    RUN(layer_norm_forward, y, x, w, b, scale, shift, eps);
}

void layer_norm_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x,
                         const struct tensor *w, const struct tensor *scale, float eps, bool add)
{
    if (!want(x, X, 2, -1, -1) || !want(dy, X, 2, x->shape[0], x->shape[1]) ||
        !want(dx, X, 2, x->shape[0], x->shape[1]) || (w && !want(w, X_OR_F32(w), 1, x->shape[1])) ||
        (scale && !want(scale, X_OR_F32(w ? w : scale), 1, x->shape[1])))
        return;
    RUN(layer_norm_backward, dx, dy, x, w, scale, eps, add);
}

void rms_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      float eps)
{
    if (!want(x, X, 2, -1, -1) || !want(y, X, 2, x->shape[0], x->shape[1]) || !want(w, X, 1, x->shape[1]))
        return;
    RUN(rms_norm_forward, y, x, w, eps);
}

/* The part that both directions share: rows of whole heads, and tables for the rows from `first` on. */
static bool rope_shapes(struct kern *k, const char *op, const struct tensor *x, const struct tensor *w,
                        const struct tensor *cos, const struct tensor *sin, int64_t first)
{
    int64_t d = w->shape[0], rotated = x->shape[0] - first;
    const int64_t table[] = {2, rotated, d};
    if (d < 1 || x->shape[1] % d)
        return refuse(k, op, "rows of %lld are no whole heads of %lld", (long long)x->shape[1], (long long)d);
    if (!cos != !sin) return refuse(k, op, "cos and sin go together");
    if (!cos) return true;
    if (first < 0 || rotated < 0 || d % 2)
        return refuse(k, op, "cannot rotate pairs of %lld channels from row %lld of %lld", (long long)d,
                      (long long)first, (long long)x->shape[0]);
    return wanted(k, op, "cos", cos, DT_F32, table) && wanted(k, op, "sin", sin, DT_F32, table);
}

void qk_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                          const struct tensor *b, const struct tensor *cos, const struct tensor *sin,
                          int64_t first, float eps, float times)
{
    if (!want(x, X, 2, -1, -1) || !want(y, X, 2, x->shape[0], x->shape[1]) || !want(w, X, 1, -1) ||
        !want(b, X, 1, w->shape[0]) || !rope_shapes(k, __func__, x, w, cos, sin, first))
        return;
    RUN(qk_norm_rope_forward, y, x, w, b, cos, sin, first, eps, times);
}

void qk_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x,
                           const struct tensor *w, const struct tensor *cos, const struct tensor *sin,
                           int64_t first, float eps, float times)
{
    if (!want(x, X, 2, -1, -1) || !want(dy, X, 2, x->shape[0], x->shape[1]) ||
        !want(dx, X, 2, x->shape[0], x->shape[1]) || !want(w, X, 1, -1) ||
        !rope_shapes(k, __func__, x, w, cos, sin, first))
        return;
    RUN(qk_norm_rope_backward, dx, dy, x, w, cos, sin, first, eps, times);
}

/* Rows of whole heads, and a table of half a head's width for each row. */
static bool pair_tables(struct kern *k, const char *op, const struct tensor *x, const struct tensor *cos,
                        const struct tensor *sin)
{
    const int64_t any[] = {2, x->shape[0], -1};
    if (!cos != !sin) return refuse(k, op, "cos and sin go together");
    if (!cos) return true;
    if (!wanted(k, op, "cos", cos, DT_F32, any) ||
        !wanted(k, op, "sin", sin, DT_F32, (const int64_t[]){2, x->shape[0], cos->shape[1]}))
        return false;
    const int64_t d = 2 * cos->shape[1];
    if (d > 0 && x->shape[1] % d == 0) return true;
    return refuse(k, op, "rows of %lld are no whole heads of %lld", (long long)x->shape[1], (long long)d);
}

void rms_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                           const struct tensor *cos, const struct tensor *sin, float eps, float times)
{
    if (!want(x, X, 2, -1, -1) || !want(y, X, 2, x->shape[0], x->shape[1]) || !want(w, X, 1, x->shape[1]) ||
        !pair_tables(k, __func__, x, cos, sin))
        return;
    RUN(rms_norm_rope_forward, y, x, w, cos, sin, eps, times);
}

void rms_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                            const struct tensor *x, const struct tensor *w, const struct tensor *cos,
                            const struct tensor *sin, float eps, float times)
{
    if (!want(x, X, 2, -1, -1) || !want(dy, X, 2, x->shape[0], x->shape[1]) ||
        !want(dx, X, 2, x->shape[0], x->shape[1]) || !want(w, X, 1, x->shape[1]) ||
        !pair_tables(k, __func__, x, cos, sin))
        return;
    RUN(rms_norm_rope_backward, dx, dy, x, w, cos, sin, eps, times);
}

void rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *cos,
                  const struct tensor *sin, int64_t first)
{
    if (!want(x, X, 2, -1, -1) || !want(y, X, 2, x->shape[0], x->shape[1]) || !want(cos, DT_F32, 2, -1, -1) ||
        !want(sin, DT_F32, 2, cos->shape[0], cos->shape[1]) ||
        !check(cos->shape[1] > 0 && x->shape[1] % (2 * cos->shape[1]) == 0,
               "rows of %lld are no whole heads of %lld", (long long)x->shape[1],
               2 * (long long)cos->shape[1]) ||
        !check(first >= 0 && x->shape[0] <= cos->shape[0] && first <= cos->shape[0] - x->shape[0],
               "%lld rows from position %lld of %lld", (long long)x->shape[0], (long long)first,
               (long long)cos->shape[0]))
        return;
    RUN(rope_forward, y, x, cos, sin, first);
}

/* x and y [T,H,W,C] alike and C in whole groups, for both group norms */
static bool group_shapes(struct kern *k, const char *op, const struct tensor *y, const struct tensor *x,
                         const struct tensor *w, const struct tensor *b, int groups)
{
    const int64_t any[] = {4, -1, -1, -1, -1};
    if (!wanted(k, op, "x", x, X, any)) return false;
    const int64_t same[] = {4, x->shape[0], x->shape[1], x->shape[2], x->shape[3]},
                  channels[] = {1, x->shape[3]};
    if (!wanted(k, op, "y", y, X, same) || !wanted(k, op, "w", w, X, channels) ||
        !wanted(k, op, "b", b, X, channels))
        return false;
    if (groups > 0 && x->shape[3] % groups == 0) return true;
    return refuse(k, op, "%lld channels in %d groups", (long long)x->shape[3], groups);
}

void group_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                             const struct tensor *b, int groups, float eps)
{
    if (!group_shapes(k, __func__, y, x, w, b, groups)) return;
    RUN_WITH_SCRATCH(group_norm_silu_forward, y, x, w, b, groups, eps);
}

void spatial_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                               const struct tensor *w, const struct tensor *b, const struct tensor *mul,
                               const struct tensor *add, int groups, float eps)
{
    if (!group_shapes(k, __func__, y, x, w, b, groups) || !want(mul, X, 4, -1, -1, -1, x->shape[3]) ||
        !want(add, X, 4, mul->shape[0], mul->shape[1], mul->shape[2], x->shape[3]))
        return;
    int64_t T = x->shape[0], Tz = mul->shape[0];
    if (!check(tensor_count(mul) || !tensor_count(x), "mul and add are empty") ||
        !check(Tz > 1 || T == 1 || T % 2 == 0, "%lld frames cannot be led by one", (long long)T))
        return;
    RUN_WITH_SCRATCH(spatial_norm_silu_forward, y, x, w, b, mul, add, groups, eps);
}

void channel_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                          bool silu)
{
    if (!want(x, X, 4, -1, -1, -1, -1) ||
        !want(y, X, 4, x->shape[0], x->shape[1], x->shape[2], x->shape[3]) || !want(w, X, 1, x->shape[3]))
        return;
    RUN(channel_norm_forward, y, x, w, silu);
}

/* ---- attention -------------------------------------------------------------------------------------- */

/* Queries and keys of so many heads and sequences. */
static bool attention_shapes(struct kern *k, const char *op, const struct tensor *q, const struct tensor *kk,
                             const struct attention *a)
{
    if (!wanted(k, op, "q", q, X, (const int64_t[]){2, -1, -1}) ||
        !wanted(k, op, "kk", kk, X, (const int64_t[]){2, -1, q->shape[1]}))
        return false;
    const long long rows = q->shape[0], keys = kk->shape[0], width = q->shape[1];
    const long long batch = a->batch ? a->batch : 1;
    if (a->heads <= 0 || width % a->heads) return refuse(k, op, "rows of %lld in %d heads", width, a->heads);
    if (batch < 0 || rows % batch || keys % batch)
        return refuse(k, op, "%lld queries and %lld keys in %lld sequences", rows, keys, batch);
    if (!keys && rows) return refuse(k, op, "no keys to attend to");
    if (a->causal && keys < rows)
        return refuse(k, op, "causal attention of %lld queries to %lld keys", rows, keys);
    return true;
}

void attention_forward(struct kern *k, struct tensor *o, struct tensor *lse, const struct tensor *q,
                       const struct tensor *kk, const struct tensor *v, const struct tensor *bias,
                       const struct attention *a)
{
    if (!attention_shapes(k, __func__, q, kk, a)) return;
    const int64_t rows = q->shape[0], width = q->shape[1], batch = a->batch ? a->batch : 1;
    if (!want(v, X, 2, kk->shape[0], width) || !want(o, X, 2, rows, width) ||
        (lse && !want(lse, DT_F32, 2, a->heads, rows)) || (bias && !want(bias, DT_F32, 2, a->heads, -1)))
        return;
    if (bias && (bias->shape[1] % 2 == 0 || bias->shape[1] / 2 + 1 < rows / batch ||
                 bias->shape[1] / 2 + 1 < kk->shape[0] / batch)) {
        refuse(k, __func__, "a bias of %lld distances for %lld queries and %lld keys",
               (long long)bias->shape[1], (long long)(rows / batch), (long long)(kk->shape[0] / batch));
        return;
    }
    RUN_WITH_SCRATCH(attention_forward, o, lse, q, kk, v, bias, a);
}

void attention_backward(struct kern *k, struct tensor *dq, struct tensor *dk, struct tensor *dv,
                        const struct tensor *dout, const struct tensor *o, const struct tensor *lse,
                        const struct tensor *q, const struct tensor *kk, const struct tensor *v,
                        const struct attention *a)
{
    if (!attention_shapes(k, __func__, q, kk, a)) return;
    const int64_t rows = q->shape[0], keys = kk->shape[0], width = q->shape[1];
    if (!want(v, X, 2, keys, width) || !want(o, X, 2, rows, width) || !want(dout, X, 2, rows, width) ||
        !want(lse, DT_F32, 2, a->heads, rows) || !want(dq, X, 2, rows, width) ||
        !check(!dk == !dv, "dk and dv go together") ||
        (dk && (!want(dk, X, 2, keys, width) || !want(dv, X, 2, keys, width))))
        return;
    RUN_WITH_SCRATCH(attention_backward, dq, dk, dv, dout, o, lse, q, kk, v, a);
}

/* ---- adapters ------------------------------------------------------------------------------------------ */

/* The double build takes doubles everywhere; else activations are X, and the adapters' own weights F32. */
static enum dtype wide_or(const struct tensor *t, enum dtype d)
{
    return t && t->dtype == DT_F64 ? DT_F64 : d;
}

/* A weight or its gradient, of which all lie in one array. */
static bool wanted_weight(struct kern *k, const char *op, const char *d, const char *name,
                          const struct tensor *t, enum dtype dtype, const int64_t *rank_then_shape)
{
    char full[32];
    snprintf(full, sizeof full, "%s%s", d, name);
    return wanted(k, op, full, t->rank ? t : NULL, dtype, rank_then_shape);
}

static bool temporal_weights(struct kern *k, const char *op, const char *d, const struct tensor *w,
                             enum dtype dtype, int64_t r)
{
    const int64_t square[] = {2, r, r};
    return wanted_weight(k, op, d, "q", &w[0], dtype, square) &&
           wanted_weight(k, op, d, "k", &w[1], dtype, square) &&
           wanted_weight(k, op, d, "v", &w[2], dtype, square);
}

void temporal_attention_forward(struct kern *k, struct tensor *y, const struct tensor *z,
                                const struct tensor w[3], int heads)
{
    enum dtype d = wide_or(z, X), wd = wide_or(z, DT_F32);
    if (!want(z, d, 3, -1, -1, -1) || !want(y, d, 3, z->shape[0], z->shape[1], z->shape[2]) ||
        !check(heads > 0 && z->shape[2] % heads == 0, "rows of %lld in %d heads", (long long)z->shape[2],
               heads) ||
        !temporal_weights(k, __func__, "", w, wd, z->shape[2]) ||
        !check(tensor_count(z) > 0, "no video tokens"))
        return;
    RUN_WITH_SCRATCH(temporal_attention_forward, y, z, w, heads);
}

void temporal_attention_backward(struct kern *k, struct tensor *dz, struct tensor dw[3],
                                 const struct tensor *dy, const struct tensor *z, const struct tensor w[3],
                                 int heads)
{
    enum dtype d = wide_or(z, X), wd = wide_or(z, DT_F32);
    if (!want(z, d, 3, -1, -1, -1) || !want(dz, d, 3, z->shape[0], z->shape[1], z->shape[2]) ||
        !want(dy, d, 3, z->shape[0], z->shape[1], z->shape[2]) ||
        !check(heads > 0 && z->shape[2] % heads == 0, "rows of %lld in %d heads", (long long)z->shape[2],
               heads) ||
        !temporal_weights(k, __func__, "", w, wd, z->shape[2]) ||
        !temporal_weights(k, __func__, "d", dw, wd, z->shape[2]) ||
        !check(tensor_count(z) > 0, "no video tokens"))
        return;
    RUN_WITH_SCRATCH(temporal_attention_backward, dz, dw, dy, z, w, heads);
}

/* z [T,H,W,r], whole heads, and the weights that belong to them. */
static bool gdn_shapes(struct kern *k, const char *op, const char *prefix, const struct tensor *z,
                       const struct tensor *w, int64_t d, bool rope)
{
    const int64_t any[] = {4, -1, -1, -1, -1};
    if (!wanted(k, op, "z", z, wide_or(z, X), any)) return false;
    int64_t H = z->shape[1], F = z->shape[2] / 2 + 1, r = z->shape[3];
    if (d < 1 || r % d)
        return refuse(k, op, "rank %lld is not in whole heads of %lld", (long long)r, (long long)d);
    if (rope && d % 4)
        return refuse(k, op, "cannot rotate heads of %lld channels: not divisible by 4", (long long)d);
    if (!tensor_count(z)) return refuse(k, op, "no video tokens");
    const struct {
        const char *name;
        int64_t shape[5];
    } weight[GDN_PARAMS] = {{"qkv", {2, 3 * r, r}},  {"qkv_bias", {1, 3 * r}},       {"gate", {2, r, r}},
                            {"gate_bias", {1, r}},   {"alpha_h", {2, H, r}},         {"alpha_h_bias", {1, H}},
                            {"alpha_w", {2, F, r}},  {"alpha_w_bias", {1, F}},       {"beta_h", {2, H, r}},
                            {"beta_h_bias", {1, H}}, {"beta_w", {2, F, r}},          {"beta_w_bias", {1, F}},
                            {"norm", {1, r}},        {"kernel", {4, r / d, H, F, 2}}};
    for (int i = 0; i < GDN_PARAMS; i++)
        if (!wanted_weight(k, op, prefix, weight[i].name, &w[i], wide_or(z, DT_F32), weight[i].shape))
            return false;
    return true;
}

static bool gdn_like(struct kern *k, const char *op, const char *name, const struct tensor *t,
                     const struct tensor *z)
{
    const int64_t shape[] = {4, z->shape[0], z->shape[1], z->shape[2], z->shape[3]};
    return wanted(k, op, name, t, z->dtype, shape);
}

static bool gdn_modules(struct kern *k, const char *op, const struct tensor *z, const struct tensor *w,
                        int modules, int64_t d, bool rope)
{
    if (!kern_ok(k)) return false;
    if (modules < 1) return refuse(k, op, "%d modules", modules);
    for (int m = 0; m < modules; m++)
        if (!gdn_shapes(k, op, "", &z[m], w + m * GDN_PARAMS, d, rope) || !gdn_like(k, op, "z", &z[m], z))
            return false;
    return true;
}

void gdn_cssm_forward(struct kern *k, struct tensor *o, const struct tensor *z, const struct tensor *w,
                      int modules, int64_t head_dim, bool rope)
{
    if (!gdn_modules(k, __func__, z, w, modules, head_dim, rope)) return;
    for (int m = 0; m < modules; m++)
        if (!gdn_like(k, __func__, "o", &o[m], z)) return;
    RUN_WITH_SCRATCH(gdn_cssm_forward, o, z, w, modules, head_dim, rope);
}

void gdn_cssm_backward(struct kern *k, struct tensor *dz, struct tensor *dw, const struct tensor *dout,
                       const struct tensor *z, const struct tensor *w, int modules, int64_t head_dim,
                       bool rope)
{
    if (!gdn_modules(k, __func__, z, w, modules, head_dim, rope)) return;
    for (int m = 0; m < modules; m++)
        if (!gdn_shapes(k, __func__, "d", z, dw + m * GDN_PARAMS, head_dim, rope) ||
            !gdn_like(k, __func__, "dout", &dout[m], z) || !gdn_like(k, __func__, "dz", &dz[m], z))
            return;
    RUN_WITH_SCRATCH(gdn_cssm_backward, dz, dw, dout, z, w, modules, head_dim, rope);
}

/* ---- elementwise ------------------------------------------------------------------------------------ */

void gated_add_forward(struct kern *k, struct tensor *out, const struct tensor *x, const struct tensor *y,
                       const struct tensor *gate)
{
    if (!want(x, X, 2, -1, -1) || !want(out, X, 2, x->shape[0], x->shape[1]) ||
        !want(y, X, 2, x->shape[0], x->shape[1]) || !want(gate, X_OR_F32(gate), 1, x->shape[1]))
        return;
    RUN(gated_add_forward, out, x, y, gate);
}

void gated_add_backward(struct kern *k, struct tensor *dy, const struct tensor *dx, const struct tensor *gate)
{
    if (!want(dx, X, 2, -1, -1) || !want(dy, X, 2, dx->shape[0], dx->shape[1]) ||
        !want(gate, X_OR_F32(gate), 1, dx->shape[1]))
        return;
    RUN(gated_add_backward, dy, dx, gate);
}

void add(struct kern *k, struct tensor *y, const struct tensor *x)
{
    if (!want_count(x, X, -1) || !want_count(y, X, tensor_count(x))) return;
    RUN(add, y, x);
}

void axpby(struct kern *k, struct tensor *y, double a, const struct tensor *x, double b)
{
    const enum dtype d = X_OR_F32(x);
    if (!want_count(x, d, -1) || !want_count(y, d, tensor_count(x))) return;
    RUN(axpby, y, a, x, b);
}

void silu_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    const enum dtype d = X_OR_F32(x);
    if (!want_count(x, d, -1) || !want_count(y, d, tensor_count(x))) return;
    RUN(silu_forward, y, x);
}

void gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    if (!want_count(x, X, -1) || !want_count(y, X, tensor_count(x))) return;
    RUN(gelu_forward, y, x);
}

void gelu_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x)
{
    if (!want_count(x, X, -1) || !want_count(dy, X, tensor_count(x)) || !want_count(dx, X, tensor_count(x)))
        return;
    RUN(gelu_backward, dx, dy, x);
}

void gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    if (!want_count(a, X, -1) || !want_count(b, X, tensor_count(a)) || !want_count(y, X, tensor_count(a)))
        return;
    RUN(gelu_mul_forward, y, a, b);
}

void silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a, const struct tensor *b)
{
    if (!want_count(a, X, -1) || !want_count(b, X, tensor_count(a)) || !want_count(y, X, tensor_count(a)))
        return;
    RUN(silu_mul_forward, y, a, b);
}

/* ---- between latents and tokens --------------------------------------------------------------------- */

static bool patch_shapes(struct kern *k, const char *op, const struct tensor *tokens,
                         const struct tensor *latents, int patch)
{
    const int64_t any[] = {4, -1, -1, -1, -1};
    if (!wanted(k, op, "x", latents, DT_F32, any)) return false;
    int64_t F = latents->shape[0], C = latents->shape[1], h = latents->shape[2], w = latents->shape[3];
    if (patch < 1 || h % patch || w % patch)
        return refuse(k, op, "frames of %lldx%lld in patches of %d", (long long)w, (long long)h, patch);
    const int64_t shape[] = {2, F * (h / patch) * (w / patch), C * patch * patch};
    return wanted(k, op, "y", tokens, X, shape);
}

void patchify(struct kern *k, struct tensor *y, const struct tensor *x, int patch)
{
    if (patch_shapes(k, __func__, y, x, patch)) RUN(patchify, y, x, patch);
}

void unpatchify(struct kern *k, struct tensor *x, const struct tensor *y, int patch)
{
    if (patch_shapes(k, __func__, y, x, patch)) RUN(unpatchify, x, y, patch);
}

/* ---- a vision tower over frames ------------------------------------------------------------------------ */

void pixel_patches(struct kern *k, struct tensor *y, const struct tensor *u8, int patch, const float mean[3],
                   const float std[3])
{
    if (!want(u8, DT_U8, 4, -1, -1, -1, 3)) return;
    int64_t T = u8->shape[0], H = u8->shape[1], W = u8->shape[2];
    if (!check(patch > 0 && H % patch == 0 && W % patch == 0, "frames of %lldx%lld in patches of %d",
               (long long)W, (long long)H, patch) ||
        !want(y, X, 2, T * (H / patch) * (W / patch), (int64_t)3 * patch * patch))
        return;
    RUN(pixel_patches, y, u8, patch, mean, std);
}

void class_tokens_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *cls,
                          const struct tensor *pos)
{
    if (!want(x, X, 2, -1, -1) || !want(cls, X, 1, x->shape[1]) || !want(pos, X, 2, -1, x->shape[1])) return;
    int64_t rows = x->shape[0], n = pos->shape[0] - 1;
    if (!check(n > 0 && rows % n == 0, "%lld tokens in frames of %lld", (long long)rows, (long long)n) ||
        !want(y, X, 2, rows / n * (n + 1), x->shape[1]))
        return;
    RUN(class_tokens_forward, y, x, cls, pos);
}

void time_conv_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                  const struct tensor *w, const struct tensor *b)
{
    if (!want(x, X, 3, -1, -1, -1) || !want(w, X, 2, x->shape[2], 3) || !want(b, X, 1, x->shape[2]) ||
        !want(y, X, 3, x->shape[0], x->shape[1], x->shape[2]))
        return;
    RUN(time_conv_quick_gelu_forward, y, x, w, b);
}

/* ---- convolution and resampling --------------------------------------------------------------------- */

void causal_conv3d_forward(struct kern *k, struct tensor *y, struct tensor *x, struct tensor *history,
                           bool first, const struct tensor *w, const struct tensor *b,
                           const struct tensor *residual)
{
    if (!want(x, X, 4, -1, -1, -1, -1) || !check(x->shape[0] > 2, "no frames") ||
        !want(w, X, 5, -1, 3, 3, 3, x->shape[3]) || !want(b, X, 1, w->shape[0]) ||
        !want(y, X, 4, x->shape[0] - 2, x->shape[1], x->shape[2], w->shape[0]) ||
        !want(history, X, 4, 2, x->shape[1], x->shape[2], x->shape[3]) ||
        (residual && !want(residual, X, 4, y->shape[0], y->shape[1], y->shape[2], y->shape[3])))
        return;
    RUN_WITH_SCRATCH(causal_conv3d_forward, y, x, history, first, w, b, residual);
}

void conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                    const struct tensor *b, int stride)
{
    if (!want(x, X, 4, -1, -1, -1, -1) || !want(w, X, 4, -1, 3, 3, x->shape[3]) ||
        !want(b, X, 1, w->shape[0]) || !check(stride == 1 || stride == 2, "stride %d, not 1 or 2", stride) ||
        !want(y, X, 4, x->shape[0], x->shape[1] / stride, x->shape[2] / stride, w->shape[0]))
        return;
    RUN_WITH_SCRATCH(conv2d_forward, y, x, w, b, stride);
}

void time_conv_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                       const struct tensor *b, int stride)
{
    if (!want(y, X, 4, -1, -1, -1, -1) ||
        !check(stride == 1 || stride == 2, "stride %d, not 1 or 2", stride) ||
        !check(y->shape[0] > 0, "no frames") ||
        !want(x, X, 4, stride * (y->shape[0] - 1) + 3, y->shape[1], y->shape[2], -1) ||
        !want(w, X, 5, y->shape[3], 3, 1, 1, x->shape[3]) || !want(b, X, 1, y->shape[3]))
        return;
    RUN_WITH_SCRATCH(time_conv_forward, y, x, w, b, stride);
}

void halve_time_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    if (!want(x, X, 4, -1, -1, -1, -1) ||
        !want(y, X, 4, (x->shape[0] + 1) / 2, x->shape[1], x->shape[2], x->shape[3]))
        return;
    RUN(halve_time_forward, y, x);
}

void upsample_conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                             const struct tensor *b)
{
    if (!want(x, X, 4, -1, -1, -1, -1) || !want(w, X, 4, -1, 3, 3, x->shape[3]) ||
        !want(b, X, 1, w->shape[0]) ||
        !want(y, X, 4, x->shape[0], 2 * x->shape[1], 2 * x->shape[2], w->shape[0]))
        return;
    RUN_WITH_SCRATCH(upsample_conv2d_forward, y, x, w, b);
}

void channels_last(struct kern *k, struct tensor *y, const struct tensor *x, float scale)
{
    if (!want(x, DT_F32, 4, -1, -1, -1, -1) ||
        !want(y, X, 4, x->shape[0], x->shape[2], x->shape[3], x->shape[1]))
        return;
    RUN(channels_last, y, x, scale);
}

void channels_second(struct kern *k, struct tensor *y, const struct tensor *x, float scale)
{
    if (!want(x, X, 4, -1, -1, -1, -1) ||
        !want(y, DT_F32, 4, x->shape[0], x->shape[3], x->shape[1], x->shape[2]))
        return;
    RUN(channels_second, y, x, scale);
}

void pixels_to_unit(struct kern *k, struct tensor *y, const struct tensor *u8)
{
    if (!want_count(u8, DT_U8, -1) || !want_count(y, X, tensor_count(u8))) return;
    RUN(pixels_to_unit, y, u8);
}

void unit_to_pixels(struct kern *k, struct tensor *u8, const struct tensor *y)
{
    if (!want_count(y, X, -1) || !want_count(u8, DT_U8, tensor_count(y))) return;
    RUN(unit_to_pixels, u8, y);
}

static bool square_shapes(struct kern *k, const char *op, const struct tensor *y, const struct tensor *x,
                          int patch)
{
    const int64_t any[] = {4, -1, -1, -1, -1};
    if (!wanted(k, op, "x", x, X, any)) return false;
    const int64_t T = x->shape[0], H = x->shape[1], W = x->shape[2];
    if (patch < 1 || H % patch || W % patch)
        return refuse(k, op, "frames of %lldx%lld in squares of %d", (long long)W, (long long)H, patch);
    const int64_t shape[] = {4, T, H / patch, W / patch, x->shape[3] * patch * patch};
    return wanted(k, op, "y", y, X, shape);
}

void fold_pixels(struct kern *k, struct tensor *y, const struct tensor *x, int patch)
{
    if (square_shapes(k, __func__, y, x, patch)) RUN(fold_pixels, y, x, patch);
}

void unfold_pixels(struct kern *k, struct tensor *x, const struct tensor *y, int patch)
{
    if (square_shapes(k, __func__, y, x, patch)) RUN(unfold_pixels, x, y, patch);
}

/* cut is cut into blocks, each of which goes with a pixel of `blocks`, and evenly with its channels. */
static bool block_shapes(struct kern *k, const char *op, const struct tensor *cut,
                         const struct tensor *blocks, int frames, int side)
{
    const int64_t T = blocks->shape[0], C = cut->shape[3], channels = blocks->shape[3];
    const int64_t missing = T * frames - cut->shape[0];
    if (frames < 1 || side < 1 || missing < 0 || missing >= frames ||
        cut->shape[1] != blocks->shape[1] * side || cut->shape[2] != blocks->shape[2] * side)
        return refuse(k, op, "[%lld,%lld,%lld] is not [%lld,%lld,%lld] blocks of %d frames of %dx%d",
                      (long long)cut->shape[0], (long long)cut->shape[1], (long long)cut->shape[2],
                      (long long)T, (long long)blocks->shape[1], (long long)blocks->shape[2], frames, side,
                      side);
    return (channels > 0 && C * frames * side * side % channels == 0) ||
           refuse(k, op, "blocks of %lld channels give no %lld", (long long)C, (long long)channels);
}

void average_blocks_forward(struct kern *k, struct tensor *y, const struct tensor *x, int frames, int side)
{
    if (!want(x, X, 4, -1, -1, -1, -1) || !want(y, X, 4, -1, -1, -1, -1) ||
        !block_shapes(k, __func__, x, y, frames, side))
        return;
    RUN(average_blocks_forward, y, x, frames, side);
}

void repeat_blocks_add(struct kern *k, struct tensor *y, const struct tensor *x, int frames, int side)
{
    if (!want(x, X, 4, -1, -1, -1, -1) || !want(y, X, 4, -1, -1, -1, -1) ||
        !block_shapes(k, __func__, y, x, frames, side))
        return;
    RUN(repeat_blocks_add, y, x, frames, side);
}

/* [from, from+n) lies within size */
static bool inside(int64_t from, int64_t n, int64_t size)
{
    return from >= 0 && n >= 0 && n <= size && from <= size - n;
}

void copy_window(struct kern *k, struct tensor *y, int64_t y0, int64_t x0, const struct tensor *x, int64_t i0,
                 int64_t j0, int64_t rows, int64_t cols)
{
    if (!want(x, X, 4, -1, -1, -1, -1) || !want(y, X, 4, x->shape[0], -1, -1, x->shape[3]) ||
        !check(inside(i0, rows, x->shape[1]) && inside(j0, cols, x->shape[2]) &&
                   inside(y0, rows, y->shape[1]) && inside(x0, cols, y->shape[2]),
               "%lldx%lld at %lld,%lld of %lldx%lld to %lld,%lld of %lldx%lld", (long long)rows,
               (long long)cols, (long long)i0, (long long)j0, (long long)x->shape[1], (long long)x->shape[2],
               (long long)y0, (long long)x0, (long long)y->shape[1], (long long)y->shape[2]))
        return;
    RUN(copy_window, y, y0, x0, x, i0, j0, rows, cols);
}

void blend_edge(struct kern *k, struct tensor *b, const struct tensor *a, int64_t extent, bool vertical)
{
    if (!want(a, X, 4, -1, -1, -1, -1) ||
        !want(b, X, 4, a->shape[0], vertical ? -1 : a->shape[1], vertical ? a->shape[2] : -1, a->shape[3]))
        return;
    int axis = vertical ? 1 : 2;
    if (check(inside(0, extent, a->shape[axis]) && inside(0, extent, b->shape[axis]), "%lld of %lld and %lld",
              (long long)extent, (long long)a->shape[axis], (long long)b->shape[axis]))
        RUN(blend_edge, b, a, extent, vertical);
}

/* ---- made-up weights -------------------------------------------------------------------------------- */

void random_normal(struct kern *k, struct tensor *y, const struct random_normal *r)
{
    if (!want_count(y, X_OR_F32(y), -1) ||
        !check(!r->channels_last || y->rank >= 2, "no channels to go last"))
        return;
    RUN(random_normal, y, r);
}

/* ---- training --------------------------------------------------------------------------------------- */

void mse_forward_backward(struct kern *k, double *loss, struct tensor *dpred, const struct tensor *pred,
                          const struct tensor *target, double weight)
{
    *loss = 0;
    if (!want_count(pred, DT_F32, -1) || !check(tensor_count(pred) > 0, "nothing to compare") ||
        !want_count(target, DT_F32, tensor_count(pred)) ||
        (dpred && !want_count(dpred, DT_F32, tensor_count(pred))))
        return;
    RUN(mse_forward_backward, loss, dpred, pred, target, weight);
}

void sum_squares(struct kern *k, double *sum, const struct tensor *x)
{
    *sum = 0;
    if (want_count(x, DT_F32, -1)) RUN(sum_squares, sum, x);
}

void expect_finite(struct kern *k, const char *what, const struct tensor *x)
{
    const int64_t n = tensor_count(x), most = x->dtype == DT_F32 ? n : 1 << 24;
    size_t mark = kern_mark(k);
    double sum = 0;
    for (int64_t from = 0; from < n && isfinite(sum); from += most) {
        char *data = x->data ? (char *)x->data + (size_t)from * dtype_size(x->dtype) : NULL;
        struct tensor part = tensor_of(x->dtype, data, 1, n - from < most ? n - from : most), wide = part;
        if (x->dtype != DT_F32) {
            wide = kern_tensor(k, DT_F32, 1, part.shape[0]);
            kern_copy(k, &wide, &part);
        }
        sum_squares(k, &sum, &wide); /* in double no sum of F32's squares overflows */
        kern_release(k, mark);
    }
    if (!isfinite(sum)) kern_fail(k, "%s: values that are not finite (NaN, or too large for the type)", what);
}

void adamw_step(struct kern *k, struct tensor *p, struct tensor *m, struct tensor *v, const struct tensor *g,
                double gscale, int64_t t, const struct adamw *o)
{
    if (!want_count(p, DT_F32, -1) || !want_count(m, DT_F32, tensor_count(p)) ||
        !want_count(v, DT_F32, tensor_count(p)) || !want_count(g, DT_F32, tensor_count(p)) ||
        !check(t >= 1, "step %lld, but they count from 1", (long long)t))
        return;
    RUN(adamw_step, p, m, v, g, gscale, t, o);
}
