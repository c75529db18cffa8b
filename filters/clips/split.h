/* split - which of the kept clips are for validation. */
#ifndef CLIPS_SPLIT_H
#define CLIPS_SPLIT_H

#include <stddef.h>

#include "formats/names.h"

/* Of the n marked names, floor(fraction n) are for validation, fraction in [0, 1], and the others for
 * training. Leaves the marks of the part that `validation` asks for and clears the others. Names are sorted
 * by their bytes and shuffled (Fisher-Yates from the end; the draw for place i is rng_below's i-th, purpose
 * "split"); the first ones are for validation, so the order of the input does not matter. Returns how many
 * are for validation, whichever part is left. SIZE_MAX: out of memory. */
size_t split_leave(bool *marked, const struct names *names, bool validation, double fraction, uint64_t seed);

#endif
