/* Inputs that a program could meet, mutated: streams of frames with sums that are right, safetensors files,
 * JSON lines, CSV, scores. Nothing may crash, hang, or be taken for good without being so: what is accepted
 * must come back whole.
 *
 *   fuzz [TARGET [FIRST [COUNT]]]      inputs FIRST to FIRST + COUNT - 1 of one target; each depends on its
 * number alone */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "filters/reporting/comparison.h"
#include "formats/csv.h"
#include "formats/safetensors.h"
#include "formats/torch_file.h"
#include "tests/archive.h"
#include "tests/tap.h"
#include "tests/wire.h"

#if defined __SANITIZE_ADDRESS__
#define SHORTER 4
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SHORTER 4
#endif
#endif
#ifndef SHORTER
#define SHORTER 1
#endif

static const char *target_name;
static long input_number;

/* ---- chance -------------------------------------------------------------------------------------------- */

static uint64_t state;

static uint64_t any(void) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static size_t below(size_t n)
{
    return n ? any() % n : 0;
}

static bool one_in(size_t n)
{
    return below(n) == 0;
}

/* ---- mutation of bytes --------------------------------------------------------------------------------- */

static void replace(struct wire *w, size_t at, size_t old, const void *with, size_t n)
{
    struct wire made = {0};
    wire_add(&made, w->bytes, at);
    wire_add(&made, with, n);
    wire_add(&made, w->bytes + at + old, w->n - at - old);
    free(w->bytes);
    w->bytes = made.bytes, w->n = made.n, w->room = made.room;
}

