/* adapter_convert() of adapter.h: from one form of adapter_form.h to another. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/learning/adapter_source.h"
#include "formats/error.h"

enum { MOST_BLOCKS = 1000 };

/* ---- without the model --------------------------------------------------------------------------------- */

/* One more than the largest block that a tensor's name has for its first number. */
static int64_t count_blocks(const struct safetensors *s)
{
    int64_t blocks = 1;
    for (int i = 0; i < s->count; i++) {
        const char *digits = strpbrk(s->entry[i].name, "0123456789");
        long block = digits ? strtol(digits, NULL, 10) : 0;
        if (block >= blocks && block < MOST_BLOCKS) blocks = block + 1;
    }
    return blocks;
}

bool adapter_linears(struct linears *l, const char *path, const struct linear_names *names, char *err,
                     size_t errlen)
{
    char file[4096];
    struct adapter_form f;
    *l = (struct linears){0};
    struct safetensors *s = adapter_file_open(file, path, NULL, err, errlen);
    bool good = s && (linears_name(l, names, count_blocks(s)) || fail(err, errlen, "out of memory")) &&
                adapter_form_find(&f, s, l, err, errlen);
    for (int i = 0; good && i < s->count; i++) {
        const char *part;
        const struct tensor *t = &s->entry[i].shape;
        const int at = adapter_form_linear(&f, l, s->entry[i].name, &part);
        if (at < 0 || t->rank != 2) continue;
        if (!strcmp(part, f.part[PART_A])) l->linear[at].in = t->shape[1];
        if (!strcmp(part, f.part[PART_B])) l->linear[at].out = t->shape[0];
    }
    for (int i = 0; good && i < l->count; i++) {
        const struct linear *e = &l->linear[i];
        char name[160];
        adapter_form_name(&f, e, f.part[e->in ? PART_B : PART_A], name);
        if (!e->in != !e->out) good = fail(err, errlen, "%s: lacks tensor %s", file, name);
    }
    safetensors_close(s);
    if (!good) free(l->linear);
    return good;
}

/* ---- converting ---------------------------------------------------------------------------------------- */

/* A tensor of the new file. */
struct item {
    int linear, part;
    char name[160];
};

struct conversion {
    struct adapter_source from;
    struct adapter_form to;
    double alpha, folded;
    struct item *item;
    struct safetensors_item *out; /* name and shape of each item */
    int items;
};

static bool fold(const struct conversion *c, const struct safetensors_entry *e, struct tensor *to, char *err,
                 size_t errlen)
{
    const int64_t n = tensor_count(to);
    float *values = malloc((size_t)n * sizeof *values + 1);
    struct tensor from = tensor_of(DT_F32, values, 1, n);
    bool good =
        values ? adapter_source_read(&c->from, e, values, err, errlen) : fail(err, errlen, "out of memory");
    for (int64_t i = 0; good && i < n; i++) values[i] = (float)(values[i] * c->folded);
    if (good) tensor_convert(to, &from);
    free(values);
    return good;
}

/* The matrix p of a module, as the new file has it. */
static bool load_matrix(const struct conversion *c, int module, int p, void *data, char *err, size_t errlen)
{
    const struct safetensors_entry *e = adapter_source_find(&c->from, module, p, err, errlen);
    if (!e) return false;
    const bool folded = p == PART_B && c->folded != 1;
    struct tensor t = e->shape;
    t.data = data;
    if (!(folded ? fold(c, e, &t, err, errlen) : safetensors_read(c->from.file, e, data, err, errlen)))
        return false;
    for (int64_t i = 0; i < tensor_count(&t); i++)
        if (!isfinite(tensor_get(&t, i)))
            return fail(err, errlen, "tensor %s has a value that is not finite%s", e->name,
                        folded ? ", now that alpha is folded into it" : "");
    return true;
}

/* safetensors_load: item i's bytes. */
static bool load(void *context, int i, void *data, char *err, size_t errlen)
{
    const struct conversion *c = context;
    const struct item *item = &c->item[i];
    const int module = c->from.adapter->module_of[item->linear];
    const float alpha = (float)c->alpha;
    if (item->part != PART_ALPHA && module >= 0) return load_matrix(c, module, item->part, data, err, errlen);
    if (item->part == PART_ALPHA)
        memcpy(data, &alpha, sizeof alpha);
    else
        memset(data, 0, tensor_bytes(&c->out[i].t));
    return true;
}

static void add_item(struct conversion *c, int linear, int part, struct tensor shape)
{
    struct item *item = &c->item[c->items];
    *item = (struct item){.linear = linear, .part = part};
    adapter_form_name(&c->to, &c->from.base.linears->linear[linear], c->to.part[part], item->name);
    c->out[c->items++] = (struct safetensors_item){item->name, shape};
}

