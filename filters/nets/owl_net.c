#include "filters/nets/owl_net.h"

#include <math.h>
#include <stdlib.h>

/* The statistics of CLIP's pictures, by channel. */
static const float clip_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f},
                   clip_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
static const float NORM_EPS = 1e-5f; /* of the norms that no config speaks of: PyTorch's own */

/* ---- configuration ------------------------------------------------------------------------------------- */

/* What is left out has the value of the configuration class's default, as a writer may leave out what has. */
static void vision_config(struct owl_config *c, struct config *f)
{
    c->vision.side = config_int_or(f, "image_size", 1, 1 << 12, 224);
    c->vision.patch = config_int_or(f, "patch_size", 1, 256, 14);
    c->vision.width = config_int_or(f, "hidden_size", 2, 1 << 16, 1024);
    c->vision.hidden = config_int_or(f, "intermediate_size", 1, 1 << 18, 4096);
    c->vision.layers = config_int_or(f, "num_hidden_layers", 1, OWL_MAX_LAYERS, 24);
    c->vision.heads = config_int_or(f, "num_attention_heads", 1, 1024, 16);
    c->vision.eps = (float)config_real_or(f, "layer_norm_eps", 1e-6);
    config_expect(f, "num_channels", json_integer(3));
    config_expect(f, "hidden_act", json_string("quick_gelu"));
}

/* The width of its gated layer: two thirds of what the config says, in whole 256s, unless it says 2816. */
static int64_t gated_width(int64_t width)
{
    return width == 2816 ? width : (2 * width / 3 + 255) / 256 * 256;
}

static void abstractor_config(struct owl_config *c, struct config *f)
{
    c->abstractor.hidden = gated_width(config_int_or(f, "intermediate_size", 2, 1 << 18, 4096));
    c->abstractor.layers = config_int_or(f, "num_hidden_layers", 1, OWL_MAX_LAYERS, 6);
    c->abstractor.heads = config_int_or(f, "num_attention_heads", 1, 1024, 16);
    c->abstractor.eps = (float)config_real_or(f, "layer_norm_eps", 1e-6);
    c->abstractor.width = config_int_or(f, "hidden_size", 1, 1 << 16, 1024);
    c->abstractor.seen = config_int_or(f, "encoder_hidden_size", 1, 1 << 16, 1024);
}

static void decoder_config(struct owl_config *c, struct config *f)
{
    c->decoder.vocabulary = config_int_or(f, "vocab_size", 3, 1 << 20, 32000);
    c->decoder.positions = config_int_or(f, "max_position_embeddings", 1, 1 << 20, 2048);
    c->decoder.width = config_int_or(f, "hidden_size", 2, 1 << 16, 4096);
    c->decoder.hidden = config_int_or(f, "intermediate_size", 1, 1 << 18, 11008);
    c->decoder.layers = config_int_or(f, "num_hidden_layers", 1, OWL_MAX_LAYERS, 32);
    c->decoder.heads = config_int_or(f, "num_attention_heads", 1, 1024, 32);
    c->decoder.end = (int32_t)config_int_or(f, "eos_token_id", 0, c->decoder.vocabulary - 1, 2);
    c->decoder.eps = (float)config_real_or(f, "rms_norm_eps", 1e-6);
    c->decoder.theta = config_real_or(f, "rope_theta", 10000);
    config_expect(f, "model_type", json_string("llama"));
    config_expect(f, "hidden_act", json_string("silu"));
    config_expect(f, "num_key_value_heads", json_integer(c->decoder.heads));
    config_expect(f, "head_dim", json_integer(c->decoder.width / c->decoder.heads));
    config_expect(f, "rope_scaling", json_null());
    config_expect(f, "attention_bias", json_false());
    config_expect(f, "mlp_bias", json_false());
    config_expect(f, "tie_word_embeddings", json_false());
}

