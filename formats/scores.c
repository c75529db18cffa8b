#include "formats/scores.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/io.h"
#include "formats/path.h"
#include "formats/scores_forms.h"

struct variant *scores_find(const struct scores *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->variant[i].name, name)) return &s->variant[i];
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

bool scores_is_score(double v)
{
    return v >= 0 && v <= 5 && v == floor(v);
}

/* Where nobody has told it yet. */
static void tell(json_t *prompt, const char *field, const char *text)
{
    if (text && *text && !json_object_get(prompt, field))
        json_object_set_new(prompt, field, json_string(text));
}

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
    tell(about, "caption", r->caption);
    tell(about, "action", r->action);
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
        for (size_t k = 0; k < v->count; k++)
            free(v->score[k].prompt), free(v->score[k].key), free(v->score[k].path);
        free(v->name), free(v->source), free(v->score);
        json_decref(v->about);
        json_decref(v->ways);
        json_decref(v->seen);
    }
    free(s->variant);
    json_decref(s->prompts);
    json_decref(s->about);
    *s = (struct scores){0};
}
