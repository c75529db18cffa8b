#include "formats/torch_pickle.h"

#include <stdlib.h>
#include <string.h>

#include "formats/error.h"

/* ---- the machine --------------------------------------------------------------------------------------- */

enum kind { UNSET, NONE, BOOLEAN, INTEGER, TEXT, TUPLE, DICT, CALLABLE, STORAGE_TYPE, STORAGE, TENSOR };
static const char *const kind_name[] = {"nothing",        "None",      "a truth value", "a number",
                                        "a text",         "a tuple",   "a dict",        "a callable",
                                        "a storage type", "a storage", "a tensor"};
enum callable { REBUILD_TENSOR, ORDERED_DICT };

/* Compound values are handles, so that copying one costs nothing, however often a pickle asks for it, and no
 * nesting is ever followed. */
struct value {
    enum kind kind;
    uint32_t n; /* bytes of a text, items of a tuple */
    int64_t is; /* a number; where a text starts in the pickle, or a tuple in `items`; else which one */
};
struct pair { /* of a dict */
    int64_t dict;
    struct value key, value;
};

/* Growing rows, each with a bound far above what a published model needs. */
struct row {
    void *data;
    size_t count, room;
};
enum {
    MAX_STACK = 1 << 17,
    MAX_MARKS = 1 << 10,
    MAX_MEMO = 1 << 20,
    MAX_ITEMS = 1 << 21,
    MAX_PAIRS = 1 << 18
};

struct machine {
    const uint8_t *bytes;
    size_t n, at;
    struct row stack, memo, items; /* of struct value */
    struct row marks;              /* of size_t: heights of the stack */
    struct row pairs, storages, tensors;
    int64_t dicts;
    struct torch_dict *result;
    char *err;
    size_t errlen;
};

#define REFUSE(m, ...) fail((m)->err, (m)->errlen, __VA_ARGS__)

/* Room for one more; NULL when there may be none. */
static void *add(struct machine *m, struct row *r, size_t size, size_t most, const char *what)
{
    if (r->count == most) return REFUSE(m, "more than %zu %s", most, what), NULL;
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 64;
        void *grown = realloc(r->data, room * size);
        if (!grown) return REFUSE(m, "out of memory"), NULL;
        r->data = grown, r->room = room;
    }
    return memset((char *)r->data + r->count++ * size, 0, size);
}

static bool push(struct machine *m, enum kind kind, int64_t is, uint32_t n)
{
    struct value *v = add(m, &m->stack, sizeof *v, MAX_STACK, "values on the stack");
    if (v) *v = (struct value){kind, n, is};
    return v;
}

/* The lowest value that the latest mark leaves alone is below this. */
static size_t floor_of(const struct machine *m)
{
    return m->marks.count ? ((size_t *)m->marks.data)[m->marks.count - 1] : 0;
}

/* The n topmost values, off the stack but good until the next push; NULL when there are not so many. */
static struct value *pop(struct machine *m, size_t n)
{
    if (m->stack.count - floor_of(m) < n) return REFUSE(m, "the stack is empty"), NULL;
    static struct value none; /* of a stack that never held any */
    m->stack.count -= n;
    return m->stack.data ? (struct value *)m->stack.data + m->stack.count : &none;
}

/* All values since the latest mark, which goes, too. */
static struct value *pop_mark(struct machine *m, size_t *n)
{
    if (m->marks.count == 0) return REFUSE(m, "no mark is on the stack"), NULL;
    *n = m->stack.count - floor_of(m);
    struct value *v = pop(m, *n);
    m->marks.count--;
    return v;
}

/* ---- what it reads ------------------------------------------------------------------------------------- */

static const uint8_t *take(struct machine *m, size_t n)
{
    if (m->n - m->at < n) return REFUSE(m, "it ends in the middle"), NULL;
    m->at += n;
    return m->bytes + m->at - n;
}

/* A little-endian number of `bytes` bytes, at most 8. */
static bool take_number(struct machine *m, size_t bytes, bool is_signed, int64_t *value)
{
    uint64_t v = 0;
    const uint8_t *p = take(m, bytes);
    if (!p) return false;
    for (size_t i = bytes; i-- > 0;) v = v << 8 | p[i];
    if (is_signed && bytes > 0 && bytes < 8 && p[bytes - 1] & 0x80) v |= ~0ull << 8 * bytes;
    *value = (int64_t)v;
    return true;
}

static bool push_number(struct machine *m, size_t bytes, bool is_signed)
{
    int64_t v;
    return take_number(m, bytes, is_signed, &v) && push(m, INTEGER, v, 0);
}

