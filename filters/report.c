/* report - an experiment as one page: tables, pictures, how the runs were made, what they cost, and what they
 * made of some prompts.
 *
 * The page is written when it is whole. A video that cannot be read is told in its place, and counted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/filter.h"
#include "filters/reporting/budget.h"
#include "filters/reporting/comparison.h"
#include "filters/reporting/curves.h"
#include "filters/reporting/page.h"
#include "filters/reporting/table.h"
#include "formats/atomic.h"
#include "formats/io.h"
#include "formats/listed.h"

static const char help[] =
    "report - a comparison as one HTML page that needs nothing else, as text or as JSON\n"
    "usage: report --base NAME [options] FILE... >page.html\n"
    "  -o, --output FILE    where to                                   [stdout]\n"
    "      --format FORMAT  html | text | json                         [html]\n"
    "      --base NAME      the run to compare with                   required\n"
    "      --title TEXT     of the page                                [Comparison with NAME]\n"
    "      --prompts KEYS   comma-separated: show every run's videos of these; may be repeated  [--first]\n"
    "      --first N        prompts that are shown when none are named [4]\n"
    "      --videos NAME=LIST   where a run's videos are, as encode-mp4 lists them  [the path beside each score]\n"
    "      --embed KB       a video of at most so many kB is in the page, to be played; a larger one is linked  [1000]\n"
    "      --run DIR        a training run's folder, for the table of training; may be repeated  [none]\n"
    "      --ledger DIR     of the pipelines, for the table of costs  [none]\n"
    "      --by FIELD       also for each value of a field of the prompts, as compare does it  [none]\n"
    "      --where FIELD=VALUE  only prompts with this value; may be given again, and all must hold  [all]\n"
    "      --resamples N    of the bootstrap                           [5000]\n"
    "      --intersect      leave out prompts that a run lacks; average unequal repeats  [an error]\n"
    "COMMON\n"
    "input   scores in the forms that compare takes\n"
    "output  tables and charts of compare and plot, the videos side by side and eight frames of each, the settings that\n"
    "        the inputs state; no scripts, no network. As text, the tables. As JSON {\"comparison\": compare's, \"training\":\n"
    "        rows of plot --table, \"budget\", \"misfits\": sentences about adapters whose objective the scheduler\n"
    "        does not fit, \"provenance\": {run: [{\"settings\", \"outputs\": made so}]}}.\n"
    "        The same inputs give the same bytes\n"
    "exit    0 written, 1 something failed, such as a video that cannot be shown (gnuplot must be there), 2 wrong usage\n"
    "e.g.    report --base base --prompts 12,80 base.jsonl k1.jsonl >page.html      see also: compare, plot, grade\n";

static struct report report;
static const char *base, *output, *format = "html", *ledger, *by;
static struct text_list named, videos, runs, where;
static int64_t first = 4, resamples = 5000, embed = 1000;
static bool intersect;

static const struct option_spec options[] = {
    {.name = "output", .letter = 'o', .kind = OPT_TEXT, .dest = &output},
    {.name = "format", .kind = OPT_CHOICE, .dest = &format, .choices = "html|text|json"},
    {.name = "base", .kind = OPT_TEXT, .dest = &base},
    {.name = "title", .kind = OPT_TEXT, .dest = &report.title},
    {.name = "prompts", .kind = OPT_LIST, .dest = &named},
    {.name = "first", .kind = OPT_INT, .dest = &first, .low = 0, .high = 1e6},
    {.name = "videos", .kind = OPT_LIST, .dest = &videos},
    {.name = "embed", .kind = OPT_INT, .dest = &embed, .low = 0, .high = 1e6},
    {.name = "run", .kind = OPT_LIST, .dest = &runs},
    {.name = "ledger", .kind = OPT_TEXT, .dest = &ledger},
    {.name = "by", .kind = OPT_TEXT, .dest = &by},
    {.name = "where", .kind = OPT_LIST, .dest = &where},
    {.name = "resamples", .kind = OPT_INT, .dest = &resamples, .low = 100, .high = 1e6},
    {.name = "intersect", .kind = OPT_FLAG, .dest = &intersect},
    {0}};

static char err[512];

static void read_scores(void)
{
    struct scores *scores = &report.scores;
    for (int i = 0; i < filter.argc; i++)
        if (!scores_read(scores, filter.argv[i], err, sizeof err)) die("%s", err);
    for (int i = 0; i < videos.count; i++)
        if (!scores_add_videos(scores, videos.item[i], err, sizeof err)) die("--videos: %s", err);
    json_t *chosen = comparison_choose(scores, where.item, where.count, err, sizeof err);
    if (!chosen) die("--where: %s", err);
    if (!pairing_make(&report.pairing, scores, base, intersect, err, sizeof err)) die("%s", err);
    report.comparison = comparison_make(&report.pairing, resamples, (uint64_t)filter.seed);
    if (!report.comparison) die("out of memory");
    if (where.count) json_object_set(report.comparison, "where", chosen);
    if (by && !comparison_add_groups(report.comparison, &report.pairing, by, err, sizeof err))
        die("--by: %s", err);
    json_decref(chosen);
}

static void read_runs(void)
{
    struct curve *run = calloc((size_t)runs.count + 1, sizeof *run);
    if (!run) die("out of memory");
    for (int i = 0; i < runs.count; i++) run[i].path = runs.item[i];
    name_curves(run, runs.count);
    report.training = json_array();
    for (int i = 0; i < runs.count; i++) {
        json_t *row = table_row(run[i].name, run[i].path, err, sizeof err);
        if (!row) die("--run %s", err);
        json_array_append_new(report.training, row);
    }
    free(run);
}

static void read_ledger(void)
{
    if (!(report.budget = budget_read(ledger, err, sizeof err))) die("--ledger %s", err);
    long long lost = json_integer_value(json_object_get(report.budget, "unreadable"));
    if (lost)
        say(ledger, "%lld lines are none of a ledger's, as a killed worker may leave them, and do not count",
            lost);
}

static bool is_prompt(const char *name)
{
    for (size_t i = 0; i < report.pairing.n; i++)
        if (!strcmp(report.pairing.prompt[i], name)) return true;
    return false;
}

/* Those that are named, in that order; a whole --prompts may be one whose key has commas. */
static void choose_prompts(void)
{
    json_t *chosen = report.prompts = json_array();
    for (int64_t i = 0; !named.count && i < first && (size_t)i < report.pairing.n; i++)
        json_array_append_new(chosen, json_string(report.pairing.prompt[i]));
    for (int i = 0; i < named.count; i++) {
        char *list = strdup(named.item[i]), *rest = list, *name = list;
        bool whole = is_prompt(named.item[i]);
        if (!list) die("out of memory");
        while ((name = whole ? rest : strsep(&rest, ","))) {
            struct listed l = listed_start(name);
            for (size_t k = 0; k < report.pairing.n; k++) listed_add(&l, report.pairing.prompt[k]);
            if (!is_prompt(name))
                die("--prompts: no prompt of all runs is called `%s`: %s", name, listed_end(&l));
            json_array_append_new(chosen, json_string(name));
            if (whole) break;
        }
        free(list);
    }
}

