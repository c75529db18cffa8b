/* names - a set of texts in the order in which they came, small in memory: some 10 bytes each beside the text
 * itself. */
#ifndef FORMATS_NAMES_H
#define FORMATS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NAMES_NONE = -1 };

struct names { /* all zero: empty */
    int64_t count;
    char *text;        /* one after another, each with its 0 */
    size_t used, room; /* of text */
    uint32_t *start;   /* where each starts */
    uint32_t *slot;    /* a hash table of indices + 1; as many as a power of two, at most 2/3 of them used */
    size_t starts, slots;
};

/* Adds a name that is not there yet. false: out of memory, or more than 4 GiB of text. */
bool names_add(struct names *n, const char *name);
int64_t names_find(const struct names *n, const char *name); /* its index, or NAMES_NONE */
const char *names_get(const struct names *n, int64_t index);
void names_free(struct names *n);

/* Whether the text ends so; each text ends with "". */
bool ends_with(const char *text, const char *end);

#endif
