/* denoiser - the network that a video is generated with, whatever its family: sampler, trainer and programs know
 * only this. A family (cogvideox_dit.c) defines one `struct denoiser_kind` and stands in families.c.
 *
 * The base weights are frozen: backward gives gradients of activations, and no weight has one. What is trained
 * hooks onto the linear layers that the network offers (linears.h). */
#ifndef NETS_DENOISER_H
#define NETS_DENOISER_H

#include "filters/nets/linears.h"
#include "filters/nets/weights.h"

/* What a model's latents and texts look like. Frames, width and height are in pixels' terms. */
struct latent_geometry {
    int64_t channels;              /* C of latents [T,C,h,w] */
    int64_t temporal, spatial;     /* frames of a latent frame, after the first; pixels of a latent's side */
    int64_t patch;                 /* latents of a token's side */
    int64_t frames, width, height; /* of the videos that the model makes by itself */
    double fps;                    /* and their frames a second; 0: what encode-mp4 has for itself */
    int64_t text_length, text_width; /* [L,D] of prompt_embeds */
    bool text_short;                 /* fewer rows will do: rows of zeros stand for the others */
};

/* Whether the family can make so many frames of width x height pixels; 0 stands for the model's own. false: why
 * not, in err, beginning with "--frames" or "--size". */
bool geometry_fits(const struct latent_geometry *g, int64_t frames, int64_t width, int64_t height, char *err,
                   size_t errlen);
/* The shape [T,C,h,w] of the latents of such a video; no data. */
struct tensor geometry_latents(const struct latent_geometry *g, int64_t frames, int64_t width,
                               int64_t height);
/* Whether these are embeddings [L,D] that the network reads, by their shape; false: `name` and both shapes in err. */
bool geometry_reads(const struct latent_geometry *g, const struct tensor *embeds, const char *name, char *err,
                    size_t errlen);

/* How much of a forward pass is kept for backward, and so how much is computed again. NONE computes nothing
 * again; FFN the feed-forward's first half; FULL keeps each block's input and computes the block again. The
 * bytes of the gradients are the same. */
enum recompute { RECOMPUTE_NONE, RECOMPUTE_FFN, RECOMPUTE_FULL, RECOMPUTES };
extern const char *const recompute_name[RECOMPUTES]; /* "none", "ffn", "full" */

/* What belongs to one size of video. Its tables lie in scratch: the caller's mark decides how long they live. */
struct denoiser_grid {
    struct token_rows rows; /* of the joint sequence */
    struct tensor table[2]; /* where each token is, in the family's own form */
};

/* What a network's blocks, all of them in turn, add to the video's tokens: output minus input, [video tokens,width] of
 * the compute dtype. A forward pass takes it, or adds one that was taken before, at another timestep, in place of its
 * blocks. Text tokens count for nothing behind the blocks. (As TeaCache has it, arXiv:2411.19108.) */
struct block_residual {
    enum { RESIDUAL_TAKE, RESIDUAL_ADD } use;
    struct tensor sum;
};

struct denoiser {
    const struct denoiser_kind *kind;
    struct kern *k;
    struct latent_geometry geometry;
    struct linears linears;         /* what can be hooked onto */
    const struct linear_hook *hook; /* called beside these; NULL: nothing; borrowed */
    struct block_residual
        *residual;      /* of a forward pass that does not keep; NULL: the blocks run; borrowed */
    int64_t parameters; /* how many numbers the weights are */
    char id[17];        /* 16 hex digits of configuration and weights */
    void *net;          /* the family's own */
};

/* How the family's published pipeline makes videos: what a user who says nothing else gets. */
struct published {
    int64_t steps;
    double guidance;
    bool dynamic;    /* it can vary the guidance from step to step, as scheduler_dynamic_guidance() has it */
    bool by_channel; /* its noise is drawn in F32, channels before frames: noise.h */
    const char *negative; /* a negative prompt, UTF-8; NULL: there is none */
};

