#include "filters/nets/weights.h"

#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/rng.h"

struct param *param_add(struct params *list, struct tensor *slot, struct tensor shape, double mean,
                        double std, const char *name_fmt, ...)
{
    struct param *p = &list->nowhere;
    if (list->count == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        struct param *more = realloc(list->param, (size_t)capacity * sizeof *more);
        if (more) list->param = more, list->capacity = capacity;
    }
    if (list->count < list->capacity)
        p = &list->param[list->count++];
    else
        list->failed = true;
    *p = (struct param){.shape = shape, .mean = mean, .std = std, .slot = slot};
    va_list ap;
    va_start(ap, name_fmt);
    if (vsnprintf(p->name, sizeof p->name, name_fmt, ap) >= (int)sizeof p->name) list->failed = true;
    va_end(ap);
    return p;
}

void param_part(struct param *p, int64_t part, int64_t parts)
{
    p->part = part;
    p->parts = parts;
}

void param_swap(struct param *p, int64_t outer, int64_t inner)
{
    p->outer = outer;
    p->inner = inner;
}

void params_free(struct params *list)
{
    free(list->param);
    *list = (struct params){0};
}

int64_t params_count(const struct params *list)
{
    int64_t n = 0;
    for (int i = 0; i < list->count; i++) n += tensor_count(&list->param[i].shape);
    return n;
}

void *network_new(const struct network *n, json_t *config, const char *file, char *err, size_t errlen)
{
    void *net = calloc(1, n->size);
    if (!net) fail(err, errlen, "out of memory");
    if (net && n->configure(net, config, file, err, errlen)) return net;
    free(net);
    return NULL;
}

bool network_declare(const struct network *n, struct params *list, json_t *config, const char *file,
                     char *err, size_t errlen)
{
    void *net = network_new(n, config, file, err, errlen); /* the slots lie in it, and are not used */
    int from = list->count;
    if (net) n->params(list, net);
    for (int i = from; i < list->count; i++) list->param[i].slot = NULL;
    free(net);
    return net && (!list->failed || fail(err, errlen, "%s: out of memory", file));
}

bool network_load(const struct network *n, void *net, struct kern *k, const struct model *m, const char *part,
                  int64_t *parameters, char id[17], char *err, size_t errlen)
{
    struct params list = {0};
    n->params(&list, net);
    if (parameters) *parameters = params_count(&list);
    bool good = weights_load(k, &list, m, part, n->alias, id, err, errlen);
    params_free(&list);
    return good;
}

bool network_shapes(const struct network *n, void *net, int64_t *parameters, char *err, size_t errlen)
{
    struct params list = {0};
    n->params(&list, net);
    if (parameters) *parameters = params_count(&list);
    bool good = !list.failed || fail(err, errlen, "out of memory");
    for (int i = 0; good && i < list.count; i++)
        if (list.param[i].slot) *list.param[i].slot = list.param[i].shape;
    params_free(&list);
    return good;
}

struct random_normal weights_draws(const struct param *p, uint64_t seed)
{
    struct rng r = rng_make(seed, p->name, "weights", 0);
    return (struct random_normal){
        .key = {r.key[0], r.key[1]}, .stream = r.stream, .mean = p->mean, .std = p->std};
}

void weights_random(const struct param *p, uint64_t seed, float *data)
{
    const struct random_normal r = weights_draws(p, seed);
    const int64_t n = tensor_count(&p->shape), tile = 1 << 14;
#pragma omp parallel for schedule(static) if (n > tile)
    for (int64_t i = 0; i < n; i += tile)
        random_normal_fill(&r, (uint64_t)i, data + i, (size_t)(n - i < tile ? n - i : tile));
}

/* ---- what is in the files against what is wanted ----------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct param *const *)a)->name, (*(const struct param *const *)b)->name);
}

/* The parameters by name: the order of everything below, so that no file's and no listing's order matters. */
static const struct param **sorted(const struct params *list)
{
    const struct param **order = malloc(((size_t)list->count + 1) * sizeof *order);
    for (int i = 0; order && i < list->count; i++) order[i] = &list->param[i];
    if (order) qsort(order, (size_t)list->count, sizeof *order, by_name);
    return order;
}

static bool wanted(const struct param **order, int count, const char *const *alias, const char *name)
{
    struct param key, *p = &key;
    for (; alias && *alias; alias++)
        if (!fnmatch(*alias, name, 0)) return true;
    if (snprintf(key.name, sizeof key.name, "%s", name) >= (int)sizeof key.name) return false;
    return bsearch(&p, order, (size_t)count, sizeof *order, by_name);
}

