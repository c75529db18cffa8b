/* t5 - the text encoders: T5 v1.1's encoder half (Raffel et al. 2020, with Shazeer's gated GELU), as CogVideoX
 * reads it, and UMT5's (Chung et al. 2023), as Wan does, whose layers each have a table of positions of their own.
 *
 * T5's padding takes part: no mask hides it, neither here nor in the transformer that is fed with the result. UMT5's
 * would be masked, and its rows thrown away: it is left out, with the same result. */
#include "filters/nets/t5.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/prompt_clean.h"

enum { MAX_LAYERS = 128 };

struct t5_config {
    int64_t width, heads, head, hidden, layers, vocab, buckets, max_distance;
    float eps;
};

struct t5 {
    struct kern *k;
    struct t5_config c;
    bool own_positions;         /* a table in every layer, not one for all */
    int64_t count, length;      /* texts at once, and ids of each, that there is scratch memory for */
    struct weight_rows *shared; /* [vocab,width]: the embedding of each id */
    struct tensor final_norm;   /* [width] */
    struct layer {              /* inner = heads head */
        struct tensor buckets;  /* [buckets,heads]: what attention adds to q kᵀ, by distance */
        struct tensor bias;     /* F32 [heads,2 longest - 1], made from it, or the first layer's */
        struct tensor norm1;    /* [width] */
        struct tensor qkv;      /* [3 inner,width] */
        struct tensor o;        /* [width,inner] */
        struct tensor norm2;    /* [width] */
        struct tensor gate_up;  /* [2 hidden,width]: wi_0, wi_1 */
        struct tensor down;     /* [width,hidden]: wo */
    } layer[MAX_LAYERS];
};

static bool configure_t5(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    struct t5_config *c = &((struct t5 *)net)->c;
    struct config f = {.json = json, .file = file};
    *c = (struct t5_config){
        .width = config_int(&f, "d_model", 1, 1 << 16),
        .heads = config_int(&f, "num_heads", 1, 1024),
        .head = config_int(&f, "d_kv", 1, 1024),
        .hidden = config_int(&f, "d_ff", 1, 1 << 18),
        .layers = config_int(&f, "num_layers", 1, MAX_LAYERS),
        .vocab = config_int(&f, "vocab_size", 2, 1 << 20),
        .buckets = config_int_or(&f, "relative_attention_num_buckets", 4, 1024, 32),
        .max_distance = config_int_or(&f, "relative_attention_max_distance", 2, 1 << 20, 128),
        .eps = (float)config_real_or(&f, "layer_norm_epsilon", 1e-6),
    };
    config_expect(&f, "feed_forward_proj", json_string("gated-gelu"));
    config_expect(&f, "dense_act_fn", json_string("gelu_new"));
    config_expect(&f, "is_gated_act", json_true());
    if (f.error[0]) return fail(err, errlen, "%s", f.error);
    if (!config_text_or(&f, "feed_forward_proj", NULL)) /* left out, it means the plain ReLU of T5 v1.0 */
        return fail(err, errlen, "%s: no feed_forward_proj; only \"gated-gelu\" is known here", file);
    if (c->buckets % 4 || c->max_distance <= c->buckets / 4)
        return fail(err, errlen, "%s: %lld buckets do not fit a relative_attention_max_distance of %lld",
                    file, (long long)c->buckets, (long long)c->max_distance);
    return true;
}

static bool configure_umt5(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    ((struct t5 *)net)->own_positions = true;
    return configure_t5(net, json, file, err, errlen);
}

/* Wan's is 2 GB, of which a text needs some hundred rows. */
static struct param *add_shared(struct params *list, const struct t5_config *c)
{
    return param_add(list, NULL, shape_of(2, c->vocab, c->width), 0, 1, "shared.weight");
}

/* Names, shapes and slots, once. Initial values as T5's own: as nothing divides q kᵀ by √d,
 * q is born small. */
static void add_params(struct params *list, void *net)
{
    struct t5 *t = net;
    const struct t5_config *c = &t->c;
    const int64_t inner = c->heads * c->head;
    const double narrow = 1 / sqrt((double)c->width);
    const struct tensor norm = shape_of(1, c->width), into = shape_of(2, inner, c->width),
                        wide = shape_of(2, c->hidden, c->width);

    add_shared(list, c);
    for (int i = 0; i < c->layers; i++) {
        struct layer *l = &t->layer[i];
#define NAME(rest) "encoder.block.%d.layer." rest ".weight", i
        param_part(
            param_add(list, &l->qkv, into, 0, narrow / sqrt((double)c->head), NAME("0.SelfAttention.q")), 0,
            3);
        param_part(param_add(list, &l->qkv, into, 0, narrow, NAME("0.SelfAttention.k")), 1, 3);
        param_part(param_add(list, &l->qkv, into, 0, narrow, NAME("0.SelfAttention.v")), 2, 3);
        param_add(list, &l->o, shape_of(2, c->width, inner), 0, 1 / sqrt((double)inner),
                  NAME("0.SelfAttention.o"));
        if (i == 0 || t->own_positions)
            param_add(list, &l->buckets, shape_of(2, c->buckets, c->heads), 0, 1,
                      NAME("0.SelfAttention.relative_attention_bias"));
        param_add(list, &l->norm1, norm, 1, 0, NAME("0.layer_norm"));
        param_part(param_add(list, &l->gate_up, wide, 0, narrow, NAME("1.DenseReluDense.wi_0")), 0, 2);
        param_part(param_add(list, &l->gate_up, wide, 0, narrow, NAME("1.DenseReluDense.wi_1")), 1, 2);
        param_add(list, &l->down, shape_of(2, c->width, c->hidden), 0, 1 / sqrt((double)c->hidden),
                  NAME("1.DenseReluDense.wo"));
        param_add(list, &l->norm2, norm, 1, 0, NAME("1.layer_norm"));
#undef NAME
    }
    param_add(list, &t->final_norm, norm, 1, 0, "encoder.final_layer_norm.weight");
}

