/* page - a report of an experiment, laid out: as an HTML page (formats/html.h) that needs nothing else, as
 * text, as JSON. */
#ifndef REPORTING_PAGE_H
#define REPORTING_PAGE_H

#include <stdio.h>

#include "filters/reporting/pairing.h"

struct report {
    const char *title;
    struct scores scores;
    struct pairing pairing; /* of the scores */
    json_t *comparison;     /* of comparison.h */
    json_t *training;       /* a list of table.h's rows */
    json_t *budget;         /* of budget.h; NULL: not known */
    json_t *prompts;        /* a list: those whose videos are shown on a page, in that order */
    const char *path;       /* of the page, to which links are relative; NULL: the current folder */
    int64_t embed;          /* bytes: a video of at most so many is in the page, a larger one is linked */
};

/* Called for every video that is shown. why: NULL, or the reason why it cannot be read, which the page prints
 * in its place. */
typedef void page_told(const char *path, const char *why);

/* Tables, the two charts (charts.h) drawn by gnuplot, the videos of each prompt side by side, to be played, and eight
 * frames of each, how the videos were made; tables of settings are folded.
 * false with the reason in err: gnuplot is not there, no memory. Here and below the caller checks f for
 * failed writes. */
bool page_html(FILE *f, const struct report *r, page_told *told, char *err, size_t errlen);

/* The same tables. */
void page_text(FILE *f, const struct report *r);

/* {"version", "comparison", "training", "budget", "misfits": those of settings.h,
 * "provenance": {run: variant.ways of scores.h}} */
void page_json(FILE *f, const struct report *r);

#endif
