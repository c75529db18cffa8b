/* The toy world's scenes: drawn at random, described, scored and simulated. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "filters/lib/rng.h"
#include "filters/toy/world.h"
#include "formats/hash.h"

const char *const toy_kind_names[] = {"fall", "bounce", "roll", "slide", "throw", "hit", NULL},
                  *const toy_shape_names[] = {"ball", "box", NULL},
                  *const toy_direction_names[] = {"left", "right", "down", NULL},
                  *const toy_colour_names[] = {"red", "yellow", "green", "turquoise", "blue", "purple", NULL},
                  *const toy_violation_names[] = {"none",    "through",  "hover", "gain",
                                                  "reverse", "teleport", "ghost", NULL};

#define BIT(x) (1U << (x))
static const unsigned possible[TOY_KINDS] = {
    [TOY_FALL] = BIT(TOY_THROUGH) | BIT(TOY_HOVER) | BIT(TOY_TELEPORT),
    [TOY_BOUNCE] = BIT(TOY_THROUGH) | BIT(TOY_HOVER) | BIT(TOY_GAIN) | BIT(TOY_TELEPORT),
    [TOY_ROLL] = BIT(TOY_GAIN) | BIT(TOY_REVERSE) | BIT(TOY_TELEPORT),
    [TOY_SLIDE] = BIT(TOY_GAIN) | BIT(TOY_REVERSE) | BIT(TOY_TELEPORT),
    [TOY_THROW] = BIT(TOY_HOVER) | BIT(TOY_REVERSE) | BIT(TOY_TELEPORT),
    [TOY_HIT] = BIT(TOY_REVERSE) | BIT(TOY_TELEPORT) | BIT(TOY_GHOST),
};

static const double WIDTH = 1.5, /* of the picture that scenes are laid out for */
    GRAVITY = 8, BALL_FRICTION = 0.3, BOX_FRICTION = 1.6;

/* Numbers of one scene, taken one after another. */
struct dice {
    struct rng rng;
    uint64_t next;
};
static double between(struct dice *d, double low, double high)
{
    return low + (high - low) * rng_uniform(&d->rng, d->next++);
}
static int below(struct dice *d, int n)
{
    return (int)rng_below(&d->rng, d->next++, (uint64_t)n);
}
static int one_of(struct dice *d, unsigned bits)
{
    int n = below(d, __builtin_popcount(bits)), at = 0;
    for (; n || !(bits & BIT(at)); at++) n -= (bits & BIT(at)) != 0;
    return at;
}

enum { WORDINGS = 2 }; /* of each caption */

/* ---- drawing a scene -------------------------------------------------------------------------------- */

static bool sideways(enum toy_kind kind)
{
    return kind != TOY_FALL && kind != TOY_BOUNCE;
}

static enum toy_shape shape_of(struct dice *d, enum toy_kind kind)
{
    if (kind == TOY_SLIDE) return TOY_BOX;
    return kind == TOY_FALL || kind == TOY_THROW ? (enum toy_shape)below(d, 2) : TOY_BALL;
}

/* What a caption can name. */
static void draw_cast(struct dice *d, unsigned kinds, struct toy_scene *s)
{
    *s = (struct toy_scene){.kind = (enum toy_kind)one_of(d, kinds), .bodies = 1};
    s->direction = sideways(s->kind) ? (enum toy_direction)below(d, 2) : TOY_DOWN;
    s->large = s->kind != TOY_HIT && below(d, 2);
    s->body[0].shape = shape_of(d, s->kind);
    s->body[0].colour = (enum toy_colour)below(d, TOY_COLOURS);
    if (s->kind == TOY_HIT) {
        s->bodies = 2;
        s->body[1].shape = (enum toy_shape)below(d, 2);
        s->body[1].colour =
            (enum toy_colour)((s->body[0].colour + 1 + below(d, TOY_COLOURS - 1)) % TOY_COLOURS);
    }
}

static bool in_split(const struct toy_scene *s, enum toy_split split)
{
    const unsigned char cast[] = {(unsigned char)s->kind,           (unsigned char)s->direction,
                                  (unsigned char)s->large,          (unsigned char)s->body[0].shape,
                                  (unsigned char)s->body[0].colour, (unsigned char)s->body[1].shape,
                                  (unsigned char)s->body[1].colour};
    enum toy_split its = hash64(0, cast, sizeof cast) % 5 ? TOY_TRAIN : TOY_TEST;
    return split == TOY_ALL || split == its;
}

