/* What the adapters cost at full size on one GPU, beside the projections they are added to.
 *
 *   adapters [REPEATS [fft]]      fft: the spectral adapter's transforms by cuFFT
 *
 * One JSON line a figure on stdout: the products with the rank for one and three modules, the inner operations for
 * as many modules as go together, then a whole block's share (the four projections of one layer) of each kind of
 * adapter. Inputs rotate, so that they do not lie in the cache. */
#include <stdio.h>
#include <stdlib.h>

#include "filters/learning/adapter.h"
#include "tests/linears.h"
#include "tests/gpu/timing.h"

enum { T = 13, H = 30, W = 45, R = 16, F = W / 2 + 1, TOKENS = T * H * W, TEXT = 226, WIDTH = 3072 };
enum { SETS = 8, MODULES = 4, RUNS = 9 };

static struct kern *k;
static char err[512];
static int repeats = 40;
static struct rng numbers;
static uint64_t drawn_count;

static double now(void)
{
    return 1e6 * clock_seconds();
}

/* Microseconds of one call of run(context, set), the median over RUNS of the mean over `repeats`. */
static double timed(const char *name, void (*run)(void *, int), void *context)
{
    double us[RUNS];
    kern_plan_begin(k);
    run(context, 0);
    kern_reserve(k, kern_plan_end(k));
    for (int i = -1; i < RUNS; i++) {
        double from = now();
        for (int j = 0; j < repeats; j++) run(context, j % SETS);
        kern_wait(k);
        if (i >= 0) us[i] = (now() - from) / repeats;
    }
    if (!kern_ok(k)) stop(name, kern_error(k));
    double median = sort_times(us, RUNS);
    printf("{\"name\": \"%s\", \"ms\": %.4f, \"least\": %.4f, \"most\": %.4f, \"runs\": %d}\n", name,
           1e-3 * median, 1e-3 * us[0], 1e-3 * us[RUNS - 1], RUNS);
    fflush(stdout);
    return median;
}

static struct tensor drawn_shape(enum dtype d, const int64_t *shape)
{
    struct tensor t = kern_alloc_shape(k, d, shape), host = tensor_make(DT_F32, NULL, shape);
    float *v = host.data = malloc(sizeof *v * (size_t)tensor_count(&host));
    if (!v || !kern_ok(k)) stop("tensors", v ? kern_error(k) : "out of memory");
    for (int64_t i = 0; i < tensor_count(&host); i++)
        v[i] = i < 1 << 20 ? (float)(2 * rng_uniform(&numbers, drawn_count++) - 1) : v[i - (1 << 20)];
    kern_upload(k, &t, &host);
    kern_wait(k);
    free(v);
    return t;
}
#define drawn(dtype, ...) drawn_shape(dtype, (const int64_t[]){__VA_ARGS__})

/* ---- the inner operations --------------------------------------------------------------------------- */

struct operation {
    int modules;
    struct tensor z[SETS * MODULES], o[SETS * MODULES], d_o[SETS * MODULES], dz[SETS * MODULES];
    struct tensor w[MODULES * GDN_PARAMS], dw[MODULES * GDN_PARAMS];
};

static void gdn_forward(void *context, int set)
{
    struct operation *c = context;
    int at = set * MODULES;
    gdn_cssm_forward(k, c->o + at, c->z + at, c->w, c->modules, 4, false);
}

static void gdn_backward(void *context, int set)
{
    struct operation *c = context;
    int at = set * MODULES;
    gdn_cssm_backward(k, c->dz + at, c->dw, c->d_o + at, c->z + at, c->w, c->modules, 4, false);
}

static struct tensor as_frames(const struct tensor *t)
{
    return tensor_as(t, 3, T, H * W, R);
}

static void attention_forwards(void *context, int set)
{
    struct operation *c = context;
    for (int m = set * MODULES; m < set * MODULES + c->modules; m++) {
        struct tensor o = as_frames(&c->o[m]), z = as_frames(&c->z[m]);
        temporal_attention_forward(k, &o, &z, c->w, 2);
    }
}

