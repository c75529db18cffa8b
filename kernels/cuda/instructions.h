/* instructions - those of the tensor cores, TMA and mbarriers, by the names that PTX and CUTLASS give them.
 *
 * Those below "Hopper" exist for compute capability 9.0a alone; kernels that use them have a body only where
 * HOPPER is defined. PTX ISA 8.0 and later describes each. */
#ifndef KERNELS_CUDA_INSTRUCTIONS_H
#define KERNELS_CUDA_INSTRUCTIONS_H

#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <stdint.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HOPPER 1
#endif

__device__ static inline unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* Two floats as bf16, the first in the lower half. */
__device__ static inline unsigned pack_bf16(float low, float high)
{
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

/* 2^x to 2 units in the last place; results below 2^-126 are 0 */
__device__ static inline float power_of_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- since Ampere: ldmatrix, mma.sync, cp.async --------------------------------------------------------
 * Addresses in shared memory are 32 bits, as shared_address gives them. A matrix of ldmatrix is 8 x 8, a row of
 * 16 bytes; lane l gives the address of row l % 8 of matrix l / 8, and receives elements 2 (l % 4), + 1 of row
 * l / 4 of all four; of the transposed matrices with _trans. */

__device__ static inline void ldmatrix_x4(unsigned (&r)[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ static inline void ldmatrix_x4_trans(unsigned (&r)[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* c [16,8] += a [16,16] b [16,8] */
__device__ static inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 bytes from global memory to shared memory; zeros unless `there` */
__device__ static inline void cp_async_16(unsigned to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}
__device__ static inline void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits until at most N groups are outstanding. */
template <int N> __device__ static inline void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- turns among blocks -------------------------------------------------------------------------------
 * Those who add to one place in global memory do so in one order: the n-th waits until *turn is n, adds, and
 * passes the turn on. Between, the lanes of a warp whose first does both meet by __syncwarp. */

/* Whose turn it is. This orders no later loads, as turn_wait does, and costs less: enough for those who only add, as
 * a red is not issued before the branch that waits for the turn. */
__device__ static inline int turn_now(const int *turn)
{
    int now;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn));
    return now;
}
__device__ static inline void turn_wait(const int *turn, int n)
{
    int now;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
    while (now != n);
}
__device__ static inline void turn_pass(int *turn)
{
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(turn) : "memory");
}

#if defined(HOPPER) || !defined(__CUDA_ARCH__)
/* ---- Hopper: mbarrier, a barrier in shared memory ------------------------------------------------------
 * A phase ends when all arrivals and all expected bytes have come. mbarrier_wait(b, parity) returns once the
 * phase of that parity is over: 0, 1, 0, .. for the first, the second, .. */

__device__ static inline void mbarrier_init(uint64_t *b, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
                 : "memory");
}
/* After all inits and before __syncthreads: TMA sees them, too. */
__device__ static inline void mbarrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ static inline void mbarrier_arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
/* Arrives, and lets the phase wait for so many bytes more. */
__device__ static inline void mbarrier_expect_tx(uint64_t *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}
__device__ static inline void mbarrier_wait(uint64_t *b, int parity)
{
    asm volatile("{\n.reg .pred p;\nagain:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra again;\n}" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
}

/* ---- TMA: bulk copies by the async proxy --------------------------------------------------------------- */

/* After ordinary writes to shared memory that TMA or wgmma reads next, before the barrier that says so. */
__device__ static inline void fence_proxy_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A box of the tensor at coordinates c0 (innermost), c1, c2, zeros where it juts out. */
__device__ static inline void tma_load(void *to, const CUtensorMap *map, uint64_t *b, int c0, int c1, int c2)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
        "{%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(b)), "r"(c0), "r"(c1), "r"(c2)
        : "memory");
}
__device__ static inline void bulk_load(void *to, const void *from, int bytes, uint64_t *b)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(b))
        : "memory");
}
/* to[i] += from[i]; or without `add`, to[i] = from[i] */
__device__ static inline void bulk_store(float *to, const float *from, int bytes, bool add)
{
    if (add)
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
                     "r"(shared_address(from)), "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to),
                     "r"(shared_address(from)), "r"(bytes)
                     : "memory");
}
/* until all that this thread has stored so is in global memory; bulk_wait_read: until it has been read */
__device__ static inline void bulk_wait()
{
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
}
__device__ static inline void bulk_wait_read()
{
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
}

