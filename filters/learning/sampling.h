/* sampling - how latents are to be made: what was asked for, and what the model's family and folder make of the rest. */
#ifndef LEARNING_SAMPLING_H
#define LEARNING_SAMPLING_H

#include "filters/learning/experts.h"

struct sampling {
    struct experts both; /* guidance, NaN where it is open, and dynamic are asked for, too */
    struct expert_parts parts;
    /* What is NULL or 0 is open. frames and size, in pixels, stay so: a record's noise may have another size. */
    const char *expert;                                     /* "high", "low" or "both" */
    const char *negative;                                   /* "published" stands for the family's */
    const char *scheduler, *compute_steps, *guidance_steps; /* of scheduler_init(), step_choice_make() */
    int64_t steps, frames;
    struct size size;
    double shift;
    bool trajectory; /* the latents after each step are wanted, too */

    json_t *made;     /* how they are made, for every record; the caller's to free */
    bool said_frames; /* that more frames than asked for come of them */
};

/* Which networks this process runs, by the model's both.boundary. false: reason in err, beginning with the option. */
bool sampling_choose(struct sampling *a, char *err, size_t errlen);
/* Guidance, steps and negative prompt as published, where they are open; the scheduler, of its config; and each network's
 * steps. false: reason in err, which begins with "--" where an option is wrong. */
bool sampling_settle(struct sampling *a, const struct published *p, json_t *config, char *err, size_t errlen);
/* With the networks open, and their adapters: adds what the options left open to the settings of the begin header, which
 * a->made gets, too. false: no memory. */
bool sampling_describe(struct sampling *a, json_t *settings);

/* The shape [T,C,h,w] of the latents; no data. noise: what a record brings, or NULL. false: it is of another size than
 * asked for. */
bool sampling_latents(const struct sampling *a, const struct tensor *noise, struct tensor *latents);
/* Says in the record how its latents were made, and how many frames decode from them, where that is another number than
 * asked for; this on stderr, too, once. */
void sampling_sign(struct sampling *a, struct record *f, const struct tensor *latents);

#endif
