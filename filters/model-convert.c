/* model-convert - PyTorch's weight files to safetensors, tensor by tensor and without executing anything; and adapters
 * from one tool's form to another's. A folder appears when it is complete. */
#include <stdlib.h>
#include <string.h>

#include "filters/learning/adapter.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"
#include "formats/torch_convert.h"

static const char help[] =
    "model-convert - PyTorch's weight files to safetensors; adapters to other tools' forms\n"
    "usage: model-convert [options] DIR OUT     a published folder to another, which is new or empty\n"
    "       model-convert [options] FILE OUT    one .bin or .pt file to one .safetensors file\n"
    "       model-convert --to FORM ADAPTER OUT   an adapter's file or folder to one .safetensors file\n"
    "      --to peft|comfyui|kohya   the form of OUT: of PEFT and diffusers (and -a here), of ComfyUI, or of kohya's\n"
    "                           scripts and musubi-tuner. ADAPTER may be of any; all are read by -a and --init, too\n"
    "      --for diffusers      with --to kohya: modules of zeros at the layers that the adapter leaves out,\n"
    "                           without which diffusers does not read this form\n"
    "  -m, --model DIR          with --to: the model, to check that the adapter fits it; and for --for\n"
    "COMMON\n"
    "Of a folder: pytorch_model.bin (it becomes model.safetensors) or diffusion_pytorch_model.bin, or what its\n"
    ".index.json names; other files are copied, subfolders and other weights are not. Only files that are plain\n"
    "tensors by name are read. Anything else in a pickle is refused by its name, and never executed.\n"
    "Of an adapter: a plain LoRA of one rank and one alpha. Tensors keep their dtype and bytes. ComfyUI's form has no\n"
    "place for an alpha that is not the rank: it is folded into the second matrix. A tensor that is not understood\n"
    "(DoRA, LoHa, a text encoder's, another network's) is refused by its name. CogVideoX has no form of ComfyUI's,\n"
    "and kohya's is that of VideoX-Fun.\n"
    "exit    0 written, 1 something failed and there is no OUT, 2 wrong usage\n"
    "e.g.    model-convert videophy_2_auto owl && grade -m owl <videos.jsonl >scores.jsonl\n"
    "        model-convert --to comfyui run/best.safetensors for-comfyui.safetensors\n"
    "see also: show, model-init\n";

static const char *form, *reader;
static const struct option_spec options[] = {
    {.name = "to", .kind = OPT_CHOICE, .dest = &form, .choices = "peft|comfyui|kohya"},
    {.name = "for", .kind = OPT_CHOICE, .dest = &reader, .choices = "diffusers"},
    {.name = "model", .letter = 'm', .kind = OPT_TEXT, .dest = &filter.model},
    {0}};
static char err[1024];

/* ---- weights ------------------------------------------------------------------------------------------- */

static void show_tensor(const char *file, const char *tensor)
{
    progress("%s: %s", file, tensor);
}

static void say_file(const char *file, int tensors, int64_t bytes)
{
    say(NULL, "%s: %d tensors, %lld bytes", file, tensors, (long long)bytes);
}

static void convert_weights(const char *from, const char *to)
{
    const struct torch_told told = {.reading = show_tensor, .wrote = say_file};
    if (!torch_convert(from, to, &told, err, sizeof err)) die("%s", err);
}

/* ---- an adapter ---------------------------------------------------------------------------------------- */

/* The model's linears; the same ones in both transformers of a model of two. */
static struct denoiser *open_model(const char *name)
{
    struct model *m = model_open(name, err, sizeof err);
    struct denoiser *d = m ? denoiser_open_expert(NULL, m, false, true, err, sizeof err) : NULL;
    if (!d) die("%s", err);
    model_close(m);
    return d;
}

/* Those of the family whose names the file has, as far as it tells. */
static struct linears linears_of(const char *adapter)
{
    struct linears l;
    for (int i = 0; i < family_count; i++) {
        const struct denoiser_kind *kind = families[i].denoiser;
        if (kind && kind->names && adapter_linears(&l, adapter, kind->names, err, sizeof err)) return l;
    }
    die("%s", err);
}

static void convert_adapter(const char *from, const char *to)
{
    struct denoiser *d = filter.model ? open_model(filter.model) : NULL;
    struct linears made = d ? (struct linears){0} : linears_of(from);
    struct adapter_converted did;
    char zeros[64] = "";
    if (!adapter_convert(from, to, form, reader != NULL,
                         (struct adapter_base){.linears = d ? &d->linears : &made}, &did, err, sizeof err))
        die("%s", err);
    if (did.zeros) snprintf(zeros, sizeof zeros, ", %d of them zeros for %s", did.zeros, reader);
    say(NULL, "%s: %d modules of rank %lld, alpha %g%s", to, did.modules, (long long)did.rank, did.alpha,
        zeros);
    if (did.folded != 1)
        say(NULL, "%s: its alpha was %g, so the second matrices are %g times what they were", to,
            did.folded * did.alpha, did.folded);
    denoiser_close(d);
    free(made.linear);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_ARGUMENTS);
    if (filter.argc != 2) usage_error("a folder or file to read, and another to write, are wanted");
    if (filter.model && !form) usage_error("--model is for --to");
    if (reader && (!form || strcmp(form, "kohya"))) usage_error("--for is for --to kohya");
    filter_checked();
    if (form)
        convert_adapter(filter.argv[0], filter.argv[1]);
    else
        convert_weights(filter.argv[0], filter.argv[1]);
    return filter_finish();
}
