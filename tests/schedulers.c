/* The schedulers against diffusers' own figures (tests/data/schedulers.json), the specification's tables, and
 * a plain transcription of the published update rules on a denoiser with a closed form. */
#include "filters/learning/schedulers.h"

#include <string.h>

#include "tests/tap.h"

#define CONFIG "tests/data/sample/scheduler/scheduler_config.json"

/* The published configuration with one field changed; value NULL removes it. */
static json_t *config_with(const char *field, json_t *value)
{
    json_t *config = json_load_file(CONFIG, 0, NULL);
    if (!config) ok(false, "%s is JSON", CONFIG);
    if (field && value) json_object_set_new(config, field, value);
    if (field && !value) json_object_del(config, field);
    return config;
}

static struct noise_schedule noise_of(double shift)
{
    char err[256] = "";
    struct noise_schedule n;
    json_t *config = config_with("snr_shift_scale", json_real(shift));
    if (!noise_schedule_read(&n, config, err, sizeof err)) ok(false, "shift %g: %s", shift, err);
    json_decref(config);
    return n;
}

static struct scheduler make(const char *name, int steps, double shift)
{
    char err[256] = "";
    struct scheduler s;
    json_t *config = config_with("snr_shift_scale", json_real(shift));
    if (!scheduler_init(&s, name, steps, 0, config, err, sizeof err))
        ok(false, "%s, %d steps: %s", name, steps, err);
    json_decref(config);
    return s;
}

/* relative, of a product of two numbers that were printed with nine digits */
static const double NINE_DIGITS = 1e-8;

static bool near(double got, double expected, double relative)
{
    if (fabs(got - expected) <= relative * fabs(expected)) return true;
    printf("# %.17g, not %.17g\n", got, expected);
    return false;
}

/* ---- diffusers' figures -------------------------------------------------------------------------- */

static void test_recorded(void)
{
    json_t *all = json_load_file("tests/data/schedulers.json", 0, NULL), *item, *pair, *list;
    if (!ok(all != NULL, "tests/data/schedulers.json is there")) return;
    size_t i, j;
    json_array_foreach (json_object_get(all, "alphas_cumprod"), i, item) {
        double shift = json_number_value(json_object_get(item, "snr_shift_scale")), sum = 0;
        struct noise_schedule n = noise_of(shift);
        bool good = true;
        json_array_foreach (json_object_get(item, "at"), j, pair) {
            json_int_t t = json_integer_value(json_array_get(pair, 0));
            good &= near(n.alpha_bar[t], json_number_value(json_array_get(pair, 1)), 1e-12);
        }
        for (int t = 0; t < TRAIN_TIMESTEPS; t++) sum += n.alpha_bar[t];
        ok(good && j == 19, "alpha-bar at 19 timesteps, shift %g", shift);
        ok(near(sum, json_number_value(json_object_get(item, "sum")), 1e-13), "and in sum");
        ok(n.alpha_bar[999] == 0, "and just 0 at the last");
    }
    ok(i == 2, "two shifts");

    const char *steps;
    json_object_foreach (json_object_get(all, "timesteps"), steps, list) {
        struct scheduler dpm = make("dpm", atoi(steps), 1), ddim = make("ddim", atoi(steps), 1);
        bool good = json_array_size(list) == (size_t)dpm.steps;
        json_array_foreach (list, j, item) {
            double t = json_number_value(item);
            good &= scheduler_timestep(&dpm, (int)j) == t && scheduler_timestep(&ddim, (int)j) == t;
        }
        ok(good, "timesteps of %s steps", steps);
    }

    json_array_foreach (json_object_get(all, "dynamic_guidance"), i, item) {
        struct scheduler s = make("dpm", (int)json_integer_value(json_object_get(item, "steps")), 1);
        double guidance = json_number_value(json_object_get(item, "guidance"));
        bool good = true;
        json_array_foreach (json_object_get(item, "values"), j, list)
            good &= near(scheduler_dynamic_guidance(&s, (int)j, guidance), json_number_value(list), 1e-9);
        ok(good && j == (size_t)s.steps, "dynamic guidance over %d steps", s.steps);
    }
    json_decref(all);
}

/* ---- the specification's tables ------------------------------------------------------------------ */

