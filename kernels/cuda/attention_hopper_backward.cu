/* The backward pass of attention on Hopper's own instructions; attention_hopper.cu has the forward pass.
 *
 * A block has 128 keys of a head and goes past all queries, 64 at a time. Two warpgroups of 64 keys each have
 * Sᵀ = k qᵀ and dPᵀ = v doᵀ, whose registers are, rounded, the left operands of dv += Pᵀ do and dk += dSᵀ q.
 * dSᵀ goes through shared memory, too, for dqᵀ = kᵀ dSᵀ, which is left as floats for a warp that has the TMA add it to
 * dq in global memory. Blocks do so in the order of their keys, one after the other for each 64 queries: the sums have
 * one order, and are the same every time. Each block is so some steps behind the one before it.
 * In another warpgroup a warp fetches q, do and the rows' sums, and the others add dq, a step each in turn: from the
 * turn's coming to its passing on takes more than a step.
 *
 * With heads of 64 a warpgroup of its own makes dq. The other two begin the next S and dP before dv and dk of this step
 * are done, and have the next exponentials done meanwhile; all products are waited for every fourth step, because
 * the assembler runs those one after the other that are under way where a loop turns back.
 * With heads of 128 the sums dk and dv fill 128 registers of each thread, and three warpgroups would not leave enough
 * for the rest. So the two make dq as well, 64 channels each, and meet at each step, when both have stored dSᵀ.
 * With neither are there registers for P as floats beside S and dP: dS comes from P as it was rounded. */
#include "kernels/cuda/attention_hopper.h"

enum {
    PAST = 64,           /* queries of a step */
    HELD = 128,          /* keys of a block */
    PART = PAST * WIDTH, /* floats of 64 channels of a step's dq */
};

template <int D> struct backward_sizes {
    enum {
        THREADS = WARPGROUP * (D == 64 ? 4 : 3),
        TILES = D / WIDTH,
        STAGES = D == 64 ? 4 : 2,     /* of q and do */
        ROUND = D == 64 ? STAGES : 1, /* steps from one wait for all products to the next */
        ADDERS = D == 64 ? 3 : 2,     /* warps that add dq */
        PARTS = ADDERS * TILES,       /* of dq */
        HELD_BYTES = HELD * ROW * TILES,
        PAST_BYTES = PAST * ROW * TILES,
    };
};

/* Of a step's queries: log2 of their sums of exponentials, and δ. Of every 16 queries, a thread's four lie side by side:
 * 2 t, + 1, + 8, + 9 for the t-th of four threads. Queries past the last have infinity and 0, which makes their weights
 * and gradients 0. */
struct alignas(16) step_rows {
    float lse[PAST], delta[PAST];
};

template <int D> struct backward_shared {
    using sizes = backward_sizes<D>;
    unsigned char k[sizes::HELD_BYTES], v[sizes::HELD_BYTES], q[sizes::STAGES][sizes::PAST_BYTES],
        dout[sizes::STAGES][sizes::PAST_BYTES];
    unsigned char ds[2][HELD * PAST * sizeof(bf16)]; /* [keys,queries] */
    float dq[sizes::PARTS][PART];                    /* in the order of the registers that had it */
    step_rows rows[sizes::STAGES];
    uint64_t kv_full, full[sizes::STAGES], empty[sizes::STAGES], ds_full[2], ds_empty[2],
        dq_full[sizes::PARTS], dq_empty[sizes::PARTS];
    int head, block; /* whose keys these are */
};

struct backward_shape {
    int queries, keys, heads, side_by_side;
    float scale;
};

__host__ __device__ static int tiles_of(int rows, int size)
{
    return (rows + size - 1) / size;
}

/* In whole rounds. */
template <int D> __host__ __device__ static int steps_of(int queries)
{
    enum { ROUND = backward_sizes<D>::ROUND };
    return tiles_of(queries, PAST * ROUND) * ROUND;
}

