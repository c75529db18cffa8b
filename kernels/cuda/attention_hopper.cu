/* Attention on Hopper's own instructions: BF16, heads of 64 and 128, no bias, every query sees every key. What
 * CogVideoX and Wan spend most of their time in. attention_hopper_backward.cu has the backward pass. */
#include "kernels/cuda/attention_hopper.h"

/* A block has some queries of a head: warpgroups of 64 each, and one that only fetches keys and values, 128 at a time.
 * With heads of 64, per pair of query and key the tensor cores take as long (256 of 4,096 operations a clock) as the
 * 16 exponentials a clock, so a warpgroup starts the scores of the next keys and the weighted sum of the last ones,
 * and has its exponentials done meanwhile. With heads of 128 the tensor cores take twice as long, and there are
 * registers for two such warpgroups.
 *
 * Weights are exp(score - base), and the sums are divided by theirs in the end, so any base near a row's largest score
 * will do. Where scores are exponents of 2 as they are (LOG_2 in kernels.h), as of queries and keys that come out of a
 * norm, it is 0; else the largest of the first 128. To look for the maximum anew at every step took a quarter of the
 * instructions and 8 % of the time, to subtract and scale another fifth and 7 %. A block one of whose sums leaves the
 * range of a float after all computes its rows once more, and then looks.
 *
 * With heads of 64 the sum of a row's weights is another column of the product with v: a tile of ones lies where the
 * columns after v's 64 would. (With heads of 128 it could not: those columns come after two tiles.) */
enum { KEYS = 128 };

enum pass {
    POWERS,  /* a weight is 2 to the power of its score */
    BASED,   /* of unit (score - base), where the base is that of the first keys */
    CAREFUL, /* the same, and the base is raised where a later score is much larger */
};

template <int D> struct forward_sizes {
    enum {
        GROUPS = D == 64 ? 3 : 2,
        STAGES = D == 64 ? 4 : 2, /* of keys and values */
        QUERIES = 64 * GROUPS,
        THREADS = WARPGROUP * (GROUPS + 1),
        QUERY_BYTES = QUERIES * D * (int)sizeof(bf16),
        KEY_BYTES = KEYS * D * (int)sizeof(bf16),
    };
};

template <int D> struct forward_shared {
    using sizes = forward_sizes<D>;
    unsigned char q[sizes::QUERY_BYTES], k[sizes::STAGES][sizes::KEY_BYTES],
        v[sizes::STAGES][sizes::KEY_BYTES], ones[16 * ROW];
    uint64_t q_full, k_full[sizes::STAGES], k_empty[sizes::STAGES], v_full[sizes::STAGES],
        v_empty[sizes::STAGES];
};

struct forward_shape {
    int64_t queries, keys, batch;
    int heads;
    float unit; /* scale / log 2 */
};

#ifdef HOPPER
/* Keys and values from the last to the first. Steps are counted from `from` on, which tells the phases of the mbarriers. */
template <int D>
__device__ static void load_keys(forward_shared<D> &m, const CUtensorMap &k, const CUtensorMap &v, int h,
                                 int b, int steps, int from)
{
    enum { STAGES = forward_sizes<D>::STAGES };
#pragma unroll 1 /* few registers are left for this warp */
    for (int i = from; i < from + steps; i++) {
        const int at = i % STAGES, old = (i / STAGES & 1) ^ 1, key = (from + steps - 1 - i) * KEYS;
        mbarrier_wait(&m.k_empty[at], old);
        mbarrier_expect_tx(&m.k_full[at], sizeof m.k[at]);
        load_rows<D, KEYS>(m.k[at], k, &m.k_full[at], h, key, b);
        mbarrier_wait(&m.v_empty[at], old);
        mbarrier_expect_tx(&m.v_full[at], sizeof m.v[at]);
        load_rows<D, KEYS>(m.v[at], v, &m.v_full[at], h, key, b);
    }
}

/* s [64,128] = q kᵀ */
template <int D> __device__ static void start_scores(float (&s)[64], uint64_t q, uint64_t k)
{
    wgmma<false>(s, q, k);
#pragma unroll
    for (int c = 1; c < D / 16; c++)
        wgmma<true>(s, wgmma_advance(q, channels_at<forward_sizes<D>::QUERIES>(c)),
                    wgmma_advance(k, channels_at<KEYS>(c)));
    wgmma_commit();
}

