/* charts - a comparison (comparison.h) as pictures: a row for each run, side by side Joint, SA and PC. */
#ifndef REPORTING_CHARTS_H
#define REPORTING_CHARTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum chart { CHART_BARS, CHART_FOREST };

/* The gnuplot script (formats/gnuplot.h) of a picture, PNG or SVG, of so many pixels. Bars: each run's
 * values. Forest: how the others differ from the base, for which there must be others; differences that are
 * too small to be shown with a power of 80 % are shaded. Both with 95 % intervals. The comparison has passed
 * comparison_check(). gnuplot_draw() reports a script that could not be written. */
void chart_script(FILE *script, enum chart chart, bool svg, int64_t width, int64_t height,
                  const json_t *comparison);

int chart_rows(enum chart chart, const json_t *comparison);
int64_t chart_height(int rows); /* in pixels, for so many rows */

#endif
