/* tokenizer - text to the ids that a network reads, and back, with a SentencePiece model.
 *
 * T5 (the folder's tokenizer/spiece.model): ids = sentencepiece(text), cut to max-1, then 1 (</s>), then 0
 * (<pad>) up to max: the empty text is 1,0,0,... No task prefix, no lower-casing, no beginning-of-text id.
 * Text is only ever text: "</s>", "<pad>" or "<extra_id_0>" written in a caption is spelled out in ordinary
 * pieces, as sentencepiece itself does. (Hugging Face's tokenizer classes turn such strings into the special
 * ids.)
 *
 * LLaMA (the grader's tokenizer.model): ids = sentencepiece(text) and nothing added. This follows the
 * grader's own code: "<unk>", "<s>" and "</s>" in the text are ids 0, 1 and 2, and each part between them is
 * a text of its own, with the space in front that the model puts before every text (Hugging Face's slow
 * LlamaTokenizer in its legacy mode). */
#ifndef FORMATS_TOKENIZER_H
#define FORMATS_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TOKENIZER_PAD = 0, TOKENIZER_EOS = 1 };
enum { LLAMA_UNK = 0, LLAMA_BOS = 1, LLAMA_EOS = 2 };

struct tokenizer;

/* NULL with the reason in err, which starts with the path: no such file, no SentencePiece model, or one of
 * another kind: T5's has <pad> 0 and </s> 1; LLaMA's has <unk> 0, <s> 1, </s> 2, a space put before every
 * text, no normalisation, and bytes for what it has no piece for. */
struct tokenizer *tokenizer_open(const char *path, char *err, size_t errlen); /* T5's */
struct tokenizer *tokenizer_open_llama(const char *path, char *err, size_t errlen);
void tokenizer_close(struct tokenizer *t); /* NULL is fine */

/* Every id is below this. */
int tokenizer_size(const struct tokenizer *t);

/* T5. Fills ids[0..max), max >= 1, from `length` bytes of UTF-8. Returns how many ids the whole text has,
 * </s> included: more than max means that it was cut. -1 with the reason in err when memory runs out. */
int64_t tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, int32_t *ids, int max,
                         char *err, size_t errlen);

/* LLaMA. The ids of `length` bytes of UTF-8, none of the empty text; the caller frees. NULL with the reason
 * in err. */
int32_t *tokenizer_pieces(const struct tokenizer *t, const char *text, size_t length, int *count, char *err,
                          size_t errlen);

/* LLaMA. The text of these ids: 0, 1 and 2 are left out, the space before the first piece, too; bytes that
 * are no UTF-8, and zero bytes, become U+FFFD. The caller frees. NULL with the reason in err: an id that the
 * model does not have. */
char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int count, char *err, size_t errlen);

#ifdef __cplusplus
}
#endif

#endif
