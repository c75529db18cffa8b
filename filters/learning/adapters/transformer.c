/* transformer - a LoRA whose inner vectors see the other frames: D(x) = U z', z = V x. On video tokens z' = z
 * + a_t, where a is attention with two heads over the frames' means of z (temporal_attention_forward in
 * kernels.h); on text tokens z' = z.
 *
 *   lora_A.weight V [r,in], lora_B.weight U [out,r]
 *   q.weight, k.weight, v.weight [r,r], no biases */
#include <stdio.h>

#include "filters/learning/adapter.h"
#include "formats/error.h"

enum { V, U, QKV, PARAMS = QKV + 3 };
enum { HEADS = 2 };

static int declare(struct adapter *a, struct adapter_layout *l, char *err, size_t errlen)
{
    static const char *const names[] = {"q.weight", "k.weight", "v.weight"};
    if (a->rank % HEADS)
        return fail(err, errlen, "adapter transformer has two heads: rank %lld is odd", (long long)a->rank);
    l->param[V] = (struct adapter_param){"lora_A.weight", 2, {a->rank, l->in}, INIT_KAIMING_UNIFORM, 0};
    l->param[U] = (struct adapter_param){"lora_B.weight", 2, {l->out, a->rank}, INIT_ZERO, 0};
    for (int i = 0; i < 3; i++) {
        l->param[QKV + i] = (struct adapter_param){"", 2, {a->rank, a->rank}, INIT_XAVIER_UNIFORM, 0};
        snprintf(l->param[QKV + i].name, sizeof l->param[i].name, "%s", names[i]);
    }
    return PARAMS;
}

/* z' of all tokens, z of the video */
static int64_t saved_count(const struct adapter *a, const struct token_rows *r)
{
    return (token_count(r) + grid_tokens(r)) * a->rank;
}

/* z' of all tokens, its rows of the video as frames, and z of those. */
struct inner {
    struct tensor all, z, video;
};

static struct tensor video_of(const struct tensor *all, const struct token_rows *r)
{
    struct tensor rows = tensor_rows(all, r->text, grid_tokens(r));
    return tensor_as(&rows, 3, r->frames, r->rows * r->cols, all->shape[1]);
}

static struct inner parts(const struct adapter *a, const struct token_rows *r, const struct tensor *saved)
{
    int64_t tokens = token_count(r);
    struct tensor all = tensor_rows(saved, 0, tokens * a->rank),
                  z = tensor_rows(saved, tokens * a->rank, grid_tokens(r) * a->rank);
    all = tensor_as(&all, 2, tokens, a->rank);
    return (struct inner){all, tensor_as(&z, 3, r->frames, r->rows * r->cols, a->rank), video_of(&all, r)};
}

/* The attention's weights, or their gradients, as the optimiser has them. */
static void view_own(const struct adapter *a, const struct tensor *flat, int module, struct tensor own[3])
{
    for (int i = 0; i < 3; i++) own[i] = adapter_view(a, flat, module, QKV + i);
}

static void forward(struct adapter *a, const struct adapter_call *c, int n)
{
    struct tensor v[LINEAR_CALLS] = {{0}}, u[LINEAR_CALLS] = {{0}}, all[LINEAR_CALLS] = {{0}},
                  y[LINEAR_CALLS] = {{0}}, own[3];
    for (int i = 0; i < n; i++) {
        v[i] = adapter_working(a, c[i].module, V), u[i] = adapter_working(a, c[i].module, U);
        all[i] = parts(a, c->rows, c[i].saved).all, y[i] = *c[i].y;
    }
    thin_down_forward(a->k, all, c->x, v, n);
    for (int i = 0; i < n; i++) {
        struct inner s = parts(a, c->rows, c[i].saved);
        view_own(a, &a->values, c[i].module, own);
        kern_copy(a->k, &s.z, &s.video);
        temporal_attention_forward(a->k, &s.video, &s.z, own, HEADS);
    }
    thin_up_forward(a->k, y, all, u, adapter_scale(a), n);
}

/* dU = s dyᵀ z',  dz' = s dy U,  dz through the attention,  dV = dzᵀ x,  dx += dz V */
static void backward(struct adapter *a, const struct adapter_call *c, int n)
{
    struct tensor v[LINEAR_CALLS] = {{0}}, u[LINEAR_CALLS] = {{0}}, dv[LINEAR_CALLS] = {{0}},
                  du[LINEAR_CALLS] = {{0}}, all[LINEAR_CALLS] = {{0}}, dy[LINEAR_CALLS] = {{0}},
                  dz[LINEAR_CALLS] = {{0}}, own[3], d_own[3];
    size_t mark = kern_mark(a->k);
    for (int i = 0; i < n; i++) {
        v[i] = adapter_working(a, c[i].module, V), u[i] = adapter_working(a, c[i].module, U);
        dv[i] = adapter_view(a, &a->grads, c[i].module, V),
        du[i] = adapter_view(a, &a->grads, c[i].module, U);
        all[i] = parts(a, c->rows, c[i].saved).all, dy[i] = *c[i].dy;
        dz[i] = kern_tensor(a->k, kern_compute(a->k), 2, c->x->shape[0], a->rank);
    }
    thin_up_backward(a->k, dz, du, dy, all, u, adapter_scale(a), n);
    for (int i = 0; i < n; i++) {
        struct inner s = parts(a, c->rows, c[i].saved);
        struct tensor video = video_of(&dz[i], c->rows);
        view_own(a, &a->values, c[i].module, own), view_own(a, &a->grads, c[i].module, d_own);
        temporal_attention_backward(a->k, &video, d_own, &video, &s.z, own, HEADS);
    }
    thin_down_backward(a->k, c->dx, dv, dz, c->x, v, n);
    kern_release(a->k, mark);
}

const struct adapter_kind adapter_transformer = {.name = "transformer",
                                                 .grid = true,
                                                 .declare = declare,
                                                 .saved_count = saved_count,
                                                 .forward = forward,
                                                 .backward = backward};
