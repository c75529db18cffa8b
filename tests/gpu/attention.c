/* attention - the attention of every network here on the GPU: how fast, and how far from its definition.
 *
 * One JSON line a figure on stdout: {"name": .., "ms": .., "tflops": .., "error": ..}; exit 1 when an error
 * is too large, or when a backward pass gives other bits the second time. 4 queries keys heads d operations
 * forward, 2.5 times as many backward. Errors are ‖x - ref‖ / ‖ref‖ over a few rows of three heads, the
 * largest of the results', against sums in double of the same rounded inputs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/gpu/timing.h"

enum { RUNS = 9, SAMPLED = 24, HEADS = 3 };

struct network {
    const char *name;
    int64_t queries, keys, batch;
    int heads, d;
    bool causal, bias, backward, normed; /* queries that come out of a norm have been multiplied there */
};

static const struct network networks[] = {
    {"dit_49x480x720", 17776, 17776, 1, 48, 64, false, false, true, true},
    {"dit_9x480x720", 4276, 4276, 1, 48, 64, false, false, true, true},
    {"heads_of_128", 8192, 8192, 1, 48, 128, false, false, true, true},
    {"wan_81x480x832", 32760, 32760, 1, 12, 128, false, false, true, true},
    {"wan_text", 32760, 512, 1, 12, 128, false, false, false, true},
    {"t5_226", 226, 226, 1, 64, 64, false, true, false, false},
    {"umt5_101", 101, 101, 1, 64, 64, false, true, false, false},
    {"vit_32", 257, 257, 32, 16, 64, false, false, false, false},
    {"abstractor_32", 128, 8352, 1, 16, 64, false, false, false, false},
    {"llama_200", 200, 200, 1, 32, 128, true, false, false, false},
    {"llama_next", 1, 260, 1, 32, 128, true, false, false, false},
};

/* As text encoders have them: in a table for the longest text. */
static int64_t distances(const struct network *n)
{
    return 2 * (n->keys > 512 ? n->keys : 512) - 1;
}

static double random_unit(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (double)((state * 2685821657736338717u) >> 11) * 0x1p-52 - 1;
}

/* A tensor on the device and, rounded to what the device has, on the host. */
struct pair {
    struct tensor device, host;
    float *values;
};

static struct pair pair(struct kern *k, enum dtype d, int64_t rows, int64_t width, double size)
{
    struct pair p = {.device = kern_alloc(k, d, 2, rows, width),
                     .values = malloc((size_t)(rows * width) * sizeof(float))};
    p.host = tensor_of(DT_F32, p.values, 2, rows, width);
    if (!p.values || !kern_ok(k)) return p;
    for (int64_t i = 0; i < rows * width; i++) p.values[i] = (float)(size * random_unit());
    kern_upload(k, &p.device, &p.host);
    kern_download(k, &p.host, &p.device);
    return p;
}

static void wait(struct kern *k, const struct pair *p)
{
    float first;
    struct tensor one = tensor_of(DT_F32, &first, 2, 1, 1), from = p->device;
    from.shape[0] = from.shape[1] = 1;
    kern_download(k, &one, &from);
}

/* The median of RUNS runs of `call`, after which `result` is there. */
#define TIME(k, result, call)                                                                                \
    ({                                                                                                       \
        double taken_[RUNS];                                                                                 \
        call;                                                                                                \
        for (int i_ = 0; i_ < RUNS; i_++) {                                                                  \
            wait(k, &(result));                                                                              \
            taken_[i_] = clock_seconds();                                                                    \
            call;                                                                                            \
            wait(k, &(result));                                                                              \
            taken_[i_] = clock_seconds() - taken_[i_];                                                       \
        }                                                                                                    \
        sort_times(taken_, RUNS);                                                                            \
    })

struct inputs {
    const float *q, *k, *v, *dout, *o, *lse, *bias;
};

static double dot(const float *a, const float *b, int d)
{
    double sum = 0;
    for (int c = 0; c < d; c++) sum += (double)a[c] * b[c];
    return sum;
}

/* Row `row` of head h: o, its log-sum, and with want[1] set dq, dk and dv */
static void reference(const struct network *n, const struct inputs *x, float scale, int64_t row, int h,
                      double *want[4], double *lse)
{
    const int64_t width = (int64_t)n->heads * n->d, b = row / n->queries, i = row % n->queries;
    const int64_t seen = n->causal ? i + 1 + n->keys - n->queries : n->keys;
    const int64_t at = row * width + h * n->d, keys = b * n->keys * width + h * n->d;
    double *p = malloc((size_t)seen * sizeof *p), max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < seen; j++) {
        p[j] = scale * dot(x->q + at, x->k + keys + j * width, n->d);
        if (x->bias) p[j] += x->bias[h * distances(n) + distances(n) / 2 + j - i];
        max = fmax(max, p[j]);
    }
    for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
    *lse = max + log(sum);
    for (int64_t j = 0; j < seen; j++)
        for (int c = 0; c < n->d; c++) want[0][c] += p[j] / sum * x->v[keys + j * width + c];
    if (want[1]) {
        const double delta = dot(x->dout + at, x->o + at, n->d);
        for (int64_t j = 0; j < seen; j++) { /* as a query past the keys, and as a key past the queries */
            const int64_t to = j * width + h * n->d;
            const double ds = p[j] / sum * (dot(x->dout + at, x->v + to, n->d) - delta);
            const double pj = exp(scale * dot(x->q + to, x->k + at, n->d) - x->lse[h * n->queries + j]);
            const double dsj = pj * (dot(x->dout + to, x->v + at, n->d) - dot(x->dout + to, x->o + to, n->d));
            for (int c = 0; c < n->d; c++) {
                want[1][c] += scale * ds * x->k[to + c];
                want[2][c] += scale * dsj * x->q[to + c];
                want[3][c] += pj * x->dout[to + c];
            }
        }
    }
    free(p);
}

