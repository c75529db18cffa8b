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
#include "filters/learning/sampler.h"
#include "formats/error.h"

static const char help[] =
    "sample - generate latents from prompts\n"
    "usage: sample -m DIR [options] <prompt_embeds >latents\n"
    "  -m, --model DIR      model folder (its transformer/, scheduler/, and for the negative prompt\n"
    "                       text_encoder/, tokenizer/), or random:PRESET           required\n"
    "  -a, --adapter FILE   add a trained adapter: a file of any form that model-convert --to knows, or a folder\n"
    "                       that PEFT or diffusers saved; FILE:WEIGHT scales it; may be repeated\n"
    "      --merge          fold them into the weights: faster, rounded otherwise; standard only [off]\n"
    "      --frames N       as the family has them, 4n+1. Of CogVideoX's, with n odd, more frames decode from the\n"
    "                       latents than asked for, 4n+4, which is said [the model's: CogVideoX-5B 49, Wan 81]\n"
    "      --size WxH       in pixels, multiples of 16                [the model's: 720x480, 832x480]\n"
    "      --steps N        a divisor of 1000 for dpm and ddim                     [50]\n"
    "      --guidance X     classifier-free guidance; 1 or less for none           [CogVideoX 6, Wan 5]\n"
    "      --dynamic        CogVideoX's dynamic guidance                           [off]\n"
    "      --scheduler S    how noise is removed         [dpm; for a model that answers with the flow unipc]\n" SCHEDULER_HELP
    "                       The first two are for models that answer with v (CogVideoX); unipc and euler for those\n"
    "                       that answer with the flow (Wan), and for adapters of objective flow\n"
    "      --shift X        of the flow's levels, 0.01 to 100; unipc and euler ask a model that answers with the\n"
    "                       flow at the whole timesteps below 1000 s       [the folder's flow_shift, else 1]\n"
    "      --negative TEXT  negative prompt, for records that bring none; `published` stands for the one that\n"
    "                       was published with the model (Wan's)                   [\"\"]\n"
    "      --rng KIND       keyed | torch-cpu | torch-cuda: the last two draw what PyTorch's generator of that\n"
    "                       seed draws, restarted for each record: for CogVideoX [1,T,16,h,w] in --dtype, for\n"
    "                       Wan [1,16,T,h,w] in F32                                [keyed]\n"
    "COMMON\n"
    "stdin   prompt_embeds [L,D]   stdout  latents BF16 [(N+3)/4,16,H/8,W/8]; everything else passes through\n"
    "exit    0 every prompt done, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m M <prompts.jsonl | sample -m M -a run/best.safetensors | vae-decode -m M | encode-mp4 -o videos\n"
    "see also: t5-encode, vae-decode, train-step\n";

static const char *scheduler, *negative = "", *generator = "keyed";
static struct text_list adapters;
static bool merge;
static int64_t frames, steps;
static double shift;
static struct size size;
static struct sampler s = {.guidance = NAN};

