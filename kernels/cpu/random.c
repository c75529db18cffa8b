#include "kernels/cpu/cpu.h"
#include "kernels/philox.h"

/* Where number i of [out,in,taps] lies in [out,taps,in]. */
static int64_t turned(int64_t i, int64_t in, int64_t taps)
{
    const int64_t width = in * taps, row = i / width * width, within = i - row;
    return row + within % taps * in + within / taps;
}

void random_normal_fill(const struct random_normal *r, uint64_t from, float *y, size_t n)
{
    philox_fill(y, r->key, r->stream, r->first + from, n);
    for (size_t i = 0; i < n; i++) y[i] = f32_from_bf16(bf16_from_f32((float)(r->mean + r->std * y[i])));
}

void cpu_random_normal(struct kern *k, struct tensor *y, const struct random_normal *r)
{
    const int64_t n = tensor_count(y), in = r->channels_last ? y->shape[y->rank - 1] : 1,
                  taps = r->channels_last && n ? n / y->shape[0] / in : 1;
    PARALLEL_FOR(k, 8 * n)
    for (int64_t from = 0; from < n; from += TILE) {
        float turning[TILE], *values = r->channels_last ? turning : f32(y) + from;
        const int64_t count = min64(TILE, n - from);
        random_normal_fill(r, (uint64_t)from, values, (size_t)count);
        for (int64_t i = 0; r->channels_last && i < count; i++)
            f32(y)[turned(from + i, in, taps)] = values[i];
    }
}
