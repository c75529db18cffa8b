#include "filters/learning/trainer.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filters/lib/rng.h"
#include "filters/nets/families.h"
#include "formats/error.h"

static struct denoiser *open_denoiser(const struct trainer *t, struct kern *k, const struct model *m,
                                      bool shapes_only, char *err, size_t errlen)
{
    return t->expert ? denoiser_open_expert(k, m, t->expert == EXPERT_LOW, shapes_only, err, errlen)
                     : denoiser_open(k, m, shapes_only, err, errlen);
}

/* The levels of an expert, unless others are set. */
static bool settle_levels(struct trainer *t, const struct model *m, char *err, size_t errlen)
{
    double boundary;
    if (!t->expert) return true;
    if (!denoiser_boundary(m, &boundary, err, errlen)) return false;
    if (!(boundary > 0)) return fail(err, errlen, "--expert: this model has one transformer");
    if (t->level_from == 0 && t->level_to == 0) {
        t->level_from = t->expert == EXPERT_HIGH ? boundary : 0;
        t->level_to = t->expert == EXPERT_HIGH ? 1 : boundary;
    }
    return true;
}

bool trainer_open(struct trainer *t, struct kern *k, const char *model, bool shapes_only, char *err,
                  size_t errlen)
{
    struct model *m = model_open(model, err, errlen);
    json_t *scheduler = m ? model_config(m, "scheduler", err, errlen) : NULL;
    t->shapes_only = shapes_only;
    bool good = scheduler && noise_schedule_read(&t->noise, scheduler, err, errlen) &&
                settle_levels(t, m, err, errlen) &&
                (t->denoiser = open_denoiser(t, k, m, shapes_only, err, errlen));
    json_decref(scheduler);
    model_close(m);
    return good;
}

bool trainer_load(struct trainer *t, const char *model, char *err, size_t errlen)
{
    struct denoiser *shapes = t->denoiser;
    struct model *m = model_open(model, err, errlen);
    t->shapes_only = false;
    t->denoiser = m ? open_denoiser(t, shapes->k, m, false, err, errlen) : NULL;
    denoiser_close(shapes);
    model_close(m);
    return t->denoiser != NULL;
}

void trainer_recompute(struct trainer *t, const char *how)
{
    t->recompute_auto = !strcmp(how, "auto");
    for (int r = RECOMPUTE_NONE; r <= RECOMPUTE_FULL; r++)
        if (!strcmp(how, recompute_name[r])) t->recompute = (enum recompute)r;
}

bool trainer_levels(struct trainer *t, const char *how, char *err, size_t errlen)
{
    static const char *const name[] = {"uniform", "logit-normal"};
    const char *rest = how + strcspn(how, ",");
    char *end;
    int i = 0;
    while (i < 2 && (strlen(name[i]) != (size_t)(rest - how) || strncmp(how, name[i], (size_t)(rest - how))))
        i++;
    t->logit_normal = i == 1;
    t->level_shift = 1;
    if (i < 2 && !*rest) return true;
    if (i < 2 && !strncmp(rest, ",shift=", 7)) {
        t->level_shift = strtod(rest + 7, &end);
        if (end != rest + 7 && !*end && t->level_shift >= SHIFT_LEAST && t->level_shift <= SHIFT_MOST)
            return true;
    }
    return fail(
        err, errlen,
        "--levels is uniform or logit-normal, and then perhaps ,shift=X with X within %g..%g, not `%s`",
        SHIFT_LEAST, SHIFT_MOST, how);
}

static struct adapter_base base_for(const struct trainer *t, const struct tensor *latents)
{
    const int64_t patch = t->denoiser->geometry.patch;
    return (struct adapter_base){&t->denoiser->linears, latents->shape[2] / patch, latents->shape[3] / patch};
}

static bool has_range(const struct trainer *t)
{
    return t->level_to > 0;
}

