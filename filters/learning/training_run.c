#include "filters/learning/training_run.h"

#include <math.h>
#include <stdlib.h>

#include "filters/lib/messages.h"
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

static void metric(struct training_run *w, json_t *line)
{
    run_folder_metric(w->run, line);
    w->emit(line);
}

/* Seconds for the steps and evaluations to come, if no patience ends the run. */
static double time_left(const struct training_run *w)
{
    const struct run_folder *r = w->run;
    const int64_t steps = w->t->max_steps;
    const int64_t due = w->val ? (steps + w->eval_every - 1) / w->eval_every - r->step / w->eval_every : 0;
    const double step = r->timed_steps ? r->seconds / (double)r->timed_steps : 0;
    return step * (double)(steps - r->step) +
           (w->evaluations ? w->eval_seconds / (double)w->evaluations * (double)due : 0);
}

static bool evaluate(struct training_run *w, char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    const double began = clock_seconds();
    progress_left(time_left(w), "step %lld of %lld, evaluation", (long long)r->step,
                  (long long)w->t->max_steps);
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
    if (run_folder_judge(r, loss, w->min_delta, w->patience)) {
        trainer_get(w->t, r->values, NULL, NULL);
        if (!run_folder_write_best(r, w->t->adapter, err, errlen)) return false;
    }
    w->eval_seconds += clock_seconds() - began;
    w->evaluations++;
    if (r->finished)
        say(NULL, "no better validation loss in %lld evaluations: stopping at step %lld",
            (long long)w->patience, (long long)r->step);
    return true;
}

static bool save(struct training_run *w, char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    struct kern *k = w->t->denoiser->k;
    trainer_get(w->t, r->values, r->m, r->v);
    if (!kern_ok(k)) return fail(err, errlen, "%s", kern_error(k));
    return run_folder_write_last(r, w->t->adapter, err, errlen) && run_folder_save(r, err, errlen);
}

bool training_run_open(struct training_run *w, const struct trainer_start *start, const char *folder,
                       const struct tensor *latents, json_t *stream, char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    char warning[1100];
    if (!trainer_start(w->t, start, latents, err, errlen)) return false;
    const struct adapter *a = w->t->adapter;
    if (!run_folder_open(r, folder, configuration(w, stream), a->size, warning, sizeof warning, err, errlen))
        return false;
    if (r->resumed)
        trainer_set(w->t, r->values, r->m, r->v);
    else
        snprintf(warning, sizeof warning, "%s", a->warning);
    /* Once the gradients of a step's records were summed within the backward passes: other last bits. */
    char basis[700];
    snprintf(basis, sizeof basis, "%s%s", kern_basis(w->t->denoiser->k),
             w->t->accumulate > 1 ? ", gradients added record by record" : "");
    run_folder_on(r, basis, warning, sizeof warning);
    if (*warning) say(NULL, "%s", warning);
    if (r->resumed)
        say(NULL, "%s: going on after step %lld%s", folder, (long long)r->step,
            r->finished ? ", where it was finished" : "");
    return r->resumed || !w->val || evaluate(w, err, errlen);
}

/* The counter may take milliseconds to ask: where a round follows another at once, it begins as that ended. */
static void begin_round(struct training_run *w)
{
    enum { AT_ONCE_MS = 10 };
    const double now = clock_seconds();
    if (!w->since || now - w->since > 1e-3 * AT_ONCE_MS) {
        w->since = now;
        w->joules_since = trainer_joules(w->t);
    }
    trainer_begin(w->t);
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

static bool finish_round(struct training_run *w, char *err, size_t errlen)
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

/* What is due after a step. */
static bool end_step(struct training_run *w, char *err, size_t errlen)
{
    struct run_folder *r = w->run;
    const bool last = r->step == w->t->max_steps;
    progress_left(time_left(w), "step %lld of %lld, loss %.4f, evaluations %lld", (long long)r->step,
                  (long long)w->t->max_steps, w->t->loss, (long long)w->evaluations);
    if (w->val && (r->step % w->eval_every == 0 || last) && !evaluate(w, err, errlen)) return false;
    if (last) r->finished = true;
    return !(r->step % w->save_every == 0 || r->finished) || save(w, err, errlen);
}

bool training_run_finish(struct training_run *w, char *err, size_t errlen)
{
    if (!w->t->busy) return true;
    if (!finish_round(w, err, errlen)) return false;
    if (!w->t->pending) w->undone = !end_step(w, err, errlen);
    return !w->undone;
}

bool training_run_settle(struct training_run *w, char *err, size_t errlen)
{
    const struct run_folder *r = w->run;
    const bool good = training_run_finish(w, err, errlen);
    /* From a state behind an evaluation that failed a run would go on without it. */
    if (!r->metrics || r->step <= r->saved || w->undone || !kern_ok(w->t->denoiser->k)) return good;
    return save(w, err, errlen) && good;
}

/* A record that is not fit for the step that it is due in: after the steps before it, if they do not end the run. */
static bool refuse(struct training_run *w, const struct record *f, int64_t position, const char *why,
                   char *err, size_t errlen)
{
    return training_run_finish(w, err, errlen) &&
           (w->run->finished || fail(err, errlen, "step %lld, position %lld: %.200s: %s",
                                     (long long)w->run->step + 1, (long long)position, record_key(f), why));
}

bool training_run_take(struct training_run *w, struct record *f, char *err, size_t errlen)
{
    const json_t *stated = json_object_get(record_meta(f), "position");
    const int64_t position = json_is_integer(stated) ? json_integer_value(stated) : w->next;
    const int64_t due = w->run->position + trainer_taken(w->t);
    char why[600];
    w->next = position + 1;
    if (position < due) return true;
    if (position > due) {
        snprintf(why, sizeof why, "position %lld is due: start draw without --from", (long long)due);
        return refuse(w, f, position, why, err, errlen);
    }
    if (!trainer_take(w->t, f, position, why, sizeof why)) return refuse(w, f, position, why, err, errlen);
    if (!trainer_full(w->t)) return true;
    if (!training_run_finish(w, err, errlen)) return false;
    if (!w->run->finished) begin_round(w);
    return true;
}

bool training_run_wants(const struct training_run *w)
{
    return trainer_taken(w->t) < w->t->accumulate * (w->t->max_steps - w->run->step);
}

double training_run_spare(const struct training_run *w)
{
    return w->since + w->took / 2 - clock_seconds();
}
