/* prompts - VideoPhy-2's prompts as JSON lines: what to generate from, and what to grade against.
 *
 * The benchmark's test CSV has a row for every (prompt, model) video. A prompt is a caption that the chosen
 * model has, numbered as they come; the long text to generate from is joined to it by that very caption. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/filter.h"
#include "formats/csv.h"
#include "formats/listed.h"

static const char help[] =
    "prompts - VideoPhy-2's prompts as JSON lines\n"
    "usage: prompts [options] [TEST.csv] >prompts.jsonl\n"
    "      --model-name NAME  take rows with this model_name (or model); they are numbered  [all rows]\n"
    "      --upsampled FILE   CSV of caption,upsampled_caption: the texts to generate from\n"
    "                         [the rows' own upsampled_caption, else their captions]\n"
    "      --only COLUMN=VALUE  of these, keep prompts with that value; numbers stay. Repeated: all must hold  [all]\n"
    "COMMON\n"
    "stdin   the test CSV, unless a file is named: caption, upsampled_caption, action, category, is_hard, ..\n"
    "stdout  JSON lines: key (the prompt's number, from 0), caption (the short one, to grade against), prompt (the\n"
    "        long one), and action, category and is_hard where they are known\n"
    "stderr  every prompt whose text is not from FILE, and what was taken instead\n"
    "exit    0 written, 1 something failed, 2 wrong usage\n"
    "e.g.    prompts --model-name wan --upsampled prompt-upsampled-test.csv videophy2_test.csv >prompts.jsonl\n"
    "see also: t5-encode, grade, compare\n";

static const char *model_name, *upsampled;
static struct text_list only;
static const struct option_spec options[] = {{.name = "model-name", .kind = OPT_TEXT, .dest = &model_name},
                                             {.name = "upsampled", .kind = OPT_TEXT, .dest = &upsampled},
                                             {.name = "only", .kind = OPT_LIST, .dest = &only},
                                             {0}};
static char err[1024];

static struct csv *open_table(const char *name, int fd)
{
    if (fd < 0) die("%s: %s", name, strerror(errno));
    struct csv *c = csv_open(fd, err, sizeof err);
    if (!c) die("%s: %s", name, err);
    return c;
}

static int need_column(const struct csv *c, const char *name, const char *column)
{
    int at;
    if (!csv_need(c, column, &at, err, sizeof err)) die("%s: %s", name, err);
    return at;
}

/* The next sound row; another is reported and counted. */
static bool next_row(struct csv *c, const char *name)
{
    for (;;) {
        enum csv_got got = csv_next(c);
        if (got == CSV_DAMAGED) die("%s: %s", name, c->error);
        if (got != CSV_BAD_ROW) return got == CSV_ROW;
        filter_fail_at(name, "%s", c->error);
    }
}

/* NULL: no such column, or nothing in the cell. */
static const char *cell(const struct csv *c, int column)
{
    return column < 0 || csv_missing(c->field[column]) ? NULL : c->field[column];
}

/* {caption: upsampled caption}; of a caption that comes again, the first. */
static json_t *read_upsampled(void)
{
    json_t *texts = json_object();
    if (!upsampled) return texts;
    int fd = open(upsampled, O_RDONLY | O_CLOEXEC), again = 0;
    struct csv *c = open_table(upsampled, fd);
    int caption_at = need_column(c, upsampled, "caption"),
        text_at = need_column(c, upsampled, "upsampled_caption");
    while (next_row(c, upsampled)) {
        const char *caption = c->field[caption_at], *text = cell(c, text_at);
        const char *first = json_string_value(json_object_get(texts, caption));
        if (text && first)
            again += strcmp(first, text) != 0;
        else if (text && json_object_set_new(texts, caption, json_string(text)))
            die("out of memory");
    }
    if (again) say(upsampled, "%d captions come again with another text: the first is taken", again);
    csv_close(c);
    close(fd);
    return texts;
}

/* ---- prompts ------------------------------------------------------------------------------------------- */

static struct {
    int model, caption, upsampled, only[sizeof only.item / sizeof only.item[0]];
} at; /* columns of the test CSV; -1: not there */
static int64_t rows, chosen, from_file, from_row, from_caption;

