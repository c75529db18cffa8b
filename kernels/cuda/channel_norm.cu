/* Norms over the channels of a pixel. As many lanes of a warp as 16 bytes of channels each fill, a power of two, have a
 * pixel. */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/image.h"

template <int N> __device__ static float squares(const float u[N])
{
    float sum = 0;
    for (int j = 0; j < N; j++) sum += u[j] * u[j];
    return sum;
}

/* Of a pixel, from each of its lanes' sum of squares. */
__device__ static float scale_of(float sum, int C, int lanes)
{
    for (int n = lanes / 2; n; n /= 2) sum += __shfl_xor_sync(0xffffffff, sum, n);
    return sqrtf((float)C) / fmaxf(sqrtf(sum), 1e-12f);
}

template <int N> __device__ static void scaled(float u[N], const float by[N], float scale, bool silus)
{
    for (int j = 0; j < N; j++) {
        u[j] *= scale * by[j];
        if (silus) u[j] = silu(u[j]);
    }
}

enum { AT_ONCE = 4 };

/* Where one access a lane holds all channels: AT_ONCE pixels, so that so many reads are on their way. */
template <typename T, int N>
__global__ static void channel_norm_few(T *y, const T *x, const T *w, int64_t pixels, int C, int lanes,
                                        bool silus)
{
    const int c = threadIdx.x % lanes * N, apart = ACROSS / lanes;
    const int64_t first = blockIdx.x * (int64_t)apart * AT_ONCE + threadIdx.x / lanes;
    float u[AT_ONCE][N] = {}, by[N] = {};
    if (c < C) load_floats<N>(by, w + c);
    for (int i = 0; i < AT_ONCE; i++)
        if (c < C && first + i * apart < pixels) load_floats<N>(u[i], x + (first + i * apart) * C + c);
    for (int i = 0; i < AT_ONCE; i++) {
        scaled<N>(u[i], by, scale_of(squares<N>(u[i]), C, lanes), silus);
        if (c < C && first + i * apart < pixels) store<N>(y + (first + i * apart) * C + c, u[i]);
    }
}

/* Any number of channels: a pixel is read twice, the second time from cache. */
template <typename T, int N>
__global__ static void channel_norm(T *y, const T *x, const T *w, int64_t pixels, int C, int lanes,
                                    bool silus)
{
    const int lane = threadIdx.x % lanes;
    const int64_t p = (blockIdx.x * (int64_t)ACROSS + threadIdx.x) / lanes, at = p * C;
    float u[N], by[N], sum = 0;
    for (int c = lane * N; c < C && p < pixels; c += lanes * N) {
        load_floats<N>(u, x + at + c);
        for (int j = 0; j < N; j++) sum += u[j] * u[j];
    }
    const float scale = scale_of(sum, C, lanes);
    for (int c = lane * N; c < C && p < pixels; c += lanes * N) {
        load_floats<N>(u, x + at + c);
        load_floats<N>(by, w + c);
        scaled<N>(u, by, scale, silus);
        store<N>(y + at + c, u);
    }
}

extern "C" void cuda_channel_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                          const struct tensor *w, bool silus)
{
    const int64_t C = x->shape[3], pixels = x->shape[0] * x->shape[1] * x->shape[2];
    if (!pixels || !C || !row_fits(k, "channel_norm_forward", C)) return;
    const bool packed = vectorizable(C, y, x) && aligned(w->data, 16);
    const int64_t accesses = packed ? C * (int64_t)dtype_size(x->dtype) / 16 : C;
    int lanes = 1;
    while (lanes < 32 && lanes < accesses) lanes *= 2;
    const int64_t blocks = ceil_div(pixels * lanes, ACROSS);
#define ARGS (T *)y->data, (const T *)x->data, (const T *)w->data, pixels, (int)C, lanes, silus
    if (accesses <= lanes)
        CALL_VECTORIZED(x->dtype, packed, T, N,
                        channel_norm_few<T, N>
                        <<<(unsigned)ceil_div(blocks, AT_ONCE), ACROSS, 0, stream_of(k)>>>(ARGS));
    else
        CALL_VECTORIZED(x->dtype, packed, T, N,
                        channel_norm<T, N><<<(unsigned)blocks, ACROSS, 0, stream_of(k)>>>(ARGS));
#undef ARGS
    CUDA_LAUNCHED(k);
}
