/* sample - generate: from a prompt's embedding to latents, by denoising.
 *
 *   stdin   prompt_embeds [L,D]; may bring noise [T,16,h,w] (the starting latents) and negative_embeds [L,D]
 *   stdout  latents [T,16,h,w] */
#include <stdlib.h>
#include <string.h>

#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/nets/prompt.h"
#include "filters/learning/sampler.h"
#include "formats/error.h"

static const char help[] =
    "sample - generate latents from prompts\n"
    "usage: sample -m DIR [options] <prompt_embeds >latents\n"
    "  -m, --model DIR      model folder (its transformer/, scheduler/, and for the negative prompt\n"
    "                       text_encoder/, tokenizer/), or random:PRESET           required\n"
    "  -a, --adapter FILE   add a trained adapter; FILE:WEIGHT scales it; may be repeated\n"
    "      --merge          fold them into the weights: faster, rounded otherwise; standard only [off]\n"
    "      --frames N       4n+1                                                   [the model's: 49 for 5B]\n"
    "      --size WxH       in pixels, multiples of 16                             [the model's: 720x480]\n"
    "      --steps N        a divisor of 1000 for dpm and ddim                     [50]\n"
    "      --guidance X     classifier-free guidance; 1 or less for none           [6]\n"
    "      --dynamic        the reference's dynamic guidance                       [off]\n"
    "      --scheduler S    dpm | ddim | euler (for adapters of objective flow)    [dpm]\n"
    "      --negative TEXT  negative prompt, for records that bring none           [\"\"]\n"
    "      --rng KIND       keyed | torch-cpu | torch-cuda: the last two draw what PyTorch's generator of that\n"
    "                       seed draws, restarted for each record, in --dtype      [keyed]\n"
    "COMMON\n"
    "stdin   prompt_embeds [L,D]   stdout  latents BF16 [(N+3)/4,16,H/8,W/8]; everything else passes through\n"
    "exit    0 every prompt done, 1 something failed, 2 wrong usage\n"
    "e.g.    t5-encode -m M <prompts.jsonl | sample -m M -a run/best.safetensors | vae-decode -m M | encode-mp4 -o videos\n"
    "see also: t5-encode, vae-decode, train-step\n";

static const char *scheduler = "dpm", *negative = "", *generator = "keyed";
static struct text_list adapters;
static bool merge;
static int64_t frames, steps = 50;
static struct size size;
static struct sampler s = {.guidance = 6};

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
     .choices = "dpm|ddim|euler",
     .setting = true},
    {.name = "negative", .kind = OPT_TEXT, .dest = &negative, .setting = true},
    {.name = "rng",
     .kind = OPT_CHOICE,
     .dest = &generator,
     .choices = "keyed|torch-cpu|torch-cuda",
     .setting = true},
    {0}};

static struct tensor negative_embeds; /* host F32 [L,D], once the first record wants it */
static json_t *provenance;            /* what every record is told of how it was made */
static char err[1024];

/* As the record's noise is, or the options say, or the model; false: noise and options differ. */
static bool latent_shape(const struct tensor *noise, struct tensor *latents)
{
    *latents = dit_latents(s.dit, frames, size.width, size.height);
    if (!noise) return true;
    const int64_t *from = noise->shape, *to = latents->shape;
    bool good = from[1] == to[1] && (!frames || from[0] == to[0]) &&
                (!size.width || (from[2] == to[2] && from[3] == to[3]));
    memcpy(latents->shape, from, sizeof latents->shape);
    return good;
}

static bool fits(struct record *f, const struct tensor *t, const char *name)
{
    const struct dit_config *c = &s.dit->c;
    if (!t) return false; /* f->error says why */
    return (t->shape[0] == c->text_length && t->shape[1] == c->text_dim) ||
           fail(f->error, sizeof f->error, "%s is [%lld,%lld], the model wants [%lld,%lld]", name,
                (long long)t->shape[0], (long long)t->shape[1], (long long)c->text_length,
                (long long)c->text_dim);
}