static bool measure(struct kern *k, const struct network *n)
{
    const int64_t width = (int64_t)n->heads * n->d, rows = n->batch * n->queries;
    const enum dtype x = kern_compute(k);
    const float times = n->normed ? attention_times(n->d) : 1,
                scale = n->normed ? LOG_2 : (float)(1 / sqrt(n->d));
    const struct attention a = {n->heads, scale, n->batch, n->causal};
    struct pair q = pair(k, x, rows, width, 1.7 * times), kk = pair(k, x, n->batch * n->keys, width, 1.7),
                v = pair(k, x, n->batch * n->keys, width, 1), o = pair(k, x, rows, width, 0),
                lse = pair(k, DT_F32, n->heads, rows, 0), bias, dout, grad[3];
    memset(&bias, 0, sizeof bias);
    memset(&dout, 0, sizeof dout);
    memset(grad, 0, sizeof grad);
    if (n->bias) {
        bias = pair(k, DT_F32, n->heads, distances(n), 3);
    }
    if (n->backward) {
        dout = pair(k, x, rows, width, 1);
        for (int i = 0; i < 3; i++) grad[i] = pair(k, x, rows, width, 0);
    }
#define FORWARD()                                                                                            \
    attention_forward(k, &o.device, &lse.device, &q.device, &kk.device, &v.device,                           \
                      n->bias ? &bias.device : NULL, &a)
#define BACKWARD()                                                                                           \
    attention_backward(k, &grad[0].device, &grad[1].device, &grad[2].device, &dout.device, &o.device,        \
                       &lse.device, &q.device, &kk.device, &v.device, &a)
    kern_plan_begin(k);
    FORWARD();
    if (n->backward) BACKWARD();
    kern_reserve(k, kern_plan_end(k));

    const double work = 4.0 * (double)(rows * n->keys * width) * 1e-12, taken = TIME(k, o, FORWARD());
    double back = 0;
    bool repeats = true;
    if (n->backward) {
        back = TIME(k, grad[2], BACKWARD());
        for (int i = 0; i < 3; i++) {
            const size_t bytes = (size_t)(rows * width) * sizeof(float);
            float *before = malloc(bytes);
            kern_download(k, &grad[i].host, &grad[i].device);
            memcpy(before, grad[i].values, bytes);
            BACKWARD();
            kern_download(k, &grad[i].host, &grad[i].device);
            repeats = repeats && !memcmp(before, grad[i].values, bytes);
            free(before);
        }
    }
    kern_download(k, &o.host, &o.device);
    kern_download(k, &lse.host, &lse.device);

    const struct inputs in = {q.values, kk.values, v.values, dout.values, o.values, lse.values, bias.values};
    const struct pair *results[] = {&o, &grad[0], &grad[1], &grad[2]};
    double error[5] = {0}, size[5] = {0};
#pragma omp parallel for collapse(2)
    for (int s = 0; s < SAMPLED; s++)
        for (int i = 0; i < HEADS; i++) {
            const int64_t row = s < SAMPLED / 2 ? s * 7919 % rows : rows - 1 - (s - SAMPLED / 2) * 13 % rows;
            const int h = i * (n->heads - 1) / (HEADS - 1);
            double sums[4][256] = {{0}}, sum,
                   *want[] = {sums[0], n->backward ? sums[1] : NULL, sums[2], sums[3]};
            reference(n, &in, scale, row, h, want, &sum);
#pragma omp critical
            {
                for (int r = 0; r < (n->backward ? 4 : 1); r++)
                    for (int c = 0; c < n->d; c++) {
                        const double e = results[r]->values[row * width + h * n->d + c] - want[r][c];
                        error[r] += e * e;
                        size[r] += want[r][c] * want[r][c];
                    }
                error[4] += pow(lse.values[h * rows + row] - sum, 2);
                size[4] += sum * sum;
            }
        }
    for (int r = 0; r < 5; r++) error[r] = size[r] > 0 ? sqrt(error[r] / size[r]) : 0;
    const double rounding = x == DT_F32 ? 1e-5 : 1e-2, of_back = fmax(error[1], fmax(error[2], error[3]));
    printf("{\"name\": \"attention_%s\", \"ms\": %.4f, \"tflops\": %.1f, \"error\": %.2g, \"lse\": %.2g}\n",
           n->name, taken * 1e3, work / taken, error[0], error[4]);
    if (n->backward)
        printf(
            "{\"name\": \"attention_%s_back\", \"ms\": %.4f, \"tflops\": %.1f, \"error\": %.2g, \"repeats\": %s}\n",
            n->name, back * 1e3, 2.5 * work / back, of_back, repeats ? "true" : "false");
    fflush(stdout);
    /* a log-sum may be that of rounded weights */
    bool good = kern_ok(k) && repeats && error[4] < (x == DT_F32 ? 1e-5 : 0x1p-9);
    for (int r = 0; r < 4; r++) good = good && error[r] < rounding;
    if (!good) fprintf(stderr, "attention: %s: %s\n", n->name, kern_ok(k) ? "wrong" : kern_error(k));
#undef FORWARD
#undef BACKWARD
    const struct pair *all[] = {&q, &kk, &v, &o, &lse, &bias, &dout, &grad[0], &grad[1], &grad[2]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->values);
    return good;
}

int main(void)
{
    bool good = true;
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++) {
        char err[256];
        struct kern *k = kern_open("cuda", 0, err, sizeof err);
        if (!k) {
            fprintf(stderr, "attention: %s\n", err);
            return 1;
        }
        good = measure(k, &networks[i]) && good;
        kern_close(k);
    }
    return !good;
}
