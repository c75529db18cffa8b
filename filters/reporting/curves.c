#include "filters/reporting/curves.h"

#include <math.h>
#include <string.h>

#include "filters/lib/messages.h"
#include "formats/path.h"

/* Okabe and Ito's colours, which colour-blind eyes tell apart. With more runs they come again, dashed. */
static const char *const colours[] = {"0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9", "000000"};
enum {
    COLOURS = sizeof colours / sizeof *colours,
    FAINT = 1000, /* linetype of a run's raw values: FAINT + its own */
    FEW = 2       /* runs whose raw values are drawn, too */
};

/* The four panels; column: of $tN, which holds step, loss, grad_norm, lr. */
static const struct panel {
    const char *title;
    int column;
    bool evaluations, noisy;
} panels[] = {{"validation loss (ring: the best)", 2, true, false},
              {"training loss", 2, false, true},
              {"gradient norm", 3, false, true},
              {"learning rate", 4, false, false}};
enum { PANELS = sizeof panels / sizeof *panels };

static double value(const struct metrics_step *s, const struct panel *p)
{
    return p->column == 2 ? s->loss : p->column == 3 ? s->grad_norm : s->lr;
}

static bool has_points(const struct metrics *m, const struct panel *p)
{
    bool any = p->evaluations && m->evaluations > 0;
    for (int64_t k = 0; !p->evaluations && !any && k < m->steps; k++) any = !isnan(value(&m->step[k], p));
    return any;
}

static bool logarithmic(const struct panel *p, const struct curve *run, int runs)
{
    bool positive = p->noisy;
    for (int i = 0; i < runs; i++)
        for (int64_t k = 0; positive && k < run[i].m.steps; k++)
            positive = !(value(&run[i].m.step[k], p) <= 0);
    return positive;
}

/* $tN: step loss grad_norm lr. $vN: step val_loss. $bN: the best of these. Linetype N: the run's. */
static void write_run(FILE *script, const struct curve *run, int n)
{
    const struct metrics *m = &run->m;
    const char *colour = colours[(n - 1) % COLOURS];
    int dash = (n - 1) / COLOURS + 1;
    fprintf(script, "set linetype %d lw 2 pt 7 lc rgb '#%s' dt %d\n", n, colour, dash);
    fprintf(script, "set linetype %d lw 1 lc rgb '#c0%s'\n$t%d << END\n", FAINT + n, colour, n);
    for (int64_t k = 0; k < m->steps; k++)
        fprintf(script, "%lld %.9g %.9g %.9g\n", (long long)m->step[k].step, m->step[k].loss,
                m->step[k].grad_norm, m->step[k].lr);
    fprintf(script, "END\n$v%d << END\n", n);
    for (int64_t k = 0; k < m->evaluations; k++)
        fprintf(script, "%lld %.9g\n", (long long)m->evaluation[k].step, m->evaluation[k].val_loss);
    fprintf(script, "END\n$b%d << END\n", n);
    if (m->best >= 0)
        fprintf(script, "%lld %.9g\n", (long long)m->evaluation[m->best].step,
                m->evaluation[m->best].val_loss);
    fputs("END\n", script);
}

static bool any_points(const struct panel *p, const struct curve *run, int runs)
{
    bool any = false;
    for (int i = 0; i < runs; i++) any = any || has_points(&run[i].m, p);
    return any;
}

/* From the least to the greatest value. */
static double range_of(const struct panel *p, const struct curve *run, int runs)
{
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < runs; i++) {
        const struct metrics *m = &run[i].m;
        const int64_t count = p->evaluations ? m->evaluations : m->steps;
        for (int64_t k = 0; k < count; k++) {
            double v = p->evaluations ? m->evaluation[k].val_loss : value(&m->step[k], p);
            if (isfinite(v)) low = fmin(low, v), high = fmax(high, v);
        }
    }
    return high - low;
}

/* A logarithmic axis has ticks at 1, 2, 5 and 10, another at most so many. */
static void write_ticks(FILE *script, const struct panel *p, const struct curve *run, int runs, double most)
{
    const bool log = any_points(p, run, runs) && logarithmic(p, run, runs);
    const double range = range_of(p, run, runs);
    fprintf(script, "%s logscale y\nset autoscale %s\n", log ? "set" : "unset", p->noisy ? "yfix" : "y");
    if (log)
        fputs("set ytics @steps\n", script);
    else if (range > 0 && isfinite(range))
        fprintf(script, "set ytics %.9g\n", gnuplot_step(range, most));
    else
        fputs("set ytics autofreq\n", script);
}

