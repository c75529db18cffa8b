#include "filters/nets/mojibake.h"

#include <stdlib.h>
#include <string.h>

/* ---- Windows-1252 -------------------------------------------------------------------------------------- */

static const uint16_t high[32] = {0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021,
                                  0x2c6,  0x2030, 0x160,  0x2039, 0x152,  0x8d,   0x17d,  0x8f,
                                  0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                  0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};

uint32_t windows_1252(unsigned char byte)
{
    return byte >= 0x80 && byte < 0xa0 ? high[byte - 0x80] : byte;
}

/* The byte of a character; -1: it has none. */
static int latin_1_byte(uint32_t c)
{
    return c < 0x100 ? (int)c : -1;
}

static int windows_1252_byte(uint32_t c)
{
    if (c < 0x80 || (c >= 0xa0 && c < 0x100))
        return c == 0x1a ? -1 : (int)c; /* ftfy keeps 1A for lost bytes */
    for (int i = 0; i < 32; i++)
        if (high[i] == c) return 0x80 + i;
    return -1;
}

/* ---- what looks so ------------------------------------------------------------------------------------- */

/* ftfy's classes of characters, by what stands beside them in sound text (ftfy/badness.py). */
enum {
    COMMON = 1,
    C1 = 2,
    BAD = 4,
    LAW = 8,
    CURRENCY = 16,
    START = 32, /* punctuation that opens */
    END = 64,   /* and that closes */
    NUMERIC = 128,
    KAOMOJI = 256,
    UPPER = 512, /* with an accent */
    LOWER = 1024,
    UPPER_COMMON = 2048, /* of Greek, of Cyrillic */
    LOWER_COMMON = 4096,
    BOX = 8192
};

