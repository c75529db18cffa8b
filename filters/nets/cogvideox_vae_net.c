#include "filters/nets/cogvideox_vae_net.h"

#include <math.h>
#include <stdlib.h>

/* ---- configuration and parameters ---- */

static json_t *repeated(const char *text, int count)
{
    json_t *list = json_array();
    while (count-- > 0) json_array_append_new(list, json_string(text));
    return list;
}

bool vae_configure(void *net, json_t *json, const char *file, char *err, size_t errlen)
{
    struct vae_config *c = &((struct vae *)net)->c;
    struct config f = {.json = json, .file = file};
    *c = (struct vae_config){
        .layers = (int)config_int(&f, "layers_per_block", 1, MAX_LAYERS - 1),
        .groups = (int)config_int(&f, "norm_num_groups", 1, 1024),
        .latent = config_int(&f, "latent_channels", 1, 1024),
        .scaling = config_real_or(&f, "scaling_factor", 1.15258426),
        .eps = (float)config_real_or(&f, "norm_eps", 1e-6),
    };
    c->levels = config_ints(&f, "block_out_channels", c->channels, MAX_LEVELS);
    c->side = (int64_t)1 << (c->levels > 0 ? c->levels - 1 : 0);
    c->tile_h = config_int(&f, "sample_height", 1, 1 << 16) / 2 / c->side;
    c->tile_w = config_int(&f, "sample_width", 1, 1 << 16) / 2 / c->side;
    int64_t ratio = config_int_or(&f, "temporal_compression_ratio", 1, c->side, 4);
    while ((int64_t)1 << c->time_levels < ratio) c->time_levels++;

    json_t *three = json_integer(3);
    config_expect(&f, "in_channels", json_incref(three));
    config_expect(&f, "out_channels", three);
    config_expect(&f, "act_fn", json_string("silu"));
    config_expect(&f, "down_block_types", repeated("CogVideoXDownBlock3D", c->levels));
    config_expect(&f, "up_block_types", repeated("CogVideoXUpBlock3D", c->levels));
    config_expect(&f, "use_quant_conv", json_false());
    config_expect(&f, "use_post_quant_conv", json_false());
    config_expect(&f, "invert_scale_latents", json_false());
    config_expect(&f, "shift_factor", json_null());
    config_expect(&f, "latents_mean", json_null());
    config_expect(&f, "latents_std", json_null());
    if (f.error[0]) return fail(err, errlen, "%s", f.error);
    for (int i = 0; i < c->levels; i++)
        if (c->channels[i] % c->groups || c->channels[i] > 1 << 16)
            return fail(err, errlen, "%s: block_out_channels of %lld do not go with norm_num_groups of %d",
                        file, (long long)c->channels[i], c->groups);
    if (ratio != (int64_t)1 << c->time_levels)
        return fail(err, errlen, "%s: temporal_compression_ratio %lld is not a power of two", file,
                    (long long)ratio);
    if (!(c->scaling > 0)) return fail(err, errlen, "%s: scaling_factor %g is not above 0", file, c->scaling);
    return true;
}

/* taps: 27 for 3x3x3, 9 for 3x3, 1 for 1x1x1. Random weights keep a unit variance, times gain². */
static void declare_conv(struct params *list, struct conv *c, int64_t in, int64_t out, int taps, double gain,
                         double bias, const char *name, const char *part)
{
    struct tensor shape = taps == 9   ? shape_of(4, out, in, 3, 3)
                          : taps == 1 ? shape_of(5, out, in, 1, 1, 1)
                                      : shape_of(5, out, in, 3, 3, 3);
    struct param *w =
        param_add(list, &c->w, shape, 0, gain / sqrt((double)(in * taps)), "%s%s.weight", name, part);
    w->channels_last = taps > 1;
    param_add(list, &c->b, shape_of(1, out), bias, 0, "%s%s.bias", name, part);
}

static void declare_causal(struct params *list, struct coder *coder, struct causal *c, int64_t in,
                           int64_t out, int scale, const char *name)
{
    c->in = in;
    c->scale = scale;
    coder->causal[coder->causals++] = c;
    declare_conv(list, &c->conv, in, out, 27, 1, 0, name, ".conv");
}

static void declare_norm(struct params *list, const struct coder *coder, struct norm *n, int64_t channels,
                         const char *name)
{
    const char *part = coder->latent ? ".norm_layer" : "";
    param_add(list, &n->affine.w, shape_of(1, channels), 1, 0, "%s%s.weight", name, part);
    param_add(list, &n->affine.b, shape_of(1, channels), 0, 0, "%s%s.bias", name, part);
    if (!coder->latent) return;
    declare_conv(list, &n->mul, coder->latent, channels, 1, 0.3, 1, name, ".conv_y.conv"); /* near 1 */
    declare_conv(list, &n->add, coder->latent, channels, 1, 0.3, 0, name, ".conv_b.conv"); /* near 0 */
}

