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

#include "filters/filter.h"
#include "filters/stats/split.h"
#include "formats/atomic.h"
#include "formats/csv.h"
#include "formats/names.h"
#include "formats/zip_parts.h"

static const char help[] =
    "curate - choose clips from a CSV and list them as JSON lines\n"
    "usage: curate [options] [FILE.csv] >clips.jsonl\n"
    "      --videos DIR     path is DIR/video; drop what is not there [path is video]\n"
    "      --zips DIR       first unpack what is kept, and not in --videos DIR yet, from the archives here:\n"
    "                       *.zip, or cut into *_partaa, *_partab ..  [none]\n"
    "      --no-filter      no bounds: any CSV with video and caption [off]\n"
    "      --min-motion X   motion score, at least                    [1]\n"
    "      --min-aesthetic X   aesthetic score, at least              [5]\n"
    "      --min-seconds X  length, at least                          [6.5]\n"
    "      --max-seconds X  length, at most                           [30]\n"
    "      --split PART     train | val: that part of what is kept    [all of it]\n"
    "      --fraction X     of what is kept is val, rounded down      [0.05]\n"
    "      --split-seed N   of the shuffle                            [0]\n"
    "      --dropped FILE   every row that is dropped, as JSON lines: key, and by which rule  [none]\n"
    "COMMON\n"
    "stdin   the CSV, unless a file is named. Columns go by name, in any order, a space equals an underscore:\n"
    "        video, caption, motion score, aesthetic score, seconds and what else there is\n"
    "stdout  JSON lines in the CSV's order: key (the video), path, caption and OpenVid's other columns\n"
    "exit    0 every row was read, 1 something failed, 2 wrong usage\n"
    "e.g.    curate --videos clips --zips OpenVid-1M --split train OpenVid-1M.csv | decode >train.mp\n"
    "see also: decode, prompts\n";

enum { MOTION, AESTHETIC, SECONDS, BOUNDS, MISSING = BOUNDS, AGAIN, RULES };
static const char *const rule_name[] = {"motion", "aesthetic", "seconds", "missing", "again"};
static struct bound {
    const char *column;
    double low, high; /* NaN: not given */
    double default_low, default_high;
} bound[BOUNDS] = {[MOTION] = {"motion score", NAN, NAN, 1, INFINITY},
                   [AESTHETIC] = {"aesthetic score", NAN, NAN, 5, INFINITY},
                   [SECONDS] = {"seconds", NAN, NAN, 6.5, 30}};
static const char *videos, *zips, *split, *dropped_path;
static bool no_filter;
static double fraction = NAN;
static int64_t split_seed = -1;

static const struct option_spec options[] = {
    {.name = "videos", .kind = OPT_TEXT, .dest = &videos},
    {.name = "zips", .kind = OPT_TEXT, .dest = &zips},
    {.name = "no-filter", .kind = OPT_FLAG, .dest = &no_filter},
    {.name = "min-motion", .kind = OPT_REAL, .dest = &bound[MOTION].low},
    {.name = "min-aesthetic", .kind = OPT_REAL, .dest = &bound[AESTHETIC].low},
    {.name = "min-seconds", .kind = OPT_REAL, .dest = &bound[SECONDS].low},
    {.name = "max-seconds", .kind = OPT_REAL, .dest = &bound[SECONDS].high},
    {.name = "split", .kind = OPT_CHOICE, .dest = &split, .choices = "train|val"},
    {.name = "fraction", .kind = OPT_REAL, .dest = &fraction, .low = 0, .high = 1},
    {.name = "split-seed", .kind = OPT_INT, .dest = &split_seed, .low = 0, .high = 9e18},
    {.name = "dropped", .kind = OPT_TEXT, .dest = &dropped_path},
    {0}};

