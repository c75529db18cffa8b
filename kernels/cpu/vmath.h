/* vmath - exp and the activations built on it, written so that the compiler turns a loop over them into
 * vector code.
 *
 * HOT has gcc compile a function a second time for AVX2 and pick at load (clang 14's version of that does not
 * link, and sanitizers start after it would run). Both do the same IEEE operations in the same order (no
 * fused multiply-add: the build says -ffp-contract=off), so they give the same bits. */
#ifndef KERNELS_CPU_VMATH_H
#define KERNELS_CPU_VMATH_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&    \
    !defined(__SANITIZE_THREAD__)
#define HOT __attribute__((target_clones("avx2", "default")))
#else
#define HOT
#endif

static inline int32_t vbits(float f)
{
    int32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float vfloat(int32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* 2^n for -126 <= n <= 127 */
static inline float vpow2(int32_t n)
{
    return vfloat((int32_t)((uint32_t)(n + 127) << 23));
}

/* x within [-105, 105], NaN as it is. In integers: a comparison of floats may trap, so it stays a branch,
 * which keeps a loop out of vectors. */
static inline float vclamp(float x)
{
    const int32_t limit = 0x42d20000, infinity = 0x7f800000; /* 105 */
    int32_t bits = vbits(x), size = bits & INT32_MAX;
    int32_t clamped = size > limit ? limit : size;
    clamped = size > infinity ? size : clamped;
    return vfloat(clamped | (bits & INT32_MIN));
}

/* e^x to 1 ulp where the result is normal; overflows to infinity, underflows to 0, NaN stays NaN.
 * x = n ln 2 + r, |r| <= ln 2 / 2; e^r = 1 + r + r² q(r), q the Chebyshev fit of degree 4 (error 1e-9 of
 * e^r). */
static inline float vexp(float x)
{
    const float round = 0x1.8p23f; /* adding and subtracting it rounds to an integer */
    x = vclamp(x);
    float shifted = x * 1.44269504f + round;
    float n = shifted - round;
    float r = (x - n * 0x1.63p-1f) + n * 2.12194440e-4f; /* ln 2 in two parts: n times the first is exact */
    float q = 1.392625083e-3f;
    q = q * r + 8.363232884e-3f;
    q = q * r + 4.166655421e-2f;
    q = q * r + 1.666657667e-1f;
    q = q * r + 0.5f;
    float e = (q * (r * r) + r) + 1.0f;
    int32_t i = (int32_t)((uint32_t)vbits(shifted) << 9) >> 9; /* n again, out of the sum's low bits */
    int32_t half = i >> 1; /* 2^n in two steps, so that results near the ends of the range round right */
    return e * vpow2(half) * vpow2(i - half);
}

static inline float vsilu(float x)
{
    return x / (1.0f + vexp(-x));
}

static inline float vquick_gelu(float x)
{
    return x / (1.0f + vexp(-1.702f * x));
}

/* u/2 (1 + tanh t) = u / (1 + e^-2t), t = √(2/π) (u + 0.044715 u³): exact to a few ulp also where tanh t is
 * near -1. */
static inline float vgelu(float u)
{
    return u / (1.0f + vexp(-1.59576912f * (u + 0.044715f * (u * u * u))));
}

/* d/du vgelu = s + u s (1-s) 2t', s = 1 / (1 + e), e = e^-2t; s (1-s) = 1 / (2 + e + 1/e) cancels nothing. */
static inline float vgelu_slope(float u)
{
    float e = vexp(-1.59576912f * (u + 0.044715f * (u * u * u)));
    return 1.0f / (1.0f + e) + u / (2.0f + e + 1.0f / e) * (1.59576912f * (1.0f + 0.134145f * (u * u)));
}

#endif
