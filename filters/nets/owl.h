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

/* A prompt about the clip, and its greedy answer. In ids there is one run of owl_video_ids() times OWL_VIDEO. At
 * most max_new new ids are made; the answer ends with the configuration's eos_token_id (2), which is not counted.
 * Row i of logits is what id i was chosen by, and the row after the last id, if there is room for it, what the end
 * was chosen by. */
struct owl_question {
    const int32_t *ids; /* [n] */
    int n, max_new;
    int32_t *answer; /* [max_new] */
    float *logits;   /* [max_new,vocabulary], or NULL */
    int made;        /* how many ids the answer has */
};

/* Answers questions that begin alike, up to their video's end. What they share is read once; a GPU reads the rest
 * of them together, and their answers id by id likewise, so that the weights are fetched once for all. What comes
 * before the video is kept for the next call. An answer's bits depend on none of this. Of equal logits the smallest
 * id wins; with `rounded` they are rounded to BF16 first, as upstream compares them. false: kern_error() says why. */
bool owl_answer(struct owl *o, struct owl_question *q, int count, bool rounded);

#endif
