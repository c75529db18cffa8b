/* model-init - write a model folder in the published layout, with random weights. */
#include <stdlib.h>
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/nets/families.h"
#include "formats/atomic.h"
#include "formats/json_file.h"
#include "formats/path.h"

static const char help[] =
    "model-init - write a model folder with random weights\n"
    "usage: model-init [options] PRESET DIR\n"
    "      PRESET           tiny | cogvideox-2b | cogvideox-5b | wan-tiny | wan-1.3b | wan-14b | wan-a14b | wan-5b |\n"
    "                       wan-5b-tiny | owl-tiny | owl-7b, or a folder of configs (with a / in its name)\n"
    "      DIR              the folder to make; it must not hold anything yet\n"
    "      --shard-bytes N  largest weight file; more are split, with an index   [5000000000]\n"
    "COMMON\n"
    "The weights are those of -m random:PRESET:SEED: BF16, but F32 for the VAE.\n"
    "exit    0 written, 1 something failed and there is no DIR, 2 wrong usage\n"
    "e.g.    model-init tiny my-model && show -m my-model | tail -1\n"
    "see also: show\n";

static int64_t shard_bytes = 5000000000;
static const struct option_spec options[] = {
    {.name = "shard-bytes", .kind = OPT_INT, .dest = &shard_bytes, .low = 1, .high = 1e15}, {0}};

enum { PATH = 4096 + 256 }; /* of the folder's temporary name, and a file in it */
static char err[1024];

static void copy_file(const struct model *m, const char *relative, const char *dir, const char *name)
{
    char from[PATH], to[PATH + 256];
    snprintf(to, sizeof to, "%s/%s", dir, name);
    if (!model_file(m, relative, from, sizeof from, err, sizeof err) ||
        !atomic_copy(from, to, err, sizeof err))
        die("%s", err);
}

static struct tensor make_values(const struct param *p, uint64_t seed, enum dtype d)
{
    struct tensor wide = p->shape, t = p->shape;
    t.dtype = d;
    wide.data = malloc(tensor_bytes(&wide) + 1);
    t.data = malloc(tensor_bytes(&t) + 1);
    if (!wide.data || !t.data) die("no memory for %s", p->name);
    weights_random(p, seed, wide.data);
    tensor_convert(&t, &wide);
    free(wide.data);
    return t;
}

/* DIR/PART, or DIR itself for the part that is at the top. */
static void part_folder(char path[PATH], const char *dir, const struct part *part)
{
    snprintf(path, PATH, "%s%s%s", dir, *part->folder ? "/" : "", part->folder);
}

/* One weight file after another, none larger than the limit unless a single tensor is. */
static void write_weights(const struct model *m, const char *folder, const struct network *n,
                          const struct params *list)
{
    char path[PATH + 256], name[128];
    struct safetensors_item *items = calloc((size_t)list->count + 1, sizeof *items);
    json_t *map = json_object(), *metadata = json_pack("{s:s}", "format", "pt");
    int *first = calloc((size_t)list->count + 2, sizeof *first), shards = 0;
    int64_t total = 0, size = 0;
    if (!items || !first) die("out of memory");
    for (int i = 0; i < list->count; i++) {
        int64_t bytes = tensor_count(&list->param[i].shape) * (int64_t)dtype_size(n->dtype);
        if (i == 0 || size + bytes > shard_bytes) first[shards++] = i, size = 0;
        size += bytes;
        total += bytes;
    }
    first[shards] = list->count;
    for (int s = 0; s < shards; s++) {
        int count = first[s + 1] - first[s];
        snprintf(name, sizeof name, shards > 1 ? "%s-%05d-of-%05d.safetensors" : "%s.safetensors", n->file,
                 s + 1, shards);
        progress("%s/%s", folder, name);
        for (int i = 0; i < count; i++) {
            const struct param *p = &list->param[first[s] + i];
            items[i] = (struct safetensors_item){p->name, make_values(p, m->seed, n->dtype)};
            json_object_set_new(map, p->name, json_string(name));
        }
        snprintf(path, sizeof path, "%s/%s", folder, name);
        if (!safetensors_write(path, items, count, metadata, err, sizeof err)) die("%s", err);
        for (int i = 0; i < count; i++) free(items[i].t.data);
    }
    snprintf(path, sizeof path, "%s/%s.safetensors.index.json", folder, n->file);
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (shards > 1 && !json_file_write(path, index, err, sizeof err)) die("%s", err);
    json_decref(index);
    json_decref(metadata);
    free(items);
    free(first);
}

/* Its weights, then its config. */
static void write_part(const struct model *m, const char *dir, const struct part *part)
{
    char folder[PATH];
    struct params list = {0};
    const struct network *n = part_declare(&list, m, part, err, sizeof err);
    if (!n) die("%s", err);
    part_folder(folder, dir, part);
    if (!make_folder(folder, err, sizeof err)) die("%s", err);
    write_weights(m, folder, n, &list);
    params_free(&list);
    char name[256];
    snprintf(name, sizeof name, "%s%sconfig.json", part->folder, *part->folder ? "/" : "");
    copy_file(m, name, dir, name);
}

static void write_video(const struct model *m, const char *dir, const struct part *part, int parts)
{
    static const char *const others[][2] = {{"scheduler", "scheduler/scheduler_config.json"},
                                            {"tokenizer", "tokenizer/spiece.model"},
                                            {"", "model_index.json"}};
    char path[PATH];
    for (int i = 0; i < parts; i++) write_part(m, dir, &part[i]);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, others[i][0]);
        if (!make_folder(path, err, sizeof err)) die("%s", err);
        copy_file(m, others[i][1], dir, others[i][1]);
    }
}

static void write_owl(const struct model *m, const char *dir, const struct part *owl)
{
    char path[PATH];
    const char *own = "tokenizer.model", *shared = "tokenizer/tokenizer.model";
    snprintf(path, sizeof path, "%s/%s", m->folder, own);
    enum path_kind kind = path_kind(path, err, sizeof err);
    if (kind == PATH_UNKNOWN) die("%s", err);
    copy_file(m, kind == PATH_FILE ? own : shared, dir, own);
    write_part(m, dir, owl);
}

int main(int argc, char **argv)
{
    static struct atomic_folder folder;
    char name[4096];
    filter_start(argc, argv, help, options, FILTER_ARGUMENTS | FILTER_SEED);
    if (filter.argc != 2) usage_error("a preset and a folder are wanted");
    filter_checked();
    const char *dir = filter.argv[1];
    if (strlen(dir) > sizeof name - 256) die("%.40s...: too long a name", dir);
    snprintf(name, sizeof name, "random:%s:%lld", filter.argv[0], (long long)filter.seed);
    struct model *m = model_open(name, err, sizeof err);
    if (!m) die("%s", err);
    if (!atomic_folder_open(&folder, dir, err, sizeof err)) die("%s", err);

    int parts;
    const struct part *part = model_parts(m, &parts);
    if (part->kind == PART_GRADER)
        write_owl(m, folder.temporary, part);
    else
        write_video(m, folder.temporary, part, parts);
    if (!atomic_folder_commit(&folder, err, sizeof err)) die("%s", err);
    model_close(m);
    return filter_finish();
}
