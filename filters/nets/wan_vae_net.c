#include "filters/nets/wan_vae_net.h"

#include <math.h>

/* ---- configuration ---- */

/* latents_mean and latents_std: as many numbers as there are channels. */
static bool read_reals(json_t *json, const char *file, const char *key, double *to, int64_t n, double least,
                       char *err, size_t errlen)
{
    json_t *list = json_object_get(json, key);
    if (!json_is_array(list) || (int64_t)json_array_size(list) != n)
        return fail(err, errlen, "%s: %s is no list of %lld numbers, as z_dim says", file, key, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        json_t *item = json_array_get(list, (size_t)i);
        to[i] = json_number_value(item);
        if (!json_is_number(item) || !isfinite(to[i]) || !(to[i] > least))
            return fail(err, errlen, "%s: %s[%lld] is no number%s", file, key, (long long)i,
                        least < 0 ? "" : " above 0");
    }
    return true;
}

/* Which levels halve time: two of all but the last, since the reference's chunks are of four frames. */
static bool read_time(struct wan_vae_config *c, json_t *json, const char *file, char *err, size_t errlen)
{
    json_t *list = json_object_get(json, "temperal_downsample");
    int count = 0;
    if (!json_is_array(list) || (int)json_array_size(list) != c->levels - 1)
        return fail(err, errlen, "%s: temperal_downsample is no list of %d, one less than dim_mult", file,
                    c->levels - 1);
    for (int i = 0; i < c->levels - 1; i++) {
        json_t *item = json_array_get(list, (size_t)i);
        if (!json_is_boolean(item))
            return fail(err, errlen, "%s: temperal_downsample[%d] is neither true nor false", file, i);
        c->halves_time[i] = json_is_true(item);
        count += c->halves_time[i];
    }
    if (count != 2)
        return fail(err, errlen,
                    "%s: temperal_downsample halves time %d times; only a model that does twice is supported",
                    file, count);
    return true;
}

/* Shortcuts share values out evenly: into means of so many, and into so many repeats. */
static bool check_shortcuts(const struct wan_vae_config *c, const char *file, char *err, size_t errlen)
{
    const int last = c->levels - 1;
    for (int i = 0; i <= last; i++) {
        const int64_t down = i == last ? 1 : c->halves_time[i] ? 8 : 4;
        if (c->encoder[i] * down % c->encoder[i + 1])
            return fail(err, errlen, "%s: dim_mult: no even shortcut from %lld to %lld channels", file,
                        (long long)c->encoder[i], (long long)c->encoder[i + 1]);
        const int64_t up = i == last ? 0 : c->halves_time[last - 1 - i] ? 8 : 4;
        if (c->decoder[i + 1] * up % c->decoder[i])
            return fail(err, errlen, "%s: dim_mult: no even shortcut from %lld to %lld channels", file,
                        (long long)c->decoder[i], (long long)c->decoder[i + 1]);
    }
    return true;
}

