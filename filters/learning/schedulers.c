#include "filters/learning/schedulers.h"

#include <math.h>
#include <string.h>

#include "formats/error.h"
#include "formats/listed.h"
#include "formats/model.h"

/* ---- noise schedule ------------------------------------------------------------------------------ */

static const char file[] = "scheduler/scheduler_config.json";

static bool read_cogvideox(struct noise_schedule *n, json_t *config, char *err, size_t errlen)
{
    struct config c = {.json = config, .file = file};
    double start = config_real_or(&c, "beta_start", 0.00085), end = config_real_or(&c, "beta_end", 0.012);
    double shift = config_real_or(&c, "snr_shift_scale", 3.0);
    bool zero_snr = config_bool_or(&c, "rescale_betas_zero_snr", false);
    const char *prediction = config_text_or(&c, "prediction_type", "epsilon");
    config_expect(&c, "num_train_timesteps", json_integer(TRAIN_TIMESTEPS));
    config_expect(&c, "beta_schedule", json_string("scaled_linear"));
    config_expect(&c, "trained_betas", json_null());
    config_expect(&c, "set_alpha_to_one", json_true());
    if (*c.error) return fail(err, errlen, "%s", c.error);

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

static bool read_flow(struct noise_schedule *n, json_t *config, char *err, size_t errlen)
{
    struct config c = {.json = config, .file = file};
    const char *prediction = config_text_or(&c, "prediction_type", "epsilon");
    bool flow = config_bool_or(&c, "use_flow_sigmas", false);
    config_expect(&c, "num_train_timesteps", json_integer(TRAIN_TIMESTEPS));
    if (*c.error) return fail(err, errlen, "%s", c.error);
    if (strcmp(prediction, "flow_prediction"))
        return fail(err, errlen, "%s: prediction_type is %s; of this class only flow_prediction is known",
                    file, prediction);
    n->flow = true;
    return flow || fail(err, errlen, "%s: use_flow_sigmas is false; only flow sigmas are known", file);
}

bool noise_schedule_read(struct noise_schedule *n, json_t *config, char *err, size_t errlen)
{
    static const struct {
        const char *name;
        bool (*read)(struct noise_schedule *n, json_t *config, char *err, size_t errlen);
    } class[] = {{"CogVideoXDDIMScheduler", read_cogvideox},
                 {"CogVideoXDPMScheduler", read_cogvideox},
                 {"UniPCMultistepScheduler", read_flow}};
    struct config c = {.json = config, .file = file};
    const char *name = config_text_or(&c, "_class_name", class[0].name);
    *n = (struct noise_schedule){0};
    if (*c.error) return fail(err, errlen, "%s", c.error);
    for (size_t i = 0; i < sizeof class / sizeof *class; i++)
        if (!strcmp(name, class[i].name)) return class[i].read(n, config, err, errlen);
    return fail(err, errlen, "%s: _class_name is %s; known are %s, %s and %s", file, name, class[0].name,
                class[1].name, class[2].name);
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
    struct listed l = listed_start(name);
    for (int i = 0; i < KINDS; i++) {
        if (!strcmp(name, kinds[i]->name)) return kinds[i];
        listed_add(&l, kinds[i]->name);
    }
    fail(err, errlen, "--scheduler: no `%s`: %s", name, listed_end(&l));
    return NULL;
}

double scheduler_timestep(const struct scheduler *s, int k)
{
    return s->kind->timestep(s, k);
}

struct scheduler_step scheduler_step(const struct scheduler *s, int k)
{
    return s->kind->step(s, k);
}

static double timestep_of(double level)
{
    return fmin(TRAIN_TIMESTEPS * level, TRAIN_TIMESTEPS - 1);
}

double flow_shift(double s, double shift)
{
    return shift * s / (1 + (shift - 1) * s);
}

double flow_level(const struct scheduler *s, int k)
{
    const double end = s->noise.flow ? 1. / TRAIN_TIMESTEPS : 0;
    if (k == s->steps) return 0;
    double p = s->noise.flow ? 1 + k * ((end - 1) / s->steps) /* numpy's linspace, to the last bit */
                             : 1 - (double)k / s->steps;
    return flow_shift(p, s->shift);
}

double flow_timestep(const struct scheduler *s, int k)
{
    double t = timestep_of(flow_level(s, k));
    return s->noise.flow ? floor(t) : t;
}

bool flow_takes(const char *name, int64_t steps, int64_t most, char *err, size_t errlen)
{
    return (steps >= 1 && steps <= most) || fail(err, errlen, "--steps: %s takes 1 to %lld steps, not %lld",
                                                 name, (long long)most, (long long)steps);
}

/* The first divisor of 1000 from n on, up or down. 1 and 1000 end either search. */
static int64_t divisor_from(int64_t n, int direction)
{
    n = n < 1 ? 1 : n > TRAIN_TIMESTEPS ? TRAIN_TIMESTEPS : n;
    while (TRAIN_TIMESTEPS % n) n += direction;
    return n;
}

bool spaced_takes(const char *name, int64_t steps, char *err, size_t errlen)
{
    int64_t below = divisor_from(steps, -1), above = divisor_from(steps, 1);
    if (below == steps) return true;
    char neighbours[64];
    snprintf(neighbours, sizeof neighbours, below < above ? "%d or %d" : "%d", (int)below, (int)above);
    return fail(err, errlen, "--steps: %s takes a number of steps that divides %d, such as %s, not %lld",
                name, TRAIN_TIMESTEPS, neighbours, (long long)steps);
}

double spaced_timestep(const struct scheduler *s, int k)
{
    const int stride = TRAIN_TIMESTEPS / s->steps, last = TRAIN_TIMESTEPS - 1, left = s->steps - 1 - k;
    switch (s->spacing) {
    case SPACING_LEADING: return left * stride + s->offset;
    case SPACING_TRAILING: return last - k * stride;
    case SPACING_LINSPACE: return s->steps > 1 ? rint((double)last * left / (s->steps - 1)) : 0;
    }
    return NAN;
}

double spaced_alpha_bar(const struct scheduler *s, int k)
{
    return s->noise.alpha_bar[(int)spaced_timestep(s, k)];
}

double spaced_alpha_bar_after(const struct scheduler *s, int k)
{
    int after = (int)spaced_timestep(s, k) - TRAIN_TIMESTEPS / s->steps;
    return after < 0 ? 1 : s->noise.alpha_bar[after];
}

static bool read_spacing(struct scheduler *s, json_t *config, char *err, size_t errlen)
{
    static const char *const names[] = {
        [SPACING_LEADING] = "leading", [SPACING_TRAILING] = "trailing", [SPACING_LINSPACE] = "linspace"};
    struct config c = {.json = config, .file = file};
    const char *name = config_text_or(&c, "timestep_spacing", names[SPACING_LEADING]);
    int spacing = 0;
    s->offset = (int)config_int_or(&c, "steps_offset", 0, TRAIN_TIMESTEPS / s->steps - 1, 0);
    if (*c.error) return fail(err, errlen, "%s", c.error);
    while (spacing <= SPACING_LINSPACE && strcmp(name, names[spacing])) spacing++;
    s->spacing = (enum timestep_spacing)spacing;
    return spacing <= SPACING_LINSPACE ||
           fail(err, errlen, "%s: timestep_spacing is %s; known are leading, trailing and linspace", c.file,
                name);
}

/* Of UniPCMultistepScheduler: what it can be told and is not told here. */
static bool read_solver(struct scheduler *s, json_t *config, char *err, size_t errlen)
{
    static const char *const off[] = {"thresholding", "use_karras_sigmas", "use_exponential_sigmas",
                                      "use_beta_sigmas", "use_dynamic_shifting"};
    static const char *const unset[] = {"solver_p", "shift_terminal", "sigma_min", "sigma_max"};
    struct config c = {.json = config, .file = file};
    config_expect(&c, "solver_order", json_integer(2));
    config_expect(&c, "solver_type", json_string("bh2"));
    config_expect(&c, "lower_order_final", json_true());
    config_expect(&c, "predict_x0", json_true());
    config_expect(&c, "disable_corrector", json_array());
    config_expect(&c, "final_sigmas_type", json_string("zero"));
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) config_expect(&c, off[i], json_false());
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++) config_expect(&c, unset[i], json_null());
    s->shift = config_real_or(&c, "flow_shift", 1);
    if (*c.error) return fail(err, errlen, "%s", c.error);
    return (s->shift >= SHIFT_LEAST && s->shift <= SHIFT_MOST) ||
           fail(err, errlen, "%s: flow_shift is %g, outside %g..%g", file, s->shift, SHIFT_LEAST, SHIFT_MOST);
}

