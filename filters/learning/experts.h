/* experts - a model of two transformers (Wan 2.2 A14B): the high one takes the noisy steps of a video, the low one those
 * below a boundary. Both in one process, or one after the other in two, by what a record carries between them. */
#ifndef LEARNING_EXPERTS_H
#define LEARNING_EXPERTS_H

#include "filters/learning/sampler.h"
#include "filters/lib/options.h"
#include "formats/record.h"

/* The networks; that of a model with one is the high one. */
enum { HIGH, LOW, EXPERTS };

struct experts {
    struct sampler s[EXPERTS];
    int first, last; /* those that this process runs */
    double boundary; /* between them, a level; 0: there is one */
};

/* What they are opened from: adapters, each "FILE" or "FILE:WEIGHT"; merge: folded into the weights. */
struct expert_parts {
    struct model *model;
    struct text_list adapters[EXPERTS];
    bool merge;
};

/* The networks first..last with their adapters on the device. An adapter that the scheduler, which is there already, does
 * not fit is named on stderr. false: reason in err. After it the caller may close the adapters that were folded in. */
bool experts_open(struct experts *e, struct kern *k, const struct expert_parts *p, char *err, size_t errlen);
/* The high one again, on the second device of --device, for the half of the negative text. false: reason in err. */
bool experts_open_second(struct experts *e, const struct expert_parts *p, char *err, size_t errlen);
void experts_close(struct experts *e);

/* Whether this process ends, or begins, between the two. */
bool experts_hand(const struct experts *e);
bool experts_take(const struct experts *e);

/* Each one's steps, of the high one's scheduler: down to the timestep 1000 boundary, and from there on. false: reason in
 * err, beginning with "--scheduler". */
bool experts_divide(struct experts *e, char *err, size_t errlen);

/* Memory of zeros for latents F32 of this shape, and with two networks for what they carry over, which begins at
 * latents->data and is the caller's to free. false: there is none. */
bool experts_room(struct experts *e, struct tensor *latents);

/* The latents and what the scheduler carries over, into the record. false with the reason in f->error. */
bool experts_hand_over(const struct experts *e, struct record *f, const struct tensor *latents);
/* Whether the record comes from the high one with these settings, where they matter to both, and its latents; else
 * f->error says why not. */
struct tensor *experts_handed(struct record *f, json_t *settings);
/* What was handed over, into latents and the room behind them. false with the reason in f->error. */
bool experts_take_over(struct experts *e, struct record *f, struct tensor *latents);
void experts_drop(struct record *f); /* what was handed over */

/* How the low half's record was made: the settings of the high one, and of the low one what is its own. A new object. */
json_t *experts_settings(json_t *high, json_t *low);

#endif
