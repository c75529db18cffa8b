/* noise - where the standard normals come from that a sample starts with and that its steps add. */
#ifndef LEARNING_NOISE_H
#define LEARNING_NOISE_H

#include "filters/learning/torch_rng.h"

struct noise_source {
    bool by_channel;
    bool running; /* a generator of PyTorch's: every draw counts, and they come in the reference's order */
    enum dtype dtype;
    uint64_t seed;
    const char *key; /* of the record: what a source that is not running depends on besides */
    struct torch_rng torch;
};

/* kind: "keyed" (rng.h; always F32), or "torch-cpu" or "torch-cuda", which draw what PyTorch's generator of
 * that seed draws, in this dtype; by_channel: in F32 and in the order [1,C,T,h,w], as WanPipeline does. key is
 * borrowed. */
struct noise_source noise_source_make(const char *kind, enum dtype dtype, bool by_channel, uint64_t seed,
                                      const char *key);

/* Draw `index` into host [1,T,C,h,w] of the source's dtype. false: it cannot draw that dtype, or there is no
 * memory. */
bool noise_source_draw(struct noise_source *n, int64_t index, struct tensor *host);

#endif