bool scheduler_takes(const char *name, int64_t steps, char *err, size_t errlen)
{
    const struct scheduler_kind *kind = find_kind(name, err, errlen);
    return kind && kind->takes(steps, err, errlen);
}

bool scheduler_init(struct scheduler *s, const char *name, int64_t steps, double shift, json_t *config,
                    char *err, size_t errlen)
{
    *s = (struct scheduler){.shift = 1};
    if (config && !noise_schedule_read(&s->noise, config, err, errlen)) return false;
    if (!(s->kind = find_kind(name            ? name
                              : s->noise.flow ? "unipc"
                                              : "dpm",
                              err, errlen)) ||
        !s->kind->takes(steps, err, errlen))
        return false;
    s->steps = (int)steps;
    if (s->noise.flow && !s->kind->flow)
        return fail(err, errlen,
                    "--scheduler: %s reads v-predictions, and the model answers with the flow: unipc or "
                    "euler",
                    s->kind->name);
    if (shift != 0 && !s->kind->flow) return fail(err, errlen, "--shift: %s follows no flow", s->kind->name);
    if (s->noise.flow ? !read_solver(s, config, err, errlen)
                      : !s->kind->flow && !read_spacing(s, config, err, errlen))
        return false;
    if (shift != 0) s->shift = shift;
    return true;
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

bool objective_fits(const struct noise_schedule *n, const char *name, char *err, size_t errlen)
{
    return !n->flow || !strcmp(name, "flow") ||
           fail(err, errlen,
                "--objective %s is for models that answer with v; this one answers with the flow: flow",
                name);
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
        p.timestep = timestep_of(s);
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
