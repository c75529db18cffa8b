#include "filters/reporting/comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/reporting/paired.h"
#include "formats/columns.h"
#include "formats/error.h"

/* ---- computing ----------------------------------------------------------------------------------------- */

/* The values of each run that are resampled: its own, and their differences from the base's; Joint in
 * percent. */
enum { OWN = PC + 1, SERIES = OWN + METRICS };

static struct interval *intervals(const struct pairing *p, int64_t resamples, uint64_t seed)
{
    int runs = p->scores->count, series = runs * SERIES;
    struct interval *of = calloc((size_t)series, sizeof *of);
    double *value = calloc(p->n * (size_t)series, sizeof *value), *to = value;
    for (size_t i = 0; value && i < p->n; i++)
        for (int run = 0; run < runs; run++) {
            for (int m = 0; m < OWN; m++) *to++ = (m == JOINT ? 100 : 1) * pairing_value(p, i, run, m);
            for (int m = 0; m < METRICS; m++) {
                double d = pairing_value(p, i, run, m) - pairing_value(p, i, p->base, m);
                *to++ = isnan(d) ? 0 : m == JOINT ? 100 * d : d; /* NaN: no expected scores */
            }
        }
    bool good = of && value && bootstrap(of, value, p->n, series, resamples, seed);
    free(value);
    if (!good) free(of), of = NULL;
    return of;
}

static json_t *pair(struct interval ci)
{
    return json_pack("[f, f]", ci.low, ci.high);
}

static json_t *describe(const struct pairing *p, int run, const struct interval *ci)
{
    double sum[METRICS], n = (double)p->n;
    for (int m = 0; m < METRICS; m++) sum[m] = pairing_sum(p, run, m);
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:{s:o, s:o, s:o}}", "scores", (json_int_t)p->used[run],
                     "joint_pct", 100 * sum[JOINT] / n, "sa_mean", sum[SA] / n, "pc_mean", sum[PC] / n,
                     "sa_ge4_pct", 100 * sum[SA_HIGH] / n, "pc_ge4_pct", 100 * sum[PC_HIGH] / n, "ci",
                     "joint_pct", pair(ci[JOINT]), "sa_mean", pair(ci[SA]), "pc_mean", pair(ci[PC]));
}

/* Of the variant's values minus the base's. */
struct difference {
    int64_t less, more; /* prompts */
    double sum, squares;
};
static struct difference difference(const struct pairing *p, int run, enum metric m)
{
    struct difference of = {0};
    for (size_t i = 0; i < p->n; i++) {
        double d = pairing_value(p, i, run, m) - pairing_value(p, i, p->base, m);
        of.less += d<0, of.more += d> 0;
        of.sum += d, of.squares += d * d;
    }
    return of;
}

static json_t *compare_joint(const struct pairing *p, int run, struct interval ci)
{
    struct difference d = difference(p, run, JOINT);
    struct mcnemar test = mcnemar(d.less, d.more);
    double n = (double)p->n, detectable = detectable_difference(n, d.squares / n);
    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:n, s:f, s:f, s:f, s:o}", "b", (json_int_t)d.less, "c",
                     (json_int_t)d.more, "p_exact", test.p_exact, "chi2", test.chi2, "p_chi2", test.p_chi2,
                     "p_holm", "delta_pp", 100 * d.sum / n, "ci_low_pp", ci.low, "ci_high_pp", ci.high,
                     "detectable_pp", isnan(detectable) ? json_null() : json_real(100 * detectable));
}

/* NULL when there are no such values */
static json_t *compare_means(const struct pairing *p, int run, enum metric m, const struct interval *ci)
{
    double mean = difference(p, run, m).sum / (double)p->n;
    return isnan(mean)
               ? NULL
               : json_pack("{s:f, s:f, s:f}", "delta", mean, "ci_low", ci[m].low, "ci_high", ci[m].high);
}

static json_t *compare(const struct pairing *p, int run, const struct interval *ci)
{
    return json_pack("{s:o, s:o, s:o, s:o*, s:o*}", "joint", compare_joint(p, run, ci[JOINT]), "sa",
                     compare_means(p, run, SA, ci), "pc", compare_means(p, run, PC, ci), "sa_expected",
                     compare_means(p, run, SA_EXPECTED, ci), "pc_expected",
                     compare_means(p, run, PC_EXPECTED, ci));
}

