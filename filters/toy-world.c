/* toy-world - clips of a toy world's physics, lawful or not, with captions and true scores.
 *
 *   stdin   nothing
 *   stdout  records with video U8 [F,H,W,3], or with --captions JSON lines */
#include <stdlib.h>
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/toy/world.h"

static const char help[] =
    "toy-world - clips of a toy world's physics, with captions and true scores\n"
    "usage: toy-world [options] >clips\n"
    "       toy-world --captions [options] >prompts.jsonl\n"
    "      --count N        how many                                  [100]\n"
    "      --key TEXT       what their keys begin with                [toy]\n"
    "      --kinds LIST     of fall,bounce,roll,slide,throw,hit       [all of them]\n"
    "      --split NAME     all | train | test: no caption is in both of the latter two  [all]\n"
    "      --unlawful P     the share in which a law of physics is broken  [0]\n"
    "      --strong P       how strong such a violation is at least; true_pc is 3 or less from 0.26 on  [0]\n"
    "      --mismatch P     the share whose caption describes another scene  [0]\n"
    "      --frames N       of each clip; all clips last equally long   [17]\n"
    "      --size WxH                                                 [96x64]\n"
    "      --captions       the captions alone, as JSON lines         [off]\n"
    "      --distinct       no caption a second time before all of them came, a third before all came twice, ..;\n"
    "                       what is passed over keeps its number in the keys  [off]\n"
    "COMMON\n"
    "stdout  video U8 [F,H,W,3]; meta: caption, kind, colour, shape, direction (of what moves first), struck (the\n"
    "        colour of what it hits), violation (none, through, hover, gain, reverse, teleport, ghost), strength\n"
    "        (0 to 1), and true_sa and true_pc, 1 to 5\n"
    "values  a clip depends on the seed and its key alone\n"
    "exit    0 done, 1 something failed, 2 wrong usage\n"
    "e.g.    toy-world --count 8 --unlawful 0.5 | encode-mp4 -o toys --sheet toys.png >toys.jsonl\n"
    "see also: toy-check, encode-mp4, vae-encode\n";

static int64_t count = 100, frames = 17;
static const char *prefix = "toy", *kinds = "fall,bounce,roll,slide,throw,hit", *split = "all";
static struct size size = {96, 64};
static bool captions, distinct;
static struct toy_choice choice;

static const struct option_spec options[] = {
    {.name = "count", .kind = OPT_INT, .dest = &count, .high = 1e9},
    {.name = "key", .kind = OPT_TEXT, .dest = &prefix},
    {.name = "kinds", .kind = OPT_TEXT, .dest = &kinds, .setting = true},
    {.name = "split", .kind = OPT_CHOICE, .dest = &split, .choices = "all|train|test", .setting = true},
    {.name = "unlawful", .kind = OPT_REAL, .dest = &choice.unlawful, .high = 1, .setting = true},
    {.name = "strong", .kind = OPT_REAL, .dest = &choice.strong, .high = 1, .setting = true},
    {.name = "mismatch", .kind = OPT_REAL, .dest = &choice.mismatch, .high = 1, .setting = true},
    {.name = "frames", .kind = OPT_INT, .dest = &frames, .low = 2, .high = 1e4, .setting = true},
    {.name = "size", .kind = OPT_SIZE, .dest = &size, .setting = true},
    {.name = "captions", .kind = OPT_FLAG, .dest = &captions},
    {.name = "distinct", .kind = OPT_FLAG, .dest = &distinct, .setting = true},
    {0}};

static unsigned parse_kinds(const char *list)
{
    unsigned bits = 0;
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        int k = 0;
        while (k < TOY_KINDS && (strlen(toy_kind_names[k]) != n || strncmp(p, toy_kind_names[k], n))) k++;
        if (k == TOY_KINDS)
            usage_error("--kinds: `%.*s` is none of fall, bounce, roll, slide, throw, hit", (int)n, p);
        bits |= 1U << k;
        p += n;
        if (!*p) return bits;
    }
}

