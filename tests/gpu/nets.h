/* nets.h - what nets.c and wan.c share: the networks at full size with random weights, timed. */
#ifndef GPU_NETS_H
#define GPU_NETS_H

#include <math.h>
#include <string.h>

#include "filters/learning/sampler.h"
#include "filters/learning/trainer.h"
#include "filters/lib/energy.h"
#include "filters/nets/autoencoder.h"
#include "filters/nets/text_encoder.h"
#include "tests/gpu/timing.h"

static char err[512];
static struct kern *k;
static size_t free_at_first;

static inline double now(void)
{
    return 1e3 * clock_seconds();
}

static inline void open_device(void)
{
    if (!(k = kern_open("cuda", 0, err, sizeof err))) stop("cuda", err);
    free_at_first = k->backend->available(k);
}

/* Seconds since 1970. */
static inline double today(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { COUNTED = 1 }; /* seconds: the counter of energy moves ten times in one, and less says little */

/* The median of `runs` after two that warm up; what the card used for one, and when that was. tflop: of one run, 0 when
 * of no interest. */
static inline void timed(const char *name, int runs, double tflop, bool (*run)(void *), void *context)
{
    double ms[32], joules = NAN, begun = 0;
    for (int i = -2; i < runs; i++) {
        if (!i) joules = energy_joules(kern_card(k)), begun = today();
        double from = now();
        if (!run(context) || !kern_ok(k)) stop(name, kern_ok(k) ? err : kern_error(k));
        kern_wait(k);
        if (i >= 0) ms[i] = now() - from;
    }
    joules = (energy_joules(kern_card(k)) - joules) / runs;
    if (today() - begun < COUNTED) joules = NAN;
    double used = (double)(free_at_first - k->backend->available(k)) / (1 << 30),
           median = sort_times(ms, runs);
    printf("{\"name\": \"%s\", \"ms\": %.2f, \"least\": %.2f, \"most\": %.2f, \"runs\": %d, \"gib\": %.1f",
           name, median, ms[0], ms[runs - 1], runs, used);
    if (tflop > 0) printf(", \"tflops\": %.0f", tflop / median * 1e3);
    if (!isnan(joules)) printf(", \"joules\": %.2f", joules);
    printf(", \"when\": [%.2f, %.2f]}\n", begun, today());
    fflush(stdout);
}

static inline struct tensor random_host(enum dtype d, const int64_t *shape, const char *what)
{
    struct tensor t = tensor_make(d, NULL, shape), f;
    size_t n = (size_t)tensor_count(&t);
    struct rng r = rng_make(1, what, "bench", 0);
    float *v = malloc(4 * n);
    t.data = malloc(tensor_bytes(&t));
    if (!v || !t.data) stop(what, "out of memory");
    rng_normal(&r, v, n);
    for (size_t i = 0; d == DT_U8 && i < n; i++) v[i] = 128 + 40 * v[i];
    f = tensor_of(DT_F32, v, 1, (int64_t)n);
    tensor_convert(&t, &f);
    free(v);
    return t;
}
#define host(dtype, what, ...) random_host(dtype, (const int64_t[]){__VA_ARGS__}, what)

static inline struct model *model(const char *name)
{
    struct model *m = model_open(name, err, sizeof err);
    if (!m) stop(name, err);
    return m;
}

/* Of what ran since kern_profile_start(). */
static inline void profile(const char *what)
{
    int n;
    const struct kern_profile_line *line = kern_profile(k, &n);
    for (int i = 0; i < n && i < 20; i++)
        fprintf(stderr, "%-8s %9.2f ms %6lld calls  %s\n", what, 1e3 * line[i].seconds,
                (long long)line[i].calls, line[i].operation);
    kern_profile_stop(k);
}

/* ---- a forward pass ---- */

struct forward {
    struct denoiser *dit;
    struct denoiser_grid grid;
    struct tensor x, text, out;
    int videos;
};

static inline bool run_forward(void *context)
{
    struct forward *f = context;
    for (int i = 0; i < f->videos; i++)
        denoiser_forward(f->dit, &f->grid, &f->out, &f->x, &f->text, 500, NULL);
    return true;
}

static inline void forward_once(struct forward *f, const struct tensor *latents, const struct tensor *text)
{
    if (!denoiser_grid(f->dit, &f->grid, latents, err, sizeof err)) stop("grid", err);
    f->x =
        kern_tensor(k, DT_F32, 4, latents->shape[0], latents->shape[1], latents->shape[2], latents->shape[3]);
    f->out =
        kern_tensor(k, DT_F32, 4, latents->shape[0], latents->shape[1], latents->shape[2], latents->shape[3]);
    if (!kern_planning(k)) kern_upload(k, &f->x, latents);
    f->text = denoiser_text(f->dit, text, true); /* as the sampler has it */
    run_forward(f);
}

/* Plans the memory for it, and runs it once. */
static inline void forward_first(struct forward *f, const struct tensor *latents, const struct tensor *text)
{
    kern_plan_begin(k);
    forward_once(f, latents, text);
    kern_reserve(k, kern_plan_end(k));
    forward_once(f, latents, text);
    if (!kern_ok(k)) stop("forward pass", kern_error(k));
}

/* ---- a training step ---- */

struct step {
    struct trainer t;
    struct example e;
    int64_t at;
};

static inline bool run_step(void *context)
{
    struct step *s = context;
    s->t.pending = 0;
    double loss = trainer_loss(&s->t, &s->e, true, err, sizeof err);
    if (!isfinite(loss)) return false;
    trainer_update(&s->t, s->at++, trainer_norm(&s->t));
    return true;
}

/* Steps of each adapter, the first one under so many ways to recompute, and a profile of each. text: rows of it; tflop:
 * of a step, and of one in which all is computed again. `what`, the names' beginning: "train". */
static inline void timed_steps(const char *preset, const char *what, const char *const *adapters, int count,
                               int recomputes, const struct tensor *latents, int64_t text,
                               const double tflop[2])
{
    struct step s = {.t = {.seed = 42,
                           .adamw = {1e-4, 0.9, 0.999, 1e-8, 0.01},
                           .warmup = 200,
                           .max_steps = 5000,
                           .clip = 1,
                           .accumulate = 1}};
    s.e = (struct example){.x0 = *latents,
                           .eps = random_host(DT_F32,
                                              (const int64_t[]){4, latents->shape[0], latents->shape[1],
                                                                latents->shape[2], latents->shape[3]},
                                              "eps"),
                           .text = host(DT_BF16, "text", 2, text, 4096),
                           .s = 0.4};
    open_device();
    if (!trainer_open(&s.t, k, preset, false, err, sizeof err)) stop("trainer", err);
    for (int i = 0; i < count; i++) {
        struct trainer_start start = {.objective = "flow", .adapter = adapters[i], .targets = NULL};
        if (!trainer_start(&s.t, &start, latents, err, sizeof err)) stop(adapters[i], err);
        for (int r = 0; r < (i ? 1 : recomputes); r++) {
            char name[64];
            trainer_recompute(&s.t, recompute_name[r]);
            snprintf(name, sizeof name, "%s %s, recompute %s", what, adapters[i], recompute_name[r]);
            timed(name, 3, tflop[r == RECOMPUTE_FULL], run_step, &s);
        }
        trainer_recompute(&s.t, "none");
        kern_profile_start(k);
        run_step(&s);
        profile("step");
        adapter_set_close(&s.t.adapters);
    }
    trainer_close(&s.t);
    kern_close(k);
    free(s.e.eps.data), free(s.e.text.data);
}

/* ---- a VAE ---- */

struct clip {
    struct autoencoder *vae;
    struct tensor video, latents;
    bool tiling;
};

static inline bool run_encode(void *context)
{
    struct clip *c = context;
    return encode_video(c->vae, &c->latents, &c->video, NULL, c->tiling);
}

static inline bool run_decode(void *context)
{
    struct clip *c = context;
    return decode_latents(c->vae, &c->video, &c->latents, c->tiling);
}

/* ---- a text encoder ---- */

struct prompts {
    struct text_encoder *t5;
    struct tensor ids, embeds;
    int count;
};

static inline bool run_prompts(void *context)
{
    struct prompts *p = context;
    for (int i = 0; i < p->count; i += (int)p->ids.shape[0])
        if (!text_encode(p->t5, &p->embeds, &p->ids)) return false;
    return true;
}

#endif
