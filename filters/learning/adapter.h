/* adapter - low-rank adapters of the transformer's attention projections, under one contract.
 *
 * A target linear y = W x + b becomes y + weight alpha/rank D(x). A kind of adapter is one file below
 * adapters/ and one row of the table in adapter.c: a name, its parameters, their initial values, forward and
 * backward. What is common is here: which projections are targets, where the parameters lie, files. A fresh
 * adapter changes not one bit of the model's output.
 *
 * All parameters of an adapter are one flat F32 tensor, and so are its gradients, so that the optimiser, the
 * norm and the state file see one vector. */
#ifndef LEARNING_ADAPTER_H
#define LEARNING_ADAPTER_H

#include <jansson.h>

#include "filters/lib/rng.h"
#include "kernels/kernels.h"

enum adapter_target { TO_Q, TO_K, TO_V, TO_OUT, ADAPTER_TARGETS };
extern const char *const adapter_target_name[ADAPTER_TARGETS]; /* "to_q" .. "to_out.0" */

enum { ADAPTER_MAX_PARAMS = 24 }; /* tensors of one module */

/* The joint sequence that an adapter sees: text tokens first, then frames x rows x cols of
 * video, row-major. */
struct token_grid {
    int64_t n_text, frames, rows, cols;
};

/* What an adapter is made for: layers x targets of width -> width, and the size of a frame in tokens (0 when
 * not known; only kinds that are bound to a grid look at it). */
struct adapter_base {
    int64_t layers, width, rows, cols;
};

struct adapter_param {
    char name[48]; /* below the module: "lora_A.weight" */
    int rank;
    int64_t shape[4];
    /* Kaiming: U(±1/√in), Xavier: U(±√(6/(in+out))); own: what the kind's `fill` makes */
    enum { INIT_ZERO, INIT_ONE, INIT_KAIMING_UNIFORM, INIT_XAVIER_UNIFORM, INIT_OWN } init;
    int64_t offset; /* elements from the module's start */
};

struct adapter {
    const struct adapter_kind *kind;
    int64_t rank;
    double alpha;
    double weight; /* how much of it is added: 1, or what -a FILE:WEIGHT says */
    bool target[ADAPTER_TARGETS];
    json_t *settings; /* the kind's own, as in its header */
    json_t *extra;    /* what else the header says: objective ..; never NULL */
    struct adapter_base base;
    struct adapter_param param[ADAPTER_MAX_PARAMS]; /* of one module; all modules are alike */
    int params;
    int64_t module_size, size; /* elements of one module, and of all */
    struct kern *k;
    struct tensor values, grads; /* [size] on the device; grads only for training */
    struct tensor working;       /* the values in the compute dtype, for products; see adapter_refresh() */
    uint64_t hash;               /* of the values that were read; 0: not read from a file */
    char warning[160];           /* what the user should be told of it; empty: nothing */
};

/* One projection of a block, where several go together: x, y, saved forward, x, dy, dx, saved backward. */
struct adapter_call {
    int module;
    const struct tensor *x, *dy;
    struct tensor *y, *dx, *saved;
};

/* The contract. y, x, dy, dx [tokens,width]; saved [saved_count]: whatever forward leaves for backward. All
 * of the compute dtype. */
