#include "filters/learning/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/safetensors.h"

/* Adding a kind: its file below adapters/, which defines adapter_NAME, and a row here. */
#define ADAPTERS(ROW)                                                                                        \
    ROW(standard)                                                                                            \
    ROW(transformer)                                                                                         \
    ROW(gdn_cssm)

#define ROW(name) extern const struct adapter_kind adapter_##name;
ADAPTERS(ROW)
#undef ROW
#define ROW(name) &adapter_##name,
static const struct adapter_kind *const kinds[] = {ADAPTERS(ROW)};
#undef ROW
enum { KINDS = sizeof kinds / sizeof kinds[0] };

const char *const adapter_target_name[ADAPTER_TARGETS] = {"to_q", "to_k", "to_v", "to_out.0"};

/* ---- making -------------------------------------------------------------------------------------------- */

static const struct adapter_kind *find_kind(const char *name, char *err, size_t errlen)
{
    char known[256] = "";
    for (int i = 0; i < KINDS; i++) {
        if (!strcmp(name, kinds[i]->name)) return kinds[i];
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", kinds[i]->name);
    }
    fail(err, errlen, "no adapter `%s`; there are: %s", name, known);
    return NULL;
}

static int64_t elements(const struct adapter_param *p)
{
    int64_t n = 1;
    for (int i = 0; i < p->rank; i++) n *= p->shape[i];
    return n;
}

static int target_count(const struct adapter *a)
{
    int n = 0;
    for (int t = 0; t < ADAPTER_TARGETS; t++) n += a->target[t];
    return n;
}

/* settings is stolen. */
static struct adapter *build(const char *kind, int64_t rank, double alpha, const bool *target,
                             json_t *settings, struct adapter_base base, char *err, size_t errlen)
{
    struct adapter *a = calloc(1, sizeof *a);
    if (!a) return json_decref(settings), fail(err, errlen, "out of memory"), NULL;
    a->settings = settings ? settings : json_object();
    a->extra = json_object();
    a->rank = rank;
    a->alpha = alpha;
    a->weight = 1;
    a->base = base;
    memcpy(a->target, target, sizeof a->target);
    if (!(a->kind = find_kind(kind, err, errlen))) goto bad;
    if (!json_is_object(a->settings)) {
        fail(err, errlen, "the settings of adapter %s are no object", kind);
        goto bad;
    }
    if (rank < 1 || rank > base.width) {
        fail(err, errlen, "adapter rank %lld is outside 1..%lld", (long long)rank, (long long)base.width);
        goto bad;
    }
    if (!(alpha > 0) || !isfinite(alpha)) {
        fail(err, errlen, "adapter alpha %g is not a positive number", alpha);
        goto bad;
    }
    if (!target_count(a)) {
        fail(err, errlen, "an adapter needs a target");
        goto bad;
    }
    if (a->kind->bound && (base.rows < 1 || base.cols < 1)) {
        fail(err, errlen, "adapter %s needs to know the size of a frame", kind);
        goto bad;
    }
    if (!a->kind->declare(a, err, errlen)) goto bad;
    for (int p = 0; p < a->params; p++) {
        a->param[p].offset = a->module_size;
        a->module_size += elements(&a->param[p]);
    }
    a->size = a->module_size * base.layers * target_count(a);
    return a;
bad:
    adapter_close(a);
    return NULL;
}

bool adapter_settings(struct adapter *a, const struct adapter_setting *list, int count, char *err,
                      size_t errlen)
{
    char known[200] = "rank, alpha";
    const char *name;
    json_t *value;
    for (int i = 0; i < count; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), ", %s", list[i].name);
    json_object_foreach (a->settings, name, value) {
        int i = 0;
        while (i < count && strcmp(name, list[i].name)) i++;
        if (i == count)
            return fail(err, errlen, "adapter %s has no setting `%s`; there are: %s", a->kind->name, name,
                        known);
        if (!json_is_integer(value) || json_integer_value(value) < list[i].low ||
            json_integer_value(value) > list[i].high)
            return fail(err, errlen, "adapter %s: %s is a whole number from %lld to %lld", a->kind->name,
                        name, (long long)list[i].low, (long long)list[i].high);
    }
    for (int i = 0; i < count; i++) {
        if (!json_object_get(a->settings, list[i].name))
            json_object_set_new(a->settings, list[i].name, json_integer(list[i].fallback));
        *list[i].value = json_integer_value(json_object_get(a->settings, list[i].name));
    }
    return true;
}

