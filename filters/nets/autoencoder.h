/* autoencoder - pixels to latents and back, whatever the family (cogvideox_vae.c).
 *
 * All tensors are on the host. With `tiling`, what is larger than half the sample size is done in overlapping
 * tiles, blended where they meet: less memory, slightly other values. */
#ifndef NETS_AUTOENCODER_H
#define NETS_AUTOENCODER_H

#include "filters/lib/rng.h"
#include "filters/nets/weights.h"

struct autoencoder {
    const struct autoencoder_kind *kind;
    struct kern *k;
    int64_t spatial;      /* pixels of a latent's side */
    int64_t channels;     /* C of latents [T,C,h,w] */
    double *mean, *scale; /* [C]: latents = (z - mean) scale of the network's own z; scale is 1 / deviation */
    char id[17];          /* 16 hex digits of configuration and weights */
    void *net;            /* the family's own */
    float *host;          /* moments and noise of the last video */
    size_t host_count;
};

struct autoencoder_kind {
    struct network network;
    /* Says in net, once configured, which halves are loaded; the other one is checked only. */
    void (*halves)(void *net, bool encoder, bool decoder);
    /* With net loaded, fills in spatial, channels, mean and scale. */
    bool (*open)(struct autoencoder *a, char *err, size_t errlen);
    /* How many frames come of so many, one way and the other. */
    int64_t (*latent_frames)(const struct autoencoder *a, int64_t frames);
    int64_t (*video_frames)(const struct autoencoder *a, int64_t latent_frames);
    /* moments [T,2C,h,w] = mean, then log-variance, of the posterior of z; of a video that fits. */
    bool (*moments)(struct autoencoder *a, struct tensor *moments, const struct tensor *video, bool tiling);
    /* video [F,H,W,3] = decoder(latents / scale + mean), of latents that fit. */
    bool (*decode)(struct autoencoder *a, struct tensor *video, const struct tensor *latents, bool tiling);
};

/* vae/ of a model, by its class: checks all of it, loads the halves asked for. NULL with the reason in err. */
struct autoencoder *autoencoder_open(struct kern *k, const struct model *m, bool encoder, bool decoder,
                                     char *err, size_t errlen);
void autoencoder_close(struct autoencoder *a); /* NULL is fine; device memory goes with the device */

/* E.g. CogVideoX: F = 4n+1 gives n+1 latent frames and T, when odd, gives 4T-3 back; every other count is
 * defined too: a video of 8 gives 2, and an even T gives 4T. */
int64_t latent_frames(const struct autoencoder *a, int64_t frames);
int64_t video_frames(const struct autoencoder *a, int64_t latent_frames);

/* false: kern_error() of the device says why. */

/* moments of the posterior
 *   moments  [T,2C,h,w], any float dtype; the log-variance is as the network gives it, not clamped
 *   video    U8 [F,H,W,3], H and W multiples of `spatial` */
bool encode_moments(struct autoencoder *a, struct tensor *moments, const struct tensor *video, bool tiling);

/* latents = (mean + exp(clamp(logvar, -30, 20) / 2) n - a->mean) a->scale
 *   latents  [T,C,h,w] of any float dtype
 *   n        standard normal, in the latents' order; NULL: the posterior's mode, n = 0 */
bool encode_video(struct autoencoder *a, struct tensor *latents, const struct tensor *video,
                  const struct rng *n, bool tiling);

/* video = decoder(latents / a->scale + a->mean)
 *   video    [F,H,W,3], U8, or a float dtype: the network's own values, about -1 to 1
 *   latents  [T,C,h,w] of any float dtype */
bool decode_latents(struct autoencoder *a, struct tensor *video, const struct tensor *latents, bool tiling);

#endif
