/* loom - a denoiser of a family that nobody publishes: latents of 5 channels, two frames and 16 x 16 pixels each,
 * tokens of one latent, text 7 x 24, and linear layers of three shapes. Sampler, trainer, adapters and programs
 * must take it as it is.
 *
 *   x = [text ; latents in_projᵀ] (1 + timestep/1000)
 *   in each block   x_text += context(text),  o = attention(x, x, x),  x += weave(spread(o))
 *   answer = x_latents out_projᵀ */
#include <math.h>
#include <stdlib.h>

#include "filters/nets/denoiser.h"

enum {
    MAX_BLOCKS = 8,
    CHANNELS = 5,
    TEMPORAL = 2,
    SPATIAL = 16,
    PATCH = 1,
    TEXT_LENGTH = 7,
    TEXT_WIDTH = 24
};
enum { CONTEXT, SPREAD, WEAVE, LINEARS };

struct loom {
    int64_t blocks, width;
    struct tensor in_text;                     /* [width,TEXT_WIDTH] */
    struct tensor in_proj;                     /* [width,CHANNELS] */
    struct tensor out_proj;                    /* [CHANNELS,width] */
    struct tensor weight[MAX_BLOCKS][LINEARS]; /* [width,TEXT_WIDTH], [2 width,width], [width,2 width] */
    struct {
        double factor;
        struct tensor text, x[MAX_BLOCKS], o[MAX_BLOCKS], lse[MAX_BLOCKS], wide[MAX_BLOCKS];
        struct tensor hook[MAX_BLOCKS][LINEARS];
    } saved;
};

static const struct token_rows text_rows = {.text = TEXT_LENGTH};

static bool configure(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    struct loom *l = net;
    struct config c = {.json = json, .file = file};
    l->blocks = config_int(&c, "num_layers", 1, MAX_BLOCKS);
    l->width = config_int(&c, "width", 8, 1024);
    return !*c.error || fail(err, errlen, "%s", c.error);
}

static void add_params(struct params *list, void *net)
{
    static const char *const name[LINEARS] = {"context", "spread", "weave"};
    struct loom *l = net;
    const int64_t w = l->width;
    const struct tensor shape[LINEARS] = {shape_of(2, w, TEXT_WIDTH), shape_of(2, 2 * w, w),
                                          shape_of(2, w, 2 * w)};
    param_add(list, &l->in_text, shape_of(2, w, TEXT_WIDTH), 0, 0.2, "in_text.weight");
    param_add(list, &l->in_proj, shape_of(2, w, CHANNELS), 0, 0.4, "in_proj.weight");
    param_add(list, &l->out_proj, shape_of(2, CHANNELS, w), 0, 0.25, "out_proj.weight");
    for (int i = 0; i < l->blocks; i++)
        for (int t = 0; t < LINEARS; t++)
            param_add(list, &l->weight[i][t], shape[t], 0, 0.15, "blocks.%d.%s.weight", i, name[t]);
}

static void geometry(struct latent_geometry *g, const void *net)
{
    (void)net;
    *g = (struct latent_geometry){.channels = CHANNELS,
                                  .temporal = TEMPORAL,
                                  .spatial = SPATIAL,
                                  .patch = PATCH,
                                  .frames = 5,
                                  .width = 64,
                                  .height = 48,
                                  .text_length = TEXT_LENGTH,
                                  .text_width = TEXT_WIDTH};
}

static bool text_shape(struct latent_geometry *g, json_t *config, const char *file, char *err, size_t errlen)
{
    (void)config, (void)file, (void)err, (void)errlen;
    geometry(g, NULL);
    return true;
}

