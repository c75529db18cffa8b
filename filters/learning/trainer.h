/* trainer - one optimiser step: loss, gradients of the adapter, clip, AdamW. Everything that a step depends
 * on is its record, its position and these settings. */
#ifndef LEARNING_TRAINER_H
#define LEARNING_TRAINER_H

#include "filters/learning/adapter.h"
#include "filters/learning/schedulers.h"
#include "filters/nets/denoiser.h"
#include "formats/record.h"
#include "formats/store.h"

enum { TRAINER_DEVICES = 16 }; /* at most */

/* One training example on the host: x0, eps [T,C,h,w], text [L,D], any float dtype; s in [0,1]. */
struct example {
    struct tensor x0, eps, text; /* x0 and text lie in the record, eps is its own */
    double s;
    bool owned; /* x0 and text, too, are its own */
};

/* What a device gets to compute. All of it is its own. */
struct trainer_record {
    struct example e;
    char *key;
    int64_t position;
};

struct trainer {
    struct denoiser *denoiser;
    struct adapter *adapter;     /* the one that is trained */
    struct adapter_set adapters; /* it alone, hooked onto the denoiser */
    struct noise_schedule noise;
    enum objective objective;
    enum recompute recompute;
    bool recompute_auto; /* choose recompute by what memory there is, once for each size of record */
    uint64_t seed;
    struct adamw adamw; /* lr: the peak */
    int64_t warmup, max_steps;
    bool shapes_only;
    double clip;       /* of the gradients' global norm; 0: none */
    bool logit_normal; /* s is the sigmoid of a standard normal, else uniform on [0,1) */
    enum expert {
        EXPERT_NONE,
        EXPERT_HIGH,
        EXPERT_LOW
    } expert;                    /* of two transformers; set before trainer_open() */
    double level_from, level_to; /* s is drawn as if there were only these levels; both 0: all */
    double level_shift;          /* s then becomes shift s / (1 + (shift - 1) s); 0 and 1: s itself */
    int64_t accumulate;          /* records in a step, 1 or more */
    double caption_dropout;      /* for what part of the records `empty` stands in for prompt_embeds */
    struct tensor empty;         /* the empty prompt's embedding, host F32 [L,D] */
    struct tensor m, v;          /* AdamW's moments [size] */
    struct tensor sum;           /* with several records in a step: their gradients so far [size] */
    struct trainer_device *device[TRAINER_DEVICES - 1]; /* beside the first one: trainer_devices.c */
    int more;                                           /* so many */
    struct tensor received;                             /* the gradients of one of them [size] */
    float *shared;                                      /* host [size]: the values that they get */
    struct trainer_record next[TRAINER_DEVICES];        /* of the next round: one for each device */
    int waiting;                                        /* so many are in */
    bool busy;                                          /* a round is at work; of it: */
    struct trainer_record last; /* the first device's record, which is the round's last one, */
    double share;               /* its share of the loss, */
    char why[600];              /* and why that is not finite */
    int64_t pending, added;     /* records of the step at work that are done, and whose gradients are added */
    double s, loss, norm;       /* the last one's level; of the whole step: mean loss, norm of its gradient */
};

/* Opens the model. Of one with two transformers t->expert says which, and levels stay on its side of the boundary where
 * none are set; else it is EXPERT_NONE. shapes_only: nothing is read or allocated; until trainer_load() only trainer_describe,
 * trainer_takes and trainer_empty_prompt work. false with the reason in err. */
bool trainer_open(struct trainer *t, struct kern *k, const char *model, bool shapes_only, char *err,
                  size_t errlen);
/* The weights of the same model, which takes its time. */
bool trainer_load(struct trainer *t, const char *model, char *err, size_t errlen);

/* How much is computed again in a step: "none", "ffn", "full", or "auto". */
void trainer_recompute(struct trainer *t, const char *how);

/* How levels are drawn: "uniform" or "logit-normal", and then perhaps ",shift=X". false with the reason in err. */
bool trainer_levels(struct trainer *t, const char *how, char *err, size_t errlen);
/* One level of them, u in [0,1): with a range the distribution is cut to it, and keeps its form. */
double trainer_level(const struct trainer *t, double u);

/* Makes the adapter that is trained, from a spec or from a file, for records whose latents [T,C,h,w] have
 * this size; t->seed is already set. false with the reason in err. */
struct trainer_start {
    const char *objective;                /* one of objective_names */
    const char *adapter, *targets, *init; /* init, when not NULL, decides kind, rank, alpha and targets */
};
bool trainer_start(struct trainer *t, const struct trainer_start *start, const struct tensor *latents,
                   char *err, size_t errlen);
/* Whether this model can be trained with that objective, and that spec and those targets, unless there is a file, make
 * an adapter of it at all: known before any record is. */
