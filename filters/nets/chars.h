/* chars - a text as an array of Unicode characters, for those who change it. */
#ifndef NETS_CHARS_H
#define NETS_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chars {
    uint32_t *at;
    size_t count, room;
    bool failed; /* out of memory: what was added since is lost */
};

enum { CHARS_REPLACEMENT = 0xfffd };

void chars_put(struct chars *to, uint32_t c);
void chars_add(struct chars *to, const uint32_t *from, size_t count);
/* Adds bytes of UTF-8. strict: false and nothing added when they are not all well-formed; else what is not becomes
 * U+FFFD, one for each byte. */
bool chars_add_utf8(struct chars *to, const char *bytes, size_t count, bool strict);
/* New text of *bytes bytes and a zero behind them, which the caller frees. NULL: out of memory, here or before. */
char *chars_utf8(const struct chars *from, size_t *bytes);
void chars_free(struct chars *c);

#endif
