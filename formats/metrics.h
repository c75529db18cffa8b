/* metrics - a training run's metrics.jsonl: one line a step and one an evaluation.
 *
 *   {"step":1,"position":0,"key":"clip","s":0.25,"loss":0.9,"grad_norm":1.5,"lr":5e-7}
 *   {"step":250,"val_loss":0.21,"val_losses":[0.2,0.22]}
 *
 * Steps rise. A line has a `loss`, with `grad_norm` and `lr` where known, or a `val_loss`; other fields are
 * not looked at. */
#ifndef FORMATS_METRICS_H
#define FORMATS_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct metrics {
    int64_t steps, evaluations, best; /* best: the evaluation with the least val_loss; -1: none */
    struct metrics_step {
        int64_t step;
        double loss, grad_norm, lr; /* NAN: not given */
    } * step;
    struct metrics_evaluation {
        int64_t step;
        double val_loss;
    } * evaluation;
};

/* name is for messages, which say the line. false with the reason in err. */
bool metrics_read(struct metrics *m, FILE *in, const char *name, char *err, size_t errlen);
void metrics_free(struct metrics *m);

#endif
