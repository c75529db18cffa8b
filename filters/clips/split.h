/* split - which of the kept clips are for validation. */
#ifndef CLIPS_SPLIT_H
#define CLIPS_SPLIT_H

#include <stddef.h>

#include "formats/names.h"

/* Leaves, of those names that are marked, only the marks of one part: of n, floor(fraction n) are for
 * validation, fraction in [0, 1], and the others for training. Names are sorted by their bytes, shuffled
 * (Fisher-Yates from the end; the draw for place i is rng_below's i-th, purpose "split") and the first ones
 * are validation's: the order in which they come does not matter. Returns how many these are, whichever part
 * is left. SIZE_MAX: out of memory. */
size_t split_leave(bool *marked, const struct names *names, bool validation, double fraction, uint64_t seed);

#endif
