/* prompt_clean - what WanPipeline does with a prompt before it is tokenized.
 *
 * ftfy.fix_text (6.3), html.unescape twice, and all white space one blank, none at the ends. Of ftfy: HTML entities
 * unless there is a `<`, UTF-8 that was read as Latin-1 or Windows-1252, C1 control characters, Latin ligatures, width
 * of characters, curly quotes, line breaks, terminal escapes, control characters. Not: Unicode's NFC, which as a rule the
 * tokenizer's own NFKC makes good; UTF-8 that was read as any other encoding, or lost bytes on the way; more than
 * 64 levels of nesting. */
#ifndef NETS_PROMPT_CLEAN_H
#define NETS_PROMPT_CLEAN_H

#include <stddef.h>

/* A new text, UTF-8, of *cleaned bytes and a zero behind them, from `bytes` bytes of UTF-8; the caller frees. What is no
 * UTF-8 becomes U+FFFD. NULL: out of memory. */
char *prompt_clean(const char *text, size_t bytes, size_t *cleaned);

#endif
