/* gnuplot - pictures drawn by the program gnuplot: without a shell, without file names; it writes to a pipe
 * alone. */
#ifndef FORMATS_GNUPLOT_H
#define FORMATS_GNUPLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Any text as a gnuplot string, quotes included: what has a meaning to gnuplot is written as an octal escape,
 * control characters and bytes that are not UTF-8 as a question mark. */
void gnuplot_text(FILE *script, const char *text);

/* Runs a script (a file that can be rewound: tmpfile()) and writes what gnuplot draws to picture. false with
 * the reason in err: gnuplot is not there, refuses the script (in its own words), or drew nothing; or the
 * picture cannot be written. */
bool gnuplot_draw(FILE *script, FILE *picture, char *err, size_t errlen);

#endif
