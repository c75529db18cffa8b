/* paired: McNemar against published and independent values, Holm, the bootstrap against the exact
 * distribution that it samples, and the detectable difference against the power it promises. */
#include <string.h>

#include "filters/reporting/paired.h"
#include "tests/tap.h"

static bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(1, fabs(b));
}

static double choose_log(double n, double k)
{
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1);
}

/* P(K = k) of a binomial draw */
static double binomial(int n, int k, double p)
{
    return exp(choose_log(n, k) + k * log(p) + (n - k) * log1p(-p));
}

static void test_mcnemar(void)
{
    static const struct {
        int b, c;
        double exact, chi2, p_chi2;
    } known[] = {{3, 10, 0.09228515625, 2.769230769, 0.0960923295},
                 {5, 5, 1, 0, 1},
                 {0, 6, 0.03125, 4.166666667, 0.0412268333},
                 {40, 25, 0.0816815339, 3.015384615, 0.0824778875},
                 {1, 0, 1, 0, 1},
                 {300, 240, 0.0110504811, 6.446296296, 0.0111183885},
                 {0, 0, 1, 0, 1}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct mcnemar m = mcnemar(known[i].b, known[i].c), back = mcnemar(known[i].c, known[i].b);
        ok(near(m.p_exact, known[i].exact, 1e-9) && near(m.chi2, known[i].chi2, 1e-9) &&
               near(m.p_chi2, known[i].p_chi2, 1e-9),
           "McNemar of %d and %d: %.12g, %.12g, %.12g", known[i].b, known[i].c, m.p_exact, m.chi2, m.p_chi2);
        ok(!memcmp(&m, &back, sizeof m), "the same the other way round");
    }
    double worst = 0;
    for (int m = 1; m <= 600; m += m < 40 ? 1 : 37)
        for (int b = 0; b <= m; b++) {
            double sum = 0;
            for (int k = 0; k <= (b < m - b ? b : m - b); k++) sum += binomial(m, k, 0.5);
            worst = fmax(worst, fabs(mcnemar(b, m - b).p_exact - fmin(1, 2 * sum)));
        }
    ok(worst < 1e-11, "the exact p is a sum of binomial probabilities, %.1g apart", worst);
    double p = mcnemar(50000, 51000).p_exact; /* 2^-m is no double any more; normal approximation */
    ok(near(p, erfc((1000 - 1) / sqrt(101000.0) / sqrt(2)), 1e-5),
       "a hundred thousand discordant pairs: p %.6g", p);
    p = mcnemar(10, 100000).p_exact;
    ok(p >= 0 && p < 1e-300, "all of them on one side: p %g", p);
}

static void test_holm(void)
{
    double p[] = {0.04, 0.01, 0.03, 0.5, 0.01}, want[] = {0.09, 0.05, 0.09, 0.5, 0.05}, one = 0.3;
    bool good = holm(p, p, 5);
    for (int i = 0; i < 5; i++) good = good && near(p[i], want[i], 1e-12);
    ok(good, "Holm: %.3g %.3g %.3g %.3g %.3g", p[0], p[1], p[2], p[3], p[4]);
    double high[] = {0.9, 0.8};
    ok(holm(high, high, 2) && high[0] == 1 && high[1] == 1, "not above 1");
    ok(holm(&one, &one, 1) && one == 0.3 && holm(NULL, NULL, 0), "one test is left as it is, none is none");
}

/* The distribution of the sum of n draws from a population of b times -1, c times +1 and
 * zeros: sum[n + s]. */
static void exact_sums(double *sum, int n, int b, int c)
{
    double *next = calloc((size_t)(2 * n + 1), sizeof *next), down = (double)b / n, up = (double)c / n;
    memset(sum, 0, (size_t)(2 * n + 1) * sizeof *sum);
    sum[n] = 1;
    for (int draw = 0; draw < n; draw++) {
        for (int s = 0; s <= 2 * n; s++)
            next[s] =
                sum[s] * (1 - down - up) + (s ? sum[s - 1] * up : 0) + (s < 2 * n ? sum[s + 1] * down : 0);
        memcpy(sum, next, (size_t)(2 * n + 1) * sizeof *sum);
    }
    free(next);
}

/* The interval's ends are quantiles of 5000 draws: the exact distribution has its 2.5 % and 97.5 % within
 * five standard errors of there. */
static bool fits(const double *sum, int n, struct interval ci)
{
    double low = 0, high = 0, se = 5 * sqrt(0.025 * 0.975 / 5000);
    int from = (int)lround(floor(ci.low * n)), to = (int)lround(ceil(ci.high * n));
    double below_low = 0, below_high = 0;
    for (int s = -n; s <= n; s++) {
        if (s < from) below_low += sum[n + s];
        if (s <= from) low += sum[n + s];
        if (s < to) below_high += sum[n + s];
        if (s <= to) high += sum[n + s];
    }
    return below_low < 0.025 + se && low > 0.025 - se && below_high < 0.975 + se && high > 0.975 - se;
}