static const struct {
    uint16_t first, last, class;
} classes[] = {{0x80, 0x9f, C1},
               {0xa0, 0xa0, COMMON},
               {0xa1, 0xa1, START},
               {0xa2, 0xa3, CURRENCY},
               {0xa4, 0xa4, BAD},
               {0xa5, 0xa5, CURRENCY},
               {0xa6, 0xa6, BAD},
               {0xa7, 0xa7, LAW},
               {0xa8, 0xa8, BAD},
               {0xa9, 0xa9, START},
               {0xaa, 0xaa, BAD},
               {0xab, 0xab, START},
               {0xac, 0xac, BAD},
               {0xad, 0xad, COMMON},
               {0xae, 0xae, END},
               {0xaf, 0xaf, BAD},
               {0xb0, 0xb0, KAOMOJI},
               {0xb1, 0xb3, NUMERIC},
               {0xb4, 0xb4, COMMON},
               {0xb5, 0xb5, NUMERIC},
               {0xb6, 0xb6, LAW},
               {0xb7, 0xb7, COMMON},
               {0xb8, 0xb8, BAD},
               {0xb9, 0xb9, NUMERIC},
               {0xba, 0xba, BAD},
               {0xbb, 0xbb, END},
               {0xbc, 0xbe, NUMERIC},
               {0xbf, 0xbf, START},
               {0xc0, 0xd1, UPPER},
               {0xd2, 0xd6, KAOMOJI},
               {0xd7, 0xd7, NUMERIC},
               {0xd8, 0xd8, UPPER},
               {0xd9, 0xdb, KAOMOJI},
               {0xdc, 0xdc, KAOMOJI | UPPER},
               {0xdd, 0xdd, UPPER},
               {0xde, 0xde, UPPER_COMMON},
               {0xdf, 0xf1, LOWER},
               {0xf2, 0xf6, KAOMOJI},
               {0xf7, 0xf7, NUMERIC},
               {0xf8, 0xfb, KAOMOJI},
               {0xfc, 0xfc, KAOMOJI | LOWER},
               {0x152, 0x152, UPPER},
               {0x153, 0x153, LOWER},
               {0x160, 0x160, UPPER},
               {0x161, 0x161, LOWER},
               {0x178, 0x178, UPPER},
               {0x17d, 0x17d, UPPER},
               {0x17e, 0x17e, LOWER},
               {0x192, 0x192, BAD},
               {0x2c6, 0x2c7, BAD},
               {0x2d8, 0x2d8, BAD},
               {0x2db, 0x2dc, BAD},
               {0x2dd, 0x2dd, END},
               {0x384, 0x385, START},
               {0x386, 0x386, UPPER_COMMON},
               {0x388, 0x3ab, UPPER_COMMON},
               {0x3ac, 0x3c9, LOWER_COMMON},
               {0x401, 0x42f, UPPER_COMMON},
               {0x430, 0x45f, LOWER_COMMON},
               {0x2013, 0x2015, COMMON},
               {0x2018, 0x2018, START},
               {0x2019, 0x2019, COMMON},
               {0x201a, 0x201a, START},
               {0x201c, 0x201c, START},
               {0x201d, 0x201d, END},
               {0x201e, 0x201e, START},
               {0x2020, 0x2021, BAD},
               {0x2022, 0x2022, START},
               {0x2026, 0x2026, COMMON},
               {0x2030, 0x2030, BAD},
               {0x2039, 0x2039, START},
               {0x203a, 0x203a, END},
               {0x2044, 0x2044, NUMERIC},
               {0x20a7, 0x20a7, CURRENCY},
               {0x20ac, 0x20ac, CURRENCY},
               {0x2116, 0x2116, NUMERIC},
               {0x2122, 0x2122, END},
               {0x2202, 0x2202, NUMERIC},
               {0x2206, 0x2206, NUMERIC},
               {0x220f, 0x220f, NUMERIC},
               {0x2211, 0x2211, NUMERIC},
               {0x221a, 0x221a, NUMERIC},
               {0x221e, 0x221e, NUMERIC},
               {0x2229, 0x2229, NUMERIC},
               {0x222b, 0x222b, NUMERIC},
               {0x2248, 0x2248, NUMERIC},
               {0x2260, 0x2261, NUMERIC},
               {0x2264, 0x2265, NUMERIC},
               {0x2310, 0x2310, BAD},
               {0x2502, 0x2502, BOX},
               {0x250c, 0x250c, BOX},
               {0x2510, 0x2510, BOX},
               {0x2518, 0x2518, BOX},
               {0x251c, 0x251c, BOX},
               {0x2524, 0x2524, BOX},
               {0x252c, 0x252c, BOX},
               {0x253c, 0x253c, BOX},
               {0x2580, 0x2580, BOX},
               {0x2584, 0x2584, BOX},
               {0x2588, 0x2588, BOX},
               {0x258c, 0x258c, BOX},
               {0x2550, 0x256c, BOX},
               {0x2590, 0x2593, BOX},
               {0x25ca, 0x25ca, BAD},
               {0xfb01, 0xfb02, LOWER},
               {0xfffd, 0xfffd, BAD}};

static unsigned class_of(uint32_t c)
{
    for (size_t i = 0; c >= 0x80 && i < sizeof classes / sizeof *classes; i++)
        if (c >= classes[i].first && c <= classes[i].last) return classes[i].class;
    return 0;
}

static bool one_of(uint32_t c, const uint16_t *set)
{
    while (*set && *set != c) set++;
    return c && *set;
}

static bool between(uint32_t c, uint32_t first, uint32_t last)
{
    return c >= first && c <= last;
}

/* Python's \w, near enough: letters and digits. */
static bool is_word(uint32_t c)
{
    if (c < 0x80) return between(c | 32, 'a', 'z') || between(c, '0', '9') || c == '_';
    if (c < 0x100)
        return c >= 0xc0
                   ? c != 0xd7 && c != 0xf7
                   : one_of(c, (const uint16_t[]){0xaa, 0xb2, 0xb3, 0xb5, 0xb9, 0xba, 0xbc, 0xbd, 0xbe, 0});
    return !between(c, 0x2000, 0x206f) && !between(c, 0x20a0, 0x20cf) && !between(c, 0x2190, 0x245f) &&
           !between(c, 0x2500, 0x2bff) && !between(c, 0x3000, 0x3004) && !between(c, 0x3008, 0x3020) &&
           !between(c, 0xfe00, 0xfe6f) && !between(c, 0xff00, 0xff0f) && c != 0x2122 && c != 0xfffd &&
           c < 0x1f000;
}

