/* dpm - SDE-DPM-Solver++ (2M), as CogVideoXDPMScheduler: always stochastic. */
#include <math.h>

#include "filters/learning/schedulers.h"

static bool takes(int64_t steps, char *err, size_t errlen)
{
    return trailing_takes("dpm", steps, err, errlen);
}

static double log_snr_half(double a)
{
    return log(a / (1 - a)) / 2;
}

/* Lu et al. 2022, SDE-DPM-Solver++ (2M), in the logarithm λ of the signal-to-noise ratio:
 *   x' = m1 x - m2 D + mn n,  D = x0 at first order, m3 x0 - m4 x0' at second.
 * At the ends ᾱ is 0 and 1, λ infinite, and the limits come out right by IEEE rules: e^-∞ = 0. */
static struct scheduler_step step(const struct scheduler *s, int k)
{
    bool first_order = k == 0 || k == s->steps - 1;
    double a = trailing_alpha_bar(s, k), a_next = trailing_alpha_bar(s, k + 1);
    double h = log_snr_half(a_next) - log_snr_half(a);
    double m1 = sqrt((1 - a_next) / (1 - a)) * exp(-h), m2 = expm1(-2 * h) * sqrt(a_next), m3 = 1, m4 = 0;
    if (!first_order) {
        /* infinite when the step before began at pure noise */
        double r = (log_snr_half(a) - log_snr_half(trailing_alpha_bar(s, k - 1))) / h;
        m3 = 1 + 1 / (2 * r);
        m4 = 1 / (2 * r);
    }
    struct scheduler_step c = {.x0_x = sqrt(a), .x0_v = -sqrt(1 - a), .draws = first_order ? 1 : 2};
    c.next_x = m1 - m2 * m3 * c.x0_x;
    c.next_v = -m2 * m3 * c.x0_v;
    c.next_x0 = m2 * m4;
    c.next_n = sqrt(1 - a_next) * sqrt(-expm1(-2 * h));
    return c;
}

const struct scheduler_kind scheduler_dpm = {
    .name = "dpm", .takes = takes, .timestep = trailing_timestep, .step = step};
