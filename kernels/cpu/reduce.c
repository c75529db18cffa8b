#include "kernels/cpu/cpu.h"

#include <math.h>

enum { LANES = 8 };

static double fold(const double s[LANES])
{
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

HOT double sum_of(const float *x, int64_t n)
{
    double s[LANES] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) s[j] += x[i + j];
    for (; i < n; i++) rest += x[i];
    return fold(s) + rest;
}

HOT double sum_about(const float *x, double c, int64_t n)
{
    double s[LANES] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) s[j] += (x[i + j] - c) * (x[i + j] - c);
    for (; i < n; i++) rest += (x[i] - c) * (x[i] - c);
    return fold(s) + rest;
}

HOT double dot_of(const float *a, const float *b, int64_t n)
{
    double s[LANES] = {0}, rest = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) s[j] += (double)a[i + j] * b[i + j];
    for (; i < n; i++) rest += (double)a[i] * b[i];
    return fold(s) + rest;
}

struct moments moments_of(const float *x, int64_t n, float eps)
{
    double mean = sum_of(x, n) / (double)n;
    double variance = sum_about(x, mean, n) / (double)n;
    return (struct moments){(float)mean, (float)(1 / sqrt(variance + eps))};
}
