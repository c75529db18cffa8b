/* Attention's backward pass on mma.sync: BF16, heads of 64 or 128, causal, many sequences, ragged ends.
 *
 * A block has the keys of a head that its warps hold, 16 R each, and goes past the queries, STEP at a time:
 *     Sᵀ = k qᵀ, dPᵀ = v doᵀ, dv += Pᵀ do, dk += dSᵀ q    each warp for its keys: P and dS stay in registers
 *     dq = dS k                                           over all keys of the block: dS goes through shared memory
 * dq sums over the blocks of a head, in global memory as floats. Every warp adds its part when it is its turn:
 * blocks do so in the order of their keys, for each SPAN steps of queries one after the other. So the sums have
 * one order and are the same every time. A block takes its number when it begins: those whose turns it waits for
 * have begun as well, so none waits for ever.
 *
 * Of 30 ms for 17,776 rows and 48 heads of 64 on an H200, the turns take 2; with the keys of one head after the
 * other they took 4 to 5 (attention_head in attention.h). The products for dq take a quarter. */
#include "kernels/cuda/attention_mma.h"

/* What a kernel is made for; CHUNK queries at a time have their scores in registers; BLOCKS of blocks fit those of
 * a multiprocessor. Without KV only dq is computed. */
template <int D_, int WARPS_, int STEP_, int CHUNK_, int BLOCKS_, bool V_HELD_, bool KV_> struct instance {
    enum {
        D = D_,
        WARPS = WARPS_,
        STEP = STEP_,
        CHUNK = CHUNK_,
        BLOCKS = BLOCKS_,
        V_HELD = V_HELD_,
        KV = KV_,
        THREADS = 32 * WARPS,
        R = 128 / D,
        KEYS = 16 * R * WARPS,
        COLUMNS = D / 32,                    /* groups of warps that share dq's columns */
        ROWS = STEP * D / (32 * WARPS) / 16, /* a warp has dq of 16 ROWS queries and 32 columns */
        DQ = 16 * ROWS,                      /* floats of it in a thread */
        TILE = STEP * D * (int)sizeof(bf16),
        KEY_TILE = KEYS * D * (int)sizeof(bf16),
        DS_TILE = KEYS * STEP * (int)sizeof(bf16),
        PAIRS = STEP / 2 * 16,
        SHARED = KEY_TILE + (V_HELD ? 0 : KEY_TILE) + 4 * TILE + 2 * DS_TILE + 2 * PAIRS,
    };
    static_assert(4 * (int)TILE >= (int)KEY_TILE, "v comes by way of the stages");
};

enum { SPAN = 2 }; /* a turn is for the queries of so many steps */
__host__ __device__ static int spans(int steps)
{
    return (steps + SPAN - 1) / SPAN;
}

/* Of two neighbouring queries: log2 of their sums of exponentials, and δ. Queries past the last have infinity
 * and 0, which makes their weights and gradients 0. */
struct alignas(16) row_pair {
    float lse[2], delta[2];
};

/* Of a warp: scores that become P and then dS, dP, the sums, and v's operands. */
template <typename I> struct work {
    float s[I::R][I::CHUNK / 8][4], dp[I::R][I::CHUNK / 8][4];
    float dk[I::KV ? I::R : 1][I::D / 8][4], dv[I::KV ? I::R : 1][I::D / 8][4];
    unsigned v[I::V_HELD ? I::D / 16 : 1][I::R][4];
};

enum { AHEAD = 2 }; /* B operands are loaded before so many others are used */

/* c [16 R keys,CHUNK queries] = a times rows of b; a is in `held`, else at a_tile. `between(n)` is called after
 * each of the D / 16 columns. */
template <typename I, bool HELD, typename Between>
__device__ static void make_scores(float (&c)[I::R][I::CHUNK / 8][4],
                                   const unsigned (&held)[HELD ? I::D / 16 : 1][I::R][4], unsigned a_tile,
                                   unsigned b_tile, int b_row, Between between)
{
    enum { COLUMNS = I::D / 16, ROWS = I::CHUNK / 16, COUNT = COLUMNS * ROWS };
    unsigned a[2][I::R][4], b[AHEAD + 1][4];
    auto fetch_a = [&](int n) {
#pragma unroll
        for (int r = 0; r < I::R; r++)
            if (!HELD && n < COLUMNS) load_a<I::D>(a[n % 2][r], a_tile, 16 * r, 16 * n);
    };
    auto fetch_b = [&](int i) {
        if (i < COUNT) load_b<I::D>(b[i % (AHEAD + 1)], b_tile, b_row + 16 * (i % ROWS), 16 * (i / ROWS));
    };
#pragma unroll
    for (int r = 0; r < I::R; r++)
#pragma unroll
        for (int j = 0; j < I::CHUNK / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) c[r][j][e] = 0;
    fetch_a(0);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) fetch_b(i);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const int n = i / ROWS, j = i % ROWS;
        if (j == 0) fetch_a(n + 1);
        fetch_b(i + AHEAD);