static void test_bootstrap(void)
{
    enum { N = 591, R = 5000 };
    static const int discordant[][2] = {{3, 10}, {5, 5}, {0, 6}, {40, 25}, {17, 16}, {300, 240}, {12, 17}};
    static double value[N * 3], sum[2 * N + 1];
    struct interval ci[3], again[3], other[3];
    bool inside = true, wide = true, exact = true;
    for (size_t i = 0; i < sizeof discordant / sizeof *discordant; i++) {
        int b = discordant[i][0], c = discordant[i][1], m = b + c;
        for (int k = 0; k < N; k++) {
            value[3 * k] = k < b ? -1 : k < m ? 1 : 0;
            value[3 * k + 1] = 0;
            value[3 * k + 2] = 2 * value[3 * k];
        }
        double mean = (double)(c - b) / N, se = sqrt((double)m / N - mean * mean) / sqrt(N);
        if (!bootstrap(ci, value, N, 3, R, 42)) exit(1);
        inside = inside && ci->low <= mean && mean <= ci->high;
        /* quantiles lie on a grid of 1/n, so that of a few pairs no width can be within 10 % */
        wide = wide && fabs((ci->high - ci->low) / (2 * 1.96 * se) - 1) < (m > 20 ? 0.1 : 0.25);
        exact_sums(sum, N, b, c);
        exact = exact && fits(sum, N, ci[0]);
    }
    ok(inside, "the interval holds the estimate");
    ok(wide, "and is as wide as 2 x 1.96 standard errors, within 10 %%");
    ok(exact, "its ends are the quantiles of the exact distribution, a convolution of the data");
    ok(ci[1].low == 0 && ci[1].high == 0, "no difference at all: [0, 0]");
    ok(near(ci[2].low, 2 * ci[0].low, 1e-14) && near(ci[2].high, 2 * ci[0].high, 1e-14),
       "a series of twice the values has twice the interval: the resamples are the same");
    bool good = bootstrap(again, value, N, 3, R, 42) && bootstrap(other, value, N, 3, R, 43);
    ok(good && !memcmp(ci, again, sizeof ci) && memcmp(ci, other, sizeof ci),
       "a seed is an interval, another another");
    static double alone[N];
    for (int k = 0; k < N; k++) alone[k] = value[3 * k];
    good = bootstrap(again, alone, N, 1, R, 42);
    ok(good && !memcmp(ci, again, sizeof *ci), "it does not depend on what else is resampled");

    double one = 3, four[] = {1, 2, 3, 4};
    ok(bootstrap(ci, &one, 1, 1, 100, 1) && ci->low == 3 && ci->high == 3, "one prompt");
    ok(bootstrap(ci, four, 4, 1, 1, 1) && ci->low == ci->high && ci->low >= 1 && ci->low <= 4,
       "one resample");
}

/* Of the test |c - b| / sqrt(m) > 1.96, which the formula is about. */
static double power(int n, double discordant, double delta)
{
    double p = 0, up = (discordant + delta) / (2 * discordant);
    for (int m = 1; m <= n; m++) {
        double of_m = binomial(n, m, discordant);
        for (int c = 0; of_m > 1e-9 && c <= m; c++)
            if (fabs(2.0 * c - m) / sqrt(m) > 1.959964) p += of_m * binomial(m, c, up);
    }
    return p;
}

static void test_detectable(void)
{
    static const struct {
        int n;
        double discordant;
    } cases[] = {{591, 33.0 / 591}, {591, 0.2}, {591, 0.5}, {2000, 0.02}, {200, 0.3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = cases[i].n;
        double psi = cases[i].discordant, d = detectable_difference(n, psi), p = power(n, psi, d);
        ok(fabs(p - 0.8) < 0.025, "%d prompts, %.3g of them discordant: %.4f is found with a power of %.3f",
           n, psi, d, p);
        double back = pow((1.959963984540054 * sqrt(psi) + 0.8416212335729143 * sqrt(psi - d * d)) / d, 2);
        ok(near(back, n, 1e-9), "and the formula gives %.6f prompts back", back);
    }
    ok(isnan(detectable_difference(591, 0)) && isnan(detectable_difference(591, 3.0 / 591)),
       "with no or three discordant pairs there is none");
}

/* Against statsmodels 0.15's proportion_confint(passed, n, 0.05, "wilson"), and the closed forms of none and all. */
static void test_wilson(void)
{
    static const struct {
        double passed, n, low, high;
    } cases[] = {{0, 10, 0, 0.2775327998628893},
                 {3, 10, 0.107791267406301, 0.6032218525388546},
                 {10, 10, 0.7224672001371106, 1},
                 {24, 24, 0.8620237953250198, 1},
                 {142, 591, 0.20757286888231, 0.2763232257028851}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct interval ci = wilson(cases[i].passed, cases[i].n);
        ok(fabs(ci.low - cases[i].low) < 1e-14 && fabs(ci.high - cases[i].high) < 1e-14,
           "Wilson's interval of %g of %g: [%.16g, %.16g]", cases[i].passed, cases[i].n, ci.low, ci.high);
    }
    double z2 = 1.959963984540054 * 1.959963984540054;
    for (int n = 1; n < 2000; n *= 3)
        ok(wilson(0, n).low == 0 && near(wilson(0, n).high, z2 / (n + z2), 1e-14) && wilson(n, n).high == 1 &&
               near(wilson(n, n).low, n / (n + z2), 1e-14),
           "none and all of %d", n);
}

int main(void)
{
    test_wilson();
    test_mcnemar();
    test_holm();
    test_bootstrap();
    test_detectable();
    return done();
}
