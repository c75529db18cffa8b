/* describe - records and tensors as text for people and as JSON for programs. With `values` also the
 * smallest, largest and mean value of each tensor that has elements. */
#ifndef LIB_DESCRIBE_H
#define LIB_DESCRIBE_H

#include <stdio.h>

#include "formats/record.h"

/* One line: the name padded to `width`, dtype and shape. */
void describe_tensor(FILE *out, const char *name, int width, const struct tensor *t, bool values);

/* {"dtype", "shape"} and with values {"min", "max", "mean"}, null where it is not finite. A new object. */
json_t *describe_tensor_json(const struct tensor *t, bool values);

/* The position in the stream and the key, then one line for each tensor and each field of meta. */
void describe_record(FILE *out, struct record *f, int64_t position, bool values);

/* The begin header of a stream as one line. */
void describe_begin(FILE *out, const json_t *begin);

#endif
