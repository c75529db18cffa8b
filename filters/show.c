/* show - say in readable text what a stream, a safetensors file, a store or a model holds; or check that it is sound. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filters/filter.h"
#include "filters/nets/dit.h"
#include "filters/nets/t5.h"
#include "filters/nets/vae.h"
#include "formats/safetensors.h"
#include "formats/store.h"

static const char help[] = "show - what a stream, file, store or model holds\n"
                           "usage: show [options] [FILE...]       streams, .safetensors files or stores; no FILE: stdin\n"
                           "       show -m MODEL                  a model folder or random:PRESET: every tensor, nothing loaded\n"
                           "  -m, --model DIR      model folder\n"
                           "      --jsonl          one JSON line a record (of a model or a file: a tensor)  [text]\n"
                           "      --stats          each tensor's least, largest and mean value              [off]\n"
                           "      --check          read and verify everything, print only what is wrong     [off]\n"
                           "COMMON\n"
                           "exit    0 all sound, 1 something is damaged or cannot be read, 2 wrong usage\n"
                           "e.g.    show train/*.mp | less; show --check train; show -m random:cogvideox-5b | tail -1\n"
                           "see also: tensor-eq, pack\n";

static bool jsonl, stats, check;
static const char *model;
static const struct option_spec options[] = {
    {.name = "model", .letter = 'm', .kind = OPT_TEXT, .dest = &model},
    {.name = "jsonl", .kind = OPT_FLAG, .dest = &jsonl},
    {.name = "stats", .kind = OPT_FLAG, .dest = &stats},
    {.name = "check", .kind = OPT_FLAG, .dest = &check},
    {0}};
static char err[1024];

static void problem(const char *where, const char *why)
{
    filter.failed++;
    say(where, "%s", why);
}

static json_t *shape_json(const struct tensor *t)
{
    json_t *shape = json_array();
    for (int a = 0; a < t->rank; a++) json_array_append_new(shape, json_integer(t->shape[a]));
    return shape;
}

static void tensor_stats(const struct tensor *t, double *low, double *high, double *mean)
{
    int64_t n = tensor_count(t);
    double sum = 0;
    *low = INFINITY, *high = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        double v = tensor_get(t, i);
        if (!(v >= *low)) *low = v;
        if (!(v <= *high)) *high = v;
        sum += v;
    }
    *mean = sum / (double)n;
}

static void show_record(struct frame *f, int64_t index)
{
    char is[160];
    double low, high, mean;
    if (jsonl) {
        json_t *line = filter_record_json(f), *tensors = json_object();
        for (int i = 0; i < f->count; i++) {
            struct tensor *t = &f->tensor[i].t;
            json_t *entry = json_pack("{s:s, s:o}", "dtype", dtype_name(t->dtype), "shape", shape_json(t));
            if (stats && tensor_count(t)) {
                tensor_stats(t, &low, &high, &mean);
                json_object_set_new(entry, "min", isfinite(low) ? json_real(low) : json_null());
                json_object_set_new(entry, "max", isfinite(high) ? json_real(high) : json_null());
                json_object_set_new(entry, "mean", isfinite(mean) ? json_real(mean) : json_null());
            }
            json_object_set_new(tensors, f->tensor[i].name, entry);
        }
        json_object_set_new(line, "tensors", tensors);
        filter_emit_line(line);
        return;
    }
    printf("%-6lld %s\n", (long long)index, frame_key(f));
    for (int i = 0; i < f->count; i++) {
        printf("       %-16s %s", f->tensor[i].name, tensor_describe(is, sizeof is, &f->tensor[i].t));
        if (stats && tensor_count(&f->tensor[i].t)) {
            tensor_stats(&f->tensor[i].t, &low, &high, &mean);
            printf("  min %.4g max %.4g mean %.4g", low, high, mean);
        }
        puts("");
    }
    const char *key;
    json_t *value;
    json_object_foreach (frame_meta(f), key, value) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        printf("       %-16s %s\n", key, text);
        free(text);
    }
}

static void show_stream(int fd, const char *name)
{
    struct frame f = FRAME_INIT;
    struct frame_reader *r = frame_reader_open(fd, name);
    json_t *last = NULL;
    int64_t count = 0;
    enum frame_got got;
    if (!r) die("out of memory");
    while ((got = frame_read(r, &f)) > FRAME_END) {
        if (got == FRAME_BAD_LINE) {
            problem(NULL, f.error);
            continue;
        }
        json_t *begin = frame_reader_begin(r);
        if (begin && begin != last && !check && !jsonl) {
            char *settings = json_dumps(json_object_get(begin, "settings"), JSON_COMPACT | JSON_ENCODE_ANY);
            printf("begin  %s %s %s\n", json_string_value(json_object_get(begin, "program")),
                   json_string_value(json_object_get(begin, "version")), settings ? settings : "");
            free(settings);
        }
        last = begin;
        if (!check) show_record(&f, count);
        count++;
    }
    if (got == FRAME_DAMAGED) problem(NULL, f.error);
    if (got == FRAME_END && !check && !jsonl) printf("end    %lld records, %lld failed\n", (long long)count, (long long)frame_reader_failed(r));
    frame_reader_close(r);
    frame_free(&f);
}

static void show_tensor(const char *name, const struct tensor *t)
{
    char is[160];
    if (jsonl)
        filter_emit_line(json_pack("{s:s, s:s, s:o}", "name", name, "dtype", dtype_name(t->dtype), "shape", shape_json(t)));
    else if (!check)
        printf("%-72s %s\n", name, tensor_describe(is, sizeof is, t));
}

static void show_safetensors(const char *path)
{
    struct safetensors *s = safetensors_open(path, err, sizeof err);
    int64_t parameters = 0;
    if (!s) {
        problem(NULL, err);
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach (s->metadata, key, value)
        if (!jsonl && !check) printf("%s = %s\n", key, json_string_value(value));
    for (int i = 0; i < s->count; i++) {
        parameters += tensor_count(&s->entry[i].shape);
        show_tensor(s->entry[i].name, &s->entry[i].shape);
    }
    if (!jsonl && !check) printf("%d tensors, %lld parameters\n", s->count, (long long)parameters);
    safetensors_close(s);
}

static void store_problem(void *context, const char *where, const char *why)
{
    (void)context;
    problem(where, why);
}

/* By its first bytes: a safetensors file has a small header length and then `{`, a stream never does. */
static void show_file(const char *path)
{
    struct stat st;
    unsigned char first[9] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        problem(path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        struct store *s = store_open(path, err, sizeof err);
        if (check && store_check(path, store_problem, NULL, err, sizeof err) < 0) problem(NULL, err);
        if (!s && !check) problem(NULL, err);
        for (int64_t i = 0; s && !check && i < s->count; i++) {
            struct frame f = FRAME_INIT;
            if (store_read(s, i, &f))
                show_record(&f, i);
            else
                problem(s->record[i].key, f.error);
            frame_free(&f);
        }
        store_close(s);
    } else if (S_ISREG(st.st_mode) && pread(fd, first, 9, 0) == 9 && first[8] == '{' && !first[4] && !first[5] && !first[6] && !first[7]) {
        show_safetensors(path);
    } else {
        show_stream(fd, path);
    }
    if (fd >= 0) close(fd);
}