/* Whether the characters from c[i] on are an unlikely pair or three: ftfy's BADNESS_RE, but for what only other encodings
 * than these two leave behind. Past the end stands 0. */
static bool unlikely(const uint32_t *c, size_t count, size_t i)
{
    const uint32_t a = c[i], b = i + 1 < count ? c[i + 1] : 0, d = i + 2 < count ? c[i + 2] : 0,
                   e = i + 3 < count ? c[i + 3] : 0;
    const unsigned A = class_of(a), B = class_of(b), D = class_of(d);
    const bool small = between(a, 'a', 'z'), letter = between(a | 32, 'a', 'z'),
               space = a == ' ' || between(a, '\t', '\r') || a == 0xa0;
    static const uint16_t after_a[] = {0x20ac, 0x153, 0x160, 0x161, 0xa2, 0xa3,   0x178,  0x17e, 0xa0, 0xad,
                                       0xae,   0xa9,  0xb0,  0xb7,  0xbb, 0x2013, 0x2014, 0xb4,  0},
                          arabic[] = {0x178, 0x160, 0xae, 0xb0, 0xb5, 0xbb, 0},
                          indic[] = {0xb2, 0xb5, 0xb9, 0xbc, 0xbd, 0xbe, 0};
    enum {
        SEEN = LOWER | UPPER | BOX | START | END | CURRENCY | NUMERIC | LAW,
        ARABIC = COMMON | CURRENCY | BAD | NUMERIC | START
    };
    if (A & C1 || (A & (SEEN | BAD) && B & BAD) || (A & BAD && B & SEEN)) return true;
    if (letter && B & (LOWER_COMMON | UPPER_COMMON) && D & BAD) return true;
    if (A & (LOWER | LOWER_COMMON | BOX | END | CURRENCY | NUMERIC) && B & UPPER) return true;
    if (A & (BOX | END | CURRENCY | NUMERIC) && B & LOWER) return true;
    if (A & (LOWER | BOX | END) && B & CURRENCY) return true;
    if ((space || small) && B & UPPER && D & CURRENCY) return true;
    if (A & (UPPER | BOX) && B & (NUMERIC | LAW)) return true;
    if (A & (LOWER | UPPER | BOX | CURRENCY | END) && B & START && D & NUMERIC) return true;
    if (A & (LOWER | UPPER | CURRENCY | NUMERIC | BOX | LAW) && B & END && D & START) return true;
    if (A & (CURRENCY | NUMERIC | BOX) && B & START) return true;
    if (small && B & UPPER && D & START) return true;
    if (A & BOX && B & (KAOMOJI | END)) return true;
    if (A & (LOWER | UPPER | CURRENCY | NUMERIC | START | END | LAW) && B & BOX) return true;
    if (A & (LOWER | UPPER) && B & (START | END) && d && is_word(d)) return true;
    if ((a == 0x152 || a == 0x153) && b && !between(b | 32, 'a', 'z')) return true;
    if (A & UPPER && b == 0xb0) return true;
    if ((a == 0xc2 || a == 0xc3 || a == 0xce || a == 0xd0) && (one_of(b, after_a) || B & (START | END)))
        return true;
    if (a == 0xd7 && (b == 0xb2 || b == 0xb3)) return true;
    if ((a == 0xd8 || a == 0xd9) && (d == 0xd8 || d == 0xd9) && (one_of(b, arabic) || B & ARABIC) &&
        (one_of(e, arabic) || class_of(e) & ARABIC))
        return true;
    if (a == 0xe0 && one_of(b, indic)) return true;
    if (a == 0xc3 && (b == 0xa0 || b == 0xa1)) return true;
    if (i == 0 && (a == 0xc2 || a == 0xc3) && b == ' ') return true;
    if (small && (b == 0xc2 || b == 0xc3) && d == ' ') return true;
    if (small && (b == ' ' || between(b, '\t', '\r') || b == 0xa0) && (d == 0xc2 || d == 0xc3) && e == ' ')
        return true;
    return (one_of(a, (const uint16_t[]){'.', ',', '?', '!', 0}) || A & END) && b == 0xc2 &&
           (d == ' ' || D & (START | END));
}