static json_t *joint_of(const json_t *variant)
{
    return json_object_get(json_object_get(variant, "vs_base"), "joint");
}

static bool add_holm(json_t *variants)
{
    int count = 0;
    const char *name;
    json_t *v;
    double *p = calloc(json_object_size(variants), sizeof *p);
    json_object_foreach (variants, name, v)
        if (p && joint_of(v)) p[count++] = json_number_value(json_object_get(joint_of(v), "p_exact"));
    bool good = p && holm(p, p, count);
    count = 0;
    json_object_foreach (variants, name, v)
        if (good && joint_of(v)) json_object_set_new(joint_of(v), "p_holm", json_real(p[count++]));
    free(p);
    return good;
}

json_t *comparison_make(const struct pairing *p, int64_t resamples, uint64_t seed)
{
    json_t *variants = json_object(), *all = NULL;
    struct interval *ci = intervals(p, resamples, seed);
    for (int i = -1; ci && i < p->scores->count; i++) { /* the base comes first */
        int run = i < 0 ? p->base : i;
        if (i == p->base) continue;
        json_t *v = describe(p, run, ci + run * SERIES);
        if (run != p->base) json_object_set_new(v, "vs_base", compare(p, run, ci + run * SERIES + OWN));
        json_object_set_new(variants, p->scores->variant[run].name, v);
    }
    if (ci && add_holm(variants))
        all = json_pack("{s:I, s:s, s:I, s:I, s:I, s:O}", "n", (json_int_t)p->n, "base",
                        p->scores->variant[p->base].name, "seed", (json_int_t)seed, "resamples",
                        (json_int_t)resamples, "left_out", (json_int_t)p->left_out, "variants", variants);
    json_decref(variants);
    free(ci);
    return all;
}

/* ---- from a file --------------------------------------------------------------------------------------- */

/* All of a list of names, ending with a NULL, are numbers in o. */
static bool has_numbers(const json_t *o, const char *const *field, const char *variant, char *err,
                        size_t errlen)
{
    for (; *field; field++)
        if (!json_is_number(json_object_get(o, *field)))
            return fail(err, errlen, "not a comparison: `%s` has no %s", variant, *field);
    return true;
}

static bool check_variant(const char *name, const json_t *v, bool is_base, char *err, size_t errlen)
{
    static const char *const own[] = {"joint_pct", "sa_mean", "pc_mean", "sa_ge4_pct", "pc_ge4_pct", NULL},
                             *const joint[] = {"b",      "c",        "p_exact",   "chi2",       "p_chi2",
                                               "p_holm", "delta_pp", "ci_low_pp", "ci_high_pp", NULL},
                             *const means[] = {"delta", "ci_low", "ci_high", NULL};
    json_t *vs = json_object_get(v, "vs_base");
    return has_numbers(v, own, name, err, errlen) &&
           (is_base || (has_numbers(json_object_get(vs, "joint"), joint, name, err, errlen) &&
                        has_numbers(json_object_get(vs, "sa"), means, name, err, errlen) &&
                        has_numbers(json_object_get(vs, "pc"), means, name, err, errlen)));
}

bool comparison_check(const json_t *comparison, char *err, size_t errlen)
{
    const char *base = json_string_value(json_object_get(comparison, "base")), *name;
    json_t *variants = json_object_get(comparison, "variants"), *v;
    if (!json_is_number(json_object_get(comparison, "n")) || !base || !json_object_get(variants, base))
        return fail(err, errlen, "not a comparison: it has no n, no base, or no variant of that name");
    bool good = true;
    json_object_foreach (variants, name, v)
        good = good && check_variant(name, v, !strcmp(name, base), err, errlen);
    return good;
}

/* ---- for people ---------------------------------------------------------------------------------------- */

static double number(const json_t *o, const char *field)
{
    return json_number_value(json_object_get(o, field));
}