#ifdef HOPPER
template <int D>
__device__ static void load_backward(backward_shared<D> &m, const CUtensorMap &q, const CUtensorMap &k,
                                     const CUtensorMap &v, const CUtensorMap &dout, const step_rows *rows,
                                     int h, int first, int steps)
{
    enum { STAGES = backward_sizes<D>::STAGES };
    mbarrier_expect_tx(&m.kv_full, sizeof m.k + sizeof m.v);
    load_rows<D, HELD>(m.k, k, &m.kv_full, h, first, 0);
    load_rows<D, HELD>(m.v, v, &m.kv_full, h, first, 0);
#pragma unroll 1
    for (int i = 0; i < steps; i++) {
        const int at = i % STAGES;
        mbarrier_wait(&m.empty[at], (i / STAGES & 1) ^ 1);
        mbarrier_expect_tx(&m.full[at], sizeof m.q[0] + sizeof m.dout[0] + sizeof m.rows[0]);
        load_rows<D, PAST>(m.q[at], q, &m.full[at], h, i * PAST, 0);
        load_rows<D, PAST>(m.dout[at], dout, &m.full[at], h, i * PAST, 0);
        bulk_load(&m.rows[at], rows + (int64_t)h * steps + i, (int)sizeof m.rows[0], &m.full[at]);
    }
}

/* The dq of step `which` and of every ADDERS-th after it, when it is this block's turn. */
template <int D>
__device__ static void add_dq(backward_shared<D> &m, float *dq, int *turns, int which, int n, int steps)
{
    enum { TILES = backward_sizes<D>::TILES, PARTS = backward_sizes<D>::PARTS };
    for (int i = which; i < steps; i += backward_sizes<D>::ADDERS) {
        turn_wait_async(&turns[i], n);
        for (int j = i * TILES; j < (i + 1) * TILES; j++) {
            mbarrier_wait(&m.dq_full[j % PARTS], j / PARTS & 1);
            bulk_store(dq + (int64_t)j * PART, m.dq[j % PARTS], PART * (int)sizeof(float), n > 0);
        }
        bulk_wait_read();
        for (int j = i * TILES; j < (i + 1) * TILES; j++) mbarrier_arrive(&m.dq_empty[j % PARTS]);
        bulk_wait();
        turn_pass_async(&turns[i]);
    }
}

/* 64 channels of a step's dqᵀ to where the j-th part goes */
template <int D> __device__ static void leave_dq(backward_shared<D> &m, const float (&acc)[32], int j)
{
    enum { PARTS = backward_sizes<D>::PARTS };
    const int t = threadIdx.x % WARPGROUP;
    mbarrier_wait(&m.dq_empty[j % PARTS], (j / PARTS & 1) ^ 1);
#pragma unroll
    for (int i = 0; i < 8; i++)
        ((float4 *)m.dq[j % PARTS])[i * WARPGROUP + t] =
            make_float4(acc[4 * i], acc[4 * i + 1], acc[4 * i + 2], acc[4 * i + 3]);
    fence_proxy_async();
    __syncwarp();
    if (t % 32 == 0) mbarrier_arrive(&m.dq_full[j % PARTS]);
}

/* dqᵀ [64 channels, 64 queries] of each step; heads of 64, whose kᵀ stays in registers */
__device__ static void make_dq(backward_shared<64> &m, int steps)
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
        const int at = i % 2;
        mbarrier_wait(&m.ds_full[at], i / 2 & 1);
        wgmma_fence();
        wgmma<false, true>(acc, kt[0], wgmma_descriptor(m.ds[at]));
#pragma unroll
        for (int c = 1; c < HELD / 16; c++)
            wgmma<true, true>(acc, kt[c], wgmma_advance(wgmma_descriptor(m.ds[at]), 16 * ROW * c));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_fence_operand(acc);
        if (lane == 0) mbarrier_arrive(&m.ds_empty[at]);
        leave_dq(m, acc, i);
    }
}

