#include "formats/safetensors.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/scratch.h"
#include "tests/tap.h"

static char err[512];
static const char data[33] = "0123456789abcdefghijklmnopqrstuv";

/* A file of this header and data, its length word as it should be. */
static void put_file(const char *path, const char *header, const void *contents, size_t bytes)
{
    uint64_t n = strlen(header);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(&n, 8, 1, f) != 1 || fwrite(header, 1, n, f) != n ||
        fwrite(contents, 1, bytes, f) != bytes || fclose(f))
        perror(path), exit(1);
}

static bool refuses(const char *path, const char *because)
{
    struct safetensors *s = safetensors_open(path, err, sizeof err);
    safetensors_close(s);
    return !s && strstr(err, path) == err && strstr(err, because);
}

static void refused(const char *what, const char *header, size_t bytes, const char *because)
{
    put_file("bad", header, data, bytes);
    ok(refuses("bad", because), "%s: %s", what, err);
}

static void refused_bytes(const char *what, const char *bytes, size_t n, const char *because)
{
    put_bytes("bad", bytes, n);
    ok(refuses("bad", because), "%s: %s", what, err);
}

static bool accepts(const char *header, size_t bytes, int count)
{
    put_file("good", header, data, bytes);
    struct safetensors *s = safetensors_open("good", err, sizeof err);
    bool good = s && s->count == count;
    safetensors_close(s);
    return good;
}

#define ONE(dtype, shape, offsets)                                                                           \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(offsets_a, offsets_b)                                                                            \
    "{\"a\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":" offsets_a "},"                               \
    "\"b\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":" offsets_b "}}"

/* What the format's own test suite holds against its reader. */
static void upstream_cases(void)
{
    char attack[2000] = "{", *p = attack + 1;
    for (int i = 0; i < 10; i++)
        p += sprintf(p, "%s\"weight_%d\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}",
                     i ? "," : "", i);
    strcpy(p, "}");
    refused("ten tensors over one range", attack, 16, "overlap");

    put_file("bad", ONE("I32", "[2,2]", "[0,16]"), "0123456789abcdefextra_bogus_data_for_polyglot_file", 50);
    ok(refuses("bad", "34 bytes after the last tensor"), "a polyglot's tail: %s", err);
    refused("two bytes missing", ONE("I32", "[2,2]", "[0,16]"), 14, "tensor t: bytes 0 to 16 of 14");
    refused_bytes("header too large", "<\0\0\0\0\xff\xff\xff{}", 10, "more than 16777216");
    refused_bytes("header too small", "", 0, "no header");
    refused_bytes("seven bytes", "\2\0\0\0\0\0\0", 7, "no header");
    refused_bytes("header past the end", "<\0\0\0\0\0\0\0", 8, "a header of 60 bytes in a file of 8");
    refused_bytes("header not UTF-8", "\1\0\0\0\0\0\0\0\xff", 9, "header at byte");
    refused_bytes("header not JSON", "\1\0\0\0\0\0\0\0{", 9, "header at byte");
    ok(accepts("{}\r \t\n", 0, 0), "white space behind the header is fine");
    ok(accepts("\t\n{}\r ", 0, 0), "and before it");
    ok(accepts(ONE("I32", "[2,0]", "[0, 0]"), 0, 1), "a tensor may be empty");
    ok(accepts(ONE("I32", "[]", "[0,4]"), 4, 1), "or a scalar");
    refused("size against shape", ONE("I32", "[2,2]", "[0, 4]"), 4,
            "tensor t: 4 bytes where its shape needs 16");
    refused("shape overflow", ONE("I32", "[2,18446744073709551614]", "[0,16]"), 16, "too big integer");
    refused("elements overflow", ONE("I32", "[2,9223372036854775807]", "[0,16]"), 16, "overflows");
    refused("bytes overflow", ONE("F64", "[2305843009213693952]", "[0,16]"), 16, "overflows");
    refused("half a byte", ONE("F4", "[1]", "[0,1]"), 1, "dtype F4 is not supported");
}

