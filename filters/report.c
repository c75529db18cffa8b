/* report - an experiment as one page: tables, pictures, how the runs were made, what they cost, and what they
 * made of some prompts.
 *
 * The page is written when it is whole. A video that cannot be read is told in its place, and counted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/filter.h"
#include "filters/stats/budget.h"
#include "filters/stats/charts.h"
#include "filters/stats/comparison.h"
#include "filters/stats/curves.h"
#include "filters/stats/page.h"
#include "filters/stats/settings.h"
#include "filters/stats/table.h"
#include "formats/atomic.h"
#include "formats/columns.h"
#include "formats/gnuplot.h"
#include "formats/html.h"
#include "formats/sheet.h"

static const char help[] =
    "report - a comparison as one HTML page that needs nothing else, as text or as JSON\n"
    "usage: report --base NAME [options] FILE... >page.html\n"
    "  -o, --output FILE    where to                                   [stdout]\n"
    "      --format FORMAT  html | text | json                         [html]\n"
    "      --base NAME      the run to compare with                   required\n"
    "      --title TEXT     of the page                                [Comparison with NAME]\n"
    "      --prompts KEYS   with commas between: of these every run's video is shown; may be given again  [--first]\n"
    "      --first N        prompts that are shown when none are named [4]\n"
    "      --videos NAME=LIST   where a run's videos are, as encode-mp4 lists them  [the path beside each score]\n"
    "      --run DIR        a training run's folder, for the table of training; may be given again  [none]\n"
    "      --ledger DIR     of the pipelines, for the table of what it cost  [none]\n"
    "      --resamples N    of the bootstrap                           [5000]\n"
    "      --intersect      leave out what not all runs have; average repeats as they are  [an error]\n"
    "COMMON\n"
    "input   scores in the forms that compare takes\n"
    "output  tables and charts of compare and plot, eight frames of each video, settings as far as the inputs tell\n"
    "        them; no scripts, no network. As text, the tables. As JSON {\"comparison\": what compare says, \"training\":\n"
    "        rows of plot --table, \"budget\", \"provenance\": {run: [{\"settings\", \"outputs\": made so}]}}.\n"
    "        The same inputs give the same bytes\n"
    "exit    0 written, 1 something failed, a video included that is told in its place (gnuplot must be there), 2 wrong\n"
    "        usage\n"
    "e.g.    report --base base --prompts 12,80 base.jsonl k1.jsonl >page.html      see also: compare, plot, grade\n";

static const char *base, *output, *title, *format = "html", *ledger;
static struct text_list named, videos, runs;
static int64_t first = 4, resamples = 5000;
static bool intersect;

static const struct option_spec options[] = {
    {.name = "output", .letter = 'o', .kind = OPT_TEXT, .dest = &output},
    {.name = "format", .kind = OPT_CHOICE, .dest = &format, .choices = "html|text|json"},
    {.name = "base", .kind = OPT_TEXT, .dest = &base},
    {.name = "title", .kind = OPT_TEXT, .dest = &title},
    {.name = "prompts", .kind = OPT_LIST, .dest = &named},
    {.name = "first", .kind = OPT_INT, .dest = &first, .low = 0, .high = 1e6},
    {.name = "videos", .kind = OPT_LIST, .dest = &videos},
    {.name = "run", .kind = OPT_LIST, .dest = &runs},
    {.name = "ledger", .kind = OPT_TEXT, .dest = &ledger},
    {.name = "resamples", .kind = OPT_INT, .dest = &resamples, .low = 100, .high = 1e6},
    {.name = "intersect", .kind = OPT_FLAG, .dest = &intersect},
    {0}};

static struct scores scores;
static struct pairing pairing;
static json_t *comparison, *training, *budget; /* budget: NULL without a ledger */
static char err[512];