/* sᵀ [64 keys, 64 queries] = rows of a tile of keys times rows of one of queries, both D channels long */
template <int D> __device__ static void start_scores(float (&s)[32], uint64_t a, uint64_t b)
{
    wgmma<false, false, false>(s, a, b);
#pragma unroll
    for (int c = 1; c < D / 16; c++)
        wgmma<true, false, false>(s, wgmma_advance(a, channels_at<HELD>(c)),
                                  wgmma_advance(b, channels_at<PAST>(c)));
    wgmma_commit();
}

/* acc [64 keys, D channels] += p [64 keys, 64 queries] times a tile of queries */
template <int N> __device__ static void start_sums(float (&acc)[N], const unsigned (&p)[16], const void *tile)
{
    const uint64_t b = wgmma_descriptor(tile, PAST * ROW);
#pragma unroll
    for (int c = 0; c < PAST / 16; c++) wgmma<true, true>(acc, &p[4 * c], wgmma_advance(b, 16 * ROW * c));
    wgmma_commit();
}

template <int N>
__device__ static void store_rows(bf16 *to, const float (&acc)[N], float scale, int row, int rows, int stride)
{
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (row + 8 * r < rows)
#pragma unroll
            for (int j = 0; j < N / 4; j++)
                *(unsigned *)&to[(int64_t)(row + 8 * r) * stride + 8 * j] =
                    pack_bf16(acc[4 * j + 2 * r] * scale, acc[4 * j + 2 * r + 1] * scale);
}

/* What a thread knows of its part of a block's keys. */
struct part {
    int group, lane, mine; /* the first of its two keys */
    int row, piece;        /* where it stores its row of matrices of dSᵀ */
    unsigned there[2]; /* keys past the last add nothing to dq; what they have of dk and dv is not stored */
};

__device__ static part part_of(int group, int left)
{
    const int t = threadIdx.x % WARPGROUP, lane = t % 32, warp = group * 64 + t / 32 * 16,
              mine = warp + lane / 4;
    return {
        group, lane, mine, warp + lane % 16, lane / 16, {mine < left ? ~0u : 0, mine + 8 < left ? ~0u : 0}};
}

__device__ static void store_ds(unsigned char *tile, const unsigned (&ds)[16], const part &x)
{
#pragma unroll
    for (int c = 0; c < PAST / 16; c++)
        stmatrix_x4(tile + x.row * ROW + ((2 * c + x.piece) ^ x.row % 8) * 16, &ds[4 * c]);
    fence_proxy_async();
}

/* A thread's 16 of a step's values. */
__device__ static void load_row_values(float (&x)[16], const float *from, int lane)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float4 four = ((const float4 *)from)[4 * j + lane % 4];
        x[4 * j] = four.x, x[4 * j + 1] = four.y, x[4 * j + 2] = four.z, x[4 * j + 3] = four.w;
    }
}

/* p [64 keys, 64 queries] of the scores s, rounded */
__device__ static void weigh(unsigned (&p)[16], const float (&s)[32], const float (&lse)[16], float unit)
{
#pragma unroll
    for (int j = 0; j < 16; j++)
        p[j] = pack_bf16(power_of_2(fmaf(s[2 * j], unit, -lse[j / 2 * 2])),
                         power_of_2(fmaf(s[2 * j + 1], unit, -lse[j / 2 * 2 + 1])));
}

/* ds = p (dp - δ), rounded */
__device__ static void differ(unsigned (&ds)[16], const unsigned (&p)[16], const float (&dp)[32],
                              const float (&delta)[16])
{
#pragma unroll
    for (int j = 0; j < 16; j++) {
        const float low = __uint_as_float(p[j] << 16), high = __uint_as_float(p[j] & 0xffff0000);
        ds[j] =
            pack_bf16(low * (dp[2 * j] - delta[j / 2 * 2]), high * (dp[2 * j + 1] - delta[j / 2 * 2 + 1]));
    }
}

