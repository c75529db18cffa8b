/* grader - the VideoPhy-2 grader as a whole: a video in, scores with their reasons out.
 *
 * One video at a time: it is looked at once, and any number of tasks are asked about it. What is answered
 * depends on the video, the task and its text alone. */
#ifndef GRADING_GRADER_H
#define GRADING_GRADER_H

#include <jansson.h>

#include "filters/nets/owl.h"
#include "filters/grading/owl_prompt.h"

struct grader;

/* Upstream's max_length: prompt and answer together. It gives no answer to a prompt that is as long. */
enum { GRADER_LENGTH = 256 };
enum { GRADER_TASKS = 3 };

struct grader_settings {
    int64_t frames; /* that are looked at, at least 2 */
    int64_t
        max_new; /* ids of an answer, at most; 0: what the prompt leaves of GRADER_LENGTH, as upstream, and
                          GRADER_LENGTH where it leaves nothing */
    bool exact_frames; /* of a file: VIDEO_TRIANGLE; else VIDEO_PLAIN, as upstream */
    bool exact_rope;   /* owl_open() */
    bool exact_logits; /* owl_answer(): not rounded before they are compared */
    const char *lora;  /* owl_open(); or NULL */
};

/* NULL with the reason in err. */
struct grader *grader_open(struct kern *k, const struct model *m, const struct grader_settings *s, char *err,
                           size_t errlen);
void grader_close(struct grader *g); /* NULL is fine */
const char *grader_id(const struct grader *g);

/* What is looked at of a video file, or of a video U8 [F,H,W,3] RGB (by resize_triangle()): owl_frames() of it,
 * stretched to the network's square, into frames U8 [frames,side,side,3]. Several threads may do so at once. false:
 * reason in err. */
bool grader_frames_file(const struct grader *g, const char *path, struct tensor *frames, char *err,
                        size_t errlen);
bool grader_frames(const struct grader *g, const struct tensor *video, struct tensor *frames, char *err,
                   size_t errlen);
int64_t grader_side(const struct grader *g);

/* Looks at them. false: reason in err. */
bool grader_look(struct grader *g, const struct tensor *frames, char *err, size_t errlen);

/* The answers to tasks about the video. text is the task's caption or rule (owl_prompt_ids()). p: of the six
 * digits, where the answer's first one stands, after a softmax over the whole vocabulary; expected:
 * Σ d p_d / Σ p_d. There may be no digit in it: `digit` is false. */
struct verdict {
    int score;
    bool fallback, digit; /* owl_score() */
    double p[OWL_SCORES], expected;
    char *text; /* the caller frees */
    int prompt; /* how many ids it has */
};
/* Of `count` tasks at once, at most GRADER_TASKS, each with its text: verdict i is that of task i alone. After a failure
 * none has a text. */
bool grader_ask(struct grader *g, int count, const char *const *task, const char *const *text,
                struct verdict *v, char *err, size_t errlen);

/* Adds what a verdict says to a graded line, under names that begin with its task (graded.h); text: as it was asked
 * about. false: out of memory. */
bool verdict_tell(const struct verdict *v, const char *task, const char *text, json_t *line);

#endif
