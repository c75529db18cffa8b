#include "filters/learning/sampling.h"

#include <math.h>
#include <string.h>

#include "filters/lib/compute.h"
#include "filters/lib/messages.h"
#include "filters/nets/families.h"
#include "formats/error.h"

static const struct denoiser *network(const struct sampling *a)
{
    return a->both.s[a->both.first].denoiser;
}

bool sampling_choose(struct sampling *a, char *err, size_t errlen)
{
    const struct text_list *adapters = a->parts.adapters;
    const bool low_options = !isnan(a->both.s[LOW].guidance) || adapters[LOW].count;
    const char *whole = a->compute_steps        ? "--compute-steps"
                        : a->guidance_steps     ? "--guidance-steps"
                        : a->trajectory         ? "--trajectory"
                        : compute_devices() > 1 ? "--device of two devices"
                                                : NULL;
    if (!(a->both.boundary > 0))
        return (!a->expert && !low_options) || fail(err, errlen, "%s: this model has one transformer",
                                                    a->expert ? "--expert" : "--guidance-low, --adapter-low");
    if (whole) return fail(err, errlen, "%s: not with a model of two transformers", whole);
    if (!a->expert) a->expert = "both";
    if (!strcmp(a->expert, "low")) a->both.first = LOW;
    if (strcmp(a->expert, "high")) a->both.last = LOW;
    if (a->both.first == LOW && adapters[HIGH].count)
        return fail(err, errlen, "--adapter is for the high expert: --adapter-low");
    if (a->both.last == HIGH && low_options)
        return fail(err, errlen, "--guidance-low and --adapter-low are for the low expert");
    return true;
}

bool sampling_settle(struct sampling *a, const struct published *p, json_t *config, char *err, size_t errlen)
{
    struct sampler *s = a->both.s;
    if (!a->steps) a->steps = p->steps;
    if (isnan(s[HIGH].guidance)) s[HIGH].guidance = p->guidance;
    /* the high one's guidance decides whether there is a negative pass at all, as in WanPipeline */
    const bool guided = s[HIGH].guidance > 1;
    if (isnan(s[LOW].guidance)) s[LOW].guidance = s[HIGH].guidance;
    if (!guided) s[LOW].guidance = 1;
    if (!strcmp(a->negative, "published") && !(a->negative = p->negative))
        return fail(err, errlen, "--negative: this model's family has published none");
    if (s[HIGH].dynamic && !p->dynamic) return fail(err, errlen, "--dynamic: this model's family has none");
    if (compute_devices() > 1 && !guided)
        return fail(err, errlen, "--device: a second one is for guidance, and there is none");
    if (a->guidance_steps && !guided) return fail(err, errlen, "--guidance-steps: there is no guidance");
    return scheduler_init(&s[HIGH].scheduler, a->scheduler, a->steps, a->shift, config, err, errlen) &&
           step_choice_make(&s[HIGH].choice, a->steps, a->compute_steps, a->guidance_steps, err, errlen) &&
           (!(a->both.boundary > 0) || step_choice_make(&s[LOW].choice, a->steps, NULL, NULL, err, errlen)) &&
           experts_divide(&a->both, err, errlen);
}

bool sampling_describe(struct sampling *a, json_t *settings)
{
    const struct sampler *s = a->both.s;
    const struct latent_geometry *g = &network(a)->geometry;
    for (int e = a->both.first; e <= a->both.last; e++) {
        json_object_set_new(settings, e ? "model_low" : "model", json_string(s[e].denoiser->id));
        json_object_set_new(settings, e ? "adapters_low" : "adapters",
                            adapter_set_description(&s[e].adapters));
    }
    if (a->both.boundary > 0) {
        json_object_set_new(settings, "expert", json_string(a->expert));
        json_object_set_new(settings, "boundary", json_real(a->both.boundary));
        if (a->both.last == LOW) json_object_set_new(settings, "guidance_low", json_real(s[LOW].guidance));
    }
    json_object_set_new(settings, "steps", json_integer(a->steps));
    json_object_set_new(settings, "guidance", json_real(s[HIGH].guidance));
    json_object_set_new(settings, "scheduler", json_string(s[HIGH].scheduler.kind->name));
    json_object_set_new(settings, "negative", json_string(a->negative));
    if (a->shift != 0 || s[HIGH].scheduler.noise.flow)
        json_object_set_new(settings, "shift", json_real(s[HIGH].scheduler.shift));
    if (!step_choice_describe(&s[HIGH].choice, settings)) return false;
    if (g->fps > 0) json_object_set_new(settings, "fps", json_real(g->fps));
    if (!a->frames) json_object_set_new(settings, "frames", json_integer(g->frames));
    if (!a->size.width)
        json_object_set_new(settings, "size",
                            json_sprintf("%lldx%lld", (long long)g->width, (long long)g->height));
    a->made = json_pack("{s:s}", "version", SLUICE_VERSION);
    json_object_update(a->made, settings);
    json_object_del(a->made, "keep");
    return true;
}

bool sampling_latents(const struct sampling *a, const struct tensor *noise, struct tensor *latents)
{
    *latents = geometry_latents(&network(a)->geometry, a->frames, a->size.width, a->size.height);
    if (!noise) return true;
    const int64_t *from = noise->shape, *to = latents->shape;
    bool good = from[1] == to[1] && (!a->frames || from[0] == to[0]) &&
                (!a->size.width || (from[2] == to[2] && from[3] == to[3]));
    memcpy(latents->shape, from, sizeof latents->shape);
    return good;
}

void sampling_sign(struct sampling *a, struct record *f, const struct tensor *latents)
{
    const struct denoiser *d = network(a);
    const int64_t frames = latents->shape[0], wanted = (frames - 1) * d->geometry.temporal + 1,
                  decoded = denoiser_video_frames(d, wanted);
    json_t *meta = record_meta(f), *high = json_object_get(meta, "sample");
    json_t *made = experts_take(&a->both) ? experts_settings(high, a->made) : json_copy(a->made);
    if (decoded != wanted) json_object_set_new(made, "decoded_frames", json_integer(decoded));
    json_object_set_new(meta, "sample", made);
    family_sign(meta, PART_AUTOENCODER, &d->kind->network);
    if (decoded == wanted || a->said_frames) return;
    say(NULL, "%lld frames are %lld latent frames, which decode to %lld frames", (long long)wanted,
        (long long)frames, (long long)decoded);
    a->said_frames = true;
}