int t5_bucket(int64_t distance, int buckets, int64_t max_distance)
{
    int side = buckets / 2, exact = side / 2, first = distance > 0 ? side : 0;
    int64_t d = llabs(distance);
    if (d < exact) return first + (int)d;
    /* Exact where it matters: with the usual 32 and 128 the logarithms are whole numbers at every power of
     * two, and no other integer lies on a boundary. */
    double grown = log2((double)d / exact) / log2((double)max_distance / exact) * (side - exact);
    return first + (grown >= side - exact ? side - 1 : exact + (int)grown);
}

/* bias[h,longest-1+d] = table[bucket(d),h], in device memory, of every distance d of two ids */
static void position_bias(struct t5 *t, struct layer *l, int64_t longest)
{
    const int64_t heads = t->c.heads, distances = 2 * longest - 1;
    struct tensor table = tensor_of(DT_F32, NULL, 2, t->c.buckets, heads);
    struct tensor bias = tensor_of(DT_F32, NULL, 2, heads, distances);
    table.data = malloc(tensor_bytes(&table));
    bias.data = malloc(tensor_bytes(&bias));
    if (table.data && bias.data) {
        kern_download(t->k, &table, &l->buckets);
        for (int64_t i = 0; i < distances; i++) {
            int bucket = t5_bucket(i - (longest - 1), (int)t->c.buckets, t->c.max_distance);
            for (int64_t h = 0; h < heads; h++)
                ((float *)bias.data)[h * distances + i] = ((const float *)table.data)[bucket * heads + h];
        }
        l->bias = kern_alloc(t->k, DT_F32, 2, heads, distances);
        kern_upload(t->k, &l->bias, &bias);
    } else {
        kern_fail(t->k, "out of memory for the positions of %lld ids", (long long)longest);
    }
    free(table.data);
    free(bias.data);
}

/* `count` texts one after the other, each seeing itself alone: embeds [count length,D], ids [count length] */
static void t5_forward(struct t5 *t, struct tensor *embeds, const struct tensor *ids, int64_t count)
{
    struct kern *k = t->k;
    const struct t5_config *c = &t->c;
    const int64_t rows = tensor_count(ids), inner = c->heads * c->head;
    const enum dtype x_type = kern_compute(k);
    size_t mark = kern_mark(k);
    struct tensor x = kern_tensor(k, x_type, 2, rows, c->width),
                  n = kern_tensor(k, x_type, 2, rows, c->width);
    struct tensor qkv = kern_tensor(k, x_type, 3, 3, rows, inner), all = tensor_as(&qkv, 2, 3 * rows, inner);
    struct tensor q = tensor_rows(&all, 0, rows), key = tensor_rows(&all, rows, rows),
                  v = tensor_rows(&all, 2 * rows, rows), o = kern_tensor(k, x_type, 2, rows, inner);
    struct tensor hidden = kern_tensor(k, x_type, 2, rows, c->hidden);

    weight_rows_read(k, &x, t->shared, ids->data); /* no scaling, no positions */
    for (int i = 0; i < c->layers; i++) {
        const struct layer *l = &t->layer[i];

        rms_norm_forward(k, &n, &x, &l->norm1, c->eps);
        linear_parts_forward(k, &qkv, &n, &l->qkv);
        attention_forward(k, &o, NULL, &q, &key, &v, &l->bias,
                          &(struct attention){.heads = (int)c->heads,
                                              .scale = 1, /* not divided by √d */
                                              .batch = count});
        linear_add_forward(k, &x, &o, &l->o);

        rms_norm_forward(k, &n, &x, &l->norm2, c->eps);
        linear_gelu_mul_forward(k, &hidden, &n, &l->gate_up);
        linear_add_forward(k, &x, &hidden, &l->down);
    }
    rms_norm_forward(k, &n, &x, &t->final_norm, c->eps);
    expect_finite(k, "the text encoder's output", &n);
    kern_download(k, embeds, &n);
    kern_release(k, mark);
}

