/* Training against automatic differentiation of the reference (diffusers with peft): loss and every adapter
 * gradient for three objectives, also with alpha != rank; five AdamW steps; adapters written by diffusers.
 * Both compute in F32: 1e-4 is what a chain of two blocks, forward and back, may round, some hundred times
 * over what was seen. */
#include "filters/learning/trainer.h"
#include "tests/cases.h"
#include "tests/denoised.h"
#include "tests/device.h"

static struct kern *k;
static struct cases c;
static char err[1024];

static double list_at(json_t *o, const char *field, size_t i)
{
    return json_number_value(json_array_get(json_object_get(o, field), i));
}

static void open_trainer(struct trainer *t, const char *objective, const char *init)
{
    char model[4096], path[4096] = "";
    struct trainer_start start = {.objective = objective, .adapter = "standard", .init = path};
    data_file(path, "train", init);
    *t = (struct trainer){.recompute = RECOMPUTE_NONE, .warmup = 0, .max_steps = 5, .accumulate = 1};
    struct tensor latents = tensor_of(DT_F32, NULL, 4, 2, 16, 4, 6);
    if (!trainer_open(t, k, data_file(model, "dit/rope", ""), false, err, sizeof err) ||
        !trainer_start(t, &start, &latents, err, sizeof err))
        printf("Bail out! %s\n", err), exit(1);
}

static struct example get_example(const char *prefix, double s)
{
    return (struct example){cases_tensor(&c, "%s.x0", prefix), cases_tensor(&c, "%s.eps", prefix),
                            cases_tensor(&c, "%s.text", prefix), s, false};
}

static void free_example(struct example *e)
{
    free(e->x0.data), free(e->eps.data), free(e->text.data);
}

/* The largest relative L2 difference of any one tensor of the adapter from the reference's. */
static double worst_tensor(struct adapter *a, const struct tensor *flat, const char *prefix)
{
    double worst = 0;
    for (int i = 0; i < a->modules * a->params; i++) {
        char name[160];
        adapter_param_name(a, i / a->params, i % a->params, name, sizeof name);
        struct tensor want = cases_tensor(&c, "%s.%s", prefix, name),
                      view = adapter_view(a, flat, i / a->params, i % a->params);
        struct tensor got = view;
        got.data = malloc(tensor_bytes(&view));
        kern_download(k, &got, &view);
        double rel = want.data && tensor_same_shape(&want, &got)
                         ? relative_l2(got.data, want.data, (size_t)tensor_count(&got))
                         : INFINITY;
        if (!(rel <= worst)) worst = rel;
        free(want.data), free(got.data);
    }
    return worst;
}

static void gradients(json_t *line)
{
    struct trainer t;
    const char *name = text_of(line, "case");
    float *first = NULL;
    open_trainer(&t, text_of(line, "objective"), text_of(line, "init"));
    struct adapter *a = t.adapter;
    struct example e = get_example(name, number_of(line, "s"));
    for (int r = RECOMPUTE_NONE; r <= RECOMPUTE_FULL; r++) {
        t.recompute = (enum recompute)r;
        double loss = trainer_loss(&t, &e, true, err, sizeof err), want = number_of(line, "loss");
        double slack = tolerance(k, 1e-4, 5e-2), worst = worst_tensor(a, &a->grads, name),
               norm = trainer_norm(&t), reference = number_of(line, "grad_norm");
        if (r == RECOMPUTE_NONE) {
            ok(fabs(loss - want) <= slack * want, "%s %s s=%g alpha %g: loss %.6f, off by %.1g", name,
               text_of(line, "objective"), e.s, a->alpha, loss, fabs(loss - want) / want);
            ok(worst <= slack, "%s: worst gradient tensor %.2g", name, worst);
            ok(fabs(norm - reference) <= slack * reference, "%s: gradient norm %.6g", name, norm);
            first = malloc((size_t)a->size * sizeof *first);
        }
        float *now = malloc((size_t)a->size * sizeof *now);
        struct tensor host = tensor_of(DT_F32, now, 1, a->size);
        kern_download(k, &host, &a->grads);
        if (r == RECOMPUTE_NONE)
            memcpy(first, now, (size_t)a->size * sizeof *now);
        else
            ok(!memcmp(first, now, (size_t)a->size * sizeof *now), "%s: recomputing %s changes no bit", name,
               r == RECOMPUTE_FULL ? "all" : "the feed-forward");
        free(now);
    }
    free(first);
    free_example(&e);
    trainer_close(&t);
}

