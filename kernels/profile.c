/* Where a device's time goes, operation by operation. */
#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>

#include "formats/clock.h"

enum { MAX_OPERATIONS = 128 };

struct kern_profile {
    struct kern_profile_line line[MAX_OPERATIONS];
    int count;
    double since;
};

void kern_profile_start(struct kern *k)
{
    kern_profile_stop(k);
    k->profile = calloc(1, sizeof *k->profile);
    if (!k->profile) kern_fail(k, "out of memory");
}

void kern_profile_stop(struct kern *k)
{
    free(k->profile);
    k->profile = NULL;
}

void kern_profile_begin(struct kern *k)
{
    if (!k->profile || k->planning) return;
    k->backend->wait(k);
    k->way = NULL;
    k->profile->since = clock_seconds();
}

/* Operations and ways are few and their names constants, so that their addresses find the line. */
void kern_profile_end(struct kern *k, const char *operation)
{
    struct kern_profile *p = k->profile;
    int i = 0;
    if (!p || k->planning) return;
    k->backend->wait(k);
    while (i < p->count && (p->line[i].operation != operation || p->line[i].way != k->way)) i++;
    if (i == MAX_OPERATIONS) return;
    if (i == p->count)
        p->line[p->count++] = (struct kern_profile_line){.operation = operation, .way = k->way};
    p->line[i].seconds += clock_seconds() - p->since;
    p->line[i].calls++;
}

static int longest_first(const void *a, const void *b)
{
    double x = ((const struct kern_profile_line *)a)->seconds,
           y = ((const struct kern_profile_line *)b)->seconds;
    return (x < y) - (x > y);
}

const struct kern_profile_line *kern_profile(struct kern *k, int *count)
{
    *count = k->profile ? k->profile->count : 0;
    if (!k->profile) return NULL;
    qsort(k->profile->line, (size_t)*count, sizeof *k->profile->line, longest_first);
    return k->profile->line;
}