static bool looks_bad(const uint32_t *c, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (unlikely(c, count, i)) return true;
    return false;
}

/* ---- bytes --------------------------------------------------------------------------------------------- */

static bool goes_on(unsigned char b)
{
    return b >= 0x80 && b < 0xc0;
}

/* How many bytes from s on would be a character of UTF-8 if a blank among them were the byte A0, as which some program
 * took it (ftfy's ALTERED_UTF8_RE); 0: none. */
static size_t blanked(const unsigned char *s, size_t left)
{
    const unsigned char a = s[0], b = left > 1 ? s[1] : 0, c = left > 2 ? s[2] : 0, d = left > 3 ? s[3] : 0;
    const bool b_sure = goes_on(b) && b != 0x85 && b != 0xa0, c_sure = goes_on(c) && c != 0x85 && c != 0xa0;
    if (a && strchr("\xc2\xc3\xc5\xce\xd0\xd9", a) && b == ' ') return 2;
    if ((a == 0xe2 || a == 0xe3) && b == ' ' && c_sure) return 3;
    if (a >= 0xe0 && a <= 0xe3 && b_sure && c == ' ') return 3;
    if (a != 0xf0) return 0;
    return (b == ' ' && goes_on(c) && goes_on(d)) || (goes_on(b) && c == ' ' && goes_on(d)) ||
                   (goes_on(b) && goes_on(c) && d == ' ')
               ? 4
               : 0;
}

static bool begins(const unsigned char *s, size_t left, const char *with)
{
    return left >= strlen(with) && !memcmp(s, with, strlen(with));
}

/* " Ã " is mostly "à" and the blank after it: the letter by itself is a word. But "à" begins some of Portuguese. */
static bool lone_a(const unsigned char *s, size_t left)
{
    static const char *const words[] = {" ", "quele", "quela", "quilo", "s "};
    if (!begins(s, left, "\xc3 ")) return false;
    for (int i = 0; i < 5; i++)
        if (begins(s + 2, left - 2, words[i])) return false;
    return true;
}

/* Puts A0 back; to has room for twice the bytes. Nothing happens where no blank can have been one. */
static size_t restore(char *to, const char *bytes, size_t count)
{
    const unsigned char *s = (const unsigned char *)bytes;
    size_t n = 0;
    for (size_t i = 0, used; i < count; i += used) {
        used = blanked(s + i, count - i);
        if (lone_a(s + i, count - i)) to[n++] = (char)0xc3, to[n++] = (char)0xa0, to[n++] = ' ';
        for (size_t j = 0; j < used && !lone_a(s + i, count - i); j++)
            to[n++] = (char)(s[i + j] == ' ' ? 0xa0 : s[i + j]);
        if (!used) to[n++] = bytes[i], used = 1;
    }
    return n;
}

/* The whole text by one encoding into bytes, and these read as UTF-8. *possible: it has a byte for every character. */
static bool reread(struct chars *text, int (*byte_of)(uint32_t), bool *possible)
{
    char *bytes = malloc(3 * text->count + 1);
    struct chars fixed = {0};
    size_t n = 0, count = text->count;
    *possible = bytes != NULL;
    for (; *possible && n < count; n++) {
        const int byte = byte_of(text->at[n]);
        *possible = byte >= 0;
        bytes[n] = (char)byte;
    }
    bool good = *possible;
    if (good) {
        char *to = bytes + count;
        good = chars_add_utf8(&fixed, to, restore(to, bytes, count), true);
    }
    free(bytes);
    if (good && !fixed.failed) {
        chars_free(text);
        *text = fixed;
    } else {
        text->failed |= fixed.failed;
        chars_free(&fixed);
    }
    return good;
}

