/* describe - what records and tensors hold, for people as text and for programs as JSON. With `values`, of
 * each tensor that has any also the least, the largest and the mean one. */
#ifndef LIB_DESCRIBE_H
#define LIB_DESCRIBE_H

#include <stdio.h>

#include "formats/record.h"

/* Its name, filled up to `width`, dtype and shape, as a line. */
void describe_tensor(FILE *out, const char *name, int width, const struct tensor *t, bool values);

/* {"dtype", "shape"} and with values {"min", "max", "mean"}, null where that is no finite number. New. */
json_t *describe_tensor_json(const struct tensor *t, bool values);

/* Its position in the stream and its key, then line by line its tensors and what else is known about it. */
void describe_record(FILE *out, struct record *f, int64_t position, bool values);

/* The begin header of a stream, as a line. */
void describe_begin(FILE *out, const json_t *begin);

#endif