/* The first fault in full, and how many more there are. */
static bool check(const struct model_weights *w, const char *part, const struct param **order, int count,
                  const char *const *alias, char *err, size_t errlen)
{
    char first[512] = "", have[128], want[128];
    int faults = 0;
    for (int i = 0; i < count; i++) {
        const struct param *p = order[i];
        const struct model_tensor *t = model_weights_find(w, p->name);
        const enum dtype d = t ? t->entry->shape.dtype : DT_COUNT;
        if (t && tensor_same_shape(&t->entry->shape, &p->shape) &&
            (d == DT_F32 || d == DT_F16 || d == DT_BF16))
            continue;
        if (faults++) continue;
        tensor_describe(want, sizeof want, &p->shape);
        if (t)
            fail(first, sizeof first, "tensor %s is %s, must be F32, F16 or BF16 %s", p->name,
                 tensor_describe(have, sizeof have, &t->entry->shape), strchr(want, '['));
        else
            fail(first, sizeof first, "tensor %s is missing", p->name);
    }
    for (int i = 0; i < w->count; i++)
        if (!wanted(order, count, alias, w->tensor[i].name) && !faults++)
            fail(first, sizeof first, "tensor %s is none of this network's", w->tensor[i].name);
    if (faults > 1) return fail(err, errlen, "%s: %s, and %d more faults", part, first, faults - 1);
    return faults == 0 || fail(err, errlen, "%s: %s", part, first);
}

/* ---- from where they are to the device --------------------------------------------------------- */

/* Two batches of pieces: while one is made ready by all threads, the other is on its way to the device. The 5B
 * model's 11 GB, in memory already, take 0.5 s to an H200 with 16 cores (2026-11-22). */
enum { BATCH = 32, PIECE_BYTES = 2 << 20 };

struct loading {
    struct kern *k;
    enum dtype dtype; /* of weights on the device */
    struct tensor
        rows; /* there, of so many elements as a piece has: on their way to FP8; made when it is needed */
    uint64_t hash;    /* of what went by */
    size_t size;      /* of a piece: at least one row of any tensor, 4 bytes an element */
    size_t ready;     /* what it may take on the device */
    char *host;       /* every piece's `ready` */
    int batch, count; /* the one that is being filled, and how far */
    struct piece {    /* some rows of a tensor, all of which are in the pieces that follow each other */
        const struct param *param;
        const struct model_tensor *tensor;
        int64_t from, rows;
        char *raw, *turned, *ready;
        uint32_t crc;
        bool good;
        char why[512];
    } piece[2][BATCH];
};

static enum dtype dtype_of(const struct loading *l, const struct param *p)
{
    return p->f32 ? DT_F32 : l->dtype;
}

static bool held_fp8(const struct loading *l, const struct param *p)
{
    return p->slot && p->scale && kern_holds_fp8(l->k);
}

static bool loading_start(struct loading *l, struct kern *k, const struct params *list, bool files, char *err,
                          size_t errlen)
{
    *l = (struct loading){.k = k, .dtype = kern_compute(k), .size = PIECE_BYTES};
    for (int i = 0; i < list->count; i++) {
        struct tensor row = list->param[i].shape;
        if (row.rank) row.shape[0] = 1;
        if (tensor_bytes(&row) > l->size) l->size = tensor_bytes(&row);
    }
    if (!files) return true;
    l->ready = l->size / 4 * dtype_size(l->dtype);
    for (int i = 0; i < list->count; i++)
        if (list->param[i].f32) l->ready = l->size;
    bool good = (l->host = kern_host_alloc(k, 2 * BATCH * l->ready)) != NULL;
    for (int i = 0; i < 2 * BATCH; i++) {
        struct piece *p = &l->piece[i / BATCH][i % BATCH];
        p->raw = malloc(l->size);
        p->turned = malloc(l->size);
        p->ready = good ? l->host + (size_t)i * l->ready : NULL;
        good = good && p->raw && p->turned;
    }
    return good || fail(err, errlen, "no memory for %zu bytes of weights on their way", 6 * l->size * BATCH);
}

static void loading_end(struct loading *l)
{
    kern_wait(l->k);
    kern_host_free(l->k, l->host);
    for (int i = 0; i < 2 * BATCH; i++) {
        free(l->piece[i / BATCH][i % BATCH].raw);
        free(l->piece[i / BATCH][i % BATCH].turned);
    }
}

