#include "filters/learning/adapter_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/json_file.h"
#include "formats/listed.h"
#include "formats/names.h"
#include "formats/path.h"

static json_t *parse_metadata(const struct safetensors *s, const char *key)
{
    const char *text = json_string_value(json_object_get(s->metadata, key));
    return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

/* ---- what a file says of itself ------------------------------------------------------------------------ */

static bool same_targets(const struct target_list *a, const struct target_list *b)
{
    for (int i = 0; i < a->count; i++)
        if (!target_list_has(b, a->name[i])) return false;
    return a->count == b->count;
}

/* A rank and an alpha that `where` states; 0: it does not. */
static bool state(struct adapter_source *h, const char *where, int64_t rank, double alpha, char *err,
                  size_t errlen)
{
    struct adapter_spec *spec = &h->spec;
    if (rank && spec->rank && rank != spec->rank)
        return fail(err, errlen, "its descriptions disagree: rank %lld and %lld (%s)", (long long)spec->rank,
                    (long long)rank, where);
    if (alpha > 0 && spec->alpha > 0 && alpha != spec->alpha)
        return fail(err, errlen, "its descriptions disagree: alpha %g and %g (%s)", spec->alpha, alpha,
                    where);
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

static bool read_ours(struct adapter_source *h, char *err, size_t errlen)
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
    return (layers == linears->blocks && (!linears->width || width == linears->width)) ||
           fail(err, errlen, "it was made for %lld layers of width %lld, the model has %lld of %lld",
                (long long)layers, (long long)width, (long long)linears->blocks, (long long)linears->width);
}

/* The file decides for what size of frame it is, and must fit what is asked for, if anything is. */
static bool read_grid(struct adapter_source *h, char *err, size_t errlen)
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
static bool read_peft(struct adapter_source *h, json_t *peft, const char *where, const char *prefix,
                      char *err, size_t errlen)
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

/* A header's field that is a number by itself: kohya's ss_network_dim, and what others call rank and alpha. */
static bool is_field(const char *key, const char *const *names)
{
    const char *name = !strncmp(key, "transformer.", 12) ? key + 12 : key;
    for (int i = 0; names[i]; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}
static const char *const ranks[] = {"r", "rank", "lora_rank", "network_dim", "ss_network_dim", NULL},
                         *const alphas[] = {"alpha", "lora_alpha", "network_alpha", "ss_network_alpha", NULL},
                         *const others[] = {"sluice", "lora_adapter_metadata", "lora_config", NULL};

bool adapter_header_states(const char *key)
{
    return is_field(key, ranks) || is_field(key, alphas) || is_field(key, others);
}

/* One that speaks of alpha in a way that is not known is refused. */
static bool read_field(struct adapter_source *h, const char *key, const char *text, char *err, size_t errlen)
{
    const bool rank = is_field(key, ranks), alpha = is_field(key, alphas);
    if (!rank && !alpha)
        return !strstr(key, "alpha") || fail(err, errlen, "its header's `%s` is not known here", key);
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0) || (rank && value != floor(value)))
        return fail(err, errlen, "its header's `%s` is no number above 0", key);
    return state(h, key, rank ? (int64_t)value : 0, rank ? 0 : value, err, errlen);
}

/* The linear whose tensor is called so, and the rest of the name behind it; NULL: none. */
static const struct linear *linear_of(const struct adapter_source *h, const char *name, const char **part)
{
    int i = adapter_form_linear(&h->form, h->base.linears, name, part);
    return i < 0 ? NULL : &h->base.linears->linear[i];
}

/* alpha as a tensor beside the matrices. Of two bytes it may be, so that a header has more digits. */
static bool read_alpha(struct adapter_source *h, const struct safetensors_entry *e, char *err, size_t errlen)
{
    double data[1], before = h->spec.alpha, rounded[1];
    struct tensor t = e->shape, first = tensor_of(DT_F64, &before, 0), back = tensor_of(DT_F64, rounded, 0);
    if (tensor_count(&t) != 1) return fail(err, errlen, "tensor %s is no single number", e->name);
    t.data = data;
    t.rank = 0;
    tensor_convert(&t, &first);
    tensor_convert(&back, &t);
    if (!safetensors_read(h->file, e, data, err, errlen)) return false;
    double alpha = tensor_get(&t, 0);
    if (!(alpha > 0) || !isfinite(alpha)) return fail(err, errlen, "tensor %s is no number above 0", e->name);
    return state(h, e->name, 0, alpha == rounded[0] ? before : alpha, err, errlen);
}

