/* kernels.h - how the tests of operations run them.
 *
 *   while (next_mode()) {                             on the CPU, on CUDA in F32, on CUDA in BF16
 *       fresh();                                      forget the buffers of the last case
 *       struct tensor x = given(2, 5, 7);             random numbers in (-1, 1) of the compute dtype X
 *       struct tensor y = result(X, 2, 5, 7);         to be written: poisoned before every run
 *       updated(&x);                                  an input that the operation changes in place
 *       settle(1);                                    the last result is an input from here on
 *       RUN("what this case is", silu_forward(k, &y, &x));
 *   }
 *   return done();
 *
 * RUN plans the call with every buffer out of reach, then runs it on one and on two threads (on a GPU:
 * twice), with a different poison each time. It holds when: nothing fails; both runs give the same bits (so
 * no element was left unwritten, and the number of threads does not matter); not a byte but the results' has
 * changed (inputs, and the red zones between all buffers); and the scratch memory used is the scratch memory
 * planned, to the byte. Small cases stay on one thread (see PARALLEL_FOR), so each operation also needs one
 * above 64k elements.
 *
 * On a GPU the buffers stay where they are, in the host's memory, which the device is given to use in place:
 * slow, but formulas, red zones and poison are those of the CPU. Without a device these modes are skipped;
 * NEED_CUDA=1 makes that a failure, TEST_ON=cuda leaves out the CPU. */
#ifndef TESTS_KERNELS_H
#define TESTS_KERNELS_H

#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/backend.h"
#include "tests/tap.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* no test needs all of these */

enum { ARENA = 160 << 20, RED_ZONE = 256, MAX_RESULTS = 96, MAX_WIDE = 64 };

static const struct mode {
    const char *device, *label;
    enum dtype compute;
} modes[] = {{"cpu", "", DT_F32}, {"cuda", "cuda F32: ", DT_F32}, {"cuda", "cuda BF16: ", DT_BF16}}, *mode;
enum { MODES = sizeof modes / sizeof *modes };

static struct kern *kerns[2]; /* one thread, two threads */
static struct kern *host;     /* always the CPU; kerns[0] there */
static enum dtype X;          /* what activations and weights are in this mode */
static uint64_t random_state;
static char *arena, *snapshot;
static size_t arena_used;
static struct {
    size_t offset, bytes;
    bool updated; /* starts from what the snapshot holds, not from poison */
    char *first;  /* what the first run gave */
} results[MAX_RESULTS];
static int result_count;
static double *wide_arrays[MAX_WIDE];
static int wide_count;

/* The last `count` results are inputs of what comes next. */
static void settle(int count)
{
    while (count--) free(results[--result_count].first);
}

static void fresh(void)
{
    settle(result_count);
    while (wide_count) free(wide_arrays[--wide_count]);
    memset(arena, 0x5A, arena_used + RED_ZONE);
    arena_used = 0;
}

static void bail(const char *why)
{
    printf("Bail out! %s\n", why);
    exit(1);
}

/* What the CUDA backend offers to tests alone. */
static void *cuda_symbol(const char *name)
{
    Dl_info where;
    void *object = dladdr(kerns[0]->backend, &where) ? dlopen(where.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
    if (!object) bail("the backend is no shared object");
    return dlsym(object, name);
}

/* The CUDA backend has a way for tests to work on the host's own memory. */
static void share_arena(void)
{
    static bool (*take)(void *memory, size_t bytes);
    if (take) return; /* it is set for every later mode */
    *(void **)&take = cuda_symbol("cuda_test_register");
    if (!take || !take(arena, ARENA)) bail("the device cannot use the host's memory");
}

/* false, with the reason in err: there is no such device. */
static bool open_mode(const struct mode *m, char *err, size_t errlen)
{
    for (int i = 0; i < 2; i++) {
        if (!(kerns[i] = kern_open(m->device, 1 + i, err, errlen))) return false;
        kern_compute_in(kerns[i], m->compute);
    }
    mode = m;
    X = kern_compute(kerns[0]);
    random_state = 88172645463325252u;
    if (!arena) arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!snapshot) snapshot = malloc(ARENA);
    if (arena == MAP_FAILED || !snapshot) bail("no memory");
    host = m == modes ? kerns[0] : kern_open("cpu", 1, err, errlen);
    if (!host) bail(err);
    if (m != modes) share_arena();
    fresh();
    return true;
}

static void close_mode(void)
{
    fresh();
    if (mode != modes) kern_close(host);
    for (int i = 0; i < 2; i++) kern_close(kerns[i]);
}

/* For tests that are about the CPU alone. */
static void kernels_open(void)
{
    char err[256];
    if (!open_mode(modes, err, sizeof err)) bail(err);
}

static int kernels_close(void)
{
    close_mode();
    return done();
}