static bool open_loom(struct denoiser *d, char *err, size_t errlen)
{
    static const char *const target[LINEARS] = {"context", "spread", "weave"};
    struct loom *l = d->net;
    d->linears.blocks = l->blocks;
    d->linears.width = l->width;
    d->linears.linear = calloc((size_t)l->blocks * LINEARS, sizeof *d->linears.linear);
    if (!d->linears.linear) return fail(err, errlen, "out of memory");
    for (int i = 0; i < l->blocks; i++)
        for (int t = 0; t < LINEARS; t++) {
            struct linear *e = &d->linears.linear[d->linears.count++];
            const struct tensor *w = &l->weight[i][t];
            *e = (struct linear){.block = i,
                                 .in = w->shape[1],
                                 .out = w->shape[0],
                                 .text_only = t == CONTEXT,
                                 .weight = &l->weight[i][t]};
            snprintf(e->target, sizeof e->target, "%s", target[t]);
            snprintf(e->name, sizeof e->name, "blocks.%d.%s", i, target[t]);
        }
    return true;
}

static bool make_grid(struct denoiser *d, struct denoiser_grid *g, const struct tensor *latents, char *err,
                      size_t errlen)
{
    (void)d;
    if (!tensor_is(latents, latents->dtype, 4, -1, CHANNELS, -1, -1))
        return fail(err, errlen, "latents are not [T,%d,h,w]", CHANNELS);
    *g = (struct denoiser_grid){
        .rows = {TEXT_LENGTH, latents->shape[0], latents->shape[2], latents->shape[3]}};
    return true;
}

static struct linear_call call_of(struct loom *l, int block, int t, const struct token_rows *rows)
{
    return (struct linear_call){
        .linear = block * LINEARS + t, .rows = rows, .saved = &l->saved.hook[block][t]};
}

static void linear(struct denoiser *d, int block, int t, const struct token_rows *rows, struct tensor *y,
                   const struct tensor *x)
{
    struct loom *l = d->net;
    struct linear_call c = call_of(l, block, t, rows);
    int64_t n = d->hook ? d->hook->saved_count(d->hook->context, c.linear, rows) : 0;
    if (n) l->saved.hook[block][t] = kern_tensor(d->k, kern_compute(d->k), 1, n);
    linear_forward(d->k, y, x, &l->weight[block][t], NULL);
    c.x = x, c.y = y;
    linears_forward(d->hook, &c, 1);
}

/* dx = dy W and what the hook adds; dx NULL: nothing below is trained. */
static void linear_back(struct denoiser *d, int block, int t, const struct token_rows *rows,
                        struct tensor *dx, const struct tensor *dy, const struct tensor *x)
{
    struct loom *l = d->net;
    struct linear_call c = call_of(l, block, t, rows);
    if (dx) linear_backward(d->k, dx, dy, &l->weight[block][t], false);
    c.x = x, c.dy = dy, c.dx = dx;
    linears_backward(d->hook, &c, 1);
}

static void scale(struct kern *k, struct tensor *x, double factor)
{
    struct tensor f = *x;
    if (x->dtype != DT_F32) f = kern_tensor(k, DT_F32, 2, x->shape[0], x->shape[1]), kern_copy(k, &f, x);
    axpby(k, &f, 0, &f, factor);
    if (x->dtype != DT_F32) kern_copy(k, x, &f);
}

