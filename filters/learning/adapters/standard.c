/* standard - plain LoRA (Hu et al. 2021): D(x) = B (A x), A [r,in] Kaiming-uniform, B [out,r] zero. */
#include "filters/learning/adapter.h"

enum { A, B };

static bool declare(struct adapter *a, char *err, size_t errlen)
{
    if (!adapter_settings(a, NULL, 0, err, errlen)) return false;
    a->param[A] =
        (struct adapter_param){"lora_A.weight", 2, {a->rank, a->base.width}, INIT_KAIMING_UNIFORM, 0};
    a->param[B] = (struct adapter_param){"lora_B.weight", 2, {a->base.width, a->rank}, INIT_ZERO, 0};
    a->params = 2;
    return true;
}

static int64_t saved_count(const struct adapter *a, const struct token_grid *g)
{
    return (g->n_text + g->frames * g->rows * g->cols) * a->rank;
}

static void forward(struct adapter *a, int module, const struct token_grid *g, struct tensor *y,
                    const struct tensor *x, struct tensor *saved)
{
    (void)g; /* all tokens are alike */
    struct tensor va = adapter_view(a, &a->working, module, A), vb = adapter_view(a, &a->working, module, B);
    struct tensor z = tensor_as(saved, 2, x->shape[0], a->rank); /* A x */
    matmul(a->k, &z, x, false, &va, true, 1, 0);
    matmul(a->k, y, &z, false, &vb, true, adapter_scale(a), 1);
}

/* dB = s dyᵀ z,  dz = s dy B,  dA = dzᵀ x,  dx += dz A */
static void backward(struct adapter *a, int module, const struct token_grid *g, struct tensor *dx,
                     const struct tensor *dy, const struct tensor *x, const struct tensor *saved)
{
    (void)g;
    struct tensor va = adapter_view(a, &a->working, module, A), vb = adapter_view(a, &a->working, module, B);
    struct tensor ga = adapter_view(a, &a->grads, module, A), gb = adapter_view(a, &a->grads, module, B);
    struct tensor z = tensor_as(saved, 2, x->shape[0], a->rank);
    size_t mark = kern_mark(a->k);
    struct tensor dz = kern_tensor(a->k, kern_compute(a->k), 2, x->shape[0], a->rank);
    matmul(a->k, &gb, dy, true, &z, false, adapter_scale(a), 1);
    matmul(a->k, &dz, dy, false, &vb, false, adapter_scale(a), 0);
    matmul(a->k, &ga, &dz, true, x, false, 1, 1);
    if (dx) matmul(a->k, dx, &dz, false, &va, false, 1, 1);
    kern_release(a->k, mark);
}

static void merge(struct adapter *a, int module, struct tensor *w)
{
    struct tensor va = adapter_view(a, &a->values, module, A), vb = adapter_view(a, &a->values, module, B);
    matmul(a->k, w, &vb, false, &va, false, adapter_scale(a), 1);
}

const struct adapter_kind adapter_standard = {
    .name = "standard",
    .declare = declare,
    .saved_count = saved_count,
    .forward = forward,
    .backward = backward,
    .merge = merge,
};
