/* The CUDA device: memory, copies and the table of operations. Opened at run time by kernels/device.c under
 * the name cuda_backend. */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING = 32 << 20, WORKSPACE = 64 << 20, SUMS = 16 };

bool cuda_good(struct kern *k, const char *what, cudaError_t e)
{
    if (e == cudaSuccess) return true;
    kern_fail(k, "%s: %s on %s", !strncmp(what, "cuda_", 5) ? what + 5 : what, cudaGetErrorString(e),
              k->device);
    return false;
}

bool cublas_good(struct kern *k, const char *what, cublasStatus_t e)
{
    if (e == CUBLAS_STATUS_SUCCESS) return true;
    kern_fail(k, "%s: %s on %s", !strncmp(what, "cuda_", 5) ? what + 5 : what, cublasLtGetStatusString(e),
              k->device);
    return false;
}

int cuda_shared_limit(struct kern *k)
{
    const char *given = getenv("SLUICE_SHARED_LIMIT");
    int limit = 0;
    cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda_of(k)->index);
    const int lower = given ? atoi(given) : 0;
    return lower > 0 && lower < limit ? lower : limit;
}

bool cuda_allow_shared(struct kern *k, const char *what, const void *kernel, size_t bytes)
{
    const int limit = cuda_shared_limit(k);
    if (bytes > (size_t)limit) {
        kern_fail(k, "%s needs %zu bytes of shared memory; a block on %s has %d", what, bytes, k->device,
                  limit);
        return false;
    }
    return cuda_good(k, what,
                     cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

static void cuda_close(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    if (!c) return;
    if (c->stream) cudaStreamSynchronize(c->stream);
    cuda_products_close(c);
    cuda_convolutions_close(c);
    cuda_attentions_close(c);
    cuda_spectra_close(c);
    cuda_cudnn_close(c);
    if (c->blas) cublasLtDestroy(c->blas);
    cudaFree(c->workspace);
    cudaFree(c->filler);
    cudaFreeHost(c->staging);
    for (int i = 0; i < PIECES; i++)
        if (c->sent[i]) cudaEventDestroy(c->sent[i]);
    cudaFreeHost(c->sums);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c);
    k->state = NULL;
}

static bool is_there(struct kern *k, int index)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaErrorInsufficientDriver)
        kern_fail(k, "no CUDA driver, or one older than this build needs");
    else if (e == cudaErrorNoDevice || (e == cudaSuccess && count == 0))
        kern_fail(k, "no CUDA device");
    else if (e != cudaSuccess)
        kern_fail(k, "CUDA: %s", cudaGetErrorString(e));
    else if (index >= count)
        kern_fail(k, "no device cuda:%d; there %s %d", index, count == 1 ? "is" : "are", count);
    return kern_ok(k);
}

/* Stands for all kernels when it is asked what they were compiled for. */
__global__ static void any_kernel() {}

static bool can_run(struct kern *k, const struct cudaDeviceProp *p)
{
    if (p->major >= 8) return true;
    kern_fail(k, "%s is a %s of compute capability %d.%d; 8.0 or more is needed", k->device, p->name,
              p->major, p->minor);
    return false;
}

/* Which of the codes in this object the driver takes for this card. */
static bool find_code(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    struct cudaFuncAttributes a;
    const cudaError_t e = cudaFuncGetAttributes(&a, any_kernel);
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion) {
        kern_fail(
            k, "%s is a %s of compute capability %d.%d, for which sluice-cuda.so was not built (CUDA_ARCHS)",
            k->device, c->card, c->capability / 10, c->capability % 10);
        return false;
    }
    if (!cuda_good(k, k->device, e)) return false;
    c->code = a.ptxVersion;
    c->compiled_here = a.binaryVersion > a.ptxVersion;
    if (c->capability / 10 == 9 && c->code < 90)
        kern_note(
            k,
            "this build has no code for compute capability 9.0 (CUDA_ARCHS): attention goes without Hopper's own "
            "instructions, at little more than half the speed");
    return true;
}

