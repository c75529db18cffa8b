/* tensors - what a tensor's values amount to, and how far two tensors lie apart. In double, in the elements'
 * order. */
#ifndef LIB_TENSORS_H
#define LIB_TENSORS_H

#include "formats/tensor.h"

struct tensor_range {
    double low, high, mean; /* NaN, all three, when there is one */
};
struct tensor_range tensor_range(const struct tensor *t); /* of at least one element */

/* Of a from the reference b, which has the same shape. A NaN in either makes all three NaN, and so fails
 * every tolerance; equal infinities do not differ. */
struct tensor_distance {
    double max_abs;
    double rel_l2; /* |a - b| / |b| */
    double psnr;   /* dB; peak 255 for U8, else b's largest magnitude; infinite when nothing differs */
};
struct tensor_distance tensor_distance(const struct tensor *a, const struct tensor *b);

#endif