static bool push_long(struct machine *m)
{
    int64_t bytes;
    if (!take_number(m, 1, false, &bytes)) return false;
    return bytes <= 8 ? push_number(m, (size_t)bytes, true) : REFUSE(m, "a number of %d bytes", (int)bytes);
}

static bool push_text(struct machine *m)
{
    int64_t n;
    if (!take_number(m, 4, false, &n)) return false;
    int64_t at = (int64_t)m->at;
    return take(m, (size_t)n) && push(m, TEXT, at, (uint32_t)n);
}

struct text {
    const char *p; /* NULL: there is none */
    size_t n;
};

/* A line of the pickle, its end not included. */
static struct text take_line(struct machine *m)
{
    const uint8_t *p = m->bytes + m->at, *end = memchr(p, '\n', m->n - m->at);
    struct text line = {0};
    if (end)
        line = (struct text){(const char *)p, (size_t)(end - p)}, m->at += line.n + 1;
    else
        REFUSE(m, "it ends in the middle");
    return line;
}

static bool is(struct text t, const char *what)
{
    return t.n == strlen(what) && !memcmp(t.p, what, t.n);
}

static bool push_global(struct machine *m)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {{"FloatStorage", DT_F32}, {"DoubleStorage", DT_F64},    {"HalfStorage", DT_F16},
                 {"IntStorage", DT_I32},   {"BFloat16Storage", DT_BF16}, {"LongStorage", DT_I64},
                 {"ByteStorage", DT_U8}};
    struct text module = take_line(m), name = module.p ? take_line(m) : module;
    if (!name.p) return false;
    if (is(module, "torch._utils") && is(name, "_rebuild_tensor_v2"))
        return push(m, CALLABLE, REBUILD_TENSOR, 0);
    if (is(module, "collections") && is(name, "OrderedDict")) return push(m, CALLABLE, ORDERED_DICT, 0);
    for (size_t i = 0; is(module, "torch") && i < sizeof types / sizeof types[0]; i++)
        if (is(name, types[i].name)) return push(m, STORAGE_TYPE, types[i].dtype, 0);
    return REFUSE(m, "it asks for %.*s.%.*s, and here only plain tensors are read",
                  (int)(module.n < 99 ? module.n : 99), module.p, (int)(name.n < 99 ? name.n : 99), name.p);
}

/* ---- what it makes ------------------------------------------------------------------------------------- */

static bool push_tuple(struct machine *m, const struct value *from, size_t n)
{
    size_t first = m->items.count;
    if (!from) return false;
    for (size_t i = 0; i < n; i++) {
        struct value *v = add(m, &m->items, sizeof *v, MAX_ITEMS, "items of tuples");
        if (!v) return false;
        *v = from[i];
    }
    return push(m, TUPLE, (int64_t)first, (uint32_t)n);
}

static bool push_marked_tuple(struct machine *m)
{
    size_t n = 0;
    struct value *from = pop_mark(m, &n);
    return push_tuple(m, from, n);
}

/* A tuple's items, if it is one and has n of them; else NULL. */
static const struct value *items(const struct machine *m, struct value tuple, size_t n)
{
    return tuple.kind == TUPLE && tuple.n == n ? (struct value *)m->items.data + tuple.is : NULL;
}

static char *copy_text(const struct machine *m, struct value v)
{
    return strndup((const char *)m->bytes + v.is, v.n);
}

static bool text_is(const struct machine *m, struct value v, const char *what)
{
    return v.kind == TEXT && is((struct text){(const char *)m->bytes + v.is, v.n}, what);
}

/* ("storage", type, key, device, elements) */
static bool push_storage(struct machine *m)
{
    const struct value *id = pop(m, 1), *f = id ? items(m, *id, 5) : NULL;
    size_t bytes;
    if (!id) return false;
    if (!f || !text_is(m, f[0], "storage") || f[1].kind != STORAGE_TYPE || f[2].kind != TEXT ||
        f[3].kind != TEXT || f[4].kind != INTEGER ||
        !tensor_bytes_checked((enum dtype)f[1].is, 1, &f[4].is, &bytes))
        return REFUSE(m, "a persistent id that is no storage");
    struct torch_storage *s = add(m, &m->storages, sizeof *s, TORCH_MAX_TENSORS, "storages");
    if (!s) return false;
    *s = (struct torch_storage){copy_text(m, f[2]), (enum dtype)f[1].is, f[4].is};
    return s->key ? push(m, STORAGE, (int64_t)m->storages.count - 1, 0) : REFUSE(m, "out of memory");
}

