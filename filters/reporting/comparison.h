/* comparison - runs compared with one of them, the base: what `compare` prints. */
#ifndef REPORTING_COMPARISON_H
#define REPORTING_COMPARISON_H

#include "filters/reporting/pairing.h"

#include <stdio.h>

/* A new object; NULL when out of memory:
 *
 *   {"n": prompts, "base": name, "seed", "resamples", "left_out": unpaired prompts, "variants": {name:
 *     {"scores": of the n prompts, more when they have repeats, "joint_pct", "sa_mean", "pc_mean",
 *      "sa_ge4_pct", "pc_ge4_pct", "ci": {"joint_pct": [low, high], "sa_mean": .., "pc_mean": ..},
 *      and of all but the base "vs_base":
 *        {"joint": {"b", "c", "p_exact", "chi2", "p_chi2", "p_holm", "delta_pp", "ci_low_pp", "ci_high_pp",
 *                   "detectable_pp": or null},
 *         "sa": {"delta", "ci_low", "ci_high"}, "pc": {..}, and where both have expected scores
 *         "sa_expected": {..}, "pc_expected": {..}}}}}
 *
 * b counts the prompts on which only the base has both scores at 4 or more, c those on which only the variant
 * has; with repeats, those where the one has it more often than the other, so that the test is a sign test
 * over prompts. p_holm is p_exact corrected for the number of variants. Intervals are bootstrap()'s. */
json_t *comparison_make(const struct pairing *p, int64_t resamples, uint64_t seed);

/* Whether this is such an object, say one from a file: its base is one of the variants, each has its values,
 * each but the base its differences. (seed, resamples, left_out, scores, ci, detectable_pp and expected
 * scores may be absent.) false with what is missing in err. */
bool comparison_check(const json_t *comparison, char *err, size_t errlen);

/* The same for people, as tables: lists of rows of texts, the heading first. A table of the runs; with more
 * than one run, a table of the differences in Joint and one of those in SA and PC; with expected scores, one
 * of their differences. */
json_t *comparison_tables(const json_t *comparison);
void comparison_print(FILE *out, const json_t *comparison);

#endif
