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

struct clip {
    const struct toy_point *seen[2]; /* [frames] each */
    int64_t frames;
    double width;        /* of the picture */
    struct toy_body *at; /* [frames * 2], where fitted ones are */
};

/* What is seen of a body against the part of it that is in the picture: the squared distance of the centres. */
static double apart(struct toy_point seen, const struct toy_body *b, double width)
{
    double left = fmax(0, b->x - b->radius), right = fmin(width, b->x + b->radius);
    if (isnan(seen.x)) return right - left < b->radius / 2 ? 0 : LOST * LOST;
    double dx = seen.x - (left + right) / 2, dy = seen.y - b->y;
    return fmin(dx * dx + dy * dy, LOST * LOST);
}

/* The mean over bodies and frames. */
static double distance(const struct toy_scene *s, const struct clip *c)
{
    double sum = 0;
    toy_simulate(s, c->frames, c->at);
    for (int64_t f = 0; f < c->frames; f++)
        for (int i = 0; i < s->bodies; i++) sum += apart(c->seen[i][f], &c->at[f * s->bodies + i], c->width);
    return sum / (double)(c->frames * s->bodies);
}

/* Each number is moved while that helps, by less and less. */
static double fit(struct toy_scene *s, const struct clip *c)
{
    struct knob knobs[3];
    int n = knobs_of(s, knobs);
    double best = distance(s, c);
    for (double scale = 2; scale > 0.02; scale /= 2)
        for (bool better = true; better;) {
            better = false;
            for (int k = 0; k < 2 * n; k++) {
                double was = *knobs[k / 2].value;
                *knobs[k / 2].value += (k % 2 ? 1 : -1) * scale * knobs[k / 2].step;
                double now = distance(s, c);
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
               int64_t frames, double width)
{
    struct clip c = {{first, second}, frames, width, calloc((size_t)frames * 2, sizeof *c.at)};
    bool hit = kind == TOY_HIT;
    int64_t some = frames > 8 ? frames / 8 : 1;
    double best = LOST * LOST, x = or_else(first[0].x, width / 2),
           speed = or_else((first[some].x - x) * (double)(frames - 1) / (double)some, 0);
    for (int k = 0; c.at && k < 4; k++) { /* size and shape are those that fit best */
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
            s.body[1] = (struct toy_body){.shape = k & 2 ? TOY_BOX : TOY_BALL,
                                          .radius = radius,
                                          .x = or_else(second[0].x, width / 2),
                                          .y = radius};
        best = fmin(best, fit(&s, &c));
    }
    free(c.at);
    return sqrt(best);
}
