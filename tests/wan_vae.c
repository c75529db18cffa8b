/* Wan's VAE against diffusers' AutoencoderKLWan (reference/make_wan_vae.py), whole and in tiles, and against its own
 * promises: chunks change no value, frames and sizes that it has, configs that it refuses. */
#include "filters/nets/families.h"
#include "filters/nets/wan_vae_net.h"
#include "tests/cases.h"
#include "tests/device.h"

extern const struct autoencoder_kind wan_vae;

static char err[512];

static struct tensor like(const struct tensor *t)
{
    struct tensor y = *t;
    y.data = calloc(1, tensor_bytes(t));
    return y;
}

static bool answer(struct autoencoder *v, struct tensor *to, const struct tensor *in, bool encoder,
                   bool tiling)
{
    const bool good = encoder ? encode_moments(v, to, in, tiling) : decode_latents(v, to, in, tiling);
    if (!good) printf("# %s\n", kern_error(v->k)), kern_clear(v->k);
    return good;
}

/* U8 as it is in the file */
static struct tensor pixels(const struct cases *c, const char *name)
{
    const struct safetensors_entry *e = safetensors_find(c->file, name);
    struct tensor t = e ? e->shape : (struct tensor){0};
    t.data = malloc(e ? e->bytes : 1);
    if (e && !safetensors_read(c->file, e, t.data, err, sizeof err)) printf("Bail out! %s\n", err), exit(1);
    return t;
}

/* Ours are normalised, the reference's are the network's own: latents = (z - mean) scale. */
static void normalise(const struct autoencoder *v, struct tensor *z)
{
    const int64_t plane = z->shape[2] * z->shape[3];
    for (int64_t i = 0; i < tensor_count(z); i++) {
        const int64_t c = i / plane % z->shape[1];
        ((float *)z->data)[i] = (float)((((float *)z->data)[i] - v->mean[c]) * v->scale[c]);
    }
}

/* BF16's step is 2^-8; norms over three channels make much of it: torch's own BF16 is up to 0.14 away on c3, 0.017 on
 * c8, 0.019 on r4. */
static double in_bf16(const char *model)
{
    return strcmp(model, "c3") ? 5e-2 : 0.3;
}

/* Every case called `series`.0, .1 ..: within 1e-4 of the reference, the same bytes from 1 and from 2 threads, and
 * whatever the chunk within 4e-6: products of other numbers of rows add up in another order, and norms over the three
 * channels of c3 make up to 1.1e-6 of that. */
static void test_series(struct autoencoder *const v[2], const struct cases *c, const char *model,
                        const char *series, bool encoder, bool tiling)
{
    static const int64_t chunks[] = {1, 4, 100};
    for (int n = 0;; n++) {
        char name[64], what[128];
        snprintf(name, sizeof name, "%s.%d.%s", series, n, encoder ? "moments" : "video");
        struct tensor want = cases_tensor(c, "%s", name);
        if (!want.data) {
            ok(n > 0, "%s %s: %d cases", model, series, n);
            return;
        }
        snprintf(name, sizeof name, "%s.%d.video_u8", series, n);
        struct tensor in = encoder ? pixels(c, name) : cases_tensor(c, "%s.%d.z", series, n);
        if (!encoder) normalise(v[0], &in);
        struct tensor got[2] = {like(&want), like(&want)}, other = like(&want);
        for (int i = 0; i < 2; i++) answer(v[i], &got[i], &in, encoder, tiling);
        const size_t count = (size_t)tensor_count(&want);
        const double off = relative_l2(got[0].data, want.data, count);
        snprintf(what, sizeof what, "%s %s.%d", model, series, n);
        ok(off < tolerance(v[0]->k, 1e-4, in_bf16(model)), "%s of %lldx%lldx%lld: relative error %.1e", what,
           (long long)in.shape[0], (long long)in.shape[encoder ? 1 : 2], (long long)in.shape[encoder ? 2 : 3],
           off);
        ok(!memcmp(got[0].data, got[1].data, tensor_bytes(&want)), "%s: the same bytes with 1 and 2 threads",
           what);
        double most = 0;
        for (int i = 0; i < 3 && in.shape[0] > 1; i++) {
            struct wan_vae *net = v[0]->net;
            const int64_t usual = net->chunk;
            net->chunk = chunks[i];
            answer(v[0], &other, &in, encoder, tiling);
            net->chunk = usual;
            most = fmax(most, relative_l2(other.data, got[0].data, count));
        }
        ok(most <= tolerance(v[0]->k, 4e-6, in_bf16(model)), "%s: by %.1e with other chunks", what, most);
        free(got[0].data), free(got[1].data), free(other.data), free(in.data), free(want.data);
    }
}

