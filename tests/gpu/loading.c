/* How long a transformer takes to be on the GPU: loading MODEL...
 *
 * One JSON line a model on stdout: {"name": .., "ms": .., "gb": .., "gbs": ..}. A folder is read twice: the
 * first time it may come from a disk, the second time from memory. */
#include <stdio.h>
#include <string.h>

#include "filters/nets/families.h"
#include "formats/clock.h"

static double now(void)
{
    return 1e3 * clock_seconds();
}

static bool load(const char *name, const char *what)
{
    char err[512];
    double from = now();
    struct kern *k = kern_open("cuda", 0, err, sizeof err);
    double opened = now();
    struct model *m = k ? model_open(name, err, sizeof err) : NULL;
    struct denoiser *d = m ? denoiser_open(k, m, false, err, sizeof err) : NULL;
    if (k) kern_wait(k);
    double ms = now() - opened,
           gb = d ? 1e-9 * (double)d->parameters * (double)dtype_size(kern_compute(k)) : 0;
    if (d)
        printf("{\"name\": \"load %s%s\", \"ms\": %.1f, \"gb\": %.2f, \"gbs\": %.2f, \"device_ms\": %.1f}\n",
               name, what, ms, gb, 1e3 * gb / ms, opened - from);
    else
        fprintf(stderr, "loading: %s: %s\n", name, err);
    denoiser_close(d);
    model_close(m);
    kern_close(k);
    return d;
}

int main(int argc, char **argv)
{
    bool good = true;
    for (int i = 1; i < argc; i++) good = load(argv[i], "") && load(argv[i], ", again") && good;
    return !good;
}
