/* tensors - the range of a tensor's values, and the distance between two tensors. Computed in double, in the
 * order of the elements. */
#ifndef LIB_TENSORS_H
#define LIB_TENSORS_H

#include "formats/tensor.h"

struct tensor_range {
    double low, high, mean; /* all three are NaN when any value is */
};
struct tensor_range tensor_range(const struct tensor *t); /* of at least one element */

/* The distance of a from the reference b of the same shape. A NaN in either makes all three NaN, which fails
 * every tolerance; equal infinities do not differ. */
struct tensor_distance {
    double max_abs;
    double rel_l2; /* |a - b| / |b| */
    double psnr;   /* dB; peak 255 for U8, else b's largest magnitude; infinite when nothing differs */
};
struct tensor_distance tensor_distance(const struct tensor *a, const struct tensor *b);

#endif
