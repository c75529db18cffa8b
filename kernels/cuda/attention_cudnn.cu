/* Attention forward by cuDNN's fused engines, BF16. As a graph it is two products with a softmax in between; its
 * heuristics choose the engine, the first that declares itself repeatable. Backward there is none: cuDNN's adds
 * up dq in order of arrival. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cudnn.h"

#if HAVE_CUDNN

enum { Q = 1, K, V, O, LSE, SCALE };

/* [batch,heads,rows,d] of a tensor [batch*rows,heads*d]; or as seen with the last two exchanged */
static desc operand(struct cudnn_graph *g, int64_t id, const struct attention_shape *s, int64_t rows,
                    bool turned)
{
    const int64_t row = (int64_t)s->heads * s->d;
    const int64_t dims[] = {s->batch, s->heads, turned ? s->d : rows, turned ? rows : s->d},
                  strides[] = {rows * row, s->d, turned ? 1 : row, turned ? row : 1};
    return cudnn_tensor(g, id, CUDNN_DATA_BFLOAT16, 4, dims, strides);
}

/* A value between operations: scores [batch,heads,queries,keys], or one number for each of their rows. */
static desc scores(struct cudnn_graph *g, const struct attention_shape *s, cudnnDataType_t type)
{
    const int64_t dims[] = {s->batch, s->heads, s->queries, s->keys},
                  strides[] = {s->heads * s->queries * s->keys, s->queries * s->keys, s->keys, 1};
    return cudnn_virtual(g, type, 4, dims, strides);
}
static desc of_rows(struct cudnn_graph *g, int64_t id, const struct attention_shape *s)
{
    const int64_t dims[] = {s->batch, s->heads, s->queries, 1},
                  strides[] = {s->heads * s->queries, s->queries, 1, 1};
    return id ? cudnn_tensor(g, id, CUDNN_DATA_FLOAT, 4, dims, strides)
              : cudnn_virtual(g, CUDNN_DATA_FLOAT, 4, dims, strides);
}

static struct cudnn_graph *build(struct kern *k, const struct attention_shape *s)
{
    struct cudnn_graph *g = cudnn_begin(k);
    desc product = scores(g, s, CUDNN_DATA_FLOAT), scaled = scores(g, s, CUDNN_DATA_FLOAT),
         lower = scores(g, s, CUDNN_DATA_FLOAT), weight = scores(g, s, CUDNN_DATA_FLOAT),
         part = scores(g, s, CUDNN_DATA_BFLOAT16), max = of_rows(g, 0, s), sum = of_rows(g, 0, s),
         log = of_rows(g, 0, s);
    cudnn_matmul(g, operand(g, Q, s, s->queries, false), operand(g, K, s, s->keys, true), product);
    cudnn_pointwise(g, CUDNN_POINTWISE_MUL, product, cudnn_scalar(g, SCALE), scaled);
    cudnn_reduction(g, CUDNN_REDUCE_TENSOR_MAX, scaled, max);
    cudnn_pointwise(g, CUDNN_POINTWISE_SUB, scaled, max, lower);
    cudnn_pointwise(g, CUDNN_POINTWISE_EXP, lower, {}, weight);
    cudnn_reduction(g, CUDNN_REDUCE_TENSOR_ADD, weight, sum);
    cudnn_pointwise(g, CUDNN_POINTWISE_LOG, sum, {}, log);
    cudnn_pointwise(g, CUDNN_POINTWISE_ADD, max, log, of_rows(g, LSE, s));
    cudnn_pointwise(g, CUDNN_POINTWISE_DIV, weight, sum, part);
    cudnn_matmul(g, part, operand(g, V, s, s->keys, false), operand(g, O, s, s->queries, false));
    return g;
}

/* The plan for these shapes, made when they are first met; NULL when no engine does it, or after a failure. */
static struct cudnn_graph *plan_of(struct kern *k, const struct attention_shape *s)
{
    struct cuda *c = cuda_of(k);
    const int64_t key[CUDNN_MAX_KEY] = {s->heads, s->d, s->batch, s->queries, s->keys};
    struct cudnn_graph *g = c->attentions;
    while (g && memcmp(g->key, key, sizeof key)) g = g->next;
    if (!g) {
        g = build(k, s);
        if (!g) return NULL;
        memcpy(g->key, key, sizeof key);
        cudnn_plan(g, NULL);
        g->next = c->attentions;
        c->attentions = g;
    }
    return g->plan.p ? g : NULL;
}

/* lse of several sequences would lie otherwise than cuDNN writes it. One that nobody asks for is made all the same:
 * cuDNN's engine without it rounds otherwise, and what is computed again for backward must have the same bits. */
static bool takes_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    return s->d % 8 == 0 && s->d >= 64 && s->d <= 128 && !s->causal && !t->bias &&
           !(t->lse && s->batch > 1) && attention_aligned(t->o) && attention_aligned(t->q) &&
           attention_aligned(t->k) && attention_aligned(t->v) && cudnn_is_there(k) && plan_of(k, s);
}

static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    float scale = s->scale;
    void *lse = t->lse ? t->lse->data : cuda_scratch(k, DT_F32, s->batch * s->heads * s->queries);
    const int64_t ids[] = {Q, K, V, O, SCALE, LSE};
    void *data[] = {t->q->data, t->k->data, t->v->data, t->o->data, &scale, lse};
    if (t->q->data && lse) cudnn_run(plan_of(k, s), 6, ids, data);
}

void cuda_attentions_close(struct cuda *c)
{
    while (c->attentions) {
        struct cudnn_graph *g = c->attentions;
        c->attentions = g->next;
        cudnn_free(g);
    }
}

#else

static bool takes_forward(struct kern *, const struct attention_shape *, const struct attention_forward *)
{
    return false;
}
static void run_forward(struct kern *, const struct attention_shape *, const struct attention_forward *) {}
void cuda_attentions_close(struct cuda *) {}

#endif

static bool takes_backward(struct kern *, const struct attention_shape *, const struct attention_backward *)
{
    return false;
}

const struct attention_way attention_cudnn = {"cudnn", takes_forward, run_forward, takes_backward, NULL};
