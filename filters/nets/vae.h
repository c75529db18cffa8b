/* vae - pixels to latents and back: the 3-D causal video VAE of CogVideoX (Yang et al. 2024; diffusers'
 * AutoencoderKLCogVideoX).
 *
 * A video goes through in chunks of frames, each convolution handing its last two frames on to the next
 * chunk; group norms see one chunk (and one tile) at a time, so chunking and tiling are part of the
 * definition, not a choice. Encoding takes 8 frames a chunk, the first chunk up to 7 more; decoding takes 2
 * latent frames, the first chunk 3 when their number is odd. Memory is that of one chunk. */
#ifndef NETS_VAE_H
#define NETS_VAE_H

#include "filters/lib/rng.h"
#include "filters/nets/weights.h"

struct vae;

/* Appends every parameter that vae/config.json (`file` is its name, for messages) calls for: names, shapes
 * and random initial values, no slots. false with the reason in err. */
bool vae_declare(struct params *list, json_t *config, const char *file, char *err, size_t errlen);

/* Checks all of vae/, loads the halves asked for. NULL with the reason in err. */
struct vae *vae_open(struct kern *k, const struct model *m, bool encoder, bool decoder, char *err,
                     size_t errlen);
void vae_close(struct vae *v);           /* NULL is fine; device memory goes with the device */
const char *vae_id(const struct vae *v); /* 16 hex digits of configuration and weights */

int64_t vae_side(const struct vae *v);     /* pixels of a latent's side: 8 */
int64_t vae_channels(const struct vae *v); /* of a latent: 16 */
double vae_scaling(const struct vae *v);   /* what latents are multiplied by: 0.7 */

/* How many frames come of so many. F = 4n+1 gives n+1 latent frames and T, when odd, gives 4T-3 back; every
 * other count is defined too: a video of 8 gives 2, and an even T gives 4T. */
int64_t vae_latent_frames(const struct vae *v, int64_t frames);
int64_t vae_video_frames(const struct vae *v, int64_t latent_frames);

/* All tensors below are on the host. false: kern_error() of the device tells why. With `tiling`, what is
 * larger than half the sample size is done in overlapping tiles, blended where they meet: less memory,
 * slightly other values. */

/* moments [T,32,h,w] = mean, then log-variance, of the posterior
 *   moments  any float dtype; the log-variance is as the network gives it, not clamped
 *   video    U8 [F,H,W,3], H and W multiples of 8 */
bool vae_moments(struct vae *v, struct tensor *moments, const struct tensor *video, bool tiling);

/* latents = scaling (mean + exp(clamp(logvar, -30, 20) / 2) n)
 *   latents  [T,16,h,w] of any float dtype
 *   n        standard normal, in the latents' order; NULL: the posterior's mode, n = 0 */
bool vae_encode(struct vae *v, struct tensor *latents, const struct tensor *video, const struct rng *n,
                bool tiling);

/* video = decoder(latents / scaling)
 *   video    [F,H,W,3], U8, or a float dtype: the network's own values, about -1 to 1
 *   latents  [T,16,h,w] of any float dtype */
bool vae_decode(struct vae *v, struct tensor *video, const struct tensor *latents, bool tiling);

#endif
