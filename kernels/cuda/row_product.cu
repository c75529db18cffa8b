/* y [n] = x [depth] wᵀ + b for a single row: modulations, the next token. Bound by w's bytes, of which
 * cuBLASLt reaches half to two thirds here. */
#include "kernels/cuda/row_product.h"

#include "kernels/cuda/vectors.h"

enum { WARPS = 8, THREADS = 32 * WARPS };

/* y [n] = x [depth] wᵀ + b: a warp for ROWS rows of w [n,depth]. The order of a sum does
 * not depend on ROWS. */
template <typename T, int ROWS>
__global__ static void __launch_bounds__(THREADS)
    one_row(T *y, const T *__restrict__ x, const T *__restrict__ w, const T *b, int64_t n, int64_t depth)
{
    enum { N = pack<T>::N };
    const int64_t first = ((int64_t)blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
    float sum[ROWS] = {};
    if (first >= n) return;
#pragma unroll 4
    for (int64_t i = (int64_t)(threadIdx.x % 32) * N; i < depth; i += 32 * N) {
        const pack<T> xs = load_pack(x + i);
        for (int r = 0; r < ROWS; r++) {
            const pack<T> ws = load_pack(w + (first + r < n ? first + r : first) * depth + i);
            for (int j = 0; j < N; j++) sum[r] += to_float(xs.v[j]) * to_float(ws.v[j]);
        }
    }
    for (int r = 0; r < ROWS; r++) {
        sum[r] = warp_sum(sum[r]);
        if (threadIdx.x % 32 == 0 && first + r < n)
            y[first + r] = from_float<T>(sum[r] + (b ? to_float(b[first + r]) : 0));
    }
}

bool cuda_row_product(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      const struct tensor *b)
{
    const int64_t n = w->shape[0], depth = w->shape[1];
    if (x->shape[0] != 1 || depth == 0 || depth * dtype_size(x->dtype) % 16 || !aligned(x->data, 16) ||
        !aligned(w->data, 16))
        return false;
    if (n == 0) return true;
    /* Few rows need as many warps as they can have: 4096 to 4096 takes 11.9 us with one row a warp, 13.4 with
     * two, 11008 to 4096 24.7 and 29.3; for 4096 to 11008 it is 25.0 and 24.2. */
    const int rows = n <= 8192 ? 1 : 2;
    const unsigned blocks = (unsigned)ceil_div(n, rows * WARPS);
    CALL_BY_DTYPE(x->dtype, T, const auto kernel = rows == 1 ? one_row<T, 1> : one_row<T, 2>;
                  kernel<<<blocks, THREADS, 0, stream_of(k)>>>((T *)y->data, (const T *)x->data,
                                                               (const T *)w->data,
                                                               b ? (const T *)b->data : NULL, n, depth));
    cuda_good(k, "linear_forward", cudaGetLastError());
    kern_took(k, "one row");
    return true;
}
