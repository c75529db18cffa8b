#include "kernels/cpu/cpu.h"

static struct gemm product(struct tensor *y, const struct tensor *x, const struct tensor *w, bool tw)
{
    return (struct gemm){.dtype = DT_F32,
                         .m = y->shape[0],
                         .n = y->shape[1],
                         .k = x->shape[1],
                         .tb = tw,
                         .alpha = 1,
                         .a = x->data,
                         .b = w->data,
                         .c = y->data};
}

HOT static void add_bias(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t r = row; r < row + rows; r++) {
        float *restrict y = (float *)g->c + r * g->n + col;
        const float *restrict b = g->bias + col;
        for (int64_t i = 0; i < cols; i++) y[i] += b[i];
    }
}

HOT static void apply_gelu(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t r = row; r < row + rows; r++) {
        const float *pre = (float *)g->c + r * g->n + col;
        float *y = g->y + r * g->n + col; /* may be pre itself */
        for (int64_t i = 0; i < cols; i++) y[i] = vgelu(pre[i]);
    }
}

static void add_bias_and_gelu(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    if (g->bias) add_bias(g, row, rows, col, cols);
    apply_gelu(g, row, rows, col, cols);
}

HOT static void add_bias_and_quick_gelu(const struct gemm *g, int64_t row, int64_t rows, int64_t col,
                                        int64_t cols)
{
    for (int64_t r = row; r < row + rows; r++) {
        float *restrict y = (float *)g->c + r * g->n + col;
        const float *restrict b = g->bias + col;
        for (int64_t i = 0; i < cols; i++) y[i] = vquick_gelu(y[i] + b[i]);
    }
}

HOT static void times_gelu_slope(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t r = row; r < row + rows; r++) {
        float *restrict d = (float *)g->c + r * g->n + col;
        const float *restrict pre = g->pre + r * g->n + col;
        for (int64_t i = 0; i < cols; i++) d[i] *= vgelu_slope(pre[i]);
    }
}

void cpu_linear_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                        const struct tensor *b)
{
    struct gemm g = product(y, x, w, true);
    if (b) {
        g.bias = b->data;
        g.finish = add_bias;
    }
    cpu_gemm(k, &g);
}

void cpu_linear_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *w,
                         bool add)
{
    struct gemm g = product(dx, dy, w, false);
    g.beta = add;
    cpu_gemm(k, &g);
}

void cpu_linear_gelu_forward(struct kern *k, struct tensor *y, struct tensor *pre, const struct tensor *x,
                             const struct tensor *w, const struct tensor *b)
{
    struct gemm g = product(pre ? pre : y, x, w, true);
    g.bias = b ? b->data : NULL;
    g.y = y->data;
    g.finish = add_bias_and_gelu;
    cpu_gemm(k, &g);
}

void cpu_linear_gelu_backward(struct kern *k, struct tensor *dpre, const struct tensor *dy,
                              const struct tensor *w, const struct tensor *pre)
{
    struct gemm g = product(dpre, dy, w, false);
    g.pre = pre->data;
    g.finish = times_gelu_slope;
    cpu_gemm(k, &g);
}

void cpu_linear_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                   const struct tensor *w, const struct tensor *b)
{
    struct gemm g = product(y, x, w, true);
    g.bias = b->data;
    g.finish = add_bias_and_quick_gelu;
    cpu_gemm(k, &g);
}

void cpu_linear_parts_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                              const struct tensor *w)
{
    const int64_t parts = y->shape[0], n = y->shape[1], out = y->shape[2];
    const struct tensor rows = tensor_as(y, 2, parts * n, out);
    for (int64_t p = 0; p < parts; p++) {
        struct tensor to = tensor_rows(&rows, p * n, n), by = tensor_rows(w, p * out, out);
        cpu_linear_forward(k, &to, x, &by, NULL);
    }
}

void cpu_linear_add_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w)
{
    struct gemm g = product(y, x, w, true);
    g.beta = 1;
    cpu_gemm(k, &g);
}

/* y = the first half's products, the result its second's */
static struct tensor both_halves(struct kern *k, struct tensor *y, const struct tensor *x,
                                 const struct tensor *w)
{
    const int64_t out = y->shape[1];
    struct tensor second = kern_tensor(k, DT_F32, 2, y->shape[0], out);
    const struct tensor w0 = tensor_rows(w, 0, out), w1 = tensor_rows(w, out, out);
    if (second.data) {
        cpu_linear_forward(k, y, x, &w0, NULL);
        cpu_linear_forward(k, &second, x, &w1, NULL);
    }
    return second;
}

void cpu_linear_gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                 const struct tensor *w)
{
    const struct tensor second = both_halves(k, y, x, w);
    if (second.data) cpu_gelu_mul_forward(k, y, y, &second);
}

void cpu_linear_silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                 const struct tensor *w)
{
    const struct tensor second = both_halves(k, y, x, w);
    if (second.data) cpu_silu_mul_forward(k, y, y, &second);
}