static void attention_backwards(void *context, int set)
{
    struct operation *c = context;
    for (int m = set * MODULES; m < set * MODULES + c->modules; m++) {
        struct tensor dz = as_frames(&c->dz[m]), d_o = as_frames(&c->d_o[m]), z = as_frames(&c->z[m]);
        temporal_attention_backward(k, &dz, c->dw, &d_o, &z, c->w, 2);
    }
}

static void operations(void)
{
    static struct operation c;
    const int64_t shapes[GDN_PARAMS][6] = {
        {2, 3 * R, R}, {1, 3 * R}, {2, R, R}, {1, R},    {2, H, R}, {1, H}, {2, F, R},
        {1, F},        {2, H, R},  {1, H},    {2, F, R}, {1, F},    {1, R}, {4, R / 4, H, F, 2}};
    enum dtype X = kern_compute(k);
    char name[64];
    for (int i = 0; i < SETS * MODULES; i++) {
        c.z[i] = drawn(X, 4, T, H, W, R), c.o[i] = drawn(X, 4, T, H, W, R);
        c.dz[i] = drawn(X, 4, T, H, W, R), c.d_o[i] = drawn(X, 4, T, H, W, R);
    }
    for (int i = 0; i < MODULES * GDN_PARAMS; i++) {
        c.w[i] = drawn_shape(DT_F32, shapes[i % GDN_PARAMS]);
        c.dw[i] = drawn_shape(DT_F32, shapes[i % GDN_PARAMS]);
    }
    for (c.modules = 1; c.modules <= MODULES; c.modules += c.modules == 1 ? 2 : 1) {
        snprintf(name, sizeof name, "gdn_cssm_forward_x%d", c.modules);
        timed(name, gdn_forward, &c);
        snprintf(name, sizeof name, "gdn_cssm_backward_x%d", c.modules);
        timed(name, gdn_backward, &c);
    }
    for (int i = 0; i < 3; i++) c.w[i] = drawn(DT_F32, 2, R, R), c.dw[i] = drawn(DT_F32, 2, R, R);
    c.modules = 1;
    timed("temporal_attention_forward", attention_forwards, &c);
    timed("temporal_attention_backward", attention_backwards, &c);
}

/* ---- products with the rank ------------------------------------------------------------------------------ */

enum { INPUTS = 3 }; /* q, k and v */

struct products {
    int modules;
    struct tensor x, dx, y[INPUTS], z[INPUTS], dz[INPUTS], a[INPUTS], b[INPUTS], da[INPUTS], db[INPUTS];
};

static void down_forward(void *context, int set)
{
    struct products *c = context;
    (void)set;
    thin_down_forward(k, c->z, &c->x, c->a, c->modules);
}

static void down_backward(void *context, int set)
{
    struct products *c = context;
    (void)set;
    thin_down_backward(k, &c->dx, c->da, c->dz, &c->x, c->a, c->modules);
}

static void down_weights(void *context, int set)
{
    struct products *c = context;
    (void)set;
    thin_down_backward(k, NULL, c->da, c->dz, &c->x, c->a, c->modules);
}

static void up_forward(void *context, int set)
{
    struct products *c = context;
    (void)set;
    thin_up_forward(k, c->y, c->z, c->b, 1, c->modules);
}

static void up_backward(void *context, int set)
{
    struct products *c = context;
    (void)set;
    thin_up_backward(k, c->dz, c->db, c->y, c->z, c->b, 1, c->modules);
}

