#include "filters/lib/rng.h"
#include "formats/hash.h"

#include <omp.h>
#include <string.h>

#include "tests/tap.h"

static void known_answers(void)
{
    static const struct {
        uint32_t key[2], counter[4], want[4];
    } philox[] = {/* kat_vectors of Random123 */
                  {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                  {{~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                  {{0xa4093822, 0x299f31d0},
                   {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                   {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
    for (size_t i = 0; i < sizeof philox / sizeof *philox; i++) {
        const uint32_t *c = philox[i].counter;
        struct rng r = {{philox[i].key[0], philox[i].key[1]}, (uint64_t)c[3] << 32 | c[2]};
        uint32_t got[4];
        rng_words(&r, (uint64_t)c[1] << 32 | c[0], got);
        ok(!memcmp(got, philox[i].want, sizeof got), "Philox4x32-10 known answer %zu", i);
    }

    static const struct {
        const char *text;
        uint64_t seed, want;
    } xxh64[] = {{"", 0, 0xef46db3751d8e999},
                 {"a", 0, 0xd24ec4f1a98c6e5b},
                 {"abc", 0, 0x44bc2cf5ad770999},
                 {"xxhash", 20141025, 0xb559b98d844e0635},
                 {"Nobody inspects the spammish repetition", 0, 0xfbcea83c8a378bf1}};
    for (size_t i = 0; i < sizeof xxh64 / sizeof *xxh64; i++)
        ok(hash64(xxh64[i].seed, xxh64[i].text, strlen(xxh64[i].text)) == xxh64[i].want, "XXH64 of \"%s\"",
           xxh64[i].text);

    uint8_t bytes[200];
    uint64_t all = 0; /* against the same sum over the reference library's answers */
    for (int i = 0; i < 200; i++) bytes[i] = (uint8_t)(i * 37 + 11);
    for (uint64_t n = 0; n <= 200; n++) all = all * 0x100000001b3 + hash64(n * 0x9e3779b1, bytes, n);
    ok(all == 0xfa51d2462c1a1f3d, "XXH64 of every length up to 200");
}

/* Values from an independent implementation of the whole chain: hashes, Philox, Box-Muller. */
static void golden_values(void)
{
    static const double normal[] = {-0.4486871596789903, -0.21980179366826536, -0.1464757072317354,
                                    2.1651680010556302,  -1.3815781809501468,  0.3545969148791091,
                                    -1.1646852773505079, -2.0605383465491127};
    static const double uniform[] = {0.8826588574959345,   0.5724977750868294, 0.0949216178884007,
                                     0.26075060504486414,  0.361588439617452,  0.4600142736180033,
                                     0.060739865335095344, 0.6681205889382424};
    struct rng r = rng_make(42, "clip-7", "noise", 3);
    float got[8];
    bool same = true;
    rng_normal(&r, got, 8);
    for (int i = 0; i < 8; i++) same &= fabs(got[i] - normal[i]) <= 1e-7 * fabs(normal[i]);
    ok(same, "normals are what seed, key, purpose and position say");
    same = true;
    for (uint64_t i = 0; i < 8; i++) same &= rng_uniform(&r, i) == uniform[i];
    ok(same, "and so are uniforms");
}

static bool differ(struct rng a, struct rng b)
{
    float x[4], y[4];
    rng_normal(&a, x, 4);
    rng_normal(&b, y, 4);
    return memcmp(x, y, sizeof x) != 0;
}

static void independence(void)
{
    struct rng r = rng_make(1, "key", "noise", 0);
    ok(differ(r, rng_make(2, "key", "noise", 0)), "the seed matters");
    ok(differ(r, rng_make(1, "kez", "noise", 0)), "the key matters");
    ok(differ(r, rng_make(1, "key", "posterior", 0)), "the purpose matters");
    ok(differ(r, rng_make(1, "key", "noise", 1)), "the position matters");
    ok(differ(rng_make(1, "ab", "c", 0), rng_make(1, "a", "bc", 0)), "key and purpose do not run together");

    enum { N = 100001 };
    float *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    rng_normal(&r, a, N);
    omp_set_num_threads(7);
    rng_normal(&r, b, N);
    omp_set_num_threads(threads);
    ok(!memcmp(a, b, N * sizeof *a), "threads change no bit");
    bool same = true;
    for (size_t n = 1; n < 20; n++) {
        rng_normal(&r, b, n);
        same &= !memcmp(a, b, n * sizeof *a);
    }
    ok(same, "a shorter draw is the start of a longer one, odd lengths too");
    free(a);
    free(b);
}

/* Bounds are five standard errors of each statistic; the draws are fixed, so this cannot fail by bad luck. */
static void distribution(void)
{
    enum { N = 1 << 20 };
    struct rng r = rng_make(42, "statistics", "noise", 0);
    float *x = malloc(N * sizeof *x);
    rng_normal(&r, x, N);
    double mean = 0, square = 0, fourth = 0, lag = 0;
    int tail = 0;
    bool finite = true;
    for (int i = 0; i < N; i++) {
        finite &= isfinite(x[i]);
        mean += x[i];
        square += (double)x[i] * x[i];
        fourth += pow(x[i], 4);
        if (i) lag += (double)x[i] * x[i - 1];
        tail += fabsf(x[i]) > 3;
    }
    ok(finite, "all normals are finite");
    ok(fabs(mean / N) < 5 / sqrt(N), "mean %g", mean / N);
    ok(fabs(square / N - 1) < 5 * sqrt(2.0 / N), "variance %g", square / N);
    ok(fabs(fourth / N - 3) < 5 * sqrt(96.0 / N), "fourth moment %g", fourth / N);
    ok(fabs(lag / N) < 5 / sqrt(N), "neighbours are uncorrelated: %g", lag / N);
    ok(fabs(tail - N * 0.0026998) < 5 * sqrt(N * 0.0026998), "%d beyond three", tail);
    free(x);

    int count[10] = {0};
    bool inside = true;
    for (uint64_t i = 0; i < 100000; i++) {
        uint64_t v = rng_below(&r, i, 10);
        if (v < 10) count[v]++;
        double u = rng_uniform(&r, i);
        inside &= v < 10 && u >= 0 && u < 1 && rng_below(&r, i, 1) == 0 &&
                  rng_below(&r, i, UINT64_MAX) < UINT64_MAX;
    }
    ok(inside, "uniforms and integers stay in their ranges");
    for (int i = 0; i < 10; i++) inside &= abs(count[i] - 10000) < 5 * 95;
    ok(inside, "integers below ten are even");
}

int main(void)
{
    known_answers();
    golden_values();
    independence();
    distribution();
    return done();
}
