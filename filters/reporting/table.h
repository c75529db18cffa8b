/* table - training runs side by side: adapter, how many parameters, when it stopped, what the best one
 * reached. */
#ifndef REPORTING_TABLE_H
#define REPORTING_TABLE_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

/* {"run":name,"adapter":{..},"objective","parameters","step_s","steps","finished","best_val_loss","best_step","gain","gain_se",
 * "computed_on":[{"step","on"}]}
 * from what train-step left in the folder: state.safetensors, and best.safetensors, without which the last
 * four before "computed_on" are null. computed_on: devices, each from after that step on; empty where the state
 * does not tell. gain: how much lower the best evaluation is than the first, with its standard error over the
 * triples. A new object; NULL with the reason in err. */
json_t *table_row(const char *name, const char *folder, char *err, size_t errlen);

/* The settings that a run's state keeps, a new object; NULL with the reason in err. */
json_t *table_config(const char *folder, char *err, size_t errlen);

/* A list of rows for people, as lists of texts under a heading, new; and as aligned columns. */
json_t *table_texts(const json_t *rows);
void table_print(FILE *out, const json_t *rows);
/* Sentences about the runs that were begun on one device and went on on another, and about those whose best adapter is the
 * untrained one; a new list, it may be empty. */
json_t *table_notes(const json_t *rows);

#endif
