#include "filters/learning/adapter_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/listed.h"

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

/* ---- making -------------------------------------------------------------------------------------------- */

static const struct adapter_kind *find_kind(const char *name, char *err, size_t errlen)
{
    struct listed l = listed_start(name);
    for (int i = 0; i < KINDS; i++) {
        if (!strcmp(name, kinds[i]->name)) return kinds[i];
        listed_add(&l, kinds[i]->name);
    }
    fail(err, errlen, "no adapter `%s`: %s", name, listed_end(&l));
    return NULL;
}

static int64_t elements(const struct adapter_param *p)
{
    int64_t n = 1;
    for (int i = 0; i < p->rank; i++) n *= p->shape[i];
    return n;
}

/* The numbers of a->settings into a->set, defaults written back; false for one that is not the kind's. */
static bool parse_settings(struct adapter *a, char *err, size_t errlen)
{
    static const struct adapter_setting none[] = {{0}};
    const struct adapter_setting *list = a->kind->setting ? a->kind->setting : none;
    const char *name;
    json_t *value;
    int count = 0;
    while (list[count].name) count++;
    json_object_foreach (a->settings, name, value) {
        int i = 0;
        while (i < count && strcmp(name, list[i].name)) i++;
        if (i == count) {
            struct listed l = listed_start(name);
            listed_words(&l, "rank|alpha");
            for (i = 0; i < count; i++) listed_add(&l, list[i].name);
            return fail(err, errlen, "adapter %s has no setting `%s`: %s", a->kind->name, name,
                        listed_end(&l));
        }
        if (!json_is_integer(value) || json_integer_value(value) < list[i].low ||
            json_integer_value(value) > list[i].high)
            return fail(err, errlen, "adapter %s: %s is a whole number from %lld to %lld", a->kind->name,
                        name, (long long)list[i].low, (long long)list[i].high);
    }
    for (int i = 0; i < count; i++) {
        if (!json_object_get(a->settings, list[i].name))
            json_object_set_new(a->settings, list[i].name, json_integer(list[i].fallback));
        a->set[i] = json_integer_value(json_object_get(a->settings, list[i].name));
    }
    return true;
}

/* The layout for linears of that size; -1 with the reason in err. */
static int layout_of(struct adapter *a, const struct linear *linear, char *err, size_t errlen)
{
    for (int i = 0; i < a->layouts; i++)
        if (a->layout[i].in == linear->in && a->layout[i].out == linear->out) return i;
    struct adapter_layout *more = realloc(a->layout, ((size_t)a->layouts + 1) * sizeof *more);
    if (!more) return fail(err, errlen, "out of memory"), -1;
    a->layout = more;
    struct adapter_layout *l = &more[a->layouts];
    *l = (struct adapter_layout){.in = linear->in, .out = linear->out};
    if (!(a->params = a->kind->declare(a, l, err, errlen))) return -1;
    for (int p = 0; p < a->params; p++) {
        l->param[p].offset = l->size;
        l->size += elements(&l->param[p]);
    }
    return a->layouts++;
}

static bool is_target(const struct adapter *a, const struct linear *l)
{
    for (int t = 0; t < a->targets; t++)
        if (!strcmp(a->target[t], l->target)) return true;
    return false;
}

/* A module at every linear that is a target. */
static bool place(struct adapter *a, char *err, size_t errlen)
{
    const struct linears *base = a->base.linears;
    a->module = calloc((size_t)base->count + 1, sizeof *a->module);
    a->module_of = calloc((size_t)base->count + 1, sizeof *a->module_of);
    if (!a->module || !a->module_of) return fail(err, errlen, "out of memory");
    for (int i = 0; i < base->count; i++) {
        const struct linear *l = &base->linear[i];
        a->module_of[i] = -1;
        if (!is_target(a, l)) continue;
        if (a->kind->grid && l->text_only)
            return fail(err, errlen, "adapter %s works on frames, and %s sees text alone", a->kind->name,
                        l->target);
        int layout = layout_of(a, l, err, errlen);
        if (layout < 0) return false;
        a->module_of[i] = a->modules;
        a->module[a->modules++] = (struct adapter_module){
            .linear = i, .layout = layout, .offset = a->size, .in_working = a->working_size};
        a->size += a->layout[layout].size;
        a->working_size += (a->layout[layout].size + 7) / 8 * 8;
    }
    return true;
}

/* The largest rank: no more than any target has inputs or outputs. */
static int64_t most_rank(const struct adapter *a)
{
    int64_t most = INT64_MAX;
    for (int i = 0; i < a->base.linears->count; i++) {
        const struct linear *l = &a->base.linears->linear[i];
        if (!is_target(a, l)) continue;
        if (l->in < most) most = l->in;
        if (l->out < most) most = l->out;
    }
    return most;
}

