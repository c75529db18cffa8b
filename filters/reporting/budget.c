#include "filters/reporting/budget.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/io.h"
#include "formats/path.h"

struct interval {
    double from, to;
};
struct group { /* of a phase, of one of its parts, or of all */
    char *phase, *of;
    double work_s, gpu_s, metered_s, joules; /* metered_s: of gpu_s, where energy was counted */
    int64_t jobs, done, failed, interrupted;
    struct interval *at;
    size_t count;
};
struct budget {
    struct group *group; /* the first is the total */
    size_t count;
    int64_t unreadable;
    bool failed; /* out of memory */
};

/* ---- reading ------------------------------------------------------------------------------------------- */

static struct group *find_group(struct budget *b, const char *phase, const char *of)
{
    for (size_t i = 0; i < b->count; i++)
        if (!strcmp(b->group[i].phase, phase) && !strcmp(b->group[i].of, of)) return &b->group[i];
    struct group *grown = realloc(b->group, (b->count + 1) * sizeof *grown);
    if (!grown) return b->failed = true, NULL;
    b->group = grown;
    grown = &grown[b->count++];
    *grown = (struct group){.phase = strdup(phase), .of = strdup(of)};
    b->failed |= !grown->phase || !grown->of;
    return b->failed ? NULL : grown;
}

static double number(const json_t *line, const char *field)
{
    return json_number_value(json_object_get(line, field));
}

/* The state of reading one job's ledger. */
struct job {
    char phase[64], of[256];
    bool open; /* started, and not ended yet */
    double work_s, gpu_s, metered_s, joules;
    int64_t done, failed, interrupted;
    struct interval *at;
    size_t count;
};

/* false: not a line of a ledger. */
static bool take_line(struct budget *b, struct job *j, const json_t *line)
{
    const char *event = json_string_value(json_object_get(line, "event"));
    const char *phase = json_string_value(json_object_get(line, "phase"));
    const char *job = json_string_value(json_object_get(line, "job"));
    bool end = event && !strcmp(event, "end");
    double at = number(line, "at"), wall = number(line, "wall_s");
    if (!phase || !job || !event || (!end && strcmp(event, "start")) || at <= 0 || wall < 0) return false;
    snprintf(j->phase, sizeof j->phase, "%s", phase);
    snprintf(j->of, sizeof j->of, "%.*s", (int)strcspn(job, " "), job);
    if (!end) {
        j->interrupted += j->open;
        j->open = true;
        return true;
    }
    j->open = false;
    j->work_s += wall;
    j->gpu_s += number(line, "gpu_s");
    if (json_object_get(line, "joules"))
        j->metered_s += number(line, "gpu_s"), j->joules += number(line, "joules");
    j->done += json_integer_value(json_object_get(line, "done"));
    j->failed = json_integer_value(json_object_get(line, "failed"));
    struct interval *grown = realloc(j->at, (j->count + 1) * sizeof *grown);
    if (!grown) return b->failed = true;
    j->at = grown;
    j->at[j->count++] = (struct interval){at - wall, at};
    return true;
}

static void add_job(struct budget *b, const struct job *j, const char *phase, const char *of)
{
    struct group *g = find_group(b, phase, of);
    struct interval *grown = g ? realloc(g->at, (g->count + j->count + 1) * sizeof *grown) : NULL;
    if (!grown) {
        b->failed = true;
        return;
    }
    g->at = grown;
    for (size_t i = 0; i < j->count; i++) g->at[g->count + i] = j->at[i];
    g->count += j->count;
    g->work_s += j->work_s, g->gpu_s += j->gpu_s;
    g->metered_s += j->metered_s, g->joules += j->joules;
    g->jobs++, g->done += j->done, g->failed += j->failed;
    g->interrupted += j->interrupted + j->open;
}

static bool read_job(struct budget *b, const char *path, char *err, size_t errlen)
{
    struct job job = {0}, *j = &job;
    char *text = NULL;
    size_t room = 0;
    FILE *in = open_regular(path, err, errlen);
    bool good = in != NULL;
    ssize_t n = 0;
    while (good && !b->failed && (n = read_text_line(in, &text, &room)) > 0) {
        json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        if (!take_line(b, j, line)) b->unreadable++;
        json_decref(line);
    }
    if (good && n < 0) good = fail(err, errlen, "%s: %s", path, strerror(errno));
    if (good && *j->phase) {
        add_job(b, j, "", "");
        add_job(b, j, j->phase, "");
        add_job(b, j, j->phase, j->of);
    }
    if (in) fclose(in);
    free(text);
    free(j->at);
    return good;
}

static int is_ledger(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 6 && !strcmp(e->d_name + n - 6, ".jsonl");
}

/* ---- sums ---------------------------------------------------------------------------------------------- */

