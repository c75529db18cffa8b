/* Attention on Hopper's own instructions: BF16, heads of 64, no bias, every query sees every key. What
 * CogVideoX's 42 layers spend most of their time in: 17,776 rows, 48 heads. There, on one H200 (2026-11-22),
 * the forward pass takes 6.7 ms or 583 TFLOP/s, the backward pass 19.0 ms or 510, where cuDNN 9.19 takes 8.8
 * ms and, with sums in another order each time, 22.9 ms. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/instructions.h"

enum {
    D = 64,
    WARPGROUP = 128,
    ROW = D * (int)sizeof(bf16), /* bytes of a row of a tile */
    ALIGN = 1024,                /* of tiles in shared memory */
};

static const float LOG2E = 1.44269504f;

/* ---- forward -------------------------------------------------------------------------------------------
 *
 * A block has 192 queries of a head: three warpgroups of 64, and one that only fetches keys and values, 128
 * at a time. Per pair of query and key the tensor cores take as long (256 of 4,096 operations a clock) as the
 * 16 exponentials a clock, so a warpgroup starts the scores of the next keys and the weighted sum of the last
 * ones, and has its exponentials done meanwhile. */

enum {
    GROUPS = 3,
    QUERIES = 64 * GROUPS,
    KEYS = 128,
    STAGES = 4,
    FORWARD_THREADS = WARPGROUP * (GROUPS + 1),
};

struct forward_shared {
    unsigned char q[QUERIES * ROW], k[STAGES][KEYS * ROW], v[STAGES][KEYS * ROW];
    uint64_t q_full, k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};

struct forward_shape {
    int64_t queries, keys, batch;
    int heads;
    float unit; /* scale / log 2 */
};

/* The dynamic shared memory, from the first address on that tiles may have. */
template <typename S> __device__ static S &aligned(unsigned char *p)
{
    return *(S *)(p + (ALIGN - shared_address(p) % ALIGN) % ALIGN);
}

#ifdef HOPPER
static const float LN2 = 0.69314718f;

__device__ static void load_forward(forward_shared &m, const CUtensorMap &q, const CUtensorMap &k,
                                    const CUtensorMap &v, int h, int first, int b, int steps)
{
    mbarrier_expect_tx(&m.q_full, QUERIES * ROW);
    tma_load(m.q, &q, &m.q_full, h * D, first, b);
    for (int i = 0; i < steps; i++) {
        const int at = i % STAGES, old = (i / STAGES & 1) ^ 1, key = (steps - 1 - i) * KEYS;
        mbarrier_wait(&m.k_empty[at], old);
        mbarrier_expect_tx(&m.k_full[at], KEYS * ROW);
        tma_load(m.k[at], &k, &m.k_full[at], h * D, key, b);
        mbarrier_wait(&m.v_empty[at], old);
        mbarrier_expect_tx(&m.v_full[at], KEYS * ROW);
        tma_load(m.v[at], &v, &m.v_full[at], h * D, key, b);
    }
}

/* s [64,128] = q kᵀ */
__device__ static void start_scores(float (&s)[64], uint64_t q, uint64_t k)
{
    wgmma<false>(s, q, k);
#pragma unroll
    for (int c = 1; c < D / 16; c++) wgmma<true>(s, wgmma_advance(q, 32 * c), wgmma_advance(k, 32 * c));
    wgmma_commit();
}

/* o [64,64] += p [64,128] v */
__device__ static void start_sums(float (&o)[32], const unsigned (&p)[32], uint64_t v)
{
#pragma unroll
    for (int c = 0; c < KEYS / 16; c++) wgmma<true, true>(o, &p[4 * c], wgmma_advance(v, 16 * ROW * c));
    wgmma_commit();
}

/* The softmax of two rows as it goes on: `sum` of exp(score - max), where max is near the largest score. */
struct softmax {
    float max[2], sum[2];
};

