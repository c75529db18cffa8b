/* More devices for a trainer: each has the whole network and computes the gradients of one record, while the first one
 * computes its own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/energy.h"
#include "filters/lib/worker.h"
#include "filters/learning/trainer.h"
#include "formats/error.h"

/* Its network and adapter are opened, used and closed by its worker alone. */
struct trainer_device {
    struct worker *worker;
    struct trainer t; /* the first one's settings, with a network and an adapter of its own */
    struct kern *(*open)(int device);
    void (*close)(struct kern *k);
    int index;
    const char *model;
    const struct trainer_start *start;
    const struct tensor *latents;
    float *values; /* host [size], the first one's; fresh: not here yet */
    bool fresh;
    /* The record at work, its share of the step's loss, and its gradients. */
    struct trainer_record record;
    double share;
    float *grads; /* host [size], of kern_host_alloc(), so that a GPU writes them by itself */
    bool good;
    char err[600];
};

static void open_network(void *context)
{
    struct trainer_device *d = context;
    struct kern *k = d->open(d->index);
    d->good = trainer_open(&d->t, k, d->model, false, d->err, sizeof d->err);
    if (!d->good) d->close(k);
}

static void close_network(void *context)
{
    struct trainer_device *d = context;
    struct kern *k = d->t.denoiser->k;
    kern_host_free(k, d->grads);
    d->t.empty.data = NULL; /* the first one's */
    trainer_close(&d->t);
    d->close(k);
}

bool trainer_add_device(struct trainer *t, const char *model, struct kern *(*open)(int device),
                        void (*close)(struct kern *k), char *err, size_t errlen)
{
    struct trainer_device *d = t->more < TRAINER_DEVICES - 1 ? calloc(1, sizeof *d) : NULL;
    if (!d || !(d->worker = worker_start())) {
        free(d);
        return fail(err, errlen, "no memory or no thread for another device");
    }
    d->t = *t;
    d->t.more = 0;
    d->t.denoiser = NULL;
    d->t.pending = 0;
    d->open = open, d->close = close, d->model = model, d->index = t->more + 1;
    worker_do(d->worker, open_network, d);
    if (d->good) {
        t->device[t->more++] = d;
        return true;
    }
    fail(err, errlen, "%s", d->err);
    worker_stop(d->worker);
    free(d);
    return false;
}

void trainer_close_devices(struct trainer *t)
{
    while (t->more > 0) {
        struct trainer_device *d = t->device[--t->more];
        worker_do(d->worker, close_network, d);
        worker_stop(d->worker);
        trainer_record_free(&d->record);
        free(d);
    }
    if (t->shared) kern_host_free(t->denoiser->k, t->shared);
    t->shared = NULL;
}

static void start_adapter(void *context)
{
    struct trainer_device *d = context;
    d->good = trainer_start(&d->t, d->start, d->latents, d->err, sizeof d->err);
    if (!d->good) return;
    d->grads = kern_host_alloc(d->t.denoiser->k, (size_t)d->t.adapter->size * sizeof(float));
    d->good = d->grads || fail(d->err, sizeof d->err, "out of memory");
}

bool trainer_start_devices(struct trainer *t, const struct trainer_start *start, const struct tensor *latents,
                           char *err, size_t errlen)
{
    const size_t bytes = (size_t)t->adapter->size * sizeof(float);
    if (t->more && !(t->shared = kern_host_alloc(t->denoiser->k, bytes)))
        return fail(err, errlen, "out of memory");
    for (int i = 0; i < t->more; i++) {
        struct trainer_device *d = t->device[i];
        d->start = start, d->latents = latents, d->values = t->shared;
        worker_do(d->worker, start_adapter, d);
        if (!d->good) return fail(err, errlen, "%s", d->err);
    }
    if (t->more) t->received = kern_alloc(t->denoiser->k, DT_F32, 1, t->adapter->size);
    return kern_ok(t->denoiser->k) || fail(err, errlen, "%s", kern_error(t->denoiser->k));
}

void trainer_share(struct trainer *t)
{
    if (!t->more) return;
    for (int i = 0; i < t->more; i++) worker_wait(t->device[i]->worker);
    trainer_get(t, t->shared, NULL, NULL);
    for (int i = 0; i < t->more; i++) t->device[i]->fresh = true;
}

/* They are not changed again before the gradients that are computed with them are there. */
static void take_values(struct trainer_device *d)
{
    struct adapter *a = d->t.adapter;
    struct tensor host = tensor_of(DT_F32, d->values, 1, a->size);
    kern_send(a->k, &a->values, &host);
    adapter_refresh(a);
    d->fresh = false;
}

static void compute(void *context)
{
    struct trainer_device *d = context;
    struct adapter *a = d->t.adapter;
    struct tensor host = tensor_of(DT_F32, d->grads, 1, a->size);
    if (d->fresh) take_values(d);
    fail(d->err, sizeof d->err, "%s", trainer_not_finite);
    d->share = trainer_loss(&d->t, &d->record.e, true, d->err, sizeof d->err);
    kern_download(a->k, &host, &a->grads);
    if (!kern_ok(a->k)) d->share = NAN;
}

void trainer_give(struct trainer *t, int device, struct trainer_record *record_moved)
{
    struct trainer_device *d = t->device[device];
    trainer_record_free(&d->record);
    d->record = *record_moved;
    *record_moved = (struct trainer_record){0};
    worker_begin(d->worker, compute, d);
}

double trainer_receive(struct trainer *t, int device, char *err, size_t errlen)
{
    struct trainer_device *d = t->device[device];
    struct tensor host = tensor_of(DT_F32, d->grads, 1, t->adapter->size);
    worker_wait(d->worker);
    kern_send(t->denoiser->k, &t->received, &host);
    if (!isfinite(d->share)) trainer_fail_at(&d->record, d->err, err, errlen);
    return d->share;
}

void trainer_wait(struct trainer *t)
{
    for (int i = 0; i < t->more; i++) worker_wait(t->device[i]->worker);
}

double trainer_joules(const struct trainer *t)
{
    const char *card[TRAINER_DEVICES] = {kern_card(t->denoiser->k)};
    for (int i = 0; i < t->more; i++) card[i + 1] = kern_card(t->device[i]->t.denoiser->k);
    return energy_sum(card, t->more + 1);
}
