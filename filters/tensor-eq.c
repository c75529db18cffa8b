/* tensor-eq - compare two streams: the same keys, the same tensors, values within a tolerance. */
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include "filters/filter.h"

static const char help[] = "tensor-eq - compare two streams of records\n"
                           "usage: tensor-eq [options] A B        (- for stdin; B is the reference)\n"
                           "      --abs X          largest difference allowed                [0: identical]\n"
                           "      --rel X          relative L2 difference allowed, |a-b| / |b|\n"
                           "      --psnr DB        least peak signal-to-noise ratio; peak 255 for U8, else B's largest value\n"
                           "      --by-key         pair records by key, in any order         [in order]\n"
                           "      --name NAME      only this tensor                          [all]\n"
                           "      --quiet          say nothing about what agrees             [off]\n"
                           "COMMON\n"
                           "A tolerance that is given must hold for every tensor; with none, every bit must. meta is not compared.\n"
                           "stdout  one line per tensor: key, name, max abs, relative L2, PSNR, verdict\n"
                           "exit    0 all agree, 1 they differ or cannot be read, 2 wrong usage\n"
                           "e.g.    tensor-eq --rel 1e-4 ours.mp theirs.mp\n"
                           "see also: tensor-gen, show\n";

static double max_abs = -1, max_rel = -1, min_psnr = -1;
static bool by_key, quiet;
static const char *only;

static const struct option_spec options[] = {
    {.name = "abs", .kind = OPT_REAL, .dest = &max_abs, .high = 1e300},
    {.name = "rel", .kind = OPT_REAL, .dest = &max_rel, .high = 1e300},
    {.name = "psnr", .kind = OPT_REAL, .dest = &min_psnr, .high = 1e3},
    {.name = "by-key", .kind = OPT_FLAG, .dest = &by_key},
    {.name = "name", .kind = OPT_TEXT, .dest = &only},
    {.name = "quiet", .kind = OPT_FLAG, .dest = &quiet},
    {0}};

static void differ(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void differ(const char *key, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    filter.failed++;
    say(key, "%s", text);
}

static void compare(const char *key, const char *name, const struct tensor *a, const struct tensor *b)
{
    char sa[160], sb[160];
    if (a->dtype != b->dtype && (max_abs < 0 && max_rel < 0 && min_psnr < 0)) {
        differ(key, "is %s, not %s", tensor_describe(sa, sizeof sa, a), tensor_describe(sb, sizeof sb, b));
        return;
    }
    if (!tensor_same_shape(a, b)) {
        differ(key, "has shape %s, not %s", tensor_describe(sa, sizeof sa, a), tensor_describe(sb, sizeof sb, b));
        return;
    }
    int64_t n = tensor_count(a);
    double worst = 0, error = 0, energy = 0, peak = b->dtype == DT_U8 ? 255 : 0;
    for (int64_t i = 0; i < n; i++) {
        double x = tensor_get(a, i), y = tensor_get(b, i), d = fabs(x - y);
        if (!(d <= worst)) worst = d; /* a NaN sticks, and fails every tolerance */
        error += d * d;
        energy += y * y;
        if (b->dtype != DT_U8 && fabs(y) > peak) peak = fabs(y);
    }
    double rel = error > 0 ? sqrt(error / energy) : error, psnr = 10 * log10(peak * peak * (double)n / error);
    if (n == 0 || error == 0) psnr = INFINITY;
    bool exact = a->dtype == b->dtype && (n == 0 || !memcmp(a->data, b->data, tensor_bytes(a)));
    bool agree = max_abs < 0 && max_rel < 0 && min_psnr < 0
                     ? exact
                     : (max_abs < 0 || worst <= max_abs) && (max_rel < 0 || rel <= max_rel) && (min_psnr < 0 || psnr >= min_psnr);
    if (!agree) filter.failed++;
    if (!agree || !quiet)
        printf("%s\t%s\tmax abs %.3g\trel %.3g\tPSNR %.1f dB\t%s\n", key, name, worst, rel, psnr,
               exact ? "identical" : agree ? "agree" : "DIFFER");
}

static void compare_records(struct frame *a, struct frame *b)
{
    const char *key = frame_key(a);
    int compared = 0;
    if (strcmp(key, frame_key(b))) differ(key, "stands where `%s` does in the other", frame_key(b));
    for (int i = 0; i < a->count; i++) {
        struct tensor *t = frame_find(b, a->tensor[i].name);
        if (only && strcmp(only, a->tensor[i].name)) continue;
        compared++;
        if (!t)
            differ(key, "only the first has tensor `%s`", a->tensor[i].name);
        else
            compare(key, a->tensor[i].name, &a->tensor[i].t, t);
    }
    for (int i = 0; i < b->count; i++)
        if ((!only || !strcmp(only, b->tensor[i].name)) && !frame_find(a, b->tensor[i].name))
            differ(key, "only the second has tensor `%s`", b->tensor[i].name);
    if (only && !compared) differ(key, "has no tensor `%s`", only);
    filter.done++;
}

static struct frame_reader *open_stream(const char *path)
{
    int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : 0;
    if (fd < 0) die("%s: %s", path, strerror(errno));
    struct frame_reader *r = frame_reader_open(fd, path);
    if (!r) die("out of memory");
    return r;
}

static bool next(struct frame_reader *r, struct frame *f)
{
    enum frame_got got = frame_read(r, f);
    if (got == FRAME_DAMAGED || got == FRAME_BAD_LINE) die("%s", f->error);
    return got == FRAME_RECORD;
}

int main(int argc, char **argv)
{
    struct frame a = FRAME_INIT, *b = NULL;
    int64_t held = 0, met = 0;

    filter_start(argc, argv, help, options, FILTER_ARGUMENTS | FILTER_TEXT_OUT);
    if (filter.argc != 2) usage_error("two streams to compare, not %d", filter.argc);
    struct frame_reader *ra = open_stream(filter.argv[0]), *rb = open_stream(filter.argv[1]);
    if (by_key) { /* the second stream in memory, all of it */
        for (bool more = true; more; held += more) {
            b = realloc(b, (size_t)(held + 1) * sizeof *b);
            if (!b) die("out of memory");
            b[held] = (struct frame)FRAME_INIT;
            more = next(rb, &b[held]);
        }
        while (next(ra, &a)) {
            int64_t i = 0;
            while (i < held && strcmp(frame_key(&a), frame_key(&b[i]))) i++;
            if (i < held)
                met++, compare_records(&a, &b[i]);
            else
                differ(frame_key(&a), "is only in the first");
        }
        if (met < held) differ(NULL, "the second has records that the first has not");
        for (int64_t i = 0; i <= held; i++) frame_free(&b[i]);
    } else {
        b = calloc(1, sizeof *b);
        if (!b) die("out of memory");
        for (;;) {
            bool more = next(ra, &a), more_b = next(rb, b);
            if (more && more_b) compare_records(&a, b);
            if (more != more_b) differ(more ? frame_key(&a) : frame_key(b), "is only in the %s", more ? "first" : "second");
            if (!more || !more_b) break;
        }
        frame_free(b);
    }
    free(b);
    frame_free(&a);
    frame_reader_close(ra);
    frame_reader_close(rb);
    return filter_finish();
}