/* s becomes weights, which add to x.sum. A maximum stays until it is passed by more than 2^8: what the
 * weights multiply stays in range, and what is summed need not be scaled anew each time. True when it must
 * be, by 2 to the power of `fall`. */
template <bool FIRST> __device__ static bool weigh(softmax &x, float (&s)[64], float (&fall)[2], float unit)
{
    float highest[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        highest[r] = fmaxf(s[2 * r], s[2 * r + 1]);
#pragma unroll
        for (int j = 1; j < KEYS / 8; j++)
            highest[r] = fmaxf(highest[r], fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffff, highest[r], 1));
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffff, highest[r], 2));
    }
    const bool anew =
        FIRST || __any_sync(0xffffffff, fmaxf(highest[0] - x.max[0], highest[1] - x.max[1]) * unit > 8);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float max = FIRST ? highest[r] : anew ? fmaxf(highest[r], x.max[r]) : x.max[r];
        const float shift = -max * unit;
        float sum[2] = {};
        fall[r] = FIRST ? 0 : (x.max[r] - max) * unit;
        x.max[r] = max;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &y = s[4 * j + 2 * r + e];
                y = power_of_2(fmaf(y, unit, shift));
                sum[e] += y;
            }
        x.sum[r] = (FIRST ? 0 : x.sum[r] * power_of_2(fall[r])) + (sum[0] + sum[1]);
    }
    return anew;
}

__device__ static void round_weights(unsigned (&p)[32], const float (&s)[64])
{
#pragma unroll
    for (int i = 0; i < 32; i++) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

__device__ static void attend(forward_shared &m, bf16 *o, float *lse, const forward_shape &a, int h,
                              int first, int b, int steps)
{
    const int group = threadIdx.x / WARPGROUP - 1, t = threadIdx.x % WARPGROUP, lane = t % 32;
    const uint64_t q = wgmma_descriptor(m.q + group * 64 * ROW);
    float s[64], acc[32] = {}, fall[2];
    unsigned p[32];
    softmax x;

    mbarrier_wait(&m.q_full, 0);
    mbarrier_wait(&m.k_full[0], 0);
    wgmma_fence();
    start_scores(s, q, wgmma_descriptor(m.k[0]));
    wgmma_wait<0>();
    wgmma_fence_operand(s);
    if (lane == 0) mbarrier_arrive(&m.k_empty[0]);
    /* The last keys come first: only there may some be missing. */
    const int seen = (int)(a.keys - (int64_t)(steps - 1) * KEYS) - lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 * 8 + i % 2 >= seen) s[i] = -INFINITY;
    weigh<true>(x, s, fall, a.unit);
    round_weights(p, s);

    for (int i = 1; i < steps; i++) {
        const int at = i % STAGES, before = (i - 1) % STAGES;
        mbarrier_wait(&m.k_full[at], i / STAGES & 1);
        wgmma_fence();
        start_scores(s, q, wgmma_descriptor(m.k[at]));
        mbarrier_wait(&m.v_full[before], (i - 1) / STAGES & 1);
        start_sums(acc, p, wgmma_descriptor(m.v[before]));
        wgmma_wait<1>();
        wgmma_fence_operand(s);
        if (lane == 0) mbarrier_arrive(&m.k_empty[at]);
        const bool anew = weigh<false>(x, s, fall, a.unit);
        /* All exponentials before the wait, which the assembler moves up where no branch is between. */
        wgmma_fence_operand(s);
        if (anew) {
            wgmma_wait<0>();
            wgmma_fence_operand(acc);
            const float shrink[2] = {power_of_2(fall[0]), power_of_2(fall[1])};
#pragma unroll
            for (int j = 0; j < 32; j++) acc[j] *= shrink[j / 2 % 2];
        }
        wgmma_wait<0>();
        wgmma_fence_operand(acc);
        wgmma_fence_operand(p);
        if (lane == 0) mbarrier_arrive(&m.v_empty[before]);
        round_weights(p, s);
    }
    mbarrier_wait(&m.v_full[(steps - 1) % STAGES], (steps - 1) / STAGES & 1);
    wgmma_fence();
    start_sums(acc, p, wgmma_descriptor(m.v[(steps - 1) % STAGES]));
    wgmma_wait<0>();
    wgmma_fence_operand(acc);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int64_t row = first + group * 64 + t / 32 * 16 + lane / 4 + 8 * r;
        x.sum[r] += __shfl_xor_sync(0xffffffff, x.sum[r], 1);
        x.sum[r] += __shfl_xor_sync(0xffffffff, x.sum[r], 2);
        const float part = 1 / x.sum[r];
        if (row >= a.queries) continue;
        if (lse && lane % 4 == 0)
            lse[(h * a.batch + b) * a.queries + row] = (x.max[r] * a.unit + log2f(x.sum[r])) * LN2;
        bf16 *const to = o + ((b * a.queries + row) * a.heads + h) * D + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *(unsigned *)&to[8 * j] = pack_bf16(acc[4 * j + 2 * r] * part, acc[4 * j + 2 * r + 1] * part);
    }
}
#endif

