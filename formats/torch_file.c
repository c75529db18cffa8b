#include "formats/torch_file.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "formats/error.h"

/* ---- opening ------------------------------------------------------------------------------------------- */

/* The folder that everything is in, by the data.pkl in it: its length, 0 when there is none. */
static size_t find_folder(const struct zip *z, const char **name)
{
    for (int i = 0; i < z->count; i++) {
        const char *slash = strchr(z->entry[i].name, '/');
        if (slash && slash > z->entry[i].name && !strcmp(slash, "/data.pkl"))
            return *name = z->entry[i].name, (size_t)(slash - z->entry[i].name);
    }
    return 0;
}

/* FOLDER/REST of the archive, stored; NULL with the reason in err. */
static const struct zip_entry *find_member(const struct zip *z, const char *folder, size_t length,
                                           const char *rest, uint64_t *at, char *err, size_t errlen)
{
    char why[512], *name;
    if (asprintf(&name, "%.*s/%s", (int)length, folder, rest) < 0)
        return fail(err, errlen, "out of memory"), NULL;
    const struct zip_entry *e = zip_find(z, name);
    bool good = e || fail(why, sizeof why, "not in the archive");
    good = good && zip_locate(z, e, at, why, sizeof why);
    if (!good) fail(err, errlen, "%s: %s", name, why);
    free(name);
    return good ? e : NULL;
}

static bool read_dict(struct torch_file *f, const struct zip_entry *e, uint64_t at, char *err, size_t errlen)
{
    char why[512];
    if (e->bytes > TORCH_MAX_PICKLE)
        return fail(err, errlen, "%s: %llu bytes, more than %d", e->name, (unsigned long long)e->bytes,
                    TORCH_MAX_PICKLE);
    uint8_t *bytes = malloc(e->bytes + 1);
    bool good = bytes || fail(why, sizeof why, "out of memory");
    good = good && zip_read(f->zip, at, bytes, e->bytes, why, sizeof why);
    if (good && crc32(crc32(0, NULL, 0), bytes, (uInt)e->bytes) != e->crc)
        good = fail(why, sizeof why, "its bytes do not match their checksum");
    good = good && torch_pickle_read(&f->dict, bytes, e->bytes, why, sizeof why);
    free(bytes);
    return good || fail(err, errlen, "%s: %s", e->name, why);
}

static bool place_storages(struct torch_file *f, const char *folder, size_t length, char *err, size_t errlen)
{
    char *rest;
    f->place = calloc((size_t)f->dict.storages + 1, sizeof *f->place);
    if (!f->place) return fail(err, errlen, "out of memory");
    for (int i = 0; i < f->dict.storages; i++) {
        const struct torch_storage *s = &f->dict.storage[i];
        struct torch_place *p = &f->place[i];
        if (asprintf(&rest, "data/%s", s->key) < 0) return fail(err, errlen, "out of memory");
        p->member = find_member(f->zip, folder, length, rest, &p->at, err, errlen);
        free(rest);
        if (!p->member) return false;
        if (p->member->bytes != (uint64_t)s->elements * dtype_size(s->dtype))
            return fail(err, errlen, "%s: %llu bytes for %lld elements of %s", p->member->name,
                        (unsigned long long)p->member->bytes, (long long)s->elements, dtype_name(s->dtype));
    }
    return true;
}

/* Tensors may share their numbers, and a small file could so ask for any number of bytes when they are
 * written apart. Real models tie a handful. */
static bool check_total(const struct torch_file *f, char *err, size_t errlen)
{
    enum { MOST = 16 };
    uint64_t total = 0;
    for (int i = 0; i < f->dict.count; i++)
        if ((total += tensor_bytes(&f->dict.tensor[i].shape)) > MOST * f->zip->bytes)
            return fail(err, errlen, "its tensors would take more than %d times the file's %llu bytes", MOST,
                        (unsigned long long)f->zip->bytes);
    return true;
}

