/* Between the host's layouts and values and the network's. */
#include "kernels/cuda/image.h"

/* y [frames, b, a] from x [frames, a, b], times scale. Latents are small, so that reads a pixel apart may
 * stay. */
template <typename To, typename From>
__global__ static void transpose(To *y, const From *x, int64_t n, int64_t a, int64_t b, float scale)
{
    for (int64_t i = grid_index(); i < n; i += grid_stride())
        y[i] = from_float<To>(scale * to_float(x[(i / (a * b) * a + i % a) * b + i / a % b]));
}

void cuda_channels_last(struct kern *k, struct tensor *y, const struct tensor *x, float scale)
{
    const int64_t n = tensor_count(x), C = x->shape[1], pixels = x->shape[2] * x->shape[3];
    if (!n) return;
    CALL_BY_DTYPE(y->dtype, T,
                  transpose<<<blocks_for(n), ACROSS, 0, stream_of(k)>>>((T *)y->data, (const float *)x->data,
                                                                        n, C, pixels, scale));
    CUDA_LAUNCHED(k);
}

void cuda_channels_second(struct kern *k, struct tensor *y, const struct tensor *x, float scale)
{
    const int64_t n = tensor_count(x), C = x->shape[3], pixels = x->shape[1] * x->shape[2];
    if (!n) return;
    CALL_BY_DTYPE(x->dtype, T,
                  transpose<<<blocks_for(n), ACROSS, 0, stream_of(k)>>>((float *)y->data, (const T *)x->data,
                                                                        n, pixels, C, scale));
    CUDA_LAUNCHED(k);
}

template <typename T> __global__ static void to_unit(T *y, const uint8_t *u8, int64_t n)
{
    for (int64_t i = grid_index(); i < n; i += grid_stride())
        y[i] = from_float<T>(__fdiv_rn(u8[i], 127.5f) - 1.0f);
}

/* As the CPU rounds: the product first, then halves to even. NaN becomes 0. */
template <typename T> __global__ static void to_pixels(uint8_t *u8, const T *y, int64_t n)
{
    for (int64_t i = grid_index(); i < n; i += grid_stride()) {
        float u = to_float(y[i]) * 0.5f + 0.5f;
        u = u > 0.0f ? u : 0.0f;
        u = u < 1.0f ? u : 1.0f;
        u8[i] = (uint8_t)__float2int_rn(__fmul_rn(u, 255.0f));
    }
}

void cuda_pixels_to_unit(struct kern *k, struct tensor *y, const struct tensor *u8)
{
    const int64_t n = tensor_count(y);
    if (!n) return;
    CALL_BY_DTYPE(
        y->dtype, T,
        to_unit<<<blocks_for(n), ACROSS, 0, stream_of(k)>>>((T *)y->data, (const uint8_t *)u8->data, n));
    CUDA_LAUNCHED(k);
}

void cuda_unit_to_pixels(struct kern *k, struct tensor *u8, const struct tensor *y)
{
    const int64_t n = tensor_count(y);
    if (!n) return;
    CALL_BY_DTYPE(
        y->dtype, T,
        to_pixels<<<blocks_for(n), ACROSS, 0, stream_of(k)>>>((uint8_t *)u8->data, (const T *)y->data, n));
    CUDA_LAUNCHED(k);
}