static void add_text(struct loading *l, const char *text)
{
    l->hash = hash64(l->hash, text, strlen(text));
}

static void add_shape(struct loading *l, const struct tensor *t)
{
    char text[256];
    add_text(l, tensor_describe(text, sizeof text, t));
}

/* Device memory for the slot, [out,in,k..] as [out,k..,in] where channels go last. */
static void make_slot(struct loading *l, const struct param *p)
{
    int64_t shape[1 + TENSOR_MAX_RANK] = {p->shape.rank};
    if (!p->slot || (p->parts && p->slot->data)) return; /* another part has made it */
    memcpy(shape + 1, p->shape.shape, sizeof p->shape.shape);
    if (p->parts) shape[1] *= p->parts;
    if (p->channels_last) {
        memmove(shape + 2, shape + 3, (size_t)(p->shape.rank - 2) * sizeof *shape);
        shape[p->shape.rank] = p->shape.shape[1];
    }
    *p->slot = kern_alloc_shape(l->k, held_fp8(l, p) ? DT_U8 : dtype_of(l, p), shape);
    if (held_fp8(l, p)) *p->scale = kern_alloc(l->k, DT_F32, 1, shape[1]);
}

/* Room on the device for n rows that are to be put in FP8. */
static struct tensor rows_of_fp8(struct loading *l, int64_t n, int64_t width)
{
    const int64_t elements = (int64_t)l->size / 4;
    if (!l->rows.rank) l->rows = kern_alloc(l->k, l->dtype, 1, elements);
    return tensor_of(l->dtype, l->rows.data, 2, n, width);
}

/* Those rows, now there, to the slot's from `from` on. */
static void put_in_fp8(struct loading *l, const struct param *p, int64_t from, const struct tensor *rows)
{
    struct tensor codes = tensor_rows(p->slot, from, rows->shape[0]),
                  scale = tensor_rows(p->scale, from, rows->shape[0]);
    fp8_rows(l->k, &codes, &scale, rows);
}

/* Where the slot has the file's rows from `from` on, `rows` at most: *n of them lie together, fewer where they are to
 * be swapped. */
static struct tensor slot_rows(const struct param *p, int64_t from, int64_t rows, int64_t *n)
{
    int64_t all = p->shape.rank ? p->shape.shape[0] : 1, width = tensor_count(&p->shape) / all;
    int64_t inner = p->outer ? p->inner : 1, run = p->outer ? all / (p->outer * inner) : all;
    int64_t within = from / run % inner, group = from / run / inner, left = run - from % run;
    struct tensor flat = tensor_as(p->slot, 2, p->parts ? p->parts * all : all, width);
    *n = left < rows ? left : rows;
    return tensor_rows(&flat, p->part * all + (within * p->outer + group) * run + from % run, *n);
}

/* [rows,in,k..] to [rows,k..,in], of elements of 2 or 4 bytes */
static void turn(void *to, const void *from, int64_t rows, const struct tensor *shape)
{
    const bool wide = dtype_size(shape->dtype) == 4;
    const int64_t in = shape->shape[1], width = tensor_count(shape) / shape->shape[0], taps = width / in;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < taps; k++)
            for (int64_t i = 0; i < in; i++) {
                const int64_t there = r * width + k * in + i, here = r * width + i * taps + k;
                if (wide)
                    ((uint32_t *)to)[there] = ((const uint32_t *)from)[here];
                else
                    ((uint16_t *)to)[there] = ((const uint16_t *)from)[here];
            }
}

/* NaN and the infinities are what has every exponent bit set. */
static bool all_finite(const struct tensor *t)
{
    const int64_t n = tensor_count(t);
    int64_t bad = 0;
    if (t->dtype == DT_F32) {
        const uint32_t *v = t->data;
        for (int64_t i = 0; i < n; i++) bad += (v[i] & 0x7f800000) == 0x7f800000;
    } else {
        const uint16_t *v = t->data, exponent = t->dtype == DT_F16 ? 0x7c00 : 0x7f80;
        for (int64_t i = 0; i < n; i++) bad += (v[i] & exponent) == exponent;
    }
    return bad == 0;
}

