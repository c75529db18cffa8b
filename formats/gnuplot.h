/* gnuplot - pictures drawn by the program gnuplot: without a shell, without file names; it writes to a pipe
 * alone. */
#ifndef FORMATS_GNUPLOT_H
#define FORMATS_GNUPLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum gnuplot_format { GNUPLOT_PNG, GNUPLOT_SVG, GNUPLOT_PDF };

/* The script's first line: a picture of so many pixels on white; of a PDF, 96 to the inch. Letters have `em` pixels;
 * 0: gnuplot_em(). PNG and PDF are cairo's. */
void gnuplot_terminal(FILE *script, enum gnuplot_format format, int64_t width, int64_t height, double em);
double gnuplot_em(enum gnuplot_format format);

/* How wide a text is, in em. An estimate that is seldom less than it is in DejaVu Sans, a wide font: gnuplot tells
 * nothing of the fonts that it finds. */
double gnuplot_width(const char *text);

/* A text that has more than `longest` characters or takes more than `room` em is cut between characters, and an ellipsis
 * stands for the rest. to has room for 4 bytes a character, and 4 more. */
void gnuplot_shorten(char *to, size_t size, const char *text, int longest, double room);

/* The smallest of 1, 2 and 5 times powers of ten that divides a range > 0 into at most so many steps. */
double gnuplot_step(double range, double most);

/* Any text as a gnuplot string, quotes included: what has a meaning to gnuplot is written as an octal escape,
 * control characters and bytes that are not UTF-8 as a question mark. */
void gnuplot_text(FILE *script, const char *text);

/* Runs a script (a file that can be rewound: tmpfile()) and writes what gnuplot draws to picture; a PDF without the
 * time at which it was drawn. false with the reason in err: gnuplot is not there, refuses the script (in its own words), or drew nothing; or the
 * picture cannot be written. */
bool gnuplot_draw(FILE *script, FILE *picture, char *err, size_t errlen);

#endif