bool wan_vae_configure(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    struct wan_vae_config *c = &((struct wan_vae *)net)->c;
    struct config f = {.json = json, .file = file};
    int64_t times[WAN_LEVELS] = {0};
    const int64_t base = config_int(&f, "base_dim", 1, 1 << 12),
                  decoder_base = config_int_or(&f, "decoder_base_dim", 1, 1 << 12, base);
    *c = (struct wan_vae_config){
        .levels = config_ints(&f, "dim_mult", times, WAN_LEVELS),
        .resnets = (int)config_int(&f, "num_res_blocks", 1, WAN_RESNETS - 1),
        .latent = config_int(&f, "z_dim", 1, sizeof c->mean / sizeof *c->mean),
        .residual = config_bool_or(&f, "is_residual", false),
        .patch = (int)config_int_or(&f, "patch_size", 1, 64, 1),
    };
    if (!f.error[0] && c->patch != (c->residual ? 2 : 1))
        return fail(err, errlen,
                    "%s: patch_size %d, is_residual %s; supported are 2 with true and none with false", file,
                    c->patch, c->residual ? "true" : "false");
    const int64_t pixel = (int64_t)3 * c->patch * c->patch;
    c->side = (int64_t)1 << (c->levels > 0 ? c->levels - 1 : 0);
    config_expect(&f, "attn_scales", json_array());
    config_expect(&f, "in_channels", json_integer(pixel));
    config_expect(&f, "out_channels", json_integer(pixel));
    config_expect(&f, "scale_factor_temporal", json_integer(WAN_GROUP));
    config_expect(&f, "scale_factor_spatial", json_integer(c->side * c->patch));
    if (f.error[0]) return fail(err, errlen, "%s", f.error);

    for (int i = 0; i < c->levels; i++)
        if (times[i] > 256) return fail(err, errlen, "%s: dim_mult[%d] is above 256", file, i);
    c->encoder[0] = base * 1;
    c->decoder[0] = decoder_base * times[c->levels - 1];
    for (int i = 0; i < c->levels; i++) {
        c->encoder[i + 1] = base * times[i];
        c->decoder[i + 1] = decoder_base * times[c->levels - 1 - i];
        if (!c->residual && i < c->levels - 1 && c->decoder[i + 1] < 2)
            return fail(err, errlen, "%s: base_dim %lld leaves no channels to halve", file,
                        (long long)decoder_base);
    }
    return read_time(c, json, file, err, errlen) && (!c->residual || check_shortcuts(c, file, err, errlen)) &&
           read_reals(json, file, "latents_mean", c->mean, c->latent, -INFINITY, err, errlen) &&
           read_reals(json, file, "latents_std", c->deviation, c->latent, 0, err, errlen);
}

/* ---- parameters ---- */

enum taps { CUBE = 27, SQUARE = 9, TIME = 3, POINT = 1, PIXEL = 0 }; /* PIXEL: a POINT of rank 4 */

/* Random weights keep about a unit variance, times gain². */
static void declare_conv(struct params *list, struct conv *c, int64_t in, int64_t out, enum taps taps,
                         double gain, const char *name)
{
    const int n = taps == PIXEL ? 1 : (int)taps;
    struct tensor shape = taps == CUBE     ? shape_of(5, out, in, 3, 3, 3)
                          : taps == SQUARE ? shape_of(4, out, in, 3, 3)
                          : taps == TIME   ? shape_of(5, out, in, 3, 1, 1)
                          : taps == POINT  ? shape_of(5, out, in, 1, 1, 1)
                                           : shape_of(4, out, in, 1, 1);
    struct param *w = param_add(list, &c->w, shape, 0, gain / sqrt((double)(in * n)), "%s.weight", name);
    w->channels_last = n > 1;
    param_add(list, &c->b, shape_of(1, out), 0, 0, "%s.bias", name);
}

static void remember(struct wan_coder *coder, struct tensor *at, int64_t frames, int64_t channels, int scale)
{
    coder->memory[coder->memories++] = (struct wan_memory){at, frames, channels, scale};
}

static void declare_causal(struct params *list, struct wan_coder *coder, struct causal *c, int64_t in,
                           int64_t out, int scale, double gain, const char *name)
{
    remember(coder, &c->history, 2, in, scale);
    declare_conv(list, &c->conv, in, out, CUBE, gain, name);
}

static void declare_resnet(struct params *list, struct wan_coder *coder, struct wan_resnet *r, int64_t in,
                           int64_t out, int scale, const char *name)
{
    char part[128];
#define PART(rest) (snprintf(part, sizeof part, "%s." rest, name), part)
    r->in = in;
    r->out = out;
    param_add(list, &r->norm1, shape_of(4, in, 1, 1, 1), 1, 0, "%s.norm1.gamma", name);
    declare_causal(list, coder, &r->conv1, in, out, scale, 1.4, PART("conv1"));
    param_add(list, &r->norm2, shape_of(4, out, 1, 1, 1), 1, 0, "%s.norm2.gamma", name);
    declare_causal(list, coder, &r->conv2, out, out, scale, 1.4, PART("conv2"));
    if (in != out) declare_conv(list, &r->shortcut, in, out, POINT, 1, PART("conv_shortcut"));
#undef PART
}

