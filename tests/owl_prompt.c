/* The grader's questions as ids, its answers as text and score, its choice of frames: against what its own
 * parts (transformers, pandas, numpy; reference/make_owl_prompts.py) make of the same, and the published
 * figures. $SLUICE_LLAMA_TOKENIZER names LLaMA's tokenizer.model, for what only the real one can show. */
#include "filters/grading/owl_prompt.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "formats/csv.h"
#include "tests/cases.h"

static char err[512];
static struct tokenizer *small;

/* ---- against the reference ----------------------------------------------------------------------------- */

static bool same_ids(const int32_t *ids, int count, json_t *want)
{
    bool good = ids && (size_t)count == json_array_size(want);
    for (int i = 0; good && i < count; i++)
        good = ids[i] == json_integer_value(json_array_get(want, (size_t)i));
    return good;
}

static bool text_agrees(json_t *line)
{
    json_t *text = json_object_get(line, "text");
    int n = 0;
    int32_t *ids =
        tokenizer_pieces(small, json_string_value(text), json_string_length(text), &n, err, sizeof err);
    bool good = same_ids(ids, n, json_object_get(line, "ids"));
    free(ids);
    return good;
}

static bool answer_agrees(json_t *line)
{
    json_t *list = json_object_get(line, "ids");
    int32_t ids[512];
    int n = (int)json_array_size(list);
    for (int i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    char *text = tokenizer_decode(small, ids, n, err, sizeof err);
    bool good = text && !strcmp(text, json_string_value(json_object_get(line, "text")));
    free(text);
    return good;
}

static bool prompt_agrees(json_t *line)
{
    const char *prompt = json_string_value(json_object_get(line, "prompt"));
    const char *task = json_string_value(json_object_get(line, "task"));
    const char *text = json_string_value(json_object_get(line, "text"));
    int32_t *ids;
    int n;
    bool good = prompt ? owl_ids(small, prompt, &ids, &n, err, sizeof err)
                       : owl_prompt_ids(small, task, *task == 'p' ? NULL : text, &ids, &n, err, sizeof err);
    good = good && same_ids(ids, n, json_object_get(line, "ids"));
    free(ids);
    return good;
}

static void test_lines(const char *name, int least, bool (*agrees)(json_t *), const char *what)
{
    char path[4096];
    FILE *file = fopen(data_file(path, "tokenizer", name), "r");
    int lines = 0, good = 0;
    json_t *line;
    while (file && (line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        bool fine = agrees(line);
        if (!fine) printf("# line %d of %s\n", lines + 1, path);
        lines++, good += fine;
        json_decref(line);
    }
    if (file) fclose(file);
    ok(lines >= least && good == lines, "%s: %d of %d", what, good, lines);
}

static void test_frames(void)
{
    char path[4096], hash[32];
    json_t *all = json_load_file(data_file(path, "tokenizer", "frames.json"), 0, NULL), *want;
    const char *segments;
    int64_t index[32];
    ok(json_object_size(all) == 6, "the reference of frames opens");
    json_object_foreach (all, segments, want) {
        uint64_t h = 0;
        int count = atoi(segments);
        for (int64_t n = 1; n <= 3000; n++) {
            owl_frames(n, count, index);
            for (int k = 0; k < count; k++) h = 31 * h + (uint64_t)index[k];
        }
        snprintf(hash, sizeof hash, "%016" PRIx64, h);
        ok(!strcmp(hash, json_string_value(want)), "%s of 1 to 3000 frames are numpy's", segments);
    }
    json_decref(all);

    static const int64_t of_49[32] = {0,  2,  3,  4,  6,  8,  9,  10, 12, 14, 15, 16, 18, 20, 21, 22,
                                      24, 26, 27, 28, 30, 32, 33, 34, 36, 38, 39, 40, 42, 44, 45, 46};
    owl_frames(49, 32, index);
    ok(!memcmp(index, of_49, sizeof index), "32 of 49 frames are the published list");
}

/* ---- answers ------------------------------------------------------------------------------------------- */

static void test_scores(void)
{
    static const struct {
        const char *text;
        int score;
        bool fallback;
    } table[] = {
        {"4", 4, false},     {"5 out of 5", 5, false},   {"10", 0, false},       {"12", 1, false},
        {"4.5", 4, false},   {"54", 4, false},           {"3 (two)", 2, false},  {"someone", 1, false},
        {"phone", 1, false}, {"four or five", 4, false}, {"  FIVE\n", 5, false}, {"Zero, then one", 0, false},
        {"7", 0, true},      {"excellent", 0, true},     {"", 0, true},          {" \n", 0, true}};
    int good = 0, count = sizeof table / sizeof table[0];
    for (int i = 0; i < count; i++) {
        bool fallback = !table[i].fallback;
        bool fine = owl_score(table[i].text, &fallback) == table[i].score && fallback == table[i].fallback;
        if (!fine) printf("# `%s`\n", table[i].text);
        good += fine;
    }
    ok(good == count, "%d of %d answers mean what they mean upstream", good, count);
}

static void test_digits(void)
{
    int32_t id[OWL_SCORES];
    bool good = owl_digit_ids(small, id, err, sizeof err);
    for (int d = 0; good && d < OWL_SCORES; d++) {
        char want[] = {(char)('0' + d), 0}, *text = tokenizer_decode(small, &id[d], 1, err, sizeof err);
        good = text && !strcmp(text, want);
        free(text);
    }
    ok(good, "the digits' ids read as the digits");
}

/* ---- refusals ------------------------------------------------------------------------------------------ */

static bool refused(bool result, int32_t *ids, const char *why)
{
    if (result) free(ids);
    return !result && !ids && strstr(err, why);
}

static void test_refusals(void)
{
    int32_t *ids = NULL, beyond = tokenizer_size(small), below = -1;
    int n;
    ok(refused(owl_prompt_ids(small, "sb", "x", &ids, &n, err, sizeof err), ids, "no task sb"), "%s", err);
    ok(refused(owl_prompt_ids(small, "sa", NULL, &ids, &n, err, sizeof err), ids, "needs a text"), "%s", err);
    ok(refused(owl_prompt_ids(small, "sa", "a <|video|>", &ids, &n, err, sizeof err), ids, "<|video|>"), "%s",
       err);
    ok(refused(owl_prompt_ids(small, "rule", "<image>", &ids, &n, err, sizeof err), ids, "<image>"), "%s",
       err);
    ok(!tokenizer_decode(small, &beyond, 1, err, sizeof err) &&
           !tokenizer_decode(small, &below, 1, err, sizeof err),
       "an id that is none: %s", err);
    ok(!tokenizer_open_llama("examples/tokenizer/spiece.model", err, sizeof err) && strstr(err, "not 0, 1"),
       "T5's model is not LLaMA's: %s", err);
    ok(!tokenizer_open("examples/tokenizer/tokenizer.model", err, sizeof err) && strstr(err, "not a T5"),
       "LLaMA's model is not T5's: %s", err);
    ok(!tokenizer_open_llama("tests/owl_prompt.c", err, sizeof err) && strstr(err, "not a SentencePiece"),
       "%s", err);
}

static void test_model_folders(void)
{
    struct model *m = model_open("random:tiny", err, sizeof err);
    struct tokenizer *t = m ? owl_tokenizer_open(m, err, sizeof err) : NULL;
    ok(t && tokenizer_size(t) == tokenizer_size(small), "a random: preset's tokenizer is the example");
    tokenizer_close(t);
    model_close(m);
    m = model_open("tests", err, sizeof err);
    ok(m && !owl_tokenizer_open(m, err, sizeof err) && strstr(err, "tests/tokenizer.model: no such file"),
       "a folder must bring its own: %s", err);
    model_close(m);
}

/* ---- the real one -------------------------------------------------------------------------------------- */

static bool text_is(const struct tokenizer *t, const char *text, int count, const int32_t *want)
{
    int n = 0;
    int32_t *ids = tokenizer_pieces(t, text, strlen(text), &n, err, sizeof err);
    bool good = ids && n == count && !memcmp(ids, want, (size_t)n * sizeof *ids);
    free(ids);
    return good;
}

/* The prompt is <s>, the head, the video, the tail. */
static bool prompt_is(const struct tokenizer *t, const char *task, const char *text, int tail,
                      const int32_t *want)
{
    static const int32_t head[38] = {450,   1494,  338,   263,   14983, 1546, 263,   12758, 5199, 322,
                                     385,   319,   29902, 20255, 29889, 450,  20255, 4076,  8444, 29892,
                                     13173, 29892, 322,   1248,  568,   6089, 304,   278,   1404, 29915,
                                     29879, 5155,  29889, 13,    29950, 7889, 29901, 29871};
    int n = 0;
    int32_t *ids = NULL;
    bool good = owl_prompt_ids(t, task, text, &ids, &n, err, sizeof err) && n == 1 + 38 + 65 + tail &&
                ids[0] == 1 && !memcmp(ids + 1, head, sizeof head) &&
                !memcmp(ids + 104, want, (size_t)tail * sizeof *ids);
    for (int i = 39; good && i < 104; i++) good = ids[i] == OWL_VIDEO;
    free(ids);
    return good;
}

static void test_published(const struct tokenizer *t)
{
    static const int32_t digits[OWL_SCORES] = {29900, 29896, 29906, 29941, 29946, 29945};
    static const int32_t pc[48] = {29871, 13,    29950, 7889,  29901, 5538,  445,   4863,  594,   4150,
                                   304,   278,   9128,  14243, 29973, 390,   403,   278,   4863,  373,
                                   263,   6287,  515,   29871, 29896, 304,   29871, 29945, 29892, 988,
                                   29871, 29945, 2794,  2989,  752,   13036, 322,   29871, 29896, 2794,
                                   7282,  5537,  800,   29889, 13,    23869, 29901, 29871};
    static const int32_t sa[64] = {29871, 13,   29950, 7889,  29901, 5538,  445,   4863,  1993,  278,   6139,
                                   29901, 376,  29909, 22588, 2574,  16229, 9098,  1549,  263,   12474, 8242,
                                   1546,  1023, 7679,  29891, 714,   24077, 567,   1213,  29973, 3529,  6554,
                                   278,   4863, 373,   263,   6287,  515,   29871, 29896, 304,   29871, 29945,
                                   29892, 988,  29871, 29945, 14088, 263,   4922,  1993,  322,   29871, 29896,
                                   14088, 694,  29527, 749,   29889, 13,    23869, 29901, 29871};
    static const int32_t rule[52] = {
        29871, 13,    29950, 7889,  29901, 5538, 278,   4863,  1101,  278, 9128,  5751,  29901,
        376,   3226,  5989,  4337,  3448,  515,  278,   20447, 13031, 261, 1213,  29973, 13,
        15954, 852,   29871, 29900, 565,   451,  29892, 29871, 29896, 565, 2854,  29892, 470,
        29871, 29906, 565,   1399,  300,   837,  16976, 29889, 29871, 13,  23869, 29901, 29871};
    int32_t id[OWL_SCORES];
    ok(tokenizer_size(t) == 32000 && owl_digit_ids(t, id, err, sizeof err) && !memcmp(id, digits, sizeof id),
       "LLaMA's tokenizer: 32000 pieces, the digits among them");
    ok(text_is(t, "Hello world", 2, (const int32_t[]){15043, 3186}) &&
           text_is(t, "4", 2, (const int32_t[]){29871, 29946}) &&
           text_is(t, "Yes", 1, (const int32_t[]){3869}) &&
           text_is(t, "AI: ", 4, (const int32_t[]){319, 29902, 29901, 29871}),
       "short texts");
    ok(prompt_is(t, "pc", NULL, 48, pc), "the prompt of pc, 152 ids");
    ok(prompt_is(t, "sa", "A jetski moves quickly through a narrow channel between two rocky outcrops.", 64,
                 sa),
       "one of sa, 168 ids");
    ok(prompt_is(t, "rule", "Leaves move away from the leaf blower.", 52, rule), "one of rule, 156 ids");
}

/* Every caption of the benchmark, in order. */
static void test_captions(const struct tokenizer *t)
{
    const char *path = "../shared/data/videophy2_scores.csv", *what = "the 591 captions of the benchmark";
    int fd = open(path, O_RDONLY);
    struct csv *c = fd < 0 ? NULL : csv_open(fd, err, sizeof err);
    if (!c) {
        skip(what, "no ../shared here");
        return;
    }
    int caption = csv_column(c, "caption"), rows = 0, least = 1000, most = 0;
    int64_t sum = 0;
    uint64_t h = 0;
    while (rows < 591 && csv_next(c) == CSV_ROW) { /* the first variant's */
        int32_t *ids = NULL;
        int n = 0;
        if (!owl_prompt_ids(t, "sa", c->field[caption], &ids, &n, err, sizeof err)) break;
        for (int i = 0; i < n; i++) h = 31 * h + (uint32_t)ids[i];
        rows++, sum += n;
        if (n < least) least = n;
        if (n > most) most = n;
        free(ids);
    }
    csv_close(c);
    close(fd);
    ok(rows == 591 && least == 163 && most == 206 && sum == 102906 && h == 0x751e64f6d2ae2bbb,
       "%s: %d to %d ids, %lld together, hash %016" PRIx64, what, least, most, (long long)sum, h);
}

int main(void)
{
    small = tokenizer_open_llama("examples/tokenizer/tokenizer.model", err, sizeof err);
    if (!ok(small && tokenizer_size(small) == 1024, "the example model opens %s", small ? "" : err))
        return done();
    test_lines("llama.jsonl", 110, text_agrees, "ids of texts equal transformers'");
    test_lines("answers.jsonl", 180, answer_agrees, "texts of ids equal sentencepiece's");
    test_lines("prompts.jsonl", 75, prompt_agrees, "ids of prompts equal the grader's");
    test_frames();
    test_scores();
    test_digits();
    test_refusals();
    test_model_folders();
    tokenizer_close(small);

    const char *path = getenv("SLUICE_LLAMA_TOKENIZER");
    struct tokenizer *llama = path ? tokenizer_open_llama(path, err, sizeof err) : NULL;
    if (!path) {
        skip("LLaMA's own tokenizer", "SLUICE_LLAMA_TOKENIZER names no tokenizer.model");
    } else if (ok(llama, "LLaMA's own tokenizer opens %s", llama ? "" : err)) {
        test_published(llama);
        test_captions(llama);
    }
    tokenizer_close(llama);
    return done();
}
