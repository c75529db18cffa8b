/* The files of adapter.h: written, and read for use. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/learning/adapter_source.h"
#include "formats/error.h"
#include "formats/hash.h"

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

void adapter_header_ours(json_t *metadata, json_t *description_stolen)
{
    set_dump(metadata, "sluice", description_stolen);
}

/* PEFT takes just fields that it knows; diffusers wants the patterns, too. */
void adapter_header_peft(json_t *metadata, const struct adapter *a)
{
    set_dump(metadata, "lora_adapter_metadata",
             json_pack("{s:I, s:o, s:o, s:{}, s:{}}", "transformer.r", (json_int_t)a->rank,
                       "transformer.lora_alpha", number(a->alpha), "transformer.target_modules",
                       target_list(a), "transformer.rank_pattern", "transformer.alpha_pattern"));
}

bool adapter_write(const struct adapter *a, const char *path, const float *values, char *err, size_t errlen)
{
    int count = a->modules * a->params;
    struct safetensors_item *items = calloc((size_t)count, sizeof *items);
    char(*names)[160] = calloc((size_t)count, sizeof *names);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    bool good = items && names;
    if (!good) fail(err, errlen, "out of memory");
    adapter_header_ours(metadata, adapter_description(a));
    if (a->kind->peft) adapter_header_peft(metadata, a);
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

struct adapter *adapter_read(const char *path, struct adapter_base base, float **values, char *err,
                             size_t errlen)
{
    struct adapter_source h;
    *values = NULL;
    if (!adapter_source_open(&h, path, base, err, errlen)) return NULL;
    struct adapter *a = h.adapter;
    char why[400] = "";
    bool good =
        (*values = malloc((size_t)a->size * sizeof **values)) || fail(why, sizeof why, "out of memory");
    for (int i = 0; good && i < a->modules * a->params; i++) {
        struct tensor flat = tensor_of(DT_F32, *values, 1, a->size),
                      to = adapter_view(a, &flat, i / a->params, i % a->params);
        const struct safetensors_entry *e =
            adapter_source_find(&h, i / a->params, i % a->params, why, sizeof why);
        good = e && adapter_source_read(&h, e, to.data, why, sizeof why);
    }
    if (good) h.adapter = NULL;
    if (!good) fail(err, errlen, "%s: %s", h.path, why);
    adapter_source_close(&h);
    if (good) {
        a->hash = hash64(0, *values, (size_t)a->size * sizeof **values);
        return a;
    }
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
