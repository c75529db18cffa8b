/* wan_vae - the 3-D causal video VAEs of Wan 2.1 and of Wan 2.2 TI2V-5B (Wan team 2025; diffusers' AutoencoderKLWan).
 *
 * F frames give 1 + floor((F-1)/4) latents, frames that fill no group of four are not read, and T latents give 4T-3
 * frames back. A video goes through in chunks: frame 0, then eight frames, or two latents, at a time. Every layer sees
 * what was before its chunk, or zeros before frame 0, so that the chunk is a choice of memory, not of values; tiles
 * lack what is beyond their edges, and are other values. */
#include "filters/nets/passage.h"
#include "filters/nets/wan_vae_net.h"

#include <math.h>
#include <stdlib.h>

enum { CHUNK = 2, TILE = 256, STEP = 192 }; /* latents; pixels of a tile's side, and from one to the next */

static int64_t chunk_end(int64_t from, int64_t frames, int64_t chunk)
{
    const int64_t to = from ? from + chunk : 1;
    return to < frames ? to : frames;
}

static int64_t encoder_chunk(const void *net, int64_t from, int64_t frames)
{
    return chunk_end(from, frames, WAN_GROUP * ((const struct wan_vae *)net)->chunk);
}

static int64_t decoder_chunk(const void *net, int64_t from, int64_t frames)
{
    return chunk_end(from, frames, ((const struct wan_vae *)net)->chunk);
}

static int64_t latents_of(const struct autoencoder *a, int64_t frames)
{
    (void)a;
    return frames > 0 ? 1 + (frames - 1) / WAN_GROUP : 0;
}

static int64_t frames_of(const struct autoencoder *a, int64_t latents)
{
    (void)a;
    return latents > 0 ? WAN_GROUP * (latents - 1) + 1 : 0;
}

static struct passage passage_of(struct autoencoder *a, bool encodes)
{
    /* As in the reference, an encoder's tile is of so many of the network's pixels, a decoder's of the video's. */
    const struct wan_vae *v = a->net;
    const int64_t side = encodes ? v->c.side : a->spatial, tile = TILE / side, blend = tile - STEP / side;
    return (struct passage){.a = a,
                            .encodes = encodes,
                            .fold = v->c.patch,
                            .tile_h = tile,
                            .tile_w = tile,
                            .blend_h = blend,
                            .blend_w = blend,
                            .chunk_end = encodes ? encoder_chunk : decoder_chunk,
                            .begin = encodes ? wan_vae_begin_encoding : wan_vae_begin_decoding,
                            .chunk = encodes ? wan_vae_encode_chunk : wan_vae_decode_chunk};
}

static bool moments(struct autoencoder *a, struct tensor *to, const struct tensor *video, bool tiling)
{
    const struct passage p = passage_of(a, true);
    const struct tensor read = tensor_rows(video, 0, frames_of(a, to->shape[0]));
    return passage_run(&p, to, &read, tiling);
}

/* The reference's pixels end at -1 and 1. */
static bool clamp(struct kern *k, struct tensor *video)
{
    const int64_t n = tensor_count(video);
    if (video->dtype == DT_U8) return true;
    struct tensor wide = *video;
    if (video->dtype != DT_F32) {
        wide.dtype = DT_F32;
        wide.data = malloc(tensor_bytes(&wide));
        if (!wide.data) {
            kern_fail(k, "out of memory for %lld pixels", (long long)n);
            return false;
        }
        tensor_convert(&wide, video);
    }
    float *pixel = wide.data;
    for (int64_t i = 0; i < n; i++) pixel[i] = fminf(fmaxf(pixel[i], -1), 1);
    if (video->dtype != DT_F32) {
        tensor_convert(video, &wide);
        free(wide.data);
    }
    return true;
}

static bool decode(struct autoencoder *a, struct tensor *video, const struct tensor *latents, bool tiling)
{
    const struct passage p = passage_of(a, false);
    return passage_run(&p, video, latents, tiling) && clamp(a->k, video);
}

static void halves(void *net, bool encoder, bool decoder)
{
    struct wan_vae *v = net;
    v->encoder.unused = !encoder;
    v->decoder.unused = !decoder;
}

static bool open_vae(struct autoencoder *a, char *err, size_t errlen)
{
    struct wan_vae *v = a->net;
    v->k = a->k;
    v->chunk = CHUNK;
    a->spatial = v->c.side * v->c.patch;
    a->channels = v->c.latent;
    a->mean = calloc((size_t)a->channels, sizeof *a->mean);
    a->scale = calloc((size_t)a->channels, sizeof *a->scale);
    if (!a->mean || !a->scale) return fail(err, errlen, "out of memory");
    for (int64_t c = 0; c < a->channels; c++) {
        a->mean[c] = v->c.mean[c];
        a->scale[c] = 1 / v->c.deviation[c];
    }
    return true;
}

const struct autoencoder_kind wan_vae = {
    .network = {.class_name = "AutoencoderKLWan",
                .file = "diffusion_pytorch_model",
                .dtype = DT_F32,
                .size = sizeof(struct wan_vae),
                .configure = wan_vae_configure,
                .params = wan_vae_params},
    .halves = halves,
    .open = open_vae,
    .latent_frames = latents_of,
    .video_frames = frames_of,
    .moments = moments,
    .decode = decode,
};