static bool next_mode(void)
{
    const char *on = getenv("TEST_ON"), *need = getenv("NEED_CUDA");
    char err[256];
    const struct mode *next = mode ? mode + 1 : on && !strcmp(on, "cuda") ? modes + 1 : modes;
    if (mode) close_mode();
    if (next == modes + MODES) return false;
    setvbuf(stdout, NULL, _IOLBF, 0); /* output from before a crash is not lost */
    if (open_mode(next, err, sizeof err)) return true;
    if (next == modes || (need && !strcmp(need, "1")))
        ok(false, "%s: %s", next->device, err);
    else
        skip("the same on CUDA", err);
    return false;
}

/* xorshift64*: tests need numbers that differ, and the same ones every time */
static double random_unit(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (double)((random_state * 2685821657736338717u) >> 11) * 0x1p-52 - 1;
}

static struct tensor buffer_shape(enum dtype d, const int64_t *rank_then_shape)
{
    struct tensor t = tensor_make(d, NULL, rank_then_shape);
    size_t at = (arena_used + RED_ZONE + 63) / 64 * 64;
    arena_used = at + tensor_bytes(&t);
    if (arena_used + RED_ZONE > ARENA) bail("the test's arena is too small");
    t.data = arena + at;
    return t;
}

/* t[i] = v, rounded to its dtype */
static void set(const struct tensor *t, int64_t i, double v)
{
    struct tensor from = tensor_of(DT_F64, &v, 1, 1), to = tensor_of(t->dtype, NULL, 1, 1);
    to.data = (char *)t->data + (size_t)i * dtype_size(t->dtype);
    tensor_convert(&to, &from);
}

/* Arguments that are F32 on every device: given_in(DT_F32, 2, rows, d). */
#define given(...)           given_shape(X, (const int64_t[]){__VA_ARGS__})
#define given_in(dtype, ...) given_shape(dtype, (const int64_t[]){__VA_ARGS__})
static struct tensor given_shape(enum dtype d, const int64_t *rank_then_shape)
{
    struct tensor t = buffer_shape(d, rank_then_shape);
    for (int64_t i = 0; i < tensor_count(&t); i++) set(&t, i, random_unit());
    return t;
}

static void updated(const struct tensor *t)
{
    results[result_count].offset = (size_t)((char *)t->data - arena);
    results[result_count].bytes = tensor_bytes(t);
    results[result_count].updated = true;
    results[result_count++].first = calloc(1, tensor_bytes(t) + 1);
}

#define result(dtype, ...) result_shape(dtype, (const int64_t[]){__VA_ARGS__})
static struct tensor result_shape(enum dtype d, const int64_t *rank_then_shape)
{
    struct tensor t = buffer_shape(d, rank_then_shape);
    updated(&t);
    results[result_count - 1].updated = false;
    return t;
}

/* 0xFF.. is a NaN as a float or double, and 255 as a byte; 0xA5.. is another value of each. */
static void poison(int run)
{
    for (int i = 0; i < result_count; i++) {
        if (results[i].updated)
            memcpy(arena + results[i].offset, snapshot + results[i].offset, results[i].bytes);
        else
            memset(arena + results[i].offset, run ? 0xA5 : 0xFF, results[i].bytes);
    }
}

static bool only_results_changed(void)
{
    size_t from = 0;
    for (int i = 0; i < result_count; i++) {
        if (results[i].offset < from) bail("results must be named in the order of their buffers");
        if (memcmp(arena + from, snapshot + from, results[i].offset - from)) return false;
        from = results[i].offset + results[i].bytes;
    }
    return !memcmp(arena + from, snapshot + from, arena_used + RED_ZONE - from);
}

/* Compares with the first run, or remembers it. */
static bool same_as_first(int run)
{
    bool same = true;
    for (int i = 0; i < result_count; i++) {
        if (run == 0) memcpy(results[i].first, arena + results[i].offset, results[i].bytes);
        same = same && !memcmp(results[i].first, arena + results[i].offset, results[i].bytes);
    }
    return same;
}

