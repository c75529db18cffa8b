/* Each reads its large operand once, with 16 bytes a thread, straight into the registers that the tensor
 * cores take (mma m16n8k16). The order of the terms of a sum is free as long as both operands agree on it,
 * and so is which column of a tile is which of the matrix: both are chosen so that what a thread needs lies
 * together. In a fragment g = lane/4 counts rows (of A) or columns (of B), and t = lane%4 pairs of terms. */
#include "kernels/cuda/thin.h"

#include "kernels/cuda/runs.h"

enum { WARPS = 8, THREADS = 32 * WARPS };

__device__ static void mma(float c[4], const unsigned a[4], const unsigned b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Of two words of two values each: their first (second) values as one word. */
__device__ static unsigned firsts(unsigned x, unsigned y)
{
    return __byte_perm(x, y, 0x5410);
}
__device__ static unsigned seconds(unsigned x, unsigned y)
{
    return __byte_perm(x, y, 0x7632);
}
__device__ static unsigned pair(const bf16 *first, const bf16 *second)
{
    return __bfloat16_as_ushort(*first) | (unsigned)__bfloat16_as_ushort(*second) << 16;
}
__device__ static const unsigned &word(const uint4 &v, int i)
{
    return reinterpret_cast<const unsigned *>(&v)[i];
}

/* ---- one row ----------------------------------------------------------------------------------------- */

/* y [n] = x [depth] wᵀ + b: a warp for two rows of w [n,depth]. */
template <typename T>
__global__ static void __launch_bounds__(THREADS)
    one_row(T *y, const T *__restrict__ x, const T *__restrict__ w, const T *b, int64_t n, int64_t depth)
{
    enum { ROWS = 2, N = pack<T>::N };
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
    CALL_BY_DTYPE(
        x->dtype, T,
        one_row<<<(unsigned)ceil_div(n, 2 * WARPS), THREADS, 0, stream_of(k)>>>(
            (T *)y->data, (const T *)x->data, (const T *)w->data, b ? (const T *)b->data : NULL, n, depth));
    cuda_good(k, "linear_forward", cudaGetLastError());
    return true;
}

/* ---- few columns: c [m,n] = alpha a [m,depth] op(b) + beta c, n = 8 TILES ----------------------------- */

/* A block has ROWS rows; its warps take turns at 32 terms and add up in order at the end. Thread t of a quad
 * holds terms 8t .. 8t+7, so that a fragment of either operand is half of 16 bytes. Where b is [depth,n], it
 * holds pairs of columns: column g of tiles 2i and 2i+1 is 16i + 2g and the next. */
template <int TILES, bool TB>
__global__ static void __launch_bounds__(THREADS)
    few_columns(bf16 *c, const bf16 *__restrict__ a, const bf16 *__restrict__ b, int64_t m, int64_t depth,
                float alpha, float beta)
{
    enum { BANDS = 2, ROWS = 16 * BANDS, N = 8 * TILES };
    __shared__ float part[WARPS][16][N];
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int64_t row = (int64_t)blockIdx.x * ROWS;
    const bf16 *at[2 * BANDS];
    float sum[BANDS][TILES][4] = {};
    for (int i = 0; i < 2 * BANDS; i++) { /* a row beyond the last is read as the last, and not written */
        const int64_t r = row + 8 * i + g;
        at[i] = a + (r < m ? r : m - 1) * depth + 8 * t;
    }
#pragma unroll 2
    for (int64_t p = 32 * warp; p < depth; p += 32 * WARPS) {
        uint4 x[2 * BANDS];
        unsigned w[TILES][4];
        for (int i = 0; i < 2 * BANDS; i++) x[i] = __ldg((const uint4 *)(at[i] + p));
        if (TB) {
            for (int j = 0; j < TILES; j++) {
                const uint4 v = __ldg((const uint4 *)(b + (8 * j + g) * depth + p + 8 * t));
                for (int i = 0; i < 4; i++) w[j][i] = word(v, i);
            }
        } else {
            for (int j = 0; j < TILES; j += 2)
                for (int i = 0; i < 4; i++) {
                    const bf16 *v = b + (p + 8 * t + 2 * i) * N + 8 * j + 2 * g;
                    const unsigned one = __ldg((const unsigned *)v), two = __ldg((const unsigned *)(v + N));
                    w[j][i] = firsts(one, two), w[j + 1][i] = seconds(one, two);
                }
        }
        for (int band = 0; band < BANDS; band++)
            for (int half = 0; half < 4; half += 2) {
                const unsigned f[4] = {word(x[2 * band], half), word(x[2 * band + 1], half),
                                       word(x[2 * band], half + 1), word(x[2 * band + 1], half + 1)};
                for (int j = 0; j < TILES; j++) mma(sum[band][j], f, &w[j][half]);
            }
    }
#pragma unroll
    for (int band = 0; band < BANDS; band++) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int one = 2 * t + i % 2; /* the column within the tile */
                part[warp][g + i / 2 * 8][TB ? 8 * j + one : j / 2 * 16 + 2 * one + j % 2] = sum[band][j][i];
            }
        __syncthreads();
        for (int i = threadIdx.x; i < 16 * N; i += THREADS) {
            const int64_t r = row + 16 * band + i / N;
            float s = 0;
            for (int from = 0; from < WARPS; from++) s += part[from][i / N][i % N];
            if (r >= m) continue;
            bf16 *to = c + r * N + i % N;
            *to = from_float<bf16>(alpha * s + (beta != 0 ? beta * to_float(*to) : 0));
        }
    }
}

