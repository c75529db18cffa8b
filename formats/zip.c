#include "formats/zip.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "formats/error.h"

/* Sizes and signatures of the records. */
enum { LOCAL = 30, CENTRAL = 46, END = 22, LOCATOR = 20, END64 = 56, MAX_COMMENT = 65535 };
#define LOCAL_MARK   "PK\3\4"
#define CENTRAL_MARK "PK\1\2"
#define END_MARK     "PK\5\6"
#define LOCATOR_MARK "PK\6\7"
#define END64_MARK   "PK\6\6"

enum { STORED = 0, DEFLATED = 8, ENCRYPTED = 1, BLOCK = 1 << 16 };

static uint64_t number(const uint8_t *p, int bytes) /* little-endian */
{
    uint64_t v = 0;
    while (bytes--) v = v << 8 | p[bytes];
    return v;
}

/* ---- bytes --------------------------------------------------------------------------------------------- */

bool zip_read(const struct zip *z, uint64_t at, void *data, size_t n, char *err, size_t errlen)
{
    char *to = data;
    if (at > z->bytes || n > z->bytes - at)
        return fail(err, errlen, "bytes past the end of the archive are asked for");
    for (const struct zip_piece *p = z->piece; n > 0; p++)
        while (n > 0 && at < p->start + p->bytes) {
            uint64_t left = p->start + p->bytes - at;
            ssize_t got = pread(p->fd, to, left < n ? (size_t)left : n, (off_t)(at - p->start));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return fail(err, errlen, "%s", strerror(errno));
            if (got == 0) return fail(err, errlen, "the archive became shorter while it was read");
            to += got, at += (uint64_t)got, n -= (size_t)got;
        }
    return true;
}

static bool open_pieces(struct zip *z, const char *const *path, int pieces, char *err, size_t errlen)
{
    struct stat st;
    z->piece = calloc((size_t)pieces + 1, sizeof *z->piece);
    if (!z->piece) return fail(err, errlen, "%s: out of memory", path[0]);
    for (int i = 0; i < pieces; i++) {
        int fd = open(path[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
        if (fd < 0) return fail(err, errlen, "%s: %s", path[i], strerror(errno));
        z->piece[z->pieces++] = (struct zip_piece){.fd = fd, .start = z->bytes};
        if (fstat(fd, &st) != 0) return fail(err, errlen, "%s: %s", path[i], strerror(errno));
        if (!S_ISREG(st.st_mode)) return fail(err, errlen, "%s: not a regular file", path[i]);
        z->piece[i].bytes = (uint64_t)st.st_size;
        z->bytes += (uint64_t)st.st_size;
    }
    return true;
}

/* ---- the directory ------------------------------------------------------------------------------------- */

struct place {
    uint64_t at, bytes, count; /* of the directory */
};

/* The zip64 end record, which the locator before the usual one points at. `end`: where the locator is; then
 * where the record is. */
static bool read_end64(const struct zip *z, const uint8_t *locator, uint64_t *end, struct place *d, char *err,
                       size_t errlen)
{
    uint8_t r[END64];
    uint64_t at = number(locator + 8, 8);
    if (number(locator + 4, 4) != 0 || number(locator + 16, 4) > 1)
        return fail(err, errlen, "an archive over several disks");
    if (at > *end || *end - at < END64) return fail(err, errlen, "the zip64 end record is out of place");
    if (!zip_read(z, at, r, sizeof r, err, errlen)) return false;
    if (memcmp(r, END64_MARK, 4) || number(r + 4, 8) != *end - at - 12)
        return fail(err, errlen, "the zip64 end record is damaged");
    if (number(r + 16, 4) || number(r + 20, 4) || number(r + 24, 8) != number(r + 32, 8))
        return fail(err, errlen, "an archive over several disks");
    *d = (struct place){number(r + 48, 8), number(r + 40, 8), number(r + 32, 8)};
    *end = at;
    return true;
}

/* Finds the end record: the last one whose comment reaches just to the archive's end. */
static bool find_directory(const struct zip *z, struct place *d, char *err, size_t errlen)
{
    static const char *const none = "not a zip archive, or one that was cut short";
    size_t n = z->bytes < LOCATOR + END + MAX_COMMENT ? (size_t)z->bytes : LOCATOR + END + MAX_COMMENT;
    uint8_t *tail = malloc(n + 1), *p = NULL;
    bool good = tail || fail(err, errlen, "out of memory");
    good = good && zip_read(z, z->bytes - n, tail, n, err, errlen);
    for (size_t i = END; good && !p && i <= n; i++) {
        uint8_t *r = tail + n - i;
        if (!memcmp(r, END_MARK, 4) && number(r + 20, 2) == i - END) p = r;
    }
    if (good && !p) good = fail(err, errlen, none);
    if (good) {
        uint64_t end = z->bytes - n + (uint64_t)(p - tail);
        *d = (struct place){number(p + 16, 4), number(p + 12, 4), number(p + 10, 2)};
        if (number(p + 4, 2) % 0xffff || number(p + 6, 2) % 0xffff || number(p + 8, 2) != d->count)
            good = fail(err, errlen, "an archive over several disks");
        else if (p - tail >= LOCATOR && !memcmp(p - LOCATOR, LOCATOR_MARK, 4))
            end -= LOCATOR, good = read_end64(z, p - LOCATOR, &end, d, err, errlen);
        if (good && (d->at > end || end - d->at != d->bytes))
            good = fail(err, errlen, "the directory is not just before the end: %s", none);
    }
    free(tail);
    return good;
}

/* Fields of all ones are in the zip64 extra field, in this order. */
static bool read_extra64(struct zip_entry *e, const uint8_t *extra, size_t n)
{
    uint64_t *field[] = {&e->bytes, &e->packed, &e->header};
    while (n >= 4) {
        size_t id = number(extra, 2), size = number(extra + 2, 2);
        extra += 4, n -= 4;
        if (size > n) return false;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*field[i] != 0xffffffff) continue;
            if (size < 8) return false;
            *field[i] = number(extra, 8);
            extra += 8, size -= 8, n -= 8;
        }
        if (id == 1) return true;
        extra += size, n -= size;
    }
    return e->bytes != 0xffffffff && e->packed != 0xffffffff && e->header != 0xffffffff;
}

