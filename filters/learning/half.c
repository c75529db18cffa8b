#include "filters/learning/half.h"

#include <stdlib.h>

#include "formats/error.h"

static struct tensor like(struct kern *k, const struct tensor *latents)
{
    return kern_tensor(k, DT_F32, 4, latents->shape[0], latents->shape[1], latents->shape[2],
                       latents->shape[3]);
}

bool half_prepare(struct half *h, struct denoiser *d, const struct adapter_set *adapters,
                  const struct step_choice *c, const struct tensor *latents, const struct tensor *text,
                  char *err, size_t errlen)
{
    h->denoiser = d;
    if (!h->x.rank) { /* else it shares grid and latents with the other half */
        if (!denoiser_grid(d, &h->grid, latents, err, errlen) ||
            !adapter_set_fits(adapters, &h->grid.rows, err, errlen))
            return false;
        h->x = like(d->k, latents);
    }
    h->v = like(d->k, latents);
    h->text = denoiser_text(d, text, true);
    if (c->count < c->steps) h->residual = denoiser_residual(d, &h->grid);
    return true;
}

void half_ask(struct half *h, const struct step_choice *c, int step, double timestep)
{
    struct denoiser *d = h->denoiser;
    const bool computed = c->computed[step];
    h->residual.use = computed ? RESIDUAL_TAKE : RESIDUAL_ADD;
    d->residual = !computed || step_residual_wanted(c, step, h->negative) ? &h->residual : NULL;
    denoiser_forward(d, &h->grid, &h->v, &h->x, &h->text, timestep, NULL);
    d->residual = NULL;
}

/* ---- a second device ----------------------------------------------------------------------------------- */

struct second_run {
    struct second *second;
    const struct step_choice *choice;
    const struct tensor *latents, *negative; /* the caller's: a shape, and a text on the host */
    struct half half;
    struct tensor x, v; /* on the host */
    size_t mark;
    int step;
    double timestep;
    bool good;
    char err[512];
};

static bool prepare(struct second_run *r)
{
    r->half = (struct half){.negative = true};
    return half_prepare(&r->half, r->second->denoiser, &r->second->adapters, r->choice, r->latents,
                        r->negative, r->err, sizeof r->err);
}

static void begin(void *context)
{
    struct second_run *r = context;
    struct kern *k = r->second->denoiser->k;
    kern_plan_begin(k);
    r->good = prepare(r);
    if (r->good) half_ask(&r->half, r->choice, 0, 999);
    const size_t bytes = kern_plan_end(k);
    r->good = r->good && (kern_reserve(k, bytes) || fail(r->err, sizeof r->err, "%s", kern_error(k)));
    r->mark = kern_mark(k);
    r->good = r->good && prepare(r);
}

static void answer(void *context)
{
    struct second_run *r = context;
    struct kern *k = r->second->denoiser->k;
    kern_upload(k, &r->half.x, &r->x);
    half_ask(&r->half, r->choice, r->step, r->timestep);
    kern_download(k, &r->v, &r->half.v);
}

static void end(void *context)
{
    struct second_run *r = context;
    struct kern *k = r->second->denoiser->k;
    kern_release(k, r->mark);
    if (r->good && !kern_ok(k)) r->good = fail(r->err, sizeof r->err, "%s", kern_error(k));
    kern_clear(k);
}

bool second_begin(struct second *s, const struct step_choice *c, const struct tensor *latents,
                  const struct tensor *negative, char *err, size_t errlen)
{
    struct second_run *r = s->run = calloc(1, sizeof *r);
    if (!r) return fail(err, errlen, "out of memory");
    *r = (struct second_run){.second = s, .choice = c, .latents = latents, .negative = negative};
    r->x = r->v = *latents;
    r->x.dtype = r->v.dtype = DT_F32;
    r->x.data = malloc(tensor_bytes(&r->x) + 1);
    r->v.data = malloc(tensor_bytes(&r->v) + 1);
    if (!r->x.data || !r->v.data) return fail(err, errlen, "out of memory");
    worker_do(s->worker, begin, r);
    return r->good || fail(err, errlen, "%s", r->err);
}

void second_ask(struct second *s, struct kern *k, const struct tensor *x, int step, double timestep)
{
    struct second_run *r = s->run;
    kern_download(k, &r->x, x);
    r->step = step;
    r->timestep = timestep;
    worker_begin(s->worker, answer, r);
}

void second_answer(struct second *s, struct kern *k, struct tensor *v)
{
    worker_wait(s->worker);
    if (!kern_ok(s->denoiser->k)) kern_fail(k, "%s", kern_error(s->denoiser->k)); /* no more steps */
    kern_upload(k, v, &s->run->v);
}

bool second_end(struct second *s, char *err, size_t errlen)
{
    struct second_run *r = s->run;
    if (!r) return true;
    const bool begun = r->good;
    if (r->x.data && r->v.data) worker_do(s->worker, end, r);
    const bool good = r->good || !begun || fail(err, errlen, "%s", r->err);
    free(r->x.data);
    free(r->v.data);
    free(r);
    s->run = NULL;
    return good;
}
