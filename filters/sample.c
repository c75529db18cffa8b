/* sample - generate: from a prompt's embedding to latents, by denoising.
 *
 *   stdin   prompt_embeds [L,D]; may bring noise [T,16,h,w] (the starting latents) and negative_embeds [L,D]
 *   stdout  latents [T,16,h,w] */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"
#include "filters/nets/prompt.h"
#include "filters/learning/experts.h"
#include "formats/clock.h"
#include "formats/error.h"

static const char help[] =
    "sample - generate latents from prompts\n"
    "usage: sample -m DIR [options] <prompt_embeds >latents\n"
    "  -m, --model DIR      model folder (its transformer/, scheduler/, and for the negative prompt\n"
    "                       text_encoder/, tokenizer/), or random:PRESET           required\n"
    "  -a, --adapter FILE   add a trained adapter: a file of any form that model-convert --to knows, or a folder\n"
    "                       that PEFT or diffusers saved; FILE:WEIGHT scales it; may be repeated\n"
    "      --expert E       of a model of two transformers (Wan 2.2 A14B), which: high, for the noisy steps; low, for\n"
    "                       those below the folder's boundary_ratio, from what a sample --expert high wrote; or both\n"
    "      --guidance-low X  guidance of the low one                               [--guidance]\n"
    "      --adapter-low FILE  as -a, which is for the high one; may be repeated\n"
    "      --merge          fold them into the weights: faster, rounded otherwise; standard only; not with fp8 [off]\n"
    "      --frames N       as the family has them, 4n+1. Of CogVideoX's, with n odd, more frames decode from the\n"
    "                       latents than asked for, 4n+4, which is said\n"
    "                       [the model's: CogVideoX-5B 49, Wan 81, Wan 2.2 TI2V-5B 121]\n"
    "      --size WxH       in pixels, multiples of 16, of TI2V-5B 32  [the model's: 720x480, 832x480, 1280x704]\n"
    "      --steps N        a divisor of 1000 for dpm and ddim                     [50]\n"
    "      --guidance X     classifier-free guidance; 1 or less for none           [CogVideoX 6, Wan 5]\n"
    "      --guidance-steps A-B  guidance at steps A to B alone, which count from 0  [all]\n"
    "      --compute-steps S  the steps at which the network's blocks run: a list such as 0-4,6,9-49; a number, of\n"
    "                       steps evenly spread; or for 50 steps careful (30) or bold (25). At the others they add\n"
    "                       what they last added. An approximation: untested at full size with real weights  [all]\n"
    "      --dynamic        CogVideoX's dynamic guidance                           [off]\n"
    "      --scheduler S    how noise is removed         [dpm; for a model that answers with the flow unipc]\n" SCHEDULER_HELP
    "                       The first two are for models that answer with v (CogVideoX); unipc and euler for those\n"
    "                       that answer with the flow (Wan), and for adapters of objective flow\n"
    "      --shift X        of the flow's levels, 0.01 to 100; unipc and euler ask a model that answers with the\n"
    "                       flow at the whole timesteps below 1000 s       [the folder's flow_shift, else 1]\n"
    "      --trajectory     also write the latents after each step K, as step.K, beginning with step.0  [off]\n"
    "      --negative TEXT  negative prompt, for records that bring none; `published` stands for the one that\n"
    "                       was published with the model (Wan's)                   [\"\"]\n"
    "      --rng KIND       keyed | torch-cpu | torch-cuda: the last two draw what PyTorch's generator of that\n"
    "                       seed draws, restarted for each record: for CogVideoX [1,T,16,h,w] in --dtype, for\n"
    "                       Wan [1,16,T,h,w] in F32                                [keyed]\n"
    "COMMON\n"
    "devices with two, each has the whole network and is at one half of guidance: the bytes of one\n"
    "stdin   prompt_embeds [L,D]   stdout  latents BF16 [(N+3)/4,16,H/8,W/8]; everything else passes through\n"
    "exit    0 every prompt done, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m M <prompts.jsonl | sample -m M -a run/best.safetensors | vae-decode -m M | encode-mp4 -o videos\n"
    "see also: t5-encode, vae-decode, train-step\n";

