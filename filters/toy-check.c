/* toy-check - does a toy clip show the colour and the movement that its caption names, and is it lawful?
 *
 *   stdin   video U8 [F,H,W,3] with meta colour, direction and kind, as toy-world gives them
 *   stdout  JSON lines: the record's key and meta, and what was found */
#include <stdlib.h>
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/toy/world.h"

static const char help[] =
    "toy-check - does a toy clip show the colour and the movement that its caption names, and is it lawful?\n"
    "usage: toy-check [options] <videos >found.jsonl\n"
    "      --least P        exit 1 unless at least this share shows both  [0]\n"
    "COMMON\n"
    "stdin   video U8 [F,H,W,3]; meta colour, direction and kind, and struck when something is hit, as toy-world gives them\n"
    "stdout  JSON lines: key, meta, and share (of the pixels with a colour, those of the one named), dx and drop (how far\n"
    "        it goes to the right and down, in picture heights), colour_right, direction_right (which way it first goes),\n"
    "        off (how far it is from the nearest lawful course of its kind, root mean square, in picture heights), and sa\n"
    "        and pc as a grader gives them, for `compare`: sa is 5, less 2 for a wrong colour and for a wrong direction;\n"
    "        pc is 5, 4, 3, 2 with off up to 0.03, 0.045, 0.08, 0.13, and 1 beyond\n"
    "stderr  how many have both right\n"
    "exit    0 checked, 1 a record failed or too few are right, 2 wrong usage\n"
    "e.g.    sample -m model <prompts.mp | vae-decode -m model | toy-check --least 0.7 >found.jsonl\n"
    "see also: toy-world, sample, vae-decode\n";

static double least;
static const struct option_spec options[] = {{.name = "least", .kind = OPT_REAL, .dest = &least, .high = 1},
                                             {0}};

/* Which of the names a meta field is; -1 with the reason in f->error. */
static int field_of(struct record *f, const char *field, const char *const *names)
{
    const char *text = record_text(f, field);
    for (int i = 0; text && names[i]; i++)
        if (!strcmp(text, names[i])) return i;
    snprintf(f->error, sizeof f->error, text ? "its %s is none of the toy world's" : "no %s in its meta",
             field);
    return -1;
}

static int physics(double off)
{
    static const double least[] = {0.13, 0.08, 0.045, 0.03}; /* of 1, 2, 3, 4 */
    int pc = 1;
    for (size_t i = 0; i < sizeof least / sizeof *least; i++) pc += off <= least[i];
    return pc;
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    int64_t checked = 0, right = 0;
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT);
    filter_checked();
    while (filter_next(&f)) {
        struct tensor *video = record_want(&f, "video", DT_U8, 4);
        int colour, way, kind, struck = 0;
        if (!video || (colour = field_of(&f, "colour", toy_colour_names)) < 0 ||
            (way = field_of(&f, "direction", toy_direction_names)) < 0 ||
            (kind = field_of(&f, "kind", toy_kind_names)) < 0 ||
            (kind == TOY_HIT && (struck = field_of(&f, "struck", toy_colour_names)) < 0)) {
            filter_fail(&f, "%s", f.error);
            continue;
        }
        const int64_t *n = video->shape;
        if (n[3] != 3) {
            filter_fail(&f, "its video has %lld channels, not 3", (long long)n[3]);
            continue;
        }
        struct toy_point *at = malloc(2 * (size_t)n[0] * sizeof *at);
        if (!at) die("no memory for %lld frames", (long long)n[0]);
        struct toy_sight sight = toy_look(video->data, n[0], n[1], n[2], (enum toy_colour)colour, at);
        if (kind == TOY_HIT) toy_look(video->data, n[0], n[1], n[2], (enum toy_colour)struck, at + n[0]);
        double off = toy_off((enum toy_kind)kind, at, at + n[0], n[0], (double)n[2] / (double)n[1]);
        free(at);
        bool colour_right = sight.share > (kind == TOY_HIT ? 0.25 : 0.5),
             direction_right = (int)sight.way == way;
        json_t *line = filter_record_json(&f);
        json_object_set_new(line, "share", json_real(sight.share));
        json_object_set_new(line, "dx", json_real(sight.dx));
        json_object_set_new(line, "drop", json_real(sight.drop));
        json_object_set_new(line, "colour_right", json_boolean(colour_right));
        json_object_set_new(line, "direction_right", json_boolean(direction_right));
        json_object_set_new(line, "off", json_real(off));
        json_object_set_new(line, "sa", json_integer(5 - 2 * !colour_right - 2 * !direction_right));
        json_object_set_new(line, "pc", json_integer(physics(off)));
        filter_emit_line(line);
        checked++;
        right += colour_right && direction_right;
    }
    record_free(&f);
    say(NULL, "%lld of %lld show the colour and the movement", (long long)right, (long long)checked);
    if ((double)right < least * (double)checked) die("that is less than --least %g", least);
    return filter_finish();
}