/* One directory record of at most `left` bytes; *used: of how many. */
static bool read_entry(const struct zip *z, struct zip_entry *e, const uint8_t *r, size_t left, size_t *used,
                       char *err, size_t errlen)
{
    if (left < CENTRAL || memcmp(r, CENTRAL_MARK, 4)) return fail(err, errlen, "the directory is damaged");
    size_t name = number(r + 28, 2), extra = number(r + 30, 2), comment = number(r + 32, 2);
    *used = CENTRAL + name + extra + comment;
    if (*used > left || name == 0 || memchr(r + CENTRAL, 0, name))
        return fail(err, errlen, "the directory is damaged");
    *e = (struct zip_entry){.flags = (int)number(r + 8, 2),
                            .method = (int)number(r + 10, 2),
                            .crc = (uint32_t)number(r + 16, 4),
                            .packed = number(r + 20, 4),
                            .bytes = number(r + 24, 4),
                            .header = number(r + 42, 4),
                            .name = strndup((const char *)r + CENTRAL, name)};
    if (!e->name) return fail(err, errlen, "out of memory");
    if (!read_extra64(e, r + CENTRAL + name, extra))
        return fail(err, errlen, "%s: a size of more than 4 GiB is missing", e->name);
    if (e->header > z->directory || e->packed > z->directory - e->header)
        return fail(err, errlen, "%s: it would lie past the members", e->name);
    if (e->method == STORED && e->packed != e->bytes)
        return fail(err, errlen, "%s: stored, but of two sizes", e->name);
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *x = *(struct zip_entry *const *)a, *y = *(struct zip_entry *const *)b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x > y) - (x < y);
}

static bool read_directory(struct zip *z, char *err, size_t errlen)
{
    struct place d;
    if (!find_directory(z, &d, err, errlen)) return false;
    if (d.bytes > ZIP_MAX_DIRECTORY)
        return fail(err, errlen, "a directory of %llu bytes, more than %d", (unsigned long long)d.bytes,
                    ZIP_MAX_DIRECTORY);
    if (d.count > d.bytes / CENTRAL) return fail(err, errlen, "the directory is too short for its members");
    z->directory = d.at;

    uint8_t *bytes = malloc(d.bytes + 1);
    z->entry = calloc(d.count + 1, sizeof *z->entry);
    z->by_name = calloc(d.count + 1, sizeof *z->by_name);
    bool good = (bytes && z->entry && z->by_name) || fail(err, errlen, "out of memory");
    good = good && zip_read(z, d.at, bytes, d.bytes, err, errlen);
    size_t at = 0, used = 0;
    for (; good && (uint64_t)z->count < d.count; at += used) {
        z->by_name[z->count] = &z->entry[z->count];
        good = read_entry(z, &z->entry[z->count++], bytes + at, d.bytes - at, &used, err, errlen);
    }
    if (good && at != d.bytes) good = fail(err, errlen, "the directory holds more than its members");
    free(bytes);
    if (good && z->count > 1) qsort(z->by_name, (size_t)z->count, sizeof *z->by_name, by_name);
    return good;
}

struct zip *zip_open(const char *const *path, int pieces, char *err, size_t errlen)
{
    char why[512] = "out of memory";
    struct zip *z = calloc(1, sizeof *z);
    if (z && (z->path = strdup(path[0]))) {
        if (!open_pieces(z, path, pieces, err, errlen)) goto failed;
        if (read_directory(z, why, sizeof why)) return z;
    }
    fail(err, errlen, "%s: %s", path[0], why);
failed:
    zip_close(z);
    return NULL;
}

