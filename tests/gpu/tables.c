/* tables - for a new card: what its libraries could choose for the shapes that tables of kernels/cuda are about,
 * timed, and as rows of those tables where another choice than the library's first is better by 2 %.
 *
 *   tables              all of it: tests/cards --measure runs this
 *   tables products | convolutions | attention
 *
 * Lines of text on stdout. Times are medians of RUNS batches of calls, of a card as warm as they make it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/timing.h"

enum { RUNS = 5, CANDIDATES = 16 };

static struct kern *k;
static const char *(*candidate)(struct kern *k, int n);
static uint64_t streams;

static void open_card(void)
{
    char err[256];
    if (!(k = kern_open("cuda", 0, err, sizeof err))) stop("cuda", err);
    *(void **)&candidate = backend_symbol(k, "cuda_test_candidate");
}

/* Normals; a product of zeros would be faster than of what it is for. */
#define random(...) random_shape((const int64_t[]){__VA_ARGS__})
static struct tensor random_shape(const int64_t *shape)
{
    struct tensor t = kern_alloc_shape(k, DT_BF16, shape);
    const struct random_normal r = {.key = {1, 2}, .stream = streams++, .std = 1};
    random_normal(k, &t, &r);
    return t;
}

/* Seconds a call, or NAN where it fails, `call` makes one from shapes of its own. */
static double seconds(void (*call)(const int64_t *shape), const int64_t *shape)
{
    double each[RUNS];
    call(shape);
    kern_wait(k);
    double from = clock_seconds();
    call(shape);
    kern_wait(k);
    const double once = clock_seconds() - from;
    const int calls = once < 5e-3 ? (int)(5e-3 / once) + 1 : 1;
    for (int run = 0; run < RUNS && kern_ok(k); run++) {
        from = clock_seconds();
        for (int i = 0; i < calls; i++) call(shape);
        kern_wait(k);
        each[run] = (clock_seconds() - from) / calls;
    }
    return kern_ok(k) ? sort_times(each, RUNS) : NAN;
}

/* ---- what is timed: buffers made by *_make, one call each by the function beside it ---- */

enum { COPIES = 8 }; /* of weights, which in a network come from memory and not from a cache */
static struct tensor x, y, weights[COPIES], b, pre;
static int turn;
static struct tensor *w(void)
{
    return &weights[turn++ % COPIES];
}
static void weights_make(int64_t rows, int64_t cols)
{
    for (int i = 0; i < COPIES; i++) weights[i] = random(2, rows, cols);
}

static void product_make(const int64_t *s) /* rows, n, depth */
{
    x = random(2, s[0], s[2]), y = random(2, s[0], s[1]), b = random(1, s[1]);
    weights_make(s[1], s[2]);
    pre = random(2, s[0], s[1]);
}
static void product(const int64_t *s)
{
    (void)s;
    linear_forward(k, &y, &x, w(), NULL);
}
static void gelu(const int64_t *s)
{
    (void)s;
    linear_gelu_forward(k, &y, &pre, &x, w(), &b);
}
static void slope_make(const int64_t *s) /* rows, hidden, out: the gradient of what gelu made goes back */
{
    x = random(2, s[0], s[2]), y = random(2, s[0], s[1]), pre = random(2, s[0], s[1]);
    weights_make(s[2], s[1]);
}
static void slope(const int64_t *s)
{
    (void)s;
    linear_gelu_backward(k, &y, &x, w(), &pre);
}

static struct tensor history;
static void conv_make(const int64_t *s) /* frames, rows, columns, in, out, residual */
{
    x = random(4, s[0] + 2, s[1], s[2], s[3]), y = random(4, s[0], s[1], s[2], s[4]);
    history = random(4, 2, s[1], s[2], s[3]), weights[0] = random(5, s[4], 3, 3, 3, s[3]),
    b = random(1, s[4]);
    pre = random(4, s[0], s[1], s[2], s[4]);
}
static void conv(const int64_t *s)
{
    causal_conv3d_forward(k, &y, &x, &history, true, &weights[0], &b, s[5] ? &pre : NULL);
}

static const struct timed {
    const char *section, *row;
    void (*make)(const int64_t *), (*call)(const int64_t *);
    int64_t shape[6];
} all[] = {
    {"products", "CUBLASLT_EPILOGUE_GELU_AUX_BIAS", product_make, gelu, {17776, 12288, 3072}},
    {"products", "CUBLASLT_EPILOGUE_DGELU", slope_make, slope, {17776, 12288, 3072}},
    {"products", "CUBLASLT_EPILOGUE_DEFAULT", product_make, product, {226, 4096, 4096}},
    {"products", "CUBLASLT_EPILOGUE_DEFAULT", product_make, product, {17776, 3072, 3072}},
    {"products", "CUBLASLT_EPILOGUE_DEFAULT", product_make, product, {17776, 3072, 12288}},
    {"convolutions", "narrow", conv_make, conv, {8, 480, 720, 128, 128, 0}},
    {"convolutions", "narrow, residual", conv_make, conv, {8, 480, 720, 128, 128, 1}},
    {"convolutions", "few", conv_make, conv, {2, 60, 90, 512, 512, 0}},
    {"convolutions", "wide", conv_make, conv, {4, 240, 360, 256, 256, 1}},
    {"convolutions", "many", conv_make, conv, {8, 240, 360, 256, 256, 0}},
    {"convolutions", "wan", conv_make, conv, {8, 480, 832, 96, 96, 0}},
    {"convolutions", "wan", conv_make, conv, {8, 480, 832, 96, 96, 1}},
    {"convolutions", "wan", conv_make, conv, {8, 240, 416, 96, 192, 0}},
    {"convolutions", "wan", conv_make, conv, {8, 240, 416, 192, 192, 0}},
    {"convolutions", "wan", conv_make, conv, {8, 240, 416, 192, 192, 1}},
    {"convolutions", "wan", conv_make, conv, {4, 120, 208, 192, 384, 0}},
    {"convolutions", "wan", conv_make, conv, {4, 120, 208, 384, 384, 0}},
    {"convolutions", "wan", conv_make, conv, {4, 120, 208, 384, 384, 1}},
    {"convolutions", "wan", conv_make, conv, {2, 60, 104, 384, 384, 0}},
    {"convolutions", "wan", conv_make, conv, {2, 60, 104, 384, 384, 1}},
};

