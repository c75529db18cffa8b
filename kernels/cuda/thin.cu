/* Products with an adapter's rank, which is so small that memory decides: tensors of all rows are gone over once for all
 * modules. BF16 and ranks of 16 and 32; all else goes through products.cu, module by module.
 *
 * Ranks are cut into blocks of 16, so a module of 32 is two. `wide` are tensors [rows,width], `thin` those
 * [rows,rank]. Sums are in F32 and in one order: along rows they are cut into parts whose number follows from the shape
 * alone, and added up afterwards, the first part first. */
#include "kernels/cuda/tiles.h"
#include "kernels/cuda/vectors.h"

enum { MOST_BLOCKS = 4 }; /* of 16 ranks that one pass takes */

template <int BLOCKS> using blocks_of = std::integral_constant<int, BLOCKS>;

/* f(blocks_of<n>()) */
template <typename F> static void by_blocks(int n, F f)
{
    if (n == 1) f(blocks_of<1>());
    if (n == 2) f(blocks_of<2>());
    if (n == 3) f(blocks_of<3>());
    if (n == 4) f(blocks_of<4>());
}

template <typename... P, typename... A>
static void launch(struct kern *k, void (*kernel)(P...), dim3 grid, int threads, size_t shared,
                   A... arguments)
{
    if (shared && !cuda_allow_shared(k, "thin", (const void *)kernel, shared)) return;
    kernel<<<grid, (unsigned)threads, shared, stream_of(k)>>>(arguments...);
    cuda_good(k, "thin", cudaGetLastError());
}

/* ---- z = x aᵀ ------------------------------------------------------------------------------------------- */

enum { DOWN_STAGES = 4, DOWN_COLUMNS = 64, DOWN_WARPS = 9 };

/* Of each block of 16 ranks: a [16,width], and where its columns of z [rows,rank] begin. */
struct down {
    const bf16 *x, *a[MOST_BLOCKS];
    bf16 *z[MOST_BLOCKS];
    int rows, width, rank;
};

static size_t down_shared(int warps, int blocks)
{
    return (size_t)DOWN_STAGES * 16 * (warps + blocks) * DOWN_COLUMNS * sizeof(bf16);
}

