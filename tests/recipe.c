/* The training recipe against closed formulas: learning rate, clipping, accumulation, and what is drawn for a
 * record. */
#include <string.h>

#include "filters/learning/trainer.h"
#include "tests/tap.h"

static struct kern *k;
static struct trainer t = {.adamw = {1e-4, 0.9, 0.999, 1e-8, 0.01},
                           .warmup = 200,
                           .max_steps = 5000,
                           .clip = 1,
                           .accumulate = 1,
                           .seed = 42};
static struct record record = RECORD_INIT;
static char err[1024];

static void must(bool good)
{
    if (!good) printf("Bail out! %s\n", err), exit(1);
}

static void fill(struct tensor *to, int seed)
{
    for (int64_t i = 0; i < tensor_count(to); i++) ((float *)to->data)[i] = sinf((float)(i * i % 977 + seed));
}

static struct record *make_record(const char *key, int seed)
{
    record_new(&record, key);
    fill(record_add(&record, "latents", DT_F32, 4, 2, 16, 4, 4), seed);
    fill(record_add(&record, "prompt_embeds", DT_F32, 2, t.denoiser->geometry.text_length,
                    t.denoiser->geometry.text_width),
         seed + 1);
    return &record;
}

static float *get(const struct tensor *from)
{
    struct tensor host = tensor_of(DT_F32, malloc(tensor_bytes(from)), 1, tensor_count(from));
    kern_download(k, &host, from);
    return host.data;
}

/* Twice the half-angle instead of the cosine: lr (k/200), then lr cos²(π/2 (k-200)/4800). */
static void learning_rate(void)
{
    double worst = 0, pi = acos(-1);
    for (int i = 0; i <= 5000; i++) {
        double half = cos(pi / 2 * (i - 200) / 4800), want = i < 200 ? 1e-4 * i / 200 : 1e-4 * half * half;
        worst = fmax(worst, fabs(trainer_rate(&t, i) - want));
    }
    ok(worst < 1e-18, "the learning rate of all 5000 steps (off by %.1g)", worst);
    ok(trainer_rate(&t, 0) == 0 && trainer_rate(&t, 100) == 5e-5 && trainer_rate(&t, 200) == 1e-4,
       "0, half and peak while warming up");
    ok(fabs(trainer_rate(&t, 2600) - 5e-5) < 1e-18 && trainer_rate(&t, 5000) == 0,
       "half the peak in the middle, 0 at the end");
}

/* One record of the step. */
static void compute(const char *key, int seed, int64_t position)
{
    must(trainer_take(&t, make_record(key, seed), position, err, sizeof err));
    trainer_begin(&t);
    must(trainer_finish(&t, err, sizeof err));
}

/* After the first step m is (1 - β₁) times the clipped gradient. */
static void clipping(void)
{
    for (int i = 0; i < 3; i++) {
        compute("clip", 1, 0);
        double norm = t.norm, limits[] = {norm / 2, norm * 2, 0};
        double shrink = i ? 1 : limits[0] / (norm + 1e-6), worst = 0;
        float *g = get(&t.adapter->grads);
        kern_zero(k, &t.m);
        t.clip = limits[i];
        trainer_update(&t, 0, norm);
        float *m = get(&t.m);
        for (int64_t j = 0; j < t.adapter->size; j++) worst = fmax(worst, fabs(m[j] - 0.1 * shrink * g[j]));
        ok(norm > 0 && worst <= 1e-8 * norm,
           "gradients of norm %.3g, clip %.3g: scaled by %.3g (off by %.1g)", norm, t.clip, shrink, worst);
        free(g), free(m);
    }
    t.clip = 1;
}

/* The gradient of a step of three records is the mean of theirs, and so is its loss. */
static void accumulation(void)
{
    int64_t n = t.adapter->size;
    float *mean = calloc((size_t)n, sizeof *mean);
    double loss = 0;
    for (int i = 0; i < 3; i++) {
        compute("part", i, i);
        float *g = get(&t.adapter->grads);
        for (int64_t j = 0; j < n; j++) mean[j] += g[j] / 3;
        loss += t.loss / 3;
        t.pending = 0;
        free(g);
    }
    t.accumulate = 3;
    for (int i = 0; i < 3; i++) compute("part", i, i);
    float *got = get(&t.adapter->grads);
    double rel = relative_l2(got, mean, (size_t)n);
    ok(t.pending == 3 && rel < 1e-6,
       "three records in one step: the mean of their gradients (relative L2 %.1g)", rel);
    ok(fabs(t.loss - loss) < 1e-12 * loss, "and of their losses");
    trainer_update(&t, 0, t.norm);
    ok(t.pending == 0, "the next step begins anew");
    t.accumulate = 1;
    free(got), free(mean);
}

static double level(const char *key, int64_t position)
{
    struct example e;
    must(trainer_example(&t, &e, make_record(key, 0), position, err, sizeof err));
    trainer_example_free(&e);
    return e.s;
}

/* Of n draws the mean is off by less than 4/√n standard deviations, but for one case in 10,000; these draws
 * are fixed. */
static void levels(void)
{
    enum { N = 4000 };
    double sum = 0, squares = 0, uniform = 0;
    for (int i = 0; i < N; i++) {
        t.logit_normal = false;
        uniform += level("clip", i) / N;
        t.logit_normal = true;
        double s = level("clip", i), z = log(s / (1 - s));
        sum += z / N, squares += z * z / N;
    }
    ok(fabs(uniform - 0.5) < 4 * sqrt(1 / 12. / N), "uniform levels: mean %.4f", uniform);
    ok(fabs(sum) < 4 / sqrt(N) && fabs(squares - 1) < 4 * sqrt(2. / N),
       "logit-normal: logits of mean %.4f and mean square %.4f", sum, squares);
    double first = level("clip", 7);
    ok(first == level("clip", 7) && first != level("clip", 8) && first != level("other", 7),
       "they depend on key and position alone");
    t.logit_normal = false;
}

static void caption_dropout(void)
{
    enum { N = 4000 };
    float nothing;
    int dropped = 0, same = 0;
    t.empty.data = &nothing;
    t.caption_dropout = 0.1;
    for (int i = 0; i < N; i++) {
        struct example e;
        must(trainer_example(&t, &e, make_record("clip", 0), i, err, sizeof err));
        dropped += e.text.data == &nothing;
        trainer_example_free(&e);
    }
    ok(fabs(dropped / (double)N - 0.1) < 4 * sqrt(0.1 * 0.9 / N), "a caption dropout of 0.1 drops %d of %d",
       dropped, N);
    for (int p = 0; p <= 1; p++) {
        t.caption_dropout = p;
        for (int i = 0; i < 100; i++) {
            struct example e;
            must(trainer_example(&t, &e, make_record("clip", 0), i, err, sizeof err));
            same += (e.text.data == &nothing) == p;
            trainer_example_free(&e);
        }
    }
    ok(same == 200, "0 drops none, 1 all");
    t.caption_dropout = 0;
    t.empty.data = NULL;
}

int main(void)
{
    struct trainer_start start = {.objective = "flow-snr", .adapter = "standard:rank=4"};
    struct tensor latents = tensor_of(DT_F32, NULL, 4, 2, 16, 4, 4);
    k = kern_open("cpu", 0, err, sizeof err);
    must(k && trainer_open(&t, k, "random:tiny", false, err, sizeof err) &&
         trainer_start(&t, &start, &latents, err, sizeof err));
    learning_rate();
    clipping();
    accumulation();
    levels();
    caption_dropout();
    trainer_close(&t);
    record_free(&record);
    kern_close(k);
    return done();
}