/* By the n'th candidate, -1 the one that is taken without being asked; NAN: there is none. */
static double try(const struct timed *t, int n, char chosen[200])
{
    open_card();
    const char *text = candidate(k, n);
    t->make(t->shape);
    kern_plan_begin(k);
    t->call(t->shape);
    kern_reserve(k, kern_plan_end(k));
    const double s = seconds(t->call, t->shape);
    snprintf(chosen, 200, "%s", text);
    if (!kern_ok(k) && n < 0) stop(t->row, kern_error(k));
    const bool another = n < 0 || *text; /* where a library has fewer, something else may have served */
    kern_close(k);
    return another ? s : NAN;
}

static void measure(const struct timed *t)
{
    char text[200], best[200] = "";
    double first = NAN, least = INFINITY;
    const double taken = try(t, -1, text);
    printf("%s %lldx%lldx%lldx%lldx%lld: %.4f ms as it is", t->row, (long long)t->shape[0],
           (long long)t->shape[1], (long long)t->shape[2], (long long)t->shape[3], (long long)t->shape[4],
           1e3 * taken);
    for (int n = 0; n < CANDIDATES; n++) {
        const double s = try(t, n, text);
        if (isnan(s)) break;
        if (!n) first = s;
        if (s < least) least = s, snprintf(best, sizeof best, "%s", text);
    }
    printf(", %.4f the first answer, %.4f the best: %s\n", 1e3 * first, 1e3 * least, best);
    fflush(stdout);
    if (!(least < 0.98 * first)) return;
    open_card();
    printf("    row for %.*s: %s%s%s\n", (int)strcspn(kern_basis(k), ","), kern_basis(k), t->row,
           strcmp(t->section, "products") ? " is " : ", ", best);
    kern_close(k);
}

/* ---- attention ---- */

static void attend(const char *way, int64_t rows, int heads, int64_t d, bool causal)
{
    char list[64];
    int count;
    const struct attention a = {heads, (float)(1 / sqrt((double)d)), 1, causal};
    snprintf(list, sizeof list, "%s,f32", way);
    setenv("SLUICE_ATTENTION", list, 1);
    open_card();
    struct tensor t[8], lse = kern_alloc(k, DT_F32, 2, heads, rows);
    for (int i = 0; i < 8; i++) t[i] = random(2, rows, heads * d);
#define FORWARD()  attention_forward(k, &t[0], &lse, &t[1], &t[2], &t[3], NULL, &a)
#define BACKWARD() attention_backward(k, &t[5], &t[6], &t[7], &t[4], &t[0], &lse, &t[1], &t[2], &t[3], &a)
    kern_plan_begin(k);
    FORWARD();
    BACKWARD();
    kern_reserve(k, kern_plan_end(k));
    for (int back = 0; back < 2; back++) {
        const double flop = (back ? 10.0 : 4.0) * (double)(rows * rows * heads * d) / (causal ? 2 : 1);
        double least = INFINITY;
        const char *took = NULL;
        for (int run = 0; run < RUNS; run++) {
            kern_profile_start(k);
            if (back)
                BACKWARD();
            else
                FORWARD();
            const struct kern_profile_line *line = kern_profile(k, &count);
            if (count && run) least = fmin(least, line->seconds), took = line->way;
            if (took && strcmp(took, way)) break; /* the way does not do this; what does is not asked */
        }
        if (!kern_ok(k)) stop(way, kern_error(k));
        if (took && !strcmp(took, way))
            printf("attention %s %lldx%dx%lld%s by %s: %.3f ms, %.0f TFLOP/s\n", back ? "back" : "forward",
                   (long long)rows, heads, (long long)d, causal ? " causal" : "", way, 1e3 * least,
                   flop / least / 1e12);
        fflush(stdout);
    }
    kern_close(k);
    unsetenv("SLUICE_ATTENTION");
}

int main(int argc, char **argv)
{
    static const char *const ways[] = {"hopper", "cudnn", "mma"};
    const char *only = argc > 1 ? argv[1] : NULL;
    open_card();
    printf("%s\n", kern_basis(k));
    kern_close(k);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!only || !strcmp(only, all[i].section)) measure(&all[i]);
    for (size_t i = 0; i < 3 && (!only || !strcmp(only, "attention")); i++) {
        attend(ways[i], 17776, 48, 64, false);
        attend(ways[i], 8192, 48, 128, false);
    }
    return 0;
}