static void declare_level(struct params *list, struct coder *coder, struct level *l, int64_t in, int64_t out,
                          int resnets, int scale, const char *name)
{
    l->resnets = resnets;
    for (int j = 0; j < resnets; j++) {
        struct resnet *r = &l->resnet[j];
        char part[128];
#define PART(rest) (snprintf(part, sizeof part, "%s.resnets.%d." rest, name, j), part)
        r->in = j ? out : in;
        r->out = out;
        declare_norm(list, coder, &r->norm1, r->in, PART("norm1"));
        declare_causal(list, coder, &r->conv1, r->in, out, scale, PART("conv1"));
        declare_norm(list, coder, &r->norm2, out, PART("norm2"));
        declare_causal(list, coder, &r->conv2, out, out, scale, PART("conv2"));
        if (r->in != out) declare_conv(list, &r->shortcut, r->in, out, 1, 1, 0, PART("conv_shortcut"), "");
#undef PART
    }
}

static void encoder_params(struct params *list, const struct vae_config *c, struct coder *e)
{
    const int last = c->levels - 1;
    char name[64];
    declare_causal(list, e, &e->conv_in, 3, c->channels[0], 0, "encoder.conv_in");
    for (int i = 0; i <= last; i++) {
        struct level *l = &e->level[i];
        snprintf(name, sizeof name, "encoder.down_blocks.%d", i);
        declare_level(list, e, l, c->channels[i ? i - 1 : 0], c->channels[i], c->layers, i, name);
        if (i < last)
            declare_conv(list, &l->resample, c->channels[i], c->channels[i], 9, 1, 0, name,
                         ".downsamplers.0.conv");
    }
    declare_level(list, e, &e->mid, c->channels[last], c->channels[last], 2, last, "encoder.mid_block");
    declare_norm(list, e, &e->norm_out, c->channels[last], "encoder.norm_out");
    declare_causal(list, e, &e->conv_out, c->channels[last], 2 * c->latent, last, "encoder.conv_out");
}

static void decoder_params(struct params *list, const struct vae_config *c, struct coder *d)
{
    const int last = c->levels - 1;
    char name[64];
    int64_t in = c->channels[last];
    declare_causal(list, d, &d->conv_in, c->latent, in, last, "decoder.conv_in");
    declare_level(list, d, &d->mid, in, in, 2, last, "decoder.mid_block");
    for (int i = 0; i <= last; i++) {
        struct level *l = &d->level[i];
        int64_t out = c->channels[last - i];
        snprintf(name, sizeof name, "decoder.up_blocks.%d", i);
        declare_level(list, d, l, in, out, c->layers + 1, last - i, name);
        if (i < last) declare_conv(list, &l->resample, out, out, 9, 1, 0, name, ".upsamplers.0.conv");
        in = out;
    }
    declare_norm(list, d, &d->norm_out, in, "decoder.norm_out");
    declare_causal(list, d, &d->conv_out, in, 3, 0, "decoder.conv_out");
}

void vae_params(struct params *list, void *net)
{
    struct vae *v = net;
    const int from = list->count;
    v->decoder.latent = v->c.latent;
    encoder_params(list, &v->c, &v->encoder);
    const int half = list->count;
    decoder_params(list, &v->c, &v->decoder);
    for (int i = from; i < list->count; i++) /* without a slot: checked, not loaded */
        if (i < half ? v->encoder.unused : v->decoder.unused) list->param[i].slot = NULL;
}

/* ---- layers ---- */

/* y = silu(norm(x)); y may be x. z is the decoder's latent chunk, NULL in the encoder. */
static void norm_silu(struct vae *v, struct tensor *y, const struct tensor *x, const struct norm *n,
                      const struct tensor *z)
{
    if (!z) {
        group_norm_silu_forward(v->k, y, x, &n->affine.w, &n->affine.b, v->c.groups, v->c.eps);
        return;
    }
    size_t mark = kern_mark(v->k);
    struct tensor mul = activation_like(v->k, z, x->shape[3]), plus = activation_like(v->k, z, x->shape[3]);
    pointwise_forward(v->k, &mul, z, &n->mul); /* before resizing to the nearest: the two commute */
    pointwise_forward(v->k, &plus, z, &n->add);
    spatial_norm_silu_forward(v->k, y, x, &n->affine.w, &n->affine.b, &mul, &plus, v->c.groups, v->c.eps);
    kern_release(v->k, mark);
}

/* y = x + conv2(silu(norm2(conv1(silu(norm1(x))))))        all roomy, and may not overlap; x is used up */
static void resnet(struct vae *v, struct resnet *r, struct tensor *y, struct tensor *x,
                   const struct tensor *z, bool first)
{
    size_t mark = kern_mark(v->k);
    struct tensor h = roomy_like(v->k, x, r->out), *n = y, sum = *x;
    if (r->in != r->out) {
        sum = activation_like(v->k, x, r->out);
        pointwise_forward(v->k, &sum, x, &r->shortcut);
        n = x;
    }
    norm_silu(v, n, x, &r->norm1, z);
    causal_forward(v->k, &h, n, &r->conv1, first, NULL);
    norm_silu(v, &h, &h, &r->norm2, z);
    causal_forward(v->k, y, &h, &r->conv2, first, &sum);
    kern_release(v->k, mark);
}