#pragma unroll
        for (int r = 0; r < I::R; r++) {
            const unsigned(&left)[4] = *(HELD ? &held[HELD ? n : 0][r] : &a[n % 2][r]);
            mma_pair(c[r][2 * j], c[r][2 * j + 1], left, b[i % (AHEAD + 1)]);
        }
        if (j == ROWS - 1) between(n);
    }
}

/* acc [16 R keys,D] += p [16 R keys,CHUNK queries] times rows of b; `between(i)` is called after each 16 x 16 */
template <typename I, typename Between>
__device__ static void add_sums(float (&acc)[I::R][I::D / 8][4], const unsigned (&p)[I::CHUNK / 16][I::R][4],
                                unsigned b_tile, int b_row, Between between)
{
    enum { COLUMNS = I::D / 16, COUNT = I::CHUNK / 16 * COLUMNS };
    unsigned b[AHEAD + 1][4];
    auto fetch = [&](int i) {
        if (i < COUNT)
            load_b_trans<I::D>(b[i % (AHEAD + 1)], b_tile, b_row + 16 * (i / COLUMNS), 16 * (i % COLUMNS));
    };
#pragma unroll
    for (int i = 0; i < AHEAD; i++) fetch(i);
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const int j = i % COLUMNS;
        fetch(i + AHEAD);
#pragma unroll
        for (int r = 0; r < I::R; r++)
            mma_pair(acc[r][2 * j], acc[r][2 * j + 1], p[i / COLUMNS][r], b[i % (AHEAD + 1)]);
        between(i);
    }
}

template <typename I>
__device__ static void round_chunk(unsigned (&p)[I::CHUNK / 16][I::R][4],
                                   const float (&s)[I::R][I::CHUNK / 8][4])
{
#pragma unroll
    for (int c = 0; c < I::CHUNK / 16; c++)
#pragma unroll
        for (int r = 0; r < I::R; r++) pack_a(p[c][r], s[r][2 * c], s[r][2 * c + 1]);
}

/* Rows `mine` + lane / 4 of dSᵀ at queries from `query` on, to its tile [KEYS,STEP]. */
template <typename I>
__device__ static void store_ds(unsigned tile, const unsigned (&p)[I::CHUNK / 16][I::R][4], int mine,
                                int query)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < I::CHUNK / 16; c++)
#pragma unroll
        for (int r = 0; r < I::R; r++) {
#if __CUDA_ARCH__ >= 900
            asm volatile(
                "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                    tile + swizzle<I::STEP>(mine + 16 * r + lane % 16, query / 8 + 2 * c + lane / 16)),
                "r"(p[c][r][0]), "r"(p[c][r][1]), "r"(p[c][r][2]), "r"(p[c][r][3])
                : "memory");
#else
#pragma unroll
            for (int e = 0; e < 4; e++)
                asm volatile(
                    "st.shared.b32 [%0], %1;" ::"r"(
                        tile +
                        swizzle<I::STEP>(mine + 16 * r + e % 2 * 8 + lane / 4, query / 8 + 2 * c + e / 2) +
                        lane % 4 * 4),
                    "r"(p[c][r][e])
                    : "memory");
#endif
        }
}

/* One chunk of queries, from row `row` of the stage on; k and v at the warp's rows. MASKED: query i sees key j
 * where j < keys and j <= i + history; j counts from the block's first key, i from the stage's first query.
 * Exponentials and the like are spread among products that do not wait for them. */
