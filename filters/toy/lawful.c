/* How far what is seen in a clip is from the nearest lawful course of its kind. */
#include <math.h>
#include <stdlib.h>

#include "filters/toy/world.h"

#define LOST 0.5 /* heights: as far off counts a body that is not seen, and none counts as farther off */

/* The numbers of a scene that are fitted, and how far each is moved at first. */
struct knob {
    double *value, step;
};

static int knobs_of(struct toy_scene *s, struct knob knobs[3])
{
    struct toy_body *a = &s->body[0];
    int n = 0;
    knobs[n++] = (struct knob){&a->x, 0.05};
    if (s->kind == TOY_FALL || s->kind == TOY_BOUNCE) {
        knobs[n++] = (struct knob){&a->y, 0.05};
        return n;
    }
    knobs[n++] = (struct knob){&a->vx, 0.2};
    if (s->kind == TOY_THROW) knobs[n++] = (struct knob){&a->vy, 0.4};
    if (s->kind == TOY_HIT) knobs[n++] = (struct knob){&s->body[1].x, 0.05};
    return n;
}

/* The mean of the squared distances. */
static double distance(const struct toy_scene *s, const struct toy_point *const seen[2], int64_t frames,
                       struct toy_body *at)
{
    double sum = 0;
    toy_simulate(s, frames, at);
    for (int64_t f = 0; f < frames; f++)
        for (int i = 0; i < s->bodies; i++) {
            const struct toy_body *b = &at[f * s->bodies + i];
            double dx = seen[i][f].x - b->x, dy = seen[i][f].y - b->y, d2 = dx * dx + dy * dy;
            sum += d2 < LOST * LOST ? d2 : LOST * LOST; /* not seen: a NAN, which is less than nothing */
        }
    return sum / (double)(frames * s->bodies);
}

/* Each number is moved while that helps, by less and less. */
static double fit(struct toy_scene *s, const struct toy_point *const seen[2], int64_t frames,
                  struct toy_body *at)
{
    struct knob knobs[3];
    int n = knobs_of(s, knobs);
    double best = distance(s, seen, frames, at);
    for (double scale = 2; scale > 0.02; scale /= 2)
        for (bool better = true; better;) {
            better = false;
            for (int k = 0; k < 2 * n; k++) {
                double was = *knobs[k / 2].value;
                *knobs[k / 2].value += (k % 2 ? 1 : -1) * scale * knobs[k / 2].step;
                double now = distance(s, seen, frames, at);
                if (now < best * (1 - 1e-6))
                    best = now, better = true;
                else
                    *knobs[k / 2].value = was;
            }
        }
    return best;
}

static double or_else(double x, double otherwise)
{
    return isnan(x) ? otherwise : x;
}

double toy_off(enum toy_kind kind, const struct toy_point *first, const struct toy_point *second,
               int64_t frames)
{
    const struct toy_point *const seen[2] = {first, second};
    bool hit = kind == TOY_HIT;
    int64_t some = frames > 8 ? frames / 8 : 1;
    double best = LOST * LOST, x = or_else(first[0].x, 0.75), speed = or_else((first[some].x - x) * (double)(frames - 1) / (double)some, 0);
    struct toy_body *at = calloc((size_t)frames * 2, sizeof *at);
    for (int k = 0; at && k < 4; k++) { /* size and shape are those that fit best */
        double radius = hit ? 0.115 : k & 1 ? 0.14 : 0.09;
        enum toy_shape shape = kind == TOY_SLIDE || (kind == TOY_THROW && k & 2) ? TOY_BOX : TOY_BALL;
        struct toy_scene s = {.kind = kind, .bodies = 1 + hit};
        s.body[0] = (struct toy_body){.shape = shape, .radius = radius, .x = x, .y = radius};
        if (kind == TOY_FALL || kind == TOY_BOUNCE)
            s.body[0].y = or_else(first[0].y, 0.6);
        else
            s.body[0].vx = speed;
        if (kind == TOY_THROW) s.body[0].vy = 2.4;
        if (hit)
            s.body[1] = (struct toy_body){
                .shape = k & 2 ? TOY_BOX : TOY_BALL, .radius = radius, .x = or_else(second[0].x, 0.75), .y = radius};
        best = fmin(best, fit(&s, seen, frames, at));
    }
    free(at);
    return sqrt(best);
}
