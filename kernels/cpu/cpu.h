/* cpu - what the operations of this folder share.
 *
 * They define the answer: each is a plain loop over tiles whose limits depend on shapes alone, so that the
 * number of threads changes no bit. Sums are in double, in a fixed order. BLAS runs single-threaded inside
 * the tiles. Shapes have been checked by the shared entries in kernels/kernels.c. */
#ifndef KERNELS_CPU_CPU_H
#define KERNELS_CPU_CPU_H

#include <omp.h>

#include "kernels/backend.h"
#include "kernels/cpu/vmath.h"

#define OP(name) __typeof__(name) cpu_##name;
KERNEL_OPS(OP)
#undef OP

/* for loops over tiles. `work` is about the number of elements that are gone over; below some 64k, waking
 * other threads costs more than they save, and on a busy machine much more. */
#define PARALLEL_PRAGMA(x) _Pragma(#x)
#define PARALLEL_FOR(k, work, ...)                                                                           \
    PARALLEL_PRAGMA(omp parallel for schedule(dynamic) num_threads((work) < 65536 ? 1 : (k)->threads)        \
                        __VA_ARGS__)

enum { TILE = 16384 }; /* elements of one piece of work of an elementwise operation */

static inline float *f32(const struct tensor *t)
{
    return t->data;
}

static inline int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t tiles_of(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

/* Rows that make up a piece of work when a row has `width` elements. */
static inline int64_t row_tile(int64_t width)
{
    return width < TILE ? TILE / (width > 0 ? width : 1) : 1;
}

/* Scratch of `count` elements for one operation; NULL, and nothing to compute, while planning or when there
 * is no room. Taken before anything is read, it makes planning count it; the shared entry gives it back. */
static inline void *cpu_scratch(struct kern *k, enum dtype d, int64_t count)
{
    return kern_tensor(k, d, 1, count).data;
}

/* Σ x, Σ (x - c)², Σ a b over n elements: eight partial sums, which the compiler can keep in vectors, then
 * one order. */
double sum_of(const float *x, int64_t n);
double sum_about(const float *x, double c, int64_t n);
double dot_of(const float *a, const float *b, int64_t n);

/* Mean and 1/√(variance + eps) of a row, biased. */
struct moments {
    float mean, rstd;
};
struct moments moments_of(const float *x, int64_t n, float eps);

/* One row of layer_norm_backward. w and scale may be NULL, dx may be dy. */
void norm_backward_row(float *dx, const float *dy, const float *x, const float *w, const float *scale,
                       struct moments s, int64_t n, bool add);

/* C [m,n] = alpha op(A) op(B) + beta C, all F32 or all F64, over fixed tiles. `finish`, when given, is called
 * on each tile right after it is computed, while it is in cache, with a pointer to this struct and the tile's
 * place. */
struct gemm {
    enum dtype dtype;
    int64_t m, n, k;
    bool ta, tb;
    double alpha, beta;
    const void *a, *b;
    void *c;
    void (*finish)(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols);
    const float *bias, *pre, *row_scale, *col_scale; /* what `finish` needs */
    float *y;
};
void cpu_gemm(struct kern *k, const struct gemm *g);

#endif
