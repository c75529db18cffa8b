/* Each operation at full size on one GPU, in BF16, beside the least time that its arithmetic or its bytes
 * allow.
 *
 *   ops [NAME]          those whose name begins so
 *
 * One JSON line a figure on stdout: {"name": .., "ms": .., "floor": .., ..}. The floor takes 780 TFLOP/s and
 * the rate of a large copy, measured first. Times are medians of calls in a row; what is small is given other
 * memory each time, so that it comes from memory and not from a cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/gpu/timing.h"

enum { ROWS = 17776, TEXT = 226, WIDE = 3072, HEAD = 64, HIDDEN = 4 * WIDE, RUNS = 5, COPIES = 8 };
enum { VALUES = 1 << 23 }; /* random numbers on the host, of which all tensors are made */
static const double FLOPS = 780e12;

static struct kern *k;
static double bandwidth; /* bytes a second, read and written */
static const char *only;
static uint16_t *halves;
static float *floats;

#define random(dtype, ...) random_shape(dtype, (const int64_t[]){__VA_ARGS__})
static struct tensor random_shape(enum dtype d, const int64_t *shape)
{
    struct tensor t = kern_alloc_shape(k, d, shape);
    int64_t n = tensor_count(&t);
    struct tensor all = tensor_as(&t, 1, n);
    for (int64_t i = 0; i < n; i += VALUES) {
        int64_t count = n - i < VALUES ? n - i : VALUES;
        struct tensor part = tensor_rows(&all, i, count),
                      host = tensor_of(d, d == DT_BF16 ? (void *)halves : (void *)floats, 1, count);
        kern_upload(k, &part, &host);
    }
    return t;
}

static void report(const char *name, double seconds, double bytes, double flop)
{
    double by_bytes = bytes / bandwidth, by_flop = flop / FLOPS,
           least = by_bytes > by_flop ? by_bytes : by_flop;
    if (!kern_ok(k)) stop(name, kern_error(k));
    printf("{\"name\": \"%s\", \"ms\": %.4f, \"floor\": %.4f, \"share\": %.2f, \"tbs\": %.2f", name,
           1e3 * seconds, 1e3 * least, least / seconds, bytes / seconds / 1e12);
    if (flop > 0) printf(", \"tflops\": %.0f", flop / seconds / 1e12);
    printf("}\n");
    fflush(stdout);
}

/* `call` may use i, which counts calls. */
#define TIME(name, bytes, flop, call)                                                                        \
    do {                                                                                                     \
        double bytes_ = (double)(bytes), flop_ = (double)(flop), each_[RUNS];                                \
        int calls_ = (int)(5e-3 / (bytes_ / 4e12 + flop_ / FLOPS + 3e-6)) + 4;                               \
        if (only && strncmp(name, only, strlen(only))) break;                                                \
        for (int run_ = -1; run_ < RUNS; run_++) {                                                           \
            double from_ = clock_seconds();                                                                  \
            for (int i = 0; i < calls_; i++) call;                                                           \
            kern_wait(k);                                                                                    \
            if (run_ >= 0) each_[run_] = (clock_seconds() - from_) / calls_;                                 \
        }                                                                                                    \
        double median_ = sort_times(each_, RUNS);                                                            \
        if (bandwidth == 0) bandwidth = bytes_ / median_;                                                    \
        report(name, median_, bytes_, flop_);                                                                \
    } while (0)

static double bytes_of(int64_t values)
{
    return 2.0 * (double)values;
}

/* ---- the transformer's rows ---- */

static void products(struct tensor *x, struct tensor *y, struct tensor *h, struct tensor *pre)
{
    struct tensor w = random(DT_BF16, 2, WIDE, WIDE), in = random(DT_BF16, 2, HIDDEN, WIDE),
                  out = random(DT_BF16, 2, WIDE, HIDDEN), b = random(DT_BF16, 1, HIDDEN);
    struct tensor bw = tensor_rows(&b, 0, WIDE);
    double square = bytes_of(2LL * ROWS * WIDE + WIDE * WIDE),
           tall = bytes_of((int64_t)ROWS * (WIDE + HIDDEN) + (int64_t)WIDE * HIDDEN);
    double flop = 2.0 * ROWS * WIDE * WIDE;
    TIME("linear 3072 to 3072", square, flop, linear_forward(k, y, x, &w, &bw));
    TIME("linear 12288 to 3072", tall, 4 * flop, linear_forward(k, y, h, &out, &bw));
    TIME("linear 3072 to 12288", tall, 4 * flop, linear_forward(k, h, x, &in, &b));
    TIME("linear_gelu", tall, 4 * flop, linear_gelu_forward(k, h, NULL, x, &in, &b));
    TIME("linear_gelu, pre kept", tall + bytes_of((int64_t)ROWS * HIDDEN), 4 * flop,
         linear_gelu_forward(k, h, pre, x, &in, &b));
    TIME("linear_backward 3072", square, flop, linear_backward(k, y, x, &w, false));
    TIME("linear_backward 3072 adds", square + bytes_of((int64_t)ROWS * WIDE), flop,
         linear_backward(k, y, x, &w, true));
    TIME("linear_backward to 3072", tall, 4 * flop, linear_backward(k, y, h, &in, false));
    TIME("linear_gelu_backward", tall + bytes_of((int64_t)ROWS * HIDDEN), 4 * flop,
         linear_gelu_backward(k, h, x, &out, pre));
}

