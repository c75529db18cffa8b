#include "filters/learning/step_choice.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/io.h"

static const char computed_is[] = "--compute-steps", guided_is[] = "--guidance-steps";

/* Those of so many steps, the first and last five among them, that drift least on the toy model: examples/README.md. */
static const struct {
    const char *name, *list;
    int64_t steps;
} known[] = {{"careful", "0-15,17,19,21,23,25,27,32,37,42,45-49", 50},
             {"bold", "0-11,13,15,19,22,27,32,37,42,45-49", 50}};

/* A number, or FIRST-LAST; *end behind it. */
static bool read_range(const char *text, int64_t *first, int64_t *last, const char **end)
{
    for (int i = 0; i < 2; i++) {
        char *stop;
        if (!isdigit((unsigned char)*text)) return false;
        int64_t n = strtoll(text, &stop, 10); /* too large a number becomes the largest, which no run has */
        *(i ? last : first) = n;
        if (!i) *last = n;
        *end = text = stop;
        if (i || *text != '-') break;
        text++;
    }
    return *first <= *last;
}

static bool within(const char *option, int64_t last, int64_t steps, char *err, size_t errlen)
{
    return last < steps || fail(err, errlen, "%s: step %lld: there are %lld steps, 0 to %lld", option,
                                (long long)last, (long long)steps, (long long)steps - 1);
}

static bool read_list(struct step_choice *c, const char *list, char *err, size_t errlen)
{
    int64_t before = -1, first, last;
    for (const char *at = list;; at++) {
        if (!read_range(at, &first, &last, &at) || (*at && *at != ','))
            return fail(err, errlen,
                        "%s is a list such as 0-4,6,9-49, a number of steps, careful or bold, not `%s`",
                        computed_is, list);
        if (first <= before)
            return fail(err, errlen, "%s: step %lld after step %lld: in rising order, each once", computed_is,
                        (long long)first, (long long)before);
        if (!within(computed_is, last, c->steps, err, errlen)) return false;
        memset(c->computed + first, true, (size_t)(last - first + 1));
        c->count += last - first + 1;
        before = last;
        if (!*at) break;
    }
    return c->computed[0] ||
           fail(err, errlen, "%s: step 0 must be computed: there is nothing before it", computed_is);
}

static bool spread(struct step_choice *c, int64_t n, char *err, size_t errlen)
{
    if (n < 1 || n > c->steps)
        return fail(err, errlen, "%s: %lld of %lld steps", computed_is, (long long)n, (long long)c->steps);
    for (int64_t i = 0; i < n; i++) c->computed[n > 1 ? i * (c->steps - 1) / (n - 1) : 0] = true;
    c->count = n;
    return true;
}

static bool choose(struct step_choice *c, const char *computed, char *err, size_t errlen)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(computed, known[i].name)) {
            if (c->steps != known[i].steps)
                return fail(err, errlen, "%s: %s is a list for %lld steps, not for %lld", computed_is,
                            computed, (long long)known[i].steps, (long long)c->steps);
            return read_list(c, known[i].list, err, errlen);
        }
    if (*computed && !computed[strspn(computed, "0123456789")])
        return spread(c, strtoll(computed, NULL, 10), err, errlen);
    return read_list(c, computed, err, errlen);
}

static bool choose_guided(struct step_choice *c, const char *guided, char *err, size_t errlen)
{
    const char *end;
    if (!strchr(guided, '-') || !read_range(guided, &c->first, &c->last, &end) || *end)
        return fail(err, errlen, "%s is FIRST-LAST, not `%s`", guided_is, guided);
    return within(guided_is, c->last, c->steps, err, errlen) &&
           (c->computed[c->first] || fail(err, errlen, "%s: its first step, %lld, must be one of %s",
                                          guided_is, (long long)c->first, computed_is));
}

bool step_choice_make(struct step_choice *c, int64_t steps, const char *computed, const char *guided,
                      char *err, size_t errlen)
{
    *c = (struct step_choice){.steps = steps, .computed = calloc((size_t)steps, 1), .last = steps - 1};
    if (!c->computed) return fail(err, errlen, "out of memory");
    bool good = computed ? choose(c, computed, err, errlen) : spread(c, steps, err, errlen);
    return good && (!guided || choose_guided(c, guided, err, errlen));
}

void step_choice_free(struct step_choice *c)
{
    free(c->computed);
    *c = (struct step_choice){0};
}

bool step_guided(const struct step_choice *c, int64_t step)
{
    return step >= c->first && step <= c->last;
}

bool step_residual_wanted(const struct step_choice *c, int64_t step, bool guided)
{
    int64_t next = step + 1, end = guided ? c->last + 1 : c->steps;
    return next < end && !c->computed[next];
}

/* The list of those at which the blocks run, as one would type it. false: no memory. */
static bool describe_computed(const struct step_choice *c, json_t *o)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) return false;
    for (int64_t i = 0, from; i < c->steps; i++) {
        if (!c->computed[i]) continue;
        for (from = i; i + 1 < c->steps && c->computed[i + 1];) i++;
        fprintf(f, from ? ",%lld" : "%lld", (long long)from);
        if (i > from) fprintf(f, "-%lld", (long long)i);
    }
    bool good = close_memory(f, &text) && !json_object_set_new(o, "compute-steps", json_string(text));
    free(text);
    return good;
}

bool step_choice_describe(const struct step_choice *c, json_t *o)
{
    bool good = c->count == c->steps || describe_computed(c, o);
    if (c->first > 0 || c->last < c->steps - 1)
        good &= !json_object_set_new(o, "guidance-steps",
                                     json_sprintf("%lld-%lld", (long long)c->first, (long long)c->last));
    return good;
}
