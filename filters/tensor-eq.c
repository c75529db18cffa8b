/* tensor-eq - compare two streams: the same keys, the same tensors, values within a tolerance. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/lib/tensors.h"
#include "formats/plain.h"

static const char help[] =
    "tensor-eq - compare two streams of records\n"
    "usage: tensor-eq [options] A B        (- for stdin; B is the reference)\n"
    "      --abs X          largest difference allowed                [0: identical]\n"
    "      --rel X          relative L2 difference allowed, |a-b| / |b|\n"
    "      --psnr DB        least peak signal-to-noise ratio; peak 255 for U8, else B's largest value\n"
    "      --by-key         pair records by key, in any order         [in order]\n"
    "      --name NAME      only this tensor                          [all]\n"
    "      --quiet          say nothing about what agrees             [off]\n"
    "COMMON\n"
    "A tolerance that is given must hold for every tensor, whatever the dtypes, and no NaN passes; with none,\n"
    "every bit must agree. meta is not compared. --by-key holds all of B in memory.\n"
    "stdout  one line per tensor: key, name, max abs, relative L2, PSNR, verdict\n"
    "exit    0 all agree, 1 they differ or cannot be read, 2 wrong usage\n"
    "e.g.    tensor-eq --rel 1e-4 ours.mp theirs.mp\n"
    "see also: tensor-gen, show\n";

static double max_abs = -1, max_rel = -1, min_psnr = -1;
static bool by_key, quiet, exactly;
static const char *only;

static const struct option_spec options[] = {
    {.name = "abs", .kind = OPT_REAL, .dest = &max_abs, .high = 1e300},
    {.name = "rel", .kind = OPT_REAL, .dest = &max_rel, .high = 1e300},
    {.name = "psnr", .kind = OPT_REAL, .dest = &min_psnr, .high = 1e3},
    {.name = "by-key", .kind = OPT_FLAG, .dest = &by_key},
    {.name = "name", .kind = OPT_TEXT, .dest = &only},
    {.name = "quiet", .kind = OPT_FLAG, .dest = &quiet},
    {0}};

static void compare(const char *key, const char *name, const struct tensor *a, const struct tensor *b)
{
    char is[160], not [160];
    if (!tensor_same_shape(a, b) || (exactly && a->dtype != b->dtype)) {
        filter_fail_at(key, "tensor `%s` is %s, not %s", name, tensor_describe(is, sizeof is, a),
                       tensor_describe(not, sizeof not, b));
        return;
    }
    struct tensor_distance d = tensor_distance(a, b);
    bool same = a->dtype == b->dtype && (tensor_count(a) == 0 || !memcmp(a->data, b->data, tensor_bytes(a)));
    bool close = (max_abs < 0 || d.max_abs <= max_abs) && (max_rel < 0 || d.rel_l2 <= max_rel) &&
                 (min_psnr < 0 || d.psnr >= min_psnr);
    bool agree = exactly ? same : close;
    if (!agree || !quiet) {
        put_plain(stdout, key);
        putchar('\t');
        put_plain(stdout, name);
        printf("\tmax abs %.3g\trel %.3g\tPSNR %.1f dB\t%s\n", d.max_abs, d.rel_l2, d.psnr,
               !agree ? "DIFFER"
               : same ? "identical"
                      : "agree");
    }
    if (!agree) filter_fail_at(key, "tensor `%s` differs", name);
}

static void compare_records(struct record *a, struct record *b)
{
    const char *key = record_key(a);
    if (only && !record_find(a, only) && !record_find(b, only))
        filter_fail_at(key, "has no tensor `%s`", only);
    for (int i = 0; i < a->count; i++) {
        const char *name = a->tensor[i].name;
        const struct tensor *t = record_find(b, name);
        if (only && strcmp(only, name)) continue;
        if (t)
            compare(key, name, &a->tensor[i].t, t);
        else
            filter_fail_at(key, "only the first has tensor `%s`", name);
    }
    for (int i = 0; i < b->count; i++)
        if ((!only || !strcmp(only, b->tensor[i].name)) && !record_find(a, b->tensor[i].name))
            filter_fail_at(key, "only the second has tensor `%s`", b->tensor[i].name);
    filter.done++;
}

static struct record_reader *open_stream(const char *path)
{
    bool in = !strcmp(path, "-");
    int fd = in ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) die("%s: %s", path, strerror(errno));
    struct record_reader *r = record_reader_open(fd, in ? "stdin" : path);
    if (!r) die("out of memory");
    return r;
}

static bool next(struct record_reader *r, struct record *f)
{
    enum record_got got = record_read(r, f);
    if (got == RECORD_DAMAGED || got == RECORD_BAD_LINE) die("%s", f->error);
    return got == RECORD_GOT;
}

static void compare_in_order(struct record_reader *ra, struct record_reader *rb)
{
    struct record a = RECORD_INIT, b = RECORD_INIT;
    bool more_a, more_b;
    while (more_a = next(ra, &a), more_b = next(rb, &b), more_a && more_b)
        if (strcmp(record_key(&a), record_key(&b)))
            filter_fail(&a, "stands where `%.200s` does in the second", record_key(&b));
        else
            compare_records(&a, &b);
    if (more_a) filter_fail(&a, "is only in the first; nothing after it was compared");
    if (more_b) filter_fail(&b, "is only in the second; nothing after it was compared");
    record_free(&a);
    record_free(&b);
}

static void compare_by_key(struct record_reader *ra, struct record_reader *rb)
{
    enum { MET = -1 };
    struct record a = RECORD_INIT, *b = NULL;
    json_t *index = json_object(), *at; /* key: its place in b, or MET */
    size_t count = 0, room = 0;
    const char *key;
    for (;; count++) {
        if (count == room) {
            room = room ? 2 * room : 64;
            b = realloc(b, room * sizeof *b);
            if (!b) die("out of memory");
        }
        b[count] = (struct record)RECORD_INIT;
        if (!next(rb, &b[count])) break;
        key = record_key(&b[count]);
        if (json_object_get(index, key)) die("%s: is there twice in the second", key);
        if (json_object_set_new(index, key, json_integer((json_int_t)count))) die("out of memory");
    }
    while (next(ra, &a)) {
        key = record_key(&a);
        at = json_object_get(index, key);
        if (!at)
            filter_fail_at(key, "is only in the first");
        else if (json_integer_value(at) == MET)
            filter_fail_at(key, "is there twice in the first");
        else
            compare_records(&a, &b[json_integer_value(at)]);
        if (at) json_integer_set(at, MET);
    }
    json_object_foreach (index, key, at)
        if (json_integer_value(at) != MET) filter_fail_at(key, "is only in the second");
    json_decref(index);
    for (size_t i = 0; i <= count; i++) record_free(&b[i]);
    free(b);
    record_free(&a);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_ARGUMENTS | FILTER_TEXT_OUT);
    if (filter.argc != 2) usage_error("two streams to compare, not %d", filter.argc);
    if (!strcmp(filter.argv[0], "-") && !strcmp(filter.argv[1], "-")) usage_error("stdin is but one stream");
    filter_checked();
    exactly = max_abs < 0 && max_rel < 0 && min_psnr < 0;
    struct record_reader *a = open_stream(filter.argv[0]), *b = open_stream(filter.argv[1]);
    (by_key ? compare_by_key : compare_in_order)(a, b);
    record_reader_close(a);
    record_reader_close(b);
    return filter_finish();
}