static bool divides(int64_t part, int64_t whole, const char *file, const char *what, char *err, size_t errlen)
{
    return whole % part == 0 || fail(err, errlen, "%s: %s: %lld is not in whole parts of %lld", file, what,
                                     (long long)whole, (long long)part);
}

bool owl_config(struct owl_config *c, json_t *json, const char *file, char *err, size_t errlen)
{
    static const char *const names[] = {"vision_config", "visual_abstractor_config", "text_config"};
    static void (*const read[])(struct owl_config *, struct config *) = {vision_config, abstractor_config,
                                                                         decoder_config};
    struct config f = {.json = json, .file = file};
    *c = (struct owl_config){.abstractor.queries = config_int_or(&f, "num_query_tokens", 1, 4096, 64)};
    config_expect(&f, "model_type", json_string("mplug-owl"));
    config_expect(&f, "tie_word_embeddings", json_false());
    if (f.error[0]) return fail(err, errlen, "%s", f.error);
    if (!config_text_or(&f, "model_type", NULL))
        return fail(err, errlen, "%s: no model_type; only \"mplug-owl\" is known here", file);
    for (int i = 0; i < 3; i++) {
        char name[512];
        json_t *part = json_object_get(json, names[i]);
        if (!json_is_object(part)) return fail(err, errlen, "%s: %s is no object", file, names[i]);
        snprintf(name, sizeof name, "%s: %s", file, names[i]);
        struct config sub = {.json = part, .file = name};
        read[i](c, &sub);
        if (sub.error[0]) return fail(err, errlen, "%s", sub.error);
    }
    /* its keys are of its own queries and of what the tower saw alike, through one matrix */
    if (c->abstractor.width != c->vision.width || c->abstractor.seen != c->vision.width)
        return fail(err, errlen,
                    "%s: an abstractor of hidden_size %lld for encoder_hidden_size %lld, on a tower of %lld; "
                    "only where all are the same is it one",
                    file, (long long)c->abstractor.width, (long long)c->abstractor.seen,
                    (long long)c->vision.width);
    if (!(c->decoder.theta > 0)) return fail(err, errlen, "%s: rope_theta %g", file, c->decoder.theta);
    return divides(c->vision.patch, c->vision.side, file, "image_size in patches", err, errlen) &&
           divides(2, c->vision.width, file, "the tower's half width", err, errlen) &&
           divides(c->vision.heads, c->vision.width, file, "the tower's heads", err, errlen) &&
           divides(c->abstractor.heads, c->vision.width, file, "the abstractor's heads", err, errlen) &&
           divides(2 * c->decoder.heads, c->decoder.width, file, "the decoder's heads, in pairs of channels",
                   err, errlen);
}

int64_t owl_frame_tokens(const struct owl_config *c)
{
    const int64_t across = c->vision.side / c->vision.patch;
    return 1 + across * across;
}

/* ---- parameters ---------------------------------------------------------------------------------------- */

/* A matrix [out,in] that keeps a unit variance. */
static struct param *add_matrix(struct params *list, struct tensor *w, int64_t out, int64_t in,
                                const char *name)
{
    return param_add(list, w, shape_of(2, out, in), 0, 1 / sqrt((double)in), "%s.weight", name);
}

static void add_linear(struct params *list, struct affine *a, int64_t out, int64_t in, const char *name)
{
    add_matrix(list, &a->w, out, in, name);
    param_add(list, &a->b, shape_of(1, out), 0, 0.02, "%s.bias", name);
}

/* A 3-D convolution of which at most the time axis is longer than 1. */
static void add_conv(struct params *list, struct affine *a, int64_t out, int64_t in, int64_t taps,
                     const char *name)
{
    param_add(list, &a->w, shape_of(5, out, in, taps, 1, 1), 0, 1 / sqrt((double)(in * taps)), "%s.weight",
              name);
    param_add(list, &a->b, shape_of(1, out), 0, 0.02, "%s.bias", name);
}