/* Initial positions and velocities with which a lawful scene stays in the picture and shows its kind. */
static void draw_start(struct dice *d, struct toy_scene *s)
{
    struct toy_body *a = &s->body[0], *b = &s->body[1];
    for (int i = 0; i < s->bodies; i++) {
        s->body[i].radius = s->bodies == 2 ? 0.115 : s->large ? 0.14 : 0.09;
        s->body[i].y = s->body[i].radius;
    }
    a->x = a->radius + between(d, 0.02, 0.2);
    switch (s->kind) {
    case TOY_FALL:
    case TOY_BOUNCE:
        a->x = between(d, 0.3, WIDTH - 0.3);
        a->y = between(d, 0.5, 0.7);
        break;
    case TOY_ROLL: a->vx = between(d, 0.95, 1.25); break;
    case TOY_SLIDE: a->vx = between(d, 1.35, 1.6); break;
    case TOY_THROW:
        a->vx = between(d, 0.8, 1);
        a->vy = between(d, 2.2, 2.7);
        break;
    case TOY_HIT:
        a->x = a->radius + between(d, 0, 0.1);
        a->vx = between(d, 1.3, 1.5);
        b->x = between(d, 0.72, 0.82);
        break;
    default: break;
    }
    if (s->direction == TOY_LEFT)
        for (int i = 0; i < s->bodies; i++) {
            s->body[i].x = WIDTH - s->body[i].x;
            s->body[i].vx = -s->body[i].vx;
        }
}

static void draw_told(struct dice *d, const struct toy_choice *choice, const struct toy_scene *seen,
                      struct toy_scene *told)
{
    struct toy_scene other;
    do {
        *told = *seen;
        if (below(d, 3) == 0) told->body[0].colour = (enum toy_colour)below(d, TOY_COLOURS);
        if (below(d, 3) == 0) told->large = !told->large;
        if (below(d, 3) == 0 && sideways(seen->kind))
            told->direction = told->direction == TOY_LEFT ? TOY_RIGHT : TOY_LEFT;
        if (below(d, 3) == 0) { /* another kind, of which colour and size stay */
            draw_cast(d, choice->kinds, &other);
            other.body[0].colour = told->body[0].colour;
            other.large = told->large;
            *told = other;
        }
        told->large &= told->kind != TOY_HIT;
    } while (toy_adherence(seen, told) == 5 || !in_split(told, choice->split) ||
             (told->bodies == 2 && told->body[0].colour == told->body[1].colour));
    told->wording = seen->wording;
}

void toy_draw(uint64_t seed, const char *key, const struct toy_choice *choice, struct toy_scene *seen,
              struct toy_scene *told)
{
    struct dice d = {.rng = rng_make(seed, key, "toy", 0)};
    do draw_cast(&d, choice->kinds, seen);
    while (!in_split(seen, choice->split));
    draw_start(&d, seen);
    seen->wording = below(&d, WORDINGS);
    seen->when = between(&d, 0.3, 0.5);
    if (between(&d, 0, 1) < choice->unlawful) {
        seen->violation = (enum toy_violation)one_of(&d, possible[seen->kind]);
        seen->strength = seen->violation == TOY_GHOST ? 1 : 1 - between(&d, 0, 1 - choice->strong);
    }
    *told = *seen;
    if (between(&d, 0, 1) < choice->mismatch) draw_told(&d, choice, seen, told);
}

/* ---- captions and scores ---------------------------------------------------------------------------- */

void toy_caption(const struct toy_scene *told, char *text, size_t size)
{
    static const char *const says[TOY_KINDS][WORDINGS] = {
        [TOY_FALL] = {"falls to the floor", "drops straight down"},
        [TOY_BOUNCE] = {"falls and bounces on the floor", "bounces up from the floor"},
        [TOY_ROLL] = {"rolls to the", "rolls along the floor to the"},
        [TOY_SLIDE] = {"slides to the", "slides along the floor to the"},
        [TOY_THROW] = {"is thrown to the", "flies through the air to the"},
        [TOY_HIT] = {"rolls to the", "moves to the"},
    };
    const struct toy_body *a = &told->body[0], *b = &told->body[1];
    const char *does = says[told->kind][told->wording], *way = toy_direction_names[told->direction],
               *colour = toy_colour_names[a->colour], *shape = toy_shape_names[a->shape],
               *large = told->large ? "large" : "small";
    if (told->kind == TOY_HIT)
        snprintf(text, size, "A %s %s %s %s and hits a %s %s.", colour, shape, does, way,
                 toy_colour_names[b->colour], toy_shape_names[b->shape]);
    else if (sideways(told->kind))
        snprintf(text, size, "A %s %s %s %s %s.", large, colour, shape, does, way);
    else
        snprintf(text, size, "A %s %s %s %s.", large, colour, shape, does);
}

/* Whether draw_cast() can make it. */
static bool drawable(const struct toy_scene *s)
{
    const bool hits = s->kind == TOY_HIT, box = s->body[0].shape == TOY_BOX;
    const bool either = s->kind == TOY_FALL || s->kind == TOY_THROW;
    if (sideways(s->kind) != (s->direction != TOY_DOWN)) return false;
    if (!either && box != (s->kind == TOY_SLIDE)) return false;
    if (!hits) return !s->body[1].shape && !s->body[1].colour;
    return !s->large && s->body[0].colour != s->body[1].colour;
}