/* ---- parts of a text ----------------------------------------------------------------------------------- */

static bool may_continue(uint32_t c)
{
    return c == ' ' || c == 0xc6 || c == 0xd8 || c == 0xe6 || c == 0xf8 || between(c, 0x80, 0xbf) ||
           (c >= 0x100 && windows_1252_byte(c) >= 0);
}

/* Not those that also stand for themselves beside mojibake: blanks, dashes, quotes, dots. */
static bool must_continue(uint32_t c)
{
    static const uint16_t both[] = {' ',    0x2013, 0x2014, 0x2018, 0x2019, 0x201a,
                                    0x201c, 0x201d, 0x201e, 0x2022, 0x2026, 0};
    return may_continue(c) && !one_of(c, both);
}

/* How many characters from c on look like one of UTF-8; 0: none. */
static size_t sequence(const uint32_t *c, size_t left)
{
    size_t run = 0;
    while (run + 1 < left && run < 3 && may_continue(c[run + 1])) run++;
    if ((between(*c, 0xc2, 0xdf) || *c == 0x160 || *c == 0x17d) && run >= 1) return 2;
    if (between(*c, 0xe0, 0xef) && run >= 2) return 3;
    return (*c == 0xf0 || *c == 0xf3 || *c == 0x161) && run >= 3 ? 4 : 0;
}

static bool fix_parts(struct chars *text)
{
    struct chars fixed = {0};
    bool changed = false;
    for (size_t i = 0, n; i < text->count; i += n) {
        size_t more;
        n = 0;
        if (i == 0 || !must_continue(text->at[i - 1]))
            while (i + n < text->count && (more = sequence(text->at + i + n, text->count - i - n))) n += more;
        if (n && n < text->count && looks_bad(text->at + i, n)) {
            struct chars part = {0};
            chars_add(&part, text->at + i, n);
            mojibake_undo(&part);
            changed = changed || part.count != n || memcmp(part.at, text->at + i, n * sizeof *part.at) != 0;
            chars_add(&fixed, part.at, part.count);
            fixed.failed |= part.failed;
            chars_free(&part);
        } else {
            n = n ? n : 1;
            chars_add(&fixed, text->at + i, n);
        }
    }
    fixed.failed |= text->failed;
    chars_free(text);
    *text = fixed;
    return changed;
}

/* ---- all of it ----------------------------------------------------------------------------------------- */

/* C1 controls as Windows-1252 has them. strict: nothing where one of them has no character there. */
static bool fix_controls(struct chars *text, bool strict)
{
    bool changed = false;
    for (size_t i = 0; strict && i < text->count; i++)
        if (between(text->at[i], 0x80, 0x9f) && windows_1252((unsigned char)text->at[i]) == text->at[i])
            return false;
    for (size_t i = 0; i < text->count; i++)
        if (between(text->at[i], 0x80, 0x9f)) {
            const uint32_t c = windows_1252((unsigned char)text->at[i]);
            changed = changed || c != text->at[i];
            text->at[i] = c;
        }
    return changed;
}

/* false: there was nothing to do. */
static bool step(struct chars *text)
{
    bool latin_1, windows;
    const size_t count = text->count;
    struct chars before = {0};
    if (!looks_bad(text->at, count)) return false;
    chars_add(&before, text->at, count);
    bool whole = reread(text, latin_1_byte, &latin_1) || reread(text, windows_1252_byte, &windows);
    bool changed =
        whole && (text->count != count || memcmp(text->at, before.at, count * sizeof *before.at) != 0);
    chars_free(&before);
    if (whole) return changed;
    return fix_parts(text) || (latin_1 && fix_controls(text, true)) || fix_controls(text, false);
}

void mojibake_undo(struct chars *text)
{
    while (!text->failed && step(text)) continue;
}