/* Scratch memory for so many texts of so many ids at once. */
static bool room_for(struct t5 *t, int64_t count, int64_t length)
{
    struct tensor embeds = tensor_of(DT_F32, NULL, 2, count * length, t->c.width),
                  ids = tensor_of(DT_I32, NULL, 1, count * length);
    if (count == t->count && length == t->length) return kern_ok(t->k);
    kern_plan_begin(t->k);
    t5_forward(t, &embeds, &ids, count);
    if (kern_reserve(t->k, kern_plan_end(t->k))) t->count = count, t->length = length;
    return kern_ok(t->k);
}

/* Whether they can be encoded, and there is room for the result; else why not is the device's error. */
static bool acceptable(const struct text_encoder *e, const struct tensor *embeds, const struct tensor *ids)
{
    struct kern *k = e->k;
    char what[64], wanted[64];
    const int64_t length = ids->rank ? ids->shape[ids->rank - 1] : 0, all = tensor_count(ids);
    snprintf(wanted, sizeof wanted, "%s%lld", e->kind->padded ? "" : "1..", (long long)e->length);
    if (ids->dtype != DT_I32 || ids->rank > 2 || length < (e->kind->padded ? e->length : 1) ||
        length > e->length)
        kern_fail(k, "ids are %s, not I32 [%s]", tensor_describe(what, sizeof what, ids), wanted);
    else if (!dtype_is_float(embeds->dtype) || tensor_count(embeds) != all * e->width ||
             embeds->shape[embeds->rank - 1] != e->width)
        kern_fail(k, "no room for embeddings of [%lld,%lld] in %s", (long long)all, (long long)e->width,
                  tensor_describe(what, sizeof what, embeds));
    for (int64_t i = 0; kern_ok(k) && i < all; i++) {
        int32_t id = ((const int32_t *)ids->data)[i];
        if (id < 0 || id >= e->vocab)
            kern_fail(k, "id %d at %lld is not in the vocabulary of %lld", id, (long long)(i % length),
                      (long long)e->vocab);
    }
    return kern_ok(k);
}

static bool encode(struct text_encoder *e, struct tensor *embeds, const struct tensor *ids)
{
    struct t5 *t = e->net;
    if (!acceptable(e, embeds, ids)) return false;
    const int64_t length = ids->shape[ids->rank - 1], count = tensor_count(ids) / length;
    struct tensor rows = tensor_as(embeds, 2, count * length, e->width),
                  all = tensor_as(ids, 1, count * length);
    /* The CPU gains nothing by more than one. On a GPU the way of a product depends on how many rows there are: with
     * T5's one length it was measured to be the same for one text and for many; of other lengths each goes alone. */
    const int64_t step =
        !strcmp(kern_device(t->k), "cpu") || !e->kind->padded || length <= FEW_ROWS ? 1 : count;
    for (int64_t i = 0; i < count && room_for(t, step, length); i += step) {
        struct tensor to = tensor_rows(&rows, i * length, step * length),
                      from = tensor_rows(&all, i * length, step * length);
        t5_forward(t, &to, &from, step);
    }
    return kern_ok(t->k);
}

/* What there is no room for is refused here, before the first record. */
static bool open_t5(struct text_encoder *e, const struct model *m, char *err, size_t errlen)
{
    struct t5 *t = e->net;
    struct params list = {0};
    t->k = e->k;
    t->shared = weight_rows_open(m, "text_encoder", add_shared(&list, &t->c), err, errlen);
    params_free(&list);
    if (!t->shared) return false;
    e->width = t->c.width;
    e->vocab = t->c.vocab;
    for (int i = 0; i < t->c.layers && kern_ok(t->k); i++)
        if (i == 0 || t->own_positions)
            position_bias(t, &t->layer[i], e->length);
        else
            t->layer[i].bias = t->layer[0].bias;
    return room_for(t, 1, e->length) || fail(err, errlen, "text_encoder: %s", kern_error(t->k));
}

static void close_t5(void *net)
{
    weight_rows_close(((struct t5 *)net)->shared);
}

static const char *const ignored[] = {"encoder.embed_tokens.weight",
                                      NULL}; /* shared.weight by another name */

const struct text_encoder_kind t5_encoder = {
    .network = {.class_name = "t5",
                .file = "model",
                .dtype = DT_BF16,
                .alias = ignored,
                .size = sizeof(struct t5),
                .configure = configure_t5,
                .params = add_params},
    .padded = true,
    .open = open_t5,
    .close = close_t5,
    .encode = encode,
};

const struct text_encoder_kind umt5_encoder = {
    .network = {.class_name = "umt5",
                .file = "model",
                .dtype = DT_BF16,
                .alias = ignored,
                .size = sizeof(struct t5),
                .configure = configure_umt5,
                .params = add_params},
    .clean = prompt_clean,
    .open = open_t5,
    .close = close_t5,
    .encode = encode,
};