static bool parse_target(const char *name, size_t n, bool *target, char *err, size_t errlen)
{
    for (int t = 0; t < ADAPTER_TARGETS; t++)
        if ((strlen(adapter_target_name[t]) == n && !strncmp(name, adapter_target_name[t], n)) ||
            (n > 6 && !strncmp(name, "attn1.", 6) && !strncmp(name + 6, adapter_target_name[t], n - 6) &&
             strlen(adapter_target_name[t]) == n - 6))
            return target[t] = true;
    if (n > 5 && !strncmp(name, "attn2", 5))
        return fail(err, errlen, "target `%.*s`: CogVideoX has no attn2, text and video share attn1", (int)n,
                    name);
    return fail(err, errlen, "no target `%.*s`; there are to_q, to_k, to_v, to_out.0", (int)n, name);
}

struct adapter *adapter_make(const char *spec, const char *targets, struct adapter_base base, char *err,
                             size_t errlen)
{
    char kind[64], *end;
    bool target[ADAPTER_TARGETS] = {0};
    double rank = 16, alpha = 16;
    size_t n = strcspn(spec, ":");
    snprintf(kind, sizeof kind, "%.*s", (int)n, spec);

    for (const char *t = targets ? targets : "to_q,to_k,to_v,to_out.0"; *t;
         t += strcspn(t, ","), t += *t == ',')
        if (!parse_target(t, strcspn(t, ","), target, err, errlen)) return NULL;

    json_t *settings = json_object();
    for (const char *s = spec + n + (spec[n] == ':'); *s; s += strcspn(s, ","), s += *s == ',') {
        char name[32];
        size_t length = strcspn(s, "=,");
        double v = s[length] == '=' ? strtod(s + length + 1, &end) : 0;
        if (!length || length >= sizeof name || s[length] != '=' || end == s + length + 1 ||
            (*end && *end != ',')) {
            fail(err, errlen, "adapter `%s`: settings look like name=number,name=number", spec);
            json_decref(settings);
            return NULL;
        }
        snprintf(name, sizeof name, "%.*s", (int)length, s);
        if (!strcmp(name, "rank"))
            rank = v;
        else if (!strcmp(name, "alpha"))
            alpha = v;
        else
            json_object_set_new(settings, name, v == floor(v) ? json_integer((json_int_t)v) : json_real(v));
    }
    if (rank != floor(rank) || fabs(rank) > 1e6) rank = 0; /* build() says what is wrong with that */
    return build(kind, (int64_t)rank, alpha, target, settings, base, err, errlen);
}

void adapter_close(struct adapter *a)
{
    if (!a) return;
    json_decref(a->settings);
    json_decref(a->extra);
    free(a);
}

bool adapter_attach(struct adapter *a, struct kern *k, bool training)
{
    a->k = k;
    a->values = a->working = kern_alloc(k, DT_F32, 1, a->size);
    if (kern_compute(k) != DT_F32) a->working = kern_alloc(k, kern_compute(k), 1, a->size);
    if (training) a->grads = kern_alloc(k, DT_F32, 1, a->size);
    return kern_ok(k);
}

void adapter_refresh(struct adapter *a)
{
    if (a->working.dtype != DT_F32) kern_copy(a->k, &a->working, &a->values);
}

