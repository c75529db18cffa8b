/* training - a trainer at work in a run's folder: the rounds of its steps, and what is due after a step: its line of the
 * metrics, an evaluation, a save. Where it is, and why it stops, is said on stderr. What is done again after a resume gives
 * the same bytes. */
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
    int64_t save_every;                /* steps */
    const char *dump;                  /* where the first step's gradients go as an adapter file, or NULL */
    void (*emit)(json_t *line_stolen); /* gets each line of the metrics, too */

    /* Its own, zeros at first. */
    int64_t next;               /* position of a record that states none */
    bool undone;                /* what was due after the last step has failed */
    double joules;              /* of the step at work; NaN: not counted */
    double since, joules_since; /* the clock and the counter as the round at work began */
    double took;                /* seconds of the round before it */
    int64_t evaluations;        /* by this process, */
    double eval_seconds;        /* and what they took */
};

/* Makes the adapter for latents [T,C,h,w] of this size, fresh or as the state in the folder has it, and opens the run,
 * which is refused if its state was made under another configuration: trainer, evaluation, and stream (its begin
 * header's settings: borrowed, may be NULL). A fresh run is evaluated. false with the reason in err. */
bool training_run_open(struct training_run *w, const struct trainer_start *start, const char *folder,
                       const struct tensor *latents, json_t *stream, char *err, size_t errlen);

/* Takes the record that is due, by meta.position; one that was done before the resume is passed over. When there is one
 * for each device, the round at work is finished, and unless that ended the run (run->finished) theirs begins. false with
 * the reason in err: training_run_finish()'s, or why the record is not fit; then the steps before its own are done. */
bool training_run_take(struct training_run *w, struct record *f, char *err, size_t errlen);
/* While a round is at work (t->busy): whether the steps to come want more records than were taken; and seconds for which
 * it will surely last yet: up to half of what the one before took. */
bool training_run_wants(const struct training_run *w);
double training_run_spare(const struct training_run *w);

/* Finishes the round at work, if there is one. With the last of a step the adapter is updated, the step counted, and its
 * line emitted: {"step","position","key","s","loss","grad_norm","lr"}. Then comes what is due: an evaluation emits
 * {"step","val_loss","val_losses"}, keeps the best adapter so far, and may finish the run; a save. false with the reason
 * in err: of a round, and all is as after the last step; or of what was due, which is not tried again. */
bool training_run_finish(struct training_run *w, char *err, size_t errlen);
/* The same; and saves the steps since the last save, whichever round failed. For a run that is not open, nothing. false
 * with the reason in err, which is else left as it was. */
bool training_run_settle(struct training_run *w, char *err, size_t errlen);

#endif
