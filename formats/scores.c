#include "formats/scores.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/csv.h"
#include "formats/error.h"
#include "formats/io.h"
#include "formats/listed.h"
#include "formats/path.h"
#include "formats/scores_forms.h"

struct variant *scores_find(const struct scores *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->variant[i].name, name)) return &s->variant[i];
    return NULL;
}

struct variant *scores_need(const struct scores *s, const char *name, char *err, size_t errlen)
{
    struct variant *v = scores_find(s, name);
    struct listed l = listed_start(name);
    if (v) return v;
    for (int i = 0; i < s->count; i++) listed_add(&l, s->variant[i].name);
    fail(err, errlen, "no variant is called `%s`: %s", name, listed_end(&l));
    return NULL;
}

struct variant *scores_variant(struct scores *s, const char *name, const char *source, char *err,
                               size_t errlen)
{
    struct variant *v = scores_find(s, name), *grown;
    if (v && strcmp(v->source, source))
        return fail(err, errlen, "%s: variant `%s` has been read from %s already", source, name, v->source),
               NULL;
    if (v) return v;
    json_t *probe = json_string(name); /* refuses what is not UTF-8 */
    json_decref(probe);
    if (!*name || !probe)
        return fail(err, errlen, "%s: a variant %s", source,
                    *name ? "whose name is not UTF-8" : "without a name"),
               NULL;
    if (!s->prompts) s->prompts = json_object();
    grown = realloc(s->variant, (size_t)(s->count + 1) * sizeof *grown);
    if (!grown) return fail(err, errlen, "out of memory"), NULL;
    s->variant = grown;
    v = &s->variant[s->count++];
    *v = (struct variant){.name = strdup(name),
                          .source = strdup(source),
                          .about = json_object(),
                          .ways = json_array(),
                          .seen = json_object()};
    if (!v->name || !v->source) return fail(err, errlen, "out of memory"), NULL;
    return v;
}

static void free_score(struct score *score)
{
    free(score->prompt), free(score->key), free(score->path);
}

bool scores_is_score(double v)
{
    return v >= 0 && v <= 5 && v == floor(v);
}

/* ---- what is told of the prompts ------------------------------------------------------------------------ */

bool scores_same(const char *a, const char *b)
{
    double x, y;
    return !strcmp(a, b) || (csv_number(a, &x) && csv_number(b, &y) && x == y);
}

/* Keeps what is told first, and notes when something else is told of the same prompt. */
static void tell(struct scores *s, const struct variant *v, const char *prompt, const char *field,
                 const char *text)
{
    json_t *about = json_object_get(s->prompts, prompt);
    const char *before = json_string_value(json_object_get(about, field));
    if (!text || !*text) return;
    if (!s->fields) s->fields = json_object();
    if (!json_object_get(s->fields, field)) json_object_set_new(s->fields, field, json_null());
    if (!before)
        json_object_set_new(about, field, json_string(text));
    else if (!json_is_string(json_object_get(s->fields, field)) && !scores_same(before, text))
        json_object_set_new(s->fields, field,
                            json_sprintf("prompt `%.60s` has `%.60s`, and in `%.60s` `%.60s`", prompt, before,
                                         v->name, text));
}

/* Of the video or the score, not of the prompt. */
static bool is_scores_own(const char *field)
{
    static const char *const own[] = {"key",   "prompt_id", "seed", "path", "videopath",
                                      "score", "variant",   "sa",   "pc"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(field, own[i])) return true;
    return !strncmp(field, "sa_", 3) || !strncmp(field, "pc_", 3);
}

/* A text, or a number or truth as one, into a buffer; NULL: neither. */
static const char *scalar(const json_t *j, char *buffer, size_t size)
{
    if (json_is_string(j)) return json_string_value(j);
    if (json_is_boolean(j)) return json_is_true(j) ? "true" : "false";
    if (!json_is_number(j)) return NULL;
    if (json_is_integer(j))
        snprintf(buffer, size, "%lld", (long long)json_integer_value(j));
    else
        snprintf(buffer, size, "%.15g", json_real_value(j));
    return buffer;
}

