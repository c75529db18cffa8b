/* prompt - text to the embedding that the transformer reads: a model's tokenizer and its text encoder. */
#ifndef NETS_PROMPT_H
#define NETS_PROMPT_H

#include "filters/nets/text_encoder.h"

struct prompt_encoder {
    struct kern *k;
    struct text_encoder *encoder;
    struct tokenizer *tokenizer;
    int64_t length, width; /* of an embedding: what the denoiser reads */
    struct tensor ids;     /* I32 [length], host */
};

/* Opens tokenizer/ and text_encoder/ and checks that they fit each other and the transformer. false: reason
 * in err. */
bool prompt_open(struct prompt_encoder *p, struct kern *k, const struct model *m, char *err, size_t errlen);
void prompt_close(struct prompt_encoder *p);

/* ids [length] of a text, for text_encode(); *tokens as below. false: reason in err. */
bool prompt_ids(struct prompt_encoder *p, int32_t *ids, const char *text, size_t bytes, int64_t *tokens,
                char *err, size_t errlen);

/* embeds [length,width], of any float dtype, on the host, from UTF-8 text. *tokens is how many the whole text
 * has, </s> included: more than length means that it was cut. false: reason in err. */
bool prompt_encode(struct prompt_encoder *p, struct tensor *embeds, const char *text, size_t bytes,
                   int64_t *tokens, char *err, size_t errlen);

/* The same of one text, by an encoder that is gone when this returns. Its weights stay on k until k is closed:
 * a caller that wants their memory back opens k for this alone. embeds: a new F32 tensor on the host, whose
 * data the caller frees whatever happened. */
bool prompt_encode_once(struct tensor *embeds, struct kern *k, const struct model *m, const char *text,
                        char *err, size_t errlen);

#endif
