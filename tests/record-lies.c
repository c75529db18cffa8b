/* The wire, as written by somebody else: headers whose checksums are right and whose words are not, each
 * refused for its reason at little cost; other encodings of what is right; JSON lines. */
#include <sys/resource.h>
#include <sys/time.h>

#include "tests/tap.h"
#include "tests/wire.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* ---- headers that lie ---------------------------------------------------------------------------------- */

/* A record's header, its meta or its tensors, as JSON or as hex. */
#define RECORD(meta, tensors)                                                                                \
    "{\"kind\":\"record\",\"seq\":0,\"key\":\"k\",\"meta\":" meta ",\"tensors\":[" tensors "]}"
#define TENSOR(name, dtype, shape, nbytes, crc)                                                              \
    "{\"name\":\"" name "\",\"dtype\":\"" dtype "\",\"shape\":" shape ",\"nbytes\":" nbytes                  \
    ",\"crc32c\":" crc "}"
#define END "{\"kind\":\"end\",\"records\":0,\"failed\":0,\"crc32c\":0}"

/* kind "record", seq 0, key "k", meta {"x": VALUE}, tensors [], byte by byte */
#define HEX_RECORD(value)                                                                                    \
    "85 a4 6b 69 6e 64 a6 72 65 63 6f 72 64 a3 73 65 71 00 a3 6b 65 79 a1 6b a4 6d 65 74 61 81 a1 78 " value \
    " a7 74 65 6e 73 6f 72 73 90"

