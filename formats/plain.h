/* plain - text from files and users, made safe for a terminal. */
#ifndef FORMATS_PLAIN_H
#define FORMATS_PLAIN_H

#include <stdio.h>

/* Puts a `?` in the place of each control character (below U+0020, U+007F to U+009F, line and paragraph
 * separators), of each character that turns the order of the text around it (U+061C, U+200E, U+200F, U+202A
 * to U+202E, U+2066 to U+2069), and of each byte that is not UTF-8. */
void put_plain(FILE *out, const char *text);
void make_plain(char *text); /* the same in place; it never gets longer */

#endif
