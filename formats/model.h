/* model - a model folder as published on Hugging Face, or a preset with made-up weights.
 *
 *   DIR                   DIR/PART/config.json and weights: one NAME.safetensors, or NAME.safetensors.index.json
 *                         and its shards; NAME is `diffusion_pytorch_model` or `model`
 *   random:PRESET[:SEED]  configs from the preset folder (a model folder without weights), weights made up in
 *                         memory from the seed (default 0). PRESET is a name below examples/presets, or a path
 *                         holding '/'.
 *
 * Parts: transformer, vae, text_encoder, tokenizer, scheduler; "" is the folder itself, for a model whose
 * config and weights lie at its top, as the grader's do. */
#ifndef FORMATS_MODEL_H
#define FORMATS_MODEL_H

#include <jansson.h>

/* What every network needs of formats/ comes with this header. */
#include "formats/crc32c.h"
#include "formats/error.h"
#include "formats/hash.h"
#include "formats/names.h"
#include "formats/safetensors.h"

struct model {
    char *folder;  /* where the configs are */
    bool random;   /* no weights on disk */
    uint64_t seed; /* of random weights */
};

/* NULL with the reason in err. Opens nothing but checks that the folder is there. */
struct model *model_open(const char *name, char *err, size_t errlen);
void model_close(struct model *m);

/* PART/config.json (scheduler: scheduler_config.json) as an object; NULL with the reason in err. Caller
 * decrefs. */
json_t *model_config(const struct model *m, const char *part, char *err, size_t errlen);
/* model_index.json, what the pipeline itself is set to: an object, empty when there is no such file. NULL: reason in
 * err. Caller decrefs. */
json_t *model_index(const struct model *m, char *err, size_t errlen);
/* Whether the folder has a folder for that part. */
bool model_has_part(const struct model *m, const char *part);
/* The path of a file of the folder, e.g. "tokenizer/spiece.model"; false when it is not there. A random:
 * preset without it falls back to data_path() of the same name. */
bool model_file(const struct model *m, const char *relative, char *path, size_t size, char *err,
                size_t errlen);

/* All weight files of one part. */
struct model_weights {
    int shards, count;
    struct safetensors **shard;
    struct model_tensor { /* sorted by name */
        const char *name;
        struct safetensors *file;
        const struct safetensors_entry *entry;
    } * tensor;
};
/* Opens one file or the index's shards, and checks the index against what the shards hold, both ways. Two
 * candidates side by side are refused, and so are pickles (.bin, .pt): they are programs, and are never
 * executed. */
struct model_weights *model_weights_open(const struct model *m, const char *part, char *err, size_t errlen);
/* One file by itself. */
struct model_weights *model_weights_open_file(const char *path, char *err, size_t errlen);
void model_weights_close(struct model_weights *w);
const struct model_tensor *model_weights_find(const struct model_weights *w, const char *name);

/* Where the program's own data lies (examples/ of the source tree, or share/sluice when installed): in
 * $SLUICE_DATA when that is set, else the first that exists of ../examples, ../share/sluice and
 * ../../../examples (a sanitizer build) beside the program's folder. */
bool data_path(const char *relative, char *path, size_t size);

/* Reading a config: the first problem sticks in `error`, named by file and field, so a whole config is read
 * with one check at the end. */
struct config {
    json_t *json;
    const char *file;
    char error[256];
};
int64_t config_int(struct config *c, const char *key, int64_t low, int64_t high); /* required */
int64_t config_int_or(struct config *c, const char *key, int64_t low, int64_t high,
                      int64_t otherwise); /* absent or null */
double config_real_or(struct config *c, const char *key, double otherwise);
bool config_bool_or(struct config *c, const char *key, bool otherwise);
const char *config_text_or(struct config *c, const char *key, const char *otherwise);
int config_ints(struct config *c, const char *key, int64_t *values, int max); /* how many; each >= 1 */
/* The field, if present and not null, must have this value: options that a 1.0 model does not have are
 * refused by name. */
void config_expect(struct config *c, const char *key, json_t *value_stolen);

#endif
