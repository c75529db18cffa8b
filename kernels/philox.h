/* philox - random numbers by counter, the same bits on every device.
 *
 * Philox4x32-10 (Salmon et al. 2011) and Box-Muller in double. Logarithm, sine and cosine are written out in
 * operations that IEEE 754 rounds in one way only (+ - * / and the square root; whoever compiles this must
 * not fuse a multiplication with an addition), so that neither a C library's nor a GPU's own shows in any
 * bit. They have no branches: a compiler turns a loop over them into vector code. */
#ifndef KERNELS_PHILOX_H
#define KERNELS_PHILOX_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define PHILOX static __host__ __device__ __forceinline__
#else
#define PHILOX static inline __attribute__((always_inline))
#endif

PHILOX void philox_words(uint32_t words[4], uint32_t key0, uint32_t key1, uint64_t stream, uint64_t block)
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (uint32_t round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * c0, b = (uint64_t)0xCD9E8D57 * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ (key0 + round * 0x9E3779B9);
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ (key1 + round * 0xBB67AE85);
        c3 = (uint32_t)a;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

PHILOX double philox_double(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* n within ±2^51, exact; what processors without such an instruction do in vectors, too */
PHILOX double philox_from_int(int64_t n)
{
    return philox_double((uint64_t)n + 0x4338000000000000) - 0x1.8p52;
}

/* log(n / 2^53) for 1 <= n <= 2^53, within a unit in the last place: n = 2^k (1 + f), 1 + f within √½ .. √2,
 * and log(1 + f) by its series in s = f / (2 + f) (as in Sun's fdlibm) */
PHILOX double philox_log(uint64_t n)
{
    const double x = (philox_double(0x4530000000000000 | n >> 32) - 0x1.00000001p84) +
                     philox_double(0x4330000000000000 | (uint32_t)n);
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += (uint64_t)(0x3ff00000 - 0x3fe6a09e) << 32;
    const double k = philox_from_int((int64_t)(bits >> 52) - 1023 - 53);
    const double f = philox_double((bits & 0xfffffffffffff) + ((uint64_t)0x3fe6a09e << 32)) - 1;
    const double s = f / (2 + f), z = s * s, half = 0.5 * f * f;
    const double series =
        z * (6.666666666666735130e-01 +
             z * (3.999999999940941908e-01 +
                  z * (2.857142874366239149e-01 +
                       z * (2.222219843214978396e-01 +
                            z * (1.818357216161805012e-01 +
                                 z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01))))));
    return k * 6.93147180369123816490e-01 -
           ((half - (s * (half + series) + k * 1.90821492927058770002e-10)) - f);
}

/* cos and sin of 2π n / 2^53 for 0 <= n < 2^53: the nearest quarter turn is taken off exactly, and the series
 * are good to π/4 (as in fdlibm) */
PHILOX void philox_turn(double *cosine, double *sine, uint64_t n)
{
    const uint64_t quarter = (n + (1ull << 50)) >> 51;
    const double a = 6.283185307179586477 * (0x1p-53 * philox_from_int((int64_t)(n - (quarter << 51))));
    const double z = a * a, half = 0.5 * z, w = 1 - half;
    const double s =
        a + z * a *
                (-1.66666666666666324348e-01 +
                 z * (8.33333333332248946124e-03 +
                      z * (-1.98412698298579493134e-04 +
                           z * (2.75573137070700676789e-06 +
                                z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
    const double c =
        w +
        (((1 - w) - half) +
         z * (z * (4.16666666666666019037e-02 +
                   z * (-1.38888888888741095749e-03 +
                        z * (2.48015872894767294178e-05 +
                             z * (-2.75573143513906633035e-07 +
                                  z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)))))));
    const double one = quarter & 1 ? s : c, other = quarter & 1 ? c : s;
    *cosine = (quarter + 1) & 2 ? -one : one;
    *sine = quarter & 2 ? -other : other;
}

/* The two standard normals of a block. */
PHILOX void philox_normals(float z[2], uint32_t key0, uint32_t key1, uint64_t stream, uint64_t block)
{
    uint32_t w[4];
    double cosine, sine;
    philox_words(w, key0, key1, stream, block);
    const uint64_t a = (uint64_t)w[1] << 32 | w[0], b = (uint64_t)w[3] << 32 | w[2];
    const double radius = sqrt(-2 * philox_log((a >> 11) + 1)); /* of a number in (0, 1]: it is finite */
    philox_turn(&cosine, &sine, b >> 11);
    z[0] = (float)(radius * cosine);
    z[1] = (float)(radius * sine);
}

#ifndef __CUDACC__
/* n normals from number `first` on, two a block */
void philox_fill(float *z, const uint32_t key[2], uint64_t stream, uint64_t first, size_t n);
#endif

#endif