static void add_norm(struct params *list, struct affine *a, int64_t width, const char *name)
{
    param_add(list, &a->w, shape_of(1, width), 1, 0, "%s.weight", name);
    param_add(list, &a->b, shape_of(1, width), 0, 0, "%s.bias", name);
}

static void vision_params(struct params *list, struct owl *o)
{
    const int64_t width = o->c.vision.width, hidden = o->c.vision.hidden, patch = o->c.vision.patch;
    const int64_t heads = o->c.vision.heads;
    char name[128];
    param_add(list, &o->vision.cls, shape_of(3, 1, 1, width), 0, 1, "vision_model.embeddings.cls_token");
    param_add(list, &o->vision.positions, shape_of(3, 1, owl_frame_tokens(&o->c), width), 0, 0.5,
              "vision_model.embeddings.position_embedding");
    param_add(list, &o->vision.patches, shape_of(4, width, 3, patch, patch), 0,
              1 / sqrt(3.0 * (double)(patch * patch)), "vision_model.embeddings.patch_embed.weight");
    add_norm(list, &o->vision.pre_norm, width, "vision_model.embeddings.pre_layernorm");
    add_norm(list, &o->vision.post_norm, width, "vision_model.post_layernorm");
    for (int i = 0; i < o->c.vision.layers; i++) {
        struct owl_vision_layer *l = &o->vision.layer[i];
#define NAME(rest) (snprintf(name, sizeof name, "vision_model.encoder.layers.%d." rest, i), name)
        add_norm(list, &l->time_norm, width, NAME("temporal.ln"));
        add_conv(list, &l->down, width / 2, width, 1, NAME("temporal.down_proj"));
        add_conv(list, &l->conv, width / 2, 1, 3, NAME("temporal.conv"));
        add_conv(list, &l->up, width, width / 2, 1, NAME("temporal.up_proj"));
        add_norm(list, &l->norm1, width, NAME("input_layernorm"));
        param_swap(add_matrix(list, &l->qkv.w, 3 * width, width, NAME("self_attn.query_key_value")), heads,
                   3);
        param_swap(param_add(list, &l->qkv.b, shape_of(1, 3 * width), 0, 0.02, "%s",
                             NAME("self_attn.query_key_value.bias")),
                   heads, 3);
        add_linear(list, &l->dense, width, width, NAME("self_attn.dense"));
        add_norm(list, &l->norm2, width, NAME("post_attention_layernorm"));
        add_linear(list, &l->fc1, hidden, width, NAME("mlp.fc1"));
        add_linear(list, &l->fc2, width, hidden, NAME("mlp.fc2"));
#undef NAME
    }
}

static void abstractor_params(struct params *list, struct owl *o)
{
    const int64_t width = o->c.vision.width, hidden = o->c.abstractor.hidden, out = o->c.decoder.width;
    const struct tensor queries = shape_of(3, 1, o->c.abstractor.queries, width);
    char name[128];
    param_add(list, &o->abstractor.queries, queries, 0, 1, "query_tokens");
    param_add(list, &o->abstractor.time_queries, queries, 0, 1, "temporal_query_tokens");
    for (int i = 0; i < o->c.abstractor.layers; i++) {
        struct owl_abstractor_layer *l = &o->abstractor.layer[i];
#define NAME(rest) (snprintf(name, sizeof name, "abstractor.encoder.layers.%d.crossattention." rest, i), name)
        add_norm(list, &l->norm_q, width, NAME("norm1"));
        add_norm(list, &l->norm_kv, width, NAME("normk"));
        add_linear(list, &l->q, width, width, NAME("attention.query"));
        add_linear(list, &l->k, width, width, NAME("attention.key"));
        add_linear(list, &l->v, width, width, NAME("attention.value"));
        add_linear(list, &l->out, width, width, NAME("output.out_proj"));
        add_norm(list, &l->norm2, width, NAME("output.norm2"));
        add_linear(list, &l->gate, hidden, width, NAME("output.mlp.w1"));
        add_linear(list, &l->up, hidden, width, NAME("output.mlp.w3"));
        add_norm(list, &l->norm_ff, hidden, NAME("output.mlp.ffn_ln"));
        add_linear(list, &l->down, width, hidden, NAME("output.mlp.w2"));
#undef NAME
    }
    add_linear(list, &o->abstractor.project, out, width, "abstractor.visual_fc");
    add_linear(list, &o->abstractor.project_time, out, width, "abstractor.temporal_visual_fc");
    param_add(list, &o->abstractor.eos, shape_of(3, 1, 1, out), 0, 1, "abstractor.vit_eos");
}

