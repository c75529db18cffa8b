#include "filters/reporting/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/messages.h"
#include "formats/error.h"
#include "formats/io.h"

static void flatten(json_t *rows, const char *path, json_t *j, int run, int runs);

/* The same for a member `name`, under path.name. */
static void flatten_below(json_t *rows, const char *path, const char *name, json_t *j, int run, int runs)
{
    char *below = NULL;
    if (asprintf(&below, "%s%s%s", path, *path ? "." : "", name) < 0) die("out of memory");
    flatten(rows, below, j, run, runs);
    free(below);
}

/* Adds a text of a run unless it is there; of more than FEW, an ellipsis stands for the rest. */
static void add_text(json_t *texts, const char *text)
{
    enum { FEW = 8 };
    size_t i;
    json_t *other;
    json_array_foreach (texts, i, other)
        if (!strcmp(json_string_value(other), text)) return;
    if (i < FEW)
        json_array_append_new(texts, json_string(text));
    else if (i == FEW)
        json_array_append_new(texts, json_string("…"));
}

/* Adds the values in j, under their paths, to the texts of the run: rows is {path: [[texts] of each run]}. */
static void flatten(json_t *rows, const char *path, json_t *j, int run, int runs)
{
    char number[32];
    const char *name;
    size_t i;
    json_t *item;
    if (json_is_object(j)) {
        json_object_foreach (j, name, item) flatten_below(rows, path, name, item, run, runs);
    } else if (json_is_object(json_array_get(j, 0))) {
        json_array_foreach (j, i, item) {
            snprintf(number, sizeof number, "%zu", i);
            flatten_below(rows, path, number, item, run, runs);
        }
    } else if (j) {
        char *text = json_is_string(j) ? NULL : json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
        json_t *row = json_object_get(rows, path);
        if (!row) {
            json_object_set_new(rows, path, row = json_array());
            for (int k = 0; k < runs; k++) json_array_append_new(row, json_array());
        }
        add_text(json_array_get(row, (size_t)run), text ? text : json_string_value(j));
        free(text);
    }
}

/* The texts of a run as one, with commas between. */
static json_t *joined(const json_t *texts)
{
    char *all = NULL;
    size_t i, size;
    json_t *text;
    FILE *f = open_memstream(&all, &size);
    if (!f) die("out of memory");
    json_array_foreach (texts, i, text) fprintf(f, "%s%s", i ? ", " : "", json_string_value(text));
    if (!close_memory(f, &all)) die("out of memory");
    json_t *one = json_string(json_array_size(texts) ? all : "-");
    free(all);
    return one;
}

void settings_tables(const struct scores *s, json_t **shared, json_t **differing)
{
    json_t *rows = json_object(), *published = json_object(), *row, *way;
    const char *path;
    size_t i;
    *shared = json_pack("[[s, s]]", "setting", "value");
    *differing = json_pack("[[s]]", "setting");
    flatten(published, "", s->about, 0, 1);
    for (int run = 0; run < s->count; run++) {
        json_array_append_new(json_array_get(*differing, 0), json_string(s->variant[run].name));
        json_t *source = json_string(s->variant[run].source); /* NULL: a file name that is not UTF-8 */
        flatten(rows, "scores from", source, run, s->count);
        flatten(rows, "", s->variant[run].about, run, s->count);
        json_array_foreach (s->variant[run].ways, i, way)
            flatten(rows, "", json_object_get(way, "settings"), run, s->count);
        json_decref(source);
    }
    json_object_foreach (published, path, row)
        json_array_append_new(*shared, json_pack("[s, o]", path, joined(json_array_get(row, 0))));
    json_object_foreach (rows, path, row) {
        bool same = true;
        for (i = 1; i < json_array_size(row); i++)
            same = same && json_equal(json_array_get(row, i), json_array_get(row, 0));
        json_t *line = json_pack("[s]", path);
        for (i = 0; i < (same ? 1 : json_array_size(row)); i++)
            json_array_append_new(line, joined(json_array_get(row, i)));
        json_array_append_new(same ? *shared : *differing, line);
    }
    json_decref(rows);
    json_decref(published);
}

