/* show - say in readable text what a stream, a safetensors file, a store or a model holds; or check that it
 * is sound. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filters/lib/describe.h"
#include "filters/lib/energy.h"
#include "filters/lib/filter.h"
#include "filters/nets/families.h"
#include "formats/plain.h"
#include "formats/safetensors.h"
#include "formats/store.h"

static const char help[] =
    "show - what a stream, file, store or model holds\n"
    "usage: show [options] [FILE...]       streams, .safetensors files or stores; no FILE: stdin\n"
    "       show -m MODEL                  a model folder or random:PRESET: every tensor, nothing loaded\n"
    "  -m, --model DIR      model folder\n"
    "      --jsonl          one JSON line a record (of a model or a file: a tensor)  [text]\n"
    "      --stats          each tensor's least, largest and mean value              [off]\n"
    "      --joules CARD    what a card has used since the driver was loaded, by NVML; CARD: its number there, its\n"
    "                       UUID or its PCI address                                     [none]\n"
    "      --geometry       of a model: what its latents and texts look like, a name and a number a line  [off]\n"
    "      --check          read and verify everything, print only what is wrong     [off]\n"
    "COMMON\n"
    "exit    0 all sound, 1 something is damaged or cannot be read, 2 wrong usage\n"
    "e.g.    show train/*.mp | less; show --check train; show -m random:cogvideox-5b | tail -1\n"
    "see also: tensor-eq, pack\n";

static bool jsonl, stats, check, geometry;
static const char *card;
static const char *model;
static const struct option_spec options[] = {
    {.name = "model", .letter = 'm', .kind = OPT_TEXT, .dest = &model},
    {.name = "jsonl", .kind = OPT_FLAG, .dest = &jsonl},
    {.name = "stats", .kind = OPT_FLAG, .dest = &stats},
    {.name = "joules", .kind = OPT_TEXT, .dest = &card},
    {.name = "geometry", .kind = OPT_FLAG, .dest = &geometry},
    {.name = "check", .kind = OPT_FLAG, .dest = &check},
    {0}};
static char err[1024];

/* ---- streams and stores -------------------------------------------------------------------------------- */

static void show_record(struct record *f, int64_t position)
{
    if (!jsonl) {
        describe_record(stdout, f, position, stats);
        return;
    }
    json_t *line = filter_record_json(f), *tensors = json_object();
    for (int i = 0; i < f->count; i++)
        json_object_set_new(tensors, f->tensor[i].name, describe_tensor_json(&f->tensor[i].t, stats));
    json_object_set_new(line, "tensors", tensors);
    filter_emit_line(line);
}

/* Once for each stream that is not empty, or is the last one. */
static void show_begin(json_t *begin, json_t **shown)
{
    if (!begin || begin == *shown || check || jsonl) return;
    describe_begin(stdout, begin);
    json_decref(*shown);
    *shown = json_incref(begin);
}

static void show_stream(int fd, const char *name)
{
    struct record f = RECORD_INIT;
    struct record_reader *r = record_reader_open(fd, name);
    json_t *shown = NULL;
    int64_t count = 0;
    enum record_got got;
    if (!r) die("out of memory");
    while ((got = record_read(r, &f)) > RECORD_END) {
        show_begin(record_reader_begin(r), &shown);
        if (got == RECORD_BAD_LINE)
            filter_fail_at(NULL, "%s", f.error);
        else if (!check)
            show_record(&f, count);
        count += got == RECORD_GOT;
    }
    show_begin(record_reader_begin(r), &shown);
    if (got == RECORD_DAMAGED)
        filter_fail_at(NULL, "%s", f.error);
    else if (!check && !jsonl)
        printf("end    %lld records, %lld failed\n", (long long)count, (long long)record_reader_failed(r));
    json_decref(shown);
    record_reader_close(r);
    record_free(&f);
}

static void store_problem(void *context, const char *where, const char *why)
{
    (void)context;
    filter_fail_at(where, "%s", why);
}

static void show_store(const char *path)
{
    if (check) {
        if (store_check(path, store_problem, NULL, err, sizeof err) < 0) filter_fail_at(NULL, "%s", err);
        return;
    }
    struct record f = RECORD_INIT;
    struct store *s = store_open(path, err, sizeof err);
    if (!s) filter_fail_at(NULL, "%s", err);
    for (int64_t i = 0; s && i < s->count; i++)
        if (store_read(s, i, &f))
            show_record(&f, i);
        else
            filter_fail_at(s->record[i].key, "%s", f.error);
    record_free(&f);
    store_close(s);
}

/* ---- files and models ---------------------------------------------------------------------------------- */

static void show_listed(const char *name, const struct tensor *t)
{
    if (check) return;
    if (jsonl) {
        json_t *line = json_pack("{s:s}", "name", name), *entry = describe_tensor_json(t, stats);
        json_object_update(line, entry);
        json_decref(entry);
        filter_emit_line(line);
    } else {
        describe_tensor(stdout, name, 72, t, stats);
    }
}

