/* run - the folder of a training run: what is needed to go on from the last save as if nothing had happened.
 *
 *   state.safetensors            adapter, AdamW's moments; header: step, position, best, the configuration,
 *                                what it was computed on, bytes of metrics, and a CRC-32C of all this
 *   state.previous.safetensors   the one before
 *   best.safetensors, last.safetensors   adapters
 *   metrics.jsonl                one line a step, one an evaluation; cut back to the state's when resuming
 *   speed.json                   {"steps","seconds"}: how long steps took, over all resumes, and where cards count
 *                                their energy {"metered_steps","joules"}; the only file that the same command does
 *                                not make again byte for byte
 *
 * A save syncs the metrics first and replaces the state last, so a kill at any moment leaves a state whose
 * metrics are there. What is done again after a resume gives the same bytes. */
#ifndef LEARNING_RUN_FOLDER_H
#define LEARNING_RUN_FOLDER_H

#include <jansson.h>
#include <stdio.h>

#include "filters/learning/adapter.h"

struct run_folder {
    char folder[3800];
    int lock;
    FILE *metrics;
    json_t *config; /* what decides the result: a state made with another is refused by the field's name */
    json_t *
        bases; /* [{"step","on"}]: what its steps were computed on, from after this step on; see kern_basis() */
    int64_t step;     /* steps done */
    int64_t saved;    /* of them in the last save; -1: there is none */
    int64_t position; /* of the draw that comes next */
    double best;      /* validation loss; infinite before the first evaluation */
    int64_t worse;    /* evaluations since the best one */
    bool finished;    /* by --max-steps or by early stopping */
    bool resumed;     /* there was a state */
    int64_t timed_steps;
    double seconds; /* that timed_steps took, without evaluations and without waiting for input idly */
    int64_t metered_steps;
    double joules;         /* that these took */
    float *values, *m, *v; /* host copies [size], filled when resumed */
    int64_t size;
};

/* Opens or makes the folder, takes its lock, reads the state if there is one (or the one before, when that is
 * damaged: said in warning). config is stolen. false with the reason in err. */
bool run_folder_open(struct run_folder *r, const char *folder, json_t *config, int64_t size, char *warning,
                     size_t warninglen, char *err, size_t errlen);
/* Says what steps are computed on from here on. Where the state was made on something else, that is kept with
 * it, and one line of warning says so, behind what warning says already. */
void run_folder_on(struct run_folder *r, const char *basis, char *warning, size_t warninglen);
/* Appends a line to the metrics; a failure shows at the next save. */
void run_folder_metric(struct run_folder *r, json_t *line);
/* One more validation loss. True: less than the best so far by more than min_delta, so the adapter is one to
 * keep. The patience'th in a row that is not finishes the run; patience 0: none does. */
bool run_folder_judge(struct run_folder *r, double loss, double min_delta, int64_t patience);
/* From r->values, m, v and the counters. */
bool run_folder_save(struct run_folder *r, char *err, size_t errlen);
/* An adapter from r->values; the best one's header holds its step and validation loss. */
bool run_folder_write_last(struct run_folder *r, struct adapter *a, char *err, size_t errlen);
bool run_folder_write_best(struct run_folder *r, struct adapter *a, char *err, size_t errlen);
void run_folder_close(struct run_folder *r);

#endif
