/* plot - training runs side by side: a picture of losses, learning rate and gradient norm, or a table; and
 * what compare says as a picture. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/filter.h"
#include "filters/reporting/charts.h"
#include "filters/reporting/comparison.h"
#include "filters/reporting/curves.h"
#include "filters/reporting/table.h"
#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/gnuplot.h"
#include "formats/io.h"
#include "formats/path.h"

static const char help[] =
    "plot - draw training runs: losses, learning rate and gradient norm; or list them; or draw comparisons\n"
    "usage: plot [options] [RUN|FILE]... >picture\n"
    "       plot --kind bars|forest [options] [FILE] >picture\n"
    "       plot --table [--json] RUN... >table\n"
    "  -o, --output FILE    where to                                   [stdout]\n"
    "      --format FORMAT  png | svg | pdf                            [as FILE ends, else png]\n"
    "      --size WxH       in pixels; of a PDF, 96 to the inch        [1400x900; of comparisons 1400 and by rows]\n"
    "      --kind KIND      curves: of training runs; of `compare --format json`, bars: Joint, SA and PC of each\n"
    "                       run, or forest: how they differ from the base; both with 95 % intervals;\n"
    "                       (shaded: too small to be shown with a power of 80 %)  [curves]\n"
    "      --table          text instead: adapter, trainable parameters, seconds a step, where a run stopped, the\n"
    "                       best validation loss, its step, and how much lower than the first it is, with\n"
    "                       the standard error over the triples that both were taken on\n"
    "      --json           the table as JSON lines\n"
    "COMMON\n"
    "input   metrics.jsonl as train-step writes it: files, run folders, or stdin when none is named. A run's\n"
    "        name is its folder's. Training loss and gradient norm are drawn as their running mean, and of one\n"
    "        or two runs also raw and faint. --table reads run folders: state.safetensors, best.safetensors, metrics.jsonl, speed.json.\n"
    "exit    0 drawn, 1 something failed (gnuplot must be there), 2 wrong usage\n"
    "e.g.    plot -o loss.png run-standard run-gdn_cssm              see also: train-step\n";

/* All of a file, or of stdin (NULL), as a file that can be read once more. What may not block, by the doing
 * of another process that shares it, is waited for, where stdio would take that for its end. */
static FILE *open_input(const char *path)
{
    char some[1 << 16];
    ssize_t n = -1;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : 0;
    FILE *copy = fd < 0 ? NULL : tmpfile();
    while (copy && (n = read_full(fd, some, sizeof some)) > 0 &&
           fwrite(some, 1, (size_t)n, copy) == (size_t)n)
        continue;
    if (n != 0 || fflush(copy) || fseek(copy, 0, SEEK_SET))
        die("%s: %s", path ? path : "stdin", strerror(errno));
    if (path) close(fd);
    return copy;
}

/* The comparison that the input is; NULL with the reason in err. */
static json_t *read_comparison(FILE *in, char *err, size_t errlen)
{
    json_error_t e;
    json_t *comparison = json_loadf(in, JSON_REJECT_DUPLICATES, &e);
    if (!comparison)
        fail(err, errlen, "line %d: %s", e.line, e.text);
    else if (comparison_check(comparison, err, errlen))
        return comparison;
    json_decref(comparison);
    return NULL;
}

static void read_run(struct curve *run, const char *path)
{
    char file[4096], err[512], why_not[512];
    enum path_kind kind = path ? path_kind(path, err, sizeof err) : PATH_FILE;
    if (kind == PATH_UNKNOWN) die("%s", err);
    bool is_folder = kind == PATH_FOLDER;
    snprintf(file, sizeof file, "%s%s", path ? path : "stdin", is_folder ? "/metrics.jsonl" : "");
    FILE *in = is_folder ? open_regular(file, err, sizeof err) : open_input(path ? file : NULL);
    if (!in) die("%s", err);
    if (!metrics_read(&run->m, in, file, err, sizeof err)) {
        rewind(in);
        json_t *comparison = read_comparison(in, why_not, sizeof why_not);
        if (comparison)
            fail(err, sizeof err,
                 "%.400s: a comparison: say which picture of it with --kind bars or --kind forest", file);
        json_decref(comparison);
        die("%s", err);
    }
    fclose(in);
}

static void list_runs(const struct curve *run, int runs, bool json)
{
    char err[512];
    json_t *rows = json_array();
    for (int i = 0; i < runs; i++) {
        json_t *row = table_row(run[i].name, run[i].path, err, sizeof err);
        if (!row)
            filter_fail_at(NULL, "%s", err);
        else if (json)
            filter_emit_line(row);
        else
            json_array_append_new(rows, row), filter.done++;
    }
    if (!json) table_print(stdout, rows);
    json_decref(rows);
}

