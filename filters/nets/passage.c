#include "filters/nets/passage.h"

#include <stdlib.h>

#include "filters/nets/causal.h"

struct window { /* in latents */
    int64_t y, x, h, w;
};

/* The network's pixels: of a latent's side, and their channels */
static int64_t pixel_side(const struct passage *p)
{
    return p->a->spatial / p->fold;
}

static int64_t pixel_channels(const struct passage *p)
{
    return (int64_t)3 * p->fold * p->fold;
}

/* Frames of the host's video or latents on the device */
static struct tensor uploaded(const struct passage *p, const struct tensor *host)
{
    const int64_t *n = host->shape;
    struct tensor raw = kern_tensor(p->a->k, p->encodes ? DT_U8 : DT_F32, 4, n[0], n[1], n[2], n[3]);
    kern_upload(p->a->k, &raw, host);
    return raw;
}

/* x, the network's pixels, of bytes */
static void load_pixels(const struct passage *p, struct tensor *x, const struct tensor *raw)
{
    struct kern *k = p->a->k;
    const size_t mark = kern_mark(k);
    struct tensor plain = *x;
    if (p->fold > 1) plain = activation(k, raw->shape[0], raw->shape[1], raw->shape[2], 3);
    pixels_to_unit(k, &plain, raw);
    if (p->fold > 1) fold_pixels(k, x, &plain, p->fold);
    kern_release(k, mark);
}

/* What has been uploaded in the network's form, cut to a window */
static struct tensor load(const struct passage *p, const struct tensor *raw, struct window at)
{
    struct kern *k = p->a->k;
    const bool pixels = p->encodes;
    const int64_t side = pixels ? pixel_side(p) : 1, frames = raw->shape[0], fold = pixels ? p->fold : 1,
                  height = raw->shape[pixels ? 1 : 2] / fold, width = raw->shape[pixels ? 2 : 3] / fold;
    struct tensor x = roomy(k, frames, height, width, pixels ? pixel_channels(p) : p->a->channels);
    if (pixels)
        load_pixels(p, &x, raw);
    else
        channels_last(k, &x, raw, 1);
    if (at.h * side == height && at.w * side == width) return x;
    struct tensor cut = roomy(k, frames, at.h * side, at.w * side, x.shape[3]);
    copy_window(k, &cut, 0, 0, &x, at.y * side, at.x * side, at.h * side, at.w * side);
    return cut;
}

/* The network's pixels, y, to the host's, bytes or floats */
static void store_pixels(const struct passage *p, struct tensor *host, const struct tensor *y)
{
    struct kern *k = p->a->k;
    struct tensor plain = *y;
    if (p->fold > 1) {
        plain = activation(k, host->shape[0], host->shape[1], host->shape[2], 3);
        unfold_pixels(k, &plain, y, p->fold);
    }
    if (host->dtype == DT_U8) {
        struct tensor pixels =
            kern_tensor(k, DT_U8, 4, plain.shape[0], plain.shape[1], plain.shape[2], plain.shape[3]);
        unit_to_pixels(k, &pixels, &plain);
        plain = pixels;
    }
    kern_download(k, host, &plain);
}

/* What the network made, y, to frames from `from` on of the host's moments or video */
static void store(const struct passage *p, struct tensor *host, int64_t from, const struct tensor *y)
{
    struct kern *k = p->a->k;
    struct tensor rows = tensor_rows(host, from, y->shape[0]);
    size_t mark = kern_mark(k);
    if (p->encodes) {
        struct tensor moments = kern_tensor(k, DT_F32, 4, y->shape[0], y->shape[3], y->shape[1], y->shape[2]);
        channels_second(k, &moments, y, 1);
        kern_download(k, &rows, &moments);
    } else {
        expect_finite(k, "the decoder's frames", y);
        store_pixels(p, &rows, y);
    }
    kern_release(k, mark);
}

/* All chunks of one window: of what has been uploaded into the tile or, without one, from the host to the
 * host */
