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
#include "filters/learning/sampling.h"
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

static struct sampling how = {.both.s = {{.guidance = NAN}, {.guidance = NAN}}, .negative = ""};
static struct experts *const both = &how.both;
static struct sampler *const s = how.both.s;
static struct text_list *const adapters = how.parts.adapters;
static const char *generator = "keyed";

static const struct option_spec options[] = {
    {.name = "adapter", .letter = 'a', .kind = OPT_LIST, .dest = &how.parts.adapters[HIGH]},
    {.name = "merge", .kind = OPT_FLAG, .dest = &how.parts.merge, .setting = true},
    {.name = "frames", .kind = OPT_INT, .dest = &how.frames, .low = 1, .high = 1e6, .setting = true},
    {.name = "size", .kind = OPT_SIZE, .dest = &how.size, .setting = true},
    {.name = "steps", .kind = OPT_INT, .dest = &how.steps, .low = 1, .high = 1e6, .setting = true},
    {.name = "guidance",
     .kind = OPT_REAL,
     .dest = &s[HIGH].guidance,
     .low = -1e6,
     .high = 1e6,
     .setting = true},
    {.name = "guidance-steps", .kind = OPT_TEXT, .dest = &how.guidance_steps},
    {.name = "compute-steps", .kind = OPT_TEXT, .dest = &how.compute_steps},
    {.name = "guidance-low", .kind = OPT_REAL, .dest = &s[LOW].guidance, .low = -1e6, .high = 1e6},
    {.name = "expert", .kind = OPT_CHOICE, .dest = &how.expert, .choices = "high|low|both"},
    {.name = "adapter-low", .kind = OPT_LIST, .dest = &how.parts.adapters[LOW]},
    {.name = "dynamic", .kind = OPT_FLAG, .dest = &s[HIGH].dynamic, .setting = true},
    {.name = "scheduler",
     .kind = OPT_CHOICE,
     .dest = &how.scheduler,
     .choices = SCHEDULER_CHOICES,
     .setting = true},
    {.name = "shift", .kind = OPT_REAL, .dest = &how.shift, .low = SHIFT_LEAST, .high = SHIFT_MOST},
    {.name = "trajectory", .kind = OPT_FLAG, .dest = &how.trajectory},
    {.name = "negative", .kind = OPT_TEXT, .dest = &how.negative, .setting = true},
    {.name = "rng",
     .kind = OPT_CHOICE,
     .dest = &generator,
     .choices = "keyed|torch-cpu|torch-cuda",
     .setting = true},
    {0}};

static struct tensor negative_embeds; /* host F32 [L,D], once the first record wants it */
static char err[1024];

static struct denoiser *network(void)
{
    return s[both->first].denoiser;
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
    if (!prompt_encode_once(&negative_embeds, k, m, how.negative, err, sizeof err))
        die("the negative prompt: %s", err);
    compute_close(k);
}