/* What ends a level: in space from `in` to `out` channels, and in time on `in`, to so many times as many. */
static void declare_resampling(struct params *list, struct wan_coder *coder, struct wan_level *l, int64_t in,
                               int64_t out, bool in_time, int64_t wider, int scale, const char *name)
{
    char part[128];
    snprintf(part, sizeof part, "%s.resample.1", name);
    declare_conv(list, &l->space, in, out, SQUARE, 1, part);
    l->in_time = in_time;
    if (!in_time) return;
    snprintf(part, sizeof part, "%s.time_conv", name);
    declare_conv(list, &l->time, in, wider * in, TIME, 1, part);
    remember(coder, &l->before, wider, in, scale);
}

static void declare_mid(struct params *list, struct wan_coder *coder, int64_t channels, int scale,
                        const char *name)
{
    struct wan_attention *a = &coder->attention;
    char part[128];
    coder->mid.resnets = 2;
#define PART(rest) (snprintf(part, sizeof part, "%s.mid_block." rest, name), part)
    declare_resnet(list, coder, &coder->mid.resnet[0], channels, channels, scale, PART("resnets.0"));
    param_add(list, &a->norm, shape_of(3, channels, 1, 1), 1, 0, "%s", PART("attentions.0.norm.gamma"));
    declare_conv(list, &a->qkv, channels, 3 * channels, PIXEL, 1, PART("attentions.0.to_qkv"));
    declare_conv(list, &a->proj, channels, channels, PIXEL, 1, PART("attentions.0.proj"));
    declare_resnet(list, coder, &coder->mid.resnet[1], channels, channels, scale, PART("resnets.1"));
#undef PART
}

/* Of residual block j of a level of the encoder, and after the last of what halves it. In 2.1 all of them are one list. */
static void name_down(char name[64], const struct wan_vae_config *c, int i, int j)
{
    if (!c->residual)
        snprintf(name, 64, "encoder.down_blocks.%d", i * (c->resnets + 1) + j);
    else if (j < c->resnets)
        snprintf(name, 64, "encoder.down_blocks.%d.resnets.%d", i, j);
    else
        snprintf(name, 64, "encoder.down_blocks.%d.downsampler", i);
}

static void encoder_params(struct params *list, const struct wan_vae_config *c, struct wan_coder *e)
{
    const int last = c->levels - 1;
    const int64_t top = c->encoder[c->levels];
    char name[64];
    declare_causal(list, e, &e->conv_in, 3 * c->patch * c->patch, c->encoder[0], 0, 1, "encoder.conv_in");
    for (int i = 0; i <= last; i++) {
        struct wan_level *l = &e->level[i];
        l->resnets = c->resnets;
        for (int j = 0; j < l->resnets; j++) {
            name_down(name, c, i, j);
            declare_resnet(list, e, &l->resnet[j], c->encoder[j ? i + 1 : i], c->encoder[i + 1], i, name);
        }
        if (i == last) break;
        name_down(name, c, i, c->resnets);
        declare_resampling(list, e, l, c->encoder[i + 1], c->encoder[i + 1], c->halves_time[i], 1, i + 1,
                           name);
    }
    declare_mid(list, e, top, last, "encoder");
    param_add(list, &e->norm_out, shape_of(4, top, 1, 1, 1), 1, 0, "encoder.norm_out.gamma");
    declare_causal(list, e, &e->conv_out, top, 2 * c->latent, last, 1, "encoder.conv_out");
    declare_conv(list, &e->quant, 2 * c->latent, 2 * c->latent, POINT, 1, "quant_conv");
}