static void adapter(struct tensor *x, struct tensor *y, int64_t r)
{
    struct tensor a = random(DT_BF16, 2, r, (int64_t)WIDE), b = random(DT_BF16, 2, (int64_t)WIDE, r),
                  z = random(DT_BF16, 2, (int64_t)ROWS, r), ga = random(DT_F32, 2, r, (int64_t)WIDE),
                  gb = random(DT_F32, 2, (int64_t)WIDE, r);
    double once = bytes_of(ROWS * (WIDE + r) + WIDE * r), flop = 2.0 * ROWS * WIDE * (double)r;
    char name[6][48];
    static const char *const what[6] = {"z = x A'",  "y += s z B'", "dB += dy' z",
                                        "dz = dy B", "dA += dz' x", "dx += dz A"};
    for (int i = 0; i < 6; i++) snprintf(name[i], sizeof name[i], "adapter %d: %s", (int)r, what[i]);
    TIME(name[0], once, flop, matmul(k, &z, x, false, &a, true, 1, 0));
    TIME(name[1], once + bytes_of(ROWS * WIDE), flop, matmul(k, y, &z, false, &b, true, 1e-3, 1));
    TIME(name[2], once, flop, matmul(k, &gb, y, true, &z, false, 1e-3, 1));
    TIME(name[3], once, flop, matmul(k, &z, y, false, &b, false, 1, 0));
    TIME(name[4], once, flop, matmul(k, &ga, &z, true, x, false, 1e-3, 1));
    TIME(name[5], once + bytes_of(ROWS * WIDE), flop, matmul(k, y, &z, false, &a, false, 1e-3, 1));
}

static void rows_of_3072(struct tensor *x, struct tensor *y, struct tensor *dy)
{
    struct tensor w = random(DT_BF16, 1, WIDE), b = random(DT_BF16, 1, WIDE),
                  scale = random(DT_BF16, 1, WIDE), shift = random(DT_BF16, 1, WIDE),
                  wh = random(DT_BF16, 1, HEAD), bh = random(DT_BF16, 1, HEAD);
    struct tensor cos = random(DT_F32, 2, ROWS - TEXT, HEAD), sin = random(DT_F32, 2, ROWS - TEXT, HEAD);
    double one = bytes_of((int64_t)ROWS * WIDE), tables = 8.0 * (ROWS - TEXT) * HEAD;
    TIME("layer_norm", 2 * one, 0, layer_norm_forward(k, y, x, &w, &b, &scale, &shift, 1e-5f));
    TIME("layer_norm_backward", 3 * one, 0, layer_norm_backward(k, y, dy, x, &w, &scale, 1e-5f, false));
    TIME("layer_norm_backward adds", 4 * one, 0, layer_norm_backward(k, y, dy, x, &w, &scale, 1e-5f, true));
    TIME("rms_norm", 2 * one, 0, rms_norm_forward(k, y, x, &w, 1e-5f));
    TIME("qk_norm_rope", 2 * one + tables, 0,
         qk_norm_rope_forward(k, y, x, &wh, &bh, &cos, &sin, TEXT, 1e-6f, 1));
    TIME("qk_norm_rope_backward", 3 * one + tables, 0,
         qk_norm_rope_backward(k, y, dy, x, &wh, &cos, &sin, TEXT, 1e-6f, 1));
    TIME("gated_add", 3 * one, 0, gated_add_forward(k, y, y, x, &w));
    TIME("gated_add_backward", 2 * one, 0, gated_add_backward(k, y, x, &w));
    TIME("add", 3 * one, 0, add(k, y, x));
    TIME("silu", 2 * one, 0, silu_forward(k, y, x));
    TIME("gelu_mul", 3 * one, 0, gelu_mul_forward(k, y, x, dy));
    TIME("silu_mul", 3 * one, 0, silu_mul_forward(k, y, x, dy));
}

/* ---- few rows: text, a language model's step, modulations ---- */

static void small(const char *name, int64_t rows, int64_t in, int64_t out)
{
    struct tensor w[COPIES], x = random(DT_BF16, 2, rows, in), y = random(DT_BF16, 2, rows, out),
                             b = random(DT_BF16, 1, out);
    for (int i = 0; i < COPIES; i++) w[i] = random(DT_BF16, 2, out, in);
    TIME(name, bytes_of(rows * (in + out) + in * out), 2.0 * (double)(rows * in * out),
         linear_forward(k, &y, &x, &w[i % COPIES], &b));
}

