#include "formats/names.h"

#include <stdlib.h>
#include <string.h>

#include "formats/hash.h"

bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static uint64_t hash_of(const char *name)
{
    uint64_t h = hash_more(HASH_START, name, strlen(name));
    return h ^ h >> 32;
}

const char *names_get(const struct names *n, int64_t index)
{
    return n->text + n->start[index];
}

/* The slot that has the name, or the empty one where it belongs. */
static size_t slot_of(const struct names *n, const char *name)
{
    size_t at = hash_of(name) & (n->slots - 1);
    while (n->slot[at] && strcmp(names_get(n, n->slot[at] - 1), name)) at = (at + 1) & (n->slots - 1);
    return at;
}

int64_t names_find(const struct names *n, const char *name)
{
    return n->slots ? (int64_t)n->slot[slot_of(n, name)] - 1 : NAMES_NONE;
}

static bool grow(void *row, size_t *room, size_t need, size_t size)
{
    if (need <= *room) return true;
    size_t more = need > 2 * *room ? need + 64 : 2 * *room;
    void *grown = realloc(*(void **)row, more * size);
    if (!grown) return false;
    *(void **)row = grown;
    *room = more;
    return true;
}

/* Twice as many slots; the names find their places anew. */
static bool more_slots(struct names *n)
{
    size_t slots = n->slots ? 2 * n->slots : 256;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (!slot) return false;
    free(n->slot);
    n->slot = slot;
    n->slots = slots;
    for (int64_t i = 0; i < n->count; i++) slot[slot_of(n, names_get(n, i))] = (uint32_t)i + 1;
    return true;
}

bool names_add(struct names *n, const char *name)
{
    size_t length = strlen(name) + 1;
    if (n->used + length > UINT32_MAX || !grow(&n->text, &n->room, n->used + length, 1) ||
        !grow(&n->start, &n->starts, (size_t)n->count + 1, sizeof *n->start) ||
        (3 * ((size_t)n->count + 1) > 2 * n->slots && !more_slots(n)))
        return false;
    memcpy(n->text + n->used, name, length);
    n->start[n->count] = (uint32_t)n->used;
    n->used += length;
    n->slot[slot_of(n, name)] = (uint32_t)++n->count;
    return true;
}

void names_free(struct names *n)
{
    free(n->text);
    free(n->start);
    free(n->slot);
    *n = (struct names){0};
}
