#include "filters/compute.h"

#include <string.h>

#include "filters/filter.h"

struct kern *compute_open(void)
{
    char err[512];
    struct kern *k = kern_open(filter.device, (int)filter.threads, err, sizeof err);
    if (!k) die("%s", err);
    kern_compute_in(k, filter_dtype());
    if (!strcmp(filter.device, "auto")) say(NULL, "computing on %s", kern_device(k));
    return k;
}