static void read_inputs(void)
{
    for (int i = 0; i < filter.argc; i++)
        if (!scores_read(&scores, filter.argv[i], err, sizeof err)) die("%s", err);
    for (int i = 0; i < videos.count; i++)
        if (!scores_add_videos(&scores, videos.item[i], err, sizeof err)) die("--videos: %s", err);
    if (!pairing_make(&pairing, &scores, base, intersect, err, sizeof err)) die("%s", err);
    if (!(comparison = comparison_make(&pairing, resamples, (uint64_t)filter.seed))) die("out of memory");

    struct run *run = calloc((size_t)runs.count + 1, sizeof *run);
    if (!run) die("out of memory");
    for (int i = 0; i < runs.count; i++) run[i].path = runs.item[i];
    name_runs(run, runs.count);
    training = json_array();
    for (int i = 0; i < runs.count; i++) {
        json_t *row = table_row(run[i].name, run[i].path, err, sizeof err);
        if (!row) die("--run %s", err);
        json_array_append_new(training, row);
    }
    free(run);
    if (ledger && !(budget = budget_read(ledger, err, sizeof err))) die("--ledger %s", err);
    long long lost = json_integer_value(json_object_get(budget, "unreadable"));
    if (lost)
        say(ledger, "%lld lines are none of a ledger's, as a killed worker may leave them, and do not count",
            lost);
}

static bool is_prompt(const char *name)
{
    for (size_t i = 0; i < pairing.n; i++)
        if (!strcmp(pairing.prompt[i], name)) return true;
    return false;
}

/* Those that are named, in that order; a whole --prompts may be one whose key has commas. */
static json_t *choose_prompts(void)
{
    json_t *chosen = json_array();
    for (int64_t i = 0; !named.count && i < first && (size_t)i < pairing.n; i++)
        json_array_append_new(chosen, json_string(pairing.prompt[i]));
    for (int i = 0; i < named.count; i++) {
        char *list = strdup(named.item[i]), *rest = list, *name = list;
        bool whole = is_prompt(named.item[i]);
        while (list && (name = whole ? rest : strsep(&rest, ","))) {
            if (!is_prompt(name)) die("--prompts: no prompt of all runs is called `%s`", name);
            json_array_append_new(chosen, json_string(name));
            if (whole) break;
        }
        free(list);
    }
    return chosen;
}

/* ---- pictures ------------------------------------------------------------------------------------------ */

static struct picture draw_chart(enum chart chart)
{
    struct picture p = {0};
    int rows = chart_rows(chart, comparison);
    if (!rows) return p;
    FILE *script = tmpfile(), *f = open_memstream(&p.bytes, &p.size);
    if (!script || !f) die("a temporary file: %s", strerror(errno));
    chart_script(script, chart, true, 1000, chart_height(rows), comparison);
    if (!gnuplot_draw(script, f, err, sizeof err)) die("%s", err);
    fclose(script);
    if (fclose(f)) die("out of memory");
    return p;
}

/* Eight frames of a video side by side, as a PNG. */
static bool draw_strip(struct picture *p, const char *path)
{
    struct sheet sheet = {0};
    FILE *f = open_memstream(&p->bytes, &p->size);
    if (!f) die("out of memory");
    bool good = sheet_add_file(&sheet, path, err, sizeof err) && sheet_put(&sheet, f, err, sizeof err);
    if (fclose(f)) die("out of memory");
    sheet_free(&sheet);
    return good;
}

/* ---- the page ------------------------------------------------------------------------------------------ */

/* One video of a run: its scores, and what it looks like. */
static void write_video(FILE *f, const struct variant *v, const struct score *s)
{
    struct picture strip = {0};
    char line[64];
    fputs("<figure><figcaption><b class=\"text\">", f);
    html_text(f, v->name);
    snprintf(line, sizeof line, "SA %d, PC %d%s", s->sa, s->pc, s->sa >= 4 && s->pc >= 4 ? ", Joint" : "");
    fprintf(f, "</b> %s</figcaption>\n", line);
    if (s->path && draw_strip(&strip, s->path)) {
        html_picture(f, "image/png", strip.bytes, strip.size, v->name);
        filter.done++;
    } else if (s->path) {
        filter_fail_at(s->path, "%s", err);
        html_element(f, "p", "missing", err);
    }
    fputs("</figure>\n", f);
    free(strip.bytes);
}