static void decoder_params(struct params *list, struct owl *o)
{
    const int64_t width = o->c.decoder.width, hidden = o->c.decoder.hidden, ids = o->c.decoder.vocabulary;
    const struct tensor norm = shape_of(1, width);
    char name[128];
    param_add(list, &o->decoder.embedding, shape_of(2, ids, width), 0, 1,
              "language_model.model.embed_tokens.weight");
    for (int i = 0; i < o->c.decoder.layers; i++) {
        struct owl_decoder_layer *l = &o->decoder.layer[i];
#define NAME(rest) (snprintf(name, sizeof name, "language_model.model.layers.%d." rest, i), name)
        param_add(list, &l->norm1, norm, 1, 0, "%s", NAME("input_layernorm.weight"));
        param_part(add_matrix(list, &l->qkv, width, width, NAME("self_attn.q_proj")), 0, 3);
        param_part(add_matrix(list, &l->qkv, width, width, NAME("self_attn.k_proj")), 1, 3);
        param_part(add_matrix(list, &l->qkv, width, width, NAME("self_attn.v_proj")), 2, 3);
        add_matrix(list, &l->o, width, width, NAME("self_attn.o_proj"));
        param_add(list, &l->norm2, norm, 1, 0, "%s", NAME("post_attention_layernorm.weight"));
        param_part(add_matrix(list, &l->gate_up, hidden, width, NAME("mlp.gate_proj")), 0, 2);
        param_part(add_matrix(list, &l->gate_up, hidden, width, NAME("mlp.up_proj")), 1, 2);
        add_matrix(list, &l->down, width, hidden, NAME("mlp.down_proj"));
#undef NAME
    }
    param_add(list, &o->decoder.norm, norm, 1, 0, "language_model.model.norm.weight");
    add_matrix(list, &o->decoder.head, ids, width, "language_model.lm_head");
}

void owl_params(struct params *list, struct owl *o)
{
    vision_params(list, o);
    abstractor_params(list, o);
    decoder_params(list, o);
}

static bool configure(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    return owl_config(&((struct owl *)net)->c, json, file, err, errlen);
}

static void add_params(struct params *list, void *net)
{
    owl_params(list, net);
}

static const char *const ignored[] = {"language_model.model.layers.*.self_attn.rotary_emb.inv_freq", NULL};

const struct network owl_grader = {.class_name = "mplug-owl",
                                   .file = "model",
                                   .dtype = DT_BF16,
                                   .alias = ignored,
                                   .size = sizeof(struct owl),
                                   .configure = configure,
                                   .params = add_params};

/* ---- the vision tower ---------------------------------------------------------------------------------- */

static struct tensor activation(struct owl *o, int64_t rows, int64_t width)
{
    return kern_tensor(o->k, kern_compute(o->k), 2, rows, width);
}

/* y = x wᵀ + b; convolutions by pixel and by patch are that, too */
static void linear(struct owl *o, struct tensor *y, const struct tensor *x, const struct affine *a)
{
    struct tensor w = tensor_as(&a->w, 2, y->shape[1], x->shape[1]);
    linear_forward(o->k, y, x, &w, &a->b);
}

static void norm(struct owl *o, struct tensor *y, const struct tensor *x, const struct affine *a, float eps)
{
    layer_norm_forward(o->k, y, x, &a->w, &a->b, NULL, NULL, eps);
}

/* Patches look at the same place one frame before and after. The class tokens are added to themselves: each
 * layer doubles them, as in the published code. */
