#include "formats/frame.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include <msgpack.h>

#include "formats/crc32c.h"

enum {
    EXT_TYPE = 83, /* 'S' */
    STEP = 64 << 20, /* a payload is read, and its memory grown, in steps of this: a lying length costs one */
    BUFFER = 1 << 16,
    MAX_ITEMS = 1 << 16, /* msgpack objects in one header: bounds what unpacking may allocate */
};
static const uint64_t max_tensor_bytes = UINT32_MAX;

/* ---- records -------------------------------------------------------------------------------------------- */

static bool frame_error(struct frame *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool frame_error(struct frame *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->error, sizeof f->error, fmt, ap);
    va_end(ap);
    return false;
}

static bool frame_slots(struct frame *f)
{
    if (!f->tensor) f->tensor = calloc(FRAME_MAX_TENSORS, sizeof *f->tensor);
    return f->tensor || frame_error(f, "out of memory");
}

void frame_free(struct frame *f)
{
    for (int i = 0; f->tensor && i < FRAME_MAX_TENSORS; i++) {
        free(f->tensor[i].t.data);
        json_decref(f->tensor[i].entry);
    }
    free(f->tensor);
    json_decref(f->head);
    *f = (struct frame)FRAME_INIT;
}

const char *frame_key(const struct frame *f)
{
    const char *key = f->head ? json_string_value(json_object_get(f->head, "key")) : NULL;
    return key ? key : "";
}

json_t *frame_meta(struct frame *f)
{
    return json_object_get(f->head, "meta");
}

const char *frame_text(const struct frame *f, const char *field)
{
    return json_string_value(json_object_get(json_object_get(f->head, "meta"), field));
}

void frame_new(struct frame *f, const char *key)
{
    json_decref(f->head);
    f->head = json_pack("{s:s, s:s, s:{}}", "kind", "record", "key", key, "meta");
    f->count = 0;
    f->error[0] = 0;
}

static int frame_index(const struct frame *f, const char *name)
{
    for (int i = 0; i < f->count; i++)
        if (!strcmp(f->tensor[i].name, name)) return i;
    return -1;
}

struct tensor *frame_find(struct frame *f, const char *name)
{
    int i = frame_index(f, name);
    return i < 0 ? NULL : &f->tensor[i].t;
}

struct tensor *frame_want(struct frame *f, const char *name, enum dtype d, int rank)
{
    char is[160];
    struct tensor *t = frame_find(f, name);
    if (!t) {
        frame_error(f, "has no tensor `%s`", name);
        return NULL;
    }
    if (t->rank == rank && (d == DT_COUNT ? dtype_is_float(t->dtype) : t->dtype == d)) return t;
    frame_error(f, "tensor `%s` is %s, not %s of rank %d", name, tensor_describe(is, sizeof is, t),
                d == DT_COUNT ? "floating point" : dtype_name(d), rank);
    return NULL;
}

struct tensor *frame_add_shape(struct frame *f, const char *name, enum dtype d, const int64_t *rank_then_shape)
{
    int i = frame_index(f, name);
    size_t bytes;
    if (!frame_slots(f)) return NULL;
    if (i < 0 && f->count == FRAME_MAX_TENSORS) {
        frame_error(f, "more than %d tensors", FRAME_MAX_TENSORS);
        return NULL;
    }
    struct frame_tensor *slot = &f->tensor[i < 0 ? f->count : i];
    if (strlen(name) >= sizeof slot->name || rank_then_shape[0] > TENSOR_MAX_RANK ||
        !tensor_bytes_checked(d, (int)rank_then_shape[0], rank_then_shape + 1, &bytes) || bytes > max_tensor_bytes) {
        frame_error(f, "tensor `%s` is too large for a record", name);
        return NULL;
    }
    if (bytes > slot->capacity) {
        free(slot->t.data);
        slot->t.data = malloc(bytes);
        slot->capacity = slot->t.data ? bytes : 0;
        if (!slot->t.data) {
            frame_error(f, "no memory for tensor `%s` of %zu bytes", name, bytes);
            return NULL;
        }
    }
    slot->t = tensor_make(d, slot->t.data, rank_then_shape);
    snprintf(slot->name, sizeof slot->name, "%s", name);
    json_decref(slot->entry);
    slot->entry = json_object();
    slot->crc_known = false;
    if (i < 0) f->count++;
    return &slot->t;
}

