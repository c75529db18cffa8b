/* Adapters: their operations against automatic differentiation of a plain reference in double
 * (tests/reference/ make_adapters.py), and every kind under the contract: what it adds, its gradients,
 * initial values, files. */
#include "filters/learning/adapter.h"

#include <sys/stat.h>

#include "formats/safetensors.h"
#include "tests/cases.h"
#include "tests/linears.h"
#include "tests/scratch.h"

static struct kern *k;
static char err[1024];

static double draw(void)
{
    static struct rng r;
    static uint64_t i;
    if (!i) r = rng_make(1, "test", "adapters", 0);
    return 2 * rng_uniform(&r, i++) - 1;
}

static struct tensor filled(enum dtype d, int64_t rows, int64_t cols, bool random)
{
    struct tensor t = tensor_of(d, NULL, 2, rows, cols);
    t.data = calloc(1, tensor_bytes(&t) + 1);
    for (int64_t i = 0; random && i < tensor_count(&t); i++) {
        if (d == DT_F64)
            ((double *)t.data)[i] = draw();
        else
            ((float *)t.data)[i] = (float)draw();
    }
    return t;
}

static struct tensor converted(enum dtype d, const struct tensor *from)
{
    struct tensor t = *from;
    t.dtype = d;
    t.data = malloc(tensor_bytes(&t) + 1);
    tensor_convert(&t, from);
    return t;
}

/* Plan the calls, then make them. */
#define COMPUTE(...)                                                                                         \
    do {                                                                                                     \
        for (int pass_ = 0; pass_ < 2; pass_++) {                                                            \
            if (!pass_) kern_plan_begin(k);                                                                  \
            __VA_ARGS__;                                                                                     \
            if (!pass_) kern_reserve(k, kern_plan_end(k));                                                   \
        }                                                                                                    \
        if (!kern_ok(k)) printf("Bail out! %s\n", kern_error(k)), exit(1);                                   \
    } while (0)

/* ---- the operations against the reference -------------------------------------------------------------- */

static struct tensor wide(const struct cases *c, const char *number, const char *prefix, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s%s", number, prefix, name);
    const struct safetensors_entry *e = safetensors_find(c->file, full);
    if (!e || e->shape.dtype != DT_F64) printf("Bail out! no %s in F64\n", full), exit(1);
    struct tensor t = e->shape;
    t.data = malloc(e->bytes + 1);
    if (!safetensors_read(c->file, e, t.data, err, sizeof err)) printf("Bail out! %s\n", err), exit(1);
    return t;
}

/* The largest difference, relative to the largest value */
static double off(const struct tensor *got, const struct tensor *want)
{
    double worst = 0, size = 0;
    for (int64_t i = 0; i < tensor_count(want); i++) {
        worst = fmax(worst, fabs(tensor_get(got, i) - tensor_get(want, i)));
        size = fmax(size, fabs(tensor_get(want, i)));
    }
    return size > 0 ? worst / size : worst;
}

