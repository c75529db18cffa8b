#include "filters/nets/chars.h"

#include <stdlib.h>
#include <string.h>

void chars_put(struct chars *to, uint32_t c)
{
    chars_add(to, &c, 1);
}

void chars_add(struct chars *to, const uint32_t *from, size_t count)
{
    if (to->count + count > to->room) {
        size_t room = 2 * (to->count + count) + 64;
        uint32_t *grown = realloc(to->at, room * sizeof *grown);
        if (!grown) {
            to->failed = true;
            return;
        }
        to->at = grown;
        to->room = room;
    }
    if (count) memcpy(to->at + to->count, from, count * sizeof *from);
    to->count += count;
}

/* How many bytes the well-formed character at s has, of `left`; 0: none is there. (Unicode 15, table 3-7) */
static size_t next(const unsigned char *s, size_t left, uint32_t *c)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t n = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 : *s < 0xf5 ? 4 : 0;
    if (!n || n > left) return 0;
    *c = n == 1 ? *s : *s & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        *c = *c << 6 | (s[i] & 0x3f);
    }
    return *c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ? 0 : n;
}

bool chars_add_utf8(struct chars *to, const char *bytes, size_t count, bool strict)
{
    const size_t before = to->count;
    for (size_t at = 0, n; at < count; at += n ? n : 1) {
        uint32_t c = CHARS_REPLACEMENT;
        n = next((const unsigned char *)bytes + at, count - at, &c);
        if (!n && strict) {
            to->count = before;
            return false;
        }
        chars_put(to, n ? c : CHARS_REPLACEMENT);
    }
    return true;
}

char *chars_utf8(const struct chars *from, size_t *bytes)
{
    char *text = from->failed ? NULL : malloc(4 * from->count + 1), *to = text;
    if (!text) return NULL;
    for (size_t i = 0; i < from->count; i++) {
        const uint32_t c = from->at[i];
        const int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (int b = 0; b < n; b++)
            *to++ = (char)((b ? 0x80 | (c >> 6 * (n - 1 - b) & 0x3f) : lead[n] | c >> 6 * (n - 1)));
    }
    *to = 0;
    *bytes = (size_t)(to - text);
    return text;
}

void chars_free(struct chars *c)
{
    free(c->at);
    *c = (struct chars){0};
}