static void show_model(void)
{
    static const char *const tied[] = {"encoder.embed_tokens.weight", NULL}; /* shared.weight again, in some folders */
    static const struct {
        const char *name;
        bool (*declare)(struct params *, json_t *, const char *, char *, size_t);
        const char *const *alias;
    } part[] = {{"transformer", dit_declare, NULL},
                {"vae", vae_declare, NULL},
                {"text_encoder", t5_declare, tied}};
    struct model *m = model_open(model, err, sizeof err);
    if (!m) die("%s", err);
    for (int p = 0; p < 3; p++) {
        struct params list = {0};
        char file[64];
        snprintf(file, sizeof file, "%s/config.json", part[p].name);
        json_t *config = model_config(m, part[p].name, err, sizeof err);
        if (!config || !part[p].declare(&list, config, file, err, sizeof err) || 
            !weights_check(&list, m, part[p].name, part[p].alias, err, sizeof err)) {
            problem(NULL, err);
        } else {
            for (int i = 0; i < list.count; i++) {
                char name[256];
                snprintf(name, sizeof name, "%s/%s", part[p].name, list.param[i].name);
                show_tensor(name, &list.param[i].shape);
            }
            if (!jsonl && !check) printf("%s: %d tensors, %lld parameters\n", part[p].name, list.count, (long long)params_count(&list));
        }
        params_free(&list);
        json_decref(config);
    }
    model_close(m);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_ARGUMENTS | FILTER_TEXT_OUT);
    if (model && filter.argc) usage_error("either -m or files");
    if (model)
        show_model();
    else if (!filter.argc)
        show_stream(0, "stdin");
    for (int i = 0; i < filter.argc; i++) show_file(filter.argv[i]);
    if (check && !filter.failed) say(NULL, "sound");
    return filter_finish();
}
