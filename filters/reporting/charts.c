#include "filters/reporting/charts.h"

#include <math.h>
#include <string.h>

enum { PANELS = 3, LONGEST = 36 /* characters of a name */ };

/* What a panel shows of a run. */
struct bar {
    double value, low, high;
    double shade; /* half the width of the band of undetectable differences, or 0 */
};

static double number(const json_t *o, const char *field)
{
    return json_number_value(json_object_get(o, field));
}

static struct bar own(const json_t *variant, int panel)
{
    static const char *const field[PANELS] = {"joint_pct", "sa_mean", "pc_mean"};
    json_t *ci = json_object_get(json_object_get(variant, "ci"), field[panel]);
    double value = number(variant, field[panel]);
    return ci ? (struct bar){value, json_number_value(json_array_get(ci, 0)),
                             json_number_value(json_array_get(ci, 1)), 0}
              : (struct bar){value, value, value, 0};
}

static struct bar difference(const json_t *variant, int panel)
{
    json_t *d =
        json_object_get(json_object_get(variant, "vs_base"), (const char *[]){"joint", "sa", "pc"}[panel]);
    if (panel) return (struct bar){number(d, "delta"), number(d, "ci_low"), number(d, "ci_high"), 0};
    return (struct bar){number(d, "delta_pp"), number(d, "ci_low_pp"), number(d, "ci_high_pp"),
                        number(d, "detectable_pp")};
}

int chart_rows(enum chart chart, const json_t *comparison)
{
    return (int)json_object_size(json_object_get(comparison, "variants")) - (chart == CHART_FOREST);
}

/* The number beside a run's bar. */
static void write_value(char *to, size_t size, enum chart chart, int panel, const json_t *variant)
{
    if (chart == CHART_BARS) {
        snprintf(to, size, "%.*f", panel ? 3 : 2, own(variant, panel).value);
    } else {
        struct bar b = difference(variant, panel);
        const int digits = panel ? 3 : 2;
        snprintf(to, size, "%+.*f [%+.*f, %+.*f]", digits, b.value, digits, b.low, digits, b.high);
    }
}

/* ---- the layout: names, and of each panel the bars with their numbers beside them ----------------------- */

struct layout {
    double em, names, values, area; /* widths in pixels; area: of the bars */
    int across;                     /* panels beside each other; else they stand one below the other */
};
/* Heights in em: of a row, of the title above a panel's rows, of the scale below them. */
static const double ROW = 2, TITLE = 3.1, SCALE = 2.6;

static double height_of(const struct layout *l, int rows)
{
    return PANELS / l->across * (rows * ROW + TITLE + SCALE) * l->em;
}

static struct layout layout_of(enum chart chart, const json_t *comparison, int64_t width, double em,
                               int across)
{
    struct layout l = {.em = em, .across = across};
    const char *name, *base = json_string_value(json_object_get(comparison, "base"));
    char text[LONGEST * 4 + 8];
    json_t *variant;
    json_object_foreach (json_object_get(comparison, "variants"), name, variant) {
        if (chart == CHART_FOREST && !strcmp(name, base)) continue;
        gnuplot_shorten(text, sizeof text, name, LONGEST, 0.4 * (double)width / em);
        l.names = fmax(l.names, (gnuplot_width(text) + 1.5) * em);
        for (int panel = 0; panel < PANELS; panel++) {
            write_value(text, sizeof text, chart, panel, variant);
            l.values = fmax(l.values, (gnuplot_width(text) + 1.5) * em);
        }
    }
    l.area = ((double)width - l.names) / across - l.values;
    return l;
}

/* Side by side where that leaves room for bars, else one below the other; in letters of the usual size if there is
 * room for it. height: 0 for as much as it takes. */
static struct layout lay_out(enum chart chart, const json_t *comparison, enum gnuplot_format format,
                             int64_t width, int64_t height)
{
    struct layout l;
    for (double em = gnuplot_em(format);; em *= 0.95)
        for (int across = PANELS; across > 0; across -= PANELS - 1) {
            l = layout_of(chart, comparison, width, em, across);
            bool fits = l.area >= 10 * em &&
                        (!height || height_of(&l, chart_rows(chart, comparison)) <= (double)height);
            if (fits || (em < 5 && across == 1)) return l;
        }
}

int64_t chart_height(enum chart chart, const json_t *comparison, enum gnuplot_format format, int64_t width)
{
    struct layout l = lay_out(chart, comparison, format, width, 0);
    return (int64_t)ceil(height_of(&l, chart_rows(chart, comparison)));
}

/* ---- the script ---------------------------------------------------------------------------------------- */

/* $p0 to $p2: row value low high shade base, which is 1 for the base. */
static void write_rows(FILE *script, enum chart chart, const json_t *comparison)
{
    const char *name, *base = json_string_value(json_object_get(comparison, "base"));
    json_t *variant;
    for (int panel = 0; panel < PANELS; panel++) {
        int row = 0;
        fprintf(script, "$p%d << END\n", panel);
        json_object_foreach (json_object_get(comparison, "variants"), name, variant) {
            if (chart == CHART_FOREST && !strcmp(name, base)) continue;
            struct bar b = chart == CHART_FOREST ? difference(variant, panel) : own(variant, panel);
            fprintf(script, "%d %.9g %.9g %.9g %.9g %d\n", row++, b.value, b.low, b.high, b.shade,
                    !strcmp(name, base));
        }
        fputs("END\n", script);
    }
}

