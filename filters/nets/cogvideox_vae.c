/* cogvideox_vae - the 3-D causal video VAE of CogVideoX (Yang et al. 2024; diffusers' AutoencoderKLCogVideoX).
 *
 * A video goes through in chunks of frames, each convolution handing its last two frames on to the next
 * chunk; group norms see one chunk (and one tile) at a time, so chunking and tiling are part of the
 * definition, not a choice. Encoding takes 8 frames a chunk, the first chunk up to 7 more; decoding takes 2
 * latent frames, the first chunk 3 when their number is odd. Memory is that of one chunk. */
#include "filters/nets/cogvideox_vae_net.h"
#include "filters/nets/passage.h"

#include <stdlib.h>

/* The chunk that starts at `from`: what does not fill a chunk joins the first. */
static int64_t chunk_end(int64_t from, int64_t frames, int64_t chunk)
{
    int64_t to = from ? from + chunk : chunk + frames % chunk;
    return to < frames ? to : frames;
}

static int64_t encoder_chunk(const void *net, int64_t from, int64_t frames)
{
    (void)net;
    return chunk_end(from, frames, ENCODER_FRAMES);
}

static int64_t decoder_chunk(const void *net, int64_t from, int64_t frames)
{
    (void)net;
    return chunk_end(from, frames, DECODER_FRAMES);
}

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

/* Tiles are of half the sample size, and overlap by a sixth of their height and a fifth of their width. Tile and
 * overlap are whole latents; diffusers' are the same when 6 and 5 divide the tile, and do not fit otherwise. */
static struct passage passage_of(struct autoencoder *a, bool encodes)
{
    const struct vae_config *c = &((struct vae *)a->net)->c;
    return (struct passage){.a = a,
                            .encodes = encodes,
                            .fold = 1,
                            .tile_h = c->tile_h,
                            .tile_w = c->tile_w,
                            .blend_h = c->tile_h / 6,
                            .blend_w = c->tile_w / 5,
                            .chunk_end = encodes ? encoder_chunk : decoder_chunk,
                            .begin = encodes ? vae_begin_encoding : vae_begin_decoding,
                            .chunk = encodes ? vae_encode_chunk : vae_decode_chunk};
}

static bool moments(struct autoencoder *a, struct tensor *to, const struct tensor *video, bool tiling)
{
    const struct passage p = passage_of(a, true);
    return passage_run(&p, to, video, tiling);
}

static bool decode(struct autoencoder *a, struct tensor *video, const struct tensor *latents, bool tiling)
{
    const struct passage p = passage_of(a, false);
    return passage_run(&p, video, latents, tiling);
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