void frame_drop(struct frame *f, const char *name)
{
    int i = frame_index(f, name);
    if (i < 0) return;
    struct frame_tensor dropped = f->tensor[i]; /* its memory goes behind the others, for reuse */
    memmove(f->tensor + i, f->tensor + i + 1, (size_t)(f->count - i - 1) * sizeof dropped);
    f->tensor[--f->count] = dropped;
}

/* ---- whole reads and writes ----------------------------------------------------------------------------- */

volatile sig_atomic_t frame_interrupted;

/* A sibling process may have made our descriptor non-blocking (the flag belongs to the open file): wait and go on. */
static bool wait_for(int fd, short events)
{
    if (errno == EINTR) return !frame_interrupted;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
    struct pollfd p = {fd, events, 0};
    return poll(&p, 1, -1) >= 0 || (errno == EINTR && !frame_interrupted);
}

static ssize_t read_some(int fd, void *buf, size_t n)
{
    for (;;) {
        ssize_t got = read(fd, buf, n < STEP ? n : STEP);
        if (got >= 0 || !wait_for(fd, POLLIN)) return got;
    }
}

ssize_t read_full(int fd, void *buf, size_t n)
{
    size_t have = 0;
    while (have < n) {
        ssize_t got = read_some(fd, (char *)buf + have, n - have);
        if (got < 0) return -1;
        if (got == 0) break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

bool write_full(int fd, const void *buf, size_t n)
{
    for (const char *p = buf; n;) {
        ssize_t put = write(fd, p, n < STEP ? n : STEP);
        if (put < 0 && !wait_for(fd, POLLOUT)) return false;
        if (put > 0) p += put, n -= (size_t)put;
    }
    return true;
}

/* ---- msgpack <-> JSON values ---------------------------------------------------------------------------- */

static uint64_t big_endian(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    while (bytes--) v = v << 8 | *p++;
    return v;
}

/* msgpack-c's C unpacker believes a container's count and allocates for it, so a header is walked first: every
 * object must lie within the bytes that are there, nesting and the number of objects are bounded. Returns the end of the
 * object at p, or NULL. */
static const uint8_t *scan(const uint8_t *p, const uint8_t *end, int depth, int *items)
{
    static const uint8_t fixed[32] = {/* c0 nil.. */ 0,  0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8,
                                      /* d0 int8 */ 1, 2, 4, 8, 2, 3, 5, 9, 17, 1, 2, 4, 2, 4, 2, 4};
    uint64_t skip = 0, children = 0;
    if (p >= end || depth > FRAME_MAX_DEPTH || ++*items > MAX_ITEMS) return NULL;
    uint8_t c = *p++;
    if (c <= 0x7f || c >= 0xe0) return p;
    if (c <= 0x8f) {
        children = 2 * (c & 15);
    } else if (c <= 0x9f) {
        children = c & 15;
    } else if (c <= 0xbf) {
        skip = c & 31;
    } else {
        int n = fixed[c - 0xc0];
        if (end - p < n) return NULL;
        switch (c) {
        case 0xc1: return NULL;
        case 0xc4: case 0xc5: case 0xc6: case 0xd9: case 0xda: case 0xdb: skip = big_endian(p, n); break;
        case 0xc7: case 0xc8: case 0xc9: skip = big_endian(p, n) + 1; break;
        case 0xdc: case 0xdd: children = big_endian(p, n); break;
        case 0xde: case 0xdf: children = 2 * big_endian(p, n); break;
        default: break;
        }
        p += n;
    }
    if (skip > (uint64_t)(end - p) || children > (uint64_t)(end - p)) return NULL;
    p += skip;
    while (children-- && p) p = scan(p, end, depth + 1, items);
    return p;
}

/* A header's values are those of JSON: bytes belong in tensors. NULL with *why. */
static json_t *json_from_msgpack(const msgpack_object *o, const char **why)
{
    json_t *result = NULL;
    switch (o->type) {
    case MSGPACK_OBJECT_NIL: return json_null();
    case MSGPACK_OBJECT_BOOLEAN: return json_boolean(o->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        if (o->via.u64 > INT64_MAX) return *why = "an integer past 2^63", NULL;
        return json_integer((json_int_t)o->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER: return json_integer(o->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        if (!isfinite(o->via.f64)) return *why = "a number that is not finite", NULL;
        return json_real(o->via.f64);
    case MSGPACK_OBJECT_STR:
        result = json_stringn(o->via.str.ptr ? o->via.str.ptr : "", o->via.str.size);
        if (!result) *why = "text that is not UTF-8";
        return result;
    case MSGPACK_OBJECT_ARRAY:
        result = json_array();
        for (uint32_t i = 0; i < o->via.array.size; i++) {
            json_t *item = json_from_msgpack(&o->via.array.ptr[i], why);
            if (!item || json_array_append_new(result, item)) goto bad;
        }
        return result;
    case MSGPACK_OBJECT_MAP:
        result = json_object();
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            const msgpack_object_kv *kv = &o->via.map.ptr[i];
            char key[256];
            if (kv->key.type != MSGPACK_OBJECT_STR || kv->key.via.str.size >= sizeof key ||
                memchr(kv->key.via.str.ptr, 0, kv->key.via.str.size)) {
                *why = "a map key that is not a short text";
                goto bad;
            }
            memcpy(key, kv->key.via.str.ptr, kv->key.via.str.size);
            key[kv->key.via.str.size] = 0;
            if (json_object_get(result, key)) {
                *why = "a duplicate map key";
                goto bad;
            }
            json_t *item = json_from_msgpack(&kv->val, why);
            if (!item) goto bad;
            if (json_object_set_new(result, key, item)) {
                *why = "a map key that is not UTF-8";
                goto bad;
            }
        }
        return result;
    default: return *why = "a value that JSON does not have (binary, extension)", NULL;
    }
bad:
    json_decref(result);
    return NULL;
}

static void msgpack_from_json(msgpack_packer *p, json_t *j)
{
    switch (json_typeof(j)) {
    case JSON_NULL: msgpack_pack_nil(p); break;
    case JSON_TRUE: msgpack_pack_true(p); break;
    case JSON_FALSE: msgpack_pack_false(p); break;
    case JSON_INTEGER: msgpack_pack_int64(p, json_integer_value(j)); break;
    case JSON_REAL: msgpack_pack_double(p, json_real_value(j)); break;
    case JSON_STRING:
        msgpack_pack_str(p, json_string_length(j));
        msgpack_pack_str_body(p, json_string_value(j), json_string_length(j));
        break;
    case JSON_ARRAY:
        msgpack_pack_array(p, json_array_size(j));
        for (size_t i = 0; i < json_array_size(j); i++) msgpack_from_json(p, json_array_get(j, i));
        break;
    case JSON_OBJECT: {
        const char *key;
        json_t *value;
        msgpack_pack_map(p, json_object_size(j));
        json_object_foreach (j, key, value) {
            msgpack_pack_str(p, strlen(key));
            msgpack_pack_str_body(p, key, strlen(key));
            msgpack_from_json(p, value);
        }
    }
    }
}

/* ---- reading -------------------------------------------------------------------------------------------- */

struct frame_reader {
    int fd;
    char name[64];
    enum { START, INSIDE, BETWEEN, JSONL } state;
    uint8_t buffer[BUFFER];
    size_t head, tail;  /* unread bytes of buffer */
    int64_t position;   /* bytes consumed */
    int64_t record_at;  /* where the last record's header began */
    uint32_t record_crc;
    uint8_t *header;    /* FRAME_MAX_HEADER + 4 */
    uint32_t crc;       /* over the header CRCs of this stream */
    int64_t records;    /* of this stream; -1: entered in the middle, the first record's seq will tell */
    int64_t failed;     /* of all streams */
    int64_t line;       /* JSONL */
    char *text;
    size_t text_size;
    json_t *begin;
};

struct frame_reader *frame_reader_open(int fd, const char *name)
{
    struct frame_reader *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->header = malloc(FRAME_MAX_HEADER + 4);
    if (!r->header) return free(r), NULL;
    r->fd = fd;
    snprintf(r->name, sizeof r->name, "%s", name);
    fcntl(fd, F_SETPIPE_SZ, 1 << 20); /* fewer switches between the two programs; no matter when refused */
    return r;
}

struct frame_reader *frame_reader_open_at(int fd, const char *name, int64_t offset)
{
    if (lseek(fd, offset, SEEK_SET) < 0) return NULL;
    struct frame_reader *r = frame_reader_open(fd, name);
    if (!r) return NULL;
    r->state = INSIDE;
    r->position = offset;
    r->records = -1;
    return r;
}

void frame_reader_close(struct frame_reader *r)
{
    if (!r) return;
    json_decref(r->begin);
    free(r->header);
    free(r->text);
    free(r);
}

bool frame_reader_is_jsonl(const struct frame_reader *r)
{
    return r->state == JSONL;
}

int64_t frame_reader_failed(const struct frame_reader *r)
{
    return r->failed;
}

json_t *frame_reader_begin(const struct frame_reader *r)
{
    return r->begin;
}

int64_t frame_reader_bytes(const struct frame_reader *r)
{
    return r->position;
}

int64_t frame_reader_record_at(const struct frame_reader *r, uint32_t *header_crc)
{
    *header_crc = r->record_crc;
    return r->record_at;
}

static enum frame_got damaged(struct frame_reader *r, struct frame *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static enum frame_got damaged(struct frame_reader *r, struct frame *f, const char *fmt, ...)
{
    char what[384];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (r->records < 0)
        frame_error(f, "%s: byte %lld: %s", r->name, (long long)r->position, what);
    else
        frame_error(f, "%s: record %lld, byte %lld: %s", r->name, (long long)r->records, (long long)r->position, what);
    return FRAME_DAMAGED;
}

/* Refill an empty buffer: 1 there are bytes, 0 end of file, -1 error (errno). */
static int fill(struct frame_reader *r)
{
    if (r->head < r->tail) return 1;
    ssize_t got = read_some(r->fd, r->buffer, BUFFER);
    if (got <= 0) return (int)got;
    r->head = 0;
    r->tail = (size_t)got;
    return 1;
}

/* n bytes to dst: from the buffer, then straight from the descriptor when many are wanted. Returns how many came. */
static ssize_t take(struct frame_reader *r, void *dst, size_t n)
{
    size_t have = 0;
    while (have < n) {
        if (r->head == r->tail && n - have >= BUFFER) {
            ssize_t got = read_full(r->fd, (char *)dst + have, n - have);
            if (got < 0) return -1;
            r->position += got;
            return (ssize_t)have + got;
        }
        int more = fill(r);
        if (more < 0) return -1;
        if (more == 0) break;
        size_t some = r->tail - r->head < n - have ? r->tail - r->head : n - have;
        memcpy((char *)dst + have, r->buffer + r->head, some);
        r->head += some;
        r->position += (int64_t)some;
        have += some;
    }
    return (ssize_t)have;
}

static bool need(struct frame_reader *r, struct frame *f, void *dst, size_t n, const char *what)
{
    ssize_t got = take(r, dst, n);
    if (got == (ssize_t)n) return true;
    if (got < 0)
        damaged(r, f, "cannot read %s: %s", what, strerror(errno));
    else
        damaged(r, f, "truncated within %s", what);
    return false;
}

/* One header: its map, or NULL with f->error. *crc is its checksum. */
static json_t *read_header(struct frame_reader *r, struct frame *f, uint32_t *crc)
{
    uint8_t c, more[5];
    uint64_t size;
    int64_t at = r->position;
    if (!need(r, f, &c, 1, "a header")) return NULL;
    if (c >= 0xd4 && c <= 0xd8) {
        size = 1u << (c - 0xd4);
        if (!need(r, f, more, 1, "a header")) return NULL;
    } else if (c >= 0xc7 && c <= 0xc9) {
        int width = 1 << (c - 0xc7);
        if (!need(r, f, more, (size_t)width + 1, "a header")) return NULL;
        size = big_endian(more, width);
        more[0] = more[width];
    } else {
        r->position = at;
        damaged(r, f, "not a frame header (first byte 0x%02x)", c);
        return NULL;
    }
    if (more[0] != EXT_TYPE || size <= 4 || size > FRAME_MAX_HEADER + 4) {
        r->position = at;
        damaged(r, f, "not a frame header (extension type %d of %llu bytes)", (int8_t)more[0], (unsigned long long)size);
        return NULL;
    }
    if (!need(r, f, r->header, size, "a header")) return NULL;
    const uint8_t *map = r->header + 4, *end = r->header + size;
    const char *why = NULL;
    int items = 0;
    json_t *head = NULL;
    memcpy(crc, r->header, 4);
    if (crc32c(0, map, (size_t)(end - map)) != *crc) {
        why = "checksum mismatch";
    } else if (scan(map, end, 1, &items) != end) {
        why = "its map is malformed, too deep or too large";
    } else {
        msgpack_unpacked u;
        size_t offset = 0;
        msgpack_unpacked_init(&u);
        if (msgpack_unpack_next(&u, (const char *)map, (size_t)(end - map), &offset) != MSGPACK_UNPACK_SUCCESS)
            why = "its map is malformed";
        else if (u.data.type != MSGPACK_OBJECT_MAP)
            why = "it is not a map";
        else
            head = json_from_msgpack(&u.data, &why);
        msgpack_unpacked_destroy(&u);
        if (head && !json_is_string(json_object_get(head, "kind"))) why = "it has no `kind`";
    }
    if (!why) return head;
    json_decref(head);
    r->position = at;
    damaged(r, f, "bad header: %s", why);
    return NULL;
}

static bool get_count(json_t *object, const char *field, int64_t *v)
{
    json_t *j = json_object_get(object, field);
    *v = json_integer_value(j);
    return json_is_integer(j) && *v >= 0;
}

/* One entry of the header's `tensors` into slot i: all it says is checked before any memory is spent on it. */
static const char *describe_tensor(struct frame *f, int i, json_t *entry)
{
    struct frame_tensor *slot = &f->tensor[i];
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    json_t *shape = json_object_get(entry, "shape");
    int64_t nbytes, crc, dims[1 + TENSOR_MAX_RANK];
    enum dtype d;
    size_t bytes;
    if (!name || !*name || strlen(name) >= FRAME_MAX_NAME) return "a tensor without a good name";
    if (strlen(name) != json_string_length(json_object_get(entry, "name"))) return "a tensor name with a zero byte";
    if (!type || !dtype_parse(&d, type)) return "a tensor of unknown dtype";
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_RANK) return "a tensor without a good shape";
    dims[0] = (int64_t)json_array_size(shape);
    for (int a = 0; a < dims[0]; a++) {
        json_t *dim = json_array_get(shape, (size_t)a);
        if (!json_is_integer(dim)) return "a tensor without a good shape";
        dims[1 + a] = json_integer_value(dim);
    }
    if (!tensor_bytes_checked(d, (int)dims[0], dims + 1, &bytes) || bytes > max_tensor_bytes) return "a tensor of absurd shape";
    if (!get_count(entry, "nbytes", &nbytes) || (size_t)nbytes != bytes) return "a tensor whose nbytes does not match its shape";
    if (!get_count(entry, "crc32c", &crc) || crc > UINT32_MAX) return "a tensor without a checksum";
    f->count = i;
    if (frame_find(f, name)) return "two tensors of one name";
    snprintf(slot->name, sizeof slot->name, "%s", name);
    slot->t = tensor_make(d, slot->t.data, dims);
    slot->crc = (uint32_t)crc;
    slot->crc_known = true;
    json_decref(slot->entry);
    slot->entry = json_incref(entry);
    f->count = i + 1;
    return NULL;
}

static bool read_payload(struct frame_reader *r, struct frame *f, struct frame_tensor *slot)
{
    uint8_t c, width[4];
    size_t bytes = tensor_bytes(&slot->t);
    uint32_t crc = 0;
    char what[FRAME_MAX_NAME + 256];
    snprintf(what, sizeof what, "tensor `%s` of %.150s", slot->name, frame_key(f));
    if (!need(r, f, &c, 1, what)) return false;
    if (c < 0xc4 || c > 0xc6) return damaged(r, f, "%s: not a msgpack bin (first byte 0x%02x)", what, c), false;
    if (!need(r, f, width, (size_t)1 << (c - 0xc4), what)) return false;
    if (big_endian(width, 1 << (c - 0xc4)) != bytes)
        return damaged(r, f, "%s: %llu bytes, its header says %zu", what,
                       (unsigned long long)big_endian(width, 1 << (c - 0xc4)), bytes), false;
    for (size_t have = 0; have < bytes;) {
        size_t some = bytes - have < STEP ? bytes - have : STEP;
        if (have + some > slot->capacity) {
            void *grown = realloc(slot->t.data, have + some);
            if (!grown) return damaged(r, f, "%s: no memory for %zu bytes", what, bytes), false;
            slot->t.data = grown;
            slot->capacity = have + some;
        }
        for (size_t stop = have + some; have < stop;) { /* in pieces that are still in the cache when summed */
            size_t piece = stop - have < (1 << 18) ? stop - have : 1 << 18;
            if (!need(r, f, (char *)slot->t.data + have, piece, what)) return false;
            crc = crc32c(crc, (char *)slot->t.data + have, piece);
            have += piece;
        }
    }
    if (crc != slot->crc) return damaged(r, f, "%s: checksum mismatch", what), false;
    return true;
}

static enum frame_got read_record(struct frame_reader *r, struct frame *f, json_t *head)
{
    json_decref(f->head);
    f->head = head;
    f->count = 0;
    json_t *tensors = json_object_get(head, "tensors");
    int64_t seq;
    bool numbered = get_count(head, "seq", &seq);
    if (numbered && r->records < 0) r->records = seq;
    if (!numbered || seq != r->records)
        return damaged(r, f, "bad header: its `seq` is not %lld", (long long)r->records);
    if (!json_string_length(json_object_get(head, "key"))) return damaged(r, f, "bad header: it has no `key`");
    if (strlen(frame_key(f)) != json_string_length(json_object_get(head, "key")))
        return damaged(r, f, "bad header: a key with a zero byte");
    if (!json_is_object(json_object_get(head, "meta"))) return damaged(r, f, "bad header: it has no `meta`");
    if (!json_is_array(tensors) || json_array_size(tensors) > FRAME_MAX_TENSORS)
        return damaged(r, f, "bad header: it has no good `tensors`");
    if (!frame_slots(f)) return FRAME_DAMAGED;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const char *why = describe_tensor(f, (int)i, json_array_get(tensors, i));
        if (why) return damaged(r, f, "bad header of %.200s: %s", frame_key(f), why);
    }
    for (int i = 0; i < f->count; i++)
        if (!read_payload(r, f, &f->tensor[i])) return FRAME_DAMAGED;
    r->records++;
    return FRAME_RECORD;
}

static enum frame_got read_line(struct frame_reader *r, struct frame *f)
{
    for (;;) {
        size_t n = 0;
        int more;
        bool newline = false;
        while (!newline && (more = fill(r)) > 0) {
            uint8_t *from = r->buffer + r->head, *stop = memchr(from, '\n', r->tail - r->head);
            size_t some = stop ? (size_t)(stop - from) : r->tail - r->head;
            if (n + some > FRAME_MAX_HEADER) return r->line++, damaged(r, f, "a line of more than 1 MiB");
            if (n + some > r->text_size) {
                char *grown = realloc(r->text, 2 * (n + some));
                if (!grown) return damaged(r, f, "out of memory");
                r->text = grown;
                r->text_size = 2 * (n + some);
            }
            if (some) memcpy(r->text + n, from, some);
            n += some;
            newline = stop != NULL;
            r->head += some + newline;
            r->position += (int64_t)some + newline;
        }
        if (!newline && more < 0) return damaged(r, f, "cannot read: %s", strerror(errno));
        if (!newline && n == 0) return FRAME_END;
        r->line++;
        size_t blank = 0;
        while (blank < n && strchr(" \t\r", r->text[blank])) blank++;
        if (blank == n) continue;

        json_error_t e;
        json_t *line = json_loadb(r->text, n, JSON_REJECT_DUPLICATES, &e), *key = json_object_get(line, "key");
        const char *why = NULL;
        if (!line)
            why = e.text;
        else if (!json_is_object(line))
            why = "not a JSON object";
        else if (key && !json_string_length(key))
            why = "`key` is not text";
        else if (!key && !json_string_length(key = json_object_get(line, "path")))
            why = "neither `key` nor `path`";
        if (!why) {
            frame_new(f, json_string_value(key));
            json_object_update(frame_meta(f), line);
            json_object_del(frame_meta(f), "key");
        }
        if (why) frame_error(f, "%s: line %lld: %s", r->name, (long long)r->line, why);
        json_decref(line);
        return why ? FRAME_BAD_LINE : FRAME_RECORD;
    }
}

static enum frame_got read_end(struct frame_reader *r, struct frame *f, json_t *head)
{
    int64_t records, failed, crc;
    bool sound = get_count(head, "records", &records) && get_count(head, "failed", &failed) && get_count(head, "crc32c", &crc);
    json_decref(head);
    if (!sound) return damaged(r, f, "bad end header");
    if (records != r->records)
        return damaged(r, f, "the end speaks of %lld records, %lld came", (long long)records, (long long)r->records);
    if (crc != r->crc) return damaged(r, f, "the end's checksum does not match: headers are missing or out of order");
    r->failed += failed;
    r->state = BETWEEN;
    return FRAME_END;
}

enum frame_got frame_read(struct frame_reader *r, struct frame *f)
{
    f->error[0] = 0;
    if (r->state == START) {
        int more = fill(r);
        if (more < 0) return damaged(r, f, "cannot read: %s", strerror(errno));
        if (more == 0) return damaged(r, f, "empty input: not even the frames of an empty stream");
        if (strchr("{ \t\r\n", r->buffer[r->head]) && r->buffer[r->head]) r->state = JSONL;
    }
    if (r->state == JSONL) return read_line(r, f);
    for (;;) {
        if (r->state == BETWEEN) {
            int more = fill(r);
            if (more < 0) return damaged(r, f, "cannot read: %s", strerror(errno));
            if (more == 0) return FRAME_END;
        }
        uint32_t crc;
        int64_t at = r->position;
        json_t *head = read_header(r, f, &crc);
        if (!head) return FRAME_DAMAGED;
        const char *kind = json_string_value(json_object_get(head, "kind"));
        bool begin = !strcmp(kind, "begin"), record = !strcmp(kind, "record"), end = !strcmp(kind, "end");
        if (begin == (r->state == INSIDE) || !(begin || record || end)) {
            damaged(r, f, "a `%.32s` header where %s is due", kind, r->state == INSIDE ? "a record or the end" : "a begin");
            json_decref(head);
            return FRAME_DAMAGED;
        }
        if (begin) {
            if (json_integer_value(json_object_get(head, "sluice")) != 1) {
                json_decref(head);
                return damaged(r, f, "a stream of another version than 1");
            }
            json_decref(r->begin);
            r->begin = head;
            r->state = INSIDE;
            r->records = 0;
            r->crc = crc32c(0, &crc, 4);
        } else if (record) {
            r->crc = crc32c(r->crc, &crc, 4);
            r->record_at = at;
            r->record_crc = crc;
            return read_record(r, f, head);
        } else if (read_end(r, f, head) < 0) {
            return FRAME_DAMAGED;
        }
    }
}

/* ---- writing -------------------------------------------------------------------------------------------- */

struct frame_writer {
    int fd;
    json_t *begin;
    bool begun;
    uint32_t crc;
    int64_t records;
    msgpack_sbuffer out;
    char error[160];
};

struct frame_writer *frame_writer_open(int fd, const char *program, json_t *settings)
{
    struct frame_writer *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->fd = fd;
    w->begin = json_pack("{s:s, s:i, s:s, s:s, s:o}", "kind", "begin", "sluice", 1, "program", program, "version",
                         SLUICE_VERSION, "settings", settings ? json_incref(settings) : json_object());
    msgpack_sbuffer_init(&w->out);
    fcntl(fd, F_SETPIPE_SZ, 1 << 20);
    return w;
}

const char *frame_writer_error(const struct frame_writer *w)
{
    return w->error;
}

void frame_writer_close(struct frame_writer *w)
{
    if (!w) return;
    json_decref(w->begin);
    msgpack_sbuffer_destroy(&w->out);
    free(w);
}

static bool write_error(struct frame_writer *w, const char *what)
{
    int saved = errno;
    snprintf(w->error, sizeof w->error, "%s", what ? what : strerror(errno));
    errno = saved;
    return false;
}

static bool put(struct frame_writer *w, const void *data, size_t n)
{
    return write_full(w->fd, data, n) || write_error(w, NULL);
}

static bool write_header(struct frame_writer *w, json_t *head)
{
    static const char room[4];
    msgpack_packer p;
    int items = 0;
    msgpack_sbuffer_clear(&w->out);
    msgpack_packer_init(&p, &w->out, msgpack_sbuffer_write);
    msgpack_sbuffer_write(&w->out, room, sizeof room);
    msgpack_from_json(&p, head);
    const uint8_t *map = (uint8_t *)w->out.data + 4, *end = (uint8_t *)w->out.data + w->out.size;
    if (w->out.size > FRAME_MAX_HEADER || scan(map, end, 1, &items) != end) {
        errno = EMSGSIZE;
        return write_error(w, "its header would pass 1 MiB, or nest too deep");
    }
    uint32_t crc = crc32c(0, map, (size_t)(end - map));
    memcpy(w->out.data, &crc, 4);
    w->crc = crc32c(w->begun ? w->crc : 0, &crc, 4);
    w->begun = true;

    msgpack_sbuffer marker;
    msgpack_sbuffer_init(&marker);
    msgpack_packer_init(&p, &marker, msgpack_sbuffer_write);
    msgpack_pack_ext(&p, w->out.size, EXT_TYPE);
    bool good = put(w, marker.data, marker.size) && put(w, w->out.data, w->out.size);
    msgpack_sbuffer_destroy(&marker);
    return good;
}

bool frame_write(struct frame_writer *w, struct frame *f)
{
    if (!w->begun && !write_header(w, w->begin)) return false;
    json_t *tensors = json_array(), *head = json_object(), *value;
    const char *key;
    for (int i = 0; i < f->count; i++) {
        struct frame_tensor *slot = &f->tensor[i];
        json_t *shape = json_array();
        for (int a = 0; a < slot->t.rank; a++) json_array_append_new(shape, json_integer(slot->t.shape[a]));
        if (!slot->crc_known) slot->crc = crc32c(0, slot->t.data, tensor_bytes(&slot->t));
        slot->crc_known = true;
        json_t *entry = json_pack("{s:s, s:s, s:o, s:I, s:I}", "name", slot->name, "dtype", dtype_name(slot->t.dtype), "shape",
                                  shape, "nbytes", (json_int_t)tensor_bytes(&slot->t), "crc32c", (json_int_t)slot->crc);
        json_object_update_missing(entry, slot->entry);
        json_array_append_new(tensors, entry);
    }
    json_object_set_new(head, "kind", json_string("record"));
    json_object_set_new(head, "seq", json_integer(w->records));
    json_object_foreach (f->head, key, value)
        if (strcmp(key, "kind") && strcmp(key, "seq") && strcmp(key, "tensors")) json_object_set(head, key, value);
    json_object_set_new(head, "tensors", tensors);
    bool good = write_header(w, head);
    json_decref(head);
    for (int i = 0; good && i < f->count; i++) {
        size_t bytes = tensor_bytes(&f->tensor[i].t);
        uint8_t marker[5] = {0xc4, (uint8_t)bytes};
        size_t width = 2;
        if (bytes > UINT8_MAX) { /* the shortest form that holds it, as msgpack asks */
            bool wide = bytes > UINT16_MAX;
            marker[0] = wide ? 0xc6 : 0xc5;
            for (int b = 0, n = wide ? 4 : 2; b < n; b++) marker[1 + b] = (uint8_t)(bytes >> 8 * (n - 1 - b));
            width = wide ? 5 : 3;
        }
        good = put(w, marker, width) && put(w, f->tensor[i].t.data, bytes);
    }
    w->records += good;
    return good;
}

bool frame_write_end(struct frame_writer *w, int64_t failed)
{
    if (!w->begun && !write_header(w, w->begin)) return false;
    json_t *head = json_pack("{s:s, s:I, s:I, s:I}", "kind", "end", "records", (json_int_t)w->records, "failed",
                             (json_int_t)failed, "crc32c", (json_int_t)w->crc);
    bool good = write_header(w, head);
    json_decref(head);
    return good;
}
