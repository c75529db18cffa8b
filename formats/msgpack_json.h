/* msgpack_json - msgpack objects as JSON values, for the wire's headers; what JSON cannot express is refused.
 *
 * The bytes may come from anywhere. Their cost is bounded before anything is allocated: nesting, the number
 * of objects, and every length by the bytes that are there. */
#ifndef FORMATS_MSGPACK_JSON_H
#define FORMATS_MSGPACK_JSON_H

#include <jansson.h>
#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    MSGPACK_JSON_DEPTH = 16,      /* arrays and maps within one another */
    MSGPACK_JSON_ITEMS = 1 << 16, /* objects, keys and values alike */
};

/* n bytes at p, a big-endian number */
static inline uint64_t big_endian(const uint8_t *p, int n)
{
    uint64_t v = 0;
    while (n--) v = v << 8 | *p++;
    return v;
}

/* The n bytes are one object, whole and within the bounds. */
bool msgpack_json_fits(const void *bytes, size_t n);

/* That object; NULL with the reason in *why: it does not fit; a map key that is no text, has a zero byte or
 * is there twice; text that is not UTF-8; an integer past 2^63; a number that is not finite; binary, an
 * extension. */
json_t *json_from_msgpack(const void *bytes, size_t n, const char **why);

/* 0, or not: the packer could not write. */
int msgpack_from_json(msgpack_packer *p, json_t *j);

#endif