static const struct option_spec options[] = {
    {.name = "adapter", .letter = 'a', .kind = OPT_LIST, .dest = &adapters},
    {.name = "merge", .kind = OPT_FLAG, .dest = &merge, .setting = true},
    {.name = "frames", .kind = OPT_INT, .dest = &frames, .low = 1, .high = 1e6, .setting = true},
    {.name = "size", .kind = OPT_SIZE, .dest = &size, .setting = true},
    {.name = "steps", .kind = OPT_INT, .dest = &steps, .low = 1, .high = 1e6, .setting = true},
    {.name = "guidance", .kind = OPT_REAL, .dest = &s.guidance, .low = -1e6, .high = 1e6, .setting = true},
    {.name = "dynamic", .kind = OPT_FLAG, .dest = &s.dynamic, .setting = true},
    {.name = "scheduler",
     .kind = OPT_CHOICE,
     .dest = &scheduler,
     .choices = SCHEDULER_CHOICES,
     .setting = true},
    {.name = "shift", .kind = OPT_REAL, .dest = &shift, .low = SHIFT_LEAST, .high = SHIFT_MOST},
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

/* As the record's noise is, or the options say, or the model; false: noise and options differ. */
static bool latent_shape(const struct tensor *noise, struct tensor *latents)
{
    *latents = geometry_latents(&s.denoiser->geometry, frames, size.width, size.height);
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
    const struct latent_geometry *g = &s.denoiser->geometry;
    int64_t asked = (latents->shape[0] - 1) * g->temporal + 1,
            decoded = denoiser_video_frames(s.denoiser, asked);
    json_object_set(record_meta(f), "sample", provenance);
    family_sign(record_meta(f), PART_AUTOENCODER, &s.denoiser->kind->network);
    if (decoded == asked) return;
    json_t *here = json_copy(provenance);
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
                family_reads(record_meta(f), PART_TEXT_ENCODER, &s.denoiser->kind->network, is, f->error,
                             sizeof f->error) &&
                geometry_reads(&s.denoiser->geometry, t, is, f->error, sizeof f->error);
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

static bool generate(struct record *f, const struct model *m)
{
    static const char *const consumed[] = {"prompt_embeds", "negative_embeds", "noise"};
    struct tensor *text = embeds(f, "prompt_embeds"), *noise = NULL, *brought = NULL;
    struct tensor latents, *out = NULL;
    size_t bytes;
    if (!text) return false;
    if (record_find(f, "noise") && !(noise = record_want(f, "noise", DT_COUNT, 4))) return false;
    if (record_find(f, "negative_embeds") && !(brought = embeds(f, "negative_embeds"))) return false;
    if (!latent_shape(noise, &latents))
        return fail(f->error, sizeof f->error, "its noise is of another size than asked for");
    if (s.guidance > 1 && !brought && !negative_embeds.data) encode_negative(m);

    if (!tensor_bytes_checked(DT_F32, 4, latents.shape, &bytes) || !(latents.data = malloc(bytes + 1)))
        return fail(f->error, sizeof f->error, "no memory for its latents");
    struct noise_source source =
        noise_source_make(generator, filter_dtype(), s.denoiser->kind->published.by_channel,
                          (uint64_t)filter.seed, record_key(f));
    if (sampler_run(&s, &latents, text, brought ? brought : &negative_embeds, noise, &source, f->error,
                    sizeof f->error))
        out = record_add(f, "latents", filter_dtype(), 4, latents.shape[0], latents.shape[1],
                         latents.shape[2], latents.shape[3]);
    if (out) tensor_convert(out, &latents);
    free(latents.data);
    for (int i = 0; out && !filter.keep && i < 3; i++) record_drop(f, consumed[i]);
    if (out) tell_how(f, &latents);
    return out != NULL;
}

static void open_adapters(void)
{
    const struct adapter_base base = {.linears = &s.denoiser->linears};
    for (int i = 0; i < adapters.count; i++) {
        if (i == ADAPTERS_MAX) usage_error("more than %d adapters", ADAPTERS_MAX);
        struct adapter *a = adapter_open(s.denoiser->k, adapters.item[i], base, err, sizeof err);
        if (!a) die("%s", err);
        const char *objective = json_string_value(json_object_get(a->extra, "objective"));
        if (objective && !strcmp(objective, "flow") != s.scheduler.kind->flow)
            say(adapters.item[i], "was trained with objective %s; %s%s", objective,
                s.scheduler.kind->flow ? "dpm or ddim fit it, not "
                                       : "its answers are no v-predictions: --scheduler euler fits it",
                s.scheduler.kind->flow ? s.scheduler.kind->name : "");
        sampler_add(&s, a);
    }
}

/* What the options left open goes into the settings; every record carries them, too. */
static void describe(void)
{
    const struct latent_geometry *g = &s.denoiser->geometry;
    const double fps = s.denoiser->kind->published.fps;
    json_t *list = json_array(), *settings = filter.settings;
    for (int i = 0; i < s.adapters.count; i++) {
        const struct adapter *a = s.adapters.item[i];
        json_t *entry = adapter_description(a);
        json_object_set_new(entry, "weight", json_real(a->weight));
        json_object_set_new(entry, "values", json_sprintf("%016llx", (unsigned long long)a->hash));
        json_array_append_new(list, entry);
    }
    json_object_set_new(settings, "model", json_string(s.denoiser->id));
    json_object_set_new(settings, "adapters", list);
    json_object_set_new(settings, "steps", json_integer(steps));
    json_object_set_new(settings, "guidance", json_real(s.guidance));
    json_object_set_new(settings, "scheduler", json_string(s.scheduler.kind->name));
    json_object_set_new(settings, "negative", json_string(negative));
    if (shift != 0 || s.scheduler.noise.flow)
        json_object_set_new(settings, "shift", json_real(s.scheduler.shift));
    if (fps > 0) json_object_set_new(settings, "fps", json_real(fps));
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
    if (isnan(s.guidance)) s.guidance = p->guidance;
    if (!strcmp(negative, "published") && !(negative = p->negative))
        usage_error("--negative: this model's family has published none");
    if (s.dynamic && !p->dynamic) usage_error("--dynamic: this model's family has none");
    bool good = scheduler_init(&s.scheduler, scheduler, steps, shift, config, err, sizeof err);
    if (!good && !strncmp(err, "--", 2)) usage_error("%s", err);
    if (!good) die("%s", err);
    json_decref(config);
}

static void show_step(int step, int of)
{
    progress("step %d of %d", step, of);
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    filter_start(argc, argv, help, options,
                 FILTER_COMPUTE | FILTER_RECORDS_OUT | FILTER_NEEDS_MODEL | FILTER_KEEP);
    if (merge && !adapters.count) usage_error("--merge needs an adapter");
    if (scheduler && steps && !scheduler_takes(scheduler, steps, err, sizeof err)) usage_error("%s", err);
    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    settle(m);
    filter_checked();
    struct kern *k = compute_open();
    if (!(s.denoiser = denoiser_open(k, m, false, err, sizeof err))) die("%s", err);
    s.progress = show_step;
    open_adapters();
    describe();
    if (merge && !adapter_set_merge(&s.adapters, k, err, sizeof err)) die("--merge: %s", err);
    if (merge) adapter_set_close(&s.adapters);

    while (filter_next(&f)) {
        if (generate(&f, m))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    record_free(&f);
    free(negative_embeds.data);
    json_decref(provenance);
    sampler_close(&s);
    model_close(m);
    compute_close(k);
    return filter_finish();
}
