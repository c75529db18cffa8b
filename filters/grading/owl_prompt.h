/* owl_prompt - what the VideoPhy-2 grader is asked, and how its answer is read. */
#ifndef GRADING_OWL_PROMPT_H
#define GRADING_OWL_PROMPT_H

#include <stdbool.h>

#include "filters/nets/owl.h" /* OWL_VIDEO */
#include "formats/tokenizer.h"

/* A picture or a video stands in the ids as a run of OWL_MEDIA_TOKENS of its code; the rows that the network
 * makes of it go there. */
enum { OWL_IMAGE = -1, OWL_MEDIA_TOKENS = 65 };
enum { OWL_SCORES = 6 }; /* 0 to 5 */

/* The folder's tokenizer.model; a random: preset's is the one among the examples. NULL with the reason in
 * err. */
struct tokenizer *owl_tokenizer_open(const struct model *m, char *err, size_t errlen);

/* A prompt's ids: <s> once, then each part between "<image>" and "<|video|>" as a text of its own, these two
 * as their runs; no </s>. *ids is the caller's to free. false: reason in err. */
bool owl_ids(const struct tokenizer *t, const char *prompt, int32_t **ids, int *count, char *err,
             size_t errlen);

/* The same of a task's prompt: "sa" (does the video match the caption `text`; 1 to 5), "pc" (does it adhere
 * to the laws of physics; 1 to 5; no text), "rule" (does it follow the rule `text`; 0 no, 1 yes, 2 cannot be
 * told). A text that a CSV reader of the grader's time took for a missing cell ("", "NA", "None", ..) is
 * asked for as "nan", as it was there. false: another task, no text, or one with a video in it. */
bool owl_prompt_ids(const struct tokenizer *t, const char *task, const char *text, int32_t **ids, int *count,
                    char *err, size_t errlen);

/* The field of a record that holds a task's text: "caption", "rule"; NULL: it has none. */
const char *owl_prompt_field(const char *task);

/* The ids of the digits 0 to 5, as they are in an answer. false: the tokenizer has none for one of them. */
bool owl_digit_ids(const struct tokenizer *t, int32_t id[OWL_SCORES], char *err, size_t errlen);

/* The score that an answer's text means, 0 to 5: the first of zero, one, .. five, 0, 1, .. 5 that is anywhere
 * in it ("10" is 0, "phone" is 1, "3 (two)" is 2). *fallback: there was none, and the 0 means nothing. */
int owl_score(const char *text, bool *fallback);

/* Which of a video's n >= 1 frames are looked at: index[0..segments), ascending. Halves go to the even
 * number, and the last frames are never reached. */
void owl_frames(int64_t n, int segments, int64_t *index);

#endif
