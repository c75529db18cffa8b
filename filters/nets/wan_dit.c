/* wan_dit - the diffusion transformer of Wan 2.1 and 2.2, text to video (WanTransformer3DModel): forward, and backward
 * with respect to activations and to what hooks onto the ten linear layers of each block.
 *
 * TI2V-5B's pipeline (expand_timesteps) tells every token its timestep. Without an image all of them are the same, so
 * one is told here.
 *
 * One video at a time. The rows are video tokens alone, row-major over (frame, row, column) of 2x2 patches; the text
 * is what they attend to in each block, all rows of it: those past the prompt's are zeros going in, and no mask hides
 * them. As in the reference the timestep's embedding and all modulation are in F32. */
#include "filters/nets/denoiser.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/positions.h"

enum { MAX_LAYERS = 96, PATCH = 2, TEMPORAL = 4 };

struct wan_config {
    int64_t layers, heads, head_dim, width; /* width = heads head_dim */
    int64_t channels, ffn_dim, time_dim, text_dim, text_length;
    int64_t positions;                   /* of each axis at most */
    int64_t spatial;                     /* pixels of a latent's side */
    int64_t sample_width, sample_height; /* of the videos that the model makes by itself, in latents, */
    int64_t sample_frames;               /* and their frames, in pixels' terms, */
    double fps;                          /* so many a second */
    double eps;
};

/* A block's linear layers, in the order in which they are computed: self-attention, attention to the text,
 * feed-forward. */
enum { Q1, K1, V1, OUT1, Q2, K2, V2, OUT2, UP, DOWN, LINEARS };
/* The original names are those of github.com/Wan-Video/Wan2.1. */
#define SAME(name, original)                                                                                 \
    {                                                                                                        \
        name, name, original                                                                                 \
    }
static const struct linear_names names = {
    "blocks",
    {SAME("attn1.to_q", "self_attn.q"), SAME("attn1.to_k", "self_attn.k"), SAME("attn1.to_v", "self_attn.v"),
     SAME("attn1.to_out.0", "self_attn.o"), SAME("attn2.to_q", "cross_attn.q"),
     SAME("attn2.to_k", "cross_attn.k"), SAME("attn2.to_v", "cross_attn.v"),
     SAME("attn2.to_out.0", "cross_attn.o"), SAME("ffn.net.0.proj", "ffn.0"), SAME("ffn.net.2", "ffn.2")}};
#undef SAME

struct wan_block {
    struct linear_weights linear[LINEARS];
    struct tensor norm_q[2], norm_k[2]; /* [width]; of the two attentions */
    struct tensor norm, norm_bias;      /* F32 [width]: before the second one */
    struct tensor table;                /* F32 [1,6,width] */
};

/* Of one attention: q and k before their norm. k, v [keys,width], the others [tokens,width], lse F32 [heads,tokens]. */
struct attention_saved {
    struct tensor q, k, v, o, lse;
};

/* What forward leaves of a block for backward. mid: between the attentions; late: before the feed-forward; pre:
 * [tokens,ffn_dim] before its activation. */
struct block_saved {
    struct tensor in, mid, late, pre;
    struct attention_saved self, cross;
    struct tensor hook[LINEARS];
};

struct wan {
    struct kern *k;
    const struct denoiser *denoiser;
    struct wan_config c;
    struct linear_weights patch;        /* [width,channels 2 2] */
    struct linear_weights time1, time2; /* F32 [width,time_dim], [width,width] */
    struct linear_weights modulation;   /* [6 width,width] */
    struct linear_weights text1, text2; /* [width,text_dim], [width,width] */
    struct linear_weights out;          /* [channels 2 2,width] */
    struct tensor table;                /* F32 [1,2,width] */
    struct wan_block block[MAX_LAYERS];
    struct { /* by the last forward that kept */
        enum recompute recompute;
        struct tensor time, modulation; /* F32 [1,width], [6,width] */
        struct tensor text;             /* embedded [text_length,width] */
        struct block_saved block[MAX_LAYERS];
        struct tensor last; /* the last block's output [tokens,width] */
    } saved;
};

/* ---- configuration and parameters ---------------------------------------------------------------------- */

