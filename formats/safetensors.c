#include "formats/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/atomic.h"
#include "formats/error.h"

static bool pread_all(int fd, void *data, size_t n, uint64_t offset)
{
    for (char *p = data; n > 0;) {
        ssize_t got = pread(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = ENODATA; /* the file shrank since its size was checked */
        if (got <= 0) return false;
        p += got, n -= (size_t)got, offset += (uint64_t)got;
    }
    return true;
}

/* A header's JSON is at most {name: {field: [..]}}; jansson would follow any nesting, and make a value of
 * some 40 bytes from every two bytes of text, so both are bounded before it sees the text. */
static bool modest(const char *text, size_t n, char *err, size_t errlen)
{
    enum { MAX_DEPTH = 4, MAX_VALUES = 16 * SAFETENSORS_MAX_TENSORS };
    int depth = 0, values = 0;
    bool string = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (string) {
            if (c == '\\')
                i++;
            else
                string = c != '"';
            continue;
        }
        string = c == '"';
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        values += c == '{' || c == '[' || c == ',';
        if (depth > MAX_DEPTH) return fail(err, errlen, "the header is nested deeper than %d", MAX_DEPTH);
        if (values > MAX_VALUES) return fail(err, errlen, "the header has more than %d values", MAX_VALUES);
    }
    return true;
}

/* *root is the caller's to free, also after a failure. */
static bool read_header(int fd, uint64_t size, json_t **root, uint64_t *data_start, char *err, size_t errlen)
{
    uint64_t n;
    json_error_t why;
    if (size < sizeof n) return fail(err, errlen, "only %llu bytes, no header", (unsigned long long)size);
    if (!pread_all(fd, &n, sizeof n, 0)) return fail(err, errlen, "%s", strerror(errno));
    if (!memcmp(&n, "version ", sizeof n))
        return fail(err, errlen, "a Git LFS pointer, not the file itself (git lfs pull fetches it)");
    if (n > SAFETENSORS_MAX_HEADER)
        return fail(err, errlen, "a header of %llu bytes, more than %d", (unsigned long long)n,
                    SAFETENSORS_MAX_HEADER);
    if (n > size - sizeof n)
        return fail(err, errlen, "a header of %llu bytes in a file of %llu", (unsigned long long)n,
                    (unsigned long long)size);
    *data_start = sizeof n + n;

    char *text = malloc(n + 1);
    bool good = text || fail(err, errlen, "out of memory");
    good = good && (pread_all(fd, text, n, sizeof n) || fail(err, errlen, "%s", strerror(errno)));
    if (good && modest(text, n, err, errlen)) {
        *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
        if (!*root)
            fail(err, errlen, "header at byte %d: %s", why.position, why.text);
        else if (!json_is_object(*root))
            fail(err, errlen, "the header is not a JSON object");
    }
    free(text);
    return json_is_object(*root);
}

static bool check_metadata(json_t *metadata, char *err, size_t errlen)
{
    const char *key;
    json_t *value;
    if (json_is_null(metadata)) return true; /* as the safetensors library takes it: none */
    if (!json_is_object(metadata)) return fail(err, errlen, "__metadata__ is not an object");
    json_object_foreach (metadata, key, value) {
        if (!json_is_string(value)) return fail(err, errlen, "__metadata__: %s is not a string", key);
    }
    return true;
}