/* The tensors of the linear i: its matrices as they are, or zeros, and alpha where the form has it. */
static bool add_linear(struct conversion *c, int i, char *err, size_t errlen)
{
    const struct adapter *a = c->from.adapter;
    const struct linear *l = &c->from.base.linears->linear[i];
    const enum dtype dtype = adapter_source_find(&c->from, 0, PART_A, err, errlen)->shape.dtype;
    struct tensor shape[] = {tensor_of(dtype, NULL, 2, a->rank, l->in),
                             tensor_of(dtype, NULL, 2, l->out, a->rank)};
    if (!l->in || !l->out)
        return fail(err, errlen, "the size of %s, which the adapter leaves out, is the model's alone to say",
                    l->name);
    for (int p = PART_A; p <= PART_B; p++) {
        if (a->module_of[i] >= 0)
            shape[p] = adapter_source_find(&c->from, a->module_of[i], p, err, errlen)->shape;
        add_item(c, i, p, shape[p]);
    }
    if (c->to.tool == TOOL_KOHYA) add_item(c, i, PART_ALPHA, tensor_of(DT_F32, NULL, 0));
    return true;
}

/* The header: what the form states in it, and of the old one what is no such statement, or a hash of the file. */
static json_t *new_header(const struct conversion *c, bool complete)
{
    struct adapter *a = c->from.adapter;
    json_t *header = json_pack("{s:s}", "format", "pt"), *value;
    const char *key;
    json_object_foreach (c->from.file->metadata, key, value)
        if (!adapter_header_states(key) && strncmp(key, "sshs_", 5)) json_object_set(header, key, value);
    a->alpha = c->alpha;
    if (c->from.ours) {
        json_t *ours = json_copy(c->from.ours);
        if (c->folded != 1) json_object_set_new(ours, "alpha", json_integer((json_int_t)a->rank));
        if (complete) {
            json_t *targets = json_array();
            const struct linears *l = c->from.base.linears;
            for (int i = 0; i < l->count && l->linear[i].block == 0; i++)
                json_array_append_new(targets, json_string(l->linear[i].target));
            json_object_set_new(ours, "targets", targets);
        }
        adapter_header_ours(header, ours);
    }
    if (c->to.tool == TOOL_PEFT) adapter_header_peft(header, a);
    if (c->to.tool == TOOL_KOHYA) {
        json_object_set_new(header, "ss_network_dim", json_sprintf("%lld", (long long)a->rank));
        json_object_set_new(header, "ss_network_alpha", json_sprintf("%.9g", c->alpha));
    }
    return header;
}

static bool convert(struct conversion *c, const char *to, bool complete, struct adapter_converted *did,
                    char *err, size_t errlen)
{
    const struct linears *l = c->from.base.linears;
    const struct adapter *a = c->from.adapter;
    *did = (struct adapter_converted){.rank = a->rank, .alpha = a->alpha, .folded = 1};
    if (c->to.tool == TOOL_COMFYUI) {
        did->folded = a->alpha / (double)a->rank;
        did->alpha = (double)a->rank;
    }
    c->alpha = did->alpha;
    c->folded = did->folded;
    c->item = calloc((size_t)l->count * FORM_PARTS, sizeof *c->item);
    c->out = calloc((size_t)l->count * FORM_PARTS, sizeof *c->out);
    if (!c->item || !c->out) return fail(err, errlen, "out of memory");
    for (int i = 0; i < l->count; i++) {
        if (a->module_of[i] < 0 && !complete) continue;
        did->zeros += a->module_of[i] < 0;
        did->modules++;
        if (!add_linear(c, i, err, errlen)) return false;
    }
    json_t *header = new_header(c, complete);
    bool good = safetensors_write_each(to, c->out, c->items, header, load, c, err, errlen);
    json_decref(header);
    return good;
}

bool adapter_convert(const char *from, const char *to, const char *tool, bool complete,
                     struct adapter_base base, struct adapter_converted *did, char *err, size_t errlen)
{
    char why[600];
    struct conversion c = {0};
    enum adapter_tool t;
    if (!adapter_tool_parse(&t, tool)) return fail(err, errlen, "no form is called %s", tool);
    if (!adapter_form_of(&c.to, t, base.linears))
        return fail(err, errlen, "%s has no form for adapters of this network", tool);
    if (complete && !c.to.original)
        return fail(err, errlen, "diffusers reads no %s form of this network", tool);
    if (!adapter_source_open(&c.from, from, base, err, errlen)) return false;
    bool good = c.from.adapter->kind->peft
                    ? convert(&c, to, complete, did, why, sizeof why)
                    : fail(why, sizeof why, "adapter %s is no plain LoRA: no other tool has a form for it",
                           c.from.adapter->kind->name);
    if (!good) fail(err, errlen, "%s: %s", c.from.path, why);
    adapter_source_close(&c.from);
    free(c.item);
    free(c.out);
    return good;
}