/* m1, m2, m3, m4, mn of SDE-DPM-Solver++ at some of 50 steps, to nine digits. */
static void test_dpm_table(void)
{
    static const struct {
        int t, draws;
        double m1, m2, m3, m4, mn;
    } table[] = {
        {999, 1, 0, -0.00926217271, 1, 0, 0.999957105},
        {979, 2, 0.478060396, -0.0149409976, 1, 0, 0.878124541},
        {959, 2, 0.637755464, -0.018001179, 1.30460986, 0.30460986, 0.769739698},
        {519, 2, 0.913270591, -0.0675633379, 1.48952224, 0.48952224, 0.322457418},
        {59, 2, 0.631714529, -0.368165708, 1.66663433, 0.66663433, 0.122184583},
        {39, 2, 0.472811694, -0.527137082, 1.80629502, 0.80629502, 0.100531146},
        {19, 1, 0, -1, 1, 0, 0},
    };
    struct scheduler s = make("dpm", 50, 1);
    int draws = 1; /* the starting latents */
    for (int k = 0; k < s.steps; k++) draws += scheduler_step(&s, k).draws;
    ok(draws == 99, "50 DPM steps draw %d noise tensors", draws);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int k = (999 - table[i].t) / 20;
        double a = s.noise.alpha_bar[table[i].t];
        struct scheduler_step c = scheduler_step(&s, k);
        double m2 = table[i].m2, m3 = table[i].m3;
        ok(near(c.x0_x, sqrt(a), 1e-15) && near(c.x0_v, -sqrt(1 - a), 1e-15) &&
               near(c.next_x, table[i].m1 - m2 * m3 * sqrt(a), NINE_DIGITS) &&
               near(c.next_v, m2 * m3 * sqrt(1 - a), NINE_DIGITS) &&
               near(c.next_x0, m2 * table[i].m4, NINE_DIGITS) && near(c.next_n, table[i].mn, NINE_DIGITS) &&
               c.draws == table[i].draws,
           "DPM coefficients at timestep %d", table[i].t);
    }
    struct scheduler_step first = scheduler_step(&s, 0), second = scheduler_step(&s, 1),
                          last = scheduler_step(&s, 49);
    ok(first.next_x == 0 && first.next_x0 == 0 && second.next_x0 == 0,
       "what starts at pure noise has no history");
    ok(last.next_n == 0 && last.next_x == last.x0_x && last.next_v == last.x0_v, "the last step is just x0");
}

static void test_ddim_table(void)
{
    static const struct {
        int t;
        double A, B;
    } table[] = {{999, 0.999957105, 0.00926217271},
                 {979, 0.999855294, 0.0101080431},
                 {519, 0.98322865, 0.0350278071},
                 {39, 0.691297297, 0.313036359},
                 {19, 0, 1}};
    struct scheduler s = make("ddim", 50, 1);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double a = s.noise.alpha_bar[table[i].t];
        struct scheduler_step c = scheduler_step(&s, (999 - table[i].t) / 20);
        ok(near(c.next_x, table[i].A + table[i].B * sqrt(a), NINE_DIGITS) &&
               near(c.next_v, -table[i].B * sqrt(1 - a), NINE_DIGITS) && c.next_x0 == 0 && c.next_n == 0 &&
               c.draws == 0,
           "DDIM coefficients at timestep %d", table[i].t);
    }
}

static void test_guidance_table(void)
{
    static const double table[50] = {
        2.291487, 2.543503, 6.974352, 6.420358, 2.788098, 4.271942, 1.037598, 4.170400, 1.617975, 6.983127,
        1.004789, 2.871981, 6.976805, 1.633099, 4.329747, 2.436601, 6.377304, 6.006840, 3.447874, 3.198098,
        1.654759, 6.610011, 1.194746, 4.295340, 6.985373, 1.521266, 1.761637, 1.057938, 4.127507, 1.482273,
        2.002566, 5.947659, 4.143219, 6.530550, 6.139848, 6.999941, 6.168399, 1.119920, 2.097506, 6.685006,
        6.999215, 2.343218, 6.212752, 1.250530, 6.999645, 6.864372, 1.063552, 1.000001, 1.000004, 1.123398};
    struct scheduler s = make("dpm", 50, 1);
    bool good = true;
    for (int k = 0; k < 50; k++) good &= fabs(scheduler_dynamic_guidance(&s, k, 6) - table[k]) <= 6e-7;
    ok(good, "dynamic guidance at 50 steps, to six digits");
}

/* ---- whole runs on closed-form denoisers --------------------------------------------------------- */

