/* comparison - runs compared with one of them, the base: what `compare` prints. */
#ifndef REPORTING_COMPARISON_H
#define REPORTING_COMPARISON_H

#include "filters/reporting/pairing.h"

#include <stdio.h>

/* Leaves of s the prompts that each FIELD=VALUE chooses, scores_keep() says how. A new object of them, {field:
 * value}, to be "where" in the comparison; NULL with the reason in err. */
json_t *comparison_choose(struct scores *s, const char *const *where, int count, char *err, size_t errlen);

/* A new object; NULL when out of memory:
 *
 *   {"n": prompts, "base": name, "seed", "resamples", "left_out": unpaired prompts, "variants": {name:
 *     {"scores": of the n prompts, more when they have repeats, "joint_pct", "sa_mean", "pc_mean",
 *      "sa_ge4_pct", "pc_ge4_pct", "ci": {"joint_pct": [low, high], "sa_mean": .., "pc_mean": ..},
 *      "joint_interval": "bootstrap", or "wilson" where none or all of the prompts have Joint, and
 *      of all but the base "vs_base":
 *        {"joint": {"b", "c", "p_exact", "chi2", "p_chi2", "p_holm", "delta_pp", "ci_low_pp", "ci_high_pp",
 *                   "detectable_pp": or null},
 *         "sa": {"delta", "ci_low", "ci_high"}, "pc": {..}, and where both have expected scores
 *         "sa_expected": {..}, "pc_expected": {..}}}}}
 *
 * b counts the prompts on which only the base has both scores at 4 or more, c those on which only the variant
 * has; with repeats, those where the one has it more often than the other, so that the test is a sign test
 * over prompts. p_holm is p_exact corrected for the number of variants. Intervals are bootstrap()'s; of a share
 * of 0 or 1 that one has no width, and wilson()'s is given. */
json_t *comparison_make(const struct pairing *p, int64_t resamples, uint64_t seed);

/* Adds the same for each group of prompts that have one value of a field:
 *
 *   "by": {"field": name, "tests": how many p_exact there are in all groups,
 *          "groups": [{"value": a text, or null: of the prompts without one, "n", "variants": as above}]}
 *
 * Here p_holm is corrected for all of these tests. Groups are in the order of their values: numbers by size, or
 * texts by their bytes; null comes last. false with the reason in err: the field is none, or not one for all runs
 * (scores.h), or has more than 200 values; no memory. */
bool comparison_add_groups(json_t *comparison, const struct pairing *p, const char *field, char *err,
                           size_t errlen);

/* Whether this is such an object, say one from a file: its base is one of the variants, each has its values,
 * each but the base its differences. (seed, resamples, left_out, scores, ci, detectable_pp and expected
 * scores may be absent.) false with what is missing in err. */
bool comparison_check(const json_t *comparison, char *err, size_t errlen);

/* The same for people, as tables: lists of rows of texts, the heading first. A table of the runs; with more
 * than one run, a table of the differences in Joint and one of those in SA and PC; with expected scores, one
 * of their differences. */
json_t *comparison_tables(const json_t *comparison);
/* The same tables of all groups, the group's value in front; NULL when there are no groups. */
json_t *comparison_group_tables(const json_t *comparison);
/* A new text: " with kind=fall and colour=red", as its "where" has it; "" of all prompts. */
json_t *comparison_where(const json_t *comparison);
/* What has to be known to read the tables, a new text for each note: what W is, what p Holm of groups is. */
json_t *comparison_notes(const json_t *comparison);
void comparison_print(FILE *out, const json_t *comparison);

#endif
