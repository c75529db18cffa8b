/* The networks at full size on one GPU, random weights: median times of what peers.py times for PyTorch.
 *
 *   nets SECTION...     dit train t5 vae owl clip
 *
 * One JSON line a figure on stdout: {"name": .., "ms": .., "runs": ..} and what else is known of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/owl.h"
#include "filters/learning/sampler.h"
#include "filters/nets/t5.h"
#include "filters/learning/trainer.h"
#include "filters/nets/families.h"
#include "kernels/backend.h"
#include "tests/gpu/timing.h"

static char err[512];
static struct kern *k;
static size_t free_at_first;

static double now(void)
{
    return 1e3 * clock_seconds();
}

static void open_device(void)
{
    if (!(k = kern_open("cuda", 0, err, sizeof err))) stop("cuda", err);
    free_at_first = k->backend->available(k);
}

/* The median of `runs` after two that warm up. tflop: of one run, 0 when of no interest. */
static void timed(const char *name, int runs, double tflop, bool (*run)(void *), void *context)
{
    double ms[32];
    for (int i = -2; i < runs; i++) {
        double from = now();
        if (!run(context) || !kern_ok(k)) stop(name, kern_ok(k) ? err : kern_error(k));
        kern_wait(k);
        if (i >= 0) ms[i] = now() - from;
    }
    double used = (double)(free_at_first - k->backend->available(k)) / (1 << 30),
           median = sort_times(ms, runs);
    printf("{\"name\": \"%s\", \"ms\": %.2f, \"least\": %.2f, \"most\": %.2f, \"runs\": %d, \"gib\": %.1f",
           name, median, ms[0], ms[runs - 1], runs, used);
    if (tflop > 0) printf(", \"tflops\": %.0f", tflop / median * 1e3);
    printf("}\n");
    fflush(stdout);
}

static struct tensor random_host(enum dtype d, const int64_t *shape, const char *what)
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

static struct model *model(const char *name)
{
    struct model *m = model_open(name, err, sizeof err);
    if (!m) stop(name, err);
    return m;
}

/* ---- the transformer ---- */

struct forward {
    struct denoiser *dit;
    struct denoiser_grid grid;
    struct tensor x, text, out;
    int videos;
};

static bool run_forward(void *context)
{
    struct forward *f = context;
    for (int i = 0; i < f->videos; i++)
        denoiser_forward(f->dit, &f->grid, &f->out, &f->x, &f->text, 500, NULL);
    return true;
}

static void forward_once(struct forward *f, const struct tensor *latents)
{
    if (!denoiser_grid(f->dit, &f->grid, latents, err, sizeof err)) stop("grid", err);
    f->x = kern_tensor(k, DT_F32, 4, 13, 16, 60, 90);
    f->out = kern_tensor(k, DT_F32, 4, 13, 16, 60, 90);
    f->text = kern_tensor(k, kern_compute(k), 2, 226, 4096);
    if (!kern_planning(k)) {
        struct tensor text = host(DT_F32, "text", 2, 226, 4096);
        kern_upload(k, &f->x, latents);
        kern_upload(k, &f->text, &text);
        free(text.data);
    }
    run_forward(f);
}

/* Of what ran since kern_profile_start(). */
static void profile(const char *what)
{
    int n;
    const struct kern_profile_line *line = kern_profile(k, &n);
    for (int i = 0; i < n && i < 20; i++)
        fprintf(stderr, "%-8s %9.2f ms %6lld calls  %s\n", what, 1e3 * line[i].seconds,
                (long long)line[i].calls, line[i].operation);
    kern_profile_stop(k);
}

static void section_dit(void)
{
    open_device();
    struct model *m = model("random:cogvideox-5b");
    double from = now();
    struct forward f = {.dit = denoiser_open(k, m, false, err, sizeof err), .videos = 1};
    if (!f.dit) stop("transformer", err);
    fprintf(stderr, "weights made in %.1f s\n", (now() - from) / 1e3);
    struct tensor latents = host(DT_F32, "latents", 4, 13, 16, 60, 90);
    kern_plan_begin(k);
    forward_once(&f, &latents);
    kern_reserve(k, kern_plan_end(k));
    forward_once(&f, &latents);
    if (!kern_ok(k)) stop("transformer", kern_error(k));
    timed("dit_fwd_B1", 5, 332, run_forward, &f);
    f.videos = 2;
    timed("dit_fwd_B2", 5, 664, run_forward, &f);
    f.videos = 1;
    kern_profile_start(k);
    run_forward(&f);
    profile("forward");
    denoiser_close(f.dit);
    model_close(m);
    kern_close(k);
}