/* Whether a row's weights are summed by the product with v. There are no registers for it where bases are raised. */
template <int D, pass P> __device__ static constexpr bool by_product()
{
    return D == 64 && P != CAREFUL;
}

/* o [64,D] += p [64,128] v; where it is done by_product(), sum [64,8] += p ones */
template <int D, pass P>
__device__ static void start_sums(float (&o)[D / 2], float (&sum)[4], const unsigned (&p)[32],
                                  const unsigned char *v, const unsigned char *ones)
{
    const int next = by_product<D, P>() ? (int)(shared_address(ones) - shared_address(v)) : KEYS * ROW;
    const uint64_t b = wgmma_descriptor(v, next);
#pragma unroll
    for (int c = 0; c < KEYS / 16; c++)
        if constexpr (by_product<D, P>())
            wgmma(o, sum, &p[4 * c], wgmma_advance_first(b, 16 * ROW * c));
        else
            wgmma<true, true>(o, &p[4 * c], wgmma_advance(b, 16 * ROW * c));
    wgmma_commit();
}

/* The reverse: after the wait for it. */
template <int D, pass P> __device__ static void sums_done(float (&o)[D / 2], float (&sum)[4])
{
    wgmma_fence_operand(o);
    if (by_product<D, P>()) wgmma_fence_operand(sum);
}

/* The softmax of two rows as it goes on: `sum` of 2^(unit (score - base)). */
struct softmax {
    float base[2], sum[2];
};

/* The largest score of each row. */
__device__ static void find_highest(float (&highest)[2], const float (&s)[64])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        highest[r] = fmaxf(s[2 * r], s[2 * r + 1]);
#pragma unroll
        for (int j = 1; j < KEYS / 8; j++)
            highest[r] = fmaxf(highest[r], fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffff, highest[r], 1));
        highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffff, highest[r], 2));
    }
}

/* Puts a base up that a score has passed by more than 2^8; not each time, since all sums must then be scaled, by `shrink`.
 * True when there is such a row in the warp. */
__device__ static bool raise_base(softmax &x, float (&shrink)[2], const float (&s)[64], float unit)
{
    float highest[2];
    find_highest(highest, s);
    if (!__any_sync(0xffffffff, fmaxf(highest[0] - x.base[0], highest[1] - x.base[1]) * unit > 8))
        return false;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float base = fmaxf(highest[r], x.base[r]);
        shrink[r] = power_of_2((x.base[r] - base) * unit);
        x.base[r] = base;
        x.sum[r] *= shrink[r];
    }
    return true;
}

/* s becomes weights, which add to x.sum unless the product does that. */
template <int D, pass P> __device__ static void weigh(softmax &x, float (&s)[64], float unit)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float shift = -x.base[r] * unit;
        float sum[2] = {};
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float &y = s[4 * j + 2 * r + e];
                y = power_of_2(P == POWERS ? y : fmaf(y, unit, shift));
                if (!by_product<D, P>()) sum[e] += y;
            }
        x.sum[r] += sum[0] + sum[1];
    }
}