/* {"dtype": str, "shape": [..], "data_offsets": [begin, end]}; the offsets start behind the header. */
static bool read_entry(struct safetensors_entry *e, const char *name, json_t *j, uint64_t data_start,
                       uint64_t data_bytes, char *err, size_t errlen)
{
    json_t *dtype = json_object_get(j, "dtype"), *shape = json_object_get(j, "shape");
    json_t *offsets = json_object_get(j, "data_offsets");
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1), *dim;
    size_t i;

    if (strlen(name) > SAFETENSORS_MAX_NAME)
        return fail(err, errlen, "a tensor's name has more than %d bytes: %.40s...", SAFETENSORS_MAX_NAME,
                    name);
    if (json_object_size(j) != 3 || !json_is_string(dtype) || !json_is_array(shape) ||
        json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return fail(err, errlen, "tensor %s: not just dtype, shape and data_offsets, or not of their types",
                    name);
    if (!dtype_parse(&e->shape.dtype, json_string_value(dtype)))
        return fail(err, errlen, "tensor %s: dtype %.20s is not supported", name, json_string_value(dtype));
    if (json_array_size(shape) > TENSOR_MAX_RANK)
        return fail(err, errlen, "tensor %s: %zu dimensions, more than %d", name, json_array_size(shape),
                    TENSOR_MAX_RANK);
    e->shape.rank = (int)json_array_size(shape);
    json_array_foreach (shape, i, dim) {
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return fail(err, errlen, "tensor %s: a dimension is no whole number from 0 up", name);
        e->shape.shape[i] = json_integer_value(dim);
    }
    if (!tensor_bytes_checked(e->shape.dtype, e->shape.rank, e->shape.shape, &e->bytes))
        return fail(err, errlen, "tensor %s: its size overflows", name);

    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return fail(err, errlen, "tensor %s: bytes %lld to %lld of %llu", name, (long long)from,
                    (long long)to, (unsigned long long)data_bytes);
    if ((uint64_t)(to - from) != e->bytes)
        return fail(err, errlen, "tensor %s: %lld bytes where its shape needs %zu", name,
                    (long long)(to - from), e->bytes);
    e->offset = data_start + (uint64_t)from;
    e->name = strdup(name);
    return e->name || fail(err, errlen, "out of memory");
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1; /* empty ones before what starts at the same byte */
    return strcmp(x->name, y->name);
}

/* The tensors must tile the data: no byte unclaimed (room for a hidden second file) and
 * none claimed twice. */
static bool check_tiling(const struct safetensors *s, uint64_t data_start, uint64_t size, char *err,
                         size_t errlen)
{
    uint64_t at = data_start;
    for (int i = 0; i < s->count; i++) {
        const struct safetensors_entry *e = &s->entry[i];
        if (e->offset < at)
            return fail(err, errlen, "tensors %s and %s overlap", s->entry[i - 1].name, e->name);
        if (e->offset > at)
            return fail(err, errlen, "%llu unclaimed bytes before tensor %s",
                        (unsigned long long)(e->offset - at), e->name);
        at = e->offset + e->bytes;
    }
    return at == size ||
           fail(err, errlen, "%llu bytes after the last tensor", (unsigned long long)(size - at));
}

/* What a file is that is none of these, by how it starts; NULL: it is none that is known here. */
static const char *other_kind(int fd)
{
    static const struct {
        const char *start, *what;
    } known[] = {
        {"PK\3\4", "a zip archive, as PyTorch writes them: model-convert makes safetensors of its tensors"},
        {"\x80\2", "a Python pickle, which is never executed here: model-convert makes safetensors of "
                   "plain tensors"},
        {"<!DOCTYPE", "an HTML page, not the file that was to be downloaded"},
        {"<!doctype", "an HTML page, not the file that was to be downloaded"},
        {"<html", "an HTML page, not the file that was to be downloaded"},
        {"version https://git-lfs", "a Git LFS pointer, not the file that it stands for"},
        {"GGUF", "a GGUF file"}};
    char start[32] = "";
    ssize_t n = pread(fd, start, sizeof start, 0);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (n >= (ssize_t)strlen(known[i].start) && !memcmp(start, known[i].start, strlen(known[i].start)))
            return known[i].what;
    return NULL;
}

