#include "filters/learning/schedulers.h"

#include <math.h>
#include <string.h>

#include "formats/error.h"
#include "formats/model.h"

/* ---- noise schedule ------------------------------------------------------------------------------ */

bool noise_schedule_read(struct noise_schedule *n, json_t *config, char *err, size_t errlen)
{
    struct config c = {.json = config, .file = "scheduler/scheduler_config.json"};
    double start = config_real_or(&c, "beta_start", 0.00085), end = config_real_or(&c, "beta_end", 0.012);
    double shift = config_real_or(&c, "snr_shift_scale", 3.0);
    bool zero_snr = config_bool_or(&c, "rescale_betas_zero_snr", false);
    const char *class = config_text_or(&c, "_class_name", "CogVideoXDDIMScheduler");
    const char *prediction = config_text_or(&c, "prediction_type", "epsilon");
    config_expect(&c, "num_train_timesteps", json_integer(TRAIN_TIMESTEPS));
    config_expect(&c, "beta_schedule", json_string("scaled_linear"));
    config_expect(&c, "trained_betas", json_null());
    config_expect(&c, "set_alpha_to_one", json_true());
    if (*c.error) return fail(err, errlen, "%s", c.error);

    if (strcmp(class, "CogVideoXDDIMScheduler") && strcmp(class, "CogVideoXDPMScheduler"))
        return fail(err, errlen, "%s: _class_name is %s, not a CogVideoX scheduler's", c.file, class);
    if (strcmp(prediction, "v_prediction"))
        return fail(err, errlen, "%s: prediction_type is %s; only v_prediction is known", c.file, prediction);
    if (!(start > 0 && start <= end && end < 1))
        return fail(err, errlen, "%s: beta_start %g and beta_end %g must rise within (0, 1)", c.file, start,
                    end);
    if (!(shift > 0 && shift <= 1e6))
        return fail(err, errlen, "%s: snr_shift_scale is %g; it must be above 0", c.file, shift);

    const int last = TRAIN_TIMESTEPS - 1;
    double low = sqrt(start), high = sqrt(end), step = (high - low) / last, product = 1;
    double root[TRAIN_TIMESTEPS]; /* √ᾱ */
    for (int i = 0; i <= last; i++) {
        /* torch.linspace counts from both ends */
        double root_beta = i <= last / 2 ? low + step * i : high - step * (last - i);
        product *= 1 - root_beta * root_beta;
        root[i] = sqrt(product / (shift + (1 - shift) * product));
    }
    /* Lin et al. 2023, algorithm 1: shift √ᾱ so that it ends at 0, scale so that it starts where it did. */
    double first = root[0], rest = root[last];
    for (int i = 0; i <= last; i++) {
        if (zero_snr) root[i] = (root[i] - rest) * (first / (first - rest));
        n->alpha_bar[i] = root[i] * root[i];
    }
    return true;
}

/* ---- sampling ------------------------------------------------------------------------------------ */

#define ROW(name, about) extern const struct scheduler_kind scheduler_##name;
SCHEDULERS(ROW)
#undef ROW
#define ROW(name, about) &scheduler_##name,
static const struct scheduler_kind *const kinds[] = {SCHEDULERS(ROW)};
#undef ROW
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const struct scheduler_kind *find_kind(const char *name, char *err, size_t errlen)
{
    char known[256] = "";
    for (int i = 0; i < KINDS; i++) {
        if (!strcmp(name, kinds[i]->name)) return kinds[i];
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", kinds[i]->name);
    }
    fail(err, errlen, "%s: no such scheduler; there are %s", name, known);
    return NULL;
}

bool scheduler_takes(const char *name, int64_t steps, char *err, size_t errlen)
{
    const struct scheduler_kind *kind = find_kind(name, err, errlen);
    return kind && kind->takes(steps, err, errlen);
}

bool scheduler_init(struct scheduler *s, const char *name, int64_t steps, json_t *config, char *err,
                    size_t errlen)
{
    if (!scheduler_takes(name, steps, err, errlen)) return false;
    *s = (struct scheduler){.kind = find_kind(name, err, errlen), .steps = (int)steps};
    return s->kind->flow || noise_schedule_read(&s->noise, config, err, errlen);
}

double scheduler_timestep(const struct scheduler *s, int k)
{
    return s->kind->timestep(s, k);
}

