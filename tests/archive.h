/* archive.h - zip archives made byte by byte: archive_add() members, archive_end(), and the
 * bytes are there. */
#ifndef TESTS_ARCHIVE_H
#define TESTS_ARCHIVE_H

#include <zlib.h>

#include "tests/wire.h"

struct archive {
    struct wire bytes, directory;
    int members;
    bool zip64; /* sizes and places in 64 bits, needed or not */
};

static inline void archive_number(struct wire *w, uint64_t v, size_t bytes)
{
    wire_add(w, &v, bytes); /* little-endian, as all machines here are */
}

/* What local headers and the directory have in common. */
static inline void archive_fields(struct wire *w, int deflated, uint32_t crc, uint64_t packed, uint64_t n,
                                  size_t name)
{
    archive_number(w, 0, 2); /* flags */
    archive_number(w, deflated ? 8 : 0, 2);
    archive_number(w, 0, 4); /* time and date */
    archive_number(w, crc, 4);
    archive_number(w, packed, 4);
    archive_number(w, n, 4);
    archive_number(w, name, 2);
}

static inline void archive_add(struct archive *a, const char *name, const void *data, size_t n, bool deflated)
{
    uint8_t *packed = malloc(n + n / 100 + 100);
    uint64_t at = a->bytes.n, room = n + n / 100 + 100;
    uint32_t crc = (uint32_t)crc32(0, data, (uInt)n);
    z_stream s = {.next_in = (Bytef *)data, .avail_in = (uInt)n, .next_out = packed, .avail_out = (uInt)room};
    if (!packed || deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY)) abort();
    if (deflated && deflate(&s, Z_FINISH) != Z_STREAM_END) abort();
    uint64_t size = deflated ? s.total_out : n;
    deflateEnd(&s);

    wire_add(&a->bytes, "PK\3\4\24\0", 6);
    archive_fields(&a->bytes, deflated, crc, size, n, strlen(name));
    archive_number(&a->bytes, 0, 2); /* no extra field */
    wire_add(&a->bytes, name, strlen(name));
    wire_add(&a->bytes, deflated ? packed : data, size);
    free(packed);

    uint64_t all = 0xffffffff;
    wire_add(&a->directory, "PK\1\2\24\0\24\0", 8);
    archive_fields(&a->directory, deflated, crc, a->zip64 ? all : size, a->zip64 ? all : n, strlen(name));
    archive_number(&a->directory, a->zip64 ? 4 + 28 + 4 + 2 : 0,
                   2);                          /* extra: another's field, then zip64's */
    wire_add(&a->directory, (char[10]){0}, 10); /* comment, disk, attributes */
    archive_number(&a->directory, a->zip64 ? all : at, 4);
    wire_add(&a->directory, name, strlen(name));
    if (a->zip64) {
        wire_add(&a->directory, "\xfe\xca\2\0xy\1\0\34\0", 10);
        archive_number(&a->directory, n, 8);
        archive_number(&a->directory, size, 8);
        archive_number(&a->directory, at, 8);
        archive_number(&a->directory, 0, 4); /* disk */
    }
    a->members++;
}

static inline void archive_end(struct archive *a, const char *comment)
{
    uint64_t at = a->bytes.n, end = at + a->directory.n, count = (uint64_t)a->members;
    if (a->directory.n) wire_add(&a->bytes, a->directory.bytes, a->directory.n);
    if (a->zip64) {
        wire_add(&a->bytes, "PK\6\6\54\0\0\0\0\0\0\0\55\0\55\0\0\0\0\0\0\0\0\0", 24);
        archive_number(&a->bytes, count, 8);
        archive_number(&a->bytes, count, 8);
        archive_number(&a->bytes, a->directory.n, 8);
        archive_number(&a->bytes, at, 8);
        wire_add(&a->bytes, "PK\6\7\0\0\0\0", 8);
        archive_number(&a->bytes, end, 8);
        archive_number(&a->bytes, 1, 4);
    }
    uint64_t mask = a->zip64 ? ~0ull : 0;
    wire_add(&a->bytes, "PK\5\6\0\0\0\0", 8);
    archive_number(&a->bytes, count | mask, 2);
    archive_number(&a->bytes, count | mask, 2);
    archive_number(&a->bytes, a->directory.n | mask, 4);
    archive_number(&a->bytes, at | mask, 4);
    archive_number(&a->bytes, strlen(comment), 2);
    wire_add(&a->bytes, comment, strlen(comment));
}

static inline void archive_free(struct archive *a)
{
    wire_free(&a->bytes);
    wire_free(&a->directory);
    *a = (struct archive){0};
}

#endif