/* The next ids of several answers. */
static void side_by_side(const char *name, int64_t rows, int64_t in, int64_t out)
{
    struct tensor w[COPIES], x = random(DT_BF16, 2, rows, in), y = random(DT_BF16, 2, rows, out);
    for (int i = 0; i < COPIES; i++) w[i] = random(DT_BF16, 2, out, in);
    TIME(name, bytes_of(rows * (in + 2 * out) + in * out), 2.0 * (double)(rows * in * out),
         linear_add_forward(k, &y, &x, &w[i % COPIES]));
}

static void few_rows(void)
{
    small("text, 4096 to 3072", TEXT, 4096, WIDE);
    small("T5, 4096 to 4096", TEXT, 4096, 4096);
    small("T5, 4096 to 10240", TEXT, 4096, 10240);
    small("T5, 10240 to 4096", TEXT, 10240, 4096);
    small("600 rows, 4096 to 4096", 600, 4096, 4096);
    small("600 rows, 4096 to 11008", 600, 4096, 11008);
    small("one row, 512 to 18432", 1, 512, 18432);
    small("one row, 4096 to 4096", 1, 4096, 4096);
    small("one row, 4096 to 11008", 1, 4096, 11008);
    small("one row, 11008 to 4096", 1, 11008, 4096);
    small("one row, 4096 to 32000", 1, 4096, 32000);
    small("3 rows, 4096 to 4096", 3, 4096, 4096);
    for (int rows = 1; rows <= FEW_ROWS + 1; rows++) {
        char name[2][48];
        snprintf(name[0], sizeof name[0], "%d rows added, 4096 to 4096", rows);
        snprintf(name[1], sizeof name[1], "%d rows added, 11008 to 4096", rows);
        side_by_side(name[0], rows, 4096, 4096);
        side_by_side(name[1], rows, 11008, 4096);
    }
}

/* ---- between latents and tokens, and training ---- */

static void the_rest(void)
{
    int64_t n = 168 * 2 * 16 * (int64_t)WIDE; /* plain LoRA of rank 16 */
    struct tensor latents = random(DT_F32, 4, 13, 16, 60, 90), other = random(DT_F32, 4, 13, 16, 60, 90),
                  tokens = random(DT_BF16, 2, 13 * 30 * 45, 64);
    struct tensor p = random(DT_F32, 1, n), m = random(DT_F32, 1, n), v = random(DT_F32, 1, n),
                  g = random(DT_F32, 1, n);
    const struct adamw o = {1e-3, 0.9, 0.95, 1e-8, 1e-4};
    double count = (double)tensor_count(&latents), sum;
    kern_zero(k, &v);
    TIME("patchify", 6 * count, 0, patchify(k, &tokens, &latents, 2));
    TIME("unpatchify", 6 * count, 0, unpatchify(k, &latents, &tokens, 2));
    TIME("axpby of latents", 12 * count, 0, axpby(k, &other, 0.5, &latents, 0.5));
    TIME("mse", 12 * count, 0, mse_forward_backward(k, &sum, &other, &latents, &other, 1));
    TIME("sum_squares", 4.0 * (double)n, 0, sum_squares(k, &sum, &g));
    TIME("adamw", 28.0 * (double)n, 0, adamw_step(k, &p, &m, &v, &g, 1, 1 + i, &o));
}

int main(int argc, char **argv)
{
    char err[256];
    only = argc > 1 ? argv[1] : NULL;
    if (!(k = kern_open("cuda", 0, err, sizeof err))) stop("cuda", err);
    halves = malloc(VALUES * sizeof *halves);
    floats = malloc(VALUES * sizeof *floats);
    if (!halves || !floats) stop("host", "out of memory");
    uint32_t state = 1;
    for (int i = 0; i < VALUES; i++) {
        state = state * 1664525 + 1013904223;
        halves[i] = bf16_from_f32(floats[i] = (float)(int32_t)state * 0x1p-31f);
    }
    struct tensor x = random(DT_BF16, 2, ROWS, WIDE), y = random(DT_BF16, 2, ROWS, WIDE),
                  dy = random(DT_BF16, 2, ROWS, WIDE);
    struct tensor h = random(DT_BF16, 2, ROWS, HIDDEN), pre = random(DT_BF16, 2, ROWS, HIDDEN);
    const char *all = only;
    only = NULL; /* everything is measured by the copy */
    TIME("copy", 2 * bytes_of((int64_t)ROWS * HIDDEN), 0, kern_copy(k, &pre, &h));
    only = all;
    products(&x, &y, &h, &pre);
    adapter(&x, &y, 16);
    adapter(&x, &y, 64);
    rows_of_3072(&x, &y, &dy);
    few_rows();
    the_rest();
    kern_close(k);
    free(halves);
    free(floats);
    return 0;
}
