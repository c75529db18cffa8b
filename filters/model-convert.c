/* model-convert - PyTorch's weight files to safetensors, tensor by tensor and without executing anything; and adapters
 * from one tool's form to another's.
 *
 * Memory is that of the largest tensor, whatever the model's size. A folder appears when it is complete. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "filters/learning/adapter.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"
#include "formats/atomic.h"
#include "formats/json_file.h"
#include "formats/path.h"
#include "formats/safetensors.h"
#include "formats/torch_file.h"
#include "formats/names.h"

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

__attribute__((format(printf, 1, 2))) static char *text(const char *fmt, ...)
{
    char *made;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&made, fmt, ap) < 0) die("out of memory");
    va_end(ap);
    return made;
}

static enum path_kind kind_of(const char *path)
{
    enum path_kind kind = path_kind(path, err, sizeof err);
    if (kind == PATH_UNKNOWN) die("%s", err);
    return kind;
}

/* ---- one file ------------------------------------------------------------------------------------------ */

static bool load(void *file, int i, void *data, char *why, size_t size)
{
    struct torch_file *f = file;
    progress("%s: %s", f->path, f->dict.tensor[i].name);
    return torch_file_read(f, &f->dict.tensor[i], data, why, size);
}

/* Returns the tensors' bytes, and adds how many they are. `shown`: what `to` is told as. `map`: which file each
 * tensor should be in; NULL: there is none. */
static int64_t convert_file(const char *from, const char *to, const char *shown, json_t *map, size_t *count)
{
    struct torch_file *f = torch_file_open(from, err, sizeof err);
    if (!f) die("%s", err);
    struct safetensors_item *items = calloc((size_t)f->dict.count + 1, sizeof *items);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    int64_t bytes = 0;
    if (!items || !metadata) die("out of memory");
    for (int i = 0; i < f->dict.count; i++) {
        items[i] = (struct safetensors_item){f->dict.tensor[i].name, f->dict.tensor[i].shape};
        const char *file = json_string_value(json_object_get(map, items[i].name));
        if (map && (!file || strcmp(file, basename(from))))
            die("%s: tensor %s is in %s by the index", from, items[i].name, file ? file : "no file");
        bytes += (int64_t)tensor_bytes(&items[i].t);
    }
    if (!safetensors_write_each(to, items, f->dict.count, metadata, load, f, err, sizeof err)) die("%s", err);
    say(NULL, "%s: %d tensors, %lld bytes", shown, f->dict.count, (long long)bytes);
    *count += (size_t)f->dict.count;
    json_decref(metadata);
    free(items);
    torch_file_close(f);
    return bytes;
}

/* ---- a folder ------------------------------------------------------------------------------------------ */

/* pytorch_model-00001-of-00002.bin as model-00001-of-00002.safetensors */
static char *new_name(const char *name)
{
    const char *old = "pytorch_model";
    bool plain = !strncmp(name, old, strlen(old));
    return text("%s%.*s.safetensors", plain ? "model" : "",
                (int)(strlen(name) - strlen(".bin") - (plain ? strlen(old) : 0)),
                name + (plain ? strlen(old) : 0));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A file of one folder to a file of another. */
static int64_t convert_into(const struct atomic_folder *out, const char *dir, const char *file, json_t *map,
                            size_t *count)
{
    char *name = new_name(file), *from = text("%s/%s", dir, file), *to = text("%s/%s", out->temporary, name),
         *shown = text("%s/%s", filter.argv[1], name);
    int64_t bytes = convert_file(from, to, shown, map, count);
    free(name), free(from), free(to), free(shown);
    return bytes;
}

/* Every file that the index names, in the order of their names, and the index of what they became. */
static void convert_shards(const char *dir, const char *index_name, const struct atomic_folder *out)
{
    char *path = text("%s/%s", dir, index_name);
    json_t *index = json_file_read(path, SAFETENSORS_MAX_HEADER, err, sizeof err), *map, *file,
           *renamed = json_object();
    const char *tensor;
    size_t n = 0, found = 0;
    int64_t bytes = 0;
    if (!index) die("%s", err);
    map = json_object_get(index, "weight_map");
    if (json_object_size(map) == 0) die("%s: no weight_map of tensor names to files", path);
    const char **shard = calloc(json_object_size(map), sizeof *shard);
    if (!shard) die("out of memory");
    json_object_foreach (map, tensor, file) {
        const char *name = json_string_value(file);
        if (!name || strchr(name, '/') || strstr(name, "..") || !ends_with(name, ".bin"))
            die("%s: tensor %s: \"%.80s\" is no .bin file of this folder", path, tensor, name ? name : "");
        char *made = new_name(name);
        json_object_set_new(renamed, tensor, json_string(made));
        free(made);
        shard[n++] = name;
    }
    qsort(shard, n, sizeof *shard, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && !strcmp(shard[i], shard[i - 1])) continue;
        bytes += convert_into(out, dir, shard[i], map, &found);
    }
    if (found != n) die("%s: %zu tensors, but its files hold %zu", path, n, found);
    char *stem = text("%.*s", (int)(strlen(index_name) - strlen(".index.json")), index_name),
         *name = new_name(stem);
    char *to = text("%s/%s.index.json", out->temporary, name);
    json_t *made =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)bytes, "weight_map", renamed);
    if (!json_file_write(to, made, err, sizeof err)) die("%s", err);
    json_decref(made);
    json_decref(index);
    free(shard), free(path), free(stem), free(name), free(to);
}

