#include "filters/reporting/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "filters/lib/messages.h"
#include "filters/reporting/budget.h"
#include "filters/reporting/charts.h"
#include "filters/reporting/comparison.h"
#include "filters/reporting/settings.h"
#include "filters/reporting/table.h"
#include "formats/columns.h"
#include "formats/plain.h"
#include "formats/error.h"
#include "formats/record.h"
#include "formats/gnuplot.h"
#include "formats/html.h"
#include "formats/io.h"
#include "formats/path.h"
#include "formats/sheet.h"

/* ---- pictures ------------------------------------------------------------------------------------------ */

struct picture {
    char *bytes;
    size_t size; /* 0: none */
};

enum { CHART_WIDTH = 1000 };

/* A chart as SVG; none of a comparison that has no rows for it. */
static bool draw_chart(struct picture *p, enum chart chart, const json_t *comparison, char *err,
                       size_t errlen)
{
    if (!chart_rows(chart, comparison)) return true;
    FILE *script = tmpfile(), *f = open_memstream(&p->bytes, &p->size);
    bool good = (script && f) || fail(err, errlen, "a temporary file: %s", strerror(errno));
    if (good) {
        chart_script(script, chart, GNUPLOT_SVG, CHART_WIDTH,
                     chart_height(chart, comparison, GNUPLOT_SVG, CHART_WIDTH), comparison);
        good = gnuplot_draw(script, f, err, errlen);
    }
    if (script) fclose(script);
    return (!f || close_memory(f, &p->bytes) || fail(err, errlen, "out of memory")) && good;
}

/* Eight frames of a video side by side, as a PNG. */
static bool draw_strip(struct picture *p, const char *path, char *err, size_t errlen)
{
    struct sheet sheet = {0};
    FILE *f = open_memstream(&p->bytes, &p->size);
    bool good = f || fail(err, errlen, "out of memory");
    good = good && sheet_add_file(&sheet, path, err, errlen) && sheet_put(&sheet, f, err, errlen);
    sheet_free(&sheet);
    return (!f || close_memory(f, &p->bytes) || fail(err, errlen, "out of memory")) && good;
}

/* ---- HTML ---------------------------------------------------------------------------------------------- */

static long long whole(const json_t *o, const char *field)
{
    return (long long)json_integer_value(json_object_get(o, field));
}

static void put_chart(FILE *f, const struct picture *chart, const char *alt, const char *caption)
{
    if (!chart->size) return;
    fputs("<figure>\n", f);
    html_picture(f, "image/svg+xml", chart->bytes, chart->size, alt);
    html_element(f, "figcaption", NULL, caption);
    fputs("</figure>\n", f);
}

static void put_method(FILE *f, const json_t *comparison)
{
    char text[1024];
    snprintf(
        text, sizeof text,
        "Intervals: percentiles of %lld bootstrap samples of the %lld prompts, the same ones for every run; seed "
        "%lld. p exact: McNemar's test of b and c, two-sided. p Holm: that, corrected for the number of runs. 80 %% "
        "power from: the smallest difference that so many prompts with so many disagreements show in 80 %% of "
        "experiments at the 5 %% level (Connor 1987). Prompts left out because a run has no score: %lld.",
        whole(comparison, "resamples"), whole(comparison, "n"), whole(comparison, "seed"),
        whole(comparison, "left_out"));
    html_element(f, "p", "note", text);
}

/* Tables of groups of prompts, and what has to be known to read all tables. */
static void put_groups(FILE *f, const json_t *comparison)
{
    json_t *tables = comparison_group_tables(comparison), *notes = comparison_notes(comparison), *j;
    char caption[256];
    size_t i;
    snprintf(caption, sizeof caption, "By %s.",
             tables ? json_string_value(json_object_get(json_object_get(comparison, "by"), "field")) : "");
    json_array_foreach (tables, i, j) html_table(f, caption, j);
    json_array_foreach (notes, i, j) html_element(f, "p", "note text", json_string_value(j));
    json_decref(notes);
    json_decref(tables);
}

