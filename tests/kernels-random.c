/* Made-up weights: what philox.h computes by itself against the C library, and values that are the same on
 * every device, bit by bit. */
#include "tests/kernels.h"

#include "filters/lib/rng.h"
#include "kernels/philox.h"

static const struct random_normal draws = {.key = {17, 4}, .stream = 3, .mean = 1, .std = 0.1};

/* Every 2^53rd of the range in 2^20 steps, and its ends. */
static void test_series(void)
{
    double log_error = 0, turn_error = 0, cosine, sine;
    for (uint64_t i = 0; i <= 1 << 20; i++) {
        const uint64_t n = i << 33 > 4 ? (i << 33) - i % 5 : 1 + i;
        const long double x = n * 0x1p-53L;
        if (i < 1 << 20) log_error = fmax(log_error, fabs((double)((philox_log(n) - logl(x)) / logl(x))));
        philox_turn(&cosine, &sine, n - 1);
        const long double angle = 2 * 3.14159265358979323846264338L * (n - 1) * 0x1p-53L;
        turn_error = fmax(turn_error, fabs((double)(cosine - cosl(angle))));
        turn_error = fmax(turn_error, fabs((double)(sine - sinl(angle))));
    }
    ok(log_error < 0x1p-51, "the logarithm is within %.2g of itself", log_error);
    ok(turn_error < 0x1p-52, "sine and cosine are within %.2g", turn_error);
    ok(philox_log(1ull << 53) == 0 && fabs(philox_log(1) + 53 * log(2)) < 1e-14, "log(1) and log(2^-53)");
    for (uint64_t quarter = 0; quarter < 4; quarter++) {
        philox_turn(&cosine, &sine, quarter << 51);
        ok(cosine == (quarter % 2 ? 0 : 1 - (double)quarter) &&
               sine == (quarter % 2 ? 2 - (double)quarter : 0),
           "%d quarter turns", (int)quarter);
    }
}

/* Number i as rng.h's documentation has it, by the C library. */
static double value(const struct random_normal *r, uint64_t i)
{
    struct rng g = {.key = {r->key[0], r->key[1]}, .stream = r->stream};
    uint32_t w[4];
    rng_words(&g, (r->first + i) / 2, w);
    uint64_t a = (uint64_t)w[1] << 32 | w[0], b = (uint64_t)w[3] << 32 | w[2];
    double radius = sqrt(-2 * log((double)((a >> 11) + 1) * 0x1p-53)),
           angle = 2 * M_PI * ((double)(b >> 11) * 0x1p-53);
    float z = (float)(radius * ((r->first + i) % 2 ? sin(angle) : cos(angle)));
    return f32_from_bf16(bf16_from_f32((float)(r->mean + r->std * z)));
}

static void test_values(int64_t n, uint64_t first, double std, enum dtype d)
{
    struct random_normal r = draws;
    char what[80];
    r.first = first;
    r.std = std;
    fresh();
    struct tensor y = result(d, 1, n);
    double *expected = wide_array(n);
    for (int64_t i = 0; i < n; i++) expected[i] = value(&r, (uint64_t)i);
    snprintf(what, sizeof what, "%lld values from %llu on, deviation %g", (long long)n,
             (unsigned long long)first, std);
    RUN(what, random_normal(k, &y, &r));
    near(&y, expected, 0, what);
}

static void test_turned(int64_t out, int64_t in, int64_t t, int64_t h, int64_t w)
{
    struct random_normal r = draws;
    char what[80];
    const int64_t taps = t * h * w;
    r.channels_last = true;
    r.mean = 0;
    fresh();
    struct tensor y = result(X, 5, out, t, h, w, in);
    double *expected = wide_array(out * in * taps);
    for (int64_t i = 0; i < out * in * taps; i++)
        expected[(i / (in * taps) * taps + i % taps) * in + i / taps % in] = value(&r, (uint64_t)i);
    snprintf(what, sizeof what, "[%lld,%lld,%lld,%lld,%lld], channels last", (long long)out, (long long)t,
             (long long)h, (long long)w, (long long)in);
    RUN(what, random_normal(k, &y, &r));
    near(&y, expected, 0, what);
}

/* A long draw on the device's own memory and on the host. */
static void test_devices(int64_t n)
{
    struct kern *k = kerns[0];
    struct random_normal r = {.key = {0xdecade, 0xface}, .stream = 1, .std = 0.02};
    struct tensor y = kern_alloc(k, X, 1, n), got = tensor_of(X, malloc((size_t)n * dtype_size(X)), 1, n);
    float *want = malloc(sizeof(float) * (size_t)n);
    random_normal(k, &y, &r);
    kern_download(k, &got, &y);
    random_normal_fill(&r, 0, want, (size_t)n);
    int64_t differ = 0, first = -1;
    for (int64_t i = 0; i < n; i++)
        if ((float)tensor_get(&got, i) != want[i] && !differ++) first = i;
    if (!ok(kern_ok(k) && !differ, "%s%lld values are the host's", mode->label, (long long)n))
        printf("# %lld differ, the first is %lld: %s\n", (long long)differ, (long long)first, kern_error(k));
    free(got.data);
    free(want);
}

int main(void)
{
    while (next_mode()) {
        if (mode == modes) test_series();
        for (int64_t n = 0; n < 20; n += n < 9 ? 1 : 5)
            for (uint64_t first = 0; first < 3; first++) test_values(n, first, 1, X);
        test_values(100000, 0, 0.02, X);
        test_values(100000, 0, 0.02, DT_F32);
        test_values(99999, (1ull << 40) + 1, 0.02, X);
        test_values(70000, 0, 0, X);
        test_turned(2, 3, 1, 1, 1);
        test_turned(3, 5, 1, 3, 3);
        test_turned(8, 16, 3, 3, 3);
        test_turned(40, 64, 3, 3, 3);
        test_devices(mode == modes ? 1 << 20 : mode->compute == DT_BF16 ? 50000000 : 10000000);
    }
    return done();
}