template <typename I, bool MASKED>
__device__ static void do_chunk(work<I> &w, unsigned k, unsigned v, unsigned q, unsigned ds,
                                const row_pair *pairs, int mine, int row, float unit, int keys, int history)
{
    enum { PARTS = I::CHUNK / 8 * I::R, BY_COLUMN = I::D / 16, BY_SUM = I::CHUNK / 16 * (I::D / 16) };
    const int lane = threadIdx.x % 32;
    const unsigned dout = q + I::TILE;
    unsigned p[I::CHUNK / 16][I::R][4];
    make_scores<I, false>(w.s, {}, k, q, row, [](int) {});
    auto weigh = [&](int part) {
        const int j = part / I::R, r = part % I::R;
        const row_pair pair = pairs[row / 2 + 4 * j + lane % 4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            w.s[r][j][e] = power_of_2(fmaf(w.s[r][j][e], unit, -pair.lse[e % 2]));
            if (MASKED) {
                const int key = mine + 16 * r + lane / 4 + e / 2 * 8,
                          query = row + 8 * j + lane % 4 * 2 + e % 2;
                if (key >= keys || key > query + history) w.s[r][j][e] = 0;
            }
        }
    };
    auto slope = [&](int part) {
        const int j = part / I::R, r = part % I::R;
        const row_pair pair = pairs[row / 2 + 4 * j + lane % 4];
#pragma unroll
        for (int e = 0; e < 4; e++) w.s[r][j][e] *= w.dp[r][j][e] - pair.delta[e % 2];
    };
    make_scores<I, I::V_HELD>(w.dp, w.v, v, dout, row, [&](int n) {
#pragma unroll
        for (int i = n * PARTS / BY_COLUMN; i < (n + 1) * PARTS / BY_COLUMN; i++) weigh(i);
    });
    if constexpr (I::KV) {
        round_chunk<I>(p, w.s);
        add_sums<I>(w.dv, p, dout, row, [&](int n) {
#pragma unroll
            for (int i = n * PARTS / BY_SUM; i < (n + 1) * PARTS / BY_SUM; i++) slope(i);
        });
    } else {
#pragma unroll
        for (int i = 0; i < PARTS; i++) slope(i);
    }
    round_chunk<I>(p, w.s);
    store_ds<I>(ds, p, mine, row);
    if constexpr (I::KV) add_sums<I>(w.dk, p, q, row, [](int) {});
}

/* This warp's part of dq = dS k */
template <typename I> __device__ static void make_dq(float (&dq)[I::ROWS][4][4], unsigned ds, unsigned k)
{
    const int warp = threadIdx.x / 32, row = warp / I::COLUMNS * 16 * I::ROWS,
              column = warp % I::COLUMNS * 32;
#pragma unroll
    for (int m = 0; m < I::ROWS; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) dq[m][n][e] = 0;
#pragma unroll
    for (int c = 0; c < I::KEYS / 16; c++) {
        unsigned a[I::ROWS][4], b[2][4];
#pragma unroll
        for (int m = 0; m < I::ROWS; m++) load_a_trans<I::STEP>(a[m], ds, 16 * c, row + 16 * m);
#pragma unroll
        for (int n = 0; n < 2; n++) load_b_trans<I::D>(b[n], k, 16 * c, column + 16 * n);
#pragma unroll
        for (int m = 0; m < I::ROWS; m++)
#pragma unroll
            for (int n = 0; n < 2; n++) mma_pair(dq[m][2 * n], dq[m][2 * n + 1], a[m], b[n]);
    }
}

/* Where a thread's float i of dq lies among its warp's: side by side as one instruction adds them. */
__device__ static int dq_place(int i)
{
    const int lane = threadIdx.x % 32;
#if __CUDA_ARCH__ >= 900
    return (i / 4 * 32 + lane) * 4 + i % 4;
#else
    return i * 32 + lane;
#endif
}

/* Adds a warp's dq to its place; the first writes it. */
template <typename I> __device__ static void add_dq(float *to, const float (&dq)[I::ROWS][4][4], bool first)
{
    if (first) {
#pragma unroll
        for (int i = 0; i < I::DQ; i++) __stcg(to + dq_place(i), dq[i / 16][i / 4 % 4][i % 4]);
        return;
    }
#if __CUDA_ARCH__ >= 900
#pragma unroll
    for (int i = 0; i < I::DQ; i += 4) {
        const float(&x)[4] = dq[i / 16][i / 4 % 4];
        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to + dq_place(i)), "f"(x[0]),
                     "f"(x[1]), "f"(x[2]), "f"(x[3])
                     : "memory");
    }
#else
#pragma unroll
    for (int i = 0; i < I::DQ; i++)
        asm volatile("red.global.add.f32 [%0], %1;" ::"l"(to + dq_place(i)), "f"(dq[i / 16][i / 4 % 4][i % 4])
                     : "memory");
