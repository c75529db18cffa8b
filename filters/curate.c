/* curate - choose clips from a CSV by OpenVid's metadata, and list them as JSON lines.
 *
 * A row is dropped when one of its numbers is out of bounds (a missing one always is), when its file is not
 * there, or when an earlier row with that video has been kept. Only the names of what is kept stay in memory;
 * a split, which needs all of them first, lets the lines wait in a temporary file. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "filters/filter.h"
#include "filters/stats/split.h"
#include "formats/csv.h"

static const char help[] =
    "curate - choose clips from a CSV and list them as JSON lines\n"
    "usage: curate [options] [FILE.csv] >clips.jsonl\n"
    "      --videos DIR     path is DIR/video; drop what is not there [path is video]\n"
    "      --no-filter      no bounds: any CSV with video and caption [off]\n"
    "      --min-motion X   motion score, at least                    [1]\n"
    "      --min-aesthetic X   aesthetic score, at least              [5]\n"
    "      --min-seconds X  length, at least                          [6.5]\n"
    "      --max-seconds X  length, at most                           [30]\n"
    "      --split PART     train | val: that part of what is kept    [all of it]\n"
    "      --fraction X     of what is kept is val, rounded down      [0.05]\n"
    "      --split-seed N   of the shuffle                            [0]\n"
    "COMMON\n"
    "stdin   the CSV, unless a file is named. Columns go by name, in any order, a space equals an underscore:\n"
    "        video, caption, motion score, aesthetic score, seconds and what else there is\n"
    "stdout  JSON lines in the CSV's order: key (the video), path, caption and OpenVid's other columns\n"
    "exit    0 every row was read, 1 something failed, 2 wrong usage\n"
    "e.g.    curate --videos clips --split train OpenVid-1M.csv | decode >train.mp\n"
    "see also: decode, prompts\n";

enum { MOTION, AESTHETIC, SECONDS, BOUNDS, MISSING = BOUNDS, AGAIN, RULES };
static struct bound {
    const char *column;
    double low, high; /* NaN: not given */
    double default_low, default_high;
} bound[BOUNDS] = {[MOTION] = {"motion score", NAN, NAN, 1, INFINITY},
                   [AESTHETIC] = {"aesthetic score", NAN, NAN, 5, INFINITY},
                   [SECONDS] = {"seconds", NAN, NAN, 6.5, 30}};
static const char *videos, *split;
static bool no_filter;
static double fraction = NAN;
static int64_t split_seed = -1;

static const struct option_spec options[] = {
    {.name = "videos", .kind = OPT_TEXT, .dest = &videos},
    {.name = "no-filter", .kind = OPT_FLAG, .dest = &no_filter},
    {.name = "min-motion", .kind = OPT_REAL, .dest = &bound[MOTION].low},
    {.name = "min-aesthetic", .kind = OPT_REAL, .dest = &bound[AESTHETIC].low},
    {.name = "min-seconds", .kind = OPT_REAL, .dest = &bound[SECONDS].low},
    {.name = "max-seconds", .kind = OPT_REAL, .dest = &bound[SECONDS].high},
    {.name = "split", .kind = OPT_CHOICE, .dest = &split, .choices = "train|val"},
    {.name = "fraction", .kind = OPT_REAL, .dest = &fraction, .low = 0, .high = 1},
    {.name = "split-seed", .kind = OPT_INT, .dest = &split_seed, .low = 0, .high = 9e18},
    {0}};

static int64_t dropped[RULES];
static struct frame table = FRAME_INIT; /* its key, the CSV's name, starts the messages about rows */
static json_t *kept;                    /* the names, in the CSV's order */
static FILE *waiting;

/* Defaults apply where nothing was given; an option that would do nothing is refused. */
static void settle_options(void)
{
    if (filter.argc > 1) usage_error("one CSV at a time, not `%s` also", filter.argv[1]);
    if (!split && (!isnan(fraction) || split_seed >= 0))
        usage_error("--fraction and --split-seed go with --split");
    if (isnan(fraction)) fraction = 0.05;
    if (split_seed < 0) split_seed = 0;
    for (struct bound *b = bound; b < bound + BOUNDS; b++) {
        if (no_filter && !(isnan(b->low) && isnan(b->high)))
            usage_error("--no-filter leaves no bounds to set");
        if (isnan(b->low)) b->low = b->default_low;
        if (isnan(b->high)) b->high = b->default_high;
        if (b->low > b->high) usage_error("no %s are from %g to %g", b->column, b->low, b->high);
    }
    struct stat info;
    if (videos && stat(videos, &info)) die("%s: %s", videos, strerror(errno));
    if (videos && !S_ISDIR(info.st_mode)) die("%s: not a folder", videos);
}

static struct csv *open_table(const char *name)
{
    char err[512];
    int fd = filter.argc ? open(name, O_RDONLY | O_CLOEXEC) : 0;
    if (fd < 0) die("%s: %s", name, strerror(errno));
    struct csv *c = csv_open(fd, err, sizeof err);
    if (!c) die("%s: %s", name, err);
    for (const char **need = (const char *[]){"video", "caption", NULL}; *need; need++)
        if (csv_column(c, *need) < 0) die("%s: line %lld: no column `%s`", name, (long long)c->line, *need);
    for (int i = 0; i < (no_filter ? 0 : BOUNDS); i++)
        if (csv_column(c, bound[i].column) < 0)
            die("%s: line %lld: no column `%s` (--no-filter does without)", name, (long long)c->line,
                bound[i].column);
    return c;
}