static void forward(struct denoiser *d, const struct denoiser_grid *g, struct tensor *out,
                    const struct tensor *latents, const struct tensor *text, double timestep,
                    const enum recompute *keep)
{
    struct loom *l = d->net;
    struct kern *k = d->k;
    const enum dtype X = kern_compute(k);
    const int64_t tokens = token_count(&g->rows), n = grid_tokens(&g->rows), w = l->width;
    size_t start = kern_mark(k);
    struct tensor x = kern_tensor(k, X, 2, tokens, w), head = tensor_rows(&x, 0, TEXT_LENGTH),
                  body = tensor_rows(&x, TEXT_LENGTH, n), patches = kern_tensor(k, X, 2, n, CHANNELS);
    l->saved.text = kern_tensor(k, X, 2, TEXT_LENGTH, TEXT_WIDTH);
    l->saved.factor = 1 + timestep / 1000;
    kern_copy(k, &l->saved.text, text);
    patchify(k, &patches, latents, PATCH);
    linear_forward(k, &head, text, &l->in_text, NULL);
    linear_forward(k, &body, &patches, &l->in_proj, NULL);
    scale(k, &x, l->saved.factor);
    bool run = keep || residual_begin(d, &body);
    for (int i = 0; run && i < l->blocks; i++) {
        struct tensor more = kern_tensor(k, X, 2, TEXT_LENGTH, w), y = kern_tensor(k, X, 2, tokens, w);
        l->saved.x[i] = kern_tensor(k, X, 2, tokens, w);
        l->saved.o[i] = kern_tensor(k, X, 2, tokens, w);
        l->saved.wide[i] = kern_tensor(k, X, 2, tokens, 2 * w);
        l->saved.lse[i] = kern_tensor(k, DT_F32, 2, 1, tokens);
        linear(d, i, CONTEXT, &text_rows, &more, &l->saved.text);
        add(k, &head, &more);
        kern_copy(k, &l->saved.x[i], &x);
        attention_forward(k, &l->saved.o[i], &l->saved.lse[i], &x, &x, &x, NULL,
                          &(struct attention){.heads = 1, .scale = 1 / sqrtf((float)w)});
        linear(d, i, SPREAD, &g->rows, &l->saved.wide[i], &l->saved.o[i]);
        linear(d, i, WEAVE, &g->rows, &y, &l->saved.wide[i]);
        add(k, &x, &y);
    }
    if (!keep) residual_end(d, &body);
    struct tensor answer = kern_tensor(k, X, 2, n, CHANNELS);
    linear_forward(k, &answer, &body, &l->out_proj, NULL);
    unpatchify(k, out, &answer, PATCH);
    if (!keep) kern_release(k, start);
}

static void backward(struct denoiser *d, const struct denoiser_grid *g, const struct tensor *dout)
{
    struct loom *l = d->net;
    struct kern *k = d->k;
    const enum dtype X = kern_compute(k);
    const int64_t tokens = token_count(&g->rows), n = grid_tokens(&g->rows), w = l->width;
    size_t start = kern_mark(k);
    struct tensor dx = kern_tensor(k, X, 2, tokens, w), head = tensor_rows(&dx, 0, TEXT_LENGTH),
                  body = tensor_rows(&dx, TEXT_LENGTH, n), danswer = kern_tensor(k, X, 2, n, CHANNELS);
    kern_zero(k, &head);
    patchify(k, &danswer, dout, PATCH);
    linear_backward(k, &body, &danswer, &l->out_proj, false);
    for (int i = (int)l->blocks - 1; i >= 0; i--) {
        size_t mark = kern_mark(k);
        struct tensor dwide = kern_tensor(k, X, 2, tokens, 2 * w), d_o = kern_tensor(k, X, 2, tokens, w);
        struct tensor part[3] = {kern_tensor(k, X, 2, tokens, w), kern_tensor(k, X, 2, tokens, w),
                                 kern_tensor(k, X, 2, tokens, w)};
        const struct tensor *x = &l->saved.x[i];
        linear_back(d, i, WEAVE, &g->rows, &dwide, &dx, &l->saved.wide[i]);
        linear_back(d, i, SPREAD, &g->rows, &d_o, &dwide, &l->saved.o[i]);
        attention_backward(k, &part[0], &part[1], &part[2], &d_o, &l->saved.o[i], &l->saved.lse[i], x, x, x,
                           &(struct attention){.heads = 1, .scale = 1 / sqrtf((float)w)});
        for (int p = 0; p < 3; p++) add(k, &dx, &part[p]);
        linear_back(d, i, CONTEXT, &text_rows, NULL, &head, &l->saved.text);
        kern_release(k, mark);
    }
    kern_release(k, start);
}

const struct denoiser_kind loom = {
    .network = {.class_name = "LoomTransformer3DModel",
                .file = "diffusion_pytorch_model",
                .dtype = DT_F32,
                .size = sizeof(struct loom),
                .configure = configure,
                .params = add_params},
    .published = {.steps = 50, .guidance = 6},
    .geometry = geometry,
    .text_shape = text_shape,
    .open = open_loom,
    .grid = make_grid,
    .forward = forward,
    .backward = backward,
};