struct scheduler_step scheduler_step(const struct scheduler *s, int k)
{
    return s->kind->step(s, k);
}

double flow_timestep(double x)
{
    return fmin(TRAIN_TIMESTEPS * x, TRAIN_TIMESTEPS - 1);
}

/* The first divisor of 1000 from n on, up or down. 1 and 1000 end either search. */
static int64_t divisor_from(int64_t n, int direction)
{
    n = n < 1 ? 1 : n > TRAIN_TIMESTEPS ? TRAIN_TIMESTEPS : n;
    while (TRAIN_TIMESTEPS % n) n += direction;
    return n;
}

bool trailing_takes(const char *name, int64_t steps, char *err, size_t errlen)
{
    int64_t below = divisor_from(steps, -1), above = divisor_from(steps, 1);
    if (below == steps) return true;
    char neighbours[64];
    snprintf(neighbours, sizeof neighbours, below < above ? "%d or %d" : "%d", (int)below, (int)above);
    return fail(err, errlen, "%s takes a number of steps that divides %d, such as %s, not %lld", name,
                TRAIN_TIMESTEPS, neighbours, (long long)steps);
}

double trailing_timestep(const struct scheduler *s, int k)
{
    return TRAIN_TIMESTEPS - k * (TRAIN_TIMESTEPS / s->steps) - 1;
}

double trailing_alpha_bar(const struct scheduler *s, int k)
{
    return k < s->steps ? s->noise.alpha_bar[(int)trailing_timestep(s, k)] : 1;
}

double scheduler_dynamic_guidance(const struct scheduler *s, int k, double guidance)
{
    double x = (s->steps - scheduler_timestep(s, k)) / s->steps;
    return 1 + guidance * ((1 - cos(M_PI * pow(x, 5))) / 2);
}

/* ---- training ------------------------------------------------------------------------------------ */

bool objective_parse(enum objective *o, const char *name)
{
    const char *at = OBJECTIVES;
    for (int i = 0; *at; i++, at += strcspn(at, "|"), at += *at == '|') {
        if (strlen(name) != strcspn(at, "|") || strncmp(at, name, strlen(name))) continue;
        *o = (enum objective)i;
        return true;
    }
    return false;
}

/* Where in the table √ᾱ has this value, √ᾱ being linear between entries. The table ends short of 1: all above
 * is 0. */
static double table_position(const struct noise_schedule *n, double root)
{
    double above = sqrt(n->alpha_bar[0]);
    if (root >= above) return 0;
    for (int i = 1; i < TRAIN_TIMESTEPS; i++) {
        double below = sqrt(n->alpha_bar[i]);
        if (root >= below) return i - 1 + (above - root) / (above - below);
        above = below;
    }
    return TRAIN_TIMESTEPS - 1;
}

struct training_point training_point(const struct noise_schedule *n, enum objective o, double s)
{
    struct training_point p = {.weight = 1};
    if (o == OBJECTIVE_FLOW) {
        p.timestep = flow_timestep(s);
        p.alpha_bar = NAN;
        p.x_x0 = 1 - s;
        p.x_n = s;
        p.y_x0 = -1;
        p.y_n = p.u_answer = 1;
        return p;
    }

    double signal, noise; /* √ᾱ and √(1-ᾱ) */
    if (o == OBJECTIVE_FLOW_SNR) {
        double norm = hypot(1 - s, s); /* divides x_s, so that its variance is the base model's */
        signal = (1 - s) / norm;
        noise = s / norm;
        p.alpha_bar = signal * signal;
        p.timestep = table_position(n, signal);
    } else {
        p.timestep = fmin(floor(TRAIN_TIMESTEPS * s), TRAIN_TIMESTEPS - 1);
        p.alpha_bar = n->alpha_bar[(int)p.timestep];
        signal = sqrt(p.alpha_bar);
        noise = sqrt(1 - p.alpha_bar);
    }
    p.x_x0 = p.y_n = signal;
    p.x_n = noise;
    p.y_x0 = -noise;
    /* n = noise x + signal v and x0 = signal x - noise v, so u = n - x0 is: */
    p.u_answer = signal + noise;
    p.u_x = noise - signal;
    if (o == OBJECTIVE_FLOW_SNR) p.weight = p.u_answer * p.u_answer; /* the flow's own loss, as (û - u)² */
    return p;
}
