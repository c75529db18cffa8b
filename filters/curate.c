/* curate - choose clips from a CSV by OpenVid's metadata, and list them as JSON lines.
 *
 * A row is dropped when one of its numbers is out of bounds (a missing one always is), when its file is not
 * there, or when an earlier row with that video has been kept. Only the names of what is kept stay in memory;
 * what needs all of them first, a split or the archives, lets the lines wait in a temporary file. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "filters/lib/filter.h"
#include "filters/clips/choice.h"
#include "filters/clips/split.h"
#include "formats/atomic.h"
#include "formats/unpack.h"

static const char help[] =
    "curate - choose clips from a CSV and list them as JSON lines\n"
    "usage: curate [options] [FILE.csv] >clips.jsonl\n"
    "      --videos DIR     path is DIR/video; drop rows without a file [path is video]\n"
    "      --zips DIR       unpack kept clips that --videos DIR lacks from the archives in this folder:\n"
    "                       *.zip, or parts *_partaa, *_partab ..  [none]\n"
    "      --max-growth X   of what is unpacked: an archive's size so many times, and no more  [100]\n"
    "      --no-filter      no bounds: any CSV with video and caption [off]\n"
    "      --min-motion X   motion score, at least                    [1]\n"
    "      --min-aesthetic X   aesthetic score, at least              [5]\n"
    "      --min-seconds X  length, at least                          [6.5]\n"
    "      --max-seconds X  length, at most                           [30]\n"
    "      --split PART     train | val: that part of the kept rows   [all of it]\n"
    "      --fraction X     of the kept rows are val, rounded down     [0.05]\n"
    "      --split-seed N   of the shuffle                            [0]\n"
    "      --dropped FILE   the dropped rows as JSON lines: key and rule  [none]\n"
    "COMMON\n"
    "stdin   the CSV, unless a file is named. Columns go by name, in any order, a space equals an underscore:\n"
    "        video, caption, motion score, aesthetic score, seconds and others\n"
    "stdout  JSON lines in the CSV's order: key (the video), path, caption and OpenVid's other columns. Captions\n"
    "        stay as they are: in a table again, a spreadsheet may run a cell that begins with = + - or @ as a\n"
    "        formula\n"
    "exit    0 every row was read, 1 something failed, 2 wrong usage\n"
    "e.g.    curate --videos clips --zips OpenVid-1M --split train OpenVid-1M.csv | decode >train.mp\n"
    "see also: decode, prompts\n";

static struct choice choice = CHOICE_INIT;
static const char *zips, *split, *dropped_path;
static double fraction = NAN, max_growth = NAN;
static int64_t split_seed = -1;

static const struct option_spec options[] = {
    {.name = "videos", .kind = OPT_TEXT, .dest = &choice.folder},
    {.name = "zips", .kind = OPT_TEXT, .dest = &zips},
    {.name = "max-growth", .kind = OPT_REAL, .dest = &max_growth, .low = 1, .high = 1e6},
    {.name = "no-filter", .kind = OPT_FLAG, .dest = &choice.unbounded},
    {.name = "min-motion", .kind = OPT_REAL, .dest = &choice.bound[RULE_MOTION].low},
    {.name = "min-aesthetic", .kind = OPT_REAL, .dest = &choice.bound[RULE_AESTHETIC].low},
    {.name = "min-seconds", .kind = OPT_REAL, .dest = &choice.bound[RULE_SECONDS].low},
    {.name = "max-seconds", .kind = OPT_REAL, .dest = &choice.bound[RULE_SECONDS].high},
    {.name = "split", .kind = OPT_CHOICE, .dest = &split, .choices = "train|val"},
    {.name = "fraction", .kind = OPT_REAL, .dest = &fraction, .low = 0, .high = 1},
    {.name = "split-seed", .kind = OPT_INT, .dest = &split_seed, .low = 0, .high = 9e18},
    {.name = "dropped", .kind = OPT_TEXT, .dest = &dropped_path},
    {0}};

static const char *name; /* the CSV's, which starts the messages about rows */
static struct openvid table;
static FILE *waiting; /* lines of what is kept, when more has to be known before they can go */
static int64_t dropped[RULES];
static struct atomic_file dropped_file;
static char err[1024];

