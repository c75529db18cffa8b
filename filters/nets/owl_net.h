/* owl_net - the grader's three networks, one after the other: what owl.c drives over clips and prompts.
 *
 * Names and order of the parts follow mPLUG-Owl-Video's own code (X-PLUG/mPLUG-Owl,
 * Hritikbansal/videophy). */
#ifndef NETS_OWL_NET_H
#define NETS_OWL_NET_H

#include "filters/nets/owl.h"

enum { OWL_MAX_LAYERS = 128 };

struct owl_config {
    struct {
        int64_t side, patch, width, hidden, layers, heads;
        float eps;
    } vision;
    struct {
        int64_t queries, hidden, layers, heads;
        int64_t width, seen; /* both the tower's */
        float eps;           /* of its feed-forward layer; the other norms have 1e-5 */
    } abstractor;
    struct {
        int64_t vocabulary, positions, width, hidden, layers, heads;
        int32_t end; /* the id that ends an answer */
        float eps;
        double theta; /* of the rotation */
    } decoder;
};

struct affine {
    struct tensor w; /* of a linear layer [out,in], of a LayerNorm [width] */
    struct tensor b; /* [out] or [width] */
};

struct owl {
    struct kern *k;
    struct owl_config c;
    char id[17];
    struct {
        struct tensor patches, cls, positions;
        struct affine pre_norm, post_norm;
        struct owl_vision_layer {
            struct affine time_norm, down, conv, up;          /* over time, in half the width */
            struct affine norm1, qkv, dense, norm2, fc1, fc2; /* qkv: q, k, v, one after the other */
        } layer[OWL_MAX_LAYERS];
    } vision;
    struct {
        struct tensor queries, time_queries, eos;
        struct affine project, project_time;
        struct owl_abstractor_layer {
            struct affine norm_q, norm_kv, q, k, v, out, norm2, gate, up, norm_ff, down;
        } layer[OWL_MAX_LAYERS];
    } abstractor;
    struct {
        struct tensor embedding, norm, head;
        struct tensor cos, sin; /* F32 [positions,d/2] */
        struct owl_decoder_layer {
            struct tensor norm1, qkv, o, norm2, gate_up, down;
            struct tensor keys, values; /* [positions,width] of what has been read, prompt after prompt */
        } layer[OWL_MAX_LAYERS];
    } decoder;

    struct tensor video; /* [owl_video_ids(),decoder width]: the clip that was looked at */
    bool looked;         /* there is one */
    int64_t frames;      /* of a clip that there is scratch memory for */
    int32_t *ids;        /* host, [positions]: those before the video that keys and values are of */
    int head;            /* how many; 0: none */
    float *logits;       /* host, [questions,vocabulary] */
};

/* Ids one after the other: rows at positions first .. of a prompt whose keys and values begin at row `at` of all.
 * Those of its first `shared` positions are copied from the prompt at row 0, which begins alike. */
struct owl_stretch {
    const int32_t *ids; /* [rows]; all OWL_VIDEO: the clip that was looked at */
    int64_t rows, first, at, shared;
    float *logits; /* host, [vocabulary], of its last row; NULL: not wanted */
};

/* config.json as mPLUG-Owl's configuration class reads it. false with the reason in err. */
bool owl_config(struct owl_config *c, json_t *json, const char *file, char *err, size_t errlen);
void owl_params(struct params *list, struct owl *o);
/* Fills the slots of the list: from the model, and from a LoRA checkpoint when there is one. */
bool owl_load(struct owl *o, const struct params *list, const struct model *m, const char *lora, char *err,
              size_t errlen);

/* Tokens of a frame: its patches, and the class token before them. */
int64_t owl_frame_tokens(const struct owl_config *c);

/* y = the vision tower of pixels U8 [T,side,side,3]      y [T tokens,width] */
void owl_vision(struct owl *o, struct tensor *y, const struct tensor *pixels);
/* One layer of it in place. */
void owl_vision_layer(struct owl *o, const struct owl_vision_layer *l, struct tensor *x, int64_t frames);
/* video = the visual abstractor of seen [n,width]        video [queries+1,decoder width] */
void owl_abstractor(struct owl *o, struct tensor *video, const struct tensor *seen);
/* The decoder's layers, in place, over x [n,width]: the rows of `count` stretches in their order, n together.
 * Their keys and values are kept; those of the positions before must be there, or come in a stretch before. */
void owl_decoder(struct owl *o, struct tensor *x, const struct owl_stretch *s, int count);
/* logits F32 [1,vocabulary] of row x [1,width] */
void owl_head(struct owl *o, struct tensor *logits, const struct tensor *x);

#endif