/* Sizes or strides: a tuple of numbers from 0 up. */
static bool read_numbers(const struct machine *m, struct value tuple, int64_t *number, int *rank)
{
    const struct value *v = items(m, tuple, tuple.n);
    if (!v || tuple.n > TENSOR_MAX_RANK) return false;
    for (*rank = 0; *rank < (int)tuple.n; ++*rank) {
        if (v[*rank].kind != INTEGER || v[*rank].is < 0) return false;
        number[*rank] = v[*rank].is;
    }
    return true;
}

/* No element outside the storage, and no more elements than it has: a stride of 0 could ask
 * for any number. */
static bool fits(const struct torch_tensor *t, int64_t elements)
{
    int64_t last = t->offset, way, count = tensor_count(&t->shape);
    if (count > elements) return false;
    for (int i = 0; count > 0 && i < t->shape.rank; i++)
        if (__builtin_mul_overflow(t->shape.shape[i] - 1, t->stride[i], &way) ||
            __builtin_add_overflow(last, way, &last))
            return false;
    return count == 0 || last < elements;
}

/* (storage, offset, sizes, strides, requires_grad, hooks) */
static bool push_tensor(struct machine *m, struct value arguments)
{
    const struct value *f = items(m, arguments, 6);
    int rank;
    size_t bytes;
    if (!f || f[0].kind != STORAGE || f[1].kind != INTEGER || f[4].kind != BOOLEAN || f[5].kind != DICT)
        return REFUSE(m, "a tensor of unlikely parts");
    const struct torch_storage *s = (struct torch_storage *)m->storages.data + f[0].is;
    struct torch_tensor *t = add(m, &m->tensors, sizeof *t, TORCH_MAX_TENSORS, "tensors");
    if (!t) return false;
    *t = (struct torch_tensor){.offset = f[1].is, .storage = (int)f[0].is, .shape.dtype = s->dtype};
    if (t->offset < 0 || !read_numbers(m, f[2], t->shape.shape, &t->shape.rank) ||
        !read_numbers(m, f[3], t->stride, &rank) || rank != t->shape.rank ||
        !tensor_bytes_checked(s->dtype, rank, t->shape.shape, &bytes))
        return REFUSE(m, "a tensor of impossible shape");
    if (!fits(t, s->elements))
        return REFUSE(m, "a tensor that is not within its storage of %lld elements", (long long)s->elements);
    return push(m, TENSOR, (int64_t)m->tensors.count - 1, 0);
}

static bool call(struct machine *m)
{
    const struct value *v = pop(m, 2); /* what, its arguments */
    if (!v) return false;
    if (v[0].kind == CALLABLE && v[0].is == REBUILD_TENSOR) return push_tensor(m, v[1]);
    if (v[0].kind == CALLABLE && items(m, v[1], 0)) return push(m, DICT, m->dicts++, 0);
    return REFUSE(m, "a call of %s, or with arguments that are not known", kind_name[v[0].kind]);
}

static bool set_items(struct machine *m, const struct value *v, size_t n)
{
    const struct value *dict = v ? pop(m, 1) : NULL; /* stands just before them */
    if (!dict) return false;
    if (dict->kind != DICT || n % 2) return REFUSE(m, "items for %s", kind_name[dict->kind]);
    for (size_t i = 0; i < n; i += 2) {
        struct pair *p = add(m, &m->pairs, sizeof *p, MAX_PAIRS, "items of dicts");
        if (!p) return false;
        *p = (struct pair){dict->is, v[i], v[i + 1]};
    }
    m->stack.count++; /* it stays */
    return true;
}

static bool set_marked_items(struct machine *m)
{
    size_t n = 0;
    const struct value *v = pop_mark(m, &n);
    return set_items(m, v, n);
}

/* What an OrderedDict carries besides its items (a module's version numbers) is dropped. */
static bool drop_attributes(struct machine *m)
{
    const struct value *v = pop(m, 2);
    if (!v) return false;
    if (v[0].kind != DICT || v[1].kind != DICT) return REFUSE(m, "attributes for %s", kind_name[v[0].kind]);
    m->stack.count++;
    return true;
}

/* ---- running it ---------------------------------------------------------------------------------------- */

static bool put_memo(struct machine *m, size_t bytes)
{
    int64_t at;
    const struct value *v = take_number(m, bytes, false, &at) ? pop(m, 1) : NULL;
    if (!v) return false;
    m->stack.count++;
    if (at >= MAX_MEMO) return REFUSE(m, "memo %lld, of at most %d", (long long)at, MAX_MEMO);
    while (m->memo.count <= (size_t)at)
        if (!add(m, &m->memo, sizeof *v, MAX_MEMO, "memos")) return false;
    ((struct value *)m->memo.data)[at] = *v;
    return true;
}