/* The title and the results: tables, the two charts, and how it was computed. */
static void put_results(FILE *f, const char *title, const json_t *comparison, const struct picture *bars,
                        const struct picture *forest)
{
    static const char *const caption[] = {
        "The runs. Joint: prompts with SA and PC of 4 or more, and its 95 % interval.",
        "Joint, minus the base's, in percentage points. b: prompts that only the base passes; c: that only the run does.",
        "Mean scores, minus the base's.",
        "Expected scores, from the digits' probabilities, minus the base's."};
    json_t *tables = comparison_tables(comparison), *table;
    size_t i;
    html_element(f, "h1", "text", title);
    json_t *where = comparison_where(comparison);
    fprintf(f, "<p class=\"note\">%lld prompts", whole(comparison, "n"));
    html_text(f, json_string_value(where));
    json_decref(where);
    fputs("; the base is <b class=\"text\">", f);
    html_text(f, json_string_value(json_object_get(comparison, "base")));
    fputs("</b></p>\n<h2>Results</h2>\n", f);
    json_array_foreach (tables, i, table) {
        html_table(f, caption[i], table);
        if (i == 0) put_chart(f, bars, "bar chart of the runs' scores", "Scores with 95 % intervals.");
        if (i == 1)
            put_chart(
                f, forest, "forest plot of the differences",
                "Differences with 95 % intervals. Shaded: less than what 80 % of experiments would show.");
    }
    put_groups(f, comparison);
    put_method(f, comparison);
    json_decref(tables);
}

static void put_table(FILE *f, const char *caption, json_t *rows_stolen)
{
    html_table(f, caption, rows_stolen);
    json_decref(rows_stolen);
}

/* A table that one opens; nothing where it has a heading alone. */
static void put_folded(FILE *f, const char *caption, json_t *rows_stolen)
{
    if (json_array_size(rows_stolen) > 1) {
        fputs("<details>", f);
        html_element(f, "summary", NULL, caption);
        html_table(f, NULL, rows_stolen);
        fputs("</details>\n", f);
    }
    json_decref(rows_stolen);
}

/* How the adapters were trained; nothing where no run is known. */
static void put_training(FILE *f, const json_t *rows)
{
    if (!json_array_size(rows)) return;
    html_element(f, "h2", NULL, "Training");
    put_table(f, "The adapters. Lower by: the best validation loss, than the first, with its standard error.",
              table_texts(rows));
    json_t *notes = table_notes(rows);
    for (size_t i = 0; i < json_array_size(notes); i++)
        html_element(f, "p", NULL, json_string_value(json_array_get(notes, i)));
    json_decref(notes);
}

static void put_budget(FILE *f, const json_t *budget)
{
    if (!budget) return;
    html_element(f, "h2", NULL, "What it cost");
    put_table(
        f,
        "Phases. Wall: time in which anything was at work. Done: records, of train steps. Interrupted attempts "
        "are not in the times.",
        budget_phases(budget));
    put_folded(f, "Their parts", budget_parts(budget));
}

static void put_misfits(FILE *f, const struct scores *s)
{
    json_t *misfits = settings_misfits(s), *text;
    size_t i;
    json_array_foreach (misfits, i, text) html_element(f, "p", "missing text", json_string_value(text));
    json_decref(misfits);
}

/* Columns of runs as rows: the setting, one of its values, and the runs that have this one. So there is room for any
 * number of runs. */
static json_t *by_value(json_t *differing_stolen)
{
    json_t *rows = json_pack("[[s, s, s]]", "setting", "value", "runs"), *row, *value;
    const json_t *runs = json_array_get(differing_stolen, 0);
    size_t i, c, k;
    json_array_foreach (differing_stolen, i, row) {
        json_t *seen = json_object(); /* {value: runs}, in the order of the runs */
        const char *text;
        for (c = 1; i && c < json_array_size(row); c++) {
            const char *run = json_string_value(json_array_get(runs, c));
            const char *others =
                json_string_value(json_object_get(seen, json_string_value(json_array_get(row, c))));
            json_object_set_new(seen, json_string_value(json_array_get(row, c)),
                                json_sprintf("%s%s%s", others ? others : "", others ? ", " : "", run));
        }
        k = 0;
        json_object_foreach (seen, text, value)
            json_array_append_new(
                rows,
                json_pack("[s, s, O]", k++ ? "" : json_string_value(json_array_get(row, 0)), text, value));
        json_decref(seen);
    }
    json_decref(differing_stolen);
    return rows;
}

