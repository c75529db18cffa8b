/* Zip archives: members there and back, in 64 bits, in pieces; and every way of lying that was thought of. */
#include "formats/zip.h"

#include "tests/archive.h"
#include "tests/scratch.h"
#include "tests/tap.h"

static char err[512];
static char text[100000];

static void make(struct archive *a, bool zip64, const char *comment)
{
    *a = (struct archive){.zip64 = zip64};
    archive_add(a, "stored.txt", "as it is", 8, false);
    archive_add(a, "folder/deflated.txt", text, sizeof text, true);
    archive_add(a, "folder/", "", 0, false);
    archive_add(a, "empty", "", 0, true);
    archive_end(a, comment);
}

static struct zip *open_bytes(const void *bytes, size_t n)
{
    char path[64], *name = path;
    snprintf(path, sizeof path, "/proc/self/fd/%d", wire_open(bytes, n));
    return zip_open((const char *const *)&name, 1, err, sizeof err);
}

/* The member is there and is these bytes. */
static bool has(const struct zip *z, const char *name, const void *want, size_t n)
{
    const struct zip_entry *e = zip_find(z, name);
    char *got = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&got, &size);
    bool good = e && e->bytes == n && zip_unpack(z, e, to, err, sizeof err) && !fflush(to) && size == n &&
                !memcmp(got, want, n) && zip_unpack(z, e, NULL, err, sizeof err);
    fclose(to);
    free(got);
    return good;
}

static bool is_whole(const struct zip *z)
{
    return z && z->count == 4 && has(z, "stored.txt", "as it is", 8) &&
           has(z, "folder/deflated.txt", text, sizeof text) && has(z, "folder/", "", 0) &&
           has(z, "empty", "", 0) && !zip_find(z, "deflated.txt") && !zip_find(z, "");
}

static void test_reading(void)
{
    struct archive a;
    uint64_t at;
    char byte[3];
    for (int zip64 = 0; zip64 < 2; zip64++) {
        make(&a, zip64, "");
        struct zip *z = open_bytes(a.bytes.bytes, a.bytes.n);
        ok(is_whole(z), "stored and deflated members come back%s", zip64 ? ", zip64" : "");
        ok(z && zip_locate(z, zip_find(z, "stored.txt"), &at, err, sizeof err) &&
               zip_read(z, at + 3, byte, 3, err, sizeof err) && !memcmp(byte, "it ", 3),
           "part of a stored member can be read");
        ok(z && !zip_locate(z, zip_find(z, "folder/deflated.txt"), &at, err, sizeof err),
           "not of a deflated: %s", err);
        ok(z && !zip_read(z, z->bytes - 2, byte, 3, err, sizeof err), "nor past the end: %s", err);
        zip_close(z);
        archive_free(&a);
    }
    make(&a, false, "a comment with PK\5\6 in it, which is no end record");
    struct zip *z = open_bytes(a.bytes.bytes, a.bytes.n);
    ok(is_whole(z), "a comment may follow");
    zip_close(z);
    archive_free(&a);
    archive_end(&a, "");
    z = open_bytes(a.bytes.bytes, a.bytes.n);
    ok(z && z->count == 0 && !zip_find(z, "x"), "an archive of nothing");
    zip_close(z);
    archive_free(&a);
}

static void test_pieces(void)
{
    const char *path[] = {"part_aa", "part_ab", "part_ac"};
    struct archive a;
    make(&a, true, "");
    int good = 0, tried = 0;
    for (size_t cut = 0; cut <= a.bytes.n; cut += cut > 100 && a.bytes.n - cut > 700 ? 97 : 1, tried++) {
        size_t second = (a.bytes.n - cut) / 2;
        put_bytes(path[0], a.bytes.bytes, cut);
        put_bytes(path[1], a.bytes.bytes + cut, second);
        put_bytes(path[2], a.bytes.bytes + cut + second, a.bytes.n - cut - second);
        struct zip *z = zip_open(path, 3, err, sizeof err);
        good += is_whole(z);
        zip_close(z);
    }
    ok(good == tried && tried > 700, "%d of %d ways to cut an archive into three files", good, tried);
    put_bytes(path[0], a.bytes.bytes, 300);
    ok(!zip_open(path, 2, err, sizeof err) && strstr(err, "part_aa: "), "two of three pieces: %s", err);
    unlink(path[1]);
    ok(!zip_open(path, 3, err, sizeof err) && strstr(err, "part_ab: No such file"), "a missing one: %s", err);
    archive_free(&a);
}

/* ---- damage -------------------------------------------------------------------------------------------- */

/* Opens what is there and unpacks all of it; true when nothing was refused. */
static bool unpacks(const void *bytes, size_t n)
{
    *err = 0;
    struct zip *z = open_bytes(bytes, n);
    bool good = z != NULL;
    for (int i = 0; z && i < z->count; i++)
        if (!zip_unpack(z, &z->entry[i], NULL, err, sizeof err)) good = false;
    if (!good && !*err) abort();
    zip_close(z);
    return good;
}

static void test_truncation(void)
{
    int accepted = 0;
    struct archive a;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        make(&a, zip64, "");
        for (size_t n = 0; n < a.bytes.n; n++) accepted += unpacks(a.bytes.bytes, n);
        archive_free(&a);
    }
    ok(accepted == 0, "an archive that was cut anywhere is refused: %s", err);
}

/* The bytes of members and their checksums: no change goes unnoticed. Elsewhere some are of no consequence
 * (times, attributes), or make another sound archive (a name), and must only do no harm. */