static const struct lie {
    const char *what, *header, *why;
} lies[] = {
    {"an array of 2^32 - 1 objects", "dd ff ff ff ff", "malformed"},
    {"a map of 2^32 - 1 pairs", "df ff ff ff ff", "malformed"},
    {"the same in meta", HEX_RECORD("dd ff ff ff ff"), "malformed"},
    {"a text of 4 GiB", HEX_RECORD("db ff ff ff ff"), "malformed"},
    {"an extension of 4 GiB", HEX_RECORD("c9 ff ff ff ff 01"), "malformed"},
    {"a nesting of 16", HEX_RECORD("91 91 91 91 91 91 91 91 91 91 91 91 91 91 c0"), NULL},
    {"a nesting of 17", HEX_RECORD("91 91 91 91 91 91 91 91 91 91 91 91 91 91 91 c0"), "too deep"},
    {"the type that is none", HEX_RECORD("c1"), "malformed"},
    {"bytes behind the map", "80 c0", "malformed"},
    {"no map", "c0", "no `kind`"},
    {"a text instead", "\"record\"", "no `kind`"},
    {"an empty map", "80", "no `kind`"},
    {"a kind that is a number", "{\"kind\":1}", "no `kind`"},
    {"a kind with a zero byte", "{\"kind\":\"end\\u0000\"}", "no `kind`"},
    {"a dtype with a zero byte", RECORD("{}", TENSOR("a", "U8\\u0000", "[1]", "1", "0")), "dtype"},
    {"a kind that nobody knows", "{\"kind\":\"begone\"}", "kind is `begone`"},
    {"bytes in the header", HEX_RECORD("c4 01 00"), "JSON does not have"},
    {"an extension in the header", HEX_RECORD("d4 53 00"), "JSON does not have"},
    {"one with its length", HEX_RECORD("c7 01 53 00"), "JSON does not have"},
    {"a number past 2^63", HEX_RECORD("cf 80 00 00 00 00 00 00 00"), "2^63"},
    {"NaN", HEX_RECORD("cb 7f f8 00 00 00 00 00 00"), "not finite"},
    {"a short infinity", HEX_RECORD("ca 7f 80 00 00"), "not finite"},
    {"text that is not UTF-8", HEX_RECORD("a1 ff"), "not UTF-8"},
    {"text with half a surrogate pair", HEX_RECORD("a3 ed a0 80"), "not UTF-8"},
    {"a field that is not UTF-8", HEX_RECORD("81 a1 ff c0"), "not UTF-8"},
    {"a field with a zero byte", HEX_RECORD("81 a2 61 00 c0"), "not text"},
    {"a field that is a number", HEX_RECORD("81 01 c0"), "not text"},
    {"a field that is a list", HEX_RECORD("81 90 c0"), "not text"},
    {"a field twice", HEX_RECORD("82 a1 61 c0 a1 61 c0"), "duplicate"},
    {"kind twice", "82 a4 6b 69 6e 64 a3 65 6e 64 a4 6b 69 6e 64 a3 65 6e 64", "duplicate"},

    {"a begin within a stream",
     "{\"kind\":\"begin\",\"sluice\":1,\"program\":\"p\",\"version\":\"v\",\"settings\":{}}",
     "`begin` where a record"},
    {"a seq ahead", "{\"kind\":\"record\",\"seq\":1,\"key\":\"k\",\"meta\":{},\"tensors\":[]}",
     "`seq` is not 0"},
    {"a negative seq", "{\"kind\":\"record\",\"seq\":-1,\"key\":\"k\",\"meta\":{},\"tensors\":[]}",
     "`seq` is not 0"},
    {"a seq that is real", "{\"kind\":\"record\",\"seq\":0.0,\"key\":\"k\",\"meta\":{},\"tensors\":[]}",
     "`seq` is not 0"},
    {"no seq", "{\"kind\":\"record\",\"key\":\"k\",\"meta\":{},\"tensors\":[]}", "`seq` is not 0"},
    {"no key", "{\"kind\":\"record\",\"seq\":0,\"meta\":{},\"tensors\":[]}", "no good `key`"},
    {"an empty key", "{\"kind\":\"record\",\"seq\":0,\"key\":\"\",\"meta\":{},\"tensors\":[]}",
     "no good `key`"},
    {"a key that is a number", "{\"kind\":\"record\",\"seq\":0,\"key\":7,\"meta\":{},\"tensors\":[]}",
     "no good `key`"},
    {"a key with a zero byte",
     "{\"kind\":\"record\",\"seq\":0,\"key\":\"a\\u0000b\",\"meta\":{},\"tensors\":[]}", "no good `key`"},
    {"no meta", "{\"kind\":\"record\",\"seq\":0,\"key\":\"k\",\"tensors\":[]}", "no `meta`"},
    {"a meta that is a list", RECORD("[]", ""), "no `meta`"},
    {"no tensors", "{\"kind\":\"record\",\"seq\":0,\"key\":\"k\",\"meta\":{}}", "no `tensors`"},
    {"tensors that are a map", "{\"kind\":\"record\",\"seq\":0,\"key\":\"k\",\"meta\":{},\"tensors\":{}}",
     "no `tensors`"},

    {"a tensor that is a number", RECORD("{}", "1"), "good name"},
    {"a tensor with no name", RECORD("{}", "{\"dtype\":\"U8\",\"shape\":[1],\"nbytes\":1,\"crc32c\":0}"),
     "good name"},
    {"an empty name", RECORD("{}", TENSOR("", "U8", "[1]", "1", "0")), "good name"},
    {"a name of 64 bytes",
     RECORD("{}", TENSOR("0123456789012345678901234567890123456789012345678901234567890123", "U8", "[1]", "1",
                         "0")),
     "good name"},
    {"a name with a zero byte", RECORD("{}", TENSOR("a\\u0000b", "U8", "[1]", "1", "0")), "good name"},
    {"two tensors of one name",
     RECORD("{}", TENSOR("a", "U8", "[0]", "0", "0") "," TENSOR("a", "U8", "[0]", "0", "0")), "one name"},
    {"a dtype that nobody knows", RECORD("{}", TENSOR("a", "F8_E4M3", "[1]", "1", "0")), "dtype"},
    {"a dtype in small letters", RECORD("{}", TENSOR("a", "u8", "[1]", "1", "0")), "dtype"},
    {"no shape", RECORD("{}", "{\"name\":\"a\",\"dtype\":\"U8\",\"nbytes\":1,\"crc32c\":0}"), "good shape"},
    {"a shape that is a number", RECORD("{}", TENSOR("a", "U8", "1", "1", "0")), "good shape"},
    {"a dimension that is real", RECORD("{}", TENSOR("a", "U8", "[1.0]", "1", "0")), "good shape"},
    {"rank 9", RECORD("{}", TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,1]", "1", "0")), "good shape"},
    {"a negative dimension", RECORD("{}", TENSOR("a", "U8", "[-1]", "1", "0")), "absurd"},
    {"two negative dimensions", RECORD("{}", TENSOR("a", "U8", "[-1,-1]", "1", "0")), "absurd"},
    {"a product past 2^63", RECORD("{}", TENSOR("a", "U8", "[4294967296,4294967296]", "0", "0")), "absurd"},
    {"one past it by the element", RECORD("{}", TENSOR("a", "F64", "[2305843009213693952]", "0", "0")),
     "absurd"},
    {"one past it beside a zero", RECORD("{}", TENSOR("a", "U8", "[0,9223372036854775807,2]", "0", "0")),
     "absurd"},
    {"a tensor of 4 GiB", RECORD("{}", TENSOR("a", "U8", "[4294967296]", "4294967296", "0")), "absurd"},
    {"nbytes too small", RECORD("{}", TENSOR("a", "U8", "[4]", "3", "0")), "nbytes"},
    {"nbytes too large", RECORD("{}", TENSOR("a", "U8", "[4]", "5", "0")), "nbytes"},
    {"nbytes negative", RECORD("{}", TENSOR("a", "U8", "[4]", "-4", "0")), "nbytes"},
    {"no checksum", RECORD("{}", "{\"name\":\"a\",\"dtype\":\"U8\",\"shape\":[1],\"nbytes\":1}"), "checksum"},
    {"a checksum past 32 bits", RECORD("{}", TENSOR("a", "U8", "[1]", "1", "4294967296")), "checksum"},

    {"an end of other records", "{\"kind\":\"end\",\"records\":1,\"failed\":0,\"crc32c\":0}",
     "speaks of 1 records, 0 came"},
    {"an end of another checksum", END, "checksum does not match"},
    {"an end without failed", "{\"kind\":\"end\",\"records\":0,\"crc32c\":0}", "end without"},
    {"an end with failed below zero", "{\"kind\":\"end\",\"records\":0,\"failed\":-1,\"crc32c\":0}",
     "end without"},
};

/* A begin, the header, an end: refused, at the header, in one line. Without a reason: accepted. */
static bool told(const struct wire *w, int64_t at, const char *why)
{
    char place[32];
    struct wire_got g = wire_read(w->bytes, w->n);
    snprintf(place, sizeof place, "byte %lld: ", (long long)at);
    bool good = why ? g.got == RECORD_DAMAGED && strstr(g.error, why) && (at < 0 || strstr(g.error, place)) &&
                          !strchr(g.error, '\n')
                    : g.got == RECORD_END;
    if (!good) printf("# %d after %lld records: %s\n", g.got, (long long)g.records, g.error);
    return good;
}

static void test_lies(void)
{
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct wire w = {0};
        wire_begin(&w);
        int64_t at = (int64_t)w.n;
        wire_header(&w, lies[i].header);
        w.records = 1;
        wire_end(&w);
        ok(told(&w, at, lies[i].why), "%s", lies[i].what);
        wire_free(&w);
    }
}

