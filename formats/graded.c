#include "formats/graded.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

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

bool graded_lock(int out, const char *path, bool *same, char *err, size_t errlen)
{
    struct stat now, earlier;
    *same = false;
    if (fstat(out, &now)) return fail(err, errlen, "stdout: %s", strerror(errno));
    if (stat(path, &earlier)) return errno == ENOENT || fail(err, errlen, "%s: %s", path, strerror(errno));
    *same = S_ISREG(now.st_mode) && now.st_dev == earlier.st_dev && now.st_ino == earlier.st_ino;
    if (*same && flock(out, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return fail(err, errlen, "%s: another grade is at work on it", path);
    return true;
}

bool graded_is_of(json_t *line, json_t *fields, const char **field)
{
    static const char *const same[] = {"path", "caption", "rule"};
    for (int i = 0; i < 3; i++) {
        json_t *now = json_object_get(fields, *field = same[i]), *then = json_object_get(line, same[i]);
        if (i == 2 && json_object_get(line, "rule_asked")) then = json_object_get(line, "rule_asked");
        if (now != then && !json_equal(now, then)) return false;
    }
    return true;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

bool graded_csv_open(struct graded_csv *c, const char *path, const char *task, bool several,
                     const char *columns, char *err, size_t errlen)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    if (!dot || dot == name) dot = path + strlen(path);
    struct atomic_file trial;
    *c = (struct graded_csv){.columns = columns};
    int n = several ? snprintf(c->path, sizeof c->path, "%.*s.%s%s", (int)(dot - path), path, task, dot)
                    : snprintf(c->path, sizeof c->path, "%s", path);
    if (n >= (int)sizeof c->path) return fail(err, errlen, "%s: %s", path, strerror(ENAMETOOLONG));
    if (!atomic_open(&trial, c->path, err, errlen)) return false;
    atomic_abort(&trial);
    return (c->rows = json_array()) || fail(err, errlen, "out of memory");
}

bool graded_csv_add(struct graded_csv *c, const char *key, json_t *fields, int score)
{
    const char *field;
    json_t *row = json_object(), *value;
    bool good = row != NULL;
    if (good && !json_object_get(fields, "path"))
        good = !json_object_set_new(row, "videopath", json_string(key));
    json_object_foreach (fields, field, value)
        good = good && !json_object_set(row, strcmp(field, "path") ? field : "videopath", value);
    value = good ? json_object_get(row, "score") : NULL;
    json_t *own = !value || json_is_integer(value) ? json_integer(score) : json_real(score);
    good = good && !json_object_set_new(row, value ? "score" : "", value ? own : json_real(score));
    if (!value) json_decref(own);
    if (good) return json_array_append_new(c->rows, row) == 0;
    json_decref(row);
    return false;
}

enum { ABSENT = 1, WHOLE = 2, REAL = 4, OTHER = 8 };

static bool is_missing(const json_t *value)
{
    return !value || json_is_null(value) || (json_is_string(value) && csv_missing(json_string_value(value)));
}

static int kind_of(const json_t *value)
{
    return is_missing(value) ? ABSENT : json_is_integer(value) ? WHOLE : json_is_real(value) ? REAL : OTHER;
}

/* The next name of a list with commas between, as the table calls it. */
static bool next_column(const char **at, char *name, size_t size)
{
    if (!*at || !**at) return false;
    const int length = (int)strcspn(*at, ",");
    snprintf(name, size, "%.*s", length, *at);
    if (!strcmp(name, "path")) snprintf(name, size, "videopath");
    *at += length + ((*at)[length] == ',');
    return true;
}

/* The columns in their order, each with the kinds of its values: {"field": kinds}. NULL: out of memory. */
static json_t *find_columns(const struct graded_csv *c)
{
    json_t *columns = json_object(), *row, *value;
    const char *field;
    char name[256];
    size_t i;
    int bad = !columns;
    for (const char *at = c->columns; next_column(&at, name, sizeof name);)
        bad |= json_object_set_new(columns, name, json_integer(0));
    json_array_foreach (c->rows, i, row)
        json_object_foreach (row, field, value)
            if (!c->columns && *field && !json_object_get(columns, field))
                bad |= json_object_set_new(columns, field, json_integer(0));
    json_object_foreach (columns, field, value)
        json_array_foreach (c->rows, i, row)
            json_integer_set(value, json_integer_value(value) | kind_of(json_object_get(row, field)));
    if (!json_object_get(columns, "score")) bad |= json_object_set_new(columns, "", json_integer(REAL));
    if (!bad) return columns;
    json_decref(columns);
    return NULL;
}

/* A number as Python writes it: with as few digits as bring it back. */
static void put_real(FILE *f, double v)
{
    char text[64];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    bool plain = fabs(v) < 1e16 && strchr(text, 'e') && fabs(v) >= 1e-4;
    if (plain) snprintf(text, sizeof text, "%.0f", v);
    fprintf(f, "%s%s", text, strpbrk(text, ".en") ? "" : ".0");
}

/* false: out of memory. */
static bool put_cell(FILE *f, const json_t *value, int kinds)
{
    if (is_missing(value)) return true;
    if (json_is_string(value)) {
        csv_put(f, json_string_value(value));
    } else if (json_is_boolean(value)) {
        fputs(json_is_true(value) ? "True" : "False", f);
    } else if (json_is_real(value) || (json_is_integer(value) && !(kinds & OTHER) && kinds != WHOLE)) {
        put_real(f, json_number_value(value));
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        if (!text) return false;
        csv_put(f, text);
        free(text);
    }
    return true;
}

static bool write_table(FILE *f, const struct graded_csv *c, json_t *columns)
{
    const char *field;
    json_t *row, *kinds;
    size_t i;
    bool good = true;
    json_object_foreach (columns, field, kinds) {
        putc(',', f);
        csv_put(f, *field ? field : "score");
    }
    putc('\n', f);
    json_array_foreach (c->rows, i, row) {
        fprintf(f, "%zu", i);
        json_object_foreach (columns, field, kinds) {
            putc(',', f);
            good = good && put_cell(f, json_object_get(row, field), (int)json_integer_value(kinds));
        }
        putc('\n', f);
    }
    return good;
}

bool graded_csv_lacks(const struct graded_csv *c, char *name, size_t size)
{
    for (const char *at = c->columns; next_column(&at, name, size);) {
        size_t i;
        json_t *row;
        bool found = !json_array_size(c->rows) || !strcmp(name, "score");
        json_array_foreach (c->rows, i, row) found |= json_object_get(row, name) != NULL;
        if (!found) return true;
    }
    return false;
}

bool graded_csv_commit(struct graded_csv *c, char *err, size_t errlen)
{
    struct atomic_file a;
    json_t *columns = find_columns(c);
    bool good = columns || fail(err, errlen, "%s: out of memory", c->path);
    if (good && (good = atomic_open(&a, c->path, err, errlen))) {
        if (write_table(a.f, c, columns)) { /* a write that fails is the commit's to notice */
            good = atomic_commit(&a, err, errlen);
        } else {
            atomic_abort(&a);
            good = fail(err, errlen, "%s: out of memory", c->path);
        }
    }
    json_decref(columns);
    json_decref(c->rows);
    return good;
}