enum { POINTS = 64 };

/* Uncorrelated enough for a test: the same numbers for the same n. */
static double wobble(int n)
{
    return 3 * sin(12.9898 * n + 78.233 * cos(n));
}

/* v for data N(mean, spread²): E[x0|x] is linear in x. */
static double gaussian_v(double a, double x, double mean, double spread)
{
    double variance = a * spread * spread + 1 - a;
    double x0 = mean + sqrt(a) * spread * spread * (x - sqrt(a) * mean) / variance;
    return a < 1 ? (sqrt(a) * x - x0) / sqrt(1 - a) : 0;
}

/* Transcribed from the papers, each symbol by its name, in double. The previous timestep is found by
 * subtraction. */
static void run_published(const struct scheduler *s, double *x, double spread)
{
    double old_x0[POINTS], old_lambda = 0;
    int stride = TRAIN_TIMESTEPS / s->steps, drawn = 1;
    for (int t = 999; t >= 0; t -= stride) {
        double a = s->noise.alpha_bar[t], b = t - stride >= 0 ? s->noise.alpha_bar[t - stride] : 1;
        double alpha_s = sqrt(a), sigma_s = sqrt(1 - a), alpha_t = sqrt(b), sigma_t = sqrt(1 - b);
        double lambda_s = log(alpha_s) - log(sigma_s), lambda_t = log(alpha_t) - log(sigma_t),
               h = lambda_t - lambda_s;
        bool second = t != 999 && t - stride >= 0;
        drawn += !strcmp(s->kind->name, "dpm") && second; /* thrown away */
        for (int i = 0; i < POINTS; i++) {
            double v = gaussian_v(a, x[i], wobble(i), spread), x0 = alpha_s * x[i] - sigma_s * v;
            if (!strcmp(s->kind->name, "ddim")) {
                double eps = alpha_s * v + sigma_s * x[i];
                x[i] = alpha_t * x0 + sigma_t * eps;
            } else {
                double slope =
                    second && !isinf(old_lambda) ? (x0 - old_x0[i]) / ((lambda_s - old_lambda) / h) : 0;
                double n = wobble(1000 * drawn + i);
                x[i] = sigma_t / sigma_s * exp(-h) * x[i] + alpha_t * (1 - exp(-2 * h)) * (x0 + slope / 2) +
                       sigma_t * sqrt(1 - exp(-2 * h)) * n;
            }
            old_x0[i] = x0;
        }
        old_lambda = lambda_s;
        drawn++;
    }
}

/* By the scheduler's coefficients, in float, as a device does it: each step adds a rounding
 * of 1e-7 or less. */
static void run_coefficients(const struct scheduler *s, float *x, double spread)
{
    float x0[POINTS], old_x0[POINTS] = {0};
    int drawn = 0; /* the starting noise has number 0 */
    for (int k = 0; k < s->steps; k++) {
        struct scheduler_step c = scheduler_step(s, k);
        drawn += c.draws;
        for (int i = 0; i < POINTS; i++) {
            double a = s->noise.alpha_bar[(int)scheduler_timestep(s, k)];
            float v = (float)gaussian_v(a, x[i], wobble(i), spread), n = (float)wobble(1000 * drawn + i);
            x0[i] = (float)c.x0_x * x[i] + (float)c.x0_v * v;
            x[i] = (float)c.next_x * x[i] + (float)c.next_v * v + (float)c.next_x0 * old_x0[i] +
                   (float)c.next_n * n;
        }
        memcpy(old_x0, x0, sizeof x0);
    }
}

static void test_whole_runs(void)
{
    static const int counts[] = {1, 2, 5, 8, 50, 200, 1000};
    static const char *const names[] = {"dpm", "ddim"};
    for (int name = 0; name < 2; name++)
        for (int shift = 1; shift <= 3; shift += 2)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
                struct scheduler s = make(names[name], counts[i], shift);
                double published[POINTS];
                float ours[POINTS], expected[POINTS];
                for (int j = 0; j < POINTS; j++) ours[j] = (float)(published[j] = (float)wobble(j + 500));
                run_published(&s, published, 0.5);
                run_coefficients(&s, ours, 0.5);
                for (int j = 0; j < POINTS; j++) expected[j] = (float)published[j];
                double error = relative_l2(ours, expected, POINTS);
                ok(error < 1e-5, "%s, %d steps, shift %d: a whole run is off by %.2g", names[name], s.steps,
                   shift, error);

                run_coefficients(&s, ours, 0);
                for (int j = 0; j < POINTS; j++) expected[j] = (float)wobble(j);
                error = relative_l2(ours, expected, POINTS);
                ok(error < 1e-5, "and ends at the data when there is only one: off by %.2g", error);
            }
}