static void mutate_bytes(struct wire *w)
{
    static const struct {
        const char *bytes;
        size_t n;
    } tokens[] = {{"\xdd\xff\xff\xff\xff", 5},
                  {"\xdf\x7f\xff\xff\xff", 5},
                  {"\xdb\xff\xff\xff\xff", 5},
                  {"\xc6\xff\xff\xff\xfe", 5},
                  {"\xc9\xff\xff\xff\xff\x53", 6},
                  {"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9},
                  {"\xd3\x80\0\0\0\0\0\0\0", 9},
                  {"\xcb\x7f\xf8\0\0\0\0\0\0", 9},
                  {"\xca\x7f\x80\0\0", 5},
                  {"\x91\x91\x91\x91\x91\x91", 6},
                  {"\xc1", 1},
                  {"\xc7\x05\x53", 3},
                  {"\x81\xa1\x61", 3},
                  {"\xa1\xff", 2},
                  {"\xc0", 1},
                  {"\x00", 1},
                  {"\xff", 1},
                  {"\"", 1},
                  {",", 1},
                  {"\"\"", 2},
                  {"\r\n", 2},
                  {"\r", 1},
                  {"\n", 1},
                  {"\n\n", 2},
                  {"\xef\xbb\xbf", 3},
                  {"\\u0000", 6},
                  {"\\ud800", 6},
                  {"{", 1},
                  {"}", 1},
                  {"[", 1},
                  {"]", 1},
                  {"[[[[[[[[", 8},
                  {":", 1},
                  {" ", 1},
                  {"1e999", 5},
                  {"9223372036854775808", 19},
                  {"-9223372036854775809", 20},
                  {"4294967296", 10},
                  {"null", 4},
                  {"h\2", 2},
                  {"R", 1},
                  {"Q", 1},
                  {"(", 1},
                  {"t", 1},
                  {"u", 1},
                  {"\x85", 1}};
    for (size_t edits = 1 + below(3); edits--;) {
        size_t at = below(w->n + 1), left = w->n - at, token = below(sizeof tokens / sizeof tokens[0]);
        size_t some = left ? 1 + below(left < 16 ? left : 16) : 0, from = below(w->n + 1 - some);
        switch (below(6)) {
        case 0:
            if (left) w->bytes[at] ^= (uint8_t)(1 << below(8));
            break;
        case 1:
            if (left) w->bytes[at] = (uint8_t)any();
            break;
        case 2: replace(w, at, 0, tokens[token].bytes, tokens[token].n); break;
        case 3: replace(w, at, some, tokens[token].bytes, tokens[token].n); break;
        case 4: replace(w, at, some, "", 0); break;
        default: {
            uint8_t copy[16];
            memcpy(copy, w->bytes + from, some);
            replace(w, at, one_in(2) ? some : 0, copy, some);
        }
        }
    }
}

/* ---- mutation of JSON ---------------------------------------------------------------------------------- */

static json_t *odd_value(void)
{
    static const int64_t numbers[] = {0,         1,         -1,       2,         8,         9,
                                      255,       256,       257,      INT32_MAX, 1ll << 32, (1ll << 32) - 1,
                                      1ll << 53, INT64_MAX, INT64_MIN};
    static const char *const texts[] = {
        "",       "x",
        "U8",     "I64",
        "BF16",   "F8_E5M2",
        "record", "begin",
        "end",    "é",
        "\x7f",   "../x",
        "a b",    "0123456789012345678901234567890123456789012345678901234567890123"};
    json_t *value;
    switch (below(9)) {
    case 0: return json_null();
    case 1: return json_boolean(one_in(2));
    case 2:
    case 3: return json_integer(numbers[below(sizeof numbers / sizeof numbers[0])]);
    case 4: return json_real(one_in(2) ? 1.0 : -1e308);
    case 5: return json_string(texts[below(sizeof texts / sizeof texts[0])]);
    case 6: return json_stringn("a\0b", 1 + below(3));
    case 7:
        value = json_array();
        for (size_t depth = below(20); depth--;)
            value = one_in(2) ? json_pack("[o]", value) : json_pack("{s:o}", "in", value);
        return value;
    default:
        value = json_array();
        for (size_t n = below(12); n--;) json_array_append_new(value, json_integer((int64_t)below(3)));
        return value;
    }
}

/* One node somewhere below is replaced, removed, doubled or renamed. *seen: how many nodes were passed;
 * *pick: which. */
static bool mutate_at(json_t *at, size_t *seen, size_t pick)
{
    const char *key;
    json_t *value;
    size_t i;
    void *next;
    json_object_foreach_safe(at, next, key, value)
    {
        if ((*seen)++ != pick) {
            if (mutate_at(value, seen, pick)) return true;
            continue;
        }
        char name[64];
        snprintf(name, sizeof name, "%.60s", key);
        switch (below(4)) {
        case 0: json_object_del(at, name); break;
        case 1: json_object_set_new(at, one_in(2) ? "x" : "shape", json_deep_copy(value)); break;
        default: json_object_set_new(at, name, odd_value());
        }
        return true;
    }
    json_array_foreach (at, i, value) {
        if ((*seen)++ != pick) {
            if (mutate_at(value, seen, pick)) return true;
            continue;
        }
        switch (below(4)) {
        case 0: json_array_remove(at, i); break;
        case 1: json_array_insert_new(at, i, json_deep_copy(value)); break;
        default: json_array_set_new(at, i, odd_value());
        }
        return true;
    }
    return false;
}

static void mutate_json(json_t *root)
{
    size_t all = 0, seen = 0;
    mutate_at(root, &all, SIZE_MAX);
    mutate_at(root, &seen, below(all));
}

static void add_json(struct wire *w, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    if (text) wire_add(w, text, strlen(text));
    free(text);
}

/* ---- streams ------------------------------------------------------------------------------------------- */

static struct wire written;

static int write_fd(void)
{
    static int fd = -1;
    if (fd < 0) fd = memfd_create("written", 0);
    if (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET)) abort();
    return fd;
}

/* Reads a stream, or lines, and writes what comes into `written`. Returns how it ended; *lost: records that
 * no header can hold. */
