/* page - what a report says of a comparison, in HTML (formats/html.h). */
#ifndef STATS_PAGE_H
#define STATS_PAGE_H

#include <jansson.h>
#include <stdio.h>

#include "formats/scores.h"

struct picture {
    char *bytes;
    size_t size; /* 0: none */
};

/* The title and the results: tables, the two charts (charts.h) as SVG, and how it was computed. */
void page_results(FILE *f, const char *title, const json_t *comparison, const struct picture *bars,
                  const struct picture *forest);

/* How the adapters were trained (rows of table.h), and what all the work cost (budget.h); nothing where there
 * is none. */
void page_training(FILE *f, const json_t *rows);
void page_budget(FILE *f, const json_t *budget);

/* How the videos were made and graded: what differs between the runs, and what they share. */
void page_settings(FILE *f, const struct scores *s);

#endif