static void against_reference(const struct cases *c, json_t *line)
{
    static const char *const gdn[] = {
        "qkv",          "qkv_bias", "gate",        "gate_bias", "alpha_h",     "alpha_h_bias", "alpha_w",
        "alpha_w_bias", "beta_h",   "beta_h_bias", "beta_w",    "beta_w_bias", "norm",         "kernel"};
    static const char *const attention[] = {"q", "k", "v"};
    const char *number = json_string_value(json_object_get(line, "case"));
    bool spectral = !strcmp(json_string_value(json_object_get(line, "kind")), "gdn_cssm");
    int64_t d = json_integer_value(json_object_get(line, "head_dim"));
    bool rope = json_is_true(json_object_get(line, "rope"));
    int heads = (int)json_integer_value(json_object_get(line, "heads")), n = spectral ? GDN_PARAMS : 3;
    const char *const *names = spectral ? gdn : attention;
    struct tensor w[GDN_PARAMS], dw[GDN_PARAMS], want[GDN_PARAMS];
    struct tensor z = wide(c, number, "", "z"), slope = wide(c, number, "", "slope"),
                  want_out = wide(c, number, "", "out");
    struct tensor want_dz = wide(c, number, "d", "z"), out = converted(DT_F64, &z),
                  dz = converted(DT_F64, &z);
    for (int i = 0; i < n; i++) {
        w[i] = wide(c, number, "", names[i]);
        want[i] = wide(c, number, "d", names[i]);
        dw[i] = w[i];
        dw[i].data = calloc(1, tensor_bytes(&w[i]));
    }
    if (spectral)
        COMPUTE(gdn_cssm_forward(k, &out, &z, w, 1, d, rope);
                gdn_cssm_backward(k, &dz, dw, &slope, &z, w, 1, d, rope));
    else
        COMPUTE(temporal_attention_forward(k, &out, &z, w, heads);
                temporal_attention_backward(k, &dz, dw, &slope, &z, w, heads));
    double worst = off(&dz, &want_dz);
    for (int i = 0; i < n; i++) worst = fmax(worst, off(&dw[i], &want[i]));
    ok(off(&out, &want_out) <= 1e-8, "case %s: output as the reference's, off by %.1g", number,
       off(&out, &want_out));
    ok(worst <= 1e-8, "case %s: gradients as autograd's, off by %.1g", number, worst);
    for (int i = 0; i < n; i++) free(w[i].data), free(dw[i].data), free(want[i].data);
    free(z.data), free(slope.data), free(want_out.data), free(want_dz.data), free(out.data), free(dz.data);
}

/* ---- the contract -------------------------------------------------------------------------------------- */

static struct adapter *make(const char *spec, struct adapter_base base)
{
    struct adapter *a = adapter_make(spec, "to_k,to_out.0", base, err, sizeof err);
    if (!a || !adapter_attach(a, k, true)) printf("Bail out! %s%s\n", err, kern_error(k)), exit(1);
    return a;
}

/* y += scale D(x) in double, from the adapter's parameters as F64 views of `values`, by what adapters.h and
 * kernels.h say. */
static void plain_forward(struct adapter *a, const struct token_rows *g, struct tensor *y,
                          const struct tensor *x, const struct tensor *values)
{
    int64_t video = g->frames * g->rows * g->cols, r = a->rank;
    bool spectral = !strcmp(a->kind->name, "gdn_cssm"), attention = !strcmp(a->kind->name, "transformer");
    struct tensor own[ADAPTER_MAX_PARAMS], z = filled(DT_F64, g->text + video, r, false),
                                           o = filled(DT_F64, g->text + video, r, false);
    for (int i = 0; i < a->params; i++) own[i] = adapter_view(a, values, 1, i);
    struct tensor zv = tensor_rows(&z, g->text, video), ov = tensor_rows(&o, g->text, video);
    matmul(k, &z, x, false, &own[0], true, 1, 0);
    if (!spectral) kern_copy(k, &o, &z);
    if (spectral) {
        zv = tensor_as(&zv, 4, g->frames, g->rows, g->cols, r),
        ov = tensor_as(&ov, 4, g->frames, g->rows, g->cols, r);
        gdn_cssm_forward(k, &ov, &zv, own + 2, 1, a->set[2], a->set[1]);
    } else if (attention) {
        zv = tensor_as(&zv, 3, g->frames, g->rows * g->cols, r),
        ov = tensor_as(&ov, 3, g->frames, g->rows * g->cols, r);
        temporal_attention_forward(k, &ov, &zv, own + 2, 2);
    }
    matmul(k, y, &o, false, &own[1], true, a->alpha / (double)r, 1);
    free(z.data), free(o.data);
}

static double objective(struct adapter *a, const struct token_rows *g, const struct tensor *x,
                        const struct tensor *values, const struct tensor *slope)
{
    struct tensor y = filled(DT_F64, slope->shape[0], slope->shape[1], false);
    double sum = 0;
    COMPUTE(plain_forward(a, g, &y, x, values));
    for (int64_t i = 0; i < tensor_count(&y); i++) sum += tensor_get(&y, i) * tensor_get(slope, i);
    free(y.data);
    return sum;
}

