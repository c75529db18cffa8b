/* torch_rng - PyTorch's generators, to draw the noise that a published run drew.
 *
 * Running states by nature: a draw depends on what was drawn before. Nothing else in this toolkit works that
 * way (rng.h); these exist so that a seed means here what it means there. */
#ifndef LEARNING_TORCH_RNG_H
#define LEARNING_TORCH_RNG_H

#include "formats/tensor.h"

struct torch_rng {
    bool cuda;
    /* CPU: mt19937 (Matsumoto & Nishimura 1998), and the second half of a pair that a draw of fewer than 16
     * left over */
    uint32_t state[624];
    int next;
    bool has_spare;
    double spare;
    /* CUDA: Philox4x32-10 (Salmon et al. 2011) */
    uint64_t seed, offset;
    int64_t threads; /* of the largest grid that PyTorch starts on that GPU; it decides which element gets
                        which number */
};

enum { TORCH_MULTIPROCESSORS = 132 }; /* of an H100 or H200 SXM; an A100 has 108 */

/* torch.Generator("cpu").manual_seed(seed): only the low 32 bits of the seed count, as there. */
struct torch_rng torch_rng_cpu(uint64_t seed);
/* torch.Generator("cuda").manual_seed(seed) on a GPU with this many multiprocessors of 2048 threads (0:
 * TORCH_MULTIPROCESSORS). */
struct torch_rng torch_rng_cuda(uint64_t seed, int multiprocessors);

/* host = torch.randn(shape, generator=r, dtype=host's): F32 or BF16, on the CPU also F64; false for any other
 * dtype. The numbers depend on the dtype and, on the CPU, on whether there are 16 elements. BF16 on the CPU
 * is poor noise, as it is there: 256 levels of uniforms, |n| <= 3.33. Equal but for the last bits of log, sin
 * and cos. */
bool torch_rng_randn(struct torch_rng *r, struct tensor *host);

#endif