static void put_settings(FILE *f, const struct scores *s)
{
    json_t *shared, *differing;
    settings_tables(s, &shared, &differing);
    html_element(f, "h2", NULL, "How the videos were made and graded");
    put_misfits(f, s);
    html_element(
        f, "p", "note",
        "As the inputs tell it, of every video: where a run has several values, its videos were not all made alike.");
    put_folded(f, "What differs", by_value(differing));
    put_folded(f, "What the runs share", shared);
}

/* A video of a run as the page shows it. */
struct shown {
    const struct variant *run;
    const struct score *score;
    struct picture strip, film; /* film: to be played in the page */
    char why[512];              /* it is not shown */
};

/* Reads a video that a browser may play; one of more than so many bytes is left to a link. false: the reason in why. */
static bool read_film(struct picture *film, const char *path, int64_t most, char *why, size_t size)
{
    const char *dot = strrchr(path, '.');
    struct stat st;
    if (!dot || strcmp(dot, ".mp4")) return true;
    FILE *in = fopen(path, "re");
    bool good = in && !fstat(fileno(in), &st);
    if (good && st.st_size > 0 && st.st_size <= most) {
        film->size = (size_t)st.st_size;
        errno = EIO; /* of a file that has become shorter */
        good = (film->bytes = malloc(film->size)) && fread(film->bytes, 1, film->size, in) == film->size;
    }
    if (!good) snprintf(why, size, "cannot be read: %s", strerror(errno));
    if (in) fclose(in);
    return good;
}

static void read_shown(struct shown *v, const struct report *r, page_told *told)
{
    const char *path = v->score->path;
    if (!path) return;
    bool good = draw_strip(&v->strip, path, v->why, sizeof v->why) &&
                read_film(&v->film, path, r->embed, v->why, sizeof v->why);
    if (!good) {
        free(v->strip.bytes), free(v->film.bytes);
        v->strip = v->film = (struct picture){0};
    }
    told(path, good ? NULL : v->why);
}

static void put_name(FILE *f, const struct shown *v)
{
    const struct score *s = v->score;
    fputs("<figure><figcaption><b>", f);
    html_name(f, v->run->name);
    fprintf(f, "</b> SA %d, PC %d%s", s->sa, s->pc, s->sa >= 4 && s->pc >= 4 ? ", Joint" : "");
}

/* Films side by side. */
static void put_films(FILE *f, const struct shown *v, size_t count)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        if (!v[i].film.size) continue;
        fputs(any ? "" : "<div class=\"videos\">\n", f);
        any = true;
        put_name(f, &v[i]);
        fputs("</figcaption>\n", f);
        html_video(f, "video/mp4", v[i].film.bytes, v[i].film.size);
        fputs("</figure>\n", f);
    }
    fputs(any ? "</div>\n" : "", f);
}

/* One video's frames; a link to it unless it is played above. */
static void put_frames(FILE *f, const struct shown *v, const struct report *r)
{
    put_name(f, v);
    char *link = v->strip.size && !v->film.size ? path_beside(v->score->path, r->path) : NULL;
    if (link) fputs(": ", f), html_link(f, link, link);
    fputs("</figcaption>\n", f);
    if (v->strip.size) html_picture(f, "image/png", v->strip.bytes, v->strip.size, v->run->name);
    if (*v->why) html_element(f, "p", "missing", v->why);
    fputs("</figure>\n", f);
    free(link);
}

/* The videos of a prompt, new: the base's come first. */
static struct shown *find_shown(const struct report *r, const char *prompt, size_t *count)
{
    struct shown *of = NULL;
    *count = 0;
    for (int i = -1; i < r->scores.count; i++) {
        const struct variant *v = &r->scores.variant[i < 0 ? r->pairing.base : i];
        for (size_t k = 0; i != r->pairing.base && k < v->count; k++) {
            if (strcmp(v->score[k].prompt, prompt)) continue;
            struct shown *grown = realloc(of, (*count + 1) * sizeof *of);
            if (!grown) die("out of memory");
            of = grown;
            of[(*count)++] = (struct shown){.run = v, .score = &v->score[k]};
        }
    }
    return of;
}

