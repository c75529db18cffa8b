/* linears - made-up lists of linear layers for adapters under test. */
#ifndef TESTS_LINEARS_H
#define TESTS_LINEARS_H

#include <stdio.h>

#include "filters/learning/adapter.h"

/* What an adapter of that many blocks is made for, each with the four attention projections in -> out, of frames
 * of rows x cols tokens. Good until 32 others have been made. */
static inline struct adapter_base base_of(int64_t blocks, int64_t in, int64_t out, int64_t rows, int64_t cols)
{
    static const char *const target[] = {"to_q", "to_k", "to_v", "to_out.0"};
    static struct linear pool[32][4 * 64];
    static struct linears list[32];
    static int next;
    struct linears *l = &list[next % 32];
    *l = (struct linears){.linear = pool[next++ % 32], .blocks = blocks, .width = in};
    for (int64_t b = 0; b < blocks; b++)
        for (int t = 0; t < 4; t++) {
            struct linear *e = &l->linear[l->count++];
            *e = (struct linear){.block = b, .in = in, .out = out};
            snprintf(e->target, sizeof e->target, "%s", target[t]);
            snprintf(e->name, sizeof e->name, "transformer_blocks.%d.attn1.%s", (int)b, target[t]);
        }
    return (struct adapter_base){l, rows, cols};
}

#endif