static const char *scheduler, *negative = "", *generator = "keyed", *compute_steps, *guidance_steps;
static struct experts both = {.s = {{.guidance = NAN}, {.guidance = NAN}}};
static struct sampler *const s = both.s;
static struct expert_parts parts;
static struct text_list *const adapters = parts.adapters;
static const char *expert;
static bool trajectory;
static int64_t frames, steps;
static double shift;
static struct size size;

static const struct option_spec options[] = {
    {.name = "adapter", .letter = 'a', .kind = OPT_LIST, .dest = &parts.adapters[HIGH]},
    {.name = "merge", .kind = OPT_FLAG, .dest = &parts.merge, .setting = true},
    {.name = "frames", .kind = OPT_INT, .dest = &frames, .low = 1, .high = 1e6, .setting = true},
    {.name = "size", .kind = OPT_SIZE, .dest = &size, .setting = true},
    {.name = "steps", .kind = OPT_INT, .dest = &steps, .low = 1, .high = 1e6, .setting = true},
    {.name = "guidance",
     .kind = OPT_REAL,
     .dest = &s[HIGH].guidance,
     .low = -1e6,
     .high = 1e6,
     .setting = true},
    {.name = "guidance-steps", .kind = OPT_TEXT, .dest = &guidance_steps},
    {.name = "compute-steps", .kind = OPT_TEXT, .dest = &compute_steps},
    {.name = "guidance-low", .kind = OPT_REAL, .dest = &s[LOW].guidance, .low = -1e6, .high = 1e6},
    {.name = "expert", .kind = OPT_CHOICE, .dest = &expert, .choices = "high|low|both"},
    {.name = "adapter-low", .kind = OPT_LIST, .dest = &parts.adapters[LOW]},
    {.name = "dynamic", .kind = OPT_FLAG, .dest = &s[HIGH].dynamic, .setting = true},
    {.name = "scheduler",
     .kind = OPT_CHOICE,
     .dest = &scheduler,
     .choices = SCHEDULER_CHOICES,
     .setting = true},
    {.name = "shift", .kind = OPT_REAL, .dest = &shift, .low = SHIFT_LEAST, .high = SHIFT_MOST},
    {.name = "trajectory", .kind = OPT_FLAG, .dest = &trajectory},
    {.name = "negative", .kind = OPT_TEXT, .dest = &negative, .setting = true},
    {.name = "rng",
     .kind = OPT_CHOICE,
     .dest = &generator,
     .choices = "keyed|torch-cpu|torch-cuda",
     .setting = true},
    {0}};

static bool said_frames;              /* that more frames than asked for come of the latents */
static struct tensor negative_embeds; /* host F32 [L,D], once the first record wants it */
static json_t *provenance;            /* how the latents were made, for every record */
static char err[1024];

static struct denoiser *network(void)
{
    return s[both.first].denoiser;
}

/* As the record's noise is, or the options say, or the model; false: noise and options differ. */
static bool latent_shape(const struct tensor *noise, struct tensor *latents)
{
    *latents = geometry_latents(&network()->geometry, frames, size.width, size.height);
    if (!noise) return true;
    const int64_t *from = noise->shape, *to = latents->shape;
    bool good = from[1] == to[1] && (!frames || from[0] == to[0]) &&
                (!size.width || (from[2] == to[2] && from[3] == to[3]));
    memcpy(latents->shape, from, sizeof latents->shape);
    return good;
}

/* Says how the latents were made; and how many frames decode from them, when that is another number than asked. */
static void tell_how(struct record *f, const struct tensor *latents)
{
    const struct latent_geometry *g = &network()->geometry;
    int64_t asked = (latents->shape[0] - 1) * g->temporal + 1,
            decoded = denoiser_video_frames(network(), asked);
    json_t *high = json_object_get(record_meta(f), "sample");
    json_object_set_new(record_meta(f), "sample",
                        experts_take(&both) ? experts_settings(high, provenance) : json_copy(provenance));
    family_sign(record_meta(f), PART_AUTOENCODER, &network()->kind->network);
    if (decoded == asked) return;
    json_t *here = json_copy(json_object_get(record_meta(f), "sample"));
    json_object_set_new(here, "decoded_frames", json_integer(decoded));
    json_object_set_new(record_meta(f), "sample", here);
    if (!said_frames)
        say(NULL, "%lld frames are %lld latent frames, which decode to %lld frames", (long long)asked,
            (long long)latents->shape[0], (long long)decoded);
    said_frames = true;
}

