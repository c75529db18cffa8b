/* columns - rows of text for people, under a heading. */
#ifndef FORMATS_COLUMNS_H
#define FORMATS_COLUMNS_H

#include <jansson.h>
#include <stdio.h>

/* rows: lists of texts, all of one length, the heading first. The first `left` columns are set to the left,
 * the others, numbers, to the right; all as put_plain() does. */
void columns_print(FILE *out, const json_t *rows, size_t left);

#endif