static void tell_all(struct scores *s, const struct variant *v, const char *prompt,
                     const struct scores_row *r)
{
    char buffer[64];
    const char *field;
    json_t *value;
    tell(s, v, prompt, "caption", r->caption);
    tell(s, v, prompt, "action", r->action);
    if (r->fields)
        json_object_foreach ((json_t *)r->fields, field, value)
            if (!is_scores_own(field)) tell(s, v, prompt, field, scalar(value, buffer, sizeof buffer));
}

const char *scores_field(const struct scores *s, const char *prompt, const char *field)
{
    return json_string_value(json_object_get(json_object_get(s->prompts, prompt), field));
}

bool scores_check_field(const struct scores *s, const char *field, char *err, size_t errlen)
{
    json_t *known = json_object_get(s->fields, field), *why;
    const char *name;
    struct listed l = listed_start(field);
    if (json_is_string(known))
        return fail(err, errlen, "`%s` is not one for all runs: %s", field, json_string_value(known));
    if (known) return true;
    json_object_foreach (s->fields, name, why)
        if (json_is_null(why)) listed_add(&l, name);
    return fail(err, errlen, "no prompt has a field `%s`: %s", field, listed_end(&l));
}

static bool has(const struct scores *s, const char *prompt, const char *field, const char *value)
{
    const char *text = scores_field(s, prompt, field);
    return text ? scores_same(text, value) : !*value;
}

static bool refuse_value(const struct scores *s, const char *field, const char *value, char *err,
                         size_t errlen)
{
    struct listed l = listed_start(value);
    json_t *about, *values = json_object();
    const char *prompt;
    json_object_foreach (s->prompts, prompt, about)
        if (scores_field(s, prompt, field))
            json_object_set_new(values, scores_field(s, prompt, field), json_true());
    listed_keys(&l, values);
    json_decref(values);
    return fail(err, errlen, "no prompt's `%s` is `%s`: %s", field, value, listed_end(&l));
}

