/* compare - are the runs better than the base, and is it more than chance? */
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/reporting/comparison.h"
#include "filters/reporting/results.h"
#include "filters/reporting/settings.h"
#include "formats/atomic.h"

static const char help[] =
    "compare - scores of runs against those of a base, prompt by prompt\n"
    "usage: compare --base NAME [options] FILE... >table\n"
    "      --base NAME      the run to compare with                   required\n"
    "      --format FORMAT  table | json                              [table]\n"
    "      --by FIELD       also for each value of a field of the prompts, such as action  [none]\n"
    "      --where FIELD=VALUE  only prompts with this value; empty: without one; may be given again,\n"
    "                       and all must hold                          [all]\n"
    "      --resamples N    of the bootstrap                          [5000]\n"
    "      --intersect      leave out prompts that a run lacks; average unequal repeats  [an error]\n"
    "      --mixed          compare runs of which sample's --compute-steps or --guidance-steps differ, or --dtype where one\n"
    "                       is fp8: their cost is the question, not a difference beside it                [an error]\n"
    "      --results FILE   also write the scores as published results; without a FILE, read these\n"
    "      --run DIR        for these, a training run's folder, of the name of its run; may be given again  [none]\n"
    "      --data TEXT      for these, what the runs were trained on           [not known]\n"
    "      --store DIR      for these, the store of that                       [not known]\n"
    "      --csv DIR        also write DIR/RUN/scores_sa.csv and scores_pc.csv in the grader's own form  [none]\n"
    "COMMON\n"
    "input   FILE: JSON lines of `grade`, a run that is called by the file's name (NAME=FILE: by that name);\n"
    "        a CSV with the columns variant, prompt_id or key, sa, pc; or published results.\n"
    "        NAME=SA.csv,PC.csv: the grader's own form, `,caption,videopath,score`. Pipes work: NAME=/dev/stdin\n"
    "        Runs are paired by prompt: prompt_id, else key. Scores of one prompt that differ in key or seed are\n"
    "        averaged first; a key that comes again with the same seed is an error.\n"
    "        A field is any text, number, true or false that a line, a column or an item of `prompts` has beside\n"
    "        the scores; it must be one for all runs, of which one may tell it for all\n"
    "stdout  Joint (SA >= 4 and PC >= 4), SA and PC of each run, and how they differ from the base's: 95 % intervals\n"
    "        of a bootstrap over prompts; for Joint b, c (only the base, only the run has it), McNemar's test, exact and\n"
    "        as chi-square with continuity correction, Holm's correction over the runs, and the difference that\n"
    "        so many prompts with so many disagreements show with a power of 80 %. Where none or all of a run's\n"
    "        prompts have Joint, its interval is Wilson's, marked W (\"joint_interval\": \"wilson\"). --by: Holm's\n"
    "        correction is over all tests of the groups\n"
    "exit    0 compared, 1 something failed, 2 wrong usage\n"
    "e.g.    compare --base base base.jsonl k1.jsonl k5.jsonl           see also: grade, plot, report\n";

int main(int argc, char **argv)
{
    const char *base = NULL, *format = "table", *results = NULL, *data = NULL, *store = NULL, *csv = NULL;
    const char *by = NULL;
    struct text_list runs = {0}, where = {0};
    int64_t resamples = 5000;
    bool intersect = false, mixed = false;
    char err[512];
    const struct option_spec options[] = {
        {.name = "base", .kind = OPT_TEXT, .dest = &base},
        {.name = "format", .kind = OPT_CHOICE, .dest = &format, .choices = "table|json"},
        {.name = "by", .kind = OPT_TEXT, .dest = &by},
        {.name = "where", .kind = OPT_LIST, .dest = &where},
        {.name = "resamples", .kind = OPT_INT, .dest = &resamples, .low = 100, .high = 1e6},
        {.name = "intersect", .kind = OPT_FLAG, .dest = &intersect},
        {.name = "mixed", .kind = OPT_FLAG, .dest = &mixed},
        {.name = "results", .kind = OPT_TEXT, .dest = &results},
        {.name = "run", .kind = OPT_LIST, .dest = &runs},
        {.name = "data", .kind = OPT_TEXT, .dest = &data},
        {.name = "store", .kind = OPT_TEXT, .dest = &store},
        {.name = "csv", .kind = OPT_TEXT, .dest = &csv},
        {0}};
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS | FILTER_SEED);
    if (!base) usage_error("--base is required");
    if (!filter.argc && !results) usage_error("no scores to compare: name a file");
    if ((runs.count || data || store) && !(filter.argc && results))
        usage_error("--run, --data and --store are for --results that are written");
    for (int i = 0; i < where.count; i++)
        if (!strchr(where.item[i], '=')) usage_error("--where wants FIELD=VALUE, not `%s`", where.item[i]);
    filter_checked();

    struct scores scores = {0};
    struct pairing pairing;
    if (!filter.argc && !scores_read(&scores, results, err, sizeof err)) die("%s", err);
    for (int i = 0; i < filter.argc; i++)
        if (!scores_read(&scores, filter.argv[i], err, sizeof err)) die("%s", err);
    json_t *chosen = comparison_choose(&scores, where.item, where.count, err, sizeof err);
    if (!chosen) die("--where: %s", err);
    if (!mixed && !settings_approximate_alike(&scores, err, sizeof err))
        die("%s; --mixed compares them all the same", err);
    if (!pairing_make(&pairing, &scores, base, intersect, err, sizeof err)) die("%s", err);
    if (pairing.left_out) say(NULL, "%zu unpaired prompts left out", pairing.left_out);

    if (filter.argc && results) {
        struct atomic_file file;
        if (!results_tell_training(&scores, runs.item, runs.count, data, store, err, sizeof err))
            die("%s", err);
        json_t *published = results_make(&pairing, err, sizeof err);
        if (!published) die("%s: %s", results, err);
        if (!atomic_open(&file, results, err, sizeof err)) die("%s", err);
        json_dumpf(published, file.f,
                   JSON_INDENT(1) | JSON_REAL_PRECISION(15)); /* what cannot be written sticks to the file */
        if (!atomic_commit(&file, err, sizeof err)) die("%s", err);
        json_decref(published);
    }
    if (csv && !results_write_tables(&scores, csv, err, sizeof err)) die("%s", err);
    json_t *comparison = comparison_make(&pairing, resamples, (uint64_t)filter.seed);
    if (!comparison) die("out of memory");
    if (where.count) json_object_set(comparison, "where", chosen);
    if (by && !comparison_add_groups(comparison, &pairing, by, err, sizeof err)) die("--by: %s", err);
    json_decref(chosen);
    if (!strcmp(format, "json"))
        filter_emit_line(comparison);
    else
        comparison_print(stdout, comparison), json_decref(comparison);
    filter.done = scores.count;
    pairing_free(&pairing);
    scores_free(&scores);
    return filter_finish();
}