__global__ static void __launch_bounds__(FORWARD_THREADS, 1)
    forward(bf16 *o, float *lse, const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
            const __grid_constant__ CUtensorMap v, const forward_shape a)
{
#ifdef HOPPER
    extern __shared__ unsigned char dynamic[];
    forward_shared &m = aligned<forward_shared>(dynamic);
    const int tiles = (int)((a.queries + QUERIES - 1) / QUERIES), steps = (int)((a.keys + KEYS - 1) / KEYS),
              first = (int)(blockIdx.x % tiles) * QUERIES, h = (int)(blockIdx.x / tiles % a.heads),
              b = (int)(blockIdx.x / tiles / a.heads);
    if (threadIdx.x == 0) {
        mbarrier_init(&m.q_full, 1);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(&m.k_full[i], 1);
            mbarrier_init(&m.v_full[i], 1);
            mbarrier_init(&m.k_empty[i], 4 * GROUPS);
            mbarrier_init(&m.v_empty[i], 4 * GROUPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        setmaxnreg_dec<32>();
        if (threadIdx.x == 0) load_forward(m, q, k, v, h, first, b, steps);
    } else {
        setmaxnreg_inc<160>();
        attend(m, o, lse, a, h, first, b, steps);
    }
#endif
}

/* ---- backward ------------------------------------------------------------------------------------------
 *
 * A block has 128 keys of a head and goes past all queries, 64 at a time. Two warpgroups of 64 keys each have
 * Sᵀ = k qᵀ and dPᵀ = v doᵀ, whose registers are, rounded, the left operands of dv += Pᵀ do and dk += dSᵀ q.
 * A third takes dSᵀ through shared memory, makes dqᵀ = kᵀ dSᵀ and leaves it as floats for a warp that has the
 * TMA add it to dq in global memory. Blocks do so in the order of their keys, one after the other for
 * each 64 queries: the sums have one order, and are the same every time. Each block is so some steps behind
 * the one before it. Of 20.0 ms with three stages of q and do, that order took 2.5; a fourth stage won back
 * 1.0. No exponentials at all, or no products for dq, were worth no more than that.
 * In the fourth warpgroup a warp fetches q, do and the rows' sums, and two add dq. */

enum {
    PAST = 64,  /* queries of a step */
    HELD = 128, /* keys of a block */
    Q_STAGES = 4,
    BACKWARD_THREADS = 4 * WARPGROUP,
    DQ = PAST * D, /* floats of a step's dq */
};

/* Of two neighbouring queries: log2 of their sums of exponentials, and δ. Queries past the last have infinity
 * and 0, which makes their weights and gradients 0. */
struct alignas(16) row_pair {
    float lse[2], delta[2];
};

struct backward_shared {
    unsigned char k[HELD * ROW], v[HELD * ROW], q[Q_STAGES][PAST * ROW], dout[Q_STAGES][PAST * ROW];
    unsigned char ds[2][HELD * PAST * sizeof(bf16)]; /* [keys,queries] */
    float dq[2][DQ];                                 /* in the order of the registers that had it */
    row_pair rows[Q_STAGES][PAST / 2];
    uint64_t kv_full, full[Q_STAGES], empty[Q_STAGES], ds_full[2], ds_empty[2], dq_full[2], dq_empty[2];
    int item;
};

struct backward_shape {
    int rows, heads, side_by_side;
    float scale;
};

__host__ __device__ static int tiles_of(int rows, int size)
{
    return (rows + size - 1) / size;
}

#ifdef HOPPER
__device__ static void load_backward(backward_shared &m, const CUtensorMap &q, const CUtensorMap &k,
                                     const CUtensorMap &v, const CUtensorMap &dout, const row_pair *rows,
                                     int h, int first, int steps)
{
    mbarrier_expect_tx(&m.kv_full, 2 * HELD * ROW);
    tma_load(m.k, &k, &m.kv_full, h * D, first, 0);
    tma_load(m.v, &v, &m.kv_full, h * D, first, 0);
    for (int i = 0; i < steps; i++) {
        const int at = i % Q_STAGES;
        mbarrier_wait(&m.empty[at], (i / Q_STAGES & 1) ^ 1);
        mbarrier_expect_tx(&m.full[at], 2 * PAST * ROW + (int)sizeof m.rows[0]);
        tma_load(m.q[at], &q, &m.full[at], h * D, i * PAST, 0);
        tma_load(m.dout[at], &dout, &m.full[at], h * D, i * PAST, 0);
        bulk_load(m.rows[at], rows + ((int64_t)h * steps + i) * (PAST / 2), (int)sizeof m.rows[0],
                  &m.full[at]);
    }
}

/* Every second step's dq, when it is this block's turn. */
__device__ static void add_dq(backward_shared &m, float *dq, int *turns, int which, int n, int steps)
{
    for (int i = which; i < steps; i += 2) {
        mbarrier_wait(&m.dq_full[which], i / 2 & 1);
        turn_wait_async(&turns[i], n);
        bulk_store(dq + (int64_t)i * DQ, m.dq[which], DQ * (int)sizeof(float), n > 0);
        bulk_wait();
        turn_pass_async(&turns[i]);
        mbarrier_arrive(&m.dq_empty[which]);
    }
}

/* dqᵀ [64 channels, 64 queries] of each step */
__device__ static void make_dq(backward_shared &m, int steps)
{
    const int t = threadIdx.x % WARPGROUP, warp = t / 32, lane = t % 32;
    unsigned kt[HELD / 16][4];
    float acc[32];
    mbarrier_wait(&m.kv_full, 0);
#pragma unroll
    for (int c = 0; c < HELD / 16; c++) {
        const int row = 16 * c + lane / 16 * 8 + lane % 8, piece = 2 * warp + lane / 8 % 2;
        ldmatrix_x4_trans(kt[c], shared_address(m.k + row * ROW + (piece ^ row % 8) * 16));
    }
    for (int i = 0; i < steps; i++) {
        const int at = i % 2, phase = i / 2 & 1;
        mbarrier_wait(&m.ds_full[at], phase);
        wgmma_fence();
        wgmma<false, true>(acc, kt[0], wgmma_descriptor(m.ds[at]));
#pragma unroll
        for (int c = 1; c < HELD / 16; c++)
            wgmma<true, true>(acc, kt[c], wgmma_advance(wgmma_descriptor(m.ds[at]), 16 * ROW * c));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_fence_operand(acc);
        if (lane == 0) mbarrier_arrive(&m.ds_empty[at]);
        mbarrier_wait(&m.dq_empty[at], phase ^ 1);
#pragma unroll
        for (int j = 0; j < 8; j++)
            ((float4 *)m.dq[at])[j * WARPGROUP + t] =
                make_float4(acc[4 * j], acc[4 * j + 1], acc[4 * j + 2], acc[4 * j + 3]);
        fence_proxy_async();
        __syncwarp();
        if (lane == 0) mbarrier_arrive(&m.dq_full[at]);
    }
}

/* sᵀ [64 keys, 64 queries] = rows of one tile times rows of another, both 64 channels long */
__device__ static void start_scores(float (&s)[32], uint64_t a, uint64_t b)
{
    wgmma<false, false, false>(s, a, b);
#pragma unroll
    for (int c = 1; c < D / 16; c++)
        wgmma<true, false, false>(s, wgmma_advance(a, 32 * c), wgmma_advance(b, 32 * c));
    wgmma_commit();
}

/* acc [64 keys, 64 channels] += p [64 keys, 64 queries] times a tile of queries */
__device__ static void start_sums(float (&acc)[32], const unsigned (&p)[16], uint64_t b)
{
#pragma unroll
    for (int c = 0; c < PAST / 16; c++) wgmma<true, true>(acc, &p[4 * c], wgmma_advance(b, 16 * ROW * c));
    wgmma_commit();
}

__device__ static void store_rows(bf16 *to, const float (&acc)[32], float scale, int row, int rows,
                                  int stride)
{
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (row + 8 * r < rows)
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                *(unsigned *)&to[(int64_t)(row + 8 * r) * stride + 8 * j] =
                    pack_bf16(acc[4 * j + 2 * r] * scale, acc[4 * j + 2 * r + 1] * scale);
}

__device__ static void make_dk_dv(backward_shared &m, bf16 *dk, bf16 *dv, const backward_shape &a, int h,
                                  int first, int steps)
{
    const int group = threadIdx.x / WARPGROUP - 2, t = threadIdx.x % WARPGROUP, lane = t % 32;
    const int mine =
        group * 64 + t / 32 * 16 + lane / 4; /* the first of this thread's two keys of the block */
    const uint64_t k = wgmma_descriptor(m.k + group * 64 * ROW), v = wgmma_descriptor(m.v + group * 64 * ROW);
    const bool there[2] = {first + mine < a.rows, first + mine + 8 < a.rows}, whole = first + HELD <= a.rows;
    const float unit = a.scale * LOG2E;
    float s[32], dp[32], w[32], sum_k[32] = {}, sum_v[32] = {};
    unsigned p[16], ds[16];
    /* where this lane stores its row of matrices of dSᵀ */
    const int row = group * 64 + t / 32 * 16 + lane % 16;
    const int row_at = row * ROW, piece = lane / 16;

    mbarrier_wait(&m.kv_full, 0);
    mbarrier_wait(&m.full[0], 0);
    wgmma_fence();
    start_scores(s, k, wgmma_descriptor(m.q[0]));
    wgmma_wait<0>();
    wgmma_fence_operand(s);
    for (int i = 0; i < steps; i++) {
        const int at = i % Q_STAGES, next = (i + 1) % Q_STAGES;
        const row_pair *const rows = m.rows[at] + lane % 4;
        wgmma_fence();
        start_scores(dp, v, wgmma_descriptor(m.dout[at]));
#pragma unroll
        for (int j = 0; j < PAST / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                w[4 * j + e] = power_of_2(fmaf(s[4 * j + e], unit, -rows[4 * j].lse[e % 2]));
        if (!whole)
#pragma unroll
            for (int e = 0; e < 32; e++)
                if (!there[e / 2 % 2]) w[e] = 0;
#pragma unroll
        for (int j = 0; j < 16; j++) p[j] = pack_bf16(w[2 * j], w[2 * j + 1]);
        wgmma_fence();
        start_sums(sum_v, p, wgmma_descriptor(m.dout[at]));
        wgmma_wait<1>();
        wgmma_fence_operand(dp);
#pragma unroll
        for (int j = 0; j < PAST / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) w[4 * j + e] *= dp[4 * j + e] - rows[4 * j].delta[e % 2];
#pragma unroll
        for (int j = 0; j < 16; j++) ds[j] = pack_bf16(w[2 * j], w[2 * j + 1]);
        mbarrier_wait(&m.ds_empty[i % 2], (i / 2 & 1) ^ 1);
#pragma unroll
        for (int c = 0; c < PAST / 16; c++)
            stmatrix_x4(m.ds[i % 2] + row_at + ((2 * c + piece) ^ row % 8) * 16, &ds[4 * c]);
        fence_proxy_async();
        __syncwarp();
        if (lane == 0) mbarrier_arrive(&m.ds_full[i % 2]);
        wgmma_fence();
        start_sums(sum_k, ds, wgmma_descriptor(m.q[at]));
        if (i + 1 < steps) {
            mbarrier_wait(&m.full[next], (i + 1) / Q_STAGES & 1);
            start_scores(s, k, wgmma_descriptor(m.q[next]));
        }
        wgmma_wait<0>();
        wgmma_fence_operand(s);
        wgmma_fence_operand(sum_k);
        wgmma_fence_operand(sum_v);
        if (lane == 0) mbarrier_arrive(&m.empty[at]);
    }
    const int stride = a.heads * D;
    const int64_t to = (int64_t)first * stride + h * D + lane % 4 * 2;
    store_rows(dk + to, sum_k, a.scale, mine, a.rows - first, stride);
    store_rows(dv + to, sum_v, 1, mine, a.rows - first, stride);
}
#endif

/* turns: [0] which block is next; then one turn for each head's 64 queries. A block takes its number when it
 * begins, so those whose turns it waits for have begun as well. */
__global__ static void __launch_bounds__(BACKWARD_THREADS, 1)
    backward(float *dq, bf16 *dk, bf16 *dv, int *turns, const row_pair *rows,
             const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
             const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap dout,
             const backward_shape a)
{
#ifdef HOPPER
    extern __shared__ unsigned char dynamic[];
    backward_shared &m = aligned<backward_shared>(dynamic);
    if (threadIdx.x == 0) {
        m.item = atomicAdd(turns, 1);
        mbarrier_init(&m.kv_full, 1);
        for (int i = 0; i < Q_STAGES; i++) {
            mbarrier_init(&m.full[i], 1);
            mbarrier_init(&m.empty[i], 8);
        }
        for (int i = 0; i < 2; i++) {
            mbarrier_init(&m.ds_full[i], 8);
            mbarrier_init(&m.ds_empty[i], 4);
            mbarrier_init(&m.dq_full[i], 4);
            mbarrier_init(&m.dq_empty[i], 1);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    int n;
    const int blocks = tiles_of(a.rows, HELD), steps = tiles_of(a.rows, PAST),
              h = attention_head(m.item, blocks, a.heads, a.side_by_side, &n),
              warpgroup = threadIdx.x / WARPGROUP;
    if (warpgroup == 0) {
        setmaxnreg_dec<24>();
        const int warp = threadIdx.x / 32;
        if (threadIdx.x % 32 == 0) {
            if (warp == 0)
                load_backward(m, q, k, v, dout, rows, h, n * HELD, steps);
            else if (warp < 3)
                add_dq(m, dq + (int64_t)h * steps * DQ, turns + 1 + h * steps, warp - 1, n, steps);
        }
    } else if (warpgroup == 1) {
        setmaxnreg_dec<104>();
        make_dq(m, steps);
    } else {
        setmaxnreg_inc<192>();
        make_dk_dv(m, dk, dv, a, h, n * HELD, steps);
    }
#endif
}

/* row_pair of every head's queries, rounded up to whole tiles; eight threads for a head's row */
__global__ static void row_sums(row_pair *pairs, const bf16 *dout, const bf16 *o, const float *lse, int rows,
                                int heads, int padded)
{
    const int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / 8;
    const int row = (int)(i / heads), h = (int)(i % heads), part = threadIdx.x % 8;
    float delta = 0;
    if (row < rows) {
        const int64_t at = ((int64_t)row * heads + h) * D + part * 8;
        const pack<bf16> x = load_pack(dout + at), y = load_pack(o + at);
        for (int j = 0; j < 8; j++) delta += to_float(x.v[j]) * to_float(y.v[j]);
    }
    for (int n = 4; n; n /= 2) delta += __shfl_xor_sync(0xffffffff, delta, n);
    if (part == 0 && row < padded) {
        row_pair &to = pairs[((int64_t)h * padded + row) / 2];
        to.lse[row % 2] = row < rows ? lse[(int64_t)h * rows + row] * LOG2E : INFINITY;
        to.delta[row % 2] = delta;
    }
}

/* dq [rows,heads*64] = scale times the sums of a head's 64 queries, which lie as make_dq left them */
__global__ static void __launch_bounds__(WARPGROUP)
    round_dq(bf16 *dq, const float *sums, int rows, int heads, int steps, float scale)
{
    __shared__ float tile[PAST][D + 1];
    const int t = threadIdx.x, lane = t % 32, i = blockIdx.x % steps, h = blockIdx.x / steps;
    sums += (int64_t)blockIdx.x * DQ;
    for (int j = 0; j < 8; j++) {
        const float4 x = ((const float4 *)sums)[j * WARPGROUP + t];
        const int channel = t / 32 * 16 + lane / 4, query = 8 * j + lane % 4 * 2;
        tile[query][channel] = x.x;
        tile[query + 1][channel] = x.y;
        tile[query][channel + 8] = x.z;
        tile[query + 1][channel + 8] = x.w;
    }
    __syncthreads();
    for (int r = t / 8; r < PAST; r += WARPGROUP / 8) {
        const int64_t row = (int64_t)i * PAST + r;
        pack<bf16> x;
        for (int j = 0; j < 8; j++) x.v[j] = from_float<bf16>(tile[r][t % 8 * 8 + j] * scale);
        if (row < rows) store_pack(dq + (row * heads + h) * D + t % 8 * 8, x);
    }
}

/* ---- on the host --------------------------------------------------------------------------------------- */

/* [batch*rows,heads*64] as boxes of `box` rows of a head: coordinates channel, row, sequence */
static bool describe(struct kern *k, CUtensorMap *map, const struct tensor *t, int64_t batch, int box)
{
    static thread_local PFN_cuTensorMapEncodeTiled_v12000 encode;
    if (!encode) {
        void *f = NULL;
        enum cudaDriverEntryPointQueryResult found;
        if (!cuda_good(k, "attention",
                       cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                        cudaEnableDefault, &found)))
            return false;
        encode = (PFN_cuTensorMapEncodeTiled_v12000)f;
    }
    const cuuint64_t width = (cuuint64_t)t->shape[1], rows = (cuuint64_t)(t->shape[0] / batch);
    const cuuint64_t sizes[] = {width, rows, (cuuint64_t)batch};
    const cuuint64_t strides[] = {width * sizeof(bf16), rows * width * sizeof(bf16)};
    const cuuint32_t boxes[] = {D, (cuuint32_t)box, 1}, steps[] = {1, 1, 1};
    const CUresult e = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, t->data, sizes, strides, boxes, steps,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (e == CUDA_SUCCESS) return true;
    kern_fail(k, "attention: no tensor map for %lld rows of %lld on %s (error %d)", (long long)t->shape[0],
              (long long)t->shape[1], k->device, (int)e);
    return false;
}

/* A Hopper card, and code for it: from PTX of less than 9.0a the kernels have no body. */
static bool is_hopper(struct kern *k)
{
    const struct cuda *c = cuda_of(k);
    return c->capability / 10 == 9 && c->code >= 90;
}

static bool takes_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    return s->d == D && s->scale > 0 && !s->causal && !t->bias && attention_aligned(t->o) &&
           attention_aligned(t->q) && attention_aligned(t->k) && attention_aligned(t->v) && is_hopper(k);
}

static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    CUtensorMap qm, km, vm;
    if (!t->q->data || !describe(k, &qm, t->q, s->batch, QUERIES) ||
        !describe(k, &km, t->k, s->batch, KEYS) || !describe(k, &vm, t->v, s->batch, KEYS))
        return;
    const forward_shape a = {s->queries, s->keys, s->batch, s->heads, s->scale * LOG2E};
    const size_t bytes = sizeof(forward_shared) + ALIGN;
    if (!attention_allow_shared(k, (const void *)forward, bytes)) return;
    forward<<<(unsigned)(ceil_div(s->queries, QUERIES) * s->heads * s->batch), FORWARD_THREADS, bytes,
              stream_of(k)>>>((bf16 *)t->o->data, t->lse ? (float *)t->lse->data : NULL, qm, km, vm, a);
    cuda_good(k, "attention_forward", cudaGetLastError());
}

/* Of one sequence that sees all of itself. */
static bool takes_backward(struct kern *k, const struct attention_shape *s,
                           const struct attention_backward *t)
{
    return s->d == D && s->batch == 1 && s->queries == s->keys && !s->causal && t->dk &&
           attention_aligned(t->dq) && attention_aligned(t->dout) && attention_aligned(t->o) &&
           attention_aligned(t->q) && attention_aligned(t->k) && attention_aligned(t->v) && is_hopper(k);
}

static void run_backward(struct kern *k, const struct attention_shape *s, const struct attention_backward *t)
{
    const int rows = (int)s->queries, heads = s->heads, steps = tiles_of(rows, PAST),
              blocks = tiles_of(rows, HELD), padded = steps * PAST;
    float *sums = (float *)cuda_scratch(k, DT_F32, (int64_t)heads * steps * DQ);
    row_pair *pairs = (row_pair *)cuda_scratch(k, DT_F32, (int64_t)heads * padded * 2);
    int *turns = (int *)cuda_scratch(k, DT_I32, (int64_t)heads * steps + 1);
    const size_t bytes = sizeof(backward_shared) + ALIGN;
    CUtensorMap qm, km, vm, dm;
    if (!sums || !pairs || !turns || !attention_allow_shared(k, (const void *)backward, bytes) ||
        !describe(k, &qm, t->q, 1, PAST) || !describe(k, &km, t->k, 1, HELD) ||
        !describe(k, &vm, t->v, 1, HELD) || !describe(k, &dm, t->dout, 1, PAST) ||
        !cuda_good(k, "attention_backward",
                   cudaMemsetAsync(turns, 0, ((size_t)heads * steps + 1) * sizeof(int), stream_of(k))))
        return;
    row_sums<<<(unsigned)ceil_div((int64_t)padded * heads * 8, 256), 256, 0, stream_of(k)>>>(
        pairs, (const bf16 *)t->dout->data, (const bf16 *)t->o->data, (const float *)t->lse->data, rows,
        heads, padded);
    const backward_shape a = {rows, heads, attention_side_by_side(k, 1, steps), s->scale};
    backward<<<(unsigned)(blocks * heads), BACKWARD_THREADS, bytes, stream_of(k)>>>(
        sums, (bf16 *)t->dk->data, (bf16 *)t->dv->data, turns, pairs, qm, km, vm, dm, a);
    round_dq<<<(unsigned)(steps * heads), WARPGROUP, 0, stream_of(k)>>>((bf16 *)t->dq->data, sums, rows,
                                                                        heads, steps, s->scale);
    cuda_good(k, "attention_backward", cudaGetLastError());
}

const struct attention_way attention_hopper = {"hopper", takes_forward, run_forward, takes_backward,
                                               run_backward};
