/* device.h - the device that a test of a network computes on: the CPU, or what $TEST_DEVICE and $TEST_DTYPE
 * (f32, bf16) say. tests/cuda.sh runs these tests once more for a GPU in either dtype. */
#ifndef TESTS_DEVICE_H
#define TESTS_DEVICE_H

#include <string.h>

#include "kernels/kernels.h"
#include "tests/tap.h"

__attribute__((unused)) static struct kern *test_device(int threads)
{
    char err[512];
    const char *device = getenv("TEST_DEVICE"), *dtype = getenv("TEST_DTYPE");
    struct kern *k = kern_open(device ? device : "cpu", threads, err, sizeof err);
    if (!k) printf("Bail out! %s\n", err), exit(1);
    kern_compute_in(k, dtype && !strcmp(dtype, "bf16") ? DT_BF16 : DT_F32);
    return k;
}

/* The largest error that a network may have: F32's rounding, or BF16's, whose step is 2^-8 and which also
 * rounds the weights that the reference has in F32. */
__attribute__((unused)) static double tolerance(const struct kern *k, double f32, double bf16)
{
    return kern_compute(k) == DT_BF16 ? bf16 : f32;
}

__attribute__((unused)) static bool on_cpu(const struct kern *k)
{
    return !strcmp(kern_device(k), "cpu");
}

#endif
