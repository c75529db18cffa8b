#include "formats/graded.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/atomic.h"
#include "formats/csv.h"
#include "formats/error.h"
#include "formats/io.h"

/* ---- lines --------------------------------------------------------------------------------------------- */

static bool is_score(const json_t *j)
{
    return json_is_integer(j) && json_integer_value(j) >= 0 && json_integer_value(j) <= 5;
}

/* What is wrong with a line, in why; false when nothing is. */
static bool is_wrong(const json_t *line, const json_t *done, const json_t *how, const char *const *tasks,
                     char *why, size_t size)
{
    const char *key = json_string_value(json_object_get(line, "key")), *field;
    json_t *made = json_object_get(line, "grade"), *before, *value;
    why[0] = 0;
    if (!key || !*key || !json_is_object(made))
        snprintf(why, size, "no line of grade's: it has no `key` or no `grade`");
    else if ((before = json_object_get(done, key)) && !json_equal(before, line))
        snprintf(why, size, "key `%.80s` was there before, with another line", key);
    json_object_foreach ((json_t *)how, field, value)
        if (!why[0] && !json_equal(value, json_object_get(made, field)))
            snprintf(why, size, "made with another `%s`", field);
    for (; *tasks; tasks++)
        if (!why[0] && !is_score(json_object_get(line, *tasks))) snprintf(why, size, "no score `%s`", *tasks);
    return why[0] != 0;
}

/* One text line into done; false with the reason in why. */
static bool take(json_t *done, const char *text, size_t n, const json_t *how, const char *const *tasks,
                 char *why, size_t size)
{
    json_error_t e;
    json_t *line = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    bool good = line && !is_wrong(line, done, how, tasks, why, size);
    if (!line) snprintf(why, size, "%s", e.text);
    if (good && json_object_set(done, json_string_value(json_object_get(line, "key")), line))
        good = fail(why, size, "out of memory");
    json_decref(line);
    return good;
}

json_t *graded_read(const char *path, const json_t *how, const char *const *tasks, int64_t *whole,
                    int64_t *half, char *err, size_t errlen)
{
    char *text = NULL, why[160] = "";
    size_t room = 0;
    json_t *done = json_object();
    FILE *f = fopen(path, "rbe");
    *whole = *half = 0;
    if (!f && errno == ENOENT) return done;
    ssize_t n = 0;
    for (int64_t line = 1; f && !why[0] && (n = read_text_line(f, &text, &room)) > 0; line++) {
        if (text[n - 1] != '\n' && *text == '{')
            *half = n;
        else if (*whole += n, !take(done, text, (size_t)n, how, tasks, why, sizeof why))
            fail(err, errlen, "%s: line %lld: %s", path, (long long)line, why);
    }
    bool read = f && n >= 0;
    if (!read) fail(err, errlen, "%s: %s", path, strerror(errno));
    free(text);
    if (f) fclose(f);
    if (read && !why[0]) return done;
    json_decref(done);
    return NULL;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static bool is_rule(const struct graded_csv *c)
{
    return !strcmp(c->task, "rule");
}

bool graded_csv_open(struct graded_csv *c, const char *path, const char *task, bool several, char *err,
                     size_t errlen)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    if (!dot || dot == name) dot = path + strlen(path);
    struct atomic_file trial;
    *c = (struct graded_csv){.task = task};
    int n = several ? snprintf(c->path, sizeof c->path, "%.*s.%s%s", (int)(dot - path), path, task, dot)
                    : snprintf(c->path, sizeof c->path, "%s", path);
    if (n >= (int)sizeof c->path) return fail(err, errlen, "%s: %s", path, strerror(ENAMETOOLONG));
    if (!atomic_open(&trial, c->path, err, errlen)) return false;
    atomic_abort(&trial);
    if (!(c->f = open_memstream(&c->text, &c->size))) return fail(err, errlen, "out of memory");
    fputs(is_rule(c) ? ",videopath,rule,score\n" : ",caption,videopath,score\n", c->f);
    return true;
}

static const char *text_of(const json_t *line, const char *field, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(line, field));
    return text ? text : otherwise;
}

void graded_csv_add(struct graded_csv *c, const json_t *line)
{
    const char *path = text_of(line, "path", text_of(line, "key", ""));
    fprintf(c->f, "%lld,", (long long)c->rows++);
    csv_put(c->f, is_rule(c) ? path : text_of(line, "caption", ""));
    putc(',', c->f);
    csv_put(c->f, is_rule(c) ? text_of(line, "rule_asked", "") : path);
    fprintf(c->f, ",%lld.0\n", (long long)json_integer_value(json_object_get(line, c->task)));
}

bool graded_csv_commit(struct graded_csv *c, char *err, size_t errlen)
{
    struct atomic_file a;
    bool good = close_written(c->f);
    if (!good)
        fail(err, errlen, "%s: out of memory", c->path);
    else if ((good = atomic_open(&a, c->path, err, errlen))) {
        fwrite(c->text, 1, c->size, a.f); /* a failure is the commit's to notice */
        good = atomic_commit(&a, err, errlen);
    }
    free(c->text);
    return good;
}
