/* plot - what training runs wrote in metrics.jsonl, as one picture: losses, learning rate and gradient norm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filters/filter.h"
#include "filters/stats/curves.h"
#include "formats/atomic.h"
#include "formats/gnuplot.h"

static const char help[] =
    "plot - draw training runs: losses, learning rate and gradient norm\n"
    "usage: plot [options] [RUN|FILE]... > picture\n"
    "  -o, --output FILE    where to                                   [stdout]\n"
    "      --format FORMAT  png | svg                                  [svg if FILE ends so, else png]\n"
    "      --size WxH       in pixels                                  [1400x900]\n"
    "COMMON\n"
    "input   metrics.jsonl as train-step writes it: files, run folders, or stdin when none is named. A run "
    "is called by\n"
    "        its folder. Training loss and gradient norm are drawn raw and faint, and as their running "
    "mean.\n"
    "exit    0 drawn, 1 something failed (gnuplot must be there), 2 wrong usage\n"
    "e.g.    plot -o loss.png run-standard run-gdn_cssm              see also: train-step\n";

/* runs/standard/metrics.jsonl and the folder runs/standard/ are "standard", loss.jsonl is "loss". */
static void name_run(struct run *run, bool is_folder)
{
    char part[4096];
    snprintf(part, sizeof part, "%s", run->path);
    char *slash = strrchr(part, '/');
    if (slash && !strcmp(slash, "/metrics.jsonl")) *slash = 0, is_folder = true;
    for (size_t n = strlen(part); n > 1 && part[n - 1] == '/';) part[--n] = 0;
    slash = strrchr(part, '/');
    char *last = slash && slash[1] ? slash + 1 : part, *dot = strrchr(last, '.');
    if (!is_folder && dot && dot != last) *dot = 0;
    snprintf(run->name, sizeof run->name, "%.255s", last);
}

/* stdin may not block, by the doing of another process that shares it: stdio would take that for its end. */
static ssize_t read_stdin(void *cookie, char *buf, size_t n)
{
    (void)cookie;
    return read_full(0, buf, n);
}

static void read_run(struct run *run, const char *path)
{
    char file[4096], err[512];
    struct stat st;
    bool is_folder = path && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(file, sizeof file, "%s%s", path ? path : "stdin", is_folder ? "/metrics.jsonl" : "");
    FILE *in = path ? fopen(file, "re") : fopencookie(NULL, "r", (cookie_io_functions_t){.read = read_stdin});
    if (!in) die("%s: %s", file, strerror(errno));
    if (!metrics_read(&run->m, in, file, err, sizeof err)) die("%s", err);
    fclose(in);
    run->path = path ? path : "stdin";
    name_run(run, is_folder);
}

int main(int argc, char **argv)
{
    const char *output = NULL, *format = NULL;
    struct size size = {1400, 900};
    char err[512];
    const struct option_spec options[] = {
        {.name = "output", .letter = 'o', .kind = OPT_TEXT, .dest = &output},
        {.name = "format", .kind = OPT_CHOICE, .dest = &format, .choices = "png|svg"},
        {.name = "size", .kind = OPT_SIZE, .dest = &size},
        {0}};
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS);
    if (!output && isatty(1)) usage_error("a picture is not for a terminal: use -o FILE");
    if (!format) {
        const char *dot = output ? strrchr(output, '.') : NULL;
        if (!dot || strchr(dot, '/')) dot = ".png";
        if (strcmp(dot, ".png") && strcmp(dot, ".svg"))
            usage_error("%s is neither .png nor .svg: say which with --format", output);
        format = dot + 1;
    }

    int runs = filter.argc ? filter.argc : 1, points = 0; /* points: runs that have any */
    struct run *run = calloc((size_t)runs, sizeof *run);
    FILE *script = tmpfile();
    if (!run || !script) die("a temporary file, or memory: %s", strerror(errno));
    for (int i = 0; i < runs; i++) {
        read_run(&run[i], filter.argv[i]);
        points += run[i].m.steps + run[i].m.evaluations > 0;
        for (int j = 0; j < i; j++) /* two of one name: their paths tell them apart */
            if (!strcmp(run[i].name, run[j].name)) {
                snprintf(run[i].name, sizeof run[i].name, "%s", run[i].path);
                snprintf(run[j].name, sizeof run[j].name, "%s", run[j].path);
            }
    }
    if (!points) die("%s: no steps yet: there is nothing to draw", run[0].path);
    curves_script(script, !strcmp(format, "svg"), size.width, size.height, run, runs);

    struct atomic_file file = {.f = stdout};
    if (output && !atomic_open(&file, output, err, sizeof err)) die("%s", err);
    if (!gnuplot_draw(script, file.f, err, sizeof err)) {
        if (output) atomic_abort(&file);
        die("%s: %s", output ? output : "stdout", err);
    }
    if (output && !atomic_commit(&file, err, sizeof err)) die("%s", err);
    filter.done = runs;
    for (int i = 0; i < runs; i++) metrics_free(&run[i].m);
    free(run);
    fclose(script);
    return filter_finish();
}
