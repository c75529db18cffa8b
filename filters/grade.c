/* grade - what the VideoPhy-2 grader says of videos.
 *
 *   stdin   JSON lines with `path`, or records with video U8 [F,H,W,3]; and `caption` for sa, `rule` for rule
 *   stdout  JSON lines: what came in, and for each task T its score T with T_text, T_probs and so on */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/compute.h"
#include "filters/lib/filter.h"
#include "filters/grading/grader.h"
#include "formats/graded.h"

static const char help[] =
    "grade - score videos with the VideoPhy-2 grader\n"
    "usage: grade -m DIR [options] <videos >graded.jsonl\n"
    "  -m, --model DIR      the grader's folder, or random:PRESET                  required\n"
    "      --task LIST      of sa (does it show the caption, 1 to 5), pc (is it physical, 1 to 5), rule (does it\n"
    "                       follow the rule, 0 no, 1 yes, 2 cannot be told), with commas between     [sa,pc]\n"
    "      --frames N       of a video that are looked at, at least 2                                [32]\n"
    "      --frames-from HOW    upstream | exact: how a file's frames are scaled                     [upstream]\n"
    "      --max-new-tokens N   of an answer, at most     [what the prompt leaves of 256, as upstream]\n"
    "      --rope HOW       bf16 | exact: rotary frequencies rounded, as for the published scores    [bf16]\n"
    "      --logits HOW     rounded | exact: to BF16 before the largest is taken, likewise           [rounded]\n"
    "      --lora FILE      a LoRA checkpoint to merge into the decoder                              [none]\n"
    "      --csv FILE       at the end, the scores as upstream writes them, in the input's order; of several\n"
    "                       tasks FILE.csv becomes FILE.TASK.csv                                     [none]\n"
    "      --columns LIST   of the CSV, such as caption,videopath   [the input's, but for key, in its order]\n"
    "      --done FILE      lines of an earlier run: what they hold is not graded again. It may be what stdout\n"
    "                       is appended to, by one grade at a time; a line that was cut off there is\n"
    "                       removed, and equal lines count once                                      [none]\n"
    "COMMON\n"
    "stdin   JSON lines with `path`, or records with video U8 [F,H,W,3], RGB; each with `caption` for sa, `rule`\n"
    "        for rule; one that is empty, NA, null or nan is asked as \"nan\", as upstream. A `key` tells lines of\n"
    "        one path apart. Frames are spread over the video and stretched to the network's square: of a file\n"
    "        as upstream's reader (decord) does it, to the byte, one level darker than exact; turned clips by the\n"
    "        angle alone, mirroring left out; of a record, and with --frames-from exact, exactly\n"
    "stdout  JSON lines: the record's fields, and for each task T: T (0 to 5), T_text (the answer), T_probs (of\n"
    "        the digits 0 to 5 where the answer's first one stands), T_expected (their mean), T_fallback (the\n"
    "        answer meant nothing, and counts 0); no digit: T_probs and T_expected are null. `rule_asked` keeps\n"
    "        the rule, whose place its score takes; T_too_long: the prompt has 256 tokens or more, where upstream\n"
    "        has no score; `grade` says how it was graded, its dtype what was computed in\n"
    "CSV     rows numbered, the input's columns with path as videopath, the score. NA, null, nan and the like are\n"
    "        empty, as upstream. What fails has no row, and bare carriage returns are quoted: upstream stops at\n"
    "        the one and loses the other. A cell that begins with = + - or @ is written as it is: a\n"
    "        spreadsheet may run it as a formula, so import captions of strangers as text\n"
    "exit    0 every video graded, 1 something failed, a duplicate key included, 2 wrong usage\n"
    "e.g.    grade -m videophy_2_auto --task sa,pc --done k1.jsonl <videos.jsonl >>k1.jsonl\n"
    "see also: encode-mp4, compare\n";

static const char *task_list = "sa,pc", *rope = "bf16", *logits = "rounded", *frames_from = "upstream", *csv,
                  *columns, *done_path;
static const char *task[GRADER_TASKS + 1]; /* those of the list, then NULL */
static struct grader_settings set = {.frames = 32};