static void test_begins(void)
{
    static const struct lie begins[] = {
        {"a record for a begin", RECORD("{}", ""), "where a begin is due"},
        {"an end for a begin", END, "where a begin is due"},
        {"another version",
         "{\"kind\":\"begin\",\"sluice\":2,\"program\":\"p\",\"version\":\"v\",\"settings\":{}}", "version"},
        {"a version that is real",
         "{\"kind\":\"begin\",\"sluice\":1.0,\"program\":\"p\",\"version\":\"v\",\"settings\":{}}",
         "version"},
        {"no version", "{\"kind\":\"begin\",\"program\":\"p\",\"version\":\"v\",\"settings\":{}}", "version"},
        {"no program", "{\"kind\":\"begin\",\"sluice\":1,\"version\":\"v\",\"settings\":{}}", "`program`"},
        {"settings that are a list",
         "{\"kind\":\"begin\",\"sluice\":1,\"program\":\"p\",\"version\":\"v\",\"settings\":[]}",
         "`settings`"},
        {"fields that nobody knows",
         "{\"kind\":\"begin\",\"sluice\":1,\"program\":\"p\",\"version\":\"v\",\"settings\":{},\"x\":[1]}",
         NULL}};
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        struct wire w = {0};
        wire_header(&w, begins[i].header);
        wire_end(&w);
        ok(told(&w, 0, begins[i].why), "%s", begins[i].what);
        wire_free(&w);
    }
}

