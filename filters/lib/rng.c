#include "filters/lib/rng.h"

#include <string.h>

#include "formats/hash.h"
#include "kernels/philox.h"

/* The position is the counter's upper half as it is: draws of one (seed, key, purpose) can never overlap. */
struct rng rng_make(uint64_t seed, const char *key, const char *purpose, uint64_t position)
{
    uint64_t h = hash64(hash64(seed, key, strlen(key)), purpose, strlen(purpose));
    return (struct rng){.key = {(uint32_t)h, (uint32_t)(h >> 32)}, .stream = position};
}

void rng_words(const struct rng *r, uint64_t block, uint32_t words[4])
{
    philox_words(words, r->key[0], r->key[1], r->stream, block);
}

/* The two 64-bit numbers of a block. */
static void block_pair(const struct rng *r, uint64_t block, uint64_t pair[2])
{
    uint32_t w[4];
    rng_words(r, block, w);
    pair[0] = (uint64_t)w[1] << 32 | w[0];
    pair[1] = (uint64_t)w[3] << 32 | w[2];
}

double rng_uniform(const struct rng *r, uint64_t i)
{
    uint64_t pair[2];
    block_pair(r, i / 2, pair);
    return (double)(pair[i % 2] >> 11) * 0x1p-53;
}

uint64_t rng_below(const struct rng *r, uint64_t i, uint64_t n)
{
    uint64_t pair[2];
    block_pair(r, i / 2, pair);
    return (uint64_t)((unsigned __int128)pair[i % 2] * n >> 64);
}

void rng_normal(const struct rng *r, float *out, size_t n)
{
    const size_t tile = 4096;
#pragma omp parallel for schedule(static) if (n > 4 * tile)
    for (size_t i = 0; i < n; i += tile)
        philox_fill(out + i, r->key, r->stream, i, n - i < tile ? n - i : tile);
}