static enum record_got copy(const struct wire *w, int64_t *lost)
{
    struct record f = RECORD_INIT;
    int out = write_fd();
    struct record_reader *reader = record_reader_open(wire_open(w->bytes, w->n), "fuzz");
    struct record_writer *writer = record_writer_open(out, "fuzz", NULL);
    enum record_got got;
    *lost = 0;
    while ((got = record_read(reader, &f)) > RECORD_END) {
        if (got == RECORD_GOT && !record_write(writer, &f)) {
            if (errno != EMSGSIZE) abort();
            ++*lost;
        }
        if (got == RECORD_BAD_LINE && !*f.error) abort();
    }
    if (got == RECORD_DAMAGED && (!*f.error || f.count)) abort();
    if (!record_write_end(writer, 0)) abort();
    record_reader_close(reader);
    record_writer_close(writer);
    record_free(&f);
    wire_free(&written);
    written.n = (size_t)lseek(out, 0, SEEK_END);
    written.bytes = malloc(written.n);
    if (!written.bytes || pread(out, written.bytes, written.n, 0) != (ssize_t)written.n) abort();
    return got;
}

/* What was accepted, written anew, is a sound stream of the same records and comes back as the same bytes. */
static bool comes_back(const struct wire *w)
{
    int64_t lost, none;
    if (copy(w, &lost) == RECORD_DAMAGED) return false;
    struct wire first = written;
    written = (struct wire){0};
    if (copy(&first, &none) != RECORD_END || none || written.n != first.n ||
        memcmp(written.bytes, first.bytes, first.n))
        abort();
    wire_free(&first);
    return true;
}

static json_t *tensor_entry(const char *name, const char *dtype, json_t *shape, const char *bytes, size_t n)
{
    return json_pack("{s:s, s:s, s:o, s:i, s:I}", "name", name, "dtype", dtype, "shape", shape, "nbytes",
                     (int)n, "crc32c", (json_int_t)crc32c(0, bytes, n));
}

static bool fuzz_frames(void)
{
    static const char data[] = "sixteen bytes...", more[] = "ab";
    struct wire w = {0}, map = {0};
    size_t records = below(4), faulty = below(records + 2),
           fault = below(8); /* mostly one header, and one way */
    bool end_fits = !one_in(4);
    for (size_t i = 0; i <= records + 1; i++) {
        json_t *head;
        if (i == 0)
            head = json_pack("{s:s, s:i, s:s, s:s, s:{s:[i]}}", "kind", "begin", "sluice", 1, "program", "p",
                             "version", "v", "settings", "a", 1);
        else if (i <= records)
            head = json_pack("{s:s, s:i, s:s, s:{s:{s:[f,n,b]}}, s:[o,o,o]}", "kind", "record", "seq",
                             (int)i - 1, "key", "some key", "meta", "deep", "list", 0.5, 1, "tensors",
                             tensor_entry("a", "BF16", json_pack("[i,i,i]", 2, 2, 2), data, 16),
                             tensor_entry("b", "U8", json_pack("[i]", 2), more, 2),
                             tensor_entry("c", "F64", json_pack("[i]", 0), "", 0));
        else
            head = json_pack("{s:s, s:i, s:i, s:I}", "kind", "end", "records", (int)records, "failed", 3,
                             "crc32c", (json_int_t)w.crc);
        bool here = i == faulty;
        if (here && fault < 4) mutate_json(head);
        map.n = 0;
        msgpack_packer p;
        msgpack_packer_init(&p, &map, wire_pack);
        msgpack_from_json(&p, head);
        json_decref(head);
        if (here && fault >= 3 && fault < 6) mutate_bytes(&map);
        if (i == 0) w.crc = 0;
        uint32_t before = w.crc;
        wire_wrap(&w, &map);
        if (i > records && !end_fits) w.crc = before;
        if (i == 0 || i > records) continue;
        wire_hex(&w, "c4 10");
        wire_add(&w, data, 16);
        wire_hex(&w, one_in(2) ? "c4 02 61 62 c4 00" : "c6 00 00 00 02 61 62 c5 00 00");
    }
    if (fault == 6) mutate_bytes(&w);
    if (fault == 7 && one_in(4)) w.n = below(w.n);
    bool good = comes_back(&w);
    wire_free(&w);
    wire_free(&map);
    return good;
}