/* ---- a training step ---- */

struct step {
    struct trainer t;
    struct example e;
    int64_t at;
};

static bool run_step(void *context)
{
    struct step *s = context;
    s->t.pending = 0;
    double loss = trainer_loss(&s->t, &s->e, true, err, sizeof err);
    if (!isfinite(loss)) return false;
    trainer_update(&s->t, s->at++, trainer_norm(&s->t));
    return true;
}

static void section_train(void)
{
    static const char *const adapters[] = {"standard", "transformer", "gdn_cssm:k=1", "gdn_cssm:k=5,rope=1"};
    struct tensor latents = host(DT_F32, "latents", 4, 13, 16, 60, 90);
    open_device();
    struct step s = {.t = {.seed = 42,
                           .adamw = {1e-4, 0.9, 0.999, 1e-8, 0.01},
                           .warmup = 200,
                           .max_steps = 5000,
                           .clip = 1,
                           .accumulate = 1}};
    s.e = (struct example){.x0 = latents,
                           .eps = host(DT_F32, "eps", 4, 13, 16, 60, 90),
                           .text = host(DT_BF16, "text", 2, 226, 4096),
                           .s = 0.4};
    if (!trainer_open(&s.t, k, "random:cogvideox-5b", false, err, sizeof err)) stop("trainer", err);
    for (int i = 0; i < 4; i++) {
        struct trainer_start start = {.objective = "flow", .adapter = adapters[i], .targets = NULL};
        if (!trainer_start(&s.t, &start, &latents, err, sizeof err)) stop(adapters[i], err);
        for (int r = 0; r < (i ? 1 : 3); r++) {
            char name[64];
            trainer_recompute(&s.t, recompute_name[r]);
            snprintf(name, sizeof name, "train %s, recompute %s", adapters[i], recompute_name[r]);
            timed(name, 3, r == 2 ? 1241 : 909, run_step, &s);
        }
        trainer_recompute(&s.t, "none");
        kern_profile_start(k);
        run_step(&s);
        profile("step");
        adapter_set_close(&s.t.adapters);
    }
    trainer_close(&s.t);
    kern_close(k);
}

/* ---- the VAE ---- */

struct clip {
    struct autoencoder *vae;
    struct tensor video, latents;
    bool tiling;
};

static bool run_encode(void *context)
{
    struct clip *c = context;
    return encode_video(c->vae, &c->latents, &c->video, NULL, c->tiling);
}

static bool run_decode(void *context)
{
    struct clip *c = context;
    return decode_latents(c->vae, &c->video, &c->latents, c->tiling);
}

static void section_vae(void)
{
    open_device();
    struct model *m = model("random:cogvideox-5b");
    struct clip c = {.vae = autoencoder_open(k, m, true, true, err, sizeof err),
                     .video = host(DT_U8, "video", 4, 49, 480, 720, 3),
                     .latents = host(DT_F32, "latents", 4, 13, 16, 60, 90)};
    if (!c.vae) stop("vae", err);
    for (int tiling = 0; tiling < 2; tiling++) {
        c.tiling = tiling;
        timed(tiling ? "vae_enc_tiled" : "vae_enc_whole", 3, tiling ? 0 : 149, run_encode, &c);
        timed(tiling ? "vae_dec_tiled" : "vae_dec_whole", 3, tiling ? 0 : 315, run_decode, &c);
    }
    c.tiling = false;
    kern_profile_start(k);
    run_encode(&c);
    profile("encode");
    kern_profile_start(k);
    run_decode(&c);
    profile("decode");
    autoencoder_close(c.vae);
    model_close(m);
    kern_close(k);
}

/* ---- text ---- */

struct prompts {
    struct text_encoder *t5;
    struct tensor ids, embeds;
    int count;
};

static bool run_prompts(void *context)
{
    struct prompts *p = context;
    for (int i = 0; i < p->count; i += (int)p->ids.shape[0])
        if (!text_encode(p->t5, &p->embeds, &p->ids)) return false;
    return true;
}

