#include "formats/made.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/crc32c.h"
#include "formats/error.h"
#include "formats/io.h"
#include "formats/path.h"

bool file_checksum(const char *path, int64_t *bytes, uint32_t *crc, char *err, size_t errlen)
{
    unsigned char step[1 << 16];
    size_t n;
    FILE *f = fopen(path, "rbe");
    if (!f) return fail(err, errlen, "%s: %s", path, strerror(errno));
    *bytes = 0, *crc = 0;
    while ((n = fread(step, 1, sizeof step, f)) > 0) {
        *bytes += (int64_t)n;
        *crc = crc32c(*crc, step, n);
    }
    bool good = !ferror(f) || fail(err, errlen, "%s: %s", path, strerror(errno));
    fclose(f);
    return good;
}

bool made_read(json_t *made, const char *path, char *err, size_t errlen)
{
    char *text = NULL;
    size_t room = 0;
    ssize_t n = 0;
    bool good = true;
    json_error_t e;
    FILE *f = fopen(path, "rbe");
    if (!f) return errno == ENOENT || fail(err, errlen, "%s: %s", path, strerror(errno));
    for (int64_t i = 1; good && (n = read_text_line(f, &text, &room)) > 0 && text[n - 1] == '\n'; i++) {
        if (n == 1) continue; /* of an empty list */
        json_t *line = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &e);
        const char *key = json_string_value(json_object_get(line, "key"));
        if (!line)
            good = fail(err, errlen, "%s: line %lld: %s", path, (long long)i, e.text);
        else if (!key || !*key)
            good = fail(err, errlen, "%s: line %lld: no `key`", path, (long long)i);
        else if (json_object_set(made, key, line))
            good = fail(err, errlen, "out of memory");
        json_decref(line);
    }
    if (good && n < 0) good = fail(err, errlen, "%s: %s", path, strerror(errno));
    free(text);
    fclose(f);
    return good;
}

/* ---- one line ------------------------------------------------------------------------------------------ */

/* A field of the line that may have gone to another name, when something else took its place. */
static const json_t *field_of(const json_t *line, const char *field, const char *moved)
{
    const json_t *value = json_object_get(line, moved);
    return value ? value : json_object_get(line, field);
}

static bool same(const json_t *a, const json_t *b)
{
    return a == b || json_equal(a, b);
}

static bool same_item(const json_t *line, const json_t *item, char *why, size_t size)
{
    static const char *const word[][2] = {{"caption", ""}, {"prompt", ""}, {"rule", "rule_asked"}};
    static const char *const file[] = {"path", "crc32c"};
    for (int i = 0; i < 3; i++)
        if (!same(field_of(line, word[i][0], word[i][1]), json_object_get(item, word[i][0])))
            return fail(why, size, "made of another `%s`", word[i][0]);
    for (int i = 0; i < 2; i++) {
        const json_t *asked = json_object_get(item, file[i]);
        if (asked && !same(json_object_get(line, file[i]), asked) &&
            (i || !same(json_object_get(line, "source"), asked)))
            return fail(why, size, "made of another `%s`", file[i]);
    }
    return true;
}

static enum made sound_file(const json_t *line, char *why, size_t size)
{
    const char *path = json_string_value(json_object_get(line, "path"));
    const json_t *told_bytes = json_object_get(line, "bytes"), *told_crc = json_object_get(line, "crc32c");
    int64_t bytes;
    uint32_t crc;
    if (!path) return MADE;
    enum path_kind kind = path_kind(path, why, size);
    if (kind == PATH_UNKNOWN) return MADE_UNKNOWN;
    if (kind != PATH_FILE) {
        fail(why, size, "%s: %s", path, kind == PATH_ABSENT ? strerror(ENOENT) : "not a regular file");
        return MADE_NOT;
    }
    if (!file_checksum(path, &bytes, &crc, why, size)) return MADE_UNKNOWN;
    bool good = true;
    if (told_bytes && json_integer_value(told_bytes) != bytes)
        good = fail(why, size, "%s: %lld bytes, not %lld", path, (long long)bytes,
                    (long long)json_integer_value(told_bytes));
    else if (told_crc && json_integer_value(told_crc) != (json_int_t)crc)
        good = fail(why, size, "%s: damaged: its checksum is another", path);
    return good ? MADE : MADE_NOT;
}

enum made made_good(const json_t *line, const json_t *item, char *why, size_t size)
{
    if (!line) return fail(why, size, "missing"), MADE_NOT;
    return same_item(line, item, why, size) ? sound_file(line, why, size) : MADE_NOT;
}
