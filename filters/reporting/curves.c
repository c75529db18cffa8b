#include "filters/reporting/curves.h"

#include <math.h>
#include <string.h>

#include "filters/lib/messages.h"
#include "formats/gnuplot.h"
#include "formats/path.h"

/* Okabe and Ito's colours, which colour-blind eyes tell apart. With more runs they come again, dashed. */
static const char *const colours[] = {"0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9", "000000"};
enum {
    COLOURS = sizeof colours / sizeof *colours,
    FAINT = 1000 /* linetype of a run's raw values: FAINT + its own */
};

/* The four panels; column: of $tN, which holds step, loss, grad_norm, lr. */
static const struct panel {
    const char *title;
    int column;
    bool evaluations, noisy;
} panels[] = {{"training loss", 2, false, true},
              {"validation loss (ring: the best)", 2, true, false},
              {"learning rate", 4, false, false},
              {"gradient norm", 3, false, true}};

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
static void write_run(FILE *script, const struct curve *run, int n, bool crowd)
{
    const struct metrics *m = &run->m;
    const char *colour = colours[(n - 1) % COLOURS];
    int dash = (n - 1) / COLOURS + 1;
    fprintf(script, "set linetype %d lw 2 pt 7 lc rgb '#%s' dt %d\n", n, colour, dash);
    fprintf(script, "set linetype %d lw 1 lc rgb '#%s%s'\n$t%d << END\n", FAINT + n, crowd ? "e4" : "c0",
            colour, n);
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

static void write_panel(FILE *script, const struct panel *p, const struct curve *run, int runs)
{
    bool any = false;
    for (int i = 0; i < runs; i++) any = any || has_points(&run[i].m, p);
    bool log = any && logarithmic(p, run, runs);
    fprintf(script, "set title '%s'\n%s logscale y\nset ytics %s\n", p->title, log ? "set" : "unset",
            log ? "@steps" : "autofreq");
    fprintf(script, "set autoscale %s\nset label 1 '%s'\n", p->noisy ? "yfix" : "y", any ? "" : "none yet");
    fprintf(script, "plot %s NaN notitle", any ? "" : "[0:1] [0:1]");
    if (p == panels) /* the legend of all four */
        for (int i = 0; i < runs; i++) {
            fprintf(script, ", keyentry with lines lt %d lw 3 title ", i + 1);
            gnuplot_text(script, run[i].name);
        }
    for (int n = 1; p->noisy && n <= runs; n++) /* faint lines come first, below all others */
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
    fputs("\nunset key\n", script);
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

void curves_script(FILE *script, bool svg, int64_t width, int64_t height, const struct curve *run, int runs)
{
    int64_t longest = 0;
    if (svg)
        fprintf(script, "set terminal svg size %lld,%lld font 'sans,13' background '#ffffff' noenhanced\n",
                (long long)width, (long long)height);
    else
        fprintf(script, "set terminal pngcairo size %lld,%lld font 'sans,11' noenhanced\n", (long long)width,
                (long long)height);
    fputs("set encoding utf8\nset border 3 lc rgb '#808080'\nset tics nomirror textcolor rgb '#404040'\n"
          "set grid lc rgb '#e0e0e0' lt 1\nset label 1 at graph 0.5,0.5 center textcolor rgb '#808080'\n"
          "set key at screen 0.5,0.01 center bottom horizontal Left reverse\nset xlabel 'step'\nset format y "
          "'%h'\n",
          script);
    fputs("steps = '(1e-7", script); /* of the logarithmic axes: 1, 2, 5, 10 */
    for (int e = -6; e < 7; e++) fprintf(script, ", 1e%d, 2e%d, 5e%d", e, e, e);
    fputs(")'\n", script);
    for (int i = 0; i < runs; i++) {
        write_run(script, &run[i], i + 1, runs > 2);
        if (run[i].m.steps > longest) longest = run[i].m.steps;
    }
    /* The window of the running means: a tenth of a short run, 100 steps of a long one. */
    fprintf(script,
            "window = %lld\nset multiplot layout 2,2 margins screen 0.06,0.98,0.14,0.95 spacing screen "
            "0.07,0.13\n",
            (long long)(longest > 1000 ? 100 : longest / 10 + 1));
    for (size_t p = 0; p < sizeof panels / sizeof *panels; p++) write_panel(script, &panels[p], run, runs);
    fputs("unset multiplot\n", script);
}