/* window: steps of the running means; most: ticks */
static void write_panel(FILE *script, const struct panel *p, const struct curve *run, int runs,
                        int64_t window, double most)
{
    const bool any = any_points(p, run, runs);
    fprintf(script, "set title '%s", p->title);
    if (p->noisy) fprintf(script, ", mean of %lld steps", (long long)window);
    fprintf(script, "'\nset label 1 '%s'\n", any ? "" : "none yet");
    write_ticks(script, p, run, runs, most);
    fprintf(script, "plot %s NaN notitle", any ? "" : "[0:1] [0:1]");
    for (int n = 1; p->noisy && runs <= FEW && n <= runs; n++) /* faint lines come first, below all others */
        if (has_points(&run[n - 1].m, p))
            fprintf(script, ", $t%d using 1:%d with lines lt %d notitle", n, p->column, FAINT + n);
    for (int n = 1; n <= runs; n++) {
        if (!has_points(&run[n - 1].m, p)) continue;
        if (p->noisy)
            fprintf(script,
                    ", k=0, mean=0, $t%d using 1:(x=$%d, x==x ? (k=k+1, "
                    "mean=mean+(x-mean)/(k<window?k:window)) : NaN)",
                    n, p->column);
        else if (p->evaluations)
            fprintf(script, ", $b%d with points lt %d pt 6 ps 2 notitle, $v%d", n, n, n);
        else
            fprintf(script, ", $t%d using 1:%d", n, p->column);
        fprintf(script, " with %s lt %d%s notitle", p->evaluations ? "linespoints" : "lines", n,
                p->evaluations ? " ps 0.5" : "");
    }
    fputs("\n", script);
}

/* runs/standard/metrics.jsonl and the folder runs/standard/ are "standard", loss.jsonl is "loss". */
static void name_run(struct curve *run)
{
    char part[4096], err[4200];
    enum path_kind kind = path_kind(run->path, err, sizeof err);
    if (kind == PATH_UNKNOWN) die("%s", err);
    bool is_folder = kind == PATH_FOLDER;
    snprintf(part, sizeof part, "%s", run->path);
    char *slash = strrchr(part, '/');
    if (slash && !strcmp(slash, "/metrics.jsonl")) *slash = 0, is_folder = true;
    for (size_t n = strlen(part); n > 1 && part[n - 1] == '/';) part[--n] = 0;
    slash = strrchr(part, '/');
    char *last = slash && slash[1] ? slash + 1 : part, *dot = strrchr(last, '.');
    if (!is_folder && dot && dot != last) *dot = 0;
    snprintf(run->name, sizeof run->name, "%.255s", last);
}

void name_curves(struct curve *run, int runs)
{
    for (int i = 0; i < runs; i++) {
        name_run(&run[i]);
        for (int j = 0; j < i; j++)
            if (!strcmp(run[i].name, run[j].name)) {
                snprintf(run[i].name, sizeof run[i].name, "%s", run[i].path);
                snprintf(run[j].name, sizeof run[j].name, "%s", run[j].path);
            }
    }
}

/* ---- the layout: the main panel above, three small ones below it, and a legend ---------------------------- */

struct layout {
    double width, height, em; /* in pixels */
    double legend;            /* its height */
    double steps;             /* of the longest run */
};

static void set_margins(FILE *script, const struct layout *l, double left, double right, double bottom,
                        double top)
{
    fprintf(script, "set lmargin at screen %.5f\nset rmargin at screen %.5f\n", left / l->width,
            right / l->width);
    fprintf(script, "set bmargin at screen %.5f\nset tmargin at screen %.5f\n", bottom / l->height,
            top / l->height);
}

static double last_step(const struct metrics *m)
{
    int64_t a = m->steps ? m->step[m->steps - 1].step : 0,
            b = m->evaluations ? m->evaluation[m->evaluations - 1].step : 0;
    return (double)(a > b ? a : b);
}