static bool few_columns_of(struct kern *k, struct tensor *c, const struct tensor *a, const struct tensor *b,
                           bool tb, float alpha, float beta)
{
    const int64_t m = c->shape[0], depth = a->shape[1];
    const unsigned blocks = (unsigned)ceil_div(m, 32);
    if (m < 512 || depth % 32 || depth == 0 || !aligned(a->data, 16) || !aligned(b->data, 16)) return false;
#define CASE(tiles)                                                                                          \
    case 8 * tiles:                                                                                          \
        if (tb)                                                                                              \
            few_columns<tiles, true><<<blocks, THREADS, 0, stream_of(k)>>>(                                  \
                (bf16 *)c->data, (const bf16 *)a->data, (const bf16 *)b->data, m, depth, alpha, beta);       \
        else                                                                                                 \
            few_columns<tiles, false><<<blocks, THREADS, 0, stream_of(k)>>>(                                 \
                (bf16 *)c->data, (const bf16 *)a->data, (const bf16 *)b->data, m, depth, alpha, beta);       \
        break
    switch (c->shape[1]) {
        CASE(2);
        CASE(4);
        CASE(8);
    default: return false;
    }
#undef CASE
    cuda_good(k, "matmul", cudaGetLastError());
    return true;
}

/* ---- few terms: c [m,n] = alpha a [m,depth] op(b) + beta c, depth = 16 STEPS ------------------------- */

/* A warp keeps 32 columns of op(b) and goes down the rows, 16 at a time. Thread t of a quad holds columns
 * 8t .. 8t+7: column g of tile j is 8 (g/2) + 2j + g%2; and terms 4t .. 4t+3 of each 16. */
template <int STEPS, bool TB>
__global__ static void __launch_bounds__(THREADS)
    few_terms(bf16 *c, const bf16 *__restrict__ a, const bf16 *__restrict__ b, int64_t m, int64_t n,
              float alpha, float beta)
{
    enum { DEPTH = 16 * STEPS, TILES = 4, AHEAD = STEPS > 2 ? 1 : 2 };
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int64_t from = ((int64_t)blockIdx.x * WARPS + threadIdx.x / 32) * 32, col = from + 8 * t;
    unsigned w[STEPS][TILES][2];
    if (from >= n) return;
    for (int s = 0; s < STEPS; s++)
        for (int j = 0; j < TILES; j++) {
            int64_t x = from + 8 * (g / 2) + 2 * j + g % 2, p = 16 * s + 4 * t;
            if (x >= n) x = 0; /* a column that is not there is not written */
            for (int i = 0; i < 2; i++, p += 2)
                w[s][j][i] = TB ? pair(b + x * DEPTH + p, b + x * DEPTH + p + 1)
                                : pair(b + p * n + x, b + (p + 1) * n + x);
        }
    for (int64_t row = 16 * (int64_t)blockIdx.y; row < m; row += 16 * AHEAD * (int64_t)gridDim.y) {
        uint2 f[AHEAD][2][STEPS];
        pack<bf16> old[AHEAD][2];
        for (int i = 0; i < AHEAD; i++)
            for (int half = 0; half < 2; half++) {
                int64_t r = row + 16 * i * (int64_t)gridDim.y + 8 * half + g;
                r = r < m ? r : m - 1;
                for (int s = 0; s < STEPS; s++)
                    f[i][half][s] = __ldg((const uint2 *)(a + r * DEPTH + 16 * s + 4 * t));
                if (beta != 0 && col < n) old[i][half] = load_pack(c + r * n + col);
            }
        for (int i = 0; i < AHEAD; i++) {
            float sum[TILES][4] = {};
            for (int s = 0; s < STEPS; s++) {
                const unsigned x[4] = {f[i][0][s].x, f[i][1][s].x, f[i][0][s].y, f[i][1][s].y};
                for (int j = 0; j < TILES; j++) mma(sum[j], x, w[s][j]);
            }
            for (int half = 0; half < 2; half++) {
                const int64_t r = row + 16 * i * (int64_t)gridDim.y + 8 * half + g;
                pack<bf16> out;
                for (int j = 0; j < 8; j++)
                    out.v[j] = from_float<bf16>(alpha * sum[j / 2][2 * half + j % 2] +
                                                (beta != 0 ? beta * to_float(old[i][half].v[j]) : 0));
                if (r < m && col < n) store_pack(c + r * n + col, out);
            }
        }
    }
}