static bool configure(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    struct wan_config *d = &((struct wan *)net)->c;
    struct config c = {.json = json, .file = file};
    d->layers = config_int(&c, "num_layers", 1, MAX_LAYERS);
    d->heads = config_int(&c, "num_attention_heads", 1, 1024);
    d->head_dim = config_int(&c, "attention_head_dim", 6, 1024);
    d->channels = config_int(&c, "in_channels", 1, 1024);
    d->ffn_dim = config_int(&c, "ffn_dim", 1, 1 << 18);
    d->time_dim = config_int(&c, "freq_dim", 2, 65536);
    d->text_dim = config_int(&c, "text_dim", 1, 65536);
    d->positions = config_int_or(&c, "rope_max_seq_len", 1, 1 << 20, 1024);
    d->eps = config_real_or(&c, "eps", 1e-6);
    d->width = d->heads * d->head_dim;
    int64_t out_channels = config_int_or(&c, "out_channels", 1, 1024, d->channels);
    /* What no published config says, being the pipeline's: 512 tokens, and, by the VAE that the channels tell of,
     * 121 frames of 1280x704, 24 a second (Wan 2.2's, 16 pixels a latent), or 81 of 832x480, 16 a second (2.1's, 8
     * pixels). */
    const bool fine = d->channels != 48;
    d->spatial = fine ? 8 : 16;
    d->fps = fine ? 16 : 24;
    d->text_length = config_int_or(&c, "text_len", 1, 65536, 512);
    d->sample_frames = config_int_or(&c, "sample_frames", 1, 65536, fine ? 81 : 121);
    d->sample_width = config_int_or(&c, "sample_width", 1, 65536, fine ? 104 : 80);
    d->sample_height = config_int_or(&c, "sample_height", 1, 65536, fine ? 60 : 44);
    /* Options of other versions: computing without them would be silently wrong. */
    config_expect(&c, "patch_size", json_pack("[i,i,i]", 1, PATCH, PATCH));
    config_expect(&c, "qk_norm", json_string("rms_norm_across_heads"));
    config_expect(&c, "cross_attn_norm", json_true());
    config_expect(&c, "added_kv_proj_dim", json_null());
    config_expect(&c, "image_dim", json_null());
    config_expect(&c, "pos_embed_seq_len", json_null());
    if (c.error[0]) return fail(err, errlen, "%s", c.error);
    if (out_channels != d->channels)
        return fail(err, errlen, "%s: in_channels and out_channels differ: only text-to-video is known here",
                    file);
    if (d->head_dim % 2)
        return fail(err, errlen, "%s: an odd attention_head_dim, %lld, cannot be rotated in pairs", file,
                    (long long)d->head_dim);
    return d->time_dim % 2 == 0 || fail(err, errlen, "%s: an odd freq_dim", file);
}

static void declare_linear(struct params *list, struct linear_weights *l, int64_t out, int64_t in, bool f32,
                           const char *name)
{
    param_add(list, &l->weight, shape_of(2, out, in), 0, 1 / sqrt((double)in), "%s.weight", name)->f32 = f32;
    param_add(list, &l->bias, shape_of(1, out), 0, 0, "%s.bias", name)->f32 = f32;
}

/* One of those that make up nearly all of the work. */
static void declare_block_linear(struct params *list, struct linear_weights *l, int64_t out, int64_t in,
                                 const char *name)
{
    param_add(list, &l->weight, shape_of(2, out, in), 0, 1 / sqrt((double)in), "%s.weight", name)->scale =
        &l->scale;
    param_add(list, &l->bias, shape_of(1, out), 0, 0, "%s.bias", name);
}

static void declare_block(struct params *list, struct wan *d, int block)
{
    struct wan_block *b = &d->block[block];
    const int64_t w = d->c.width, f = d->c.ffn_dim;
    char name[96];
    param_add(list, &b->table, shape_of(3, 1, 6, w), 0, 1 / sqrt((double)w), "blocks.%d.scale_shift_table",
              block)
        ->f32 = true;
    for (int i = 0; i < LINEARS; i++) {
        snprintf(name, sizeof name, "blocks.%d.%s", block, names.linear[i].path);
        declare_block_linear(list, &b->linear[i], i == UP ? f : w, i == DOWN ? f : w, name);
    }
    for (int i = 0; i < 2; i++) {
        param_add(list, &b->norm_q[i], shape_of(1, w), 1, 0, "blocks.%d.attn%d.norm_q.weight", block, i + 1);
        param_add(list, &b->norm_k[i], shape_of(1, w), 1, 0, "blocks.%d.attn%d.norm_k.weight", block, i + 1);
    }
    param_add(list, &b->norm, shape_of(1, w), 1, 0, "blocks.%d.norm2.weight", block)->f32 = true;
    param_add(list, &b->norm_bias, shape_of(1, w), 0, 0, "blocks.%d.norm2.bias", block)->f32 = true;
}