/* Bytes where a header is due; n: the bytes of them that make the message. */
static void test_markers(void)
{
    static const struct lie markers[] = {
        {"a fixed number", "68 00 6c", "not a record header (first byte 0x68)"},
        {"a bare map", "81 a4 6b 69 6e 64 c0", "not a record header"},
        {"an extension of another type", "c7 05 54 00 00 00 00 80", "extension type 84 of 5 bytes"},
        {"a negative type", "c7 05 ff 00 00 00 00 80", "extension type -1"},
        {"an extension without a map", "c7 04 53 00 00 00 00", "of 4 bytes"},
        {"a fixed extension, too short", "d6 53 00 00 00 00", "of 4 bytes"},
        {"an extension past 1 MiB", "c9 00 10 00 01 53 00 00 00 00", "of 1048577 bytes"},
        {"an extension of 4 GiB", "c9 ff ff ff ff 53 00 00 00 00", "of 4294967295 bytes"},
        {"an extension of 1 MiB that is not there", "c9 00 10 00 00 53 00 00 00 00", "truncated"},
        {"a checksum of other bytes", "c7 05 53 00 00 00 00 80", "checksum mismatch"}};
    for (size_t i = 0; i < sizeof markers / sizeof markers[0]; i++) {
        struct wire w = {0};
        wire_hex(&w, markers[i].header);
        ok(told(&w, i == 8 ? (int64_t)w.n : 0, markers[i].why), "%s", markers[i].what);
        wire_begin(&w);
        wire_free(&w);
    }
}

