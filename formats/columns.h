/* columns - text for people: what comes from outside, and rows of it under a heading. */
#ifndef FORMATS_COLUMNS_H
#define FORMATS_COLUMNS_H

#include <jansson.h>
#include <stdio.h>

/* Text from outside (keys, names): a ? for each control character, so that it can neither end a line nor move
 * a terminal's cursor. */
void put_plain(FILE *out, const char *text);

/* rows: lists of texts, all of one length, the heading first. The first `left` columns are set to the left,
 * the others, numbers, to the right; all as put_plain() does. */
void columns_print(FILE *out, const json_t *rows, size_t left);

#endif