/* Far out there are so few levels that no number tells them apart: what is drawn would lie outside the range. */
static bool range_has_levels(const struct trainer *t, char *err, size_t errlen)
{
    const double s = trainer_level(t, 0.5);
    if (!has_range(t) || (s >= t->level_from && s <= t->level_to)) return true;
    return fail(err, errlen, "--levels-from %g, --levels-to %g: as good as none of --levels lie there",
                t->level_from, t->level_to);
}

bool trainer_takes(const struct trainer *t, const struct trainer_start *start, char *err, size_t errlen)
{
    struct tensor latents = geometry_latents(&t->denoiser->geometry, 0, 0, 0);
    if (!objective_fits(&t->noise, start->objective, err, errlen) || !range_has_levels(t, err, errlen))
        return false;
    if (start->init) return true;
    struct adapter *a = adapter_make(start->adapter, start->targets, base_for(t, &latents), err, errlen);
    adapter_close(a);
    return a != NULL;
}

bool trainer_start(struct trainer *t, const struct trainer_start *start, const struct tensor *latents,
                   char *err, size_t errlen)
{
    struct kern *k = t->denoiser->k;
    float *values = NULL;
    struct adapter_base base = base_for(t, latents);
    struct adapter *a = start->init ? adapter_read(start->init, base, &values, err, errlen)
                                    : adapter_make(start->adapter, start->targets, base, err, errlen);
    if (!a) return false;
    objective_parse(&t->objective, start->objective);
    json_object_clear(a->extra);
    json_object_set_new(a->extra, "objective", json_string(start->objective));
    json_object_set_new(a->extra, "model", json_string(t->denoiser->id));
    t->adapter = a;
    adapter_set_add(&t->adapters, a);
    t->denoiser->hook = &t->adapters.hook;
    if (t->shapes_only) {
        a->k = k;
        a->values = a->grads = tensor_of(DT_F32, NULL, 1, a->size);
        a->working =
            tensor_of(kern_compute(k), NULL, 1, kern_compute(k) == DT_F32 ? a->size : a->working_size);
        free(values);
        return true;
    }
    adapter_attach(a, k, true);
    t->m = kern_alloc(k, DT_F32, 1, a->size);
    t->v = kern_alloc(k, DT_F32, 1, a->size);
    if (t->accumulate > 1)
        t->sum = kern_alloc(k, DT_F32, 1, a->size); /* before scratch takes what there is */
    adapter_init(a, t->seed);
    bool good = trainer_start_devices(t, start, latents, err, errlen);
    if (good && values) trainer_set(t, values, NULL, NULL);
    free(values);
    return good && (kern_ok(k) || fail(err, errlen, "%s", kern_error(k)));
}

/* prompt_embeds of a record, if the network reads them; NULL: reason in err. */
static const struct tensor *prompt_embeds(const struct trainer *t, struct record *f, char *err, size_t errlen)
{
    const struct tensor *text = record_want(f, "prompt_embeds", DT_COUNT, 2);
    if (!text) return fail(err, errlen, "%s", f->error), NULL;
    bool good = family_reads(record_meta(f), PART_TEXT_ENCODER, &t->denoiser->kind->network,
                             "prompt_embeds are", err, errlen) &&
                geometry_reads(&t->denoiser->geometry, text, "prompt_embeds are", err, errlen);
    return good ? text : NULL;
}

bool trainer_empty_prompt(struct trainer *t, const char *path, char *err, size_t errlen)
{
    struct record f = RECORD_INIT;
    char why[600] = "it has no record";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(err, errlen, "%s: %s", path, strerror(errno));
    struct record_reader *r = record_reader_open(fd, path);
    enum record_got got = r ? record_read(r, &f) : RECORD_DAMAGED;
    const struct tensor *text = got == RECORD_GOT ? prompt_embeds(t, &f, why, sizeof why) : NULL;
    bool good = text != NULL;
    if (good) {
        t->empty = tensor_of(DT_F32, malloc(sizeof(float) * (size_t)tensor_count(text)), 2, text->shape[0],
                             text->shape[1]);
        good = t->empty.data || fail(why, sizeof why, "out of memory");
        if (good) tensor_convert(&t->empty, text);
        if (good && (got = record_read(r, &f)) == RECORD_GOT)
            good = fail(why, sizeof why, "it has more than one record");
    }
    if (f.error[0]) good = fail(why, sizeof why, "%s", f.error);
    if (got == RECORD_DAMAGED && f.error[0]) path = NULL; /* it is in the reason */
    record_free(&f);
    record_reader_close(r);
    close(fd);
    return good || fail(err, errlen, "%s%s%s", path ? path : "", path ? ": " : "", why);
}

