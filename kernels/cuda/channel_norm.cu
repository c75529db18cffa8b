/* Norms over the channels of a pixel. As many lanes of a warp as 16 bytes of channels each fill, a power of two, have a
 * pixel; it is read twice, the second time from cache. */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/image.h"

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
    for (int n = lanes / 2; n; n /= 2) sum += __shfl_xor_sync(0xffffffff, sum, n);
    const float scale = sqrtf((float)C) / fmaxf(sqrtf(sum), 1e-12f);
    for (int c = lane * N; c < C && p < pixels; c += lanes * N) {
        load_floats<N>(u, x + at + c);
        load_floats<N>(by, w + c);
        for (int j = 0; j < N; j++) {
            u[j] *= scale * by[j];
            if (silus) u[j] = silu(u[j]);
        }
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
    CALL_VECTORIZED(x->dtype, packed, T, N,
                    channel_norm<T, N>
                    <<<(unsigned)ceil_div(pixels * lanes, ACROSS), ACROSS, 0, stream_of(k)>>>(
                        (T *)y->data, (const T *)x->data, (const T *)w->data, pixels, (int)C, lanes, silus));
    CUDA_LAUNCHED(k);
}
