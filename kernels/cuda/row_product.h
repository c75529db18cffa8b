/* row_product - a product with few rows on the left, at most FEW_ROWS. */
#ifndef KERNELS_CUDA_ROW_PRODUCT_H
#define KERNELS_CUDA_ROW_PRODUCT_H

#include "kernels/cuda/cuda.h"

/* As linear_forward(), linear_parts_forward() with y [parts,n,out], or with `add` linear_add_forward(); false where
 * there are more rows, or nothing to gain. A row's bits do not depend on how many there are. */
bool cuda_row_product(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      const struct tensor *b, bool add);

#endif