/* Reads the piece, sums and checks it, and makes it what the device wants, in s->ready. */
static bool fetch(struct piece *s, const struct loading *l)
{
    const struct param *p = s->param;
    const struct model_tensor *t = s->tensor;
    struct tensor part = t->entry->shape;
    if (part.rank) part.shape[0] = 1;
    const size_t row = tensor_bytes(&part), bytes = row * (size_t)s->rows;
    const bool turns = p->channels_last, converts = part.dtype != dtype_of(l, p);
    if (part.rank) part.shape[0] = s->rows;
    part.data = turns || converts || !p->slot ? s->raw : s->ready;
    if (!safetensors_read_part(t->file, t->entry, row * (size_t)s->from, part.data, bytes, s->why,
                               sizeof s->why))
        return false;
    s->crc = crc32c(0, part.data, bytes);
    if (!all_finite(&part))
        return fail(s->why, sizeof s->why, "%s: tensor %s holds a NaN or an infinity", t->file->path,
                    p->name);
    if (!p->slot) return true;
    if (turns) turn(part.data = converts ? s->turned : s->ready, s->raw, s->rows, &part);
    struct tensor ready = part;
    ready.dtype = dtype_of(l, p);
    ready.data = s->ready;
    if (converts) tensor_convert(&ready, &part);
    return true;
}

/* The piece's part in the hash, and its rows to the slot. */
static bool send_piece(struct loading *l, struct piece *s, char *err, size_t errlen)
{
    const struct param *p = s->param;
    if (!s->good) return fail(err, errlen, "%s", s->why);
    if (s->from == 0) {
        add_text(l, p->name);
        add_shape(l, &s->tensor->entry->shape);
        make_slot(l, p);
    }
    if (s->rows) l->hash = hash64(l->hash, &s->crc, sizeof s->crc);
    const int64_t width = s->rows ? tensor_count(&p->shape) / (p->shape.rank ? p->shape.shape[0] : 1) : 0;
    const struct tensor ready = tensor_of(dtype_of(l, p), s->ready, 2, s->rows, width);
    if (held_fp8(l, p)) {
        struct tensor rows = rows_of_fp8(l, s->rows, width);
        kern_send(l->k, &rows, &ready);
        put_in_fp8(l, p, s->from, &rows);
        return kern_ok(l->k) || fail(err, errlen, "%s", kern_error(l->k));
    }
    for (int64_t at = 0, n = 0; p->slot && kern_ok(l->k) && at < s->rows; at += n) {
        struct tensor to = slot_rows(p, s->from + at, s->rows - at, &n), from = tensor_rows(&ready, at, n);
        kern_send(l->k, &to, &from);
    }
    return kern_ok(l->k) || fail(err, errlen, "%s", kern_error(l->k));
}

/* What the batch before sent has arrived once this one is ready: its memory is free for the next. */
static bool send_batch(struct loading *l, char *err, size_t errlen)
{
    struct piece *piece = l->piece[l->batch];
    bool good = true;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < l->count; i++) piece[i].good = fetch(&piece[i], l);
    kern_wait(l->k);
    for (int i = 0; good && i < l->count; i++) good = send_piece(l, &piece[i], err, errlen);
    l->batch = !l->batch;
    l->count = 0;
    return good;
}

static bool load_tensor(struct loading *l, const struct param *p, const struct model_tensor *t, char *err,
                        size_t errlen)
{
    const int64_t rows = p->shape.rank ? p->shape.shape[0] : 1,
                  width = rows ? tensor_count(&p->shape) / rows : 0;
    const int64_t step = width ? (int64_t)l->size / (4 * width) : 1;
    for (int64_t from = 0; from == 0 || (width && from < rows); from += step) {
        struct piece *s = &l->piece[l->batch][l->count++];
        s->param = p;
        s->tensor = t;
        s->from = from;
        s->rows = !width ? 0 : rows - from < step ? rows - from : step;
        if (l->count == BATCH && !send_batch(l, err, errlen)) return false;
    }
    return true;
}

/* What a message calls them. */
static const char *source(const struct model *m, const char *part, const char *path)
{
    return path ? path : *part ? part : m->folder;
}

static bool load_files(struct loading *l, const struct model *m, const char *part, const char *path,
                       const struct param **order, int count, const char *const *alias, char *err,
                       size_t errlen)
{
    struct model_weights *w =
        path ? model_weights_open_file(path, err, errlen) : model_weights_open(m, part, err, errlen);
    bool good = w && check(w, source(m, part, path), order, count, alias, err, errlen);
    for (int i = 0; good && i < count; i++)
        good = load_tensor(l, order[i], model_weights_find(w, order[i]->name), err, errlen);
    good = good && send_batch(l, err, errlen);
    model_weights_close(w);
    return good;
}