/* A warp has 16 rows; a block of them goes over the columns of x and a together. */
template <int BLOCKS>
__global__ static void __launch_bounds__(32 * DOWN_WARPS) down_kernel(const __grid_constant__ struct down g)
{
    extern __shared__ __align__(128) bf16 shared[];
    enum { ROW = DOWN_COLUMNS * sizeof(bf16) };
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, mine = blockDim.x / 2;
    const int first = blockIdx.x * mine, stage = (mine + 16 * BLOCKS) * ROW,
              steps = (g.width + DOWN_COLUMNS - 1) / DOWN_COLUMNS;
    const unsigned at = shared_address(shared);
    float acc[2 * BLOCKS][4] = {};
    auto load = [&](int step) {
        const unsigned to = at + step % DOWN_STAGES * stage;
        for (int i = threadIdx.x; i < (mine + 16 * BLOCKS) * 8; i += blockDim.x) {
            const int r = i / 8, col = step * DOWN_COLUMNS + i % 8 * 8;
            const bf16 *const row = r < mine ? g.x + (int64_t)min(first + r, g.rows - 1) * g.width
                                             : g.a[(r - mine) / 16] + (r - mine) % 16 * g.width;
            const bool there = col < g.width && (r >= mine || first + r < g.rows);
            cp_async_16(to + swizzle<DOWN_COLUMNS>(r, i % 8), row + (there ? col : 0), there);
        }
    };
    for (int s = 0; s < DOWN_STAGES - 1; s++) {
        if (s < steps) load(s);
        cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        const unsigned xs = at + step % DOWN_STAGES * stage, as = xs + mine * ROW;
        cp_async_wait<DOWN_STAGES - 2>();
        __syncthreads();
        if (step + DOWN_STAGES - 1 < steps) load(step + DOWN_STAGES - 1);
        cp_async_commit();
#pragma unroll
        for (int col = 0; col < DOWN_COLUMNS; col += 16) {
            unsigned x[4], a[4];
            load_a<DOWN_COLUMNS>(x, xs, 16 * warp, col);
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) {
                load_b<DOWN_COLUMNS>(a, as, 16 * b, col);
                mma_pair(acc[2 * b], acc[2 * b + 1], x, a);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 2 * BLOCKS; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = first + 16 * warp + 8 * h + lane / 4;
            if (row < g.rows)
                *(unsigned *)(g.z[j / 2] + (int64_t)row * g.rank + j % 2 * 8 + lane % 4 * 2) =
                    pack_bf16(acc[j][2 * h], acc[j][2 * h + 1]);
        }
}

/* As many warps a block as leave the fewest multiprocessors idle; more of them where that is the same. */
static int down_warps(struct kern *k, int64_t rows, int blocks)
{
    const int processors = cuda_of(k)->processors;
    int best = 1;
    int64_t least = INT64_MAX;
    for (int warps = 4; warps <= DOWN_WARPS; warps++) {
        const int64_t rounds = ceil_div(ceil_div(rows, 16 * warps), processors) * warps;
        if (rounds > least || down_shared(warps, blocks) > (size_t)cuda_shared_limit(k)) continue;
        best = warps, least = rounds;
    }
    return best;
}

/* ---- y += scale Σ z w ------------------------------------------------------------------------------------ */

enum { UP_WARPS = 8, UP_COLUMNS = 64 }; /* columns of a warp */

/* Of each block of 16 ranks: where its columns of z [rows,rank] begin, and its weights: w [width,rank], of which it has
 * 16 columns, or w [16,width] when `across`. */
struct up {
    struct {
        bf16 *y;
        const bf16 *z[MOST_BLOCKS], *w[MOST_BLOCKS];
    } job[THIN_MODULES];
    float scale;
    int rows, width, rank, rows_each; /* of y that a block goes over */
};

/* What a thread needs of 16 rows: of y eight columns that lie together in each 32 of the warp's, of z four. */
template <int BLOCKS> struct up_rows {
    uint4 y[2][2]; /* of rows lane / 4 and 8 further */
    uint2 z[2][BLOCKS];
};

__device__ static inline unsigned bits(const bf16 *low, const bf16 *high)
{
    return *(const unsigned short *)low | (unsigned)*(const unsigned short *)high << 16;
}

/* Two values of y plus what is added. Where that is 0 not even the sign of a zero changes. */
__device__ static inline unsigned plus(unsigned y, float low, float high)
{
    const float l = __uint_as_float(y << 16), h = __uint_as_float(y & 0xffff0000u);
    return pack_bf16(low == 0 ? l : l + low, high == 0 ? h : h + high);
}

/* The operands lie as memory has them: k of the products is 4 c, .. + 3 where lane % 4 = c, and of 32 columns n of
 * product t is 8 (n / 2) + 2 t + n % 2, so that a thread's sums are of eight that follow each other. */
template <int BLOCKS, bool ACROSS>
__global__ static void __launch_bounds__(32 * UP_WARPS, 2) up_kernel(const __grid_constant__ struct up g)
{
    const auto &job = g.job[blockIdx.z];
    const int lane = threadIdx.x % 32, c = lane % 4, n = lane / 4,
              first = (blockIdx.x * UP_WARPS + threadIdx.x / 32) * UP_COLUMNS,
              end = min(g.rows, (int)(blockIdx.y + 1) * g.rows_each);
    unsigned w[2][4][BLOCKS][2];
    if (first >= g.width) return;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int t = 0; t < 4; t++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) {
                const int64_t col = first + 32 * half + n / 2 * 8 + 2 * t + n % 2, width = g.width;
                w[half][t][b][0] = w[half][t][b][1] = 0;
                if (col >= width) continue;
                if (ACROSS) {
                    const bf16 *const from = job.w[b] + 4 * c * width + col;
                    w[half][t][b][0] = bits(from, from + width);
                    w[half][t][b][1] = bits(from + 2 * width, from + 3 * width);
                } else {
                    const uint2 four = *(const uint2 *)(job.w[b] + col * g.rank + 4 * c);
                    w[half][t][b][0] = four.x, w[half][t][b][1] = four.y;
                }
            }
    auto fetch = [&](up_rows<BLOCKS> &to, int row) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = row + 8 * h + n;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int col = first + 32 * half + 8 * c;
                if (r < end && col < g.width)
                    to.y[h][half] = __ldcs((const uint4 *)(job.y + (int64_t)r * g.width + col));
            }
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
                to.z[h][b] = r < end ? *(const uint2 *)(job.z[b] + (int64_t)r * g.rank + 4 * c) : uint2();
        }
    };
    up_rows<BLOCKS> next = {};
    fetch(next, blockIdx.y * g.rows_each);
    for (int row = blockIdx.y * g.rows_each; row < end; row += 16) {
        up_rows<BLOCKS> now = next;
        if (row + 16 < end) fetch(next, row + 16);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float acc[4][4] = {};
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) {
                const unsigned z[4] = {now.z[0][b].x, now.z[1][b].x, now.z[0][b].y, now.z[1][b].y};
#pragma unroll
                for (int t = 0; t < 4; t++) mma_m16n8k16(acc[t], z, w[half][t][b][0], w[half][t][b][1]);
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int r = row + 8 * h + n, col = first + 32 * half + 8 * c;
                const uint4 y = now.y[h][half];
                const unsigned words[4] = {y.x, y.y, y.z, y.w};
                unsigned sum[4];
#pragma unroll
                for (int t = 0; t < 4; t++)
                    sum[t] = plus(words[t], g.scale * acc[t][2 * h], g.scale * acc[t][2 * h + 1]);
                if (r < end && col < g.width)
                    *(uint4 *)(job.y + (int64_t)r * g.width + col) =
                        make_uint4(sum[0], sum[1], sum[2], sum[3]);
            }
        }
    }
}

