#include "filters/learning/noise.h"

#include <stdlib.h>
#include <string.h>

#include "filters/lib/rng.h"

struct noise_source noise_source_make(const char *kind, enum dtype dtype, bool by_channel, uint64_t seed,
                                      const char *key)
{
    if (!strcmp(kind, "keyed")) return (struct noise_source){.dtype = DT_F32, .seed = seed, .key = key};
    return (struct noise_source){.by_channel = by_channel,
                                 .running = true,
                                 .dtype = by_channel ? DT_F32 : dtype,
                                 .torch = !strcmp(kind, "torch-cpu") ? torch_rng_cpu(seed)
                                                                     : torch_rng_cuda(seed, 0)};
}

/* host [1,T,C,h,w] from a draw of [1,C,T,h,w] */
static bool draw_by_channel(struct noise_source *n, struct tensor *host)
{
    const int64_t T = host->shape[1], C = host->shape[2];
    const size_t plane = (size_t)(host->shape[3] * host->shape[4]) * sizeof(float);
    struct tensor drawn =
        tensor_of(DT_F32, malloc(tensor_bytes(host) + 1), 5, 1, C, T, host->shape[3], host->shape[4]);
    bool good = drawn.data && torch_rng_randn(&n->torch, &drawn);
    for (int64_t t = 0; good && t < T; t++)
        for (int64_t c = 0; c < C; c++)
            memcpy((char *)host->data + (size_t)(t * C + c) * plane,
                   (char *)drawn.data + (size_t)(c * T + t) * plane, plane);
    free(drawn.data);
    return good;
}

bool noise_source_draw(struct noise_source *n, int64_t index, struct tensor *host)
{
    if (n->by_channel) return draw_by_channel(n, host);
    if (n->running) return torch_rng_randn(&n->torch, host);
    struct rng r = rng_make(n->seed, n->key, "sample-noise", (uint64_t)index);
    rng_normal(&r, host->data, (size_t)tensor_count(host));
    return true;
}
