/* weights - what a network says about its parameters, once: names, shapes, initial values and where they go.
 *
 * From that one list come loading with every name and shape checked, random models, model-init's files,
 * listings and counts without an allocation. */
#ifndef NETS_WEIGHTS_H
#define NETS_WEIGHTS_H

#include "formats/model.h"
#include "kernels/kernels.h"

struct param {
    char name[160];
    struct tensor shape;  /* as in the file; F32, data NULL */
    double mean, std;     /* of random initial values (std 0: constant) */
    bool channels_last;   /* a convolution: stored [out,in,k..], wanted [out,k..,in] */
    bool f32;             /* F32 on the device, too, whatever it computes in */
    int64_t outer, inner; /* not 0: rows stored [outer,inner,n], wanted [inner,outer,n]; see param_swap() */
    int64_t part, parts;  /* with parts > 0 the slot holds so many tensors of this shape, rows after rows, and
                            this one is its part-th; every one of them has its own param */
    struct tensor *slot;  /* filled at load; NULL: only checked, or a mere listing */
    struct tensor
        *scale; /* F32 [rows] of a matrix, filled where the device holds FP8, see fp8_rows(): slot has the
                             codes then. NULL: it is never held so */
};

struct params {
    struct param *param;
    int count, capacity;
    bool failed;          /* out of memory, or a name too long: said when the list is used */
    struct param nowhere; /* what param_add() returned then */
};

/* E.g. param_add(&list, &w->bias, shape_of(1, width), 0, 0.1, "norm.%d.bias", i). Returns the new entry,
 * never NULL, so that a caller may set channels_last; it is good until the next call. */
struct param *param_add(struct params *list, struct tensor *slot, struct tensor shape, double mean,
                        double std, const char *name_fmt, ...) __attribute__((format(printf, 6, 7)));
#define shape_of(...) tensor_of(DT_F32, NULL, __VA_ARGS__)
/* The part-th of so many that share p's slot, rows after rows. */
void param_part(struct param *p, int64_t part, int64_t parts);
/* p's rows are stored [outer,inner,n], as many as there are, and wanted [inner,outer,n]: with so many heads and 3, q, k
 * and v of each head stand together in the file and apart on the device. */
void param_swap(struct param *p, int64_t outer, int64_t inner);
void params_free(struct params *list);
int64_t params_count(const struct params *list); /* elements of all of them */

/* A class of network, as a part of a model folder holds it: what reads its config and lists its parameters, once
 * for loading, random models, listings and counts. `net` is the network's own struct, zero before. */
struct network {
    const char *class_name;   /* as its config.json has it */
    const char *file;         /* of its weights, without ending, when they are written */
    enum dtype dtype;         /* that they are written in */
    const char *const *alias; /* tensors that its files may hold besides; see weights_load(); may be NULL */
    size_t size;              /* of net */
    /* Fills in what config says; `file` is its name, for messages. What it cannot do: false, named in err. */
    bool (*configure)(void *net, json_t *config, const char *file, char *err, size_t errlen);
    /* Adds every parameter, with slots in net. */
    void (*params)(struct params *list, void *net);
};
/* Adds every parameter that a config calls for, without slots: for listings and counts. false: reason in err. */
bool network_declare(const struct network *n, struct params *list, json_t *config, const char *file,
                     char *err, size_t errlen);
/* A new net, configured, for the caller to free. NULL: reason in err. */
void *network_new(const struct network *n, json_t *config, const char *file, char *err, size_t errlen);
/* Loads a part of the model into it. parameters: how many numbers its weights are; may be NULL, as may id, for
 * which see weights_load(). false: reason in err. */
bool network_load(const struct network *n, void *net, struct kern *k, const struct model *m, const char *part,
                  int64_t *parameters, char id[17], char *err, size_t errlen);
/* Its shapes alone, with no data: enough to plan. */
bool network_shapes(const struct network *n, void *net, int64_t *parameters, char *err, size_t errlen);

/* Fill every slot with device memory in the device's compute dtype, or in F32 where the parameter asks for it, or in FP8
 * where that has a scale and the device holds FP8, rounded to the compute dtype first:
 * from files, whose tensors may be F32, F16 or BF16, or made up when the model is random:. A tensor that is missing,
 * extra (but for `alias`, which may be present: NULL-terminated list, * stands for anything, may be NULL) or
 * has another shape is named in the error, and so is one with a NaN or an infinity. id, when not NULL, gets
 * 16 hex digits that identify config, names and bytes of the whole part, however it is sharded and whatever
 * has a slot. */
bool weights_load(struct kern *k, const struct params *list, const struct model *m, const char *part,
                  const char *const *alias, char id[17], char *err, size_t errlen);

/* The same, but from one safetensors file beside the model; the model's own files, if it has any, are not
 * read. */
bool weights_load_file(struct kern *k, const struct params *list, const struct model *m, const char *part,
                       const char *path, const char *const *alias, char id[17], char *err, size_t errlen);

/* The same comparison of names, shapes and dtypes, with nothing loaded; random: models have nothing to
 * compare. */
bool weights_check(const struct params *list, const struct model *m, const char *part,
                   const char *const *alias, char *err, size_t errlen);

/* The rows of one tensor [rows,width] of a part, read when they are asked for: a table of which each call needs a few is
 * a parameter without a slot, checked and hashed with the rest, and stays in its file. */
struct weight_rows;
/* p: as the network lists it. NULL with the reason in err. */
struct weight_rows *weight_rows_open(const struct model *m, const char *part, const struct param *p,
                                     char *err, size_t errlen);
void weight_rows_close(struct weight_rows *r); /* NULL is fine */
/* to [n,width], of the compute dtype on the device = row index[i] of each i, the values that loading would have put there;
 * index: n numbers below `rows`, on the host. Takes scratch. What cannot be read is the device's error. */
void weight_rows_read(struct kern *k, struct tensor *to, const struct weight_rows *r, const int32_t *index);

/* The made-up values of one parameter, the same on every machine: normal from the counter-based generator
 * keyed by (seed, name), times std, plus mean, rounded to BF16 so that every device and every file holds the
 * very same model. data has room for its elements as F32, in the file's order. */
void weights_random(const struct param *p, uint64_t seed, float *data);
/* The same as draws, for random_normal(). */
struct random_normal weights_draws(const struct param *p, uint64_t seed);

#endif