static bool generate(struct record *f, const struct model *m)
{
    static const char *const consumed[] = {"prompt_embeds", "negative_embeds", "noise"};
    struct tensor *text = record_want(f, "prompt_embeds", DT_COUNT, 2), *noise = NULL, *brought = NULL;
    struct tensor latents, *out = NULL;
    size_t bytes;
    if (!fits(f, text, "prompt_embeds")) return false;
    if (record_find(f, "noise") && !(noise = record_want(f, "noise", DT_COUNT, 4))) return false;
    if (record_find(f, "negative_embeds") &&
        !fits(f, brought = record_want(f, "negative_embeds", DT_COUNT, 2), "negative_embeds"))
        return false;
    if (!latent_shape(noise, &latents))
        return fail(f->error, sizeof f->error, "its noise is of another size than asked for");
    if (s.guidance > 1 && !brought && !negative_embeds.data &&
        !prompt_encode_once(&negative_embeds, kern_device(s.dit->k), (int)filter.threads, m, negative, err,
                            sizeof err))
        die("the negative prompt: %s", err);

    if (!tensor_bytes_checked(DT_F32, 4, latents.shape, &bytes) || !(latents.data = malloc(bytes + 1)))
        return fail(f->error, sizeof f->error, "no memory for its latents");
    struct noise_source source =
        noise_source_make(generator, filter_dtype(), (uint64_t)filter.seed, record_key(f));
    if (sampler_run(&s, &latents, text, brought ? brought : &negative_embeds, noise, &source, f->error,
                    sizeof f->error))
        out = record_add(f, "latents", filter_dtype(), 4, latents.shape[0], latents.shape[1],
                         latents.shape[2], latents.shape[3]);
    if (out) tensor_convert(out, &latents);
    free(latents.data);
    for (int i = 0; out && !filter.keep && i < 3; i++) record_drop(f, consumed[i]);
    if (out) json_object_set(record_meta(f), "sample", provenance);
    return out != NULL;
}

static void open_adapters(void)
{
    for (int i = 0; i < adapters.count; i++) {
        struct adapter *a = NULL;
        if (i == DIT_MAX_ADAPTERS) usage_error("more than %d adapters", DIT_MAX_ADAPTERS);
        if (!(a = adapter_open(s.dit->k, adapters.item[i], dit_adapter_base(s.dit, NULL), err, sizeof err)))
            die("%s", err);
        const char *objective = json_string_value(json_object_get(a->extra, "objective"));
        if (objective && !strcmp(objective, "flow") != (s.scheduler.kind == SCHEDULER_EULER))
            say(adapters.item[i], "was trained with objective %s; %s", objective,
                s.scheduler.kind == SCHEDULER_EULER
                    ? "dpm or ddim fit it, not euler"
                    : "its answers are no v-predictions: --scheduler euler fits it");
        s.dit->adapter[s.dit->adapters++] = a;
    }
}

/* What the options left open goes into the settings; they are what every record is told, too. */
static void describe(void)
{
    json_t *list = json_array(), *settings = filter.settings;
    for (int i = 0; i < s.dit->adapters; i++) {
        const struct adapter *a = s.dit->adapter[i];
        json_t *entry = adapter_description(a);
        json_object_set_new(entry, "weight", json_real(a->weight));
        json_object_set_new(entry, "values", json_sprintf("%016llx", (unsigned long long)a->hash));
        json_array_append_new(list, entry);
    }
    json_object_set_new(settings, "model", json_string(s.dit->id));
    json_object_set_new(settings, "adapters", list);
    if (!frames) json_object_set_new(settings, "frames", json_integer(s.dit->c.sample_frames));
    if (!size.width)
        json_object_set_new(settings, "size",
                            json_sprintf("%lldx%lld", (long long)s.dit->c.sample_width * 8,
                                         (long long)s.dit->c.sample_height * 8));
    provenance = json_pack("{s:s}", "version", SLUICE_VERSION);
    json_object_update(provenance, settings);
    json_object_del(provenance, "keep");
}

static void close_adapters(void)
{
    while (s.dit->adapters) adapter_close(s.dit->adapter[--s.dit->adapters]);
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
    if (size.width && (size.width % 16 || size.height % 16)) usage_error("--size: multiples of 16");
    if (merge && !adapters.count) usage_error("--merge needs an adapter");
    if (frames && frames % 4 != 1) usage_error("--frames: one more than a multiple of 4");
    if (!scheduler_takes(scheduler, steps, err, sizeof err)) usage_error("--steps: %s", err);
    filter_checked();

    struct kern *k = compute_open();
    struct model *m = model_open(filter.model, err, sizeof err);
    json_t *config = m ? model_config(m, "scheduler", err, sizeof err) : NULL;
    if (!config || !scheduler_init(&s.scheduler, scheduler, steps, config, err, sizeof err)) die("%s", err);
    if (!(s.dit = dit_open(k, m, false, err, sizeof err))) die("%s", err);
    json_decref(config);
    s.progress = show_step;
    open_adapters();
    describe();
    if (merge && !dit_merge(s.dit, err, sizeof err)) die("--merge: %s", err);
    if (merge) close_adapters();

    while (filter_next(&f)) {
        if (generate(&f, m))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    record_free(&f);
    free(negative_embeds.data);
    json_decref(provenance);
    close_adapters();
    dit_close(s.dit);
    model_close(m);
    compute_close(k);
    return filter_finish();
}