static void test_euler(void)
{
    struct scheduler s;
    char err[256];
    ok(scheduler_init(&s, "euler", 7, 0, NULL, err, sizeof err),
       "Euler needs no configuration, and takes 7 steps");
    ok(scheduler_timestep(&s, 0) == 999 && near(scheduler_timestep(&s, 1), 6000. / 7, 1e-15) &&
           near(scheduler_timestep(&s, 6), 1000. / 7, 1e-14),
       "its timesteps are min(1000 s, 999)");
    double x = wobble(1), data = wobble(2), x0 = 0;
    for (int k = 0; k < 7; k++) {
        struct scheduler_step c = scheduler_step(&s, k);
        double u = (x - data) / (1 - k / 7.); /* exact when all data are one point */
        x0 = c.x0_x * x + c.x0_v * u;
        x = c.next_x * x + c.next_v * u;
        if (fabs(x0 - data) > 1e-12 || c.next_x0 != 0 || c.next_n != 0 || c.draws != 0)
            ok(false, "step %d sees the data, and uses nothing but x and u", k);
    }
    ok(fabs(x - data) < 1e-12, "on straight paths it arrives");
}

/* ---- along a flow -------------------------------------------------------------------------------- */

/* A published configuration of Wan's with one field changed; value NULL removes it. */
static json_t *flow_config(const char *field, json_t *value)
{
    json_t *config = json_pack(
        "{s:s, s:s, s:b, s:f, s:i, s:i, s:s, s:b, s:b, s:[], s:s, s:b, s:n, s:n, s:n, s:n, s:b}",
        "_class_name", "UniPCMultistepScheduler", "prediction_type", "flow_prediction", "use_flow_sigmas", 1,
        "flow_shift", 3., "num_train_timesteps", 1000, "solver_order", 2, "solver_type", "bh2",
        "lower_order_final", 1, "predict_x0", 1, "disable_corrector", "final_sigmas_type", "zero",
        "thresholding", 0, "solver_p", "shift_terminal", "sigma_min", "sigma_max", "use_karras_sigmas", 0);
    if (field && value) json_object_set_new(config, field, value);
    if (field && !value) json_object_del(config, field);
    return config;
}

static struct scheduler along_flow(const char *name, int steps, double shift)
{
    char err[256] = "";
    struct scheduler s;
    json_t *config = flow_config(NULL, NULL);
    if (!scheduler_init(&s, name, steps, shift, config, err, sizeof err))
        ok(false, "%s, %d steps, shift %g: %s", name ? name : "the folder's", steps, shift, err);
    json_decref(config);
    return s;
}

/* Where a scalar ends whose answer is x/2 + sin(t/200) - 1, in double. */
static double flow_end(const struct scheduler *s)
{
    double x = 0.7, last_x = NAN, last_x0 = NAN, older_x0 = NAN;
    for (int k = 0; k < s->steps; k++) {
        struct scheduler_step c = scheduler_step(s, k);
        double v = x / 2 + sin(scheduler_timestep(s, k) / 200) - 1, x0 = c.x0_x * x + c.x0_v * v;
        if (c.fix_now != 0)
            x = c.fix_x * last_x + c.fix_now * x0 + c.fix_x0 * last_x0 +
                (c.fix_x00 != 0 ? c.fix_x00 * older_x0 : 0);
        last_x = x;
        x = c.next_x * x + (c.next_v != 0 ? c.next_v * v : 0) + c.next_now * x0 +
            (c.next_x0 != 0 ? c.next_x0 * last_x0 : 0);
        older_x0 = last_x0;
        last_x0 = x0;
    }
    return x;
}

