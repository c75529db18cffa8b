/* t5 - T5's buckets of distance, for those who check them; everything else goes through text_encoder.h. */
#ifndef NETS_T5_H
#define NETS_T5_H

#include "filters/nets/text_encoder.h"

/* The bucket of a key `distance` positions after its query (before it: negative), for a table of `buckets`
 * rows: half of them for each side, of which half hold one distance each and the rest grow by a constant
 * factor up to max_distance (`modeling_t5.py`, _relative_position_bucket, bidirectional). */
int t5_bucket(int64_t distance, int buckets, int64_t max_distance);

#endif
