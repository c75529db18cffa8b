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

struct views {
    struct tensor v, u, qkv[3];
};

/* of the values: the two projections in the compute dtype, all else as the optimiser has it */
static struct views view(struct adapter *a, const struct tensor *projections, const struct tensor *own,
                         int module)
{
    struct views w = {
        adapter_view(a, projections, module, V), adapter_view(a, projections, module, U), {{0}}};
    for (int i = 0; i < 3; i++) w.qkv[i] = adapter_view(a, own, module, QKV + i);
    return w;
}

/* The parts of saved, and the video's rows of z' as frames. */
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

static void forward(struct adapter *a, const struct adapter_call *c)
{
    struct views w = view(a, &a->working, &a->values, c->module);
    struct inner s = parts(a, c->rows, c->saved);
    matmul(a->k, &s.all, c->x, false, &w.v, true, 1, 0);
    kern_copy(a->k, &s.z, &s.video);
    temporal_attention_forward(a->k, &s.video, &s.z, w.qkv, HEADS);
    matmul(a->k, c->y, &s.all, false, &w.u, true, adapter_scale(a), 1);
}

/* dU = s dyᵀ z',  dz' = s dy U,  dz through the attention,  dV = dzᵀ x,  dx += dz V */
static void backward(struct adapter *a, const struct adapter_call *c)
{
    struct views w = view(a, &a->working, &a->values, c->module),
                 dw = view(a, &a->grads, &a->grads, c->module);
    struct inner s = parts(a, c->rows, c->saved);
    size_t mark = kern_mark(a->k);
    struct tensor dz = kern_tensor(a->k, kern_compute(a->k), 2, c->x->shape[0], a->rank),
                  video = video_of(&dz, c->rows);
    matmul(a->k, &dw.u, c->dy, true, &s.all, false, adapter_scale(a), 1);
    matmul(a->k, &dz, c->dy, false, &w.u, false, adapter_scale(a), 0);
    temporal_attention_backward(a->k, &video, dw.qkv, &video, &s.z, w.qkv, HEADS);
    matmul(a->k, &dw.v, &dz, true, c->x, false, 1, 1);
    if (c->dx) matmul(a->k, c->dx, &dz, false, &w.v, false, 1, 1);
    kern_release(a->k, mark);
}

const struct adapter_kind adapter_transformer = {.name = "transformer",
                                                 .grid = true,
                                                 .declare = declare,
                                                 .saved_count = saved_count,
                                                 .forward = forward,
                                                 .backward = backward};