static void find_columns(const struct csv *c, const char *name)
{
    at.caption = need_column(c, name, "caption");
    at.upsampled = csv_column(c, "upsampled_caption");
    at.model = csv_column(c, "model_name");
    if (at.model < 0) at.model = csv_column(c, "model");
    if (model_name && at.model < 0) need_column(c, name, "model_name");
    for (int i = 0; i < only.count; i++) {
        char column[256];
        size_t n = strcspn(only.item[i], "=");
        snprintf(column, sizeof column, "%.*s", (int)n, only.item[i]);
        at.only[i] = need_column(c, name, column);
    }
}

static bool is_wanted(const struct csv *c)
{
    for (int i = 0; i < only.count; i++)
        if (strcmp(c->field[at.only[i]], strchr(only.item[i], '=') + 1)) return false;
    return true;
}

/* The text to generate from; when the one asked for is missing the next best is taken, and reported. */
static const char *long_text(const struct csv *c, const char *key, const char *caption, json_t *texts)
{
    const char *text = json_string_value(json_object_get(texts, caption)), *own = cell(c, at.upsampled);
    if (text) return from_file++, text;
    if (own) {
        if (upsampled)
            say(key, "not in %s, the row's own upsampled caption is taken: %s", upsampled, caption);
        return from_row++, own;
    }
    say(key, "no upsampled caption, the short one is taken: %s", caption);
    return from_caption++, caption;
}

static void emit(const struct csv *c, int64_t number, const char *caption, json_t *texts)
{
    static const char *const carried[] = {"action", "category", "is_hard"};
    char key[32];
    snprintf(key, sizeof key, "%lld", (long long)number);
    json_t *line = json_pack("{s:s, s:s, s:s}", "key", key, "caption", caption, "prompt",
                             long_text(c, key, caption, texts));
    for (size_t i = 0; i < sizeof carried / sizeof carried[0]; i++) {
        const char *value = cell(c, csv_column(c, carried[i]));
        if (value) json_object_set_new(line, carried[i], json_string(value));
    }
    filter_emit_line(line);
}

/* A model's name that no row has is most likely another spelling. */
static void no_such_model(const char *name, const json_t *models)
{
    struct listed l = listed_start(model_name);
    listed_keys(&l, models);
    die("%s: no row of model `%s`: %s", name, model_name, listed_end(&l));
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS);
    if (filter.argc > 1) usage_error("one test CSV, not `%s` also", filter.argv[1]);
    for (int i = 0; i < only.count; i++)
        if (!strchr(only.item[i], '=')) usage_error("--only wants COLUMN=VALUE, not `%s`", only.item[i]);
    filter_checked();
    const char *name = filter.argc ? filter.argv[0] : "stdin";
    json_t *texts = read_upsampled(), *numbers = json_object(), *models = json_object();
    struct csv *c = open_table(name, filter.argc ? open(name, O_RDONLY | O_CLOEXEC) : 0);
    find_columns(c, name);
    for (; next_row(c, name); rows++) {
        const char *caption = cell(c, at.caption), *model = at.model < 0 ? "" : c->field[at.model];
        json_object_set_new(models, model, json_true());
        if (model_name && strcmp(model, model_name)) continue;
        chosen++;
        if (!caption) {
            filter_fail_at(name, "line %lld: no caption", (long long)c->line);
            continue;
        }
        if (json_object_get(numbers, caption)) continue;
        if (json_object_set_new(numbers, caption, json_true())) die("out of memory");
        if (is_wanted(c)) emit(c, (int64_t)json_object_size(numbers) - 1, caption, texts);
    }
    if (model_name && !chosen && rows) no_such_model(name, models);
    say(NULL,
        "%lld rows, %lld chosen: %zu prompts, %lld written; upsampled by %s: %lld, by their rows: %lld, not: %lld",
        (long long)rows, (long long)chosen, json_object_size(numbers), (long long)filter.done,
        upsampled ? upsampled : "a file", (long long)from_file, (long long)from_row, (long long)from_caption);
    json_decref(texts);
    json_decref(numbers);
    json_decref(models);
    csv_close(c);
    return filter_finish();
}
