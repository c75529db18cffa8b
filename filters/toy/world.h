/* world - a toy world of balls and boxes under simple physics, lawful or not, and the scores of its clips.
 *
 * A clip is a scene: its bodies, what happens to them, and a violation of a law with its strength. A scene is
 * drawn from (seed, key) alone. Units: the picture's height, and the clip's duration. x grows to the right
 * from the left edge, y upwards from the floor. */
#ifndef TOY_WORLD_H
#define TOY_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum toy_kind { TOY_FALL, TOY_BOUNCE, TOY_ROLL, TOY_SLIDE, TOY_THROW, TOY_HIT, TOY_KINDS };
enum toy_shape { TOY_BALL, TOY_BOX };
enum toy_direction { TOY_LEFT, TOY_RIGHT, TOY_DOWN, TOY_NOWHERE };
enum toy_colour { TOY_RED, TOY_YELLOW, TOY_GREEN, TOY_TURQUOISE, TOY_BLUE, TOY_PURPLE, TOY_COLOURS };
enum toy_violation {
    TOY_LAWFUL,
    TOY_THROUGH,  /* sinks into the floor, or through it */
    TOY_HOVER,    /* stops in mid-air */
    TOY_GAIN,     /* bounces higher than it fell; speeds up by itself */
    TOY_REVERSE,  /* turns round without a cause */
    TOY_TELEPORT, /* is somewhere else at once */
    TOY_GHOST,    /* passes through the other body */
    TOY_VIOLATIONS
};
extern const char *const toy_kind_names[], *const toy_shape_names[], *const toy_direction_names[],
                                                                         *const toy_colour_names[],
                                                                             *const toy_violation_names[];

#define TOY_FLOOR 0.16 /* the floor's height above the picture's lower edge */

struct toy_body {
    enum toy_shape shape;
    enum toy_colour colour;
    double radius;       /* a box's is half its side */
    double x, y, vx, vy; /* of its centre */
};

struct toy_scene {
    enum toy_kind kind;
    enum toy_direction direction; /* of the first body */
    bool large;                   /* never of one that hits another */
    int bodies;                   /* 2 when something is hit, else 1 */
    struct toy_body body[2];      /* as they start */
    enum toy_violation violation;
    double strength; /* of the violation, in (0, 1] */
    double when;     /* it sets in */
    int wording;     /* which of the captions that say the same */
};

enum toy_split { TOY_ALL, TOY_TRAIN, TOY_TEST };

/* The distribution that scenes are drawn from: kinds, one bit each (1 << TOY_FALL ..), and probabilities. A
 * combination that captions can name (kind, direction, colours, shapes, size) belongs to one split, a fifth
 * of them to TOY_TEST, so that the splits share no caption. */
struct toy_choice {
    unsigned kinds;
    enum toy_split split;
    double unlawful; /* probability of a violation */
    double strong;   /* the least strength of one */
    double mismatch; /* probability that the caption describes another scene */
};

/* The scene that is seen, and the one that the caption describes: equal, or different in one property. */
void toy_draw(uint64_t seed, const char *key, const struct toy_choice *choice, struct toy_scene *seen,
              struct toy_scene *told);

void toy_caption(const struct toy_scene *told, char *text, size_t size); /* at most 96 bytes */
int64_t toy_captions(const struct toy_choice *choice); /* how many of them its kinds and split have */

/* 5 for the right caption; less 1 for a wrong size, 2 for a wrong direction, colour or shape, 3 for a wrong
 * kind; at least 1. */
int toy_adherence(const struct toy_scene *seen, const struct toy_scene *told);
int toy_physics(const struct toy_scene *seen); /* 5 when lawful, else 4 to 1 as the violation is stronger */

/* The bodies at evenly spaced moments from 0 to 1: at[frames * seen->bodies], a moment's
 * bodies side by side. */
void toy_simulate(const struct toy_scene *seen, int64_t frames, struct toy_body *at);

/* One moment as a picture: rgb [height, width, 3]. */
void toy_paint(const struct toy_body *body, int bodies, int64_t height, int64_t width, uint8_t *rgb);

struct toy_point {
    double x, y; /* NAN, NAN: not seen */
};

/* The motion of one colour in a video [frames, height, width, 3], found by hue; its centre in each frame goes to
 * at[frames]. Lengths: picture heights. */
struct toy_sight {
    double share;           /* of all pixels that have a colour */
    double dx;              /* to the right, from where it is first seen to where it is last seen */
    double drop;            /* from where it is first seen to its lowest position */
    enum toy_direction way; /* in which it first goes a fifth of the height; TOY_NOWHERE: in none */
};
struct toy_sight toy_look(const uint8_t *rgb, int64_t frames, int64_t height, int64_t width,
                          enum toy_colour colour, struct toy_point *at);

/* How far bodies seen at first[frames], and second[frames] where a second one is hit, are from the nearest lawful
 * course of their kind in a picture so wide: the root of the mean squared distance in picture heights, 0 to 0.5.
 * Start, speed, size and shape are those that fit best; a body that should be seen and is not is as far off as can
 * be. */
double toy_off(enum toy_kind kind, const struct toy_point *first, const struct toy_point *second,
               int64_t frames, double width);

#endif