/* The resnets one after the other, to and fro between two tensors. */
static struct tensor level(struct vae *v, struct level *l, struct tensor x, const struct tensor *z,
                           bool first)
{
    struct tensor y = roomy_like(v->k, &x, l->resnet[0].out);
    for (int j = 0; j < l->resnets; j++) {
        struct tensor used = x;
        resnet(v, &l->resnet[j], &y, &x, z, first);
        x = y;
        y = j == 0 && used.shape[3] != x.shape[3] ? roomy_like(v->k, &x, x.shape[3]) : used;
    }
    return x;
}

static struct tensor downsample(struct vae *v, const struct conv *c, struct tensor x, bool time)
{
    const int64_t frames = time ? (x.shape[0] + 1) / 2 : x.shape[0], channels = x.shape[3];
    struct tensor y = roomy(v->k, frames, x.shape[1] / 2, x.shape[2] / 2, channels);
    size_t mark = kern_mark(v->k);
    if (time) {
        struct tensor half = activation(v->k, frames, x.shape[1], x.shape[2], channels);
        halve_time_forward(v->k, &half, &x);
        x = half;
    }
    conv2d_forward(v->k, &y, &x, &c->w, &c->b, 2);
    kern_release(v->k, mark);
    return y;
}

/* Twice as many frames, but the first of an odd number stands for itself. */
static int64_t twice(int64_t frames)
{
    return frames % 2 ? 1 + 2 * (frames - 1) : 2 * frames;
}

/* Frames that come of one are alike, so that they are convolved once. */
static struct tensor upsample(struct vae *v, const struct conv *c, struct tensor x, bool time)
{
    const int64_t T = x.shape[0], rows = 2 * x.shape[1], cols = 2 * x.shape[2];
    struct tensor y = roomy(v->k, time ? twice(T) : T, rows, cols, x.shape[3]);
    size_t mark = kern_mark(v->k);
    struct tensor wide = time ? activation(v->k, T, rows, cols, x.shape[3]) : y;
    upsample_conv2d_forward(v->k, &wide, &x, &c->w, &c->b);
    for (int64_t t = 0; time && t < y.shape[0]; t++) {
        struct tensor to = tensor_rows(&y, t, 1), from = tensor_rows(&wide, (t + T % 2) / 2, 1);
        kern_copy(v->k, &to, &from);
    }
    kern_release(v->k, mark);
    return y;
}

/* ---- one chunk ---- */

struct tensor vae_encode_chunk(void *net, struct tensor pixels, bool first)
{
    struct vae *v = net;
    struct coder *e = &v->encoder;
    const int last = v->c.levels - 1;
    struct tensor x = roomy_like(v->k, &pixels, v->c.channels[0]);
    causal_forward(v->k, &x, &pixels, &e->conv_in, first, NULL);
    for (int i = 0; i <= last; i++) {
        x = level(v, &e->level[i], x, NULL, first);
        if (i < last) x = downsample(v, &e->level[i].resample, x, i < v->c.time_levels);
    }
    x = level(v, &e->mid, x, NULL, first);
    norm_silu(v, &x, &x, &e->norm_out, NULL);
    struct tensor moments = activation_like(v->k, &x, 2 * v->c.latent);
    causal_forward(v->k, &moments, &x, &e->conv_out, first, NULL);
    return moments;
}

struct tensor vae_decode_chunk(void *net, struct tensor z, bool first)
{
    struct vae *v = net;
    struct coder *d = &v->decoder;
    const int last = v->c.levels - 1;
    struct tensor x = roomy_like(v->k, &z, v->c.channels[last]);
    causal_forward(v->k, &x, &z, &d->conv_in, first, NULL);
    x = level(v, &d->mid, x, &z, first);
    for (int i = 0; i <= last; i++) {
        x = level(v, &d->level[i], x, &z, first);
        if (i < last) x = upsample(v, &d->level[i].resample, x, i < v->c.time_levels);
    }
    norm_silu(v, &x, &x, &d->norm_out, &z);
    struct tensor pixels = activation_like(v->k, &x, 3);
    causal_forward(v->k, &pixels, &x, &d->conv_out, first, NULL);
    return pixels;
}

int64_t vae_halved(const struct vae *v, int64_t frames)
{
    for (int i = 0; i < v->c.time_levels; i++) frames = (frames + 1) / 2;
    return frames;
}

int64_t vae_doubled(const struct vae *v, int64_t frames)
{
    for (int i = 0; i < v->c.time_levels; i++) frames = twice(frames);
    return frames;
}

static void begin(struct vae *v, struct coder *c, int64_t h, int64_t w)
{
    for (int i = 0; i < c->causals; i++) {
        struct causal *conv = c->causal[i];
        conv->history =
            activation(v->k, 2, h * v->c.side >> conv->scale, w * v->c.side >> conv->scale, conv->in);
    }
}

void vae_begin_encoding(void *net, int64_t h, int64_t w)
{
    struct vae *v = net;
    begin(v, &v->encoder, h, w);
}

void vae_begin_decoding(void *net, int64_t h, int64_t w)
{
    struct vae *v = net;
    begin(v, &v->decoder, h, w);
}