#endif
}

template <typename I>
__device__ static void store_rows(bf16 *to, const float (&acc)[I::KV ? I::R : 1][I::D / 8][4], float scale,
                                  int mine, int rows, int64_t stride)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < (I::KV ? I::R : 0); r++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = mine + 16 * r + 8 * i + lane / 4;
            if (row >= rows) continue;
#pragma unroll
            for (int j = 0; j < I::D / 8; j++)
                *(unsigned *)&to[row * stride + 8 * j + lane % 4 * 2] =
                    pack_bf16(acc[r][j][2 * i] * scale, acc[r][j][2 * i + 1] * scale);
        }
}

/* dq: floats, as add_dq leaves them, of each head's and sequence's steps. turns: [0] which block is next; then one
 * for each warp of each span of these steps. */
template <typename I>
__global__ static void __launch_bounds__(I::THREADS, I::BLOCKS)
    backward(float *dq, bf16 *dk, bf16 *dv, int *turns, const row_pair *pairs, const bf16 *q, const bf16 *k,
             const bf16 *v, const bf16 *dout, attention_shape s, int side_by_side)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ int item;
    const unsigned ks = shared_address(shared), qs = ks + I::KEY_TILE, ds = qs + 4 * I::TILE,
                   ps = ds + 2 * I::DS_TILE, vs = I::V_HELD ? qs : ps + 2 * I::PAIRS;
    if (threadIdx.x == 0) item = atomicAdd(turns, 1);
    __syncthreads();
    int n;
    const int blocks = (int)((s.keys + I::KEYS - 1) / I::KEYS),
              steps = (int)((s.queries + I::STEP - 1) / I::STEP),
              of = attention_head(item, blocks, s.heads * (int)s.batch, side_by_side, &n), h = of % s.heads,
              b = of / s.heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32, mine = warp * 16 * I::R,
              queries = (int)s.queries, keys = (int)s.keys - n * I::KEYS, history = (int)(s.keys - s.queries);
    const int64_t stride = (int64_t)s.heads * I::D, key_at = (b * s.keys + n * I::KEYS) * stride + h * I::D;
    const unsigned mine_at = mine * I::D * (int)sizeof(bf16);
    const float unit = s.scale * LOG2E;
    q += b * s.queries * stride + h * I::D;
    dout += b * s.queries * stride + h * I::D;
    pairs += (int64_t)of * steps * (I::STEP / 2);
    dq += ((int64_t)of * steps * I::WARPS + warp) * I::DQ * 32;
    turns += 1 + of * spans(steps) * I::WARPS + warp;
    const int start = s.causal ? max(0, n * I::KEYS - history) / I::STEP : 0;

    auto load_stage = [&](int i) {
        const unsigned to = qs + i % 2 * 2 * I::TILE;
        load_tile<I::STEP, I::D, I::THREADS>(to, q, i * I::STEP, queries, stride);
        load_tile<I::STEP, I::D, I::THREADS>(to + I::TILE, dout, i * I::STEP, queries, stride);
        if (threadIdx.x < I::STEP / 2)
            cp_async_16(ps + i % 2 * I::PAIRS + threadIdx.x * 16, pairs + i * (I::STEP / 2) + threadIdx.x,
                        true);
    };

    work<I> w;
    load_tile<I::KEYS, I::D, I::THREADS>(ks, k + key_at, 0, keys, stride);
    load_tile<I::KEYS, I::D, I::THREADS>(vs, v + key_at, 0, keys, stride);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int c = 0; c < I::D / 16; c++)
#pragma unroll
        for (int r = 0; r < I::R; r++) {
            if (I::V_HELD) load_a<I::D>(w.v[I::V_HELD ? c : 0][r], qs, mine + 16 * r, 16 * c);
        }
    __syncthreads();
    load_stage(start);
    cp_async_commit();
#pragma unroll
    for (int r = 0; r < (I::KV ? I::R : 0); r++)