static void write_prompt(FILE *f, const char *name)
{
    json_t *about = json_object_get(scores.prompts, name);
    const char *caption = json_string_value(json_object_get(about, "caption"));
    const char *action = json_string_value(json_object_get(about, "action"));
    fputs("<section>\n<h3>Prompt <span class=\"text\">", f);
    html_text(f, name);
    fputs("</span></h3>\n", f);
    if (caption) html_element(f, "p", "text", caption);
    if (action) html_element(f, "p", "note text", action);
    for (int i = -1; i < scores.count; i++) { /* the base comes first */
        const struct variant *v = &scores.variant[i < 0 ? pairing.base : i];
        for (size_t k = 0; i != pairing.base && k < v->count; k++)
            if (!strcmp(v->score[k].prompt, name)) write_video(f, v, &v->score[k]);
    }
    fputs("</section>\n", f);
}

static void write_page(FILE *f)
{
    struct picture bars = draw_chart(CHART_BARS), forest = draw_chart(CHART_FOREST);
    json_t *prompts = choose_prompts(), *name;
    size_t i;
    html_open(f, title);
    page_results(f, title, comparison, &bars, &forest);
    page_training(f, training);
    page_budget(f, budget);
    if (json_array_size(prompts)) html_element(f, "h2", NULL, "Videos");
    json_array_foreach (prompts, i, name) write_prompt(f, json_string_value(name));
    page_settings(f, &scores);
    fputs("<footer>Made by report (sluice) " SLUICE_VERSION ".</footer>\n", f);
    html_close(f);
    json_decref(prompts);
    free(bars.bytes);
    free(forest.bytes);
}

/* ---- text and JSON --------------------------------------------------------------------------------------
 */

static void print_table(FILE *f, const char *heading, json_t *rows_stolen, size_t left)
{
    fprintf(f, "\n%s\n\n", heading);
    columns_print(f, rows_stolen, left);
    json_decref(rows_stolen);
}

static void write_text(FILE *f)
{
    json_t *shared, *differing;
    put_plain(f, title);
    fputs("\n\n", f);
    comparison_print(f, comparison);
    if (json_array_size(training)) print_table(f, "Training", table_texts(training), 2);
    if (budget) print_table(f, "What it cost", budget_phases(budget), 1);
    if (budget) print_table(f, "Its parts", budget_parts(budget), 2);
    settings_tables(&scores, &shared, &differing);
    print_table(f, "How the videos were made and graded: what differs", differing, SIZE_MAX);
    print_table(f, "What the runs share", shared, SIZE_MAX);
}

static void write_json(FILE *f)
{
    json_t *provenance = json_object();
    for (int i = 0; i < scores.count; i++)
        json_object_set(provenance, scores.variant[i].name, scores.variant[i].ways);
    json_t *all = json_pack("{s:s, s:O, s:O, s:O*, s:o}", "version", SLUICE_VERSION, "comparison", comparison,
                            "training", training, "budget", budget, "provenance", provenance);
    json_dumpf(all, f, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    fputs("\n", f);
    json_decref(all);
}

static void put_page(const struct picture *page)
{
    struct atomic_file file = {.f = stdout};
    if (output && !atomic_open(&file, output, err, sizeof err)) die("%s", err);
    bool good = fwrite(page->bytes, 1, page->size, file.f) == page->size;
    if (output && !atomic_commit(&file, err, sizeof err)) die("%s", err);
    if (!good) die("stdout: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    char untitled[512];
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS | FILTER_SEED);
    if (!base) usage_error("--base is required");
    if (!filter.argc) usage_error("no scores to report: name a file");
    bool html = !strcmp(format, "html");
    if (html && !output && isatty(1)) usage_error("a page is not for a terminal: use -o FILE");
    read_inputs();
    snprintf(untitled, sizeof untitled, "Comparison with %s", base);
    if (!title) title = untitled;

    struct picture page = {0};
    FILE *f = open_memstream(&page.bytes, &page.size);
    if (!f) die("out of memory");
    (html ? write_page : !strcmp(format, "text") ? write_text : write_json)(f);
    if (fclose(f)) die("out of memory");
    put_page(&page);
    free(page.bytes);
    json_decref(comparison);
    json_decref(training);
    json_decref(budget);
    pairing_free(&pairing);
    scores_free(&scores);
    return filter_finish();
}
