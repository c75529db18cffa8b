/* Loading, with a LoRA checkpoint or without. A checkpoint as upstream's driver takes it: the state of the
 * whole network within its adapter library, every name beginning with "base_model.model.", the frozen weight
 * of a projection named X.weight or, in newer versions of that library, X.base_layer.weight. */
#include <stdlib.h>
#include <string.h>

#include "filters/nets/owl_net.h"
#include "filters/lib/rng.h"

enum { RANK = 32, ALPHA = 32 };
#define PREFIX "base_model.model."

/* One of the seven matrices of a decoder layer. */
static bool is_projection(const struct param *p)
{
    return !strncmp(p->name, "language_model.", 15) && ends_with(p->name, "_proj.weight");
}

/* The name without ".weight", for printf's %.*s. */
#define STEM(p) (int)(strlen((p)->name) - strlen(".weight")), (p)->name

/* What a checkpoint of these parameters holds. */
static void checkpoint_params(struct params *list, const struct params *base, bool frozen, bool layered)
{
    for (int i = 0; i < base->count; i++) {
        const struct param *p = &base->param[i];
        struct param *to = NULL;
        struct tensor a = shape_of(2, RANK, p->shape.shape[1]), b = shape_of(2, p->shape.shape[0], RANK);
        if (frozen && layered && is_projection(p))
            to = param_add(list, p->slot, p->shape, 0, 0, PREFIX "%.*s.base_layer.weight", STEM(p));
        else if (frozen)
            to = param_add(list, p->slot, p->shape, 0, 0, PREFIX "%s", p->name);
        if (to) param_swap(to, p->outer, p->inner), param_part(to, p->part, p->parts);
        if (!is_projection(p)) continue;
        param_add(list, NULL, a, 0, 0, PREFIX "%.*s.lora_A.default.weight", STEM(p));
        param_add(list, NULL, b, 0, 0, PREFIX "%.*s.lora_B.default.weight", STEM(p));
    }
}

/* A tensor of the file in scratch memory. */
static struct tensor fetch(struct owl *o, const struct model_weights *w, char *err, size_t errlen,
                           const char *half, const struct param *p)
{
    char name[256];
    snprintf(name, sizeof name, PREFIX "%.*s.lora_%s.default.weight", STEM(p), half);
    const struct model_tensor *t = model_weights_find(w, name); /* it is there: the load has checked it */
    struct tensor host = t->entry->shape,
                  device = kern_tensor(o->k, kern_compute(o->k), 2, host.shape[0], host.shape[1]);
    host.data = malloc(t->entry->bytes);
    if (!host.data)
        kern_fail(o->k, "out of memory for %s", name);
    else if (!safetensors_read(t->file, t->entry, host.data, err, errlen))
        kern_fail(o->k, "%s", err);
    kern_upload(o->k, &device, &host);
    free(host.data);
    return device;
}

/* W += alpha / rank B A */
static bool merge(struct owl *o, const struct params *base, const struct model_weights *w, char *err,
                  size_t errlen)
{
    for (int i = 0; i < base->count && kern_ok(o->k); i++) {
        const struct param *p = &base->param[i];
        if (!is_projection(p)) continue;
        kern_plan_begin(o->k);
        kern_tensor(o->k, kern_compute(o->k), 2, p->shape.shape[1], RANK);
        kern_tensor(o->k, kern_compute(o->k), 2, p->shape.shape[0], RANK);
        kern_reserve(o->k, kern_plan_end(o->k));
        size_t mark = kern_mark(o->k);
        struct tensor a = fetch(o, w, err, errlen, "A", p), b = fetch(o, w, err, errlen, "B", p);
        struct tensor rows =
            p->parts ? tensor_rows(p->slot, p->part * p->shape.shape[0], p->shape.shape[0]) : *p->slot;
        matmul(o->k, &rows, &b, false, &a, false, (double)ALPHA / RANK, 1);
        kern_release(o->k, mark);
    }
    return kern_ok(o->k) || fail(err, errlen, "%s", kern_error(o->k));
}

/* Which form the checkpoint has: with the frozen weights, and with these in layers of their own. */
static void find_form(const struct model_weights *w, bool *frozen, bool *layered)
{
    *frozen = *layered = false;
    for (int i = 0; i < w->count; i++) {
        if (!strstr(w->tensor[i].name, ".lora_")) *frozen = true;
        if (ends_with(w->tensor[i].name, ".base_layer.weight")) *layered = true;
    }
}

static bool load_checkpoint(struct owl *o, const struct params *base, const struct model *m, const char *path,
                            const struct model_weights *w, char *err, size_t errlen)
{
    static const char *const ignored[] = {
        PREFIX "language_model.model.layers.*.self_attn.rotary_emb.inv_freq", NULL};
    struct params list = {0};
    char id[17] = "", own[17];
    bool frozen, layered;
    find_form(w, &frozen, &layered);
    checkpoint_params(&list, base, frozen, layered);
    bool good = (frozen || weights_load(o->k, base, m, "", owl_grader.alias, id, err, errlen)) &&
                weights_load_file(o->k, &list, m, "", path, ignored, own, err, errlen) &&
                merge(o, base, w, err, errlen);
    params_free(&list);
    snprintf(o->id, sizeof o->id, "%016llx",
             (unsigned long long)hash64(hash64(0, id, strlen(id)), own, strlen(own)));
    return good;
}

bool owl_load(struct owl *o, const struct params *list, const struct model *m, const char *lora, char *err,
              size_t errlen)
{
    if (!lora) return weights_load(o->k, list, m, "", owl_grader.alias, o->id, err, errlen);
    struct model_weights *w = model_weights_open_file(lora, err, errlen);
    bool good = w && load_checkpoint(o, list, m, lora, w, err, errlen);
    model_weights_close(w);
    return good;
}
