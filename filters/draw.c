/* draw - records of a store in a seeded order, without end, for training.
 *
 * Position p (0, 1, 2, ...) lies in epoch p / n, for n records, and there at p % n of a permutation of the
 * sorted keys that depends on the seed and the epoch alone. So a stream can start anywhere, and neither
 * shards nor the order of packing matter. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/filter.h"
#include "filters/lib/rng.h"
#include "formats/safetensors.h"
#include "formats/store.h"

static const int64_t MAX_POSITION = 1000000000000000; /* sums and products stay far from overflow */

static const char help[] =
    "draw - a store's records in a seeded order, without end\n"
    "usage: draw [options] DIR > records\n"
    "      --from RUN       start where RUN/state.safetensors stands (no such file yet: at 0)\n"
    "      --position N     start at position N                       [0]\n"
    "      --count N        stop after N records                      [never]\n"
    "      --epochs N       stop before epoch N, counted from 0       [never]\n"
    "COMMON\n"
    "stdout  the records as packed, and meta.position: 0, 1, 2, ...   Each epoch has every record once.\n"
    "exit    0 --count or --epochs reached, 1 something failed, 2 wrong usage\n"
    "e.g.    draw --seed 42 --from run/ train/ | train-step -m CogVideoX-5b --state run/   see also: pack, train-step\n";

/* The position that a training run's state waits for. */
static int64_t state_position(const char *run)
{
    char path[4096], err[512], *end;
    if (!*run) usage_error("--from: a folder's name is empty");
    errno = snprintf(path, sizeof path, "%s/state.safetensors", run) < (int)sizeof path ? 0 : ENAMETOOLONG;
    if (errno || access(path, F_OK)) {
        if (errno == ENOENT) return 0;
        die("%s: %s", run, strerror(errno));
    }
    struct safetensors *state = safetensors_open(path, err, sizeof err);
    if (!state) die("%s", err);
    const char *text = json_string_value(json_object_get(state->metadata, "position"));
    long long position = text ? strtoll(text, &end, 10) : -1;
    if (!text || position < 0 || position > MAX_POSITION || *end || end == text)
        die("%s: its metadata has no good `position`", path);
    safetensors_close(state);
    return position;
}

/* Fisher-Yates; each epoch starts from the sorted keys. */
static void shuffle(int64_t *order, int64_t n, uint64_t epoch)
{
    struct rng r = rng_make((uint64_t)filter.seed, "", "draw", epoch);
    for (int64_t i = 0; i < n; i++) order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)rng_below(&r, (uint64_t)i, (uint64_t)i + 1), swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

int main(int argc, char **argv)
{
    const char *from = NULL;
    int64_t position = -1, count = 0, epochs = 0, shuffled = -1;
    char err[512], content[17];
    const struct option_spec options[] = {
        {.name = "from", .kind = OPT_TEXT, .dest = &from},
        {.name = "position", .kind = OPT_INT, .dest = &position, .low = 0, .high = (double)MAX_POSITION},
        {.name = "count", .kind = OPT_INT, .dest = &count, .low = 1, .high = (double)MAX_POSITION},
        {.name = "epochs", .kind = OPT_INT, .dest = &epochs, .low = 1, .high = 1e9},
        {0}};
    filter_start(argc, argv, help, options, FILTER_RECORDS_OUT | FILTER_SEED | FILTER_ARGUMENTS);
    if (filter.argc != 1) usage_error("one store folder is wanted");
    if (from && position >= 0) usage_error("--from and --position both say where to start");
    filter_checked();

    struct store *s = store_open(filter.argv[0], err, sizeof err);
    if (!s) die("%s", err);
    if (s->count == 0) die("%s: an empty store: there is nothing to draw", filter.argv[0]);
    int64_t *order = malloc((size_t)s->count * sizeof *order);
    if (!order) die("out of memory");
    snprintf(content, sizeof content, "%016llx", (unsigned long long)store_content(s));
    json_object_set_new(filter.settings, "content", json_string(content));
    json_object_set_new(filter.settings, "records", json_integer(s->count));

    if (position < 0) position = from ? state_position(from) : 0;
    int64_t stop = count ? position + count : INT64_MAX;
    if (epochs && epochs * s->count < stop) stop = epochs * s->count;
    struct record f = RECORD_INIT;
    for (int64_t p = position; p < stop; p++) {
        if (p / s->count != shuffled) shuffle(order, s->count, (uint64_t)(shuffled = p / s->count));
        int64_t i = order[p % s->count];
        if (!store_read(s, i, &f)) die("%s: %s/%s", s->record[i].key, filter.argv[0], f.error);
        json_object_set_new(record_meta(&f), "position", json_integer(p));
        filter_emit(&f);
    }
    record_free(&f);
    free(order);
    store_close(s);
    return filter_finish();
}