/* Against diffusers' UniPCMultistepScheduler, whose coefficients are F32, and against the same code in double. */
static void test_unipc(void)
{
    size_t i, j;
    double worst = 0, worst_exact = 0;
    bool timesteps = true;
    json_t *line, *t, *all = json_load_file("tests/data/schedulers.json", 0, NULL);
    json_array_foreach (json_object_get(all, "unipc"), i, line) {
        struct scheduler s = along_flow(NULL, (int)json_integer_value(json_object_get(line, "steps")),
                                        json_number_value(json_object_get(line, "shift")));
        json_array_foreach (json_object_get(line, "timesteps"), j, t)
            timesteps &= scheduler_timestep(&s, (int)j) == json_number_value(t);
        timesteps &= j == (size_t)s.steps;
        double end = flow_end(&s), want = json_number_value(json_object_get(line, "end")),
               exact = json_number_value(json_object_get(line, "exact"));
        if (s.steps <= 50) worst = fmax(worst, fabs(end - want) / fabs(want));
        worst_exact = fmax(worst_exact, fabs(end - exact) / fabs(exact));
    }
    ok(i == 255 && timesteps, "UniPC's timesteps, 1 to 50 and 100 steps, shifts 1, 3, 5, 8 and 12");
    ok(worst < 1e-6, "and where its runs of 1 to 50 steps end: off by %.2g at most", worst);
    ok(worst_exact < 1e-10, "and all of them, but for the reference's F32, by %.2g", worst_exact);
    json_decref(all);

    struct scheduler s = along_flow(NULL, 4, 5);
    struct scheduler_step first = scheduler_step(&s, 0), last = scheduler_step(&s, 3);
    ok(!strcmp(s.kind->name, "unipc") && first.fix_x == 0 && first.fix_now == 0 && first.next_x0 == 0,
       "it is the default of a flow, and its first step has no history");
    ok(last.next_x == 0 && last.next_now == 1 && last.next_x0 == 0, "the last step is just x0");
    s = along_flow(NULL, 4, 0);
    struct scheduler folders = along_flow(NULL, 4, 3);
    ok(flow_level(&s, 2) == flow_level(&folders, 2), "the folder's shift is the default");
    s = along_flow("unipc", 1000, SHIFT_MOST);
    bool finite = true;
    for (int k = 0; k < 1000; k++) {
        struct scheduler_step c = scheduler_step(&s, k);
        finite &= isfinite(c.fix_x + c.fix_now + c.fix_x0 + c.fix_x00 + c.next_x + c.next_now + c.next_x0);
    }
    ok(finite, "a thousand steps at the largest shift are apart");

    struct scheduler bridge = along_flow("unipc", 6, 2);
    bridge.noise.flow = false; /* a model of v-prediction with an adapter of objective flow */
    double x = wobble(1), last_x = 0, x0 = 0, data = wobble(2);
    for (int k = 0; k < 6; k++) {
        struct scheduler_step c = scheduler_step(&bridge, k);
        double u = (x - data) / -c.x0_v, before = x0; /* exact when all data are one point */
        x0 = c.x0_x * x + c.x0_v * u;
        if (c.fix_now != 0) x = c.fix_x * last_x + c.fix_now * x0 + (c.fix_x0 + c.fix_x00) * before;
        last_x = x;
        x = c.next_x * x + c.next_now * x0 + c.next_x0 * before;
    }
    ok(fabs(x - data) < 1e-12 && scheduler_timestep(&bridge, 1) == 1000 * flow_level(&bridge, 1),
       "it goes along the flow of any model, and arrives");
}

static void test_shifted_euler(void)
{
    struct scheduler s = along_flow("euler", 50, 3), unipc = along_flow("unipc", 50, 3), bridge;
    char err[256] = "";
    bool same = flow_level(&s, 0) == 1, straight = true;
    double x = wobble(1), data = wobble(2), start = x;
    for (int k = 0; k < 50; k++) {
        struct scheduler_step c = scheduler_step(&s, k);
        double p = 1 - k * 0.999 / 50, from = 3 * p / (1 + 2 * p);
        same &= scheduler_timestep(&s, k) == scheduler_timestep(&unipc, k);
        straight &= fabs(x - ((1 - from) * data + from * start)) < 1e-12;
        x = c.next_x * x + c.next_v * (start - data);
    }
    ok(same, "Euler asks a model of the flow at UniPC's timesteps");
    ok(straight && fabs(x - data) < 1e-12, "from shifted level to shifted level, and to the end");
    json_t *config = config_with(NULL, NULL);
    ok(scheduler_init(&bridge, "euler", 7, 2, config, err, sizeof err) &&
           near(flow_level(&bridge, 1), 2 * (6 / 7.) / (1 + 6 / 7.), 1e-15) &&
           near(scheduler_timestep(&bridge, 1), 1000 * flow_level(&bridge, 1), 1e-15),
       "a model of v-prediction, with an adapter of objective flow, may be given a shift, too %s", err);
    json_decref(config);
}