template <bool ACROSS> static void add_up(struct kern *k, struct up *g, int jobs, int blocks)
{
    const int64_t across = ceil_div(g->width, UP_WARPS * UP_COLUMNS), slots = 2 * cuda_of(k)->processors,
                  pieces = slots / (across * jobs) > 0 ? slots / (across * jobs) : 1;
    g->rows_each = (int)ceil_div(ceil_div(g->rows, pieces), 16) * 16;
    const dim3 grid((unsigned)across, (unsigned)ceil_div(g->rows, g->rows_each), (unsigned)jobs);
    by_blocks(blocks, [&](auto b) {
        if constexpr (ACROSS || b() <= 2) launch(k, up_kernel<b(), ACROSS>, grid, 32 * UP_WARPS, 0, *g);
    });
}

/* ---- sums along rows: thinᵀ wide, and wide w beside it ---------------------------------------------------- */

enum {
    WIDTH = 384, /* columns of a block, in tiles of 64 */
    TILE = 64,
    ROWS = 32, /* at a time */
    STAGES = 3,
    WARPS = 8,
    THREADS = 32 * WARPS,
    EACH = WIDTH / WARPS,         /* columns of a warp */
    QUARTERS = WARPS * 16 / ROWS, /* of the columns, in wide w: a warp has 16 rows of one */
    /* Blocks: two on each multiprocessor of an H200. A constant, so that bits depend on no card. */
    AT_WORK = 264
};

/* Of each block of 16 ranks: where its columns of thin [rows,rank] begin; NULL: there is none. parts [parts,..] are
 * thinᵀ wide as [16 BLOCKS,width], and with w as [width,16 BLOCKS]; w [width,16 BLOCKS]; products, wide w, are
 * [slices of columns,rows,16 BLOCKS]. */
struct along {
    struct {
        const bf16 *wide, *thin[MOST_BLOCKS], *w;
        float *parts, *products;
    } job[THIN_MODULES];
    int rows, width, rank, rows_each; /* of a part */
};

template <int BLOCKS> static size_t along_shared(bool products)
{
    return STAGES * (ROWS * WIDTH + BLOCKS * ROWS * 16) * sizeof(bf16) +
           (products ? QUARTERS * ROWS * BLOCKS * 16 * sizeof(float) : 0);
}

