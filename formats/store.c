#include "formats/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/atomic.h"
#include "formats/crc32c.h"
#include "formats/error.h"
#include "formats/hash.h"
#include "formats/io.h"
#include "formats/path.h"

enum { VERSION = 1, MAX_SHARD = 999999999, PATH_SIZE = 4096 + 512 };

/* Name, dtype and shape, as in the index. */
static json_t *tensor_json(const struct record_tensor *slot)
{
    json_t *shape = json_array();
    for (int a = 0; a < slot->t.rank; a++) json_array_append_new(shape, json_integer(slot->t.shape[a]));
    return json_pack("{s:s, s:s, s:o}", "name", slot->name, "dtype", dtype_name(slot->t.dtype), "shape",
                     shape);
}

/* What a record says and holds, but for its place in a stream: everything in its header, tensors by their
 * checksums. */
static uint64_t content_of(const struct record *f)
{
    json_t *all = json_copy(f->head), *tensors = json_array();
    json_object_del(all, "seq");
    for (int i = 0; i < f->count; i++) {
        const struct record_tensor *slot = &f->tensor[i];
        uint32_t crc = slot->crc_known ? slot->crc : crc32c(0, slot->t.data, tensor_bytes(&slot->t));
        json_t *entry = tensor_json(slot);
        json_object_set_new(entry, "crc32c", json_integer(crc));
        json_array_append_new(tensors, entry);
    }
    json_object_set_new(all, "tensors", tensors);
    char *text = json_dumps(all, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
    uint64_t h = hash_more(HASH_START, text ? text : "", text ? strlen(text) : 0);
    free(text);
    json_decref(all);
    return h;
}

static bool is_shard_name(const char *name, int64_t *number)
{
    size_t digits = strspn(name, "0123456789");
    if (digits < 6 || digits > 9 || strcmp(name + digits, ".mp")) return false;
    *number = atoll(name);
    return true;
}

/* ---- the index ----------------------------------------------------------------------------------------- */

static void entry_free(struct store_record *r)
{
    free(r->key);
    free(r->tensors);
}

static struct store_record *new_record(struct store *s)
{
    if ((s->count & (s->count - 1)) == 0) { /* full: grow to the next power of two */
        size_t room = s->count ? 2 * (size_t)s->count : 1;
        struct store_record *grown = realloc(s->record, room * sizeof *grown);
        if (!grown) return NULL;
        s->record = grown;
    }
    s->record[s->count] = (struct store_record){0};
    return &s->record[s->count++];
}

/* The shard's number in s->shard; -1: out of memory. Records come shard by shard, more or less: look from the
 * end. */
static int shard_index(struct store *s, const char *path)
{
    for (int i = s->shards; i--;)
        if (!strcmp(s->shard[i], path)) return i;
    char **grown = realloc(s->shard, ((size_t)s->shards + 1) * sizeof *grown);
    if (!grown) return -1;
    s->shard = grown;
    if (!(s->shard[s->shards] = strdup(path))) return -1;
    return s->shards++;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct store_record *)a)->key, ((const struct store_record *)b)->key);
}

