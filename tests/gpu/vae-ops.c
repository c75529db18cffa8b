/* The VAE's operations on one chunk of eight frames of 480x720 on one GPU, in BF16, beside the least time
 * that their arithmetic or their bytes allow.
 *
 *   vae-ops [NAME]      those whose name begins so
 *
 * One JSON line a figure on stdout: {"name": .., "ms": .., "floor": .., ..}. The floor takes 780 TFLOP/s and
 * 4.3 TB/s. Times are medians; tensors are larger than the caches, and no weight is read twice in a row. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/gpu/timing.h"

enum { RUNS = 5, H = 480, W = 720, VALUES = 1 << 23 };
static const double FLOPS = 780e12, BANDWIDTH = 4.3e12;

static struct kern *k;
static const char *only;
static uint16_t *values;

/* Scratch full of random numbers, a third of them at most 1/2. */
#define random(...) random_shape((const int64_t[]){__VA_ARGS__})
static struct tensor random_shape(const int64_t *shape)
{
    struct tensor t = kern_tensor_shape(k, DT_BF16, shape);
    int64_t n = tensor_count(&t);
    if (kern_planning(k)) return t;
    for (int64_t i = 0; i < n; i += VALUES) {
        struct tensor all = tensor_as(&t, 1, n), part = tensor_rows(&all, i, n - i < VALUES ? n - i : VALUES);
        struct tensor host = tensor_of(DT_BF16, values, 1, tensor_count(&part));
        kern_upload(k, &part, &host);
    }
    return t;
}

static void report(const char *name, double seconds, double bytes, double flop)
{
    double least = bytes / BANDWIDTH > flop / FLOPS ? bytes / BANDWIDTH : flop / FLOPS;
    printf(
        "{\"name\": \"%s\", \"ms\": %.3f, \"floor\": %.3f, \"share\": %.2f, \"tbs\": %.2f, \"tflops\": %.0f}\n",
        name, 1e3 * seconds, 1e3 * least, least / seconds, bytes / seconds / 1e12, flop / seconds / 1e12);
    fflush(stdout);
}

/* Each case is called twice: planning, then for real. */
#define TIME(name, values, flop, call)                                                                       \
    do {                                                                                                     \
        double each_[RUNS], bytes_ = 2.0 * (double)(values);                                                 \
        int calls_ = (int)(5e-3 / (bytes_ / BANDWIDTH + (flop) / FLOPS + 3e-6)) + 2;                         \
        for (int run_ = kern_planning(k) ? RUNS - 1 : -1; run_ < RUNS; run_++) {                             \
            double from_ = clock_seconds();                                                                  \
            for (int call_ = 0; call_ < calls_; call_++) call;                                               \
            kern_wait(k);                                                                                    \
            if (run_ >= 0) each_[run_] = (clock_seconds() - from_) / calls_;                                 \
        }                                                                                                    \
        if (kern_planning(k)) break;                                                                         \
        if (!kern_ok(k)) stop(name, kern_error(k));                                                          \
        double median_ = sort_times(each_, RUNS);                                                            \
        report(name, median_, bytes_, flop);                                                                 \
    } while (0)

struct shape {
    const char *what;
    int64_t T, scale, in, out; /* a frame is H/scale x W/scale */
};

static void causal(const struct shape *s)
{
    int64_t h = H / s->scale, w = W / s->scale, pixels = s->T * h * w;
    double flop = 2.0 * 27 * (double)(pixels * s->in * s->out);
    struct tensor x = random(4, 2 + s->T, h, w, s->in), y = random(4, s->T, h, w, s->out),
                  more = random(4, s->T, h, w, s->out), past = random(4, 2, h, w, s->in),
                  weight = random(5, s->out, 3, 3, 3, s->in), bias = random(1, s->out);
    char name[80];
    snprintf(name, sizeof name, "causal_conv3d %lldx%lldx%lld %lld to %lld", (long long)s->T, (long long)h,
             (long long)w, (long long)s->in, (long long)s->out);
    TIME(name, pixels * (s->in + s->out), flop,
         causal_conv3d_forward(k, &y, &x, &past, false, &weight, &bias, NULL));
    strcat(name, ", residual");
    if (s->in == s->out)
        TIME(name, pixels * (s->in + 2 * s->out), flop,
             causal_conv3d_forward(k, &y, &x, &past, false, &weight, &bias, &more));
}

static void down(const struct shape *s)
{
    int64_t h = H / s->scale, w = W / s->scale, to = s->T * (h / 2) * (w / 2);
    struct tensor x = random(4, s->T, h, w, s->in), y = random(4, s->T, h / 2, w / 2, s->out),
                  weight = random(4, s->out, 3, 3, s->in), bias = random(1, s->out);
    char name[80];
    snprintf(name, sizeof name, "conv2d %lldx%lldx%lld %lld to %lld, stride 2", (long long)s->T, (long long)h,
             (long long)w, (long long)s->in, (long long)s->out);
    TIME(name, s->T * h * w * s->in + to * s->out, 2.0 * 9 * (double)(to * s->in * s->out),
         conv2d_forward(k, &y, &x, &weight, &bias, 2));
}