#pragma unroll
        for (int j = 0; j < I::D / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) w.dk[r][j][e] = w.dv[r][j][e] = 0;
    /* dq of a step is made and added one step later, when every warp has left its dS there; a turn is passed on
     * half a step after that, when the sums have arrived and the fence takes little time. */
    int turn = 0, *owed = NULL;
    auto look = [&](int i) {
        if (i % SPAN == 0 || i == start) turn = turn_now(turns + i / SPAN * I::WARPS);
    };
    auto finish_dq = [&](int i) {
        float part[I::ROWS][4][4];
        make_dq<I>(part, ds + i % 2 * I::DS_TILE, ks);
        while (turn != n) turn = turn_now(turns + i / SPAN * I::WARPS);
        add_dq<I>(dq + (int64_t)i * I::WARPS * I::DQ * 32, part, n == 0);
        if (i % SPAN == SPAN - 1 || i == steps - 1) owed = turns + i / SPAN * I::WARPS;
    };
    auto pass = [&]() {
        if (owed) {
            __syncwarp();
            if (lane == 0) turn_pass(owed);
            owed = NULL;
        }
    };
    for (int i = start; i < steps; i++) {
        const unsigned at = qs + i % 2 * 2 * I::TILE, to = ds + i % 2 * I::DS_TILE;
        const row_pair *const rows = (const row_pair *)(shared + (ps - ks) + i % 2 * I::PAIRS);
        /* counted from the block's first key, a query of the step sees keys to itself + this */
        const int diagonal = s.causal ? history + i * I::STEP - n * I::KEYS : I::KEYS;
        const bool masked = keys < I::KEYS || diagonal < I::KEYS;
        cp_async_wait<0>();
        __syncthreads();
        if (i > start) look(i - 1);
        if (i + 1 < steps) load_stage(i + 1);
        cp_async_commit();
#pragma unroll
        for (int c = 0; c < I::STEP / I::CHUNK; c++) {
            if (masked)
                do_chunk<I, true>(w, ks + mine_at, vs + mine_at, at, to, rows, mine, c * I::CHUNK, unit, keys,
                                  diagonal);
            else
                do_chunk<I, false>(w, ks + mine_at, vs + mine_at, at, to, rows, mine, c * I::CHUNK, unit,
                                   keys, diagonal);
            if (c == I::STEP / I::CHUNK / 2) pass();
            if (c == 0 && i > start) finish_dq(i - 1);
        }
    }
    if (start < steps) {
        __syncthreads();
        look(steps - 1);
        pass(); /* of the last step but one, where a step is one chunk */
        finish_dq(steps - 1);
        pass();
    }
    if constexpr (I::KV) {
        store_rows<I>(dk + key_at, w.dk, s.scale, mine, keys, stride);
        store_rows<I>(dv + key_at, w.dv, 1, mine, keys, stride);
    }
}

/* row_pair of every head's and sequence's queries, rounded up to whole steps; eight threads for one. */
template <int D>
__global__ static void row_sums(row_pair *pairs, const bf16 *dout, const bf16 *o, const float *lse,
                                attention_shape s, int padded)
{
    const int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / 8;
    const int part = threadIdx.x % 8, h = (int)(i % s.heads);
    const int64_t row = i / s.heads % padded, b = i / s.heads / padded;
    float delta = 0;
    if (b < s.batch && row < s.queries) {
        const int64_t at = ((b * s.queries + row) * s.heads + h) * D;
        for (int c = part * 8; c < D; c += 64) {
            const pack<bf16> x = load_pack(dout + at + c), y = load_pack(o + at + c);
            for (int j = 0; j < 8; j++) delta += to_float(x.v[j]) * to_float(y.v[j]);
        }
    }
    for (int n = 4; n; n /= 2) delta += __shfl_xor_sync(0xffffffff, delta, n);
    if (part == 0 && b < s.batch) {
        row_pair &to = pairs[((b * s.heads + h) * padded + row) / 2];
        to.lse[row % 2] = row < s.queries ? lse[(h * s.batch + b) * s.queries + row] * LOG2E : INFINITY;
        to.delta[row % 2] = delta;
    }
}

/* dq = scale times the sums of a step's queries, which lie as add_dq left them */
template <typename I>
__global__ static void __launch_bounds__(I::THREADS)
    round_dq(bf16 *dq, const float *sums, attention_shape s, int steps)
{
    enum { PAD = I::D + 2 };
    __shared__ float tile[I::STEP * PAD];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, step = blockIdx.x % steps,
              h = blockIdx.x / steps % s.heads, b = blockIdx.x / steps / s.heads;
    sums += ((int64_t)blockIdx.x * I::WARPS + warp) * I::DQ * 32;
#pragma unroll
    for (int i = 0; i < I::DQ; i++) {
        const int row = (warp / I::COLUMNS * I::ROWS + i / 16) * 16 + i / 2 % 2 * 8 + lane / 4,
                  column = warp % I::COLUMNS * 32 + i / 4 % 4 * 8 + lane % 4 * 2 + i % 2;
        tile[row * PAD + column] = sums[dq_place(i)];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < I::STEP * I::D / 8; i += I::THREADS) {
        const int r = i / (I::D / 8), c = i % (I::D / 8) * 8;
        const int64_t row = (int64_t)step * I::STEP + r;
        pack<bf16> x;
        for (int j = 0; j < 8; j++) x.v[j] = from_float<bf16>(tile[r * PAD + c + j] * s.scale);
        if (row < s.queries) store_pack(dq + ((b * s.queries + row) * s.heads + h) * I::D + c, x);
    }
}