static int by_place(const void *a, const void *b)
{
    const struct store_record *x = a, *y = b;
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool integer_field(json_t *line, const char *field, int64_t high, int64_t *v)
{
    json_t *j = json_object_get(line, field);
    *v = json_integer_value(j);
    return json_is_integer(j) && *v >= 0 && *v <= high;
}

/* false: out of memory. */
static bool write_index_line(FILE *out, const struct store_record *r, const char *shard)
{
    json_t *text = json_string(r->key);
    char *key = json_dumps(text, JSON_ENCODE_ANY);
    if (key)
        fprintf(out,
                "{\"key\":%s,\"shard\":\"%s\",\"offset\":%" PRId64 ",\"bytes\":%" PRId64
                ",\"crc32c\":%" PRIu32 ",\"content\":\"%016" PRIx64 "\",\"tensors\":%s}\n",
                key, shard, r->offset, r->bytes, r->crc, r->content, r->tensors);
    json_decref(text);
    free(key);
    return key != NULL;
}

/* What is wrong with a record's line, or NULL. prefix: the store's folder below s->folder, "" or "name/". */
static const char *read_index_line(struct store *s, const char *prefix, json_t *line)
{
    const char *key = json_string_value(json_object_get(line, "key"));
    const char *shard = json_string_value(json_object_get(line, "shard"));
    const char *content = json_string_value(json_object_get(line, "content"));
    json_t *tensors = json_object_get(line, "tensors");
    int64_t offset, bytes, crc, number;
    char path[NAME_MAX + 32], *end;
    if (!key || !*key) return "no key";
    if (!shard || !is_shard_name(shard, &number)) return "no good shard name";
    if (!integer_field(line, "offset", INT64_MAX, &offset)) return "no good offset";
    if (!integer_field(line, "bytes", INT64_MAX - offset, &bytes)) return "no good size";
    if (!integer_field(line, "crc32c", UINT32_MAX, &crc)) return "no good checksum";
    if (!content || strlen(content) != 16 || !json_is_array(tensors)) return "no content or no tensors";
    struct store_record *r = new_record(s);
    if (!r) return "out of memory";
    snprintf(path, sizeof path, "%s%s", prefix, shard);
    r->offset = offset;
    r->bytes = bytes;
    r->crc = (uint32_t)crc;
    r->content = strtoull(content, &end, 16);
    r->shard = shard_index(s, path);
    r->key = strdup(key);
    r->tensors = json_dumps(tensors, JSON_COMPACT);
    return r->shard < 0 || !r->key || !r->tensors ? "out of memory" : *end ? "no good content hash" : NULL;
}

struct index_head {
    int64_t shards, replaced;
};

/* Reads an index that is there into s; its lines are good only if all of them are. */
static bool read_index(struct store *s, FILE *in, const char *prefix, struct index_head *head, char *err,
                       size_t errlen)
{
    char *text = NULL;
    size_t size = 0;
    int64_t records = -1, crc_wanted = 0, version = 0, number = 0, start = s->count;
    uint32_t crc = 0;
    const char *why = NULL;
    ssize_t n = 0;
    while (!why && (n = read_text_line(in, &text, &size)) > 0) {
        json_t *line = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
        if (number++ == 0) {
            if (!integer_field(line, "sluice_store", INT64_MAX, &version) ||
                !integer_field(line, "records", INT64_MAX, &records) ||
                !integer_field(line, "shards", MAX_SHARD + 1, &head->shards) ||
                !integer_field(line, "replaced", INT64_MAX, &head->replaced) ||
                !integer_field(line, "crc32c", UINT32_MAX, &crc_wanted))
                why = "not the first line of a store's index";
            else if (version != VERSION)
                why = "a store of another version than 1";
        } else {
            crc = crc32c(crc, text, (size_t)n);
            why = line ? read_index_line(s, prefix, line) : "not JSON";
        }
        json_decref(line);
    }
    free(text);
    if (why)
        return fail(err, errlen, "%s/%sindex.jsonl: line %lld: %s", s->folder, prefix, (long long)number,
                    why);
    if (n < 0) return fail(err, errlen, "%s/%sindex.jsonl: %s", s->folder, prefix, strerror(errno));
    if (number == 0) return fail(err, errlen, "%s/%sindex.jsonl: empty file", s->folder, prefix);
    if (s->count - start != records || crc != crc_wanted)
        return fail(err, errlen, "%s/%sindex.jsonl: damaged (%lld of %lld records, checksum %s)", s->folder,
                    prefix, (long long)(s->count - start), (long long)records,
                    crc == crc_wanted ? "good" : "wrong");
    return true;
}

/* The index of folder s->folder/prefix: 1 read, 0 there is none, -1 with the reason in err. */
static int load_index(struct store *s, const char *prefix, struct index_head *head, char *err, size_t errlen)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%sindex.jsonl", s->folder, prefix);
    FILE *in = open_regular(path, err, errlen);
    if (!in) return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    bool good = read_index(s, in, prefix, head, err, errlen);
    fclose(in);
    return good ? 1 : -1;
}