static void put_prompt(FILE *f, const struct report *r, const char *name, page_told *told)
{
    json_t *about = json_object_get(r->scores.prompts, name);
    const char *caption = json_string_value(json_object_get(about, "caption"));
    const char *action = json_string_value(json_object_get(about, "action"));
    size_t count;
    fputs("<section>\n<h3>Prompt <span class=\"text\">", f);
    html_text(f, name);
    fputs("</span></h3>\n", f);
    if (caption) html_element(f, "p", "text", caption);
    if (action) html_element(f, "p", "note text", action);
    struct shown *v = find_shown(r, name, &count);
    for (size_t i = 0; i < count; i++) read_shown(&v[i], r, told);
    put_films(f, v, count);
    for (size_t i = 0; i < count; i++) {
        put_frames(f, &v[i], r);
        free(v[i].strip.bytes);
        free(v[i].film.bytes);
    }
    free(v);
    fputs("</section>\n", f);
}

bool page_html(FILE *f, const struct report *r, page_told *told, char *err, size_t errlen)
{
    struct picture bars = {0}, forest = {0};
    bool good = draw_chart(&bars, CHART_BARS, r->comparison, err, errlen) &&
                draw_chart(&forest, CHART_FOREST, r->comparison, err, errlen);
    if (good) {
        json_t *prompt;
        size_t i;
        html_open(f, r->title);
        put_results(f, r->title, r->comparison, &bars, &forest);
        put_training(f, r->training);
        put_budget(f, r->budget);
        if (json_array_size(r->prompts)) html_element(f, "h2", NULL, "Videos");
        json_array_foreach (r->prompts, i, prompt) put_prompt(f, r, json_string_value(prompt), told);
        put_settings(f, &r->scores);
        fputs("<footer>Made by report (sluice) " SLUICE_VERSION ".</footer>\n", f);
        html_close(f);
    }
    free(bars.bytes);
    free(forest.bytes);
    return good;
}

/* ---- text and JSON ------------------------------------------------------------------------------------- */

static void print_table(FILE *f, const char *heading, json_t *rows_stolen, size_t left)
{
    fprintf(f, "\n%s\n\n", heading);
    columns_print(f, rows_stolen, left);
    json_decref(rows_stolen);
}

void page_text(FILE *f, const struct report *r)
{
    json_t *shared, *differing;
    put_plain(f, r->title);
    fputs("\n\n", f);
    comparison_print(f, r->comparison);
    if (json_array_size(r->training)) {
        fputs("\nTraining\n\n", f);
        table_print(f, r->training);
    }
    if (r->budget) print_table(f, "What it cost", budget_phases(r->budget), 1);
    if (r->budget) print_table(f, "Its parts", budget_parts(r->budget), 2);
    json_t *misfits = settings_misfits(&r->scores), *text;
    size_t i;
    json_array_foreach (misfits, i, text) {
        fputs(i ? "" : "\n", f);
        put_plain(f, json_string_value(text));
        fputs("\n", f);
    }
    json_decref(misfits);
    settings_tables(&r->scores, &shared, &differing);
    print_table(f, "How the videos were made and graded: what differs", differing, SIZE_MAX);
    print_table(f, "What the runs share", shared, SIZE_MAX);
}

void page_json(FILE *f, const struct report *r)
{
    json_t *provenance = json_object();
    for (int i = 0; i < r->scores.count; i++)
        json_object_set(provenance, r->scores.variant[i].name, r->scores.variant[i].ways);
    json_t *all = json_pack("{s:s, s:O, s:O, s:O*, s:o, s:o}", "version", SLUICE_VERSION, "comparison",
                            r->comparison, "training", r->training, "budget", r->budget, "misfits",
                            settings_misfits(&r->scores), "provenance", provenance);
    json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    fputs("\n", f);
    json_decref(all);
}