/* The latents after each step, from s[HIGH].trajectory. */
static bool add_trajectory(struct record *f, const struct tensor *latents)
{
    char name[32];
    for (int64_t i = 0; i < how.steps; i++) {
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
        snprintf(energy, sizeof energy, "; %.1f J, %.2f a step", joules, joules / (double)how.steps);
    say(record_key(f), "profile: %.3f s, %.1f ms a step%s", seconds, 1e3 * seconds / (double)how.steps,
        energy);
}

/* Room for the latents, and for the trajectory. */
static bool make_room(struct record *f, struct tensor *latents)
{
    const bool good = experts_room(both, latents) &&
                      (!how.trajectory ||
                       (s[HIGH].trajectory = calloc((size_t)how.steps, tensor_bytes(latents) + 1)) != NULL);
    return good || fail(f->error, sizeof f->error, "no memory for its latents");
}

/* From another process, of the high expert. */
static bool take_over(struct record *f, struct tensor *latents)
{
    const struct tensor *t = experts_handed(f, how.made);
    if (!t) return false;
    if (!sampling_latents(&how, t, latents))
        return fail(f->error, sizeof f->error, "high_latents is of another size than asked for");
    return make_room(f, latents) && experts_take_over(both, f, latents);
}

/* ---- a record ------------------------------------------------------------------------------------------ */

static bool run(struct record *f, struct tensor *latents, const struct tensor *text,
                const struct tensor *negative, const struct tensor *noise)
{
    struct noise_source source =
        noise_source_make(generator, filter_dtype(), network()->kind->published.by_channel,
                          (uint64_t)filter.seed, record_key(f));
    const double since = clock_seconds(), joules = filter.profile ? compute_joules() : NAN;
    for (int e = both->first; e <= both->last; e++)
        if (!sampler_run(&s[e], latents, text, negative, noise, &source, f->error, sizeof f->error))
            return false;
    if (filter.profile) tell_pace(f, clock_seconds() - since, compute_joules() - joules);
    if (experts_hand(both)) return experts_hand_over(both, f, latents);
    return record_put(f, "latents", filter_dtype(), latents) &&
           (!how.trajectory || add_trajectory(f, latents));
}

static bool generate(struct record *f, const struct model *m)
{
    static const char *const consumed[] = {"noise", "prompt_embeds", "negative_embeds"};
    const bool late = experts_take(both);
    struct tensor *text = embeds(f, "prompt_embeds"), *noise = NULL, *brought = NULL, latents = {0};
    if (!text) return false;
    if (!late && record_find(f, "noise") && !(noise = record_want(f, "noise", DT_COUNT, 4))) return false;
    if (record_find(f, "negative_embeds") && !(brought = embeds(f, "negative_embeds"))) return false;
    if (!late && !sampling_latents(&how, noise, &latents))
        return fail(f->error, sizeof f->error, "its noise is of another size than asked for");
    if ((s[both->first].guidance > 1 || s[both->last].guidance > 1) && !brought && !negative_embeds.data)
        encode_negative(m);

    bool good = late ? take_over(f, &latents) : make_room(f, &latents);
    good = good && run(f, &latents, text, brought ? brought : &negative_embeds, noise);
    free(latents.data);
    free(s[HIGH].trajectory);
    s[HIGH].trajectory = NULL;
    for (int i = 0; good && !filter.keep && i < (experts_hand(both) ? 1 : 3); i++)
        record_drop(f, consumed[i]);
    if (good && late) experts_drop(f);
    if (good) sampling_sign(&how, f, &latents);
    return good;
}

/* ---- the options --------------------------------------------------------------------------------------- */

/* What is wrong with the options, whatever the model. */
static void check(void)
{
    if (adapters[HIGH].count > ADAPTERS_MAX || adapters[LOW].count > ADAPTERS_MAX)
        usage_error("more than %d adapters", ADAPTERS_MAX);
    if (compute_devices() > 2) usage_error("--device: two at most, one for each half of guidance");
    if (how.parts.merge && !adapters[HIGH].count && !adapters[LOW].count)
        usage_error("--merge needs an adapter");
    if (how.parts.merge && filter_fp8())
        usage_error("--merge: not with --dtype fp8, whose weights are rounded");
    if (how.scheduler && how.steps && !scheduler_takes(how.scheduler, how.steps, err, sizeof err))
        usage_error("%s", err);
}

/* What the options leave open is as the model's family and folder have it. What is wrong with the command is said here,
 * before the weights are read. */
static void settle(const struct model *m)
{
    struct latent_geometry g;
    if (!denoiser_boundary(m, &both->boundary, err, sizeof err)) die("%s", err);
    if (!sampling_choose(&how, err, sizeof err)) usage_error("%s", err);
    const struct published *p = denoiser_published(m, err, sizeof err);
    json_t *config = p ? model_config(m, "scheduler", err, sizeof err) : NULL;
    if (!config || !denoiser_geometry(m, false, &g, err, sizeof err)) die("%s", err);
    if (!geometry_fits(&g, how.frames, how.size.width, how.size.height, err, sizeof err))
        usage_error("%s", err);
    const bool good = sampling_settle(&how, p, config, err, sizeof err);
    if (good) options_idle("dynamic|negative", !(s[HIGH].guidance > 1), "there is no guidance");
    if (!good && !strncmp(err, "--", 2)) usage_error("%s", err);
    if (!good) die("%s", err);
    json_decref(config);
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
    check();
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    settle(m);
    filter_checked();
    struct kern *k = compute_open();
    how.parts.model = m;
    if (!experts_open(both, k, &how.parts, err, sizeof err)) die("%s", err);
    for (int e = both->first; e <= both->last; e++) s[e].progress = show_step;
    if (!sampling_describe(&how, filter.settings)) die("out of memory");
    for (int e = both->first; how.parts.merge && e <= both->last; e++) adapter_set_close(&s[e].adapters);
    if (compute_devices() > 1 && !experts_open_second(both, &how.parts, err, sizeof err)) die("%s", err);

    while (filter_next(&f)) {
        if (generate(&f, m))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    record_free(&f);
    free(negative_embeds.data);
    json_decref(how.made);
    experts_close(both);
    model_close(m);
    compute_close(k);
    return filter_finish();
}
