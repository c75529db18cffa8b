/* cogvideox_vae_net - the VAE's network on one chunk of frames: what cogvideox_vae.c drives over videos and tiles. */
#ifndef NETS_COGVIDEOX_VAE_NET_H
#define NETS_COGVIDEOX_VAE_NET_H

#include "filters/nets/autoencoder.h"
#include "filters/nets/causal.h"

enum {
    MAX_LEVELS = 8,  /* resolutions, each half the one before */
    MAX_LAYERS = 16, /* residual blocks of one level */
    MAX_CAUSAL = 4 + 2 * MAX_LAYERS * (MAX_LEVELS + 1),
    ENCODER_FRAMES = 8, /* of a chunk */
    DECODER_FRAMES = 2,
};

struct vae_config {
    int levels, layers, groups, time_levels;
    int64_t channels[MAX_LEVELS], latent, side;
    int64_t tile_h, tile_w; /* in latents; 0 when the sample size is less than a tile could be */
    double scaling;
    float eps;
};

struct norm { /* GroupNorm; in the decoder SpatialNorm, scaled and shifted by what the latents give */
    struct conv affine;   /* w, b [channels] */
    struct conv mul, add; /* [channels,1,1,1,latent], of the decoder */
};

struct resnet {
    int64_t in, out;            /* channels */
    struct norm norm1, norm2;   /* of in, of out */
    struct causal conv1, conv2; /* in -> out, out -> out */
    struct conv shortcut;       /* [out,1,1,1,in], when in != out */
};

struct level {
    int resnets;
    struct resnet resnet[MAX_LAYERS];
    struct conv resample; /* [out,3,3,out] at its end, except in the last level */
};

struct coder {
    bool unused;    /* its weights are checked, and not loaded */
    int64_t latent; /* channels that its norms look at; 0 in the encoder, whose norms look at nothing */
    struct level mid, level[MAX_LEVELS];
    struct norm norm_out;
    struct causal conv_in, conv_out;
    struct causal *causal[MAX_CAUSAL]; /* every causal convolution, for their histories */
    int causals;
};

struct vae {
    struct kern *k;
    struct vae_config c;
    struct coder encoder, decoder;
};

/* Of struct network, with net a struct vae. A half that is unused gets no slots: checked, but not loaded. */
bool vae_configure(void *net, json_t *json, const char *file, char *err, size_t errlen);
void vae_params(struct params *list, void *net);

/* What passage.h asks for, with net a struct vae; x is roomy, and pixels or z. */
void vae_begin_encoding(void *net, int64_t h, int64_t w);
void vae_begin_decoding(void *net, int64_t h, int64_t w);
struct tensor vae_encode_chunk(void *net, struct tensor x, bool first);
struct tensor vae_decode_chunk(void *net, struct tensor x, bool first);

int64_t vae_halved(const struct vae *v, int64_t frames);  /* T' of an encoded chunk */
int64_t vae_doubled(const struct vae *v, int64_t frames); /* T' of a decoded one */

#endif
