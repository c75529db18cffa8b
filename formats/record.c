#include "formats/record.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "formats/clock.h"
#include "formats/crc32c.h"
#include "formats/io.h"
#include "formats/listed.h"
#include "formats/msgpack_json.h"

enum {
    STEP = 64 << 20, /* a payload is read, and its memory grown, in steps of this: a lying length costs one */
    BUFFER = 1 << 16,
};
static const uint64_t max_tensor_bytes = UINT32_MAX;

/* ---- records ------------------------------------------------------------------------------------------- */

static bool record_error(struct record *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool record_error(struct record *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->error, sizeof f->error, fmt, ap);
    va_end(ap);
    return false;
}

static bool record_slots(struct record *f)
{
    if (!f->tensor) f->tensor = calloc(RECORD_MAX_TENSORS, sizeof *f->tensor);
    f->unread = !f->tensor;
    return f->tensor || record_error(f, "out of memory");
}

void record_free(struct record *f)
{
    for (int i = 0; f->tensor && i < RECORD_MAX_TENSORS; i++) {
        free(f->tensor[i].t.data);
        json_decref(f->tensor[i].entry);
    }
    free(f->tensor);
    json_decref(f->head);
    *f = (struct record)RECORD_INIT;
}

/* A field's text, all of which C can see: NULL when there is a zero byte in it, too. */
static const char *get_text(const json_t *object, const char *field)
{
    const json_t *j = json_object_get(object, field);
    const char *text = json_string_value(j);
    return text && strlen(text) == json_string_length(j) ? text : NULL;
}

const char *record_key(const struct record *f)
{
    const char *key = get_text(f->head, "key");
    return key ? key : "";
}

json_t *record_meta(struct record *f)
{
    return json_object_get(f->head, "meta");
}

const char *record_text(const struct record *f, const char *field)
{
    return get_text(json_object_get(f->head, "meta"), field);
}

void record_new(struct record *f, const char *key)
{
    json_decref(f->head);
    f->head = json_pack("{s:s, s:s, s:{}}", "kind", "record", "key", key, "meta");
    f->count = 0;
    f->error[0] = 0;
}

static int record_index(const struct record *f, const char *name)
{
    for (int i = 0; i < f->count; i++)
        if (!strcmp(f->tensor[i].name, name)) return i;
    return -1;
}

struct tensor *record_find(struct record *f, const char *name)
{
    int i = record_index(f, name);
    return i < 0 ? NULL : &f->tensor[i].t;
}

struct tensor *record_want(struct record *f, const char *name, enum dtype d, int rank)
{
    char is[160];
    struct tensor *t = record_find(f, name);
    if (!t) {
        struct listed l = listed_start(name);
        for (int i = 0; i < f->count; i++) listed_add(&l, f->tensor[i].name);
        record_error(f, "has no tensor `%s`: %s", name, listed_end(&l));
        return NULL;
    }
    if (t->rank == rank && (d == DT_COUNT ? dtype_is_float(t->dtype) : t->dtype == d)) return t;
    record_error(f, "tensor `%s` is %s, not %s of rank %d", name, tensor_describe(is, sizeof is, t),
                 d == DT_COUNT ? "floating point" : dtype_name(d), rank);
    return NULL;
}

static bool good_name(const char *name)
{
    json_t *text = json_string(name); /* NULL when it is not UTF-8 */
    bool good = text && *name && strlen(name) < RECORD_MAX_NAME;
    json_decref(text);
    return good;
}

