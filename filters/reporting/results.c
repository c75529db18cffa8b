#include "filters/reporting/results.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/reporting/curves.h"
#include "filters/reporting/table.h"
#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/graded.h"
#include "formats/store.h"

/* A new reference to the field, or a null. */
static json_t *known(const json_t *o, const char *field)
{
    json_t *j = json_object_get(o, field);
    return j ? json_incref(j) : json_null();
}

/* From the settings that `sample` notes in every record; fps is encode-mp4's. */
static json_t *inference_settings(const json_t *about)
{
    json_t *sample = json_object_get(about, "sample");
    const char *size = json_string_value(json_object_get(sample, "size"));
    int width, height;
    bool sized = size && sscanf(size, "%dx%d", &width, &height) == 2;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "model", known(sample, "model"),
                     "num_frames", known(sample, "frames"), "height",
                     sized ? json_integer(height) : json_null(), "width",
                     sized ? json_integer(width) : json_null(), "fps", known(about, "fps"), "steps",
                     known(sample, "steps"), "guidance_scale", known(sample, "guidance"), "seed",
                     known(sample, "seed"), "use_upsampled_captions", known(about, "use_upsampled_captions"));
}

/* What a run's state keeps of its settings, in the words of published results. */
static json_t *training_of(const json_t *config)
{
    json_t *adapter = json_object_get(config, "adapter"), *val = json_object_get(config, "val");
    return json_pack("{s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "data", "n_train_videos", "rank",
                     known(adapter, "rank"), "lora_alpha", known(adapter, "alpha"), "lr", known(config, "lr"),
                     "max_steps", known(config, "max_steps"), "eval_every", known(val, "every"), "patience",
                     known(val, "patience"), "objective", known(config, "objective"), "target_modules",
                     known(adapter, "targets"));
}

/* What this run's training has not in common with the others' is null. */
static void merge_training(json_t *all, const json_t *one)
{
    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(all, next, name, value) if (!json_equal(value, json_object_get(one, name)))
        json_object_set_new(all, name, json_null());
}

static bool tell_run(struct scores *s, json_t **training, const struct curve *run, char *err, size_t errlen)
{
    struct variant *v = scores_find(s, run->name);
    json_t *config = NULL, *row = table_row(run->name, run->path, err, errlen), *step;
    bool good = row && (config = table_config(run->path, err, errlen));
    if (good && !v) good = fail(err, errlen, "%s: no variant is called `%s`", run->path, run->name);
    if (good) {
        double parameters = json_number_value(json_object_get(row, "parameters"));
        json_t *one = training_of(config);
        json_object_set_new(v->about, "params_M", json_real(parameters / 1e6));
        if ((step = json_object_get(row, "step_s"))) json_object_set(v->about, "step_s", step);
        if (*training)
            merge_training(*training, one), json_decref(one);
        else
            *training = one;
    }
    json_decref(config);
    json_decref(row);
    return good;
}

bool results_tell_training(struct scores *s, const char *const *folder, int count, const char *data,
                           const char *store, char *err, size_t errlen)
{
    struct curve *run = calloc((size_t)count + 1, sizeof *run);
    json_t *training = NULL;
    bool good = run || fail(err, errlen, "out of memory");
    for (int i = 0; good && i < count; i++) run[i].path = folder[i];
    if (good) name_curves(run, count);
    for (int i = 0; good && i < count; i++) good = tell_run(s, &training, &run[i], err, errlen);
    struct store *kept = good && store ? store_open(store, err, errlen) : NULL;
    good = good && (!store || kept);
    if (good && (training || data || store)) {
        if (!training) training = json_object();
        if (data) json_object_set_new(training, "data", json_string(data));
        if (kept) json_object_set_new(training, "n_train_videos", json_integer(kept->count));
        if (!s->about) s->about = json_object();
        json_object_set(s->about, "training", training);
    }
    if (kept) store_close(kept);
    json_decref(training);
    free(run);
    return good;
}

