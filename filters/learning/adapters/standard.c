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

/* A and B of n modules, and what forward keeps: z = A x. */
struct views {
    struct tensor a[LINEAR_CALLS], b[LINEAR_CALLS], z[LINEAR_CALLS];
};

static struct views view(const struct adapter *a, const struct adapter_call *c, int n)
{
    struct views v = {0};
    for (int i = 0; i < n; i++) {
        v.a[i] = adapter_working(a, c[i].module, A), v.b[i] = adapter_working(a, c[i].module, B);
        v.z[i] = tensor_as(c[i].saved, 2, c[i].x->shape[0], a->rank);
    }
    return v;
}

static void forward(struct adapter *a, const struct adapter_call *c, int n)
{
    struct views v = view(a, c, n);
    struct tensor y[LINEAR_CALLS] = {{0}};
    for (int i = 0; i < n; i++) y[i] = *c[i].y;
    thin_down_forward(a->k, v.z, c->x, v.a, n);
    thin_up_forward(a->k, y, v.z, v.b, adapter_scale(a), n);
}

/* dB = s dyᵀ z,  dz = s dy B,  dA = dzᵀ x,  dx += dz A */
static void backward(struct adapter *a, const struct adapter_call *c, int n)
{
    struct views v = view(a, c, n);
    struct tensor ga[LINEAR_CALLS] = {{0}}, gb[LINEAR_CALLS] = {{0}}, dy[LINEAR_CALLS] = {{0}},
                  dz[LINEAR_CALLS] = {{0}};
    size_t mark = kern_mark(a->k);
    for (int i = 0; i < n; i++) {
        ga[i] = adapter_view(a, &a->grads, c[i].module, A),
        gb[i] = adapter_view(a, &a->grads, c[i].module, B);
        dz[i] = kern_tensor(a->k, kern_compute(a->k), 2, c->x->shape[0], a->rank);
        dy[i] = *c[i].dy;
    }
    thin_up_backward(a->k, dz, gb, dy, v.z, v.b, adapter_scale(a), n);
    thin_down_backward(a->k, c->dx, ga, dz, c->x, v.a, n);
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