static void temporal_block(struct owl *o, const struct owl_vision_layer *l, struct tensor *x, int64_t frames)
{
    const int64_t rows = x->shape[0], width = x->shape[1], tokens = rows / frames;
    size_t mark = kern_mark(o->k);
    struct tensor n = activation(o, rows, width), narrow = activation(o, rows, width / 2),
                  mixed = activation(o, rows, width / 2);
    struct tensor from = tensor_as(&narrow, 3, frames, tokens, width / 2),
                  to = tensor_as(&mixed, 3, frames, tokens, width / 2);
    struct tensor taps = tensor_as(&l->conv.w, 2, width / 2, 3);
    struct tensor n_tokens = tensor_as(&n, 4, frames, tokens, 1, width),
                  x_tokens = tensor_as(x, 4, frames, tokens, 1, width);

    norm(o, &n, x, &l->time_norm, NORM_EPS);
    linear(o, &narrow, &n, &l->down);
    time_conv_quick_gelu_forward(o->k, &to, &from, &taps, &l->conv.b);
    linear(o, &n, &mixed, &l->up);
    copy_window(o->k, &n_tokens, 0, 0, &x_tokens, 0, 0, 1, 1);
    add(o->k, x, &n);
    kern_release(o->k, mark);
}

/* q, k or v of a layer's three. */
static struct affine third(const struct affine *qkv, int i)
{
    const int64_t rows = qkv->b.shape[0] / 3;
    return (struct affine){tensor_rows(&qkv->w, i * rows, rows), tensor_rows(&qkv->b, i * rows, rows)};
}

/* Tokens of a frame look at each other. */
static void attention_block(struct owl *o, const struct owl_vision_layer *l, struct tensor *x, int64_t frames)
{
    const int64_t rows = x->shape[0], width = x->shape[1], heads = o->c.vision.heads;
    size_t mark = kern_mark(o->k);
    struct tensor n = activation(o, rows, width), out = activation(o, rows, width), qkv[3];
    norm(o, &n, x, &l->norm1, o->c.vision.eps);
    for (int i = 0; i < 3; i++) {
        struct affine a = third(&l->qkv, i);
        qkv[i] = activation(o, rows, width);
        linear(o, &qkv[i], &n, &a);
    }
    attention_forward(o->k, &out, NULL, &qkv[0], &qkv[1], &qkv[2], NULL,
                      &(struct attention){.heads = (int)heads,
                                          .scale = (float)(1 / sqrt((double)(width / heads))),
                                          .batch = frames});
    linear(o, &n, &out, &l->dense);
    add(o->k, x, &n);
    kern_release(o->k, mark);
}

static void feed_forward_block(struct owl *o, const struct owl_vision_layer *l, struct tensor *x)
{
    size_t mark = kern_mark(o->k);
    struct tensor n = activation(o, x->shape[0], x->shape[1]),
                  hidden = activation(o, x->shape[0], o->c.vision.hidden);
    norm(o, &n, x, &l->norm2, o->c.vision.eps);
    linear_quick_gelu_forward(o->k, &hidden, &n, &l->fc1.w, &l->fc1.b);
    linear(o, &n, &hidden, &l->fc2);
    add(o->k, x, &n);
    kern_release(o->k, mark);
}

void owl_vision_layer(struct owl *o, const struct owl_vision_layer *l, struct tensor *x, int64_t frames)
{
    temporal_block(o, l, x, frames);
    attention_block(o, l, x, frames);
    feed_forward_block(o, l, x);
}

