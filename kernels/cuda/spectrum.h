/* spectrum - transforms between planes [H,W] of floats and their half spectra [H,F], F = W/2 + 1:
 *   x[u,f] = Σ_h Σ_w in[h,w] e^(-2πi (u h / H + f w / W))
 * and its adjoint, complex over h and then real over w, so that of columns 0 and W/2 it sees the real part
 * only: out[h,w] = Re Σ_f Σ_u x[u,f] e^(2πi (u h / H + f w / W)). `weighted` multiplies each column f by
 * (f is 0 or W/2 ? 1 : 2) / (H W), which makes the second the inverse of the first.
 *
 * The grid of CogVideoX's 480 x 720 videos, 30 x 45, has a kernel of its own; others are cuFFT's plans in one
 * dimension: one in two dimensions would take columns 0 and W/2 to have a symmetry that they lack here. */
#ifndef KERNELS_CUDA_SPECTRUM_H
#define KERNELS_CUDA_SPECTRUM_H

#include "kernels/cuda/cuda.h"

/* Element x of row h of plane p. */
template <typename E> struct stack {
    E *at;
    int64_t plane, row;
    __device__ E &operator()(int64_t p, int64_t h, int64_t x) const { return at[p * plane + h * row + x]; }
};

struct cuda_spectrum {
    struct kern *k;
    int H, W, F;
    int64_t count;                      /* planes */
    const struct spectrum_plans *plans; /* of cuFFT; NULL for the kernel of its own */
    void *work;
};

/* For `count` planes of rows x cols; takes scratch, also while planning. false with kern_fail(). */
bool cuda_spectrum_make(struct kern *k, struct cuda_spectrum *s, int64_t rows, int64_t cols, int64_t count);
/* Scratch for the planes, and for their spectra, in the order that the transforms want. */
stack<float> cuda_spectrum_space(const struct cuda_spectrum *s);
stack<float2> cuda_spectrum_frequencies(const struct cuda_spectrum *s);

void cuda_to_spectrum(const struct cuda_spectrum *s, stack<float2> x, stack<float> in, bool weighted);
/* Writes over x. */
void cuda_from_spectrum(const struct cuda_spectrum *s, stack<float> out, stack<float2> x, bool weighted);

#endif