__device__ static void round_weights(unsigned (&p)[32], const float (&s)[64])
{
#pragma unroll
    for (int i = 0; i < 32; i++) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* acc [64,D] = the sums of v by their weights, which are summed in x */
template <int D, pass P>
__device__ static void attend(forward_shared<D> &m, float (&acc)[D / 2], softmax &x, const forward_shape &a,
                              int steps, int from)
{
    enum { STAGES = forward_sizes<D>::STAGES };
    const int group = warpgroup_of() - 1, lane = threadIdx.x % 32, end = from + steps;
    const uint64_t q = wgmma_descriptor(m.q + group * 64 * ROW);
    float s[64], sum[4] = {};
    unsigned p[32];
#pragma unroll
    for (int j = 0; j < D / 2; j++) acc[j] = 0;

    mbarrier_wait(&m.k_full[from % STAGES], from / STAGES & 1);
    wgmma_fence();
    start_scores<D>(s, q, wgmma_descriptor(m.k[from % STAGES]));
    wgmma_wait<0>();
    wgmma_fence_operand(s);
    if (lane == 0) mbarrier_arrive(&m.k_empty[from % STAGES]);
    /* The last keys come first: only there may some be missing. */
    const int seen = (int)(a.keys - (int64_t)(steps - 1) * KEYS) - lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 * 8 + i % 2 >= seen) s[i] = -INFINITY;
    x.base[0] = x.base[1] = x.sum[0] = x.sum[1] = 0;
    if (P != POWERS) find_highest(x.base, s);
    weigh<D, P>(x, s, a.unit);
    round_weights(p, s);

    for (int i = from + 1; i < end; i++) {
        const int at = i % STAGES, before = (i - 1) % STAGES;
        mbarrier_wait(&m.k_full[at], i / STAGES & 1);
        mbarrier_wait(&m.v_full[before], (i - 1) / STAGES & 1);
        wgmma_fence();
        start_scores<D>(s, q, wgmma_descriptor(m.k[at]));
        start_sums<D, P>(acc, sum, p, m.v[before], m.ones);
        wgmma_wait<1>();
        wgmma_fence_operand(s);
        if (lane == 0) mbarrier_arrive(&m.k_empty[at]);
        float shrink[2];
        if (P == CAREFUL && raise_base(x, shrink, s, a.unit)) {
            wgmma_wait<0>();
            wgmma_fence_operand(acc);
#pragma unroll
            for (int j = 0; j < D / 2; j++) acc[j] *= shrink[j / 2 % 2];
        }
        weigh<D, P>(x, s, a.unit);
        wgmma_wait<0>();
        sums_done<D, P>(acc, sum);
        wgmma_fence_operand(p);
        if (lane == 0) mbarrier_arrive(&m.v_empty[before]);
        round_weights(p, s);
    }
    const int last = (end - 1) % STAGES;
    mbarrier_wait(&m.v_full[last], (end - 1) / STAGES & 1);
    wgmma_fence();
    start_sums<D, P>(acc, sum, p, m.v[last], m.ones);
    wgmma_wait<0>();
    sums_done<D, P>(acc, sum);
    if (lane == 0) mbarrier_arrive(&m.v_empty[last]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (by_product<D, P>()) {
            x.sum[r] = sum[2 * r]; /* all 8 columns are the same */
            continue;
        }
        x.sum[r] += __shfl_xor_sync(0xffffffff, x.sum[r], 1);
        x.sum[r] += __shfl_xor_sync(0xffffffff, x.sum[r], 2);
    }
}

template <int D>
__device__ static void store_rows(bf16 *o, float *lse, const float (&acc)[D / 2], const softmax &x,
                                  const forward_shape &a, int h, int first, int b)
{
    const int group = threadIdx.x / WARPGROUP - 1, t = threadIdx.x % WARPGROUP, lane = t % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int64_t row = first + group * 64 + t / 32 * 16 + lane / 4 + 8 * r;
        const float part = 1 / x.sum[r];
        if (row >= a.queries) continue;
        if (lse && lane % 4 == 0)
            lse[(h * a.batch + b) * a.queries + row] = (x.base[r] * a.unit + log2f(x.sum[r])) * LOG_2;
        bf16 *const to = o + ((b * a.queries + row) * a.heads + h) * D + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *(unsigned *)&to[8 * j] = pack_bf16(acc[4 * j + 2 * r] * part, acc[4 * j + 2 * r + 1] * part);
    }
}

/* Far from infinity, so that what the weights multiply is finite, too, if v is below 2^60, and far from where small weights
 * are lost. A NaN is not within it. */
__device__ static bool within_range(const softmax &x)
{
    return fminf(x.sum[0], x.sum[1]) > 0x1p-64f && x.sum[0] < 0x1p64f && x.sum[1] < 0x1p64f;
}
#endif