static void test_reference(const char *model)
{
    char folder[64], path[4096];
    snprintf(folder, sizeof folder, "wan_vae/%s", model);
    struct cases c = cases_open(folder);
    struct model *m = model_open(data_file(path, folder, ""), err, sizeof err);
    for (int encoder = 1; encoder >= 0; encoder--) {
        struct kern *k[2];
        struct autoencoder *v[2];
        for (int i = 0; i < 2; i++) {
            k[i] = test_device(1 + i);
            v[i] = m ? autoencoder_open(k[i], m, encoder, !encoder, err, sizeof err) : NULL;
            if (!v[i]) printf("Bail out! %s: %s\n", model, err), exit(1);
        }
        test_series(v, &c, model, encoder ? "enc" : "dec", encoder, false);
        if (strcmp(model, "c8"))
            test_series(v, &c, model, encoder ? "enc_tiled" : "dec_tiled", encoder, true);
        for (int i = 0; i < 2; i++) autoencoder_close(v[i]), kern_close(k[i]);
    }
    model_close(m);
    cases_close(&c);
}

/* Frames, modes and samples in the latents' scale, channel by channel; bytes are floats rounded; pixels end at 1. */
static void test_interface(void)
{
    enum { F = 7, T = 2, C = 16, h = 2, w = 3, N = T * C * h * w, PIXELS = 5 * 64 * h * w * 3 };
    static uint8_t video[F * 64 * h * w * 3], bytes[PIXELS];
    static float moments[2 * N], mode[N], sample[N], noise[N], floats[PIXELS];
    char path[4096];
    struct kern *k = test_device(2);
    struct model *m = model_open(data_file(path, "wan_vae/c3", ""), err, sizeof err);
    struct autoencoder *v = autoencoder_open(k, m, true, true, err, sizeof err);
    if (!ok(v != NULL, "it opens as a whole %s", v ? "" : err)) return;
    static const int64_t frames[][2] = {{1, 1}, {2, 1}, {4, 1}, {5, 2}, {6, 2}, {81, 21}, {84, 21}};
    for (int i = 0; i < 7; i++)
        ok(latent_frames(v, frames[i][0]) == frames[i][1], "%d frames, %d latents", (int)frames[i][0],
           (int)frames[i][1]);
    ok(video_frames(v, 1) == 1 && video_frames(v, 2) == 5 && video_frames(v, 21) == 81, "and back");

    for (size_t i = 0; i < sizeof video; i++) video[i] = (uint8_t)(i * 2654435761u >> 24);
    struct rng r = rng_make(1, "key", "posterior", 0);
    struct tensor x = tensor_of(DT_U8, video, 4, F, 8 * h, 8 * w, 3),
                  all = tensor_of(DT_F32, moments, 4, T, 2 * C, h, w),
                  z0 = tensor_of(DT_F32, mode, 4, T, C, h, w), z1 = tensor_of(DT_F32, sample, 4, T, C, h, w);
    ok(encode_moments(v, &all, &x, false) && encode_video(v, &z0, &x, NULL, false) &&
           encode_video(v, &z1, &x, &r, false),
       "moments, mode and sample %s", kern_error(k));
    rng_normal(&r, noise, N);
    double off = 0;
    for (int i = 0; i < N; i++) {
        const int c = i / (h * w) % C, t = i / (C * h * w), at = (2 * t * C + c) * h * w + i % (h * w);
        const double mean = moments[at], deviation = exp(fmin(fmax(moments[at + C * h * w], -30), 20) / 2);
        off = fmax(off, fabs(mode[i] - (mean - v->mean[c]) * v->scale[c]));
        off = fmax(off, fabs(sample[i] - (mean + deviation * noise[i] - v->mean[c]) * v->scale[c]) /
                            (1 + deviation));
    }
    ok(off < 1e-5 && fabs(v->mean[1] + 0.7089) < 1e-12 && fabs(v->scale[2] * 2.3275 - 1) < 1e-12,
       "in the latents' scale, within %.0e", off);

    for (int i = 0; i < N; i++) mode[i] *= 30; /* loud */
    struct tensor y = tensor_of(DT_F32, floats, 4, 5, 8 * h, 8 * w, 3), y8 = y;
    y8.dtype = DT_U8, y8.data = bytes;
    ok(decode_latents(v, &y, &z0, false) && decode_latents(v, &y8, &z0, false), "decoded %s", kern_error(k));
    int wrong = 0;
    double largest = 0;
    for (int i = 0; i < PIXELS; i++) {
        wrong += bytes[i] != nearbyint(fmin(fmax(floats[i] / 2.0f + 0.5f, 0), 1) * 255);
        largest = fmax(largest, fabs(floats[i]));
    }
    ok(!wrong && largest <= 1, "%d bytes are not their float rounded, and none is past %g", wrong, largest);
    z1.shape[1] = 8;
    ok(!decode_latents(v, &y, &z1, false) && strstr(kern_error(k), "[T,16,h,w]"), "%s", kern_error(k));
    kern_clear(k);
    x.shape[2] = 20;
    ok(!encode_moments(v, &all, &x, false) && strstr(kern_error(k), "multiples of 8"), "%s", kern_error(k));
    autoencoder_close(v);
    kern_close(k);
    model_close(m);
}