void adapter_forward(struct adapter *a, const struct token_grid *g, const struct adapter_call *c, int n)
{
    if (a->kind->forward_all && n) a->kind->forward_all(a, g, c, n);
    for (int i = 0; i < n && !a->kind->forward_all; i++)
        a->kind->forward(a, c[i].module, g, c[i].y, c[i].x, c[i].saved);
}

void adapter_backward(struct adapter *a, const struct token_grid *g, const struct adapter_call *c, int n)
{
    if (a->kind->backward_all && n) a->kind->backward_all(a, g, c, n);
    for (int i = 0; i < n && !a->kind->backward_all; i++)
        a->kind->backward(a, c[i].module, g, c[i].dx, c[i].dy, c[i].x, c[i].saved);
}

void adapter_init(struct adapter *a, uint64_t seed)
{
    int modules = (int)a->base.layers * target_count(a);
    for (int m = 0; m < modules; m++)
        for (int p = 0; p < a->params; p++) {
            const struct adapter_param *q = &a->param[p];
            char name[160];
            int64_t n = elements(q), in = q->shape[q->rank - 1],
                    out = q->rank > 1 ? q->shape[q->rank - 2] : in;
            double bound = q->init == INIT_KAIMING_UNIFORM  ? 1 / sqrt((double)in)
                           : q->init == INIT_XAVIER_UNIFORM ? sqrt(6 / (double)(in + out))
                                                            : 0;
            adapter_param_name(a, m, p, name, sizeof name);
            struct rng r = rng_make(seed, name, "adapter-init", 0);
            float *v = malloc((size_t)n * sizeof *v);
            if (!v) {
                kern_fail(a->k, "no memory for %lld initial values", (long long)n);
                return;
            }
            if (q->init == INIT_OWN) a->kind->fill(a, q, &r, v);
            for (int64_t i = 0; i < n && q->init != INIT_OWN; i++)
                v[i] = q->init == INIT_ONE ? 1
                       : bound > 0         ? (float)(bound * (2 * rng_uniform(&r, (uint64_t)i) - 1))
                                           : 0;
            struct tensor view = adapter_view(a, &a->values, m, p), host = view;
            host.data = v;
            kern_upload(a->k, &view, &host);
            free(v);
        }
    adapter_refresh(a);
}

/* ---- looking up ---------------------------------------------------------------------------------------- */

int adapter_module(const struct adapter *a, int64_t layer, enum adapter_target target)
{
    int before = 0;
    for (int t = 0; t < (int)target; t++) before += a->target[t];
    return a->target[target] ? (int)layer * target_count(a) + before : -1;
}

void adapter_param_name(const struct adapter *a, int module, int p, char *name, size_t size)
{
    int targets = target_count(a), index = module % targets, t = 0;
    while (!a->target[t] || index-- > 0) t++;
    snprintf(name, size, "transformer.transformer_blocks.%d.attn1.%s.%s", module / targets,
             adapter_target_name[t], a->param[p].name);
}

struct tensor adapter_view(const struct adapter *a, const struct tensor *flat, int module, int p)
{
    const struct adapter_param *q = &a->param[p];
    struct tensor t = tensor_rows(flat, module * a->module_size + q->offset, elements(q));
    t.rank = q->rank;
    memcpy(t.shape, q->shape, sizeof q->shape);
    return t;
}

double adapter_scale(const struct adapter *a)
{
    return a->weight * a->alpha / (double)a->rank;
}

/* ---- files --------------------------------------------------------------------------------------------- */

