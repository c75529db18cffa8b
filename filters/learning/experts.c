#include "filters/learning/experts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/compute.h"
#include "filters/lib/messages.h"
#include "formats/error.h"

/* What a record has between the two: the latents, and what the scheduler carries over. F32 [T,C,h,w] each. */
static const char *const handed[] = {"high_latents", "high_last", "high_x0", "high_x00"};
enum { HANDED = 1 + SAMPLER_CARRIED };

/* Hooks the adapters onto the network's linears, or folds them into its weights. */
static bool equip(struct denoiser *d, struct adapter_set *set, const struct text_list *files, bool merge,
                  char *err, size_t errlen)
{
    const struct adapter_base base = {.linears = &d->linears};
    for (int i = 0; i < files->count; i++) {
        struct adapter *a = adapter_open(d->k, files->item[i], base, err, errlen);
        if (!a) return false;
        adapter_set_add(set, a);
        d->hook = &set->hook;
    }
    if (!merge || adapter_set_merge(set, d->k, err, errlen)) return true;
    char why[512];
    snprintf(why, sizeof why, "%s", err);
    return fail(err, errlen, "--merge: %s", why);
}

static void tell_misfits(const struct sampler *s, const struct text_list *files)
{
    const struct scheduler_kind *kind = s->scheduler.kind;
    for (int i = 0; i < s->adapters.count; i++) {
        const char *objective = json_string_value(json_object_get(s->adapters.item[i]->extra, "objective"));
        if (objective && !strcmp(objective, "flow") != kind->flow)
            say(files->item[i], "was trained with objective %s; %s%s", objective,
                kind->flow ? "dpm or ddim fit it, not "
                           : "its answers are no v-predictions: --scheduler euler fits it",
                kind->flow ? kind->name : "");
    }
}

bool experts_open(struct experts *e, struct kern *k, const struct expert_parts *p, char *err, size_t errlen)
{
    for (int i = e->first; i <= e->last; i++) {
        struct sampler *s = &e->s[i];
        s->denoiser = denoiser_open_expert(k, p->model, i == LOW, false, err, errlen);
        if (!s->denoiser || !equip(s->denoiser, &s->adapters, &p->adapters[i], p->merge, err, errlen))
            return false;
    }
    for (int i = e->first; i <= e->last; i++) tell_misfits(&e->s[i], &p->adapters[i]);
    return true;
}

struct opening {
    struct second *second;
    const struct expert_parts *parts;
    char *err;
    size_t errlen;
    bool good;
};

/* By its worker, while the main thread waits. */
static void open_second(void *context)
{
    struct opening *o = context;
    struct second *s = o->second;
    const struct expert_parts *p = o->parts;
    s->denoiser = denoiser_open(compute_open_at(1), p->model, false, o->err, o->errlen);
    o->good =
        s->denoiser && equip(s->denoiser, &s->adapters, &p->adapters[HIGH], p->merge, o->err, o->errlen);
    if (o->good && p->merge) adapter_set_close(&s->adapters);
}

bool experts_open_second(struct experts *e, const struct expert_parts *p, char *err, size_t errlen)
{
    struct second *s = &e->s[HIGH].second;
    struct opening o = {s, p, err, errlen, false};
    if (!(s->worker = worker_start())) return fail(err, errlen, "no thread for the second device");
    worker_do(s->worker, open_second, &o);
    return o.good;
}

static void close_second(void *context)
{
    struct second *s = context;
    struct kern *k = s->denoiser->k;
    adapter_set_close(&s->adapters);
    denoiser_close(s->denoiser);
    compute_close(k);
}

void experts_close(struct experts *e)
{
    struct second *s = &e->s[HIGH].second;
    if (s->worker) worker_do(s->worker, close_second, s);
    worker_stop(s->worker);
    for (int i = e->first; i <= e->last; i++) sampler_close(&e->s[i]);
}

bool experts_hand(const struct experts *e)
{
    return e->boundary > 0 && e->last == HIGH;
}

bool experts_take(const struct experts *e)
{
    return e->first == LOW;
}

bool experts_divide(struct experts *e, char *err, size_t errlen)
{
    const struct scheduler *scheduler = &e->s[HIGH].scheduler;
    int count = 0;
    if (!(e->boundary > 0)) return true;
    if (!scheduler->kind->flow)
        return fail(err, errlen, "--scheduler: of two transformers, one that follows the flow");
    while (count < scheduler->steps && scheduler_timestep(scheduler, count) >= 1000 * e->boundary) count++;
    e->s[LOW].scheduler = *scheduler;
    e->s[HIGH].to = e->s[LOW].from = count;
    return true;
}

bool experts_room(struct experts *e, struct tensor *latents)
{
    const bool two = e->boundary > 0;
    size_t bytes, all;
    if (!tensor_bytes_checked(DT_F32, 4, latents->shape, &bytes) ||
        __builtin_mul_overflow(bytes, HANDED, &all) || !(latents->data = calloc(two ? all : bytes + 1, 1)))
        return false;
    for (int i = 0; i < SAMPLER_CARRIED && two; i++) {
        e->s[HIGH].carried[i] = *latents;
        e->s[HIGH].carried[i].data = (char *)latents->data + bytes * (size_t)(i + 1);
        e->s[LOW].carried[i] = e->s[HIGH].carried[i];
    }
    return true;
}

bool experts_hand_over(const struct experts *e, struct record *f, const struct tensor *latents)
{
    for (int i = 0; i < HANDED; i++)
        if (!record_put(f, handed[i], DT_F32, i ? &e->s[HIGH].carried[i - 1] : latents)) return false;
    return true;
}

struct tensor *experts_handed(struct record *f, json_t *settings)
{
    static const char *const fields[] = {"steps",    "scheduler", "shift", "guidance",
                                         "negative", "boundary",  "dtype"};
    const json_t *high = json_object_get(record_meta(f), "sample");
    const char *made = json_string_value(json_object_get(high, "expert"));
    bool good = (made && !strcmp(made, "high")) ||
                fail(f->error, sizeof f->error, "no sample --expert high has made it");
    for (size_t i = 0; good && i < sizeof fields / sizeof fields[0]; i++)
        good = json_equal(json_object_get(high, fields[i]), json_object_get(settings, fields[i])) ||
               fail(f->error, sizeof f->error, "%s: the high expert had another", fields[i]);
    return good ? record_want(f, handed[0], DT_F32, 4) : NULL;
}

bool experts_take_over(struct experts *e, struct record *f, struct tensor *latents)
{
    for (int i = 0; i < HANDED; i++) {
        const struct tensor *t = record_want(f, handed[i], DT_F32, 4);
        if (!t) return false;
        if (!tensor_same_shape(t, latents))
            return fail(f->error, sizeof f->error, "%s is of another shape than %s", handed[i], handed[0]);
        memcpy(i ? e->s[LOW].carried[i - 1].data : latents->data, t->data, tensor_bytes(t));
    }
    return true;
}

void experts_drop(struct record *f)
{
    for (int i = 0; i < HANDED; i++) record_drop(f, handed[i]);
}

json_t *experts_settings(json_t *high, json_t *low)
{
    static const char *const own[] = {"model_low", "adapters_low", "guidance_low"};
    json_t *both = json_copy(high);
    json_object_set_new(both, "expert", json_string("both"));
    for (int i = 0; i < 3; i++) json_object_set(both, own[i], json_object_get(low, own[i]));
    return both;
}