/* dk and dv of heads of 64 */
__device__ static void make_dk_dv(backward_shared<64> &m, bf16 *dk, bf16 *dv, const backward_shape &a, int h,
                                  int first, int steps)
{
    enum { D = 64, STAGES = backward_sizes<D>::STAGES };
    const part x = part_of(warpgroup_of() - 2, a.keys - first);
    const uint64_t k = wgmma_descriptor(m.k + x.group * 64 * ROW),
                   v = wgmma_descriptor(m.v + x.group * 64 * ROW);
    const bool whole = first + HELD <= a.keys;
    const float unit = a.scale * LOG2E;
    float s[32], dp[32], lse[16], delta[16], sum_k[32] = {}, sum_v[32] = {};
    unsigned p[16], ds[16];

    mbarrier_wait(&m.kv_full, 0);
    mbarrier_wait(&m.full[0], 0);
    wgmma_fence();
    start_scores<D>(s, k, wgmma_descriptor(m.q[0]));
    load_row_values(lse, m.rows[0].lse, x.lane);
    wgmma_wait<0>();
    wgmma_fence_operand(s);
    weigh(p, s, lse, unit);
#pragma unroll 1
    for (int from = 0; from < steps; from += STAGES) {
#pragma unroll
        for (int at = 0; at < STAGES; at++) {
            const int i = from + at, next = (at + 1) % STAGES;
            const bool last = at == STAGES - 1;
            if (at == 0) {
                wgmma_fence();
                start_scores<D>(dp, v, wgmma_descriptor(m.dout[at]));
            }
            /* After the last step the next scores are of no use. */
            if (!last || i + 1 < steps) mbarrier_wait(&m.full[next], (i + 1) / STAGES & 1);
            wgmma_fence();
            start_sums(sum_v, p, m.dout[at]);
            start_scores<D>(s, k, wgmma_descriptor(m.q[next]));
            load_row_values(delta, m.rows[at].delta, x.lane);
            wgmma_wait<2>();
            wgmma_fence_operand(dp);
            wgmma_fence_operand(ds);
            if (at > 0 && x.lane == 0) mbarrier_arrive(&m.empty[at - 1]);
            differ(ds, p, dp, delta);
            if (!whole)
#pragma unroll
                for (int j = 0; j < 16; j++) ds[j] &= x.there[j % 2];
            mbarrier_wait(&m.ds_empty[at % 2], (i / 2 & 1) ^ 1);
            store_ds(m.ds[at % 2], ds, x);
            __syncwarp();
            if (x.lane == 0) mbarrier_arrive(&m.ds_full[at % 2]);
            wgmma_fence();
            start_sums(sum_k, ds, m.q[at]);
            if (!last) start_scores<D>(dp, v, wgmma_descriptor(m.dout[next]));
            load_row_values(lse, m.rows[next].lse, x.lane);
            if (last)
                wgmma_wait<1>();
            else
                wgmma_wait<2>();
            wgmma_fence_operand(s);
            wgmma_fence_operand(p);
            weigh(p, s, lse, unit);
            if (!last) continue;
            wgmma_wait<0>();
            wgmma_fence_operand(sum_k);
            wgmma_fence_operand(sum_v);
            wgmma_fence_operand(ds);
            if (x.lane == 0) mbarrier_arrive(&m.empty[at]);
        }
    }
    const int stride = a.heads * D;
    const int64_t to = (int64_t)first * stride + h * D + x.lane % 4 * 2;
    store_rows(dk + to, sum_k, a.scale, x.mine, a.keys - first, stride);
    store_rows(dv + to, sum_v, 1, x.mine, a.keys - first, stride);
}

/* dqᵀ [64 channels, 64 queries] = kᵀ dSᵀ, of 128 keys */
__device__ static void start_dq(float (&dq)[32], uint64_t k, uint64_t ds)
{
    wgmma<false, true, true>(dq, k, ds);
#pragma unroll
    for (int c = 1; c < HELD / 16; c++)
        wgmma<true, true, true>(dq, wgmma_advance(k, 16 * ROW * c), wgmma_advance(ds, 16 * ROW * c));
    wgmma_commit();
}

