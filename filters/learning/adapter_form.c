#include "filters/learning/adapter_form.h"

#include <string.h>

#include "formats/error.h"
#include "formats/names.h"

const char *const adapter_tool_name[TOOLS] = {"peft", "comfyui", "kohya"};

static const char *const matrices[] = {"lora_A.weight", "lora_B.weight", "alpha"},
                         *const named[] = {"lora_A.default.weight", "lora_B.default.weight", "alpha"},
                         *const down_up[] = {"lora_down.weight", "lora_up.weight", "alpha"};
static const char *const *const parts[] = {matrices, named, down_up};
enum { PARTS = sizeof parts / sizeof parts[0] };

/* The first of a tool is what is written. Last those without a prefix: diffusers' transformer.save_lora_adapter()
 * writes one, DiffSynth the other. */
static const struct adapter_form forms[] = {
    {.tool = TOOL_PEFT, .prefix = "transformer.", .part = matrices},
    {.tool = TOOL_PEFT, .prefix = "base_model.model.", .config = true, .part = matrices},
    {.tool = TOOL_COMFYUI, .prefix = "diffusion_model.", .original = true, .part = matrices},
    {.tool = TOOL_KOHYA, .prefix = "lora_unet_", .original = true, .flat = true, .part = down_up},
    {.tool = TOOL_KOHYA, .prefix = "lora_unet__", .flat = true, .part = down_up},
    {.tool = TOOL_KOHYA, .prefix = "lora_unet__", .original = true, .flat = true, .part = down_up},
    {.tool = TOOL_PEFT, .prefix = "", .part = matrices},
    {.tool = TOOL_COMFYUI, .prefix = "", .original = true, .part = matrices},
};
enum { FORMS = sizeof forms / sizeof forms[0] };

bool adapter_tool_parse(enum adapter_tool *tool, const char *name)
{
    for (int t = 0; t < TOOLS; t++) {
        *tool = (enum adapter_tool)t;
        if (!strcmp(name, adapter_tool_name[t])) return true;
    }
    return false;
}

static const char *linear_name(const struct adapter_form *f, const struct linear *l)
{
    return f->original ? l->original : l->name;
}

bool adapter_form_of(struct adapter_form *f, enum adapter_tool tool, const struct linears *l)
{
    for (int i = 0; i < FORMS; i++) {
        *f = forms[i];
        if (f->tool == tool && l->count && *linear_name(f, &l->linear[0])) return true;
    }
    return false;
}

int adapter_form_linear(const struct adapter_form *f, const struct linears *l, const char *name,
                        const char **part)
{
    const size_t skip = strlen(f->prefix);
    if (strncmp(name, f->prefix, skip)) return -1;
    for (int i = 0; i < l->count; i++) {
        const char *at = name + skip, *is = linear_name(f, &l->linear[i]);
        if (!*is) continue;
        while (*is && *at == (f->flat && *is == '.' ? '_' : *is)) at++, is++;
        if (*is || *at != '.') continue;
        *part = at + 1;
        return i;
    }
    return -1;
}

void adapter_form_name(const struct adapter_form *f, const struct linear *l, const char *part, char name[160])
{
    int n = snprintf(name, 160, "%s%s", f->prefix, linear_name(f, l));
    for (char *c = name + strlen(f->prefix); f->flat && *c; c++)
        if (*c == '.') *c = '_';
    snprintf(name + n, 160 - (size_t)n, ".%s", part);
}

/* ---- finding it ---------------------------------------------------------------------------------------- */

/* What tensors are whose names have this in them; what begins with a dot ends the name. */
static const char *const sign[][2] = {
    {"dora_scale", "DoRA, which is not a plain LoRA"},
    {"lora_magnitude_vector", "DoRA, which is not a plain LoRA"},
    {"hada_w", "LoHa, which is not a plain LoRA"},
    {"lokr_w", "LoKr, which is not a plain LoRA"},
    {"oft_", "OFT, which is not a plain LoRA"},
    {"lora_mid", "a LoRA of a convolution, which is not supported"},
    {"reshape_weight", "a LoRA that changes a weight's shape, which is not supported"},
    {".diff_b", "a change of a bias beside the LoRA, which is not supported"},
    {".diff", "a change of a whole weight beside the LoRA, which is not supported"},
    {"lora_B.bias", "a LoRA with a bias, which is not supported"},
    {"text_encoder", "of a text encoder, and adapters here are of the transformer alone"},
    {"lora_te", "of a text encoder, and adapters here are of the transformer alone"},
};

static const char *meaning(const char *name)
{
    for (size_t i = 0; i < sizeof sign / sizeof sign[0]; i++)
        if (*sign[i][0] == '.' ? ends_with(name, sign[i][0]) : strstr(name, sign[i][0]) != NULL)
            return sign[i][1];
    return NULL;
}

bool adapter_form_stranger(const char *name, const char *otherwise, char *err, size_t errlen)
{
    const char *is = meaning(name);
    return fail(err, errlen, "tensor %s %s%s", name, is ? "is " : "", is ? is : otherwise);
}

bool adapter_form_find(struct adapter_form *f, const struct safetensors *s, const struct linears *l,
                       char *err, size_t errlen)
{
    const char *part, *strange = NULL;
    for (int i = 0; i < s->count; i++)
        for (int n = 0; n < FORMS * PARTS; n++) {
            *f = forms[n / PARTS];
            f->part = parts[n % PARTS];
            if (adapter_form_linear(f, l, s->entry[i].name, &part) >= 0 &&
                (!strcmp(part, f->part[PART_A]) || !strcmp(part, f->part[PART_B])))
                return true;
        }
    for (int i = 0; i < s->count && !strange; i++)
        if (meaning(s->entry[i].name)) strange = s->entry[i].name;
    if (!s->count) return fail(err, errlen, "no tensors in it: not an adapter?");
    return adapter_form_stranger(strange ? strange : s->entry[0].name,
                                 "names no linear layer that is known here: an adapter of another network?",
                                 err, errlen);
}