static void make_up_fp8(struct loading *l, const struct param *p, struct random_normal r)
{
    const int64_t rows = p->shape.shape[0], width = p->shape.shape[1], most = (int64_t)l->size / 4 / width;
    for (int64_t at = 0; at < rows; at += most) {
        struct tensor part = rows_of_fp8(l, rows - at < most ? rows - at : most, width);
        r.first = (uint64_t)(at * width);
        random_normal(l->k, &part, &r);
        put_in_fp8(l, p, at, &part);
    }
}

static bool make_up(struct loading *l, const struct param *p, uint64_t seed, char *err, size_t errlen)
{
    const int64_t rows = p->shape.rank ? p->shape.shape[0] : 1, n = tensor_count(&p->shape);
    struct random_normal r = weights_draws(p, seed);
    add_text(l, p->name);
    add_shape(l, &p->shape);
    l->hash = hash64(l->hash ^ seed, (double[]){p->mean, p->std}, 2 * sizeof(double));
    make_slot(l, p);
    r.channels_last = p->channels_last;
    if (p->slot && p->channels_last) random_normal(l->k, p->slot, &r);
    if (held_fp8(l, p)) make_up_fp8(l, p, r);
    for (int64_t at = 0, count; p->slot && !held_fp8(l, p) && !p->channels_last && n && at < rows;
         at += count) {
        struct tensor part = slot_rows(p, at, rows - at, &count);
        r.first = (uint64_t)(at * (n / rows));
        random_normal(l->k, &part, &r);
    }
    return kern_ok(l->k) || fail(err, errlen, "%s", kern_error(l->k));
}

static bool add_config(struct loading *l, const struct model *m, const char *part, char *err, size_t errlen)
{
    json_t *config = model_config(m, part, err, errlen);
    char *text = config ? json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (config && !text) fail(err, errlen, "out of memory");
    if (text) add_text(l, text);
    json_decref(config);
    free(text);
    return text != NULL;
}

static size_t bytes_of(const struct loading *l, const struct param *p)
{
    const size_t n = (size_t)tensor_count(&p->shape);
    return held_fp8(l, p) ? n + 4 * (size_t)p->shape.shape[0] : n * dtype_size(dtype_of(l, p));
}

static bool room_for(struct loading *l, const struct params *list, const char *part, char *err, size_t errlen)
{
    char what[64];
    size_t bytes = 0;
    for (int i = 0; i < list->count; i++)
        if (list->param[i].slot) bytes += bytes_of(l, &list->param[i]);
    snprintf(what, sizeof what, "the weights of %s", part);
    return kern_room(l->k, what, bytes) || fail(err, errlen, "%s", kern_error(l->k));
}

static bool load(struct kern *k, const struct params *list, const struct model *m, const char *part,
                 const char *path, const char *const *alias, char id[17], char *err, size_t errlen)
{
    struct loading l;
    const char *name = source(m, part, path);
    const struct param **order = sorted(list);
    bool good =
        (order && !list->failed) || fail(err, errlen, "%s: no memory for the list of its weights", name);
    good = loading_start(&l, k, list, !m->random || path, err, errlen) && good;
    good = good && add_config(&l, m, part, err, errlen) && room_for(&l, list, name, err, errlen);
    if (good && m->random && !path)
        for (int i = 0; good && i < list->count; i++) good = make_up(&l, order[i], m->seed, err, errlen);
    else if (good)
        good = load_files(&l, m, part, path, order, list->count, alias, err, errlen);
    if (good && id) snprintf(id, 17, "%016llx", (unsigned long long)l.hash);
    loading_end(&l);
    free(order);
    return good;
}

bool weights_load(struct kern *k, const struct params *list, const struct model *m, const char *part,
                  const char *const *alias, char id[17], char *err, size_t errlen)
{
    return load(k, list, m, part, NULL, alias, id, err, errlen);
}

bool weights_load_file(struct kern *k, const struct params *list, const struct model *m, const char *part,
                       const char *path, const char *const *alias, char id[17], char *err, size_t errlen)
{
    return load(k, list, m, part, path, alias, id, err, errlen);
}

bool weights_check(const struct params *list, const struct model *m, const char *part,
                   const char *const *alias, char *err, size_t errlen)
{
    if (m->random) return true;
    const struct param **order = sorted(list);
    struct model_weights *w = model_weights_open(m, part, err, errlen);
    bool good = w && (order || fail(err, errlen, "out of memory")) &&
                check(w, source(m, part, NULL), order, list->count, alias, err, errlen);
    model_weights_close(w);
    free(order);
    return good;
}
