/* charts - a comparison (comparison.h) as pictures: a row for each run, side by side Joint, SA and PC. */
#ifndef REPORTING_CHARTS_H
#define REPORTING_CHARTS_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "formats/gnuplot.h"

enum chart { CHART_BARS, CHART_FOREST };

/* The gnuplot script (formats/gnuplot.h) of a picture of so many pixels. Bars: each run's values. Forest: how the
 * others differ from the base, for which there must be others; differences that are too small to be shown with a power
 * of 80 % are shaded. Both with 95 % intervals, and with the numbers in a column beside them. The three panels stand
 * side by side where the width allows, else one below the other; names that are too long are cut, and letters are
 * smaller where there is no room for them. The comparison has passed comparison_check(). gnuplot_draw() reports a
 * script that could not be written. */
void chart_script(FILE *script, enum chart chart, enum gnuplot_format format, int64_t width, int64_t height,
                  const json_t *comparison);

int chart_rows(enum chart chart, const json_t *comparison);
/* In pixels: what it takes at this width. There is at least one row. */
int64_t chart_height(enum chart chart, const json_t *comparison, enum gnuplot_format format, int64_t width);

#endif
