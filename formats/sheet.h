/* sheet - a contact sheet: one row a video, evenly spread frames side by side, as a PNG; perhaps with words above it. */
#ifndef FORMATS_SHEET_H
#define FORMATS_SHEET_H

#include <stdio.h>

#include "formats/tensor.h"

enum { SHEET_ROWS = 40, SHEET_COLUMNS = 8, SHEET_CELL = 192 /* pixels wide, the gap included */ };

struct sheet {
    uint8_t *rgb; /* [height, SHEET_COLUMNS * SHEET_CELL, 3], grown row by row */
    int height, rows;
    struct sheet_words {
        char *labels; /* gnuplot's commands */
        size_t size;
        int count, height;                           /* of labels; in pixels */
        int bands, at[SHEET_ROWS], tall[SHEET_ROWS]; /* where in rgb they belong */
    } words;
};

/* Words above the next row: key to the left, about to the right of it, and below them at most three lines of
 * caption; longer ones are cut, and what no font here has becomes a question mark. caption may be NULL. false with the reason in err: no memory. */
bool sheet_caption(struct sheet *s, const char *key, const char *about, const char *caption, char *err,
                   size_t errlen);
/* Whether words can be drawn here, which gnuplot does; false with the reason in err. */
bool sheet_words_ready(char *err, size_t errlen);

/* Adds a row for video, U8 [F,H,W,3], shrunk or stretched to the cells' width at its own aspect; after
 * SHEET_ROWS rows there is nothing more to do. false with the reason in err. */
bool sheet_add(struct sheet *s, const struct tensor *video, char *err, size_t errlen);
bool sheet_add_file(struct sheet *s, const char *path, char *err, size_t errlen); /* of a video file */
/* Writes what was gathered, at least one row, to path: atomically, the same pixels as the same bytes. */
bool sheet_write(struct sheet *s, const char *path, char *err, size_t errlen);
bool sheet_put(struct sheet *s, FILE *f, char *err, size_t errlen); /* the same bytes to a stream */
void sheet_free(struct sheet *s);

#endif
