/* The networks at full size on one GPU, random weights: median times of what peers.py times for PyTorch.
 *
 *   nets SECTION...     dit train step (of train, the first line alone) t5 vae owl clip
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
#include "tests/gpu/nets.h"

/* ---- the transformer ---- */

static void section_dit(void)
{
    open_device();
    struct model *m = model("random:cogvideox-5b");
    double from = now();
    struct forward f = {.dit = denoiser_open(k, m, false, err, sizeof err), .videos = 1};
    if (!f.dit) stop("transformer", err);
    fprintf(stderr, "weights made in %.1f s\n", (now() - from) / 1e3);
    struct tensor latents = host(DT_F32, "latents", 4, 13, 16, 60, 90),
                  text = host(DT_F32, "text", 2, 226, 4096);
    forward_first(&f, &latents, &text);
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

static void time_steps(int adapters, int recomputes)
{
    static const char *const all[] = {"standard", "transformer", "gdn_cssm:k=1", "gdn_cssm:k=5,rope=1"};
    struct tensor latents = host(DT_F32, "latents", 4, 13, 16, 60, 90);
    timed_steps("random:cogvideox-5b", "train", all, adapters, recomputes, &latents, 226,
                (const double[]){909, 1241});
    free(latents.data);
}

static void section_train(void)
{
    time_steps(4, RECOMPUTES);
}

static void section_step(void)
{
    time_steps(1, 1);
}

/* ---- the VAE ---- */

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
                  embeds = tensor_of(DT_BF16, NULL, 3, (int64_t)32, (int64_t)226, (int64_t)4096);
    embeds.data = kern_host_alloc(k, tensor_bytes(&embeds)); /* as t5-encode has it */
    if (!embeds.data) stop("t5", "no memory");
    /* Captions of 130 words and more, of two thousand words, then padding. Made-up rows are a launch each. */
    for (int i = 0; i < 32 * 226; i++)
        ((int32_t *)ids.data)[i] = i % 226 < 130 + i / 226 ? 1 + 16 * (i * 7919 % 2000) : 0;
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
    for (int i = 2; i >= 0; i -= 2) {
        p.ids = tensor_rows(&ids, 0, at_once[i]), p.embeds = tensor_rows(&embeds, 0, at_once[i]);
        p.count = at_once[i];
        kern_profile_start(k);
        run_prompts(&p);
        profile(i ? "t5 of 32" : "t5");
    }
    text_encoder_close(p.t5);
    kern_host_free(k, embeds.data);
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
    int32_t answer[2][NEW];
    struct owl_question q[] = {{.ids = g->sa, .n = SA, .max_new = NEW, .answer = answer[0]},
                               {.ids = g->pc, .n = PC, .max_new = NEW, .answer = answer[1]}};
    return (!g->look || owl_look(g->owl, &g->frames)) && (!g->ask || owl_answer(g->owl, q, 2, true));
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
    } sections[] = {{"dit", section_dit},  {"train", section_train}, {"step", section_step},
                    {"vae", section_vae},  {"t5", section_t5},       {"owl", section_owl},
                    {"clip", section_clip}};
    for (int i = 1; i < argc; i++)
        for (size_t s = 0; s < sizeof sections / sizeof *sections; s++)
            if (!strcmp(argv[i], sections[s].name)) sections[s].run();
    return 0;
}