/* A file saved over while it is mapped must not change under the map, nor end early. */
static void saved_over_while_mapped(void)
{
    float one[4] = {1, 1, 1, 1}, two = 2;
    struct safetensors_item first = {"x", tensor_of(DT_F32, one, 1, 4)},
                            second = {"x", tensor_of(DT_F32, &two, 1, 1)};
    safetensors_write("mapped", &first, 1, NULL, err, sizeof err);
    int fd = open("mapped", O_RDONLY);
    struct stat st;
    fstat(fd, &st);
    char *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    struct safetensors *s = safetensors_open("mapped", err, sizeof err);
    safetensors_write("mapped", &second, 1, NULL, err, sizeof err);
    float got[4] = {0};
    ok(map != MAP_FAILED && !memcmp(map + st.st_size - 16, one, 16) &&
           safetensors_read(s, &s->entry[0], got, err, sizeof err) && !memcmp(got, one, 16),
       "a file saved over stays as it was for those who have it open");
    munmap(map, (size_t)st.st_size);
    close(fd);
    safetensors_close(s);
}

static void our_cases(void)
{
    ok(accepts(TWO("[8,16]", "[0,8]"), 16, 2), "the header's order is free");
    ok(accepts("{\"__metadata__\":{\"format\":\"pt\"}}", 0, 0), "metadata alone is fine");
    ok(accepts("{\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
               "\"v\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[1,9]}}",
               9, 2),
       "tensors need not be aligned");
    ok(accepts("{\"v\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
               "\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
               "\"f\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}",
               2, 3),
       "empty tensors may lie at either end of another");

    refused("overlap", TWO("[0,8]", "[4,12]"), 12, "tensors a and b overlap");
    refused("hole", TWO("[0,8]", "[12,20]"), 20, "4 unclaimed bytes before tensor b");
    refused("tail", TWO("[0,8]", "[8,16]"), 17, "1 bytes after the last tensor");
    refused("hole before", ONE("I32", "[2]", "[8,16]"), 16, "8 unclaimed bytes before tensor t");
    refused("a name twice", "{\"a\":{},\"a\":{}}", 0, "duplicate object key");
    refused("a field twice",
            "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
            "duplicate object key");
    refused("offsets reversed", ONE("U8", "[0]", "[4,0]"), 4, "bytes 4 to 0");
    refused("negative offset", ONE("U8", "[4]", "[-4,0]"), 4, "bytes -4 to 0");
    refused("offsets of fractions", ONE("U8", "[4]", "[0,4.0]"), 4, "not of their types");
    refused("one offset", ONE("U8", "[4]", "[4]"), 4, "not of their types");
    refused("three offsets", ONE("U8", "[4]", "[0,4,4]"), 4, "not of their types");
    refused("negative dimension", ONE("U8", "[-1]", "[0,0]"), 0, "a dimension");
    refused("dimension of text", ONE("U8", "[\"4\"]", "[0,4]"), 4, "a dimension");
    refused("nine dimensions", ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "9 dimensions");
    refused("empty but absurd", ONE("F32", "[0,4611686018427387904,4]", "[0,0]"), 0, "overflows");
    refused("no dtype", "{\"t\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, "not just dtype");
    refused("an unknown field",
            "{\"t\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"strides\":[]}}", 1,
            "not just dtype");
    refused("an entry of another type", "{\"t\":[]}", 0, "not just dtype");
    static const char *const dtypes[] = {"BOOL", "I8",      "I16",     "U16", "U32",
                                         "U64",  "F8_E4M3", "F8_E5M2", "f32", ""};
    bool named = true;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char header[100], because[50];
        sprintf(header, ONE("%s", "[]", "[0,1]"), dtypes[i]);
        sprintf(because, "dtype %s is not supported", dtypes[i]);
        put_file("bad", header, data, 1);
        named &= refuses("bad", because);
    }
    ok(named, "other dtypes are refused by name");
    refused("metadata of numbers", "{\"__metadata__\":{\"step\":3}}", 0,
            "__metadata__: step is not a string");
    ok(accepts("{\"__metadata__\":null}", 0, 0),
       "metadata of null is none, as the safetensors library has it");
    refused("metadata of text", "{\"__metadata__\":\"pt\"}", 0, "__metadata__ is not an object");
    refused("an array", "[]", 0, "not a JSON object");
    refused("two objects", "{}{}", 0, "header at byte");
    refused("a comment", "{}//", 0, "header at byte");
    refused("deep nesting", "{\"t\":[[[[]]]]}", 0, "nested deeper than 4");
    ok(accepts("{\"__metadata__\":{\"a\":\"{[[[[[\\\"[[[[\",\"\\\\\":\"]]\"}}", 0, 0),
       "brackets in strings are only text");
    refused("a line break in a name", "{\"\\u001b[2J\\n\":{}}", 0, "tensor ?[2J?: not just");
    refused_bytes("a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer");

    ok(refuses("absent", "No such file"), "%s", err);
    mkdir("folder", 0777);
    ok(refuses("folder", "not a regular file"), "%s", err);
    mkfifo("pipe", 0666);
    ok(refuses("pipe", "not a regular file"), "a pipe is refused and not waited for: %s", err);
}

