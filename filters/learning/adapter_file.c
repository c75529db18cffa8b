/* The files of adapter.h: what stands in their headers, and that header and tensors agree. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/learning/adapter_build.h"
#include "formats/hash.h"
#include "formats/error.h"
#include "formats/listed.h"
#include "formats/path.h"
#include "formats/json_file.h"
#include "formats/names.h"
#include "formats/safetensors.h"

/* What stands before the names of linears, in our files and diffusers', and in PEFT's own. */
static const char own_prefix[] = "transformer.", peft_prefix[] = "base_model.model.";

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

/* ---- what a file says of itself ------------------------------------------------------------------------ */

/* What has been read so far. Any number of places may state rank, alpha and targets; all must agree. */
struct header {
    const struct safetensors *file;
    const char *prefix;       /* of its tensors' names, before a linear's */
    json_t *ours;             /* `sluice`; NULL: the file has none */
    struct adapter_spec spec; /* rank, alpha 0 and no targets: not stated yet */
    struct adapter_base base;
};

static bool same_targets(const struct target_list *a, const struct target_list *b)
{
    for (int i = 0; i < a->count; i++)
        if (!target_list_has(b, a->name[i])) return false;
    return a->count == b->count;
}

/* A rank and an alpha that `where` states; 0: it does not. */
static bool state(struct header *h, const char *where, int64_t rank, double alpha, char *err, size_t errlen)
{
    struct adapter_spec *spec = &h->spec;
    if ((rank && spec->rank && rank != spec->rank) || (alpha > 0 && spec->alpha > 0 && alpha != spec->alpha))
        return fail(err, errlen, "its descriptions disagree: rank %lld and %lld, alpha %g and %g (%s)",
                    (long long)spec->rank, (long long)(rank ? rank : spec->rank), spec->alpha,
                    alpha > 0 ? alpha : spec->alpha, where);
    if (rank) spec->rank = rank;
    if (alpha > 0) spec->alpha = alpha;
    return true;
}

/* Adds the names of a list; PEFT's may be of single layers, and which those are is checked by the tensors. */
static bool read_targets(json_t *list, const struct linears *base, struct target_list *targets, char *err,
                         size_t errlen)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) return fail(err, errlen, "a target that is not text");
        for (int l = 0; l < base->count; l++)
            if (!strcmp(base->linear[l].name, name)) name = base->linear[l].target;
        if (!target_list_add(targets, base, name, strlen(name), err, errlen)) return false;
    }
    return json_array_size(list) > 0 || fail(err, errlen, "no targets");
}

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

static json_t *prefixed(json_t *object, const char *prefix, const char *field)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefix, field);
    return json_object_get(object, key);
}

/* PEFT's LoraConfig: what changes the arithmetic beyond r and alpha is refused. */
static bool is_plain(json_t *peft, const char *prefix, char *err, size_t errlen)
{
    static const char *const refused[] = {"use_dora",       "use_rslora",     "rank_pattern",
                                          "alpha_pattern",  "lora_bias",      "layers_to_transform",
                                          "fan_in_fan_out", "modules_to_save"};
    const char *bias = json_string_value(prefixed(peft, prefix, "bias"));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        json_t *v = prefixed(peft, prefix, refused[i]);
        if (v && !json_is_null(v) && !json_is_false(v) && !(json_is_object(v) && !json_object_size(v)) &&
            !(json_is_array(v) && !json_array_size(v)))
            return fail(err, errlen, "its LoraConfig sets `%s`, which is not a plain LoRA", refused[i]);
    }
    return !bias || !strcmp(bias, "none") ||
           fail(err, errlen, "its LoraConfig sets `bias`, which is not a plain LoRA");
}

/* Whether target_modules leave it to the tensors which linears they are: a pattern, as re.fullmatch has it, or names of
 * more than was wrapped (of Wan `to_q` names attn2's, too, and some write it for attn1 alone). */
static bool is_vague(json_t *list, const struct linears *base)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name && target_is_shared(base, name)) return true;
    }
    return json_is_string(list);
}

/* A LoraConfig, whose fields have a prefix in diffusers' header. */
static bool read_peft(struct header *h, json_t *peft, const char *where, const char *prefix, char *err,
                      size_t errlen)
{
    struct target_list targets = {.count = 0};
    json_t *list = prefixed(peft, prefix, "target_modules");
    int64_t rank = json_integer_value(prefixed(peft, prefix, "r"));
    double alpha = json_number_value(prefixed(peft, prefix, "lora_alpha"));
    if (!is_plain(peft, prefix, err, errlen)) return false;
    if (rank < 1 || !(alpha > 0))
        return fail(err, errlen, "its LoraConfig (%s) has no r or no lora_alpha above 0", where);
    if (list && !is_vague(list, h->base.linears) &&
        !read_targets(list, h->base.linears, &targets, err, errlen))
        return false;
    if (targets.count && h->spec.targets.count && !same_targets(&targets, &h->spec.targets))
        return fail(err, errlen, "its descriptions disagree: the targets (%s)", where);
    if (targets.count) h->spec.targets = targets;
    return state(h, where, rank, alpha, err, errlen);
}

