/* euler - dx/ds = u(x, s) from s = 1 to 0 in equal steps: for a network trained with objective "flow". */
#include "filters/learning/schedulers.h"
#include "formats/error.h"

enum { MAX_STEPS = 1000000 };

static bool takes(int64_t steps, char *err, size_t errlen)
{
    return (steps >= 1 && steps <= MAX_STEPS) ||
           fail(err, errlen, "euler takes 1 to %d steps, not %lld", MAX_STEPS, (long long)steps);
}

/* On the way from noise (1) to data (0). */
static double position(const struct scheduler *s, int k)
{
    return 1 - (double)k / s->steps;
}

static double timestep(const struct scheduler *s, int k)
{
    return flow_timestep(position(s, k));
}

static struct scheduler_step step(const struct scheduler *s, int k)
{
    double from = position(s, k), to = position(s, k + 1);
    return (struct scheduler_step){.x0_x = 1, .x0_v = -from, .next_x = 1, .next_v = to - from};
}

const struct scheduler_kind scheduler_euler = {
    .name = "euler", .flow = true, .takes = takes, .timestep = timestep, .step = step};