/* Text where a stream should begin. */
static void test_text(void)
{
    static const struct lie texts[] = {
        {"a word", "hello",
         "looks like text, not like records or JSON lines, {\"key\": ..}: it starts with `hello`"},
        {"a long line", "a line that is longer than what one wants to see of it\n",
         "with `a line that is longer than what one wan`"},
        {"a word with an accent", "caf\xc3\xa9\n", "with `caf`"},
        {"a CSV", "video,caption\na.mp4,b\n", "looks like a CSV, not like records or JSON lines"},
        {"a CSV of a spreadsheet", "\xef\xbb\xbfvideo,caption\r\n",
         "it starts with a byte order mark and `video,caption`"},
        {"JSON lines of a spreadsheet", "\xef\xbb\xbf{\"key\":\"a\",\"x\":1}\n",
         "looks like text, not like records or JSON lines, {\"key\": ..}: it starts with a byte order mark and `{\"key"},
        {"a JSON list", "[{\"key\":\"a\",\"x\":1}]\n", "looks like a JSON list"},
        {"an archive", "PK\x03\x04", "not a record header (first byte 0x50)"},
        {"half a byte order mark", "\xef\xbb", "not a record header (first byte 0xef)"},
        {"a byte order mark alone", "\xef\xbb\xbf\n", "not a record header (first byte 0xef)"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct wire w = {0};
        wire_add(&w, texts[i].header, strlen(texts[i].header));
        ok(told(&w, 0, texts[i].why), "%s", texts[i].what);
        wire_free(&w);
    }
}

static void test_many(void)
{
    struct wire w = {0};
    char header[65536] = "{\"kind\":\"record\",\"seq\":0,\"key\":\"k\",\"meta\":{},\"tensors\":[";
    for (int i = 0; i <= RECORD_MAX_TENSORS; i++)
        sprintf(header + strlen(header), "%s" TENSOR("t%d", "U8", "[0]", "0", "0"), i ? "," : "", i);
    strcat(header, "]}");
    wire_begin(&w);
    int64_t at = (int64_t)w.n;
    wire_header(&w, header);
    wire_end(&w);
    ok(told(&w, at, "more than 256 tensors"), "257 tensors");

    /* A million small values in a header that is not too large. */
    struct wire map = {0};
    w.n = (size_t)at;
    wire_hex(&map, "82 a4 6b 69 6e 64 a6 72 65 63 6f 72 64 a1 78 dd 00 0f 00 00");
    for (int i = 0; i < 0xf0000; i++) wire_add(&map, "\xc0", 1);
    wire_wrap(&w, &map);
    ok(told(&w, at, "too large"), "983040 values");
    wire_free(&map);
    wire_free(&w);
}

/* After the end nothing but a begin may come. */
static void test_after_the_end(void)
{
    static const struct lie tails[] = {
        {"a line end", "0a", "0x0a"}, {"zeros", "00 00", "0x00"}, {"text", "78", "0x78"}};
    struct wire w = {0};
    wire_begin(&w);
    wire_end(&w);
    size_t whole = w.n;
    ok(told(&w, -1, NULL), "an empty stream is fine");
    for (size_t i = 0; i < 3; i++) {
        w.n = whole;
        wire_hex(&w, tails[i].header);
        ok(told(&w, (int64_t)whole, tails[i].why), "%s after the end", tails[i].what);
    }
    w.n = whole;
    wire_header(&w, RECORD("{}", ""));
    ok(told(&w, (int64_t)whole, "where a begin is due"), "a record after the end");
    w.n = whole;
    wire_header(&w, END);
    ok(told(&w, (int64_t)whole, "where a begin is due"), "two ends");
    w.n = 0;
    wire_begin(&w);
    wire_begin(&w);
    ok(told(&w, -1, "where a record or the end is due"), "two begins");
    ok(told(&(struct wire){.bytes = (uint8_t *)""}, 0, "empty input"), "nothing");

    /* What failed is added up over the streams. */
    w.n = 0;
    for (int i = 0; i < 3; i++) {
        char end[128];
        wire_begin(&w);
        snprintf(end, sizeof end, "{\"kind\":\"end\",\"records\":0,\"failed\":%lld,\"crc32c\":%u}",
                 INT64_MAX / 2 - 1ll, w.crc);
        wire_header(&w, end);
    }
    ok(told(&w, -1, "absurdly many failed"), "sums past 2^63");
    wire_free(&w);
}

/* ---- payloads that lie --------------------------------------------------------------------------------- */

static void payload(const char *what, const char *hex, int64_t records, const char *why)
{
    struct wire w = {0};
    char header[512];
    wire_begin(&w);
    snprintf(header, sizeof header, RECORD("{}", TENSOR("pixels", "U8", "[4]", "4", "%u")),
             crc32c(0, "abcd", 4));
    wire_header(&w, header);
    wire_hex(&w, hex);
    w.records = records;
    wire_end(&w);
    ok(told(&w, -1, why), "%s", what);
    wire_free(&w);
}

static void test_payloads(void)
{
    payload("a payload", "c4 04 61 62 63 64", 1, NULL);
    payload("its length in two bytes", "c5 00 04 61 62 63 64", 1, NULL);
    payload("its length in four bytes", "c6 00 00 00 04 61 62 63 64", 1, NULL);
    payload("one byte of it altered", "c4 04 61 62 63 65", 1, "tensor `pixels` of k: checksum mismatch");
    payload("a shorter one", "c4 03 61 62 63", 1, "tensor `pixels` of k: 3 bytes, its header says 4");
    payload("a longer one", "c4 05 61 62 63 64 65", 1, "5 bytes, its header says 4");
    payload("one that says 4 GiB", "c6 ff ff ff ff 61 62 63 64", 1, "4294967295 bytes, its header says 4");
    payload("a text", "a4 61 62 63 64", 1, "not a msgpack bin (first byte 0xa4)");
    payload("none", "", 1, "not a msgpack bin");
    payload("two", "c4 04 61 62 63 64 c4 04 61 62 63 64", 1, "not a record header");
}

/* ---- what it costs ------------------------------------------------------------------------------------- */

#ifndef SANITIZED
static long pages(int field)
{
    long total = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &total, &resident) != 2) total = resident = 0;
    if (f) fclose(f);
    return (field ? resident : total) * sysconf(_SC_PAGESIZE);
}
#endif

/* A tensor that says 4 GiB in a stream that ends early, within an address space that grows by one step and no
 * more. */
static void test_cost(void)
{
    struct wire w = {0};
    wire_begin(&w);
    wire_header(&w, RECORD("{}", TENSOR("a", "U8", "[4294967295]", "4294967295", "0")));
    wire_hex(&w, "c6 ff ff ff ff");
    wire_add(&w, (char[100000]){0}, 100000);
#ifdef SANITIZED
    ok(told(&w, (int64_t)w.n, "truncated within tensor `a`"), "a tensor that says 4 GiB");
#else
    struct rlimit before, limit;
    getrlimit(RLIMIT_AS, &before);
    limit = before;
    limit.rlim_cur = (rlim_t)pages(0) + (68 << 20);
    long resident = pages(1);
    setrlimit(RLIMIT_AS, &limit);
    ok(told(&w, (int64_t)w.n, "truncated within tensor `a`"),
       "a tensor that says 4 GiB costs a step of address space");
    ok(pages(1) - resident < 4 << 20, "and next to no memory");
    limit.rlim_cur = (rlim_t)pages(0) + (16 << 20);
    setrlimit(RLIMIT_AS, &limit);
    ok(told(&w, -1, "no memory for 4294967295 bytes"), "a step that is not to be had is told");
    test_lies(); /* a header costs less than 16 MiB */
    setrlimit(RLIMIT_AS, &before);
#endif
    wire_free(&w);
}