/* The same turns where the adding is done by bulk copies, which are of another proxy. */
__device__ static inline void turn_wait_async(const int *turn, int n)
{
    turn_wait(turn, n);
    asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ static inline void turn_pass_async(int *turn)
{
    asm volatile("fence.proxy.async;" ::: "memory");
    turn_pass(turn);
}

/* ---- barriers among warpgroups: that of `id`, 1 to 15, is passed when so many threads have come ---------- */

__device__ static inline void barrier_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/* The same; whether x is true for any of them. */
__device__ static inline bool barrier_or(int id, int threads, bool x)
{
    int any;
    asm volatile("{\n.reg .pred p, q;\nsetp.ne.s32 p, %3, 0;\n"
                 "bar.red.or.pred q, %1, %2, p;\nselp.s32 %0, 1, 0, q;\n}"
                 : "=r"(any)
                 : "r"(id), "r"(threads), "r"((int)x)
                 : "memory");
    return any;
}

/* ---- registers ---------------------------------------------------------------------------------------- */

template <int N> __device__ static inline void setmaxnreg_inc()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ static inline void setmaxnreg_dec()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma: asynchronous products by the 128 threads of a warpgroup -------------------------------------
 *
 * A tile in shared memory has rows of 128 bytes (64 bf16), and begins at a multiple of 1024. Within a row
 * the chunks of 16 bytes are swizzled: chunk c of row r is where c ^ (r % 8) would be, as TMA's 128-byte swizzle
 * has it. The operand's k may run along a row (then 16 of them are 32 bytes further), or down the
 * rows (TRANS; then 16 of them are 2048 bytes further, and 64 of the other index are all). Results: thread t
 * of the 128 has of every 8 columns those 2 (t % 4), + 1 of rows 16 (t / 32) + t % 32 / 4 and 8 further: d[4
 * j ..] of columns 8 j on. An operand in registers has the same order. */

/* bits 0-13: address; 16-29: leading offset; 32-45: from 8 rows to the next 8; 62: 128-byte swizzle; lengths in
 * units of 16 bytes. `leading` is how far the next tile lies whose columns are the 64 that follow: what an operand
 * needs that is wider than a tile, with k down the rows. */
__device__ static inline uint64_t wgmma_descriptor(const void *tile, int leading = 16)
{
    return (uint64_t)(shared_address(tile) >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}
/* The operand so many bytes further. */
__device__ static inline uint64_t wgmma_advance(uint64_t operand, int bytes)
{
    return operand + (unsigned)(bytes >> 4);
}

/* The same, where the columns that follow the 64 stay where they are. */
__device__ static inline uint64_t wgmma_advance_first(uint64_t operand, int bytes)
{
    return operand + (unsigned)(bytes >> 4) - ((uint64_t)(bytes >> 4) << 16);
}

/* Before the first product, and after registers that products use were written by other means. */
__device__ static inline void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ static inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Waits until at most N groups are outstanding. */
template <int N> __device__ static inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* After the wait: keeps the compiler from using these registers before it. */
template <int N> __device__ static inline void wgmma_fence_operand(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N> __device__ static inline void wgmma_fence_operand(unsigned (&a)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(a[i])::"memory");
}

/* The registers of a result, as operands 0.. of the assembler's text, that are written, or added to. Those
 * that are only written are kept apart: a product whose result was computed with in between waits for
 * all. */
#define TENS(a)                                                                                              \
    "%" #a "0, %" #a "1, %" #a "2, %" #a "3, %" #a "4, %" #a "5, %" #a "6, %" #a "7, %" #a "8, %" #a "9, "
#define LIST30 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " TENS(1) TENS(2)
#define LIST32 "{" LIST30 "%30, %31}"
#define LIST36 "{" LIST30 "%30, %31, %32, %33, %34, %35}"
#define LIST64 "{" LIST30 TENS(3) TENS(4) TENS(5) "%60, %61, %62, %63}"
#define EIGHT(io, d, i)                                                                                      \
    io(d[i]), io(d[i + 1]), io(d[i + 2]), io(d[i + 3]), io(d[i + 4]), io(d[i + 5]), io(d[i + 6]), io(d[i + 7])
#define THIRTY_TWO(io, d, i) EIGHT(io, d, i), EIGHT(io, d, i + 8), EIGHT(io, d, i + 16), EIGHT(io, d, i + 24)
#define WRITTEN              "=f"
#define ADDED                "+f"

/* d [64,64] (+)= a [64,16] b [16,64]: a from registers or shared memory; without ADD, d is only written */
template <bool ADD, bool TRANS_B>
__device__ static inline void wgmma(float (&d)[32], const unsigned *a, uint64_t b)
{
#define PRODUCT(io, add)                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " #add ", 0;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32                              \
                 ", {%32, %33, %34, %35}, %36, p, 1, 1, %37;\n}"                                             \
                 : THIRTY_TWO(io, d, 0)                                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"((int)TRANS_B))
    if (ADD)
        PRODUCT(ADDED, 1);
    else
        PRODUCT(WRITTEN, 0);
#undef PRODUCT
}
template <bool ADD, bool TRANS_A, bool TRANS_B>
__device__ static inline void wgmma(float (&d)[32], uint64_t a, uint64_t b)
{
#define PRODUCT(io, add)                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " #add ", 0;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " LIST32                              \
                 ", %32, %33, p, 1, 1, %34, %35;\n}"                                                         \
                 : THIRTY_TWO(io, d, 0)                                                                      \
                 : "l"(a), "l"(b), "n"((int)TRANS_A), "n"((int)TRANS_B))
    if (ADD)
        PRODUCT(ADDED, 1);
    else
        PRODUCT(WRITTEN, 0);
#undef PRODUCT
}
/* d [64,64], e [64,8] += a [64,16] b [16,72]: a from registers, k down the rows of b */
__device__ static inline void wgmma(float (&d)[32], float (&e)[4], const unsigned *a, uint64_t b)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 " LIST36
                 ", {%36, %37, %38, %39}, %40, p, 1, 1, 1;\n}"
                 : THIRTY_TWO(ADDED, d, 0), "+f"(e[0]), "+f"(e[1]), "+f"(e[2]), "+f"(e[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
/* d [64,128] (+)= a [64,16] b [16,128], k along the rows of both */
template <bool ADD> __device__ static inline void wgmma(float (&d)[64], uint64_t a, uint64_t b)
{
#define PRODUCT(io, add)                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " #add ", 0;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " LIST64                             \
                 ", %64, %65, p, 1, 1, 0, 0;\n}"                                                             \
                 : THIRTY_TWO(io, d, 0), THIRTY_TWO(io, d, 32)                                               \
                 : "l"(a), "l"(b))
    if (ADD)
        PRODUCT(ADDED, 1);
    else
        PRODUCT(WRITTEN, 0);
#undef PRODUCT
}

/* d [64,128] (+)= a [64,16] b [16,128]: a from registers */
template <bool ADD, bool TRANS_B>
__device__ static inline void wgmma(float (&d)[64], const unsigned *a, uint64_t b)
{
#define PRODUCT(io, add)                                                                                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " #add ", 0;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " LIST64                             \
                 ", {%64, %65, %66, %67}, %68, p, 1, 1, %69;\n}"                                             \
                 : THIRTY_TWO(io, d, 0), THIRTY_TWO(io, d, 32)                                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"((int)TRANS_B))
    if (ADD)
        PRODUCT(ADDED, 1);
    else
        PRODUCT(WRITTEN, 0);
#undef PRODUCT
}

/* Four matrices of 8 x 8 to shared memory, the reverse of ldmatrix_x4. */
__device__ static inline void stmatrix_x4(void *at, const unsigned *r)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(at)),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
#endif

#endif