static json_t *number(double v)
{
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

static json_t *target_list(const struct adapter *a)
{
    json_t *list = json_array();
    for (int t = 0; t < ADAPTER_TARGETS; t++)
        if (a->target[t]) json_array_append_new(list, json_string(adapter_target_name[t]));
    return list;
}

json_t *adapter_description(const struct adapter *a)
{
    json_t *d =
        json_pack("{s:s, s:I, s:o, s:o, s:O, s:I, s:I}", "variant", a->kind->name, "rank",
                  (json_int_t)a->rank, "alpha", number(a->alpha), "targets", target_list(a), "settings",
                  a->settings, "layers", (json_int_t)a->base.layers, "width", (json_int_t)a->base.width);
    if (a->kind->bound)
        json_object_set_new(d, "grid",
                            json_pack("[I, I]", (json_int_t)a->base.rows, (json_int_t)a->base.cols));
    json_object_update_missing(d, a->extra);
    return d;
}

static void set_dump(json_t *metadata, const char *key, json_t *value_stolen)
{
    char *text = json_dumps(value_stolen, JSON_COMPACT | JSON_SORT_KEYS);
    json_object_set_new(metadata, key, json_string(text));
    free(text);
    json_decref(value_stolen);
}

bool adapter_write(const struct adapter *a, const char *path, const float *values, char *err, size_t errlen)
{
    int count = (int)(a->size / a->module_size) * a->params;
    struct safetensors_item *items = calloc((size_t)count, sizeof *items);
    char(*names)[160] = calloc((size_t)count, sizeof *names);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    bool good = items && names;
    if (!good) fail(err, errlen, "out of memory");
    set_dump(metadata, "sluice", adapter_description(a));
    if (a->kind ==
        &adapter_standard) /* PEFT takes just fields that it knows; diffusers wants the patterns, too */
        set_dump(metadata, "lora_adapter_metadata",
                 json_pack("{s:I, s:o, s:o, s:{}, s:{}}", "transformer.r", (json_int_t)a->rank,
                           "transformer.lora_alpha", number(a->alpha), "transformer.target_modules",
                           target_list(a), "transformer.rank_pattern", "transformer.alpha_pattern"));
    struct tensor flat = tensor_of(DT_F32, (void *)values, 1, a->size);
    for (int i = 0; good && i < count; i++) {
        adapter_param_name(a, i / a->params, i % a->params, names[i], sizeof names[i]);
        items[i] = (struct safetensors_item){names[i], adapter_view(a, &flat, i / a->params, i % a->params)};
    }
    good = good && safetensors_write(path, items, count, metadata, err, errlen);
    json_decref(metadata);
    free(items);
    free(names);
    return good;
}

static json_t *parse_metadata(const struct safetensors *s, const char *key)
{
    const char *text = json_string_value(json_object_get(s->metadata, key));
    return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static bool read_targets(json_t *list, bool *target, char *err, size_t errlen)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) return fail(err, errlen, "a target that is not text");
        if (!parse_target(name, strlen(name), target, err, errlen)) return false;
    }
    return json_array_size(list) > 0 || fail(err, errlen, "no targets");
}

/* PEFT's LoraConfig: what changes the arithmetic beyond r and alpha is refused. */
static bool check_peft(json_t *peft, char *err, size_t errlen)
{
    static const char *const refused[] = {"use_dora",       "use_rslora",     "rank_pattern",
                                          "alpha_pattern",  "lora_bias",      "layers_to_transform",
                                          "fan_in_fan_out", "modules_to_save"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char key[64];
        snprintf(key, sizeof key, "transformer.%s", refused[i]);
        json_t *v = json_object_get(peft, key);
        if (v && !json_is_null(v) && !json_is_false(v) && !(json_is_object(v) && !json_object_size(v)) &&
            !(json_is_array(v) && !json_array_size(v)))
            return fail(err, errlen, "its LoraConfig sets `%s`, which is not a plain LoRA", refused[i]);
    }
    return true;
}

