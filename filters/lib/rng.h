/* rng - random numbers that depend on their purpose, never on earlier draws.
 *
 * Counter-based: Philox4x32-10 (Salmon et al. 2011), keyed by a hash of (seed, key, purpose), with the
 * position as the upper half of its counter; element i of a draw is the same whatever its neighbours, threads
 * or shards. The PyTorch-compatible generators, which are running states by nature, are in torch_rng.h. */
#ifndef LIB_RNG_H
#define LIB_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint32_t key[2];
    uint64_t stream; /* the counter's upper half */
};

/* purpose: a short constant such as "noise", "posterior", "train-noise", "init". */
struct rng rng_make(uint64_t seed, const char *key, const char *purpose, uint64_t position);

void rng_words(const struct rng *r, uint64_t block, uint32_t words[4]); /* one Philox block */
double rng_uniform(const struct rng *r, uint64_t i);                    /* [0, 1), 53 bits */
uint64_t rng_below(const struct rng *r, uint64_t i, uint64_t n);        /* [0, n), unbiased to 2^-64 */
/* n standard normals by Box-Muller in double, two per block, rounded to float (kernels/philox.h). */
void rng_normal(const struct rng *r, float *out, size_t n);

#endif
