/* image - grids of threads over [frames, rows, columns, channels], and over values of any shape. */
#ifndef KERNELS_CUDA_IMAGE_H
#define KERNELS_CUDA_IMAGE_H

#include "kernels/cuda/vectors.h"

/* A thread for each of `across` values or vectors of a row, in blocks of ACROSS, and blocks over rows and frames, over
 * which kernels loop as well: the grid's limits are not theirs. */
enum { ACROSS = 256 };
static inline dim3 image_grid(int64_t across, int64_t rows, int64_t frames)
{
    return dim3((unsigned)ceil_div(across, ACROSS), (unsigned)(rows < 65535 ? rows : 65535),
                (unsigned)(frames < 65535 ? frames : 65535));
}

/* for (int64_t i = grid_index(); i < n; i += grid_stride()): a grid-stride loop over n values */
__device__ static inline int64_t grid_index(void)
{
    return blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
}
__device__ static inline int64_t grid_stride(void)
{
    return gridDim.x * (int64_t)blockDim.x;
}
static inline unsigned blocks_for(int64_t n)
{
    return (unsigned)(ceil_div(n, ACROSS) < 1 << 16 ? ceil_div(n, ACROSS) : 1 << 16);
}

/* Values of a row are counted in 32 bits. */
static inline bool row_fits(struct kern *k, const char *op, int64_t values)
{
    if (values > INT32_MAX) kern_fail(k, "%s: rows of %lld values are too long", op, (long long)values);
    return values <= INT32_MAX;
}

#endif