static void test_every_byte(void)
{
    struct archive a;
    int accepted = 0, odd = 0, tried = 0;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        make(&a, zip64, "");
        for (size_t at = 0; at < a.bytes.n; at++)
            for (int with = 0; with < 6; with++, tried++) {
                uint8_t *p = a.bytes.bytes + at, was = *p;
                *p = (uint8_t[]){0, 0xff, 0x7f, (uint8_t)(was + 1), (uint8_t)(was - 1), was ^ 0x80}[with];
                if (*p != was && unpacks(a.bytes.bytes, a.bytes.n)) {
                    accepted++;
                    odd += at >= 30 + 10 && at < 30 + 10 + 8; /* the first member's bytes */
                }
                *p = was;
            }
        archive_free(&a);
    }
    ok(odd == 0 && accepted > 0, "%d changes of one byte: %d did no harm, and none to a member's bytes",
       tried, accepted);
}

/* One field of the small archive set to a value; the reason must be this one. */
static void lie(const char *what, bool zip64, size_t from_start, size_t from_end, uint64_t value,
                size_t bytes, const char *why)
{
    struct archive a;
    make(&a, zip64, "");
    memcpy(a.bytes.bytes + (from_end ? a.bytes.n - from_end : from_start), &value, bytes);
    bool good = !unpacks(a.bytes.bytes, a.bytes.n) && strstr(err, why);
    ok(good, "%s: %s", what, err);
    archive_free(&a);
}

static void test_lies(void)
{
    struct archive a;
    make(&a, false, "");
    size_t central = a.bytes.n - 22 - a.directory.n, second = central + 46 + 10;
    archive_free(&a);
    make(&a, true, "");
    size_t central64 = a.bytes.n - 22 - 20 - 56 - a.directory.n;
    archive_free(&a);

    lie("encrypted", false, central + 8, 0, 1, 2, "encrypted");
    lie("another compression", false, central + 10, 0, 12, 2, "method 12");
    lie("a checksum of something else", false, central + 16, 0, 7, 4, "checksum");
    lie("a stored member of two sizes", false, central + 20, 0, 7, 4, "two sizes");
    lie("a member beyond the archive", false, central + 42, 0, 0x7fffffff, 4, "past the members");
    lie("a member that is another", false, second + 42, 0, 0, 4, "where the directory says");
    lie("unpacks to more", false, second + 24, 0, 1000, 4, "more than it should");
    lie("unpacks to less", false, second + 24, 0, 1000000, 4, "less than it should");
    lie("more members than records", false, 0, 14, 0x00050005, 4, "too short");
    lie("fewer", false, 0, 14, 0x00030003, 4, "holds more");
    lie("zip64: no signature of the directory", true, central64, 0, 0, 4, "directory is damaged");
    lie("two disks", false, 0, 18, 1, 2, "several disks");
    lie("a directory elsewhere", false, 0, 6, 1, 4, "just before the end");
    lie("a directory of another size", false, 0, 10, 1, 4, "just before the end");
    lie("no signature of the directory", false, central, 0, 0, 4, "directory is damaged");
    lie("an empty name", false, central + 28, 0, 0, 2, "damaged");
    lie("a name past the end", false, central + 28, 0, 0xffff, 2, "damaged");
    lie("a name with a zero byte", false, central + 46, 0, 0, 1, "damaged");
    lie("zip64 end out of place", true, 0, 22 + 12, 1ull << 60, 8, "out of place");
    lie("zip64 end of another size", true, 0, 22 + 20 + 52, 1ull << 63, 8, "zip64 end record is damaged");
    lie("zip64: 2^60 members", true, 0, 22 + 20 + 24, 1ull << 60, 8, "several disks");
    lie("zip64: a directory of 2^60 bytes", true, 0, 22 + 20 + 16, 1ull << 60, 8, "just before the end");
    lie("zip64: no room for a size", true, central64 + 46 + 10 + 8, 0, 4, 2, "more than 4 GiB is missing");
    lie("zip64: a size beyond all", true, central64 + 46 + 10 + 10 + 8, 0, ~0ull, 8, "past the members");
}

static void test_files(void)
{
    const char *path[] = {"nowhere.zip", ".", "text"};
    put_text("text", "hello, world\n");
    const char *why[] = {"No such file", "not a regular file", "not a zip archive"};
    for (int i = 0; i < 3; i++) {
        struct zip *z = zip_open(&path[i], 1, err, sizeof err);
        ok(!z && !strncmp(err, path[i], strlen(path[i])) && strstr(err, why[i]), "%s", err);
    }
}

/* A full disk is the reader's caller's, and must be told. */
static void test_full_disk(void)
{
    struct archive a;
    make(&a, false, "");
    struct zip *z = open_bytes(a.bytes.bytes, a.bytes.n);
    FILE *full = fopen("/dev/full", "w");
    if (full) {
        ok(z && !zip_unpack(z, zip_find(z, "folder/deflated.txt"), full, err, sizeof err) &&
               strstr(err, "No space left"),
           "a full disk: %s", err);
        fclose(full);
    } else {
        skip("a full disk", "no /dev/full here");
    }
    zip_close(z);
    archive_free(&a);
}

int main(void)
{
    for (size_t i = 0; i < sizeof text; i++) text[i] = "zip archives\n"[i * i % 13];
    scratch_enter();
    test_reading();
    test_pieces();
    test_truncation();
    test_every_byte();
    test_lies();
    test_files();
    test_full_disk();
    ok(scratch_leave(), "nothing is left behind");
    return done();
}
