/* scores - a grader's scores of videos, run by run, in the forms in which they come:
 *
 *   FILE                 JSON lines of `grade`: key, sa and pc from 0 to 5; where they are, sa_expected,
 *                        pc_expected, prompt_id, seed, path, caption, action, sample. The run is called by
 *                        the file's name without folder and ending.
 *   NAME=FILE            the same under another name
 *   FILE                 a CSV with the columns variant (the run), prompt_id or key, sa, pc; where they are,
 *                        both of the former, sa_expected, pc_expected, seed, path, caption, action
 *   NAME=SA.csv,PC.csv   the grader's own form, `,caption,videopath,score`, joined on videopath; the key is
 *                        that file's name without folder and ending, or the path where these are not unique
 *   FILE                 published results: one JSON object with `prompts`, and in `variants`, by name, the
 *                        lists sa_per_prompt and pc_per_prompt. joint_per_prompt must agree with them where
 *                        it is; stored percentages and means are ignored.
 *
 * The first bytes of a file decide its form. A bare NaN, which Python writes and JSON does not allow, is
 * null.
 *
 * A score belongs to a prompt: its prompt_id, or its key when it has none. Several scores of one prompt are
 * repeats; they differ in key, or in `seed` (or sample.seed). The same key and seed again is an error.
 *
 * What else a line, a row of a CSV or an item of `prompts` says is a field of its prompt, if it is a text, a
 * number, true or false. One run may tell it for all. */
#ifndef FORMATS_SCORES_H
#define FORMATS_SCORES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct score {
    char *prompt, *key;
    char *path; /* of the video, or NULL */
    int sa, pc;
    double sa_expected, pc_expected; /* NaN: not known */
};
struct variant {
    char *name, *source; /* source: the operand it is from */
    struct score *score;
    size_t count;
    json_t *about; /* an object: label, params_M, step_s of published results; else as the first of ways, and
                      use_upsampled_captions where its lines state it */
    json_t *ways;  /* how its videos were made and graded, from JSON lines: a list of
                      {"settings": an object, "outputs": how many lines have these settings} */
    json_t *seen;  /* keys and seeds */
};
struct scores {
    struct variant *variant;
    int count;
    json_t
        *prompts; /* by prompt: its fields as texts, caption and action among them, the first that was told */
    json_t *fields; /* the names of all: null, or a sentence on a prompt of which two things are told */
    json_t *about;  /* other fields of published results, as they were; else NULL */
};

/* Adds the operand's scores to s, which starts as {0}. An operand that is the name of a file is that file;
 * otherwise the first = ends NAME, and the first comma after it SA.csv. false with the reason, which names
 * file and line, in err: s is then only to be freed. */
bool scores_read(struct scores *s, const char *operand, char *err, size_t errlen);
/* NAME=LIST.jsonl: the videos of a run that has been read, in lines with key and path, as encode-mp4 lists
 * them. Scores get the paths of their keys; the run gets the settings of its videos. false with the reason in
 * err. */
bool scores_add_videos(struct scores *s, const char *operand, char *err, size_t errlen);

/* The prompt's text for a field, numbers as they are written; NULL: nobody told. */
const char *scores_field(const struct scores *s, const char *prompt, const char *field);
/* Whether two such texts are equal, or numbers that are: 1.0 of a CSV is 1 of JSON. */
bool scores_same(const char *a, const char *b);
/* Whether it is a field of the prompts, and one for all runs. Otherwise false with the reason in err: which
 * fields there are, or a prompt of which two things are told. */
bool scores_check_field(const struct scores *s, const char *field, char *err, size_t errlen);
/* Leaves the scores of the prompts whose field is value (or that have none, where value is empty). false with the
 * reason in err: no such field, or no prompt with this value, and then which there are. */
bool scores_keep(struct scores *s, const char *field, const char *value, char *err, size_t errlen);

void scores_free(struct scores *s);

struct variant *scores_find(const struct scores *s, const char *name); /* or NULL */
/* The same, with the reason in err: which there are. */
struct variant *scores_need(const struct scores *s, const char *name, char *err, size_t errlen);

#endif
