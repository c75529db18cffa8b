#include "filters/learning/experts.h"

#include <stdlib.h>
#include <string.h>

#include "formats/error.h"

/* What a record has between the two: the latents, and what the scheduler carries over. F32 [T,C,h,w] each. */
static const char *const handed[] = {"high_latents", "high_last", "high_x0", "high_x00"};
enum { HANDED = 1 + SAMPLER_CARRIED };

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
    const int64_t *shape = latents->shape;
    for (int i = 0; i < HANDED; i++) {
        struct tensor *to = record_add(f, handed[i], DT_F32, 4, shape[0], shape[1], shape[2], shape[3]);
        if (!to) return false;
        memcpy(to->data, i ? e->s[HIGH].carried[i - 1].data : latents->data, tensor_bytes(to));
    }
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
