/* half - one half of guidance: what a network says of the latents with one text. The half of the negative text may be at
 * work on a second device, with the same weights and adapters, while the first one is at the other half. */
#ifndef LEARNING_HALF_H
#define LEARNING_HALF_H

#include "filters/learning/adapter.h"
#include "filters/learning/step_choice.h"
#include "filters/lib/worker.h"
#include "filters/nets/denoiser.h"

struct half {
    struct denoiser *denoiser;
    struct denoiser_grid grid;
    struct tensor x, v, text; /* on the device; x and v F32 [T,C,h,w] */
    struct block_residual residual;
    bool negative;
};

/* Room in scratch for latents of this shape [T,C,h,w], and the text [L,D] from the host. false: reason in err. */
bool half_prepare(struct half *h, struct denoiser *d, const struct adapter_set *adapters,
                  const struct step_choice *c, const struct tensor *latents, const struct tensor *text,
                  char *err, size_t errlen);
/* v = the network's answer to x, at step `step` of the choice. */
void half_ask(struct half *h, const struct step_choice *c, int step, double timestep);

/* A second device. Its denoiser and adapters are opened, used and closed by its worker alone. */
struct second {
    struct worker *worker; /* NULL: there is none */
    struct denoiser *denoiser;
    struct adapter_set adapters;
    struct second_run *run; /* the record at work */
};

/* For latents of this shape and the negative text. false: reason in err. */
bool second_begin(struct second *s, const struct step_choice *c, const struct tensor *latents,
                  const struct tensor *negative, char *err, size_t errlen);
/* Begins an answer to x, which lies on the first device `k`; and waits for it: v gets it. The numbers go through the
 * host's memory: 4.5 MB each way at full size. */
void second_ask(struct second *s, struct kern *k, const struct tensor *x, int step, double timestep);
void second_answer(struct second *s, struct kern *k, struct tensor *v);
/* After second_begin(), whatever it returned. false: something went wrong there, the reason in err. */
bool second_end(struct second *s, char *err, size_t errlen);

#endif