bool scores_keep(struct scores *s, const char *field, const char *value, char *err, size_t errlen)
{
    if (!scores_check_field(s, field, err, errlen)) return false;
    json_t *about;
    const char *prompt;
    void *next;
    bool any = false;
    json_object_foreach (s->prompts, prompt, about) any = any || has(s, prompt, field, value);
    if (!any) return refuse_value(s, field, value, err, errlen);
    for (int i = 0; i < s->count; i++) {
        struct variant *v = &s->variant[i];
        size_t kept = 0;
        for (size_t k = 0; k < v->count; k++)
            if (has(s, v->score[k].prompt, field, value))
                v->score[kept++] = v->score[k];
            else
                free_score(&v->score[k]);
        v->count = kept;
    }
    json_object_foreach_safe(s->prompts, next, prompt, about) if (!has(s, prompt, field, value))
        json_object_del(s->prompts, prompt);
    return true;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

bool scores_add(struct scores *s, struct variant *v, const struct scores_row *r, char *why, size_t size)
{
    const char *prompt = r->prompt ? r->prompt : r->key;
    if (!r->key || !*r->key || !*prompt) return fail(why, size, "no key");
    if (isnan(r->sa) || isnan(r->pc))
        return fail(why, size, "`%s` has no %s", r->key, isnan(r->sa) ? "sa" : "pc");
    if (!scores_is_score(r->sa) || !scores_is_score(r->pc))
        return fail(why, size, "`%s`: %s %g is no whole number from 0 to 5", r->key,
                    scores_is_score(r->sa) ? "pc" : "sa", scores_is_score(r->sa) ? r->pc : r->sa);

    json_t *about = json_object_get(s->prompts, prompt),
           *identity = json_sprintf("%s|%s", r->seed ? r->seed : "", r->key);
    if (!about) json_object_set_new(s->prompts, prompt, about = json_object());
    bool again = json_object_get(v->seen, json_string_value(identity));
    bool good = identity && !json_object_set_new(v->seen, json_string_value(identity), json_true());
    json_decref(identity);
    if (again)
        return fail(why, size, "a duplicate key: `%s`%s%s", r->key, r->seed ? ", seed " : "",
                    r->seed ? r->seed : "");
    tell_all(s, v, prompt, r);
    if (!(v->count & (v->count - 1))) { /* room doubles */
        struct score *grown = realloc(v->score, (v->count ? 2 * v->count : 1) * sizeof *grown);
        if (!grown) return fail(why, size, "out of memory");
        v->score = grown;
    }
    struct score *score = &v->score[v->count++];
    *score = (struct score){.prompt = strdup(prompt),
                            .key = strdup(r->key),
                            .path = r->path && *r->path ? strdup(r->path) : NULL,
                            .sa = (int)r->sa,
                            .pc = (int)r->pc,
                            .sa_expected = r->sa_expected,
                            .pc_expected = r->pc_expected};
    good = good && score->prompt && score->key && (score->path || !r->path || !*r->path);
    return good || fail(why, size, "out of memory");
}

int scores_open(const char *path, char *err, size_t errlen)
{
    char block[1 << 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC), copy;
    if (fd < 0) return fail(err, errlen, "%s: %s", path, strerror(errno)), -1;
    if (lseek(fd, 0, SEEK_CUR) >= 0) return fd;
    FILE *f = tmpfile();
    ssize_t got = f ? 1 : -1;
    while (got > 0 && (got = read_full(fd, block, sizeof block)) > 0)
        if (!write_full(fileno(f), block, (size_t)got)) got = -1;
    copy = got < 0 || lseek(fileno(f), 0, SEEK_SET) < 0 ? -1 : fcntl(fileno(f), F_DUPFD_CLOEXEC, 3);
    if (copy < 0) fail(err, errlen, "%s: %s", path, strerror(errno));
    if (f) fclose(f);
    close(fd);
    return copy;
}

void scores_stem(char *stem, size_t size, const char *path)
{
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path, *dot = strrchr(last, '.');
    snprintf(stem, size, "%.*s", dot && dot != last ? (int)(dot - last) : (int)strlen(last), last);
}

static bool read_one(struct scores *s, const char *name, const char *path, char *err, size_t errlen)
{
    char first = 0;
    int fd = scores_open(path, err, errlen);
    ssize_t got = 1;
    if (fd < 0) return false;
    while (got == 1 && (got = read_full(fd, &first, 1)) == 1 && strchr(" \t\r\n", first)) {}
    bool good = got < 0                  ? fail(err, errlen, "%s: %s", path, strerror(errno))
                : got == 0               ? fail(err, errlen, "%s: no scores: it is empty", path)
                : lseek(fd, 0, SEEK_SET) ? fail(err, errlen, "%s: %s", path, strerror(errno))
                : first == '{'           ? scores_read_json(s, name, path, fd, err, errlen)
                                         : scores_read_csv(s, name, path, fd, err, errlen);
    close(fd);
    return good;
}

/* The first c of a text that names no file as it is, or NULL. */
static bool split_at(const char **at, const char *text, char c, char *err, size_t errlen)
{
    enum path_kind kind = path_kind(text, err, errlen);
    *at = kind == PATH_ABSENT ? strchr(text, c) : NULL;
    return kind != PATH_UNKNOWN;
}

bool scores_read(struct scores *s, const char *operand, char *err, size_t errlen)
{
    const char *equals, *comma;
    if (!split_at(&equals, operand, '=', err, errlen)) return false;
    const char *file = equals ? equals + 1 : operand;
    if (!split_at(&comma, file, ',', err, errlen)) return false;
    char *name = equals ? strndup(operand, (size_t)(equals - operand)) : NULL;
    char *sa = comma ? strndup(file, (size_t)(comma - file)) : NULL;
    bool good;
    if ((equals && !name) || (comma && !sa))
        good = fail(err, errlen, "out of memory");
    else if (!sa)
        good = read_one(s, name, file, err, errlen);
    else if (!name)
        good = fail(err, errlen, "%s: no such file; two files want a name: NAME=SA.csv,PC.csv", operand);
    else
        good = scores_join(s, name, operand, sa, comma + 1, err, errlen);
    free(name);
    free(sa);
    return good;
}

void scores_free(struct scores *s)
{
    for (int i = 0; i < s->count; i++) {
        struct variant *v = &s->variant[i];
        for (size_t k = 0; k < v->count; k++) free_score(&v->score[k]);
        free(v->name), free(v->source), free(v->score);
        json_decref(v->about);
        json_decref(v->ways);
        json_decref(v->seen);
    }
    free(s->variant);
    json_decref(s->prompts);
    json_decref(s->fields);
    json_decref(s->about);
    *s = (struct scores){0};
}
