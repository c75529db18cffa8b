/* row_product - a product with one row on the left. */
#ifndef KERNELS_CUDA_ROW_PRODUCT_H
#define KERNELS_CUDA_ROW_PRODUCT_H

#include "kernels/cuda/cuda.h"

/* As linear_forward(); false where there is more than one row, or nothing to gain. */
bool cuda_row_product(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      const struct tensor *b);

#endif