/* ---- another writer's choices -------------------------------------------------------------------------- */

/* The longest form of everything, maps in another order, an extension of a fixed size. */
static void test_other_writer(void)
{
    struct wire w = {0}, map = {0};
    wire_begin(&w);
    wire_hex(&map,
             "df 00 00 00 05 "
             "db 00 00 00 07 74 65 6e 73 6f 72 73 dd 00 00 00 01 " /* tensors */
             "df 00 00 00 05 "
             "d9 05 73 68 61 70 65 dd 00 00 00 02 cf 00 00 00 00 00 00 00 02 d3 00 00 00 00 00 00 00 01 "
             "da 00 06 6e 62 79 74 65 73 ce 00 00 00 02 "
             "a6 63 72 63 33 32 63 ce");
    uint32_t crc = crc32c(0, "ab", 2);
    for (int i = 3; i >= 0; i--) wire_add(&map, &(uint8_t){(uint8_t)(crc >> 8 * i)}, 1);
    wire_hex(&map,
             "a4 6e 61 6d 65 da 00 01 61 "
             "a5 64 74 79 70 65 d9 02 55 38 "
             "a4 6d 65 74 61 de 00 03 a1 66 ca 3f 00 00 00 a1 6e d1 ff ff a1 74 d9 00 " /* meta f, n, t */
             "a3 6b 65 79 db 00 00 00 01 6b "
             "a3 73 65 71 d0 00 "
             "a4 6b 69 6e 64 a6 72 65 63 6f 72 64");
    wire_hex(&w, "c9 00 00");
    uint8_t size[2] = {(uint8_t)((map.n + 4) >> 8), (uint8_t)(map.n + 4)};
    wire_add(&w, size, 2);
    wire_hex(&w, "53");
    crc = crc32c(0, map.bytes, map.n);
    wire_add(&w, &crc, 4);
    w.crc = crc32c(w.crc, &crc, 4);
    wire_add(&w, map.bytes, map.n);
    wire_hex(&w, "c6 00 00 00 02 61 62");
    w.records = 1;
    wire_end(&w);

    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(wire_open(w.bytes, w.n), "wire");
    bool good = record_read(r, &f) == RECORD_GOT && !strcmp(record_key(&f), "k") && f.count == 1 &&
                tensor_is(&f.tensor[0].t, DT_U8, 2, 2, 1) && !memcmp(f.tensor[0].t.data, "ab", 2) &&
                json_real_value(json_object_get(record_meta(&f), "f")) == 0.5 &&
                json_integer_value(json_object_get(record_meta(&f), "n")) == -1 && !*record_text(&f, "t") &&
                record_read(r, &f) == RECORD_END;
    ok(good, "long forms, another order: %s", f.error);
    record_reader_close(r);
    record_free(&f);
    wire_free(&map);
    wire_free(&w);
}

/* ---- JSON lines ---------------------------------------------------------------------------------------- */

/* What comes out of a text: keys, a number for each bad line, "." for the end, "!" for damage. */
static void lines(const char *what, const char *text, const char *expected)
{
    char got[256] = "";
    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(wire_open(text, strlen(text)), "wire");
    enum record_got kind;
    do {
        kind = record_read(r, &f);
        const char *number = strstr(f.error, "line ");
        int room = (int)(sizeof got - strlen(got));
        snprintf(got + strlen(got), (size_t)room, "%s%.*s", *got ? " " : "",
                 kind == RECORD_BAD_LINE ? (int)strspn(number ? number + 5 : "", "0123456789") : 99,
                 kind == RECORD_GOT        ? record_key(&f)
                 : kind == RECORD_BAD_LINE ? number + 5
                 : kind == RECORD_END      ? "."
                                           : "!");
    } while (kind > RECORD_END);
    if (!ok(!strcmp(got, expected), "%s", what)) printf("# %s, not %s (%s)\n", got, expected, f.error);
    record_reader_close(r);
    record_free(&f);
}

