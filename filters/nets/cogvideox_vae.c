/* cogvideox_vae - the 3-D causal video VAE of CogVideoX (Yang et al. 2024; diffusers' AutoencoderKLCogVideoX).
 *
 * A video goes through in chunks of frames, each convolution handing its last two frames on to the next
 * chunk; group norms see one chunk (and one tile) at a time, so chunking and tiling are part of the
 * definition, not a choice. Encoding takes 8 frames a chunk, the first chunk up to 7 more; decoding takes 2
 * latent frames, the first chunk 3 when their number is odd. Memory is that of one chunk. */
#include "filters/nets/cogvideox_vae_net.h"

#include <math.h>
#include <stdlib.h>

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

/* Scratch that it takes, learned without touching anything. */
static size_t plan(struct vae *v, struct coder *c, struct tensor *out, const struct tensor *in, int64_t h,
                   int64_t w, bool tiling)
{
    kern_plan_begin(v->k);
    whole_or_tiles(v, c, out, in, h, w, tiling);
    return kern_plan_end(v->k);
}

/* Memory is asked for first. Where whole does not fit and tiles do, which are other values, the user decides. */
static bool run(struct vae *v, struct coder *c, struct tensor *out, const struct tensor *in, int64_t h,
                int64_t w, bool tiling)
{
    struct kern *k = v->k;
    const bool tiles = v->c.tile_h && v->c.tile_w;
    if (!kern_ok(k)) return false;
    if (tiling && !tiles) {
        kern_fail(k, "vae/config.json: the sample size is too small to make tiles of half of it");
        return false;
    }
    size_t bytes = plan(v, c, out, in, h, w, tiling);
    const size_t room = kern_available(k);
    if (!tiling && tiles && bytes > room) {
        const double gib = 1 << 30;
        size_t less = plan(v, c, out, in, h, w, true);
        if (kern_ok(k) && less < bytes && less <= room)
            kern_fail(k, "%.3g GiB of memory needed, %.3g are free on %s; --tiling fits, with %.3g",
                      (double)bytes / gib, (double)room / gib, kern_device(k), (double)less / gib);
    }
    if (kern_ok(k) && kern_reserve(k, bytes)) whole_or_tiles(v, c, out, in, h, w, tiling);
    return kern_ok(k);
}

/* ---- the family's interface ---- */

static int64_t latents_of(const struct autoencoder *a, int64_t frames)
{
    const struct vae *v = a->net;
    int64_t total = 0;
    for (int64_t from = 0, to; from < frames; from = to) {
        to = chunk_end(from, frames, ENCODER_FRAMES);
        total += vae_halved(v, to - from);
    }
    return total;
}

static int64_t frames_of(const struct autoencoder *a, int64_t latents)
{
    const struct vae *v = a->net;
    int64_t total = 0;
    for (int64_t from = 0, to; from < latents; from = to) {
        to = chunk_end(from, latents, DECODER_FRAMES);
        total += vae_doubled(v, to - from);
    }
    return total;
}

static bool moments(struct autoencoder *a, struct tensor *to, const struct tensor *video, bool tiling)
{
    struct vae *v = a->net;
    return run(v, &v->encoder, to, video, to->shape[2], to->shape[3], tiling);
}

static bool decode(struct autoencoder *a, struct tensor *video, const struct tensor *latents, bool tiling)
{
    struct vae *v = a->net;
    return run(v, &v->decoder, video, latents, latents->shape[2], latents->shape[3], tiling);
}

static void halves(void *net, bool encoder, bool decoder)
{
    struct vae *v = net;
    v->encoder.unused = !encoder;
    v->decoder.unused = !decoder;
}

static bool open_vae(struct autoencoder *a, char *err, size_t errlen)
{
    struct vae *v = a->net;
    v->k = a->k;
    a->spatial = v->c.side;
    a->channels = v->c.latent;
    a->mean = calloc((size_t)a->channels, sizeof *a->mean);
    a->scale = calloc((size_t)a->channels, sizeof *a->scale);
    if (!a->mean || !a->scale) return fail(err, errlen, "out of memory");
    for (int64_t c = 0; c < a->channels; c++) a->scale[c] = v->c.scaling;
    return true;
}

const struct autoencoder_kind cogvideox_vae = {
    .network = {.class_name = "AutoencoderKLCogVideoX",
                .file = "diffusion_pytorch_model",
                .dtype = DT_F32,
                .size = sizeof(struct vae),
                .configure = vae_configure,
                .params = vae_params},
    .halves = halves,
    .open = open_vae,
    .latent_frames = latents_of,
    .video_frames = frames_of,
    .moments = moments,
    .decode = decode,
};
