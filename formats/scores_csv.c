#include <math.h>
#include <string.h>
#include <unistd.h>

#include "formats/csv.h"
#include "formats/error.h"
#include "formats/scores_forms.h"

/* ---- CSV ----------------------------------------------------------------------------------------------- */

static struct csv *open_csv(int fd, const char *path, char *err, size_t errlen)
{
    char why[256];
    struct csv *c = csv_open(fd, why, sizeof why);
    if (!c) fail(err, errlen, "%s: %s", path, why);
    return c;
}

static bool has_column(const struct csv *c, const char *path, const char *name, char *err, size_t errlen)
{
    char why[400];
    int unused;
    return csv_need(c, name, &unused, why, sizeof why) || fail(err, errlen, "%s: %s", path, why);
}

/* A cell, or NULL when it is empty or says that there is nothing. */
static const char *cell(const struct csv *c, const char *column)
{
    int i = csv_column(c, column);
    return i < 0 || !*c->field[i] || !strcmp(c->field[i], "NaN") || !strcmp(c->field[i], "nan") ? NULL
                                                                                                : c->field[i];
}

/* A new object of the row's cells that say something, by column. */
static json_t *cells(const struct csv *c)
{
    json_t *all = json_object();
    for (int i = 0; i < c->columns; i++) {
        const char *text = cell(c, c->column[i]);
        if (text && *c->column[i]) json_object_set_new(all, c->column[i], json_string(text));
    }
    return all;
}

static double cell_number(const struct csv *c, const char *column)
{
    double v;
    const char *text = cell(c, column);
    return text ? csv_number(text, &v) ? v : INFINITY
                : NAN; /* INFINITY: no score, which scores_add() will tell */
}

static bool read_rows(struct scores *s, const char *path, struct csv *c, char *err, size_t errlen)
{
    static const char *const needed[] = {"variant", "sa", "pc"};
    const char *key = csv_column(c, "key") >= 0 ? "key" : "prompt_id";
    char why[256];
    size_t rows = 0;
    enum csv_got got;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!has_column(c, path, needed[i], err, errlen)) return false;
    if (!has_column(c, path, key, err, errlen)) return false;
    for (; (got = csv_next(c)) == CSV_ROW; rows++) {
        struct scores_row r = {.prompt = cell(c, "prompt_id"),
                               .key = cell(c, key),
                               .seed = cell(c, "seed"),
                               .path = cell(c, "path"),
                               .caption = cell(c, "caption"),
                               .action = cell(c, "action"),
                               .sa = cell_number(c, "sa"),
                               .pc = cell_number(c, "pc"),
                               .sa_expected = cell_number(c, "sa_expected"),
                               .pc_expected = cell_number(c, "pc_expected")};
        const char *name = cell(c, "variant");
        struct variant *v = scores_variant(s, name ? name : "", path, err, errlen);
        if (!v) return false;
        json_t *fields = cells(c);
        r.fields = fields;
        bool good = scores_add(s, v, &r, why, sizeof why);
        json_decref(fields);
        if (!good) return fail(err, errlen, "%s: line %lld: %s", path, (long long)c->line, why);
    }
    if (got != CSV_END) return fail(err, errlen, "%s: %s", path, c->error);
    return rows || fail(err, errlen, "%s: no scores", path);
}

bool scores_read_csv(struct scores *s, const char *name, const char *path, int fd, char *err, size_t errlen)
{
    struct csv *c = open_csv(fd, path, err, errlen);
    bool good =
        c && (name ? fail(err, errlen, "%s: its column `variant` names the runs, not `%s`", path, name)
                   : read_rows(s, path, c, err, errlen));
    csv_close(c);
    return good;
}

/* ---- the grader's own form ----------------------------------------------------------------------------- */

/* A new object of the file's scores by videopath, with all their cells: {path: {"score", "cells"}}. */
static json_t *read_upstream(const char *path, char *err, size_t errlen)
{
    enum csv_got got = CSV_END;
    json_t *all = json_object();
    int fd = scores_open(path, err, errlen);
    struct csv *c = fd < 0 ? NULL : open_csv(fd, path, err, errlen);
    bool good =
        c && has_column(c, path, "videopath", err, errlen) && has_column(c, path, "score", err, errlen);
    while (good && (got = csv_next(c)) == CSV_ROW) {
        const char *video = cell(c, "videopath");
        double score = cell_number(c, "score");
        if (!video)
            good = fail(err, errlen, "%s: line %lld: no videopath", path, (long long)c->line);
        else if (json_object_get(all, video))
            good = fail(err, errlen, "%s: line %lld: a duplicate key: `%s`", path, (long long)c->line, video);
        else if (!scores_is_score(score))
            good = fail(err, errlen, "%s: line %lld: `%s`: no score from 0 to 5", path, (long long)c->line,
                        video);
        else
            json_object_set_new(all, video, json_pack("{s:f, s:o}", "score", score, "cells", cells(c)));
    }
    if (good && got != CSV_END) good = fail(err, errlen, "%s: %s", path, c->error);
    if (good && !json_object_size(all)) good = fail(err, errlen, "%s: no scores", path);
    csv_close(c);
    if (fd >= 0) close(fd);
    if (!good) json_decref(all), all = NULL;
    return all;
}

/* Whether the files' names without folders and endings tell them apart. */
static bool has_stems(const json_t *videos)
{
    char stem[4096];
    const char *video;
    json_t *unused, *stems = json_object();
    json_object_foreach ((json_t *)videos, video, unused) {
        scores_stem(stem, sizeof stem, video);
        json_object_set_new(stems, stem, json_true());
    }
    bool all = json_object_size(stems) == json_object_size(videos) && !json_object_get(stems, "");
    json_decref(stems);
    return all;
}

bool scores_join(struct scores *s, const char *name, const char *source, const char *sa_path,
                 const char *pc_path, char *err, size_t errlen)
{
    const char *video;
    char why[256], stem[4096];
    json_t *given, *sa = read_upstream(sa_path, err, errlen);
    json_t *pc = sa ? read_upstream(pc_path, err, errlen) : NULL;
    struct variant *v = pc ? scores_variant(s, name, source, err, errlen) : NULL;
    bool good = v != NULL, stems = good && has_stems(sa);
    if (good)
        json_object_foreach (pc, video, given)
            if (good && !json_object_get(sa, video))
                good = fail(err, errlen, "%s: no score of `%s`", sa_path, video);
    if (good)
        json_object_foreach (sa, video, given) {
            json_t *other = json_object_get(pc, video);
            scores_stem(stem, sizeof stem, video);
            struct scores_row r = {.key = stems ? stem : video,
                                   .path = video,
                                   .fields = json_object_get(given, "cells"),
                                   .sa = json_number_value(json_object_get(given, "score")),
                                   .pc = json_number_value(json_object_get(other, "score")),
                                   .sa_expected = NAN,
                                   .pc_expected = NAN};
            if (good && !other) good = fail(err, errlen, "%s: no score of `%s`", pc_path, video);
            if (good && !scores_add(s, v, &r, why, sizeof why))
                good = fail(err, errlen, "%s: %s", source, why);
        }
    json_decref(sa);
    json_decref(pc);
    return good;
}