static void test_jsonl(void)
{
    lines("lines", "{\"key\":\"a\"}\n{\"key\":\"b\",\"path\":\"p\"}\n", "a b .");
    lines("the key is the path when there is none", "{\"path\":\"x/y.mp4\"}\n", "x/y.mp4 .");
    lines("no line end at the end", "{\"key\":\"a\"}\n{\"key\":\"b\"}", "a b .");
    lines("CR LF, empty lines, blanks around", "\r\n{\"key\":\"a\"}\r\n\n  \t{\"key\":\"b\"} \n\n", "a b .");
    lines("white space alone has no records", " \n\t\n", ".");
    lines("bad lines are numbered and passed over",
          "{\"key\":\"a\"}\n{\"key\":\n\n[1]\n{}\n{\"key\":1}\n{\"key\":\"\"}\nnull\n{\"key\":null}\n{"
          "\"key\":\"z\"}\n",
          "a 2 4 5 6 7 8 9 z .");
    lines("a field twice", "{\"key\":\"a\",\"key\":\"b\"}\n{\"key\":\"b\"}\n", "1 b .");
    lines("two objects in a line", "{\"key\":\"a\"}{\"key\":\"b\"}\n{\"key\":\"c\"}\n", "1 c .");
    lines("not UTF-8", "{\"key\":\"\xff\"}\n{\"key\":\"b\"}\n", "1 b .");
    lines("a key with a zero byte", "{\"key\":\"a\\u0000b\"}\n{\"key\":\"b\"}\n", "1 b .");
    lines("numbers that no double or 64 bits hold",
          "{\"key\":\"a\",\"x\":1e999}\n{\"key\":\"a\",\"x\":9223372036854775808}\n", "1 2 .");
    lines("what JSON does not have", "{\"key\":\"a\",\"x\":NaN}\n{key:\"a\"}\n{\"key\":\"a\",}\n//\n",
          "1 2 3 4 .");
    lines("frames are no JSON", "{\"key\":\"a\"}\n\xc7\x05\x53\n", "a 2 .");

    struct wire w = {0};
    wire_add(&w, "{\"key\":\"a\"}\n", 12);
    wire_add(&w, "\0\0\n", 3);
    struct wire_got g = wire_read(w.bytes, w.n);
    ok(g.got == RECORD_END && g.records == 1 && g.bad_lines == 1,
       "zero bytes are no blanks, and end nothing");

    w.n = 12;
    wire_add(&w, "{\"key\":\"b\",\"x\":", 15);
    for (int i = 0; i < 100000; i++) wire_add(&w, "[", 1);
    wire_add(&w, "\n{\"key\":\"c\"}\n", 13);
    g = wire_read(w.bytes, w.n);
    ok(g.got == RECORD_END && g.records == 2 && g.bad_lines == 1,
       "a nesting of 100000 is a bad line like another");

    char *text = malloc(RECORD_MAX_HEADER);
    memset(text, ' ', RECORD_MAX_HEADER);
    for (int more = 0; more < 2; more++) {
        w.n = 12;
        wire_add(&w, text, RECORD_MAX_HEADER - 11 + (size_t)more);
        wire_add(&w, "{\"key\":\"b\"}\n{\"key\":\"c\"}\n", 24);
        g = wire_read(w.bytes, w.n);
        if (more)
            ok(g.got == RECORD_DAMAGED && g.records == 1 && strstr(g.error, "wire: line 2: more than 1 MiB"),
               "more is refused: %s", g.error);
        else
            ok(g.got == RECORD_END && g.records == 3, "a line of 1 MiB");
    }
    free(text);
    wire_free(&w);

    struct record f = RECORD_INIT;
    const char *line = "{\"path\":\"p\",\"key\":\"k\",\"n\":3,\"x\":{\"y\":[1,null]}}\n";
    struct record_reader *r = record_reader_open(wire_open(line, strlen(line)), "wire");
    json_t *meta = json_pack("{s:s, s:i, s:{s:[i,n]}}", "path", "p", "n", 3, "x", "y", 1);
    ok(record_read(r, &f) == RECORD_GOT && record_reader_is_jsonl(r) && f.count == 0 &&
           json_equal(record_meta(&f), meta) && !record_reader_begin(r),
       "every field but the key is meta");
    json_decref(meta);
    record_reader_close(r);
    record_free(&f);
}

int main(void)
{
    test_lies();
    test_begins();
    test_markers();
    test_text();
    test_many();
    test_after_the_end();
    test_payloads();
    test_cost();
    test_other_writer();
    test_jsonl();
    return done();
}