void trainer_close(struct trainer *t)
{
    trainer_close_devices(t);
    for (int i = 0; i < t->waiting; i++) trainer_record_free(&t->next[i]);
    trainer_record_free(&t->last);
    free(t->empty.data);
    adapter_set_close(&t->adapters);
    denoiser_close(t->denoiser);
}

double trainer_rate(const struct trainer *t, int64_t step)
{
    if (step < t->warmup) return t->adamw.lr * (double)step / (double)t->warmup;
    if (step >= t->max_steps) return 0;
    double q = (double)(step - t->warmup) / (double)(t->max_steps - t->warmup);
    return t->adamw.lr * 0.5 * (1 + cos(acos(-1) * q));
}

static struct tensor like(struct trainer *t, const struct tensor *x)
{
    return kern_tensor(t->denoiser->k, DT_F32, 4, x->shape[0], x->shape[1], x->shape[2], x->shape[3]);
}

/* Noise the clip, ask the network, compare: x = a x0 + b eps, y likewise, loss = weight mean((v(x) - y)²). */
static bool run(struct trainer *t, const struct example *e, bool backward, double *loss, char *err,
                size_t errlen)
{
    struct denoiser *d = t->denoiser;
    struct kern *k = d->k;
    double share = backward ? 1 / (double)t->accumulate : 1;
    struct denoiser_grid grid;
    size_t mark = kern_mark(k);
    if (!denoiser_grid(d, &grid, &e->x0, err, errlen) ||
        !adapter_set_fits(&t->adapters, &grid.rows, err, errlen))
        return false;

    struct training_point p = training_point(&t->noise, t->objective, e->s);
    struct tensor x = like(t, &e->x0), y = like(t, &e->x0), eps = like(t, &e->x0), answer = like(t, &e->x0);
    struct tensor text = denoiser_text(d, &e->text, false);
    kern_upload(k, &x, &e->x0);
    kern_upload(k, &eps, &e->eps);
    kern_copy(k, &y, &x);
    axpby(k, &y, p.y_n, &eps, p.y_x0);
    axpby(k, &x, p.x_n, &eps, p.x_x0);
    denoiser_forward(d, &grid, &answer, &x, &text, p.timestep, backward ? &t->recompute : NULL);
    mse_forward_backward(k, loss, &eps, &answer, &y,
                         share * p.weight); /* eps is done with: its place takes the gradient */
    if (backward) {
        kern_zero(k, &t->adapter->grads);
        denoiser_backward(d, &grid, &eps);
    }
    kern_release(k, mark);
    return kern_ok(k) || fail(err, errlen, "%s", kern_error(k));
}

/* Scratch that a training step on latents of this shape needs under t->recompute; 0 with
 * the reason in err. */
static size_t plan(struct trainer *t, const struct example *e, char *err, size_t errlen)
{
    double loss;
    kern_plan_begin(t->denoiser->k);
    bool good = run(t, e, true, &loss, err, errlen);
    size_t bytes = kern_plan_end(t->denoiser->k);
    return good ? bytes : 0;
}

/* Scratch for this size of record, with as few activations computed again as there is room for. */
static bool reserve(struct trainer *t, const struct example *e, char *err, size_t errlen)
{
    struct kern *k = t->denoiser->k;
    if (t->recompute_auto) t->recompute = RECOMPUTE_NONE;
    for (;;) {
        size_t bytes = plan(t, e, err, errlen);
        if (!bytes) return false;
        if (kern_reserve(k, bytes)) return true;
        if (!t->recompute_auto || t->recompute == RECOMPUTE_FULL)
            return fail(err, errlen, "%s", kern_error(k));
        kern_clear(k);
        t->recompute++;
    }
}