/* Several prompts at once have each prompt's bytes alone. */
static void compare_prompts(const struct prompts *p)
{
    struct tensor alone = host(DT_BF16, "alone", 2, 226, 4096);
    int same = 0;
    for (int i = 0; i < p->ids.shape[0]; i++) {
        struct tensor ids = tensor_rows(&p->ids, i, 1), embeds = tensor_rows(&p->embeds, i, 1);
        if (!text_encode(p->t5, &alone, &ids)) stop("t5", kern_error(k));
        same += !memcmp(alone.data, embeds.data, tensor_bytes(&alone));
    }
    printf("{\"name\": \"t5, of %d prompts at once have their bytes alone\", \"count\": %d}\n",
           (int)p->ids.shape[0], same);
    free(alone.data);
}

static void section_t5(void)
{
    static const int at_once[] = {1, 8, 32};
    open_device();
    struct model *m = model("random:cogvideox-5b");
    struct prompts p = {.t5 = text_encoder_open(k, m, 226, err, sizeof err), .count = 1};
    if (!p.t5) stop("t5", err);
    struct tensor ids = tensor_of(DT_I32, malloc(32 * 226 * 4), 2, (int64_t)32, (int64_t)226),
                  embeds = host(DT_BF16, "embeds", 3, 32, 226, 4096);
    for (int i = 0; i < 32 * 226; i++) ((int32_t *)ids.data)[i] = 31 * i % 32000;
    for (int i = 0; i < 3; i++) {
        char name[32];
        p.ids = tensor_rows(&ids, 0, at_once[i]);
        p.embeds = tensor_rows(&embeds, 0, at_once[i]);
        if (i == 0) timed("t5_B1", 11, 2.1, run_prompts, &p);
        p.count = 32;
        snprintf(name, sizeof name, "t5_B32, %d at once", at_once[i]);
        timed(name, 3, 32 * 2.1, run_prompts, &p);
        if (i) compare_prompts(&p);
    }
    p.ids = tensor_rows(&ids, 0, 1), p.embeds = tensor_rows(&embeds, 0, 1), p.count = 1;
    kern_profile_start(k);
    run_prompts(&p);
    profile("t5");
    text_encoder_close(p.t5);
    model_close(m);
    kern_close(k);
}

/* A text as long as captions are, and the longest; the first call of a length plans. */
static void section_umt5(void)
{
    open_device();
    struct model *m = model("random:wan-1.3b");
    struct prompts p = {.t5 = text_encoder_open(k, m, 512, err, sizeof err), .count = 1};
    if (!p.t5) stop("umt5", err);
    struct tensor ids = tensor_of(DT_I32, malloc(512 * 4), 1, (int64_t)512),
                  embeds = host(DT_BF16, "embeds", 2, 512, 4096);
    for (int i = 0; i < 512; i++) ((int32_t *)ids.data)[i] = 31 * i % 256000;
    for (int64_t length = 101; length <= 512; length += 411) {
        char name[32];
        snprintf(name, sizeof name, "umt5_%d", (int)length);
        p.ids = tensor_rows(&ids, 0, length), p.embeds = tensor_rows(&embeds, 0, length);
        timed(name, 11, 9.3e-3 * (double)length, run_prompts, &p);
    }
    text_encoder_close(p.t5);
    model_close(m);
    kern_close(k);
}

/* ---- grading ---- */

enum {
    HEAD = 43,
    SA = 174,
    PC = 152,
    NEW = 3
}; /* ids: before the video, of two tasks' prompts, of answers */

struct grading {
    struct owl *owl;
    struct tensor frames;
    int32_t sa[SA], pc[PC];
    bool look, ask;
};

static void make_prompt(int32_t *ids, int n, const struct owl *o, int seed)
{
    for (int i = 0; i < n; i++) ids[i] = 3 + (i + (i < HEAD ? 0 : seed)) * 7919 % 31000;
    for (int i = 0; i < owl_video_ids(o); i++) ids[HEAD + i] = OWL_VIDEO;
}

static bool run_grading(void *context)
{
    struct grading *g = context;
    int32_t answer[NEW];
    return (!g->look || owl_look(g->owl, &g->frames)) &&
           (!g->ask || (owl_answer(g->owl, g->sa, SA, answer, NULL, NEW, true) >= 0 &&
                        owl_answer(g->owl, g->pc, PC, answer, NULL, NEW, true) >= 0));
}