static bool open_checked(struct torch_file *f, char *err, size_t errlen)
{
    const char *folder = NULL;
    const struct zip_entry *e;
    uint64_t at;
    char order[6];
    size_t n = find_folder(f->zip, &folder);
    if (n == 0) return fail(err, errlen, "an archive without a data.pkl: nothing that torch.save() wrote");
    for (int i = 1; i < f->zip->count; i++)
        if (!strcmp(f->zip->by_name[i - 1]->name, f->zip->by_name[i]->name))
            return fail(err, errlen, "%s: is there twice", f->zip->by_name[i]->name);
    if ((e = find_member(f->zip, folder, n, "byteorder", &at, err, errlen)) && /* newer versions say it */
        (e->bytes != sizeof order || !zip_read(f->zip, at, order, sizeof order, err, errlen) ||
         memcmp(order, "little", sizeof order)))
        return fail(err, errlen, "%s: not little-endian", e->name);
    if (!(e = find_member(f->zip, folder, n, "data.pkl", &at, err, errlen))) return false;
    return read_dict(f, e, at, err, errlen) && place_storages(f, folder, n, err, errlen) &&
           check_total(f, err, errlen);
}

struct torch_file *torch_file_open(const char *path, char *err, size_t errlen)
{
    char why[1024] = "out of memory";
    struct torch_file *f = calloc(1, sizeof *f);
    if (f && (f->path = strdup(path))) {
        if (!(f->zip = zip_open(&path, 1, err, errlen))) goto failed;
        if (open_checked(f, why, sizeof why)) return f;
    }
    fail(err, errlen, "%s: %s", path, why);
failed:
    torch_file_close(f);
    return NULL;
}

void torch_file_close(struct torch_file *f)
{
    if (!f) return;
    torch_dict_free(&f->dict);
    zip_close(f->zip);
    free(f->place);
    free(f->path);
    free(f);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static bool is_dense(const struct torch_tensor *t)
{
    int64_t stride = 1;
    for (int i = t->shape.rank - 1; i >= 0; i--) {
        if (t->shape.shape[i] != 1 && t->stride[i] != stride) return false;
        stride *= t->shape.shape[i];
    }
    return true;
}

/* Copies the elements from an axis on, one by one; returns where the next ones go. */
static char *gather(char *to, const char *from, const struct torch_tensor *t, int axis)
{
    size_t size = dtype_size(t->shape.dtype);
    if (axis == t->shape.rank) return (char *)memcpy(to, from, size) + size;
    for (int64_t i = 0; i < t->shape.shape[axis]; i++)
        to = gather(to, from + (size_t)(i * t->stride[axis]) * size, t, axis + 1);
    return to;
}

/* The part of the storage that it is spread over, and then its elements out of that. */
static bool read_spread(struct torch_file *f, const struct torch_tensor *t, uint64_t at, char *data,
                        char *err, size_t errlen)
{
    int64_t last = 0;
    for (int i = 0; i < t->shape.rank; i++) last += (t->shape.shape[i] - 1) * t->stride[i];
    size_t bytes = (size_t)(last + 1) * dtype_size(t->shape.dtype);
    char *part = malloc(bytes);
    bool good = part || fail(err, errlen, "no memory for %zu bytes", bytes);
    good = good && zip_read(f->zip, at, part, bytes, err, errlen);
    if (good) gather(data, part, t, 0);
    free(part);
    return good;
}

static bool read_checked(struct torch_file *f, const struct torch_tensor *t, char *data, char *err,
                         size_t errlen)
{
    struct torch_place *p = &f->place[t->storage];
    uint64_t at = p->at + (uint64_t)t->offset * dtype_size(t->shape.dtype);
    size_t bytes = tensor_bytes(&t->shape);
    if (bytes == 0) return true;
    bool whole = is_dense(t) && bytes == p->member->bytes;
    if (!whole && !p->sound && !zip_unpack(f->zip, p->member, NULL, err, errlen)) return false;
    if (!is_dense(t) && !read_spread(f, t, at, data, err, errlen)) return false;
    if (is_dense(t) && !zip_read(f->zip, at, data, bytes, err, errlen)) return false;
    if (whole && crc32_z(crc32(0, NULL, 0), (const Bytef *)data, bytes) != p->member->crc)
        return fail(err, errlen, "its bytes do not match their checksum");
    return p->sound = true;
}

bool torch_file_read(struct torch_file *f, const struct torch_tensor *t, void *data, char *err, size_t errlen)
{
    char why[512];
    return read_checked(f, t, data, why, sizeof why) ||
           fail(err, errlen, "%s: tensor %s: %s", f->path, t->name, why);
}
