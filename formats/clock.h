/* clock - for how long something takes. */
#ifndef FORMATS_CLOCK_H
#define FORMATS_CLOCK_H

#include <time.h>

/* Seconds from an arbitrary start, never backwards. */
static inline double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
