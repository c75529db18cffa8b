/* step_choice - which steps of a sampling run ask the whole network, and which have guidance. Steps count from 0, the
 * noisiest. At a step that is not computed the network's blocks add what they added the last time that they ran for the
 * same text (struct block_residual). */
#ifndef LEARNING_STEP_CHOICE_H
#define LEARNING_STEP_CHOICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct step_choice {
    int64_t steps;
    bool *computed;      /* [steps] */
    int64_t first, last; /* with guidance, both counted in */
    int64_t count;       /* of computed steps */
};

/* computed: NULL (all), or one of
 *
 *   0-4,6,9-49   these steps, in rising order; step 0 is always one of them
 *   N            N of them, evenly spread: step floor(i (steps - 1) / (N - 1)) for i of 0..N-1; with N = 1 step 0
 *   careful      for 50 steps: 30 of them
 *   bold         for 50 steps: 25 of them
 *
 * guided: NULL (all), or FIRST-LAST, of which FIRST must be computed. false: the reason in err, beginning with the
 * option, "--compute-steps" or "--guidance-steps". */
bool step_choice_make(struct step_choice *c, int64_t steps, const char *computed, const char *guided,
                      char *err, size_t errlen);
void step_choice_free(struct step_choice *c);

bool step_guided(const struct step_choice *c, int64_t step);
/* Whether the blocks' residual at a computed step will be asked for; guided: by steps with guidance. */
bool step_residual_wanted(const struct step_choice *c, int64_t step, bool guided);

/* What differs from all steps, as `compute-steps` and `guidance-steps` in o, in one form whatever was typed. false: no memory. */
bool step_choice_describe(const struct step_choice *c, json_t *o);

#endif
