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

/* How the base model was trained. */
struct noise_schedule {
    bool flow; /* it answers with the flow u, and has no ᾱ; else with v */
    /* ᾱ at each timestep of its training; falls, to exactly 0 under rescale_betas_zero_snr. */
    double alpha_bar[TRAIN_TIMESTEPS];
};

/* From scheduler_config.json (borrowed), by its class. Of CogVideoX's: scaled_linear betas, SNR shift, then the
 * rescaling to zero terminal SNR; fields that are absent, the class among them, have the defaults of
 * CogVideoXDDIMScheduler. Of UniPCMultistepScheduler with flow sigmas: a flow. What this cannot do is refused by
 * name: another scheduler class, another beta schedule, another prediction. */
bool noise_schedule_read(struct noise_schedule *n, json_t *config, char *err, size_t errlen);

/* ---- sampling ------------------------------------------------------------------------------------ */

/* The schedulers: a name, and what --help says of it. A further one is its file below schedulers/, which defines
 * scheduler_NAME, and a row here. */
#define SCHEDULERS(ROW)                                                                                      \
    ROW(dpm, "SDE-DPM-Solver++ (2M), stochastic")                                                            \
    ROW(ddim, "DDIM with eta 0")                                                                             \
    ROW(unipc, "UniPC (2nd order) along the flow")                                                           \
    ROW(euler, "Euler's steps along the flow")

#define SCHEDULER_CHOICE_(name, about) "|" #name
#define SCHEDULER_HELP_(name, about)   "                         " #name ": " about "\n"
#define SCHEDULER_CHOICES              (&(SCHEDULERS(SCHEDULER_CHOICE_))[1]) /* "dpm|ddim|.." */
#define SCHEDULER_HELP                 SCHEDULERS(SCHEDULER_HELP_)           /* a line of --help for each */

struct scheduler {
    const struct scheduler_kind *kind;
    int steps;
    struct noise_schedule noise;
    enum timestep_spacing { SPACING_LEADING, SPACING_TRAILING, SPACING_LINSPACE } spacing;
    int offset;   /* of leading timesteps */
    double shift; /* of the levels of a flow: flow_level() */
};

struct scheduler_kind {
    const char *name;
    bool flow; /* it follows the flow, for a network that answers with it, be it by an adapter of objective
                  "flow"; else the path of a base model that answers with v */
    /* Whether it can take so many steps; false: why not, in err. */
    bool (*takes)(int64_t steps, char *err, size_t errlen);
    double (*timestep)(const struct scheduler *s, int k);
    struct scheduler_step (*step)(const struct scheduler *s, int k);
};

/* Of a flow's levels. From 1/100 to 100 a thousand steps are still apart in F32. */
#define SHIFT_LEAST 0.01
#define SHIFT_MOST  100.

/* What is asked for: a name, or NULL for that of the folder, which is unipc for a flow and else dpm; and the shift,
 * or 0 for the folder's (flow_shift; 1 where the base model answers with v). config: scheduler_config.json; for a
 * scheduler that follows the flow it may be NULL: of a base model that answers with v. false: the reason in err,
 * beginning with the option: "--steps", "--scheduler", "--shift", or with the file. */
bool scheduler_init(struct scheduler *s, const char *name, int64_t steps, double shift, json_t *config,
                    char *err, size_t errlen);

/* Whether the scheduler of that name can take so many steps, whatever the model; false: why not, in err. */
bool scheduler_takes(const char *name, int64_t steps, char *err, size_t errlen);

/* The timestep that the network gets at step k, 0 <= k < steps: 999 first. */
double scheduler_timestep(const struct scheduler *s, int k);

/* Step k, from the sample x and the network's (guided) answer v:
 *
 *   x0   = x0_x x + x0_v v                                   the clean sample as seen from here
 *   x    = fix_x x' + fix_now x0 + fix_x0 x0' + fix_x00 x0'' put right by what v says; but left as it is
 *                                                            when all these are 0
 *   next = next_x x + next_v v + next_now x0 + next_x0 x0' + next_n n
 *
 * x' (put right), x0' and x0'' are those of the steps before, n is fresh noise.
 * A coefficient of exactly 0 says that its tensor is not used and need not exist: x0' at the first step, say.
 * `draws` is how many noise tensors the reference takes from its running generator here; the last one drawn
 * is n. It draws one that it throws away before every second-order step, and one for the last step, where
 * next_n is 0. */
struct scheduler_step {
    double x0_x, x0_v;
    double fix_x, fix_now, fix_x0, fix_x00;
    double next_x, next_v, next_now, next_x0, next_n;
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

/* s shifted: shift s / (1 + (shift - 1) s); with a shift of 1 s to the last bit. */
double flow_shift(double s, double shift);
/* For those that follow the flow: the level s before step k, from noise (1) to data, and 0 after the last step. It
 * is a position, shifted. A base model that answers with the flow has the positions of UniPCMultistepScheduler,
 * which go evenly from 1 and would reach 1/1000 at step N; another one has those that reach 0. */
double flow_level(const struct scheduler *s, int k);
/* The timestep of a level; the base model saw 0..999. One that answers with the flow is told whole timesteps in
 * sampling, ⌊1000 s⌋, as by UniPCMultistepScheduler; another one is told 1000 s, as its adapters were in training. */
double flow_timestep(const struct scheduler *s, int k);
/* How many steps they can take: 1 to most. */
bool flow_takes(const char *name, int64_t steps, int64_t most, char *err, size_t errlen);

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
/* Whether a base model of this schedule can be trained so: one that answers with the flow with "flow" alone.
 * false with the reason in err. */
bool objective_fits(const struct noise_schedule *n, const char *name, char *err, size_t errlen);

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
