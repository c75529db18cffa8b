/* The VAE against diffusers' AutoencoderKLCogVideoX (reference/make_vae.py), whole and in tiles, and against
 * its own promises. */
#include "filters/nets/families.h"

#include <string.h>

#include "tests/device.h"

extern const struct autoencoder_kind cogvideox_vae;

static char err[512];

static struct tensor read_tensor(const struct safetensors *file, const char *name)
{
    const struct safetensors_entry *e = safetensors_find(file, name);
    struct tensor t = e ? e->shape : (struct tensor){0};
    t.data = malloc(e ? e->bytes : 1);
    if (!e || !safetensors_read(file, e, t.data, err, sizeof err))
        printf("# no %s: %s\n", name, err), exit(1);
    return t;
}

/* Every case called `series`.0, .1 ..; the same bytes must come of 1 and of 2 threads. F32 rounding over some
 * 30 layers, whose norms divide by what is at times small, comes to 2e-6. */
static void test_series(const struct model *m, const struct safetensors *cases, const char *model,
                        const char *series, bool encoder, bool tiling)
{
    struct kern *k[2];
    struct autoencoder *v[2];
    for (int i = 0; i < 2; i++) {
        k[i] = test_device(1 + i);
        v[i] = autoencoder_open(k[i], m, encoder, !encoder, err, sizeof err);
        if (!v[i]) printf("# %s\n", err), exit(1);
    }
    for (int n = 0;; n++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%d.%s", series, n, encoder ? "moments" : "video");
        if (!safetensors_find(cases, name)) {
            ok(n > 0, "%s %s: %d cases", model, series, n);
            break;
        }
        struct tensor want = read_tensor(cases, name), got[2] = {want, want};
        snprintf(name, sizeof name, "%s.%d.%s", series, n, encoder ? "video_u8" : "latents");
        struct tensor in = read_tensor(cases, name);
        if (!encoder) /* ours are divided by the scaling factor, the reference's are not */
            for (int64_t i = 0; i < tensor_count(&in); i++) ((float *)in.data)[i] *= (float)v[0]->scale[0];
        for (int i = 0; i < 2; i++) {
            got[i].data = calloc(1, tensor_bytes(&want));
            bool good = encoder ? encode_moments(v[i], &got[i], &in, tiling)
                                : decode_latents(v[i], &got[i], &in, tiling);
            if (!good) printf("# %s\n", kern_error(k[i]));
        }
        char shape[64];
        double off = relative_l2(got[0].data, want.data, (size_t)tensor_count(&want));
        ok(off < tolerance(k[0], 1e-5, 5e-2), "%s %s of %s: relative error %.1e", model, series,
           tensor_describe(shape, sizeof shape, &in), off);
        ok(!memcmp(got[0].data, got[1].data, tensor_bytes(&want)),
           "%s %s.%d: the same bytes with 1 and 2 threads", model, series, n);
        free(got[0].data), free(got[1].data), free(in.data), free(want.data);
    }
    for (int i = 0; i < 2; i++) autoencoder_close(v[i]), kern_close(k[i]);
}

static void test_reference(const char *model)
{
    char path[256];
    snprintf(path, sizeof path, "tests/data/vae/%s", model);
    struct model *m = model_open(path, err, sizeof err);
    snprintf(path, sizeof path, "tests/data/vae/%s/cases.safetensors", model);
    struct safetensors *cases = safetensors_open(path, err, sizeof err);
    if (!ok(m && cases, "%s opens %s", model, m && cases ? "" : err)) return;
    test_series(m, cases, model, "enc", true, false);
    test_series(m, cases, model, "dec", false, false);
    test_series(m, cases, model, "enc_tiled", true, true);
    test_series(m, cases, model, "dec_tiled", false, true);
    safetensors_close(cases);
    model_close(m);
}

/* The sample is mean + exp(logvar / 2) n in the latents' order, the mode is the mean, both scaled; the U8
 * video is the float one rounded; frame counts are those of the tensors. */