/* A header's field that is a number by itself: kohya's ss_network_dim, and what others call rank and alpha. One that
 * speaks of alpha in a way that is not known is refused. */
static bool read_field(struct header *h, const char *key, const char *text, char *err, size_t errlen)
{
    static const char *const ranks[] = {"r", "rank", "lora_rank", "network_dim", "ss_network_dim", NULL},
                             *const alphas[] = {"alpha", "lora_alpha", "network_alpha", "ss_network_alpha",
                                                NULL};
    const char *name = !strncmp(key, "transformer.", 12) ? key + 12 : key;
    bool rank = false, alpha = false;
    for (int i = 0; ranks[i]; i++) rank = rank || !strcmp(name, ranks[i]);
    for (int i = 0; alphas[i]; i++) alpha = alpha || !strcmp(name, alphas[i]);
    if (!rank && !alpha)
        return !strstr(key, "alpha") || fail(err, errlen, "its header's `%s` is not known here", key);
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0) || (rank && value != floor(value)))
        return fail(err, errlen, "its header's `%s` is no number above 0", key);
    return state(h, key, rank ? (int64_t)value : 0, rank ? 0 : value, err, errlen);
}

/* The linear whose tensor is called so, and the rest of the name behind it; NULL: none. */
static const struct linear *linear_of(const struct header *h, const char *name, const char **rest)
{
    size_t n = strlen(h->prefix);
    if (strncmp(name, h->prefix, n)) return NULL;
    for (int i = 0; i < h->base.linears->count; i++) {
        const struct linear *l = &h->base.linears->linear[i];
        size_t length = strlen(l->name);
        *rest = name + n + length;
        if (!strncmp(name + n, l->name, length) && **rest == '.') return l;
    }
    return NULL;
}

