#include "filters/nets/html.h"

#include <stdlib.h>
#include <string.h>

#include "filters/nets/html_entities.h"
#include "filters/nets/mojibake.h"

enum { LONGEST = 32 }; /* characters of a name that are looked at */
#define FIND(table, name) find(table, sizeof table / sizeof *table, name)

static int compare(const void *name, const void *entity)
{
    return strcmp(name, ((const struct html_entity *)entity)->name);
}

/* NULL: there is none. */
static const char *find(const struct html_entity *table, size_t count, const char *name)
{
    const struct html_entity *e = bsearch(name, table, count, sizeof *table, compare);
    return e ? e->text : NULL;
}

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(uint32_t c)
{
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

static bool is_letter(uint32_t c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

/* What "#38" or "#x26", of `count` characters after the '&', stands for; the semicolon may follow. */
struct number {
    size_t count; /* 0: it is no number */
    bool nothing; /* it stands for no character */
    uint32_t c;
};

static struct number read_number(const uint32_t *s, size_t left)
{
    struct number n = {0};
    const bool hex = left > 2 && s[0] == '#' && (s[1] | 32) == 'x' && is_hex(s[2]);
    if (!hex && !(left > 1 && s[0] == '#' && is_digit(s[1]))) return n;
    for (n.count = hex ? 2 : 1; n.count < left && (hex ? is_hex : is_digit)(s[n.count]); n.count++) {
        const uint32_t c = s[n.count];
        if (n.c < 0x110000) n.c = n.c * (hex ? 16 : 10) + (is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    const uint32_t c = n.c;
    if (c == 0 || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
        n.c = CHARS_REPLACEMENT;
    else if (c >= 0x80 && c < 0xa0)
        n.c = windows_1252((unsigned char)c);
    else
        n.nothing = (c < 0x20 && c != '\t' && c != '\n' && c != '\f' && c != '\r') || c == 0x7f ||
                    (c >= 0xfdd0 && c < 0xfdf0) || (c & 0xfffe) == 0xfffe;
    return n;
}

/* The longest name without a semicolon that `name` begins with, of two characters or more; 0: none. */
static size_t bare_length(const char *name, const char **text)
{
    char part[LONGEST + 1];
    size_t n = strlen(name);
    memcpy(part, name, n + 1);
    for (; n > 1; n--) {
        part[n] = 0;
        if ((*text = FIND(html_bare, part))) return n;
    }
    return 0;
}

/* Adds what the reference after an '&' stands for; how many characters it has, 0: it is none. */
static size_t unescape_name(struct chars *to, const uint32_t *s, size_t left)
{
    char name[LONGEST + 1];
    const char *text = NULL;
    size_t n = 0, used;
    /* The reference in Python stops at these and at none else, but no name has other than letters and digits. */
    while (n < left && n < LONGEST && (is_letter(s[n]) || is_digit(s[n]))) name[n] = (char)s[n], n++;
    name[n] = 0;
    used = n;
    if (n < left && s[n] == ';' && (text = FIND(html_named, name))) used++;
    if (!text) used = bare_length(name, &text);
    if (!text) return 0;
    chars_add_utf8(to, text, strlen(text), true);
    return used;
}

static size_t unescape_reference(struct chars *to, const uint32_t *s, size_t left)
{
    const struct number n = read_number(s, left);
    if (!n.count) return unescape_name(to, s, left);
    if (!n.nothing) chars_put(to, n.c);
    return n.count + (n.count < left && s[n.count] == ';');
}

/* A name all in capitals that is none of HTML's, nor begins with one, stands for what it does in small letters. */
static const char *find_capital(const char *name)
{
    char small[LONGEST + 1];
    const char *text;
    size_t i = 0;
    for (; name[i]; i++) {
        if (name[i] >= 'a' && name[i] <= 'z') return NULL;
        small[i] = (char)(is_letter((unsigned char)name[i]) ? name[i] | 32 : name[i]);
    }
    small[i] = 0;
    if (bare_length(name, &text)) return NULL;
    text = FIND(html_capital, name);
    return text ? text : FIND(html_named, small);
}

static size_t unescape_carefully(struct chars *to, const uint32_t *s, size_t left)
{
    enum { MOST = 24 };
    char name[MOST + 1];
    const bool number = left && s[0] == '#';
    size_t n = 0;
    for (s += number, left -= number; n < left && n < MOST && (is_letter(s[n]) || is_digit(s[n])); n++)
        name[n] = (char)s[n];
    name[n] = 0;
    if (!n || n == left || s[n] != ';') return 0;
    if (number) {
        const struct number value = read_number(s - 1, n + 1);
        if (value.count != n + 1 || (!value.nothing && value.c == ';')) return 0;
        if (!value.nothing) chars_put(to, value.c);
        return n + 2;
    }
    const char *text = FIND(html_named, name);
    if (!text) text = find_capital(name);
    if (!text) return 0;
    chars_add_utf8(to, text, strlen(text), true);
    return n + 1;
}

static void unescape(struct chars *to, const struct chars *from,
                     size_t (*reference)(struct chars *, const uint32_t *, size_t))
{
    for (size_t i = 0; i < from->count;) {
        const size_t used = from->at[i] == '&' ? reference(to, from->at + i + 1, from->count - i - 1) : 0;
        if (!used) chars_put(to, from->at[i]);
        i += 1 + used;
    }
}

void html_unescape(struct chars *to, const struct chars *from)
{
    unescape(to, from, unescape_reference);
}

void html_unescape_careful(struct chars *to, const struct chars *from)
{
    unescape(to, from, unescape_carefully);
}
