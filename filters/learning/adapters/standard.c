/* standard - plain LoRA (Hu et al. 2021): D(x) = B (A x), A [r,in] Kaiming-uniform, B [out,r] zero. */
#include "filters/learning/adapter.h"

enum { A, B };

static int declare(struct adapter *a, struct adapter_layout *l, char *err, size_t errlen)
{
    (void)err, (void)errlen;
    l->param[A] = (struct adapter_param){"lora_A.weight", 2, {a->rank, l->in}, INIT_KAIMING_UNIFORM, 0};
    l->param[B] = (struct adapter_param){"lora_B.weight", 2, {l->out, a->rank}, INIT_ZERO, 0};
    return 2;
}

/* All rows are alike, text or video. */
static int64_t saved_count(const struct adapter *a, const struct token_rows *r)
{
    return token_count(r) * a->rank;
}

static void forward(struct adapter *a, const struct adapter_call *c)
{
    struct tensor va = adapter_view(a, &a->working, c->module, A),
                  vb = adapter_view(a, &a->working, c->module, B);
    struct tensor z = tensor_as(c->saved, 2, c->x->shape[0], a->rank); /* A x */
    matmul(a->k, &z, c->x, false, &va, true, 1, 0);
    matmul(a->k, c->y, &z, false, &vb, true, adapter_scale(a), 1);
}

/* dB = s dyᵀ z,  dz = s dy B,  dA = dzᵀ x,  dx += dz A */
static void backward(struct adapter *a, const struct adapter_call *c)
{
    struct tensor va = adapter_view(a, &a->working, c->module, A),
                  vb = adapter_view(a, &a->working, c->module, B);
    struct tensor ga = adapter_view(a, &a->grads, c->module, A),
                  gb = adapter_view(a, &a->grads, c->module, B);
    struct tensor z = tensor_as(c->saved, 2, c->x->shape[0], a->rank);
    size_t mark = kern_mark(a->k);
    struct tensor dz = kern_tensor(a->k, kern_compute(a->k), 2, c->x->shape[0], a->rank);
    matmul(a->k, &gb, c->dy, true, &z, false, adapter_scale(a), 1);
    matmul(a->k, &dz, c->dy, false, &vb, false, adapter_scale(a), 0);
    matmul(a->k, &ga, &dz, true, c->x, false, 1, 1);
    if (c->dx) matmul(a->k, c->dx, &dz, false, &va, false, 1, 1);
    kern_release(a->k, mark);
}

static void merge(struct adapter *a, int module, struct tensor *w)
{
    struct tensor va = adapter_view(a, &a->values, module, A), vb = adapter_view(a, &a->values, module, B);
    matmul(a->k, w, &vb, false, &va, false, adapter_scale(a), 1);
}

const struct adapter_kind adapter_standard = {
    .name = "standard",
    .peft = true,
    .declare = declare,
    .saved_count = saved_count,
    .forward = forward,
    .backward = backward,
    .merge = merge,
};