/* The rule is sample's: an adapter of objective flow answers with a velocity, which euler and unipc read; the others
 * answer as a base of v-prediction does, which dpm and ddim read. */
static json_t *misfit(const char *run, const char *objective, const char *scheduler)
{
    bool flow = !strcmp(objective, "flow"),
         reads_flow = !strcmp(scheduler, "euler") || !strcmp(scheduler, "unipc");
    if (flow == reads_flow) return NULL;
    return json_sprintf(
        "%s: an adapter of objective %s was sampled with %s, which reads its answers as something else: "
        "objective %s fits scheduler %s, scheduler %s fits objective %s",
        run, objective, scheduler, objective, flow ? "euler" : "dpm", scheduler, flow ? "flow-snr" : "flow");
}

json_t *settings_misfits(const struct scores *s)
{
    json_t *list = json_array(), *way, *adapter;
    for (int run = 0; run < s->count; run++) {
        json_t *said = NULL;
        size_t i, k;
        json_array_foreach (s->variant[run].ways, i, way) {
            json_t *sample = json_object_get(json_object_get(way, "settings"), "sample");
            const char *scheduler = json_string_value(json_object_get(sample, "scheduler")), *objective;
            json_array_foreach (json_object_get(sample, "adapters"), k, adapter)
                if (!said && scheduler &&
                    (objective = json_string_value(json_object_get(adapter, "objective"))))
                    said = misfit(s->variant[run].name, objective, scheduler);
        }
        if (said) json_array_append_new(list, said);
    }
    return list;
}

/* "compute-steps 0-4,6-49" or "guidance-steps all" of a run. */
static bool alike(const char *setting, const json_t *a, const char *run_a, const json_t *b, const char *run_b,
                  char *err, size_t errlen)
{
    const json_t *of[] = {json_object_get(a, setting), json_object_get(b, setting)};
    const char *text[2];
    for (int i = 0; i < 2; i++) text[i] = json_is_string(of[i]) ? json_string_value(of[i]) : "all";
    return !strcmp(text[0], text[1]) || fail(err, errlen, "%s was sampled with %s %s, %s with %s", run_a,
                                             setting, text[0], run_b, text[1]);
}

/* Products in FP8 are the one dtype that approximates. */
static bool dtype_alike(const json_t *a, const char *run_a, const json_t *b, const char *run_b, char *err,
                        size_t errlen)
{
    const json_t *of[] = {json_object_get(a, "dtype"), json_object_get(b, "dtype")};
    const char *text[2];
    bool fp8[2];
    for (int i = 0; i < 2; i++) {
        text[i] = json_is_string(of[i]) ? json_string_value(of[i]) : "bf16";
        fp8[i] = !strcmp(text[i], "fp8");
    }
    return fp8[0] == fp8[1] ||
           fail(err, errlen, "%s was sampled with dtype %s, %s with %s", run_a, text[0], run_b, text[1]);
}

bool settings_approximate_alike(const struct scores *s, char *err, size_t errlen)
{
    const json_t *first = NULL, *sample;
    const char *first_run = NULL, *name;
    json_t *way;
    size_t i;
    for (int run = 0; run < s->count; run++)
        json_array_foreach (s->variant[run].ways, i, way) {
            if (!(sample = json_object_get(json_object_get(way, "settings"), "sample"))) continue;
            name = s->variant[run].name;
            if (!first) first = sample, first_run = name;
            if (!dtype_alike(first, first_run, sample, name, err, errlen) ||
                !alike("compute-steps", first, first_run, sample, name, err, errlen) ||
                !alike("guidance-steps", first, first_run, sample, name, err, errlen))
                return false;
        }
    return true;
}