template <int BLOCKS, bool PRODUCTS>
__global__ static void __launch_bounds__(THREADS, 2) along_kernel(const __grid_constant__ struct along g)
{
    extern __shared__ __align__(128) bf16 shared[];
    enum {
        THIN = ROWS * WIDTH * sizeof(bf16), /* where that part of a stage begins */
        STAGE = THIN + BLOCKS * ROWS * 16 * sizeof(bf16),
        RANKS = 16 * BLOCKS,
        STEPS = WIDTH / QUARTERS / 16
    };
    const auto &job = g.job[blockIdx.z];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = lane / 4, c = lane % 4 * 2;
    const int left = blockIdx.x * WIDTH, first = blockIdx.y * g.rows_each,
              end = min(g.rows, first + g.rows_each), tiles = (end - first + ROWS - 1) / ROWS;
    const int rows16 = warp % (ROWS / 16) * 16, quarter = warp / (ROWS / 16);
    const unsigned at = shared_address(shared);
    float *const quarters = (float *)((char *)shared + STAGES * STAGE);
    float sum[BLOCKS][EACH / 8][4] = {};
    unsigned w[PRODUCTS ? STEPS : 1][BLOCKS][4];
    if (PRODUCTS)
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
#pragma unroll
                for (int i = 0; i < 4; i++) { /* columns as k, ranks as n */
                    const int col = left + (quarter * STEPS + s) * 16 + i % 2 * 8 + c;
                    const bf16 *const from = job.w + (int64_t)col * g.rank + 16 * b + i / 2 * 8 + n;
                    w[s][b][i] = col < g.width ? bits(from, from + g.rank) : 0;
                }
    auto load = [&](int tile) {
        static_assert(THREADS == ROWS * TILE / 8); /* a chunk each of every tile */
        const unsigned to = at + tile % STAGES * STAGE;
        const int top = first + tile * ROWS, r = threadIdx.x / 8, col = left + threadIdx.x % 8 * 8;
        const bf16 *const row = job.wide + (int64_t)min(top + r, end - 1) * g.width;
        const unsigned place = to + swizzle<TILE>(r, threadIdx.x % 8);
#pragma unroll
        for (int i = 0; i < WIDTH; i += TILE) {
            const bool there = top + r < end && col + i < g.width;
            cp_async_16(place + i * ROWS * (int)sizeof(bf16), row + (there ? col + i : 0), there);
        }
        if (threadIdx.x < BLOCKS * ROWS * 2) {
            const int b = threadIdx.x / (ROWS * 2), r = threadIdx.x / 2 % ROWS, chunk = threadIdx.x % 2;
            const bf16 *const from = job.thin[b];
            const bool there = from && top + r < end;
            cp_async_16(to + THIN + b * (ROWS * 16 * (int)sizeof(bf16)) + swizzle<16>(r, chunk),
                        there ? from + (int64_t)(top + r) * g.rank + chunk * 8 : job.wide, there);
        }
    };
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < tiles) load(s);
        cp_async_commit();
    }
    for (int tile = 0; tile < tiles; tile++) {
        const unsigned wide = at + tile % STAGES * STAGE, thin = wide + THIN;
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        if (tile + STAGES - 1 < tiles) load(tile + STAGES - 1);
        cp_async_commit();
        if (PRODUCTS) {
            float acc[BLOCKS][2][4] = {};
#pragma unroll
            for (int s = 0; s < STEPS; s++) {
                const int col = (quarter * STEPS + s) * 16;
                unsigned a[4];
                load_a<TILE>(a, wide + col / TILE * (ROWS * TILE * (int)sizeof(bf16)), rows16, col % TILE);
#pragma unroll
                for (int b = 0; b < BLOCKS; b++) mma_pair(acc[b][0], acc[b][1], a, w[s][b]);
            }
#pragma unroll
            for (int j = 0; j < 2 * BLOCKS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    *(float2 *)(quarters + (quarter * ROWS + rows16 + 8 * h + n) * RANKS + 8 * j + c) =
                        make_float2(acc[j / 2][j % 2][2 * h], acc[j / 2][j % 2][2 * h + 1]);
        }
#pragma unroll
        for (int row = 0; row < ROWS; row += 16) {
            unsigned a[BLOCKS][4];
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
                load_a_trans<16>(a[b], thin + b * (ROWS * 16 * (int)sizeof(bf16)), row, 0);
#pragma unroll
            for (int j = 0; j < EACH / 16; j++) {
                const int col = warp * EACH + 16 * j;
                unsigned v[4];
                load_b_trans<TILE>(v, wide + col / TILE * (ROWS * TILE * (int)sizeof(bf16)), row, col % TILE);
#pragma unroll
                for (int b = 0; b < BLOCKS; b++) mma_pair(sum[b][2 * j], sum[b][2 * j + 1], a[b], v);
            }
        }
        if (!PRODUCTS) continue;
        __syncthreads();
        const int top = first + tile * ROWS;
        for (int i = threadIdx.x * 2; i < ROWS * RANKS; i += THREADS * 2) {
            float2 total = *(const float2 *)(quarters + i);
#pragma unroll
            for (int q = 1; q < QUARTERS; q++) {
                const float2 more = *(const float2 *)(quarters + q * ROWS * RANKS + i);
                total.x += more.x, total.y += more.y;
            }
            if (top + i / RANKS < end)
                *(float2 *)(job.products + ((int64_t)blockIdx.x * g.rows + top) * RANKS + i) = total;
        }
    }
    float *const part = job.parts + (int64_t)blockIdx.y * RANKS * g.width;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int j = 0; j < EACH / 8; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int col = left + warp * EACH + 8 * j + c, rank = 16 * b + 8 * h + n;
                const float *const s = &sum[b][j][2 * h];
                if (col >= g.width) continue;
                if (PRODUCTS)
                    part[(int64_t)col * RANKS + rank] = s[0], part[(int64_t)(col + 1) * RANKS + rank] = s[1];
                else
                    *(float2 *)(part + (int64_t)rank * g.width + col) = make_float2(s[0], s[1]);
            }
}

