/* passage - a video's way through one half of a VAE: chunk by chunk of frames, as a whole or in tiles, from the
 * host to the host. */
#ifndef NETS_PASSAGE_H
#define NETS_PASSAGE_H

#include "filters/nets/autoencoder.h"

struct passage {
    struct autoencoder *a;
    bool encodes;             /* pixels to moments; else latents to pixels */
    int fold;                 /* the network sees squares of so many pixels a side as one pixel */
    int64_t tile_h, tile_w;   /* in latents; 0: there are no tiles */
    int64_t blend_h, blend_w; /* how far they overlap, in latents */
    /* Where the chunk of frames ends that begins at `from`. */
    int64_t (*chunk_end)(const void *net, int64_t from, int64_t frames);
    /* Before the first chunk of a window of [h,w] latents: histories, from the scratch stack. */
    void (*begin)(void *net, int64_t h, int64_t w);
    /* pixels [T,H,W,3] -> moments [T',h,w,2C], or z [T,h,w,C] -> pixels [T',H,W,3]; x is roomy (causal.h).
     * Folded, pixels are [T,H/fold,W/fold,3 fold fold], as fold_pixels() has it. */
    struct tensor (*chunk)(void *net, struct tensor x, bool first);
};

/* to = the half's answer to `from`: moments of a U8 video, or a video of latents, which are put into the network's
 * scale first. Checked before: shapes fit. Memory is asked for before anything is computed. Where the whole does
 * not fit and tiles would, which are other values, it fails with what each needs. false: kern_error() says why. */
bool passage_run(const struct passage *p, struct tensor *to, const struct tensor *from, bool tiling);

#endif
