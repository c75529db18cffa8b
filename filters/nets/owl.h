/* owl - the VideoPhy-2 autograder's network, mPLUG-Owl-Video: a vision tower with local temporal
 * convolutions, a visual abstractor and a LLaMA decoder. It looks at a clip once and then answers any number
 * of prompts about it.
 *
 * One clip at a time; an answer depends on the clip and the prompt alone. */
#ifndef NETS_OWL_H
#define NETS_OWL_H

#include "filters/nets/weights.h"

struct owl;

/* What stands for the video in a prompt's ids (see owl_prompt.h). */
enum { OWL_VIDEO = -2 };

extern const struct network owl_grader;

/* exact_rope: rotary frequencies as they are; else rounded to BF16, as the published scores were made
 * (transformers 4.49 casts the buffer with the model). lora: a checkpoint to merge, or NULL: rank 32 and
 * alpha 32 on each of the decoder's projections, as one safetensors file. If it holds the frozen weights,
 * too, as upstream's does, then these are taken instead of the model's. NULL with the reason in err. */
struct owl *owl_open(struct kern *k, const struct model *m, bool exact_rope, const char *lora, char *err,
                     size_t errlen);
void owl_close(struct owl *o);
const char *owl_id(const struct owl *o);    /* 16 hex digits of configuration and weights */
int64_t owl_side(const struct owl *o);      /* frames are side x side pixels */
int64_t owl_video_ids(const struct owl *o); /* how many ids stand for a video: 65 */
int64_t owl_vocabulary(const struct owl *o);

/* Looks at a clip: frames U8 [T,side,side,3] RGB, T >= 2. Its embedding replaces the last clip's. On failure
 * kern_error() says why. */
bool owl_look(struct owl *o, const struct tensor *frames);

/* Greedy answer to a prompt about the clip: ids [n], with one run of owl_video_ids() times OWL_VIDEO; at most
 * max_new new ids are made, and it ends with the configuration's eos_token_id (2), which is not counted. A
 * prompt is read in three blocks: before, of and after the video. The first ones that it shares with the
 * prompt before are not computed again, which changes no bit of the answer. logits: room for max_new x
 * vocabulary floats, or NULL; row i is what id i was chosen by, and the row after the last id, if there is
 * room for it, what the end was chosen by. Of equal logits the smallest id wins; with `rounded` they are
 * rounded to BF16 first, as upstream compares them. Returns how many ids were made, -1 on failure with
 * kern_error(). */
int owl_answer(struct owl *o, const int32_t *ids, int n, int32_t *answer, float *logits, int max_new,
               bool rounded);

#endif
