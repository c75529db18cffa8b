/* A family that filters/ does not know (tests/family/loom.c), under the trainer and the sampler as they are: every
 * gradient of every kind of adapter, on linears with in != out and on rows of text alone, against finite
 * differences of the loss; and what a kind must refuse. */
#include <math.h>

#include "filters/learning/sampler.h"
#include "filters/learning/trainer.h"
#include "tests/device.h"

static struct kern *k;
static char err[1024];
static const char *const folder = "random:tests/data/family/:3"; /* a name with a / is a folder */

static void fill(struct tensor *t, const char *purpose)
{
    struct rng r = rng_make(5, "loom", purpose, 0);
    t->data = malloc(tensor_bytes(t));
    rng_normal(&r, t->data, (size_t)tensor_count(t));
}

static bool start(struct trainer *t, const char *adapter, const char *targets)
{
    struct trainer_start s = {.objective = "flow", .adapter = adapter, .targets = targets};
    *t = (struct trainer){.seed = 7, .max_steps = 5, .accumulate = 1, .recompute = RECOMPUTE_NONE};
    struct tensor latents = tensor_of(DT_F32, NULL, 4, 3, 5, 2, 3);
    return trainer_open(t, k, folder, false, err, sizeof err) &&
           trainer_start(t, &s, &latents, err, sizeof err);
}

/* Along one direction of all values: the adapter's own gradient against the loss's difference. F32 rounds a loss
 * near 2 by 1e-7, which a step of 2e-3 makes 1e-4 of a slope; the rest allows for the curve. */
static void gradient(const char *adapter, const char *targets, int modules)
{
    struct trainer t;
    if (!start(&t, adapter, targets)) {
        ok(false, "%s on %s: %s", adapter, targets ? targets : "all", err);
        return;
    }
    struct example e = {.x0 = tensor_of(DT_F32, NULL, 4, 3, 5, 2, 3),
                        .eps = tensor_of(DT_F32, NULL, 4, 3, 5, 2, 3),
                        .text = tensor_of(DT_F32, NULL, 2, 7, 24),
                        .s = 0.4};
    fill(&e.x0, "x0"), fill(&e.eps, "eps"), fill(&e.text, "text");
    size_t n = (size_t)t.adapter->size;
    float *values = malloc(n * 4), *grads = malloc(n * 4), *moved = malloc(n * 4), *along = malloc(n * 4);
    struct rng r = rng_make(6, "loom", "values", 0);
    rng_normal(&r, values, n);
    r = rng_make(6, "loom", "along", 0);
    rng_normal(&r, along, n);
    for (size_t i = 0; i < n; i++) values[i] *= 0.05f;
    trainer_set(&t, values, NULL, NULL);
    double loss = trainer_loss(&t, &e, true, err, sizeof err), slope = 0, length = 0, at[2];
    struct tensor host = tensor_of(DT_F32, grads, 1, t.adapter->size);
    kern_download(k, &host, &t.adapter->grads);
    for (size_t i = 0; i < n; i++)
        slope += (double)grads[i] * along[i], length += (double)grads[i] * grads[i];
    const double h = 1e-3;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++) moved[i] = values[i] + (float)(side ? -h : h) * along[i];
        trainer_set(&t, moved, NULL, NULL);
        at[side] = trainer_loss(&t, &e, false, err, sizeof err);
    }
    double seen = (at[0] - at[1]) / (2 * h);
    ok(isfinite(loss) && fabs(seen - slope) <= 2e-3 * sqrt(length) + 3e-4 && t.adapter->modules == modules,
       "%s on %s: %d modules, slope %.5f, by differences %.5f of length %.3f", adapter,
       targets ? targets : "all", t.adapter->modules, slope, seen, sqrt(length));
    free(values), free(grads), free(moved), free(along), free(e.x0.data), free(e.eps.data), free(e.text.data);
    trainer_close(&t);
}

static void refused(const char *adapter, const char *targets, const char *word)
{
    struct trainer t;
    ok(!start(&t, adapter, targets) && strstr(err, word), "%s on %s: %s", adapter, targets, err);
    trainer_close(&t);
}

/* The answer to a guided prompt depends on the text, through sampler and denoiser alone. */
static void sampled(void)
{
    struct sampler s = {.guidance = 3};
    struct model *m = model_open(folder, err, sizeof err);
    bool good = m && (s.denoiser = denoiser_open(k, m, false, err, sizeof err)) &&
                scheduler_init(&s.scheduler, "euler", 3, 0, NULL, err, sizeof err) &&
                step_choice_make(&s.choice, 3, NULL, NULL, err, sizeof err);
    struct tensor latents = geometry_latents(&s.denoiser->geometry, 5, 64, 32), text[2];
    float *made[2];
    ok(good && tensor_is(&latents, DT_F32, 4, 3, 5, 2, 4), "5 frames of 64x32 are latents [3,5,2,4]");
    for (int i = 0; i < 2; i++) {
        struct noise_source source = noise_source_make("keyed", DT_F32, false, 1, "loom");
        text[i] = tensor_of(DT_F32, NULL, 2, 7, 24);
        fill(&text[i], i ? "one" : "other");
        latents.data = made[i] = calloc((size_t)tensor_count(&latents), 4);
        good = good && sampler_run(&s, &latents, &text[i], &text[0], NULL, &source, err, sizeof err);
    }
    ok(good && memcmp(made[0], made[1], tensor_bytes(&latents)) && isfinite(made[0][0]),
       "two prompts, two videos %s", good ? "" : err);
    for (int i = 0; i < 2; i++) free(made[i]), free(text[i].data);
    sampler_close(&s);
    model_close(m);
}

int main(void)
{
    k = test_device(0);
    gradient("standard:rank=4", NULL, 6);
    gradient("standard:rank=4", "context", 2);
    gradient("transformer:rank=4", "spread,weave", 4);
    gradient("gdn_cssm:rank=4", "spread,weave", 4);
    refused("gdn_cssm:rank=4", "context", "works on frames, and context sees text alone");
    refused("transformer:rank=4", "context,spread", "sees text alone");
    refused("standard:rank=17", "weave", "rank 17 is outside 1..16");
    refused("standard:rank=4", "to_q", "there are context, spread, weave");
    refused("standard:rank=4", "blocks.0.spread", "leaves out blocks.1.spread");
    sampled();
    kern_close(k);
    return done();
}
