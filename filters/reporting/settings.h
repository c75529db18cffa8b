/* settings - how the videos of several runs were made and graded, as tables. */
#ifndef REPORTING_SETTINGS_H
#define REPORTING_SETTINGS_H

#include "formats/scores.h"

/* The settings in the inputs (variant.about, scores.about), one row for each value, named by its path, such
 * as sample.steps or sample.adapters.0.rank. shared gets the rows [name, value] of values that all runs
 * share, and of published results' own fields. differing gets the rows [name, value of each run], with "-"
 * for an absent value. If the videos of a run were made with different values, they stand in one text, with
 * commas between. Both lists are new and start with a heading. */
void settings_tables(const struct scores *s, json_t **shared, json_t **differing);

/* A sentence for every run whose adapters were trained with an objective that its scheduler does not read: what
 * fits which. A new list of texts, empty when all fit. */
json_t *settings_misfits(const struct scores *s);

/* Whether all videos, as far as their lines say how they were sampled, were approximated alike: with the same
 * compute-steps and guidance-steps, or none, and all or none with dtype fp8. false: two that differ, in err. */
bool settings_approximate_alike(const struct scores *s, char *err, size_t errlen);

#endif