/* Takes what the card has more than k->limit, so that libraries cannot have it either. */
static bool keep_limit(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    size_t left, all;
    if (!k->limit) return true;
    if (!cuda_good(k, "SLUICE_MEMORY", cudaMemGetInfo(&left, &all))) return false;
    const size_t beyond = k->limit < all ? all - k->limit : 0, fill = beyond < left ? beyond : left;
    return !fill || cuda_good(k, "SLUICE_MEMORY", cudaMalloc(&c->filler, fill));
}

static bool make_events(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    for (int i = 0; i < PIECES; i++)
        if (!cuda_good(k, k->device, cudaEventCreateWithFlags(&c->sent[i], cudaEventDisableTiming)))
            return false;
    return true;
}

static bool cuda_open(struct kern *k, int index)
{
    struct cudaDeviceProp p;
    struct cuda *c;
    if (!is_there(k, index)) return false;
    snprintf(k->device, sizeof k->device, "cuda:%d", index);
    if (!cuda_good(k, k->device, cudaGetDeviceProperties(&p, index)) || !can_run(k, &p)) return false;
    k->state = c = (struct cuda *)calloc(1, sizeof *c);
    if (!c) {
        kern_fail(k, "out of memory");
        return false;
    }
    c->index = index;
    if (cudaDeviceGetPCIBusId(k->card, sizeof k->card, index) != cudaSuccess) k->card[0] = 0;
    c->candidate = -1;
    c->processors = p.multiProcessorCount;
    c->capability = p.major * 10 + p.minor;
    const char *as = getenv("SLUICE_CARD");
    snprintf(c->card, sizeof c->card, "%s", as && *as ? as : p.name);
    c->staging_size = STAGING;
    c->workspace_size = WORKSPACE;
    if (cuda_good(k, k->device, cudaSetDevice(index)) && find_code(k) && keep_limit(k) &&
        cuda_good(k, k->device, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking)) &&
        cuda_good(k, k->device, cudaMalloc(&c->workspace, WORKSPACE)) &&
        cuda_good(k, k->device, cudaMallocHost((void **)&c->staging, STAGING)) &&
        cuda_good(k, k->device, cudaMallocHost((void **)&c->sums, SUMS * sizeof *c->sums)) &&
        make_events(k) && cublas_good(k, k->device, cublasLtCreate(&c->blas)))
        return true;
    cuda_close(k);
    return false;
}

static void *cuda_alloc(struct kern *k, size_t bytes)
{
    void *p = NULL;
    if (cudaMalloc(&p, bytes) != cudaSuccess) {
        cudaGetLastError(); /* the caller tells it, with the numbers; it must not stick */
        return NULL;
    }
    if (cuda_good(k, "alloc", cudaMemsetAsync(p, 0, bytes, stream_of(k)))) return p;
    cudaFree(p);
    return NULL;
}

static void cuda_free(struct kern *k, void *p)
{
    cudaStreamSynchronize(stream_of(k));
    cudaFree(p);
}

static size_t cuda_available(struct kern *k)
{
    size_t available = 0, all;
    cuda_good(k, "available", cudaMemGetInfo(&available, &all));
    return available;
}

