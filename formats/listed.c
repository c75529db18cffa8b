#include "formats/listed.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "formats/names.h"

struct listed listed_start(const char *wrong)
{
    return (struct listed){.wrong = wrong ? wrong : "", .distance = (size_t)-1};
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters of a have to be put in, left out, changed or swapped to get b: the restricted form, in
 * which a pair that was swapped is not touched again. A name past the rows' length is no typing error. */
static size_t distance(const char *a, const char *b)
{
    enum { MOST = 63 };
    size_t rows[3][MOST + 1], n = strlen(a), m = strlen(b), *before = rows[0], *last = rows[1],
                              *now = rows[2];
    if (n > MOST || m > MOST) return (size_t)-1;
    for (size_t j = 0; j <= m; j++) last[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            now[j] = least(last[j - 1] + (x != y), least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                tolower((unsigned char)a[i - 2]) == y)
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last, last = now, now = spare;
    }
    return last[m];
}

/* A name's distance from what was asked for; one that is the other's beginning comes right after what is one
 * letter away. */
static size_t away(const char *wrong, const char *name)
{
    size_t n = strlen(wrong), m = strlen(name), d = distance(wrong, name);
    bool begins = least(n, m) >= 2 && !strncasecmp(wrong, name, least(n, m));
    return d <= (n < 2 ? 0 : n < 3 ? 1 : n / 3) ? d : begins ? 2 : (size_t)-1;
}

void listed_add(struct listed *l, const char *name)
{
    if (!name) return;
    size_t used = strlen(l->names), d = *l->wrong ? away(l->wrong, name) : (size_t)-1;
    if (d < l->distance) {
        l->distance = d;
        snprintf(l->nearest, sizeof l->nearest, "%s", name);
    }
    if (l->shown == l->count && used + strlen(name) + 3 < sizeof l->names) {
        snprintf(l->names + used, sizeof l->names - used, "%s%s", l->count ? ", " : "", name);
        l->shown++;
    }
    l->count++;
}

void listed_keys(struct listed *l, const json_t *object)
{
    const char *key;
    json_t *unused;
    json_object_foreach ((json_t *)object, key, unused) listed_add(l, key);
}

void listed_words(struct listed *l, const char *words)
{
    for (const char *at = words; *at; at += strcspn(at, "|"), at += *at == '|') {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)strcspn(at, "|"), at);
        listed_add(l, word);
    }
}

void listed_folder(struct listed *l, const char *folder, const char *ending)
{
    struct dirent **entry;
    int n = scandir(folder, &entry, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (*entry[i]->d_name != '.' && ends_with(entry[i]->d_name, ending)) listed_add(l, entry[i]->d_name);
        free(entry[i]);
    }
    if (n >= 0) free(entry);
}

const char *listed_hint(struct listed *l)
{
    snprintf(l->text, sizeof l->text, "; did you mean `%s`?", l->nearest);
    return l->distance == (size_t)-1 ? "" : l->text;
}

const char *listed_end(struct listed *l)
{
    char hint[96] = "", more[40] = "";
    if (!l->count) return "there is none";
    if (l->distance != (size_t)-1) snprintf(hint, sizeof hint, "did you mean `%s`? ", l->nearest);
    if (l->shown < l->count)
        snprintf(more, sizeof more, "%s%zu more", l->shown ? " and " : "", l->count - l->shown);
    snprintf(l->text, sizeof l->text, "%sthere %s %s%s", hint, l->count == 1 ? "is" : "are", l->names, more);
    return l->text;
}