/* Where panel `place` is: 0 is the main one. Returns how many ticks its height has room for. */
static double write_place(FILE *script, const struct layout *l, int place)
{
    const double title = 3.1 * l->em, scale = 4 * l->em, left = 4.8 * l->em, right = 2 * l->em;
    const double small = l->legend + 0.34 * (l->height - l->legend), third = l->width / (PANELS - 1);
    const double across = (place ? third : l->width) - left - right;
    fprintf(script, "set xtics %.9g\n", gnuplot_step(fmax(1, l->steps), across / (4.5 * l->em)));
    if (place == 0)
        set_margins(script, l, left, l->width - right, small + title + scale, l->height - title);
    else
        set_margins(script, l, third * (place - 1) + left, third * place - right, l->legend + scale, small);
    double up = place ? small - l->legend - scale : l->height - small - 2 * title - scale;
    return fmax(1, up / (1.8 * l->em));
}

/* A line and a name for each run, in as many columns as the width has room for. Returns the height. */
static double write_legend(FILE *script, const struct layout *l, const struct curve *run, int runs)
{
    char name[4 * sizeof run->name];
    double widest = 0;
    for (int i = 0; i < runs; i++) {
        gnuplot_shorten(name, sizeof name, run[i].name, 255, l->width / l->em - 7);
        widest = fmax(widest, (gnuplot_width(name) + 5.5) * l->em);
    }
    int columns = (int)fmax(1, fmin(runs, floor(l->width / widest))), rows = (runs + columns - 1) / columns;
    for (int i = 0; i < runs; i++) {
        double x = (l->width - columns * widest) / 2 + i % columns * widest + 0.5 * l->em;
        double y = (1 + 1.6 * (rows - 1 - i / columns)) * l->em / l->height;
        fprintf(script, "set arrow %d from screen %.5f,%.5f to screen %.5f,%.5f nohead lt %d lw 3\n", i + 1,
                x / l->width, y, (x + 3.4 * l->em) / l->width, y, i + 1);
        fprintf(script, "set label %d at screen %.5f,%.5f left ", i + 2, (x + 4 * l->em) / l->width, y);
        gnuplot_shorten(name, sizeof name, run[i].name, 255, l->width / l->em - 7);
        gnuplot_text(script, name);
        fputc('\n', script);
    }
    return (1.6 * rows + 0.4) * l->em;
}

void curves_script(FILE *script, enum gnuplot_format format, int64_t width, int64_t height,
                   const struct curve *run, int runs)
{
    struct layout l = {.width = (double)width, .height = (double)height, .em = gnuplot_em(format)};
    gnuplot_terminal(script, format, width, height, l.em);
    fputs("set border 3 lc rgb '#808080'\nset tics nomirror textcolor rgb '#404040'\n"
          "set grid lc rgb '#e0e0e0' lt 1\nset label 1 at graph 0.5,0.5 center textcolor rgb '#808080'\n"
          "unset key\nset xlabel 'step'\nset format y '%h'\n",
          script);
    fputs("steps = '(1e-7", script); /* of the logarithmic axes: 1, 2, 5, 10 */
    for (int e = -6; e < 7; e++) fprintf(script, ", 1e%d, 2e%d, 5e%d", e, e, e);
    fputs(")'\n", script);
    for (int i = 0; i < runs; i++) {
        write_run(script, &run[i], i + 1);
        l.steps = fmax(l.steps, last_step(&run[i].m));
    }
    /* The window of the running means: a tenth of a short run, 100 steps of a long one. */
    int64_t window = l.steps > 1000 ? 100 : (int64_t)l.steps / 10 + 1;
    fprintf(script, "window = %lld\nset multiplot\n", (long long)window);
    l.legend = write_legend(script, &l, run, runs);
    const int main_panel = any_points(&panels[0], run, runs) ? 0 : 1;
    for (int place = 0; place < PANELS; place++) {
        int p = place < 2 ? (place + main_panel) % 2 : place; /* the first two may change places */
        double most = write_place(script, &l, place);
        write_panel(script, &panels[p], run, runs, window, most);
        if (!place)
            fputs("unset arrow\nunset label\nset label 1 at graph 0.5,0.5 center textcolor rgb '#808080'\n",
                  script);
    }
    fputs("unset multiplot\n", script);
}