/* What is no weights: configs, the tokenizer, the licence. */
static void copy_others(const char *dir, const char *out)
{
    static const char *const skipped[] = {
        ".bin", ".bin.index.json", ".safetensors", ".safetensors.index.json", ".pt", ".pth", ".ckpt", ".pkl"};
    DIR *d = opendir(dir);
    if (!d) die("%s: %s", dir, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(d));) {
        char *from = text("%s/%s", dir, e->d_name), *to = text("%s/%s", out, e->d_name);
        const enum path_kind kind = kind_of(from);
        bool skip = kind == PATH_FOLDER || kind == PATH_OTHER;
        for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++)
            skip |= ends_with(e->d_name, skipped[i]);
        if (!skip && kind == PATH_ABSENT) die("%s: a link to what is not there", from);
        if (!skip && !atomic_copy(from, to, err, sizeof err)) die("%s", err);
        free(from), free(to);
    }
    if (errno) die("%s: %s", dir, strerror(errno));
    closedir(d);
}

static void convert_folder(const char *dir, const char *out)
{
    static const char *const weights[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "diffusion_pytorch_model.bin",
                                          "diffusion_pytorch_model.bin.index.json"};
    static struct atomic_folder to;
    const char *found = NULL;
    size_t count = 0;
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
        char *path = text("%s/%s", dir, weights[i]);
        bool there = kind_of(path) != PATH_ABSENT;
        if (there && found)
            die("%s: has %s and %s: only one of them can hold the weights", dir, found, weights[i]);
        if (there) found = weights[i];
        free(path);
    }
    if (!found)
        die("%s: neither pytorch_model.bin nor diffusion_pytorch_model.bin, nor an index of these", dir);
    if (!atomic_folder_open(&to, out, err, sizeof err)) die("%s", err);
    copy_others(dir, to.temporary);
    if (ends_with(found, ".json"))
        convert_shards(dir, found, &to);
    else
        convert_into(&to, dir, found, NULL, &count);
    if (!atomic_folder_commit(&to, err, sizeof err)) die("%s", err);
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
    size_t count = 0;
    filter_start(argc, argv, help, options, FILTER_ARGUMENTS);
    if (filter.argc != 2) usage_error("a folder or file to read, and another to write, are wanted");
    if (filter.model && !form) usage_error("--model is for --to");
    if (reader && (!form || strcmp(form, "kohya"))) usage_error("--for is for --to kohya");
    filter_checked();
    if (form)
        convert_adapter(filter.argv[0], filter.argv[1]);
    else if (kind_of(filter.argv[0]) == PATH_FOLDER)
        convert_folder(filter.argv[0], filter.argv[1]);
    else
        convert_file(filter.argv[0], filter.argv[1], filter.argv[1], NULL, &count);
    return filter_finish();
}