/* ---- training ------------------------------------------------------------------------------------ */

static void test_training_points(void)
{
    struct noise_schedule n = noise_of(1);
    static const char *const names[] = {"flow", "flow-snr", "v"};
    for (int i = 0; i < 3; i++) {
        enum objective o;
        bool known = objective_parse(&o, names[i]), flows = true, normalised = true;
        for (double s = 0; s <= 1; s += 1. / 64) {
            struct training_point p = training_point(&n, o, s);
            double x0 = wobble((int)(100 * s)), noise = wobble((int)(100 * s) + 7);
            double x = p.x_x0 * x0 + p.x_n * noise, y = p.y_x0 * x0 + p.y_n * noise;
            flows &= fabs(p.u_answer * y + p.u_x * x - (noise - x0)) < 1e-12;
            /* an answer off by d is a flow off by u_answer d: the weight makes flow and flow-snr the same
             * loss */
            if (o != OBJECTIVE_V) flows &= near(p.weight, p.u_answer * p.u_answer, 1e-14);
            if (o != OBJECTIVE_FLOW)
                normalised &= near(p.x_x0 * p.x_x0 + p.x_n * p.x_n, 1, 1e-14) &&
                              near(p.x_x0 * p.x_x0, p.alpha_bar, 1e-12);
        }
        ok(known && flows && normalised, "%s: the right answer is the right flow", names[i]);
    }
    enum objective unused;
    ok(!objective_parse(&unused, "eps"), "no other objective");

    struct training_point p = training_point(&n, OBJECTIVE_FLOW, 0.25);
    ok(p.timestep == 250 && p.x_x0 == 0.75 && p.x_n == 0.25 && p.y_x0 == -1 && p.y_n == 1 && p.weight == 1 &&
           training_point(&n, OBJECTIVE_FLOW, 1).timestep == 999,
       "flow, literally");
    p = training_point(&n, OBJECTIVE_V, 0.0205);
    ok(p.timestep == 20 && p.alpha_bar == n.alpha_bar[20] && p.weight == 1 &&
           training_point(&n, OBJECTIVE_V, 1).timestep == 999 &&
           training_point(&n, OBJECTIVE_V, 0).timestep == 0,
       "v takes whole timesteps");

    ok(near(training_point(&n, OBJECTIVE_FLOW_SNR, 0.5).timestep, 336.7618269404709, 1e-12) &&
           near(training_point(&n, OBJECTIVE_FLOW_SNR, 0.93).timestep, 870.4283338681481, 1e-12),
       "flow-snr at the timesteps of the reference");
    ok(training_point(&n, OBJECTIVE_FLOW_SNR, 1).timestep == 999 &&
           training_point(&n, OBJECTIVE_FLOW_SNR, 0).timestep == 0 &&
           training_point(&n, OBJECTIVE_FLOW_SNR, 0.02833).timestep == 0 &&
           training_point(&n, OBJECTIVE_FLOW_SNR, 0.02835).timestep > 0,
       "flow-snr ends where the table does");
    bool inverse = true;
    for (int t = 0; t < TRAIN_TIMESTEPS; t++) {
        double signal = sqrt(n.alpha_bar[t]), noise = sqrt(1 - n.alpha_bar[t]);
        inverse &= fabs(training_point(&n, OBJECTIVE_FLOW_SNR, noise / (signal + noise)).timestep - t) < 1e-9;
    }
    ok(inverse, "flow-snr finds every timestep from its signal-to-noise ratio");
}

/* ---- what is refused ----------------------------------------------------------------------------- */

