/* sheet - a contact sheet: one row a video, evenly spread frames side by side, as a PNG. */
#ifndef FORMATS_SHEET_H
#define FORMATS_SHEET_H

#include <stdio.h>

#include "formats/tensor.h"

enum { SHEET_ROWS = 40, SHEET_COLUMNS = 8, SHEET_CELL = 192 /* pixels wide, the gap included */ };

struct sheet {
    uint8_t *rgb; /* [height, SHEET_COLUMNS * SHEET_CELL, 3], grown row by row */
    int height, rows;
};

/* Adds a row for video, U8 [F,H,W,3], shrunk or stretched to the cells' width at its own aspect; after
 * SHEET_ROWS rows there is nothing more to do. false with the reason in err. */
bool sheet_add(struct sheet *s, const struct tensor *video, char *err, size_t errlen);
bool sheet_add_file(struct sheet *s, const char *path, char *err, size_t errlen); /* of a video file */
/* Writes what was gathered, at least one row, to path: atomically, the same pixels as the same bytes. */
bool sheet_write(const struct sheet *s, const char *path, char *err, size_t errlen);
bool sheet_put(const struct sheet *s, FILE *f, char *err, size_t errlen); /* the same bytes to a stream */
void sheet_free(struct sheet *s);

#endif
