/* families - which networks there are, and how a model folder says which of them it holds.
 *
 * A part of the folder names its class in its config.json: `_class_name` in what diffusers wrote (transformer/,
 * vae/), `model_type` in what transformers wrote (text_encoder/, and a grader, whose config lies at the top).
 * A family is one row of families.c; a part that it does not have is NULL there. */
#ifndef NETS_FAMILIES_H
#define NETS_FAMILIES_H

#include "filters/nets/autoencoder.h"
#include "filters/nets/denoiser.h"
#include "filters/nets/text_encoder.h"

struct family {
    const struct denoiser_kind *denoiser;
    const struct autoencoder_kind *autoencoder;
    const struct text_encoder_kind *text_encoder;
    const struct network *grader;
};
extern const struct family families[];
extern const int family_count;

enum part_kind { PART_DENOISER, PART_AUTOENCODER, PART_TEXT_ENCODER, PART_GRADER };

/* The network of the class that a part's config names. NULL with the reason in err: none of that name is known,
 * and which are. A config that names none is of the first family that has such a part. */
const struct network *network_find(enum part_kind part, json_t *config, const char *file, char *err,
                                   size_t errlen);

/* Latents and texts of two families may have the same shape, so records say whose they are: meta.vae_class and
 * meta.text_encoder_class are the class of the part of that family which made them, or reads them. Those of the first
 * family say nothing, as when there was no other.
 * `of` is a network of the family, part PART_AUTOENCODER (for latents) or PART_TEXT_ENCODER. */
void family_sign(json_t *meta, enum part_kind part, const struct network *of);
/* false, with both classes after `name` in err: it is another family's. What no program here has made, and so has no
 * vae, sample or text_encoder in meta, is taken for the right one; so is all by a family without such a part. */
bool family_reads(const json_t *meta, enum part_kind part, const struct network *of, const char *name,
                  char *err, size_t errlen);

/* One part of a model folder. */
struct part {
    enum part_kind kind;
    const char *folder, *title; /* folder: "" for the model's own; title: for people */
};
/* The parts whose weights a model folder holds: three, or four with a second transformer, or the grader alone, whose config lies at the top. A
 * config.json there is a grader's when its `model_type` is, or when the folder has no other part. */
const struct part *model_parts(const struct model *m, int *count);

/* Adds every parameter that the part's config calls for to list. The part's network, or NULL with the reason in
 * err. */
const struct network *part_declare(struct params *list, const struct model *m, const struct part *part,
                                   char *err, size_t errlen);

#endif
