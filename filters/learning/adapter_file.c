/* The files of adapter.h: what stands in their headers, and that header and tensors agree. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/learning/adapter_build.h"
#include "formats/error.h"
#include "formats/safetensors.h"

static json_t *number(double v)
{
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

static json_t *target_list(const struct adapter *a)
{
    json_t *list = json_array();
    for (int t = 0; t < a->targets; t++) json_array_append_new(list, json_string(a->target[t]));
    return list;
}

json_t *adapter_description(const struct adapter *a)
{
    json_t *d = json_pack("{s:s, s:I, s:o, s:o, s:O, s:I, s:I}", "variant", a->kind->name, "rank",
                          (json_int_t)a->rank, "alpha", number(a->alpha), "targets", target_list(a),
                          "settings", a->settings, "layers", (json_int_t)a->base.linears->blocks, "width",
                          (json_int_t)a->base.linears->width);
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
    int count = a->modules * a->params;
    struct safetensors_item *items = calloc((size_t)count, sizeof *items);
    char(*names)[160] = calloc((size_t)count, sizeof *names);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    bool good = items && names;
    if (!good) fail(err, errlen, "out of memory");
    set_dump(metadata, "sluice", adapter_description(a));
    if (a->kind->peft) /* PEFT takes just fields that it knows; diffusers wants the patterns, too */
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

static bool read_targets(json_t *list, const struct linears *base, struct target_list *targets, char *err,
                         size_t errlen)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) return fail(err, errlen, "a target that is not text");
        if (!target_list_add(targets, base, name, strlen(name), err, errlen)) return false;
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

/* What a header says so far. */
struct header {
    json_t *ours, *peft; /* `sluice` and PEFT's LoraConfig; NULL: the file has none */
    struct adapter_spec spec;
    struct adapter_base base;
};

static bool read_ours(struct header *h, char *err, size_t errlen)
{
    const struct linears *linears = h->base.linears;
    json_int_t layers = json_integer_value(json_object_get(h->ours, "layers")),
               width = json_integer_value(json_object_get(h->ours, "width"));
    h->spec.kind = json_string_value(json_object_get(h->ours, "variant"));
    h->spec.rank = json_integer_value(json_object_get(h->ours, "rank"));
    h->spec.alpha = json_number_value(json_object_get(h->ours, "alpha"));
    if (!h->spec.kind) return fail(err, errlen, "its header names no variant");
    if (!read_targets(json_object_get(h->ours, "targets"), linears, &h->spec.targets, err, errlen))
        return false;
    return (layers == linears->blocks && width == linears->width) ||
           fail(err, errlen, "it was made for %lld layers of width %lld, the model has %lld of %lld",
                (long long)layers, (long long)width, (long long)linears->blocks, (long long)linears->width);
}

/* The file decides for what size of frame it is, and must fit what is asked for, if anything is. */
static bool read_grid(struct header *h, char *err, size_t errlen)
{
    json_t *grid = json_object_get(h->ours, "grid");
    int64_t rows = json_integer_value(json_array_get(grid, 0)),
            cols = json_integer_value(json_array_get(grid, 1));
    struct adapter_base asked = h->base;
    h->base.rows = rows;
    h->base.cols = cols;
    if (!grid) return true; /* a kind that is bound to one cannot do without */
    if (rows < 1 || cols < 1) return fail(err, errlen, "its grid is no pair of sizes");
    return !asked.rows || (rows == asked.rows && cols == asked.cols) ||
           fail(err, errlen, "it was made for frames of %lldx%lld tokens, these have %lldx%lld",
                (long long)rows, (long long)cols, (long long)asked.rows, (long long)asked.cols);
}

static bool same_targets(const struct target_list *a, const struct target_list *b)
{
    for (int i = 0; i < a->count; i++)
        if (!target_list_has(b, a->name[i])) return false;
    return a->count == b->count;
}

