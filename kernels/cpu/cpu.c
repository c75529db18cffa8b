/* The CPU as a device: memory, copies and the table of operations. */
#include "kernels/cpu/cpu.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool cpu_open(struct kern *k, int index)
{
    (void)index;
    openblas_set_num_threads(1);
    snprintf(k->device, sizeof k->device, "cpu");
    return true;
}

static void cpu_close(struct kern *k)
{
    (void)k;
}

/* calloc, not aligned_alloc and memset: large zeroed blocks then cost memory only where they are touched. The
 * original pointer is kept just below the aligned one. */
static void *cpu_alloc(struct kern *k, size_t bytes)
{
    enum { ALIGN = 64 };
    (void)k;
    char *p = bytes <= SIZE_MAX - 2 * ALIGN ? calloc(1, bytes + 2 * ALIGN) : NULL;
    if (!p) return NULL;
    char *aligned = p + ALIGN + (ALIGN - (uintptr_t)p % ALIGN) % ALIGN;
    memcpy(aligned - sizeof p, &p, sizeof p);
    return aligned;
}

static void cpu_free(struct kern *k, void *aligned)
{
    char *p;
    (void)k;
    if (!aligned) return;
    memcpy(&p, (char *)aligned - sizeof p, sizeof p);
    free(p);
}

static size_t cpu_available(struct kern *k)
{
    char line[128];
    unsigned long long kib;
    size_t available = SIZE_MAX; /* a system that does not say is believed able */
    (void)k;
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f) return available;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) available = (size_t)kib * 1024;
    fclose(f);
    return available;
}

static void *cpu_host_alloc(struct kern *k, size_t bytes)
{
    (void)k;
    return malloc(bytes);
}

static void cpu_host_free(struct kern *k, void *p)
{
    (void)k;
    free(p);
}

static void cpu_convert(struct kern *k, struct tensor *dst, const struct tensor *src)
{
    (void)k;
    tensor_convert(dst, src);
}

static void cpu_copy(struct kern *k, struct tensor *dst, const struct tensor *src)
{
    const size_t tile = 1 << 20;
    if (dst->dtype != src->dtype) {
        tensor_convert(dst, src);
        return;
    }
    size_t bytes = tensor_bytes(src);
    PARALLEL_FOR(k, bytes / 4)
    for (size_t i = 0; i < bytes; i += tile)
        memmove((char *)dst->data + i, (const char *)src->data + i, bytes - i < tile ? bytes - i : tile);
}

static void cpu_zero(struct kern *k, struct tensor *t)
{
    (void)k;
    if (t->data) memset(t->data, 0, tensor_bytes(t));
}

static bool cpu_can_fp8(struct kern *k)
{
    (void)k;
    return true;
}

static void cpu_wait(struct kern *k)
{
    (void)k;
}

/* OpenBLAS has kernels of its own for each kind of CPU, and adds up in another order in each. */
static void cpu_basis(struct kern *k, char *text, size_t size)
{
    char version[64] = "";
    (void)k;
    sscanf(openblas_get_config(), "OpenBLAS %40s", version);
    snprintf(text, size, "CPU, OpenBLAS %s for %s", version, openblas_get_corename());
}

const struct backend cpu_backend = {.operations = kernel_operations,
                                    .name = "cpu",
                                    .kernels = 1, /* 1: queries multiplied by attention_times() */
                                    .open = cpu_open,
                                    .close = cpu_close,
                                    .alloc = cpu_alloc,
                                    .free = cpu_free,
                                    .available = cpu_available,
                                    .host_alloc = cpu_host_alloc,
                                    .host_free = cpu_host_free,
                                    .upload = cpu_convert,
                                    .send = cpu_convert,
                                    .download = cpu_convert,
                                    .copy = cpu_copy,
                                    .zero = cpu_zero,
                                    .can_fp8 = cpu_can_fp8,
                                    .wait = cpu_wait,
                                    .basis = cpu_basis,
#define OP(name) .name = cpu_##name,
                                    KERNEL_OPS(OP)
#undef OP
};