/* Of the nine taps four are needed: the others fall on the same pixels. */
static void up(const struct shape *s)
{
    int64_t h = H / s->scale, w = W / s->scale, n = s->T * h * w;
    struct tensor x = random(4, s->T, h, w, s->in), y = random(4, s->T, 2 * h, 2 * w, s->out),
                  weight = random(4, s->out, 3, 3, s->in), bias = random(1, s->out);
    char name[80];
    snprintf(name, sizeof name, "upsample_conv2d %lldx%lldx%lld %lld to %lld", (long long)s->T, (long long)h,
             (long long)w, (long long)s->in, (long long)s->out);
    TIME(name, n * s->in + 4 * n * s->out, 2.0 * 16 * (double)(n * s->in * s->out),
         upsample_conv2d_forward(k, &y, &x, &weight, &bias));
}

/* Three passes over memory are the least: the statistics read, then a read and a write. */
static void norms(const struct shape *s)
{
    int64_t h = H / s->scale, w = W / s->scale, n = s->T * h * w * s->in;
    struct tensor x = random(4, s->T, h, w, s->in), y = random(4, s->T, h, w, s->in),
                  weight = random(1, s->in), bias = random(1, s->in), mul = random(4, 2, H / 8, W / 8, s->in),
                  add = random(4, 2, H / 8, W / 8, s->in);
    char name[80];
    snprintf(name, sizeof name, "group_norm_silu %lldx%lldx%lldx%lld", (long long)s->T, (long long)h,
             (long long)w, (long long)s->in);
    TIME(name, 3 * n, 0, group_norm_silu_forward(k, &y, &x, &weight, &bias, 32, 1e-6f));
    memcpy(name, "spatial_norm_silu ", 18);
    snprintf(name + 18, sizeof name - 18, "%lldx%lldx%lldx%lld", (long long)s->T, (long long)h, (long long)w,
             (long long)s->in);
    TIME(name, 3 * n, 0, spatial_norm_silu_forward(k, &y, &x, &weight, &bias, &mul, &add, 32, 1e-6f));
}

static void shortcut(const struct shape *s)
{
    int64_t n = s->T * (H / s->scale) * (W / s->scale);
    struct tensor x = random(2, n, s->in), y = random(2, n, s->out), w = random(2, s->out, s->in),
                  b = random(1, s->out);
    char name[80];
    snprintf(name, sizeof name, "shortcut %lld pixels, %lld to %lld", (long long)n, (long long)s->in,
             (long long)s->out);
    TIME(name, n * (s->in + s->out), 2.0 * (double)(n * s->in * s->out), linear_forward(k, &y, &x, &w, &b));
}

static void halve(const struct shape *s)
{
    int64_t h = H / s->scale, w = W / s->scale, n = s->T * h * w * s->in;
    struct tensor x = random(4, s->T, h, w, s->in), y = random(4, s->T / 2, h, w, s->in);
    TIME("halve_time", n + n / 2, 0, halve_time_forward(k, &y, &x));
}

static void run(void (*what)(const struct shape *), const char *name, const struct shape *s)
{
    if (only && strncmp(name, only, strlen(only))) return;
    kern_plan_begin(k);
    what(s);
    kern_reserve(k, kern_plan_end(k));
    size_t mark = kern_mark(k);
    what(s);
    kern_release(k, mark);
    if (!kern_ok(k)) stop(name, kern_error(k));
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        {"causal", 8, 1, 3, 128},   {"causal", 8, 1, 128, 128},   {"causal", 8, 1, 256, 128},
        {"causal", 8, 1, 128, 3},   {"causal", 4, 2, 128, 256},   {"causal", 4, 2, 256, 256},
        {"causal", 8, 2, 256, 256}, {"causal", 2, 4, 256, 256},   {"causal", 4, 4, 512, 256},
        {"causal", 4, 4, 256, 256}, {"causal", 2, 8, 256, 512},   {"causal", 2, 8, 512, 512},
        {"causal", 2, 8, 512, 32},  {"causal", 2, 8, 16, 512},    {"norms", 8, 1, 128, 0},
        {"norms", 8, 1, 256, 0},    {"norms", 8, 2, 256, 0},      {"norms", 4, 4, 256, 0},
        {"norms", 2, 8, 512, 0},    {"up", 8, 2, 256, 256},       {"up", 4, 4, 256, 256},
        {"up", 2, 8, 512, 512},     {"down", 4, 1, 128, 128},     {"down", 2, 2, 256, 256},
        {"down", 2, 4, 256, 256},   {"shortcut", 8, 1, 256, 128}, {"shortcut", 4, 2, 128, 256},
        {"halve", 8, 1, 128, 0}};
    static const struct {
        const char *name;
        void (*run)(const struct shape *);
    } kinds[] = {{"causal", causal}, {"norms", norms},       {"up", up},
                 {"down", down},     {"shortcut", shortcut}, {"halve", halve}};
    char err[256];
    uint32_t seed = 1;
    only = argc > 1 ? argv[1] : NULL;
    values = malloc(VALUES * sizeof *values);
    if (!values || !(k = kern_open("cuda", 0, err, sizeof err))) stop("cuda", values ? err : "out of memory");
    for (int i = 0; i < VALUES; i++)
        values[i] = bf16_from_f32((float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-31f);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++)
            if (!strcmp(shapes[i].what, kinds[j].name)) run(kinds[j].run, kinds[j].name, &shapes[i]);
    kern_close(k);
    free(values);
    return 0;
}
