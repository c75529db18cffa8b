/* causal - what the video VAEs' networks are made of: activations [T,H,W,C], convolutions that look two frames back
 * and take a video chunk by chunk, and products pixel by pixel. */
#ifndef NETS_CAUSAL_H
#define NETS_CAUSAL_H

#include "filters/nets/weights.h"

struct conv {
    struct tensor w; /* [out,taps..,in]: 3x3x3, 3x3, 3 in time or 1x1x1 taps */
    struct tensor b; /* [out] */
};

struct causal {            /* 3x3x3, looking two frames back */
    struct conv conv;      /* [out,3,3,3,in] */
    struct tensor history; /* [2,H,W,in]: the last two frames of the chunk before */
    int64_t in;            /* channels */
    int scale;             /* how often space has been halved before it */
};

/* Activations are taken from the scratch stack; the caller marks and releases. */
struct tensor activation(struct kern *k, int64_t frames, int64_t rows, int64_t cols, int64_t channels);
/* The same with room for two frames in front of it, which a causal convolution fills with its history. */
struct tensor roomy(struct kern *k, int64_t frames, int64_t rows, int64_t cols, int64_t channels);
/* And for as many frames, rows and columns as x has. */
struct tensor activation_like(struct kern *k, const struct tensor *x, int64_t channels);
struct tensor roomy_like(struct kern *k, const struct tensor *x, int64_t channels);
/* x, which is roomy, and so many of the frames in front of it, 0 to 2. */
struct tensor with_room(const struct tensor *x, int64_t frames);

/* y = conv(x), plus residual when there is one; x is roomy. first: frame 0 stands for what was before it. */
void causal_forward(struct kern *k, struct tensor *y, const struct tensor *x, struct causal *c, bool first,
                    const struct tensor *residual);
/* y = conv(x), 1x1x1: a product, pixel by pixel */
void pointwise_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct conv *c);

#endif
