/* Two blocks of a model at full size against diffusers and peft: `block FOLDER`, which block.py (CogVideoX-5B)
 * or wan_block.py (Wan2.1-14B) has made. In F32 the two differ by rounding alone. In BF16 nobody's answer is exact:
 * ours may be off from F32's by half as much again as PyTorch's BF16 is. */
#include "filters/learning/trainer.h"
#include "tests/cases.h"
#include "tests/denoised.h"
#include "tests/device.h"

static struct kern *k;
static struct cases c;
static char err[1024];

/* From latents to the network's answer, the adapter in it. */
static struct tensor answer(struct denoiser *d)
{
    struct tensor latents = cases_tensor(&c, "x"), text = cases_tensor(&c, "text"),
                  t = cases_tensor(&c, "timestep");
    struct tensor out = denoised(d, &latents, &text, *(float *)t.data, true);
    free(latents.data), free(text.data), free(t.data);
    return out;
}

/* Errors against the reference in F32, ours and PyTorch's BF16's, as relative L2. */
struct worst {
    double ours, theirs;
    char name[160];
};
static void compare(const char *what, const char *name, const struct tensor *got, double f32,
                    struct worst *worst)
{
    struct tensor want = cases_tensor(&c, "f32.%s", name), half = cases_tensor(&c, "bf16.%s", name);
    size_t n = (size_t)tensor_count(&want);
    if (!n || tensor_count(got) != (int64_t)n || !half.data) {
        ok(false, "%s: no %s to compare with", what, name);
        return;
    }
    double ours = relative_l2(got->data, want.data, n), theirs = relative_l2(half.data, want.data, n);
    if (kern_compute(k) == DT_F32) theirs = f32 / 1.5;
    if (!worst)
        ok(ours <= 1.5 * theirs, "%s %s: off by %.3g of at most %.3g", dtype_name(kern_compute(k)), what,
           ours, 1.5 * theirs);
    else if (ours / theirs > worst->ours / worst->theirs) {
        worst->ours = ours, worst->theirs = theirs;
        snprintf(worst->name, sizeof worst->name, "%s", name);
    }
    free(want.data), free(half.data);
}

static void gradients(struct trainer *t)
{
    struct adapter *a = t->adapter;
    struct tensor s = cases_tensor(&c, "s"), loss = cases_tensor(&c, "f32.loss"),
                  half = cases_tensor(&c, "bf16.loss");
    struct example e = {cases_tensor(&c, "x0"), cases_tensor(&c, "eps"), cases_tensor(&c, "text"),
                        *(float *)s.data, false};
    struct tensor first = tensor_of(DT_F32, NULL, 1, a->size);
    for (int r = RECOMPUTE_NONE; r <= RECOMPUTE_FULL; r++) {
        t->recompute = (enum recompute)r;
        double got = trainer_loss(t, &e, true, err, sizeof err), want = *(float *)loss.data;
        struct tensor all = tensor_of(DT_F32, malloc((size_t)a->size * 4), 1, a->size);
        kern_download(k, &all, &a->grads);
        if (r != RECOMPUTE_NONE) {
            ok(kern_ok(k) && !memcmp(first.data, all.data, tensor_bytes(&all)),
               "%s: recomputing %s changes no bit", dtype_name(kern_compute(k)),
               r == RECOMPUTE_FULL ? "all" : "the feed-forward");
            free(all.data);
            continue;
        }
        ok(fabs(got - want) <= tolerance(k, 1e-5, 1e-3) * want,
           "%s loss %.6f, PyTorch's %.6f in F32, %.6f in BF16%s%s", dtype_name(kern_compute(k)), got, want,
           *(float *)half.data, isfinite(got) ? "" : ": ", isfinite(got) ? "" : err);
        first = all;
        struct worst worst = {0, 1, ""};
        for (int i = 0; i < a->modules * a->params; i++) {
            char name[160];
            adapter_param_name(a, i / a->params, i % a->params, name, sizeof name);
            struct tensor view = adapter_view(a, &all, i / a->params, i % a->params);
            compare("gradient", name, &view, 1e-4, &worst);
        }
        ok(worst.ours <= 1.5 * worst.theirs, "%s gradients: the worst, %s, is off by %.3g of at most %.3g",
           dtype_name(kern_compute(k)), worst.name, worst.ours, 1.5 * worst.theirs);
    }
    free(first.data), free(s.data), free(loss.data), free(half.data);
    free(e.x0.data), free(e.eps.data), free(e.text.data);
}

static void run(const char *folder, enum dtype d)
{
    char adapter[4096];
    struct trainer t = {.max_steps = 5, .accumulate = 1};
    struct trainer_start start = {.objective = "flow", .adapter = "standard", .init = adapter};
    snprintf(adapter, sizeof adapter, "%s/adapter.safetensors", folder);
    if (!(k = kern_open("cuda", 0, err, sizeof err))) printf("Bail out! %s\n", err), exit(1);
    kern_compute_in(k, d);
    struct tensor latents = cases_tensor(&c, "x0");
    if (!trainer_open(&t, k, folder, false, err, sizeof err) ||
        !trainer_start(&t, &start, &latents, err, sizeof err))
        printf("Bail out! %s\n", err), exit(1);
    struct tensor out = answer(t.denoiser);
    compare("answer", "out", &out, 2e-5, NULL);
    gradients(&t);
    free(out.data), free(latents.data);
    trainer_close(&t);
    kern_close(k);
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: block FOLDER\n"), 2;
    setenv("TESTS_DATA", argv[1], 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    c = cases_open("block");
    char folder[4096];
    data_file(folder, "block", "");
    run(folder, DT_BF16);
    run(folder, DT_F32);
    cases_close(&c);
    return done();
}