static void decoder_params(struct params *list, const struct wan_vae_config *c, struct wan_coder *d)
{
    const int last = c->levels - 1;
    const int64_t top = c->decoder[0];
    char name[64];
    declare_conv(list, &d->quant, c->latent, c->latent, POINT, 1, "post_quant_conv");
    declare_causal(list, d, &d->conv_in, c->latent, top, last, 1, "decoder.conv_in");
    declare_mid(list, d, top, last, "decoder");
    for (int i = 0; i <= last; i++) {
        struct wan_level *l = &d->level[i];
        const int64_t in = i && !c->residual ? c->decoder[i] / 2 : c->decoder[i], out = c->decoder[i + 1];
        l->resnets = c->resnets + 1;
        for (int j = 0; j < l->resnets; j++) {
            snprintf(name, sizeof name, "decoder.up_blocks.%d.resnets.%d", i, j);
            declare_resnet(list, d, &l->resnet[j], j ? out : in, out, last - i, name);
        }
        if (i == last) break;
        snprintf(name, sizeof name, "decoder.up_blocks.%d.upsampler%s", i, c->residual ? "" : "s.0");
        declare_resampling(list, d, l, out, c->residual ? out : out / 2, c->halves_time[last - 1 - i], 2,
                           last - i, name);
    }
    param_add(list, &d->norm_out, shape_of(4, c->decoder[c->levels], 1, 1, 1), 1, 0,
              "decoder.norm_out.gamma");
    declare_causal(list, d, &d->conv_out, c->decoder[c->levels], 3 * c->patch * c->patch, 0, 0.5,
                   "decoder.conv_out");
}

void wan_vae_params(struct params *list, void *net)
{
    struct wan_vae *v = net;
    const int from = list->count;
    encoder_params(list, &v->c, &v->encoder);
    const int half = list->count;
    decoder_params(list, &v->c, &v->decoder);
    for (int i = from; i < list->count; i++) /* without a slot: checked, not loaded */
        if (i < half ? v->encoder.unused : v->decoder.unused) list->param[i].slot = NULL;
}

/* ---- layers ---- */

static void norm(struct wan_vae *v, struct tensor *y, const struct tensor *x, const struct tensor *gamma,
                 bool silu)
{
    const struct tensor w = tensor_as(gamma, 1, tensor_count(gamma));
    channel_norm_forward(v->k, y, x, &w, silu);
}

/* y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))))))      all roomy, and may not overlap; x is used up */
static void resnet(struct wan_vae *v, struct wan_resnet *r, struct tensor *y, struct tensor *x)
{
    size_t mark = kern_mark(v->k);
    struct tensor h = roomy_like(v->k, x, r->out), *n = y, sum = *x;
    if (r->in != r->out) {
        sum = activation_like(v->k, x, r->out);
        pointwise_forward(v->k, &sum, x, &r->shortcut);
        n = x;
    }
    norm(v, n, x, &r->norm1, true);
    causal_forward(v->k, &h, n, &r->conv1, false, NULL);
    norm(v, &h, &h, &r->norm2, true);
    causal_forward(v->k, y, &h, &r->conv2, false, &sum);
    kern_release(v->k, mark);
}

/* Rows of pixels [T H W,C] by the i-th of three parts of a 1x1 convolution */
static void part_of(struct wan_vae *v, struct tensor *y, const struct tensor *x, const struct conv *c, int i)
{
    const int64_t C = x->shape[1];
    const struct tensor all = tensor_as(&c->w, 2, 3 * C, C), w = tensor_rows(&all, i * C, C),
                        b = tensor_rows(&c->b, i * C, C);
    linear_forward(v->k, y, x, &w, &b);
}

/* x += proj(attention(norm(x))), frame by frame */
static void attend(struct wan_vae *v, const struct wan_attention *w, struct tensor *x)
{
    const int64_t C = x->shape[3], pixels = tensor_count(x) / C;
    const struct attention a = {.heads = 1, .scale = (float)(1 / sqrt((double)C)), .batch = x->shape[0]};
    size_t mark = kern_mark(v->k);
    struct tensor n = activation_like(v->k, x, C), rows = tensor_as(&n, 2, pixels, C), part[3];
    norm(v, &n, x, &w->norm, false);
    for (int i = 0; i < 3; i++) {
        part[i] = kern_tensor(v->k, kern_compute(v->k), 2, pixels, C);
        part_of(v, &part[i], &rows, &w->qkv, i);
    }
    attention_forward(v->k, &rows, NULL, &part[0], &part[1], &part[2], NULL, &a);
    struct tensor made = tensor_as(&part[0], 4, x->shape[0], x->shape[1], x->shape[2], C);
    pointwise_forward(v->k, &made, &n, &w->proj);
    add(v->k, x, &made);
    kern_release(v->k, mark);
}