static bool open_checked(struct safetensors *s, json_t **root, char *err, size_t errlen)
{
    struct stat st;
    uint64_t data_start = 0;
    const char *name;
    json_t *value;

    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait for a writer */
    if (s->fd < 0 || fstat(s->fd, &st) != 0) return fail(err, errlen, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return fail(err, errlen, "not a regular file");
    uint64_t size = (uint64_t)st.st_size;
    const char *other = other_kind(s->fd);
    if (other) return fail(err, errlen, "no safetensors file but %s", other);
    if (!read_header(s->fd, size, root, &data_start, err, errlen)) return false;

    size_t fields = json_object_size(*root);
    if (fields > SAFETENSORS_MAX_TENSORS + 1)
        return fail(err, errlen, "%zu tensors, more than %d", fields, SAFETENSORS_MAX_TENSORS);
    s->entry = calloc(fields + 1, sizeof *s->entry);
    s->metadata = json_object();
    if (!s->entry || !s->metadata) return fail(err, errlen, "out of memory");
    json_object_foreach (*root, name, value) {
        if (!strcmp(name, "__metadata__")) {
            if (!check_metadata(value, err, errlen)) return false;
            if (!json_is_null(value) && json_object_update(s->metadata, value) != 0)
                return fail(err, errlen, "out of memory");
        } else if (!read_entry(&s->entry[s->count++], name, value, data_start, size - data_start, err,
                               errlen))
            return false;
    }
    if (s->count > 1) qsort(s->entry, (size_t)s->count, sizeof *s->entry, by_offset);
    return check_tiling(s, data_start, size, err, errlen);
}

bool safetensors_is(int fd)
{
    unsigned char b[9];
    return pread(fd, b, sizeof b, 0) == sizeof b && b[8] == '{' && !(b[4] | b[5] | b[6] | b[7]);
}

struct safetensors *safetensors_open(const char *path, char *err, size_t errlen)
{
    char why[1024] = "out of memory";
    json_t *root = NULL;
    struct safetensors *s = calloc(1, sizeof *s);
    if (s) s->fd = -1, s->path = strdup(path);
    bool good = s && s->path && open_checked(s, &root, why, sizeof why);
    json_decref(root);
    if (good) return s;
    fail(err, errlen, "%s: %s", path, why);
    safetensors_close(s);
    return NULL;
}

void safetensors_close(struct safetensors *s)
{
    if (!s) return;
    for (int i = 0; i < s->count; i++) free(s->entry[i].name);
    free(s->entry);
    json_decref(s->metadata);
    if (s->fd >= 0) close(s->fd);
    free(s->path);
    free(s);
}

const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->entry[i].name, name)) return &s->entry[i];
    return NULL;
}

bool safetensors_read_part(const struct safetensors *s, const struct safetensors_entry *e, size_t from,
                           void *data, size_t n, char *err, size_t errlen)
{
    if (pread_all(s->fd, data, n, e->offset + from)) return true;
    return fail(err, errlen, "%s: tensor %s: %s", s->path, e->name,
                errno == ENODATA ? "the file became shorter while it was read" : strerror(errno));
}

bool safetensors_read(const struct safetensors *s, const struct safetensors_entry *e, void *data, char *err,
                      size_t errlen)
{
    return safetensors_read_part(s, e, 0, data, e->bytes, err, errlen);
}

/* ---- writing ----------------------------------------------------------------------------------- */