static bool save_index(const struct store *s, const struct index_head *head, char *err, size_t errlen)
{
    char path[PATH_SIZE];
    struct atomic_file file;
    uint32_t crc = 0;
    struct store_record *sorted = malloc((size_t)s->count * sizeof *sorted + 1);
    char *body = NULL;
    size_t size = 0;
    FILE *lines = open_memstream(&body, &size);
    bool good = false;
    snprintf(path, sizeof path, "%s/index.jsonl", s->folder);
    if (!sorted || !lines) goto memory;
    if (s->count) memcpy(sorted, s->record, (size_t)s->count * sizeof *sorted);
    qsort(sorted, (size_t)s->count, sizeof *sorted, by_place);
    for (int64_t i = 0; i < s->count; i++)
        if (!write_index_line(lines, &sorted[i], s->shard[sorted[i].shard])) goto memory;
    if (fflush(lines) || ferror(lines)) goto memory;
    crc = crc32c(0, body, size);
    if (!atomic_open(&file, path, err, errlen)) goto out;
    fprintf(file.f,
            "{\"sluice_store\":%d,\"records\":%lld,\"shards\":%lld,\"replaced\":%lld,\"crc32c\":%u}\n",
            VERSION, (long long)s->count, (long long)head->shards, (long long)head->replaced, crc);
    fwrite(body, 1, size, file.f);
    good = atomic_commit(&file, err, errlen);
    goto out;
memory:
    fail(err, errlen, "%s: out of memory", path);
out:
    if (lines) fclose(lines);
    free(body);
    free(sorted);
    return good;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

void store_close(struct store *s)
{
    if (!s) return;
    for (int64_t i = 0; i < s->count; i++) entry_free(&s->record[i]);
    for (int i = 0; i < s->shards; i++) free(s->shard[i]);
    free(s->record);
    free(s->shard);
    free(s->folder);
    free(s);
}

static struct store *new_store(const char *folder, char *err, size_t errlen)
{
    struct store *s = calloc(1, sizeof *s);
    if (s && !(s->folder = strdup(folder))) free(s), s = NULL;
    if (!s) fail(err, errlen, "%s: out of memory", folder);
    return s;
}

enum { EMPTY_IS_FINE = 1, NO_SIZES = 2 };

/* The stores in the folders below s->folder. *found counts them. */
static bool load_parts(struct store *s, int how, int *found, char *err, size_t errlen)
{
    struct dirent **entry;
    struct index_head head;
    int n = scandir(s->folder, &entry, NULL, versionsort);
    if (n < 0)
        return (how & EMPTY_IS_FINE && errno == ENOENT) ||
               fail(err, errlen, "%s: %s", s->folder, strerror(errno));
    bool good = true;
    for (int i = 0; i < n; i++) {
        char prefix[NAME_MAX + 2];
        snprintf(prefix, sizeof prefix, "%s/", entry[i]->d_name);
        if (good && entry[i]->d_name[0] != '.') {
            int got = load_index(s, prefix, &head, err, errlen);
            good = got >= 0;
            *found += got > 0;
        }
        free(entry[i]);
    }
    free(entry);
    return good;
}

static int open_shard(const struct store *s, int shard)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", s->folder, s->shard[shard]);
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe, where a shard should be, is empty */
}

/* Every shard has the bytes that the index speaks of. */
static bool check_sizes(const struct store *s, char *err, size_t errlen)
{
    int64_t *size = calloc((size_t)s->shards + 1, sizeof *size);
    bool good = size || fail(err, errlen, "%s: out of memory", s->folder);
    for (int i = 0; good && i < s->shards; i++) {
        char path[PATH_SIZE];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", s->folder, s->shard[i]);
        good = stat(path, &st) == 0 || fail(err, errlen, "%s: %s", path, strerror(errno));
        if (good) size[i] = st.st_size;
    }
    for (int64_t i = 0; good && i < s->count; i++) {
        const struct store_record *r = &s->record[i];
        if (r->offset + r->bytes > size[r->shard])
            good = fail(err, errlen, "%s/%s: too short: record %s ends at byte %lld of %lld", s->folder,
                        s->shard[r->shard], r->key, (long long)(r->offset + r->bytes),
                        (long long)size[r->shard]);
    }
    free(size);
    return good;
}

static struct store *open_store(const char *folder, int how, char *err, size_t errlen)
{
    struct index_head head;
    int found = 0;
    struct store *s = new_store(folder, err, errlen);
    if (!s) return NULL;
    if ((found = load_index(s, "", &head, err, errlen)) < 0 || !load_parts(s, how, &found, err, errlen))
        goto bad;
    if (!found && !(how & EMPTY_IS_FINE)) {
        fail(err, errlen, "%s: no store: it has no index.jsonl", folder);
        goto bad;
    }
    if (s->count) qsort(s->record, (size_t)s->count, sizeof *s->record, by_key);
    for (int64_t i = 1; i < s->count; i++)
        if (!strcmp(s->record[i - 1].key, s->record[i].key)) {
            fail(err, errlen, "%s: key %s is in %s and in %s", folder, s->record[i].key,
                 s->shard[s->record[i - 1].shard], s->shard[s->record[i].shard]);
            goto bad;
        }
    if (how & NO_SIZES || check_sizes(s, err, errlen)) return s;
bad:
    store_close(s);
    return NULL;
}