static const char *cell(const struct csv *c, const char *column)
{
    int i = csv_column(c, column);
    return i < 0 ? "" : c->field[i];
}

/* The row as a JSON line, with what OpenVid says about the clip; numbers become numbers. NULL: a path is not
 * UTF-8. */
static json_t *clip_json(const struct csv *c)
{
    static const char *const number[] = {"aesthetic_score", "motion_score", "temporal_consistency_score",
                                         "frame",           "fps",          "seconds"};
    const char *video = cell(c, "video"), *camera = cell(c, "camera_motion");
    const char *slash = videos && *videos && videos[strlen(videos) - 1] == '/' ? "" : "/";
    json_t *path = videos ? json_sprintf("%s%s%s", videos, slash, video) : json_string(video);
    json_t *line = json_pack("{s:s, s:o, s:s}", "key", video, "path", path, "caption", cell(c, "caption"));
    double v;
    for (size_t i = 0; i < sizeof number / sizeof number[0]; i++)
        if (csv_number(cell(c, number[i]), &v)) {
            bool whole = v == floor(v) && fabs(v) < 1e15;
            json_object_set_new(line, number[i], whole ? json_integer((json_int_t)v) : json_real(v));
        }
    if (*camera) json_object_set_new(line, "camera_motion", json_string(camera));
    return line;
}

/* The rule that drops the row; RULES when none does. */
static int judge(const struct csv *c, const char *path)
{
    double v;
    struct stat info;
    for (int i = 0; i < (no_filter ? 0 : BOUNDS); i++)
        if (!csv_number(cell(c, bound[i].column), &v) || v < bound[i].low || v > bound[i].high) return i;
    if (videos && (stat(path, &info) || !S_ISREG(info.st_mode))) return MISSING;
    return json_object_get(kept, cell(c, "video")) ? AGAIN : RULES;
}

static void take(const struct csv *c)
{
    json_t *line = *cell(c, "video") ? clip_json(c) : NULL;
    if (!line) {
        filter_fail(&table, "line %lld: %s", (long long)c->line,
                    *cell(c, "video") ? "a path that is not UTF-8" : "no video");
        return;
    }
    int rule = judge(c, json_string_value(json_object_get(line, "path")));
    if (rule < RULES) {
        dropped[rule]++;
        json_decref(line);
        return;
    }
    if (json_object_set_new(kept, cell(c, "video"), json_true())) die("out of memory");
    if (!split) {
        filter_emit_line(line);
    } else {
        if (json_dumpf(line, waiting, JSON_COMPACT) || putc('\n', waiting) < 0)
            die("temporary file: %s", strerror(errno));
        json_decref(line);
    }
}

/* Writes the lines of the part that was asked for. */
static void emit_part(void)
{
    size_t n = json_object_size(kept), i = 0;
    const char **name = calloc(n + 1, sizeof *name), *key;
    bool *in_val = calloc(n + 1, sizeof *in_val);
    json_t *unused;
    if (!name || !in_val) die("out of memory");
    json_object_foreach (kept, key, unused) name[i++] = key;
    size_t val = split_mark(in_val, name, n, fraction, (uint64_t)split_seed);
    if (val > n) die("out of memory");

    if (fflush(waiting) || fseek(waiting, 0, SEEK_SET)) die("temporary file: %s", strerror(errno));
    for (i = 0; i < n; i++) {
        json_t *line = json_loadf(waiting, JSON_DISABLE_EOF_CHECK, NULL);
        if (!line) die("temporary file: line %zu does not come back", i + 1);
        if (in_val[i] == !strcmp(split, "val"))
            filter_emit_line(line);
        else
            json_decref(line);
    }
    say(NULL, "split: %zu in train, %zu in val", n - val, val);
    free(name);
    free(in_val);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS);
    settle_options();
    const char *name = filter.argc ? filter.argv[0] : "stdin";
    struct csv *c = open_table(name);
    frame_new(&table, name);
    kept = json_object();
    if (split && !(waiting = tmpfile())) die("temporary file: %s", strerror(errno));

    int64_t rows = 0;
    for (enum csv_got got; (got = csv_next(c)) != CSV_END; rows++) {
        if (got == CSV_DAMAGED) die("%s: %s", name, c->error);
        if (got == CSV_BAD_ROW)
            filter_fail(&table, "%s", c->error);
        else
            take(c);
        progress("row %lld", (long long)rows);
    }
    say(NULL,
        "%lld rows: %zu kept; dropped: %lld by motion, %lld by aesthetic, %lld by seconds, %lld not there, %lld again",
        (long long)rows, json_object_size(kept), (long long)dropped[MOTION], (long long)dropped[AESTHETIC],
        (long long)dropped[SECONDS], (long long)dropped[MISSING], (long long)dropped[AGAIN]);
    if (split) emit_part();
    csv_close(c);
    frame_free(&table);
    json_decref(kept);
    return filter_finish();
}
