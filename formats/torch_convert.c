#include "formats/torch_convert.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/json_file.h"
#include "formats/names.h"
#include "formats/path.h"
#include "formats/safetensors.h"
#include "formats/torch_file.h"

/* Of a path and of a name: what is cut off there is too long for the system. */
enum { ROOM = 8192, NAME_ROOM = 1024 };

struct conversion {
    const char *from, *to;
    const struct torch_told *told;
    struct torch_file *file;  /* that is read */
    struct atomic_folder out; /* where a folder is made */
    json_t *map;              /* which file each tensor should be in; NULL: there is no index */
    size_t tensors;           /* that were written, */
    int64_t bytes;            /* and theirs */
    char *err;
    size_t errlen;
};
#define REFUSE(c, ...) fail((c)->err, (c)->errlen, __VA_ARGS__)

/* ---- one file ------------------------------------------------------------------------------------------ */

static bool load(void *context, int i, void *data, char *err, size_t errlen)
{
    const struct conversion *c = context;
    const struct torch_tensor *t = &c->file->dict.tensor[i];
    c->told->reading(c->file->path, t->name);
    return torch_file_read(c->file, t, data, err, errlen);
}

/* shown: what `to` is told as. */
static bool convert_file(struct conversion *c, const char *from, const char *to, const char *shown)
{
    struct torch_file *f = c->file = torch_file_open(from, c->err, c->errlen);
    if (!f) return false;
    const int count = f->dict.count;
    struct safetensors_item *items = calloc((size_t)count + 1, sizeof *items);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    int64_t bytes = 0;
    bool good = (items && metadata) || REFUSE(c, "out of memory");
    for (int i = 0; i < count && good; i++) {
        items[i] = (struct safetensors_item){f->dict.tensor[i].name, f->dict.tensor[i].shape};
        bytes += (int64_t)tensor_bytes(&items[i].t);
        const char *file = json_string_value(json_object_get(c->map, items[i].name));
        if (c->map && (!file || strcmp(file, basename(from))))
            good = REFUSE(c, "%s: tensor %s is in %s by the index", from, items[i].name,
                          file ? file : "no file");
    }
    good = good && safetensors_write_each(to, items, count, metadata, load, c, c->err, c->errlen);
    if (good) c->told->wrote(shown, count, bytes);
    c->tensors += (size_t)count, c->bytes += bytes;
    json_decref(metadata);
    free(items);
    torch_file_close(f);
    return good;
}

/* ---- a folder ------------------------------------------------------------------------------------------ */

static void in(char path[ROOM], const char *folder, const char *file)
{
    snprintf(path, ROOM, "%s/%s", folder, file);
}

/* pytorch_model-00001-of-00002.bin as model-00001-of-00002.safetensors; and likewise with .index.json behind both. */
static void new_name(char made[NAME_ROOM], const char *name, const char *index)
{
    static const char old[] = "pytorch_model";
    const bool plain = !strncmp(name, old, strlen(old));
    const char *rest = plain ? name + strlen(old) : name;
    snprintf(made, NAME_ROOM, "%s%.*s.safetensors%s", plain ? "model" : "",
             (int)(strlen(rest) - strlen(".bin") - strlen(index)), rest, index);
}