/* All gradients of heads of 128, or dq alone. The next exponentials come after dq is on its way: done while the products
 * for dq run, they cost 2 % more. */
template <bool ALL>
__device__ static void make_gradients(backward_shared<128> &m, bf16 *dk, bf16 *dv, const backward_shape &a,
                                      int h, int first, int steps)
{
    enum { D = 128, STAGES = backward_sizes<D>::STAGES, BOTH = 2 * WARPGROUP };
    const part x = part_of(warpgroup_of() - 1, a.keys - first);
    const uint64_t k = wgmma_descriptor(m.k + x.group * 64 * ROW),
                   v = wgmma_descriptor(m.v + x.group * 64 * ROW),
                   channels = wgmma_descriptor(m.k + x.group * HELD * ROW);
    const float unit = a.scale * LOG2E;
    float s[32], dp[32], dq[32], lse[16], delta[16], sum_k[D / 2] = {}, sum_v[D / 2] = {};
    unsigned p[16], ds[16];

    mbarrier_wait(&m.kv_full, 0);
    mbarrier_wait(&m.full[0], 0);
    wgmma_fence();
    start_scores<D>(s, k, wgmma_descriptor(m.q[0]));
    wgmma_wait<0>();
    wgmma_fence_operand(s);
    load_row_values(lse, m.rows[0].lse, x.lane);
    weigh(p, s, lse, unit);
    for (int i = 0; i < steps; i++) {
        const int at = i % STAGES, next = (i + 1) % STAGES;
        wgmma_fence();
        start_scores<D>(dp, v, wgmma_descriptor(m.dout[at]));
        if (ALL) start_sums(sum_v, p, m.dout[at]);
        wgmma_wait<ALL>();
        wgmma_fence_operand(dp);
        load_row_values(delta, m.rows[at].delta, x.lane);
        differ(ds, p, dp, delta);
#pragma unroll
        for (int j = 0; j < 16; j++) ds[j] &= x.there[j % 2];
        store_ds(m.ds[i % 2], ds, x);
        wgmma_fence();
        if (ALL) {
            start_sums(sum_k, ds, m.q[at]);
            wgmma_wait<1>();
            wgmma_fence_operand(sum_v);
            wgmma_fence_operand(p);
        }
        /* After the last step the next scores are of no use. */
        if (i + 1 < steps) mbarrier_wait(&m.full[next], (i + 1) / STAGES & 1);
        start_scores<D>(s, k, wgmma_descriptor(m.q[next]));
        wgmma_wait<1>();
        if (ALL) {
            wgmma_fence_operand(sum_k);
            wgmma_fence_operand(ds);
        }
        /* Both have stored dSᵀ, and no products read any longer what was here two steps ago. */
        barrier_sync(1, BOTH);
        start_dq(dq, channels, wgmma_descriptor(m.ds[i % 2]));
        wgmma_wait<1>();
        wgmma_fence_operand(s);
        __syncwarp();
        if (x.lane == 0) mbarrier_arrive(&m.empty[at]);
        wgmma_wait<0>();
        wgmma_fence_operand(dq);
        leave_dq(m, dq, 2 * i + x.group);
        load_row_values(lse, m.rows[next].lse, x.lane);
        weigh(p, s, lse, unit);
    }
    if (!ALL) return;
    wgmma_fence_operand(sum_k);
    wgmma_fence_operand(sum_v);
    const int stride = a.heads * D;
    const int64_t to = (int64_t)first * stride + h * D + x.lane % 4 * 2;
    store_rows(dk + to, sum_k, a.scale, x.mine, a.keys - first, stride);
    store_rows(dv + to, sum_v, 1, x.mine, a.keys - first, stride);
}
#endif