int64_t toy_captions(const struct toy_choice *choice)
{
    /* The numbers of a mixed radix: each combination of what captions name. */
    enum { ALL = TOY_KINDS * TOY_NOWHERE * 2 * 2 * 2 * TOY_COLOURS * TOY_COLOURS };
    int64_t count = 0;
    for (int i = 0; i < ALL; i++) {
        struct toy_scene s = {.kind = (enum toy_kind)(i % TOY_KINDS)};
        int rest = i / TOY_KINDS;
        s.direction = (enum toy_direction)(rest % TOY_NOWHERE), rest /= TOY_NOWHERE;
        s.large = rest % 2, rest /= 2;
        for (int b = 0; b < 2; b++) {
            s.body[b].shape = (enum toy_shape)(rest % 2), rest /= 2;
            s.body[b].colour = (enum toy_colour)(rest % TOY_COLOURS), rest /= TOY_COLOURS;
        }
        if (choice->kinds & BIT(s.kind) && drawable(&s) && in_split(&s, choice->split)) count += WORDINGS;
    }
    return count;
}

int toy_adherence(const struct toy_scene *seen, const struct toy_scene *told)
{
    int off = 3 * (seen->kind != told->kind);
    for (int i = 0; i < told->bodies; i++)
        off += 2 * (seen->body[i].colour != told->body[i].colour) +
               2 * (seen->body[i].shape != told->body[i].shape);
    off += 2 * (seen->kind == told->kind && seen->direction != told->direction);
    off += told->bodies == 1 && seen->large != told->large;
    return off < 4 ? 5 - off : 1;
}

int toy_physics(const struct toy_scene *seen)
{
    return seen->violation ? 4 - (int)(3.999 * seen->strength) : 5;
}

/* ---- simulation ------------------------------------------------------------------------------------- */

struct simulation {
    const struct toy_scene *scene;
    bool due, frozen; /* due: the violation has not set in yet; frozen: the body hangs in the air */
};

/* What sets in at one moment; a: the body that moves by then. */
static void violate(struct simulation *run, struct toy_body *a)
{
    const struct toy_scene *s = run->scene;
    double turned = -(0.4 + 0.6 * s->strength), jump = 0.2 + 0.5 * s->strength;
    if (s->violation == TOY_REVERSE && a->vx == 0) return; /* what is not hit yet turns round once it moves */
    run->due = false;
    if (s->violation == TOY_REVERSE) a->vx *= turned;
    if (s->violation == TOY_GAIN && s->kind != TOY_BOUNCE) a->vx *= 1.4 + 1.4 * s->strength;
    if (s->violation == TOY_TELEPORT) a->x += a->x < WIDTH / 2 ? jump : -jump;
}

static void on_floor(const struct simulation *run, struct toy_body *a, double floor, double dt)
{
    double friction = (a->shape == TOY_BALL ? BALL_FRICTION : BOX_FRICTION) * dt, back = 0.2;
    if (run->scene->kind == TOY_BOUNCE)
        back = run->scene->violation == TOY_GAIN ? 1.1 + 0.25 * run->scene->strength : 0.8;
    a->y = floor;
    a->vy = a->vy < -0.3 ? -back * a->vy : 0;
    a->vx = fabs(a->vx) > friction ? a->vx - copysign(friction, a->vx) : 0;
}

static void move(struct simulation *run, struct toy_body *a, double dt)
{
    const struct toy_scene *s = run->scene;
    double floor = a->radius, height = a->y - a->radius;
    if (s->violation == TOY_THROUGH) floor -= s->strength * (2 * a->radius + TOY_FLOOR);
    if (s->violation == TOY_HOVER && a->vy < 0 && height < 0.1 + 0.3 * s->strength) run->frozen = true;
    if (run->frozen) return;
    a->vy -= GRAVITY * dt;
    a->x += a->vx * dt;
    a->y += a->vy * dt;
    if (a->y <= floor) on_floor(run, a, floor, dt);
}

/* Two of the same mass meet head on: a tenth of the speed between them is lost. */
static void meet(struct toy_body *a, struct toy_body *b)
{
    double mean = (a->vx + b->vx) / 2, half = 0.9 * (a->vx - b->vx) / 2;
    bool closing = (b->x - a->x) * (a->vx - b->vx) > 0;
    if (!closing || fabs(b->x - a->x) > a->radius + b->radius) return;
    a->vx = mean - half;
    b->vx = mean + half;
}

void toy_simulate(const struct toy_scene *seen, int64_t frames, struct toy_body *at)
{
    enum { STEPS = 32 }; /* between two frames */
    struct simulation run = {.scene = seen, .due = seen->violation != TOY_LAWFUL};
    struct toy_body now[2] = {seen->body[0], seen->body[1]};
    double dt = frames > 1 ? 1.0 / (double)(STEPS * (frames - 1)) : 0;
    for (int64_t f = 0; f < frames; f++) {
        memcpy(at + f * seen->bodies, now, (size_t)seen->bodies * sizeof *now);
        for (int k = 0; k < STEPS; k++) {
            if (run.due && (double)(f * STEPS + k) * dt >= seen->when) violate(&run, &now[seen->bodies - 1]);
            for (int i = 0; i < seen->bodies; i++) move(&run, &now[i], dt);
            if (seen->bodies == 2 && seen->violation != TOY_GHOST) meet(&now[0], &now[1]);
        }
    }
}
