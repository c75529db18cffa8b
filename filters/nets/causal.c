#include "filters/nets/causal.h"

struct tensor activation(struct kern *k, int64_t frames, int64_t rows, int64_t cols, int64_t channels)
{
    return kern_tensor(k, kern_compute(k), 4, frames, rows, cols, channels);
}

struct tensor roomy(struct kern *k, int64_t frames, int64_t rows, int64_t cols, int64_t channels)
{
    struct tensor x = activation(k, 2 + frames, rows, cols, channels);
    return tensor_rows(&x, 2, frames);
}

struct tensor activation_like(struct kern *k, const struct tensor *x, int64_t channels)
{
    return activation(k, x->shape[0], x->shape[1], x->shape[2], channels);
}

struct tensor roomy_like(struct kern *k, const struct tensor *x, int64_t channels)
{
    return roomy(k, x->shape[0], x->shape[1], x->shape[2], channels);
}

struct tensor with_room(const struct tensor *x, int64_t frames)
{
    struct tensor whole = *x;
    whole.shape[0] = frames;
    if (x->data) whole.data = (char *)x->data - tensor_bytes(&whole);
    whole.shape[0] += x->shape[0];
    return whole;
}

void causal_forward(struct kern *k, struct tensor *y, const struct tensor *x, struct causal *c, bool first,
                    const struct tensor *residual)
{
    struct tensor whole = with_room(x, 2);
    causal_conv3d_forward(k, y, &whole, &c->history, first, &c->conv.w, &c->conv.b, residual);
}

void pointwise_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct conv *c)
{
    const int64_t in = x->shape[3], out = y->shape[3];
    struct tensor yy = tensor_as(y, 2, tensor_count(y) / out, out),
                  xx = tensor_as(x, 2, tensor_count(x) / in, in), w = tensor_as(&c->w, 2, out, in);
    linear_forward(k, &yy, &xx, &w, &c->b);
}