static void add_params(struct params *list, void *net)
{
    struct wan *d = net;
    const struct wan_config *c = &d->c;
    const int64_t w = c->width, pixels = PATCH * PATCH, values = c->channels * pixels;
    param_add(list, &d->patch.weight, shape_of(5, w, c->channels, 1, PATCH, PATCH), 0,
              1 / sqrt((double)values), "patch_embedding.weight");
    param_add(list, &d->patch.bias, shape_of(1, w), 0, 0, "patch_embedding.bias");
#define EMBEDDER "condition_embedder."
    declare_linear(list, &d->time1, w, c->time_dim, true, EMBEDDER "time_embedder.linear_1");
    declare_linear(list, &d->time2, w, w, true, EMBEDDER "time_embedder.linear_2");
    declare_linear(list, &d->modulation, 6 * w, w, false, EMBEDDER "time_proj");
    declare_linear(list, &d->text1, w, c->text_dim, false, EMBEDDER "text_embedder.linear_1");
    declare_linear(list, &d->text2, w, w, false, EMBEDDER "text_embedder.linear_2");
#undef EMBEDDER
    for (int i = 0; i < c->layers; i++) declare_block(list, d, i);
    /* Stored with the channel fastest, wanted with the channel slowest, as patchify() has it. */
    param_swap(
        param_add(list, &d->out.weight, shape_of(2, values, w), 0, 1 / sqrt((double)w), "proj_out.weight"),
        pixels, c->channels);
    param_swap(param_add(list, &d->out.bias, shape_of(1, values), 0, 0, "proj_out.bias"), pixels,
               c->channels);
    param_add(list, &d->table, shape_of(3, 1, 2, w), 0, 1 / sqrt((double)w), "scale_shift_table")->f32 = true;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static void geometry(struct latent_geometry *g, const void *net)
{
    const struct wan_config *c = &((const struct wan *)net)->c;
    *g = (struct latent_geometry){.channels = c->channels,
                                  .temporal = TEMPORAL,
                                  .spatial = c->spatial,
                                  .patch = PATCH,
                                  .frames = c->sample_frames,
                                  .width = c->sample_width * c->spatial,
                                  .height = c->sample_height * c->spatial,
                                  .fps = c->fps,
                                  .text_length = c->text_length,
                                  .text_width = c->text_dim,
                                  .text_short = true};
}

static bool text_shape(struct latent_geometry *g, json_t *config, const char *file, char *err, size_t errlen)
{
    struct config c = {.json = config, .file = file};
    g->text_length = config_int_or(&c, "text_len", 1, 4096, 512);
    g->text_width = config_int_or(&c, "text_dim", 1, 1 << 16, 4096);
    g->text_short = true;
    return !c.error[0] || fail(err, errlen, "%s", c.error);
}

static bool open_wan(struct denoiser *d, char *err, size_t errlen)
{
    struct wan *net = d->net;
    net->k = d->k;
    net->denoiser = d;
    net->patch.weight =
        tensor_as(&net->patch.weight, 2, net->c.width, tensor_count(&net->patch.weight) / net->c.width);
    if (!linears_name(&d->linears, &names, net->c.layers)) return fail(err, errlen, "out of memory");
    d->linears.width = net->c.width;
    for (int i = 0; i < d->linears.count; i++) {
        struct linear *l = &d->linears.linear[i];
        const int t = i % LINEARS;
        l->weight = &net->block[l->block].linear[t].weight;
        l->in = l->weight->shape[1];
        l->out = l->weight->shape[0];
        l->text_only = t == K2 || t == V2;
        l->aside = t >= Q2;
    }
    return true;
}

/* ---- sizes --------------------------------------------------------------------------------------------- */

static bool make_grid(struct denoiser *denoiser, struct denoiser_grid *g, const struct tensor *latents,
                      char *err, size_t errlen)
{
    struct wan *d = denoiser->net;
    const struct wan_config *c = &d->c;
    char is[160];
    if (latents->rank != 4 || latents->shape[0] < 1 || latents->shape[1] != c->channels ||
        latents->shape[2] < PATCH || latents->shape[3] < PATCH || latents->shape[2] % PATCH ||
        latents->shape[3] % PATCH)
        return fail(err, errlen, "latents %s do not fit the model: [T,%lld,h,w] with h and w divisible by %d",
                    tensor_describe(is, sizeof is, latents), (long long)c->channels, PATCH);
    const int64_t frames = latents->shape[0], rows = latents->shape[2] / PATCH,
                  cols = latents->shape[3] / PATCH, video = frames * rows * cols, half = c->head_dim / 2;
    if (frames > c->positions || rows > c->positions || cols > c->positions)
        return fail(err, errlen,
                    "latents %s do not fit the model: it has %lld positions for frames, rows and columns",
                    tensor_describe(is, sizeof is, latents), (long long)c->positions);
    *g = (struct denoiser_grid){.rows = {0, frames, rows, cols}};
    g->table[0] = kern_tensor(d->k, DT_F32, 2, video, half); /* cosines */
    g->table[1] = kern_tensor(d->k, DT_F32, 2, video, half); /* sines */
    if (!kern_ok(d->k)) return fail(err, errlen, "%s", kern_error(d->k));
    if (kern_planning(d->k)) return true;

    float *table = malloc((size_t)(video * half) * 2 * sizeof *table);
    if (!table) return fail(err, errlen, "no memory for the position tables");
    axes_rope_tables(table, table + video * half, frames, rows, cols, c->head_dim);
    for (int i = 0; i < 2; i++) {
        struct tensor host = tensor_of(DT_F32, table + i * video * half, 2, video, half);
        kern_upload(d->k, &g->table[i], &host);
    }
    free(table);
    return true;
}

static struct tensor scratch(struct wan *d, int64_t rows, int64_t width)
{
    return kern_tensor(d->k, kern_compute(d->k), 2, rows, width);
}

/* ---- what forward and backward share ------------------------------------------------------------------- */

static struct token_rows text_rows(const struct wan *d)
{
    return (struct token_rows){.text = d->c.text_length};
}

/* How many elements the hook leaves for backward at a linear layer; 0: it does not take part. */
static int64_t hooked(const struct wan *d, const struct token_rows *rows, int64_t block, int linear)
{
    const struct linear_hook *h = d->denoiser->hook;
    return h ? h->saved_count(h->context, (int)block * LINEARS + linear, rows) : 0;
}

/* n linear layers of one input x, from `first` on, with what hooks onto them. */
static void project(struct wan *d, const struct token_rows *rows, int64_t block, int first, int n,
                    struct tensor *const *y, const struct tensor *x, struct block_saved *s)
{
    struct linear_call call[LINEARS];
    linears_product(d->k, y, x, &d->block[block].linear[first], n);
    for (int t = 0; t < n; t++)
        call[t] = (struct linear_call){.linear = (int)block * LINEARS + first + t,
                                       .rows = rows,
                                       .x = x,
                                       .y = y[t],
                                       .saved = &s->hook[first + t]};
    linears_forward(d->denoiser->hook, call, n);
}

/* Row i of [n,width], as [width]. */
static struct tensor row(const struct tensor *m, int64_t i)
{
    struct tensor one = tensor_rows(m, i, 1);
    return tensor_as(&one, 1, m->shape[1]);
}

/* F32 [n,width] = table [1,n,width] + time F32 [n,width], or [1,width] for every row. */
static struct tensor modulation(struct wan *d, const struct tensor *table, const struct tensor *time)
{
    const int64_t n = table->shape[1];
    struct tensor m = kern_tensor(d->k, DT_F32, 2, n, d->c.width);
    for (int64_t i = 0; i < n; i++) {
        struct tensor to = row(&m, i), from = row(time, time->shape[0] == n ? i : 0);
        kern_copy(d->k, &to, &from);
    }
    axpby(d->k, &m, 1, table, 1);
    return m;
}

/* What a block's table holds: of the self-attention, then of the feed-forward. */
enum { SHIFT, SCALE, GATE, PARTS };

/* z = LN(x) (1 + scale) + shift */
static void modulate(struct wan *d, struct tensor *z, const struct tensor *x, const struct tensor *m,
                     int first)
{
    struct tensor shift = row(m, first + SHIFT), scale = row(m, first + SCALE);
    layer_norm_forward(d->k, z, x, NULL, NULL, &scale, &shift, (float)d->c.eps);
}

/* out = x + gate ⊙ y */
static void gated_add(struct wan *d, struct tensor *out, const struct tensor *x, const struct tensor *y,
                      const struct tensor *m, int first)
{
    struct tensor gate = row(m, first + GATE);
    gated_add_forward(d->k, out, x, y, &gate);
}

/* Queries, of which `times` is attention_times(), or keys, of which it is 1: of attention 1 with their norm and rotation,
 * of attention 2 with their norm alone (g NULL). */
static void normed(struct wan *d, const struct denoiser_grid *g, struct tensor *y, const struct tensor *x,
                   const struct tensor *weight, float times)
{
    rms_norm_rope_forward(d->k, y, x, weight, g ? &g->table[0] : NULL, g ? &g->table[1] : NULL,
                          (float)d->c.eps, times);
}

static struct attention heads_of(const struct wan *d)
{
    return (struct attention){.heads = (int)d->c.heads, .scale = LOG_2};
}

/* ---- forward ------------------------------------------------------------------------------------------- */

/* Of a digest [layers,2,text_length,width] a block's keys (0) or values (1). */
static struct tensor digested(const struct tensor *digest, int64_t block, int which)
{
    const int64_t n = digest->shape[2], w = digest->shape[3];
    struct tensor flat = tensor_as(digest, 2, digest->shape[0] * 2 * n, w);
    return tensor_rows(&flat, (2 * block + which) * n, n);
}

/* A block's keys, before and after their norm, and values of the embedded text. */
static void read_text(struct wan *d, int64_t block, struct tensor *kn, struct tensor *k, struct tensor *v,
                      const struct tensor *text, struct block_saved *s)
{
    const struct token_rows rows = text_rows(d);
    project(d, &rows, block, K2, 2, (struct tensor *[]){k, v}, text, s);
    normed(d, NULL, kn, k, &d->block[block].norm_k[1], 1);
}

/* text: embedded, or a digest. Everything a block keeps lies in s. When sampling, in, mid, late and out are one tensor
 * and nothing is kept. */
static void block_forward(struct wan *d, const struct denoiser_grid *g, int64_t i, struct tensor *out,
                          struct block_saved *s, const struct tensor *time, const struct tensor *text)
{
    const struct wan_block *b = &d->block[i];
    const struct attention heads = heads_of(d);
    const float times = attention_times(d->c.head_dim);
    struct kern *k = d->k;
    const int64_t tokens = token_count(&g->rows), w = d->c.width;
    const size_t start = kern_mark(k);
    struct tensor m = modulation(d, &b->table, time), z = scratch(d, tokens, w);
    const size_t mark = kern_mark(k);

    modulate(d, &z, &s->in, &m, 0);
    project(d, &g->rows, i, Q1, 3, (struct tensor *[]){&s->self.q, &s->self.k, &s->self.v}, &z, s);
    struct tensor qn = scratch(d, tokens, w), kn = scratch(d, tokens, w);
    normed(d, g, &qn, &s->self.q, &b->norm_q[0], times);
    normed(d, g, &kn, &s->self.k, &b->norm_k[0], 1);
    attention_forward(k, &s->self.o, s->self.lse.rank ? &s->self.lse : NULL, &qn, &kn, &s->self.v, NULL,
                      &heads);
    project(d, &g->rows, i, OUT1, 1, (struct tensor *[]){&z}, &s->self.o, s);
    gated_add(d, &s->mid, &s->in, &z, &m, 0);
    kern_release(k, mark);

    layer_norm_forward(k, &z, &s->mid, &b->norm, &b->norm_bias, NULL, NULL, (float)d->c.eps);
    project(d, &g->rows, i, Q2, 1, (struct tensor *[]){&s->cross.q}, &z, s);
    qn = scratch(d, tokens, w);
    normed(d, NULL, &qn, &s->cross.q, &b->norm_q[1], times);
    struct tensor v = s->cross.v;
    if (text->rank == 2) {
        kn = scratch(d, d->c.text_length, w);
        read_text(d, i, &kn, &s->cross.k, &s->cross.v, text, s);
    } else {
        kn = digested(text, i, 0), v = digested(text, i, 1);
    }
    attention_forward(k, &s->cross.o, s->cross.lse.rank ? &s->cross.lse : NULL, &qn, &kn, &v, NULL, &heads);
    project(d, &g->rows, i, OUT2, 1, (struct tensor *[]){&z}, &s->cross.o, s);
    if (s->late.data != s->mid.data) kern_copy(k, &s->late, &s->mid);
    add(k, &s->late, &z);
    kern_release(k, mark);

    /* Product and activation apart, whether anything hooks onto the product or not: so that what adds nothing
     * changes no bit of BF16. */
    modulate(d, &z, &s->late, &m, PARTS);
    struct tensor pre = s->pre.rank ? s->pre : scratch(d, tokens, d->c.ffn_dim), hidden = pre;
    project(d, &g->rows, i, UP, 1, (struct tensor *[]){&pre}, &z, s);
    if (b->linear[DOWN].scale.rank && !hooked(d, &g->rows, i, DOWN)) {
        linears_gelu_product(k, &z, &pre, &b->linear[DOWN]);
    } else {
        if (s->pre.rank) hidden = scratch(d, tokens, d->c.ffn_dim);
        gelu_forward(k, &hidden, &pre);
        project(d, &g->rows, i, DOWN, 1, (struct tensor *[]){&z}, &hidden, s);
    }
    gated_add(d, out, &s->late, &z, &m, PARTS);
    kern_release(k, start);
}

static void attention_scratch(struct wan *d, struct attention_saved *a, int64_t tokens, int64_t keys,
                              bool training)
{
    a->q = scratch(d, tokens, d->c.width);
    a->k = scratch(d, keys, d->c.width);
    a->v = scratch(d, keys, d->c.width);
    a->o = scratch(d, tokens, d->c.width);
    a->lse = training ? kern_tensor(d->k, DT_F32, 2, d->c.heads, tokens) : (struct tensor){0};
}

/* Room for what the hook leaves at n linear layers of these rows. */
static void hook_scratch(struct wan *d, const struct token_rows *rows, int64_t i, int first, int n,
                         struct block_saved *s)
{
    for (int t = first; t < first + n; t++) {
        const int64_t count = hooked(d, rows, i, t);
        if (count) s->hook[t] = kern_tensor(d->k, kern_compute(d->k), 1, count);
    }
}

/* What block_forward fills, beside its input, middles and output. */
static void block_scratch(struct wan *d, const struct denoiser_grid *g, int64_t i, struct block_saved *s,
                          bool training, bool pre)
{
    const int64_t tokens = token_count(&g->rows);
    const struct token_rows text = text_rows(d);
    attention_scratch(d, &s->self, tokens, tokens, training);
    attention_scratch(d, &s->cross, tokens, d->c.text_length, training);
    s->pre = pre ? scratch(d, tokens, d->c.ffn_dim) : (struct tensor){0};
    hook_scratch(d, &g->rows, i, Q1, Q2 - Q1 + 1, s);
    hook_scratch(d, &text, i, K2, 2, s);
    hook_scratch(d, &g->rows, i, OUT2, LINEARS - OUT2, s);
}

/* y = x Wᵀ + b, all of it in F32: x [1,in], y [1,out] */
static void linear_f32(struct wan *d, struct tensor *y, const struct tensor *x,
                       const struct linear_weights *l)
{
    kern_copy(d->k, y, &l->bias);
    matmul(d->k, y, x, false, &l->weight, true, 1, 1);
}

/* time F32 [1,width], the timestep's embedding as the compute dtype rounds it; modulation F32 [6,width], what it adds to
 * every block's table. */
static void time_embedding(struct wan *d, struct tensor *time, struct tensor *modulation, double timestep)
{
    struct kern *k = d->k;
    const int64_t n = d->c.time_dim, w = d->c.width;
    const size_t mark = kern_mark(k);
    struct tensor in = kern_tensor(k, DT_F32, 2, 1, n), h = kern_tensor(k, DT_F32, 2, 1, w);
    struct tensor e = scratch(d, 1, w), m = scratch(d, 1, 6 * w);
    float *table = malloc((size_t)n * sizeof *table);
    if (!table) kern_fail(k, "out of memory");
    if (table) {
        timestep_embedding(table, n, timestep);
        struct tensor host = tensor_of(DT_F32, table, 2, 1, n);
        kern_upload(k, &in, &host);
        free(table);
    }
    linear_f32(d, &h, &in, &d->time1);
    silu_forward(k, &h, &h);
    linear_f32(d, time, &h, &d->time2);
    kern_copy(k, &e, time);
    kern_copy(k, time, &e);
    silu_forward(k, &e, &e);
    linear_forward(k, &m, &e, &d->modulation.weight, &d->modulation.bias);
    kern_copy(k, modulation, &m);
    kern_release(k, mark);
}

/* c [text_length,width] = W2 gelu(W1 text + b1) + b2 */
static void embed_text(struct wan *d, struct tensor *c, const struct tensor *text)
{
    const size_t mark = kern_mark(d->k);
    struct tensor h = scratch(d, d->c.text_length, d->c.width);
    linear_gelu_forward(d->k, &h, NULL, text, &d->text1.weight, &d->text1.bias);
    linear_forward(d->k, c, &h, &d->text2.weight, &d->text2.bias);
    kern_release(d->k, mark);
}

/* Keys and values of the text for every block, [layers,2,text_length,width]. */
static struct tensor digest(struct denoiser *denoiser, const struct tensor *text)
{
    struct wan *d = denoiser->net;
    struct kern *k = d->k;
    const int64_t w = d->c.width, n = d->c.text_length;
    const struct token_rows rows = text_rows(d);
    struct tensor all = kern_tensor(k, kern_compute(k), 4, d->c.layers, 2, n, w);
    const size_t start = kern_mark(k);
    struct tensor c = scratch(d, n, w), key = scratch(d, n, w);
    embed_text(d, &c, text);
    for (int64_t i = 0; i < d->c.layers; i++) {
        struct tensor kn = digested(&all, i, 0), v = digested(&all, i, 1);
        struct block_saved s = {0};
        const size_t mark = kern_mark(k);
        hook_scratch(d, &rows, i, K2, 2, &s);
        read_text(d, i, &kn, &key, &v, &c, &s);
        kern_release(k, mark);
    }
    kern_release(k, start);
    return all;
}

static void embed(struct wan *d, struct tensor *x, const struct tensor *latents)
{
    const size_t mark = kern_mark(d->k);
    struct tensor patches = scratch(d, x->shape[0], d->patch.weight.shape[1]);
    patchify(d->k, &patches, latents, PATCH);
    linear_forward(d->k, x, &patches, &d->patch.weight, &d->patch.bias);
    kern_release(d->k, mark);
}

static void unembed(struct wan *d, struct tensor *out, const struct tensor *x, const struct tensor *time)
{
    const size_t mark = kern_mark(d->k);
    struct tensor m = modulation(d, &d->table, time), z = scratch(d, x->shape[0], d->c.width),
                  patches = scratch(d, x->shape[0], d->out.bias.shape[0]);
    modulate(d, &z, x, &m, 0);
    linear_forward(d->k, &patches, &z, &d->out.weight, &d->out.bias);
    unpatchify(d->k, out, &patches, PATCH);
    kern_release(d->k, mark);
}

static void forward(struct denoiser *denoiser, const struct denoiser_grid *g, struct tensor *out,
                    const struct tensor *latents, const struct tensor *text, double timestep,
                    const enum recompute *keep)
{
    struct wan *d = denoiser->net;
    struct kern *k = d->k;
    const int64_t tokens = token_count(&g->rows), w = d->c.width;
    const size_t start = kern_mark(k);
    struct tensor time = kern_tensor(k, DT_F32, 2, 1, w), m = kern_tensor(k, DT_F32, 2, 6, w), c = *text;
    time_embedding(d, &time, &m, timestep);
    if (text->rank == 2) {
        c = scratch(d, d->c.text_length, w);
        embed_text(d, &c, text);
    }
    struct tensor x = scratch(d, tokens, w);
    embed(d, &x, latents);

    const bool sampling = !keep && residual_begin(denoiser, &x);
    for (int64_t i = 0; sampling && i < d->c.layers; i++) {
        struct block_saved s = {.in = x, .mid = x, .late = x};
        const size_t mark = kern_mark(k);
        block_scratch(d, g, i, &s, false, false);
        block_forward(d, g, i, &x, &s, &m, &c);
        kern_release(k, mark);
    }
    if (!keep) residual_end(denoiser, &x);
    for (int64_t i = 0; keep && i < d->c.layers; i++) {
        struct block_saved *s = &d->saved.block[i];
        const bool full = *keep == RECOMPUTE_FULL;
        struct tensor next = scratch(d, tokens, w);
        const size_t mark = kern_mark(k);
        *s = (struct block_saved){.in = x};
        s->mid = full ? next : scratch(d, tokens, w);
        s->late = full ? next : scratch(d, tokens, w);
        block_scratch(d, g, i, s, !full, *keep == RECOMPUTE_NONE);
        block_forward(d, g, i, &next, s, &m, &c);
        if (full) kern_release(k, mark);
        x = next;
    }
    if (keep) {
        d->saved.recompute = *keep;
        d->saved.time = time, d->saved.modulation = m, d->saved.text = c, d->saved.last = x;
    }
    unembed(d, out, &x, &time);
    if (!keep) kern_release(k, start);
}

/* ---- backward ------------------------------------------------------------------------------------------ */

/* dx = the sum of dy W and the hook's share over n linear layers; NULL when nothing below is trained. */
static void project_back(struct wan *d, const struct token_rows *rows, int64_t block, int first, int n,
                         struct tensor *dx, const struct tensor *const *dy, const struct tensor *x,
                         struct block_saved *s)
{
    const struct linear_hook *hook = d->denoiser->hook;
    struct linear_call call[LINEARS];
    for (int t = 0, calls = 0; t < n; t++) {
        if (dx) linear_backward(d->k, dx, dy[t], &d->block[block].linear[first + t].weight, t > 0);
        call[calls++] = (struct linear_call){.linear = (int)block * LINEARS + first + t,
                                             .rows = rows,
                                             .x = x,
                                             .dy = dy[t],
                                             .dx = dx,
                                             .saved = &s->hook[first + t]};
        if (linears_together(hook, d->k) && t < n - 1) continue;
        linears_backward(hook, call, calls);
        calls = 0;
    }
}

static void modulate_back(struct wan *d, struct tensor *dx, const struct tensor *dz, const struct tensor *x,
                          const struct tensor *m, int first, bool adds)
{
    struct tensor scale = row(m, first + SCALE);
    layer_norm_backward(d->k, dx, dz, x, NULL, &scale, (float)d->c.eps, adds);
}

static void gated_add_back(struct wan *d, struct tensor *dy, const struct tensor *dx, const struct tensor *m,
                           int first)
{
    struct tensor gate = row(m, first + GATE);
    gated_add_backward(d->k, dy, dx, &gate);
}

static void normed_back(struct wan *d, const struct denoiser_grid *g, struct tensor *dx,
                        const struct tensor *dy, const struct tensor *x, const struct tensor *weight,
                        float times)
{
    rms_norm_rope_backward(d->k, dx, dy, x, weight, g ? &g->table[0] : NULL, g ? &g->table[1] : NULL,
                           (float)d->c.eps, times);
}

/* x_out = late + gate ⊙ down(gelu(up(z))) */
static void feed_forward_back(struct wan *d, const struct denoiser_grid *g, int64_t i, struct tensor *dx,
                              struct block_saved *s, const struct tensor *m)
{
    struct kern *k = d->k;
    const int64_t w = d->c.width, f = d->c.ffn_dim, tokens = token_count(&g->rows);
    const size_t mark = kern_mark(k);
    struct tensor z = scratch(d, tokens, w), dff = scratch(d, tokens, w), dpre = scratch(d, tokens, f);
    struct tensor pre = s->pre, hidden = pre;
    modulate(d, &z, &s->late, m, PARTS);
    if (!pre.rank) { /* not kept: the first half again */
        hidden = pre = scratch(d, tokens, f);
        project(d, &g->rows, i, UP, 1, (struct tensor *[]){&pre}, &z, s);
    }
    if (hooked(d, &g->rows, i, DOWN)) {
        hidden = scratch(d, tokens, f);
        gelu_forward(k, &hidden, &pre);
    }
    gated_add_back(d, &dff, dx, m, PARTS);
    project_back(d, &g->rows, i, DOWN, 1, &dpre, (const struct tensor *[]){&dff}, &hidden, s);
    gelu_backward(k, &dpre, &dpre, &pre);
    project_back(d, &g->rows, i, UP, 1, &dff, (const struct tensor *[]){&dpre}, &z, s);
    modulate_back(d, dx, &dff, &s->late, m, PARTS, true);
    kern_release(k, mark);
}

/* late = mid + to_out(attention(z, text)) */
static void cross_attention_back(struct wan *d, const struct denoiser_grid *g, int64_t i, struct tensor *dx,
                                 struct block_saved *s)
{
    const struct wan_block *b = &d->block[i];
    const struct attention heads = heads_of(d);
    const float times = attention_times(d->c.head_dim);
    const struct token_rows text = text_rows(d);
    struct kern *k = d->k;
    const int64_t w = d->c.width, tokens = token_count(&g->rows), n = d->c.text_length;
    const bool keys = hooked(d, &text, i, K2) || hooked(d, &text, i, V2);
    const size_t mark = kern_mark(k);
    struct tensor d_o = scratch(d, tokens, w), qn = scratch(d, tokens, w), dq = scratch(d, tokens, w);
    struct tensor kn = scratch(d, n, w), dk = {0}, dv = {0};
    if (keys) dk = scratch(d, n, w), dv = scratch(d, n, w);
    project_back(d, &g->rows, i, OUT2, 1, &d_o, (const struct tensor *[]){dx}, &s->cross.o, s);
    normed(d, NULL, &qn, &s->cross.q, &b->norm_q[1], times);
    normed(d, NULL, &kn, &s->cross.k, &b->norm_k[1], 1);
    attention_backward(k, &dq, keys ? &dk : NULL, keys ? &dv : NULL, &d_o, &s->cross.o, &s->cross.lse, &qn,
                       &kn, &s->cross.v, &heads);
    if (keys) { /* the text below is not trained */
        normed_back(d, NULL, &kn, &dk, &s->cross.k, &b->norm_k[1], 1);
        project_back(d, &text, i, K2, 2, NULL, (const struct tensor *[]){&kn, &dv}, &d->saved.text, s);
    }
    normed_back(d, NULL, &qn, &dq, &s->cross.q, &b->norm_q[1], times);
    struct tensor z = d_o, dz = dq; /* both are done with */
    layer_norm_forward(k, &z, &s->mid, &b->norm, &b->norm_bias, NULL, NULL, (float)d->c.eps);
    project_back(d, &g->rows, i, Q2, 1, &dz, (const struct tensor *[]){&qn}, &z, s);
    layer_norm_backward(k, dx, &dz, &s->mid, &b->norm, NULL, (float)d->c.eps, true);
    kern_release(k, mark);
}

/* mid = in + gate ⊙ to_out(attention(z)); what is below the first block is not trained */
static void self_attention_back(struct wan *d, const struct denoiser_grid *g, int64_t i, struct tensor *dx,
                                struct block_saved *s, const struct tensor *m)
{
    const struct wan_block *b = &d->block[i];
    const struct attention heads = heads_of(d);
    const float times = attention_times(d->c.head_dim);
    struct kern *k = d->k;
    const int64_t w = d->c.width, tokens = token_count(&g->rows);
    const size_t mark = kern_mark(k);
    struct tensor dz = scratch(d, tokens, w), d_o = scratch(d, tokens, w), qn = scratch(d, tokens, w),
                  kn = scratch(d, tokens, w);
    struct tensor dq = scratch(d, tokens, w), dk = scratch(d, tokens, w), dv = scratch(d, tokens, w);
    gated_add_back(d, &dz, dx, m, 0);
    project_back(d, &g->rows, i, OUT1, 1, &d_o, (const struct tensor *[]){&dz}, &s->self.o, s);
    normed(d, g, &qn, &s->self.q, &b->norm_q[0], times);
    normed(d, g, &kn, &s->self.k, &b->norm_k[0], 1);
    attention_backward(k, &dq, &dk, &dv, &d_o, &s->self.o, &s->self.lse, &qn, &kn, &s->self.v, &heads);
    normed_back(d, g, &qn, &dq, &s->self.q, &b->norm_q[0], times);
    normed_back(d, g, &kn, &dk, &s->self.k, &b->norm_k[0], 1);
    struct tensor z = d_o, *below = i > 0 ? &dz : NULL;
    modulate(d, &z, &s->in, m, 0);
    project_back(d, &g->rows, i, Q1, 3, below, (const struct tensor *[]){&qn, &kn, &dv}, &z, s);
    if (below) modulate_back(d, dx, &dz, &s->in, m, 0, true);
    kern_release(k, mark);
}

static void backward(struct denoiser *denoiser, const struct denoiser_grid *g, const struct tensor *dout)
{
    struct wan *d = denoiser->net;
    struct kern *k = d->k;
    const int64_t w = d->c.width, tokens = token_count(&g->rows);
    const size_t start = kern_mark(k);
    struct tensor dx = scratch(d, tokens, w);
    {
        struct tensor m = modulation(d, &d->table, &d->saved.time), dz = scratch(d, tokens, w),
                      dpatches = scratch(d, tokens, d->out.bias.shape[0]);
        patchify(k, &dpatches, dout, PATCH);
        linear_backward(k, &dz, &dpatches, &d->out.weight, false);
        modulate_back(d, &dx, &dz, &d->saved.last, &m, 0, false);
    }
    for (int64_t i = d->c.layers - 1; i >= 0; i--) {
        const size_t mark = kern_mark(k);
        struct block_saved s = d->saved.block[i];
        if (d->saved.recompute == RECOMPUTE_FULL) {
            struct tensor out = scratch(d, tokens, w);
            s.mid = scratch(d, tokens, w);
            s.late = scratch(d, tokens, w);
            block_scratch(d, g, i, &s, true, true);
            block_forward(d, g, i, &out, &s, &d->saved.modulation, &d->saved.text);
        }
        struct tensor m = modulation(d, &d->block[i].table, &d->saved.modulation);
        feed_forward_back(d, g, i, &dx, &s, &m);
        cross_attention_back(d, g, i, &dx, &s);
        self_attention_back(d, g, i, &dx, &s, &m);
        kern_release(k, mark);
    }
    kern_release(k, start);
}

/* Of the official code (wan/configs/shared_config.py). In English: garish tones, overexposed, static, blurred details,
 * subtitles, style, work of art, painting, picture, still, greyish, worst quality, low quality, JPEG artefacts, ugly,
 * mutilated, extra fingers, badly drawn hands, badly drawn faces, deformed, disfigured, misshapen limbs, fused fingers,
 * motionless picture, cluttered background, three legs, many people in the background, walking backwards. */
static const char negative[] =
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走";

const struct denoiser_kind wan_dit = {
    .network = {.class_name = "WanTransformer3DModel",
                .file = "diffusion_pytorch_model",
                .dtype = DT_BF16,
                .size = sizeof(struct wan),
                .configure = configure,
                .params = add_params},
    .names = &names,
    .published = {.steps = 50, .guidance = 5, .by_channel = true, .negative = negative},
    .geometry = geometry,
    .text_shape = text_shape,
    .open = open_wan,
    .grid = make_grid,
    .digest = digest,
    .forward = forward,
    .backward = backward,
};