/* ---- adding up parts ------------------------------------------------------------------------------------ */

enum { MOST_SUMS = 2 * THIN_MODULES + THIN_MODULES, SUM_THREADS = 256 };

/* to[i] += scale Σ from[i + step p], or to[i] = that, in BF16, where `rounds`. count is even. */
struct sums {
    struct {
        const float *from;
        void *to;
        int64_t count, step;
        int parts;
        bool rounds;
    } of[MOST_SUMS];
    float scale;
};

__global__ static void __launch_bounds__(SUM_THREADS) sums_kernel(const __grid_constant__ struct sums g)
{
    const auto &s = g.of[blockIdx.y];
    const int64_t i = (blockIdx.x * (int64_t)SUM_THREADS + threadIdx.x) * 2;
    if (i >= s.count) return;
    float2 total = {};
#pragma unroll 8
    for (int p = 0; p < s.parts; p++) {
        const float2 part = *(const float2 *)(s.from + i + p * s.step);
        total.x += part.x, total.y += part.y;
    }
    total.x *= g.scale, total.y *= g.scale;
    if (s.rounds) {
        *(unsigned *)((bf16 *)s.to + i) = pack_bf16(total.x, total.y);
    } else {
        float *const to = (float *)s.to + i;
        to[0] += total.x, to[1] += total.y;
    }
}

static void add_parts(struct kern *k, const struct sums *g, int count)
{
    int64_t most = 0;
    for (int i = 0; i < count; i++) most = g->of[i].count > most ? g->of[i].count : most;
    const dim3 grid((unsigned)ceil_div(most, 2 * SUM_THREADS), (unsigned)count);
    launch(k, sums_kernel, grid, SUM_THREADS, 0, *g);
}

/* ---- the operations ------------------------------------------------------------------------------------- */

/* The rank, if these go here: BF16, 16 or 32, whole chunks of 16 bytes; else 0. While planning all are aligned. */
static int64_t thin_rank(const struct tensor *wide, const struct tensor *thin, const struct tensor *w, int n)
{
    const int64_t r = thin->shape[1];
    if (thin->dtype != DT_BF16 || (r != 16 && r != 32) || !thin->shape[0] || thin->shape[0] > INT32_MAX / 2)
        return 0;
    for (int i = 0; i < n; i++)
        if (!aligned(thin[i].data, 16) || !aligned(w[i].data, 16)) return 0;
    return wide->shape[1] % 8 == 0 && wide->shape[1] > 0 && wide->shape[1] < INT32_MAX / 2 &&
                   aligned(wide->data, 16)
               ? r
               : 0;
}

/* The same where each of n has its own wide tensor. */
static int64_t thin_ranks(const struct tensor *wide, const struct tensor *thin, const struct tensor *w, int n)
{
    int64_t r = thin->shape[1];
    for (int i = 0; i < n && r; i++) r = thin_rank(&wide[i], &thin[i], &w[i], 1);
    return r;
}

/* How many of n modules from the i-th on have as wide a tensor. */
static int alike(const struct tensor *wide, int i, int n)
{
    int count = 1;
    while (i + count < n && wide[i + count].shape[1] == wide[i].shape[1]) count++;
    return count;
}