/* Kind, rank, alpha and targets as the file tells them, whichever way it does; all tellings must agree. */
static struct adapter *describe(const struct safetensors *s, struct adapter_base base, char *err,
                                size_t errlen)
{
    json_t *ours = parse_metadata(s, "sluice"), *peft = parse_metadata(s, "lora_adapter_metadata");
    struct adapter *a = NULL;
    bool target[ADAPTER_TARGETS] = {0}, peft_target[ADAPTER_TARGETS] = {0};
    const char *kind = "standard";
    json_int_t rank = 0;
    double alpha = 0;
    bool good = true;
    if (!ours && json_object_get(s->metadata, "sluice"))
        good = fail(err, errlen, "its `sluice` header is not JSON");
    if (!peft && json_object_get(s->metadata, "lora_adapter_metadata"))
        good = fail(err, errlen, "its `lora_adapter_metadata` is not JSON");
    if (good && ours) {
        kind = json_string_value(json_object_get(ours, "variant"));
        rank = json_integer_value(json_object_get(ours, "rank"));
        alpha = json_number_value(json_object_get(ours, "alpha"));
        good = kind || fail(err, errlen, "its header names no variant");
        good = good && read_targets(json_object_get(ours, "targets"), target, err, errlen);
        if (good && (json_integer_value(json_object_get(ours, "layers")) != base.layers ||
                     json_integer_value(json_object_get(ours, "width")) != base.width))
            good = fail(err, errlen, "it was made for %lld layers of width %lld, the model has %lld of %lld",
                        (long long)json_integer_value(json_object_get(ours, "layers")),
                        (long long)json_integer_value(json_object_get(ours, "width")), (long long)base.layers,
                        (long long)base.width);
    }
    json_t *grid = json_object_get(ours, "grid");
    if (!grid) base.rows = base.cols = 0; /* a kind that is bound to one cannot do without */
    if (good && grid) { /* the file decides, and must fit what is asked for, if anything is */
        int64_t rows = json_integer_value(json_array_get(grid, 0)),
                cols = json_integer_value(json_array_get(grid, 1));
        if (rows < 1 || cols < 1) good = fail(err, errlen, "its grid is no pair of sizes");
        if (good && base.rows && (rows != base.rows || cols != base.cols))
            good = fail(err, errlen, "it was made for frames of %lldx%lld tokens, these have %lldx%lld",
                        (long long)rows, (long long)cols, (long long)base.rows, (long long)base.cols);
        base.rows = rows;
        base.cols = cols;
    }
    if (good && peft) {
        json_int_t r = json_integer_value(json_object_get(peft, "transformer.r"));
        double lora_alpha = json_number_value(json_object_get(peft, "transformer.lora_alpha"));
        good = check_peft(peft, err, errlen) &&
               read_targets(json_object_get(peft, "transformer.target_modules"), peft_target, err, errlen);
        if (good && ours && (r != rank || lora_alpha != alpha || memcmp(target, peft_target, sizeof target)))
            good = fail(err, errlen,
                        "its two descriptions disagree: rank %lld and %lld, alpha %g and %g, or the targets",
                        (long long)rank, (long long)r, alpha, lora_alpha);
        rank = r;
        alpha = lora_alpha;
        memcpy(target, peft_target, sizeof target);
    }
    for (int i = 0; good && !ours && !peft && i < s->count;
         i++) { /* no description: what diffusers would assume */
        const char *name = strstr(s->entry[i].name, ".attn1."),
                   *end = strstr(s->entry[i].name, ".lora_B.weight");
        if (!name || !end || s->entry[i].shape.rank != 2) continue;
        good = parse_target(name + 7, (size_t)(end - name - 7), target, err, errlen);
        if (!rank) alpha = (double)(rank = s->entry[i].shape.shape[1]);
    }
    if (good && !rank) good = fail(err, errlen, "nothing in it says of what rank it is: not an adapter?");
    if (good) {
        json_t *settings = json_object_get(ours, "settings");
        a = build(kind, rank, alpha, target, settings ? json_incref(settings) : NULL, base, err, errlen);
    }
    if (a && ours) {
        static const char *const own[] = {"variant",  "rank",   "alpha", "targets",
                                          "settings", "layers", "width", "grid"};
        json_object_update(a->extra, ours);
        for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) json_object_del(a->extra, own[i]);
    }
    json_decref(ours);
    json_decref(peft);
    return a;
}

