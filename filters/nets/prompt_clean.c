#include "filters/nets/prompt_clean.h"

#include <stdlib.h>
#include <string.h>

#include "filters/nets/html.h"
#include "filters/nets/mojibake.h"

/* Adds to `to` what becomes of `from`. */
typedef void (*pass)(struct chars *to, const struct chars *from);

static bool between(uint32_t c, uint32_t first, uint32_t last)
{
    return c >= first && c <= last;
}

/* ---- ftfy's passes --------------------------------------------------------------------------------------- */

static void break_ligatures(struct chars *to, const struct chars *from)
{
    static const struct {
        uint32_t c;
        const char *letters;
    } ligature[] = {{0x132, "IJ"},         {0x133, "ij"},  {0x149, "\312\274n"}, {0x1f1, "DZ"},
                    {0x1f2, "Dz"},         {0x1f3, "dz"},  {0x1c4, "D\305\275"}, {0x1c5, "D\305\276"},
                    {0x1c6, "d\305\276"},  {0x1c7, "LJ"},  {0x1c8, "Lj"},        {0x1c9, "lj"},
                    {0x1ca, "NJ"},         {0x1cb, "Nj"},  {0x1cc, "nj"},        {0xfb00, "ff"},
                    {0xfb01, "fi"},        {0xfb02, "fl"}, {0xfb03, "ffi"},      {0xfb04, "ffl"},
                    {0xfb05, "\305\277t"}, {0xfb06, "st"}};
    for (size_t i = 0; i < from->count; i++) {
        const char *letters = NULL;
        for (size_t j = 0; !letters && j < sizeof ligature / sizeof *ligature; j++)
            if (ligature[j].c == from->at[i]) letters = ligature[j].letters;
        if (letters)
            chars_add_utf8(to, letters, strlen(letters), true);
        else
            chars_put(to, from->at[i]);
    }
}

/* Of the forms of U+FF61 .. U+FFEE the usual ones, from there on; 0 where there is none. (Unicode's NFKC) */
static const uint16_t usual[] = {
    0x3002, 0x300c, 0x300d, 0x3001, 0x30fb, 0x30f2, 0x30a1, 0x30a3, 0x30a5, 0x30a7, 0x30a9, 0x30e3, 0x30e5,
    0x30e7, 0x30c3, 0x30fc, 0x30a2, 0x30a4, 0x30a6, 0x30a8, 0x30aa, 0x30ab, 0x30ad, 0x30af, 0x30b1, 0x30b3,
    0x30b5, 0x30b7, 0x30b9, 0x30bb, 0x30bd, 0x30bf, 0x30c1, 0x30c4, 0x30c6, 0x30c8, 0x30ca, 0x30cb, 0x30cc,
    0x30cd, 0x30ce, 0x30cf, 0x30d2, 0x30d5, 0x30d8, 0x30db, 0x30de, 0x30df, 0x30e0, 0x30e1, 0x30e2, 0x30e4,
    0x30e6, 0x30e8, 0x30e9, 0x30ea, 0x30eb, 0x30ec, 0x30ed, 0x30ef, 0x30f3, 0x3099, 0x309a, 0x1160, 0x1100,
    0x1101, 0x11aa, 0x1102, 0x11ac, 0x11ad, 0x1103, 0x1104, 0x1105, 0x11b0, 0x11b1, 0x11b2, 0x11b3, 0x11b4,
    0x11b5, 0x111a, 0x1106, 0x1107, 0x1108, 0x1121, 0x1109, 0x110a, 0x110b, 0x110c, 0x110d, 0x110e, 0x110f,
    0x1110, 0x1111, 0x1112, 0,      0,      0,      0x1161, 0x1162, 0x1163, 0x1164, 0x1165, 0x1166, 0,
    0,      0x1167, 0x1168, 0x1169, 0x116a, 0x116b, 0x116c, 0,      0,      0x116d, 0x116e, 0x116f, 0x1170,
    0x1171, 0x1172, 0,      0,      0x1173, 0x1174, 0x1175, 0,      0,      0,      0xa2,   0xa3,   0xac,
    0x20,   0xa6,   0xa5,   0x20a9, 0,      0x2502, 0x2190, 0x2191, 0x2192, 0x2193, 0x25a0, 0x25cb};

/* A kana with its mark, U+3099 or U+309A, as one character; 0: there is none. */
static uint32_t marked_kana(uint32_t kana, uint32_t mark)
{
    const bool half = mark == 0x309a, h_row = between(kana, 0x30cf, 0x30db) && (kana - 0x30cf) % 3 == 0;
    if (h_row) return kana + (half ? 2 : 1);
    if (mark != 0x3099) return 0;
    if (kana == 0x30a6) return 0x30f4;
    if (kana == 0x30ef || kana == 0x30f2) return kana + 8;
    if (between(kana, 0x30ab, 0x30c1) && kana % 2) return kana + 1;
    return between(kana, 0x30c4, 0x30c8) && kana % 2 == 0 ? kana + 1 : 0;
}