/* The slope of the double objective along random directions of `at` [from, from+n) against the adapter's own
 * gradient. */
static double worst_slope(struct adapter *a, const struct token_rows *g, const struct tensor *x,
                          const struct tensor *values, const struct tensor *slope, const struct tensor *at,
                          int64_t from, int64_t n, const float *grad)
{
    const double h = 1e-6;
    double *v = calloc((size_t)n, sizeof *v), *p = (double *)at->data + from, worst = 0;
    for (int trial = 0; trial < 2; trial++) {
        double along = 0, length = 0, difference;
        for (int64_t i = 0; i < n; i++)
            along += grad[i] * (v[i] = draw() * sqrt(3)), length += (double)grad[i] * grad[i];
        for (int64_t i = 0; i < n; i++) p[i] += h * v[i];
        difference = objective(a, g, x, values, slope);
        for (int64_t i = 0; i < n; i++) p[i] -= 2 * h * v[i];
        difference -= objective(a, g, x, values, slope);
        for (int64_t i = 0; i < n; i++) p[i] += h * v[i];
        worst = fmax(worst, fabs(difference / (2 * h) - along) / (sqrt(length) + 1e-6));
    }
    free(v);
    return worst;
}

static void test_contract(const char *spec, struct token_rows g, int64_t in, int64_t out)
{
    struct adapter *a = make(spec, base_of(2, in, out, g.rows, g.cols));
    int64_t tokens = g.text + g.frames * g.rows * g.cols;
    struct tensor x = filled(DT_F32, tokens, in, true), y = filled(DT_F32, tokens, out, true),
                  before = converted(DT_F32, &y);
    struct tensor dx = filled(DT_F32, tokens, in, true), dy = filled(DT_F32, tokens, out, true), dx_before;
    struct tensor saved = tensor_of(DT_F32, NULL, 1, a->kind->saved_count(a, &g));
    saved.data = malloc(tensor_bytes(&saved) + 1);
    for (int64_t i = 0; i < tensor_count(&dx); i++)
        ((float *)dx.data)[i] *= 0.01f; /* so that what is added keeps its digits */
    dx_before = converted(DT_F64, &dx);
    char name[96];
    snprintf(name, sizeof name, "%s %lld->%lld %lldx%lldx%lld + %lld", spec, (long long)in, (long long)out,
             (long long)g.frames, (long long)g.rows, (long long)g.cols, (long long)g.text);

    struct adapter_call call = {
        .module = 1, .rows = &g, .x = &x, .dy = &dy, .y = &y, .dx = &dx, .saved = &saved};
    const int64_t module_size = a->layout[0].size;
    adapter_init(a, 7);
    COMPUTE(a->kind->forward(a, &call, 1));
    ok(!memcmp(y.data, before.data, tensor_bytes(&y)), "%s: fresh, it changes not one bit", name);

    for (int64_t i = 0; i < a->size; i++) ((float *)a->values.data)[i] = (float)draw();
    if (g.rows * g.cols == 1 && a->kind->bound) /* see kernels-adapters.c */
        for (int64_t i = 0; i < a->size; i++) ((float *)a->values.data)[i] *= 0.05f;
    struct tensor values = converted(DT_F64, &a->values), x64 = converted(DT_F64, &x),
                  y64 = converted(DT_F64, &before);
    kern_zero(k, &a->grads);
    COMPUTE(a->kind->forward(a, &call, 1));
    COMPUTE(plain_forward(a, &g, &y64, &x64, &values));
    ok(off(&y, &y64) <= 5e-5, "%s: y += scale D(x), off by %.1g", name, off(&y, &y64));
    if (a->kind->bound)
        ok(!memcmp(y.data, before.data, (size_t)(g.text * out) * 4), "%s: text stays as it is", name);

    COMPUTE(a->kind->backward(a, &call, 1));
    const float *first = (float *)a->grads.data, *grads = first + module_size, *moved = dx.data;
    bool untouched = true;
    for (int64_t i = 0; i < a->size; i++)
        if (i < module_size || i >= 2 * module_size) untouched = untouched && first[i] == 0;
    ok(untouched, "%s: only this module's gradients", name);
    float *added = malloc(tensor_bytes(&dx) + 1);
    for (int64_t i = 0; i < tensor_count(&dx); i++) added[i] = (float)(moved[i] - tensor_get(&dx_before, i));
    double worst = worst_slope(a, &g, &x64, &values, &dy, &x64, 0, tensor_count(&x), added);
    for (int p = 0; p < a->params; p++) {
        struct tensor view = adapter_view(a, &a->grads, 1, p);
        worst = fmax(worst, worst_slope(a, &g, &x64, &values, &dy, &values,
                                        module_size + a->layout[0].param[p].offset, tensor_count(&view),
                                        grads + a->layout[0].param[p].offset));
    }
    ok(worst <= 2e-4, "%s: every gradient as finite differences say, off by %.1g", name, worst);
    float *once = malloc((size_t)module_size * 4), most = 0;
    memcpy(once, grads, (size_t)module_size * 4);
    call.dx = NULL;
    COMPUTE(a->kind->backward(a, &call, 1));
    for (int64_t i = 0; i < module_size; i++)
        most = fmaxf(most, fabsf(grads[i] - 2 * once[i]) / (fabsf(once[i]) + 1e-2f));
    ok(most <= 1e-3, "%s: gradients add up, and dx may be left out", name);
    free(once), free(added), free(saved.data), free(x.data), free(y.data), free(before.data), free(dx.data),
        free(dx_before.data);
    free(dy.data), free(values.data), free(x64.data), free(y64.data);
    adapter_close(a);
}

