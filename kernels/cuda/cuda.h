/* cuda - what the CUDA backend's files share.
 *
 * Each operation of kernels.h is a function cuda_NAME here, which launches on the device's one stream and
 * waits for nothing: scratch memory may be given back at once, since what uses it next runs later on the same
 * stream. Only downloads, and operations whose result the host sees, wait. Shapes and dtypes have been checked
 * by the shared entries in kernels/kernels.c; those that take scratch return when it has no data (planning).
 *
 * Deterministic: reductions have a fixed order, there are no float atomics. Sums are in F32 or better. */
#ifndef KERNELS_CUDA_CUDA_H
#define KERNELS_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <string.h>

extern "C" {
#include "kernels/backend.h"
}

#define OP(name) extern "C" __typeof__(name) cuda_##name;
KERNEL_OPS(OP)
#undef OP

struct matmul_plans;
struct cuda_spectra;
struct cudnn;
struct cudnn_graph;

enum { PIECES = 4 };

/* Machine code for plain 9.0 would leave Hopper's kernels without a body, and be taken before any other. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "compute capability 9.0 is compiled for as 90a"
#endif

struct cuda {
    int index, processors; /* multiprocessors of the device */
    char card[256];        /* its name, or $SLUICE_CARD for tests; tables of what was measured go by it */
    int capability;        /* compute capability, times ten: 90 */
    int code;           /* the one that the kernels at hand were compiled for; less where that was PTX, and */
    bool compiled_here; /* the driver went on from there */
    int candidate;      /* for tests: which of a library's answers is taken; -1: the one that is to be */
    char chosen[200];   /* and what that was, as a row of the tables has it */
    void *filler;       /* memory beyond $SLUICE_MEMORY, which nobody else gets; see kern_open() */
    cudaStream_t stream;
    cublasLtHandle_t blas;
    struct matmul_plans *products;    /* products.cu: algorithms by shape */
    struct cudnn *cudnn;              /* cudnn.cu: NULL until it is needed */
    struct cudnn_graph *convolutions; /* conv.cu: plans by shape */
    struct cudnn_graph *attentions;   /* attention_cudnn.cu: plans by shape */
    struct cuda_spectra *spectra;     /* spectrum.cu: tables and plans by shape */
    void *workspace;                  /* for cuBLASLt and cuDNN, one call at a time */
    size_t workspace_size;
    char *staging; /* pinned: values on their way between host and device, in PIECES */
    size_t staging_size;
    int piece; /* the last one sent */
    cudaEvent_t sent[PIECES];
    double *sums; /* pinned: results that the host sees */
};

static inline struct cuda *cuda_of(struct kern *k)
{
    return (struct cuda *)k->state;
}

static inline bool cuda_card_is(const struct cuda *c, const char *name)
{
    return !strcmp(c->card, name);
}

static inline cudaStream_t stream_of(struct kern *k)
{
    return cuda_of(k)->stream;
}

/* Records a failure under the operation's name; false when there was one. */
bool cuda_good(struct kern *k, const char *what, cudaError_t e);
bool cublas_good(struct kern *k, const char *what, cublasStatus_t e);

/* After a launch: CUDA_LAUNCHED(k) */
#define CUDA_LAUNCHED(k) cuda_good(k, __func__, cudaGetLastError())

/* Scratch of `count` elements for one operation; NULL while planning or when there is no room. */
static inline void *cuda_scratch(struct kern *k, enum dtype d, int64_t count)
{
    const int64_t shape[] = {1, count};
    return kern_tensor_shape(k, d, shape).data;
}

/* Shared memory that a block may have on this card; SLUICE_SHARED_LIMIT lowers it, to try on a large card what
 * a small one gets: 101376 bytes on 8.6, 8.9 and 12.0, 166912 on 8.0. */
int cuda_shared_limit(struct kern *k);

/* Lets `kernel`, of an operation that is called so, have so many bytes of dynamic shared memory; false after a failure. */
bool cuda_allow_shared(struct kern *k, const char *what, const void *kernel, size_t bytes);

/* For kern_basis(): versions as the libraries count them, 0 where there is none; ways behind a comma. */
size_t cuda_cudnn_version(struct cuda *c);
size_t cuda_cufft_version(void);
void cuda_attention_ways(struct kern *k, char *text, size_t size);

/* products.cu: see backend.h */
bool cuda_can_fp8(struct kern *k);

/* Freed with the device; these belong to the files that make them. */
void cuda_products_close(struct cuda *c);
void cuda_cudnn_close(struct cuda *c); /* after the plans made with it */
void cuda_convolutions_close(struct cuda *c);
void cuda_spectra_close(struct cuda *c);
void cuda_attentions_close(struct cuda *c);

/* ---- values ----------------------------------------------------------------------------------------- */

typedef __nv_bfloat16 bf16;

__device__ static inline float to_float(float x)
{
    return x;
}
__device__ static inline float to_float(bf16 x)
{
    return __bfloat162float(x);
}
template <typename T> __device__ static inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x)
{
    return x;
}
template <> __device__ inline bf16 from_float<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* 16 bytes of T at once: pack<bf16> holds eight, pack<float> four. Pointers are 16-byte aligned. They go through
 * words, since the compiler would store a struct's values one by one. */
template <typename T> struct alignas(16) pack {
    enum { N = 16 / sizeof(T) };
    T v[N];
};
template <typename T> __device__ static inline pack<T> load_pack(const T *p)
{
    const uint4 words = *reinterpret_cast<const uint4 *>(p);
    pack<T> v;
    memcpy(&v, &words, sizeof v);
    return v;
}
template <typename T> __device__ static inline void store_pack(T *p, const pack<T> &v)
{
    uint4 words;
    memcpy(&words, &v, sizeof v);
    __stwb(reinterpret_cast<uint4 *>(p), words);
}

/* Σ over a warp, over a block of up to 1024 threads; every thread gets the sum. `shared` has 32 floats. */
__device__ static inline float warp_sum(float x)
{
    for (int n = 16; n; n /= 2) x += __shfl_xor_sync(0xffffffff, x, n);
    return x;
}
__device__ static inline float block_sum(float x, float *shared)
{
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < (blockDim.x + 31) / 32 ? shared[threadIdx.x % 32] : 0;
    return warp_sum(x);
}

/* CALL_BY_DTYPE(t->dtype, T, kernel<T><<<grid, block, 0, stream_of(k)>>>(...)) */
#define CALL_BY_DTYPE(dtype, T, ...)                                                                         \
    do {                                                                                                     \
        if ((dtype) == DT_BF16) {                                                                            \
            typedef bf16 T;                                                                                  \
            __VA_ARGS__;                                                                                     \
        } else {                                                                                             \
            typedef float T;                                                                                 \
            __VA_ARGS__;                                                                                     \
        }                                                                                                    \
    } while (0)

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
