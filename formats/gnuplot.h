/* gnuplot - pictures by the program of that name: no shell in between, no file names passed to it, nothing
 * written by it but what comes back through a pipe. */
#ifndef FORMATS_GNUPLOT_H
#define FORMATS_GNUPLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Any text as a gnuplot string, quotes included: whatever could mean something to gnuplot is written as an
 * octal escape, control characters and bytes that are not UTF-8 as a question mark. */
void gnuplot_text(FILE *script, const char *text);

/* Runs a script (a file that can be rewound: tmpfile()) and writes what gnuplot draws to picture. false with
 * the reason in err: gnuplot is not there, does not like the script (its own words), or drew nothing; or
 * picture cannot take it. */
bool gnuplot_draw(FILE *script, FILE *picture, char *err, size_t errlen);

#endif