/* ---- counts and initial values ------------------------------------------------------------------------- */

static void test_counts(void)
{
    static const struct {
        const char *spec;
        int64_t module, all;
    } kind[] = {{"standard", 98304, 16515072},         {"transformer", 99072, 16644096},
                {"gdn_cssm", 106730, 17930640},        {"gdn_cssm:k=5", 106730, 17930640},
                {"gdn_cssm:rope=1", 106730, 17930640}, {"gdn_cssm:k=5,rope=1", 106730, 17930640}};
    for (int i = 0; i < 6; i++) {
        struct adapter *a =
            adapter_make(kind[i].spec, NULL, base_of(42, 3072, 3072, 30, 45), err, sizeof err);
        ok(a && a->layout[0].size == kind[i].module && a->size == kind[i].all,
           "%s: %lld parameters a module, %lld in all", kind[i].spec, a ? (long long)a->layout[0].size : 0,
           a ? (long long)a->size : 0);
        adapter_close(a);
    }
}

/* The kernel's initial spectrum, back in space: zero but for k x k values in the middle, of deviation 1/√(n
 * k). */
static void test_kernel(const char *spec, int64_t size, int64_t rows, int64_t cols)
{
    struct adapter *a = make(spec, base_of(40, 16, 16, rows, cols));
    int kernel = a->params - 1;
    int64_t heads = a->layout[0].param[kernel].shape[0], F = cols / 2 + 1, n = 0, top = (rows - size) / 2,
            left = (cols - size) / 2;
    double outside = 0, sum = 0, most = 0, deviation = 1 / sqrt((double)(heads * size));
    adapter_init(a, 3);
    for (int m = 0; m < 80; m++)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t h = 0; h < rows; h++)
                for (int64_t w = 0; w < cols; w++) {
                    double x = 0;
                    struct tensor view = adapter_view(a, &a->values, m, kernel);
                    const float *P = (float *)view.data + head * rows * F * 2;
                    for (int64_t u = 0; u < rows; u++)
                        for (int64_t f = 0; f < F; f++) {
                            double angle =
                                2 * M_PI * ((double)(u * h) / (double)rows + (double)(f * w) / (double)cols);
                            double weight = f == 0 || 2 * f == cols ? 1 : 2;
                            x += weight *
                                 (P[(u * F + f) * 2] * cos(angle) - P[(u * F + f) * 2 + 1] * sin(angle)) /
                                 (double)(rows * cols);
                        }
                    if (h < top || h >= top + size || w < left || w >= left + size)
                        outside = fmax(outside, fabs(x));
                    else
                        sum += x * x, n++, most = fmax(most, fabs(x));
                }
    double seen = sqrt(sum / (double)n);
    ok(outside < 1e-6 && fabs(seen / deviation - 1) < 0.1 && most < 2.2737 / 0.99 * deviation,
       "%s on %lldx%lld: %lld values of deviation %.3f (%.3f), the largest %.2f of them, %.1g elsewhere",
       spec, (long long)rows, (long long)cols, (long long)n, seen, deviation, most / deviation, outside);
    ok(!*a->warning == (size <= rows && size <= cols), "%s",
       *a->warning ? a->warning : "and nothing to warn of");
    adapter_close(a);
}

