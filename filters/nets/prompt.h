/* prompt - text to the embedding that the transformer reads: a model's tokenizer and its text encoder. */
#ifndef NETS_PROMPT_H
#define NETS_PROMPT_H

#include "filters/nets/text_encoder.h"

struct prompt_encoder {
    struct kern *k;
    struct text_encoder *encoder;
    struct tokenizer *tokenizer;
    int64_t length, width; /* of the longest embedding: what the denoiser reads */
};

/* Opens tokenizer/ and text_encoder/ and checks that they fit each other and the transformer. false: reason
 * in err. */
bool prompt_open(struct prompt_encoder *p, struct kern *k, const struct model *m, char *err, size_t errlen);
void prompt_close(struct prompt_encoder *p);

/* ids [length] of UTF-8 text, cleaned as the text encoder wants it; text_encode() takes the first prompt_rows().
 * *tokens is how many the whole text has, </s> included: more than length means that it was cut. false: reason in
 * err. */
bool prompt_ids(struct prompt_encoder *p, int32_t *ids, const char *text, size_t bytes, int64_t *tokens,
                char *err, size_t errlen);

/* How many rows the embedding of a text of so many tokens has. */
int64_t prompt_rows(const struct prompt_encoder *p, int64_t tokens);

/* The embedding of one text, by an encoder that is gone when this returns. Its weights stay on k until k is closed:
 * a caller that wants their memory back opens k for this alone. embeds: a new F32 tensor [L,width] on the host, whose
 * data the caller frees whatever happened. */
bool prompt_encode_once(struct tensor *embeds, struct kern *k, const struct model *m, const char *text,
                        char *err, size_t errlen);

#endif
