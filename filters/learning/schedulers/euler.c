/* euler - dx/ds = u(x, s) from s = 1 to 0 in steps from level to level: for a network that answers with the flow.
 * The plain one: diffusers' FlowMatchEulerDiscreteScheduler shifts twice. */
#include "filters/learning/schedulers.h"

static bool takes(int64_t steps, char *err, size_t errlen)
{
    return flow_takes("euler", steps, 1000000, err, errlen);
}

static struct scheduler_step step(const struct scheduler *s, int k)
{
    double from = flow_level(s, k), to = flow_level(s, k + 1);
    return (struct scheduler_step){.x0_x = 1, .x0_v = -from, .next_x = 1, .next_v = to - from};
}

const struct scheduler_kind scheduler_euler = {
    .name = "euler", .flow = true, .takes = takes, .timestep = flow_timestep, .step = step};