/* ---- files and refusals -------------------------------------------------------------------------------- */

static void refused(const char *spec, struct adapter_base base, const char *word)
{
    struct adapter *a = adapter_make(spec, NULL, base, err, sizeof err);
    ok(!a && strstr(err, word), "%s is refused: %s", spec, err);
    adapter_close(a);
}

static void test_refusals(void)
{
    struct adapter_base base = base_of(2, 32, 32, 3, 4), unknown = base_of(2, 32, 32, 0, 0);
    refused("gdn_cssm:m=5", base, "no setting `m`: there are rank, alpha, k, rope, dk");
    refused("transformer:k=5", base, "no setting `k`");
    refused("standard:rope=1", base, "no setting `rope`");
    refused("gdn_cssm:k=0", base, "k is a whole number from 1");
    refused("gdn_cssm:k=1.5", base, "k is a whole number");
    refused("gdn_cssm:rope=2", base, "rope is a whole number from 0 to 1");
    refused("gdn_cssm:dk=5", base, "dk=5 does not divide rank 16");
    refused("gdn_cssm:dk=2,rope=1", base, "rope needs dk divisible by 4");
    refused("gdn_cssm", unknown, "needs to know the size of a frame");
    refused("transformer:rank=5", base, "rank 5 is odd");
    refused("gdn_csm", base, "did you mean `gdn_cssm`? there are standard, transformer, gdn_cssm");
}

/* The file with `from` replaced by `to`, of the same length, at its first place */
static void changed(const char *path, const char *from, const char *to)
{
    size_t n;
    char *bytes = get_bytes(path, &n), *at = memmem(bytes, n, from, strlen(from));
    if (!at || strlen(from) != strlen(to)) printf("Bail out! no %s in %s\n", from, path), exit(1);
    memcpy(at, to, strlen(to));
    put_bytes("changed.safetensors", bytes, n);
    free(bytes);
}

static void unreadable(const char *path, struct adapter_base base, const char *word)
{
    float *values = NULL;
    struct adapter *a = adapter_read(path, base, &values, err, sizeof err);
    ok(!a && !values && strstr(err, word), "refused: %s", err);
    if (a) adapter_close(a), free(values);
}

