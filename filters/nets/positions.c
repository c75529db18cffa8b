#include "filters/nets/positions.h"

#include <math.h>

/* torch.linspace in F32: counted from both ends towards the middle. */
static float linspace(float a, float b, int64_t n, int64_t i)
{
    if (n == 1) return a;
    float step = (b - a) / (float)(n - 1);
    return i < n / 2 ? a + (float)i * step : b - (float)(n - 1 - i) * step;
}

/* One axis of one token: `width` channels from `at`. */
static void rotate(float *cos_row, float *sin_row, int64_t width, float position)
{
    for (int64_t i = 0; i < width; i += 2) {
        float angle = position * (float)(1 / pow(10000, (double)i / (double)width));
        cos_row[i] = cos_row[i + 1] = cosf(angle);
        sin_row[i] = sin_row[i + 1] = sinf(angle);
    }
}

void rope_tables(float *cos, float *sin, int64_t frames, int64_t rows, int64_t cols, int64_t base_rows,
                 int64_t base_cols, int64_t head_dim)
{
    int64_t time = head_dim / 4, side = head_dim / 8 * 3;
    double h = (double)base_rows, w = (double)base_cols, ratio = (double)rows / (double)cols;
    if (ratio > h / w)
        w = nearbyint(h / (double)rows * (double)cols); /* half to even, as Python rounds */
    else
        h = nearbyint(w / (double)cols * (double)rows);
    double top = nearbyint(((double)base_rows - h) / 2), left = nearbyint(((double)base_cols - w) / 2);
    /* The end keeps out one step of the *whole* extent, top included: so it is in the reference. */
    float h_end = (float)((top + h) * (double)(rows - 1) / (double)rows);
    float w_end = (float)((left + w) * (double)(cols - 1) / (double)cols);

    for (int64_t f = 0; f < frames; f++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < cols; x++, cos += head_dim, sin += head_dim) {
                rotate(cos, sin, time, (float)f);
                rotate(cos + time, sin + time, side, linspace((float)top, h_end, rows, y));
                rotate(cos + time + side, sin + time + side, side, linspace((float)left, w_end, cols, x));
            }
}

/* One axis of one token, in double as the reference has it. */
static void turn(float *cos_row, float *sin_row, int64_t width, double position)
{
    for (int64_t i = 0; i < width / 2; i++) {
        double angle = position * (1 / pow(10000, 2 * (double)i / (double)width));
        cos_row[i] = (float)cos(angle);
        sin_row[i] = (float)sin(angle);
    }
}

void axes_rope_tables(float *cos, float *sin, int64_t frames, int64_t rows, int64_t cols, int64_t head_dim)
{
    const int64_t side = head_dim / 6 * 2, time = head_dim - 2 * side, half = head_dim / 2;
    for (int64_t f = 0; f < frames; f++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < cols; x++, cos += half, sin += half) {
                turn(cos, sin, time, (double)f);
                turn(cos + time / 2, sin + time / 2, side, (double)y);
                turn(cos + (time + side) / 2, sin + (time + side) / 2, side, (double)x);
            }
}

static void sines_cosines(float *out, int64_t width, double position)
{
    for (int64_t k = 0; k < width / 2; k++) {
        double angle = position * pow(10000, -(double)k / ((double)width / 2));
        out[k] = (float)sin(angle);
        out[width / 2 + k] = (float)cos(angle);
    }
}

void sincos_table(float *out, int64_t frames, int64_t rows, int64_t cols, int64_t width, double spatial_scale,
                  double temporal_scale)
{
    int64_t time = width / 4, side = (width - time) / 2;
    for (int64_t f = 0; f < frames; f++)
        for (int64_t y = 0; y < rows; y++)
            for (int64_t x = 0; x < cols; x++, out += width) {
                sines_cosines(out, time, (double)f / temporal_scale);
                sines_cosines(out + time, side, (double)x / spatial_scale); /* width before height */
                sines_cosines(out + time + side, side, (double)y / spatial_scale);
            }
}

void timestep_embedding(float *out, int64_t width, double timestep)
{
    int64_t half = width / 2;
    for (int64_t j = 0; j < half; j++) {
        float frequency = expf((float)(-log(10000)) * (float)j / (float)half),
              angle = (float)timestep * frequency;
        out[j] = cosf(angle);
        out[half + j] = sinf(angle);
    }
}
