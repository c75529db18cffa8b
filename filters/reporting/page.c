#include "filters/reporting/page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
    return (!f || close_written(f) || fail(err, errlen, "out of memory")) && good;
}

/* Eight frames of a video side by side, as a PNG. */
static bool draw_strip(struct picture *p, const char *path, char *err, size_t errlen)
{
    struct sheet sheet = {0};
    FILE *f = open_memstream(&p->bytes, &p->size);
    bool good = f || fail(err, errlen, "out of memory");
    good = good && sheet_add_file(&sheet, path, err, errlen) && sheet_put(&sheet, f, err, errlen);
    sheet_free(&sheet);
    return (!f || close_written(f) || fail(err, errlen, "out of memory")) && good;
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
    fprintf(f, "<p class=\"note\">%lld prompts; the base is <b class=\"text\">", whole(comparison, "n"));
    html_text(f, json_string_value(json_object_get(comparison, "base")));
    fputs("</b></p>\n<h2>Results</h2>\n", f);
    json_array_foreach (tables, i, table) {
        html_table(f, "number", caption[i], table);
        if (i == 0) put_chart(f, bars, "bar chart of the runs' scores", "Scores with 95 % intervals.");
        if (i == 1)
            put_chart(
                f, forest, "forest plot of the differences",
                "Differences with 95 % intervals. Shaded: less than what 80 % of experiments would show.");
    }
    put_method(f, comparison);
    json_decref(tables);
}

static void put_table(FILE *f, const char *class, const char *caption, json_t *rows_stolen)
{
    html_table(f, class, caption, rows_stolen);
    json_decref(rows_stolen);
}

/* How the adapters were trained; nothing where no run is known. */
static void put_training(FILE *f, const json_t *rows)
{
    if (!json_array_size(rows)) return;
    html_element(f, "h2", NULL, "Training");
    put_table(f, "number",
              "The adapters. Lower by: the best validation loss, than the first, with its standard error.",
              table_texts(rows));
    json_t *notes = table_moves(rows);
    for (size_t i = 0; i < json_array_size(notes); i++)
        html_element(f, "p", NULL, json_string_value(json_array_get(notes, i)));
    json_decref(notes);
}

static void put_budget(FILE *f, const json_t *budget)
{
    if (!budget) return;
    html_element(f, "h2", NULL, "What it cost");
    put_table(
        f, "number",
        "Phases. Wall: time in which anything was at work. Done: records, of train steps. Interrupted attempts "
        "are not in the times.",
        budget_phases(budget));
    put_table(f, "settings", "Their parts.", budget_parts(budget));
}

static void put_misfits(FILE *f, const struct scores *s)
{
    json_t *misfits = settings_misfits(s), *text;
    size_t i;
    json_array_foreach (misfits, i, text) html_element(f, "p", "missing text", json_string_value(text));
    json_decref(misfits);
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
    if (json_array_size(differing) > 1) html_table(f, "settings", "What differs", differing);
    if (json_array_size(shared) > 1) html_table(f, "settings", "What the runs share", shared);
    json_decref(shared);
    json_decref(differing);
}

/* One video of a run: its scores, and what it looks like. */
static void put_video(FILE *f, const struct variant *v, const struct score *s, page_told *told)
{
    struct picture strip = {0};
    char why[512];
    fputs("<figure><figcaption><b class=\"text\">", f);
    html_text(f, v->name);
    fprintf(f, "</b> SA %d, PC %d%s</figcaption>\n", s->sa, s->pc, s->sa >= 4 && s->pc >= 4 ? ", Joint" : "");
    if (s->path && draw_strip(&strip, s->path, why, sizeof why)) {
        html_picture(f, "image/png", strip.bytes, strip.size, v->name);
        told(s->path, NULL);
    } else if (s->path) {
        html_element(f, "p", "missing", why);
        told(s->path, why);
    }
    fputs("</figure>\n", f);
    free(strip.bytes);
}

static void put_prompt(FILE *f, const struct report *r, const char *name, page_told *told)
{
    json_t *about = json_object_get(r->scores.prompts, name);
    const char *caption = json_string_value(json_object_get(about, "caption"));
    const char *action = json_string_value(json_object_get(about, "action"));
    int base = r->pairing.base;
    fputs("<section>\n<h3>Prompt <span class=\"text\">", f);
    html_text(f, name);
    fputs("</span></h3>\n", f);
    if (caption) html_element(f, "p", "text", caption);
    if (action) html_element(f, "p", "note text", action);
    for (int i = -1; i < r->scores.count; i++) { /* the base comes first */
        const struct variant *v = &r->scores.variant[i < 0 ? base : i];
        for (size_t k = 0; i != base && k < v->count; k++)
            if (!strcmp(v->score[k].prompt, name)) put_video(f, v, &v->score[k], told);
    }
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
