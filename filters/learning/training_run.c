#include "filters/learning/training_run.h"

#include <math.h>
#include <stdlib.h>

#include "formats/clock.h"
#include "formats/error.h"

static json_t *configuration(const struct training_run *w, json_t *stream)
{
    json_t *c = trainer_configuration(w->t);
    json_t *seed = json_object_get(stream, "seed"), *content = json_object_get(stream, "content");
    if (seed && content)
        json_object_set_new(c, "data", json_pack("{s:O, s:O}", "seed", seed, "content", content));
    if (w->val)
        json_object_set_new(c, "val",
                            json_pack("{s:I, s:I, s:I, s:I, s:f}", "content",
                                      (json_int_t)(store_content(w->val) >> 1), "every",
                                      (json_int_t)w->eval_every, "clips", (json_int_t)w->eval_clips,
                                      "patience", (json_int_t)w->patience, "min_delta", w->min_delta));
    return c;
}

bool training_run_open(struct training_run *w, const struct trainer_start *start, const char *folder,
                       const struct tensor *latents, json_t *stream, char *warning, size_t warninglen,
                       char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    if (!trainer_start(w->t, start, latents, err, errlen)) return false;
    const struct adapter *a = w->t->adapter;
    if (!run_folder_open(r, folder, configuration(w, stream), a->size, warning, warninglen, err, errlen))
        return false;
    if (r->resumed)
        trainer_set(w->t, r->values, r->m, r->v);
    else
        snprintf(warning, warninglen, "%s", a->warning);
    /* Once the gradients of a step's records were summed within the backward passes: other last bits. */
    char basis[700];
    snprintf(basis, sizeof basis, "%s%s", kern_basis(w->t->denoiser->k),
             w->t->accumulate > 1 ? ", gradients added record by record" : "");
    run_folder_on(r, basis, warning, warninglen);
    return true;
}

static void metric(struct training_run *w, json_t *line)
{
    run_folder_metric(w->run, line);
    w->emit(line);
}

/* The counter may take milliseconds to ask: where a round follows another at once, it begins as that ended. */
void training_run_begin(struct training_run *w)
{
    enum { AT_ONCE_MS = 10 };
    const double now = clock_seconds();
    if (!w->since || now - w->since > 1e-3 * AT_ONCE_MS) {
        w->since = now;
        w->joules_since = trainer_joules(w->t);
    }
    trainer_begin(w->t);
}

double training_run_spare(const struct training_run *w)
{
    return w->since + w->took / 2 - clock_seconds();
}

static void count_round(struct training_run *w, bool first)
{
    const double now = clock_seconds(), joules = trainer_joules(w->t);
    w->took = now - w->since;
    w->run->seconds += w->took;
    w->joules = (first ? 0 : w->joules) + joules - w->joules_since;
    w->since = now;
    w->joules_since = joules;
}

bool training_run_finish(struct training_run *w, char *err, size_t errlen)
{
    struct trainer *t = w->t;
    struct run_folder *r = w->run;
    const bool first = t->pending == 0;
    char why[1000];
    if (!trainer_finish(t, why, sizeof why))
        return fail(err, errlen, "step %lld, %s", (long long)r->step + 1, why);
    if (t->pending < t->accumulate) {
        count_round(w, first);
        return true;
    }
    if (w->dump && !trainer_write_gradients(t, w->dump, err, errlen)) return false;
    w->dump = NULL;
    double rate = trainer_rate(t, r->step);
    trainer_update(t, r->step, t->norm);
    count_round(w, first);
    r->timed_steps++;
    if (!isnan(w->joules)) r->joules += w->joules, r->metered_steps++;
    r->step++;
    r->position = t->last.position + 1;
    metric(w, json_pack("{s:I, s:I, s:s, s:f, s:f, s:f, s:f}", "step", (json_int_t)r->step, "position",
                        (json_int_t)t->last.position, "key", t->last.key, "s", t->s, "loss", t->loss,
                        "grad_norm", t->norm, "lr", rate));
    return true;
}

bool training_run_evaluate(struct training_run *w, char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    char why[1000];
    double *losses = calloc((size_t)w->eval_clips, sizeof *losses);
    if (!losses) return fail(err, errlen, "out of memory");
    double loss = trainer_evaluate(w->t, w->val, w->eval_clips, losses, why, sizeof why);
    json_t *each = json_array();
    for (int64_t i = 0; i < w->eval_clips; i++) json_array_append_new(each, json_real(losses[i]));
    free(losses);
    if (!isfinite(loss)) {
        json_decref(each);
        return fail(err, errlen, "step %lld: validation: %s", (long long)r->step, why);
    }
    metric(w,
           json_pack("{s:I, s:f, s:o}", "step", (json_int_t)r->step, "val_loss", loss, "val_losses", each));
    if (!run_folder_judge(r, loss, w->min_delta, w->patience)) return true;
    trainer_get(w->t, r->values, NULL, NULL);
    return run_folder_write_best(r, w->t->adapter, err, errlen);
}

bool training_run_save(struct training_run *w, char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    struct kern *k = w->t->denoiser->k;
    trainer_get(w->t, r->values, r->m, r->v);
    if (!kern_ok(k)) return fail(err, errlen, "%s", kern_error(k));
    return run_folder_write_last(r, w->t->adapter, err, errlen) && run_folder_save(r, err, errlen);
}
