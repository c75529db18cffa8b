/* csv - tables as spreadsheets and data sets write them: RFC 4180 with a header row, read as a stream; and a
 * field to write.
 *
 * Quoted fields may hold commas, doubled quotes and line ends. Spaces belong to the field. LF, CR LF and CR
 * end a line; empty lines and a byte order mark at the start are skipped. What RFC 4180 does not allow makes
 * a bad row: a quote inside an unquoted field, anything but a comma after a closing quote, a file that ends
 * inside quotes. Reading goes on at the next line, so that a broken quote does not swallow other rows; where
 * a quoted field of the bad row goes on there, it is most likely bad again. */
#ifndef FORMATS_CSV_H
#define FORMATS_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CSV_MAX_ROW = 16 << 20 }; /* bytes; a larger row is most likely a quote that is never closed */

struct csv {
    int columns;
    char **column; /* the header's names */
    char **field;  /* the latest row: `columns` strings, good until the next csv_next() */
    int64_t line;  /* where that row starts, from 1 */
    char error[256];
    struct csv_state *state;
};

/* Reads the header from fd. NULL with the reason in err: no header or a damaged one, a column that is there
 * twice. Every reason starts with the line, "line 1: ". Does not close fd. */
struct csv *csv_open(int fd, char *err, size_t errlen);
void csv_close(struct csv *c); /* NULL is fine */

enum csv_got {
    CSV_DAMAGED = -1, /* nothing more can be read, or there is no memory: c->error has line and reason */
    CSV_END = 0,
    CSV_ROW = 1,
    CSV_BAD_ROW = 2, /* a quote out of place, more or fewer fields than columns, a zero byte, not UTF-8:
                        c->error has line and reason; reading may go on */
};
enum csv_got csv_next(struct csv *c);

/* The column's index, or -1. A space and an underscore are equal: "motion score" finds motion_score. */
int csv_column(const struct csv *c, const char *name);

/* Its index into *at, or false with the reason in err: "line 1: no column `x`: ", and which there are. */
bool csv_need(const struct csv *c, const char *name, int *at, char *err, size_t errlen);

/* What pandas takes for a missing cell unless told otherwise: "", "NA", "None", "null", .. */
bool csv_missing(const char *field);

/* A plain finite decimal number and nothing else; false leaves *value alone. */
bool csv_number(const char *field, double *value);

/* Writes a field: in quotes, its own doubled, when it holds a comma, a quote or a line end, and only then. A
 * write that fails is for the caller to notice. */
void csv_put(FILE *f, const char *field);

#endif
