/* Texts of many kinds, against the ids that Python's sentencepiece gives for them
 * (reference/make_tokens.py). */
#include "formats/tokenizer.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

enum { LENGTH = 226, TEXTS = 200 };

static char err[512];

/* ids = the reference's, cut to max-1, then </s>, then zeros; and nothing behind them is touched. */
static bool as_reference(const struct tokenizer *t, json_t *line, int max)
{
    json_t *text = json_object_get(line, "text"), *want = json_object_get(line, "ids");
    int32_t ids[LENGTH + 1];
    memset(ids, 0x55, sizeof ids);
    int64_t n =
        tokenizer_encode(t, json_string_value(text), json_string_length(text), ids, max, err, sizeof err);
    int kept = (int)json_array_size(want) < max - 1 ? (int)json_array_size(want) : max - 1;
    bool good = n == (int64_t)json_array_size(want) + 1 && ids[max] == 0x55555555;
    for (int i = 0; i < max; i++)
        good &= ids[i] == (i < kept ? json_integer_value(json_array_get(want, (size_t)i)) : i == kept);
    if (!good) printf("# %.60s\n", json_string_value(text));
    return good;
}

static void test_reference(const struct tokenizer *t)
{
    FILE *file = fopen("tests/data/tokenizer/captions.jsonl", "r");
    if (!ok(file != NULL, "the reference opens")) return;
    int lines = 0, good = 0, cut = 0, unknown = 0;
    json_t *line;
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        lines++;
        good += as_reference(t, line, LENGTH) && as_reference(t, line, 16) && as_reference(t, line, 1);
        json_t *ids = json_object_get(line, "ids"), *id;
        cut += json_array_size(ids) >= LENGTH;
        size_t i;
        json_array_foreach (ids, i, id) {
            unknown += json_integer_value(id) == 2;
            if (json_integer_value(id) >= tokenizer_size(t)) good = -1;
        }
        json_decref(line);
    }
    fclose(file);
    ok(lines == TEXTS && good == TEXTS, "ids equal Python's for %d of %d texts", good, lines);
    ok(cut > 5 && unknown > 50, "%d of them are over-long, and %d pieces are unknown", cut, unknown);
}

static void test_one_text(const struct tokenizer *t)
{
    int32_t ids[8], rest[8];
    ok(tokenizer_encode(t, "", 0, ids, 8, err, sizeof err) == 1 && ids[0] == 1 && ids[1] == 0 && ids[7] == 0,
       "the empty text is 1,0,0,...");
    tokenizer_encode(t, "A red ball, and what follows", 10, ids, 8, err, sizeof err);
    tokenizer_encode(t, "A red ball", 10, rest, 8, err, sizeof err);
    ok(!memcmp(ids, rest, sizeof ids), "only `length` bytes are read");
}

static bool refused(const char *path, const char *why)
{
    err[0] = 0;
    struct tokenizer *t = tokenizer_open(path, err, sizeof err);
    tokenizer_close(t);
    bool good = !t && strstr(err, path) && strstr(err, why);
    if (!good) printf("# %s\n", err);
    return good;
}

/* The first part of the example model in a file of its own; its name is left in path. */
static bool half_model(char path[], size_t size)
{
    static char bytes[100000];
    snprintf(path, size, "%s/sluice-half-model.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    FILE *in = fopen("examples/tokenizer/spiece.model", "rb"), *out = fdopen(mkstemp(path), "wb");
    bool good =
        in && out && fread(bytes, sizeof bytes, 1, in) == 1 && fwrite(bytes, sizeof bytes, 1, out) == 1;
    if (in) fclose(in);
    return (!out || !fclose(out)) && good;
}

static void test_refusals(void)
{
    char half[256];
    ok(half_model(half, sizeof half) && refused(half, "damaged"), "a model that was cut short is refused");
    unlink(half);
    ok(refused("tests/data/nowhere/spiece.model", "No such file"), "a file that is not there is refused");
    ok(refused("tests/data", "directory"), "a folder is refused");
    ok(refused("tests/tokenizer.c", "not a SentencePiece model"), "a file of something else is refused");
    ok(refused("/dev/null", "empty"), "an empty file is refused");
    ok(refused("/dev/zero", "64 MiB"), "an endless file is refused");
}

int main(void)
{
    struct tokenizer *t = tokenizer_open("examples/tokenizer/spiece.model", err, sizeof err);
    if (!ok(t != NULL, "the example model opens %s", t ? "" : err)) return done();
    ok(tokenizer_size(t) == 560, "it has %d pieces", tokenizer_size(t));
    test_reference(t);
    test_one_text(t);
    test_refusals();
    tokenizer_close(t);
    return done();
}