static int64_t dropped[RULES];
static struct atomic_file dropped_file;
static struct frame table = FRAME_INIT; /* its key, the CSV's name, starts the messages about rows */
static struct names kept;               /* in the CSV's order */
static FILE *waiting;                   /* their lines, when more has to be known before they can go */
static char err[1024];

static void forget_dropped(void) /* when the program ends before it is complete */
{
    atomic_abort(&dropped_file);
}

/* Defaults apply where nothing was given; an option that would do nothing is refused. */
static void settle_options(void)
{
    if (filter.argc > 1) usage_error("one CSV at a time, not `%s` also", filter.argv[1]);
    if (!split && (!isnan(fraction) || split_seed >= 0))
        usage_error("--fraction and --split-seed go with --split");
    if (zips && !videos) usage_error("--zips needs --videos, where clips are unpacked to");
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
    if (zips && !make_folder(videos, err, sizeof err)) die("%s", err);
    if (videos && stat(videos, &info)) die("%s: %s", videos, strerror(errno));
    if (videos && !S_ISDIR(info.st_mode)) die("%s: not a folder", videos);
    json_t *probe = json_string(videos ? videos : "");
    if (!probe) die("%s: a path that is not UTF-8", videos);
    json_decref(probe);
    if (dropped_path && !atomic_open(&dropped_file, dropped_path, err, sizeof err)) die("%s", err);
    atexit(forget_dropped);
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static const char *const number_name[] = {"aesthetic_score", "motion_score", "temporal_consistency_score",
                                          "frame",           "fps",          "seconds"};
enum { NUMBERS = sizeof number_name / sizeof number_name[0] };
static int video_at, caption_at, camera_at, number_at[NUMBERS], bound_at[BOUNDS]; /* columns; -1: not there */

static const char *cell(const struct csv *c, int column)
{
    return column < 0 ? "" : c->field[column];
}

static struct csv *open_table(const char *name)
{
    int fd = filter.argc ? open(name, O_RDONLY | O_CLOEXEC) : 0;
    if (fd < 0) die("%s: %s", name, strerror(errno));
    struct csv *c = csv_open(fd, err, sizeof err);
    if (!c) die("%s: %s", name, err);
    video_at = csv_column(c, "video");
    caption_at = csv_column(c, "caption");
    camera_at = csv_column(c, "camera motion");
    for (int i = 0; i < NUMBERS; i++) number_at[i] = csv_column(c, number_name[i]);
    for (int i = 0; i < BOUNDS; i++) bound_at[i] = csv_column(c, bound[i].column);
    if (video_at < 0 || caption_at < 0)
        die("%s: line %lld: no column `%s`", name, (long long)c->line, video_at < 0 ? "video" : "caption");
    for (int i = 0; i < (no_filter ? 0 : BOUNDS); i++)
        if (bound_at[i] < 0)
            die("%s: line %lld: no column `%s` (--no-filter does without)", name, (long long)c->line,
                bound[i].column);
    return c;
}

/* DIR/video, or just that; good until the next call. */
static const char *path_of(const char *video)
{
    static char path[4096];
    if (!videos) return video;
    size_t n = strlen(videos);
    const char *slash = n && videos[n - 1] == '/' ? "" : "/";
    if (snprintf(path, sizeof path, "%s%s%s", videos, slash, video) < (int)sizeof path) return path;
    die("%s/%.60s...: %s", videos, video, strerror(ENAMETOOLONG));
}

/* The row as a JSON line, with what OpenVid says about the clip; numbers become numbers. All text is known to
 * be UTF-8. */
static json_t *clip_json(const struct csv *c)
{
    json_t *line = json_object();
    const char *video = cell(c, video_at), *camera = cell(c, camera_at);
    double v;
    json_object_set_new_nocheck(line, "key", json_string_nocheck(video));
    json_object_set_new_nocheck(line, "path", json_string_nocheck(path_of(video)));
    json_object_set_new_nocheck(line, "caption", json_string_nocheck(cell(c, caption_at)));
    for (int i = 0; i < NUMBERS; i++)
        if (csv_number(cell(c, number_at[i]), &v)) {
            bool whole = v == floor(v) && fabs(v) < 1e15;
            json_object_set_new_nocheck(line, number_name[i],
                                        whole ? json_integer((json_int_t)v) : json_real(v));
        }
    if (*camera) json_object_set_new_nocheck(line, "camera_motion", json_string_nocheck(camera));
    return line;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

/* The first few of what is not where it should be are named; a data set can lack a million. */
__attribute__((format(printf, 3, 4))) static void name_some(int64_t nth, const char *key, const char *fmt,
                                                            ...)
{
    enum { SOME = 10 };
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (nth <= SOME) say(key, "%s%s", text, nth == SOME ? " (more are not told)" : "");
}

static void drop(int rule, const char *video)
{
    dropped[rule]++;
    if (rule == MISSING) name_some(dropped[rule], video, "not there");
    if (rule == AGAIN) name_some(dropped[rule], video, "again");
    if (!dropped_path) return;
    json_t *line = json_pack("{s:s, s:s}", "key", video, "rule", rule_name[rule]);
    bool good =
        line && json_dumpf(line, dropped_file.f, JSON_COMPACT) == 0 && putc('\n', dropped_file.f) >= 0;
    json_decref(line);
    if (!good) die("%s: %s", dropped_path, strerror(errno));
}

static bool is_there(const char *video)
{
    struct stat info;
    return !videos || (stat(path_of(video), &info) == 0 && S_ISREG(info.st_mode));
}

/* The rule that drops the row; RULES when none does. Archives may still bring what is not there. */
static int judge(const struct csv *c)
{
    double v;
    for (int i = 0; i < (no_filter ? 0 : BOUNDS); i++)
        if (!csv_number(cell(c, bound_at[i]), &v) || v < bound[i].low || v > bound[i].high) return i;
    if (!zips && !is_there(cell(c, video_at))) return MISSING;
    return names_find(&kept, cell(c, video_at)) == NAMES_NONE ? RULES : AGAIN;
}

static void take(const struct csv *c)
{
    const char *video = cell(c, video_at);
    bool plain = !strchr(video, '/') && strcmp(video, ".") && strcmp(video, "..");
    if (!*video || (zips && !plain)) {
        filter_fail(&table, "line %lld: %s", (long long)c->line,
                    *video ? "a video that is no plain file name cannot be unpacked" : "no video");
        return;
    }
    int rule = judge(c);
    if (rule < RULES) {
        drop(rule, video);
        return;
    }
    if (!names_add(&kept, video)) die("out of memory");
    json_t *line = clip_json(c);
    if (!waiting) {
        filter_emit_line(line);
        return;
    }
    if (json_dumpf(line, waiting, JSON_COMPACT) || putc('\n', waiting) < 0)
        die("temporary file: %s", strerror(errno));
    json_decref(line);
}

/* ---- archives ------------------------------------------------------------------------------------------ */

static struct {
    int64_t unpacked, present, again;
} clips;

/* The member goes where its clip belongs, unless that is there and as long. */
static bool unpack(const struct zip_part *part, const struct zip *z, const struct zip_entry *e,
                   const char *video)
{
    struct stat info;
    const char *path = path_of(video);
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size == e->bytes) {
        clips.present++;
        return true;
    }
    progress("%s: %s", part->name, video);
    if (!zip_extract(z, e, path, err, sizeof err)) {
        filter_fail_at(video, "%s", err);
        return false;
    }
    clips.unpacked++;
    return true;
}

/* Goes through the archives one by one; what is kept is found by its file name, in whatever folder it is. */
static void unpack_kept(bool *there)
{
    struct zip_parts parts;
    if (!zip_parts_list(&parts, zips, err, sizeof err)) die("%s", err);
    if (parts.count == 0) die("%s: no *.zip and no *_partaa", zips);
    for (int i = 0; i < parts.count; i++) {
        const struct zip_part *part = &parts.part[i];
        struct zip *z = zip_open((const char *const *)part->path, part->pieces, err, sizeof err);
        if (!z) filter_fail_at(NULL, "%s", err);
        for (int j = 0; z && j < z->count; j++) {
            const char *slash = strrchr(z->entry[j].name, '/'), *video = slash ? slash + 1 : z->entry[j].name;
            int64_t k = names_find(&kept, video);
            if (k == NAMES_NONE) continue;
            if (there[k])
                name_some(++clips.again, video, "again in %s: the first is kept", part->name);
            else
                there[k] = unpack(part, z, &z->entry[j], video);
        }
        zip_close(z);
    }
    say(NULL, "%d archives: %lld clips unpacked, %lld there already, %lld again", parts.count,
        (long long)clips.unpacked, (long long)clips.present, (long long)clips.again);
    zip_parts_free(&parts);
}

/* ---- what waited --------------------------------------------------------------------------------------- */

/* Takes those that the split does not want out of `there`. */
static void choose_part(bool *there)
{
    size_t n = 0, at = 0;
    const char **name = calloc((size_t)kept.count + 1, sizeof *name);
    bool *in_val = calloc((size_t)kept.count + 1, sizeof *in_val), val_wanted = !strcmp(split, "val");
    if (!name || !in_val) die("out of memory");
    for (int64_t i = 0; i < kept.count; i++)
        if (there[i]) name[n++] = names_get(&kept, i);
    size_t val = split_mark(in_val, name, n, fraction, (uint64_t)split_seed);
    if (val > n) die("out of memory");
    for (int64_t i = 0; i < kept.count; i++)
        if (there[i]) there[i] = in_val[at++] == val_wanted;
    say(NULL, "split: %zu in train, %zu in val", n - val, val);
    free(name);
    free(in_val);
}

static void emit_waiting(const bool *wanted)
{
    char *line = NULL;
    size_t room = 0;
    if (fflush(waiting) || fseek(waiting, 0, SEEK_SET)) die("temporary file: %s", strerror(errno));
    for (int64_t i = 0; i < kept.count; i++) {
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
    const char *name = filter.argc ? filter.argv[0] : "stdin";
    struct csv *c = open_table(name);
    frame_new(&table, name);
    if ((split || zips) && !(waiting = tmpfile())) die("temporary file: %s", strerror(errno));

    int64_t rows = 0;
    for (enum csv_got got; (got = csv_next(c)) != CSV_END; rows++) {
        if (got == CSV_DAMAGED) die("%s: %s", name, c->error);
        if (got == CSV_BAD_ROW)
            filter_fail(&table, "%s", c->error);
        else
            take(c);
        progress("row %lld", (long long)rows);
    }
    csv_close(c);

    bool *there = malloc((size_t)kept.count + 1);
    if (!there) die("out of memory");
    memset(there, !zips, (size_t)kept.count + 1);
    if (zips) unpack_kept(there);
    int64_t count = 0;
    for (int64_t i = 0; i < kept.count; i++) {
        if (!there[i] && !(there[i] = is_there(names_get(&kept, i)))) drop(MISSING, names_get(&kept, i));
        count += there[i];
    }
    say(NULL,
        "%lld rows: %lld kept; dropped: %lld by motion, %lld by aesthetic, %lld by seconds, %lld not there, %lld again",
        (long long)rows, (long long)count, (long long)dropped[MOTION], (long long)dropped[AESTHETIC],
        (long long)dropped[SECONDS], (long long)dropped[MISSING], (long long)dropped[AGAIN]);
    if (split) choose_part(there);
    if (waiting) emit_waiting(there);
    if (dropped_path && !atomic_commit(&dropped_file, err, sizeof err)) die("%s", err);
    free(there);
    frame_free(&table);
    names_free(&kept);
    return filter_finish();
}