struct adapter *adapter_build(const struct adapter_spec *spec, struct adapter_base base, char *err,
                              size_t errlen)
{
    struct adapter *a = calloc(1, sizeof *a);
    if (!a) return json_decref(spec->settings), fail(err, errlen, "out of memory"), NULL;
    a->settings = spec->settings ? spec->settings : json_object();
    a->extra = json_object();
    a->rank = spec->rank;
    a->alpha = spec->alpha;
    a->weight = 1;
    a->base = base;
    bool good = (a->kind = find_kind(spec->kind, err, errlen)) != NULL;
    if (good && !json_is_object(a->settings))
        good = fail(err, errlen, "the settings of adapter %s are no object", spec->kind);
    for (int t = 0; good && t < base.linears->count; t++) { /* in the network's order, each once */
        const struct linear *l = &base.linears->linear[t];
        if (!target_list_has(&spec->targets, l->target) || is_target(a, l)) continue;
        if (a->targets == ADAPTER_MAX_TARGETS)
            good = fail(err, errlen, "more than %d targets", ADAPTER_MAX_TARGETS);
        else
            memcpy(a->target[a->targets++], l->target, sizeof l->target);
    }
    if (good && !a->targets) good = fail(err, errlen, "an adapter needs a target");
    if (good && (a->rank < 1 || a->rank > most_rank(a)))
        good = fail(err, errlen, "adapter rank %lld is outside 1..%lld", (long long)a->rank,
                    (long long)most_rank(a));
    if (good && (!(a->alpha > 0) || !isfinite(a->alpha)))
        good = fail(err, errlen, "adapter alpha %g is not a positive number", a->alpha);
    if (good && a->kind->bound && (base.rows < 1 || base.cols < 1))
        good = fail(err, errlen, "adapter %s needs to know the size of a frame", spec->kind);
    good = good && parse_settings(a, err, errlen) && place(a, err, errlen);
    if (good) return a;
    adapter_close(a);
    return NULL;
}

bool target_list_has(const struct target_list *list, const char *target)
{
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->name[i], target)) return true;
    return false;
}

/* Whether a linear may be called so: by its name within its block, or by more or fewer of its name's last
 * words, as PEFT has it. */
static bool goes_by(const struct linear *l, const char *name, size_t n)
{
    size_t have = strlen(l->name);
    if (strlen(l->target) == n && !strncmp(l->target, name, n)) return true;
    return n <= have && !strncmp(l->name + have - n, name, n) && (n == have || l->name[have - n - 1] == '.');
}

bool target_is_shared(const struct linears *base, const char *name)
{
    bool aside = false, other = false;
    for (int i = 0; i < base->count; i++) {
        if (!goes_by(&base->linear[i], name, strlen(name))) continue;
        aside = aside || base->linear[i].aside;
        other = other || !base->linear[i].aside;
    }
    return aside && other;
}

bool target_list_add(struct target_list *list, const struct linears *base, const char *name, size_t n,
                     char *err, size_t errlen)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)n, name);
    struct listed l = listed_start(wanted);
    const struct linear *found = NULL, *other = NULL; /* the last so called; one of a target that is not */
    bool aside = true;                                /* all that are so called are */
    for (int i = 0; i < base->count; i++)
        if (!base->linear[i].aside && goes_by(&base->linear[i], name, n)) aside = false;
    for (int i = 0; i < base->count; i++) {
        const struct linear *linear = &base->linear[i];
        if (linear->block == base->linear[0].block) listed_add(&l, linear->target);
        if (!goes_by(linear, name, n) || (linear->aside && !aside)) continue;
        found = linear;
        if (target_list_has(list, linear->target)) continue;
        if (list->count == ADAPTER_MAX_TARGETS)
            return fail(err, errlen, "more than %d targets", ADAPTER_MAX_TARGETS);
        memcpy(list->name[list->count++], linear->target, sizeof linear->target);
    }
    if (!found) return fail(err, errlen, "no target `%.*s`: %s", (int)n, name, listed_end(&l));
    for (int i = 0; i < base->count; i++)
        if (!strcmp(base->linear[i].target, found->target) && !goes_by(&base->linear[i], name, n))
            other = &base->linear[i];
    return !other ||
           fail(err, errlen, "target `%.*s` leaves out %s: an adapter takes a linear of every block", (int)n,
                name, other->name);
}

struct adapter *adapter_make(const char *text, const char *targets, struct adapter_base base, char *err,
                             size_t errlen)
{
    char kind[64], *end;
    struct adapter_spec spec = {.kind = kind, .alpha = 16};
    double rank = 16;
    size_t n = strcspn(text, ":");
    snprintf(kind, sizeof kind, "%.*s", (int)n, text);

    for (const char *t = targets ? targets : ""; *t; t += strcspn(t, ","), t += *t == ',')
        if (!target_list_add(&spec.targets, base.linears, t, strcspn(t, ","), err, errlen)) return NULL;
    for (int i = 0; !targets && i < base.linears->count; i++) {
        const char *target = base.linears->linear[i].target;
        if (!base.linears->linear[i].aside && !target_list_has(&spec.targets, target) &&
            !target_list_add(&spec.targets, base.linears, target, strlen(target), err, errlen))
            return NULL;
    }

    spec.settings = json_object();
    for (const char *s = text + n + (text[n] == ':'); *s; s += strcspn(s, ","), s += *s == ',') {
        char name[32];
        size_t length = strcspn(s, "=,");
        double v = s[length] == '=' ? strtod(s + length + 1, &end) : 0;
        if (!length || length >= sizeof name || s[length] != '=' || end == s + length + 1 ||
            (*end && *end != ',')) {
            fail(err, errlen, "adapter `%s`: settings look like name=number,name=number", text);
            json_decref(spec.settings);
            return NULL;
        }
        snprintf(name, sizeof name, "%.*s", (int)length, s);
        if (!strcmp(name, "rank"))
            rank = v;
        else if (!strcmp(name, "alpha"))
            spec.alpha = v;
        else
            json_object_set_new(spec.settings, name,
                                v == floor(v) ? json_integer((json_int_t)v) : json_real(v));
    }
    /* adapter_build() says what is wrong with another */
    spec.rank = rank != floor(rank) || fabs(rank) > 1e6 ? 0 : (int64_t)rank;
    return adapter_build(&spec, base, err, errlen);
}

