#include "filters/learning/sampler.h"

#include <stdlib.h>

#include "formats/error.h"

/* Latents that the steps add up, on the device. */
struct state {
    struct half half[2]; /* of the text and of the negative one; half[0].x are the latents */
    struct tensor x0, v_negative, noise;
    struct tensor last_x, last_x0[2]; /* of the steps before, the last one first */
};

void sampler_close(struct sampler *s)
{
    adapter_set_close(&s->adapters);
    denoiser_close(s->denoiser);
    step_choice_free(&s->choice);
}

/* negative: NULL without guidance, or when it is the second device's. */
static bool prepare(struct sampler *s, struct state *t, const struct tensor *shape, const struct tensor *text,
                    const struct tensor *negative, char *err, size_t errlen)
{
    struct kern *k = s->denoiser->k;
    struct tensor *latent[] = {&t->x0, &t->last_x, &t->last_x0[0], &t->last_x0[1], &t->noise, &t->v_negative};
    enum { LATENTS = sizeof latent / sizeof *latent };
    *t = (struct state){0};
    if (!half_prepare(&t->half[0], s->denoiser, &s->adapters, &s->choice, shape, text, err, errlen))
        return false;
    t->half[1] = (struct half){.grid = t->half[0].grid, .x = t->half[0].x, .negative = true};
    if (negative &&
        !half_prepare(&t->half[1], s->denoiser, &s->adapters, &s->choice, shape, negative, err, errlen))
        return false;
    for (int i = 0; i < LATENTS - !s->second.run; i++)
        *latent[i] =
            kern_tensor(k, DT_F32, 4, shape->shape[0], shape->shape[1], shape->shape[2], shape->shape[3]);
    return true;
}

static bool draw(struct sampler *s, struct noise_source *source, int64_t index, struct tensor *to, char *err,
                 size_t errlen)
{
    struct tensor host =
        tensor_of(source->dtype, malloc((size_t)tensor_count(to) * dtype_size(source->dtype)), 5, 1,
                  to->shape[0], to->shape[1], to->shape[2], to->shape[3]);
    bool good = host.data && noise_source_draw(source, index, &host);
    if (good) kern_upload(s->denoiser->k, to, &host);
    free(host.data);
    return good || fail(err, errlen, "no noise could be drawn");
}

/* half[0].v = v_negative + g (v_positive - v_negative), or v_positive */
static void predict(struct sampler *s, struct state *t, int step, bool guided)
{
    struct kern *k = s->denoiser->k;
    struct tensor *v = &t->half[0].v, *v_negative = s->second.run ? &t->v_negative : &t->half[1].v;
    const double timestep = scheduler_timestep(&s->scheduler, step);
    const bool apart = s->second.run && !kern_planning(k);
    guided = guided && step_guided(&s->choice, step);
    if (guided && apart) second_ask(&s->second, k, &t->half[0].x, step, timestep);
    half_ask(&t->half[0], &s->choice, step, timestep);
    if (!guided) return;
    if (apart)
        second_answer(&s->second, k, v_negative);
    else if (!s->second.run)
        half_ask(&t->half[1], &s->choice, step, timestep);
    double g = s->dynamic ? scheduler_dynamic_guidance(&s->scheduler, step, s->guidance) : s->guidance;
    axpby(k, v, 1 - g, v_negative, g);
}

/* x, as what the network says of it puts it right; and it is kept for the next step. */
static void correct(struct kern *k, struct state *t, const struct scheduler_step *c)
{
    struct tensor *x = &t->half[0].x;
    if (c->fix_x == 0 && c->fix_now == 0) {
        kern_copy(k, &t->last_x, x);
        return;
    }
    axpby(k, &t->last_x, c->fix_now, &t->x0, c->fix_x);
    axpby(k, &t->last_x, c->fix_x0, &t->last_x0[0], 1);
    if (c->fix_x00 != 0) axpby(k, &t->last_x, c->fix_x00, &t->last_x0[1], 1);
    kern_copy(k, x, &t->last_x);
}

static int end_of(const struct sampler *s)
{
    return s->to ? s->to : s->scheduler.steps;
}

