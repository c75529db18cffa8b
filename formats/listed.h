/* listed - for a message about a name that is none: what there is instead, and which of it was meant.
 *
 *   struct listed l = listed_start("lattents");
 *   for (..) listed_add(&l, name[i]);
 *   return fail(err, errlen, "no tensor `%s`: %s", wrong, listed_end(&l));
 *                                      "did you mean `latents`? there are latents, prompt_embeds" */
#ifndef FORMATS_LISTED_H
#define FORMATS_LISTED_H

#include <jansson.h>
#include <stddef.h>

enum { LISTED_ROOM = 160 }; /* bytes of names; those that come when it is full are counted */

struct listed {
    const char *wrong;
    size_t count, shown, distance; /* distance: of the nearest */
    char nearest[64], names[LISTED_ROOM], text[LISTED_ROOM + 160];
};

/* wrong: what was asked for, which must outlive l; "" or NULL: nothing was, so there is no nearest. */
struct listed listed_start(const char *wrong);
void listed_add(struct listed *l, const char *name); /* NULL is left out */
void listed_keys(struct listed *l, const json_t *object);
void listed_words(struct listed *l, const char *words); /* separated by | */
/* What lies in a folder and ends so, in the order of its bytes; nothing of a folder that cannot be read. */
void listed_folder(struct listed *l, const char *folder, const char *ending);

/* "there are a, b, c", "there are a, b and 12 more", "there is none"; before that "did you mean `b`?" when
 * no more than a third of the wrong name's letters, or one of two, would have to be put in, left out, changed or swapped with
 * their neighbour (Damerau-Levenshtein, capitals being equal to small letters), or when the one is the other's
 * beginning. Good until l goes. */
const char *listed_end(struct listed *l);
const char *listed_hint(struct listed *l); /* the same without the names: "; did you mean `b`?", or "" */

#endif
