#include "filters/reporting/charts.h"

#include <math.h>
#include <string.h>

#include "formats/gnuplot.h"

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

int64_t chart_height(int rows)
{
    return 110 + 46 * (int64_t)rows;
}

/* Cuts a name that is too long, between characters. Returns how many characters it then has. */
static int shorten(char *to, size_t size, const char *name)
{
    int n = 0;
    size_t at = 0;
    for (; name[at] && at + 4 < size; at++) {
        bool starts = ((unsigned char)name[at] & 0xc0) != 0x80;
        if (starts && n == LONGEST) {
            memcpy(to + at, "…", sizeof "…");
            return n + 1;
        }
        n += starts;
        to[at] = name[at];
    }
    to[at] = 0;
    return n;
}

/* $p0 to $p2: row value low high shade; the base is row 0 of a chart of bars. Labels name the rows; returns
 * the longest's characters. */
static int write_rows(FILE *script, enum chart chart, const json_t *comparison)
{
    const char *name;
    const char *base = json_string_value(json_object_get(comparison, "base"));
    json_t *variant;
    int longest = 0;
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
    int row = 0;
    json_object_foreach (json_object_get(comparison, "variants"), name, variant) {
        char shown[LONGEST * 4 + 8];
        if (chart == CHART_FOREST && !strcmp(name, base)) continue;
        int n = shorten(shown, sizeof shown, name);
        if (n > longest) longest = n;
        fprintf(script, "set label %d at graph 0, first %d right offset -1,0 ", row + 1, row);
        gnuplot_text(script, shown);
        fputc('\n', script);
        row++;
    }
    return longest;
}

/* Values stand to the right of the bars, so there must be room. */
static void write_bars(FILE *script, int panel, const json_t *comparison)
{
    static const char *const title[PANELS] = {"Joint %", "SA, mean", "PC, mean"};
    const char *name;
    json_t *variant;
    double longest = 0;
    json_object_foreach (json_object_get(comparison, "variants"), name, variant)
        longest = fmax(longest, own(variant, panel).high);
    fprintf(script, "set title '%s'\nset xtics %s\nset xrange [0:%.9g]\n", title[panel],
            panel ? "0,1,5" : "autofreq",
            panel         ? 6
            : longest > 0 ? 1.25 * longest
                          : 1);
    fprintf(
        script,
        "plot $p%d using 2:1:(0):2:($1-0.3):($1+0.3):($6 > 0 ? 0xb0b0b0 : 0x6baed6) with boxxyerror fs solid "
        "noborder lc rgb variable, '' using 2:1:3:4 with xerrorbars lt 1, '' using 4:1:(sprintf('%s', $2)) with "
        "labels left offset 0.6,0\n",
        panel, panel ? "%.3f" : "%.2f");
}

/* The smallest of 1, 2 and 5 times powers of ten that divides the range into at most four steps. */
static double step_of(double range)
{
    double least = range / 4, power = pow(10, floor(log10(least)));
    return least <= power       ? power
           : least <= 2 * power ? 2 * power
           : least <= 5 * power ? 5 * power
                                : 10 * power;
}

static void write_forest(FILE *script, int panel, const json_t *comparison)
{
    static const char *const title[PANELS] = {"Joint, percentage points", "SA", "PC"};
    const char *name, *digits = panel ? "%+.3f" : "%+.2f";
    json_t *variant;
    double low = 0, high = 0;
    json_object_foreach (json_object_get(comparison, "variants"), name, variant) {
        struct bar b = difference(variant, panel);
        low = fmin(low, fmin(b.low, -b.shade));
        high = fmax(high, fmax(b.high, b.shade));
    }
    if (high - low < 1e-9) low = -1, high = 1;
    double margin = 0.05 * (high - low);
    fprintf(script, "set title '%s'\nset xtics %.9g\nset xrange [%.9g:%.9g]\n", title[panel],
            step_of(high - low), low - margin, high + margin);
    fprintf(
        script,
        "plot $p%d using (0):1:(-$5):5:($1-0.4):($1+0.4) with boxxyerror fs solid noborder lc rgb '#ececec', "
        "'' using (0):($1-0.5):(0):(1) with vectors nohead lc rgb '#808080', '' using 2:1:3:4 with xerrorbars lt 1, "
        "'' using 2:1:(sprintf('%s [%s, %s]', $2, $3, $4)) with labels center offset 0,0.8\n",
        panel, digits, digits, digits);
}

void chart_script(FILE *script, enum chart chart, bool svg, int64_t width, int64_t height,
                  const json_t *comparison)
{
    int rows = chart_rows(chart, comparison);
    fprintf(script, "set terminal %s size %lld,%lld font 'sans,%d' background '#ffffff' noenhanced\n",
            svg ? "svg" : "pngcairo", (long long)width, (long long)height, svg ? 13 : 11);
    fputs(
        "set encoding utf8\nset border 1 lc rgb '#808080'\nset tics nomirror textcolor rgb '#404040'\nunset ytics\n"
        "unset key\nset grid x lc rgb '#e0e0e0' lt 1\nset linetype 1 lw 2 pt 7 ps 0.8 lc rgb '#0072b2'\n",
        script);
    fprintf(script, "set yrange [%d.6:-0.6]\n", rows - 1);
    double left =
        (double)write_rows(script, chart, comparison) * 8 / (double)width + 0.02; /* 8 pixels a character */
    if (left > 0.4) left = 0.4;
    double top = 1 - 40 / (double)height, bottom = 36 / (double)height, wide = (0.985 - left) / PANELS;
    fputs("set multiplot\n", script);
    for (int panel = 0; panel < PANELS; panel++) {
        fprintf(script, "set lmargin at screen %.4f\nset rmargin at screen %.4f\n", left + wide * panel,
                left + wide * (panel + 1) - 0.045);
        fprintf(script, "set tmargin at screen %.4f\nset bmargin at screen %.4f\n", top, bottom);
        if (chart == CHART_FOREST)
            write_forest(script, panel, comparison);
        else
            write_bars(script, panel, comparison);
        if (!panel)
            for (int row = 0; row < rows; row++) fprintf(script, "unset label %d\n", row + 1);
    }
    fputs("unset multiplot\n", script);
}