void owl_vision(struct owl *o, struct tensor *y, const struct tensor *pixels)
{
    const int64_t frames = pixels->shape[0], tokens = owl_frame_tokens(&o->c), width = o->c.vision.width;
    const int64_t patch = o->c.vision.patch, patches = frames * (tokens - 1);
    size_t mark = kern_mark(o->k);
    struct tensor x = activation(o, frames * tokens, width);
    size_t inner = kern_mark(o->k);
    struct tensor rows = activation(o, patches, 3 * patch * patch), embedded = activation(o, patches, width);
    struct tensor w = tensor_as(&o->vision.patches, 2, width, 3 * patch * patch);
    struct tensor cls = tensor_as(&o->vision.cls, 1, width),
                  positions = tensor_as(&o->vision.positions, 2, tokens, width);

    pixel_patches(o->k, &rows, pixels, (int)patch, clip_mean, clip_std);
    linear_forward(o->k, &embedded, &rows, &w, NULL);
    class_tokens_forward(o->k, y, &embedded, &cls, &positions);
    norm(o, &x, y, &o->vision.pre_norm, o->c.vision.eps);
    kern_release(o->k, inner);
    for (int i = 0; i < o->c.vision.layers; i++) owl_vision_layer(o, &o->vision.layer[i], &x, frames);
    norm(o, y, &x, &o->vision.post_norm, o->c.vision.eps);
    kern_release(o->k, mark);
}

/* ---- the visual abstractor ----------------------------------------------------------------------------- */

/* q = y + FF(norm(y)), y = norm(q) + attention of norm(q) to itself and to what was seen. What adds up is the
 * normalised query: the query itself does not outlive the layer. */
static void abstractor_layer(struct owl *o, const struct owl_abstractor_layer *l, struct tensor *q,
                             const struct tensor *seen)
{
    const int64_t rows = q->shape[0], all = rows + seen->shape[0], width = q->shape[1];
    const int64_t heads = o->c.abstractor.heads, hidden = o->c.abstractor.hidden;
    size_t mark = kern_mark(o->k);
    struct tensor both = activation(o, all, width), qn = tensor_rows(&both, 0, rows),
                  kn = tensor_rows(&both, rows, seen->shape[0]);
    struct tensor query = activation(o, rows, width), n = activation(o, rows, width);
    struct tensor keys = activation(o, all, width), values = activation(o, all, width);
    struct tensor gate = activation(o, rows, hidden), up = activation(o, rows, hidden);

    norm(o, &qn, q, &l->norm_q, NORM_EPS);
    norm(o, &kn, seen, &l->norm_kv, NORM_EPS);
    linear(o, &query, &qn, &l->q);
    linear(o, &keys, &both, &l->k);
    linear(o, &values, &both, &l->v);
    attention_forward(
        o->k, &n, NULL, &query, &keys, &values, NULL,
        &(struct attention){.heads = (int)heads, .scale = (float)(1 / sqrt((double)(width / heads)))});
    linear(o, q, &n, &l->out);
    add(o->k, q, &qn);

    norm(o, &n, q, &l->norm2, NORM_EPS);
    linear(o, &gate, &n, &l->gate);
    linear(o, &up, &n, &l->up);
    silu_mul_forward(o->k, &gate, &gate, &up);
    norm(o, &up, &gate, &l->norm_ff, o->c.abstractor.eps);
    linear(o, &n, &up, &l->down);
    add(o->k, q, &n);
    kern_release(o->k, mark);
}

void owl_abstractor(struct owl *o, struct tensor *video, const struct tensor *seen)
{
    const int64_t queries = o->c.abstractor.queries, width = o->c.vision.width, out = o->c.decoder.width;
    size_t mark = kern_mark(o->k);
    struct tensor q = activation(o, 2 * queries, width), over_time = activation(o, queries, out);
    struct tensor space = tensor_rows(&q, 0, queries), time = tensor_rows(&q, queries, queries);
    struct tensor tokens = tensor_rows(video, 0, queries), eos = tensor_rows(video, queries, 1);

    kern_copy(o->k, &space, &o->abstractor.queries);
    kern_copy(o->k, &time, &o->abstractor.time_queries);
    for (int i = 0; i < o->c.abstractor.layers; i++) abstractor_layer(o, &o->abstractor.layer[i], &q, seen);
    linear(o, &tokens, &space, &o->abstractor.project);
    linear(o, &over_time, &time, &o->abstractor.project_time);
    add(o->k, &tokens, &over_time);
    kern_copy(o->k, &eos, &o->abstractor.eos);
    kern_release(o->k, mark);
}

