#include "formats/metrics.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/io.h"

/* A finite number or NAN when there is none; *why when there is something else. */
static double number(json_t *line, const char *field, const char **why)
{
    json_t *j = json_object_get(line, field);
    if (j && !json_is_number(j)) *why = "a value that is not a number";
    return json_is_number(j) ? json_number_value(j) : NAN;
}

/* Room for one more item: the array doubles when its count is a power of two. */
static bool grow(void *items, int64_t count, size_t size)
{
    void **p = items;
    if (count & (count - 1)) return true;
    void *grown = realloc(*p, (count ? 2 * (size_t)count : 1) * size);
    if (grown) *p = grown;
    return grown != NULL;
}

/* What is wrong with a line, or NULL. */
static const char *read_line(struct metrics *m, json_t *line)
{
    const char *why = NULL;
    json_t *j = json_object_get(line, "step");
    int64_t step = json_integer_value(j);
    double loss = number(line, "loss", &why), val_loss = number(line, "val_loss", &why);
    double grad_norm = number(line, "grad_norm", &why), lr = number(line, "lr", &why);
    if (why) return why;
    if (!json_is_integer(j) || step < 0) return "it has no good `step`";
    if (isnan(loss) == isnan(val_loss)) return "it has not just one of `loss` and `val_loss`";
    if (!isnan(loss)) {
        if (m->steps && step <= m->step[m->steps - 1].step) return "its step is not after the one before";
        if (!grow(&m->step, m->steps, sizeof *m->step)) return "out of memory";
        m->step[m->steps++] = (struct metrics_step){step, loss, grad_norm, lr};
    } else {
        int64_t n = m->evaluations;
        if (n && step <= m->evaluation[n - 1].step) return "its evaluation is not after the one before";
        if (!grow(&m->evaluation, n, sizeof *m->evaluation)) return "out of memory";
        m->evaluation[n] = (struct metrics_evaluation){step, val_loss};
        if (m->best < 0 || val_loss < m->evaluation[m->best].val_loss) m->best = n;
        m->evaluations++;
    }
    return NULL;
}

bool metrics_read(struct metrics *m, FILE *in, const char *name, char *err, size_t errlen)
{
    char *text = NULL;
    size_t size = 0;
    const char *why = NULL;
    long long line = 0;
    *m = (struct metrics){.best = -1};
    ssize_t n = 0;
    while (!why && (n = read_text_line(in, &text, &size)) > 0) {
        json_error_t e;
        json_t *j = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &e);
        line++;
        why = !j ? "not JSON" : !json_is_object(j) ? "not a JSON object" : read_line(m, j);
        json_decref(j);
    }
    free(text);
    if (!why && n == 0) return true;
    if (why)
        fail(err, errlen, "%s: line %lld: %s", name, line, why);
    else
        fail(err, errlen, "%s: %s", name, strerror(errno));
    metrics_free(m);
    return false;
}

void metrics_free(struct metrics *m)
{
    free(m->step);
    free(m->evaluation);
    *m = (struct metrics){.best = -1};
}
