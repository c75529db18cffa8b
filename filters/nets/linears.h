/* linears - the linear layers y = W x + b that a network offers, and the place to hook onto them.
 *
 * A network knows nothing of what hooks on: it says which linears there are, and calls the hook beside each of
 * them with the same x, the y to add to, and room for what backward needs. */
#ifndef NETS_LINEARS_H
#define NETS_LINEARS_H

#include "kernels/kernels.h"

/* What the rows of an activation [rows,width] are: text tokens first, then frames x rows x cols of the grid,
 * row-major. Either part may be empty. */
struct token_rows {
    int64_t text, frames, rows, cols;
};
int64_t token_count(const struct token_rows *r);
int64_t grid_tokens(const struct token_rows *r);

/* y = x Wᵀ + b on the device. Where W is held in FP8, weight has codes and scale those of its rows: see fp8_rows(). */
struct linear_weights {
    struct tensor weight; /* [out,in] */
    struct tensor bias;   /* [out] */
    struct tensor scale;  /* F32 [out], or of no rank */
};
/* y[i] [rows,out] = x [rows,in] by n linear layers, one after the other in l; of FP8, x is put in it once. */
void linears_product(struct kern *k, struct tensor *const *y, const struct tensor *x,
                     const struct linear_weights *l, int n);
/* The same of one layer of FP8 and gelu(x), which is nowhere but there: [rows,in] less to write and to read. */
void linears_gelu_product(struct kern *k, struct tensor *y, const struct tensor *x,
                          const struct linear_weights *l);

struct linear {
    char name[96];     /* below the network's part: "transformer_blocks.0.attn1.to_q" */
    char target[32];   /* what it is called within its block: "to_q" */
    char original[96]; /* as its network was first published, whose names other tools took over:
                          "blocks.0.self_attn.q"; empty: under no other name than this */
    int64_t block;     /* counted from 0 */
    int64_t in, out;   /* y [rows,out] = W [out,in] x [rows,in] + b [out] */
    bool text_only;    /* its rows are text tokens alone, so that nothing of a grid can work there */
    bool aside; /* hooked onto only by its full target: neither when none is named, nor by a last word that
                              it shares with one that is not aside */
    struct tensor *weight; /* W on the device, borrowed: what a merge changes, unless it is held in FP8 */
};

/* Block by block, in each block in the order in which the network computes them. */
struct linears {
    struct linear *linear;
    int count;
    int64_t blocks, width; /* of the network, as adapter files state them */
};

/* What the linears of every block are called. path: below the block, in `name`; original: there, in `original`, or
 * NULL. The list ends with a NULL target. */
struct linear_names {
    const char *blocks; /* what stands before the block's number: "transformer_blocks" */
    struct linear_name {
        const char *target, *path, *original;
    } linear[16];
};
/* The linears of so many blocks by their names; in, out, width and weight are left to the caller, who frees
 * l->linear. false: out of memory. */
bool linears_name(struct linears *l, const struct linear_names *names, int64_t blocks);

/* One linear at work. saved: room of the hook's saved_count elements of the compute dtype, written by forward,
 * read by backward. */
struct linear_call {
    int linear;
    const struct token_rows *rows; /* of x and y */
    const struct tensor *x, *dy;   /* x [rows,in]; dy [rows,out] in backward */
    struct tensor *y, *dx, *saved; /* y in forward; dx in backward, NULL: not wanted */
};

enum { LINEAR_CALLS = 8 }; /* at most so many linears of one input are called together */

struct linear_hook {
    void *context;
    bool together; /* see linears_together() */
    /* How many elements forward leaves for backward; 0: it does not take part in this linear. */
    int64_t (*saved_count)(const void *context, int linear, const struct token_rows *rows);
    /* y += what the hook adds, of n linears of one input x. */
    void (*forward)(void *context, const struct linear_call *c, int n);
    /* dx += its share, and its own gradients. NULL for a hook that is not trained. */
    void (*backward)(void *context, const struct linear_call *c, int n);
};

/* Whether backward is called once for all linears of one input, after their own dx is complete, or after each, in turn.
 * It is the order of the sums in dx, and so part of the result: in F32 it is as the hook has it. In BF16, where every
 * share that is added by itself is rounded by itself, and costs a pass over dx, they always go together. */
bool linears_together(const struct linear_hook *h, const struct kern *k);

/* Calls the hook (NULL: none) for those of n linears that it takes part in. */
void linears_forward(const struct linear_hook *h, const struct linear_call *c, int n);
void linears_backward(const struct linear_hook *h, const struct linear_call *c, int n);

#endif