static void test_files(const char *spec, bool bound)
{
    struct adapter_base base = base_of(2, 16, 16, 3, 4), any = base_of(2, 16, 16, 0, 0);
    struct adapter *a = make(spec, base), *b;
    float *values;
    adapter_init(a, 5);
    ok(adapter_write(a, "a.safetensors", a->values.data, err, sizeof err), "%s: written", spec);
    for (int i = 0; i < 2; i++) {
        b = adapter_read("a.safetensors", i ? any : base, &values, err, sizeof err);
        ok(b && b->size == a->size && !memcmp(values, a->values.data, (size_t)a->size * 4) &&
               b->kind == a->kind && json_equal(a->settings, b->settings) &&
               (!bound || (b->base.rows == 3 && b->base.cols == 4)),
           "%s: read back%s", spec, i ? ", where no size is asked for" : "");
        if (b) adapter_write(b, "b.safetensors", values, err, sizeof err), adapter_close(b), free(values);
    }
    size_t n, m;
    char *first = get_bytes("a.safetensors", &n), *second = get_bytes("b.safetensors", &m);
    ok(n == m && !memcmp(first, second, n), "%s: and written again, the same file", spec);
    free(first), free(second);
    adapter_close(a);
    unreadable("a.safetensors", base_of(2, 24, 24, 3, 4), "width 16");
    changed("a.safetensors", "attn1.to_k.lora_A", "attn1.to_k.lora_X");
    unreadable("changed.safetensors", base,
               "lacks tensor transformer.transformer_blocks.0.attn1.to_k.lora_A.weight");
    changed("a.safetensors", "\\\"rank\\\":8", "\\\"rank\\\":4");
    unreadable("changed.safetensors", base,
               strstr(spec, "standard") ? "its descriptions disagree" : "its description (rank 4) says");
    if (!bound) return;
    unreadable("a.safetensors", base_of(2, 16, 16, 4, 3), "made for frames of 3x4 tokens, these have 4x3");
    changed("a.safetensors", "\\\"grid\\\":[3,4]", "\\\"grid\\\":[4,3]");
    unreadable("changed.safetensors", any, "says F32");
    changed("a.safetensors", "\\\"grid\\\"", "\\\"grit\\\"");
    unreadable("changed.safetensors", base, "needs to know the size of a frame");
    changed("a.safetensors", "\\\"dk\\\":4", "\\\"dk\\\":2");
    unreadable("changed.safetensors", base, "says F32 [4,3,3,2]");
    changed("a.safetensors", "\\\"rope\\\":0", "\\\"rope\\\":7");
    unreadable("changed.safetensors", base, "rope is a whole number");
    changed("a.safetensors", "beta_w.bias", "beta_v.bias");
    unreadable("changed.safetensors", base, "lacks tensor");
}

/* A plain LoRA of rank 4 on to_k of both blocks as other tools write it: their names, their headers. */
static void write_foreign(const char *path, const char *prefix, json_t *metadata)
{
    static float zero[4 * 16];
    char name[4][96];
    struct safetensors_item item[4];
    for (int i = 0; i < 4; i++) {
        snprintf(name[i], sizeof name[i], "%stransformer_blocks.%d.attn1.to_k.lora_%s.weight", prefix, i / 2,
                 i % 2 ? "B" : "A");
        item[i] =
            (struct safetensors_item){name[i], tensor_of(DT_F32, zero, 2, i % 2 ? 16 : 4, i % 2 ? 4 : 16)};
    }
    if (!safetensors_write(path, item, 4, metadata, err, sizeof err)) printf("Bail out! %s\n", err), exit(1);
    json_decref(metadata);
}

/* alpha as read, or why not; 0: it should be refused with `word`. */
static void stated(const char *path, double alpha, const char *word)
{
    struct adapter_base base = base_of(2, 16, 16, 3, 4);
    float *values = NULL;
    struct adapter *a = adapter_read(path, base, &values, err, sizeof err);
    if (alpha > 0)
        ok(a && a->rank == 4 && a->alpha == alpha && a->targets == 1 && !strcmp(a->target[0], "to_k"),
           "%s: alpha %g %s", word, a ? a->alpha : 0, a ? "" : err);
    else
        ok(!a && strstr(err, word), "refused: %s", a ? "no" : err);
    adapter_close(a);
    free(values);
}