/* The residual blocks one after the other, to and fro between two tensors; the attention, where there is one, after
 * the first. */
static struct tensor level(struct wan_vae *v, struct wan_level *l, struct tensor x,
                           const struct wan_attention *attention)
{
    struct tensor y = roomy_like(v->k, &x, l->resnet[0].out);
    for (int j = 0; j < l->resnets; j++) {
        struct tensor used = x;
        resnet(v, &l->resnet[j], &y, &x);
        x = y;
        y = j == 0 && used.shape[3] != x.shape[3] ? roomy_like(v->k, &x, x.shape[3]) : used;
        if (attention && j == 0) attend(v, attention, &x);
    }
    return x;
}

/* x with the frames before it, which are remembered, in front; then its own last ones are. */
static struct tensor with_history(struct wan_vae *v, const struct tensor *x, struct tensor *before)
{
    struct tensor all = with_room(x, before->shape[0]), front = tensor_rows(&all, 0, before->shape[0]);
    const struct tensor last = tensor_rows(&all, x->shape[0], before->shape[0]);
    kern_copy(v->k, &front, before);
    kern_copy(v->k, before, &last);
    return all;
}

/* Space halved; then time: y_0 = x_0, y_j = b + Σ w_k x_(2j-2+k) */
static struct tensor downsample(struct wan_vae *v, struct wan_level *l, struct tensor x, bool first)
{
    const int64_t T = x.shape[0], rows = x.shape[1] / 2, cols = x.shape[2] / 2, channels = x.shape[3];
    struct tensor y = roomy(v->k, l->in_time && !first ? T / 2 : T, rows, cols, channels);
    size_t mark = kern_mark(v->k);
    struct tensor half = l->in_time && !first ? roomy(v->k, T, rows, cols, channels) : y;
    conv2d_forward(v->k, &half, &x, &l->space.w, &l->space.b, 2);
    if (l->in_time) {
        const struct tensor all = with_history(v, &half, &l->before);
        if (!first) time_conv_forward(v->k, &y, &all, &l->time.w, &l->time.b, 2);
    }
    kern_release(v->k, mark);
    return y;
}

/* Of every frame but the first, and the two before it, two, by either half of the weights */
static void double_time(struct wan_vae *v, struct tensor *y, const struct tensor *x, struct wan_level *l)
{
    const struct tensor all = with_history(v, x, &l->before);
    const int64_t channels = x->shape[3];
    for (int64_t t = 0; t < y->shape[0]; t++) {
        const struct tensor three = tensor_rows(&all, t / 2, 3),
                            w = tensor_rows(&l->time.w, t % 2 * channels, channels),
                            b = tensor_rows(&l->time.b, t % 2 * channels, channels);
        struct tensor to = tensor_rows(y, t, 1);
        time_conv_forward(v->k, &to, &three, &w, &b, 1);
    }
}

/* Time doubled, but frame 0, which the others do not see; then space. */
static struct tensor upsample(struct wan_vae *v, struct wan_level *l, struct tensor x, bool first)
{
    const bool doubles = l->in_time && !first;
    const int64_t T = doubles ? 2 * x.shape[0] : x.shape[0], channels = x.shape[3];
    struct tensor y = roomy(v->k, T, 2 * x.shape[1], 2 * x.shape[2], l->space.w.shape[0]);
    size_t mark = kern_mark(v->k);
    struct tensor wide = doubles ? activation(v->k, T, x.shape[1], x.shape[2], channels) : x;
    if (doubles) double_time(v, &wide, &x, l);
    upsample_conv2d_forward(v->k, &y, &wide, &l->space.w, &l->space.b);
    kern_release(v->k, mark);
    return y;
}

/* The shortcut around a level of the encoder that leaves one pixel of so many squared: means of blocks of x */
static struct tensor averaged(struct wan_vae *v, const struct wan_level *l, const struct tensor *x, int side)
{
    const int frames = l->in_time ? 2 : 1;
    struct tensor y = activation(v->k, (x->shape[0] + frames - 1) / frames, x->shape[1] / side,
                                 x->shape[2] / side, l->resnet[0].out);
    average_blocks_forward(v->k, &y, x, frames, side);
    return y;
}