struct store *store_open(const char *folder, char *err, size_t errlen)
{
    return open_store(folder, 0, err, errlen);
}

struct store *store_open_any(const char *folder, char *err, size_t errlen)
{
    return open_store(folder, EMPTY_IS_FINE | NO_SIZES, err, errlen);
}

int64_t store_find(const struct store *s, const char *key)
{
    struct store_record wanted = {.key = (char *)key};
    const struct store_record *r =
        s->count ? bsearch(&wanted, s->record, (size_t)s->count, sizeof wanted, by_key) : NULL;
    return r ? r - s->record : -1;
}

bool store_read(const struct store *s, int64_t i, struct record *f)
{
    const struct store_record *want = &s->record[i];
    const char *shard = s->shard[want->shard];
    int fd = open_shard(s, want->shard);
    f->unread = fd < 0 && errno != ENOENT;
    if (fd < 0) return fail(f->error, sizeof f->error, "%s: %s", shard, strerror(errno));
    struct record_reader *r = record_reader_open_at(fd, shard, want->offset);
    bool good =
        r || fail(f->error, sizeof f->error, "%s: cannot read at byte %lld", shard, (long long)want->offset);
    f->unread = !good;
    if (good)
        good = record_read(r, f) == RECORD_GOT ||
               (f->error[0] ? false
                            : fail(f->error, sizeof f->error, "%s: no record at byte %lld", shard,
                                   (long long)want->offset));
    uint32_t crc;
    if (good && (record_reader_last_at(r, &crc) != want->offset || crc != want->crc ||
                 strcmp(record_key(f), want->key) || record_reader_bytes(r) != want->offset + want->bytes))
        good = fail(f->error, sizeof f->error, "%s: byte %lld: not the record that the index speaks of",
                    shard, (long long)want->offset);
    record_reader_close(r);
    close(fd);
    return good;
}

uint64_t store_content(const struct store *s)
{
    uint64_t h = HASH_START;
    for (int64_t i = 0; i < s->count; i++) {
        h = hash_more(h, s->record[i].key, strlen(s->record[i].key) + 1);
        h = hash_more(h, &s->record[i].content, sizeof s->record[i].content);
    }
    return h;
}

/* ---- checking ------------------------------------------------------------------------------------------ */

/* One shard from begin to end; placed: its records in order. If the stream breaks, each record is tried by
 * itself. */
static int64_t check_shard(const struct store *s, const struct store_record *placed, int64_t n,
                           struct record *f, store_report *report, void *context)
{
    const char *shard = s->shard[placed->shard];
    int64_t bad = 0, next = 0;
    enum record_got got = RECORD_DAMAGED;
    int fd = open_shard(s, placed->shard);
    struct record_reader *r = fd >= 0 ? record_reader_open(fd, shard) : NULL;
    char why[sizeof f->error];
    while (r && (got = record_read(r, f)) == RECORD_GOT) {
        uint32_t crc;
        int64_t at = record_reader_last_at(r, &crc);
        if (next < n && at == placed[next].offset && crc == placed[next].crc &&
            !strcmp(record_key(f), placed[next].key) && record_reader_bytes(r) == at + placed[next].bytes)
            next++;
    }
    snprintf(why, sizeof why, "%s", r ? f->error : strerror(errno));
    record_reader_close(r);
    if (fd >= 0) close(fd);
    for (; next < n; next++) {
        if (store_read(s, store_find(s, placed[next].key), f)) continue;
        report(context, placed[next].key, f->error);
        bad++;
    }
    if (got != RECORD_END && bad == 0) report(context, shard, why), bad++;
    return bad;
}

