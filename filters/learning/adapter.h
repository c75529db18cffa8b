/* adapter - low-rank adapters of a network's linear layers, under one contract.
 *
 * A target linear y = W x + b becomes y + weight alpha/rank D(x). A kind of adapter is one file below
 * adapters/ and one row of the table in adapter.c: a name, its parameters, their initial values, forward and
 * backward. What is common is here: which linears are targets, where the parameters lie, files. An adapter knows
 * linears by name and size, and no network. A fresh adapter changes not one bit of the model's output.
 *
 * All parameters of an adapter are one flat F32 tensor, and so are its gradients, so that the optimiser, the
 * norm and the state file see one vector. */
#ifndef LEARNING_ADAPTER_H
#define LEARNING_ADAPTER_H

#include <jansson.h>

#include "filters/lib/rng.h"
#include "filters/nets/linears.h"

enum {
    ADAPTER_MAX_PARAMS = 24, /* tensors of one module */
    ADAPTER_MAX_TARGETS = 32,
};

/* What an adapter is made for: a network's linears, borrowed for as long as the adapter lives, and the size of a
 * frame in tokens (0: not known; only kinds that are bound to a grid look at it). */
struct adapter_base {
    const struct linears *linears;
    int64_t rows, cols;
};

struct adapter_param {
    char name[48]; /* below the module: "lora_A.weight" */
    int rank;
    int64_t shape[4];
    /* Kaiming: U(±1/√in), Xavier: U(±√(6/(in+out))); own: what the kind's `fill` makes */
    enum { INIT_ZERO, INIT_ONE, INIT_KAIMING_UNIFORM, INIT_XAVIER_UNIFORM, INIT_OWN } init;
    int64_t offset; /* elements from the module's start */
};

/* The parameters of a module, which modules of the same in and out share. */
struct adapter_layout {
    int64_t in, out;
    struct adapter_param param[ADAPTER_MAX_PARAMS];
    int64_t size; /* elements of all params */
};

/* An adapter at one linear. */
struct adapter_module {
    int linear; /* index into the base's */
    int layout;
    int64_t offset;     /* elements from the start of values and grads */
    int64_t in_working; /* and from that of working, unless it is values itself */
};

struct adapter {
    const struct adapter_kind *kind;
    int64_t rank;
    double alpha;
    double weight;                        /* how much of it is added: 1, or what -a FILE:WEIGHT says */
    char target[ADAPTER_MAX_TARGETS][32]; /* names of linears within their block, in the network's order */
    int targets;
    json_t *settings; /* the kind's own, as in its header */
    int64_t set[4];   /* the same as numbers, in the order of the kind's list */
    json_t *extra;    /* what else the header says: objective ..; never NULL */
    struct adapter_base base;
    struct adapter_layout *layout;
    int layouts, params;           /* params: of every module */
    struct adapter_module *module; /* in the order of the base's linears */
    int modules;
    int *module_of; /* of each linear; -1: it is no target */
    int64_t size;   /* elements of all modules */
    int64_t working_size;
    struct kern *k;
    struct tensor values, grads; /* [size] on the device; grads only for training */
    struct tensor working; /* the values in the compute dtype, for products; each module begins at 16 bytes */
    uint64_t hash;         /* of the values that were read; 0: not read from a file */
    char warning[160];     /* for the user; empty: none */
};

/* One linear at work: x, y, saved forward, x, dy, dx, saved backward. */
struct adapter_call {
    int module;
    const struct token_rows *rows;
    const struct tensor *x, *dy;
    struct tensor *y, *dx, *saved;
};

/* The contract. x, dx [rows,in], y, dy [rows,out]; saved [saved_count]: whatever forward leaves for backward.
 * All of the compute dtype. */
struct adapter_kind {
    const char *name;
    bool peft;  /* it is PEFT's LoRA: files carry PEFT's description, too */
    bool grid;  /* it works on frames: linears whose rows are text alone are refused */
    bool bound; /* its parameters belong to one size of frame: rows and cols stand in its header, and no other
                   will do */
    const struct adapter_setting
        *setting; /* its settings, ended by a NULL name; NULL: none but rank and alpha */
    /* Fills l->param (name, shape, init) for l->in and l->out; how many, or 0 with the reason in err. */
    int (*declare)(struct adapter *a, struct adapter_layout *l, char *err, size_t errlen);
    int64_t (*saved_count)(const struct adapter *a, const struct token_rows *r);
    /* Of n linears of one input, whose rows, x and dx are the same: y += scale D(x) */
    void (*forward)(struct adapter *a, const struct adapter_call *c, int n);
    /* dx += Σ scale D'(x)ᵀ dy (dx may be NULL: not wanted), and adds into the modules' gradients */
    void (*backward)(struct adapter *a, const struct adapter_call *c, int n);
    bool together; /* backward is faster for all of them at once, in F32, too: see linears_together() */
    /* w [out,in] F32: D is a matrix, and w += scale D. NULL for kinds that are no matrix. */
    void (*merge)(struct adapter *a, int module, struct tensor *w);
    /* The initial values of a parameter declared INIT_OWN, drawn from r; NULL when there is none. */
    void (*fill)(const struct adapter *a, const struct adapter_param *p, const struct rng *r, float *values);
};