static bool denoise(struct sampler *s, struct state *t, struct noise_source *source, bool guided, char *err,
                    size_t errlen)
{
    struct kern *k = s->denoiser->k;
    struct tensor *x = &t->half[0].x, *v = &t->half[0].v;
    int64_t drawn = 1;
    for (int i = s->from; i < end_of(s); i++) {
        struct scheduler_step c = scheduler_step(&s->scheduler, i);
        if (s->progress && !kern_planning(k)) s->progress(i, s->scheduler.steps);
        predict(s, t, i, guided);
        kern_copy(k, &t->x0, x);
        axpby(k, &t->x0, c.x0_v, v, c.x0_x);
        correct(k, t, &c);
        axpby(k, x, c.next_v, v, c.next_x);
        if (c.next_now != 0) axpby(k, x, c.next_now, &t->x0, 1);
        if (c.next_x0 != 0) axpby(k, x, c.next_x0, &t->last_x0[0], 1);
        for (int d = 0; d < c.draws;
             d++, drawn++) /* of several, the last is used; a keyed source need not make the others */
            if ((source->running || (d == c.draws - 1 && c.next_n != 0)) && !kern_planning(k) &&
                !draw(s, source, drawn, &t->noise, err, errlen))
                return false;
        if (c.next_n != 0) axpby(k, x, c.next_n, &t->noise, 1);
        if (s->trajectory) {
            struct tensor here = *x;
            here.data = s->trajectory + i * tensor_count(&here);
            kern_download(k, &here, x);
        }
        struct tensor oldest = t->last_x0[1];
        t->last_x0[1] = t->last_x0[0];
        t->last_x0[0] = t->x0;
        t->x0 = oldest;
        if (kern_planning(k) || !kern_ok(k)) break; /* every step needs the same memory */
    }
    return true;
}

/* What begins late takes up what was carried; what ends early leaves it, zeros where no step has been before. */
static void carry(struct sampler *s, struct state *t, bool begin)
{
    struct kern *k = s->denoiser->k;
    struct tensor *own[SAMPLER_CARRIED] = {&t->last_x, &t->last_x0[0], &t->last_x0[1]};
    for (int i = 0; i < SAMPLER_CARRIED; i++)
        if (begin && s->from)
            kern_upload(k, own[i], &s->carried[i]);
        else if (begin)
            kern_zero(k, own[i]);
        else
            kern_download(k, &s->carried[i], own[i]);
}

bool sampler_run(struct sampler *s, struct tensor *latents, const struct tensor *text,
                 const struct tensor *negative, const struct tensor *noise, struct noise_source *source,
                 char *err, size_t errlen)
{
    struct kern *k = s->denoiser->k;
    struct state t = {0};
    bool guided = s->guidance > 1, apart = guided && s->second.worker,
         good = !apart || second_begin(&s->second, &s->choice, latents, negative, err, errlen);
    if (!guided || apart) negative = NULL;

    kern_plan_begin(k);
    good = good && prepare(s, &t, latents, text, negative, err, errlen) &&
           denoise(s, &t, source, guided, err, errlen);
    size_t bytes = kern_plan_end(k);
    if (good && !kern_reserve(k, bytes)) good = fail(err, errlen, "%s", kern_error(k));

    size_t mark = kern_mark(k);
    good = good && prepare(s, &t, latents, text, negative, err, errlen);
    struct tensor *x = &t.half[0].x;
    const bool early = end_of(s) < s->scheduler.steps;
    if (good && (s->from || early)) carry(s, &t, true);
    if (good && (noise || s->from))
        kern_upload(k, x, s->from ? latents : noise);
    else if (good)
        good = draw(s, source, 0, x, err, errlen);
    good = good && denoise(s, &t, source, guided, err, errlen);
    if (good) expect_finite(k, "the latents", x);
    if (good) kern_download(k, latents, x);
    if (good && early) carry(s, &t, false);
    kern_release(k, mark);
    if (good && !kern_ok(k)) good = fail(err, errlen, "%s", kern_error(k));
    kern_clear(k);
    if (apart && !second_end(&s->second, err, errlen)) good = false;
    return good;
}
