/* Products with few rows on the left: modulations, the next token of answers side by side. Bound by w's bytes, which
 * are read once for all rows, and of which cuBLASLt reaches half to two thirds here. */
#include "kernels/cuda/row_product.h"

#include "kernels/cuda/vectors.h"

enum { WARPS = 8, THREADS = 32 * WARPS };

/* y [parts,M,n/parts] = x [M,depth] w[p]ᵀ + b, or with `add` y += that: a warp for ROWS rows of w [n,depth]. The order
 * of a sum depends neither on M nor on ROWS. */
template <typename T, int M, int ROWS>
__global__ static void __launch_bounds__(THREADS)
    few_rows(T *y, const T *__restrict__ x, const T *__restrict__ w, const T *b, int64_t n, int64_t part,
             int64_t depth, bool add)
{
    enum { N = pack<T>::N };
    const int64_t first = ((int64_t)blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
    float sum[M][ROWS] = {};
    if (first >= n) return;
#pragma unroll 4
    for (int64_t i = (int64_t)(threadIdx.x % 32) * N; i < depth; i += 32 * N) {
        pack<T> xs[M];
        for (int m = 0; m < M; m++) xs[m] = load_pack(x + m * depth + i);
        for (int r = 0; r < ROWS; r++) {
            const pack<T> ws = load_pack(w + (first + r < n ? first + r : first) * depth + i);
            for (int m = 0; m < M; m++)
                for (int j = 0; j < N; j++) sum[m][r] += to_float(xs[m].v[j]) * to_float(ws.v[j]);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int m = 0; m < M; m++) {
            const float total = warp_sum(sum[m][r]);
            const int64_t at = first + r;
            if (threadIdx.x % 32 || at >= n) continue;
            T *to = y + (at / part * M + m) * part + at % part;
            *to = from_float<T>(total + (b ? to_float(b[at]) : 0) + (add ? to_float(*to) : 0));
        }
}

/* rows: of w a warp. */
template <typename T> static decltype(&few_rows<T, 1, 1>) kernel_for(int64_t m, int rows)
{
    switch (m) {
    case 1: return rows == 1 ? few_rows<T, 1, 1> : few_rows<T, 1, 2>;
    case 2: return rows == 1 ? few_rows<T, 2, 1> : few_rows<T, 2, 2>;
    case 3: return few_rows<T, 3, 1>;
    default: return few_rows<T, FEW_ROWS, 1>;
    }
}

bool cuda_row_product(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      const struct tensor *b, bool add)
{
    const int64_t m = x->shape[0], n = w->shape[0], depth = w->shape[1];
    if (m < 1 || m > FEW_ROWS || depth == 0 || depth * dtype_size(x->dtype) % 16 || !aligned(x->data, 16) ||
        !aligned(w->data, 16))
        return false;
    if (n == 0) return true;
    /* Few rows of w need as many warps as they can have: 4096 to 4096 takes 11.9 us with one row a warp, 13.4 with
     * two, 11008 to 4096 24.7 and 29.3; for 4096 to 11008 it is 25.0 and 24.2. Two by three need too many registers. */
    const int rows = m <= 2 && n > 8192 ? 2 : 1;
    const unsigned blocks = (unsigned)ceil_div(n, rows * WARPS);
    CALL_BY_DTYPE(x->dtype, T, const auto kernel = kernel_for<T>(m, rows);
                  kernel<<<blocks, THREADS, 0, stream_of(k)>>>(
                      (T *)y->data, (const T *)x->data, (const T *)w->data, b ? (const T *)b->data : NULL, n,
                      y->shape[y->rank - 1], depth, add));
    cuda_good(k, "linear_forward", cudaGetLastError());
    kern_took(k, "few rows");
    return true;
}