struct refusal {
    const char *field, *value;
};

/* The config with one field changed is refused, and the field named. */
static void test_refused(json_t *config, const struct refusal *wrong, size_t n)
{
    struct params list = {0};
    for (size_t i = 0; i < n; i++) {
        json_t *changed = json_deep_copy(config);
        json_object_set_new(changed, wrong[i].field, json_loads(wrong[i].value, JSON_DECODE_ANY, NULL));
        bool refused = !network_declare(&wan_vae.network, &list, changed, "some.json", err, sizeof err);
        ok(refused && strstr(err, "some.json") && strstr(err, wrong[i].field), "%s %s is refused: %s",
           wrong[i].field, wrong[i].value, refused ? err : "no");
        params_free(&list);
        json_decref(changed);
    }
}

/* The published config of a preset, and how many tensors and parameters it calls for, so many of them to encode. */
static json_t *published(const char *preset, int tensors, int64_t parameters, int64_t to_encode)
{
    struct model *m = model_open(preset, err, sizeof err);
    json_t *config = m ? model_config(m, "vae", err, sizeof err) : NULL;
    struct params list = {0};
    bool good = config && network_declare(&wan_vae.network, &list, config, "config.json", err, sizeof err);
    int64_t encoder = 0;
    for (int i = 0; i < list.count; i++)
        if (!strncmp(list.param[i].name, "encoder", 7) || !strncmp(list.param[i].name, "quant", 5))
            encoder += tensor_count(&list.param[i].shape);
    ok(good && list.count == tensors && params_count(&list) == parameters && encoder == to_encode,
       "%s: the VAE has %d tensors, %lld parameters, %lld of them to encode %s", preset, list.count,
       (long long)params_count(&list), (long long)encoder, good ? "" : err);
    params_free(&list);
    model_close(m);
    return config;
}

