/* Training on Wan's transformer: the flow loss and every gradient of LoRA on each of the ten linear layers of a block
 * against peft and automatic differentiation of diffusers' model; the other kinds of adapter against finite
 * differences; what adapters attach to and what is refused. Both sides compute in F32: 1e-4 is what two blocks forth and
 * back may round, some fifty times over what was seen. */
#include "filters/learning/trainer.h"
#include "tests/cases.h"
#include "tests/denoised.h"
#include "tests/device.h"

static struct kern *k;
static struct cases c;
static char err[1024];

static struct denoiser *open_h12(void)
{
    char path[4096];
    return opened(k, data_file(path, "wan/h12", ""), false);
}

/* The trainer with an adapter of that kind or from that file. */
static bool start(struct trainer *t, const char *adapter, const char *targets, const char *init)
{
    struct trainer_start s = {.objective = "flow", .adapter = adapter, .targets = targets, .init = init};
    struct tensor latents = tensor_of(DT_F32, NULL, 4, 3, 4, 4, 6);
    *t = (struct trainer){.seed = 7, .max_steps = 5, .accumulate = 1, .recompute = RECOMPUTE_NONE};
    t->denoiser = open_h12();
    return trainer_start(t, &s, &latents, err, sizeof err);
}

static struct example example_of(size_t i, double s)
{
    return (struct example){cases_tensor(&c, "%zu.x0", i), cases_tensor(&c, "%zu.eps", i),
                            cases_tensor(&c, "%zu.text", i), s, false};
}

static void free_example(struct example *e)
{
    free(e->x0.data), free(e->eps.data), free(e->text.data);
}

/* The largest relative L2 difference of any one tensor's gradient from the reference's. */
static double worst_gradient(struct adapter *a, const float *grads, size_t i)
{
    const struct tensor flat = tensor_of(DT_F32, (void *)grads, 1, a->size);
    double worst = 0;
    for (int p = 0; p < a->modules * a->params; p++) {
        char name[160];
        adapter_param_name(a, p / a->params, p % a->params, name, sizeof name);
        struct tensor want = cases_tensor(&c, "%zu.%s", i, name),
                      got = adapter_view(a, &flat, p / a->params, p % a->params);
        double rel = want.data && tensor_same_shape(&want, &got)
                         ? relative_l2(got.data, want.data, (size_t)tensor_count(&got))
                         : INFINITY;
        if (!(rel <= worst)) worst = rel;
        free(want.data);
    }
    return worst;
}

/* The network's answer to the example's noised latents. */
static double answer_off(struct denoiser *d, const struct example *e, size_t i)
{
    struct tensor want = cases_tensor(&c, "%zu.out", i), x = want;
    x.data = malloc(tensor_bytes(&want));
    for (int64_t j = 0; j < tensor_count(&x); j++)
        ((float *)x.data)[j] =
            (float)(1 - e->s) * ((float *)e->x0.data)[j] + (float)e->s * ((float *)e->eps.data)[j];
    struct tensor got = denoised(d, &x, &e->text, fmin(1000 * e->s, 999), true);
    double rel = relative_l2(got.data, want.data, (size_t)tensor_count(&want));
    free(want.data), free(x.data), free(got.data);
    return rel;
}

static void against_peft(size_t i, json_t *line)
{
    struct trainer t;
    char path[4096];
    const char *name = json_string_value(json_object_get(line, "adapter"));
    struct example e = example_of(i, number_of(line, "s"));
    float *first = NULL;
    if (!ok(start(&t, NULL, NULL, data_file(path, "wan/train", name)), "%s is read", name))
        printf("# %s\n", err);
    for (int r = RECOMPUTE_NONE; t.adapter && r <= RECOMPUTE_FULL; r++) {
        t.recompute = (enum recompute)r;
        double loss = trainer_loss(&t, &e, true, err, sizeof err), want = number_of(line, "loss");
        float *now = malloc((size_t)t.adapter->size * sizeof *now);
        struct tensor host = tensor_of(DT_F32, now, 1, t.adapter->size);
        kern_download(k, &host, &t.adapter->grads);
        if (r != RECOMPUTE_NONE) {
            ok(!memcmp(first, now, tensor_bytes(&host)), "%s: recomputing %s changes no bit", name,
               recompute_name[r]);
            free(now);
            continue;
        }
        const double slack = tolerance(k, 1e-4, 5e-2), worst = worst_gradient(t.adapter, first = now, i),
                     norm = trainer_norm(&t), reference = number_of(line, "grad_norm");
        ok(fabs(loss - want) <= slack * want, "%s at s=%g: loss %.6f, off by %.1g%s", name, e.s, loss,
           fabs(loss - want) / want, isfinite(loss) ? "" : err);
        ok(worst <= slack, "%s: of %d gradients the worst is off by %.2g", name,
           t.adapter->modules * t.adapter->params, worst);
        ok(fabs(norm - reference) <= slack * reference, "%s: their norm is %.6g", name, norm);
    }
    double hooked = answer_off(t.denoiser, &e, i);
    bool merged = adapter_set_merge(&t.adapters, k, err, sizeof err);
    t.denoiser->hook = NULL;
    double folded = answer_off(t.denoiser, &e, i);
    ok(hooked <= tolerance(k, 4e-5, 3e-2), "%s: the answer with it is off by %.2g", name, hooked);
    ok(merged && folded <= tolerance(k, 4e-5, 3e-2), "%s: merged it is off by %.2g", name, folded);
    free(first);
    free_example(&e);
    trainer_close(&t);
}

