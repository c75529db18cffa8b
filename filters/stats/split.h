/* split - which of the kept clips are for validation. */
#ifndef STATS_SPLIT_H
#define STATS_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Marks floor(fraction n) of n different names, fraction in [0, 1], and returns how many these are. Names are
 * sorted by their bytes, shuffled (Fisher-Yates from the end; the draw for place i is rng_below's i-th,
 * purpose "split") and the first ones marked: the order in which they come does not matter. SIZE_MAX: out of
 * memory. */
size_t split_mark(bool *marked, const char *const *name, size_t n, double fraction, uint64_t seed);

#endif