static void test_foreign(void)
{
    static const struct {
        const char *key, *value;
        double alpha;
        const char *word;
    } line[] = {
        {"format", "pt", 4, "no statement: alpha is the rank"},
        {"lora_config", "{\"r\":4,\"lora_alpha\":8,\"target_modules\":\"transformer_blocks.*(to_q|to_k)\"}",
         8, "lora_config, with a pattern"},
        {"lora_config",
         "{\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"transformer_blocks.0.attn1.to_k\","
         "\"transformer_blocks.1.attn1.to_k\"]}",
         8, "lora_config, with full names"},
        {"lora_config", "{\"r\":8,\"lora_alpha\":8}", 0, "its description (rank 8) says"},
        {"lora_config", "{\"r\":4}", 0, "no r or no lora_alpha"},
        {"lora_config", "{\"r\":4,\"lora_alpha\":8,\"use_rslora\":true}", 0, "use_rslora"},
        {"lora_config", "{\"r\":4,\"lora_alpha\":8,\"bias\":\"all\"}", 0, "bias"},
        {"lora_config", "no JSON", 0, "its `lora_config` is not JSON"},
        {"lora_adapter_metadata", "{\"transformer.r\":4,\"transformer.lora_alpha\":2}", 2,
         "diffusers' header"},
        {"ss_network_alpha", "1.5", 1.5, "kohya's header"},
        {"ss_network_dim", "8", 0, "its description (rank 8) says"},
        {"ss_network_dim", "four", 0, "`ss_network_dim` is no number"},
        {"transformer.lora_alpha", "12", 12, "a field alone"},
        {"text_alpha", "12", 0, "`text_alpha` is not known"},
    };
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        write_foreign("f.safetensors", "transformer.", json_pack("{s:s}", line[i].key, line[i].value));
        stated("f.safetensors", line[i].alpha, line[i].word);
    }
    write_foreign(
        "f.safetensors", "transformer.",
        json_pack("{s:s, s:s}", "lora_config", "{\"r\":4,\"lora_alpha\":8}", "ss_network_alpha", "4"));
    stated("f.safetensors", 0, "alpha 8 and 4 (ss_network_alpha)");

    mkdir("saved", 0777); /* as PEFT's save_pretrained() leaves it */
    write_foreign("saved/adapter_model.safetensors", "base_model.model.", NULL);
    stated("saved", 0, "adapter_config.json, which is not beside it");
    const char config[] = "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":32,\"target_modules\":[\"to_k\"],"
                          "\"bias\":\"none\",\"rank_pattern\":{}}";
    put_bytes("saved/adapter_config.json", config, strlen(config));
    stated("saved", 32, "PEFT's folder");
    stated("saved/adapter_model.safetensors", 32, "the file in it");

    static const char *const other[][2] = {
        {"PK\3\4 and more", "model-convert"},
        {"<!DOCTYPE html><html>", "an HTML page"},
        {"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"}};
    for (int i = 0; i < 3; i++) {
        put_bytes("other.safetensors", other[i][0], strlen(other[i][0]));
        stated("other.safetensors", 0, other[i][1]);
    }
}

int main(void)
{
    static const char *const kinds[] = {"standard:rank=8,alpha=4", "transformer:rank=8",
                                        "gdn_cssm:rank=8,alpha=12", "gdn_cssm:rank=8,dk=8,rope=1"};
    static const int64_t grids[][2] = {{7, 9}, {8, 12}, {1, 1}, {2, 2}};
    if (!(k = kern_open("cpu", 2, err, sizeof err))) printf("Bail out! %s\n", err), exit(1);
    struct cases c = cases_open("adapters");
    for (size_t i = 0; i < json_array_size(c.list); i++) against_reference(&c, json_array_get(c.list, i));
    cases_close(&c);
    scratch_enter();
    for (int i = 0; i < 4; i++)
        for (int g = 0; g < 4; g++)
            test_contract(kinds[i], (struct token_rows){g == 1 ? 0 : 5, 1 + g % 3, grids[g][0], grids[g][1]},
                          g % 2 ? 32 : 10,
                          g == 3  ? 12
                          : g % 2 ? 32
                                  : 10);
    test_counts();
    test_kernel("gdn_cssm:k=1", 1, 7, 9);
    test_kernel("gdn_cssm:k=5", 5, 7, 9);
    test_kernel("gdn_cssm:k=3,rank=8", 3, 4, 6);
    test_kernel("gdn_cssm:k=5", 5, 4, 6);
    test_kernel("gdn_cssm:k=5", 5, 1, 1);
    test_refusals();
    test_files("standard:rank=8", false);
    test_files("transformer:rank=8", false);
    test_files("gdn_cssm:rank=8,k=3", true);
    test_foreign();
    kern_close(k);
    return scratch_leave() ? done() : 1;
}