/* Along one direction of all values the adapter's own gradient against the loss's difference, of two steps so that its
 * curve cancels: F32 rounds a loss near 4 by 2e-7, which the smaller step makes 3e-4 of a slope. Of gdn_cssm's forms, k
 * is a matter of initial values alone. */
static void by_differences(const char *adapter, const char *targets, int modules)
{
    struct trainer t;
    if (!ok(start(&t, adapter, targets, NULL), "%s on %s", adapter, targets ? targets : "all"))
        printf("# %s\n", err);
    struct example e = example_of(0, 0.4);
    size_t n = (size_t)t.adapter->size;
    float *values = malloc(n * 4), *grads = malloc(n * 4), *moved = malloc(n * 4), *along = malloc(n * 4);
    struct rng r = rng_make(6, "wan", "values", 0);
    rng_normal(&r, values, n);
    r = rng_make(6, "wan", "along", 0);
    rng_normal(&r, along, n);
    for (size_t i = 0; i < n; i++) values[i] *= 0.1f;
    trainer_set(&t, values, NULL, NULL);
    double loss = trainer_loss(&t, &e, true, err, sizeof err), slope = 0, length = 0, at[4];
    struct tensor host = tensor_of(DT_F32, grads, 1, t.adapter->size);
    kern_download(k, &host, &t.adapter->grads);
    for (size_t i = 0; i < n; i++)
        slope += (double)grads[i] * along[i], length += (double)grads[i] * grads[i];
    const double h = 5e-4, steps[] = {h, -h, 2 * h, -2 * h};
    for (int step = 0; step < 4; step++) {
        for (size_t i = 0; i < n; i++) moved[i] = values[i] + (float)steps[step] * along[i];
        trainer_set(&t, moved, NULL, NULL);
        at[step] = trainer_loss(&t, &e, false, err, sizeof err);
    }
    double seen = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * h);
    ok(isfinite(loss) && fabs(seen - slope) <= 2e-3 * sqrt(length) + 3e-4 && t.adapter->modules == modules,
       "%d modules, slope %.5f, by differences %.5f of length %.3f", t.adapter->modules, slope, seen,
       sqrt(length));
    free(values), free(grads), free(moved), free(along);
    free_example(&e);
    trainer_close(&t);
}

/* A fresh adapter changes not one bit, whether the text is digested before or not. */
static void fresh(const char *adapter, const char *targets)
{
    struct trainer t;
    struct example e = example_of(0, 0);
    if (!ok(start(&t, adapter, targets, NULL), "%s on %s", adapter, targets)) printf("# %s\n", err);
    for (int often = 0; often < 2; often++) {
        struct tensor with = denoised(t.denoiser, &e.x0, &e.text, 500, often);
        t.denoiser->hook = NULL;
        struct tensor without = denoised(t.denoiser, &e.x0, &e.text, 500, often);
        t.denoiser->hook = &t.adapters.hook;
        ok(!memcmp(with.data, without.data, tensor_bytes(&with)), "fresh, it changes no bit");
        free(with.data), free(without.data);
    }
    free_example(&e);
    trainer_close(&t);
}

static void counted(const char *preset, const char *targets, int64_t parameters)
{
    struct denoiser *d = opened(k, preset, true);
    struct adapter *a = adapter_make("standard:rank=16", targets, (struct adapter_base){&d->linears, 30, 52},
                                     err, sizeof err);
    ok(a && a->size == parameters, "%s, rank 16 on %s: %lld parameters", preset,
       targets ? targets : "what is offered", (long long)(a ? a->size : 0));
    ok(!a || targets || !strcmp(a->target[0], "attn1.to_q"), "the first target is attn1.to_q");
    adapter_close(a);
    denoiser_close(d);
}

/* A LoraConfig that says to_q for attn1.to_q: its tensors say which is meant. */
static void bare(struct denoiser *d)
{
    const char *const file[] = {"attn1.safetensors", "attn1_bare.safetensors"};
    struct adapter *a[2];
    for (int i = 0; i < 2; i++) {
        char path[4096];
        float *values = NULL;
        a[i] = adapter_read(data_file(path, "wan/train", file[i]), (struct adapter_base){&d->linears, 2, 3},
                            &values, err, sizeof err);
        ok(a[i] && a[i]->modules == 8, "%s has 8 modules %s", file[i], a[i] ? "" : err);
        free(values);
    }
    ok(a[0] && a[1] && a[0]->hash == a[1]->hash, "and both hold the same");
    adapter_close(a[0]), adapter_close(a[1]);
}