static struct tensor copied(struct wan_vae *v, const struct tensor *x)
{
    struct tensor y = activation_like(v->k, x, x->shape[3]);
    kern_copy(v->k, &y, x);
    return y;
}

static struct tensor encoder_level(struct wan_vae *v, int i, struct tensor x, bool first)
{
    struct wan_level *l = &v->encoder.level[i];
    const bool ends = i == v->c.levels - 1;
    struct tensor around = {0};
    if (v->c.residual) around = averaged(v, l, &x, ends ? 1 : 2);
    x = level(v, l, x, NULL);
    if (!ends) x = downsample(v, l, x, first);
    if (v->c.residual) add(v->k, &x, &around);
    return x;
}

/* The shortcut around it is x in repeats; of frame 0, which stays one, the last. */
static struct tensor decoder_level(struct wan_vae *v, int i, struct tensor x, bool first)
{
    struct wan_level *l = &v->decoder.level[i];
    struct tensor before = {0};
    if (i == v->c.levels - 1) return level(v, l, x, NULL);
    if (v->c.residual) before = copied(v, &x); /* x is used up */
    x = upsample(v, l, level(v, l, x, NULL), first);
    if (v->c.residual) repeat_blocks_add(v->k, &x, &before, l->in_time ? 2 : 1, 2);
    return x;
}

/* ---- one chunk ---- */

struct tensor wan_vae_encode_chunk(void *net, struct tensor pixels, bool first)
{
    struct wan_vae *v = net;
    struct wan_coder *e = &v->encoder;
    struct tensor x = roomy_like(v->k, &pixels, v->c.encoder[0]);
    causal_forward(v->k, &x, &pixels, &e->conv_in, false, NULL);
    for (int i = 0; i < v->c.levels; i++) x = encoder_level(v, i, x, first);
    x = level(v, &e->mid, x, &e->attention);
    norm(v, &x, &x, &e->norm_out, true);
    struct tensor made = activation_like(v->k, &x, 2 * v->c.latent),
                  moments = activation_like(v->k, &x, 2 * v->c.latent);
    causal_forward(v->k, &made, &x, &e->conv_out, false, NULL);
    pointwise_forward(v->k, &moments, &made, &e->quant);
    return moments;
}

struct tensor wan_vae_decode_chunk(void *net, struct tensor z, bool first)
{
    struct wan_vae *v = net;
    struct wan_coder *d = &v->decoder;
    struct tensor in = roomy_like(v->k, &z, v->c.latent), x = roomy_like(v->k, &z, v->c.decoder[0]);
    pointwise_forward(v->k, &in, &z, &d->quant);
    causal_forward(v->k, &x, &in, &d->conv_in, false, NULL);
    x = level(v, &d->mid, x, &d->attention);
    for (int i = 0; i < v->c.levels; i++) x = decoder_level(v, i, x, first);
    norm(v, &x, &x, &d->norm_out, true);
    struct tensor pixels = activation_like(v->k, &x, d->conv_out.conv.w.shape[0]);
    causal_forward(v->k, &pixels, &x, &d->conv_out, false, NULL);
    return pixels;
}

/* Before the first frame there are zeros. */
static void begin(struct wan_vae *v, struct wan_coder *c, int64_t h, int64_t w)
{
    for (int i = 0; i < c->memories; i++) {
        const struct wan_memory *m = &c->memory[i];
        *m->at =
            activation(v->k, m->frames, h * v->c.side >> m->scale, w * v->c.side >> m->scale, m->channels);
        kern_zero(v->k, m->at);
    }
}

void wan_vae_begin_encoding(void *net, int64_t h, int64_t w)
{
    struct wan_vae *v = net;
    begin(v, &v->encoder, h, w);
}

void wan_vae_begin_decoding(void *net, int64_t h, int64_t w)
{
    struct wan_vae *v = net;
    begin(v, &v->decoder, h, w);
}
