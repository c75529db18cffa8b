#include "formats/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/json_file.h"
#include "formats/listed.h"
#include "formats/path.h"

/* false, with the reason in err, when the path does not fit. */
__attribute__((format(printf, 5, 6))) static bool make_path(char *path, size_t size, char *err, size_t errlen,
                                                            const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(path, size, fmt, ap);
    va_end(ap);
    return n < (int)size || fail(err, errlen, "%s: %s", path, strerror(ENAMETOOLONG));
}

/* ---- the program's own data -------------------------------------------------------------------- */

bool data_path(const char *relative, char *path, size_t size)
{
    /* beside bin/, beside an installed bin/, and above build/SAN/bin/ or build/SAN/tests/ */
    static const char *const beside[] = {"../examples", "../share/sluice", "../../../examples"};
    char folder[PATH_MAX];
    const char *chosen = getenv("SLUICE_DATA");
    if (chosen && *chosen)
        return make_path(path, size, NULL, 0, "%s/%s", chosen, relative) && !access(path, F_OK);

    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (n <= 0) return false;
    folder[n] = 0;
    *strrchr(folder, '/') = 0;
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
        if (make_path(path, size, NULL, 0, "%s/%s/%s", folder, beside[i], relative) && !access(path, F_OK))
            return true;
    return false;
}

/* ---- the folder -------------------------------------------------------------------------------- */

static bool refuse_preset(const char *name, char *err, size_t errlen)
{
    char presets[PATH_MAX];
    struct listed l = listed_start(name);
    if (data_path("presets", presets, sizeof presets)) listed_folder(&l, presets, "");
    return fail(err, errlen, "random:%s: no preset is called so: %s", name, listed_end(&l));
}

/* PRESET[:SEED] into the folder and the seed. */
static bool open_random(struct model *m, const char *preset, char *err, size_t errlen)
{
    char name[PATH_MAX], relative[PATH_MAX + 16], path[PATH_MAX];
    if (!make_path(name, sizeof name, err, errlen, "%s", preset)) return false;
    char *seed = strrchr(name, ':');
    if (seed) {
        *seed++ = 0;
        errno = 0;
        m->seed = strtoull(seed, NULL, 10);
        if (!*seed || seed[strspn(seed, "0123456789")] || errno)
            return fail(err, errlen, "random:%s: the seed after the last ':' must be a number below 2^64",
                        preset);
    }
    m->random = true;
    snprintf(relative, sizeof relative, "presets/%s", name);
    if (strchr(name, '/'))
        m->folder = strdup(name);
    else if (*name && *name != '.' && data_path(relative, path, sizeof path))
        m->folder = strdup(path);
    else
        return refuse_preset(name, err, errlen);
    return m->folder || fail(err, errlen, "out of memory");
}

struct model *model_open(const char *name, char *err, size_t errlen)
{
    struct model *m = calloc(1, sizeof *m);
    bool good = m || fail(err, errlen, "out of memory");
    if (good && !strncmp(name, "random:", 7))
        good = open_random(m, name + 7, err, errlen);
    else if (good)
        good = (m->folder = strdup(name)) || fail(err, errlen, "out of memory");
    enum path_kind kind = good ? path_kind(m->folder, err, errlen) : PATH_UNKNOWN;
    if (kind == PATH_FOLDER) return m;
    if (kind != PATH_UNKNOWN) fail(err, errlen, "%s: no such model folder", m->folder);
    model_close(m);
    return NULL;
}

void model_close(struct model *m)
{
    if (m) free(m->folder);
    free(m);
}

bool model_file(const struct model *m, const char *relative, char *path, size_t size, char *err,
                size_t errlen)
{
    if (!make_path(path, size, err, errlen, "%s/%s", m->folder, relative)) return false;
    enum path_kind kind = path_kind(path, err, errlen);
    if (kind == PATH_FILE) return true;
    if (kind == PATH_UNKNOWN) return false;
    if (m->random && data_path(relative, path, size)) return true;
    return fail(err, errlen, "%s/%s: no such file", m->folder, relative);
}

static bool part_folder(const struct model *m, const char *part, char *path, size_t size, char *err,
                        size_t errlen)
{
    return make_path(path, size, err, errlen, "%s%s%s", m->folder, *part ? "/" : "", part);
}

