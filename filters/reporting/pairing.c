#include "filters/reporting/pairing.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"

static bool is_number(const char *text)
{
    return isdigit((unsigned char)*text) && (*text != '0' || !text[1]) && !text[strspn(text, "0123456789")];
}

static int by_prompt(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    bool numbers = is_number(x);
    if (numbers != is_number(y)) return numbers ? -1 : 1;
    if (numbers && strlen(x) != strlen(y)) return strlen(x) < strlen(y) ? -1 : 1;
    return strcmp(x, y);
}

static double *values(const struct pairing *p, size_t prompt, int run)
{
    return p->value + (prompt * (size_t)p->scores->count + (size_t)run) * METRICS;
}

double pairing_value(const struct pairing *p, size_t prompt, int run, enum metric m)
{
    return values(p, prompt, run)[m];
}

double pairing_sum(const struct pairing *p, int run, enum metric m)
{
    double sum = 0;
    for (size_t i = 0; i < p->n; i++) sum += pairing_value(p, i, run, m);
    return sum;
}

int64_t pairing_scores(const struct pairing *p, int run)
{
    int64_t sum = 0;
    for (size_t i = 0; i < p->n; i++) sum += p->repeats[i * (size_t)p->scores->count + (size_t)run];
    return sum;
}

/* Sums of all prompts' values, and how many scores they are of. */
static void add_up(struct pairing *p, size_t all)
{
    int runs = p->scores->count;
    json_t *place = json_object();
    for (size_t i = 0; i < all; i++) json_object_set_new(place, p->prompt[i], json_integer((json_int_t)i));
    for (int run = 0; run < runs; run++)
        for (size_t k = 0; k < p->scores->variant[run].count; k++) {
            const struct score *s = &p->scores->variant[run].score[k];
            size_t i = (size_t)json_integer_value(json_object_get(place, s->prompt));
            double *to = values(p, i, run);
            to[JOINT] += s->sa >= 4 && s->pc >= 4;
            to[SA] += s->sa, to[SA_HIGH] += s->sa >= 4, to[SA_EXPECTED] += s->sa_expected;
            to[PC] += s->pc, to[PC_HIGH] += s->pc >= 4, to[PC_EXPECTED] += s->pc_expected;
            p->repeats[i * (size_t)runs + (size_t)run]++;
        }
    json_decref(place);
}

/* Whether all runs have the prompt as often as the base does. */
static bool check_prompt(const struct pairing *p, size_t i, const int *count, char *err, size_t errlen)
{
    for (int run = 0; run < p->scores->count; run++) {
        const char *name = p->scores->variant[run].name, *base = p->scores->variant[p->base].name;
        int here = count[run], there = count[p->base];
        if (here && there && here != there)
            return fail(err, errlen,
                        "prompt `%s`: %d scores in `%s`, %d in `%s` (--intersect averages what is there)",
                        p->prompt[i], there, base, here, name);
        if (here != there)
            return fail(err, errlen,
                        "prompt `%s` is unpaired: in `%s`, not in `%s` (--intersect leaves such out)",
                        p->prompt[i], here ? name : base, here ? base : name);
    }
    return true;
}

/* Keeps the prompts that every run has, and makes means of their sums. */
static bool keep_shared(struct pairing *p, size_t all, bool intersect, char *err, size_t errlen)
{
    int runs = p->scores->count;
    const int *count = p->repeats;
    for (size_t i = 0; i < all; i++, count += runs) {
        bool shared = true;
        for (int run = 0; run < runs; run++) shared = shared && count[run];
        if (!intersect && !check_prompt(p, i, count, err, errlen)) return false;
        if (!shared) continue;
        for (int run = 0; run < runs; run++) {
            for (int m = 0; m < METRICS; m++) values(p, p->n, run)[m] = values(p, i, run)[m] / count[run];
            p->repeats[p->n * (size_t)runs + (size_t)run] = count[run];
        }
        p->prompt[p->n++] = p->prompt[i];
    }
    p->left_out = all - p->n;
    return p->n || fail(err, errlen, "no prompt has a score in every run");
}

bool pairing_make(struct pairing *p, const struct scores *s, const char *base, bool intersect, char *err,
                  size_t errlen)
{
    const struct variant *v = scores_need(s, base, err, errlen);
    if (!v) return false;
    size_t all = json_object_size(s->prompts), cells = all * (size_t)s->count, i = 0;
    const char *prompt;
    json_t *unused;
    *p = (struct pairing){.scores = s,
                          .base = (int)(v - s->variant),
                          .prompt = calloc(all, sizeof *p->prompt),
                          .value = calloc(cells * METRICS, sizeof *p->value),
                          .repeats = calloc(cells, sizeof *p->repeats)};
    bool good = (p->prompt && p->value && p->repeats) || fail(err, errlen, "out of memory");
    if (good) {
        json_object_foreach (s->prompts, prompt, unused) p->prompt[i++] = prompt;
        qsort(p->prompt, all, sizeof *p->prompt, by_prompt);
        add_up(p, all);
        good = keep_shared(p, all, intersect, err, errlen);
    }
    if (!good) pairing_free(p);
    return good;
}

bool pairing_part(struct pairing *part, const struct pairing *p, const bool *kept)
{
    size_t runs = (size_t)p->scores->count, cells = p->n * runs;
    *part = (struct pairing){.scores = p->scores,
                             .base = p->base,
                             .prompt = calloc(p->n, sizeof *part->prompt),
                             .value = calloc(cells * METRICS, sizeof *part->value),
                             .repeats = calloc(cells, sizeof *part->repeats)};
    bool good = part->prompt && part->value && part->repeats;
    for (size_t i = 0; good && i < p->n; i++) {
        if (!kept[i]) continue;
        size_t to = part->n++;
        part->prompt[to] = p->prompt[i];
        memcpy(part->repeats + to * runs, p->repeats + i * runs, runs * sizeof *p->repeats);
        memcpy(values(part, to, 0), values(p, i, 0), runs * METRICS * sizeof *p->value);
    }
    if (!good) pairing_free(part);
    return good;
}

void pairing_free(struct pairing *p)
{
    free(p->prompt);
    free(p->value);
    free(p->repeats);
    *p = (struct pairing){0};
}