struct adapter_kind {
    const char *name;
    bool bound; /* its parameters belong to one size of frame: rows and cols stand in its header, and no other
                   will do */
    /* Fills a->param (name, shape, init) from rank, base and a->settings; false with the reason in err. */
    bool (*declare)(struct adapter *a, char *err, size_t errlen);
    int64_t (*saved_count)(const struct adapter *a, const struct token_grid *g);
    /* y += scale D(x) */
    void (*forward)(struct adapter *a, int module, const struct token_grid *g, struct tensor *y,
                    const struct tensor *x, struct tensor *saved);
    /* dx += scale D'(x)ᵀ dy (dx may be NULL: not wanted), and adds into the module's gradients */
    void (*backward)(struct adapter *a, int module, const struct token_grid *g, struct tensor *dx,
                     const struct tensor *dy, const struct tensor *x, const struct tensor *saved);
    /* The same for n projections of one block, for kinds that are faster so; NULL: one after the other. dx is
     * the same for all. */
    void (*forward_all)(struct adapter *a, const struct token_grid *g, const struct adapter_call *c, int n);
    void (*backward_all)(struct adapter *a, const struct token_grid *g, const struct adapter_call *c, int n);
    /* w [width,width] F32: D is a matrix, and w += scale D. NULL for kinds that are no matrix. */
    void (*merge)(struct adapter *a, int module, struct tensor *w);
    /* The initial values of a parameter declared INIT_OWN, drawn from r; NULL when there is none. */
    void (*fill)(const struct adapter *a, const struct adapter_param *p, const struct rng *r, float *values);
};

/* For `declare`: reads the kind's settings, whole numbers all, and writes the defaults of the others into
 * a->settings, so that files tell them. false with the reason in err for one that is not in the list or out
 * of its bounds. */
struct adapter_setting {
    const char *name;
    int64_t low, high, fallback, *value;
};
bool adapter_settings(struct adapter *a, const struct adapter_setting *list, int count, char *err,
                      size_t errlen);

/* SPEC is a kind's name and, after a colon, its settings: "standard:rank=16,alpha=16". Targets: all four, or
 * a comma list. Allocates nothing on a device. NULL with the reason in err. */
struct adapter *adapter_make(const char *spec, const char *targets, struct adapter_base base, char *err,
                             size_t errlen);
void adapter_close(struct adapter *a);

/* Device memory for the values, and for the gradients when training; values zero. */
bool adapter_attach(struct adapter *a, struct kern *k, bool training);
/* Call it when values have changed: working follows. */
void adapter_refresh(struct adapter *a);
/* Fresh initial values, keyed by (seed, module, parameter). */
void adapter_init(struct adapter *a, uint64_t seed);

/* forward and backward of n projections of one block, n may be 0 */
void adapter_forward(struct adapter *a, const struct token_grid *g, const struct adapter_call *c, int n);
void adapter_backward(struct adapter *a, const struct token_grid *g, const struct adapter_call *c, int n);

/* Files. Parameter NAME of block I's TARGET is called transformer.transformer_blocks.I.attn1.TARGET.NAME,
 * which for `standard` is the layout of PEFT and diffusers. The header holds a complete description twice:
 * `sluice` (ours, JSON) and for `standard` `lora_adapter_metadata` (PEFT's LoraConfig). A file whose header
 * and tensors disagree, or that lacks a module, or has a value that is not finite, is refused. A file without
 * a description is taken as diffusers takes it: a plain LoRA with alpha = rank. values: host F32 [size];
 * adapter_read fills in a new adapter that is not yet attached. */
bool adapter_write(const struct adapter *a, const char *path, const float *values, char *err, size_t errlen);
struct adapter *adapter_read(const char *path, struct adapter_base base, float **values, char *err,
                             size_t errlen);

/* adapter_read + adapter_attach + upload. path_and_weight may end in :WEIGHT. */
struct adapter *adapter_open(struct kern *k, const char *path_and_weight, struct adapter_base base, char *err,
                             size_t errlen);

/* The name in files of parameter p of a module (module = layer * targets in use + index among them). */
void adapter_param_name(const struct adapter *a, int module, int p, char *name, size_t size);
/* Module of (layer, target), or -1 when that projection is no target. */
int adapter_module(const struct adapter *a, int64_t layer, enum adapter_target target);
/* Parameter p of a module as a view of values or of grads. */
struct tensor adapter_view(const struct adapter *a, const struct tensor *flat, int module, int p);
double adapter_scale(const struct adapter *a); /* weight alpha / rank */
json_t *adapter_description(
    const struct adapter *a); /* variant, rank, alpha, targets, settings, extra; a new object */

#endif
