#include "filters/nets/autoencoder.h"

#include <math.h>
#include <stdlib.h>

#include "filters/nets/families.h"

struct autoencoder *autoencoder_open(struct kern *k, const struct model *m, bool encoder, bool decoder,
                                     char *err, size_t errlen)
{
    static const char file[] = "vae/config.json";
    json_t *config = model_config(m, "vae", err, errlen);
    const struct network *n = config ? network_find(PART_AUTOENCODER, config, file, err, errlen) : NULL;
    struct autoencoder *a = n ? calloc(1, sizeof *a) : NULL;
    bool good = a || (n && fail(err, errlen, "out of memory"));
    if (good) {
        const struct autoencoder_kind *kind = (const struct autoencoder_kind *)n;
        a->k = k;
        a->kind = kind;
        a->net = network_new(n, config, file, err, errlen);
        if (a->net) kind->halves(a->net, encoder, decoder);
        good = a->net && network_load(n, a->net, k, m, "vae", NULL, a->id, err, errlen) &&
               kind->open(a, err, errlen);
    }
    json_decref(config);
    if (good) return a;
    autoencoder_close(a);
    return NULL;
}

void autoencoder_close(struct autoencoder *a)
{
    if (!a) return;
    free(a->net);
    free(a->mean);
    free(a->scale);
    free(a->host);
    free(a);
}

int64_t latent_frames(const struct autoencoder *a, int64_t frames)
{
    return a->kind->latent_frames(a, frames);
}

int64_t video_frames(const struct autoencoder *a, int64_t latent_frames)
{
    return a->kind->video_frames(a, latent_frames);
}

/* A video that the network can take, and room for so many channels of latents. */
static bool check_video(struct autoencoder *a, const struct tensor *video, const struct tensor *result,
                        int64_t channels)
{
    const int64_t side = a->spatial;
    char what[64];
    if (!tensor_is(video, DT_U8, 4, -1, -1, -1, 3) || !tensor_count(video))
        kern_fail(a->k, "video is %s, not U8 [F,H,W,3]", tensor_describe(what, sizeof what, video));
    else if (video->shape[1] % side || video->shape[2] % side)
        kern_fail(a->k, "video of %lldx%lld: width and height must be multiples of %lld",
                  (long long)video->shape[2], (long long)video->shape[1], (long long)side);
    else if (!dtype_is_float(result->dtype) ||
             !tensor_is(result, result->dtype, 4, latent_frames(a, video->shape[0]), channels,
                        video->shape[1] / side, video->shape[2] / side))
        kern_fail(a->k, "no room for %lld channels of latents in %s", (long long)channels,
                  tensor_describe(what, sizeof what, result));
    return kern_ok(a->k);
}

bool encode_moments(struct autoencoder *a, struct tensor *moments, const struct tensor *video, bool tiling)
{
    return check_video(a, video, moments, 2 * a->channels) && a->kind->moments(a, moments, video, tiling);
}

bool encode_video(struct autoencoder *a, struct tensor *latents, const struct tensor *video,
                  const struct rng *noise, bool tiling)
{
    if (!check_video(a, video, latents, a->channels)) return false;
    const int64_t frames = latents->shape[0], channels = a->channels, h = latents->shape[2],
                  w = latents->shape[3];
    const size_t n = (size_t)(frames * channels * h * w), plane = (size_t)(h * w);
    if (a->host_count < 3 * n) {
        free(a->host);
        a->host = malloc(3 * n * sizeof *a->host);
        a->host_count = a->host ? 3 * n : 0;
    }
    if (!a->host) {
        kern_fail(a->k, "out of memory for %zu moments", 3 * n);
        return false;
    }
    float *latent = a->host + 2 * n;
    struct tensor moments = tensor_of(DT_F32, a->host, 4, frames, 2 * channels, h, w);
    if (!a->kind->moments(a, &moments, video, tiling)) return false;

    if (noise) rng_normal(noise, latent, n);
    bool finite = true;
#pragma omp parallel for reduction(&& : finite)
    for (int64_t i = 0; i < frames * channels; i++) { /* one channel of one frame */
        const int64_t c = i % channels;
        const float *mean = a->host + (size_t)(i / channels * 2 * channels + c) * plane,
                    *logvar = mean + (size_t)channels * plane;
        const float centre = (float)a->mean[c], scale = (float)a->scale[c];
        float *z = latent + (size_t)i * plane;
        for (size_t j = 0; j < plane; j++) {
            float deviation = noise ? expf(fminf(fmaxf(logvar[j], -30), 20) / 2) * z[j] : 0;
            z[j] = scale * (mean[j] + deviation - centre);
            finite = finite && isfinite(z[j]);
        }
    }
    if (!finite) kern_fail(a->k, "the encoder made values that are not finite");
    struct tensor made = tensor_of(DT_F32, latent, 4, frames, channels, h, w);
    tensor_convert(latents, &made);
    return finite;
}

static bool all_finite(const struct tensor *t)
{
    const int64_t n = tensor_count(t);
    const float *f = t->dtype == DT_F32 ? t->data : NULL;
    bool finite = true;
#pragma omp parallel for reduction(&& : finite)
    for (int64_t i = 0; i < n; i++) finite = finite && isfinite(f ? f[i] : (float)tensor_get(t, i));
    return finite;
}

bool decode_latents(struct autoencoder *a, struct tensor *video, const struct tensor *latents, bool tiling)
{
    const int64_t side = a->spatial;
    char what[64];
    if (!dtype_is_float(latents->dtype) || !tensor_is(latents, latents->dtype, 4, -1, a->channels, -1, -1) ||
        !tensor_count(latents)) {
        kern_fail(a->k, "latents are %s, not a float [T,%lld,h,w]",
                  tensor_describe(what, sizeof what, latents), (long long)a->channels);
        return false;
    }
    if (!(video->dtype == DT_U8 || dtype_is_float(video->dtype)) ||
        !tensor_is(video, video->dtype, 4, video_frames(a, latents->shape[0]), latents->shape[2] * side,
                   latents->shape[3] * side, 3))
        kern_fail(a->k, "no room for the video in %s", tensor_describe(what, sizeof what, video));
    if (!all_finite(latents)) kern_fail(a->k, "latents hold values that are not finite");
    return kern_ok(a->k) && a->kind->decode(a, video, latents, tiling);
}
