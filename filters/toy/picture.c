/* Drawing the toy world's pictures, and finding a colour in them again. */
#include <math.h>
#include <string.h>

#include "filters/toy/world.h"

struct rgb {
    double r, g, b;
};
static const struct rgb WALL = {224, 220, 210}, GROUND = {128, 120, 112};
static const struct rgb PAINT[TOY_COLOURS] = {
    [TOY_RED] = {214, 42, 42},        [TOY_YELLOW] = {236, 200, 40}, [TOY_GREEN] = {52, 168, 60},
    [TOY_TURQUOISE] = {40, 190, 180}, [TOY_BLUE] = {48, 84, 214},    [TOY_PURPLE] = {160, 56, 190},
};

static struct rgb mix(struct rgb a, struct rgb b, double t)
{
    return (struct rgb){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

/* The colour of one point; x and y as in world.h. */
static struct rgb point(const struct toy_body *body, int bodies, double x, double y)
{
    struct rgb c = y >= 0 ? WALL : mix(GROUND, (struct rgb){0, 0, 0}, fmin(0.25, -y));
    for (int i = 0; i < bodies; i++) { /* shadows, the fainter the higher what throws them */
        const struct toy_body *b = &body[i];
        double across = (x - b->x) / b->radius, along = (y + 0.05) / 0.045,
               dark = 0.5 - 0.6 * fmax(0, b->y - b->radius);
        if (y < 0 && b->y > 0 && across * across + along * along < 1)
            c = mix(c, (struct rgb){0, 0, 0}, fmax(0.1, dark));
    }
    for (int i = 0; i < bodies; i++) {
        const struct toy_body *b = &body[i];
        double dx = (x - b->x) / b->radius, dy = (y - b->y) / b->radius;
        if (b->shape == TOY_BALL && dx * dx + dy * dy < 1) { /* lit from the upper left */
            double lit = (dx + 0.35) * (dx + 0.35) + (dy - 0.4) * (dy - 0.4);
            c = lit < 0.06 ? mix(PAINT[b->colour], (struct rgb){255, 255, 255}, 0.6)
                           : mix(PAINT[b->colour], (struct rgb){0, 0, 0}, fmin(0.35, 0.16 * lit));
        }
        if (b->shape == TOY_BOX && fabs(dx) < 0.9 && fabs(dy) < 1)
            c = mix(PAINT[b->colour], (struct rgb){0, 0, 0}, fabs(dx) > 0.72 || fabs(dy) > 0.8 ? 0.35 : 0.05);
    }
    return c;
}

static void paint_pixel(const struct toy_body *body, int bodies, int64_t row, int64_t column, int64_t height,
                        uint8_t rgb[3])
{
    enum { FINE = 3 }; /* samples a pixel, each way */
    struct rgb sum = {0, 0, 0};
    for (int k = 0; k < FINE * FINE; k++) {
        double x = ((double)column + (k % FINE + 0.5) / FINE) / (double)height,
               y = 1 - TOY_FLOOR - ((double)row + (k / FINE + 0.5) / FINE) / (double)height;
        struct rgb c = point(body, bodies, x, y);
        sum = (struct rgb){sum.r + c.r, sum.g + c.g, sum.b + c.b};
    }
    const double mean[3] = {sum.r, sum.g, sum.b};
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(mean[c] / (FINE * FINE) + 0.5);
}

/* Whether a body or its shadow can reach into a column of pixels. */
static bool crossed(const struct toy_body *body, int bodies, int64_t column, int64_t height)
{
    bool any = false;
    for (int i = 0; i < bodies; i++)
        any |=
            fabs(((double)column + 0.5) / (double)height - body[i].x) < body[i].radius + 1 / (double)height;
    return any;
}

void toy_paint(const struct toy_body *body, int bodies, int64_t height, int64_t width, uint8_t *rgb)
{
    for (int64_t row = 0; row < height; row++) {
        uint8_t plain[3]; /* away from bodies a row has one colour */
        paint_pixel(body, 0, row, 0, height, plain);
        for (int64_t column = 0; column < width; column++, rgb += 3)
            if (crossed(body, bodies, column, height))
                paint_pixel(body, bodies, row, column, height, rgb);
            else
                memcpy(rgb, plain, sizeof plain);
    }
}

/* The hue in degrees; negative: the pixel is too grey to have one. */
static double hue_of(double r, double g, double b)
{
    double most = fmax(r, fmax(g, b)), range = most - fmin(r, fmin(g, b));
    if (range < 60) return -1;
    if (most == r) return fmod(360 + 60 * (g - b) / range, 360);
    return most == g ? 120 + 60 * (b - r) / range : 240 + 60 * (r - g) / range;
}

/* The paint whose hue is nearest; TOY_COLOURS: the pixel is too grey. */
static enum toy_colour colour_of(const uint8_t *rgb)
{
    double hue = hue_of(rgb[0], rgb[1], rgb[2]), nearest = 360;
    enum toy_colour found = TOY_COLOURS;
    for (int c = 0; c < TOY_COLOURS && hue >= 0; c++) {
        double apart = fabs(hue - hue_of(PAINT[c].r, PAINT[c].g, PAINT[c].b));
        apart = fmin(apart, 360 - apart);
        if (apart < nearest) nearest = apart, found = (enum toy_colour)c;
    }
    return found;
}

struct toy_sight toy_look(const uint8_t *rgb, int64_t frames, int64_t height, int64_t width,
                          enum toy_colour colour, struct toy_point *at)
{
    struct toy_sight sight = {.way = TOY_NOWHERE};
    double coloured = 0, named = 0;
    struct toy_point first = {NAN, NAN};
    for (int64_t f = 0; f < frames; f++) {
        double n = 0, x = 0, y = 0;
        for (int64_t i = 0; i < height * width; i++, rgb += 3) {
            enum toy_colour c = colour_of(rgb);
            coloured += c < TOY_COLOURS;
            if (c != colour) continue;
            n++;
            x += ((double)(i % width) + 0.5) / (double)height;
            y += 1 - TOY_FLOOR - ((double)(i / width) + 0.5) / (double)height;
        }
        named += n;
        at[f] = (struct toy_point){NAN, NAN};
        if (n < 0.002 * (double)(height * width)) continue; /* specks: a small ball has twice that and more */
        at[f] = (struct toy_point){x / n, y / n};
        if (isnan(first.x)) first = at[f];
        sight.dx = at[f].x - first.x;
        sight.drop = fmax(sight.drop, first.y - at[f].y);
        if (sight.way == TOY_NOWHERE)
            sight.way = sight.drop > 0.2  ? TOY_DOWN
                        : sight.dx > 0.2  ? TOY_RIGHT
                        : sight.dx < -0.2 ? TOY_LEFT
                                          : TOY_NOWHERE;
    }
    sight.share = coloured > 0 ? named / coloured : 0;
    return sight;
}
