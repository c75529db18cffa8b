#include "filters/clips/split.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/rng.h"

struct place {
    const char *name;
    int64_t index; /* among all names */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->name, ((const struct place *)b)->name);
}

size_t split_leave(bool *marked, const struct names *names, bool validation, double fraction, uint64_t seed)
{
    struct place *order = calloc((size_t)names->count + 1, sizeof *order);
    size_t n = 0;
    if (!order) return SIZE_MAX;
    for (int64_t i = 0; i < names->count; i++)
        if (marked[i]) order[n++] = (struct place){names_get(names, i), i};
    qsort(order, n, sizeof *order, by_name);

    struct rng r = rng_make(seed, "", "split", 0);
    for (size_t i = n; i-- > 1;) {
        size_t j = rng_below(&r, i, i + 1);
        struct place other = order[j];
        order[j] = order[i], order[i] = other;
    }
    size_t first =
        (size_t)floor(fraction * (double)n + 1e-9); /* 0.29 of 100 is 29, though 0.29 is a little less */
    for (size_t i = 0; i < n; i++) marked[order[i].index] = (i < first) == validation;
    free(order);
    return first;
}