/* The contract. */
struct denoiser_kind {
    struct network network;
    struct published published;
    /* Of its linears; NULL: other tools' adapters are read under open()'s names alone. */
    const struct linear_names *names;
    /* Of a net that is configured. */
    void (*geometry)(struct latent_geometry *g, const void *net);
    /* How many frames the family's autoencoder makes of so many latent ones; NULL: those that gave them. */
    int64_t (*video_frames)(int64_t latent_frames);
    /* text_length and text_width alone, from a config that need not say more: for a text encoder. */
    bool (*text_shape)(struct latent_geometry *g, json_t *config, const char *file, char *err, size_t errlen);
    /* With net loaded, or its shapes known, fills in linears. */
    bool (*open)(struct denoiser *d, char *err, size_t errlen);
    /* Of latents [T,C,h,w]; only the shape matters. A size that the model cannot take: reason in err. */
    bool (*grid)(struct denoiser *d, struct denoiser_grid *g, const struct tensor *latents, char *err,
                 size_t errlen);
    /* What the network computes of a text [L,D] alone, hooks included, in scratch: forward takes it in the text's
     * place when it does not keep, and answers the same bytes. NULL: nothing is worth it. */
    struct tensor (*digest)(struct denoiser *d, const struct tensor *text);
    /* out F32 [T,C,h,w] = the answer to latents F32 [T,C,h,w] at `timestep`, with text [L,D] in the compute
     * dtype. keep: NULL to sample, with the blocks between residual_begin() and residual_end(); else scratch tensors
     * stay for backward, until the caller releases its mark. */
    void (*forward)(struct denoiser *d, const struct denoiser_grid *g, struct tensor *out,
                    const struct tensor *latents, const struct tensor *text, double timestep,
                    const enum recompute *keep);
    /* Of the last forward that kept; dout F32 [T,C,h,w]. The hook's backward gets what it adds up. */
    void (*backward)(struct denoiser *d, const struct denoiser_grid *g, const struct tensor *dout);
};

/* transformer/ of a model, by its class. shapes_only: nothing is read or allocated on the device, and the network
 * can only be planned. NULL: reason in err; so for a model of two. */
struct denoiser *denoiser_open(struct kern *k, const struct model *m, bool shapes_only, char *err,
                               size_t errlen);
/* Of a model of two transformers, one for each end of the levels: transformer/ for timesteps from the boundary on, and
 * transformer_2/ (low) for those below. */
struct denoiser *denoiser_open_expert(struct kern *k, const struct model *m, bool low, bool shapes_only,
                                      char *err, size_t errlen);
/* The boundary as a level above 0, up to 0.999, boundary_ratio of model_index.json; 0 for a model of one. false: reason in err. */
bool denoiser_boundary(const struct model *m, double *boundary, char *err, size_t errlen);
void denoiser_close(struct denoiser *d); /* NULL is fine; the weights go with the device */
/* From its config alone. text_only: just text_length and text_width. false: reason in err. */
bool denoiser_geometry(const struct model *m, bool text_only, struct latent_geometry *g, char *err,
                       size_t errlen);

/* Of the family that a model's transformer/config.json names. NULL: reason in err. */
const struct published *denoiser_published(const struct model *m, char *err, size_t errlen);

/* Frames that come of latents of `frames` frames: with some families not always as many. */
int64_t denoiser_video_frames(const struct denoiser *d, int64_t frames);

bool denoiser_grid(struct denoiser *d, struct denoiser_grid *g, const struct tensor *latents, char *err,
                   size_t errlen);
/* Embeddings that geometry_reads(), host [L,D], as forward takes them: scratch in the compute dtype, filled up with rows
 * of zeros. `often`: to sample, which asks about one text at every step; what is the same each time is computed now,
 * with the hook that is there. */
struct tensor denoiser_text(struct denoiser *d, const struct tensor *embeds, bool often);
void denoiser_forward(struct denoiser *d, const struct denoiser_grid *g, struct tensor *out,
                      const struct tensor *latents, const struct tensor *text, double timestep,
                      const enum recompute *keep);
void denoiser_backward(struct denoiser *d, const struct denoiser_grid *g, const struct tensor *dout);

/* Room for one, in scratch. */
struct block_residual denoiser_residual(struct denoiser *d, const struct denoiser_grid *g);
/* For families, around the blocks of a forward pass that does not keep; video: its tokens, of x. False: the blocks are
 * not to run, video is what they would have made of it. */
bool residual_begin(struct denoiser *d, struct tensor *video);
void residual_end(struct denoiser *d, const struct tensor *video);

#endif