static void test_interface(const char *model)
{
    enum { F = 11, H = 16, W = 24, T = 3, C = 16, h = 2, w = 3, N = T * C * h * w, PIXELS = 9 * H * W * 3 };
    static uint8_t pixels[F * H * W * 3], decoded[PIXELS];
    static float moments[2 * N], mode[N], sample[N], noise[N], video[PIXELS];
    char path[256];
    snprintf(path, sizeof path, "tests/data/vae/%s", model);
    struct model *m = model_open(path, err, sizeof err);
    struct kern *k = test_device(2);
    struct autoencoder *v = autoencoder_open(k, m, true, true, err, sizeof err);
    if (!ok(v != NULL, "%s opens as a whole %s", model, v ? "" : err)) return;
    ok(latent_frames(v, F) == T && video_frames(v, T) == 9 && strlen(v->id) == 16,
       "11 frames, 3 latents, 9 frames");

    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 2654435761u >> 24);
    struct rng r = rng_make(1, "key", "posterior", 0);
    struct tensor x = tensor_of(DT_U8, pixels, 4, F, H, W, 3),
                  all = tensor_of(DT_F32, moments, 4, T, 2 * C, h, w);
    struct tensor z0 = tensor_of(DT_F32, mode, 4, T, C, h, w), z1 = tensor_of(DT_F32, sample, 4, T, C, h, w);
    bool good = encode_moments(v, &all, &x, false) && encode_video(v, &z0, &x, NULL, false) &&
                encode_video(v, &z1, &x, &r, false);
    ok(good, "moments, mode and sample %s", kern_error(k));
    rng_normal(&r, noise, N);
    double off0 = 0, off1 = 0;
    for (int t = 0, i = 0; t < T; t++)
        for (int j = 0; j < C * h * w; j++, i++) {
            double mean = moments[2 * t * C * h * w + j], logvar = moments[(2 * t + 1) * C * h * w + j];
            off0 = fmax(off0, fabs(mode[i] - v->scale[0] * mean));
            off1 = fmax(off1, fabs(sample[i] -
                                   v->scale[0] * (mean + exp(fmin(fmax(logvar, -30), 20) / 2) * noise[i])));
        }
    ok(off0 < 1e-5 && off1 < 1e-4, "mode within %.0e, sample within %.0e", off0, off1);

    struct tensor y = tensor_of(DT_F32, video, 4, 9, H, W, 3), y8 = tensor_of(DT_U8, decoded, 4, 9, H, W, 3);
    ok(decode_latents(v, &y, &z0, false) && decode_latents(v, &y8, &z0, false),
       "decoded as floats and as bytes %s", kern_error(k));
    int wrong = 0;
    for (int i = 0; i < PIXELS; i++)
        wrong += decoded[i] != nearbyint(fmin(fmax(video[i] / 2.0f + 0.5f, 0), 1) * 255);
    ok(wrong == 0, "%d bytes are not their float rounded", wrong);

    x.shape[1] = 15;
    ok(!encode_video(v, &z0, &x, NULL, false) && strstr(kern_error(k), "24x15"), "a height of 15: %s",
       kern_error(k));
    kern_clear(k);
    x.shape[1] = H, x.shape[0] = 0;
    ok(!encode_video(v, &z0, &x, NULL, false), "no frames: %s", kern_error(k));
    kern_clear(k);
    mode[5] = NAN;
    ok(!decode_latents(v, &y8, &z0, false) && strstr(kern_error(k), "finite"), "latents with a NaN: %s",
       kern_error(k));
    kern_clear(k);
    z1.shape[1] = 8;
    ok(!decode_latents(v, &y8, &z1, false), "8 channels: %s", kern_error(k));
    autoencoder_close(v);
    kern_close(k);
    model_close(m);
}

static void test_published(void)
{
    struct model *m = model_open("random:cogvideox-5b", err, sizeof err);
    json_t *config = m ? model_config(m, "vae", err, sizeof err) : NULL;
    struct params list = {0};
    bool declared =
        config && network_declare(&cogvideox_vae.network, &list, config, "config.json", err, sizeof err);
    ok(declared && list.count == 436 && params_count(&list) == 215583907,
       "CogVideoX-5B's VAE has %d tensors, %lld parameters %s", list.count,
       declared ? (long long)params_count(&list) : 0, declared ? "" : err);
    params_free(&list);

    static const struct {
        const char *field, *value;
    } wrong[] = {
        {"act_fn", "\"gelu\""},     {"norm_num_groups", "3"},   {"in_channels", "4"},
        {"layers_per_block", "0"},  {"use_quant_conv", "true"}, {"temporal_compression_ratio", "3"},
        {"scaling_factor", "-1"},   {"shift_factor", "0.5"},    {"down_block_types", "[\"DownBlock2D\"]"},
        {"block_out_channels", "7"}};
    for (size_t i = 0; config && i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *changed = json_deep_copy(config);
        json_object_set_new(changed, wrong[i].field, json_loads(wrong[i].value, JSON_DECODE_ANY, NULL));
        bool refused = !network_declare(&cogvideox_vae.network, &list, changed, "some.json", err, sizeof err);
        ok(refused && strstr(err, "some.json") && strstr(err, wrong[i].field), "%s %s is refused: %s",
           wrong[i].field, wrong[i].value, refused ? err : "no");
        params_free(&list);
        json_decref(changed);
    }
    json_decref(config);
    model_close(m);
}

/* A made-up VAE must be good to try things with: pixels spread over their range, not all alike, not all black
 * or white. */
static void test_random(void)
{
    enum { T = 3, h = 4, w = 6, PIXELS = 9 * 32 * 48 * 3 };
    static float latents[T * 16 * h * w], video[PIXELS];
    struct model *m = model_open("random:tiny", err, sizeof err);
    struct kern *k = test_device(2);
    struct autoencoder *v = m ? autoencoder_open(k, m, false, true, err, sizeof err) : NULL;
    if (!ok(v != NULL, "random:tiny opens %s", v ? "" : err)) return;
    struct rng r = rng_make(1, "key", "latents", 0);
    rng_normal(&r, latents, sizeof latents / sizeof latents[0]);
    struct tensor z = tensor_of(DT_F32, latents, 4, T, 16, h, w),
                  y = tensor_of(DT_F32, video, 4, 9, 32, 48, 3);
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
    test_reference("a");
    test_reference("b");
    test_interface("b");
    test_published();
    test_random();
    return done();
}