static void set_width(struct chars *to, const struct chars *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const uint32_t c = from->at[i], last = to->count ? to->at[to->count - 1] : 0;
        uint32_t wanted = c == 0x3000                  ? ' '
                          : between(c, 0xff01, 0xff5e) ? c - 0xff00 + ' '
                          : between(c, 0xff5f, 0xff60) ? c - 0xff5f + 0x2985
                          : between(c, 0xff61, 0xffee) ? usual[c - 0xff61]
                                                       : 0;
        const uint32_t kana = wanted == 0x3099 || wanted == 0x309a ? marked_kana(last, wanted) : 0;
        if (kana)
            to->at[to->count - 1] = kana;
        else
            chars_put(to, wanted ? wanted : c);
        if (c == 0xffe3) chars_put(to, 0x304); /* its bar stands on a blank */
    }
}

static void uncurl_quotes(struct chars *to, const struct chars *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const uint32_t c = from->at[i];
        chars_put(to, c == 0x2bc || between(c, 0x2018, 0x201b) ? '\'' : between(c, 0x201c, 0x201f) ? '"' : c);
    }
}

static void break_lines(struct chars *to, const struct chars *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const uint32_t c = from->at[i];
        if (c == '\r' && i + 1 < from->count && from->at[i + 1] == '\n') continue;
        chars_put(to, c == '\r' || c == 0x2028 || c == 0x2029 || c == 0x85 ? '\n' : c);
    }
}

/* "\e[1;31m" and the like */
static void remove_escapes(struct chars *to, const struct chars *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const bool begins = from->at[i] == 0x1b && i + 1 < from->count && from->at[i + 1] == '[';
        size_t end = i + 2;
        while (begins && end < from->count && (between(from->at[end], '0', '9') || from->at[end] == ';'))
            end++;
        if (begins && end < from->count && between(from->at[end] | 32, 'a', 'z'))
            i = end;
        else
            chars_put(to, from->at[i]);
    }
}

static void remove_controls(struct chars *to, const struct chars *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const uint32_t c = from->at[i];
        if (!(c < 9 || c == 0xb || between(c, 0xe, 0x1f) || c == 0x7f || between(c, 0x206a, 0x206f) ||
              c == 0xfeff || between(c, 0xfff9, 0xfffc)))
            chars_put(to, c);
    }
}

static void undo_mojibake(struct chars *to, const struct chars *from)
{
    chars_add(to, from->at, from->count);
    mojibake_undo(to);
}

/* ---- all of it ----------------------------------------------------------------------------------------- */

static void apply(struct chars *text, pass p)
{
    struct chars after = {0};
    p(&after, text);
    after.failed |= text->failed;
    chars_free(text);
    *text = after;
}

static bool same(const struct chars *a, const struct chars *b)
{
    return a->count == b->count && (!a->count || !memcmp(a->at, b->at, a->count * sizeof *a->at));
}

enum { ROUNDS = 64 };

/* Each pass in turn, until none changes anything. ftfy knows no limit: a text of nested entities alone would then take
 * the square of its length. */
static void fix_line(struct chars *line, bool entities)
{
    static const pass passes[] = {undo_mojibake, break_ligatures, set_width,      uncurl_quotes,
                                  break_lines,   remove_escapes,  remove_controls};
    bool changed = true;
    for (int round = 0; changed && round < ROUNDS && !line->failed; round++) {
        struct chars before = {0};
        chars_add(&before, line->at, line->count);
        if (entities) apply(line, html_unescape_careful);
        for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) apply(line, passes[i]);
        changed = !same(&before, line);
        line->failed |= before.failed;
        chars_free(&before);
    }
}

/* ftfy.fix_text: line by line. From the first `<` on entities stay: it looks like HTML that is meant. */
static void fix_text(struct chars *to, const struct chars *from)
{
    bool entities = true;
    for (size_t first = 0, end; first < from->count; first = end) {
        struct chars line = {0};
        for (end = first; end < from->count && (end == first || from->at[end - 1] != '\n'); end++)
            entities = entities && from->at[end] != '<';
        chars_add(&line, from->at + first, end - first);
        fix_line(&line, entities);
        chars_add(to, line.at, line.count);
        to->failed |= line.failed;
        chars_free(&line);
    }
}

/* As Python's str.isspace() */
static bool is_space(uint32_t c)
{
    return between(c, 9, 0xd) || between(c, 0x1c, 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           between(c, 0x2000, 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

static void single_blanks(struct chars *to, const struct chars *from)
{
    for (size_t i = 0; i < from->count; i++) {
        if (is_space(from->at[i])) continue;
        if (to->count && is_space(from->at[i - 1])) chars_put(to, ' ');
        chars_put(to, from->at[i]);
    }
}

char *prompt_clean(const char *text, size_t bytes, size_t *cleaned)
{
    static const pass passes[] = {fix_text, html_unescape, html_unescape, single_blanks};
    struct chars all = {0};
    chars_add_utf8(&all, text, bytes, false);
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) apply(&all, passes[i]);
    char *out = chars_utf8(&all, cleaned);
    chars_free(&all);
    return out;
}
