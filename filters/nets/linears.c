#include "filters/nets/linears.h"

#include <stdio.h>
#include <stdlib.h>

int64_t grid_tokens(const struct token_rows *r)
{
    return r->frames * r->rows * r->cols;
}

int64_t token_count(const struct token_rows *r)
{
    return r->text + grid_tokens(r);
}

bool linears_name(struct linears *l, const struct linear_names *names, int64_t blocks)
{
    int n = 0;
    while (names->linear[n].target) n++;
    *l = (struct linears){.blocks = blocks, .linear = calloc((size_t)blocks * (size_t)n, sizeof *l->linear)};
    for (int64_t b = 0; l->linear && b < blocks; b++)
        for (int i = 0; i < n; i++) {
            const struct linear_name *from = &names->linear[i];
            struct linear *to = &l->linear[l->count++];
            to->block = b;
            snprintf(to->target, sizeof to->target, "%s", from->target);
            snprintf(to->name, sizeof to->name, "%s.%d.%s", names->blocks, (int)b, from->path);
            if (from->original)
                snprintf(to->original, sizeof to->original, "%s.%d.%s", names->blocks, (int)b,
                         from->original);
        }
    return l->linear != NULL;
}

/* x or gelu(x) in FP8, once, and its products. */
static void fp8_product(struct kern *k, struct tensor *const *y, const struct tensor *x,
                        const struct linear_weights *l, int n, bool gelu)
{
    const size_t mark = kern_mark(k);
    struct tensor codes = kern_tensor(k, DT_U8, 2, x->shape[0], x->shape[1]),
                  scale = kern_tensor(k, DT_F32, 1, x->shape[0]);
    (gelu ? fp8_gelu_rows : fp8_rows)(k, &codes, &scale, x);
    for (int i = 0; i < n; i++)
        linear_fp8_forward(k, y[i], &codes, &scale, &l[i].weight, &l[i].scale, &l[i].bias);
    kern_release(k, mark);
}

void linears_product(struct kern *k, struct tensor *const *y, const struct tensor *x,
                     const struct linear_weights *l, int n)
{
    if (l->scale.rank)
        fp8_product(k, y, x, l, n, false);
    else
        for (int i = 0; i < n; i++) linear_forward(k, y[i], x, &l[i].weight, &l[i].bias);
}

void linears_gelu_product(struct kern *k, struct tensor *y, const struct tensor *x,
                          const struct linear_weights *l)
{
    fp8_product(k, &y, x, l, 1, true);
}

static int taking_part(const struct linear_hook *h, struct linear_call *to, const struct linear_call *c,
                       int n)
{
    int calls = 0;
    for (int i = 0; i < n; i++)
        if (h->saved_count(h->context, c[i].linear, c[i].rows)) to[calls++] = c[i];
    return calls;
}

bool linears_together(const struct linear_hook *h, const struct kern *k)
{
    return h && (h->together || kern_compute(k) != DT_F32);
}

void linears_forward(const struct linear_hook *h, const struct linear_call *c, int n)
{
    struct linear_call to[LINEAR_CALLS];
    int calls = h ? taking_part(h, to, c, n) : 0;
    if (calls) h->forward(h->context, to, calls);
}

void linears_backward(const struct linear_hook *h, const struct linear_call *c, int n)
{
    struct linear_call to[LINEAR_CALLS];
    int calls = h && h->backward ? taking_part(h, to, c, n) : 0;
    if (calls) h->backward(h->context, to, calls);
}