/* The script of all runs' curves. */
static void draw_runs(FILE *script, enum gnuplot_format format, struct size size, struct curve *run, int runs)
{
    int points = 0; /* runs that have any */
    for (int i = 0; i < runs; i++) {
        read_run(&run[i], filter.argv[i]);
        points += run[i].m.steps + run[i].m.evaluations > 0;
    }
    if (!points) die("%s: no steps yet: there is nothing to draw", run[0].path);
    if (!size.width) size = (struct size){1400, 900};
    curves_script(script, format, size.width, size.height, run, runs);
    for (int i = 0; i < runs; i++) metrics_free(&run[i].m);
}

static void draw_comparison(FILE *script, enum gnuplot_format format, struct size size, enum chart chart,
                            const char *path)
{
    char err[512];
    FILE *in = open_input(path);
    const char *name = path ? path : "stdin";
    json_t *comparison = read_comparison(in, err, sizeof err);
    if (!comparison) die("%s: %s", name, err);
    if (!chart_rows(chart, comparison)) die("%s: nothing but the base: there is nothing to draw", name);
    if (!size.width) size = (struct size){1400, chart_height(chart, comparison, format, 1400)};
    chart_script(script, chart, format, size.width, size.height, comparison);
    json_decref(comparison);
    fclose(in);
}

static void write_picture(FILE *script, const char *output)
{
    char err[512];
    struct atomic_file file = {.f = stdout};
    if (output && !atomic_open(&file, output, err, sizeof err)) die("%s", err);
    if (!gnuplot_draw(script, file.f, err, sizeof err)) {
        if (output) atomic_abort(&file);
        die("%s: %s", output ? output : "stdout", err);
    }
    if (output && !atomic_commit(&file, err, sizeof err)) die("%s", err);
}

/* In the order of enum gnuplot_format. */
#define FORMATS "png|svg|pdf"

/* As named, or as the file's name ends. */
static enum gnuplot_format format_of(const char *format, const char *output)
{
    const char *dot = output ? strrchr(output, '.') : NULL;
    if (!dot || strchr(dot, '/')) dot = ".png";
    const char *name = format ? format : dot + 1, *at = *name ? strstr(FORMATS, name) : NULL;
    if (!at || strlen(name) != 3)
        usage_error("%s is neither .png nor .svg nor .pdf: say which with --format", output);
    return (enum gnuplot_format)((at - FORMATS) / 4);
}

int main(int argc, char **argv)
{
    const char *output = NULL, *format = NULL, *kind = "curves";
    struct size size = {0};
    bool table = false, json = false;
    const struct option_spec options[] = {
        {.name = "output", .letter = 'o', .kind = OPT_TEXT, .dest = &output},
        {.name = "format", .kind = OPT_CHOICE, .dest = &format, .choices = FORMATS},
        {.name = "size", .kind = OPT_SIZE, .dest = &size},
        {.name = "kind", .kind = OPT_CHOICE, .dest = &kind, .choices = "curves|bars|forest"},
        {.name = "table", .kind = OPT_FLAG, .dest = &table},
        {.name = "json", .kind = OPT_FLAG, .dest = &json},
        {0}};
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS);
    bool curves = !strcmp(kind, "curves");
    if (json && !table) usage_error("--json is for --table");
    if (table && !filter.argc) usage_error("--table needs run folders");
    if (table && (output || format || size.width || !curves))
        usage_error("--table is text on stdout, not a picture");
    if (!curves && filter.argc > 1) usage_error("one comparison at a time, not `%s` also", filter.argv[1]);
    if (!table && !output && isatty(1)) usage_error("a picture is not for a terminal: use -o FILE");
    const enum gnuplot_format drawn = format_of(format, output);
    filter_checked();

    int runs = filter.argc ? filter.argc : 1;
    struct curve *run = calloc((size_t)runs, sizeof *run);
    FILE *script = tmpfile();
    if (!run) die("out of memory");
    if (!script) die("a temporary file: %s", strerror(errno));
    for (int i = 0; i < runs; i++) run[i].path = filter.argc ? filter.argv[i] : "stdin";
    name_curves(run, runs);
    if (table)
        list_runs(run, runs, json);
    else if (curves)
        draw_runs(script, drawn, size, run, runs);
    else
        draw_comparison(script, drawn, size, strcmp(kind, "bars") ? CHART_FOREST : CHART_BARS,
                        filter.argv[0]);
    if (!table) {
        write_picture(script, output);
        filter.done = runs;
    }
    free(run);
    fclose(script);
    return filter_finish();
}