/* turns: [0] which block is next; then one turn for each head's 64 queries. A block takes its number when it
 * begins, so those whose turns it waits for have begun as well. */
template <int D, bool ALL>
__global__ static void __launch_bounds__(backward_sizes<D>::THREADS, 1)
    backward(float *dq, bf16 *dk, bf16 *dv, int *turns, const step_rows *rows,
             const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
             const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap dout,
             const backward_shape a)
{
#ifdef HOPPER
    using sizes = backward_sizes<D>;
    extern __shared__ unsigned char dynamic[];
    backward_shared<D> &m = aligned<backward_shared<D>>(dynamic);
    const int steps = steps_of<D>(a.queries), warpgroup = threadIdx.x / WARPGROUP;
    if (threadIdx.x == 0) {
        m.head =
            attention_head(atomicAdd(turns, 1), tiles_of(a.keys, HELD), a.heads, a.side_by_side, &m.block);
        mbarrier_init(&m.kv_full, 1);
        for (int i = 0; i < sizes::STAGES; i++) {
            mbarrier_init(&m.full[i], 1);
            mbarrier_init(&m.empty[i], 8);
        }
        for (int i = 0; i < 2; i++) {
            mbarrier_init(&m.ds_full[i], 8);
            mbarrier_init(&m.ds_empty[i], 4);
        }
        for (int i = 0; i < sizes::PARTS; i++) {
            mbarrier_init(&m.dq_full[i], 4);
            mbarrier_init(&m.dq_empty[i], 1);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    const int h = m.head, n = m.block;
    if (warpgroup == 0) {
        setmaxnreg_dec<24>();
        const int warp = threadIdx.x / 32;
        if (threadIdx.x % 32 == 0) {
            if (warp == 0)
                load_backward<D>(m, q, k, v, dout, rows, h, n * HELD, steps);
            else if (warp <= sizes::ADDERS)
                add_dq<D>(m, dq + (int64_t)h * steps * PART * sizes::TILES, turns + 1 + h * steps, warp - 1,
                          n, steps);
        }
    } else if constexpr (D == 128) {
        setmaxnreg_inc<240>();
        make_gradients<ALL>(m, dk, dv, a, h, n * HELD, steps);
    } else if (warpgroup == 1) {
        setmaxnreg_dec<104>();
        make_dq(m, steps);
    } else {
        setmaxnreg_inc<192>();
        make_dk_dv(m, dk, dv, a, h, n * HELD, steps);
    }
#endif
}

/* step_rows of every head's queries, rounded up to whole steps; eight threads for a head's row */
template <int D>
__global__ static void row_sums(step_rows *steps, const bf16 *dout, const bf16 *o, const float *lse, int rows,
                                int heads, int padded)
{
    const int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / 8;
    const int row = (int)(i / heads), h = (int)(i % heads), part = threadIdx.x % 8;
    float delta = 0;
    if (row < rows)
        for (int c = part * 8; c < D; c += 64) {
            const int64_t at = ((int64_t)row * heads + h) * D + c;
            const pack<bf16> x = load_pack(dout + at), y = load_pack(o + at);
            for (int j = 0; j < 8; j++) delta += to_float(x.v[j]) * to_float(y.v[j]);
        }
    for (int n = 4; n; n /= 2) delta += __shfl_xor_sync(0xffffffff, delta, n);
    if (part == 0 && row < padded) {
        step_rows &to = steps[((int64_t)h * padded + row) / PAST];
        const int r = row % PAST, at = r / 16 * 16 + r % 8 / 2 * 4 + r / 8 % 2 * 2 + r % 2;
        to.lse[at] = row < rows ? lse[(int64_t)h * rows + row] * LOG2E : INFINITY;
        to.delta[at] = delta;
    }
}

/* dq [rows,heads*D] = scale times the sums of a head's 64 queries, which lie as leave_dq left them; a block has 64
 * channels of them */
template <int D>
__global__ static void __launch_bounds__(WARPGROUP)
    round_dq(bf16 *dq, const float *sums, int rows, int heads, int steps, float scale)
{
    __shared__ float tile[PAST][WIDTH + 1];
    enum { TILES = D / WIDTH };
    const int t = threadIdx.x, lane = t % 32, c = blockIdx.x % TILES * WIDTH, i = blockIdx.x / TILES % steps,
              h = blockIdx.x / TILES / steps;
    sums += (int64_t)blockIdx.x * PART;
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
        if (row < rows) store_pack(dq + (row * heads + h) * D + c + t % 8 * 8, x);
    }
}

/* ---- on the host --------------------------------------------------------------------------------------- */

/* Of one sequence that sees all of another, or of itself. */
bool attention_hopper_takes_backward(struct kern *k, const struct attention_shape *s,
                                     const struct attention_backward *t)
{
    return ((s->d == 64 && t->dk) || s->d == 128) && s->batch == 1 && !s->causal &&
           attention_aligned(t->dq) && attention_aligned(t->dk) && attention_aligned(t->dv) &&
           attention_aligned(t->dout) && attention_aligned(t->o) && attention_aligned(t->q) &&
           attention_aligned(t->k) && attention_aligned(t->v) && attention_is_hopper(k);
}

template <int D>
static void launch_backward(struct kern *k, const struct attention_shape *s,
                            const struct attention_backward *t)
{
    enum { TILES = D / WIDTH };
    const int rows = (int)s->queries, keys = (int)s->keys, heads = s->heads, steps = steps_of<D>(rows),
              blocks = tiles_of(keys, HELD), padded = steps * PAST;
    float *sums = (float *)cuda_scratch(k, DT_F32, (int64_t)heads * steps * TILES * PART);
    step_rows *row_values = (step_rows *)cuda_scratch(k, DT_F32, (int64_t)heads * padded * 2);
    int *turns = (int *)cuda_scratch(k, DT_I32, (int64_t)heads * steps + 1);
    const size_t bytes = sizeof(backward_shared<D>) + ALIGN;
    auto kernel = D == 64 || t->dk ? backward<D, true> : backward<D, D == 64>;
    CUtensorMap qm, km, vm, dm;
    if (!sums || !row_values || !turns || !cuda_allow_shared(k, "attention", (const void *)kernel, bytes) ||
        !attention_describe(k, &qm, t->q, 1, PAST) || !attention_describe(k, &km, t->k, 1, HELD) ||
        !attention_describe(k, &vm, t->v, 1, HELD) || !attention_describe(k, &dm, t->dout, 1, PAST) ||
        !cuda_good(k, "attention_backward",
                   cudaMemsetAsync(turns, 0, ((size_t)heads * steps + 1) * sizeof(int), stream_of(k))))
        return;
    row_sums<D><<<(unsigned)ceil_div((int64_t)padded * heads * 8, 256), 256, 0, stream_of(k)>>>(
        row_values, (const bf16 *)t->dout->data, (const bf16 *)t->o->data, (const float *)t->lse->data, rows,
        heads, padded);
    const backward_shape a = {rows, keys, heads, attention_side_by_side(k, 1, steps), s->scale};
    kernel<<<(unsigned)(blocks * heads), backward_sizes<D>::THREADS, bytes, stream_of(k)>>>(
        sums, t->dk ? (bf16 *)t->dk->data : NULL, t->dv ? (bf16 *)t->dv->data : NULL, turns, row_values, qm,
        km, vm, dm, a);
    round_dq<D><<<(unsigned)(steps * heads * TILES), WARPGROUP, 0, stream_of(k)>>>(
        (bf16 *)t->dq->data, sums, rows, heads, steps, s->scale);
    cuda_good(k, "attention_backward", cudaGetLastError());
}

void attention_hopper_backward(struct kern *k, const struct attention_shape *s,
                               const struct attention_backward *t)
{
    s->d == 64 ? launch_backward<64>(k, s, t) : launch_backward<128>(k, s, t);
}