static bool few_terms_of(struct kern *k, struct tensor *c, const struct tensor *a, const struct tensor *b,
                         bool tb, float alpha, float beta)
{
    const int64_t m = c->shape[0], n = c->shape[1], columns = ceil_div(n, 32 * WARPS),
                  bands = ceil_div(m, 16);
    if (m < 512 || n < 64 || n % 8 || columns > 256 || !aligned(a->data, 8) || !aligned(b->data, 4) ||
        !aligned(c->data, 16))
        return false;
    const int64_t down = ceil_div(3 * cuda_of(k)->processors, columns);
    const dim3 grid((unsigned)columns, (unsigned)(down < bands ? down : bands));
#define CASE(steps)                                                                                          \
    case 16 * steps:                                                                                         \
        if (tb)                                                                                              \
            few_terms<steps, true><<<grid, THREADS, 0, stream_of(k)>>>(                                      \
                (bf16 *)c->data, (const bf16 *)a->data, (const bf16 *)b->data, m, n, alpha, beta);           \
        else                                                                                                 \
            few_terms<steps, false><<<grid, THREADS, 0, stream_of(k)>>>(                                     \
                (bf16 *)c->data, (const bf16 *)a->data, (const bf16 *)b->data, m, n, alpha, beta);           \
        break
    switch (a->shape[1]) {
        CASE(1);
        CASE(2);
        CASE(4);
    default: return false;
    }
#undef CASE
    cuda_good(k, "matmul", cudaGetLastError());
    return true;
}

/* ---- many terms: [thin,wide] = aᵀ b over many rows, with thin a multiple of 16 ------------------------- */

/* Sums of `rows` rows, in `splits` parts: part [split,thin,wide] = Σ over its rows of narrow[r,:]ᵀ
 * broad[r,:]. A block has 128 columns of broad: two warps side by side, four taking turns at 16 rows. Thread
 * g holds columns 8g .. 8g+7, of which column j is its own in tile j, and t the rows 2t, 2t+1, 2t+8, 2t+9. Of
 * narrow, row g of a fragment is column 2g, row g+8 the one after it. */
template <int BANDS>
__global__ static void __launch_bounds__(THREADS)
    many_terms(float *part, const bf16 *__restrict__ narrow, const bf16 *__restrict__ broad, int64_t rows,
               int64_t thin, int64_t wide, int64_t steps_each)
{
    enum { TURNS = 4, COLUMNS = 128, AHEAD = 2 };
    __shared__ float sums[TURNS][16][COLUMNS];
    const int warp = threadIdx.x / 32, turn = warp / 2, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int64_t from = (int64_t)blockIdx.x * COLUMNS, col = from + warp % 2 * 64 + 8 * g,
                  across = (int64_t)blockIdx.z * 16 * BANDS;
    const int64_t first = blockIdx.y * steps_each * 16;
    int64_t end = first + steps_each * 16;
    if (end > rows) end = rows;
    float sum[BANDS][8][4] = {};
    for (int64_t row = first + 16 * turn; row < end; row += 16 * TURNS * AHEAD) {
        uint4 x[AHEAD][4];
        unsigned z[AHEAD][BANDS][4];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int64_t r = row + 16 * TURNS * i + 2 * t + j % 2 + j / 2 * 8;
                const bool there = r < end;
                x[i][j] = there && col < wide ? __ldg((const uint4 *)(broad + r * wide + col)) : uint4{};
#pragma unroll
                for (int band = 0; band < BANDS; band++)
                    z[i][band][j] =
                        there ? __ldg((const unsigned *)(narrow + r * thin + across + 16 * band + 2 * g)) : 0;
            }
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
#pragma unroll
            for (int band = 0; band < BANDS; band++) {
                const unsigned *v = z[i][band];
                const unsigned f[4] = {firsts(v[0], v[1]), seconds(v[0], v[1]), firsts(v[2], v[3]),
                                       seconds(v[2], v[3])};
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const unsigned a0 = word(x[i][0], j / 2), a1 = word(x[i][1], j / 2),
                                   a2 = word(x[i][2], j / 2), a3 = word(x[i][3], j / 2);
                    const unsigned b[2] = {j % 2 ? seconds(a0, a1) : firsts(a0, a1),
                                           j % 2 ? seconds(a2, a3) : firsts(a2, a3)};
                    mma(sum[band][j], f, b);
                }
            }
    }