static void *cuda_host_alloc(struct kern *k, size_t bytes)
{
    void *p = NULL;
    (void)k;
    if (cudaMallocHost(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError(); /* as above */
    return NULL;
}

static void cuda_host_free(struct kern *k, void *p)
{
    (void)k;
    cudaFreeHost(p);
}

static void cuda_send(struct kern *k, struct tensor *dst, const struct tensor *host)
{
    cuda_good(
        k, "send",
        cudaMemcpyAsync(dst->data, host->data, tensor_bytes(host), cudaMemcpyHostToDevice, stream_of(k)));
}

/* Piece by piece through pinned memory, converted on the host; a piece is filled while the one before it is
 * on its way. */
static void cuda_upload(struct kern *k, struct tensor *dst, const struct tensor *host)
{
    struct cuda *c = cuda_of(k);
    const size_t from = dtype_size(host->dtype), to = dtype_size(dst->dtype);
    const int64_t n = tensor_count(dst), step = (int64_t)(c->staging_size / PIECES / to);
    for (int64_t i = 0; i < n; i += step) {
        const int p = c->piece = (c->piece + 1) % PIECES;
        const int64_t count[] = {1, n - i < step ? n - i : step};
        struct tensor src = tensor_make(host->dtype, (char *)host->data + (size_t)i * from, count);
        struct tensor piece = tensor_make(dst->dtype, c->staging + p * (c->staging_size / PIECES), count);
        if (!cuda_good(k, "upload", cudaEventSynchronize(c->sent[p]))) return;
        tensor_convert(&piece, &src);
        if (!cuda_good(k, "upload",
                       cudaMemcpyAsync((char *)dst->data + (size_t)i * to, piece.data, (size_t)count[1] * to,
                                       cudaMemcpyHostToDevice, c->stream)) ||
            !cuda_good(k, "upload", cudaEventRecord(c->sent[p], c->stream)))
            return;
    }
}

static bool gpu_writes(const void *host)
{
    cudaPointerAttributes a;
    return !cudaPointerGetAttributes(&a, host) && a.type == cudaMemoryTypeHost;
}

/* Likewise; a piece is converted while the one after it is on its way. At once to memory of kern_host_alloc(). */
static void cuda_download(struct kern *k, struct tensor *host, const struct tensor *src)
{
    struct cuda *c = cuda_of(k);
    const size_t from = dtype_size(src->dtype), to = dtype_size(host->dtype),
                 space = c->staging_size / PIECES;
    const int64_t n = tensor_count(src), step = (int64_t)(space / from), pieces = ceil_div(n, step);
    if (src->dtype == host->dtype && gpu_writes(host->data)) {
        if (cuda_good(
                k, "download",
                cudaMemcpyAsync(host->data, src->data, (size_t)n * from, cudaMemcpyDeviceToHost, c->stream)))
            cuda_good(k, "download", cudaStreamSynchronize(c->stream));
        return;
    }
    const auto count = [&](int64_t i) { return n - i * step < step ? n - i * step : step; };
    for (int64_t i = 0; i <= pieces; i++) {
        const int64_t last = i - 1, shape[] = {1, i ? count(last) : 0};
        if (i < pieces &&
            (!cuda_good(k, "download",
                        cudaMemcpyAsync(c->staging + i % PIECES * space,
                                        (char *)src->data + (size_t)(i * step) * from,
                                        (size_t)count(i) * from, cudaMemcpyDeviceToHost, c->stream)) ||
             !cuda_good(k, "download", cudaEventRecord(c->sent[i % PIECES], c->stream))))
            return;
        if (i == 0) continue;
        if (!cuda_good(k, "download", cudaEventSynchronize(c->sent[last % PIECES]))) return;
        struct tensor piece = tensor_make(src->dtype, c->staging + last % PIECES * space, shape);
        struct tensor dst = tensor_make(host->dtype, (char *)host->data + (size_t)(last * step) * to, shape);
        tensor_convert(&dst, &piece);
    }
}

template <typename To, typename From> __global__ static void convert(To *to, const From *from, int64_t n)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        to[i] = from_float<To>(to_float(from[i]));
}

static void cuda_copy(struct kern *k, struct tensor *dst, const struct tensor *src)
{
    const int64_t n = tensor_count(src);
    const unsigned blocks = (unsigned)(ceil_div(n, 1024) < 4096 ? ceil_div(n, 1024) : 4096);
    if (dst->dtype == src->dtype) {
        cuda_good(
            k, "copy",
            cudaMemcpyAsync(dst->data, src->data, tensor_bytes(src), cudaMemcpyDeviceToDevice, stream_of(k)));
    } else if (dst->dtype == DT_BF16 && src->dtype == DT_F32) {
        convert<<<blocks, 256, 0, stream_of(k)>>>((bf16 *)dst->data, (const float *)src->data, n);
        cuda_good(k, "copy", cudaGetLastError());
    } else if (dst->dtype == DT_F32 && src->dtype == DT_BF16) {
        convert<<<blocks, 256, 0, stream_of(k)>>>((float *)dst->data, (const bf16 *)src->data, n);
        cuda_good(k, "copy", cudaGetLastError());
    } else {
        kern_fail(k, "copy: %s to %s is not for %s", dtype_name(src->dtype), dtype_name(dst->dtype),
                  k->device);
    }
}

static void cuda_zero(struct kern *k, struct tensor *t)
{
    if (t->data) cuda_good(k, "zero", cudaMemsetAsync(t->data, 0, tensor_bytes(t), stream_of(k)));
}

static void cuda_wait(struct kern *k)
{
    cuda_good(k, "wait", cudaStreamSynchronize(stream_of(k)));
}

static size_t add_version(char *text, size_t size, size_t at, const char *library, size_t version,
                          size_t major, size_t minor)
{
    if (version && at < size)
        at += (size_t)snprintf(text + at, size - at, ", %s %zu.%zu.%zu", library, version / major,
                               version % major / minor, version % minor);
    return at;
}

static void cuda_basis(struct kern *k, char *text, size_t size)
{
    struct cuda *c = cuda_of(k);
    int driver = 0;
    size_t at = (size_t)snprintf(text, size, "%s, compute capability %d.%d, code for %d.%d", c->card,
                                 c->capability / 10, c->capability % 10, c->code / 10, c->code % 10);
    if (c->compiled_here && !cudaDriverGetVersion(&driver))
        at = add_version(text, size, at, "by driver", (size_t)driver * 10, 10000, 100);
    at = add_version(text, size, at, "cuBLASLt", cublasLtGetVersion(), 10000, 100);
    at = add_version(text, size, at, "cuDNN", cuda_cudnn_version(c), 10000, 100);
    at = add_version(text, size, at, "cuFFT", cuda_cufft_version(), 1000, 100);
    if (at < size) cuda_attention_ways(k, text + at, size - at);
}

#define EXPORTED extern "C" __attribute__((visibility("default")))

/* For tests: lets operations work on the host's own memory. */
EXPORTED bool cuda_test_register(void *memory, size_t bytes)
{
    return cudaHostRegister(memory, bytes, cudaHostRegisterMapped) == cudaSuccess;
}

/* For tests/cards --measure: plans made from here on take the n'th answer of cuBLASLt's or cuDNN's heuristics, and
 * fail where there are fewer. Returns where the numbers of the last one taken are written. */
EXPORTED const char *cuda_test_candidate(struct kern *k, int n)
{
    cuda_of(k)->candidate = n;
    *cuda_of(k)->chosen = 0;
    return cuda_of(k)->chosen;
}

static struct backend table(void)
{
    struct backend b = {};
    b.operations = kernel_operations;
    b.name = "cuda";
    b.bf16 = true;
    b.open = cuda_open;
    b.close = cuda_close;
    b.alloc = cuda_alloc;
    b.free = cuda_free;
    b.available = cuda_available;
    b.host_alloc = cuda_host_alloc;
    b.host_free = cuda_host_free;
    b.upload = cuda_upload;
    b.send = cuda_send;
    b.download = cuda_download;
    b.copy = cuda_copy;
    b.zero = cuda_zero;
    b.can_fp8 = cuda_can_fp8;
    b.wait = cuda_wait;
    b.basis = cuda_basis;
    b.kernels =
        2; /* 1: Hopper's attention, both passes; thin.cu. 2: queries multiplied by attention_times() */
#define OP(name) b.name = cuda_##name;
    KERNEL_OPS(OP)
#undef OP
    return b;
}

EXPORTED const struct backend cuda_backend = table();