void zip_close(struct zip *z)
{
    if (!z) return;
    for (int i = 0; i < z->pieces; i++) close(z->piece[i].fd);
    for (int i = 0; i < z->count; i++) free(z->entry[i].name);
    free(z->piece);
    free(z->entry);
    free(z->by_name);
    free(z->path);
    free(z);
}

const struct zip_entry *zip_find(const struct zip *z, const char *name)
{
    int low = 0, high = z->count; /* the first that is not less */
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (strcmp(z->by_name[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < z->count && !strcmp(z->by_name[low]->name, name) ? z->by_name[low] : NULL;
}

/* ---- members ------------------------------------------------------------------------------------------- */

static bool find_bytes(const struct zip *z, const struct zip_entry *e, uint64_t *at, char *err, size_t errlen)
{
    uint8_t r[LOCAL];
    if (e->flags & ENCRYPTED) return fail(err, errlen, "encrypted");
    if (!zip_read(z, e->header, r, sizeof r, err, errlen)) return false;
    size_t name = number(r + 26, 2), extra = number(r + 28, 2);
    *at = e->header + LOCAL + name + extra;
    if (memcmp(r, LOCAL_MARK, 4) || name != strlen(e->name))
        return fail(err, errlen, "no such member where the directory says");
    if (*at > z->directory || e->packed > z->directory - *at)
        return fail(err, errlen, "its bytes would lie past the members");
    char *local = malloc(name + 1);
    bool good = local || fail(err, errlen, "out of memory");
    good = good && zip_read(z, e->header + LOCAL, local, name, err, errlen);
    if (good && memcmp(local, e->name, name))
        good = fail(err, errlen, "another member is where the directory says");
    free(local);
    return good;
}

bool zip_locate(const struct zip *z, const struct zip_entry *e, uint64_t *at, char *err, size_t errlen)
{
    if (e->method != STORED) return fail(err, errlen, "compressed");
    return find_bytes(z, e, at, err, errlen);
}

/* What has come out of a member so far. */
struct unpacked {
    FILE *to;
    uint64_t bytes;
    uLong crc;
};

static bool put(struct unpacked *u, const void *data, size_t n, char *err, size_t errlen)
{
    u->crc = crc32(u->crc, data, (uInt)n);
    u->bytes += n;
    return !u->to || fwrite(data, 1, n, u->to) == n || fail(err, errlen, "%s", strerror(errno));
}

/* What one block of deflated bytes gives; *done: its end was reached, with z->avail_in bytes left over. */
static bool inflate_block(z_stream *s, struct unpacked *u, uint64_t limit, bool *done, char *err,
                          size_t errlen)
{
    uint8_t out[BLOCK];
    do {
        s->next_out = out, s->avail_out = sizeof out;
        int got = inflate(s, Z_NO_FLUSH);
        if (got == Z_MEM_ERROR) return fail(err, errlen, "out of memory");
        if (got != Z_OK && got != Z_STREAM_END && got != Z_BUF_ERROR)
            return fail(err, errlen, "its compressed bytes are damaged");
        size_t n = sizeof out - s->avail_out;
        if (n > limit - u->bytes) return fail(err, errlen, "it unpacks to more than it should");
        if (!put(u, out, n, err, errlen)) return false;
        *done = got == Z_STREAM_END;
    } while (!*done && s->avail_out == 0);
    return true;
}

bool zip_unpack(const struct zip *z, const struct zip_entry *e, FILE *to, char *err, size_t errlen)
{
    uint8_t block[BLOCK];
    uint64_t at;
    struct unpacked u = {.to = to, .crc = crc32(0, NULL, 0)};
    z_stream s = {0};
    if (e->method != STORED && e->method != DEFLATED)
        return fail(err, errlen, "compressed by method %d: only deflate is known", e->method);
    if (!find_bytes(z, e, &at, err, errlen)) return false;
    bool packed = e->method == DEFLATED, done = !packed, good = true;
    if (packed && inflateInit2(&s, -MAX_WBITS) != Z_OK) return fail(err, errlen, "out of memory");
    for (uint64_t left = e->packed; good && left > 0;) {
        size_t n = left < sizeof block ? (size_t)left : sizeof block;
        good = zip_read(z, at, block, n, err, errlen);
        at += n, left -= n;
        if (good && !packed) good = put(&u, block, n, err, errlen);
        if (!good || !packed) continue;
        s.next_in = block, s.avail_in = (uInt)n;
        good = inflate_block(&s, &u, e->bytes, &done, err, errlen);
        if (good && done && (left > 0 || s.avail_in > 0))
            good = fail(err, errlen, "its compressed bytes end early");
    }
    if (packed) inflateEnd(&s);
    if (!good) return false;
    if (!done || u.bytes != e->bytes) return fail(err, errlen, "it unpacks to less than it should");
    return u.crc == e->crc || fail(err, errlen, "its bytes do not match their checksum");
}