bool model_has_part(const struct model *m, const char *part)
{
    char path[PATH_MAX];
    return part_folder(m, part, path, sizeof path, NULL, 0) && path_kind(path, NULL, 0) == PATH_FOLDER;
}

json_t *model_config(const struct model *m, const char *part, char *err, size_t errlen)
{
    char folder[PATH_MAX], path[PATH_MAX];
    const char *name = strcmp(part, "scheduler") ? "config.json" : "scheduler_config.json";
    if (!part_folder(m, part, folder, sizeof folder, err, errlen) ||
        !make_path(path, sizeof path, err, errlen, "%s/%s", folder, name))
        return NULL;
    return json_file_read(path, 1 << 20, err, errlen);
}

json_t *model_index(const struct model *m, char *err, size_t errlen)
{
    char path[PATH_MAX];
    if (!make_path(path, sizeof path, err, errlen, "%s/model_index.json", m->folder)) return NULL;
    if (path_kind(path, err, errlen) == PATH_ABSENT) return json_object();
    return json_file_read(path, 1 << 20, err, errlen);
}

/* ---- weights ----------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct model_tensor *)a)->name, ((const struct model_tensor *)b)->name);
}

const struct model_tensor *model_weights_find(const struct model_weights *w, const char *name)
{
    struct model_tensor key = {.name = name};
    return w->count ? bsearch(&key, w->tensor, (size_t)w->count, sizeof *w->tensor, by_name) : NULL;
}

/* Nothing to load: says what was looked for, and what lies there instead. Pickles are programs, so they stay
 * shut. */