/* Beside every matrix, or beside none; one beside nothing is found as a stranger. */
static bool read_alphas(struct adapter_source *h, char *err, size_t errlen)
{
    const char *part, *with = NULL, *without = NULL;
    for (int i = 0; i < h->file->count; i++) {
        const struct safetensors_entry *e = &h->file->entry[i];
        const struct linear *l = linear_of(h, e->name, &part);
        char name[160];
        if (l && !strcmp(part, h->form.part[PART_ALPHA])) {
            with = e->name;
            if (!read_alpha(h, e, err, errlen)) return false;
        } else if (l && !strcmp(part, h->form.part[PART_B])) {
            adapter_form_name(&h->form, l, h->form.part[PART_ALPHA], name);
            if (!safetensors_find(h->file, name)) without = e->name;
        }
    }
    return !with || !without || fail(err, errlen, "it has %s, and no alpha beside %s", with, without);
}

/* What nothing states: rank and targets are those of the tensors, alpha is the rank, as diffusers takes it. */
static bool read_tensors(struct adapter_source *h, char *err, size_t errlen)
{
    const struct safetensors *s = h->file;
    const bool targets = h->spec.targets.count > 0, rank = h->spec.rank > 0 || h->ours;
    for (int i = 0; i < s->count; i++) {
        const char *part;
        const struct linear *l = linear_of(h, s->entry[i].name, &part);
        if (!l || strcmp(part, h->form.part[PART_B]) || s->entry[i].shape.rank != 2) continue;
        const int64_t its = s->entry[i].shape.shape[1];
        if (!rank && h->spec.rank && its != h->spec.rank)
            return fail(err, errlen, "tensor %s is of rank %lld, others are of rank %lld: an adapter has one",
                        s->entry[i].name, (long long)its, (long long)h->spec.rank);
        if (!rank) h->spec.rank = its;
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

static bool read_statements(struct adapter_source *h, json_t *peft, char *err, size_t errlen)
{
    static const char *const configs[][2] = {{"lora_adapter_metadata", "transformer."}, {"lora_config", ""}};
    const char *key;
    json_t *value;
    if (h->ours && !read_ours(h, err, errlen)) return false;
    if (!read_grid(h, err, errlen)) return false;
    for (int i = 0; i < 2; i++) {
        json_t *config = parse_metadata(h->file, configs[i][0]);
        /* diffusers leaves the prefix out where a transformer's adapter is saved without its pipeline */
        const char *prefix = json_object_get(config, "r") ? "" : configs[i][1];
        bool good = config ? read_peft(h, config, configs[i][0], prefix, err, errlen)
                           : !json_object_get(h->file->metadata, configs[i][0]) ||
                                 fail(err, errlen, "its `%s` is not JSON", configs[i][0]);
        json_decref(config);
        if (!good) return false;
    }
    if (peft && !read_peft(h, peft, "adapter_config.json", "", err, errlen)) return false;
    json_object_foreach (h->file->metadata, key, value)
        if (!read_field(h, key, json_string_value(value), err, errlen)) return false;
    return read_alphas(h, err, errlen);
}

/* Kind, rank, alpha and targets as the file says, in whichever way it does. peft: the adapter_config.json that
 * belongs to it, or NULL. */
static struct adapter *describe(struct adapter_source *h, json_t *peft, char *err, size_t errlen)
{
    struct adapter *a = NULL;
    bool good = h->ours || !json_object_get(h->file->metadata, "sluice") ||
                fail(err, errlen, "its `sluice` header is not JSON");
    good = good && read_statements(h, peft, err, errlen) && read_tensors(h, err, errlen);
    if (good && h->form.config && !peft && !h->ours)
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

/* ---- its tensors --------------------------------------------------------------------------------------- */

/* What parameter p of a module is called in this file. */
static void name_in_file(const struct adapter_source *h, const struct adapter *a, int module, int p,
                         char name[160])
{
    const struct adapter_module *m = &a->module[module];
    const char *param = a->layout[m->layout].param[p].name;
    adapter_form_name(&h->form, &h->base.linears->linear[m->linear], a->kind->peft ? h->form.part[p] : param,
                      name);
}

const struct safetensors_entry *adapter_source_find(const struct adapter_source *h, int module, int p,
                                                    char *err, size_t errlen)
{
    const struct adapter *a = h->adapter;
    const struct tensor flat = tensor_of(DT_F32, NULL, 1, a->size);
    const struct tensor wanted = adapter_view(a, &flat, module, p);
    char name[160], is[160], should[160];
    name_in_file(h, a, module, p, name);
    const struct safetensors_entry *e = safetensors_find(h->file, name);
    if (!e) {
        struct listed l = listed_start(NULL); /* the nearest is most likely another block's */
        for (int i = 0; i < h->file->count; i++) listed_add(&l, h->file->entry[i].name);
        fail(err, errlen, "lacks tensor %s: %s", name, listed_end(&l));
        return NULL;
    }
    if (tensor_same_shape(&e->shape, &wanted) && dtype_is_float(e->shape.dtype)) return e;
    fail(err, errlen, "tensor %s is %s, its description (rank %lld) says %s", name,
         tensor_describe(is, sizeof is, &e->shape), (long long)a->rank,
         tensor_describe(should, sizeof should, &wanted));
    return NULL;
}

bool adapter_source_read(const struct adapter_source *h, const struct safetensors_entry *e, float *values,
                         char *err, size_t errlen)
{
    struct tensor raw = e->shape, to = e->shape;
    to.dtype = DT_F32;
    to.data = values;
    raw.data = malloc(e->bytes + 1);
    bool good =
        raw.data ? safetensors_read(h->file, e, raw.data, err, errlen) : fail(err, errlen, "out of memory");
    if (good) tensor_convert(&to, &raw);
    for (int64_t i = 0; good && i < tensor_count(&to); i++)
        if (!isfinite(values[i]))
            good = fail(err, errlen, "tensor %s has a value that is not finite", e->name);
    free(raw.data);
    return good;
}

/* Names a tensor that belongs to nothing: what is not used has no place in an adapter. */
static bool no_stranger(const struct adapter_source *h, char *err, size_t errlen)
{
    const struct adapter *a = h->adapter;
    for (int i = 0; i < h->file->count; i++) {
        const char *name = h->file->entry[i].name, *part = NULL;
        const int linear = adapter_form_linear(&h->form, h->base.linears, name, &part),
                  module = linear < 0 ? -1 : a->module_of[linear];
        bool mine = module >= 0 && a->kind->peft && !strcmp(part, h->form.part[PART_ALPHA]);
        for (int p = 0; module >= 0 && !mine && p < a->params; p++)
            mine = !strcmp(part, a->kind->peft ? h->form.part[p]
                                               : a->layout[a->module[module].layout].param[p].name);
        if (!mine)
            return adapter_form_stranger(name, "belongs to no matrix of the adapter: it would have no effect",
                                         err, errlen);
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
        if (snprintf(name, sizeof name, "%s/%s", path, inside[i]) < (int)sizeof name &&
            path_kind(name, err, errlen) != PATH_ABSENT) {
            memcpy(file, name, sizeof name);
            break;
        }
    }
    if (!strcmp(file, path) && path_kind(path, err, errlen) == PATH_FOLDER) refuse_folder(path, err, errlen);
    if (*err || !ends_with(file, inside[0])) return NULL;
    snprintf(config, sizeof config, "%.*sadapter_config.json", (int)(strlen(file) - strlen(inside[0])), file);
    return path_kind(config, err, errlen) == PATH_ABSENT ? NULL
                                                         : json_file_read(config, 1 << 20, err, errlen);
}

struct safetensors *adapter_file_open(char file[4096], const char *path, json_t **config, char *err,
                                      size_t errlen)
{
    *err = 0;
    json_t *peft = find_file(file, path, err, errlen);
    struct safetensors *s = *err ? NULL : safetensors_open(file, err, errlen);
    if (config)
        *config = peft;
    else
        json_decref(peft);
    return s;
}

static bool open_source(struct adapter_source *h, json_t *peft, char *err, size_t errlen)
{
    /* a kind of ours that is no plain LoRA has no form but ours */
    const char *variant = json_string_value(json_object_get(h->ours, "variant"));
    if (variant && strcmp(variant, h->spec.kind))
        adapter_form_of(&h->form, TOOL_PEFT, h->base.linears);
    else if (!adapter_form_find(&h->form, h->file, h->base.linears, err, errlen))
        return false;
    if (!(h->adapter = describe(h, peft, err, errlen))) return false;
    for (int i = 0; i < h->adapter->modules * h->adapter->params; i++)
        if (!adapter_source_find(h, i / h->adapter->params, i % h->adapter->params, err, errlen))
            return false;
    return no_stranger(h, err, errlen);
}

bool adapter_source_open(struct adapter_source *h, const char *path, struct adapter_base base, char *err,
                         size_t errlen)
{
    char why[400] = "";
    *h = (struct adapter_source){.spec = {.kind = "standard"}, .base = base};
    json_t *peft = NULL;
    h->file = adapter_file_open(h->path, path, &peft, err, errlen);
    if (h->file) h->ours = parse_metadata(h->file, "sluice");
    bool good = h->file && open_source(h, peft, why, sizeof why);
    if (h->file && !good) fail(err, errlen, "%s: %s", h->path, why);
    json_decref(peft);
    if (!good) adapter_source_close(h);
    return good;
}

void adapter_source_close(struct adapter_source *h)
{
    adapter_close(h->adapter);
    json_decref(h->ours);
    safetensors_close(h->file);
    h->adapter = NULL;
    h->ours = NULL;
    h->file = NULL;
}
