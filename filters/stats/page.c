#include "filters/stats/page.h"

#include "filters/stats/budget.h"
#include "filters/stats/comparison.h"
#include "filters/stats/settings.h"
#include "filters/stats/table.h"
#include "formats/html.h"

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

void page_results(FILE *f, const char *title, const json_t *comparison, const struct picture *bars,
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

void page_training(FILE *f, const json_t *rows)
{
    if (!json_array_size(rows)) return;
    html_element(f, "h2", NULL, "Training");
    put_table(f, "number",
              "The adapters. Lower by: the best validation loss, than the first, with its standard error.",
              table_texts(rows));
}

void page_budget(FILE *f, const json_t *budget)
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

void page_settings(FILE *f, const struct scores *s)
{
    json_t *shared, *differing;
    settings_tables(s, &shared, &differing);
    html_element(f, "h2", NULL, "How the videos were made and graded");
    html_element(
        f, "p", "note",
        "As the inputs tell it, of every video: where a run has several values, its videos were not all made alike.");
    if (json_array_size(differing) > 1) html_table(f, "settings", "What differs", differing);
    if (json_array_size(shared) > 1) html_table(f, "settings", "What the runs share", shared);
    json_decref(shared);
    json_decref(differing);
}