/* ---- the decoder: LLaMA -------------------------------------------------------------------------------- */

/* n = attention of the stretch's rows, of which q, key and value are given, to what stands before them and to each
 * other. Every stretch has a call of its own: what it gives does not depend on the others. */
static void attend(struct owl *o, const struct owl_decoder_layer *l, const struct owl_stretch *s,
                   struct tensor *n, struct tensor *q, const struct tensor *key, const struct tensor *value)
{
    struct kern *k = o->k;
    const struct tensor *cos = &o->decoder.cos, *sin = &o->decoder.sin, *kept[2] = {&l->keys, &l->values};
    const int64_t width = o->c.decoder.width, heads = o->c.decoder.heads;
    struct tensor keys = tensor_rows(&l->keys, s->at, s->first + s->rows),
                  values = tensor_rows(&l->values, s->at, s->first + s->rows);
    struct tensor new_key = tensor_rows(&keys, s->first, s->rows),
                  new_value = tensor_rows(&values, s->first, s->rows);

    for (int i = 0; s->shared && i < 2; i++) {
        struct tensor from = tensor_rows(kept[i], 0, s->shared), to = tensor_rows(kept[i], s->at, s->shared);
        kern_copy(k, &to, &from);
    }
    rope_forward(k, q, q, cos, sin, s->first);
    rope_forward(k, &new_key, key, cos, sin, s->first);
    kern_copy(k, &new_value, value);
    attention_forward(k, n, NULL, q, &keys, &values, NULL,
                      &(struct attention){.heads = (int)heads,
                                          .scale = (float)(1 / sqrt((double)(width / heads))),
                                          .causal = true});
}

static void decoder_layer(struct owl *o, const struct owl_decoder_layer *l, struct tensor *x,
                          const struct owl_stretch *s, int count)
{
    struct kern *k = o->k;
    const int64_t rows = x->shape[0], width = x->shape[1];
    size_t mark = kern_mark(k);
    struct tensor n = activation(o, rows, width), all = activation(o, 3 * rows, width),
                  qkv = tensor_as(&all, 3, 3, rows, width), hidden = activation(o, rows, o->c.decoder.hidden);

    rms_norm_forward(k, &n, x, &l->norm1, o->c.decoder.eps);
    linear_parts_forward(k, &qkv, &n, &l->qkv);
    for (int64_t i = 0, row = 0; i < count; row += s[i++].rows) {
        struct tensor out = tensor_rows(&n, row, s[i].rows), q = tensor_rows(&all, row, s[i].rows),
                      key = tensor_rows(&all, rows + row, s[i].rows),
                      value = tensor_rows(&all, 2 * rows + row, s[i].rows);
        attend(o, l, &s[i], &out, &q, &key, &value);
    }
    linear_add_forward(k, x, &n, &l->o);

    rms_norm_forward(k, &n, x, &l->norm2, o->c.decoder.eps);
    linear_silu_mul_forward(k, &hidden, &n, &l->gate_up);
    linear_add_forward(k, x, &hidden, &l->down);
    kern_release(k, mark);
}

void owl_decoder(struct owl *o, struct tensor *x, const struct owl_stretch *s, int count)
{
    for (int i = 0; i < o->c.decoder.layers; i++) decoder_layer(o, &o->decoder.layer[i], x, s, count);
}

void owl_head(struct owl *o, struct tensor *logits, const struct tensor *x)
{
    size_t mark = kern_mark(o->k);
    struct tensor n = activation(o, x->shape[0], x->shape[1]);
    rms_norm_forward(o->k, &n, x, &o->decoder.norm, o->c.decoder.eps);
    matmul(o->k, logits, &n, false, &o->decoder.head, true, 1, 0);
    kern_release(o->k, mark);
}