static bool read_param(const struct safetensors *s, const struct adapter *a, int module, int p, float *values,
                       char *err, size_t errlen)
{
    char name[160], is[160], wanted[160];
    struct tensor flat = tensor_of(DT_F32, values, 1, a->size), to = adapter_view(a, &flat, module, p);
    adapter_param_name(a, module, p, name, sizeof name);
    const struct safetensors_entry *e = safetensors_find(s, name);
    if (!e) return fail(err, errlen, "lacks tensor %s", name);
    if (!tensor_same_shape(&e->shape, &to) || !dtype_is_float(e->shape.dtype))
        return fail(err, errlen, "tensor %s is %s, its description (rank %lld) says %s", name,
                    tensor_describe(is, sizeof is, &e->shape), (long long)a->rank,
                    tensor_describe(wanted, sizeof wanted, &to));
    struct tensor raw = e->shape;
    raw.data = malloc(e->bytes + 1);
    bool good = raw.data ? safetensors_read(s, e, raw.data, err, errlen) : fail(err, errlen, "out of memory");
    if (good) tensor_convert(&to, &raw);
    for (int64_t i = 0; good && i < tensor_count(&to); i++)
        if (!isfinite(((float *)to.data)[i]))
            good = fail(err, errlen, "tensor %s has a value that is not finite", name);
    free(raw.data);
    return good;
}

struct adapter *adapter_read(const char *path, struct adapter_base base, float **values, char *err,
                             size_t errlen)
{
    char why[400] = "";
    *values = NULL;
    struct safetensors *s = safetensors_open(path, err, errlen);
    if (!s) return NULL;
    struct adapter *a = describe(s, base, why, sizeof why);
    bool good = a != NULL;
    if (good) {
        int modules = (int)(a->size / a->module_size), known = modules * a->params;
        *values = malloc((size_t)a->size * sizeof **values);
        if (!*values) good = fail(why, sizeof why, "out of memory");
        for (int m = 0; good && m < modules; m++)
            for (int p = 0; good && p < a->params; p++)
                good = read_param(s, a, m, p, *values, why, sizeof why);
        for (int i = 0; good && s->count > known && i < s->count; i++) { /* name one that does not belong */
            bool mine = false;
            for (int n = 0; !mine && n < known; n++) {
                char name[160];
                adapter_param_name(a, n / a->params, n % a->params, name, sizeof name);
                mine = !strcmp(name, s->entry[i].name);
            }
            if (!mine)
                good =
                    fail(why, sizeof why, "tensor %s does not belong to its description", s->entry[i].name);
        }
    }
    safetensors_close(s);
    if (good) a->hash = hash64(0, *values, (size_t)a->size * sizeof **values);
    if (good) return a;
    adapter_close(a);
    free(*values);
    *values = NULL;
    fail(err, errlen, "%s: %s", path, why);
    return NULL;
}

struct adapter *adapter_open(struct kern *k, const char *path_and_weight, struct adapter_base base, char *err,
                             size_t errlen)
{
    char path[4096], *end;
    const char *colon = strrchr(path_and_weight, ':');
    double weight = colon ? strtod(colon + 1, &end) : 1;
    bool weighted = colon && end != colon + 1 && !*end && isfinite(weight);
    float *values;
    snprintf(path, sizeof path, "%.*s",
             weighted ? (int)(colon - path_and_weight) : (int)strlen(path_and_weight), path_and_weight);
    struct adapter *a = adapter_read(path, base, &values, err, errlen);
    if (!a) return NULL;
    if (weighted) a->weight = weight;
    struct tensor host = tensor_of(DT_F32, values, 1, a->size);
    if (adapter_attach(a, k, false)) kern_upload(k, &a->values, &host);
    adapter_refresh(a);
    free(values);
    if (kern_ok(k)) return a;
    fail(err, errlen, "%s: %s", path, kern_error(k));
    adapter_close(a);
    return NULL;
}
