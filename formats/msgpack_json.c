#include "formats/msgpack_json.h"

#include <math.h>
#include <string.h>

/* msgpack-c's C unpacker believes a container's count and allocates for it, so the bytes are walked first:
 * every object must lie within what is there, nesting and the number of objects are bounded. Returns the end
 * of the object at p, or NULL. */
static const uint8_t *scan(const uint8_t *p, const uint8_t *end, int depth, int *items)
{
    /* Of the types c0 to df: how many bytes follow the first in every object of that type, and what they
     * count: bytes, an extension's bytes, the items of an array, of a map. */
    static const uint8_t follow[] = {0, 0, 0, 0, 1, 2, 4, 1, 2,  4, 4, 8, 1, 2, 4, 8,
                                     1, 2, 4, 8, 2, 3, 5, 9, 17, 1, 2, 4, 2, 4, 2, 4};
    static const char counting[] = "-!--bbbxxx---------------bbbaamm";
    uint64_t skip = 0, children = 0;
    if (p >= end || ++*items > MSGPACK_JSON_ITEMS) return NULL;
    uint8_t c = *p++;
    bool nests = (c >= 0x80 && c <= 0x9f) || (c >= 0xdc && c <= 0xdf);
    if (nests && depth > MSGPACK_JSON_DEPTH) return NULL;
    if (c <= 0x7f || c >= 0xe0) return p;
    if (c <= 0x8f) {
        children = 2 * (c & 15);
    } else if (c <= 0x9f) {
        children = c & 15;
    } else if (c <= 0xbf) {
        skip = c & 31;
    } else {
        int n = follow[c - 0xc0];
        if (end - p < n) return NULL;
        switch (counting[c - 0xc0]) {
        case '!': return NULL; /* c1 is no type */
        case 'b': skip = big_endian(p, n); break;
        case 'x': skip = big_endian(p, n) + 1; break;
        case 'a': children = big_endian(p, n); break;
        case 'm': children = 2 * big_endian(p, n); break;
        }
        p += n;
    }
    if (skip > (uint64_t)(end - p)) return NULL;
    p += skip;
    while (children-- && p) p = scan(p, end, depth + 1, items);
    return p;
}

bool msgpack_json_fits(const void *bytes, size_t n)
{
    const uint8_t *end = (const uint8_t *)bytes + n;
    int items = 0;
    return scan(bytes, end, 1, &items) == end;
}

/* NULL with *why, which stays as it was when memory is lacking. */
static json_t *convert(const msgpack_object *o, const char **why)
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
            json_t *item = convert(&o->via.array.ptr[i], why);
            if (!item || json_array_append_new(result, item)) goto bad;
        }
        return result;
    case MSGPACK_OBJECT_MAP:
        result = json_object();
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            const msgpack_object *key = &o->via.map.ptr[i].key;
            bool is_text = key->type == MSGPACK_OBJECT_STR;
            size_t n = is_text ? key->via.str.size : 0;
            const char *text = n ? key->via.str.ptr : "";
            if (!is_text || memchr(text, 0, n)) {
                *why = "a map key that is not text";
                goto bad;
            }
            if (json_object_getn(result, text, n)) {
                *why = "a duplicate map key";
                goto bad;
            }
            json_t *item = convert(&o->via.map.ptr[i].val, why);
            if (!item) goto bad;
            if (json_object_setn_new(result, text, n, item)) {
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

json_t *json_from_msgpack(const void *bytes, size_t n, const char **why)
{
    msgpack_unpacked u;
    size_t offset = 0;
    json_t *result = NULL;
    if (!msgpack_json_fits(bytes, n)) return *why = "malformed, too deep or too large", NULL;
    *why = "out of memory";
    msgpack_unpacked_init(&u);
    if (msgpack_unpack_next(&u, bytes, n, &offset) == MSGPACK_UNPACK_SUCCESS) result = convert(&u.data, why);
    msgpack_unpacked_destroy(&u);
    return result;
}

static int msgpack_from_text(msgpack_packer *p, const char *text, size_t n)
{
    return msgpack_pack_str(p, n) | msgpack_pack_str_body(p, text, n);
}

int msgpack_from_json(msgpack_packer *p, json_t *j)
{
    int bad = 0;
    switch (json_typeof(j)) {
    case JSON_NULL: return msgpack_pack_nil(p);
    case JSON_TRUE: return msgpack_pack_true(p);
    case JSON_FALSE: return msgpack_pack_false(p);
    case JSON_INTEGER: return msgpack_pack_int64(p, json_integer_value(j));
    case JSON_REAL: return msgpack_pack_double(p, json_real_value(j));
    case JSON_STRING: return msgpack_from_text(p, json_string_value(j), json_string_length(j));
    case JSON_ARRAY:
        bad = msgpack_pack_array(p, json_array_size(j));
        for (size_t i = 0; i < json_array_size(j); i++) bad |= msgpack_from_json(p, json_array_get(j, i));
        return bad;
    case JSON_OBJECT: {
        const char *key;
        json_t *value;
        bad = msgpack_pack_map(p, json_object_size(j));
        json_object_foreach (j, key, value) {
            bad |= msgpack_from_text(p, key, strlen(key)) | msgpack_from_json(p, value);
        }
    }
    }
    return bad;
}
