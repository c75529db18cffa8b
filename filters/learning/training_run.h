/* training - a trainer at work in a run's folder: what a step, an evaluation and a save are there. When they
 * are due is for the caller to say; what is done again after a resume gives the same bytes. */
#ifndef LEARNING_TRAINING_RUN_H
#define LEARNING_TRAINING_RUN_H

#include "filters/learning/run_folder.h"
#include "filters/learning/trainer.h"

struct training_run {
    struct trainer *t; /* opened, with its weights */
    struct run_folder *run;
    struct store *val;              /* what is evaluated on, or NULL */
    int64_t eval_every, eval_clips; /* steps; triples of trainer_evaluate() */
    int64_t patience;               /* with min_delta: of run_folder_judge() */
    double min_delta;
    const char *dump;                  /* where the first step's gradients go as an adapter file, or NULL */
    void (*emit)(json_t *line_stolen); /* gets each line of the metrics, too */
    double joules;                     /* of the step at work; NaN: not counted */
    double since, joules_since;        /* the clock and the counter as the round at work began */
    double took;                       /* seconds of the round before it */
};

/* Makes the adapter for latents [T,C,h,w] of this size, fresh or as the state in the folder has it, and opens
 * the run, which is refused if its state was made under another configuration: trainer, evaluation, and
 * stream (its begin header's settings: borrowed, may be NULL). warning: for the user, or
 * empty. false with the reason in err. */
bool training_run_open(struct training_run *w, const struct trainer_start *start, const char *folder,
                       const struct tensor *latents, json_t *stream, char *warning, size_t warninglen,
                       char *err, size_t errlen);

/* trainer_begin(); and trainer_finish(). With the last round of a step (t->pending is 0 then) the adapter is updated, the
 * step counted, and its line emitted: {"step","position","key","s","loss","grad_norm","lr"}. false with the reason in err:
 * all is as after the last step. */
void training_run_begin(struct training_run *w);
bool training_run_finish(struct training_run *w, char *err, size_t errlen);
/* Seconds for which the round at work will surely last yet: up to half of what the one before took. */
double training_run_spare(const struct training_run *w);

/* Evaluates and emits the line {"step","val_loss","val_losses"}. The best adapter so far is kept; the run may be
 * finished by it. false with the reason in err. */
bool training_run_evaluate(struct training_run *w, char *err, size_t errlen);

/* Adapter and state as they are now. false with the reason in err. */
bool training_run_save(struct training_run *w, char *err, size_t errlen);

#endif