static const struct option_spec options[] = {
    {.name = "task", .kind = OPT_TEXT, .dest = &task_list},
    {.name = "frames", .kind = OPT_INT, .dest = &set.frames, .low = 2, .high = 4096, .setting = true},
    {.name = "max-new-tokens",
     .kind = OPT_INT,
     .dest = &set.max_new,
     .low = 1,
     .high = 2048,
     .setting = true},
    {.name = "frames-from",
     .kind = OPT_CHOICE,
     .dest = &frames_from,
     .choices = "upstream|exact",
     .setting = true},
    {.name = "rope", .kind = OPT_CHOICE, .dest = &rope, .choices = "bf16|exact", .setting = true},
    {.name = "logits", .kind = OPT_CHOICE, .dest = &logits, .choices = "rounded|exact", .setting = true},
    {.name = "lora", .kind = OPT_TEXT, .dest = &set.lora, .setting = true},
    {.name = "csv", .kind = OPT_TEXT, .dest = &csv},
    {.name = "columns", .kind = OPT_TEXT, .dest = &columns},
    {.name = "done", .kind = OPT_TEXT, .dest = &done_path},
    {0}};

static struct grader *grader;
static json_t *how, *done, *seen; /* provenance; lines of --done, and all keys of the input, by key */
static struct graded_csv table[GRADER_TASKS];
static char err[1024];

static void settle_tasks(void)
{
    static const char *const known[GRADER_TASKS] = {"sa", "pc", "rule"};
    const char *at = task_list;
    for (int n = 0;; n++) {
        size_t length = strcspn(at, ",");
        int k = 0;
        while (k < GRADER_TASKS && (strlen(known[k]) != length || strncmp(known[k], at, length))) k++;
        if (k == GRADER_TASKS) usage_error("--task is a list of sa, pc and rule, not `%s`", task_list);
        for (int i = 0; i < n; i++)
            if (task[i] == known[k]) usage_error("--task names %s twice", known[k]);
        task[n] = known[k];
        if (!at[length]) return;
        at += length + 1;
    }
}

/* What was done before. When stdout goes on behind it, a line that was cut off is cut away. */
static void take_up(void)
{
    int64_t whole, half;
    bool same;
    if (!graded_lock(1, done_path, &same, err, sizeof err) ||
        !(done = graded_read(done_path, how, task, &whole, &half, err, sizeof err)))
        die("%s", err);
    say(done_path, "%zu done before", json_object_size(done));
    if (half)
        say(done_path, "its last line was cut off after %lld bytes and does not count", (long long)half);
    if (same && half && ftruncate(1, whole)) die("%s: %s", done_path, strerror(errno));
}

/* Its frames as a tensor of the record, which its line does not tell of. In a thread of its own. */
static const char seen_frames[] = "grade.frames";
static bool look(struct record *f)
{
    const char *path = record_text(f, "path"), *field;
    const int64_t side = grader_side(grader);
    char why[sizeof f->error] = "";
    if (json_object_get(done, record_key(f))) return true;
    for (int i = 0; task[i]; i++)
        if ((field = owl_prompt_field(task[i])) && !record_text(f, field))
            return snprintf(f->error, sizeof f->error, "no `%s`, which %s asks about", field, task[i]), false;
    struct tensor *frames = record_add(f, seen_frames, DT_U8, 4, set.frames, side, side, 3);
    if (!frames) return false;
    const struct tensor *video = record_find(f, "video");
    bool good = video           ? grader_frames(grader, video, frames, why, sizeof why)
                : path && *path ? grader_frames_file(grader, path, frames, why, sizeof why)
                                : (snprintf(why, sizeof why, "neither a video nor a `path` to one"), false);
    if (!good) memcpy(f->error, why, sizeof why);
    return good;
}

