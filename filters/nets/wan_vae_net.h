/* wan_vae_net - Wan's VAE network, 2.1 or 2.2, on one chunk of frames: what wan_vae.c drives over videos and tiles.
 *
 * 2.2 (is_residual) reads squares of 2x2 pixels as one pixel of 12 channels, and has a shortcut without weights around
 * each level that changes resolution and, in the encoder, around the last.
 *
 * The first chunk is frame 0 alone, which layers in time let through as it is; every later one is of whole groups of
 * four frames, or of latents. Norms see one pixel, and what a layer has to know of earlier frames is its history, so
 * that the length of chunks changes memory and no value. */
#ifndef NETS_WAN_VAE_NET_H
#define NETS_WAN_VAE_NET_H

#include "filters/nets/autoencoder.h"
#include "filters/nets/causal.h"

enum {
    WAN_LEVELS = 8,  /* resolutions, each half the one before */
    WAN_RESNETS = 8, /* residual blocks of one level */
    WAN_MEMORIES = 8 + WAN_LEVELS + 2 * WAN_RESNETS * (WAN_LEVELS + 1),
    WAN_GROUP = 4, /* frames of a latent */
};

struct wan_vae_config {
    int levels, resnets; /* residual blocks of a level of the encoder; the decoder's have one more */
    int64_t encoder[WAN_LEVELS + 1], decoder[WAN_LEVELS + 1]; /* channels before and after each level */
    bool halves_time[WAN_LEVELS];                             /* at the end of this level of the encoder */
    bool residual;                                            /* VAE 2.2 */
    int patch;                                                /* pixels of the side of one of the network's */
    int64_t latent, side;                                     /* side: the network's pixels of a latent's */
    double mean[1024], deviation[1024];                       /* of the latents */
};

struct wan_resnet {
    int64_t in, out;            /* channels */
    struct tensor norm1, norm2; /* gammas */
    struct causal conv1, conv2; /* in -> out, out -> out */
    struct conv shortcut;       /* [out,1,1,1,in], when in != out */
};

struct wan_level {
    int resnets;
    struct wan_resnet resnet[WAN_RESNETS];
    struct conv
        space; /* at its end, except in the last level: 3x3, halving rows and columns or after doubling them */
    bool in_time;         /* and so in time, with */
    struct conv time;     /* [C or 2C,3,1,1,C] */
    struct tensor before; /* [1 or 2,H,W,C]: frames that `time` has seen last */
};

struct wan_attention { /* of the pixels of a frame, one head of all channels */
    struct tensor norm;
    struct conv qkv, proj; /* [3C,1,1,C], [C,1,1,C] */
};

struct wan_coder {
    bool unused; /* its weights are checked, and not loaded */
    struct causal conv_in, conv_out;
    struct wan_level level[WAN_LEVELS], mid;
    struct wan_attention attention; /* between the two blocks of mid */
    struct tensor norm_out;
    struct conv quant; /* 1x1x1, after the encoder and before the decoder */
    /* Every history, of so many frames and channels, where space has been halved so often. */
    struct wan_memory {
        struct tensor *at;
        int64_t frames, channels;
        int scale;
    } memory[WAN_MEMORIES];
    int memories;
};

struct wan_vae {
    struct kern *k;
    int64_t chunk; /* latents at a time, after the first */
    struct wan_vae_config c;
    struct wan_coder encoder, decoder;
};

/* Of struct network, with net a struct wan_vae. A half that is unused gets no slots: checked, but not loaded. */
bool wan_vae_configure(void *net, json_t *json, const char *file, char *err, size_t errlen);
void wan_vae_params(struct params *list, void *net);

/* What passage.h asks for; x is roomy, and pixels or z. */
void wan_vae_begin_encoding(void *net, int64_t h, int64_t w);
void wan_vae_begin_decoding(void *net, int64_t h, int64_t w);
struct tensor wan_vae_encode_chunk(void *net, struct tensor x, bool first);
struct tensor wan_vae_decode_chunk(void *net, struct tensor x, bool first);

#endif
