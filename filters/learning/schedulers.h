/* schedulers - how noise becomes a video, and a video a training example, as scalars.
 *
 * Networks see the world through a few numbers for each step: the timestep, and the
 * coefficients by which samples, answers and noise are added up. Everything here is fp64 and runs on the
 * host; the caller does the adding.
 *
 * v-prediction (Salimans & Ho 2022): x = √ᾱ x0 + √(1-ᾱ) n,  v = √ᾱ n - √(1-ᾱ) x0,  so x0 = √ᾱ x - √(1-ᾱ) v.
 * Flow matching (Lipman et al. 2022): x = (1-s) x0 + s n,  u = n - x0;  s = 0 is data, s = 1 is noise. */
#ifndef LEARNING_SCHEDULERS_H
#define LEARNING_SCHEDULERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRAIN_TIMESTEPS = 1000 };

/* ᾱ at each timestep of the base model's training; falls, to exactly 0 under rescale_betas_zero_snr. */
struct noise_schedule {
    double alpha_bar[TRAIN_TIMESTEPS];
};

/* From scheduler_config.json (borrowed): scaled_linear betas, SNR shift, then the rescaling to zero terminal
 * SNR. Fields that are absent have the defaults of CogVideoXDDIMScheduler; what this cannot do is refused by
 * name: another scheduler class, another beta schedule, a prediction that is not v. */
bool noise_schedule_read(struct noise_schedule *n, json_t *config, char *err, size_t errlen);

/* ---- sampling ------------------------------------------------------------------------------------ */

/* The schedulers: a name, and what --help says of it. A further one is its file below schedulers/, which defines
 * scheduler_NAME, and a row here. */
#define SCHEDULERS(ROW)                                                                                      \
    ROW(dpm, "SDE-DPM-Solver++ (2M), stochastic")                                                            \
    ROW(ddim, "DDIM with eta 0")                                                                             \
    ROW(euler, "Euler's steps along the flow, for adapters of objective flow")

#define SCHEDULER_CHOICE_(name, about) "|" #name
#define SCHEDULER_HELP_(name, about)   "                         " #name ": " about "\n"
#define SCHEDULER_CHOICES              (&(SCHEDULERS(SCHEDULER_CHOICE_))[1]) /* "dpm|ddim|.." */
#define SCHEDULER_HELP                 SCHEDULERS(SCHEDULER_HELP_)           /* a line of --help for each */

struct scheduler {
    const struct scheduler_kind *kind;
    int steps;
    struct noise_schedule noise;
    enum timestep_spacing { SPACING_LEADING, SPACING_TRAILING, SPACING_LINSPACE } spacing;
    int offset; /* of leading timesteps */
};

struct scheduler_kind {
    const char *name;
    bool
        flow; /* it follows the flow, for a network trained with objective "flow"; else the base model's own path,
                  by its noise schedule */
    /* Whether it can take so many steps; false: why not, in err. */
    bool (*takes)(int64_t steps, char *err, size_t errlen);
    double (*timestep)(const struct scheduler *s, int k);
    struct scheduler_step (*step)(const struct scheduler *s, int k);
};

/* Whether there is a scheduler of that name, and it can take so many steps. false with the reason in err. */
bool scheduler_takes(const char *name, int64_t steps, char *err, size_t errlen);
/* config: scheduler_config.json; a scheduler that follows the flow reads none, and it may be NULL. */
bool scheduler_init(struct scheduler *s, const char *name, int64_t steps, json_t *config, char *err,
                    size_t errlen);

/* The timestep that the network gets at step k, 0 <= k < steps: 999 first. */
double scheduler_timestep(const struct scheduler *s, int k);

/* Step k, from the sample x and the network's (guided) answer v:
 *
 *   x0   = x0_x x + x0_v v                                   the clean sample as seen from here
 *   next = next_x x + next_v v + next_x0 x0' + next_n n      x0' is the previous step's x0, n fresh noise
 *
 * A coefficient of exactly 0 says that its tensor is not used and need not exist: x0' at the first step, say.
 * `draws` is how many noise tensors the reference takes from its running generator here; the last one drawn
 * is n. It draws one that it throws away before every second-order step, and one for the last step, where
 * next_n is 0. */
struct scheduler_step {
    double x0_x, x0_v;
    double next_x, next_v, next_x0, next_n;
    int draws;
};
struct scheduler_step scheduler_step(const struct scheduler *s, int k);

/* For those that step through the training timesteps, as timestep_spacing and steps_offset in the config say
 * (diffusers' set_timesteps; absent, leading and 0): with strides of 1000/steps,
 *   trailing   999 and down to a stride above -1, which is the clean end
 *   leading    from 1000 - stride down to 0, plus the offset
 *   linspace   evenly from 999 to 0, rounded
 * A step ends a stride below its timestep; below 0 there is no noise left. Only divisors of 1000 are taken as
 * numbers of steps: with any other, trailing misses the clean end. */
bool spaced_takes(const char *name, int64_t steps, char *err, size_t errlen);
double spaced_timestep(const struct scheduler *s, int k);
double spaced_alpha_bar(const struct scheduler *s, int k);       /* at step k's timestep */
double spaced_alpha_bar_after(const struct scheduler *s, int k); /* a stride below; 1: the clean end */

/* The timestep of position x on the way from data (0) to noise (1); the base model saw 0..999. */
double flow_timestep(double x);

/* The guidance scale of step k under "dynamic" guidance, as CogVideoXPipeline computes it: from the training
 * timestep, so that it jumps about within [1, 1 + guidance]. */
double scheduler_dynamic_guidance(const struct scheduler *s, int k, double guidance);

/* ---- training ------------------------------------------------------------------------------------ */

enum objective {
    OBJECTIVE_FLOW,     /* u at x = (1-s) x0 + s n, at the timestep min(1000 s, 999) */
    OBJECTIVE_FLOW_SNR, /* the same loss, expressed in what the base model already does: v at the timestep
                           whose signal-to-noise ratio is that of s */
    OBJECTIVE_V,        /* the base model's own objective at the whole timestep ⌊1000 s⌋ */
};
#define OBJECTIVES "flow|flow-snr|v"                       /* in their order */
bool objective_parse(enum objective *o, const char *name); /* one of OBJECTIVES */

/* One training example at noise level s in [0, 1]:
 *
 *   x = x_x0 x0 + x_n n                       the network's input, with `timestep`
 *   y = y_x0 x0 + y_n n                       what it should answer
 *   loss = weight mean((answer - y)²)
 *   u = u_answer answer + u_x x               the flow that an answer implies, whatever the objective */
struct training_point {
    double timestep, alpha_bar; /* alpha_bar is NaN for flow, which is not on the v-prediction's path */
    double x_x0, x_n, y_x0, y_n, weight, u_answer, u_x;
};
struct training_point training_point(const struct noise_schedule *n, enum objective o, double s);

#endif
