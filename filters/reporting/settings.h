/* settings - how the videos of several runs were made and graded, as tables. */
#ifndef REPORTING_SETTINGS_H
#define REPORTING_SETTINGS_H

#include "formats/scores.h"

/* What the inputs say (variant.about, scores.about), one row for each value, by its path: sample.steps,
 * sample.adapters.0.rank. shared gets the rows [name, value] of those that all runs have alike, and of what
 * published results say of themselves; differing the rows [name, value of each run], where an absent one is
 * "-". A run whose videos were not all made alike has several values in one text, with commas between. Both
 * are new and start with a heading. */
void settings_tables(const struct scores *s, json_t **shared, json_t **differing);

/* A sentence for every run whose adapters were trained with an objective that its scheduler does not read: what
 * fits which. A new list of texts, empty when all fit. */
json_t *settings_misfits(const struct scores *s);

#endif
