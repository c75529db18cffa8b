/* adapter_source - an adapter's file: its form, what stands in its header, and that header and tensors agree.
 *
 * Any number of places may state rank, alpha and targets: our header, PEFT's in three places, fields by themselves,
 * tensors. All must agree. What nothing states is taken from the tensors. */
#ifndef LEARNING_ADAPTER_SOURCE_H
#define LEARNING_ADAPTER_SOURCE_H

#include "filters/learning/adapter_build.h"
#include "filters/learning/adapter_form.h"

struct adapter_source {
    char path[4096]; /* of the file, in the folder where a folder was named */
    struct safetensors *file;
    struct adapter_form form;
    json_t *ours;             /* what stands under `sluice`; NULL: the file has none */
    struct adapter_spec spec; /* what has been stated; rank, alpha 0 and no targets: not stated yet */
    struct adapter_base base;
    struct adapter *adapter; /* what it describes, without values */
};

/* The file, or the one in a folder as PEFT or diffusers save one: which it is, and with config PEFT's
 * adapter_config.json beside it (the caller's to free), or NULL. NULL: reason in err. */
struct safetensors *adapter_file_open(char file[4096], const char *path, json_t **config, char *err,
                                      size_t errlen);

/* The same, opened as an adapter of base. All names, shapes and dtypes are checked, and no value is read. false: reason
 * in err, and there is nothing to close. */
bool adapter_source_open(struct adapter_source *h, const char *path, struct adapter_base base, char *err,
                         size_t errlen);
void adapter_source_close(struct adapter_source *h);
/* Parameter p of a module; NULL: it is not there, or of another shape (reason in err). */
const struct safetensors_entry *adapter_source_find(const struct adapter_source *h, int module, int p,
                                                    char *err, size_t errlen);
/* Its values as F32, every one finite; false: reason in err. */
bool adapter_source_read(const struct adapter_source *h, const struct safetensors_entry *e, float *values,
                         char *err, size_t errlen);

/* What the header of a file says of an adapter: under `sluice` a description, and for PEFT its LoraConfig. Both are
 * JSON in a text. */
void adapter_header_ours(json_t *metadata, json_t *description_stolen);
void adapter_header_peft(json_t *metadata, const struct adapter *a);
/* Whether a field of a header says anything of an adapter's kind, rank, alpha or targets. */
bool adapter_header_states(const char *key);

#endif
