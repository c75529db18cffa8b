#include "formats/plain.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* The bytes of the first character, of a text that is not empty, and its number; 1 and 0 when it is not UTF-8:
 * overlong forms, surrogates and what is past U+10FFFF included. */
static int decode(const unsigned char *p, uint32_t *c)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    int n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    *c = n == 1 ? *p : n ? *p & (0x7fu >> n) : 0;
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return *c = 0, 1; /* the text's end, too */
        *c = *c << 6 | (p[i] & 0x3f);
    }
    if (n && *c >= least[n] && *c <= 0x10ffff && *c >> 11 != 0x1b) return n;
    return *c = 0, 1;
}

static bool obeyed(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void put_plain(FILE *out, const char *text)
{
    uint32_t c;
    for (int n; *text; text += n) {
        n = decode((const unsigned char *)text, &c);
        if (obeyed(c))
            putc('?', out);
        else
            fwrite(text, 1, (size_t)n, out);
    }
}

void make_plain(char *text)
{
    uint32_t c;
    char *to = text;
    for (int n; *text; text += n) {
        n = decode((const unsigned char *)text, &c);
        if (obeyed(c)) {
            *to++ = '?';
        } else {
            memmove(to, text, (size_t)n);
            to += n;
        }
    }
    *to = 0;
}
