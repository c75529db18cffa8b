/* dit - the diffusion transformer of CogVideoX (CogVideoXTransformer3DModel, version 1.0): forward, and
 * backward with respect to activations and adapters. The base weights are frozen: no gradient of theirs
 * exists.
 *
 * One video at a time. Token order: text first, then video, row-major over (frame, row, column) of 2x2
 * patches. */
#ifndef NETS_DIT_H
#define NETS_DIT_H

#include "filters/learning/adapter.h"
#include "filters/nets/weights.h"

struct dit_config {
    int64_t layers, heads, head_dim, width; /* width = heads head_dim */
    int64_t in_channels, out_channels, patch, time_dim, text_dim, text_length;
    int64_t sample_width, sample_height; /* of the base grid, in latents */
    int64_t sample_frames;               /* that the model makes by itself, in pixels' frames */
    bool rotary;
    double spatial_scale, temporal_scale;
    double norm_eps;
};

struct dit_linear {
    struct tensor weight, bias;
};
struct dit_norm {
    struct tensor weight, bias;
};
struct dit_block {
    struct dit_linear modulation1, modulation2, to[ADAPTER_TARGETS], ff_in, ff_out;
    struct dit_norm norm1, norm2, norm_q, norm_k;
};

enum { DIT_MAX_LAYERS = 96, DIT_MAX_ADAPTERS = 16 };

struct dit {
    struct kern *k;
    struct dit_config c;
    struct dit_linear patch, text, time1, time2, norm_out_modulation, out;
    struct dit_norm norm_final, norm_out;
    struct dit_block block[DIT_MAX_LAYERS];
    struct adapter *adapter[DIT_MAX_ADAPTERS]; /* added to the attention projections; borrowed */
    int adapters;
    int64_t parameters; /* how many numbers the weights are */
    char id[17];        /* 16 hex digits of configuration and weights */
};

/* Every parameter, by name and shape, without allocating any (for listings). */
bool dit_declare(struct params *list, json_t *config, const char *file, char *err, size_t errlen);

/* shapes_only: no weights are read or allocated; the network can only be planned. NULL with the reason in
 * err. */
struct dit *dit_open(struct kern *k, const struct model *m, bool shapes_only, char *err, size_t errlen);
void dit_close(struct dit *d); /* the weights go with the device */

/* Folds the adapters into the weights that they are added to, for good; the caller then takes them off. Sums
 * are in F32, rounded once to the weights' dtype. false: a kind that is no matrix, named in err, and nothing
 * is changed. */
bool dit_merge(struct dit *d, char *err, size_t errlen);

/* The shape [T,C,h,w] of the latents of so many frames of width x height pixels; 0: the model's. No data. */
struct tensor dit_latents(const struct dit *d, int64_t frames, int64_t width, int64_t height);

/* What belongs to one size of video; in scratch, so a caller's mark decides how long it lives. */
struct dit_grid {
    struct token_grid token;
    int64_t tokens;         /* in all, text included */
    struct tensor cos, sin; /* rotary models */
    struct tensor table;    /* others: added to the video tokens */
};
/* latents: [T,C,h,w], only the shape matters. A size that the model or one of its adapters cannot take is
 * told in err. */
bool dit_grid(struct dit *d, struct dit_grid *g, const struct tensor *latents, char *err, size_t errlen);
/* What an adapter must fit; latents may be NULL: frames of any size. */
struct adapter_base dit_adapter_base(const struct dit *d, const struct tensor *latents);

/* What forward keeps for backward. FULL keeps each block's input and computes the block again; FFN computes
 * the feed-forward's first half again. */
enum dit_recompute { RECOMPUTE_NONE, RECOMPUTE_FFN, RECOMPUTE_FULL };
struct dit_block_saved {
    struct tensor in, q, k, v, o, lse, mid, pre; /* q, k before their norm */
    struct tensor adapter[ADAPTER_TARGETS][DIT_MAX_ADAPTERS];
};
struct dit_saved {
    enum dit_recompute recompute;
    struct tensor modulation; /* silu of the time embedding [1,time_dim] */
    struct dit_block_saved block[DIT_MAX_LAYERS];
    struct tensor last; /* the last block's output [tokens,width] */
};

/* out F32 [T,C,h,w] = v(latents F32 [T,C,h,w], text [text_length,text_dim], timestep), on the device.
 * saved: NULL to sample; else scratch tensors are left in it, which the caller's mark must outlive until
 * dit_backward. */
void dit_forward(struct dit *d, const struct dit_grid *g, struct tensor *out, const struct tensor *latents,
                 const struct tensor *text, double timestep, struct dit_saved *saved);
/* Adds into the gradients of the first adapter. dout F32 [T,C,h,w]. */
void dit_backward(struct dit *d, const struct dit_grid *g, const struct tensor *dout,
                  const struct dit_saved *saved);

#endif
