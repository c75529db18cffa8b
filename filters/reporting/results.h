/* results - scores in the layout of the published results, one JSON object. */
#ifndef REPORTING_RESULTS_H
#define REPORTING_RESULTS_H

#include "filters/reporting/pairing.h"

/* A new object; NULL with the reason in err: a prompt has repeats, which that layout cannot hold.
 *
 *   benchmark, n_prompts, autograder, inference_settings, training, metric_definitions;
 *   prompts: [{id, caption, action, and key where it is not the id}];
 *   variants: {name: {label, params_M, step_s, joint_pct, pc_mean, sa_mean, pc_ge4_pct, sa_ge4_pct,
 *                     joint_per_prompt, sa_per_prompt, pc_per_prompt, delta_joint_vs_base_pp}}
 *
 * Other fields of published results that were read are kept. Otherwise inference_settings come from the
 * base's first line. Unknown values are null. Percentages and means are computed from the lists. */
json_t *results_make(const struct pairing *p, char *err, size_t errlen);

/* What runs' folders tell of their training, for results_make: params_M and step_s of each, and in `training` what
 * they have in common. A folder's run is the one of the folder's name. data: what it was done on, in words, and
 * the store of that; either may be NULL. false with the reason in err: a folder is no run's, or of no variant. */
bool results_tell_training(struct scores *s, const char *const *folder, int count, const char *data,
                           const char *store, char *err, size_t errlen);

/* Each run's scores as upstream's driver writes them (formats/graded.h), in their order, to
 * FOLDER/RUN/scores_sa.csv and scores_pc.csv. false with the reason in err. */
bool results_write_tables(const struct scores *s, const char *folder, char *err, size_t errlen);

#endif
