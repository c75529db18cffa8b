/* text_encoder - the network that turns a text's ids into the embeddings that a denoiser reads, whatever its
 * family (t5.c). */
#ifndef NETS_TEXT_ENCODER_H
#define NETS_TEXT_ENCODER_H

#include "filters/nets/weights.h"

struct text_encoder {
    const struct text_encoder_kind *kind;
    struct kern *k;
    int64_t length; /* the most ids of a text */
    int64_t width;  /* D, of an embedding */
    int64_t vocab;  /* every id is below this */
    char id[17];    /* 16 hex digits of configuration and weights */
    void *net;      /* the family's own */
};

struct text_encoder_kind {
    struct network network;
    bool
        padded; /* a text has `length` ids, the last of them <pad>, which takes part; else as many as it has */
    /* What becomes of a text before it is ids: as prompt_clean(). NULL: it stays as it is. */
    char *(*clean)(const char *text, size_t bytes, size_t *cleaned);
    /* With net loaded from the model and length set, fills in width and vocab. */
    bool (*open)(struct text_encoder *t, const struct model *m, char *err, size_t errlen);
    void (*close)(void *net); /* what open made beside device memory, if it did */
    /* embeds = encoder(ids)   ids I32 [L] or, of several texts, [count,L]; embeds [L,D] or [count,L,D] of any
     * float dtype, both on the host. L is `length` when padded, else 1 .. length. A text's bits do not depend on
     * those beside it. false: kern_error() of the device says why. */
    bool (*encode)(struct text_encoder *t, struct tensor *embeds, const struct tensor *ids);
};

/* text_encoder/ of a model, by its class, for texts of up to `length` ids. NULL with the reason in err. */
struct text_encoder *text_encoder_open(struct kern *k, const struct model *m, int64_t length, char *err,
                                       size_t errlen);
void text_encoder_close(struct text_encoder *t); /* NULL is fine; device memory goes with the device */
bool text_encode(struct text_encoder *t, struct tensor *embeds, const struct tensor *ids);

#endif
