#include "filters/nets/vae_net.h"

#include <math.h>
#include <stdlib.h>

#include "formats/error.h"

/* ---- a video: chunks, tiles ---- */

/* The chunk that starts at `from`: what does not fill a chunk joins the first. */
static int64_t chunk_end(int64_t from, int64_t frames, int64_t chunk)
{
    int64_t to = from ? from + chunk : chunk + frames % chunk;
    return to < frames ? to : frames;
}

struct window { /* in latents */
    int64_t y, x, h, w;
};

/* Frames of the host's video or latents on the device */
static struct tensor uploaded(struct vae *v, const struct coder *c, const struct tensor *host)
{
    const int64_t *n = host->shape;
    struct tensor raw = kern_tensor(v->k, c == &v->encoder ? DT_U8 : DT_F32, 4, n[0], n[1], n[2], n[3]);
    kern_upload(v->k, &raw, host);
    return raw;
}

/* What has been uploaded in the network's form, cut to a window */
static struct tensor load(struct vae *v, const struct coder *c, const struct tensor *raw, struct window at)
{
    const bool pixels = c == &v->encoder;
    const int64_t side = pixels ? v->c.side : 1, frames = raw->shape[0], height = raw->shape[pixels ? 1 : 2],
                  width = raw->shape[pixels ? 2 : 3];
    struct tensor x = vae_roomy(v, frames, height, width, pixels ? 3 : v->c.latent);
    if (pixels)
        pixels_to_unit(v->k, &x, raw);
    else
        channels_last(v->k, &x, raw, (float)(1 / v->c.scaling));
    if (at.h * side == height && at.w * side == width) return x;
    struct tensor cut = vae_roomy(v, frames, at.h * side, at.w * side, x.shape[3]);
    copy_window(v->k, &cut, 0, 0, &x, at.y * side, at.x * side, at.h * side, at.w * side);
    return cut;
}

/* What the network made, y, to frames from `from` on of the host's moments or video */
static void store(struct vae *v, const struct coder *c, struct tensor *host, int64_t from,
                  const struct tensor *y)
{
    struct tensor rows = tensor_rows(host, from, y->shape[0]);
    size_t mark = kern_mark(v->k);
    if (c == &v->decoder) expect_finite(v->k, "the decoder's frames", y);
    if (c == &v->encoder) {
        struct tensor moments =
            kern_tensor(v->k, DT_F32, 4, y->shape[0], y->shape[3], y->shape[1], y->shape[2]);
        channels_second(v->k, &moments, y, 1);
        kern_download(v->k, &rows, &moments);
    } else if (host->dtype == DT_U8) {
        struct tensor pixels =
            kern_tensor(v->k, DT_U8, 4, y->shape[0], y->shape[1], y->shape[2], y->shape[3]);
        unit_to_pixels(v->k, &pixels, y);
        kern_download(v->k, &rows, &pixels);
    } else {
        kern_download(v->k, &rows, y);
    }
    kern_release(v->k, mark);
}

/* All chunks of one window: of what has been uploaded into the tile or, without one, from the host to the
 * host */