/* What nothing states: rank and targets are those of the tensors, alpha is the rank, as diffusers takes it. */
static bool read_tensors(struct header *h, char *err, size_t errlen)
{
    const struct safetensors *s = h->file;
    bool targets = h->spec.targets.count > 0;
    for (int i = 0; i < s->count; i++) {
        const char *rest;
        const struct linear *l = linear_of(h, s->entry[i].name, &rest);
        if (!l || strcmp(rest, ".lora_B.weight") || s->entry[i].shape.rank != 2) continue;
        if (!h->spec.rank && !h->ours) h->spec.rank = s->entry[i].shape.shape[1];
        if (!targets && !target_list_has(&h->spec.targets, l->target) &&
            !target_list_add(&h->spec.targets, h->base.linears, l->target, strlen(l->target), err, errlen))
            return false;
    }
    if (!h->spec.rank) return fail(err, errlen, "nothing in it says of what rank it is: not an adapter?");
    if (!(h->spec.alpha > 0) && !h->ours) h->spec.alpha = (double)h->spec.rank;
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

static bool read_statements(struct header *h, json_t *peft, char *err, size_t errlen)
{
    static const char *const configs[][2] = {{"lora_adapter_metadata", "transformer."}, {"lora_config", ""}};
    const char *key;
    json_t *value;
    if (h->ours && !read_ours(h, err, errlen)) return false;
    if (!read_grid(h, err, errlen)) return false;
    for (int i = 0; i < 2; i++) {
        json_t *config = parse_metadata(h->file, configs[i][0]);
        bool good = config ? read_peft(h, config, configs[i][0], configs[i][1], err, errlen)
                           : !json_object_get(h->file->metadata, configs[i][0]) ||
                                 fail(err, errlen, "its `%s` is not JSON", configs[i][0]);
        json_decref(config);
        if (!good) return false;
    }
    if (peft && !read_peft(h, peft, "adapter_config.json", "", err, errlen)) return false;
    json_object_foreach (h->file->metadata, key, value)
        if (!read_field(h, key, json_string_value(value), err, errlen)) return false;
    return true;
}

/* Kind, rank, alpha and targets as the file says, in whichever way it does. peft: the adapter_config.json that
 * belongs to it, or NULL. */
static struct adapter *describe(struct header *h, json_t *peft, char *err, size_t errlen)
{
    struct adapter *a = NULL;
    bool good = h->ours || !json_object_get(h->file->metadata, "sluice") ||
                fail(err, errlen, "its `sluice` header is not JSON");
    good = good && read_statements(h, peft, err, errlen) && read_tensors(h, err, errlen);
    if (good && !strcmp(h->prefix, peft_prefix) && !peft && !h->ours)
        good = fail(err, errlen,
                    "PEFT wrote it, and its alpha stands in adapter_config.json, which is not beside it");
    if (good) {
        json_t *settings = json_object_get(h->ours, "settings");
        h->spec.settings = settings ? json_incref(settings) : NULL;
        a = adapter_build(&h->spec, h->base, err, errlen);
    }
    if (a && h->ours) keep_extra(a, h->ours);
    return a;
}

/* What parameter p of a module is called in this file. */
static void name_in_file(const struct header *h, const struct adapter *a, int module, int p, char name[160])
{
    char ours[160];
    adapter_param_name(a, module, p, ours, sizeof ours);
    snprintf(name, 160, "%s%.120s", h->prefix, ours + strlen(own_prefix));
}

static bool read_param(const struct header *h, const struct adapter *a, int module, int p, float *values,
                       char *err, size_t errlen)
{
    const struct safetensors *s = h->file;
    char name[160], is[160], wanted[160];
    struct tensor flat = tensor_of(DT_F32, values, 1, a->size), to = adapter_view(a, &flat, module, p);
    name_in_file(h, a, module, p, name);
    const struct safetensors_entry *e = safetensors_find(s, name);
    if (!e) {
        struct listed l = listed_start(NULL); /* the nearest is most likely another block's */
        for (int i = 0; i < s->count; i++) listed_add(&l, s->entry[i].name);
        return fail(err, errlen, "lacks tensor %s: %s", name, listed_end(&l));
    }
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

/* Names a tensor that belongs to nothing. */
static bool no_stranger(const struct header *h, const struct adapter *a, char *err, size_t errlen)
{
    const int known = a->modules * a->params;
    for (int i = 0; h->file->count > known && i < h->file->count; i++) {
        bool mine = false;
        for (int n = 0; !mine && n < known; n++) {
            char name[160];
            name_in_file(h, a, n / a->params, n % a->params, name);
            mine = !strcmp(name, h->file->entry[i].name);
        }
        if (!mine)
            return fail(err, errlen, "tensor %s does not belong to its description", h->file->entry[i].name);
    }
    return true;
}

/* A folder in which none of these is: a run's, most likely. */
static void refuse_folder(const char *path, char *err, size_t errlen)
{
    char best[4096];
    struct listed l = listed_start(NULL);
    if (snprintf(best, sizeof best, "%s/best.safetensors", path) < (int)sizeof best && !access(best, F_OK)) {
        fail(err, errlen, "%s: a run's folder, and no adapter; did you mean `%s`?", path, best);
        return;
    }
    listed_folder(&l, path, ".safetensors");
    fail(err, errlen, "%s: a folder without an adapter; of .safetensors %s", path, listed_end(&l));
}

/* A folder as PEFT or diffusers save one becomes its file; PEFT's adapter_config.json beside it, or NULL. */
static json_t *find_file(char file[4096], const char *path, char *err, size_t errlen)
{
    static const char *const inside[] = {"adapter_model.safetensors", "pytorch_lora_weights.safetensors"};
    char config[4096];
    snprintf(file, 4096, "%s", path);
    for (int i = 0; i < 2; i++) {
        char name[4096];
        if (snprintf(name, sizeof name, "%s/%s", path, inside[i]) < (int)sizeof name && !access(name, F_OK)) {
            memcpy(file, name, sizeof name);
            break;
        }
    }
    if (!strcmp(file, path) && path_kind(path, err, errlen) == PATH_FOLDER) refuse_folder(path, err, errlen);
    if (*err || !ends_with(file, inside[0])) return NULL;
    snprintf(config, sizeof config, "%.*sadapter_config.json", (int)(strlen(file) - strlen(inside[0])), file);
    return access(config, F_OK) ? NULL : json_file_read(config, 1 << 20, err, errlen);
}

struct adapter *adapter_read(const char *path, struct adapter_base base, float **values, char *err,
                             size_t errlen)
{
    char why[400] = "", file[4096];
    struct adapter *a = NULL;
    struct header h = {.prefix = own_prefix, .spec = {.kind = "standard"}, .base = base};
    *values = NULL;
    *err = 0;
    json_t *peft = find_file(file, path, err, errlen);
    struct safetensors *s = *err ? NULL : safetensors_open(file, err, errlen);
    if (s) {
        h.file = s;
        h.ours = parse_metadata(s, "sluice");
        if (s->count && !strncmp(s->entry[0].name, peft_prefix, strlen(peft_prefix))) h.prefix = peft_prefix;
        a = describe(&h, peft, why, sizeof why);
    }
    bool good = a && ((*values = malloc((size_t)a->size * sizeof **values)) ||
                      fail(why, sizeof why, "out of memory"));
    for (int i = 0; good && i < a->modules * a->params; i++)
        good = read_param(&h, a, i / a->params, i % a->params, *values, why, sizeof why);
    good = good && no_stranger(&h, a, why, sizeof why);
    if (s && !good) fail(err, errlen, "%s: %s", file, why);
    json_decref(h.ours);
    json_decref(peft);
    safetensors_close(s);
    if (good) {
        a->hash = hash64(0, *values, (size_t)a->size * sizeof **values);
        return a;
    }
    adapter_close(a);
    free(*values);
    *values = NULL;
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
