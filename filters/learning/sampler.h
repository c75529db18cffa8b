/* sampler - from noise and a text embedding to latents: the denoising loop with classifier-free guidance. */
#ifndef LEARNING_SAMPLER_H
#define LEARNING_SAMPLER_H

#include "filters/learning/half.h"
#include "filters/learning/noise.h"
#include "filters/learning/schedulers.h"
#include "filters/nets/denoiser.h"

enum { SAMPLER_CARRIED = 3 };

struct sampler {
    struct denoiser *denoiser;
    struct adapter_set adapters; /* hooked onto the denoiser by the caller, closed by sampler_close() */
    struct scheduler scheduler;
    struct step_choice choice;             /* for the scheduler's steps */
    double guidance;                       /* 1 or less: no negative pass */
    bool dynamic;                          /* the reference's "dynamic" guidance */
    void (*progress)(int step, int steps); /* or NULL */
    struct second second; /* for the negative half, where there is guidance; the caller opens and closes it */
    float *trajectory;    /* host [steps][the latents' count]: those after each step; or NULL */
    /* A part of the steps, for a scheduler that draws no noise: from..to-1; to 0: all. What the scheduler keeps between
     * two steps is carried over, host F32 [T,C,h,w] each: it is read when from > 0, and written when the end is not
     * reached. */
    int from, to;
    struct tensor carried[SAMPLER_CARRIED];
};

void sampler_close(struct sampler *s); /* adapters, denoiser and choice of steps */

/* latents [T,C,h,w] F32, text and negative [L,D], noise [T,C,h,w] or NULL (drawn from source), any float
 * dtype: all on the host. negative may be NULL without guidance. Draw 0 of the source is the starting latent,
 * draw 1 + i the i-th that the steps ask for. With from > 0 latents are what they were before that step, and noise is
 * not looked at. false: the reason in err. */
bool sampler_run(struct sampler *s, struct tensor *latents, const struct tensor *text,
                 const struct tensor *negative, const struct tensor *noise, struct noise_source *source,
                 char *err, size_t errlen);

#endif