/* Headers at their bounds, and one past them. */
static void bounds(void)
{
    char name[600] = "", *header = malloc(SAFETENSORS_MAX_HEADER + 100), *p;
    memset(name, 'n', SAFETENSORS_MAX_NAME);
    sprintf(header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name);
    ok(accepts(header, 0, 1), "a name of %d bytes is fine", SAFETENSORS_MAX_NAME);
    sprintf(header, "{\"%sn\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name);
    refused("one byte more", header, 0, "more than 512 bytes");

    for (int count = SAFETENSORS_MAX_TENSORS; count <= SAFETENSORS_MAX_TENSORS + 2; count += 2) {
        p = header + sprintf(header, "{");
        for (int i = 0; i < count; i++)
            p += sprintf(p, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[1,1,0,1,1,1,1,1],\"data_offsets\":[0,0]}",
                         i ? "," : "", i);
        strcpy(p, "}");
        if (count == SAFETENSORS_MAX_TENSORS)
            ok(accepts(header, 0, count), "%d tensors of eight dimensions are fine", count);
        else
            refused("two more", header, 0, "more than 65536");
    }

    memset(header, ' ', SAFETENSORS_MAX_HEADER + 1);
    memcpy(header, "{}", 2);
    header[SAFETENSORS_MAX_HEADER + 1] = 0;
    refused("a header beyond 16 MiB", header, 0, "more than 16777216");
    header[SAFETENSORS_MAX_HEADER] = 0;
    ok(accepts(header, 0, 0), "one of 16 MiB is fine");

    memset(header, ',', SAFETENSORS_MAX_HEADER);
    refused("more values than any header needs", header, 0, "more than 1048576 values");
    free(header);
}

static void shrinking(void)
{
    char got[16];
    put_file("shrinks", ONE("U8", "[16]", "[0,16]"), data, 16);
    struct safetensors *s = safetensors_open("shrinks", err, sizeof err);
    ok(truncate("shrinks", 70) == 0 && !safetensors_read(s, &s->entry[0], got, err, sizeof err) &&
           strstr(err, "shrinks: tensor t: the file became shorter"),
       "a file that shrinks after it was opened is an error, not a signal: %s", err);
    safetensors_close(s);
}

static bool file_is(const char *path, const void *want, size_t n)
{
    size_t got_n;
    char *got = get_bytes(path, &got_n);
    bool same = got && got_n == n && !memcmp(got, want, n);
    free(got);
    return same;
}

/* The bytes that the format's own writer makes of the same tensors. */
static void upstream_bytes(void)
{
    float values[6] = {0, 1, 2, 3, 4, 5};
    char want[200];
    struct safetensors_item item = {"attn.0", tensor_of(DT_F32, values, 3, 1, 2, 3)};
    size_t n = (size_t)sprintf(
        want, "\x40%7s{\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[0,24]}}", "");
    memset(want + 1, 0, 7);
    memcpy(want + n, values, 24);
    ok(safetensors_write("w", &item, 1, NULL, err, sizeof err) && file_is("w", want, n + 24), "one tensor");

    item = (struct safetensors_item){"attn0", tensor_of(DT_F32, values, 4, 1, 1, 2, 3)};
    n = (size_t)sprintf(
        want, "\x48%7s{\"attn0\":{\"dtype\":\"F32\",\"shape\":[1,1,2,3],\"data_offsets\":[0,24]}}       ",
        "");
    memset(want + 1, 0, 7);
    memcpy(want + n, values, 24);
    ok(safetensors_write("w", &item, 1, NULL, err, sizeof err) && file_is("w", want, n + 24),
       "one that needs padding");

    json_t *metadata = json_pack("{s:s}", "framework", "pt");
    ok(safetensors_write("w", NULL, 0, NULL, err, sizeof err) &&
           file_is("w", "\10\0\0\0\0\0\0\0{}      ", 16),
       "none");
    ok(safetensors_write("w", NULL, 0, metadata, err, sizeof err) &&
           file_is("w", "\50\0\0\0\0\0\0\0{\"__metadata__\":{\"framework\":\"pt\"}}     ", 48),
       "metadata alone");
    json_decref(metadata);
}

static void there_and_back(void)
{
    uint8_t bytes[3] = {1, 2, 3};
    uint16_t halves[2] = {0x3c00, 0xbc00};
    int64_t big = INT64_MIN;
    double scalar = -0.0;
    int32_t ints[2] = {-7, 7};
    struct safetensors_item items[] = {{"bytes", tensor_of(DT_U8, bytes, 2, 3, 1)},
                                       {"f16", tensor_of(DT_F16, halves, 1, 2)},
                                       {"none", tensor_of(DT_F32, NULL, 2, 0, 5)},
                                       {"scalar", tensor_of(DT_F64, &scalar, 0)},
                                       {"bf16", tensor_of(DT_BF16, halves, 1, 2)},
                                       {"big", tensor_of(DT_I64, &big, 1, 1)},
                                       {"ints \"\\\n\xc3\xa9", tensor_of(DT_I32, ints, 1, 2)}};
    enum { N = sizeof items / sizeof *items };
    json_t *metadata = json_pack("{s:s,s:s}", "format", "pt", "text", "{\"a\":\n\"\xc3\xa9\"}");
    ok(safetensors_write("rt", items, N, metadata, err, sizeof err), "written");
    struct safetensors *s = safetensors_open("rt", err, sizeof err);
    ok(s && s->count == N && json_equal(s->metadata, metadata), "count and metadata come back");
    bool same = true;
    char got[64];
    for (int i = 0; s && i < N; i++) {
        const struct safetensors_entry *e = safetensors_find(s, items[i].name);
        same &= e && e->shape.dtype == items[i].t.dtype && tensor_same_shape(&e->shape, &items[i].t) &&
                e->bytes == tensor_bytes(&items[i].t) && e->offset % dtype_size(e->shape.dtype) == 0 &&
                safetensors_read(s, e, got, err, sizeof err) &&
                (!e->bytes || !memcmp(got, items[i].t.data, e->bytes));
    }
    ok(same, "so do names, dtypes, shapes and bytes, each aligned");
    static const char *const order[] = {"scalar", "big",  "none", "ints \"\\\n\xc3\xa9",
                                        "f16",    "bf16", "bytes"};
    for (int i = 0; s && i < N; i++) same &= !strcmp(s->entry[i].name, order[i]);
    ok(same, "wide dtypes lie before narrow ones, else in the order given");
    ok(s && !safetensors_find(s, "absent") && !safetensors_find(s, "__metadata__"),
       "what is not there is not found");
    ok(s && safetensors_read_part(s, safetensors_find(s, "bytes"), 1, got, 2, err, sizeof err) &&
           got[0] == 2 && got[1] == 3,
       "a part can be read alone");
    safetensors_close(s);
    json_decref(metadata);
}

static void write_refusals(void)
{
    float x = 1;
    struct safetensors_item items[2] = {{"x", tensor_of(DT_F32, &x, 0)}, {"x", tensor_of(DT_F32, &x, 0)}};
    safetensors_write("keep", items, 1, NULL, err, sizeof err);
    size_t n, m;
    char *before = get_bytes("keep", &n), name[SAFETENSORS_MAX_NAME + 2] = "";

    ok(!safetensors_write("keep", items, 2, NULL, err, sizeof err), "%s", err);
    const char *bad[] = {"", "__metadata__", name, "\xff"};
    memset(name, 'n', sizeof name - 1);
    for (int i = 0; i < 4; i++) {
        items[0].name = bad[i];
        ok(!safetensors_write("keep", items, 1, NULL, err, sizeof err) &&
               strstr(err, "keep: no tensor can be named"),
           "%s", err);
    }
    items[0].name = "x";
    json_t *metadata = json_pack("{s:i}", "step", 3);
    ok(!safetensors_write("keep", items, 1, metadata, err, sizeof err), "%s", err);
    json_decref(metadata);
    ok(!safetensors_write("absent/keep", items, 1, NULL, err, sizeof err), "%s", err);

    int full = 0;
    for (rlim_t limit = 0; limit < n;
         limit++) { /* in a child whose files may not grow beyond `limit` bytes */
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            struct rlimit r = {limit, limit};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &r);
            items[0].name = "other";
            _exit(safetensors_write("keep", items, 1, NULL, err, sizeof err) ||
                  !strstr(err, "keep: File too large"));
        }
        int status;
        waitpid(child, &status, 0);
        full += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    char *after = get_bytes("keep", &m);
    ok(full == (int)n && m == n && !memcmp(before, after, n),
       "a full disk at any byte is an error and spares the old file");
    free(before);
    free(after);
}