/* The record's line; NULL with the reason in err. */
static json_t *grade(struct record *f)
{
    struct verdict v[GRADER_TASKS];
    const char *text[GRADER_TASKS], *field;
    int count = 0;
    for (; task[count]; count++)
        text[count] = (field = owl_prompt_field(task[count])) ? record_text(f, field) : NULL;
    if (!grader_look(grader, record_find(f, seen_frames), err, sizeof err) ||
        !grader_ask(grader, count, task, text, v, err, sizeof err))
        return NULL;
    json_t *line = filter_record_json(f);
    for (int i = 0; i < count; i++) {
        if (!verdict_tell(&v[i], task[i], text[i], line)) die("out of memory");
        if (v[i].prompt >= GRADER_LENGTH)
            say(record_key(f), "its prompt for %s has %d tokens: upstream has no score from %d on", task[i],
                v[i].prompt, GRADER_LENGTH);
        free(v[i].text);
    }
    if (json_object_set(line, "grade", how)) die("out of memory");
    return line;
}

/* An earlier run's line, when it is of this record; else NULL and why in err. */
static json_t *taken_up(struct record *f, json_t *line)
{
    const char *field;
    if (graded_is_of(line, record_meta(f), &field)) return json_incref(line);
    snprintf(err, sizeof err, "%s has it with another `%s`", done_path, field);
    return NULL;
}

/* looked: there are its frames, or a line of it. */
static void take(struct record *f, bool looked)
{
    json_t *before = json_object_get(done, record_key(f));
    if (json_object_get(seen, record_key(f))) {
        filter_fail(f, "duplicate key: the first one counts (a `key` of its own tells a line apart)");
        return;
    }
    if (json_object_set_new(seen, record_key(f), json_true())) die("out of memory");
    json_t *line = before ? taken_up(f, before) : looked ? grade(f) : NULL;
    if (!line) {
        filter_fail(f, "%s", looked ? err : f->error);
        return;
    }
    for (int i = 0; csv && task[i]; i++) {
        int score = (int)json_integer_value(json_object_get(line, task[i]));
        if (!graded_csv_add(&table[i], record_key(f), record_meta(f), score)) die("out of memory");
    }
    if (before)
        json_decref(line);
    else
        filter_emit_line(line);
}

/* How it is graded, for every line. */
static void describe(const struct kern *k)
{
    how = json_pack("{s:s, s:s}", "version", SLUICE_VERSION, "model", grader_id(grader));
    json_object_update(how, filter.settings);
    json_object_del(how, "seed"); /* nothing is drawn */
    int bad = json_object_set_new(how, "dtype", json_string(kern_compute(k) == DT_F32 ? "f32" : "bf16"));
    if (!set.max_new) bad |= json_object_set_new(how, "max-new-tokens", json_null());
    if (bad) die("out of memory");
}

static void write_tables(void)
{
    if (csv && graded_csv_lacks(&table[0], err, sizeof err))
        say(csv, "no record has `%s`: its column is empty", err);
    for (int i = 0; csv && task[i]; i++)
        if (!graded_csv_commit(&table[i], err, sizeof err)) die("--csv %s", err);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_COMPUTE | FILTER_TEXT_OUT | FILTER_NEEDS_MODEL);
    settle_tasks();
    if (columns && !csv) usage_error("--columns is of the --csv");
    filter_checked();
    for (int i = 0; csv && task[i]; i++)
        if (!graded_csv_open(&table[i], csv, task[i], task[1] != NULL, columns, err, sizeof err))
            die("--csv %s", err);
    set.exact_frames = !strcmp(frames_from, "exact");
    set.exact_rope = !strcmp(rope, "exact"), set.exact_logits = !strcmp(logits, "exact");

    struct model *m = model_open(filter.model, err, sizeof err);
    if (!m) die("%s", err);
    struct kern *k = compute_open();
    if (!(grader = grader_open(k, m, &set, err, sizeof err))) die("%s: %s", filter.model, err);
    describe(k);
    seen = json_object();
    if (done_path) take_up();

    const int64_t side = grader_side(grader);
    filter_side_by_side(filter_clips_at_once(filter.threads, set.frames * side * side * 3), look, take);
    write_tables();

    json_decref(how), json_decref(done), json_decref(seen);
    grader_close(grader);
    compute_close(k);
    model_close(m);
    return filter_finish();
}