static void show_safetensors(const char *path)
{
    const char *field;
    json_t *value;
    int64_t parameters = 0;
    struct safetensors *s = safetensors_open(path, err, sizeof err);
    if (!s) {
        filter_fail_at(NULL, "%s", err);
        return;
    }
    json_object_foreach (s->metadata, field, value) {
        if (jsonl || check) continue;
        put_plain(stdout, field);
        printf(" = ");
        put_plain(stdout, json_string_value(value));
        putchar('\n');
    }
    for (int i = 0; i < s->count; i++) {
        const struct safetensors_entry *e = &s->entry[i];
        struct tensor t = e->shape;
        parameters += tensor_count(&t);
        if ((stats || check) && !(t.data = malloc(e->bytes + 1))) die("%s: no memory for %s", path, e->name);
        if (t.data && !safetensors_read(s, e, t.data, err, sizeof err))
            filter_fail_at(NULL, "%s", err);
        else
            show_listed(e->name, &t);
        free(t.data);
    }
    if (!jsonl && !check) printf("%d tensors, %lld parameters\n", s->count, (long long)parameters);
    safetensors_close(s);
}

static void show_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        filter_fail_at(path, "%s", strerror(errno));
    else if (S_ISDIR(st.st_mode))
        show_store(path);
    else if (S_ISREG(st.st_mode) && safetensors_is(fd))
        show_safetensors(path);
    else
        show_stream(fd, path);
    if (fd >= 0) close(fd);
}

static void show_part(const struct model *m, const struct part *part)
{
    char name[256];
    struct params list = {0};
    struct model_weights *files = NULL;
    const struct network *n = part_declare(&list, m, part, err, sizeof err);
    if (!n || !weights_check(&list, m, part->folder, n->alias, err, sizeof err) ||
        (!m->random && !(files = model_weights_open(m, part->folder, err, sizeof err)))) {
        filter_fail_at(NULL, "%s", err);
    } else {
        for (int i = 0; i < list.count; i++) {
            const struct param *p = &list.param[i];
            snprintf(name, sizeof name, "%s%s%s", part->folder, *part->folder ? "/" : "", p->name);
            show_listed(name, files ? &model_weights_find(files, p->name)->entry->shape : &p->shape);
        }
        if (!jsonl && !check)
            printf("%s: %d tensors, %lld parameters\n", part->title, list.count,
                   (long long)params_count(&list));
    }
    model_weights_close(files);
    params_free(&list);
}

static void show_geometry(const struct model *m)
{
    struct latent_geometry g;
    if (!denoiser_geometry(m, false, &g, err, sizeof err)) die("%s", err);
    const struct {
        const char *name;
        int64_t value;
    } line[] = {{"channels", g.channels},     {"temporal", g.temporal},
                {"spatial", g.spatial},       {"patch", g.patch},
                {"frames", g.frames},         {"width", g.width},
                {"height", g.height},         {"text_length", g.text_length},
                {"text_width", g.text_width}, {"transformers", 1 + model_has_part(m, "transformer_2")}};
    for (size_t i = 0; i < sizeof line / sizeof line[0]; i++)
        printf("%-12s %lld\n", line[i].name, (long long)line[i].value);
}

static void show_model(void)
{
    int parts;
    struct model *m = model_open(model, err, sizeof err);
    if (!m) die("%s", err);
    const struct part *part = model_parts(m, &parts);
    if (geometry) show_geometry(m);
    for (int i = 0; i < parts && !geometry; i++) show_part(m, &part[i]);
    model_close(m);
}

static void show_joules(void)
{
    const double joules = energy_joules(card);
    if (isnan(joules)) die("%s: no NVML here, no such card, or one that does not count its energy", card);
    printf("%.3f\n", joules);
}

int main(int argc, char **argv)
{
    filter_start(argc, argv, help, options, FILTER_ARGUMENTS | FILTER_TEXT_OUT);
    if (model && filter.argc) usage_error("either -m or files");
    if (geometry && !model) usage_error("--geometry is a model's: it needs -m");
    if (model && stats) usage_error("--stats is of values, and a model's are not loaded");
    if (card && (model || filter.argc)) usage_error("--joules goes alone");
    options_unfit("jsonl|stats|geometry|check", card, "--joules goes alone");
    options_unfit("jsonl|check", geometry, "--geometry prints lines of its own");
    options_unfit("jsonl|stats", check, "--check prints only what is wrong");
    filter_checked();
    if (card)
        show_joules();
    else if (model)
        show_model();
    else if (!filter.argc)
        show_stream(0, "stdin");
    for (int i = 0; i < filter.argc; i++) show_file(filter.argv[i]);
    if (check && !filter.failed) say(NULL, "sound");
    return filter_finish();
}