int64_t store_check(const char *folder, store_report *report, void *context, char *err, size_t errlen)
{
    struct store *s = open_store(folder, NO_SIZES, err, errlen); /* what is cut off is reported by key, too */
    if (!s) return -1;
    struct record f = RECORD_INIT;
    int64_t bad = 0;
    struct store_record *placed = malloc((size_t)s->count * sizeof *placed + 1);
    if (!placed) fail(err, errlen, "%s: out of memory", folder), bad = -1;
    if (placed && s->count) memcpy(placed, s->record, (size_t)s->count * sizeof *placed);
    if (placed) qsort(placed, (size_t)s->count, sizeof *placed, by_place);
    for (int64_t i = 0, n; placed && i < s->count; i += n) {
        for (n = 1; i + n < s->count && placed[i + n].shard == placed[i].shard;) n++;
        bad += check_shard(s, placed + i, n, &f, report, context);
    }
    free(placed);
    record_free(&f);
    store_close(s);
    return bad;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

struct store_writer {
    struct store *store;
    json_t *place; /* key -> index in store->record */
    json_t *given; /* keys put by this writer */
    int lock;
    int64_t shard_bytes, commit_every;
    struct index_head head;
    int64_t unsaved, unsaved_bytes; /* of records that the index on disk does not know */
    struct atomic_file file;        /* the open shard; file.f NULL when there is none */
    struct record_writer *out;
    int64_t records; /* in it */
    struct record scratch;
};

/* The record just read, as an entry of the index. */
static bool enter_record(struct store_writer *w, int shard, const struct record_reader *r)
{
    const struct record *f = &w->scratch;
    json_t *place = json_object_get(w->place, record_key(f)), *tensors = json_array();
    for (int i = 0; i < f->count; i++) json_array_append_new(tensors, tensor_json(&f->tensor[i]));
    struct store_record entry = {.key = strdup(record_key(f)),
                                 .tensors = json_dumps(tensors, JSON_COMPACT),
                                 .shard = shard,
                                 .content = content_of(f)};
    entry.offset = record_reader_last_at(r, &entry.crc);
    entry.bytes = record_reader_bytes(r) - entry.offset;
    json_decref(tensors);
    struct store_record *old = place ? &w->store->record[json_integer_value(place)] : NULL;
    struct store_record *slot = old ? old : entry.key && entry.tensors ? new_record(w->store) : NULL;
    if (!entry.key || !entry.tensors || !slot ||
        (!old && json_object_set_new(w->place, entry.key, json_integer(w->store->count - 1)))) {
        entry_free(&entry);
        return false;
    }
    w->head.replaced += old != NULL;
    w->unsaved++;
    w->unsaved_bytes += entry.bytes;
    entry_free(slot);
    *slot = entry;
    return true;
}

/* Reads a whole shard and enters its records, newer ones in the place of older. Nothing is entered from what
 * the writer remembers: what the index says has been read back. */
static bool enter_shard(struct store_writer *w, const char *name, char *err, size_t errlen)
{
    char path[PATH_SIZE];
    struct record *f = &w->scratch;
    int64_t number;
    snprintf(path, sizeof path, "%s/%s", w->store->folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), shard = shard_index(w->store, name);
    if (fd < 0) return fail(err, errlen, "%s: %s", path, strerror(errno));
    struct record_reader *r = record_reader_open(fd, name);
    enum record_got got = RECORD_DAMAGED;
    f->error[0] = 0;
    while (r && shard >= 0 && (got = record_read(r, f)) == RECORD_GOT)
        if (!enter_record(w, shard, r)) break;
    record_reader_close(r);
    close(fd);
    if (is_shard_name(name, &number) && number >= w->head.shards) w->head.shards = number + 1;
    return got == RECORD_END || fail(err, errlen, "%s: %s", path, f->error[0] ? f->error : "out of memory");
}

static bool save(struct store_writer *w, char *err, size_t errlen)
{
    if (w->unsaved && !save_index(w->store, &w->head, err, errlen)) return false;
    w->unsaved = w->unsaved_bytes = 0;
    return true;
}

/* Writing the index anew for each shard would make packing small records quadratic, so it may wait where it
 * (some 256 bytes a record) is much larger than the records that it would add. Nothing is lost if this writer is
 * killed then: the next one takes up the shards that the index does not know. */
static bool save_is_due(const struct store_writer *w)
{
    return w->unsaved_bytes >= w->store->count * 256 / 4 || w->unsaved >= w->store->count / 8;
}

/* What a killed writer left: temporary files go, whole shards that no index knows are taken up. */
static bool tidy(struct store_writer *w, char *err, size_t errlen)
{
    struct dirent **entry;
    int64_t number, known = w->head.shards;
    atomic_sweep(w->store->folder);
    int n = scandir(w->store->folder, &entry, NULL, versionsort);
    bool good = n >= 0 || fail(err, errlen, "%s: %s", w->store->folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = entry[i]->d_name;
        if (good && is_shard_name(name, &number) && number >= known) good = enter_shard(w, name, err, errlen);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
    return good && save(w, err, errlen);
}

static bool take_lock(struct store_writer *w, char *err, size_t errlen)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/.lock", w->store->folder);
    w->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (w->lock >= 0 && flock(w->lock, LOCK_EX | LOCK_NB) == 0) return true;
    if (w->lock >= 0 && errno == EWOULDBLOCK)
        return fail(err, errlen, "%s: another program is writing here", w->store->folder);
    return fail(err, errlen, "%s: %s", path, strerror(errno));
}

struct store_writer *store_writer_open(const char *folder, int64_t shard_bytes, int64_t commit_every,
                                       char *err, size_t errlen)
{
    struct store_writer *w = calloc(1, sizeof *w);
    if (!w) return fail(err, errlen, "out of memory"), NULL;
    w->lock = -1;
    w->shard_bytes = shard_bytes;
    w->commit_every = commit_every;
    w->place = json_object();
    w->given = json_object();
    w->store = new_store(folder, err, errlen);
    if (!w->store || !make_folder(folder, err, errlen) || !take_lock(w, err, errlen)) goto bad;
    int found = load_index(w->store, "", &w->head, err, errlen);
    if (found < 0) goto bad;
    w->unsaved = found ? 0 : 1; /* even an empty store has an index */
    for (int64_t i = 0; i < w->store->count; i++)
        json_object_set_new(w->place, w->store->record[i].key, json_integer(i));
    if (json_object_size(w->place) != (size_t)w->store->count) {
        fail(err, errlen, "%s/index.jsonl: a key is there twice", folder);
        goto bad;
    }
    if (tidy(w, err, errlen)) return w;
bad:
    store_writer_close(w);
    return NULL;
}

static void drop_shard(struct store_writer *w)
{
    atomic_abort(&w->file); /* open without `out`, too, when the program ends in between */
    record_writer_close(w->out);
    w->out = NULL;
    w->records = 0;
}

static bool open_new_shard(struct store_writer *w, char *err, size_t errlen)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%06lld.mp", w->store->folder, (long long)w->head.shards);
    if (w->head.shards > MAX_SHARD) return fail(err, errlen, "%s: too many shards", w->store->folder);
    if (!atomic_open(&w->file, path, err, errlen)) return false;
    if ((w->out = record_writer_open(fileno(w->file.f), "pack", NULL))) return true;
    atomic_abort(&w->file);
    return fail(err, errlen, "%s: out of memory", path);
}