#define RUN(what, call)                                                                                      \
    do {                                                                                                     \
        const char *wrong_ = NULL;                                                                           \
        memcpy(snapshot, arena, arena_used + RED_ZONE);                                                      \
        for (int run_ = 0; run_ < 2 && !wrong_; run_++) {                                                    \
            struct kern *k = kerns[run_];                                                                    \
            poison(run_);                                                                                    \
            mprotect(arena, ARENA, PROT_NONE);                                                               \
            kern_plan_begin(k);                                                                              \
            call;                                                                                            \
            size_t planned_ = kern_plan_end(k);                                                              \
            mprotect(arena, ARENA, PROT_READ | PROT_WRITE);                                                  \
            kern_reserve(k, planned_);                                                                       \
            k->peak = 0;                                                                                     \
            call;                                                                                            \
            kern_wait(k);                                                                                    \
            if (!kern_ok(k))                                                                                 \
                wrong_ = kern_error(k);                                                                      \
            else if (k->peak != planned_ || k->used)                                                         \
                wrong_ = "scratch memory is not as planned";                                                 \
            else if (!only_results_changed())                                                                \
                wrong_ = "something that is no result was written";                                          \
            else if (!same_as_first(run_))                                                                   \
                wrong_ = "the two runs differ";                                                              \
        }                                                                                                    \
        ok(!wrong_, "%s%s, %s%s%s", mode->label, what, mode == modes ? "one and two threads" : "twice",      \
           wrong_ ? ": " : "", wrong_ ? wrong_ : "");                                                        \
        for (int run_ = 0; run_ < 2; run_++) kern_clear(kerns[run_]);                                        \
    } while (0)

/* An array of doubles that lives until the next case; with a tensor, its values. */
static double *wide_array(int64_t n)
{
    if (wide_count == MAX_WIDE) bail("too many arrays in one case");
    return wide_arrays[wide_count++] = calloc((size_t)n + 1, sizeof(double));
}

static double *wide(const struct tensor *t)
{
    int64_t n = tensor_count(t);
    double *w = wide_array(n);
    for (int64_t i = 0; i < n; i++) w[i] = tensor_get(t, i);
    return w;
}

/* The largest error that a result may have. `tolerance` is for the CPU, which sums in double. A GPU sums in
 * F32, and later steps in F32 add a few roundings: sixteen of 2^-24. A result in BF16 is rounded once more,
 * to 8 bits: half a unit is up to 2^-8 of it. A tolerance of 0 asks for equality everywhere. */
static double allowed(const struct tensor *t, double tolerance)
{
    if (tolerance == 0 || mode == modes) return tolerance;
    return tolerance + 0x1p-20 + (t->dtype == DT_BF16 ? 0x1p-8 : 0);
}

/* To add to a tolerance where `n` results on the way are rounded to the compute dtype, too. */
static double roundings(double n)
{
    return X == DT_BF16 ? n * 0x1p-8 : 0;
}

/* The largest difference between t and what it should be stays within `tolerance` times the largest value,
 * or times `size` where that is larger (times 1 where all should be 0). */
static bool near_size(const struct tensor *t, const double *expected, double size, double tolerance,
                      const char *what)
{
    double error = 0;
    int64_t worst = 0;
    tolerance = allowed(t, tolerance);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        double e = fabs(tensor_get(t, i) - expected[i]);
        if (e > error || (e != e && error == error)) error = e, worst = i;
        size = fabs(expected[i]) > size ? fabs(expected[i]) : size;
    }
    error /= size > 0 ? size : 1;
    if (ok(error <= tolerance, "%s%s: error %.2g of at most %.2g", mode->label, what, error, tolerance))
        return true;
    printf("# element %lld is %.9g, not %.9g\n", (long long)worst, tensor_get(t, worst), expected[worst]);
    return false;
}

static bool near(const struct tensor *t, const double *expected, double tolerance, const char *what)
{
    return near_size(t, expected, 0, tolerance, what);
}

/* The formula of a forward pass, in double: out from in[0], in[1].. and whatever sizes it needs. */
typedef void formula(double *out, double *const *in, const void *sizes);

/* grad against the central difference of L = Σ slope out with respect to in[which]. In double a step of 1e-5
 * leaves an error of about 1e-10 of the gradient's size, so the tolerance is the operation's own rounding.
 * Large inputs are sampled. */
static bool gradient_near(const struct tensor *grad, formula *f, const void *sizes, double *const *in,
                          int which, const double *slope, int64_t outputs, double tolerance, const char *what)
{
    const double step = 1e-5;
    int64_t n = tensor_count(grad), stride = n > 300 ? n / 150 : 1;
    double *out = calloc((size_t)outputs + 1, sizeof *out), error = 0, size = 0;
    for (int64_t i = 0; i < n; i += stride) {
        double difference = 0, x = in[which][i];
        for (int side = -1; side <= 1; side += 2) {
            in[which][i] = x + side * step;
            f(out, in, sizes);
            for (int64_t o = 0; o < outputs; o++) difference += side * slope[o] * out[o];
        }
        in[which][i] = x;
        difference /= 2 * step;
        double e = fabs(tensor_get(grad, i) - difference);
        error = e > error || e != e ? e : error;
        size = fabs(difference) > size ? fabs(difference) : size;
    }
    free(out);
    error /= size > 0 ? size : 1;
    tolerance = allowed(grad, tolerance);
    return ok(error <= tolerance, "%s%s: differs from finite differences by %.2g of at most %.2g",
              mode->label, what, error, tolerance);
}

#endif