static bool get_memo(struct machine *m, size_t bytes)
{
    int64_t at;
    if (!take_number(m, bytes, false, &at)) return false;
    struct value v = (size_t)at < m->memo.count ? ((struct value *)m->memo.data)[at] : (struct value){0};
    return v.kind == UNSET ? REFUSE(m, "memo %lld, which was never set", (long long)at)
                           : push(m, v.kind, v.is, v.n);
}

static bool push_mark(struct machine *m)
{
    size_t *mark = add(m, &m->marks, sizeof *mark, MAX_MARKS, "marks");
    if (mark) *mark = m->stack.count;
    return mark;
}

static bool check_protocol(struct machine *m)
{
    int64_t protocol;
    if (!take_number(m, 1, false, &protocol)) return false;
    return protocol == 2 || REFUSE(m, "pickle protocol %lld: only 2 is read", (long long)protocol);
}

/* Instructions that a pickle may hold and a dict of tensors does not need, by Python's names for them. */
static bool refuse(struct machine *m, uint8_t op)
{
    static const struct {
        uint8_t op;
        const char *name;
    } others[] = {{'0', "POP"},
                  {'1', "POP_MARK"},
                  {'2', "DUP"},
                  {'B', "BINBYTES"},
                  {'C', "SHORT_BINBYTES"},
                  {'F', "FLOAT"},
                  {'G', "BINFLOAT"},
                  {'I', "INT"},
                  {'L', "LONG"},
                  {'P', "PERSID"},
                  {'S', "STRING"},
                  {'T', "BINSTRING"},
                  {'V', "UNICODE"},
                  {'U', "SHORT_BINSTRING"},
                  {']', "EMPTY_LIST"},
                  {'a', "APPEND"},
                  {'d', "DICT"},
                  {'e', "APPENDS"},
                  {'g', "GET"},
                  {'i', "INST"},
                  {'l', "LIST"},
                  {'o', "OBJ"},
                  {'p', "PUT"},
                  {0x81, "NEWOBJ"},
                  {0x82, "EXT1"},
                  {0x83, "EXT2"},
                  {0x84, "EXT4"},
                  {0x8b, "LONG4"},
                  {0x8c, "SHORT_BINUNICODE"},
                  {0x8d, "BINUNICODE8"},
                  {0x8e, "BINBYTES8"},
                  {0x8f, "EMPTY_SET"},
                  {0x90, "ADDITEMS"},
                  {0x91, "FROZENSET"},
                  {0x92, "NEWOBJ_EX"},
                  {0x93, "STACK_GLOBAL"},
                  {0x94, "MEMOIZE"},
                  {0x95, "FRAME"}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i].op == op)
            return REFUSE(m, "instruction %s, and here only plain tensors are read", others[i].name);
    return REFUSE(m, "0x%02x is no instruction of a pickle", op);
}

static bool step(struct machine *m, uint8_t op)
{
    switch (op) {
    case 0x80: return check_protocol(m);           /* PROTO */
    case '(': return push_mark(m);                 /* MARK */
    case 'N': return push(m, NONE, 0, 0);          /* NONE */
    case 0x88: return push(m, BOOLEAN, 1, 0);      /* NEWTRUE */
    case 0x89: return push(m, BOOLEAN, 0, 0);      /* NEWFALSE */
    case 'J': return push_number(m, 4, true);      /* BININT */
    case 'K': return push_number(m, 1, false);     /* BININT1 */
    case 'M': return push_number(m, 2, false);     /* BININT2 */
    case 0x8a: return push_long(m);                /* LONG1 */
    case 'X': return push_text(m);                 /* BINUNICODE */
    case ')': return push(m, TUPLE, 0, 0);         /* EMPTY_TUPLE */
    case 0x85: return push_tuple(m, pop(m, 1), 1); /* TUPLE1 */
    case 0x86: return push_tuple(m, pop(m, 2), 2); /* TUPLE2 */
    case 0x87: return push_tuple(m, pop(m, 3), 3); /* TUPLE3 */
    case 't': return push_marked_tuple(m);         /* TUPLE */
    case '}': return push(m, DICT, m->dicts++, 0); /* EMPTY_DICT */
    case 's': return set_items(m, pop(m, 2), 2);   /* SETITEM */
    case 'u': return set_marked_items(m);          /* SETITEMS */
    case 'b': return drop_attributes(m);           /* BUILD */
    case 'c': return push_global(m);               /* GLOBAL */
    case 'Q': return push_storage(m);              /* BINPERSID */
    case 'R': return call(m);                      /* REDUCE */
    case 'q': return put_memo(m, 1);               /* BINPUT */
    case 'r': return put_memo(m, 4);               /* LONG_BINPUT */
    case 'h': return get_memo(m, 1);               /* BINGET */
    case 'j': return get_memo(m, 4);               /* LONG_BINGET */
    default: return refuse(m, op);
    }
}

