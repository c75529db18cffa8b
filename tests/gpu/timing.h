/* timing.h - what the programs here that measure share. */
#ifndef GPU_TIMING_H
#define GPU_TIMING_H

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/clock.h"
#include "kernels/backend.h"

static inline void stop(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
    exit(1);
}

/* What the CUDA backend has for tests alone. */
static inline void *backend_symbol(struct kern *k, const char *name)
{
    Dl_info where;
    void *object = dladdr(k->backend, &where) ? dlopen(where.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
    void *symbol = object ? dlsym(object, name) : NULL;
    if (!symbol) stop(name, "the backend has no such function");
    return symbol;
}

static inline int upwards(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Puts the least first and the most last; the median comes back. */
static inline double sort_times(double *times, int n)
{
    qsort(times, (size_t)n, sizeof *times, upwards);
    return times[n / 2];
}

#endif