struct tensor *record_add_shape(struct record *f, const char *name, enum dtype d,
                                const int64_t *rank_then_shape)
{
    int i = record_index(f, name);
    size_t bytes;
    if (!record_slots(f)) return NULL;
    if (i < 0 && f->count == RECORD_MAX_TENSORS) {
        record_error(f, "more than %d tensors", RECORD_MAX_TENSORS);
        return NULL;
    }
    struct record_tensor *slot = &f->tensor[i < 0 ? f->count : i];
    if (!good_name(name)) {
        record_error(f, "`%.64s` is no name for a tensor: 1 to %d bytes of UTF-8", name, RECORD_MAX_NAME - 1);
        return NULL;
    }
    if (rank_then_shape[0] > TENSOR_MAX_RANK ||
        !tensor_bytes_checked(d, (int)rank_then_shape[0], rank_then_shape + 1, &bytes) ||
        bytes > max_tensor_bytes) {
        record_error(f, "tensor `%s` is too large for a record", name);
        return NULL;
    }
    if (bytes > slot->capacity) {
        free(slot->t.data);
        slot->t.data = malloc(bytes);
        slot->capacity = slot->t.data ? bytes : 0;
        if (!slot->t.data) {
            record_error(f, "no memory for tensor `%s` of %zu bytes", name, bytes);
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

bool record_put(struct record *f, const char *name, enum dtype d, const struct tensor *from)
{
    int64_t rank_then_shape[1 + TENSOR_MAX_RANK] = {from->rank};
    memcpy(rank_then_shape + 1, from->shape, (size_t)from->rank * sizeof *from->shape);
    struct tensor *to = record_add_shape(f, name, d, rank_then_shape);
    if (to) tensor_convert(to, from);
    return to != NULL;
}

void record_drop(struct record *f, const char *name)
{
    int i = record_index(f, name);
    if (i < 0) return;
    struct record_tensor dropped = f->tensor[i]; /* its memory goes behind the others, for reuse */
    memmove(f->tensor + i, f->tensor + i + 1, (size_t)(f->count - i - 1) * sizeof dropped);
    f->tensor[--f->count] = dropped;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

struct record_reader {
    int fd;
    char *name;
    enum { START, INSIDE, BETWEEN, JSONL } state;
    uint8_t buffer[BUFFER];
    size_t head, tail; /* unread bytes of buffer */
    int64_t position;  /* bytes consumed */
    int64_t header_at; /* where the latest header began */
    uint32_t header_crc;
    uint8_t *header; /* RECORD_MAX_HEADER */
    uint32_t crc;    /* over the header CRCs of this stream */
    int64_t records; /* of this stream; -1: entered in the middle, the first record's seq says */
    int64_t failed;  /* of all streams */
    int64_t line;    /* JSONL */
    char *text;
    size_t text_size;
    json_t *begin;
};

struct record_reader *record_reader_open(int fd, const char *name)
{
    struct record_reader *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->header = malloc(RECORD_MAX_HEADER);
    r->name = strdup(name);
    if (!r->header || !r->name) return record_reader_close(r), NULL;
    r->fd = fd;
    fcntl(fd, F_SETPIPE_SZ, 1 << 20); /* fewer switches between the two programs; no matter when refused */
    return r;
}

struct record_reader *record_reader_open_at(int fd, const char *name, int64_t offset)
{
    if (lseek(fd, offset, SEEK_SET) < 0) return NULL;
    struct record_reader *r = record_reader_open(fd, name);
    if (!r) return NULL;
    r->state = INSIDE;
    r->position = offset;
    r->records = -1;
    return r;
}

void record_reader_close(struct record_reader *r)
{
    if (!r) return;
    json_decref(r->begin);
    free(r->header);
    free(r->name);
    free(r->text);
    free(r);
}

bool record_reader_is_jsonl(const struct record_reader *r)
{
    return r->state == JSONL;
}

int64_t record_reader_failed(const struct record_reader *r)
{
    return r->failed;
}

json_t *record_reader_begin(const struct record_reader *r)
{
    return r->begin;
}

int64_t record_reader_bytes(const struct record_reader *r)
{
    return r->position;
}

int64_t record_reader_last_at(const struct record_reader *r, uint32_t *header_crc)
{
    *header_crc = r->header_crc;
    return r->header_at;
}

/* The place is where the reader stands, for a header its first byte. No tensor is left to be looked at: some
 * have no memory yet. */
static enum record_got damaged(struct record_reader *r, struct record *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static enum record_got damaged(struct record_reader *r, struct record *f, const char *fmt, ...)
{
    char what[384], record[32] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    f->count = 0;
    if (r->records >= 0 && r->state != START)
        snprintf(record, sizeof record, " record %lld,", (long long)r->records);
    if (r->state == JSONL)
        record_error(f, "%.90s: line %lld: %s", r->name, (long long)r->line, what);
    else
        record_error(f, "%.90s:%s byte %lld: %s", r->name, record, (long long)r->position, what);
    return RECORD_DAMAGED;
}

#define bad_header(r, f, ...) ((r)->position = (r)->header_at, damaged(r, f, "bad header" __VA_ARGS__))

/* The system could not read; what: behind "cannot read". */
static enum record_got unread(struct record_reader *r, struct record *f, const char *what)
{
    f->unread = true;
    return damaged(r, f, "cannot read%s%s: %s", *what ? " " : "", what, strerror(errno));
}

/* Refill an empty buffer: 1 there are bytes, 0 end of file, -1 error (errno). */
static int fill(struct record_reader *r)
{
    if (r->head < r->tail) return 1;
    ssize_t got = read_some(r->fd, r->buffer, BUFFER);
    if (got <= 0) return (int)got;
    r->head = 0;
    r->tail = (size_t)got;
    return 1;
}

/* So that a short header is not cut by the buffer's end: what has come of it goes to the start, and more behind. */
static void gather(struct record_reader *r)
{
    struct pollfd p = {r->fd, POLLIN, 0};
    if (r->tail < BUFFER || r->tail - r->head > 3 + UINT8_MAX) return;
    r->tail -= r->head;
    memmove(r->buffer, r->buffer + r->head, r->tail);
    r->head = 0;
    ssize_t got = poll(&p, 1, 0) > 0 ? read_some(r->fd, r->buffer + r->tail, BUFFER - r->tail) : 0;
    if (got > 0) r->tail += (size_t)got;
}

/* Bytes of the header that comes next, if it is an end, in the short form that an end has, and all of it is in the buffer;
 * else 0. What is wrong with a header is for read_header() to say. */
static size_t buffered_end(const struct record_reader *r)
{
    const uint8_t *at = r->buffer + r->head;
    const size_t have = r->tail - r->head;
    const char *why;
    if (have < 3 || at[0] != 0xc7 || at[1] <= 4 || have < 3u + at[1]) return 0;
    json_t *head = json_from_msgpack(at + 7, at[1] - 4u, &why);
    const char *kind = get_text(head, "kind");
    const size_t bytes = kind && !strcmp(kind, "end") ? 3u + at[1] : 0;
    json_decref(head);
    return bytes;
}

bool record_reader_ready(struct record_reader *r, int ms)
{
    const double until = clock_seconds() + 1e-3 * ms;
    struct pollfd p = {r->fd, POLLIN, 0};
    const int came = r->head < r->tail ? 1 : poll(&p, 1, ms);
    if (came <= 0) return came < 0;
    if (r->state != INSIDE || fill(r) <= 0) return true;
    gather(r);
    const size_t end = buffered_end(r);
    if (!end || end < r->tail - r->head) return true;
    const double left = until - clock_seconds();
    return poll(&p, 1, left > 0 ? (int)(1e3 * left) : 0) != 0;
}

/* n bytes to dst: from the buffer, then straight from the descriptor when many are wanted. Returns how many
 * came. */
static ssize_t take(struct record_reader *r, void *dst, size_t n)
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

static bool need(struct record_reader *r, struct record *f, void *dst, size_t n, const char *what)
{
    ssize_t got = take(r, dst, n);
    if (got == (ssize_t)n) return true;
    if (got < 0)
        unread(r, f, what);
    else
        damaged(r, f, "truncated within %s", what);
    return false;
}

/* Neither the wire nor JSON lines: the message shows the first words, in whatever pieces they arrive. */
static enum record_got no_stream(struct record_reader *r, struct record *f)
{
    char start[40];
    size_t n = 0;
    uint8_t first = r->buffer[r->head], c = 0;
    const char *mark = "";
    for (; n < sizeof start - 1 && fill(r) > 0; r->head++) {
        c = r->buffer[r->head];
        if (n == 0 && memchr("\xef\xbb\xbf", c, 3))
            mark = "a byte order mark and ";
        else if (c == '\t' || (c >= ' ' && c < 127))
            start[n++] = (char)c;
        else
            break;
    }
    start[n] = 0;
    bool text = n && (c >= ' ' || memchr("\t\r\n", c, 3)) && c != 127;
    if (!text) return damaged(r, f, "not a record header (first byte 0x%02x)", first);
    const char *kind = *start == '[' ? "a JSON list" : *start != '{' && strchr(start, ',') ? "a CSV" : "text";
    return damaged(r, f,
                   "looks like %s, not like records or JSON lines, {\"key\": ..}: it starts with %s`%s`",
                   kind, mark, start);
}

/* One header: its map, or NULL with f->error. */
static json_t *read_header(struct record_reader *r, struct record *f)
{
    uint8_t c, more[5];
    uint64_t size;
    r->header_at = r->position;
    if (!need(r, f, &c, 1, "the stream: no end came")) return NULL;
    if (c >= 0xd4 && c <= 0xd8) {
        size = 1u << (c - 0xd4);
        if (!need(r, f, more, 1, "a header")) return NULL;
    } else if (c >= 0xc7 && c <= 0xc9) {
        int width = 1 << (c - 0xc7);
        if (!need(r, f, more, (size_t)width + 1, "a header")) return NULL;
        size = big_endian(more, width);
        more[0] = more[width];
    } else {
        r->position = r->header_at;
        damaged(r, f, "not a record header (first byte 0x%02x)", c);
        return NULL;
    }
    if (more[0] != RECORD_EXT_TYPE || size <= 4 || size > RECORD_MAX_HEADER) {
        r->position = r->header_at;
        damaged(r, f, "not a record header (extension type %d of %llu bytes)", (int8_t)more[0],
                (unsigned long long)size);
        return NULL;
    }
    if (!need(r, f, r->header, size, "a header")) return NULL;
    const uint8_t *map = r->header + 4;
    const char *why = "checksum mismatch";
    json_t *head = NULL;
    memcpy(&r->header_crc, r->header, 4);
    if (crc32c(0, map, size - 4) == r->header_crc) head = json_from_msgpack(map, size - 4, &why);
    if (get_text(head, "kind")) return head;
    f->unread = !head && !strcmp(why, "out of memory");
    bad_header(r, f, ": %s", head ? "it has no `kind`" : why);
    json_decref(head);
    return NULL;
}

static bool get_count(json_t *object, const char *field, int64_t *v)
{
    json_t *j = json_object_get(object, field);
    *v = json_integer_value(j);
    return json_is_integer(j) && *v >= 0;
}

/* One entry of the header's `tensors` into slot i: all is checked before any memory is spent on it. */
static const char *describe_tensor(struct record *f, int i, json_t *entry)
{
    struct record_tensor *slot = &f->tensor[i];
    const char *name = get_text(entry, "name"), *type = get_text(entry, "dtype");
    json_t *shape = json_object_get(entry, "shape");
    int64_t nbytes, crc, dims[1 + TENSOR_MAX_RANK];
    enum dtype d;
    size_t bytes;
    if (!name || !*name || strlen(name) >= RECORD_MAX_NAME) return "a tensor without a good name";
    if (!type || !dtype_parse(&d, type)) return "a tensor of unknown dtype";
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_RANK)
        return "a tensor without a good shape";
    dims[0] = (int64_t)json_array_size(shape);
    for (int a = 0; a < dims[0]; a++) {
        json_t *dim = json_array_get(shape, (size_t)a);
        if (!json_is_integer(dim)) return "a tensor without a good shape";
        dims[1 + a] = json_integer_value(dim);
    }
    if (!tensor_bytes_checked(d, (int)dims[0], dims + 1, &bytes) || bytes > max_tensor_bytes)
        return "a tensor of absurd shape";
    if (!get_count(entry, "nbytes", &nbytes) || (size_t)nbytes != bytes)
        return "a tensor whose nbytes does not match its shape";
    if (!get_count(entry, "crc32c", &crc) || crc > UINT32_MAX) return "a tensor without a checksum";
    f->count = i;
    if (record_find(f, name)) return "two tensors of one name";
    snprintf(slot->name, sizeof slot->name, "%s", name);
    slot->t = tensor_make(d, slot->t.data, dims);
    slot->crc = (uint32_t)crc;
    slot->crc_known = true;
    json_decref(slot->entry);
    slot->entry = json_incref(entry);
    f->count = i + 1;
    return NULL;
}

static bool read_payload(struct record_reader *r, struct record *f, struct record_tensor *slot)
{
    uint8_t c, width[4];
    size_t bytes = tensor_bytes(&slot->t);
    uint32_t crc = 0;
    char what[RECORD_MAX_NAME + 256];
    snprintf(what, sizeof what, "tensor `%s` of %.150s", slot->name, record_key(f));
    if (!need(r, f, &c, 1, what)) return false;
    if (c < 0xc4 || c > 0xc6)
        return damaged(r, f, "%s: not a msgpack bin (first byte 0x%02x)", what, c), false;
    if (!need(r, f, width, (size_t)1 << (c - 0xc4), what)) return false;
    if (big_endian(width, 1 << (c - 0xc4)) != bytes)
        return damaged(r, f, "%s: %llu bytes, its header says %zu", what,
                       (unsigned long long)big_endian(width, 1 << (c - 0xc4)), bytes),
               false;
    for (size_t have = 0; have < bytes;) {
        size_t some = bytes - have < STEP ? bytes - have : STEP;
        if (have + some > slot->capacity) {
            void *grown = realloc(slot->t.data, have + some);
            f->unread = !grown;
            if (!grown) return damaged(r, f, "%s: no memory for %zu bytes", what, bytes), false;
            slot->t.data = grown;
            slot->capacity = have + some;
        }
        for (size_t stop = have + some; have < stop;) { /* pieces are still in the cache when summed */
            size_t piece = stop - have < (1 << 18) ? stop - have : 1 << 18;
            if (!need(r, f, (char *)slot->t.data + have, piece, what)) return false;
            crc = crc32c(crc, (char *)slot->t.data + have, piece);
            have += piece;
        }
    }
    if (crc != slot->crc) return damaged(r, f, "%s: checksum mismatch", what), false;
    return true;
}

static enum record_got read_record(struct record_reader *r, struct record *f, json_t *head)
{
    json_t *tensors = json_object_get(head, "tensors");
    int64_t seq;
    bool numbered = get_count(head, "seq", &seq);
    json_decref(f->head);
    f->head = head;
    f->count = 0;
    if (numbered && r->records < 0) r->records = seq;
    if (!numbered || seq != r->records || seq == INT64_MAX)
        return bad_header(r, f, ": its `seq` is not %lld", (long long)r->records);
    if (!*record_key(f)) return bad_header(r, f, ": it has no good `key`");
    if (!json_is_object(record_meta(f)))
        return bad_header(r, f, " of %.200s: it has no `meta`", record_key(f));
    if (!json_is_array(tensors)) return bad_header(r, f, " of %.200s: it has no `tensors`", record_key(f));
    if (json_array_size(tensors) > RECORD_MAX_TENSORS)
        return bad_header(r, f, " of %.200s: more than %d tensors", record_key(f), RECORD_MAX_TENSORS);
    if (!record_slots(f)) return RECORD_DAMAGED;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const char *why = describe_tensor(f, (int)i, json_array_get(tensors, i));
        if (why) return bad_header(r, f, " of %.200s: %s", record_key(f), why);
    }
    for (int i = 0; i < f->count; i++)
        if (!read_payload(r, f, &f->tensor[i])) return RECORD_DAMAGED;
    r->records++;
    return RECORD_GOT;
}

/* The next line that is not blank into r->text: its length, 0 at the end, -1 with f->error. */
static ssize_t next_line(struct record_reader *r, struct record *f)
{
    for (;;) {
        size_t n = 0, blank = 0;
        bool newline = false;
        int more = 1;
        r->line++;
        while (!newline && (more = fill(r)) > 0) {
            uint8_t *from = r->buffer + r->head, *stop = memchr(from, '\n', r->tail - r->head);
            size_t some = stop ? (size_t)(stop - from) : r->tail - r->head;
            if (n + some > RECORD_MAX_HEADER) return damaged(r, f, "more than 1 MiB");
            if (n + some > r->text_size) {
                char *grown = realloc(r->text, 2 * (n + some));
                f->unread = !grown;
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
        if (more < 0) return unread(r, f, "");
        while (blank < n && (r->text[blank] == ' ' || r->text[blank] == '\t' || r->text[blank] == '\r'))
            blank++;
        if (blank < n) return (ssize_t)n;
        if (!newline) return 0;
    }
}

/* What is wrong with a line's name, which is its key, or its path when it has none; NULL when it is good. */
static const char *name_line(const json_t *line, const char **name)
{
    const json_t *key = json_object_get(line, "key"), *called = key ? key : json_object_get(line, "path");
    if (!json_is_object(line)) return "not a JSON object";
    if (!called) return "neither `key` nor `path`";
    if (!json_is_string(called)) return key ? "`key` is not text" : "`path` is not text";
    if (!json_string_length(called)) return key ? "`key` is empty" : "`path` is empty";
    *name = json_string_value(called);
    return NULL;
}

static enum record_got read_line(struct record_reader *r, struct record *f)
{
    ssize_t n = next_line(r, f);
    if (n <= 0) return n ? RECORD_DAMAGED : RECORD_END;
    json_error_t e;
    json_t *line = json_loadb(r->text, (size_t)n, JSON_REJECT_DUPLICATES, &e);
    const char *name = NULL, *why = line ? name_line(line, &name) : *e.text ? e.text : "out of memory";
    if (!why) {
        record_new(f, name);
        if (json_object_update(record_meta(f), line)) why = "out of memory";
        json_object_del(record_meta(f), "key");
    }
    if (why) record_error(f, "%.90s: line %lld: %s", r->name, (long long)r->line, why);
    json_decref(line);
    return why ? RECORD_BAD_LINE : RECORD_GOT;
}

static enum record_got read_begin(struct record_reader *r, struct record *f, json_t *head)
{
    json_decref(r->begin);
    r->begin = head;
    r->state = INSIDE;
    r->records = 0;
    r->crc = 0;
    json_t *version = json_object_get(head, "sluice");
    if (!json_is_integer(version) || json_integer_value(version) != 1)
        return bad_header(r, f, ": a stream of another version than 1");
    if (!json_is_string(json_object_get(head, "program")) ||
        !json_is_string(json_object_get(head, "version")) ||
        !json_is_object(json_object_get(head, "settings")))
        return bad_header(r, f, ": a begin without `program`, `version` or `settings`");
    return RECORD_END;
}

static enum record_got read_end(struct record_reader *r, struct record *f, json_t *head)
{
    int64_t records, failed, crc;
    bool sound = get_count(head, "records", &records) && get_count(head, "failed", &failed) &&
                 get_count(head, "crc32c", &crc);
    json_decref(head);
    if (!sound) return bad_header(r, f, ": an end without good `records`, `failed` or `crc32c`");
    if (records != r->records)
        return bad_header(r, f, ": the end speaks of %lld records, %lld came", (long long)records,
                          (long long)r->records);
    if (crc != r->crc)
        return bad_header(r, f, ": the end's checksum does not match: headers are missing or out of order");
    if (failed > INT64_MAX / 2 - r->failed) return bad_header(r, f, ": absurdly many failed");
    r->failed += failed;
    r->state = BETWEEN;
    return RECORD_END;
}

enum record_got record_read(struct record_reader *r, struct record *f)
{
    f->error[0] = 0;
    f->unread = false;
    if (r->state == START) {
        int more = fill(r);
        if (more < 0) return unread(r, f, "");
        if (more == 0) return damaged(r, f, "empty input: not even the records of an empty stream");
        uint8_t first = r->buffer[r->head];
        if (memchr("{ \t\r\n", first, 5))
            r->state = JSONL;
        else if (first < 0x80 || first == 0xef)
            return no_stream(r, f);
    }
    if (r->state == JSONL) return read_line(r, f);
    for (;;) {
        if (r->state == BETWEEN) {
            int more = fill(r);
            if (more < 0) return unread(r, f, "");
            if (more == 0) return RECORD_END;
        }
        json_t *head = read_header(r, f);
        if (!head) return RECORD_DAMAGED;
        const char *kind = get_text(head, "kind");
        bool begin = !strcmp(kind, "begin"), record = !strcmp(kind, "record"), end = !strcmp(kind, "end");
        if (begin == (r->state == INSIDE) || !(begin || record || end)) {
            bad_header(r, f, ": its kind is `%.32s` where %s is due", kind,
                       begin || r->state == INSIDE ? "a record or the end" : "a begin");
            json_decref(head);
            return RECORD_DAMAGED;
        }
        if (end ? read_end(r, f, head) < 0 : begin && read_begin(r, f, head) < 0) return RECORD_DAMAGED;
        if (!end) r->crc = crc32c(r->crc, &r->header_crc, 4);
        if (record) return read_record(r, f, head);
    }
}
