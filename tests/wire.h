/* wire.h - streams made byte by byte, sound or not, and read from memory. */
#ifndef TESTS_WIRE_H
#define TESTS_WIRE_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/crc32c.h"
#include "formats/record.h"
#include "formats/io.h"
#include "formats/msgpack_json.h"

/* Bytes, and the values for a stream's end header. */
struct wire {
    uint8_t *bytes;
    size_t n, room;
    uint32_t crc;
    int64_t records;
};

static inline void wire_free(struct wire *w)
{
    free(w->bytes);
    *w = (struct wire){0};
}

static inline void wire_add(struct wire *w, const void *bytes, size_t n)
{
    if (w->n + n >= w->room) w->bytes = realloc(w->bytes, w->room = 2 * (w->n + n) + 64);
    if (!w->bytes) abort();
    if (n) memcpy(w->bytes + w->n, bytes, n);
    w->n += n;
}

/* "dd ff ff ff ff" */
static inline void wire_hex(struct wire *w, const char *hex)
{
    for (char *end; *hex; hex = end + (*end == ' ')) {
        uint8_t byte = (uint8_t)strtoul(hex, &end, 16);
        if (end == hex) abort();
        wire_add(w, &byte, 1);
    }
}

static inline int wire_pack(void *w, const char *bytes, size_t n)
{
    wire_add(w, bytes, n);
    return 0;
}

/* JSON text as msgpack, or text that is not JSON: hex, taken as it is. */
static inline void wire_value(struct wire *w, const char *text)
{
    msgpack_packer p;
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    msgpack_packer_init(&p, w, wire_pack);
    if (value)
        msgpack_from_json(&p, value);
    else
        wire_hex(w, text);
    json_decref(value);
}

/* One header around a map: marker, checksum, map. */
static inline void wire_wrap(struct wire *w, const struct wire *map)
{
    msgpack_packer p;
    uint32_t crc = crc32c(0, map->bytes, map->n);
    msgpack_packer_init(&p, w, wire_pack);
    msgpack_pack_ext(&p, map->n + 4, 83);
    wire_add(w, &crc, 4);
    wire_add(w, map->bytes, map->n);
    w->crc = crc32c(w->crc, &crc, 4);
}

static inline void wire_header(struct wire *w, const char *text)
{
    struct wire map = {0};
    wire_value(&map, text);
    wire_wrap(w, &map);
    wire_free(&map);
}

static inline void wire_begin(struct wire *w)
{
    w->crc = 0;
    w->records = 0;
    wire_header(w,
                "{\"kind\":\"begin\",\"sluice\":1,\"program\":\"test\",\"version\":\"0\",\"settings\":{}}");
}

static inline void wire_end(struct wire *w)
{
    char text[128];
    snprintf(text, sizeof text, "{\"kind\":\"end\",\"records\":%lld,\"failed\":0,\"crc32c\":%u}",
             (long long)w->records, w->crc);
    wire_header(w, text);
}

/* A descriptor to read these bytes from: always the same one. */
static inline int wire_open(const void *bytes, size_t n)
{
    static int fd = -1;
    if (fd < 0) fd = memfd_create("wire", 0);
    if (lseek(fd, 0, SEEK_SET) || ftruncate(fd, 0) || !write_full(fd, bytes, n) || lseek(fd, 0, SEEK_SET))
        abort();
    return fd;
}

/* Reads all of it: how it ended, how many records came, and the last message. */
struct wire_got {
    enum record_got got;
    int64_t records, failed, bad_lines;
    char error[512];
};

static inline struct wire_got wire_read_fd(int fd)
{
    struct wire_got all = {0};
    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(fd, "wire");
    while (r && (all.got = record_read(r, &f)) > RECORD_END)
        all.got == RECORD_GOT ? all.records++ : all.bad_lines++;
    memcpy(all.error, f.error, sizeof all.error);
    if (r) all.failed = record_reader_failed(r);
    record_reader_close(r);
    record_free(&f);
    return all;
}

static inline struct wire_got wire_read(const void *bytes, size_t n)
{
    return wire_read_fd(wire_open(bytes, n));
}

#endif