static void told(const char *path, const char *why)
{
    if (why)
        filter_fail_at(path, "%s", why);
    else
        filter.done++;
}

static void put(const char *page, size_t size)
{
    struct atomic_file file = {.f = stdout};
    if (output && !atomic_open(&file, output, err, sizeof err)) die("%s", err);
    bool good = fwrite(page, 1, size, file.f) == size;
    if (output && !atomic_commit(&file, err, sizeof err)) die("%s", err);
    if (!good) die("stdout: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    char title[512], *page = NULL;
    size_t size = 0;
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS | FILTER_SEED);
    if (!base) usage_error("--base is required");
    if (!filter.argc) usage_error("no scores to report: name a file");
    bool html = !strcmp(format, "html");
    if (html && !output && isatty(1)) usage_error("a page is not for a terminal: use -o FILE");
    filter_checked();
    snprintf(title, sizeof title, "Comparison with %s", base);
    if (!report.title) report.title = title;
    report.path = output;
    report.embed = 1000 * embed;
    read_scores();
    read_runs();
    if (ledger) read_ledger();
    choose_prompts();

    FILE *f = open_memstream(&page, &size);
    if (!f) die("out of memory");
    if (html && !page_html(f, &report, told, err, sizeof err)) die("%s", err);
    if (!strcmp(format, "text")) page_text(f, &report);
    if (!strcmp(format, "json")) page_json(f, &report);
    if (!close_memory(f, &page)) die("out of memory");
    put(page, size);
    free(page);
    json_decref(report.comparison);
    json_decref(report.training);
    json_decref(report.budget);
    json_decref(report.prompts);
    pairing_free(&report.pairing);
    scores_free(&report.scores);
    return filter_finish();
}
