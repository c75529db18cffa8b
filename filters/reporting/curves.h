/* curves - training runs as a picture of four panels: training loss, validation loss, learning rate, gradient
 * norm. */
#ifndef REPORTING_CURVES_H
#define REPORTING_CURVES_H

#include "formats/gnuplot.h"
#include "formats/metrics.h"

struct curve {
    const char *path;
    char name[256]; /* in the legend */
    struct metrics m;
};

/* Names them by their paths' last parts: the folder's, or the file's without its ending. Runs of one name get
 * their whole paths. */
void name_curves(struct curve *run, int runs);

/* The gnuplot script (formats/gnuplot.h) of all runs in one picture of so many pixels. The main panel is the validation
 * loss, or the training loss where there was no evaluation. Training loss and gradient norm are drawn as their running
 * mean, of one or two runs also raw and faint, on a logarithmic axis unless a value forbids it. gnuplot_draw() reports
 * a script that could not be written. */
void curves_script(FILE *script, enum gnuplot_format format, int64_t width, int64_t height,
                   const struct curve *run, int runs);

#endif
