/* toy-check - does a toy clip show the colour and the movement that its caption names?
 *
 *   stdin   video U8 [F,H,W,3] with meta colour, direction and kind, as toy-world gives them
 *   stdout  JSON lines: the record's key and meta, and what was found */
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/toy/world.h"

static const char help[] =
    "toy-check - does a toy clip show the colour and the movement that its caption names?\n"
    "usage: toy-check [options] <videos >found.jsonl\n"
    "      --least P        exit 1 unless at least this share shows both  [0]\n"
    "COMMON\n"
    "stdin   video U8 [F,H,W,3]; meta colour, direction and kind, as toy-world gives them\n"
    "stdout  JSON lines: key, meta, and share (of the pixels with a colour, those of the one named), dx and drop (how far\n"
    "        it goes to the right and down, in picture heights), colour_right, direction_right\n"
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

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    int64_t checked = 0, right = 0;
    filter_start(argc, argv, help, options, FILTER_TEXT_OUT);
    filter_checked();
    while (filter_next(&f)) {
        struct tensor *video = record_want(&f, "video", DT_U8, 4);
        int colour, way, kind;
        if (!video || (colour = field_of(&f, "colour", toy_colour_names)) < 0 ||
            (way = field_of(&f, "direction", toy_direction_names)) < 0 ||
            (kind = field_of(&f, "kind", toy_kind_names)) < 0) {
            filter_fail(&f, "%s", f.error);
            continue;
        }
        const int64_t *n = video->shape;
        if (n[3] != 3) {
            filter_fail(&f, "its video has %lld channels, not 3", (long long)n[3]);
            continue;
        }
        struct toy_sight sight = toy_look(video->data, n[0], n[1], n[2], (enum toy_colour)colour);
        bool colour_right = sight.share > (kind == TOY_HIT ? 0.25 : 0.5), direction_right = sight.moves[way];
        json_t *line = filter_record_json(&f);
        json_object_set_new(line, "share", json_real(sight.share));
        json_object_set_new(line, "dx", json_real(sight.dx));
        json_object_set_new(line, "drop", json_real(sight.drop));
        json_object_set_new(line, "colour_right", json_boolean(colour_right));
        json_object_set_new(line, "direction_right", json_boolean(direction_right));
        filter_emit_line(line);
        checked++;
        right += colour_right && direction_right;
    }
    record_free(&f);
    say(NULL, "%lld of %lld show the colour and the movement", (long long)right, (long long)checked);
    if ((double)right < least * (double)checked) die("that is less than --least %g", least);
    return filter_finish();
}