/* f->error says why not. */
static struct tensor *embeds(struct record *f, const char *name)
{
    char is[64];
    struct tensor *t = record_want(f, name, DT_COUNT, 2);
    snprintf(is, sizeof is, "%s is", name);
    bool good = t &&
                family_reads(record_meta(f), PART_TEXT_ENCODER, &network()->kind->network, is, f->error,
                             sizeof f->error) &&
                geometry_reads(&network()->geometry, t, is, f->error, sizeof f->error);
    return good ? t : NULL;
}

/* The text encoder has a device of its own, so that its memory is free again before the first step. */
static void encode_negative(const struct model *m)
{
    struct kern *k = compute_open();
    if (!prompt_encode_once(&negative_embeds, k, m, negative, err, sizeof err))
        die("the negative prompt: %s", err);
    compute_close(k);
}

/* The latents after each step, from s[HIGH].trajectory. */
static bool add_trajectory(struct record *f, const struct tensor *latents)
{
    char name[32];
    for (int64_t i = 0; i < steps; i++) {
        struct tensor from = *latents;
        from.data = s[HIGH].trajectory + i * tensor_count(latents);
        snprintf(name, sizeof name, "step.%lld", (long long)i);
        if (!record_put(f, name, filter_dtype(), &from)) return false;
    }
    return true;
}

/* Of --profile, which makes it slower than it is. */
static void tell_pace(struct record *f, double seconds, double joules)
{
    char energy[96] = "";
    if (!isnan(joules))
        snprintf(energy, sizeof energy, "; %.1f J, %.2f a step", joules, joules / (double)steps);
    say(record_key(f), "profile: %.3f s, %.1f ms a step%s", seconds, 1e3 * seconds / (double)steps, energy);
}

/* Room for the latents, and for the trajectory. */
static bool make_room(struct record *f, struct tensor *latents)
{
    const bool good =
        experts_room(&both, latents) &&
        (!trajectory || (s[HIGH].trajectory = calloc((size_t)steps, tensor_bytes(latents) + 1)) != NULL);
    return good || fail(f->error, sizeof f->error, "no memory for its latents");
}

/* From another process, of the high expert. */
static bool take_over(struct record *f, struct tensor *latents)
{
    const struct tensor *t = experts_handed(f, provenance);
    if (!t) return false;
    if (!latent_shape(t, latents))
        return fail(f->error, sizeof f->error, "high_latents is of another size than asked for");
    return make_room(f, latents) && experts_take_over(&both, f, latents);
}

/* ---- a record ------------------------------------------------------------------------------------------ */

static bool run(struct record *f, struct tensor *latents, const struct tensor *text,
                const struct tensor *negative, const struct tensor *noise)
{
    struct noise_source source =
        noise_source_make(generator, filter_dtype(), network()->kind->published.by_channel,
                          (uint64_t)filter.seed, record_key(f));
    const double since = clock_seconds(), joules = filter.profile ? compute_joules() : NAN;
    for (int e = both.first; e <= both.last; e++)
        if (!sampler_run(&s[e], latents, text, negative, noise, &source, f->error, sizeof f->error))
            return false;
    if (filter.profile) tell_pace(f, clock_seconds() - since, compute_joules() - joules);
    if (experts_hand(&both)) return experts_hand_over(&both, f, latents);
    return record_put(f, "latents", filter_dtype(), latents) && (!trajectory || add_trajectory(f, latents));
}

