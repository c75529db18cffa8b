/* activations - the forms of kernels/cpu/vmath.h on the device: no cancellation where they are near 0. The
 * fast exponential and quotient are good to a few units of the last place of what is added to 1. */
#ifndef KERNELS_CUDA_ACTIVATIONS_H
#define KERNELS_CUDA_ACTIVATIONS_H

/* u/2 (1 + tanh t) = u / (1 + e^-2t), t = √(2/π) (u + 0.044715 u³): this is e^-2t. */
__device__ static inline float gelu_exponential(float u)
{
    return __expf(-1.59576912f * (u + 0.044715f * (u * u * u)));
}

__device__ static inline float gelu(float u)
{
    return __fdividef(u, 1 + gelu_exponential(u));
}

/* s + u s (1-s) 2t', s = 1 / (1 + e); s (1-s) = 1 / (2 + e + 1/e) */
__device__ static inline float gelu_slope(float u)
{
    const float e = gelu_exponential(u);
    return __fdividef(1, 1 + e) + u / (2 + e + 1 / e) * (1.59576912f * (1 + 0.134145f * (u * u)));
}

/* The same for map_all() of map.h. */
struct gelu_of {
    __device__ float operator()(float u, float) const { return gelu(u); }
};
struct times_gelu_slope {
    __device__ float operator()(float d, float u) const { return d * gelu_slope(u); }
};

__device__ static inline float silu(float u)
{
    return __fdividef(u, 1 + __expf(-u));
}

__device__ static inline float quick_gelu(float u)
{
    return __fdividef(u, 1 + __expf(-1.702f * u));
}

#endif