/* PEFT's description, which must agree with ours. */
static bool read_peft(struct header *h, char *err, size_t errlen)
{
    struct adapter_spec *ours = &h->spec, peft = *ours;
    peft.targets.count = 0;
    peft.rank = json_integer_value(json_object_get(h->peft, "transformer.r"));
    peft.alpha = json_number_value(json_object_get(h->peft, "transformer.lora_alpha"));
    if (!check_peft(h->peft, err, errlen) ||
        !read_targets(json_object_get(h->peft, "transformer.target_modules"), h->base.linears, &peft.targets,
                      err, errlen))
        return false;
    if (h->ours && (peft.rank != ours->rank || peft.alpha != ours->alpha ||
                    !same_targets(&peft.targets, &ours->targets)))
        return fail(err, errlen,
                    "its two descriptions disagree: rank %lld and %lld, alpha %g and %g, or the targets",
                    (long long)ours->rank, (long long)peft.rank, ours->alpha, peft.alpha);
    *ours = peft;
    return true;
}

/* No description: what diffusers would assume. */
static bool read_tensors(struct header *h, const struct safetensors *s, char *err, size_t errlen)
{
    static const char before[] = "transformer.", after[] = ".lora_B.weight";
    const struct linears *linears = h->base.linears;
    for (int i = 0; i < s->count; i++) {
        const char *name = s->entry[i].name, *end = strstr(name, after);
        if (strncmp(name, before, sizeof before - 1) || !end || s->entry[i].shape.rank != 2) continue;
        name += sizeof before - 1;
        for (int l = 0; l < linears->count; l++) {
            const struct linear *linear = &linears->linear[l];
            if (strlen(linear->name) != (size_t)(end - name) ||
                strncmp(linear->name, name, strlen(linear->name)) ||
                target_list_has(&h->spec.targets, linear->target))
                continue;
            if (!target_list_add(&h->spec.targets, linears, linear->target, strlen(linear->target), err,
                                 errlen))
                return false;
        }
        if (!h->spec.rank) h->spec.alpha = (double)(h->spec.rank = s->entry[i].shape.shape[1]);
    }
    return true;
}

/* Fields of our header that are not the user's. */
static void keep_extra(struct adapter *a, json_t *ours)
{
    static const char *const own[] = {"variant",  "rank",   "alpha", "targets",
                                      "settings", "layers", "width", "grid"};
    json_object_update(a->extra, ours);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) json_object_del(a->extra, own[i]);
}

/* Kind, rank, alpha and targets as the file says, in whichever way it does; all of them must agree. */
static struct adapter *describe(const struct safetensors *s, struct adapter_base base, char *err,
                                size_t errlen)
{
    struct header h = {.ours = parse_metadata(s, "sluice"),
                       .peft = parse_metadata(s, "lora_adapter_metadata"),
                       .spec = {.kind = "standard"},
                       .base = base};
    struct adapter *a = NULL;
    bool good = true;
    if (!h.ours && json_object_get(s->metadata, "sluice"))
        good = fail(err, errlen, "its `sluice` header is not JSON");
    if (!h.peft && json_object_get(s->metadata, "lora_adapter_metadata"))
        good = fail(err, errlen, "its `lora_adapter_metadata` is not JSON");
    if (good && h.ours) good = read_ours(&h, err, errlen);
    good = good && read_grid(&h, err, errlen);
    if (good && h.peft) good = read_peft(&h, err, errlen);
    if (good && !h.ours && !h.peft) good = read_tensors(&h, s, err, errlen);
    if (good && !h.spec.rank)
        good = fail(err, errlen, "nothing in it says of what rank it is: not an adapter?");
    if (good) {
        json_t *settings = json_object_get(h.ours, "settings");
        h.spec.settings = settings ? json_incref(settings) : NULL;
        a = adapter_build(&h.spec, h.base, err, errlen);
    }
    if (a && h.ours) keep_extra(a, h.ours);
    json_decref(h.ours);
    json_decref(h.peft);
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
        int modules = a->modules, known = modules * a->params;
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