/* ---- on the host --------------------------------------------------------------------------------------- */

template <typename I>
static void launch(struct kern *k, const struct attention_shape *s, const struct attention_backward *t)
{
    const int64_t of = s->heads * s->batch, steps = ceil_div(s->queries, I::STEP),
                  count = of * spans((int)steps) * I::WARPS + 1;
    float *sums = (float *)cuda_scratch(k, DT_F32, of * steps * I::STEP * I::D);
    row_pair *pairs = (row_pair *)cuda_scratch(k, DT_F32, of * steps * I::STEP * 2);
    int *turns = (int *)cuda_scratch(k, DT_I32, count);
    const bf16 *dout = (const bf16 *)t->dout->data;
    if (!sums || !pairs || !turns ||
        !cuda_allow_shared(k, "attention", (const void *)backward<I>, I::SHARED) ||
        !cuda_good(k, "attention_backward",
                   cudaMemsetAsync(turns, 0, (size_t)count * sizeof(int), stream_of(k))))
        return;
    row_sums<I::D><<<(unsigned)ceil_div(of * steps * I::STEP * 8, 256), 256, 0, stream_of(k)>>>(
        pairs, dout, (const bf16 *)t->o->data, (const float *)t->lse->data, *s, (int)(steps * I::STEP));
    backward<I><<<(unsigned)(ceil_div(s->keys, I::KEYS) * of), I::THREADS, I::SHARED, stream_of(k)>>>(
        sums, t->dk ? (bf16 *)t->dk->data : NULL, t->dv ? (bf16 *)t->dv->data : NULL, turns, pairs,
        (const bf16 *)t->q->data, (const bf16 *)t->k->data, (const bf16 *)t->v->data, dout, *s,
        attention_side_by_side(k, I::BLOCKS, (int)steps));
    round_dq<I>
        <<<(unsigned)(steps * of), I::THREADS, 0, stream_of(k)>>>((bf16 *)t->dq->data, sums, *s, (int)steps);
    cuda_good(k, "attention_backward", cudaGetLastError());
}

/* By the shared memory that a multiprocessor has: the H100's, the A100's, that of smaller cards. */
typedef instance<64, 4, 64, 32, 2, false, true> large_64;
typedef instance<64, 4, 64, 16, 2, true, true> medium_64;
typedef instance<64, 4, 32, 16, 2, true, true> small_64;
typedef instance<128, 8, 64, 32, 1, false, true> large_128;
typedef instance<128, 8, 32, 32, 1, true, true> small_128;

/* Whether as many blocks as its registers allow fit a multiprocessor, which keeps 1 KB for each and has 1 KB more
 * than a block may have. */
template <typename I> static bool fits(struct kern *k)
{
    return I::BLOCKS * (I::SHARED + 1024) <= cuda_shared_limit(k) + 1024;
}

bool attention_mma_takes_backward(struct kern *, const struct attention_shape *s,
                                  const struct attention_backward *t)
{
    return (s->d == 64 || s->d == 128) && attention_aligned(t->dq) && attention_aligned(t->dout) &&
           attention_aligned(t->o) && attention_aligned(t->q) && attention_aligned(t->k) &&
           attention_aligned(t->v);
}

void attention_mma_backward(struct kern *k, const struct attention_shape *s,
                            const struct attention_backward *t)
{
    if (!t->dk)
        (s->d == 64 ? launch<instance<64, 4, 64, 32, 2, true, false>>
                    : launch<instance<128, 8, 32, 32, 1, true, false>>)(k, s, t);
    else if (s->d == 64)
        (fits<large_64>(k)    ? launch<large_64>
         : fits<medium_64>(k) ? launch<medium_64>
                              : launch<small_64>)(k, s, t);
    else
        (fits<large_128>(k) ? launch<large_128> : launch<small_128>)(k, s, t);
}