static void describe(json_t *meta, const struct toy_scene *seen, const struct toy_scene *told)
{
    char caption[96];
    toy_caption(told, caption, sizeof caption);
    json_object_set_new(meta, "caption", json_string(caption));
    json_object_set_new(meta, "kind", json_string(toy_kind_names[seen->kind]));
    json_object_set_new(meta, "colour", json_string(toy_colour_names[seen->body[0].colour]));
    json_object_set_new(meta, "shape", json_string(toy_shape_names[seen->body[0].shape]));
    json_object_set_new(meta, "direction", json_string(toy_direction_names[seen->direction]));
    if (seen->bodies == 2)
        json_object_set_new(meta, "struck", json_string(toy_colour_names[seen->body[1].colour]));
    if (captions) return;
    json_object_set_new(meta, "violation", json_string(toy_violation_names[seen->violation]));
    json_object_set_new(meta, "strength", json_real(seen->strength));
    json_object_set_new(meta, "true_sa", json_integer(toy_adherence(seen, told)));
    json_object_set_new(meta, "true_pc", json_integer(toy_physics(seen)));
}

/* false with the reason in f->error */
static bool render(struct record *f, const struct toy_scene *seen)
{
    struct tensor *video = record_add(f, "video", DT_U8, 4, frames, size.height, size.width, 3);
    struct toy_body *at = calloc((size_t)(frames * seen->bodies), sizeof *at);
    if (!at) die("no memory for %lld frames", (long long)frames);
    if (video) {
        toy_simulate(seen, frames, at);
        for (int64_t i = 0; i < frames; i++)
            toy_paint(at + i * seen->bodies, seen->bodies, size.height, size.width,
                      (uint8_t *)video->data + i * size.height * size.width * 3);
    }
    free(at);
    return video;
}

/* Whether a scene's caption has come since the last time that all of them had. */
static bool again(const struct toy_scene *told)
{
    static json_t *came;
    static int64_t all;
    char caption[96];
    if (!came) came = json_object(), all = toy_captions(&choice);
    toy_caption(told, caption, sizeof caption);
    if (json_object_get(came, caption)) return true;
    json_object_set_new(came, caption, json_true());
    if ((int64_t)json_object_size(came) == all) json_object_clear(came);
    return false;
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    struct toy_scene seen, told;
    for (int i = 1; i < argc; i++)
        captions |= !strcmp(argv[i], "--captions"); /* what comes out must be known first */
    filter_start(argc, argv, help, options, (captions ? FILTER_TEXT_OUT : FILTER_RECORDS_OUT) | FILTER_SEED);
    if (!*prefix) usage_error("--key is empty");
    if (captions && (choice.unlawful > 0 || choice.mismatch > 0))
        usage_error("--captions are of what is to be: neither --unlawful nor --mismatch");
    options_unfit("frames|size", captions, "--captions have none");
    options_unfit("strong", !(choice.unlawful > 0), "nothing is --unlawful");
    choice.kinds = parse_kinds(kinds);
    choice.split = !strcmp(split, "all") ? TOY_ALL : !strcmp(split, "train") ? TOY_TRAIN : TOY_TEST;
    filter_checked();

    for (int64_t i = 0, made = 0; made < count; i++) {
        json_t *key = json_sprintf("%s%05lld", prefix, (long long)i);
        if (!key) usage_error("--key is not UTF-8");
        record_new(&f, json_string_value(key));
        toy_draw((uint64_t)filter.seed, json_string_value(key), &choice, &seen, &told);
        json_decref(key);
        if (distinct && again(&told)) continue;
        made++;
        describe(record_meta(&f), &seen, &told);
        if (captions)
            filter_emit_line(filter_record_json(&f));
        else if (render(&f, &seen))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    record_free(&f);
    return filter_finish();
}