static void refused(struct denoiser *d, const char *adapter, const char *targets, const char *word)
{
    struct adapter *a =
        adapter_make(adapter, targets, (struct adapter_base){&d->linears, 2, 3}, err, sizeof err);
    ok(!a && strstr(err, word), "%s on %s: %s", adapter, targets, err);
    adapter_close(a);
}

/* A range cuts a distribution and keeps its form: its quantiles are those of all levels that lie within. */
static void ranges(const char *how)
{
    enum { LEVELS = 20000 };
    static double within[LEVELS];
    struct trainer t = {.seed = 1};
    int n = 0;
    double worst = 0;
    ok(trainer_levels(&t, how, err, sizeof err), "levels %s", how);
    for (int i = 0; i < LEVELS; i++) {
        double s = trainer_level(&t, (i + 0.5) / LEVELS);
        if (s >= 0.3 && s < 0.875) within[n++] = s;
    }
    t.level_from = 0.3;
    t.level_to = 0.875;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs(trainer_level(&t, (i + 0.5) / n) - within[i]));
    ok(n > LEVELS / 10 && worst < 2e-4, "cut to 0.3..0.875: %d levels of %d, off by %.1g at most", n, LEVELS,
       worst);
    ok(fabs(trainer_level(&t, 0) - 0.3) < 1e-12 && fabs(trainer_level(&t, 1) - 0.875) < 1e-12,
       "from end to end");
}

/* Φ(1) = 0.841344746068543, and the sigmoid of 1, shifted by 3 */
static void normal_level(void)
{
    struct trainer t = {.logit_normal = true, .level_shift = 1};
    const double s = 1 / (1 + exp(-1));
    ok(fabs(trainer_level(&t, 0.841344746068543) - s) < 1e-12 && trainer_level(&t, 0.5) == 0.5,
       "a normal's quantiles");
    t.level_shift = 3;
    ok(fabs(trainer_level(&t, 0.841344746068543) - 3 * s / (1 + 2 * s)) < 1e-12, "and shifted");
}

#define ATTN2 "attn2.to_q,attn2.to_k,attn2.to_v,attn2.to_out.0"
#define FFN   "ffn.net.0.proj,ffn.net.2"

int main(void)
{
    k = test_device(0);
    c = cases_open("wan/train");
    for (size_t i = 0; i < json_array_size(c.list); i++) against_peft(i, json_array_get(c.list, i));
    if (kern_compute(k) == DT_F32) { /* BF16 rounds such differences away */
        by_differences("transformer:rank=4", NULL, 8);
        by_differences("gdn_cssm:rank=4", NULL, 8);
        by_differences("gdn_cssm:rank=4,rope=1", NULL, 8);
        by_differences("transformer:rank=4", "attn2.to_q," FFN, 6);
        by_differences("gdn_cssm:rank=4", "to_out.0,ffn.net.2", 4);
    }
    fresh("standard:rank=4", "to_q,to_k,to_v,to_out.0," ATTN2 "," FFN);
    fresh("transformer:rank=4", "to_q,to_k,to_v,to_out.0");
    fresh("gdn_cssm:rank=4", "to_q,to_k,to_v,to_out.0,ffn.net.0.proj");

    struct denoiser *d = open_h12();
    bare(d);
    refused(d, "gdn_cssm:rank=4", "attn2.to_k", "works on frames, and attn2.to_k sees text alone");
    refused(d, "transformer:rank=4", "attn2.to_v", "sees text alone");
    refused(d, "standard:rank=4", "ff.net.2", "there are attn1.to_q, attn1.to_k");
    refused(d, "standard:rank=25", "ffn.net.2", "outside 1..24");
    denoiser_close(d);
    counted("random:wan-1.3b", NULL, 5898240);
    counted("random:wan-14b", NULL, 26214400);
    counted("random:wan-5b", NULL, 11796480);
    counted("random:wan-1.3b", "to_q,to_k,to_v,to_out.0", 5898240);
    counted("random:wan-1.3b", "attn1.to_q,attn1.to_k,attn1.to_v,attn1.to_out.0," ATTN2, 11796480);
    counted("random:wan-1.3b", "to_q,to_k,to_v,to_out.0," ATTN2 "," FFN, 21872640);
    counted("random:wan-14b", "to_q,to_k,to_v,to_out.0," ATTN2 "," FFN, 76677120);
    ranges("uniform");
    ranges("uniform,shift=3");
    ranges("logit-normal");
    ranges("logit-normal,shift=5");
    normal_level();
    cases_close(&c);
    kern_close(k);
    return done();
}
