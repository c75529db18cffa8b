#include "filters/reporting/paired.h"

#include <math.h>
#include <stdlib.h>

#include "filters/lib/rng.h"

/* Sums C(m,k) from k = 0 up, where C(m,0) = 1; both are scaled down before they overflow, and 2^-m comes
 * last, so that any m will do. */
struct mcnemar mcnemar(int64_t b, int64_t c)
{
    int64_t m = b + c, least = b < c ? b : c, scale = -m;
    if (!m) return (struct mcnemar){1, 0, 1};
    double term = 1, sum = 1;
    for (int64_t k = 0; k < least; k++) {
        term *= (double)(m - k) / (double)(k + 1);
        sum += term;
        if (sum > 0x1p900) term *= 0x1p-900, sum *= 0x1p-900, scale += 900;
    }
    double excess = fmax(fabs((double)(b - c)) - 1, 0), chi2 = excess * excess / (double)m;
    double p = 2 * ldexp(sum, scale < -20000 ? -20000 : (int)scale); /* 0 from there on */
    return (struct mcnemar){fmin(1, p), chi2, erfc(sqrt(chi2 / 2))};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bool holm(double *adjusted, const double *p, int count)
{
    struct test {
        double p; /* first, as by_value() compares it */
        int index;
    } *order = calloc((size_t)count + 1, sizeof *order);
    if (!order) return false;
    for (int i = 0; i < count; i++) order[i] = (struct test){p[i], i};
    qsort(order, (size_t)count, sizeof *order, by_value);
    double largest = 0;
    for (int j = 0; j < count; j++) {
        largest = fmax(largest, fmin(1, (count - j) * order[j].p));
        adjusted[order[j].index] = largest;
    }
    free(order);
    return true;
}

static const double Z_ALPHA = 1.959963984540054, Z_BETA = 0.8416212335729143; /* of 1 - 0.05/2 and of 0.8 */

struct interval wilson(double passed, double n)
{
    double z = Z_ALPHA, p = passed / n, scale = 1 + z * z / n, middle = p + z * z / (2 * n);
    double half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    return (struct interval){passed <= 0 ? 0 : (middle - half) / scale,
                             passed >= n ? 1 : (middle + half) / scale};
}

/* Squared, the equation is quadratic in δ; its larger root also solves the equation before squaring. */
double detectable_difference(double n, double discordant)
{
    const double za = Z_ALPHA, zb = Z_BETA;
    double delta = sqrt(discordant) * (za * sqrt(n) + zb * sqrt(n + zb * zb - za * za)) / (n + zb * zb);
    return discordant > 0 && delta <= discordant ? delta : NAN;
}

/* D sorted, at h = (R-1) q: D[⌊h⌋] + (h - ⌊h⌋) (D[⌊h⌋+1] - D[⌊h⌋]) */
static double quantile(const double *sorted, int64_t count, double q)
{
    double h = (double)(count - 1) * q;
    int64_t at = (int64_t)h;
    double above = sorted[at + 1 < count ? at + 1 : at];
    return sorted[at] + (h - (double)at) * (above - sorted[at]);
}

bool bootstrap(struct interval *of, const double *value, size_t n, int count, int64_t resamples,
               uint64_t seed)
{
    double *mean = calloc((size_t)resamples * (size_t)count, sizeof *mean); /* [series][resample] */
    double *sum = calloc((size_t)count, sizeof *sum);
    bool good = mean && sum;
    for (int64_t r = 0; good && r < resamples; r++) {
        struct rng rng = rng_make(seed, "", "bootstrap", (uint64_t)r);
        for (int s = 0; s < count; s++) sum[s] = 0;
        for (size_t i = 0; i < n; i++) {
            const double *row = value + rng_below(&rng, i, n) * (size_t)count;
            for (int s = 0; s < count; s++) sum[s] += row[s];
        }
        for (int s = 0; s < count; s++) mean[s * resamples + r] = sum[s] / (double)n;
    }
    for (int s = 0; good && s < count; s++) {
        double *d = mean + s * resamples;
        qsort(d, (size_t)resamples, sizeof *d, by_value);
        of[s] = (struct interval){quantile(d, resamples, 0.025), quantile(d, resamples, 0.975)};
    }
    free(mean);
    free(sum);
    return good;
}
