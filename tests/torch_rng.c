/* PyTorch's generators against values that torch.randn gave (tests/data/torch_rng.json: torch 2.11, seed 42,
 * one H200).
 *
 * Tolerances: BF16 must be equal. The others may differ by two ulps on the CPU, as log, sin and cos come from
 * another libm (F32: from vector code). F32 on CUDA may differ by 2e-6: __sincosf is good to 2^-21 for angles
 * up to π, and grows worse with the angle. */
#include "filters/learning/torch_rng.h"

#include <jansson.h>
#include <string.h>

#include "tests/tap.h"

static const double SINCOSF = 2e-6;

static struct tensor draw(struct torch_rng *r, enum dtype d, int64_t n)
{
    struct tensor t = tensor_of(d, calloc((size_t)n + 1, dtype_size(d)), 1, n);
    if (!torch_rng_randn(r, &t)) ok(false, "draws %s", dtype_name(d));
    return t;
}

/* The largest error of t[at...] against the values, relative for those above 1. */
static double distance(const struct tensor *t, int64_t at, json_t *values)
{
    double worst = 0;
    size_t i;
    json_t *value;
    json_array_foreach (values, i, value) {
        double expected = json_number_value(value), got = tensor_get(t, at + (int64_t)i);
        worst = fmax(worst, fabs(got - expected) / fmax(1, fabs(expected)));
    }
    return worst;
}

static double sum(const struct tensor *t)
{
    double total = 0;
    for (int64_t i = 0; i < tensor_count(t); i++) total += tensor_get(t, i);
    return total;
}

static bool same(const struct tensor *a, int64_t from, const struct tensor *b)
{
    for (int64_t i = 0; i < tensor_count(b); i++)
        if (tensor_get(a, from + i) != tensor_get(b, i)) return false;
    return true;
}

/* Names in the file: DEVICE_DTYPE_SIZE. */
static void test_recorded(void)
{
    const char *path = "tests/data/torch_rng.json";
    json_t *recorded = json_load_file(path, 0, NULL), *value;
    if (!ok(recorded && json_object_size(recorded) == 18, "%s holds 18 draws", path)) return;
    const char *name;
    json_object_foreach (recorded, name, value) {
        char device[8], type[16];
        int n;
        if (sscanf(name, "%7[^_]_%15[^_]_%d", device, type, &n) != 3) {
            ok(false, "%s: what is this?", name);
            continue;
        }
        bool cuda = !strcmp(device, "cuda");
        enum dtype d = strchr(type, 'b') ? DT_BF16 : strstr(type, "64") ? DT_F64 : DT_F32;
        double allowed = d == DT_BF16 ? 0 : d == DT_F64 ? 0x1p-51 : cuda ? SINCOSF : 0x1p-22;
        struct torch_rng r = cuda ? torch_rng_cuda(42, 0) : torch_rng_cpu(42);
        struct tensor t = draw(&r, d, n);
        if (!cuda) {
            double worst = distance(&t, 0, value);
            ok(json_array_size(value) == (size_t)n && worst <= allowed, "%s: off by %.3g", name, worst);
            free(t.data);
            continue;
        }
        json_t *first = json_object_get(value, "first"), *last = json_object_get(value, "last");
        double worst = fmax(distance(&t, 0, first), distance(&t, n - (int64_t)json_array_size(last), last));
        ok(json_array_size(first) == 8 && json_array_size(last) == 4 && worst <= allowed, "%s: off by %.3g",
           name, worst);
        json_t *total = json_object_get(value, "sum");
        if (total) {
            double error =
                fabs(sum(&t) - json_number_value(total)); /* errors of one sign would add up to n of them */
            ok(error <= n * 1e-7, "%s: all elements together off by %.3g", name, error);
        }
        free(t.data);
    }
    json_decref(recorded);
}

