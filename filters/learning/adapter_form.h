/* adapter_form - the forms in which tools keep a plain LoRA: what they call a linear layer and its matrices.
 *
 *   peft     transformer.blocks.0.attn1.to_q.lora_A.weight              PEFT, diffusers, and this program
 *   comfyui  diffusion_model.blocks.0.self_attn.q.lora_A.weight         ComfyUI, diffusion-pipe
 *   kohya    lora_unet_blocks_0_self_attn_q.lora_down.weight            kohya's sd-scripts, musubi-tuner
 *
 * ComfyUI and kohya use the names of a network's first publication (struct linear's `original`). Of a network without
 * such names, kohya's form is the one of VideoX-Fun, which trains them: lora_unet__ and the usual name.
 * .alpha beside the matrices is a scalar: what is added is alpha/rank B A x, and B A x where there is none. */
#ifndef LEARNING_ADAPTER_FORM_H
#define LEARNING_ADAPTER_FORM_H

#include "filters/nets/linears.h"
#include "formats/safetensors.h"

enum adapter_tool { TOOL_PEFT, TOOL_COMFYUI, TOOL_KOHYA, TOOLS };
extern const char *const adapter_tool_name[TOOLS];
bool adapter_tool_parse(enum adapter_tool *tool, const char *name);

enum { PART_A, PART_B, PART_ALPHA, FORM_PARTS };

struct adapter_form {
    enum adapter_tool tool;
    const char *prefix;      /* before a linear's name */
    bool original, flat;     /* which name; its dots are underscores */
    bool config;             /* alpha stands in an adapter_config.json beside the file */
    const char *const *part; /* FORM_PARTS names behind it: "lora_A.weight", "lora_B.weight", "alpha" */
};

/* The form that a tool writes; false: it has none for this network. */
bool adapter_form_of(struct adapter_form *f, enum adapter_tool tool, const struct linears *l);
/* The form of a file, by the first matrix that is one of these linears'. false: none is, and a tensor that is not,
 * with what it is where that is known, in err. */
bool adapter_form_find(struct adapter_form *f, const struct safetensors *s, const struct linears *l,
                       char *err, size_t errlen);
/* The linear that a tensor's name begins with, and the rest of the name behind its dot; -1: none. */
int adapter_form_linear(const struct adapter_form *f, const struct linears *l, const char *name,
                        const char **part);
/* What a linear's tensor is called: 160 bytes. */
void adapter_form_name(const struct adapter_form *f, const struct linear *l, const char *part,
                       char name[160]);
/* false, with the name of a tensor that belongs to no matrix of a plain LoRA, and why, in err. */
bool adapter_form_stranger(const char *name, const char *otherwise, char *err, size_t errlen);

#endif
