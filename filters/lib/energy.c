#include "filters/lib/energy.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Of nvml.h, whose results are 0 when all is well. */
static struct {
    int (*init)(void);
    int (*by_index)(unsigned index, void **card);
    int (*by_uuid)(const char *uuid, void **card);
    int (*by_address)(const char *address, void **card);
    int (*millijoules)(void *card, unsigned long long *mj);
    int ready;
} nvml;

static void open_nvml(void)
{
    void *object = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!object) return;
    *(void **)&nvml.init = dlsym(object, "nvmlInit_v2");
    *(void **)&nvml.by_index = dlsym(object, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&nvml.by_uuid = dlsym(object, "nvmlDeviceGetHandleByUUID");
    *(void **)&nvml.by_address = dlsym(object, "nvmlDeviceGetHandleByPciBusId_v2");
    *(void **)&nvml.millijoules = dlsym(object, "nvmlDeviceGetTotalEnergyConsumption");
    nvml.ready =
        nvml.init && nvml.by_index && nvml.by_uuid && nvml.by_address && nvml.millijoules && !nvml.init();
}

double energy_joules(const char *card)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    unsigned long long mj;
    void *of = NULL;
    if (!card || !*card) return NAN;
    pthread_once(&once, open_nvml);
    if (!nvml.ready) return NAN;
    int bad = !card[strspn(card, "0123456789")] ? nvml.by_index((unsigned)strtoul(card, NULL, 10), &of)
              : strchr(card, '-')               ? nvml.by_uuid(card, &of)
                                                : nvml.by_address(card, &of);
    return bad || nvml.millijoules(of, &mj) ? NAN : 1e-3 * (double)mj;
}

double energy_sum(const char *const *card, int count)
{
    double sum = 0;
    for (int i = 0, j; i < count; i++) {
        for (j = 0; j < i && strcmp(card[i], card[j]); j++) {}
        if (j == i) sum += energy_joules(card[i]);
    }
    return sum;
}