static void test_published(void)
{
    json_t *config = published("random:wan-1.3b", 194, 126892531, 53596928);
    struct params list = {0};
    static const char *const later[] = {"is_residual",     "in_channels",           "out_channels",
                                        "patch_size",      "scale_factor_temporal", "scale_factor_spatial",
                                        "decoder_base_dim"};
    json_t *older = json_deep_copy(config);
    for (int i = 0; i < 7; i++) json_object_del(older, later[i]);
    bool good = network_declare(&wan_vae.network, &list, older, "config.json", err, sizeof err);
    ok(good && params_count(&list) == 126892531, "so has one whose config is of before VAE 2.2");
    params_free(&list);
    json_decref(older);

    static const struct refusal wrong[] = {
        {"is_residual", "true"},
        {"is_residual", "2"},
        {"patch_size", "2"},
        {"in_channels", "12"},
        {"out_channels", "12"},
        {"attn_scales", "[1.0]"},
        {"scale_factor_spatial", "16"},
        {"scale_factor_temporal", "8"},
        {"temperal_downsample", "[true, true, true]"},
        {"temperal_downsample", "[true, true]"},
        {"temperal_downsample", "[0, 1, 1]"},
        {"latents_mean", "[0, 0]"},
        {"latents_std", "[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"},
        {"latents_mean", "[\"0\", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"},
        {"z_dim", "48"},
        {"dim_mult", "[1, 2, 4000, 4]"},
        {"dim_mult", "[]"},
        {"base_dim", "0"},
        {"num_res_blocks", "0"}};
    test_refused(config, wrong, sizeof wrong / sizeof wrong[0]);
    json_decref(config);
}

/* Wan 2.2's, of TI2V-5B; in these dim_mult a shortcut would not come out even. */
static void test_published_22(void)
{
    static const struct refusal wrong[] = {{"is_residual", "false"},
                                           {"patch_size", "null"},
                                           {"patch_size", "4"},
                                           {"in_channels", "3"},
                                           {"out_channels", "3"},
                                           {"scale_factor_spatial", "8"},
                                           {"z_dim", "16"},
                                           {"dim_mult", "[1, 2, 4, 8]"},
                                           {"dim_mult", "[1, 2, 3, 1]"},
                                           {"dim_mult", "[1, 16, 4, 4]"},
                                           {"dim_mult", "[1, 1, 8, 8]"}};
    json_t *config = published("random:wan-5b", 196, 704688668, 149637088);
    test_refused(config, wrong, sizeof wrong / sizeof wrong[0]);
    json_decref(config);
}

/* A made-up VAE must be good to try things with: pixels spread over their range, not all alike, not all black
 * or white. */
static void test_random(const char *preset, int channels, int h, int w)
{
    enum { T = 3, LATENTS = T * 48 * 4 * 6, PIXELS = 9 * 32 * 48 * 3 };
    static float latents[LATENTS], video[PIXELS];
    struct model *m = model_open(preset, err, sizeof err);
    struct kern *k = test_device(2);
    struct autoencoder *v = m ? autoencoder_open(k, m, false, true, err, sizeof err) : NULL;
    if (!ok(v != NULL, "%s opens %s", preset, v ? "" : err)) return;
    struct rng r = rng_make(1, "key", "latents", 0);
    struct tensor z = tensor_of(DT_F32, latents, 4, T, channels, h, w),
                  y = tensor_of(DT_F32, video, 4, 9, 32, 48, 3);
    rng_normal(&r, latents, (size_t)tensor_count(&z));
    bool good = decode_latents(v, &y, &z, false);
    double sum = 0, squares = 0;
    for (int i = 0; i < PIXELS; i++) sum += video[i], squares += (double)video[i] * video[i];
    double mean = sum / PIXELS, deviation = sqrt(squares / PIXELS - mean * mean);
    ok(good && fabs(mean) < 0.7 && deviation > 0.1 && deviation < 1,
       "it decodes noise to %.2f, deviation %.2f %s", mean, deviation, kern_error(k));
    autoencoder_close(v);
    kern_close(k);
    model_close(m);
}

int main(void)
{
    test_reference("c3");
    test_reference("c8");
    test_reference("r4");
    test_interface();
    test_published();
    test_published_22();
    test_random("random:wan-tiny", 16, 4, 6);
    test_random("random:wan-5b-tiny", 48, 2, 3);
    return done();
}
