/* unipc - UniPC (Zhao et al. 2023) of order 2 with B(h) = e^h - 1, along a flow, as UniPCMultistepScheduler: predict the
 * next sample, ask the network there, and with its answer correct the sample before the next prediction. */
#include <math.h>

#include "filters/learning/schedulers.h"

/* With more steps the second level would come up to the first one. */
static bool takes(int64_t steps, char *err, size_t errlen)
{
    return flow_takes("unipc", steps, TRAIN_TIMESTEPS, err, errlen);
}

/* Levels as the reference keeps them, in F32; at the first one, where a logarithm would be infinite, 1e-6 is missing. */
static double level(const struct scheduler *s, int k)
{
    return (float)(flow_level(s, k) - (k == 0 ? 1e-6 : 0));
}

/* The logarithm of the ratio of signal to noise; infinite at the clean end. */
static double lambda(double level)
{
    return log(1 - level) - log(level);
}

/* Of the prediction that starts at step k. */
static int order(const struct scheduler *s, int k)
{
    return k > 0 && k + 1 < s->steps ? 2 : 1;
}

/* x = (s/s') x' - (1 - s) B (x0' + ρ0 (x0'' - x0')/r + ρ1 (x0 - x0')), from the level s' of the step before; at order 1
 * ρ0 = 0 and ρ1 = 1/2, at order 2 they solve the conditions of a third-order corrector. */
static void correct(const struct scheduler *s, int k, struct scheduler_step *c)
{
    const double now = level(s, k), before = level(s, k - 1), h = lambda(now) - lambda(before), B = expm1(-h),
                 a = 1 - now;
    double rho0 = 0, rho1 = 0.5, r = 1;
    if (order(s, k - 1) == 2) {
        double p = B / -h - 1, b1 = p / B, b2 = 2 * (p / -h - 0.5) / B;
        r = (lambda(level(s, k - 2)) - lambda(before)) / h;
        rho0 = (b1 - b2) / (1 - r);
        rho1 = b1 - rho0;
    }
    c->fix_x = now / before;
    c->fix_now = -a * B * rho1;
    c->fix_x0 = -a * B * (1 - rho0 / r - rho1);
    c->fix_x00 = -a * B * rho0 / r;
}

/* next = (t/s) x - (1 - t) B (x0 + (x0' - x0)/(2r)), the second part at order 2 only. At the clean end, t = 0, B is -1 and
 * next is x0. */
static struct scheduler_step step(const struct scheduler *s, int k)
{
    const double now = level(s, k), next = level(s, k + 1), h = lambda(next) - lambda(now), B = expm1(-h),
                 a = 1 - next;
    double half = 0; /* 1/(2r) */
    struct scheduler_step c = {.x0_x = 1, .x0_v = -now, .next_x = next / now};
    if (k > 0) correct(s, k, &c);
    if (order(s, k) == 2) half = h / (2 * (lambda(level(s, k - 1)) - lambda(now)));
    c.next_now = -a * B * (1 - half);
    c.next_x0 = -a * B * half;
    return c;
}

const struct scheduler_kind scheduler_unipc = {
    .name = "unipc", .flow = true, .takes = takes, .timestep = flow_timestep, .step = step};