double trainer_loss(struct trainer *t, const struct example *e, bool backward, char *err, size_t errlen)
{
    double loss = NAN;
    return reserve(t, e, err, errlen) && run(t, e, backward, &loss, err, errlen) ? loss : NAN;
}

/* What the record does not bring is drawn; `purpose` keeps training's draws and validation's apart. */
static bool make_example(const struct trainer *t, struct example *e, struct record *f, const char *purpose,
                         int64_t position, double s, char *err, size_t errlen)
{
    const struct tensor *x0 = record_want(f, "latents", DT_COUNT, 4), *text;
    const struct tensor *noise = record_find(f, "noise");
    json_t *level = json_object_get(record_meta(f), "s");
    *e = (struct example){0};
    if (!x0) return fail(err, errlen, "%s", f->error);
    if (!(text = prompt_embeds(t, f, err, errlen)) ||
        !family_reads(record_meta(f), PART_AUTOENCODER, &t->denoiser->kind->network, "latents are", err,
                      errlen))
        return false;
    if (noise && (!dtype_is_float(noise->dtype) || !tensor_same_shape(noise, x0)))
        return fail(err, errlen, "its noise is not of the latents' shape");
    if (level) s = json_is_number(level) ? json_number_value(level) : NAN;
    if (!(s >= 0 && s <= 1)) return fail(err, errlen, "its meta.s is not a number from 0 to 1");
    *e = (struct example){.x0 = *x0, .eps = *x0, .text = *text, .s = s};
    e->eps.dtype = noise ? noise->dtype : DT_F32;
    e->eps.data = malloc(tensor_bytes(&e->eps) + 1);
    if (!e->eps.data) return fail(err, errlen, "out of memory");
    struct rng r = rng_make(t->seed, record_key(f), purpose, (uint64_t)position);
    if (noise)
        memcpy(e->eps.data, noise->data, tensor_bytes(noise));
    else
        rng_normal(&r, e->eps.data, (size_t)tensor_count(&e->eps));
    return true;
}

/* How much of the levels lie below s: flow_shift() undone, and the distribution function of the sigmoid of a normal. */
static double levels_below(const struct trainer *t, double s)
{
    if (t->level_shift > 0) s = flow_shift(s, 1 / t->level_shift);
    if (!t->logit_normal || s <= 0 || s >= 1) return s;
    return erfc(-log(s / (1 - s)) / sqrt(2)) / 2;
}

/* The other way round. A normal has no closed form for it: halving [-40,40], of which 80 leave nothing. */
double trainer_level(const struct trainer *t, double u)
{
    if (has_range(t)) {
        const double from = levels_below(t, t->level_from), to = levels_below(t, t->level_to);
        u = from + u * (to - from);
    }
    double low = -40, high = 40;
    for (int i = 0; t->logit_normal && i < 80; i++) {
        const double middle = (low + high) / 2;
        if (erfc(-middle / sqrt(2)) / 2 < u)
            low = middle;
        else
            high = middle;
    }
    const double s = t->logit_normal ? 1 / (1 + exp(-(low + high) / 2)) : u;
    return t->level_shift > 0 ? flow_shift(s, t->level_shift) : s;
}

static double draw_level(const struct trainer *t, const char *key, int64_t position)
{
    struct rng r = rng_make(t->seed, key, "train-level", (uint64_t)position);
    float normal = 0;
    if (has_range(t) || !t->logit_normal) return trainer_level(t, rng_uniform(&r, 0));
    rng_normal(&r, &normal, 1);
    double s = 1 / (1 + exp(-(double)normal));
    return t->level_shift > 0 ? flow_shift(s, t->level_shift) : s;
}