/* One task's scores of a run. */
static bool write_table(const struct scores *s, const struct variant *v, const char *folder, const char *task,
                        char *err, size_t errlen)
{
    char path[4096];
    struct graded_csv table;
    if (snprintf(path, sizeof path, "%s/scores_%s.csv", folder, task) >= (int)sizeof path)
        return fail(err, errlen, "%s: the path is too long", folder);
    if (!graded_csv_open(&table, path, task, false, "caption,videopath", err, errlen)) return false;
    for (size_t i = 0; i < v->count; i++) {
        const struct score *score = &v->score[i];
        json_t *caption = json_object_get(json_object_get(s->prompts, score->prompt), "caption");
        json_t *fields =
            json_pack("{s:O*, s:s}", "caption", caption, "path", score->path ? score->path : score->key);
        bool good =
            graded_csv_add(&table, score->key, fields, (int)(!strcmp(task, "sa") ? score->sa : score->pc));
        json_decref(fields);
        if (!good) return fail(err, errlen, "%s: out of memory", path);
    }
    return graded_csv_commit(&table, err, errlen);
}

bool results_write_tables(const struct scores *s, const char *folder, char *err, size_t errlen)
{
    char name[1024], path[4096];
    for (int run = 0; run < s->count; run++) {
        const struct variant *v = &s->variant[run];
        if (!key_filename(name, sizeof name, v->name, "") ||
            snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
            return fail(err, errlen, "%s: the path is too long", v->name);
        if (!make_folder(path, err, errlen) || !write_table(s, v, path, "sa", err, errlen) ||
            !write_table(s, v, path, "pc", err, errlen))
            return false;
    }
    return true;
}

static json_t *list_prompts(const struct pairing *p)
{
    json_t *list = json_array();
    for (size_t i = 0; i < p->n; i++) {
        json_t *about = json_object_get(p->scores->prompts, p->prompt[i]);
        json_t *line = json_pack("{s:I, s:o, s:o}", "id", (json_int_t)i, "caption", known(about, "caption"),
                                 "action", known(about, "action"));
        char id[32];
        snprintf(id, sizeof id, "%zu", i);
        if (strcmp(id, p->prompt[i])) json_object_set_new(line, "key", json_string(p->prompt[i]));
        json_array_append_new(list, line);
    }
    return list;
}

static json_t *list_values(const struct pairing *p, int run, enum metric m)
{
    json_t *list = json_array();
    for (size_t i = 0; i < p->n; i++)
        json_array_append_new(list, json_integer((json_int_t)pairing_value(p, i, run, m)));
    return list;
}

static json_t *describe(const struct pairing *p, int run)
{
    const struct variant *v = &p->scores->variant[run];
    double sum[METRICS], n = (double)p->n;
    for (int m = 0; m < METRICS; m++) sum[m] = pairing_sum(p, run, m);
    double delta = 100 * (sum[JOINT] - pairing_sum(p, p->base, JOINT)) / n;
    json_t *label = json_object_get(v->about, "label");
    return json_pack("{s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:f}", "label",
                     label ? json_incref(label) : json_string(v->name), "params_M",
                     known(v->about, "params_M"), "step_s", known(v->about, "step_s"), "joint_pct",
                     100 * sum[JOINT] / n, "pc_mean", sum[PC] / n, "sa_mean", sum[SA] / n, "pc_ge4_pct",
                     100 * sum[PC_HIGH] / n, "sa_ge4_pct", 100 * sum[SA_HIGH] / n, "joint_per_prompt",
                     list_values(p, run, JOINT), "sa_per_prompt", list_values(p, run, SA), "pc_per_prompt",
                     list_values(p, run, PC), "delta_joint_vs_base_pp", round(delta * 1e4) / 1e4);
}

json_t *results_make(const struct pairing *p, char *err, size_t errlen)
{
    const json_t *about = p->scores->about, *settings = json_object_get(about, "inference_settings");
    const json_t *definitions = json_object_get(about, "metric_definitions");
    json_t *variants = json_object();
    for (int run = 0; run < p->scores->count; run++) {
        if ((size_t)p->used[run] != p->n) {
            fail(err, errlen, "`%s` has several scores of a prompt, published results have one",
                 p->scores->variant[run].name);
            json_decref(variants);
            return NULL;
        }
        json_object_set_new(variants, p->scores->variant[run].name, describe(p, run));
    }
    return json_pack(
        "{s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "benchmark", known(about, "benchmark"), "n_prompts",
        (json_int_t)p->n, "autograder", known(about, "autograder"), "inference_settings",
        settings ? known(about, "inference_settings") : inference_settings(p->scores->variant[p->base].about),
        "training", known(about, "training"), "metric_definitions",
        definitions ? known(about, "metric_definitions")
                    : json_pack("{s:s, s:s, s:s}", "PC", "physical commonsense, 1 to 5", "SA",
                                "semantic adherence, 1 to 5", "Joint", "SA >= 4 and PC >= 4"),
        "prompts", list_prompts(p), "variants", variants);
}