#pragma unroll
    for (int band = 0; band < BANDS; band++) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sums[turn][2 * g + i / 2][warp % 2 * 64 + 8 * (2 * t + i % 2) + j] = sum[band][j][i];
        __syncthreads();
        for (int i = threadIdx.x; i < 16 * COLUMNS; i += THREADS) {
            const int r = i / COLUMNS, x = i % COLUMNS;
            const float s = (sums[0][r][x] + sums[1][r][x]) + (sums[2][r][x] + sums[3][r][x]);
            if (from + x < wide) part[(blockIdx.y * thin + across + 16 * band + r) * wide + from + x] = s;
        }
    }
}

/* c = alpha Σ part + beta c, where c is [thin,wide], or [wide,thin] when `turned`. */
template <typename T>
__global__ static void add_parts(T *c, const float *part, int64_t splits, int64_t thin, int64_t wide,
                                 bool turned, float alpha, float beta)
{
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    float s = 0;
    if (i >= thin * wide) return;
    for (int64_t p = 0; p < splits; p++) s += part[p * thin * wide + i];
    T *to = c + (turned ? i % wide * thin + i / wide : i);
    *to = from_float<T>(alpha * s + (beta != 0 ? beta * to_float(*to) : 0));
}

static bool many_terms_of(struct kern *k, struct tensor *c, const struct tensor *a, const struct tensor *b,
                          float alpha, float beta)
{
    enum { BLOCKS = 264 }; /* two for each multiprocessor of a H200; the same on all, for bits depend on it */
    const bool turned = c->shape[0] > c->shape[1];
    const struct tensor *narrow = turned ? b : a, *broad = turned ? a : b;
    const int64_t rows = a->shape[0], thin = narrow->shape[1], wide = broad->shape[1];
    if (rows < 1024 || thin % 16 || thin > 64 || wide % 8 || wide < 64 || !aligned(narrow->data, 4) ||
        !aligned(broad->data, 16))
        return false;
    const int bands = thin % 32 ? 1 : 2;
    const int64_t columns = ceil_div(wide, 128), slices = thin / (16 * bands), steps = ceil_div(rows, 16);
    int64_t splits = BLOCKS / (columns * slices);
    splits = splits < 1 ? 1 : splits;
    const int64_t each = ceil_div(ceil_div(steps, splits), 4) * 4;
    splits = ceil_div(steps, each);
    if ((size_t)(splits * thin * wide) * sizeof(float) > cuda_of(k)->workspace_size || columns > 65535)
        return false;
    float *part = (float *)cuda_of(k)->workspace;
    const dim3 grid((unsigned)columns, (unsigned)splits, (unsigned)slices);
    if (bands == 1)
        many_terms<1><<<grid, THREADS, 0, stream_of(k)>>>(part, (const bf16 *)narrow->data,
                                                          (const bf16 *)broad->data, rows, thin, wide, each);
    else
        many_terms<2><<<grid, THREADS, 0, stream_of(k)>>>(part, (const bf16 *)narrow->data,
                                                          (const bf16 *)broad->data, rows, thin, wide, each);
    if (!cuda_good(k, "matmul", cudaGetLastError())) return true;
    CALL_BY_DTYPE(c->dtype, T,
                  add_parts<<<(unsigned)ceil_div(thin * wide, 256), 256, 0, stream_of(k)>>>(
                      (T *)c->data, part, splits, thin, wide, turned, alpha, beta));
    cuda_good(k, "matmul", cudaGetLastError());
    return true;
}

bool cuda_thin_matmul(struct kern *k, struct tensor *c, const struct tensor *a, bool ta,
                      const struct tensor *b, bool tb, float alpha, float beta)
{
    if (a->dtype != DT_BF16) return false;
    if (ta) return !tb && many_terms_of(k, c, a, b, alpha, beta);
    if (c->dtype != DT_BF16) return false;
    return few_columns_of(k, c, a, b, tb, alpha, beta) || few_terms_of(k, c, a, b, tb, alpha, beta);
}