bool trainer_example(const struct trainer *t, struct example *e, struct record *f, int64_t position,
                     char *err, size_t errlen)
{
    double s = draw_level(t, record_key(f), position);
    if (!make_example(t, e, f, "train-noise", position, s, err, errlen)) return false;
    struct rng r = rng_make(t->seed, record_key(f), "caption-dropout", (uint64_t)position);
    if (rng_uniform(&r, 0) < t->caption_dropout) e->text = t->empty;
    return true;
}

void trainer_example_free(struct example *e)
{
    free(e->eps.data);
    if (e->owned) free(e->x0.data), free(e->text.data);
    e->eps.data = NULL;
    e->owned = false;
}

static void *copy_of(const struct tensor *t)
{
    void *own = malloc(tensor_bytes(t) + 1);
    if (own) memcpy(own, t->data, tensor_bytes(t));
    return own;
}

/* The record's own memory is gone when the next one is read. */
static bool keep_example(struct trainer_record *r, const char *key, int64_t position)
{
    r->e.owned = true;
    r->e.x0.data = copy_of(&r->e.x0);
    r->e.text.data = copy_of(&r->e.text);
    r->key = strdup(key);
    r->position = position;
    return r->e.x0.data && r->e.text.data && r->key;
}

void trainer_record_free(struct trainer_record *r)
{
    trainer_example_free(&r->e);
    free(r->key);
    *r = (struct trainer_record){0};
}

bool trainer_fail_at(const struct trainer_record *r, const char *why, char *err, size_t errlen)
{
    return fail(err, errlen, "position %lld: %.200s: %s", (long long)r->position, r->key, why);
}

/* Of an evaluation: evenly spread over the range, whatever distribution is trained on. */
static double fixed_level(const struct trainer *t, double part)
{
    return has_range(t) ? t->level_from + part * (t->level_to - t->level_from) : part;
}

double trainer_evaluate(struct trainer *t, const struct store *store, int64_t clips, double *losses,
                        char *err, size_t errlen)
{
    struct record f = RECORD_INIT;
    double sum = 0;
    for (int64_t i = 0; i < clips && isfinite(sum); i++) {
        struct example e = {0};
        char why[400] = "not finite";
        double loss = NAN;
        if (!store_read(store, i * store->count / clips, &f))
            fail(why, sizeof why, "%s", f.error);
        else if (make_example(t, &e, &f, "val-noise", i, fixed_level(t, ((double)i + 0.5) / (double)clips),
                              why, sizeof why))
            loss = trainer_loss(t, &e, false, why, sizeof why);
        if (!isfinite(loss)) fail(err, errlen, "%.200s: %s", record_key(&f), why);
        sum += losses[i] = loss;
        trainer_example_free(&e);
    }
    record_free(&f);
    return sum / (double)clips;
}

double trainer_norm(struct trainer *t)
{
    double sum = NAN;
    sum_squares(t->denoiser->k, &sum, &t->adapter->grads);
    return sqrt(sum);
}

void trainer_update(struct trainer *t, int64_t step, double norm)
{
    struct adapter *a = t->adapter;
    struct adamw now = t->adamw;
    double shrink = t->clip > 0 ? t->clip / (norm + 1e-6) : 1; /* torch.nn.utils.clip_grad_norm_ */
    now.lr = trainer_rate(t, step);
    adamw_step(t->denoiser->k, &a->values, &t->m, &t->v, &a->grads, shrink < 1 ? shrink : 1, step + 1, &now);
    adapter_refresh(a);
    trainer_share(t);
    t->pending = 0;
}

bool trainer_write_gradients(struct trainer *t, const char *path, char *err, size_t errlen)
{
    struct adapter *a = t->adapter;
    struct tensor host = tensor_of(DT_F32, malloc((size_t)a->size * sizeof(float)), 1, a->size);
    if (!host.data) return fail(err, errlen, "out of memory");
    kern_download(a->k, &host, &a->grads);
    bool good = kern_ok(a->k) ? adapter_write(a, path, host.data, err, errlen)
                              : fail(err, errlen, "%s", kern_error(a->k));
    free(host.data);
    return good;
}

