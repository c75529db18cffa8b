/* paired - statistics of two runs on the same prompts: McNemar's test, the paired bootstrap, Holm's
 * correction, and the detectable difference. In double. */
#ifndef REPORTING_PAIRED_H
#define REPORTING_PAIRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* b prompts are passed by the base only, c by the variant only; prompts on which both agree do not enter
 * (McNemar 1947). Exact: min(1, 2 Σ_{k=0..min(b,c)} C(m,k) 2^-m), m = b + c, the two-sided sign test. chi2,
 * with continuity correction and one degree of freedom: max(|b-c| - 1, 0)² / m. All are 1, and chi2 0, when m
 * is 0. */
struct mcnemar {
    double p_exact, chi2, p_chi2;
};
struct mcnemar mcnemar(int64_t b, int64_t c);

/* Holm's (1979) adjusted p values of `count` tests, for the probability of any false rejection: sorted
 * upwards, max over j <= i of min(1, (count - j) p_j), j from 0. adjusted may be p. false: no memory. */
bool holm(double *adjusted, const double *p, int count);

/* The smallest difference of two paired rates that n prompts show with a power of 80 % at the 5 % level
 * (two-sided, unadjusted), where a part `discordant` of the prompts, in [0, 1], differs: the δ of
 *
 *   n = (z_α √ψ + z_β √(ψ - δ²))² / δ²,   ψ = discordant, z_α = 1.95996, z_β = 0.84162
 *
 * (Connor, Biometrics 43, 207-211, 1987), solved for it. NaN when there is none: δ cannot exceed ψ. */
double detectable_difference(double n, double discordant);

struct interval {
    double low, high;
};

/* The 95 % score interval of a share, passed of n > 0 in [0, n] (Wilson, JASA 22, 209-212, 1927):
 *
 *   (p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n),   p = passed / n, z = 1.95996
 *
 * Of none, [0, z²/(n + z²)]; of all, [n/(n + z²), 1]. */
struct interval wilson(double passed, double n);

/* 95 % percentile intervals of the means of `count` series over n prompts, value[prompt * count + series].
 * Each of the resamples draws n prompts with replacement, rng_below's i-th at position r, purpose
 * "bootstrap", and is the same for all series; quantiles are interpolated at (resamples - 1) q. false: no
 * memory. A series whose values are all equal gets an interval without width. */
bool bootstrap(struct interval *of, const double *value, size_t n, int count, int64_t resamples,
               uint64_t seed);

#endif
