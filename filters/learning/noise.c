#include "filters/learning/noise.h"

#include <string.h>

#include "filters/lib/rng.h"

struct noise_source noise_source_make(const char *kind, enum dtype dtype, uint64_t seed, const char *key)
{
    if (!strcmp(kind, "keyed")) return (struct noise_source){.dtype = DT_F32, .seed = seed, .key = key};
    return (struct noise_source){.running = true,
                                 .dtype = dtype,
                                 .torch = !strcmp(kind, "torch-cpu") ? torch_rng_cpu(seed)
                                                                     : torch_rng_cuda(seed, 0)};
}

bool noise_source_draw(struct noise_source *n, int64_t index, struct tensor *host)
{
    if (n->running) return torch_rng_randn(&n->torch, host);
    struct rng r = rng_make(n->seed, n->key, "sample-noise", (uint64_t)index);
    rng_normal(&r, host->data, (size_t)tensor_count(host));
    return true;
}