/* The gradients g of the step's next record. With the last one t->adapter->grads, which are its own, become the step's. */
static void add_gradients(struct trainer *t, const struct tensor *g)
{
    struct kern *k = t->denoiser->k;
    if (t->accumulate > 1 && !t->sum.rank) t->sum = kern_alloc(k, DT_F32, 1, g->shape[0]);
    const bool first = t->added == 0, last = ++t->added == t->accumulate;
    if (last && !first)
        axpby(k, &t->adapter->grads, 1, &t->sum, 1);
    else if (first && !last)
        kern_copy(k, &t->sum, g);
    else if (!last)
        axpby(k, &t->sum, 1, g, 1);
    if (last) t->added = 0;
}

const char trainer_not_finite[] = "loss or gradient is not finite; nothing was updated";

bool trainer_take(struct trainer *t, struct record *f, int64_t position, char *err, size_t errlen)
{
    struct trainer_record *r = &t->next[t->waiting];
    if (!trainer_example(t, &r->e, f, position, err, errlen)) return false;
    if (!keep_example(r, record_key(f), position)) {
        trainer_record_free(r);
        return fail(err, errlen, "out of memory");
    }
    t->waiting++;
    return true;
}

bool trainer_full(const struct trainer *t)
{
    return t->waiting == t->more + 1;
}

int64_t trainer_taken(const struct trainer *t)
{
    return t->pending + (t->busy ? t->more + 1 : 0) + t->waiting;
}

void trainer_begin(struct trainer *t)
{
    for (int i = 0; i < t->more; i++) trainer_give(t, i, &t->next[i]);
    trainer_record_free(&t->last);
    t->last = t->next[t->more];
    t->waiting = 0;
    t->busy = true;
    fail(t->why, sizeof t->why, "%s", trainer_not_finite); /* unless there is more to say */
    t->share = trainer_loss(t, &t->last.e, true, t->why, sizeof t->why);
}

/* What the devices made of the records of the round, in the order of these. */
static bool add_round(struct trainer *t, char *err, size_t errlen)
{
    for (int i = 0; i <= t->more; i++) {
        const bool here = i == t->more;
        const double share = here ? t->share : trainer_receive(t, i, err, errlen);
        if (!isfinite(share)) return here ? trainer_fail_at(&t->last, t->why, err, errlen) : false;
        t->loss = t->pending + i > 0 ? t->loss + share : share;
        add_gradients(t, here ? &t->adapter->grads : &t->received);
    }
    return true;
}

bool trainer_finish(struct trainer *t, char *err, size_t errlen)
{
    t->busy = false;
    if (!add_round(t, err, errlen)) {
        trainer_wait(t);
        return false;
    }
    if (t->more) kern_wait(t->denoiser->k); /* what it fetches is overwritten in the next round */
    t->pending += t->more + 1;
    t->s = t->last.e.s;
    t->norm = t->pending == t->accumulate ? trainer_norm(t) : 0;
    if (!kern_ok(t->denoiser->k)) return trainer_fail_at(&t->last, kern_error(t->denoiser->k), err, errlen);
    return (isfinite(t->loss) && isfinite(t->norm)) ||
           trainer_fail_at(&t->last, trainer_not_finite, err, errlen);
}