static void write_label(FILE *script, int number, double x, int row, const char *text)
{
    fprintf(script, "set label %d at screen %.5f, first %d right ", number, x, row);
    gnuplot_text(script, text);
    fputc('\n', script);
}

/* Names to the left of a panel that begins a line of panels, else none; numbers at its right end. */
static void write_labels(FILE *script, enum chart chart, const json_t *comparison, const struct layout *l,
                         int64_t width, int panel, double right)
{
    const char *name, *base = json_string_value(json_object_get(comparison, "base"));
    char text[LONGEST * 4 + 8];
    json_t *variant;
    int row = 0;
    fputs("unset label\n", script);
    json_object_foreach (json_object_get(comparison, "variants"), name, variant) {
        if (chart == CHART_FOREST && !strcmp(name, base)) continue;
        gnuplot_shorten(text, sizeof text, name, LONGEST, 0.4 * (double)width / l->em);
        if (panel % l->across == 0)
            write_label(script, 2 * row + 1, (l->names - 0.7 * l->em) / (double)width, row, text);
        write_value(text, sizeof text, chart, panel, variant);
        write_label(script, 2 * row + 2, right - 0.4 * l->em / (double)width, row, text);
        row++;
    }
}

/* A scale from tick to tick. */
static void write_scale(FILE *script, const char *title, double low, double high, double step)
{
    fprintf(script, "set title '%s'\nset xtics %.9g\nset xrange [%.9g:%.9g]\n", title, step, low, high);
}

/* SA and PC end at 5, Joint at 100 or where a tick is above the highest. */
static void write_bars(FILE *script, int panel, const json_t *comparison)
{
    static const char *const title[PANELS] = {"Joint %", "SA, mean", "PC, mean"};
    const char *name;
    json_t *variant;
    double longest = 0;
    json_object_foreach (json_object_get(comparison, "variants"), name, variant)
        longest = fmax(longest, fmax(own(variant, panel).high, own(variant, panel).value));
    if (!(longest > 0)) longest = 1;
    double step = panel ? 1 : gnuplot_step(longest, 4);
    write_scale(script, title[panel], 0, panel ? 5 : fmin(100, step * ceil(longest / step)), step);
    fprintf(
        script,
        "plot $p%d using 2:1:(0):2:($1-0.3):($1+0.3):($6 > 0 ? 0xb0b0b0 : 0x6baed6) with boxxyerror fs solid "
        "noborder lc rgb variable, '' using 2:1:3:4 with xerrorbars lt 1\n",
        panel);
}

static void write_forest(FILE *script, int panel, const json_t *comparison)
{
    static const char *const title[PANELS] = {"Joint, percentage points", "SA", "PC"};
    const char *name;
    json_t *variant;
    double low = 0, high = 0;
    json_object_foreach (json_object_get(comparison, "variants"), name, variant) {
        struct bar b = difference(variant, panel);
        low = fmin(low, fmin(b.low, -b.shade));
        high = fmax(high, fmax(b.high, b.shade));
    }
    if (high - low < 1e-9) low = -1, high = 1;
    double step = gnuplot_step(high - low, 4);
    write_scale(script, title[panel], step * floor(low / step), step * ceil(high / step), step);
    fprintf(
        script,
        "plot $p%d using (0):1:(-$5):5:($1-0.4):($1+0.4) with boxxyerror fs solid noborder lc rgb '#ececec', "
        "'' using (0):($1-0.5):(0):(1) with vectors nohead lc rgb '#808080', '' using 2:1:3:4 with xerrorbars lt 1\n",
        panel);
}

void chart_script(FILE *script, enum chart chart, enum gnuplot_format format, int64_t width, int64_t height,
                  const json_t *comparison)
{
    const struct layout l = lay_out(chart, comparison, format, width, height);
    const int rows = chart_rows(chart, comparison), lines = PANELS / l.across;
    const double w = (double)width, h = (double)height;
    gnuplot_terminal(script, format, width, height, l.em);
    fputs("set border 1 lc rgb '#808080'\nset tics nomirror textcolor rgb '#404040'\nunset ytics\n"
          "unset key\nset grid x lc rgb '#e0e0e0' lt 1\nset linetype 1 lw 2 pt 7 ps 0.8 lc rgb '#0072b2'\n",
          script);
    fprintf(script, "set yrange [%d.5:-0.5]\nset multiplot\n", rows - 1);
    write_rows(script, chart, comparison);
    for (int panel = 0; panel < PANELS; panel++) {
        double left = (l.names + panel % l.across * (l.area + l.values)) / w,
               top = 1 - (double)(panel / l.across) / lines;
        double right = left + (l.area + l.values) / w;
        fprintf(script, "set lmargin at screen %.5f\nset rmargin at screen %.5f\n", left, left + l.area / w);
        fprintf(script, "set tmargin at screen %.5f\nset bmargin at screen %.5f\n", top - TITLE * l.em / h,
                top - 1.0 / lines + SCALE * l.em / h);
        write_labels(script, chart, comparison, &l, width, panel, right);
        if (chart == CHART_FOREST)
            write_forest(script, panel, comparison);
        else
            write_bars(script, panel, comparison);
    }
    fputs("unset multiplot\n", script);
}
