#include "filters/reporting/comparison.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/reporting/paired.h"
#include "formats/columns.h"
#include "formats/csv.h"
#include "formats/error.h"
#include "formats/plain.h"

json_t *comparison_choose(struct scores *s, const char *const *where, int count, char *err, size_t errlen)
{
    json_t *chosen = json_object();
    for (int i = 0; i < count; i++) {
        const char *equals = strchr(where[i], '=');
        char *field = equals ? strndup(where[i], (size_t)(equals - where[i])) : NULL;
        bool good = field ? scores_keep(s, field, equals + 1, err, errlen)
                          : fail(err, errlen, "%s: not of the form FIELD=VALUE", where[i]);
        if (good) json_object_set_new(chosen, field, json_string(equals + 1));
        free(field);
        if (good) continue;
        json_decref(chosen);
        return NULL;
    }
    return chosen;
}

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
    bool one_sided = sum[JOINT] <= 0 || sum[JOINT] >= n;
    struct interval share = one_sided ? wilson(sum[JOINT], n) : ci[JOINT];
    if (one_sided) share = (struct interval){100 * share.low, 100 * share.high};
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:{s:o, s:o, s:o}, s:s}", "scores",
                     (json_int_t)pairing_scores(p, run), "joint_pct", 100 * sum[JOINT] / n, "sa_mean",
                     sum[SA] / n, "pc_mean", sum[PC] / n, "sa_ge4_pct", 100 * sum[SA_HIGH] / n, "pc_ge4_pct",
                     100 * sum[PC_HIGH] / n, "ci", "joint_pct", pair(share), "sa_mean", pair(ci[SA]),
                     "pc_mean", pair(ci[PC]), "joint_interval", one_sided ? "wilson" : "bootstrap");
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

/* Appends the variants' tests of Joint. */
static void add_tests(json_t *tests, const json_t *variants)
{
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)variants, name, v)
        json_array_append(tests, json_object_get(json_object_get(v, "vs_base"), "joint"));
}

/* Corrects each of the tests for their number. */
static bool add_holm(json_t *tests)
{
    size_t count = json_array_size(tests);
    double *p = calloc(count + 1, sizeof *p);
    for (size_t i = 0; p && i < count; i++)
        p[i] = json_number_value(json_object_get(json_array_get(tests, i), "p_exact"));
    bool good = p && holm(p, p, (int)count);
    for (size_t i = 0; good && i < count; i++)
        json_object_set_new(json_array_get(tests, i), "p_holm", json_real(p[i]));
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
    json_t *tests = json_array();
    add_tests(tests, variants);
    if (ci && add_holm(tests))
        all = json_pack("{s:I, s:s, s:I, s:I, s:I, s:O}", "n", (json_int_t)p->n, "base",
                        p->scores->variant[p->base].name, "seed", (json_int_t)seed, "resamples",
                        (json_int_t)resamples, "left_out", (json_int_t)p->left_out, "variants", variants);
    json_decref(tests);
    json_decref(variants);
    free(ci);
    return all;
}

/* ---- groups -------------------------------------------------------------------------------------------- */

enum { MAX_GROUPS = 200 };