static bf16 *block_of(const struct tensor *t, int64_t step)
{
    return (bf16 *)t->data + step;
}

extern "C" void cuda_thin_down_forward(struct kern *k, struct tensor *z, const struct tensor *x,
                                       const struct tensor *a, int n)
{
    const int64_t r = thin_rank(x, z, a, n), in = x->shape[1];
    if (!r) {
        for (int i = 0; i < n; i++) cuda_matmul(k, &z[i], x, false, &a[i], true, 1, 0);
        return;
    }
    const int each = (int)(r / 16), all = n * each, passes = (int)ceil_div(all, MOST_BLOCKS),
              blocks = (int)ceil_div(all, passes);
    kern_took(k, "mma");
    for (int from = 0; from < all; from += blocks) {
        const int count = all - from < blocks ? all - from : blocks;
        struct down g = {};
        g.x = (const bf16 *)x->data, g.rows = (int)x->shape[0], g.width = (int)in, g.rank = (int)r;
        for (int b = 0; b < count; b++) {
            const int i = (from + b) / each, q = (from + b) % each;
            g.a[b] = block_of(&a[i], 16 * q * in), g.z[b] = block_of(&z[i], 16 * q);
        }
        const int warps = down_warps(k, g.rows, count);
        by_blocks(count, [&](auto b) {
            launch(k, down_kernel<b()>, dim3((unsigned)ceil_div(g.rows, 16 * warps)), 32 * warps,
                   down_shared(warps, count), g);
        });
    }
}

extern "C" void cuda_thin_up_forward(struct kern *k, struct tensor *y, const struct tensor *z,
                                     const struct tensor *b, double scale, int n)
{
    const int64_t r = thin_ranks(y, z, b, n);
    if (!r) {
        for (int i = 0; i < n; i++) cuda_matmul(k, &y[i], &z[i], false, &b[i], true, scale, 1);
        return;
    }
    kern_took(k, "mma");
    for (int i = 0, count; i < n; i += count) {
        struct up g = {};
        count = alike(y, i, n);
        g.scale = (float)scale, g.rows = (int)z->shape[0], g.width = (int)y[i].shape[1], g.rank = (int)r;
        for (int j = 0; j < count; j++) {
            g.job[j].y = (bf16 *)y[i + j].data;
            for (int q = 0; q < r / 16; q++)
                g.job[j].z[q] = block_of(&z[i + j], 16 * q), g.job[j].w[q] = block_of(&b[i + j], 16 * q);
        }
        add_up<false>(k, &g, count, (int)(r / 16));
    }
}

/* Rows of a part, whole tiles, where so many blocks go over each. */
static int part_rows(int64_t rows, int64_t side_by_side)
{
    const int64_t wanted = AT_WORK / side_by_side > 0 ? AT_WORK / side_by_side : 1;
    return (int)ceil_div(ceil_div(rows, wanted), ROWS) * ROWS;
}

extern "C" void cuda_thin_up_backward(struct kern *k, struct tensor *dz, struct tensor *db,
                                      const struct tensor *dy, const struct tensor *z, const struct tensor *b,
                                      double scale, int n)
{
    const int64_t r = thin_ranks(dy, z, b, n), rows = z->shape[0];
    if (!r || !thin_ranks(dy, dz, b, n)) {
        for (int i = 0; i < n && !k->planning; i++) {
            cuda_matmul(k, &db[i], &dy[i], true, &z[i], false, scale, 1);
            cuda_matmul(k, &dz[i], &dy[i], false, &b[i], false, scale, 0);
        }
        return;
    }
    kern_took(k, "mma");
    for (int i = 0, count; i < n; i += count) {
        const size_t mark = kern_mark(k);
        struct along g = {};
        struct sums s = {};
        count = alike(dy, i, n);
        const int64_t out = dy[i].shape[1], slices = ceil_div(out, WIDTH),
                      each = part_rows(rows, slices * count), parts = ceil_div(rows, each);
        float *const sum = (float *)cuda_scratch(k, DT_F32, count * parts * r * out),
                     *const product = (float *)cuda_scratch(k, DT_F32, count * slices * rows * r);
        g.rows = (int)rows, g.width = (int)out, g.rank = (int)r, g.rows_each = (int)each;
        s.scale = (float)scale;
        for (int j = 0; j < count && product; j++) {
            g.job[j].wide = (const bf16 *)dy[i + j].data, g.job[j].w = (const bf16 *)b[i + j].data;
            for (int q = 0; q < r / 16; q++) g.job[j].thin[q] = block_of(&z[i + j], 16 * q);
            g.job[j].parts = sum + j * parts * r * out, g.job[j].products = product + j * slices * rows * r;
            s.of[2 * j] = {g.job[j].parts, db[i + j].data, r * out, r * out, (int)parts, false};
            s.of[2 * j + 1] = {g.job[j].products, dz[i + j].data, rows * r, rows * r, (int)slices, true};
        }
        if (product) {
            const dim3 grid((unsigned)slices, (unsigned)parts, (unsigned)count);
            if (r == 16)
                launch(k, along_kernel<1, true>, grid, THREADS, along_shared<1>(true), g);
            else
                launch(k, along_kernel<2, true>, grid, THREADS, along_shared<2>(true), g);
            add_parts(k, &s, 2 * count);
        }
        kern_release(k, mark);
    }
}