static void chunks(const struct passage *p, struct tensor *tile, struct tensor *out, const struct tensor *in,
                   struct window at)
{
    struct kern *k = p->a->k;
    size_t mark = kern_mark(k);
    p->begin(p->a->net, at.h, at.w);
    int64_t done = 0;
    for (int64_t from = 0, to; from < in->shape[0]; from = to) {
        size_t chunk = kern_mark(k);
        to = p->chunk_end(p->a->net, from, in->shape[0]);
        struct tensor raw = tensor_rows(in, from, to - from);
        if (!tile) raw = uploaded(p, &raw);
        struct tensor y = p->chunk(p->a->net, load(p, &raw, at), from == 0);
        if (tile) {
            struct tensor rows = tensor_rows(tile, done, y.shape[0]);
            kern_copy(k, &rows, &y);
        } else {
            store(p, out, done, &y);
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

/* The same window by window: tiles overlap, and each is faded in from the one above and the one to the left, already
 * blended themselves, in raster order. Two rows of tiles are kept. */
static void tiles(const struct passage *p, struct tensor *out, const struct tensor *in, int64_t h, int64_t w)
{
    struct kern *k = p->a->k;
    const bool pixels = !p->encodes;
    const int64_t tile_h = p->tile_h, tile_w = p->tile_w, blend_h = p->blend_h, blend_w = p->blend_w;
    const int64_t step_h = tile_h - blend_h, step_w = tile_w - blend_w, columns = (w + step_w - 1) / step_w;
    const int64_t side = pixels ? pixel_side(p) : 1, frames = out->shape[0],
                  channels = pixels ? pixel_channels(p) : 2 * p->a->channels;
    const int64_t largest = frames * least(tile_h, h) * side * least(tile_w, w) * side * channels;
    struct tensor whole = activation(k, frames, h * side, w * side, channels), all = uploaded(p, in);
    struct tensor kept = kern_tensor(k, kern_compute(k), 2, 2 * columns, largest);
#define TILE(i, j)                                                                                           \
    tensor_of(kept.dtype, tensor_rows(&kept, (i) % 2 * columns + (j), 1).data, 4, frames,                    \
              least(tile_h, h - (i)*step_h) * side, least(tile_w, w - (j)*step_w) * side, channels)

    for (int64_t i = 0; i * step_h < h; i++)
        for (int64_t j = 0; j < columns; j++) {
            const struct window at = {i * step_h, j * step_w, least(tile_h, h - i * step_h),
                                      least(tile_w, w - j * step_w)};
            struct tensor t = TILE(i, j);
            chunks(p, &t, NULL, &all, at);
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
    store(p, out, 0, &whole);
}

/* Whole, or in tiles where it is larger than one: [h,w] latents */
static void pass(const struct passage *p, struct tensor *out, const struct tensor *in, bool tiling)
{
    size_t mark = kern_mark(p->a->k);
    const struct tensor *latents = p->encodes ? out : in;
    const int64_t h = latents->shape[2], w = latents->shape[3];
    if (tiling && (h > p->tile_h || w > p->tile_w))
        tiles(p, out, in, h, w);
    else
        chunks(p, NULL, out, in, (struct window){0, 0, h, w});
    kern_release(p->a->k, mark);
}

/* Scratch that it takes, learned without touching anything. */
static size_t plan(const struct passage *p, struct tensor *out, const struct tensor *in, bool tiling)
{
    kern_plan_begin(p->a->k);
    pass(p, out, in, tiling);
    return kern_plan_end(p->a->k);
}

/* Memory is asked for first. Where whole does not fit and tiles do, which are other values, the user decides. */
static bool run(const struct passage *p, struct tensor *out, const struct tensor *in, bool tiling)
{
    struct kern *k = p->a->k;
    const bool tiles = p->tile_h && p->tile_w;
    if (!kern_ok(k)) return false;
    if (tiling && !tiles) {
        kern_fail(k, "vae/config.json: the sample size is too small to make tiles of half of it");
        return false;
    }
    size_t bytes = plan(p, out, in, tiling);
    const size_t room = kern_available(k);
    if (!tiling && tiles && bytes > room) {
        const double gib = 1 << 30;
        size_t less = plan(p, out, in, true);
        if (kern_ok(k) && less < bytes && less <= room)
            kern_fail(k, "%.3g GiB of memory needed, %.3g are free on %s; --tiling fits, with %.3g",
                      (double)bytes / gib, (double)room / gib, kern_device(k), (double)less / gib);
    }
    if (kern_ok(k) && kern_reserve(k, bytes)) pass(p, out, in, tiling);
    return kern_ok(k);
}

/* z = latents / scale + mean, channel by channel */
static void rescale(const struct autoencoder *a, struct tensor *z, const struct tensor *latents)
{
    const int64_t plane = z->shape[2] * z->shape[3];
    tensor_convert(z, latents);
    for (int64_t i = 0; i < z->shape[0] * z->shape[1]; i++) {
        const float by = (float)(1 / a->scale[i % z->shape[1]]), plus = (float)a->mean[i % z->shape[1]];
        float *values = (float *)z->data + i * plane;
        for (int64_t j = 0; j < plane; j++) values[j] = values[j] * by + plus;
    }
}

bool passage_run(const struct passage *p, struct tensor *to, const struct tensor *from, bool tiling)
{
    if (p->encodes) return run(p, to, from, tiling);
    struct tensor z = *from;
    z.dtype = DT_F32;
    z.data = malloc(tensor_bytes(&z));
    if (z.data) {
        rescale(p->a, &z, from);
        run(p, to, &z, tiling);
    } else {
        kern_fail(p->a->k, "out of memory for %lld latents", (long long)tensor_count(&z));
    }
    free(z.data);
    return kern_ok(p->a->k);
}