template <int D, pass FIRST>
__global__ static void __launch_bounds__(forward_sizes<D>::THREADS, 1)
    forward(bf16 *o, float *lse, const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
            const __grid_constant__ CUtensorMap v, const forward_shape a)
{
#ifdef HOPPER
    using sizes = forward_sizes<D>;
    extern __shared__ unsigned char dynamic[];
    forward_shared<D> &m = aligned<forward_shared<D>>(dynamic);
    const int tiles = (int)((a.queries + sizes::QUERIES - 1) / sizes::QUERIES),
              steps = (int)((a.keys + KEYS - 1) / KEYS), first = (int)(blockIdx.x % tiles) * sizes::QUERIES,
              h = (int)(blockIdx.x / tiles % a.heads), b = (int)(blockIdx.x / tiles / a.heads);
    if (threadIdx.x == 0) {
        mbarrier_init(&m.q_full, 1);
        for (int i = 0; i < sizes::STAGES; i++) {
            mbarrier_init(&m.k_full[i], 1);
            mbarrier_init(&m.v_full[i], 1);
            mbarrier_init(&m.k_empty[i], 4 * sizes::GROUPS);
            mbarrier_init(&m.v_empty[i], 4 * sizes::GROUPS);
        }
        mbarrier_init_fence();
    }
    for (int i = threadIdx.x; i < (int)sizeof m.ones / 4; i += sizes::THREADS)
        ((unsigned *)m.ones)[i] = 0x3f803f80; /* 1, 1 */
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x < WARPGROUP) {
        setmaxnreg_dec<D == 64 ? 32 : 24>();
        if (threadIdx.x == 0) {
            mbarrier_expect_tx(&m.q_full, sizeof m.q);
            load_rows<D, sizes::QUERIES>(m.q, q, &m.q_full, h, first, b);
            load_keys<D>(m, k, v, h, b, steps, 0);
        }
        __syncwarp();
        if (barrier_or(1, sizes::THREADS, false) && threadIdx.x == 0)
            load_keys<D>(m, k, v, h, b, steps, steps);
    } else {
        setmaxnreg_inc<D == 64 ? 160 : 240>();
        float acc[D / 2];
        softmax x;
        mbarrier_wait(&m.q_full, 0);
        attend<D, FIRST>(m, acc, x, a, steps, 0);
        if (barrier_or(1, sizes::THREADS, !within_range(x))) attend<D, CAREFUL>(m, acc, x, a, steps, steps);
        store_rows<D>(o, lse, acc, x, a, h, first, b);
    }
#endif
}

/* ---- on the host --------------------------------------------------------------------------------------- */

bool attention_describe(struct kern *k, CUtensorMap *map, const struct tensor *t, int64_t batch, int box)
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
    const cuuint32_t boxes[] = {WIDTH, (cuuint32_t)box, 1}, steps[] = {1, 1, 1};
    const CUresult e = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, t->data, sizes, strides, boxes, steps,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                              CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (e == CUDA_SUCCESS) return true;
    kern_fail(k, "attention: no tensor map for %lld rows of %lld on %s (error %d)", (long long)t->shape[0],
              (long long)t->shape[1], k->device, (int)e);
    return false;
}

bool attention_is_hopper(struct kern *k)
{
    const struct cuda *c = cuda_of(k);
    return c->capability / 10 == 9 && c->code >= 90;
}

static bool takes_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    return (s->d == 64 || s->d == 128) && s->scale > 0 && !s->causal && !t->bias && attention_aligned(t->o) &&
           attention_aligned(t->q) && attention_aligned(t->k) && attention_aligned(t->v) &&
           attention_is_hopper(k);
}

template <int D>
static void launch_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    using sizes = forward_sizes<D>;
    CUtensorMap qm, km, vm;
    if (!t->q->data || !attention_describe(k, &qm, t->q, s->batch, sizes::QUERIES) ||
        !attention_describe(k, &km, t->k, s->batch, KEYS) ||
        !attention_describe(k, &vm, t->v, s->batch, KEYS))
        return;
    const forward_shape a = {s->queries, s->keys, s->batch, s->heads, s->scale * LOG2E};
    const size_t bytes = sizeof(forward_shared<D>) + ALIGN;
    const auto kernel = fabsf(a.unit - 1) < 1e-6f ? forward<D, POWERS> : forward<D, BASED>;
    if (!cuda_allow_shared(k, "attention", (const void *)kernel, bytes)) return;
    kernel<<<(unsigned)(ceil_div(s->queries, sizes::QUERIES) * s->heads * s->batch), sizes::THREADS, bytes,
             stream_of(k)>>>((bf16 *)t->o->data, t->lse ? (float *)t->lse->data : NULL, qm, km, vm, a);
    cuda_good(k, "attention_forward", cudaGetLastError());
}

static void run_forward(struct kern *k, const struct attention_shape *s, const struct attention_forward *t)
{
    s->d == 64 ? launch_forward<64>(k, s, t) : launch_forward<128>(k, s, t);
}

const struct attention_way attention_hopper = {"hopper", takes_forward, run_forward,
                                               attention_hopper_takes_backward, attention_hopper_backward};