static bool generate(struct record *f, const struct model *m)
{
    static const char *const consumed[] = {"noise", "prompt_embeds", "negative_embeds"};
    const bool late = experts_take(&both);
    struct tensor *text = embeds(f, "prompt_embeds"), *noise = NULL, *brought = NULL, latents = {0};
    if (!text) return false;
    if (!late && record_find(f, "noise") && !(noise = record_want(f, "noise", DT_COUNT, 4))) return false;
    if (record_find(f, "negative_embeds") && !(brought = embeds(f, "negative_embeds"))) return false;
    if (!late && !latent_shape(noise, &latents))
        return fail(f->error, sizeof f->error, "its noise is of another size than asked for");
    if ((s[both.first].guidance > 1 || s[both.last].guidance > 1) && !brought && !negative_embeds.data)
        encode_negative(m);

    bool good = late ? take_over(f, &latents) : make_room(f, &latents);
    good = good && run(f, &latents, text, brought ? brought : &negative_embeds, noise);
    free(latents.data);
    free(s[HIGH].trajectory);
    s[HIGH].trajectory = NULL;
    for (int i = 0; good && !filter.keep && i < (experts_hand(&both) ? 1 : 3); i++)
        record_drop(f, consumed[i]);
    if (good && late) experts_drop(f);
    if (good) tell_how(f, &latents);
    return good;
}

/* ---- the options --------------------------------------------------------------------------------------- */

static void tell_misfits(int e)
{
    const struct scheduler_kind *kind = s[e].scheduler.kind;
    for (int i = 0; i < s[e].adapters.count; i++) {
        const char *objective = json_string_value(json_object_get(s[e].adapters.item[i]->extra, "objective"));
        if (objective && !strcmp(objective, "flow") != kind->flow)
            say(adapters[e].item[i], "was trained with objective %s; %s%s", objective,
                kind->flow ? "dpm or ddim fit it, not "
                           : "its answers are no v-predictions: --scheduler euler fits it",
                kind->flow ? kind->name : "");
    }
}

/* What the options left open goes into the settings; every record carries them, too. */
static void describe(void)
{
    const struct latent_geometry *g = &network()->geometry;
    json_t *settings = filter.settings;
    for (int e = both.first; e <= both.last; e++) {
        json_object_set_new(settings, e ? "model_low" : "model", json_string(s[e].denoiser->id));
        json_object_set_new(settings, e ? "adapters_low" : "adapters",
                            adapter_set_description(&s[e].adapters));
    }
    if (both.boundary > 0) {
        json_object_set_new(settings, "expert", json_string(expert));
        json_object_set_new(settings, "boundary", json_real(both.boundary));
        if (both.last == LOW) json_object_set_new(settings, "guidance_low", json_real(s[LOW].guidance));
    }
    json_object_set_new(settings, "steps", json_integer(steps));
    json_object_set_new(settings, "guidance", json_real(s[HIGH].guidance));
    json_object_set_new(settings, "scheduler", json_string(s[HIGH].scheduler.kind->name));
    json_object_set_new(settings, "negative", json_string(negative));
    if (shift != 0 || s[HIGH].scheduler.noise.flow)
        json_object_set_new(settings, "shift", json_real(s[HIGH].scheduler.shift));
    if (!step_choice_describe(&s[HIGH].choice, settings)) die("out of memory");
    if (g->fps > 0) json_object_set_new(settings, "fps", json_real(g->fps));
    if (!frames) json_object_set_new(settings, "frames", json_integer(g->frames));
    if (!size.width)
        json_object_set_new(settings, "size",
                            json_sprintf("%lldx%lld", (long long)g->width, (long long)g->height));
    provenance = json_pack("{s:s}", "version", SLUICE_VERSION);
    json_object_update(provenance, settings);
    json_object_del(provenance, "keep");
}

/* What the options leave open is as the model's family and folder have it. What is wrong with the command is said here,
 * before the weights are read. */