/* Well-known first values for other seeds, to the four digits that are known. */
static void test_other_seeds(void)
{
    static const double cpu[] = {-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152};
    static const double cuda[] = {-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284};
    struct torch_rng a = torch_rng_cpu(0), b = torch_rng_cuda(0, 0);
    struct tensor x = draw(&a, DT_F32, 16), y = draw(&b, DT_F32, 16);
    double off_cpu = 0, off_cuda = 0;
    for (int i = 0; i < 8; i++) {
        off_cpu = fmax(off_cpu, fabs(tensor_get(&x, i) - cpu[i]));
        off_cuda = fmax(off_cuda, fabs(tensor_get(&y, i) - cuda[i]));
    }
    ok(off_cpu <= 5.1e-5, "seed 0 on the CPU");
    ok(off_cuda <= 5.1e-5, "seed 0 on CUDA");
    free(x.data), free(y.data);

    struct torch_rng wide = torch_rng_cpu((UINT64_C(7) << 32) + 42), narrow = torch_rng_cpu(42);
    ok(!memcmp(&wide, &narrow, sizeof wide), "the CPU looks at the low 32 bits of a seed only");
    struct torch_rng high = torch_rng_cuda((UINT64_C(7) << 32) + 42, 0), low = torch_rng_cuda(42, 0);
    x = draw(&high, DT_F32, 64), y = draw(&low, DT_F32, 64);
    ok(!same(&x, 0, &y), "CUDA looks at all 64");
    free(x.data), free(y.data);
}

/* A draw goes on where the one before it stopped. */
static void test_state(void)
{
    struct torch_rng whole = torch_rng_cpu(3), parts = torch_rng_cpu(3);
    struct tensor all = draw(&whole, DT_F32, 2048), a = draw(&parts, DT_F32, 1024),
                  b = draw(&parts, DT_F32, 1024);
    ok(same(&all, 0, &a) && same(&all, 1024, &b),
       "two draws of 1024 are one of 2048: mt19937 runs on past its 624 words");
    free(all.data), free(a.data), free(b.data);

    whole = torch_rng_cpu(3), parts = torch_rng_cpu(3);
    all = draw(&whole, DT_F64, 6), a = draw(&parts, DT_F64, 3), b = draw(&parts, DT_F64, 3);
    ok(same(&all, 0, &a) && same(&all, 3, &b),
       "an odd, short draw keeps the second half of its last pair for the next");
    free(all.data), free(a.data), free(b.data);

    struct torch_rng r = torch_rng_cpu(3);
    struct tensor none = draw(&r, DT_F32, 0);
    struct torch_rng fresh = torch_rng_cpu(3);
    ok(!memcmp(&r, &fresh, sizeof r), "a draw of nothing takes nothing");
    free(none.data);
}

static void test_cuda_layout(void)
{
    struct torch_rng r = torch_rng_cuda(42, 0);
    struct tensor latents = draw(&r, DT_BF16, 13 * 16 * 60 * 90);
    ok(r.offset == 8, "CogVideoX-5B's latents take two sweeps of an H200's grid: offset %d", (int)r.offset);
    struct tensor more = draw(&r, DT_BF16, 8);
    ok(r.offset == 12, "a small draw takes one: offset %d", (int)r.offset);
    ok(!same(&latents, 0, &more), "and does not repeat the first");
    free(more.data), free(latents.data);

    /* 108 multiprocessors: threads of the whole grid 221184, so a sweep is 884736, and its first element the
     * first of the second call, which is also what a second small draw begins with. */
    struct torch_rng a100 = torch_rng_cuda(42, 108), small = torch_rng_cuda(42, 108);
    struct tensor big = draw(&a100, DT_F32, 884736 + 256), one = draw(&small, DT_F32, 256),
                  two = draw(&small, DT_F32, 256);
    ok(same(&big, 0, &one) && same(&big, 884736, &two), "an A100's second sweep begins at element 884736");
    free(big.data), free(one.data), free(two.data);

    struct torch_rng h200 = torch_rng_cuda(42, TORCH_MULTIPROCESSORS), same_gpu = torch_rng_cuda(42, 0);
    ok(h200.threads == 270336 && same_gpu.threads == h200.threads,
       "132 multiprocessors unless told otherwise");
}

static void test_refusals(void)
{
    struct torch_rng cpu = torch_rng_cpu(1), cuda = torch_rng_cuda(1, 0);
    double room[16] = {0};
    struct tensor t = tensor_of(DT_I64, room, 1, 16);
    ok(!torch_rng_randn(&cpu, &t) && !torch_rng_randn(&cuda, &t), "no normal integers");
    t.dtype = DT_F16;
    ok(!torch_rng_randn(&cpu, &t), "no F16");
    t.dtype = DT_F64;
    ok(!torch_rng_randn(&cuda, &t), "no F64 from CUDA, whose layout is another");
}

int main(void)
{
    test_recorded();
    test_other_seeds();
    test_state();
    test_cuda_layout();
    test_refusals();
    return done();
}