/* dx += Σ dz a, 64 ranks at a time */
static void add_to_input(struct kern *k, struct tensor *dx, const struct tensor *dz, const struct tensor *a,
                         int n)
{
    const int64_t r = dz->shape[1], in = dx->shape[1];
    const int each = (int)(r / 16), all = n * each, passes = (int)ceil_div(all, MOST_BLOCKS),
              blocks = (int)ceil_div(all, passes);
    for (int from = 0; from < all; from += blocks) {
        const int count = all - from < blocks ? all - from : blocks;
        struct up g = {};
        g.scale = 1, g.rows = (int)dx->shape[0], g.width = (int)in, g.rank = (int)r;
        g.job[0].y = (bf16 *)dx->data;
        for (int b = 0; b < count; b++) {
            const int i = (from + b) / each, q = (from + b) % each;
            g.job[0].z[b] = block_of(&dz[i], 16 * q), g.job[0].w[b] = block_of(&a[i], 16 * q * in);
        }
        add_up<true>(k, &g, 1, count);
    }
}

extern "C" void cuda_thin_down_backward(struct kern *k, struct tensor *dx, struct tensor *da,
                                        const struct tensor *dz, const struct tensor *x,
                                        const struct tensor *a, int n)
{
    const int64_t r = thin_rank(x, dz, a, n), rows = x->shape[0], in = x->shape[1];
    if (!r || (dx && !aligned(dx->data, 16))) {
        for (int i = 0; i < n && !k->planning; i++) {
            cuda_matmul(k, &da[i], &dz[i], true, x, false, 1, 1);
            if (dx) cuda_matmul(k, dx, &dz[i], false, &a[i], false, 1, 1);
        }
        return;
    }
    kern_took(k, "mma");
    const int each = (int)(r / 16), all = n * each, jobs = (int)ceil_div(all, MOST_BLOCKS),
              blocks = (int)ceil_div(all, jobs);
    const int64_t slices = ceil_div(in, WIDTH), rows_each = part_rows(rows, slices * jobs),
                  parts = ceil_div(rows, rows_each), size = parts * 16 * blocks * in;
    float *const sum = (float *)cuda_scratch(k, DT_F32, jobs * size);
    if (!sum) return;
    struct along g = {};
    struct sums s = {};
    g.rows = (int)rows, g.width = (int)in, g.rank = (int)r, g.rows_each = (int)rows_each;
    s.scale = 1;
    for (int b = 0; b < all; b++) {
        const int i = b / each, q = b % each;
        auto &job = g.job[b / blocks];
        job.wide = (const bf16 *)x->data, job.parts = sum + b / blocks * size;
        job.thin[b % blocks] = block_of(&dz[i], 16 * q);
        float *const to = (float *)da[i].data + 16 * q * in;
        s.of[b] = {job.parts + b % blocks * 16 * in, to, 16 * in, 16 * blocks * in, (int)parts, false};
    }
    const dim3 grid((unsigned)slices, (unsigned)parts, (unsigned)jobs);
    by_blocks(blocks, [&](auto b) {
        launch(k, along_kernel<b(), false>, grid, THREADS, along_shared<b()>(false), g);
    });
    add_parts(k, &s, all);
    if (dx) add_to_input(k, dx, dz, a, n);
}
