#include "filters/learning/torch_rng.h"

#include <math.h>

static void store(struct tensor *t, int64_t i, double v)
{
    switch (t->dtype) {
    case DT_F64: ((double *)t->data)[i] = v; break;
    case DT_F32: ((float *)t->data)[i] = (float)v; break;
    default: ((uint16_t *)t->data)[i] = bf16_from_f32((float)v);
    }
}

/* ---- CPU: ATen/native/cpu/DistributionTemplates.h, normal_kernel ---------------------------------- */

enum { WORDS = 624, BLOCK = 16 }; /* of mt19937's state; elements that are made at a time */

struct torch_rng torch_rng_cpu(uint64_t seed)
{
    struct torch_rng r = {.next = WORDS};
    r.state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < WORDS; i++)
        r.state[i] = 1812433253u * (r.state[i - 1] ^ (r.state[i - 1] >> 30)) + i;
    return r;
}

static void twist(uint32_t *s)
{
    for (int i = 0; i < WORDS; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % WORDS] & 0x7fffffffu);
        s[i] = s[(i + 397) % WORDS] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

static uint32_t word(struct torch_rng *r)
{
    if (r->next == WORDS) {
        twist(r->state);
        r->next = 0;
    }
    uint32_t y = r->state[r->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* In [0, 1), with as many random bits as the dtype has digits. */
static double uniform(struct torch_rng *r, enum dtype d)
{
    if (d == DT_BF16) return (word(r) & 0xff) * 0x1p-8;
    if (d == DT_F32) return (word(r) & 0xffffff) * 0x1p-24;
    uint64_t high = word(r), both = high << 32 | word(r);
    return (double)(both & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static float to_bf16(double v)
{
    return f32_from_bf16(bf16_from_f32((float)v));
}

/* Box-Muller: a radius from u1 and an angle from u2, in the dtype's own arithmetic. BF16 arithmetic is float
 * arithmetic with every result rounded; -2 log is exact, being a power of two times it. */
static void box_muller(enum dtype d, double u1, double u2, double *a, double *b)
{
    if (d == DT_F64) {
        double radius = sqrt(-2 * log(1 - u1)), angle = 2 * M_PI * u2;
        *a = radius * cos(angle);
        *b = radius * sin(angle);
    } else if (d == DT_F32) {
        float radius = sqrtf(-2 * logf(1 - (float)u1)), angle = (float)(2 * M_PI) * (float)u2;
        *a = radius * cosf(angle);
        *b = radius * sinf(angle);
    } else {
        float log_u = to_bf16(logf(to_bf16(1 - u1)));
        float radius = to_bf16(sqrtf(-2 * log_u)), angle = to_bf16(2 * M_PI * u2);
        *a = to_bf16(radius * to_bf16(cosf(angle)));
        *b = to_bf16(radius * to_bf16(sinf(angle)));
    }
}

/* Elements [at, at + 16): sixteen uniforms, of which the i-th and the (i+8)-th make the i-th and (i+8)-th
 * normal. */
static void draw_block(struct torch_rng *r, struct tensor *t, int64_t at)
{
    double u[BLOCK];
    for (int i = 0; i < BLOCK; i++) u[i] = uniform(r, t->dtype);
    for (int i = 0; i < BLOCK / 2; i++) {
        double a, b;
        box_muller(t->dtype, u[i], u[i + BLOCK / 2], &a, &b);
        store(t, at + i, a);
        store(t, at + i + BLOCK / 2, b);
    }
}

/* Fewer than 16 elements are drawn one by one, in double whatever the dtype. */
static double draw_one(struct torch_rng *r)
{
    if (r->has_spare) {
        r->has_spare = false;
        return r->spare;
    }
    double angle = 2 * M_PI * uniform(r, DT_F64);
    double radius = sqrt(-2 * log1p(-uniform(r, DT_F64)));
    r->has_spare = true;
    r->spare = radius * sin(angle);
    return radius * cos(angle);
}

static void cpu_randn(struct torch_rng *r, struct tensor *t)
{
    int64_t n = tensor_count(t), i = 0;
    if (n < BLOCK) {
        for (; i < n; i++) store(t, i, draw_one(r));
        return;
    }
    for (; i + BLOCK <= n; i += BLOCK) draw_block(r, t, i);
    if (i == n) return;
    for (; i < n; i++)
        uniform(r, t->dtype); /* what is left gets uniforms of its own before the last 16 are drawn anew */
    draw_block(r, t, n - BLOCK);
}

/* ---- CUDA: ATen/native/cuda/DistributionTemplates.h, and cuRAND's normal4 -------------------------- */

struct torch_rng torch_rng_cuda(uint64_t seed, int multiprocessors)
{
    int64_t count = multiprocessors > 0 ? multiprocessors : TORCH_MULTIPROCESSORS;
    return (struct torch_rng){.cuda = true, .seed = seed, .threads = count * 2048};
}

static void philox(uint64_t seed, const uint32_t counter[4], uint32_t out[4])
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53 * c0, p1 = (uint64_t)0xcd9e8d57 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key[0];
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key[1];
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        key[0] += 0x9e3779b9;
        key[1] += 0xbb67ae85;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Two normals from two words: sine first. The GPU's compiler fuses the scaling's
 * multiplication and addition. */
static void normal_pair(uint32_t x, uint32_t y, float out[2])
{
    const float scale = 2.3283064e-10f, turn = 2.3283064e-10f * 6.2831855f; /* 2^-32, and 2π of it */
    float u = fmaf((float)x, scale, scale / 2), angle = fmaf((float)y, turn, turn / 2);
    float radius = sqrtf(-2 * logf(u));
    out[0] = radius * sinf(angle);
    out[1] = radius * cosf(angle);
}

/* Thread i of the grid makes four normals with its k-th call, for elements k sweep + i + {0, 1, 2, 3}
 * threads. */
static void cuda_randn(struct torch_rng *r, struct tensor *t)
{
    int64_t n = tensor_count(t);
    if (!n) return;
    int64_t threads = (n + 255) / 256 * 256;
    if (threads > r->threads) threads = r->threads;
    int64_t sweep = 4 * threads, calls = (n + sweep - 1) / sweep;
    for (int64_t k = 0; k < calls; k++) {
        uint64_t call = r->offset / 4 + (uint64_t)k;
        for (int64_t thread = 0; thread < threads && k * sweep + thread < n; thread++) {
            uint32_t words[4], counter[4] = {(uint32_t)call, (uint32_t)(call >> 32), (uint32_t)thread, 0};
            philox(r->seed, counter, words);
            float normal[4];
            normal_pair(words[0], words[1], normal);
            normal_pair(words[2], words[3], normal + 2);
            for (int j = 0; j < 4; j++) {
                int64_t e = k * sweep + j * threads + thread;
                if (e < n) store(t, e, normal[j]);
            }
        }
    }
    r->offset += 4 * (uint64_t)calls;
}

bool torch_rng_randn(struct torch_rng *r, struct tensor *host)
{
    if (host->dtype != DT_F32 && host->dtype != DT_BF16 && (host->dtype != DT_F64 || r->cuda)) return false;
    (r->cuda ? cuda_randn : cpu_randn)(r, host);
    return true;
}
