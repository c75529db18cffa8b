#include "filters/reporting/results.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/error.h"

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
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:n}", "model", known(sample, "model"),
                     "num_frames", known(sample, "frames"), "height",
                     sized ? json_integer(height) : json_null(), "width",
                     sized ? json_integer(width) : json_null(), "fps", known(about, "fps"), "steps",
                     known(sample, "steps"), "guidance_scale", known(sample, "guidance"), "seed",
                     known(sample, "seed"), "use_upsampled_captions");
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