void adapter_close(struct adapter *a)
{
    if (!a) return;
    json_decref(a->settings);
    json_decref(a->extra);
    free(a->layout);
    free(a->module);
    free(a->module_of);
    free(a);
}

bool adapter_attach(struct adapter *a, struct kern *k, bool training)
{
    a->k = k;
    a->values = a->working = kern_alloc(k, DT_F32, 1, a->size);
    if (kern_compute(k) != DT_F32) a->working = kern_alloc(k, kern_compute(k), 1, a->working_size);
    if (training) a->grads = kern_alloc(k, DT_F32, 1, a->size);
    return kern_ok(k);
}

void adapter_refresh(struct adapter *a)
{
    if (a->working.dtype == DT_F32) return;
    if (a->working_size == a->size) kern_copy(a->k, &a->working, &a->values);
    for (int m = 0; m < a->modules && a->working_size != a->size; m++) {
        const struct adapter_module *at = &a->module[m];
        const int64_t size = a->layout[at->layout].size;
        struct tensor to = tensor_rows(&a->working, at->in_working, size),
                      from = tensor_rows(&a->values, at->offset, size);
        kern_copy(a->k, &to, &from);
    }
}

static void fill_param(const struct adapter *a, const struct adapter_param *p, const struct rng *r, float *v)
{
    int64_t n = elements(p), in = p->shape[p->rank - 1], out = p->rank > 1 ? p->shape[p->rank - 2] : in;
    double bound = p->init == INIT_KAIMING_UNIFORM  ? 1 / sqrt((double)in)
                   : p->init == INIT_XAVIER_UNIFORM ? sqrt(6 / (double)(in + out))
                                                    : 0;
    if (p->init == INIT_OWN) a->kind->fill(a, p, r, v);
    for (int64_t i = 0; i < n && p->init != INIT_OWN; i++)
        v[i] = p->init == INIT_ONE ? 1
               : bound > 0         ? (float)(bound * (2 * rng_uniform(r, (uint64_t)i) - 1))
                                   : 0;
}

void adapter_init(struct adapter *a, uint64_t seed)
{
    for (int m = 0; m < a->modules; m++)
        for (int p = 0; p < a->params; p++) {
            const struct adapter_param *q = &a->layout[a->module[m].layout].param[p];
            char name[160];
            adapter_param_name(a, m, p, name, sizeof name);
            struct rng r = rng_make(seed, name, "adapter-init", 0);
            float *v = malloc((size_t)elements(q) * sizeof *v);
            if (!v) {
                kern_fail(a->k, "no memory for %lld initial values", (long long)elements(q));
                return;
            }
            fill_param(a, q, &r, v);
            struct tensor view = adapter_view(a, &a->values, m, p), host = view;
            host.data = v;
            kern_upload(a->k, &view, &host);
            free(v);
        }
    adapter_refresh(a);
}

/* ---- looking up ---------------------------------------------------------------------------------------- */

void adapter_param_name(const struct adapter *a, int module, int p, char *name, size_t size)
{
    const struct adapter_module *m = &a->module[module];
    snprintf(name, size, "transformer.%s.%s", a->base.linears->linear[m->linear].name,
             a->layout[m->layout].param[p].name);
}

/* Parameter p of a module that begins there. */
static struct tensor view_at(const struct adapter *a, const struct tensor *flat, int module, int64_t begins,
                             int p)
{
    const struct adapter_param *q = &a->layout[a->module[module].layout].param[p];
    struct tensor t = tensor_rows(flat, begins + q->offset, elements(q));
    t.rank = q->rank;
    memcpy(t.shape, q->shape, sizeof q->shape);
    return t;
}

struct tensor adapter_view(const struct adapter *a, const struct tensor *flat, int module, int p)
{
    return view_at(a, flat, module, a->module[module].offset, p);
}

struct tensor adapter_working(const struct adapter *a, int module, int p)
{
    const struct adapter_module *m = &a->module[module];
    return view_at(a, &a->working, module, a->working.dtype == DT_F32 ? m->offset : m->in_working, p);
}

double adapter_scale(const struct adapter *a)
{
    return a->weight * a->alpha / (double)a->rank;
}