bool trainer_takes(const struct trainer *t, const struct trainer_start *start, char *err, size_t errlen);
/* Reads the one record of a file of frames, prompt_embeds of the empty prompt, into t->empty. */
bool trainer_empty_prompt(struct trainer *t, const char *path, char *err, size_t errlen);
void trainer_close(struct trainer *t);

/* The rate at step k, counted from 0: k/warmup of the peak while warming up, then a half cosine down to 0 at
 * max_steps. */
double trainer_rate(const struct trainer *t, int64_t step);

/* An example from a record with latents and prompt_embeds. Noise and level are what it brings (tensor `noise`, meta.s),
 * else drawn, and so is whether it loses its caption: keyed by the seed, its key and the position. */
bool trainer_example(const struct trainer *t, struct example *e, struct record *f, int64_t position,
                     char *err, size_t errlen);
void trainer_example_free(struct example *e);

/* The loss. With backward an example's share of its step: of the loss, and, in the place of what was there, of the
 * adapter's gradients. NaN with the reason in err. */
double trainer_loss(struct trainer *t, const struct example *e, bool backward, char *err, size_t errlen);
/* Mean loss over `clips` fixed triples of clip, noise level and noise: clips evenly chosen from the store,
 * levels evenly spread, so that it compares between evaluations and between adapters. losses [clips] gets
 * each one's. NaN with the reason in err. */
double trainer_evaluate(struct trainer *t, const struct store *store, int64_t clips, double *losses,
                        char *err, size_t errlen);

/* A round is a record of the step for each device. Its records are taken one by one, also while the round before is at
 * work: a GPU is, when trainer_begin() returns. false with the reason in err: not fit for training. */
bool trainer_take(struct trainer *t, struct record *f, int64_t position, char *err, size_t errlen);
bool trainer_full(const struct trainer *t);     /* the next round has its records */
void trainer_begin(struct trainer *t);          /* it is at work from here on, t->busy */
int64_t trainer_taken(const struct trainer *t); /* records since the step at work began, finished or not */
/* Waits for the round at work: then t->pending of the step's records are done, and with the last of t->accumulate t->loss
 * and t->norm are the step's. The gradients of the records are added one after the other, in the order of the records,
 * whichever devices they were computed on. false with position, key and reason in err: not finite. */
bool trainer_finish(struct trainer *t, char *err, size_t errlen);
/* The global norm of the gradients. */
double trainer_norm(struct trainer *t);
/* The update of step k, counted from 0, from gradients of this norm. */
void trainer_update(struct trainer *t, int64_t step, double norm);

/* All settings and hashes that decide what a step computes; a new object. What came later than the first runs
 * is named only when it is used, so that these can go on. */
json_t *trainer_configuration(const struct trainer *t);

/* Adapter values and moments between device and host, [size] each; NULL leaves one out. */
void trainer_get(struct trainer *t, float *values, float *m, float *v);
void trainer_set(struct trainer *t, const float *values, const float *m, const float *v);

/* ---- more devices ---- */

/* One more device, on which one record of each round is computed; their number, the first one included, must
 * divide t->accumulate. To be called when the first one has its weights and before trainer_start(). open and close are
 * called by the device's own thread. false with the reason in err. */
bool trainer_add_device(struct trainer *t, const char *model, struct kern *(*open)(int device),
                        void (*close)(struct kern *k), char *err, size_t errlen);
/* For the trainer itself: the adapter on each of them; the values that the first one has, which a device takes with its
 * next record; a record to one of them, and its share of the loss, with its gradients on their way into t->received; and
 * waiting for what was begun. */
bool trainer_start_devices(struct trainer *t, const struct trainer_start *start, const struct tensor *latents,
                           char *err, size_t errlen);
void trainer_share(struct trainer *t);
void trainer_give(struct trainer *t, int device, struct trainer_record *record_moved);
double trainer_receive(struct trainer *t, int device, char *err, size_t errlen);
void trainer_wait(struct trainer *t);
void trainer_close_devices(struct trainer *t);
void trainer_record_free(struct trainer_record *r);
extern const char trainer_not_finite[];
/* The reason with the record that it is about; false. */
bool trainer_fail_at(const struct trainer_record *r, const char *why, char *err, size_t errlen);
/* What the cards of all its devices have used (energy.h), each counted once; NaN: one of them does not count. */
double trainer_joules(const struct trainer *t);

/* The gradients as an adapter file. */
bool trainer_write_gradients(struct trainer *t, const char *path, char *err, size_t errlen);

/* Makes the adapter and writes what a run would need, for people: parameters, and memory under each
 * t->recompute, on videos of so many frames of width x height pixels (0: the model's). */
bool trainer_describe(struct trainer *t, const struct trainer_start *start, int64_t frames, int64_t width,
                      int64_t height, FILE *out, char *err, size_t errlen);

#endif