static bool close_shard(struct store_writer *w, char *err, size_t errlen)
{
    char path[sizeof w->file.path];
    if (!w->out) return true;
    snprintf(path, sizeof path, "%s", w->file.path);
    bool good = record_write_end(w->out, 0) || fail(err, errlen, "%s: %s", path, record_writer_error(w->out));
    good = good && atomic_commit(&w->file, err, errlen);
    drop_shard(w);
    return good && enter_shard(w, strrchr(path, '/') + 1, err, errlen);
}

enum store_put store_put(struct store_writer *w, struct record *f, char *err, size_t errlen)
{
    const char *key = record_key(f);
    json_t *place = json_object_get(w->place, key);
    int64_t i = place ? json_integer_value(place) : -1;
    if (json_object_get(w->given, key)) return STORE_DUPLICATE;
    json_object_set_new(w->given, key, json_true());
    if (place && w->store->record[i].content == content_of(f)) {
        if (store_read(w->store, i, &w->scratch)) return STORE_KEPT;
        if (w->scratch.unread) return fail(err, errlen, "%s", w->scratch.error), STORE_FAILED;
    }

    if (!w->out && !open_new_shard(w, err, errlen)) return STORE_FAILED;
    if (!record_write(w->out, f)) {
        fail(err, errlen, "%s: %s", w->file.path, record_writer_error(w->out));
        drop_shard(w);
        return STORE_FAILED;
    }
    off_t bytes = lseek(fileno(w->file.f), 0, SEEK_CUR);
    if (bytes < 0) return fail(err, errlen, "%s: %s", w->file.path, strerror(errno)), STORE_FAILED;
    bool full = ++w->records >= w->commit_every || bytes >= w->shard_bytes;
    if (full && !close_shard(w, err, errlen)) return STORE_FAILED;
    if (full && save_is_due(w) && !save(w, err, errlen)) return STORE_FAILED;
    return place ? STORE_REPLACED : STORE_ADDED;
}

bool store_commit(struct store_writer *w, char *err, size_t errlen)
{
    return close_shard(w, err, errlen) && save(w, err, errlen);
}

void store_writer_close(struct store_writer *w)
{
    if (!w) return;
    drop_shard(w);
    if (w->lock >= 0) close(w->lock);
    json_decref(w->place);
    json_decref(w->given);
    record_free(&w->scratch);
    store_close(w->store);
    free(w);
}
