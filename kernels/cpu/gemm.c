#include "kernels/cpu/cpu.h"

#include <cblas.h>
#include <limits.h>

/* Large enough that packing its operands costs BLAS little, small enough that there are
 * tiles for every core. */
enum { TILE_ROWS = 512, TILE_COLS = 512 };

/* The size of each of the pieces that n is cut into: even, so that no sliver is left at the end. */
static int64_t even_tile(int64_t n, int64_t tile)
{
    int64_t pieces = tiles_of(n, tile);
    return (tiles_of(n, pieces) + 15) / 16 * 16;
}

static void scale_tile(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t r = row; r < row + rows; r++)
        for (int64_t c = col; c < col + cols; c++) {
            if (g->dtype == DT_F64)
                ((double *)g->c)[r * g->n + c] = g->beta ? g->beta * ((double *)g->c)[r * g->n + c] : 0;
            else
                ((float *)g->c)[r * g->n + c] = g->beta ? (float)g->beta * ((float *)g->c)[r * g->n + c] : 0;
        }
}

static void multiply_tile(const struct gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    int m = (int)rows, n = (int)cols, k = (int)g->k;
    int lda = (int)(g->ta ? g->m : g->k), ldb = (int)(g->tb ? g->k : g->n), ldc = (int)g->n;
    int64_t a = g->ta ? row : row * g->k, b = g->tb ? col * g->k : col, c = row * g->n + col;
    enum CBLAS_TRANSPOSE ta = g->ta ? CblasTrans : CblasNoTrans, tb = g->tb ? CblasTrans : CblasNoTrans;
    if (k == 0) /* BLAS refuses it; the sum is empty */
        scale_tile(g, row, rows, col, cols);
    else if (g->dtype == DT_F64)
        cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, g->alpha, (const double *)g->a + a, lda,
                    (const double *)g->b + b, ldb, g->beta, (double *)g->c + c, ldc);
    else
        cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, (float)g->alpha, (const float *)g->a + a, lda,
                    (const float *)g->b + b, ldb, (float)g->beta, (float *)g->c + c, ldc);
}

void cpu_gemm(struct kern *k, const struct gemm *g)
{
    if (g->m == 0 || g->n == 0) return;
    if (g->m > INT_MAX || g->n > INT_MAX || g->k > INT_MAX) {
        kern_fail(k, "a product of %lldx%lldx%lld is too large for BLAS", (long long)g->m, (long long)g->n,
                  (long long)g->k);
        return;
    }
    int64_t tm = even_tile(g->m, TILE_ROWS), tn = even_tile(g->n, TILE_COLS);
    PARALLEL_FOR(k, g->m * g->n * (g->k / 32 + 1), collapse(2))
    for (int64_t row = 0; row < g->m; row += tm)
        for (int64_t col = 0; col < g->n; col += tn) {
            int64_t rows = min64(tm, g->m - row), cols = min64(tn, g->n - col);
            multiply_tile(g, row, rows, col, cols);
            if (g->finish) g->finish(g, row, rows, col, cols);
        }
}

void cpu_matmul(struct kern *k, struct tensor *c, const struct tensor *a, bool ta, const struct tensor *b,
                bool tb, double alpha, double beta)
{
    struct gemm g = {.dtype = c->dtype,
                     .m = c->shape[0],
                     .n = c->shape[1],
                     .k = a->shape[!ta],
                     .ta = ta,
                     .tb = tb,
                     .alpha = alpha,
                     .beta = beta,
                     .a = a->data,
                     .b = b->data,
                     .c = c->data};
    cpu_gemm(k, &g);
}