static int by_start(const void *a, const void *b)
{
    const struct interval *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

/* The length of the union of all intervals: the time in which any job of the group ran. */
static double covered(struct group *g)
{
    double sum = 0, until = 0;
    if (g->count) qsort(g->at, g->count, sizeof *g->at, by_start);
    for (size_t i = 0; i < g->count; i++) {
        double from = g->at[i].from > until ? g->at[i].from : until;
        if (g->at[i].to > from) sum += g->at[i].to - from, until = g->at[i].to;
    }
    return sum;
}

static int rank(const char *phase)
{
    static const char *const known[] = {"precompute", "train", "generate", "grade-all"};
    int i = 0;
    while (i < 4 && strcmp(known[i], phase)) i++;
    return i;
}

static int by_phase(const void *a, const void *b)
{
    const struct group *x = a, *y = b;
    int order = rank(x->phase) - rank(y->phase);
    if (!order) order = strcmp(x->phase, y->phase);
    return order ? order : strcmp(x->of, y->of);
}

static json_t *describe(struct group *g)
{
    double wall = covered(g);
    json_t *o = json_pack("{s:s, s:o, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I}", "phase", g->phase, "of",
                          *g->of ? json_string(g->of) : json_null(), "wall_s", wall, "at_once",
                          wall > 0 ? g->work_s / wall : 0.0, "work_s", g->work_s, "gpu_s", g->gpu_s, "jobs",
                          (json_int_t)g->jobs, "done", (json_int_t)g->done, "failed", (json_int_t)g->failed,
                          "interrupted", (json_int_t)g->interrupted);
    if (g->metered_s > 0) {
        json_object_set_new(o, "kwh", json_real(g->joules / 3.6e6));
        json_object_set_new(o, "metered_s", json_real(g->metered_s));
    }
    return o;
}

json_t *budget_read(const char *folder, char *err, size_t errlen)
{
    struct budget b = {0};
    struct dirent **file = NULL;
    char path[4096];
    bool good = find_group(&b, "", "") != NULL;
    int files = scandir(folder, &file, is_ledger, alphasort);
    if (files < 0) good = fail(err, errlen, "%s: %s", folder, strerror(errno));
    for (int i = 0; i < files; i++) {
        if (snprintf(path, sizeof path, "%s/%s", folder, file[i]->d_name) >= (int)sizeof path)
            good = fail(err, errlen, "%s: the path is too long", folder);
        good = good && read_job(&b, path, err, errlen);
        free(file[i]);
    }
    free(file);
    if (good && b.failed) good = fail(err, errlen, "out of memory");

    json_t *budget = json_pack("{s:[], s:[]}", "phases", "parts");
    if (good) qsort(b.group + 1, b.count - 1, sizeof *b.group, by_phase);
    for (size_t i = 1; good && i < b.count; i++)
        json_array_append_new(json_object_get(budget, *b.group[i].of ? "parts" : "phases"),
                              describe(&b.group[i]));
    if (good) {
        json_object_set_new(budget, "total", describe(&b.group[0]));
        json_object_set_new(budget, "unreadable", json_integer(b.unreadable));
    }
    for (size_t i = 0; i < b.count; i++) free(b.group[i].phase), free(b.group[i].of), free(b.group[i].at);
    free(b.group);
    if (good) return budget;
    json_decref(budget);
    return NULL;
}

/* ---- for people ---------------------------------------------------------------------------------------- */

static json_t *clock_text(double seconds)
{
    long long s = (long long)(seconds + 0.5);
    return json_sprintf("%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

static json_t *hours_text(double hours)
{
    return json_sprintf(hours < 999.5 ? "%.3g" : "%.0f", hours);
}

/* "2.3", or from "1.1" on where not all of its GPUs' time was metered. */
static json_t *kwh_cell(const json_t *g)
{
    if (!json_object_get(g, "kwh")) return json_string("-");
    const bool all = number(g, "metered_s") >= number(g, "gpu_s") * (1 - 1e-9);
    return json_sprintf("%s%.3g", all ? "" : ">", number(g, "kwh"));
}

static json_t *cells(const json_t *g, const char *phase, bool part, bool metered)
{
    json_t *row = json_pack("[s]", phase);
    if (part) json_array_append(row, json_object_get(g, "of"));
    json_array_append_new(row, clock_text(number(g, "wall_s")));
    json_array_append_new(row, json_sprintf("%.1f", number(g, "at_once")));
    json_array_append_new(row, hours_text(number(g, "work_s") / 3600));
    json_array_append_new(row, hours_text(number(g, "gpu_s") / 3600));
    if (metered) json_array_append_new(row, kwh_cell(g));
    static const char *const count[] = {"jobs", "done", "failed", "interrupted"};
    for (int i = 0; i < 4; i++) json_array_append_new(row, json_sprintf("%.0f", number(g, count[i])));
    return row;
}

/* metered: energy was counted anywhere. */
static json_t *table(const json_t *groups, bool part, bool metered)
{
    static const char *const heading[] = {"wall", "at once", "worker-hours", "GPU-hours",  "kWh",
                                          "jobs", "done",    "failed",       "interrupted"};
    json_t *rows = part ? json_pack("[[s, s]]", "phase", "of") : json_pack("[[s]]", "phase"), *g;
    size_t i;
    for (i = 0; i < sizeof heading / sizeof *heading; i++)
        if (metered || strcmp(heading[i], "kWh"))
            json_array_append_new(json_array_get(rows, 0), json_string(heading[i]));
    json_array_foreach (groups, i, g)
        json_array_append_new(rows, cells(g, json_string_value(json_object_get(g, "phase")), part, metered));
    return rows;
}

static bool is_metered(const json_t *budget)
{
    return json_object_get(json_object_get(budget, "total"), "kwh") != NULL;
}

json_t *budget_phases(const json_t *budget)
{
    json_t *rows = table(json_object_get(budget, "phases"), false, is_metered(budget));
    json_array_append_new(rows, cells(json_object_get(budget, "total"), "total", false, is_metered(budget)));
    return rows;
}

json_t *budget_parts(const json_t *budget)
{
    return table(json_object_get(budget, "parts"), true, is_metered(budget));
}