static int by_number(const void *a, const void *b)
{
    double x = 0, y = 0;
    csv_number(*(const char *const *)a, &x), csv_number(*(const char *const *)b, &y);
    return (x > y) - (x < y);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The values that prompts have, in order; their number, or -1 when there are more than MAX_GROUPS. Prompts have
 * the values' own bytes when this is done, so that 1 and 1.0 are one group. */
static int list_values(const char **value, const char **of, size_t n)
{
    int count = 0;
    bool numbers = true;
    for (size_t i = 0; i < n; i++) {
        int k = 0;
        while (of[i] && k < count && !scores_same(value[k], of[i])) k++;
        if (of[i] && k == MAX_GROUPS) return -1;
        if (of[i] && k == count) value[count++] = of[i];
        if (of[i]) of[i] = value[k];
        double unused;
        numbers = numbers && (!of[i] || csv_number(of[i], &unused));
    }
    qsort(value, (size_t)count, sizeof *value, numbers ? by_number : by_bytes);
    return count;
}

/* The prompts whose text is this one, NULL being none; a new object, NULL when out of memory. */
static json_t *make_group(const struct pairing *p, const char **of, const char *value, int64_t resamples,
                          uint64_t seed)
{
    struct pairing part;
    bool *kept = calloc(p->n, sizeof *kept);
    for (size_t i = 0; kept && i < p->n; i++) kept[i] = of[i] == value;
    bool good = kept && pairing_part(&part, p, kept);
    free(kept);
    if (!good) return NULL;
    json_t *c = comparison_make(&part, resamples, seed);
    json_t *group = c ? json_pack("{s:s?, s:O, s:O}", "value", value, "n", json_object_get(c, "n"),
                                  "variants", json_object_get(c, "variants"))
                      : NULL;
    json_decref(c);
    pairing_free(&part);
    return group;
}

bool comparison_add_groups(json_t *comparison, const struct pairing *p, const char *field, char *err,
                           size_t errlen)
{
    if (!scores_check_field(p->scores, field, err, errlen)) return false;
    int64_t resamples = json_integer_value(json_object_get(comparison, "resamples"));
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(comparison, "seed"));
    const char *value[MAX_GROUPS + 1], **of = calloc(p->n, sizeof *of);
    if (!of) return fail(err, errlen, "out of memory");
    bool some_without = false;
    for (size_t i = 0; i < p->n; i++) {
        of[i] = scores_field(p->scores, p->prompt[i], field);
        some_without = some_without || !of[i];
    }
    int count = list_values(value, of, p->n);
    bool good =
        count >= 0 || fail(err, errlen, "`%s` has more than %d values: too many groups", field, MAX_GROUPS);
    if (good && some_without) value[count++] = NULL;
    json_t *groups = json_array(), *tests = json_array();
    for (int i = 0; good && i < count; i++) {
        json_t *group = make_group(p, of, value[i], resamples, seed);
        good = group || fail(err, errlen, "out of memory");
        add_tests(tests, json_object_get(group, "variants"));
        json_array_append_new(groups, group);
    }
    good = good && (add_holm(tests) || fail(err, errlen, "out of memory"));
    if (good)
        json_object_set_new(comparison, "by",
                            json_pack("{s:s, s:I, s:O}", "field", field, "tests",
                                      (json_int_t)json_array_size(tests), "groups", groups));
    json_decref(tests);
    json_decref(groups);
    free(of);
    return good;
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

static bool is_wilson(const json_t *v)
{
    const char *interval = json_string_value(json_object_get(v, "joint_interval"));
    return interval && !strcmp(interval, "wilson");
}

static json_t *run_cells(const char *name, const json_t *v)
{
    json_t *ci = json_object_get(json_object_get(v, "ci"), "joint_pct");
    return json_pack("[s, o, o, o, o, o, o]", name, json_sprintf("%.2f", number(v, "joint_pct")),
                     json_sprintf("[%.2f, %.2f]%s", json_number_value(json_array_get(ci, 0)),
                                  json_number_value(json_array_get(ci, 1)), is_wilson(v) ? " W" : ""),
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

/* Their headings, without rows. */
static json_t *start_tables(void)
{
    return json_pack("[[[s, s, s, s, s, s, s]], [[s, s, s, s, s, s, s]], [[s, s, s]], [[s, s, s]]]", "run",
                     "Joint %", "95 % CI", "SA", "PC", "SA>=4 %", "PC>=4 %", "minus base",
                     "Joint pp [95 % CI]", "b", "c", "p exact", "p Holm", "80 % power from", "minus base",
                     "SA [95 % CI]", "PC [95 % CI]", "minus base", "expected SA [95 % CI]",
                     "expected PC [95 % CI]");
}

static void add_rows(json_t *tables, const json_t *variants)
{
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)variants, name, v) {
        json_t *vs = json_object_get(v, "vs_base");
        json_array_append_new(json_array_get(tables, 0), run_cells(name, v));
        if (!vs) continue;
        json_array_append_new(json_array_get(tables, 1), joint_cells(name, json_object_get(vs, "joint")));
        json_array_append_new(json_array_get(tables, 2),
                              mean_cells(name, json_object_get(vs, "sa"), json_object_get(vs, "pc")));
        json_array_append_new(json_array_get(tables, 3), mean_cells(name, json_object_get(vs, "sa_expected"),
                                                                    json_object_get(vs, "pc_expected")));
    }
}

static json_t *with_rows(json_t *tables)
{
    for (size_t i = json_array_size(tables); i-- > 0;)
        if (json_array_size(json_array_get(tables, i)) < 2) json_array_remove(tables, i);
    return tables;
}

json_t *comparison_tables(const json_t *comparison)
{
    json_t *tables = start_tables();
    add_rows(tables, json_object_get(comparison, "variants"));
    return with_rows(tables);
}

/* Puts the group's value, and in the first table how many prompts it has, into rows from `from` on. */
static void name_group(json_t *tables, const size_t *from, const char *value, json_t *n)
{
    for (size_t t = 0; t < json_array_size(tables); t++)
        for (size_t i = from[t]; i < json_array_size(json_array_get(tables, t)); i++) {
            json_t *row = json_array_get(json_array_get(tables, t), i);
            json_array_insert_new(row, 0, json_string(value));
            if (t == 0) json_array_insert(row, 2, n);
        }
}

json_t *comparison_group_tables(const json_t *comparison)
{
    json_t *by = json_object_get(comparison, "by"), *group, *tables = by ? start_tables() : NULL;
    const char *field = json_string_value(json_object_get(by, "field"));
    size_t i, from[8] = {0};
    if (!by) return NULL;
    json_t *without = json_sprintf("(no %s)", field), *n = json_string("n");
    name_group(tables, from, field, n);
    json_decref(n);
    json_array_foreach (json_object_get(by, "groups"), i, group) {
        const char *value = json_string_value(json_object_get(group, "value"));
        for (size_t t = 0; t < json_array_size(tables); t++)
            from[t] = json_array_size(json_array_get(tables, t));
        add_rows(tables, json_object_get(group, "variants"));
        n = json_sprintf("%.0f", number(group, "n"));
        name_group(tables, from, value ? value : json_string_value(without), n);
        json_decref(n);
    }
    json_decref(without);
    return with_rows(tables);
}

static bool any_wilson(const json_t *variants)
{
    const char *name;
    json_t *v;
    json_object_foreach ((json_t *)variants, name, v)
        if (is_wilson(v)) return true;
    return false;
}

json_t *comparison_notes(const json_t *comparison)
{
    json_t *notes = json_array(), *by = json_object_get(comparison, "by"), *group;
    bool wilson = any_wilson(json_object_get(comparison, "variants"));
    size_t i;
    json_array_foreach (json_object_get(by, "groups"), i, group)
        wilson = wilson || any_wilson(json_object_get(group, "variants"));
    if (wilson)
        json_array_append_new(notes,
                              json_string("W: Wilson's interval. None or all of the prompts have Joint, and "
                                          "the bootstrap's interval would have no width."));
    if (number(by, "tests") > 0)
        json_array_append_new(
            notes, json_sprintf("By %s: p Holm is corrected for all %.0f tests of the groups.",
                                json_string_value(json_object_get(by, "field")), number(by, "tests")));
    return notes;
}

json_t *comparison_where(const json_t *comparison)
{
    json_t *text = json_string(""), *value;
    const char *field;
    json_object_foreach (json_object_get(comparison, "where"), field, value) {
        json_t *more =
            json_sprintf("%s %s %s=%s", json_string_value(text), *json_string_value(text) ? "and" : "with",
                         field, json_string_value(value));
        json_decref(text);
        text = more;
    }
    return text;
}

static void print_tables(FILE *out, json_t *tables_stolen, size_t left)
{
    for (size_t i = 0; i < json_array_size(tables_stolen); i++)
        fputc('\n', out), columns_print(out, json_array_get(tables_stolen, i), left);
    json_decref(tables_stolen);
}

void comparison_print(FILE *out, const json_t *comparison)
{
    json_t *notes = comparison_notes(comparison), *where = comparison_where(comparison);
    size_t i;
    fprintf(out, "%.0f prompts", number(comparison, "n"));
    put_plain(out, json_string_value(where));
    fprintf(out, ", %.0f resamples, seed %.0f\n", number(comparison, "resamples"),
            number(comparison, "seed"));
    json_decref(where);
    print_tables(out, comparison_tables(comparison), 1);
    print_tables(out, comparison_group_tables(comparison), 2);
    for (i = 0; i < json_array_size(notes); i++) {
        fputs(i ? "" : "\n", out);
        put_plain(out, json_string_value(json_array_get(notes, i)));
        fputc('\n', out);
    }
    json_decref(notes);
}