/* Headers of any bytes at all. */
static bool fuzz_values(void)
{
    struct wire w = {0};
    json_t *part[4];
    for (int i = 0; i < 4; i++) part[i] = odd_value();
    json_t *value = json_pack("[o,o,{s:o, s:[o]}]", part[0], part[1], "k", part[2], "l", part[3]);
    if (one_in(2)) mutate_json(value);
    msgpack_packer p;
    msgpack_packer_init(&p, &w, wire_pack);
    msgpack_from_json(&p, value);
    json_decref(value);
    for (size_t n = below(4); n--;) mutate_bytes(&w);
    const char *why = NULL;
    value = json_from_msgpack(w.bytes, w.n, &why);
    if (!value && !why) abort();
    struct wire again = {0};
    msgpack_packer_init(&p, &again, wire_pack);
    if (value) {
        msgpack_from_json(&p, value);
        json_t *back = json_from_msgpack(again.bytes, again.n, &why);
        if (!json_equal(value, back)) abort();
        json_decref(back);
    }
    bool good = value != NULL;
    json_decref(value);
    wire_free(&again);
    wire_free(&w);
    return good;
}

static bool fuzz_lines(void)
{
    struct wire w = {0};
    for (size_t n = 1 + below(4); n--;) {
        json_t *line = json_pack("{s:s, s:s, s:i, s:[f,n,b,{s:s}]}", "key", "clip", "path", "a/b.mp4", "fps",
                                 8, "list", 0.25, 1, "text", "\n\"ü");
        if (one_in(2)) mutate_json(line);
        add_json(&w, line);
        json_decref(line);
        wire_add(&w, "\r\n", one_in(2) ? 2 : 0);
        wire_add(&w, "\n", !one_in(8));
    }
    if (one_in(2)) mutate_bytes(&w);
    bool good = comes_back(&w);
    wire_free(&w);
    return good;
}

/* ---- files --------------------------------------------------------------------------------------------- */

static bool fuzz_safetensors(void)
{
    struct wire w = {0}, head = {0};
    char err[512] = "", path[64], bytes[4096];
    json_t *json =
        json_pack("{s:{s:s}, s:{s:s, s:[i,i], s:[i,i]}, s:{s:s, s:[i], s:[i,i]}, s:{s:s, s:[], s:[i,i]}, "
                  "s:{s:s, s:[i], s:[i,i]}}",
                  "__metadata__", "format", "pt", "a", "dtype", "F32", "shape", 2, 3, "data_offsets", 0, 24,
                  "b", "dtype", "BF16", "shape", 4, "data_offsets", 24, 32, "c", "dtype", "F64", "shape",
                  "data_offsets", 32, 40, "d", "dtype", "U8", "shape", 0, "data_offsets", 40, 40);
    if (!one_in(4)) mutate_json(json);
    add_json(&head, json);
    json_decref(json);
    if (one_in(3)) mutate_bytes(&head);
    uint64_t n = head.n, shift = below(64);
    if (one_in(8)) n += any() >> shift;
    wire_add(&w, &n, 8);
    wire_add(&w, head.bytes, head.n);
    wire_add(&w, (char[64]){0}, one_in(8) ? below(64) : 40);
    if (one_in(8)) mutate_bytes(&w);

    snprintf(path, sizeof path, "/proc/self/fd/%d", wire_open(w.bytes, w.n));
    struct safetensors *s = safetensors_open(path, err, sizeof err);
    if (!s && !*err) abort();
    for (int i = 0; s && i < s->count; i++) {
        struct safetensors_entry *e = &s->entry[i];
        if (e->bytes != tensor_bytes(&e->shape) || e->bytes > sizeof bytes ||
            safetensors_find(s, e->name) != e)
            abort();
        if (!safetensors_read(s, e, bytes, err, sizeof err)) abort();
    }
    bool good = s != NULL;
    safetensors_close(s);
    wire_free(&head);
    wire_free(&w);
    return good;
}