/* No tensor of all rows fits the cache, so one of each is enough. */
static void products(void)
{
    static struct products c;
    static const struct {
        const char *name;
        void (*run)(void *, int);
    } way[] = {{"thin_down_forward", down_forward},
               {"thin_up_forward", up_forward},
               {"thin_up_backward", up_backward},
               {"thin_down_backward", down_backward},
               {"thin_down_backward_without_dx", down_weights}};
    const enum dtype X = kern_compute(k);
    char name[64];
    c.x = drawn(X, 2, TEXT + TOKENS, WIDTH), c.dx = drawn(X, 2, TEXT + TOKENS, WIDTH);
    for (int i = 0; i < INPUTS; i++) {
        c.y[i] = drawn(X, 2, TEXT + TOKENS, WIDTH), c.z[i] = drawn(X, 2, TEXT + TOKENS, R);
        c.dz[i] = drawn(X, 2, TEXT + TOKENS, R), c.a[i] = drawn(X, 2, R, WIDTH),
        c.b[i] = drawn(X, 2, WIDTH, R);
        c.da[i] = drawn(DT_F32, 2, R, WIDTH), c.db[i] = drawn(DT_F32, 2, WIDTH, R);
    }
    for (c.modules = 1; c.modules <= INPUTS; c.modules += 2)
        for (size_t i = 0; i < sizeof way / sizeof *way; i++) {
            snprintf(name, sizeof name, "%s_x%d", way[i].name, c.modules);
            timed(name, way[i].run, &c);
        }
}

/* ---- whole adapters --------------------------------------------------------------------------------- */

enum { PROJECTIONS = 4 };

struct block {
    struct adapter_set set; /* of one adapter */
    struct token_rows rows;
    struct tensor x[2], y[PROJECTIONS]; /* q, k, v have one input, the output another */
};

/* As in a block of the transformer: q, k and v together, then the output. */
static void block(struct block *b, bool backward)
{
    const struct linear_hook *hook = &b->set.hook;
    size_t mark = kern_mark(k);
    struct linear_call call[PROJECTIONS];
    struct tensor saved[PROJECTIONS];
    for (int t = 0; t < PROJECTIONS; t++) {
        saved[t] = kern_tensor(k, kern_compute(k), 1, hook->saved_count(hook->context, t, &b->rows));
        call[t] = (struct linear_call){.linear = t,
                                       .rows = &b->rows,
                                       .x = &b->x[t == 3],
                                       .y = &b->y[t],
                                       .dy = &b->y[t],
                                       .dx = &b->x[t != 3],
                                       .saved = &saved[t]};
    }
    (backward ? linears_backward : linears_forward)(hook, call, 3);
    (backward ? linears_backward : linears_forward)(hook, call + 3, 1);
    kern_release(k, mark);
}

static void block_forward(void *context, int set)
{
    (void)set;
    block(context, false);
}

static void block_backward(void *context, int set)
{
    (void)set;
    block(context, true);
}

static void blocks(void)
{
    static const char *const kinds[] = {"standard", "transformer", "gdn_cssm"};
    static struct block b = {.rows = {TEXT, T, H, W}};
    char name[64];
    for (int i = 0; i < 2; i++) b.x[i] = drawn(kern_compute(k), 2, TEXT + TOKENS, WIDTH);
    for (int t = 0; t < PROJECTIONS; t++) b.y[t] = drawn(kern_compute(k), 2, TEXT + TOKENS, WIDTH);
    for (int i = 0; i < 3; i++) {
        struct adapter *a = adapter_make(kinds[i], NULL, base_of(1, WIDTH, WIDTH, H, W), err, sizeof err);
        if (!a || !adapter_attach(a, k, true)) stop(kinds[i], a ? kern_error(k) : err);
        adapter_init(a, 1);
        adapter_set_add(&b.set, a);
        snprintf(name, sizeof name, "%s_block_forward", kinds[i]);
        timed(name, block_forward, &b);
        snprintf(name, sizeof name, "%s_block_backward", kinds[i]);
        timed(name, block_backward, &b);
        adapter_set_close(&b.set);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) repeats = atoi(argv[1]);
    if (repeats < 1) stop("repeats", "not a positive number");
    if (!(k = kern_open("cuda", 0, err, sizeof err))) stop("cuda", err);
    if (argc > 2) {
        bool (*fft)(struct kern * k, bool only);
        *(void **)&fft = backend_symbol(k, "cuda_test_fft");
        if (!fft(k, true)) stop("fft", "out of memory");
    }
    numbers = rng_make(1, "bench", "adapters", 0);
    products();
    operations();
    blocks();
    kern_close(k);
    return 0;
}
