/* Opening a device, what is said of it, and the error that sticks. */
#include "kernels/backend.h"

#include <dlfcn.h>
#include <limits.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 256 };

/* The CUDA backend is a shared object next to the program, or in ../lib/sluice as installed; NULL when there
 * is none. It stays loaded: a device library does not survive being unloaded. */
static const struct backend *find_cuda(char *why, size_t size)
{
    static const char *const places[] = {"sluice-cuda.so", "../lib/sluice/sluice-cuda.so"};
    char program[PATH_MAX], path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    snprintf(why, size, "no CUDA backend in this build");
    if (n <= 0) return NULL;
    program[n] = 0;
    *strrchr(program, '/') = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", program, places[i]);
        if (access(path, F_OK)) continue;
        void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        const struct backend *b = object ? dlsym(object, "cuda_backend") : NULL;
        if (b && !strcmp(b->operations, kernel_operations)) return b;
        snprintf(why, size, "%s", b ? "sluice-cuda.so belongs to another build" : dlerror());
    }
    return NULL;
}

/* "cuda" is 0, "cuda:N" is N; -1 for anything else */
static int cuda_index(const char *device)
{
    char *end;
    if (!strcmp(device, "cuda")) return 0;
    if (strncmp(device, "cuda:", 5) || device[5] < '0' || device[5] > '9') return -1;
    long n = strtol(device + 5, &end, 10);
    return *end || n > 1023 ? -1 : (int)n;
}

/* A device of less memory than this one has, for tests. */
static void set_limit(struct kern *k)
{
    const char *text = getenv("SLUICE_MEMORY");
    char *end;
    if (!text || !*text) return;
    double gib = strtod(text, &end);
    if (*end || !(gib > 0 && gib < 1 << 20))
        kern_fail(k, "SLUICE_MEMORY=%.40s is no number of GiB", text);
    else
        k->limit = (size_t)(gib * (1 << 30));
}

static struct kern *open_on(const struct backend *b, int index, int threads, char *err, size_t errlen)
{
    struct kern *k = calloc(1, sizeof *k);
    if (!k) {
        snprintf(err, errlen, "out of memory");
        return NULL;
    }
    k->backend = b;
    k->threads = threads;
    k->compute = b->bf16 ? DT_BF16 : DT_F32;
    set_limit(k);
    if (kern_ok(k) && b->open(k, index)) return k;
    snprintf(err, errlen, "%s", k->error);
    free(k);
    return NULL;
}

struct kern *kern_open(const char *device, int threads, char *err, size_t errlen)
{
    bool any = !strcmp(device, "auto"), cpu = !strcmp(device, "cpu");
    int index = any ? 0 : cuda_index(device);
    if (!cpu && index < 0) {
        snprintf(err, errlen, "%s: no such device; there are cpu, cuda, cuda:N and auto", device);
        return NULL;
    }
    if (threads < 0 || threads > MAX_THREADS) {
        snprintf(err, errlen, "%d threads: 0 (one for each core) to %d are possible", threads, MAX_THREADS);
        return NULL;
    }
    if (threads == 0) threads = omp_get_num_procs() < MAX_THREADS ? omp_get_num_procs() : MAX_THREADS;
    if (cpu) return open_on(&cpu_backend, 0, threads, err, errlen);
    const struct backend *cuda = find_cuda(err, errlen);
    struct kern *k = cuda ? open_on(cuda, index, threads, err, errlen) : NULL;
    if (k) *err = 0; /* find_cuda() had a reason ready */
    return k || !any ? k : open_on(&cpu_backend, 0, threads, err, errlen);
}

const char *kern_device(const struct kern *k)
{
    return k->device;
}

const char *kern_card(const struct kern *k)
{
    const char *other = getenv("SLUICE_BUS");
    return other && *other ? other : k->card;
}

enum dtype kern_compute(const struct kern *k)
{
    return k->compute;
}

void kern_compute_in(struct kern *k, enum dtype d)
{
    if (d == DT_F32 || (d == DT_BF16 && k->backend->bf16)) k->compute = d;
}

bool kern_hold_fp8(struct kern *k)
{
    return k->fp8 = kern_ok(k) && k->backend->can_fp8(k);
}

bool kern_holds_fp8(const struct kern *k)
{
    return k->fp8;
}

const char *kern_basis(struct kern *k)
{
    k->backend->basis(k, k->basis, sizeof k->basis);
    const size_t at = strlen(k->basis);
    if (k->backend->kernels)
        snprintf(k->basis + at, sizeof k->basis - at, ", kernels %d", k->backend->kernels);
    for (char *c = k->basis; *c; c++) /* names come from drivers */
        if (*c == '"' || *c == '\\' || *c < ' ' || *c > '~') *c = '?';
    return k->basis;
}

void kern_on_note(struct kern *k, void (*tell)(const char *note))
{
    k->tell = tell;
    for (int i = 0; i < k->notes; i++) tell(k->note[i]);
}

void kern_note(struct kern *k, const char *fmt, ...)
{
    char text[NOTE_LENGTH];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (int i = 0; i < k->notes; i++)
        if (!strcmp(k->note[i], text)) return;
    if (k->notes == MAX_NOTES) return;
    strcpy(k->note[k->notes++], text);
    if (k->tell) k->tell(text);
}

void kern_wait(struct kern *k)
{
    if (kern_ok(k)) k->backend->wait(k);
}

bool kern_ok(const struct kern *k)
{
    return !k->error[0];
}

const char *kern_error(const struct kern *k)
{
    return k->error;
}

void kern_fail(struct kern *k, const char *fmt, ...)
{
    va_list ap;
    if (k->error[0]) return;
    va_start(ap, fmt);
    vsnprintf(k->error, sizeof k->error, fmt, ap);
    va_end(ap);
}

void kern_clear(struct kern *k)
{
    k->error[0] = 0;
}