static bool fuzz_csv(void)
{
    static const char text[] = "\xef\xbb\xbfvideo,caption,\"motion score\"\r\na.mp4,\"a \"\"cat\"\", "
                               "two\nlines\",0.5\r\n\r\nb.mp4,,1e3\nc,d,e";
    struct wire w = {0};
    char err[256] = "";
    double number = 0;
    enum csv_got got = CSV_DAMAGED;
    wire_add(&w, text, sizeof text - 1);
    for (size_t n = 1 + below(3); n--;) mutate_bytes(&w);
    struct csv *c = csv_open(wire_open(w.bytes, w.n), err, sizeof err);
    if (!c && !*err) abort();
    while (c && (got = csv_next(c)) > CSV_END) {
        if (got == CSV_BAD_ROW && !*c->error) abort();
        for (int i = 0; got == CSV_ROW && i < c->columns; i++)
            if (csv_number(c->field[i], &number) && !isfinite(number)) abort();
        if (c->columns && csv_column(c, c->column[0]) < 0) abort();
    }
    if (c && got == CSV_DAMAGED && !*c->error) abort();
    csv_close(c);
    wire_free(&w);
    return got == CSV_END;
}

/* ---- scores -------------------------------------------------------------------------------------------- */

/* What is taken for scores can be compared. */
static bool fuzz_scores(void)
{
    static const char *const texts[] = {
        "{\"key\":\"a\",\"path\":\"a.mp4\",\"sa\":4,\"pc\":5,\"sa_expected\":3.5,\"sample\":{\"seed\":1},\"action\":NaN}\n"
        "{\"prompt_id\":\"a\",\"key\":\"b\",\"seed\":2,\"sa\":1,\"pc\":2.0,\"caption\":\"\\\"NaN\\\"\"}\n",
        "prompt_id,caption,action,variant,sa,pc\n0,\"a, \"\"b\"\"\",roll,base,4,5\n1,c,,base,2,3\n0,,,k1,1,1\n1,,,k1,5,5\n",
        "{\"prompts\":[{\"id\":0,\"caption\":\"a\",\"action\":NaN},{\"id\":1}],\"variants\":{\"base\":{\"label\":\"b\","
        "\"joint_per_prompt\":[1,0],\"sa_per_prompt\":[4,2],\"pc_per_prompt\":[5,3]},\"k1\":{\"sa_per_prompt\":[1,5],"
        "\"pc_per_prompt\":[1,5]}},\"training\":{\"lr\":1e-4}}"};
    struct wire w = {0};
    struct scores scores = {0};
    struct pairing pairing;
    char operand[64], err[512] = "";
    const char *text = texts[below(3)];
    wire_add(&w, text, strlen(text));
    for (size_t n = below(3); n--;) mutate_bytes(&w);
    snprintf(operand, sizeof operand, "/dev/fd/%d", wire_open(w.bytes, w.n));
    bool good = scores_read(&scores, operand, err, sizeof err);
    if (good != !*err) abort();
    bool paired = good && pairing_make(&pairing, &scores, scores.variant[0].name, one_in(2), err, sizeof err);
    if (good && !paired && !*err) abort();
    if (paired) {
        json_t *comparison = comparison_make(&pairing, 100, 1);
        if (!comparison_check(comparison, err, sizeof err)) abort();
        json_decref(comparison);
        pairing_free(&pairing);
    }
    scores_free(&scores);
    wire_free(&w);
    return good;
}

/* ---- archives ------------------------------------------------------------------------------------------ */

static struct zip *open_archive(const struct archive *a)
{
    char path[64], err[512] = "", *name = path;
    snprintf(path, sizeof path, "/proc/self/fd/%d", wire_open(a->bytes.bytes, a->bytes.n));
    struct zip *z = zip_open((const char *const *)&name, 1, err, sizeof err);
    if (!z && !*err) abort();
    return z;
}

/* What unpacks without complaint has the size and the checksum that the directory tells. */
static bool fuzz_zip(void)
{
    struct archive a = {.zip64 = one_in(2)};
    char err[512], *bytes;
    size_t n;
    archive_add(&a, "stored", "some bytes as they are", 22, false);
    archive_add(&a, "folder/deflated", "tick tock tick tock tick tock tick", 34, true);
    archive_add(&a, "folder/", "", 0, false);
    archive_end(&a, one_in(2) ? "" : "a comment");
    mutate_bytes(&a.bytes);
    struct zip *z = open_archive(&a);
    bool good = z;
    for (int i = 0; z && i < z->count; i++) {
        const struct zip_entry *e = &z->entry[i];
        FILE *to = open_memstream(&bytes, &n);
        *err = 0;
        bool fine = zip_unpack(z, e, to, err, sizeof err);
        fclose(to);
        if (fine ? n != e->bytes || crc32(0, (uint8_t *)bytes, (uInt)n) != e->crc : !*err) abort();
        if (!zip_find(z, e->name)) abort();
        good &= fine;
        free(bytes);
    }
    zip_close(z);
    archive_free(&a);
    return good;
}

