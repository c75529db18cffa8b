#include "formats/resize.h"

#include <math.h>
#include <stdlib.h>

/* An axis: target pixel j is made of the source pixels first[j] and `count` - 1 more. */
struct taps {
    int64_t count, *first;
    float *weight; /* [target pixels, count] */
};

static void taps_free(struct taps *t)
{
    free(t->first);
    free(t->weight);
}

static bool taps_make(struct taps *t, int64_t from, int64_t to)
{
    double ratio = (double)from / (double)to, half = ratio > 1 ? ratio : 1;
    t->count = 2 * (int64_t)ceil(half) + 1;
    t->first = malloc((size_t)to * sizeof *t->first);
    t->weight = malloc((size_t)(to * t->count) * sizeof *t->weight);
    if (!t->first || !t->weight) return false;
    for (int64_t j = 0; j < to; j++) {
        double centre = ((double)j + 0.5) * ratio - 0.5, sum = 0;
        float *w = t->weight + j * t->count;
        t->first[j] = (int64_t)ceil(centre - half);
        for (int pass = 0; pass < 2; pass++) /* what they sum to; then over it */
            for (int64_t i = 0; i < t->count; i++) {
                double v = fmax(0, 1 - fabs((double)(t->first[j] + i) - centre) / half);
                if (pass == 0)
                    sum += v;
                else
                    w[i] = (float)(v / sum);
            }
    }
    return true;
}

static int64_t within(int64_t i, int64_t size)
{
    return i < 0 ? 0 : i < size ? i : size - 1;
}

/* A row of w pixels from one of `width`. */
static void shrink_row(float *out, int64_t w, const uint8_t *row, int64_t width, const struct taps *t)
{
    for (int64_t x = 0; x < w; x++, out += 3) {
        out[0] = out[1] = out[2] = 0;
        for (int64_t i = 0; i < t->count; i++) {
            const uint8_t *pixel = row + 3 * within(t->first[x] + i, width);
            float weight = t->weight[x * t->count + i];
            for (int c = 0; c < 3; c++) out[c] += weight * pixel[c];
        }
    }
}

bool resize_triangle(struct tensor *out, const struct tensor *in)
{
    int64_t height = in->shape[1], width = in->shape[2], h = out->shape[1], w = out->shape[2];
    struct taps down = {0}, across = {0};
    float *narrow = malloc((size_t)(height * w) * 3 * sizeof *narrow); /* a frame of the new width */
    bool good = narrow && taps_make(&down, height, h) && taps_make(&across, width, w);

    uint8_t *pixel = out->data;
    for (int64_t f = 0; good && f < in->shape[0]; f++) {
        const uint8_t *frame = (const uint8_t *)in->data + f * height * width * 3;
        for (int64_t y = 0; y < height; y++)
            shrink_row(narrow + y * w * 3, w, frame + y * width * 3, width, &across);
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w * 3; x++) {
                float v = 0;
                for (int64_t i = 0; i < down.count; i++)
                    v += down.weight[y * down.count + i] *
                         narrow[within(down.first[y] + i, height) * w * 3 + x];
                *pixel++ = (uint8_t)(v + 0.5f); /* weights are positive and sum to 1: never beyond 255 */
            }
    }
    taps_free(&down);
    taps_free(&across);
    free(narrow);
    return good;
}