static void chunks(struct vae *v, struct coder *c, struct tensor *tile, struct tensor *out,
                   const struct tensor *in, struct window at)
{
    struct kern *k = v->k;
    size_t mark = kern_mark(k);
    vae_histories(v, c, at.h, at.w);
    int64_t done = 0;
    for (int64_t from = 0, to; from < in->shape[0]; from = to) {
        size_t chunk = kern_mark(k);
        to = chunk_end(from, in->shape[0], c->frames);
        struct tensor raw = tensor_rows(in, from, to - from);
        if (!tile) raw = uploaded(v, c, &raw);
        struct tensor x = load(v, c, &raw, at);
        struct tensor y =
            c == &v->encoder ? vae_encode_chunk(v, x, from == 0) : vae_decode_chunk(v, x, from == 0);
        if (tile) {
            struct tensor rows = tensor_rows(tile, done, y.shape[0]);
            kern_copy(k, &rows, &y);
        } else {
            store(v, c, out, done, &y);
        }
        done += y.shape[0];
        kern_release(k, chunk);
    }
    kern_release(k, mark);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The same window by window: tiles overlap by a sixth of their height and a fifth of their width, and each is
 * faded in from the one above and the one to the left, already blended themselves, in raster order. Two rows
 * of tiles are kept. Tile and overlap are whole latents; diffusers' are the same when 6 and 5 divide the
 * tile, and do not fit otherwise. */
static void tiles(struct vae *v, struct coder *c, struct tensor *out, const struct tensor *in, int64_t h,
                  int64_t w)
{
    struct kern *k = v->k;
    const bool pixels = c == &v->decoder;
    const int64_t tile_h = v->c.tile_h, tile_w = v->c.tile_w, blend_h = tile_h / 6, blend_w = tile_w / 5;
    const int64_t step_h = tile_h - blend_h, step_w = tile_w - blend_w, columns = (w + step_w - 1) / step_w;
    const int64_t side = pixels ? v->c.side : 1, frames = out->shape[0],
                  channels = pixels ? 3 : 2 * v->c.latent;
    const int64_t largest = frames * least(tile_h, h) * side * least(tile_w, w) * side * channels;
    struct tensor whole = vae_activation(v, frames, h * side, w * side, channels), all = uploaded(v, c, in);
    struct tensor kept = kern_tensor(k, kern_compute(k), 2, 2 * columns, largest);
#define TILE(i, j)                                                                                           \
    tensor_of(kept.dtype, tensor_rows(&kept, (i) % 2 * columns + (j), 1).data, 4, frames,                    \
              least(tile_h, h - (i)*step_h) * side, least(tile_w, w - (j)*step_w) * side, channels)

    for (int64_t i = 0; i * step_h < h; i++)
        for (int64_t j = 0; j < columns; j++) {
            const struct window at = {i * step_h, j * step_w, least(tile_h, h - i * step_h),
                                      least(tile_w, w - j * step_w)};
            struct tensor t = TILE(i, j);
            chunks(v, c, &t, NULL, &all, at);
            if (i && blend_h) {
                struct tensor above = TILE(i - 1, j);
                blend_edge(k, &t, &above, least(blend_h * side, least(above.shape[1], t.shape[1])), true);
            }
            if (j && blend_w) {
                struct tensor left = TILE(i, j - 1);
                blend_edge(k, &t, &left, least(blend_w * side, least(left.shape[2], t.shape[2])), false);
            }
            copy_window(k, &whole, at.y * side, at.x * side, &t, 0, 0, least(at.h, step_h) * side,
                        least(at.w, step_w) * side);
        }
#undef TILE
    store(v, c, out, 0, &whole);
}

static void whole_or_tiles(struct vae *v, struct coder *c, struct tensor *out, const struct tensor *in,
                           int64_t h, int64_t w, bool tiling)
{
    size_t mark = kern_mark(v->k);
    if (tiling && (h > v->c.tile_h || w > v->c.tile_w))
        tiles(v, c, out, in, h, w);
    else
        chunks(v, c, NULL, out, in, (struct window){0, 0, h, w});
    kern_release(v->k, mark);
}

/* First without touching anything, to learn and ask for the memory it takes; then for real */
static bool run(struct vae *v, struct coder *c, struct tensor *out, const struct tensor *in, int64_t h,
                int64_t w, bool tiling)
{
    struct kern *k = v->k;
    if (!kern_ok(k)) return false;
    if (tiling && !(v->c.tile_h && v->c.tile_w)) {
        kern_fail(k, "vae/config.json: the sample size is too small to make tiles of half of it");
        return false;
    }
    kern_plan_begin(k);
    whole_or_tiles(v, c, out, in, h, w, tiling);
    size_t bytes = kern_plan_end(k);
    if (kern_ok(k) && kern_reserve(k, bytes)) whole_or_tiles(v, c, out, in, h, w, tiling);
    return kern_ok(k);
}

/* ---- the interface ---- */

int64_t vae_latent_frames(const struct vae *v, int64_t frames)
{
    int64_t total = 0;
    for (int64_t from = 0, to; from < frames; from = to) {
        to = chunk_end(from, frames, v->encoder.frames);
        total += vae_halved(v, to - from);
    }
    return total;
}

int64_t vae_video_frames(const struct vae *v, int64_t latent_frames)
{
    int64_t total = 0;
    for (int64_t from = 0, to; from < latent_frames; from = to) {
        to = chunk_end(from, latent_frames, v->decoder.frames);
        total += vae_doubled(v, to - from);
    }
    return total;
}

/* A video the network can take, and as many frames and latents as it makes of it */
static bool check_video(struct vae *v, const struct tensor *video, const struct tensor *result,
                        int64_t channels)
{
    const int64_t side = v->c.side;
    char what[64];
    if (!tensor_is(video, DT_U8, 4, -1, -1, -1, 3) || !tensor_count(video))
        kern_fail(v->k, "video is %s, not U8 [F,H,W,3]", tensor_describe(what, sizeof what, video));
    else if (video->shape[1] % side || video->shape[2] % side)
        kern_fail(v->k, "video of %lldx%lld: width and height must be multiples of %lld",
                  (long long)video->shape[2], (long long)video->shape[1], (long long)side);
    else if (!dtype_is_float(result->dtype) ||
             !tensor_is(result, result->dtype, 4, vae_latent_frames(v, video->shape[0]), channels,
                        video->shape[1] / side, video->shape[2] / side))
        kern_fail(v->k, "no room for %lld channels of latents in %s", (long long)channels,
                  tensor_describe(what, sizeof what, result));
    return kern_ok(v->k);
}

bool vae_moments(struct vae *v, struct tensor *moments, const struct tensor *video, bool tiling)
{
    return check_video(v, video, moments, 2 * v->c.latent) &&
           run(v, &v->encoder, moments, video, moments->shape[2], moments->shape[3], tiling);
}

bool vae_encode(struct vae *v, struct tensor *latents, const struct tensor *video, const struct rng *noise,
                bool tiling)
{
    if (!check_video(v, video, latents, v->c.latent)) return false;
    const int64_t frames = latents->shape[0], channels = v->c.latent, h = latents->shape[2],
                  w = latents->shape[3];
    const size_t n = (size_t)(frames * channels * h * w), part = (size_t)(channels * h * w);
    if (v->host_count < 3 * n) {
        free(v->host);
        v->host = malloc(3 * n * sizeof *v->host);
        v->host_count = v->host ? 3 * n : 0;
    }
    if (!v->host) {
        kern_fail(v->k, "out of memory for %zu moments", 3 * n);
        return false;
    }
    float *latent = v->host + 2 * n;
    struct tensor moments = tensor_of(DT_F32, v->host, 4, frames, 2 * channels, h, w);
    if (!vae_moments(v, &moments, video, tiling)) return false;

    if (noise) rng_normal(noise, latent, n);
    bool finite = true;
#pragma omp parallel for reduction(&& : finite)
    for (int64_t t = 0; t < frames; t++) {
        const float *mean = v->host + (size_t)t * 2 * part, *logvar = mean + part;
        float *z = latent + (size_t)t * part;
        for (size_t i = 0; i < part; i++) {
            float deviation = noise ? expf(fminf(fmaxf(logvar[i], -30), 20) / 2) * z[i] : 0;
            z[i] = (float)v->c.scaling * (mean[i] + deviation);
            finite = finite && isfinite(z[i]);
        }
    }
    if (!finite) kern_fail(v->k, "the encoder made values that are not finite");
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

bool vae_decode(struct vae *v, struct tensor *video, const struct tensor *latents, bool tiling)
{
    const int64_t side = v->c.side;
    char what[64];
    if (!dtype_is_float(latents->dtype) || !tensor_is(latents, latents->dtype, 4, -1, v->c.latent, -1, -1) ||
        !tensor_count(latents)) {
        kern_fail(v->k, "latents are %s, not a float [T,%lld,h,w]",
                  tensor_describe(what, sizeof what, latents), (long long)v->c.latent);
        return false;
    }
    const int64_t h = latents->shape[2], w = latents->shape[3];
    if (!(video->dtype == DT_U8 || dtype_is_float(video->dtype)) ||
        !tensor_is(video, video->dtype, 4, vae_video_frames(v, latents->shape[0]), h * side, w * side, 3))
        kern_fail(v->k, "no room for the video in %s", tensor_describe(what, sizeof what, video));
    if (!all_finite(latents)) kern_fail(v->k, "latents hold values that are not finite");
    return run(v, &v->decoder, video, latents, h, w, tiling);
}

struct vae *vae_open(struct kern *k, const struct model *m, bool encoder, bool decoder, char *err,
                     size_t errlen)
{
    json_t *config = model_config(m, "vae", err, errlen);
    struct vae *v = config ? calloc(1, sizeof *v) : NULL;
    struct params list = {0};
    bool ok = false;
    if (config && !v) fail(err, errlen, "out of memory");
    if (v && vae_config(&v->c, config, "vae/config.json", err, errlen)) {
        v->k = k;
        vae_params(&list, v, encoder, decoder);
        ok = weights_load(k, &list, m, "vae", NULL, v->id, err, errlen);
    }
    params_free(&list);
    json_decref(config);
    if (ok) return v;
    vae_close(v);
    return NULL;
}

void vae_close(struct vae *v)
{
    if (v) free(v->host);
    free(v);
}

const char *vae_id(const struct vae *v)
{
    return v->id;
}

int64_t vae_side(const struct vae *v)
{
    return v->c.side;
}

int64_t vae_channels(const struct vae *v)
{
    return v->c.latent;
}

double vae_scaling(const struct vae *v)
{
    return v->c.scaling;
}
