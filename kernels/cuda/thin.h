/* thin - products with one small side, bound by memory, where cuBLASLt takes up to several times the bytes'
 * time: a single row, and an adapter's rank of 16 to 64. False where a product is not of this kind. */
#ifndef KERNELS_CUDA_THIN_H
#define KERNELS_CUDA_THIN_H

#include "kernels/cuda/cuda.h"

/* As linear_forward(), for one row. */
bool cuda_row_product(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      const struct tensor *b);
/* As matmul(). */
bool cuda_thin_matmul(struct kern *k, struct tensor *c, const struct tensor *a, bool ta,
                      const struct tensor *b, bool tb, float alpha, float beta);

#endif