/* "-0.17 [-2.03, 1.69]" */
static json_t *joint_cell(const json_t *o)
{
    return json_sprintf("%+.2f [%+.2f, %+.2f]", number(o, "delta_pp"), number(o, "ci_low_pp"),
                        number(o, "ci_high_pp"));
}

static json_t *mean_cell(const json_t *o)
{
    return json_sprintf("%+.3f [%+.3f, %+.3f]", number(o, "delta"), number(o, "ci_low"),
                        number(o, "ci_high"));
}

static json_t *p_cell(double p)
{
    return p < 0.0005 ? json_string("<0.001") : json_sprintf("%.3f", p);
}

static json_t *run_cells(const char *name, const json_t *v)
{
    json_t *ci = json_object_get(json_object_get(v, "ci"), "joint_pct");
    return json_pack("[s, o, o, o, o, o, o]", name, json_sprintf("%.2f", number(v, "joint_pct")),
                     json_sprintf("[%.2f, %.2f]", json_number_value(json_array_get(ci, 0)),
                                  json_number_value(json_array_get(ci, 1))),
                     json_sprintf("%.3f", number(v, "sa_mean")), json_sprintf("%.3f", number(v, "pc_mean")),
                     json_sprintf("%.2f", number(v, "sa_ge4_pct")),
                     json_sprintf("%.2f", number(v, "pc_ge4_pct")));
}

static json_t *joint_cells(const char *name, const json_t *joint)
{
    json_t *detectable = json_object_get(joint, "detectable_pp");
    return json_pack("[s, o, o, o, o, o, o]", name, joint_cell(joint),
                     json_sprintf("%.0f", number(joint, "b")), json_sprintf("%.0f", number(joint, "c")),
                     p_cell(number(joint, "p_exact")), p_cell(number(joint, "p_holm")),
                     json_is_number(detectable) ? json_sprintf("%.2f", json_number_value(detectable))
                                                : json_string("-"));
}

/* NULL when there are no such values */
static json_t *mean_cells(const char *name, const json_t *sa, const json_t *pc)
{
    return sa && pc ? json_pack("[s, o, o]", name, mean_cell(sa), mean_cell(pc)) : NULL;
}

json_t *comparison_tables(const json_t *comparison)
{
    json_t *v, *all = json_pack(
                   "[[[s, s, s, s, s, s, s]], [[s, s, s, s, s, s, s]], [[s, s, s]], [[s, s, s]]]", "run",
                   "Joint %", "95 % CI", "SA", "PC", "SA>=4 %", "PC>=4 %", "minus base", "Joint pp [95 % CI]",
                   "b", "c", "p exact", "p Holm", "80 % power from", "minus base", "SA [95 % CI]",
                   "PC [95 % CI]", "minus base", "expected SA [95 % CI]", "expected PC [95 % CI]");
    const char *name;
    json_object_foreach (json_object_get(comparison, "variants"), name, v) {
        json_t *vs = json_object_get(v, "vs_base");
        json_array_append_new(json_array_get(all, 0), run_cells(name, v));
        if (!vs) continue;
        json_array_append_new(json_array_get(all, 1), joint_cells(name, json_object_get(vs, "joint")));
        json_array_append_new(json_array_get(all, 2),
                              mean_cells(name, json_object_get(vs, "sa"), json_object_get(vs, "pc")));
        json_array_append_new(json_array_get(all, 3), mean_cells(name, json_object_get(vs, "sa_expected"),
                                                                 json_object_get(vs, "pc_expected")));
    }
    for (size_t i = json_array_size(all); i-- > 0;)
        if (json_array_size(json_array_get(all, i)) < 2) json_array_remove(all, i);
    return all;
}

void comparison_print(FILE *out, const json_t *comparison)
{
    json_t *tables = comparison_tables(comparison);
    fprintf(out, "%.0f prompts, %.0f resamples, seed %.0f\n", number(comparison, "n"),
            number(comparison, "resamples"), number(comparison, "seed"));
    for (size_t i = 0; i < json_array_size(tables); i++)
        fputc('\n', out), columns_print(out, json_array_get(tables, i), 1);
    json_decref(tables);
}
