#include "filters/lib/tensors.h"

#include <math.h>

struct tensor_range tensor_range(const struct tensor *t)
{
    struct tensor_range r = {INFINITY, -INFINITY, 0};
    int64_t n = tensor_count(t);
    for (int64_t i = 0; i < n; i++) {
        double x = tensor_get(t, i);
        if (isnan(x)) return (struct tensor_range){NAN, NAN, NAN};
        r.low = fmin(r.low, x);
        r.high = fmax(r.high, x);
        r.mean += x / (double)n;
    }
    return r;
}

struct tensor_distance tensor_distance(const struct tensor *a, const struct tensor *b)
{
    int64_t n = tensor_count(a);
    double worst = 0, error = 0, energy = 0, peak = b->dtype == DT_U8 ? 255 : 0;
    for (int64_t i = 0; i < n; i++) {
        double x = tensor_get(a, i), y = tensor_get(b, i), d = x == y ? 0 : fabs(x - y);
        if (isnan(d)) return (struct tensor_distance){NAN, NAN, NAN};
        worst = fmax(worst, d);
        error += d * d;
        energy += y * y;
        if (b->dtype != DT_U8) peak = fmax(peak, fabs(y));
    }
    return (struct tensor_distance){worst, error > 0 ? sqrt(error / energy) : 0,
                                    error > 0 ? 10 * log10(peak * peak * (double)n / error) : INFINITY};
}
