/* cogvideox_dit - the diffusion transformer of CogVideoX (CogVideoXTransformer3DModel, version 1.0): forward, and
 * backward with respect to activations and to what hooks onto its attention projections.
 *
 * One video at a time. Token order: text first, then video, row-major over (frame, row, column) of 2x2
 * patches. */
#include "filters/nets/denoiser.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/positions.h"

enum { MAX_LAYERS = 96 };

/* The VAE's: pixels of a latent's side, and frames of a latent frame. */
enum { SPATIAL = 8, TEMPORAL = 4 };

struct dit_config {
    int64_t layers, heads, head_dim, width; /* width = heads head_dim */
    int64_t in_channels, out_channels, patch, time_dim, text_dim, text_length;
    int64_t sample_width, sample_height; /* of the base grid, in latents */
    int64_t sample_frames;               /* that the model makes by itself, in pixels' frames */
    bool rotary;
    double spatial_scale, temporal_scale;
    double norm_eps;
};

struct dit_norm {
    struct tensor weight, bias; /* [width] of what is normalised */
};

enum { TO_Q, TO_K, TO_V, TO_OUT, PROJECTIONS };

struct dit_block {
    struct linear_weights modulation1, modulation2; /* [6 width,time_dim] */
    struct linear_weights to[PROJECTIONS];          /* [width,width] */
    struct linear_weights ff_in, ff_out;            /* [4 width,width], [width,4 width] */
    struct dit_norm norm1, norm2;                   /* of width */
    struct dit_norm norm_q, norm_k;                 /* of head_dim */
};

/* What forward leaves of a block for backward; all [tokens,width] but lse F32 [heads,tokens] and pre
 * [tokens,4 width]. */
struct block_saved {
    struct tensor in, q, k, v, o, lse, mid,
        pre; /* q, k before their norm; mid between attention and feed-forward */
    struct tensor hook[PROJECTIONS];
};

struct dit {
    struct kern *k;
    const struct denoiser *denoiser;
    struct dit_config c;
    struct linear_weights patch;               /* [width,in_channels patch patch] */
    struct linear_weights text;                /* [width,text_dim] */
    struct linear_weights time1, time2;        /* [time_dim,width], [time_dim,time_dim] */
    struct linear_weights norm_out_modulation; /* [2 width,time_dim] */
    struct linear_weights out;                 /* [out_channels patch patch,width] */
    struct dit_norm norm_final, norm_out;      /* of width */
    struct dit_block block[MAX_LAYERS];
    struct { /* by the last forward that kept */
        enum recompute recompute;
        struct tensor modulation; /* silu of the time embedding [1,time_dim] */
        struct block_saved block[MAX_LAYERS];
        struct tensor last; /* the last block's output [tokens,width] */
    } saved;
};

static const float qk_eps = 1e-6f; /* of the per-head norms; the blocks' norms take the config's norm_eps */

/* ---- configuration and parameters ---------------------------------------------------------------------- */

static bool configure(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    struct dit_config *d = &((struct dit *)net)->c;
    struct config c = {.json = json, .file = file};
    d->layers = config_int(&c, "num_layers", 1, MAX_LAYERS);
    d->heads = config_int(&c, "num_attention_heads", 1, 1024);
    d->head_dim = config_int(&c, "attention_head_dim", 8, 1024);
    d->in_channels = config_int(&c, "in_channels", 1, 1024);
    d->out_channels = config_int_or(&c, "out_channels", 1, 1024, d->in_channels);
    d->patch = config_int(&c, "patch_size", 1, 64);
    d->time_dim = config_int(&c, "time_embed_dim", 1, 65536);
    d->text_dim = config_int(&c, "text_embed_dim", 1, 65536);
    d->text_length = config_int(&c, "max_text_seq_length", 1, 65536);
    d->sample_width = config_int(&c, "sample_width", 1, 65536);
    d->sample_height = config_int(&c, "sample_height", 1, 65536);
    d->sample_frames = config_int_or(&c, "sample_frames", 1, 65536, 49);
    d->rotary = config_bool_or(&c, "use_rotary_positional_embeddings", false);
    d->spatial_scale = config_real_or(&c, "spatial_interpolation_scale", 1.875);
    d->temporal_scale = config_real_or(&c, "temporal_interpolation_scale", 1);
    d->norm_eps = config_real_or(&c, "norm_eps", 1e-5);
    d->width = d->heads * d->head_dim;
    /* Options of other versions: computing without them would be silently wrong. */
    config_expect(&c, "patch_size_t", json_null());
    config_expect(&c, "ofs_embed_dim", json_null());
    config_expect(&c, "temporal_compression_ratio", json_integer(TEMPORAL));
    config_expect(&c, "patch_bias", json_true());
    config_expect(&c, "use_learned_positional_embeddings", json_false());
    config_expect(&c, "attention_bias", json_true());
    config_expect(&c, "norm_elementwise_affine", json_true());
    config_expect(&c, "flip_sin_to_cos", json_true());
    config_expect(&c, "freq_shift", json_integer(0));
    config_expect(&c, "activation_fn", json_string("gelu-approximate"));
    config_expect(&c, "timestep_activation_fn", json_string("silu"));
    if (c.error[0]) return fail(err, errlen, "%s", c.error);
    if (d->in_channels != d->out_channels)
        return fail(err, errlen, "%s: in_channels and out_channels differ", file);
    if (d->rotary && d->head_dim % 16)
        return fail(err, errlen, "%s: rotary needs attention_head_dim divisible by 16, not %lld", file,
                    (long long)d->head_dim);
    if (!d->rotary && d->width % 16)
        return fail(err, errlen, "%s: the sine-cosine table needs a width divisible by 16, not %lld", file,
                    (long long)d->width);
    if (d->width % 2) return fail(err, errlen, "%s: an odd width", file);
    return true;
}