/* A setting of a kind, a whole number; files hold every one, those left at their default, too. */
struct adapter_setting {
    const char *name;
    int64_t low, high, fallback;
};

/* SPEC is a kind's name and, after a colon, its settings: "standard:rank=16,alpha=16". Targets: a comma list of
 * names of linears within their block, or their last words ("to_q", "attn1.to_q"); NULL: every linear that is
 * offered and does not stand aside. Allocates nothing on a device. NULL with the reason in err. */
struct adapter *adapter_make(const char *spec, const char *targets, struct adapter_base base, char *err,
                             size_t errlen);
void adapter_close(struct adapter *a);

/* Device memory for the values, and for the gradients when training; values zero. */
bool adapter_attach(struct adapter *a, struct kern *k, bool training);
/* Call it when values have changed: working follows. */
void adapter_refresh(struct adapter *a);
/* Fresh initial values, keyed by (seed, module, parameter). */
void adapter_init(struct adapter *a, uint64_t seed);

/* Files. Parameter NAME at the linear L is called transformer.L.NAME, which for `standard` is the layout of PEFT
 * and diffusers. The header holds a complete description twice: `sluice` (ours, JSON) and for `standard`
 * `lora_adapter_metadata` (PEFT's LoraConfig). Plain LoRAs are read in the forms of adapter_form.h, too, from a file
 * or from the folder that PEFT or diffusers save one in.
 *
 * Refused, with what it is about named: a file whose header and tensors disagree, that lacks a module, that holds a
 * tensor which would not be used, or a value that is not finite; ranks or alphas that differ between modules. What
 * nothing states is as others take it: a plain LoRA with alpha = rank. values: host F32 [size]; adapter_read fills
 * in a new adapter that is not yet attached. */
bool adapter_write(const struct adapter *a, const char *path, const float *values, char *err, size_t errlen);
struct adapter *adapter_read(const char *path, struct adapter_base base, float **values, char *err,
                             size_t errlen);

/* adapter_read + adapter_attach + upload. path_and_weight may end in :WEIGHT. */
struct adapter *adapter_open(struct kern *k, const char *path_and_weight, struct adapter_base base, char *err,
                             size_t errlen);

/* The file of a plain LoRA, or its folder, as a file of the form that `tool` writes ("peft", "comfyui", "kohya").
 * Tensors keep their dtype and bytes, but for comfyui, which has no place for an alpha: one that is not the rank is
 * folded into B, rounded once to B's dtype. Statements of the header are written as the form has them; its other
 * fields stay. Memory: one tensor.
 * complete: modules of zeros at the linears that the adapter leaves out, which diffusers takes for granted when it
 * reads kohya's form; only for that form, and only where base says all sizes. false: reason in err, nothing written. */
struct adapter_converted {
    int modules, zeros; /* of zeros */
    int64_t rank;
    double alpha, folded; /* in the new file; B was multiplied by */
};
bool adapter_convert(const char *from, const char *to, const char *tool, bool complete,
                     struct adapter_base base, struct adapter_converted *did, char *err, size_t errlen);
/* What a file says of the model's linears, when there is no model at hand: as many blocks as its tensors name, and
 * the sizes of those that it has (others: 0). The caller frees l->linear. false: none of its tensors is called by
 * these names, or it cannot be read (reason in err). */
bool adapter_linears(struct linears *l, const char *path, const struct linear_names *names, char *err,
                     size_t errlen);

/* The name in files of parameter p of a module. */
void adapter_param_name(const struct adapter *a, int module, int p, char *name, size_t size);
/* Parameter p of a module as a view of values or of grads. */
struct tensor adapter_view(const struct adapter *a, const struct tensor *flat, int module, int p);
struct tensor adapter_working(const struct adapter *a, int module, int p); /* and of working */
double adapter_scale(const struct adapter *a);                             /* weight alpha / rank */
/* variant, rank, alpha, targets, settings, extra; a new object */
json_t *adapter_description(const struct adapter *a);

/* ---- several at once ----------------------------------------------------------------------------------- */

enum { ADAPTERS_MAX = 16 };

/* Adapters of one network, as what hooks onto its linears: each adds its own, in this order. In backward every
 * one of them is trained. */
struct adapter_set {
    struct adapter *item[ADAPTERS_MAX];
    int count;
    struct linear_hook hook; /* valid from adapter_set_add() on; hooks onto linears while the set lives */
};
/* The set owns a from here on. false: it is full, and a is closed. */
bool adapter_set_add(struct adapter_set *s, struct adapter *a);
void adapter_set_close(struct adapter_set *s);
/* Whether all of them can work on frames of so many tokens; false: which cannot, in err. */
bool adapter_set_fits(const struct adapter_set *s, const struct token_rows *rows, char *err, size_t errlen);
/* Folds them into the weights of their linears, for good; the caller then closes the set. Sums are in F32,
 * rounded once to the weights' dtype. false: a kind that is no matrix, named in err, and nothing is changed. */
bool adapter_set_merge(struct adapter_set *s, struct kern *k, char *err, size_t errlen);
/* Each one's description with its weight and a hash of its values: what tells runs with them apart. A new list. */
json_t *adapter_set_description(const struct adapter_set *s);

#endif
