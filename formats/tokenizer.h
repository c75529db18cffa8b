/* tokenizer - text to the ids that T5 reads, with a SentencePiece model (the folder's
 * tokenizer/spiece.model).
 *
 * ids = sentencepiece(text), cut to max-1, then 1 (</s>), then 0 (<pad>) up to max: the empty text is
 * 1,0,0,... No task prefix, no lower-casing, no beginning-of-text id.
 *
 * Text is only ever text: "</s>", "<pad>" or "<extra_id_0>" written in a caption is spelled out in ordinary
 * pieces, as sentencepiece itself does. (Hugging Face's tokenizer classes turn such strings into the special
 * ids.) */
#ifndef FORMATS_TOKENIZER_H
#define FORMATS_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TOKENIZER_PAD = 0, TOKENIZER_EOS = 1 };

struct tokenizer;

/* NULL with the reason in err, which starts with the path: no such file, no SentencePiece model, or one whose
 * <pad> is not 0 or </s> not 1. */
struct tokenizer *tokenizer_open(const char *path, char *err, size_t errlen);
void tokenizer_close(struct tokenizer *t); /* NULL is fine */

/* Every id is below this. */
int tokenizer_size(const struct tokenizer *t);

/* Fills ids[0..max), max >= 1, from `length` bytes of UTF-8. Returns how many ids the whole text has, </s>
 * included: more than max means that it was cut. -1 with the reason in err when memory runs out. */
int64_t tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, int32_t *ids, int max,
                         char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