static void declare_linear(struct params *list, struct linear_weights *l, int64_t out, int64_t in,
                           const char *name)
{
    param_add(list, &l->weight, shape_of(2, out, in), 0, 1 / sqrt((double)in), "%s.weight", name);
    param_add(list, &l->bias, shape_of(1, out), 0, 0, "%s.bias", name);
}

/* One of those that make up nearly all of the work. */
static void declare_block_linear(struct params *list, struct linear_weights *l, int64_t out, int64_t in,
                                 const char *name)
{
    param_add(list, &l->weight, shape_of(2, out, in), 0, 1 / sqrt((double)in), "%s.weight", name)->scale =
        &l->scale;
    param_add(list, &l->bias, shape_of(1, out), 0, 0, "%s.bias", name);
}

static void declare_norm(struct params *list, struct dit_norm *n, int64_t width, const char *name)
{
    param_add(list, &n->weight, shape_of(1, width), 1, 0, "%s.weight", name);
    param_add(list, &n->bias, shape_of(1, width), 0, 0, "%s.bias", name);
}

static void add_params(struct params *list, void *net)
{
    struct dit *d = net;
    const struct dit_config *c = &d->c;
    int64_t w = c->width;
    param_add(list, &d->patch.weight, shape_of(4, w, c->in_channels, c->patch, c->patch), 0,
              1 / sqrt((double)(c->in_channels * c->patch * c->patch)), "patch_embed.proj.weight");
    param_add(list, &d->patch.bias, shape_of(1, w), 0, 0, "patch_embed.proj.bias");
    declare_linear(list, &d->text, w, c->text_dim, "patch_embed.text_proj");
    declare_linear(list, &d->time1, c->time_dim, w, "time_embedding.linear_1");
    declare_linear(list, &d->time2, c->time_dim, c->time_dim, "time_embedding.linear_2");
    for (int64_t i = 0; i < c->layers; i++) {
        struct dit_block *b = &d->block[i];
        char name[96];
#define NAME(suffix) (snprintf(name, sizeof name, "transformer_blocks.%d." suffix, (int)i), name)
        declare_linear(list, &b->modulation1, 6 * w, c->time_dim, NAME("norm1.linear"));
        declare_norm(list, &b->norm1, w, NAME("norm1.norm"));
        declare_norm(list, &b->norm_q, c->head_dim, NAME("attn1.norm_q"));
        declare_norm(list, &b->norm_k, c->head_dim, NAME("attn1.norm_k"));
        declare_block_linear(list, &b->to[TO_Q], w, w, NAME("attn1.to_q"));
        declare_block_linear(list, &b->to[TO_K], w, w, NAME("attn1.to_k"));
        declare_block_linear(list, &b->to[TO_V], w, w, NAME("attn1.to_v"));
        declare_block_linear(list, &b->to[TO_OUT], w, w, NAME("attn1.to_out.0"));
        declare_linear(list, &b->modulation2, 6 * w, c->time_dim, NAME("norm2.linear"));
        declare_norm(list, &b->norm2, w, NAME("norm2.norm"));
        declare_block_linear(list, &b->ff_in, 4 * w, w, NAME("ff.net.0.proj"));
        declare_block_linear(list, &b->ff_out, w, 4 * w, NAME("ff.net.2"));
#undef NAME
    }
    declare_norm(list, &d->norm_final, w, "norm_final");
    declare_linear(list, &d->norm_out_modulation, 2 * w, c->time_dim, "norm_out.linear");
    declare_norm(list, &d->norm_out, w, "norm_out.norm");
    declare_linear(list, &d->out, c->out_channels * c->patch * c->patch, w, "proj_out");
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static const struct linear_names names = {"transformer_blocks",
                                          {{"to_q", "attn1.to_q", NULL},
                                           {"to_k", "attn1.to_k", NULL},
                                           {"to_v", "attn1.to_v", NULL},
                                           {"to_out.0", "attn1.to_out.0", NULL}}};

static bool offer_linears(struct denoiser *d, struct dit *net, char *err, size_t errlen)
{
    if (!linears_name(&d->linears, &names, net->c.layers)) return fail(err, errlen, "out of memory");
    d->linears.width = net->c.width;
    for (int i = 0; i < d->linears.count; i++) {
        struct linear *l = &d->linears.linear[i];
        l->in = l->out = net->c.width;
        l->weight = &net->block[l->block].to[i % PROJECTIONS].weight;
    }
    return true;
}

static void geometry(struct latent_geometry *g, const void *net)
{
    const struct dit_config *c = &((const struct dit *)net)->c;
    *g = (struct latent_geometry){.channels = c->in_channels,
                                  .temporal = TEMPORAL,
                                  .spatial = SPATIAL,
                                  .patch = c->patch,
                                  .frames = c->sample_frames,
                                  .width = c->sample_width * SPATIAL,
                                  .height = c->sample_height * SPATIAL,
                                  .text_length = c->text_length,
                                  .text_width = c->text_dim};
}

/* The VAE decodes two latent frames at a time, and three where their number is odd: 4T - 3 frames; else 4T. */
static int64_t video_frames(int64_t latent_frames)
{
    return TEMPORAL * latent_frames - (latent_frames % 2 ? TEMPORAL - 1 : 0);
}

static bool text_shape(struct latent_geometry *g, json_t *config, const char *file, char *err, size_t errlen)
{
    struct config c = {.json = config, .file = file};
    g->text_length = config_int_or(&c, "max_text_seq_length", 1, 4096, 226);
    g->text_width = config_int_or(&c, "text_embed_dim", 1, 1 << 16, 4096);
    return !c.error[0] || fail(err, errlen, "%s", c.error);
}

static bool open_dit(struct denoiser *d, char *err, size_t errlen)
{
    struct dit *net = d->net;
    net->k = d->k;
    net->denoiser = d;
    net->patch.weight =
        tensor_as(&net->patch.weight, 2, net->c.width, tensor_count(&net->patch.weight) / net->c.width);
    return offer_linears(d, net, err, errlen);
}

/* ---- sizes --------------------------------------------------------------------------------------------- */

static bool make_grid(struct denoiser *denoiser, struct denoiser_grid *g, const struct tensor *latents,
                      char *err, size_t errlen)
{
    struct dit *d = denoiser->net;
    const struct dit_config *c = &d->c;
    char is[160];
    if (latents->rank != 4 || latents->shape[0] < 1 || latents->shape[1] != c->in_channels ||
        latents->shape[2] < c->patch || latents->shape[3] < c->patch || latents->shape[2] % c->patch ||
        latents->shape[3] % c->patch)
        return fail(err, errlen,
                    "latents %s do not fit the model: [T,%lld,h,w] with h and w divisible by %lld",
                    tensor_describe(is, sizeof is, latents), (long long)c->in_channels, (long long)c->patch);
    const int64_t frames = latents->shape[0], rows = latents->shape[2] / c->patch,
                  cols = latents->shape[3] / c->patch;
    const int64_t video = frames * rows * cols, wide = c->rotary ? c->head_dim : c->width;
    *g = (struct denoiser_grid){.rows = {c->text_length, frames, rows, cols}};

    struct tensor one = kern_tensor(d->k, c->rotary ? DT_F32 : kern_compute(d->k), 2, video, wide);
    struct tensor two = c->rotary ? kern_tensor(d->k, DT_F32, 2, video, wide) : one;
    g->table[0] = one; /* the cosines, or the sine-cosine table [video tokens,width] */
    g->table[1] = two; /* the sines [video tokens,head_dim] */
    if (!kern_ok(d->k)) return fail(err, errlen, "%s", kern_error(d->k));
    if (kern_planning(d->k)) return true;

    float *a = malloc((size_t)(video * wide) * 2 * sizeof *a), *b = a + video * wide;
    if (!a) return fail(err, errlen, "no memory for the position tables");
    if (c->rotary)
        rope_tables(a, b, frames, rows, cols, c->sample_height / c->patch, c->sample_width / c->patch,
                    c->head_dim);
    else
        sincos_table(a, frames, rows, cols, c->width, c->spatial_scale, c->temporal_scale);
    struct tensor host = tensor_of(DT_F32, a, 2, video, wide);
    kern_upload(d->k, &one, &host);
    host.data = b;
    if (c->rotary) kern_upload(d->k, &two, &host);
    free(a);
    return true;
}

/* ---- forward ------------------------------------------------------------------------------------------- */

static struct tensor scratch(struct dit *d, int64_t rows, int64_t width)
{
    return kern_tensor(d->k, kern_compute(d->k), 2, rows, width);
}

/* The i-th of the equal parts of a modulation vector [1, n width]. */
static struct tensor part(const struct tensor *modulation, int i, int64_t width)
{
    struct tensor flat = tensor_as(modulation, 1, tensor_count(modulation));
    return tensor_rows(&flat, i * width, width);
}

/* A block's modulation: shift, scale, gate of the video, then of the text. */
enum { SHIFT_V, SCALE_V, GATE_V, SHIFT_T, SCALE_T, GATE_T };

struct stream { /* the two kinds of rows of the joint sequence, and which modulation is theirs */
    int64_t from, rows;
    int shift;
};

static void streams(const struct denoiser_grid *g, struct stream s[2])
{
    s[0] = (struct stream){0, g->rows.text, SHIFT_T};
    s[1] = (struct stream){g->rows.text, grid_tokens(&g->rows), SHIFT_V};
}

static struct tensor modulation(struct dit *d, const struct linear_weights *l, const struct tensor *silu_time)
{
    struct tensor m = scratch(d, 1, l->bias.shape[0]);
    linear_forward(d->k, &m, silu_time, &l->weight, &l->bias);
    return m;
}

/* z = (LN(x) w + b)(1 + scale) + shift, each stream by its own modulation; the norm's weights serve both. */
static void modulate(struct dit *d, const struct denoiser_grid *g, struct tensor *z, const struct tensor *x,
                     const struct dit_norm *n, const struct tensor *m)
{
    struct stream s[2];
    streams(g, s);
    for (int i = 0; i < 2; i++) {
        struct tensor zs = tensor_rows(z, s[i].from, s[i].rows), xs = tensor_rows(x, s[i].from, s[i].rows);
        struct tensor shift = part(m, s[i].shift, d->c.width), scale = part(m, s[i].shift + 1, d->c.width);
        layer_norm_forward(d->k, &zs, &xs, &n->weight, &n->bias, &scale, &shift, (float)d->c.norm_eps);
    }
}

/* out = x + gate ⊙ y, each stream by its own gate. */
static void gated_add(struct dit *d, const struct denoiser_grid *g, struct tensor *out,
                      const struct tensor *x, const struct tensor *y, const struct tensor *m)
{
    struct stream s[2];
    streams(g, s);
    for (int i = 0; i < 2; i++) {
        struct tensor os = tensor_rows(out, s[i].from, s[i].rows), xs = tensor_rows(x, s[i].from, s[i].rows),
                      ys = tensor_rows(y, s[i].from, s[i].rows), gate = part(m, s[i].shift + 2, d->c.width);
        gated_add_forward(d->k, &os, &xs, &ys, &gate);
    }
}

/* n attention projections of x, from `first` on, with what hooks onto them. */
static void project(struct dit *d, const struct denoiser_grid *g, int64_t layer, int first, int n,
                    struct tensor *const *y, const struct tensor *x, struct block_saved *s)
{
    struct linear_call call[PROJECTIONS];
    linears_product(d->k, y, x, &d->block[layer].to[first], n);
    for (int t = 0; t < n; t++)
        call[t] = (struct linear_call){.linear = (int)layer * PROJECTIONS + first + t,
                                       .rows = &g->rows,
                                       .x = x,
                                       .y = y[t],
                                       .saved = &s->hook[first + t]};
    linears_forward(d->denoiser->hook, call, n);
}

/* times: attention_times() for queries, 1 for keys */
static void normed_rope(struct dit *d, const struct denoiser_grid *g, struct tensor *y,
                        const struct tensor *x, const struct dit_norm *n, float times)
{
    bool rope = d->c.rotary;
    qk_norm_rope_forward(d->k, y, x, &n->weight, &n->bias, rope ? &g->table[0] : NULL,
                         rope ? &g->table[1] : NULL, d->c.text_length, qk_eps, times);
}

static void normed_rope_back(struct dit *d, const struct denoiser_grid *g, struct tensor *dx,
                             const struct tensor *dy, const struct tensor *x, const struct dit_norm *n,
                             float times)
{
    bool rope = d->c.rotary;
    qk_norm_rope_backward(d->k, dx, dy, x, &n->weight, rope ? &g->table[0] : NULL, rope ? &g->table[1] : NULL,
                          d->c.text_length, qk_eps, times);
}

static struct attention heads_of(const struct dit *d)
{
    return (struct attention){.heads = (int)d->c.heads, .scale = LOG_2};
}

/* Everything a block keeps lies in s. When sampling, in, mid and out are one tensor and nothing is kept. */
static void block_forward(struct dit *d, const struct denoiser_grid *g, int64_t i, struct tensor *out,
                          struct block_saved *s, const struct tensor *silu_time)
{
    const struct dit_block *b = &d->block[i];
    struct kern *k = d->k;
    const struct attention heads = heads_of(d);
    const float times = attention_times(d->c.head_dim);
    const int64_t tokens = token_count(&g->rows);
    size_t mark = kern_mark(k);
    struct tensor z = scratch(d, tokens, d->c.width);

    struct tensor m = modulation(d, &b->modulation1, silu_time);
    modulate(d, g, &z, &s->in, &b->norm1, &m);
    project(d, g, i, TO_Q, 3, (struct tensor *[]){&s->q, &s->k, &s->v}, &z, s);
    struct tensor qn = scratch(d, tokens, d->c.width), kn = scratch(d, tokens, d->c.width);
    normed_rope(d, g, &qn, &s->q, &b->norm_q, times);
    normed_rope(d, g, &kn, &s->k, &b->norm_k, 1);
    attention_forward(k, &s->o, s->lse.rank ? &s->lse : NULL, &qn, &kn, &s->v, NULL, &heads);
    project(d, g, i, TO_OUT, 1, (struct tensor *[]){&z}, &s->o, s);
    gated_add(d, g, &s->mid, &s->in, &z, &m);
    kern_release(k, mark);

    z = scratch(d, tokens, d->c.width);
    m = modulation(d, &b->modulation2, silu_time);
    modulate(d, g, &z, &s->mid, &b->norm2, &m);
    struct tensor hidden = scratch(d, tokens, 4 * d->c.width);
    if (b->ff_in.scale.rank) { /* hidden is before its activation then */
        linears_product(k, (struct tensor *[]){&hidden}, &z, &b->ff_in, 1);
        linears_gelu_product(k, &z, &hidden, &b->ff_out);
    } else {
        linear_gelu_forward(k, &hidden, s->pre.rank ? &s->pre : NULL, &z, &b->ff_in.weight, &b->ff_in.bias);
        linear_forward(k, &z, &hidden, &b->ff_out.weight, &b->ff_out.bias);
    }
    gated_add(d, g, out, &s->mid, &z, &m);
    kern_release(k, mark);
}

/* What block_forward fills, beside its input, middle and output. */
static void block_scratch(struct dit *d, const struct denoiser_grid *g, int64_t i, struct block_saved *s,
                          bool training, bool pre)
{
    const int64_t tokens = token_count(&g->rows);
    s->q = scratch(d, tokens, d->c.width);
    s->k = scratch(d, tokens, d->c.width);
    s->v = scratch(d, tokens, d->c.width);
    s->o = scratch(d, tokens, d->c.width);
    s->lse = training ? kern_tensor(d->k, DT_F32, 2, d->c.heads, tokens) : (struct tensor){0};
    s->pre = pre ? scratch(d, tokens, 4 * d->c.width) : (struct tensor){0};
    const struct linear_hook *hook = d->denoiser->hook;
    for (int t = 0; hook && t < PROJECTIONS; t++) {
        int64_t n = hook->saved_count(hook->context, (int)i * PROJECTIONS + t, &g->rows);
        if (n) s->hook[t] = kern_tensor(d->k, kern_compute(d->k), 1, n);
    }
}

/* silu(linear_2(silu(linear_1(embedding)))): what every modulation starts from. */
static struct tensor time_embedding(struct dit *d, double timestep)
{
    struct tensor e = scratch(d, 1, d->c.time_dim), h = scratch(d, 1, d->c.time_dim),
                  in = scratch(d, 1, d->c.width);
    float *table = malloc((size_t)d->c.width * sizeof *table);
    if (!table) kern_fail(d->k, "out of memory");
    if (table) {
        timestep_embedding(table, d->c.width, timestep);
        struct tensor host = tensor_of(DT_F32, table, 2, 1, d->c.width);
        kern_upload(d->k, &in, &host);
        free(table);
    }
    linear_forward(d->k, &h, &in, &d->time1.weight, &d->time1.bias);
    silu_forward(d->k, &h, &h);
    linear_forward(d->k, &e, &h, &d->time2.weight, &d->time2.bias);
    silu_forward(d->k, &e, &e);
    return e;
}

static void embed(struct dit *d, const struct denoiser_grid *g, struct tensor *x,
                  const struct tensor *latents, const struct tensor *text)
{
    size_t mark = kern_mark(d->k);
    struct tensor text_rows = tensor_rows(x, 0, d->c.text_length);
    struct tensor video = tensor_rows(x, d->c.text_length, token_count(&g->rows) - d->c.text_length);
    struct tensor patches = scratch(d, video.shape[0], d->patch.weight.shape[1]);
    linear_forward(d->k, &text_rows, text, &d->text.weight, &d->text.bias);
    patchify(d->k, &patches, latents, (int)d->c.patch);
    linear_forward(d->k, &video, &patches, &d->patch.weight, &d->patch.bias);
    if (!d->c.rotary) add(d->k, &video, &g->table[0]);
    kern_release(d->k, mark);
}

static void forward(struct denoiser *denoiser, const struct denoiser_grid *g, struct tensor *out,
                    const struct tensor *latents, const struct tensor *text, double timestep,
                    const enum recompute *keep)
{
    struct dit *d = denoiser->net;
    struct kern *k = d->k;
    const int64_t tokens = token_count(&g->rows);
    int64_t w = d->c.width, n_text = g->rows.text;
    size_t start = kern_mark(k);
    struct tensor silu_time = time_embedding(d, timestep), x = scratch(d, tokens, w);
    embed(d, g, &x, latents, text);

    if (!keep) {
        struct block_saved s = {.in = x, .mid = x};
        struct tensor video = tensor_rows(&x, n_text, tokens - n_text);
        size_t mark = kern_mark(k);
        bool run = residual_begin(denoiser, &video);
        for (int64_t i = 0; run && i < d->c.layers; i++) {
            block_scratch(d, g, i, &s, false, false);
            block_forward(d, g, i, &x, &s, &silu_time);
            kern_release(k, mark);
        }
        residual_end(denoiser, &video);
    } else {
        d->saved.recompute = *keep;
        d->saved.modulation = silu_time;
        for (int64_t i = 0; i < d->c.layers; i++) {
            struct block_saved *s = &d->saved.block[i];
            bool full = *keep == RECOMPUTE_FULL;
            struct tensor next = scratch(d, tokens, w);
            size_t mark = kern_mark(k);
            *s = (struct block_saved){.in = x};
            s->mid = full ? next : scratch(d, tokens, w);
            block_scratch(d, g, i, s, !full, *keep == RECOMPUTE_NONE);
            block_forward(d, g, i, &next, s, &silu_time);
            if (full) kern_release(k, mark);
            x = next;
        }
        d->saved.last = x;
    }

    size_t mark = kern_mark(k);
    struct tensor video = tensor_rows(&x, n_text, tokens - n_text), y = scratch(d, video.shape[0], w);
    struct tensor m = modulation(d, &d->norm_out_modulation, &silu_time);
    struct tensor shift = part(&m, 0, w), scale = part(&m, 1, w); /* shift first, here, too */
    struct tensor patches = scratch(d, video.shape[0], d->out.bias.shape[0]);
    layer_norm_forward(k, &y, &video, &d->norm_final.weight, &d->norm_final.bias, NULL, NULL,
                       (float)d->c.norm_eps);
    layer_norm_forward(k, &y, &y, &d->norm_out.weight, &d->norm_out.bias, &scale, &shift,
                       (float)d->c.norm_eps);
    linear_forward(k, &patches, &y, &d->out.weight, &d->out.bias);
    unpatchify(k, out, &patches, (int)d->c.patch);
    kern_release(k, keep ? mark : start);
}

/* ---- backward ------------------------------------------------------------------------------------------ */

/* dy = gate ⊙ dx per stream */
static void gated_add_back(struct dit *d, const struct denoiser_grid *g, struct tensor *dy,
                           const struct tensor *dx, const struct tensor *m)
{
    struct stream s[2];
    streams(g, s);
    for (int i = 0; i < 2; i++) {
        struct tensor ys = tensor_rows(dy, s[i].from, s[i].rows), xs = tensor_rows(dx, s[i].from, s[i].rows);
        struct tensor gate = part(m, s[i].shift + 2, d->c.width);
        gated_add_backward(d->k, &ys, &xs, &gate);
    }
}

/* dx += the modulated norm's backward pass, per stream */
static void modulate_back(struct dit *d, const struct denoiser_grid *g, struct tensor *dx,
                          const struct tensor *dz, const struct tensor *x, const struct dit_norm *n,
                          const struct tensor *m)
{
    struct stream s[2];
    streams(g, s);
    for (int i = 0; i < 2; i++) {
        struct tensor ds = tensor_rows(dx, s[i].from, s[i].rows), zs = tensor_rows(dz, s[i].from, s[i].rows);
        struct tensor xs = tensor_rows(x, s[i].from, s[i].rows), scale = part(m, s[i].shift + 1, d->c.width);
        layer_norm_backward(d->k, &ds, &zs, &xs, &n->weight, &scale, (float)d->c.norm_eps, true);
    }
}

/* dx = the sum of dy W and the hook's share over n projections; NULL when nothing below is trained. */
static void project_back(struct dit *d, const struct denoiser_grid *g, int64_t layer, int first, int n,
                         struct tensor *dx, const struct tensor *const *dy, const struct tensor *x,
                         struct block_saved *s)
{
    const struct linear_hook *hook = d->denoiser->hook;
    struct linear_call call[PROJECTIONS];
    for (int t = 0, calls = 0; t < n; t++) {
        if (dx) linear_backward(d->k, dx, dy[t], &d->block[layer].to[first + t].weight, t > 0);
        call[calls++] = (struct linear_call){.linear = (int)layer * PROJECTIONS + first + t,
                                             .rows = &g->rows,
                                             .x = x,
                                             .dy = dy[t],
                                             .dx = dx,
                                             .saved = &s->hook[first + t]};
        if (linears_together(hook, d->k) && t < n - 1) continue;
        linears_backward(hook, call, calls);
        calls = 0;
    }
}

/* dx: the gradient of the block's output on entry, of its input on return (not for the first block). */
static void block_backward(struct dit *d, const struct denoiser_grid *g, int64_t i, struct tensor *dx,
                           struct block_saved *s, const struct tensor *silu_time)
{
    const struct dit_block *b = &d->block[i];
    struct kern *k = d->k;
    const int64_t w = d->c.width, tokens = token_count(&g->rows);
    const struct attention heads = heads_of(d);
    const float times = attention_times(d->c.head_dim);
    size_t mark = kern_mark(k);
    struct tensor z = scratch(d, tokens, w);

    /* x_out = x_mid + gate2 ⊙ ff(z2) */
    struct tensor m = modulation(d, &b->modulation2, silu_time);
    {
        size_t inner = kern_mark(k);
        struct tensor dff = scratch(d, tokens, w), dpre = scratch(d, tokens, 4 * w), pre = s->pre;
        if (!pre.rank) { /* not kept: the feed-forward's first half again */
            pre = scratch(d, tokens, 4 * w);
            modulate(d, g, &z, &s->mid, &b->norm2, &m);
            linear_forward(k, &pre, &z, &b->ff_in.weight, &b->ff_in.bias);
        }
        gated_add_back(d, g, &dff, dx, &m);
        linear_gelu_backward(k, &dpre, &dff, &b->ff_out.weight, &pre);
        linear_backward(k, &dff, &dpre, &b->ff_in.weight, false);
        modulate_back(d, g, dx, &dff, &s->mid, &b->norm2, &m);
        kern_release(k, inner);
    }

    /* x_mid = x_in + gate1 ⊙ to_out(attention(z1)) */
    m = modulation(d, &b->modulation1, silu_time);
    struct tensor dz = scratch(d, tokens, w), d_o = scratch(d, tokens, w);
    gated_add_back(d, g, &dz, dx, &m);
    project_back(d, g, i, TO_OUT, 1, &d_o, (const struct tensor *[]){&dz}, &s->o, s);
    struct tensor qn = scratch(d, tokens, w), kn = scratch(d, tokens, w);
    struct tensor dq = scratch(d, tokens, w), dk = scratch(d, tokens, w), dv = scratch(d, tokens, w);
    normed_rope(d, g, &qn, &s->q, &b->norm_q, times);
    normed_rope(d, g, &kn, &s->k, &b->norm_k, 1);
    attention_backward(k, &dq, &dk, &dv, &d_o, &s->o, &s->lse, &qn, &kn, &s->v, &heads);
    normed_rope_back(d, g, &qn, &dq, &s->q, &b->norm_q, times);
    normed_rope_back(d, g, &kn, &dk, &s->k, &b->norm_k, 1);
    modulate(d, g, &z, &s->in, &b->norm1, &m);
    struct tensor *below = i > 0 ? &dz : NULL; /* nothing is trained below the first block */
    project_back(d, g, i, TO_Q, 3, below, (const struct tensor *[]){&qn, &kn, &dv}, &z, s);
    if (below) modulate_back(d, g, dx, &dz, &s->in, &b->norm1, &m);
    kern_release(k, mark);
}

static void backward(struct denoiser *denoiser, const struct denoiser_grid *g, const struct tensor *dout)
{
    struct dit *d = denoiser->net;
    struct kern *k = d->k;
    const int64_t w = d->c.width, n_text = g->rows.text, n_video = grid_tokens(&g->rows),
                  tokens = n_text + n_video;
    size_t start = kern_mark(k);
    struct tensor dx = scratch(d, tokens, w), dtext = tensor_rows(&dx, 0, n_text),
                  dvideo = tensor_rows(&dx, n_text, n_video);
    kern_zero(k, &dtext); /* the text rows end with the last block */
    {
        size_t mark = kern_mark(k);
        struct tensor video = tensor_rows(&d->saved.last, n_text, n_video), y = scratch(d, n_video, w),
                      dy = scratch(d, n_video, w);
        struct tensor m = modulation(d, &d->norm_out_modulation, &d->saved.modulation),
                      scale = part(&m, 1, w);
        struct tensor dpatches = scratch(d, n_video, d->out.bias.shape[0]);
        layer_norm_forward(k, &y, &video, &d->norm_final.weight, &d->norm_final.bias, NULL, NULL,
                           (float)d->c.norm_eps);
        patchify(k, &dpatches, dout, (int)d->c.patch);
        linear_backward(k, &dy, &dpatches, &d->out.weight, false);
        layer_norm_backward(k, &dvideo, &dy, &y, &d->norm_out.weight, &scale, (float)d->c.norm_eps, false);
        kern_copy(k, &dy, &dvideo);
        layer_norm_backward(k, &dvideo, &dy, &video, &d->norm_final.weight, NULL, (float)d->c.norm_eps,
                            false);
        kern_release(k, mark);
    }
    for (int64_t i = d->c.layers - 1; i >= 0; i--) {
        size_t mark = kern_mark(k);
        struct block_saved s = d->saved.block[i];
        if (d->saved.recompute == RECOMPUTE_FULL) {
            struct tensor out = scratch(d, tokens, w);
            s.mid = scratch(d, tokens, w);
            block_scratch(d, g, i, &s, true, true);
            block_forward(d, g, i, &out, &s, &d->saved.modulation);
        }
        block_backward(d, g, i, &dx, &s, &d->saved.modulation);
        kern_release(k, mark);
    }
    kern_release(k, start);
}

const struct denoiser_kind cogvideox_dit = {
    .network = {.class_name = "CogVideoXTransformer3DModel",
                .file = "diffusion_pytorch_model",
                .dtype = DT_BF16,
                .size = sizeof(struct dit),
                .configure = configure,
                .params = add_params},
    .names = &names,
    .published = {.steps = 50, .guidance = 6, .dynamic = true},
    .geometry = geometry,
    .video_frames = video_frames,
    .text_shape = text_shape,
    .open = open_dit,
    .grid = make_grid,
    .forward = forward,
    .backward = backward,
};