/* Opens bytes that may be anything; what is accepted must be sound, and readable to its last byte. */
static bool survives(int fd, const char *path, const char *bytes, size_t n, bool *accepted)
{
    if (ftruncate(fd, 0) || pwrite(fd, bytes, n, 0) != (ssize_t)n) return false;
    struct safetensors *s = safetensors_open(path, err, sizeof err);
    *accepted = s != NULL;
    if (!s) return err[0] != 0;
    bool good = true;
    size_t total = 0;
    for (int i = 0; i < s->count; i++) {
        char *got = malloc(s->entry[i].bytes + 1);
        good &= s->entry[i].offset + s->entry[i].bytes <= n &&
                tensor_bytes(&s->entry[i].shape) == s->entry[i].bytes &&
                safetensors_read(s, &s->entry[i], got, err, sizeof err);
        total += s->entry[i].bytes;
        free(got);
    }
    uint64_t header;
    memcpy(&header, bytes, 8);
    safetensors_close(s);
    return good && total + header + 8 == n;
}

static void mutations(void)
{
    float f[6] = {0};
    uint8_t u[3] = {0};
    struct safetensors_item items[] = {{"w", tensor_of(DT_F32, f, 2, 2, 3)},
                                       {"s", tensor_of(DT_F32, f, 0)},
                                       {"u", tensor_of(DT_U8, u, 1, 3)}};
    json_t *metadata = json_pack("{s:s}", "k", "\xc3\xa9\n");
    safetensors_write("seed", items, 3, metadata, err, sizeof err);
    json_decref(metadata);
    size_t n;
    char *seed = get_bytes("seed", &n), *work = malloc(2 * n);
    int fd = memfd_create("mutant", 0), accepted_cut = 0, tried = 0; /* in memory: there are many */
    char path[40];
    const bool soak = getenv("SOAK") != NULL;
    sprintf(path, "/proc/self/fd/%d", fd);
    bool good = true, accepted;

    for (size_t cut = 0; cut < n; cut++)
        good &= survives(fd, path, seed, cut, &accepted), accepted_cut += accepted;
    ok(good && accepted_cut == 0, "cut anywhere, it is refused");
    memcpy(work, seed, n);
    for (size_t i = 0; good && i < n; i++, work[i - 1] = seed[i - 1])
        for (int v = 0; v < 256; v++) {
            bool one_bit = ((v ^ seed[i]) & 255 & ((v ^ seed[i]) - 1)) == 0;
            if (!soak && !one_bit && !(v && strchr("\"\\{}[],:-09e ", v))) continue;
            work[i] = (char)v;
            good &= survives(fd, path, work, n, &accepted);
            tried++;
        }
    ok(good, "every byte changed, to %s: %d files refused or sound",
       soak ? "every other value" : "its neighbours and JSON's own characters", tried);

    static const char *const pieces[] = {
        "[",   "]",       "{",  "}",    ",",    ":",     "\"", "0",    "-1", "9223372036854775807",
        "1e9", "\"F32\"", "\\", "null", "\xff", "[0,0]", " ",  "\"w\""};
    srand(1);
    for (int round = 0; good && round < (soak ? 1000000 : 5000); round++) {
        size_t size = n;
        memcpy(work, seed, n);
        for (int edits = 1 + rand() % 4; edits > 0; edits--) {
            size_t at = 8 + (size_t)rand() % (size - 8), drop = (size_t)rand() % 8;
            const char *piece = pieces[(size_t)rand() % (sizeof pieces / sizeof *pieces)];
            if (at + drop > size || size + strlen(piece) >= 2 * n) continue;
            memmove(work + at + strlen(piece), work + at + drop, size - at - drop);
            memcpy(work + at, piece, strlen(piece));
            size += strlen(piece) - drop;
        }
        uint64_t header;
        memcpy(&header, seed, 8);
        header += size - n; /* the length word follows, so that the parser sees the edit */
        memcpy(work, &header, 8);
        good &= survives(fd, path, work, size, &accepted);
    }
    ok(good, "pieces of JSON put in and taken out: refused or sound");
    close(fd);
    free(seed);
    free(work);
}

int main(void)
{
    scratch_enter();
    upstream_cases();
    saved_over_while_mapped();
    our_cases();
    bounds();
    shrinking();
    upstream_bytes();
    there_and_back();
    write_refusals();
    mutations();
    ok(scratch_leave(), "cleaned up");
    return done();
}