/* Up to the end of the program, which must be the end of the pickle, with one value left: *result. */
static bool run(struct machine *m, struct value *result)
{
    for (const uint8_t *op; (op = take(m, 1));) {
        if (*op == '.') { /* STOP */
            const struct value *v = pop(m, 1);
            if (v) *result = *v;
            if (!v || m->stack.count || m->marks.count || m->at < m->n)
                return REFUSE(m, "it ends with more, or less, than one value");
            return true;
        }
        if (!step(m, *op)) return false;
    }
    return false;
}

/* ---- its result ---------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool check_names(const struct torch_dict *d, char *err, size_t errlen)
{
    const char **name = calloc((size_t)d->count + 1, sizeof *name), *twice = NULL;
    if (!name) return fail(err, errlen, "out of memory");
    for (int i = 0; i < d->count; i++) name[i] = d->tensor[i].name;
    qsort(name, (size_t)d->count, sizeof *name, by_text);
    for (int i = 1; i < d->count && !twice; i++)
        if (!strcmp(name[i - 1], name[i])) twice = name[i];
    free(name);
    return !twice || fail(err, errlen, "two tensors are named %.200s", twice);
}

/* The dict that the program left, which may hold nothing but tensors by their names. */
static bool collect(struct machine *m, struct value top)
{
    struct torch_dict *d = m->result;
    if (top.kind != DICT) return REFUSE(m, "it makes %s, not a dict of tensors", kind_name[top.kind]);
    d->tensor = calloc(m->pairs.count + 1, sizeof *d->tensor);
    if (!d->tensor) return REFUSE(m, "out of memory");
    for (size_t i = 0; i < m->pairs.count; i++) {
        const struct pair *pair = (struct pair *)m->pairs.data + i;
        if (pair->dict != top.is) continue;
        if (pair->key.kind != TEXT) return REFUSE(m, "%s for a tensor's name", kind_name[pair->key.kind]);
        char *name = copy_text(m, pair->key);
        if (!name) return REFUSE(m, "out of memory");
        struct torch_tensor *t = &d->tensor[d->count++];
        if (pair->value.kind == TENSOR) *t = ((struct torch_tensor *)m->tensors.data)[pair->value.is];
        t->name = name;
        if (pair->value.kind != TENSOR)
            return REFUSE(m, "%.200s is %s, not a tensor", name, kind_name[pair->value.kind]);
        if (strlen(name) != pair->key.n) return REFUSE(m, "%.200s: a name with a zero byte", name);
        if (d->count > TORCH_MAX_TENSORS) return REFUSE(m, "more than %d tensors", TORCH_MAX_TENSORS);
    }
    return check_names(d, m->err, m->errlen);
}

bool torch_pickle_read(struct torch_dict *d, const uint8_t *bytes, size_t n, char *err, size_t errlen)
{
    char why[512];
    struct machine m = {.bytes = bytes, .n = n, .result = d, .err = why, .errlen = sizeof why};
    struct value top = {0};
    *d = (struct torch_dict){0};
    bool good = n <= TORCH_MAX_PICKLE || REFUSE(&m, "more than %d bytes", TORCH_MAX_PICKLE);
    good = good && add(&m, &m.stack, sizeof top, 1, "") && add(&m, &m.items, sizeof top, 1, "");
    m.stack.count = m.items.count = 0; /* now even no values have an address */
    good = good && run(&m, &top) && collect(&m, top);
    d->storage = m.storages.data;
    d->storages = (int)m.storages.count;
    free(m.stack.data);
    free(m.memo.data);
    free(m.items.data);
    free(m.marks.data);
    free(m.pairs.data);
    free(m.tensors.data);
    if (good) return true;
    torch_dict_free(d);
    return fail(err, errlen, "byte %zu: %s", m.at, why);
}

void torch_dict_free(struct torch_dict *d)
{
    for (int i = 0; i < d->count; i++) free(d->tensor[i].name);
    for (int i = 0; i < d->storages; i++) free(d->storage[i].key);
    free(d->tensor);
    free(d->storage);
    *d = (struct torch_dict){0};
}