/* A file of the one folder to a file of the other. */
static bool convert_into(struct conversion *c, const char *file)
{
    char name[NAME_ROOM], from[ROOM], to[ROOM], shown[ROOM];
    new_name(name, file, "");
    in(from, c->from, file), in(to, c->out.temporary, name), in(shown, c->to, name);
    return convert_file(c, from, to, shown);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The file of each tensor of the index at path, and in `renamed` what it becomes. */
static bool read_map(const struct conversion *c, const char *path, const char **shard, json_t *renamed)
{
    const char *tensor;
    json_t *file;
    json_object_foreach (c->map, tensor, file) {
        const char *name = json_string_value(file);
        char made[NAME_ROOM];
        if (!name || strchr(name, '/') || strstr(name, "..") || !ends_with(name, ".bin"))
            return REFUSE(c, "%s: tensor %s: \"%.80s\" is no .bin file of this folder", path, tensor,
                          name ? name : "");
        new_name(made, name, "");
        if (json_object_set_new(renamed, tensor, json_string(made))) return REFUSE(c, "out of memory");
        *shard++ = name;
    }
    return true;
}

/* Every file that the index at path names, in the order of their names. */
static bool convert_shards(struct conversion *c, const char *path, json_t *renamed)
{
    const size_t n = json_object_size(c->map);
    if (!n) return REFUSE(c, "%s: no weight_map of tensor names to files", path);
    const char **shard = calloc(n, sizeof *shard);
    bool good = (shard || REFUSE(c, "out of memory")) && read_map(c, path, shard, renamed);
    if (good) qsort(shard, n, sizeof *shard, by_text);
    for (size_t i = 0; i < n && good; i++)
        good = (i > 0 && !strcmp(shard[i], shard[i - 1])) || convert_into(c, shard[i]);
    free(shard);
    return good &&
           (c->tensors == n || REFUSE(c, "%s: %zu tensors, but its files hold %zu", path, n, c->tensors));
}

/* An index, what it names, and the index of what that becomes. */
static bool convert_indexed(struct conversion *c, const char *name)
{
    char path[ROOM], made[NAME_ROOM], to[ROOM];
    in(path, c->from, name);
    new_name(made, name, ".index.json");
    in(to, c->out.temporary, made);
    json_t *old = json_file_read(path, SAFETENSORS_MAX_HEADER, c->err, c->errlen), *renamed = json_object();
    c->map = json_object_get(old, "weight_map");
    bool good = old && convert_shards(c, path, renamed);
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)c->bytes, "weight_map", renamed);
    good = good && (index || REFUSE(c, "out of memory")) && json_file_write(to, index, c->err, c->errlen);
    json_decref(index);
    json_decref(old);
    return good;
}

/* What is no weights: configs, the tokenizer, the licence. */
static bool copy_others(const struct conversion *c)
{
    static const char *const skipped[] = {
        ".bin", ".bin.index.json", ".safetensors", ".safetensors.index.json", ".pt", ".pth", ".ckpt", ".pkl"};
    char from[ROOM], to[ROOM];
    bool good = true;
    DIR *d = opendir(c->from);
    if (!d) return REFUSE(c, "%s: %s", c->from, strerror(errno));
    for (struct dirent *e; errno = 0, good && (e = readdir(d));) {
        in(from, c->from, e->d_name), in(to, c->out.temporary, e->d_name);
        const enum path_kind kind = path_kind(from, c->err, c->errlen);
        bool skip = kind == PATH_FOLDER || kind == PATH_OTHER;
        for (size_t i = 0; i < sizeof skipped / sizeof skipped[0]; i++)
            skip |= ends_with(e->d_name, skipped[i]);
        if (kind == PATH_UNKNOWN)
            good = false;
        else if (!skip && kind == PATH_ABSENT)
            good = REFUSE(c, "%s: a link to what is not there", from);
        else
            good = skip || atomic_copy(from, to, c->err, c->errlen);
    }
    if (good && errno) good = REFUSE(c, "%s: %s", c->from, strerror(errno));
    closedir(d);
    return good;
}

/* The file of the folder that holds the weights, or names those that do. NULL: there is none, or two. */
static const char *weights_of(const struct conversion *c)
{
    static const char *const weights[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "diffusion_pytorch_model.bin",
                                          "diffusion_pytorch_model.bin.index.json"};
    const char *found = NULL;
    char path[ROOM];
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
        in(path, c->from, weights[i]);
        enum path_kind kind = path_kind(path, c->err, c->errlen);
        if (kind == PATH_UNKNOWN) return NULL;
        if (kind == PATH_ABSENT) continue;
        if (found) {
            REFUSE(c, "%s: has %s and %s: only one of them can hold the weights", c->from, found, weights[i]);
            return NULL;
        }
        found = weights[i];
    }
    if (!found)
        REFUSE(c, "%s: neither pytorch_model.bin nor diffusion_pytorch_model.bin, nor an index of these",
               c->from);
    return found;
}

static bool convert_folder(struct conversion *c)
{
    const char *weights = weights_of(c);
    if (!weights || !atomic_folder_open(&c->out, c->to, c->err, c->errlen)) return false;
    const bool good =
        copy_others(c) &&
        (ends_with(weights, ".json") ? convert_indexed(c, weights) : convert_into(c, weights)) &&
        atomic_folder_commit(&c->out, c->err, c->errlen);
    atomic_folder_abort(&c->out);
    return good;
}

bool torch_convert(const char *from, const char *to, const struct torch_told *told, char *err, size_t errlen)
{
    struct conversion c = {.from = from, .to = to, .told = told, .err = err, .errlen = errlen};
    const enum path_kind kind = path_kind(from, err, errlen);
    if (kind == PATH_UNKNOWN) return false;
    return kind == PATH_FOLDER ? convert_folder(&c) : convert_file(&c, from, to, to);
}