json_t *trainer_configuration(const struct trainer *t)
{
    const struct adapter *a = t->adapter;
    const struct adamw *o = &t->adamw;
    json_t *adapter = adapter_description(a), *objective = json_object_get(a->extra, "objective");
    json_object_del(adapter, "model"); /* these two stand by themselves, so that a message names them */
    json_object_del(adapter, "objective");
    json_t *c = json_pack("{s:o, s:O, s:s, s:s, s:f, s:I, s:I, s:f, s:f, s:I, s:I}", "adapter", adapter,
                          "objective", objective, "model", t->denoiser->id, "device",
                          kern_device(t->denoiser->k), "lr", o->lr, "warmup", (json_int_t)t->warmup,
                          "max_steps", (json_int_t)t->max_steps, "weight_decay", o->weight_decay, "clip",
                          t->clip, "seed", (json_int_t)t->seed, "init", (json_int_t)(a->hash >> 1));
    if (t->logit_normal) json_object_set_new(c, "levels", json_string("logit-normal"));
    if (t->level_shift > 0 && t->level_shift != 1)
        json_object_set_new(c, "level_shift", json_real(t->level_shift));
    if (has_range(t)) json_object_set_new(c, "level_range", json_pack("[f, f]", t->level_from, t->level_to));
    if (t->accumulate > 1) json_object_set_new(c, "accumulate", json_integer(t->accumulate));
    if (t->caption_dropout > 0) {
        uint64_t hash = hash64(0, t->empty.data, tensor_bytes(&t->empty));
        json_object_set_new(
            c, "caption_dropout",
            json_pack("{s:f, s:I}", "part", t->caption_dropout, "empty_prompt", (json_int_t)(hash >> 1)));
    }
    return c;
}

void trainer_get(struct trainer *t, float *values, float *m, float *v)
{
    struct adapter *a = t->adapter;
    const struct tensor *from[] = {&a->values, &t->m, &t->v};
    float *to[] = {values, m, v};
    for (int i = 0; i < 3; i++) {
        struct tensor host = tensor_of(DT_F32, to[i], 1, a->size);
        if (to[i]) kern_download(a->k, &host, from[i]);
    }
}

void trainer_set(struct trainer *t, const float *values, const float *m, const float *v)
{
    struct adapter *a = t->adapter;
    struct tensor *to[] = {&a->values, &t->m, &t->v};
    const float *from[] = {values, m, v};
    for (int i = 0; i < 3; i++) {
        struct tensor host = tensor_of(DT_F32, (void *)from[i], 1, a->size);
        if (from[i]) kern_upload(a->k, to[i], &host);
    }
    adapter_refresh(a);
    trainer_share(t);
}

bool trainer_describe(struct trainer *t, const struct trainer_start *start, int64_t frames, int64_t width,
                      int64_t height, FILE *out, char *err, size_t errlen)
{
    const struct latent_geometry *g = &t->denoiser->geometry;
    struct example e = {.x0 = geometry_latents(g, frames, width, height)};
    e.eps = e.x0;
    e.text = tensor_of(DT_F32, NULL, 2, g->text_length, g->text_width);
    if (!trainer_start(t, start, &e.x0, err, errlen)) return false;
    const struct adapter *a = t->adapter;
    fprintf(out, "adapter      %s, rank %lld, alpha %g: %lld modules, %lld trainable parameters\n",
            a->kind->name, (long long)a->rank, a->alpha, (long long)a->modules, (long long)a->size);
    fprintf(out, "model        %lld parameters, %.3f GB\n", (long long)t->denoiser->parameters,
            1e-9 * (double)dtype_size(kern_compute(t->denoiser->k)) * (double)t->denoiser->parameters);
    fprintf(out, "training     %.3f GB for adapter, gradients and moments\n", 16e-9 * (double)a->size);
    fprintf(out, "activations  %lld frames of %lldx%lld, latents [%lld,%lld,%lld,%lld]\n",
            (long long)(frames ? frames : g->frames), (long long)(e.x0.shape[3] * g->spatial),
            (long long)(e.x0.shape[2] * g->spatial), (long long)e.x0.shape[0], (long long)e.x0.shape[1],
            (long long)e.x0.shape[2], (long long)e.x0.shape[3]);
    for (int r = RECOMPUTE_NONE; r <= RECOMPUTE_FULL; r++) {
        t->recompute = (enum recompute)r;
        size_t bytes = plan(t, &e, err, errlen);
        if (!bytes) return false;
        fprintf(out, "             --recompute %-5s %.3f GB\n", recompute_name[r], 1e-9 * (double)bytes);
    }
    return true;
}