static void section_owl(void)
{
    static const struct {
        const char *name;
        bool look, ask;
    } part[] = {{"owl, look", true, false}, {"owl, ask sa and pc", false, true}, {"owl, a clip", true, true}};
    open_device();
    struct model *m = model("random:owl-7b");
    double from = now();
    struct grading g = {.owl = owl_open(k, m, false, NULL, err, sizeof err)};
    if (!g.owl) stop("owl", err);
    fprintf(stderr, "weights made in %.1f s\n", (now() - from) / 1e3);
    g.frames = host(DT_U8, "frames", 4, 32, owl_side(g.owl), owl_side(g.owl), 3);
    make_prompt(g.sa, SA, g.owl, 1);
    make_prompt(g.pc, PC, g.owl, 2);
    for (int i = 0; i < 3; i++) {
        g.look = part[i].look, g.ask = part[i].ask;
        if (!g.look && !owl_look(g.owl, &g.frames)) stop("owl", kern_error(k));
        timed(part[i].name, 7, 0, run_grading, &g);
        kern_profile_start(k);
        run_grading(&g);
        profile(part[i].name);
    }
    owl_close(g.owl);
    model_close(m);
    kern_close(k);
}

/* ---- one clip, from ids to pixels ---- */

struct whole {
    struct prompts text;
    struct sampler sampler;
    struct clip clip;
    struct tensor negative;
};

static bool run_clip(void *context)
{
    struct whole *w = context;
    struct noise_source source = noise_source_make("keyed", DT_F32, false, 42, "clip");
    return text_encode(w->text.t5, &w->text.embeds, &w->text.ids) &&
           text_encode(w->text.t5, &w->negative, &w->text.ids) &&
           sampler_run(&w->sampler, &w->clip.latents, &w->text.embeds, &w->negative, NULL, &source, err,
                       sizeof err) &&
           decode_latents(w->clip.vae, &w->clip.video, &w->clip.latents, false);
}

static void section_clip(void)
{
    open_device();
    struct model *m = model("random:cogvideox-5b");
    json_t *config = model_config(m, "scheduler", err, sizeof err);
    struct whole w = {.text = {.t5 = text_encoder_open(k, m, 226, err, sizeof err),
                               .ids = tensor_of(DT_I32, calloc(226, 4), 1, (int64_t)226),
                               .embeds = host(DT_BF16, "embeds", 2, 226, 4096)},
                      .negative = host(DT_BF16, "negative", 2, 226, 4096),
                      .sampler = {.denoiser = denoiser_open(k, m, false, err, sizeof err), .guidance = 6},
                      .clip = {.vae = autoencoder_open(k, m, false, true, err, sizeof err),
                               .video = host(DT_U8, "video", 4, 49, 480, 720, 3),
                               .latents = host(DT_F32, "latents", 4, 13, 16, 60, 90)}};
    if (!w.text.t5 || !w.sampler.denoiser || !w.clip.vae || !config ||
        !scheduler_init(&w.sampler.scheduler, "dpm", 50, 0, config, err, sizeof err) ||
        !step_choice_make(&w.sampler.choice, 50, NULL, NULL, err, sizeof err))
        stop("clip", err);
    run_clip(&w); /* once, in which libraries find their ways */
    double from = now();
    if (!run_clip(&w)) stop("clip", err);
    printf("{\"name\": \"clip\", \"ms\": %.0f, \"gib\": %.1f, \"tflops\": %.0f}\n", now() - from,
           (double)(free_at_first - k->backend->available(k)) / (1 << 30), 33200e3 / (now() - from));
    json_decref(config);
    autoencoder_close(w.clip.vae);
    denoiser_close(w.sampler.denoiser);
    text_encoder_close(w.text.t5);
    model_close(m);
    kern_close(k);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } sections[] = {{"dit", section_dit},  {"train", section_train}, {"vae", section_vae},
                    {"t5", section_t5},    {"umt5", section_umt5},   {"owl", section_owl},
                    {"clip", section_clip}};
    for (int i = 1; i < argc; i++)
        for (size_t s = 0; s < sizeof sections / sizeof *sections; s++)
            if (!strcmp(argv[i], sections[s].name)) sections[s].run();
    return 0;
}
