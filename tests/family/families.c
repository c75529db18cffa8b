/* The table of families with one more: what a new family's row looks like. Linked before the library's, it takes
 * the place of filters/nets/families.c. */
#include "filters/nets/families.h"

extern const struct denoiser_kind cogvideox_dit, loom;
extern const struct autoencoder_kind cogvideox_vae;
extern const struct text_encoder_kind t5_encoder;
extern const struct network owl_grader;

const struct family families[] = {
    {.denoiser = &cogvideox_dit, .autoencoder = &cogvideox_vae, .text_encoder = &t5_encoder},
    {.denoiser = &loom},
    {.grader = &owl_grader},
};
const int family_count = sizeof families / sizeof families[0];
