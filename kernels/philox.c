#include "kernels/philox.h"

#include "kernels/cpu/vmath.h"

HOT static void whole_blocks(float *z, uint32_t key0, uint32_t key1, uint64_t stream, uint64_t block,
                             size_t n)
{
    for (size_t i = 0; i < n; i++) philox_normals(z + 2 * i, key0, key1, stream, block + i);
}

void philox_fill(float *z, const uint32_t key[2], uint64_t stream, uint64_t first, size_t n)
{
    float pair[2];
    if (n && first % 2) {
        philox_normals(pair, key[0], key[1], stream, first++ / 2);
        *z++ = pair[1];
        n--;
    }
    whole_blocks(z, key[0], key[1], stream, first / 2, n / 2);
    if (n % 2) {
        philox_normals(pair, key[0], key[1], stream, first / 2 + n / 2);
        z[n - 1] = pair[0];
    }
}