static void steps(json_t *line)
{
    struct trainer t;
    const char *name = text_of(line, "case");
    double worst_loss = 0, worst_norm = 0, worst_rate = 0;
    open_trainer(&t, text_of(line, "objective"), text_of(line, "init"));
    t.adamw = (struct adamw){number_of(line, "base_lr"), list_at(line, "betas", 0), list_at(line, "betas", 1),
                             number_of(line, "eps"), number_of(line, "weight_decay")};
    t.clip = number_of(line, "clip");
    t.warmup = (int64_t)number_of(line, "warmup");
    t.max_steps = !strcmp(text_of(line, "schedule"), "constant") ? INT64_MAX / 2
                                                                 : (int64_t)number_of(line, "max_steps");
    for (int i = 0; i < 5; i++) {
        char step[32];
        snprintf(step, sizeof step, "step.%d", i);
        double s = 0;
        for (size_t j = 0; j < json_array_size(c.list); j++)
            if (!strcmp(text_of(json_array_get(c.list, j), "case"), step))
                s = number_of(json_array_get(c.list, j), "s");
        struct example e = get_example(step, s);
        double loss = trainer_loss(&t, &e, true, err, sizeof err), norm = trainer_norm(&t);
        worst_loss = fmax(worst_loss, fabs(loss / list_at(line, "loss", (size_t)i) - 1));
        worst_norm = fmax(worst_norm, fabs(norm / list_at(line, "grad_norm", (size_t)i) - 1));
        worst_rate = fmax(worst_rate, fabs(trainer_rate(&t, i) - list_at(line, "lr", (size_t)i)));
        trainer_update(&t, i, norm);
        free_example(&e);
    }
    struct adapter *a = t.adapter;
    double slack = tolerance(k, 1e-4, 5e-2), worst = worst_tensor(a, &a->values, name);
    ok(worst <= slack, "%s: after five steps the worst tensor is off by %.2g", name, worst);
    ok(worst_loss <= slack && worst_norm <= slack, "%s: losses off by %.1g, norms by %.1g", name, worst_loss,
       worst_norm);
    ok(worst_rate <= 1e-15, "%s: learning rates off by %.1g", name, worst_rate);
    trainer_close(&t);
}

static struct adapter_set adapters;

static struct denoiser *open_with(const char *model, const char *adapter)
{
    struct model *m = model_open(model, err, sizeof err);
    struct denoiser *d = m ? denoiser_open(k, m, false, err, sizeof err) : NULL;
    struct adapter_base base = {.linears = d ? &d->linears : NULL};
    struct adapter *a = d && adapter ? adapter_open(k, adapter, base, err, sizeof err) : NULL;
    if (!d || (adapter && !a)) printf("Bail out! %s\n", err), exit(1);
    if (a && adapter_set_add(&adapters, a)) d->hook = &adapters.hook;
    model_close(m);
    return d;
}

static void close_with(struct denoiser *d)
{
    adapter_set_close(&adapters);
    denoiser_close(d);
}

/* The model's answer with an adapter file, through the same forward pass that sampling uses. */
static void loaded(json_t *line)
{
    char folder[4096], file[4096], path[4200];
    const char *name = text_of(line, "case"), *adapter = text_of(line, "adapter");
    if (adapter)
        snprintf(path, sizeof path, "%s:%g", data_file(file, "train", adapter), number_of(line, "weight"));
    struct denoiser *d = open_with(data_file(folder, "dit/rope", ""), adapter ? path : NULL);
    struct tensor latents = cases_tensor(&c, "load.latents"), text = cases_tensor(&c, "load.text"),
                  t = cases_tensor(&c, "load.timestep");
    struct tensor want = cases_tensor(&c, "%s.out", name),
                  got = denoised(d, &latents, &text, *(float *)t.data, true);
    double rel = relative_l2(got.data, want.data, (size_t)tensor_count(&want));
    ok(rel <= tolerance(k, 1e-4, 3e-2), "%s: %s at weight %g as diffusers loads it: relative L2 %.2g", name,
       adapter ? adapter : "no adapter", number_of(line, "weight"), rel);
    free(latents.data), free(text.data), free(t.data), free(want.data), free(got.data);
    close_with(d);
}

/* `train case MODEL ADAPTER OUT`: what we answer with an adapter, for tests/reference/check_lora.py to
 * compare. */
static int write_case(char **argv)
{
    struct denoiser *d = open_with(argv[2], argv[3]);
    float timestep = 600, x[2 * 16 * 4 * 6], text[4096];
    int64_t l = d->geometry.text_length, w = d->geometry.text_width;
    if (l * w > 4096) return 1;
    for (int i = 0; i < 2 * 16 * 4 * 6; i++) x[i] = sinf((float)(i * i % 977));
    for (int i = 0; i < l * w; i++) text[i] = cosf((float)(i * i % 983));
    struct safetensors_item item[] = {{"latents", tensor_of(DT_F32, x, 4, 2, d->geometry.channels, 4, 6)},
                                      {"text", tensor_of(DT_F32, text, 2, l, w)},
                                      {"timestep", tensor_of(DT_F32, &timestep, 1, 1)},
                                      {"out", {0}}};
    item[3].t = denoised(d, &item[0].t, &item[1].t, timestep, false);
    bool good = kern_ok(k) && safetensors_write(argv[4], item, 4, NULL, err, sizeof err);
    free(item[3].t.data);
    close_with(d);
    return !good;
}

int main(int argc, char **argv)
{
    k = test_device(0);
    if (argc == 5 && !strcmp(argv[1], "case")) return write_case(argv);
    c = cases_open("train");
    for (size_t i = 0; i < json_array_size(c.list); i++) {
        json_t *line = json_array_get(c.list, i);
        const char *name = text_of(line, "case");
        if (!strncmp(name, "load.", 5)) loaded(line);
        if (!strncmp(name, "grad.", 5)) gradients(line);
        if (!strncmp(name, "run.", 4)) steps(line);
    }
    cases_close(&c);
    kern_close(k);
    return done();
}