static bool add_entry(json_t *root, const struct safetensors_item *item, uint64_t *at, char *err,
                      size_t errlen)
{
    if (!*item->name || strlen(item->name) > SAFETENSORS_MAX_NAME || !strcmp(item->name, "__metadata__"))
        return fail(err, errlen, "no tensor can be named \"%.40s\"", item->name);
    if (json_object_get(root, item->name)) return fail(err, errlen, "two tensors are named %s", item->name);
    uint64_t end = *at + tensor_bytes(&item->t);
    json_t *shape = json_array();
    for (int i = 0; i < item->t.rank; i++) json_array_append_new(shape, json_integer(item->t.shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(item->t.dtype), "shape", shape,
                              "data_offsets", (json_int_t)*at, (json_int_t)end);
    *at = end;
    return json_object_set_new(root, item->name, entry) == 0 ||
           fail(err, errlen, "no tensor can be named \"%.40s\": not UTF-8", item->name);
}

/* Items from the widest dtype to the narrowest, which keeps every tensor aligned; otherwise in the order
 * given. */
static const struct safetensors_item **write_order(const struct safetensors_item *items, int count)
{
    const struct safetensors_item **order = malloc(((size_t)count + 1) * sizeof *order);
    int n = 0;
    for (size_t width = 8; order && width > 0; width /= 2)
        for (int i = 0; i < count; i++)
            if (dtype_size(items[i].t.dtype) == width) order[n++] = &items[i];
    return order;
}

/* The header's text, padded with spaces so that the data start at a multiple of 8. The caller frees. */
static char *header_text(const struct safetensors_item **order, int count, json_t *metadata, uint64_t *n,
                         char *err, size_t errlen)
{
    json_t *root = json_object();
    uint64_t at = 0;
    char *text = NULL;
    bool good = root || fail(err, errlen, "out of memory");
    if (good && metadata) good = check_metadata(metadata, err, errlen);
    if (good && json_object_size(metadata) > 0) good = json_object_set(root, "__metadata__", metadata) == 0;
    for (int i = 0; good && i < count; i++) good = add_entry(root, order[i], &at, err, errlen);
    if (good) {
        size_t bytes = json_dumpb(root, NULL, 0, JSON_COMPACT);
        *n = (bytes + 7) / 8 * 8;
        if (bytes == 0 || !(text = malloc(*n)))
            fail(err, errlen, "out of memory");
        else if (*n > SAFETENSORS_MAX_HEADER)
            fail(err, errlen, "the header would need %llu bytes, more than %d", (unsigned long long)*n,
                 SAFETENSORS_MAX_HEADER),
                free(text), text = NULL;
        else
            memset(text + json_dumpb(root, text, bytes, JSON_COMPACT), ' ', *n - bytes);
    }
    json_decref(root);
    return text;
}

static bool put(struct atomic_file *a, const void *data, size_t n, char *err, size_t errlen)
{
    return n == 0 || fwrite(data, 1, n, a->f) == n || fail(err, errlen, "%s", strerror(errno));
}

/* The data, in order; what load() brings goes through a buffer of the largest item's size. */
static bool put_items(struct atomic_file *a, const struct safetensors_item **order, int count,
                      const struct safetensors_item *items, safetensors_load *load, void *context, char *err,
                      size_t errlen)
{
    char why[512];
    size_t largest = 0;
    for (int i = 0; i < count; i++)
        if (tensor_bytes(&order[i]->t) > largest) largest = tensor_bytes(&order[i]->t);
    void *buffer = load ? malloc(largest + 1) : NULL;
    bool good = !load || buffer || fail(err, errlen, "%s: no memory for %zu bytes", a->path, largest);
    for (int i = 0; good && i < count; i++) {
        if (load && !(good = load(context, (int)(order[i] - items), buffer, err, errlen))) break;
        good = put(a, load ? buffer : order[i]->t.data, tensor_bytes(&order[i]->t), why, sizeof why) ||
               fail(err, errlen, "%s: %s", a->path, why);
    }
    free(buffer);
    return good;
}

bool safetensors_write_each(const char *path, const struct safetensors_item *items, int count,
                            json_t *metadata, safetensors_load *load, void *context, char *err, size_t errlen)
{
    struct atomic_file a = {0};
    char why[1024];
    uint64_t n = 0;
    if (count > SAFETENSORS_MAX_TENSORS)
        return fail(err, errlen, "%s: %d tensors, more than %d", path, count, SAFETENSORS_MAX_TENSORS);
    const struct safetensors_item **order = write_order(items, count);
    if (!order) return fail(err, errlen, "%s: out of memory", path);

    char *text = header_text(order, count, metadata, &n, why, sizeof why);
    bool good = text != NULL;
    if (!good) fail(err, errlen, "%s: %s", path, why);
    if (good && (good = atomic_open(&a, path, err, errlen))) {
        good = (put(&a, &n, sizeof n, why, sizeof why) && put(&a, text, n, why, sizeof why)) ||
               fail(err, errlen, "%s: %s", path, why);
        good = good && put_items(&a, order, count, items, load, context, err, errlen) &&
               atomic_commit(&a, err, errlen);
    }
    atomic_abort(&a);
    free(text);
    free(order);
    return good;
}

bool safetensors_write(const char *path, const struct safetensors_item *items, int count, json_t *metadata,
                       char *err, size_t errlen)
{
    return safetensors_write_each(path, items, count, metadata, NULL, NULL, err, errlen);
}