static void settle(const struct model *m)
{
    struct latent_geometry g;
    const struct published *p = denoiser_published(m, err, sizeof err);
    json_t *config = p ? model_config(m, "scheduler", err, sizeof err) : NULL;
    if (!config || !denoiser_geometry(m, false, &g, err, sizeof err)) die("%s", err);
    if (!geometry_fits(&g, frames, size.width, size.height, err, sizeof err)) usage_error("%s", err);
    if (!steps) steps = p->steps;
    if (isnan(s[HIGH].guidance)) s[HIGH].guidance = p->guidance;
    /* the high one's guidance decides whether there is a negative pass at all, as in WanPipeline */
    if (isnan(s[LOW].guidance)) s[LOW].guidance = s[HIGH].guidance;
    if (!(s[HIGH].guidance > 1)) s[LOW].guidance = 1;
    if (!strcmp(negative, "published") && !(negative = p->negative))
        usage_error("--negative: this model's family has published none");
    if (s[HIGH].dynamic && !p->dynamic) usage_error("--dynamic: this model's family has none");
    if (compute_devices() > 1 && !(s[HIGH].guidance > 1))
        usage_error("--device: a second one is for guidance, and there is none");
    if (guidance_steps && !(s[HIGH].guidance > 1)) usage_error("--guidance-steps: there is no guidance");
    bool good =
        scheduler_init(&s[HIGH].scheduler, scheduler, steps, shift, config, err, sizeof err) &&
        step_choice_make(&s[HIGH].choice, steps, compute_steps, guidance_steps, err, sizeof err) &&
        (!(both.boundary > 0) || step_choice_make(&s[LOW].choice, steps, NULL, NULL, err, sizeof err));
    if (!good && !strncmp(err, "--", 2)) usage_error("%s", err);
    if (!good) die("%s", err);
    json_decref(config);
}

/* Which of the model's networks this process runs, and at which steps. */
static void choose_expert(const struct model *m)
{
    const bool low_options = !isnan(s[LOW].guidance) || adapters[LOW].count;
    if (!denoiser_boundary(m, &both.boundary, err, sizeof err)) die("%s", err);
    if (!(both.boundary > 0) && (expert || low_options))
        usage_error("%s: this model has one transformer",
                    expert ? "--expert" : "--guidance-low, --adapter-low");
    if (!(both.boundary > 0)) return;
    if (compute_steps || guidance_steps || trajectory || compute_devices() > 1)
        usage_error("%s: not with a model of two transformers", compute_steps    ? "--compute-steps"
                                                                : guidance_steps ? "--guidance-steps"
                                                                : trajectory     ? "--trajectory"
                                                                                 : "--device of two devices");
    if (!expert) expert = "both";
    if (!strcmp(expert, "low")) both.first = LOW;
    if (strcmp(expert, "high")) both.last = LOW;
    if (both.first == LOW && adapters[HIGH].count)
        usage_error("--adapter is for the high expert: --adapter-low");
    if (both.last == HIGH && low_options)
        usage_error("--guidance-low and --adapter-low are for the low expert");
}

static void show_step(int step, int of)
{
    filter.part = (double)step / of;
    progress("step %d of %d", step, of);
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    filter_start(argc, argv, help, options,
                 FILTER_COMPUTE | FILTER_RECORDS_OUT | FILTER_NEEDS_MODEL | FILTER_KEEP | FILTER_DEVICES |
                     FILTER_FP8);
    if (adapters[HIGH].count > ADAPTERS_MAX || adapters[LOW].count > ADAPTERS_MAX)
        usage_error("more than %d adapters", ADAPTERS_MAX);
    if (compute_devices() > 2) usage_error("--device: two at most, one for each half of guidance");
    if (parts.merge && !adapters[HIGH].count && !adapters[LOW].count) usage_error("--merge needs an adapter");
    if (parts.merge && filter_fp8()) usage_error("--merge: not with --dtype fp8, whose weights are rounded");
    if (scheduler && steps && !scheduler_takes(scheduler, steps, err, sizeof err)) usage_error("%s", err);
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    choose_expert(m);
    settle(m);
    if (!experts_divide(&both, err, sizeof err)) usage_error("%s", err);
    filter_checked();
    struct kern *k = compute_open();
    parts.model = m;
    if (!experts_open(&both, k, &parts, err, sizeof err)) die("%s", err);
    for (int e = both.first; e <= both.last; e++) {
        s[e].progress = show_step;
        tell_misfits(e);
    }
    describe();
    for (int e = both.first; parts.merge && e <= both.last; e++) adapter_set_close(&s[e].adapters);
    if (compute_devices() > 1 && !experts_open_second(&both, &parts, err, sizeof err)) die("%s", err);

    while (filter_next(&f)) {
        if (generate(&f, m))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    record_free(&f);
    free(negative_embeds.data);
    json_decref(provenance);
    experts_close(&both);
    model_close(m);
    compute_close(k);
    return filter_finish();
}
