#include "filters/nets/linears.h"

int64_t grid_tokens(const struct token_rows *r)
{
    return r->frames * r->rows * r->cols;
}

int64_t token_count(const struct token_rows *r)
{
    return r->text + grid_tokens(r);
}

static int taking_part(const struct linear_hook *h, struct linear_call *to, const struct linear_call *c,
                       int n)
{
    int calls = 0;
    for (int i = 0; i < n; i++)
        if (h->saved_count(h->context, c[i].linear, c[i].rows)) to[calls++] = c[i];
    return calls;
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
