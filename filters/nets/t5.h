/* t5 - the text encoder: T5 v1.1's encoder half (Raffel et al. 2020, with Shazeer's gated GELU), as CogVideoX
 * reads it.
 *
 * Padding takes part: no mask hides it, neither here nor in the transformer that is fed with the result. */
#ifndef NETS_T5_H
#define NETS_T5_H

#include "filters/nets/weights.h"

struct t5;

/* Appends every parameter that text_encoder/config.json (`file` is its name, for messages) calls for: names,
 * shapes and random initial values, no slots. false with the reason in err. */
bool t5_declare(struct params *list, json_t *config, const char *file, char *err, size_t errlen);

/* Names of tensors that are no parameters of their own and may be in its files all the same, as weights.h's
 * alias. */
extern const char *const t5_ignored[];

/* Loads text_encoder/ of a model. `length` is the number of ids of every later call: the position bias is
 * worked out for it once. NULL with the reason in err. */
struct t5 *t5_open(struct kern *k, const struct model *m, int64_t length, char *err, size_t errlen);
void t5_close(struct t5 *t); /* NULL is fine; device memory goes with the device */

int64_t t5_width(const struct t5 *t);  /* D, of an embedding */
int64_t t5_vocab(const struct t5 *t);  /* every id is below this */
const char *t5_id(const struct t5 *t); /* 16 hex digits of configuration and weights */

/* embeds = T5(ids)       ids I32 [length] or, of several prompts, [count,length]; embeds [length,D] or
 * [count,length,D] of any float dtype, both on the host. A prompt's bits do not depend on those beside it.
 * false: kern_error() of the device tells why. */
bool t5_encode(struct t5 *t, struct tensor *embeds, const struct tensor *ids);

/* The bucket of a key `distance` positions after its query (before it: negative), for a table of `buckets`
 * rows: half of them for each side, of which half hold one distance each and the rest grow by a constant
 * factor up to max_distance (`modeling_t5.py`, _relative_position_bucket, bidirectional). */
int t5_bucket(int64_t distance, int buckets, int64_t max_distance);

#endif