static void test_configs(void)
{
    struct {
        const char *field;
        json_t *value;
        const char *says; /* NULL: accepted */
    } cases[] = {
        {"prediction_type", json_string("epsilon"), "prediction_type"},
        {"prediction_type", NULL, "prediction_type"}, /* the class's default is epsilon */
        {"_class_name", json_string("DDIMScheduler"), "_class_name"},
        {"_class_name", json_string("CogVideoXDPMScheduler"), NULL},
        {"_class_name", NULL, NULL},
        {"beta_schedule", json_string("linear"), "beta_schedule"},
        {"trained_betas", json_pack("[f]", 0.1), "trained_betas"},
        {"num_train_timesteps", json_integer(500), "num_train_timesteps"},
        {"set_alpha_to_one", json_false(), "set_alpha_to_one"},
        {"snr_shift_scale", json_integer(0), "snr_shift_scale"},
        {"snr_shift_scale", json_string("1"), "snr_shift_scale"},
        {"beta_start", json_real(0.5), "beta_start"},
        {"beta_end", json_real(1.5), "beta_end"},
        {"timestep_spacing", json_string("linspace"), NULL},
        {"rescale_betas_zero_snr", json_false(), NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        struct noise_schedule n;
        json_t *config = config_with(cases[i].field, cases[i].value);
        bool good = noise_schedule_read(&n, config, err, sizeof err);
        ok(cases[i].says ? !good && strstr(err, cases[i].says) && strstr(err, "scheduler_config.json") : good,
           "%s, changed or left out: %s", cases[i].field, good ? "accepted" : err);
        json_decref(config);
    }
    struct noise_schedule plain;
    json_t *config = config_with("rescale_betas_zero_snr", json_false());
    char err[256] = "";
    bool good = noise_schedule_read(&plain, config, err, sizeof err);
    ok(good && near(plain.alpha_bar[0], 0.99915, 1e-12) && near(plain.alpha_bar[999], 0.00466, 1e-3),
       "without rescaling some signal is left at the end: %g", good ? plain.alpha_bar[999] : NAN);
    json_decref(config);
}

/* Of Wan's folders: all that is set and not obeyed. */
static void test_flow_configs(void)
{
    struct {
        const char *field;
        json_t *value;
        bool good;
    } cases[] = {
        {"flow_shift", NULL, true},
        {"flow_shift", json_real(16), true},
        {"flow_shift", json_integer(0), false},
        {"flow_shift", json_string("3"), false},
        {"prediction_type", json_string("epsilon"), false},
        {"prediction_type", NULL, false}, /* the class's default is epsilon */
        {"use_flow_sigmas", json_false(), false},
        {"use_flow_sigmas", NULL, false},
        {"num_train_timesteps", json_integer(500), false},
        {"solver_order", json_integer(3), false},
        {"solver_type", json_string("bh1"), false},
        {"lower_order_final", json_false(), false},
        {"predict_x0", json_false(), false},
        {"disable_corrector", json_pack("[i]", 0), false},
        {"final_sigmas_type", json_string("sigma_min"), false},
        {"thresholding", json_true(), false},
        {"use_karras_sigmas", json_true(), false},
        {"use_exponential_sigmas", json_true(), false},
        {"use_beta_sigmas", json_true(), false},
        {"use_dynamic_shifting", json_true(), false},
        {"solver_p", json_pack("{s:s}", "_class_name", "DPMSolver"), false},
        {"shift_terminal", json_real(0.1), false},
        {"sigma_min", json_real(0.1), false},
        {"sigma_max", json_real(0.9), false},
        {"_class_name", json_string("FlowMatchEulerDiscreteScheduler"), false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        struct scheduler s;
        json_t *config = flow_config(cases[i].field, cases[i].value);
        bool good = scheduler_init(&s, NULL, 4, 0, config, err, sizeof err);
        ok(good == cases[i].good &&
               (good || (strstr(err, cases[i].field) && strstr(err, "scheduler_config.json"))),
           "%s, changed or left out: %s", cases[i].field, good ? "accepted" : err);
        json_decref(config);
    }
    struct scheduler s;
    char err[256] = "";
    json_t *flow = flow_config(NULL, NULL), *v = config_with(NULL, NULL);
    ok(!scheduler_init(&s, "dpm", 4, 0, flow, err, sizeof err) &&
           strstr(err, "--scheduler: dpm reads v-predictions"),
       "refused: %s", err);
    ok(!scheduler_init(&s, "ddim", 4, 2, v, err, sizeof err) && strstr(err, "--shift: ddim follows no flow"),
       "refused: %s", err);
    struct noise_schedule n;
    ok(noise_schedule_read(&n, flow, err, sizeof err) && objective_fits(&n, "flow", err, sizeof err) &&
           !objective_fits(&n, "flow-snr", err, sizeof err) && strstr(err, "--objective flow-snr") &&
           !objective_fits(&n, "v", err, sizeof err) && noise_schedule_read(&n, v, err, sizeof err) &&
           objective_fits(&n, "v", err, sizeof err) && objective_fits(&n, "flow", err, sizeof err),
       "a model of the flow is trained with objective flow alone: %s", err);
    json_decref(flow);
    json_decref(v);
}

static void test_steps(void)
{
    static const struct {
        const char *name;
        int64_t steps;
        const char *says;
    } cases[] = {{"dpm", 51, "such as 50 or 100, not 51"},
                 {"ddim", 999, "such as 500 or 1000, not 999"},
                 {"ddim", 3, "such as 2 or 4, not 3"},
                 {"dpm", 0, "such as 1, not 0"},
                 {"dpm", -5, "such as 1, not -5"},
                 {"dpm", 1001, "such as 1000, not 1001"},
                 {"dpm", INT64_C(1) << 40, "such as 1000, not"},
                 {"euler", 0, "euler takes"},
                 {"euler", INT64_C(1) << 40, "euler takes"},
                 {"unipc", 0, "unipc takes 1 to 1000"},
                 {"unipc", 1001, "unipc takes 1 to 1000"},
                 {"heun", 50, "--scheduler: no `heun`: there are dpm, ddim, unipc, euler"}};
    json_t *config = config_with(NULL, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char err[256] = "";
        struct scheduler s;
        bool good = scheduler_init(&s, cases[i].name, cases[i].steps, 0, config, err, sizeof err);
        ok(!good && strstr(err, cases[i].says), "refused: %s", err);
    }
    json_decref(config);
}

/* Every timestep_spacing and steps_offset that diffusers has: its timesteps, and where a scalar ends whose answer
 * is x/2 + sin(t), with noise of 0.3 in every draw. Both in double. */
static void test_spacings(void)
{
    size_t i;
    json_t *line, *all = json_load_file("tests/data/schedulers.json", 0, NULL);
    json_array_foreach (json_object_get(all, "spacings"), i, line) {
        static const char *const names[] = {"ddim", "dpm"};
        const char *spacing = json_string_value(json_object_get(line, "spacing"));
        int steps = (int)json_integer_value(json_object_get(line, "steps")),
            offset = (int)json_integer_value(json_object_get(line, "offset"));
        json_t *config = config_with("timestep_spacing", json_string(spacing)),
               *timesteps = json_object_get(line, "timesteps");
        json_object_set_new(config, "steps_offset", json_integer(offset));
        for (int n = 0; n < 2; n++) {
            struct scheduler s;
            char err[256] = "";
            bool good = scheduler_init(&s, names[n], steps, 0, config, err, sizeof err);
            double x = 0.7, before = 0, want = json_number_value(json_object_get(line, names[n]));
            for (int k = 0; good && k < steps; k++) {
                struct scheduler_step c = scheduler_step(&s, k);
                double t = scheduler_timestep(&s, k), v = x / 2 + sin(t), x0 = c.x0_x * x + c.x0_v * v;
                good = t == json_number_value(json_array_get(timesteps, (size_t)k));
                x = c.next_x * x + c.next_v * v + (c.next_x0 != 0 ? c.next_x0 * before : 0) +
                    (c.next_n != 0 ? c.next_n * 0.3 : 0);
                before = x0;
            }
            ok(good && fabs(x - want) <= 1e-9 * (1 + fabs(want)),
               "%s, %s + %d, %d steps: %.12g, diffusers' %.12g %s", names[n], spacing, offset, steps, x, want,
               err);
        }
        json_decref(config);
    }
    ok(i == 16, "four spacings, four numbers of steps");
    json_decref(all);
    struct scheduler s;
    char err[256] = "";
    json_t *config = config_with("timestep_spacing", json_string("karras"));
    ok(!scheduler_init(&s, "dpm", 4, 0, config, err, sizeof err) && strstr(err, "timestep_spacing is karras"),
       "refused: %s", err);
    json_decref(config);
    config = config_with("steps_offset", json_integer(250));
    ok(!scheduler_init(&s, "ddim", 4, 0, config, err, sizeof err) && strstr(err, "steps_offset"),
       "refused: %s", err);
    json_decref(config);
}

int main(void)
{
    test_recorded();
    test_dpm_table();
    test_ddim_table();
    test_guidance_table();
    test_whole_runs();
    test_euler();
    test_unipc();
    test_shifted_euler();
    test_training_points();
    test_configs();
    test_flow_configs();
    test_steps();
    test_spacings();
    return done();
}