/* Defaults apply where nothing was given; an option that would do nothing is refused. */
static void settle_options(void)
{
    if (filter.argc > 1) usage_error("one CSV at a time, not `%s` also", filter.argv[1]);
    if (!split && (!isnan(fraction) || split_seed >= 0))
        usage_error("--fraction and --split-seed go with --split");
    if (zips && !choice.folder) usage_error("--zips needs --videos, where clips are unpacked to");
    if (!zips && !isnan(max_growth)) usage_error("--max-growth goes with --zips");
    if (isnan(max_growth)) max_growth = 100;
    if (isnan(fraction)) fraction = 0.05;
    if (split_seed < 0) split_seed = 0;
    if (!choice_settle(&choice, err, sizeof err)) usage_error("%s", err);
    const char *videos = choice.folder;
    struct stat info;
    choice.may_come = zips != NULL;
    if (zips && !make_folder(videos, err, sizeof err)) die("%s", err);
    if (videos && stat(videos, &info)) die("%s: %s", videos, strerror(errno));
    if (videos && !S_ISDIR(info.st_mode)) die("%s: not a folder", videos);
    json_t *probe = json_string(videos ? videos : "");
    if (!probe) die("%s: a path that is not UTF-8", videos);
    json_decref(probe);
    if (dropped_path && !atomic_open(&dropped_file, dropped_path, err, sizeof err)) die("%s", err);
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

static void open_table(void)
{
    int fd = filter.argc ? open(name, O_RDONLY | O_CLOEXEC) : 0;
    if (fd < 0) die("%s: %s", name, strerror(errno));
    if (!openvid_open(&table, fd, err, sizeof err)) die("%s: %s", name, err);
    if (!choice_takes(&choice, &table, err, sizeof err)) die("%s: %s", name, err);
}

/* The first few of what is not where it should be are named; a data set can lack a million. */
static void name_some(int64_t nth, const char *key, const char *text)
{
    enum { SOME = 10 };
    if (nth <= SOME) say(key, "%s%s", text, nth == SOME ? " (more are not listed)" : "");
}

static void drop(enum rule rule, const char *video)
{
    dropped[rule]++;
    if (rule == RULE_MISSING) name_some(dropped[rule], video, "not there");
    if (rule == RULE_AGAIN) name_some(dropped[rule], video, "again");
    if (!dropped_path) return;
    json_t *line = json_pack("{s:s, s:s}", "key", video, "rule", rule_name[rule]);
    bool good =
        line && json_dumpf(line, dropped_file.f, JSON_COMPACT) == 0 && putc('\n', dropped_file.f) >= 0;
    json_decref(line);
    if (!good) die("%s: %s", dropped_path, strerror(errno));
}

static void take(void)
{
    const char *video = openvid_video(&table);
    bool plain = !strchr(video, '/') && strcmp(video, ".") && strcmp(video, "..");
    if (!*video || (zips && !plain)) {
        filter_fail_at(name, "line %lld: %s", (long long)table.csv->line,
                       *video ? "a video that is no plain file name cannot be unpacked" : "no video");
        return;
    }
    enum rule rule = choice_judge(&choice, &table);
    if (rule != RULE_NONE) {
        drop(rule, video);
        return;
    }
    json_t *line = openvid_json(&table, choice.folder);
    if (!line || !names_add(&choice.kept, video)) die("out of memory");
    if (!waiting) {
        filter_emit_line(line);
        return;
    }
    if (json_dumpf(line, waiting, JSON_COMPACT) || putc('\n', waiting) < 0)
        die("temporary file: %s", strerror(errno));
    json_decref(line);
}

/* All of them; how many there were. */
static int64_t read_rows(void)
{
    int64_t rows = 0;
    for (enum csv_got got; (got = csv_next(table.csv)) != CSV_END; rows++) {
        if (got == CSV_DAMAGED) die("%s: %s", name, table.csv->error);
        if (got == CSV_BAD_ROW)
            filter_fail_at(name, "%s", table.csv->error);
        else
            take();
        progress("row %lld", (long long)rows);
    }
    return rows;
}

/* ---- what was kept ------------------------------------------------------------------------------------- */

static void tell(enum unpack_event event, const char *video, const char *text)
{
    static int64_t again;
    switch (event) {
    case UNPACK_BEGUN: progress("%s: %s", text, video); break;
    case UNPACK_AGAIN: name_some(++again, video, text); break;
    case UNPACK_FAILED: filter_fail_at(video, "%s", text);
    }
}

static void unpack(bool *there)
{
    struct unpack u = {.from = zips,
                       .to = choice.folder,
                       .wanted = &choice.kept,
                       .growth = max_growth,
                       .there = there,
                       .tell = tell};
    if (!unpack_wanted(&u, err, sizeof err)) die("%s", err);
    say(NULL, "%d archives: %lld clips unpacked, %lld there already, %lld again", u.archives,
        (long long)u.unpacked, (long long)u.present, (long long)u.again);
}

static void emit_waiting(const bool *wanted)
{
    char *line = NULL;
    size_t room = 0;
    if (fflush(waiting) || fseek(waiting, 0, SEEK_SET)) die("temporary file: %s", strerror(errno));
    for (int64_t i = 0; i < choice.kept.count; i++) {
        ssize_t n = getline(&line, &room, waiting);
        if (n < 2) die("temporary file: line %lld does not come back", (long long)i + 1);
        line[n - 1] = 0;
        if (wanted[i]) filter_emit_text(line);
    }
    free(line);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT | FILTER_ARGUMENTS);
    settle_options();
    name = filter.argc ? filter.argv[0] : "stdin";
    open_table();
    if ((split || zips) && !(waiting = tmpfile())) die("temporary file: %s", strerror(errno));
    int64_t rows = read_rows();
    openvid_close(&table);

    const struct names *kept = &choice.kept;
    bool *there = calloc((size_t)kept->count + 1, sizeof *there);
    if (!there) die("out of memory");
    if (zips) unpack(there);
    size_t count = 0;
    for (int64_t i = 0; i < kept->count; i++) {
        there[i] = there[i] || !zips || choice_is_there(&choice, names_get(kept, i));
        if (!there[i]) drop(RULE_MISSING, names_get(kept, i));
        count += there[i];
    }
    say(NULL,
        "%lld rows: %zu kept; dropped: %lld by motion, %lld by aesthetic, %lld by seconds, %lld not there, %lld again",
        (long long)rows, count, (long long)dropped[RULE_MOTION], (long long)dropped[RULE_AESTHETIC],
        (long long)dropped[RULE_SECONDS], (long long)dropped[RULE_MISSING], (long long)dropped[RULE_AGAIN]);
    if (split) {
        size_t val = split_leave(there, kept, !strcmp(split, "val"), fraction, (uint64_t)split_seed);
        if (val > count) die("out of memory");
        say(NULL, "split: %zu in train, %zu in val", count - val, val);
    }
    if (waiting) emit_waiting(there);
    if (dropped_path && !atomic_commit(&dropped_file, err, sizeof err)) die("%s", err);
    free(there);
    names_free(&choice.kept);
    return filter_finish();
}