static bool no_weights(const char *folder, char *err, size_t errlen)
{
    static const char *const pickles[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    char pickle[256] = "", other[256] = "";
    DIR *d = opendir(folder);
    if (!d) return fail(err, errlen, "%s: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++)
            if (ends_with(e->d_name, pickles[i]) && (!*pickle || strcmp(e->d_name, pickle) < 0))
                snprintf(pickle, sizeof pickle, "%s", e->d_name);
        if (ends_with(e->d_name, ".safetensors") && (!*other || strcmp(e->d_name, other) < 0))
            snprintf(other, sizeof other, "%s", e->d_name);
    }
    closedir(d);
    if (*other)
        return fail(err, errlen,
                    "%s: has %s, but no diffusion_pytorch_model.safetensors, model.safetensors or "
                    ".index.json of these",
                    folder, other);
    if (*pickle)
        return fail(
            err, errlen,
            "%s: has only pickled weights (%s), which are never executed here: model-convert makes safetensors of "
            "them, if they are plain tensors",
            folder, pickle);
    return fail(err, errlen,
                "%s: no weights (diffusion_pytorch_model.safetensors, model.safetensors or their index)",
                folder);
}

static bool add_shard(struct model_weights *w, const char *path, char *err, size_t errlen)
{
    struct safetensors **more = realloc(w->shard, ((size_t)w->shards + 1) * sizeof *more);
    if (!more) return fail(err, errlen, "out of memory");
    w->shard = more;
    struct safetensors *s = safetensors_open(path, err, errlen);
    if (!s) return false;
    w->shard[w->shards++] = s;
    return true;
}

/* Every tensor of every shard, sorted by name. */
static bool list_tensors(struct model_weights *w, char *err, size_t errlen)
{
    size_t count = 0;
    for (int i = 0; i < w->shards; i++) count += (size_t)w->shard[i]->count;
    if (count > SAFETENSORS_MAX_TENSORS)
        return fail(err, errlen, "%zu tensors in all shards, too many", count);
    w->tensor = calloc(count + 1, sizeof *w->tensor);
    if (!w->tensor) return fail(err, errlen, "out of memory");
    for (int i = 0; i < w->shards; i++)
        for (int j = 0; j < w->shard[i]->count; j++) {
            const struct safetensors_entry *e = &w->shard[i]->entry[j];
            w->tensor[w->count++] = (struct model_tensor){e->name, w->shard[i], e};
        }
    qsort(w->tensor, count, sizeof *w->tensor, by_name);
    for (int i = 1; i < w->count; i++)
        if (!strcmp(w->tensor[i - 1].name, w->tensor[i].name))
            return fail(err, errlen, "tensor %s is in %s and in %s", w->tensor[i].name,
                        w->tensor[i - 1].file->path, w->tensor[i].file->path);
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Opens each shard that the map names, once, in the order of their names. */
static bool open_shards(struct model_weights *w, const char *folder, json_t *map, char *err, size_t errlen)
{
    char path[PATH_MAX];
    const char *tensor, **name = calloc(json_object_size(map) + 1, sizeof *name);
    json_t *value;
    size_t n = 0;
    bool good = true;
    if (!name) return fail(err, errlen, "out of memory");
    json_object_foreach (map, tensor, value) {
        const char *shard = json_string_value(value);
        bool fine = shard && ends_with(shard, ".safetensors") && !strchr(shard, '/') && !strstr(shard, "..");
        if (fine)
            name[n++] = shard;
        else if (good)
            good = fail(err, errlen, "tensor %s: \"%.80s\" is no safetensors file of this folder", tensor,
                        shard ? shard : "");
    }
    qsort(name, n, sizeof *name, by_text);
    for (size_t i = 0; good && i < n; i++) {
        if (i > 0 && !strcmp(name[i], name[i - 1])) continue;
        good = make_path(path, sizeof path, err, errlen, "%s/%s", folder, name[i]) &&
               add_shard(w, path, err, errlen);
    }
    free(name);
    return good;
}

/* The index and the shards must say the same: what it promises is there, and nothing else is. */
static bool check_index(const struct model_weights *w, json_t *map, char *err, size_t errlen)
{
    const char *tensor;
    json_t *value;
    json_object_foreach (map, tensor, value) {
        const struct model_tensor *t = model_weights_find(w, tensor);
        if (!t) return fail(err, errlen, "tensor %s is not in %s", tensor, json_string_value(value));
        if (strcmp(strrchr(t->file->path, '/') + 1, json_string_value(value)))
            return fail(err, errlen, "tensor %s is in %s, not in %s", tensor, t->file->path,
                        json_string_value(value));
    }
    for (int i = 0; i < w->count; i++)
        if (!json_object_get(map, w->tensor[i].name))
            return fail(err, errlen, "tensor %s of %s is not in the index", w->tensor[i].name,
                        w->tensor[i].file->path);
    return true;
}

static bool open_index(struct model_weights *w, const char *folder, const char *path, char *err,
                       size_t errlen)
{
    char why[1024];
    json_t *index = json_file_read(path, SAFETENSORS_MAX_HEADER, err, errlen);
    if (!index) return false;
    json_t *map = json_object_get(index, "weight_map");
    bool good = json_object_size(map) > 0 || fail(why, sizeof why, "no weight_map of tensor names to files");
    good = good && open_shards(w, folder, map, why, sizeof why) && list_tensors(w, why, sizeof why) &&
           check_index(w, map, why, sizeof why);
    json_decref(index);
    return good || fail(err, errlen, "%s: %s", path, why);
}

static bool open_weights(struct model_weights *w, const struct model *m, const char *part, char *err,
                         size_t errlen)
{
    static const char *const names[] = {"diffusion_pytorch_model.safetensors", "model.safetensors"};
    char folder[PATH_MAX], path[PATH_MAX], found[PATH_MAX] = "";
    bool sharded = false;
    if (m->random) return fail(err, errlen, "%s: a preset has no weight files", m->folder);
    if (!part_folder(m, part, folder, sizeof folder, err, errlen)) return false;
    for (int i = 0; i < 4; i++) {
        if (!make_path(path, sizeof path, err, errlen, "%s/%s%s", folder, names[i / 2],
                       i % 2 ? ".index.json" : ""))
            return false;
        enum path_kind kind = path_kind(path, err, errlen);
        if (kind == PATH_UNKNOWN) return false;
        if (kind == PATH_ABSENT) continue;
        if (*found) return fail(err, errlen, "%s and %s: only one of them can hold the weights", found, path);
        memcpy(found, path, sizeof found);
        sharded = i % 2;
    }
    if (!*found) return no_weights(folder, err, errlen);
    if (sharded) return open_index(w, folder, found, err, errlen);
    return add_shard(w, found, err, errlen) && list_tensors(w, err, errlen);
}

struct model_weights *model_weights_open(const struct model *m, const char *part, char *err, size_t errlen)
{
    struct model_weights *w = calloc(1, sizeof *w);
    if (!w) fail(err, errlen, "out of memory");
    if (w && open_weights(w, m, part, err, errlen)) return w;
    model_weights_close(w);
    return NULL;
}

struct model_weights *model_weights_open_file(const char *path, char *err, size_t errlen)
{
    struct model_weights *w = calloc(1, sizeof *w);
    if (!w) fail(err, errlen, "out of memory");
    if (w && add_shard(w, path, err, errlen) && list_tensors(w, err, errlen)) return w;
    model_weights_close(w);
    return NULL;
}

void model_weights_close(struct model_weights *w)
{
    if (!w) return;
    for (int i = 0; i < w->shards; i++) safetensors_close(w->shard[i]);
    free(w->shard);
    free(w->tensor);
    free(w);
}

/* ---- configs ----------------------------------------------------------------------------------- */

/* The field's value, or NULL when it is absent or null. */
static json_t *field(const struct config *c, const char *key)
{
    json_t *j = json_object_get(c->json, key);
    return json_is_null(j) ? NULL : j;
}

__attribute__((format(printf, 3, 4))) static void complain(struct config *c, const char *key, const char *fmt,
                                                           ...)
{
    char what[160];
    va_list ap;
    struct listed l = listed_start(key);
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (!json_object_get(c->json, key)) listed_keys(&l, c->json); /* it may be misspelt */
    if (!*c->error) fail(c->error, sizeof c->error, "%s: %s %s%s", c->file, key, what, listed_hint(&l));
}

/* "is 7", "is \"gelu\"", "is missing" */
static const char *is_what(char *buf, size_t size, json_t *j)
{
    char *text = j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    snprintf(buf, size, "is %.60s", text ? text : "missing");
    free(text);
    return buf;
}

int64_t config_int(struct config *c, const char *key, int64_t low, int64_t high)
{
    char is[80];
    json_t *j = field(c, key);
    int64_t v = json_integer_value(j);
    if (json_is_integer(j) && v >= low && v <= high) return v;
    complain(c, key, "%s, must be a whole number from %lld to %lld", is_what(is, sizeof is, j),
             (long long)low, (long long)high);
    return low;
}

int64_t config_int_or(struct config *c, const char *key, int64_t low, int64_t high, int64_t otherwise)
{
    return field(c, key) ? config_int(c, key, low, high) : otherwise;
}

double config_real_or(struct config *c, const char *key, double otherwise)
{
    char is[80];
    json_t *j = field(c, key);
    if (j && !json_is_number(j)) complain(c, key, "%s, must be a number", is_what(is, sizeof is, j));
    return json_is_number(j) ? json_number_value(j) : otherwise;
}

bool config_bool_or(struct config *c, const char *key, bool otherwise)
{
    char is[80];
    json_t *j = field(c, key);
    if (j && !json_is_boolean(j)) complain(c, key, "%s, must be true or false", is_what(is, sizeof is, j));
    return json_is_boolean(j) ? json_is_true(j) : otherwise;
}

const char *config_text_or(struct config *c, const char *key, const char *otherwise)
{
    char is[80];
    json_t *j = field(c, key);
    if (j && !json_is_string(j)) complain(c, key, "%s, must be a text", is_what(is, sizeof is, j));
    return json_is_string(j) ? json_string_value(j) : otherwise;
}

int config_ints(struct config *c, const char *key, int64_t *values, int max)
{
    char is[80];
    json_t *j = field(c, key);
    size_t n = json_array_size(j);
    bool good = n > 0 && n <= (size_t)max;
    for (size_t i = 0; good && i < n; i++) {
        json_t *item = json_array_get(j, i);
        good = json_is_integer(item) && json_integer_value(item) >= 1;
        values[i] = json_integer_value(item);
    }
    if (good) return (int)n;
    complain(c, key, "%s, must be a list of 1 to %d whole numbers from 1 up", is_what(is, sizeof is, j), max);
    return 0;
}

void config_expect(struct config *c, const char *key, json_t *value_stolen)
{
    char is[80], want[80];
    json_t *j = field(c, key);
    bool same = json_is_number(j) && json_is_number(value_stolen)
                    ? json_number_value(j) == json_number_value(value_stolen)
                    : json_equal(j, value_stolen);
    if (j && !same)
        complain(c, key, "%s; only a model where it %s is supported", is_what(is, sizeof is, j),
                 is_what(want, sizeof want, value_stolen));
    json_decref(value_stolen);
}
