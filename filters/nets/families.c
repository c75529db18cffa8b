#include "filters/nets/families.h"

extern const struct denoiser_kind cogvideox_dit;
extern const struct denoiser_kind wan_dit;
extern const struct autoencoder_kind cogvideox_vae;
extern const struct autoencoder_kind wan_vae;
extern const struct text_encoder_kind t5_encoder, umt5_encoder;
extern const struct network owl_grader;

/* A family: its files, and a row here. */
const struct family families[] = {
    {.denoiser = &cogvideox_dit, .autoencoder = &cogvideox_vae, .text_encoder = &t5_encoder},
    {.denoiser = &wan_dit, .autoencoder = &wan_vae, .text_encoder = &umt5_encoder},
    {.grader = &owl_grader},
};
const int family_count = sizeof families / sizeof families[0];
