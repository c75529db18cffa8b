/* ddim - Song et al. 2020 with eta 0, as CogVideoXDDIMScheduler. */
#include <math.h>

#include "filters/learning/schedulers.h"

static bool takes(int64_t steps, char *err, size_t errlen)
{
    return trailing_takes("ddim", steps, err, errlen);
}

/* x' = A x + B x0,  A = √((1-ᾱ')/(1-ᾱ)),  B = √ᾱ' - √ᾱ A */
static struct scheduler_step step(const struct scheduler *s, int k)
{
    double a = trailing_alpha_bar(s, k), a_next = trailing_alpha_bar(s, k + 1);
    double root = sqrt(a), A = sqrt((1 - a_next) / (1 - a)), B = sqrt(a_next) - root * A;
    struct scheduler_step c = {.x0_x = root, .x0_v = -sqrt(1 - a)};
    c.next_x = A + B * c.x0_x;
    c.next_v = B * c.x0_v;
    return c;
}

const struct scheduler_kind scheduler_ddim = {
    .name = "ddim", .takes = takes, .timestep = trailing_timestep, .step = step};
