#include "filters/stats/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/rng.h"

struct place {
    const char *name;
    size_t index; /* in the caller's order */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->name, ((const struct place *)b)->name);
}

size_t split_mark(bool *marked, const char *const *name, size_t n, double fraction, uint64_t seed)
{
    struct place *order = calloc(n + 1, sizeof *order);
    if (!order) return SIZE_MAX;
    for (size_t i = 0; i < n; i++) order[i] = (struct place){name[i], i};
    qsort(order, n, sizeof *order, by_name);

    struct rng r = rng_make(seed, "", "split", 0);
    for (size_t i = n; i-- > 1;) {
        size_t j = rng_below(&r, i, i + 1);
        struct place other = order[j];
        order[j] = order[i], order[i] = other;
    }
    size_t first =
        (size_t)floor(fraction * (double)n + 1e-9); /* 0.29 of 100 is 29, though 0.29 is a little less */
    for (size_t i = 0; i < n; i++) marked[order[i].index] = i < first;
    free(order);
    return first;
}