/* A pickle of two tensors over one storage, with memos as torch writes them. */
static bool fuzz_torch(void)
{
    static const char pickle[] =
        "\x80\2}q\0(X\1\0\0\0aq\1ctorch._utils\n_rebuild_tensor_v2\nq\2((X\7\0\0\0storageq\3"
        "ctorch\nFloatStorage\nq\4X\1\0\0\0000q\5X\3\0\0\0cpuq\6K\6tq\7QK\0K\2K\3\x86q\10K\3K\1"
        "\x86q\11\x89"
        "ccollections\nOrderedDict\nq\12)Rq\13tq\14Rq\15X\1\0\0\0bq\16h\2(h\7QJ"
        "\1\0\0\0\x8a\1\2\x85q\17K\1\x85q\20\x89h\12)Rq\21tq\22Rq\23u}q\24X\1\0\0\0mq\25}sb.";
    struct archive a = {0};
    struct wire w = {0};
    char err[512] = "", path[64];
    float data[64];
    wire_add(&w, pickle, sizeof pickle - 1);
    if (!one_in(8)) mutate_bytes(&w);
    archive_add(&a, "x/data.pkl", w.bytes, w.n, false);
    archive_add(&a, "x/data/0", "twenty-four bytes of it.", 24, false);
    archive_end(&a, "");
    if (one_in(8)) mutate_bytes(&a.bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", wire_open(a.bytes.bytes, a.bytes.n));
    struct torch_file *f = torch_file_open(path, err, sizeof err);
    if (!f && !*err) abort();
    bool good = f;
    for (int i = 0; f && i < f->dict.count; i++) {
        if (tensor_bytes(&f->dict.tensor[i].shape) > 24) abort();
        good &= torch_file_read(f, &f->dict.tensor[i], data, err, sizeof err);
    }
    torch_file_close(f);
    wire_free(&w);
    archive_free(&a);
    return good;
}

/* ---- all of them --------------------------------------------------------------------------------------- */

static const struct target {
    const char *name;
    bool (*run)(void); /* true: the input was accepted */
    long count;        /* for a short test; a sanitizer takes eight times as long and gets a quarter */
} targets[] = {{"frames", fuzz_frames, 60000}, {"values", fuzz_values, 100000},
               {"lines", fuzz_lines, 40000},   {"safetensors", fuzz_safetensors, 60000},
               {"csv", fuzz_csv, 60000},       {"scores", fuzz_scores, 20000},
               {"zip", fuzz_zip, 60000},       {"torch", fuzz_torch, 60000}};

static void say_which(int signal)
{
    printf("Bail out! signal %d: fuzz %s %ld 1\n", signal, target_name, input_number);
    fflush(stdout);
    _exit(1);
}

static void run(const struct target *t, long first, long count)
{
    long accepted = 0;
    target_name = t->name;
    for (input_number = first; input_number < first + count; input_number++) {
        state = crc32c(0, t->name, strlen(t->name)) + ((uint64_t)input_number << 32);
        if (input_number % 256 == 0) alarm(20);
        accepted += t->run();
    }
    alarm(0);
    bool both = count < 100 || (accepted > count / 200 && accepted < count - count / 200);
    ok(both, "%s: %ld inputs from %ld on, %ld of them accepted", t->name, count, first, accepted);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    json_object_seed(1);
    signal(SIGABRT, say_which);
    signal(SIGSEGV, say_which);
    signal(SIGALRM, say_which);
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (argc < 2 || !strcmp(argv[1], targets[i].name))
            run(&targets[i], argc > 2 ? atol(argv[2]) : 0,
                argc > 3 ? atol(argv[3]) : targets[i].count / SHORTER);
    wire_free(&written);
    return done();
}
