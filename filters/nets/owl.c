#include "filters/nets/owl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/families.h"
#include "filters/nets/owl_net.h"

enum { TOGETHER = 8 }; /* questions at most that are answered at once */

/* ---- opening ------------------------------------------------------------------------------------------- */

/* cos and sin of position p and pair i of a head: p theta^(-2i/d), in floats as
 * transformers works them out */
static void make_rotation(struct owl *o, bool exact)
{
    const int64_t positions = o->c.decoder.positions, half = o->c.decoder.width / o->c.decoder.heads / 2;
    float *values = malloc(2 * (size_t)(positions * half) * sizeof *values);
    struct tensor cosine = tensor_of(DT_F32, values, 2, positions, half), sine = cosine;
    if (!values) return kern_fail(o->k, "out of memory for %lld positions", (long long)positions);
    sine.data = values + positions * half;
    for (int64_t i = 0; i < half; i++) {
        float frequency = (float)pow(o->c.decoder.theta, -(double)i / (double)half);
        if (!exact) frequency = f32_from_bf16(bf16_from_f32(frequency));
        for (int64_t p = 0; p < positions; p++) {
            float angle = (float)p * frequency;
            values[p * half + i] = (float)cos(angle);
            values[(positions + p) * half + i] = (float)sin(angle);
        }
    }
    o->decoder.cos = kern_alloc(o->k, DT_F32, 2, positions, half);
    o->decoder.sin = kern_alloc(o->k, DT_F32, 2, positions, half);
    kern_upload(o->k, &o->decoder.cos, &cosine);
    kern_upload(o->k, &o->decoder.sin, &sine);
    free(values);
}

/* What is kept from one call to the next. */
static void make_memory(struct owl *o)
{
    const int64_t positions = o->c.decoder.positions, width = o->c.decoder.width;
    const enum dtype d = kern_compute(o->k);
    for (int i = 0; i < o->c.decoder.layers; i++) {
        o->decoder.layer[i].keys = kern_alloc(o->k, d, 2, positions, width);
        o->decoder.layer[i].values = kern_alloc(o->k, d, 2, positions, width);
    }
    o->video = kern_alloc(o->k, d, 2, owl_video_ids(o), width);
    o->ids = malloc((size_t)positions * sizeof *o->ids);
    o->logits = malloc((size_t)(TOGETHER * o->c.decoder.vocabulary) * sizeof *o->logits);
    if (!o->ids || !o->logits) kern_fail(o->k, "out of memory");
}

static void read_together(struct owl *o, const struct owl_stretch *s, int count);

static bool open_model(struct owl *o, const struct model *m, bool exact_rope, const char *lora, char *err,
                       size_t errlen)
{
    struct params list = {0};
    json_t *config = model_config(m, "", err, errlen);
    bool good = config && network_find(PART_GRADER, config, "config.json", err, errlen) &&
                owl_config(&o->c, config, "config.json", err, errlen);
    json_decref(config);
    if (good) owl_params(&list, o);
    good = good && owl_load(o, &list, m, lora, err, errlen);
    params_free(&list);
    if (!good) return false;

    make_rotation(o, exact_rope);
    make_memory(o);
    /* As much as there are positions for: what has no room is refused here. */
    if (kern_ok(o->k)) {
        struct owl_stretch all = {.ids = o->ids, .rows = o->c.decoder.positions, .logits = o->logits};
        kern_plan_begin(o->k);
        read_together(o, &all, 1);
        kern_reserve(o->k, kern_plan_end(o->k));
    }
    return kern_ok(o->k) || fail(err, errlen, "%s: %s", m->folder, kern_error(o->k));
}

struct owl *owl_open(struct kern *k, const struct model *m, bool exact_rope, const char *lora, char *err,
                     size_t errlen)
{
    struct owl *o = calloc(1, sizeof *o);
    if (!o) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    o->k = k;
    if (open_model(o, m, exact_rope, lora, err, errlen)) return o;
    owl_close(o);
    return NULL;
}

void owl_close(struct owl *o)
{
    if (!o) return;
    free(o->ids);
    free(o->logits);
    free(o);
}

const char *owl_id(const struct owl *o)
{
    return o->id;
}

int64_t owl_side(const struct owl *o)
{
    return o->c.vision.side;
}

int64_t owl_video_ids(const struct owl *o)
{
    return o->c.abstractor.queries + 1;
}

int64_t owl_vocabulary(const struct owl *o)
{
    return o->c.decoder.vocabulary;
}

/* ---- looking ------------------------------------------------------------------------------------------- */

static void look(struct owl *o, const struct tensor *frames)
{
    const int64_t side = o->c.vision.side, tokens = frames->shape[0] * owl_frame_tokens(&o->c);
    size_t mark = kern_mark(o->k);
    struct tensor seen = kern_tensor(o->k, kern_compute(o->k), 2, tokens, o->c.vision.width);
    struct tensor pixels = kern_tensor(o->k, DT_U8, 4, frames->shape[0], side, side, 3);
    kern_upload(o->k, &pixels, frames);
    owl_vision(o, &seen, &pixels);
    owl_abstractor(o, &o->video, &seen);
    kern_release(o->k, mark);
}

bool owl_look(struct owl *o, const struct tensor *frames)
{
    const int64_t side = o->c.vision.side;
    char what[96];
    o->looked = false;
    if (!tensor_is(frames, DT_U8, 4, -1, side, side, 3) || frames->shape[0] < 2)
        kern_fail(o->k, "a clip is %s, not U8 [2 or more,%lld,%lld,3]",
                  tensor_describe(what, sizeof what, frames), (long long)side, (long long)side);
    if (kern_ok(o->k) && frames->shape[0] > o->frames) {
        kern_plan_begin(o->k);
        look(o, frames);
        if (kern_reserve(o->k, kern_plan_end(o->k))) o->frames = frames->shape[0];
    }
    if (kern_ok(o->k)) look(o, frames);
    return o->looked = kern_ok(o->k);
}

/* ---- answering ----------------------------------------------------------------------------------------- */

/* x = what stands for the stretch's ids */
static void embed(struct owl *o, struct tensor *x, const struct owl_stretch *s)
{
    struct kern *k = o->k;
    size_t mark = kern_mark(k);
    struct tensor id = kern_tensor(k, DT_I32, 1, s->rows), host = id;
    host.data = (void *)s->ids;
    if (!kern_planning(k) && s->ids[0] == OWL_VIDEO) {
        kern_copy(k, x, &o->video);
    } else {
        kern_upload(k, &id, &host);
        embedding_forward(k, x, &o->decoder.embedding, &id);
    }
    kern_release(k, mark);
}

/* One pass over the weights. */
static void read_together(struct owl *o, const struct owl_stretch *s, int count)
{
    struct kern *k = o->k;
    size_t mark = kern_mark(k);
    int64_t rows = 0;
    for (int i = 0; i < count; i++) rows += s[i].rows;
    struct tensor x = kern_tensor(k, kern_compute(k), 2, rows, o->c.decoder.width);
    struct tensor row = kern_tensor(k, DT_F32, 2, 1, o->c.decoder.vocabulary), on_host = row;
    for (int64_t i = 0, at = 0; i < count; at += s[i++].rows) {
        struct tensor part = tensor_rows(&x, at, s[i].rows);
        embed(o, &part, &s[i]);
    }
    owl_decoder(o, &x, s, count);
    for (int64_t i = 0, end = 0; i < count; i++) {
        struct tensor last = tensor_rows(&x, (end += s[i].rows) - 1, 1);
        on_host.data = s[i].logits;
        if (!s[i].logits) continue;
        owl_head(o, &row, &last);
        kern_download(k, &on_host, &row);
    }
    kern_release(k, mark);
}

/* On the CPU the bits of a product's row depend on how many rows there are: there each stretch goes alone. */
static void read_stretches(struct owl *o, const struct owl_stretch *s, int count)
{
    const int step = strcmp(kern_device(o->k), "cpu") ? count : 1;
    for (int i = 0; i < count; i += step) read_together(o, &s[i], step);
}

/* Where a prompt's video begins and ends. */
static bool find_video(struct owl *o, const struct owl_question *q, int end[2])
{
    const int video = (int)owl_video_ids(o);
    int runs = 0;
    for (int i = 0; i < q->n; i++) {
        const int32_t id = q->ids[i];
        if (id == OWL_VIDEO && (i == 0 || q->ids[i - 1] != OWL_VIDEO)) runs++, end[0] = end[1] = i;
        if (id == OWL_VIDEO) end[1]++;
        if (id != OWL_VIDEO && (id < 0 || id >= o->c.decoder.vocabulary))
            kern_fail(o->k, "id %d at %d is not in the vocabulary of %lld", id, i,
                      (long long)o->c.decoder.vocabulary);
    }
    if (runs != 1 || end[1] - end[0] != video)
        kern_fail(o->k, "a prompt needs its video once, as %d ids in a row", video);
    return kern_ok(o->k);
}

/* Whether they can be answered, and where the video of all of them begins and ends. */
static bool acceptable(struct owl *o, const struct owl_question *q, int count, int end[2])
{
    int other[2];
    if (!o->looked) kern_fail(o->k, "no clip has been looked at");
    for (int i = 0; i < count && kern_ok(o->k); i++) {
        int *own = i ? other : end;
        if (q[i].n < 1 || q[i].max_new < 1 || q[i].n > o->c.decoder.positions - q[i].max_new)
            kern_fail(o->k,
                      "a prompt of %d ids and %d for its answer: at least one each, %lld at most together",
                      q[i].n, q[i].max_new, (long long)o->c.decoder.positions);
        else if (find_video(o, &q[i], own) &&
                 (own[0] != end[0] || memcmp(q[i].ids, q[0].ids, (size_t)end[1] * sizeof *q->ids)))
            kern_fail(o->k, "prompts that are asked together differ before their video's end");
    }
    return kern_ok(o->k);
}

/* The id of the largest logit, the smallest of those that are equal. */
static int32_t choose(struct owl *o, float *logits, bool rounded)
{
    int32_t best = 0;
    for (int32_t i = 0; i < o->c.decoder.vocabulary; i++) {
        if (!isfinite(logits[i])) kern_fail(o->k, "the logit of id %d is %g", i, (double)logits[i]);
        if (rounded) logits[i] = f32_from_bf16(bf16_from_f32(logits[i]));
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* Reads ids before the video, unless the last prompt began with the same. */
static void read_head(struct owl *o, const int32_t *ids, int n)
{
    if (o->head == n && !memcmp(o->ids, ids, (size_t)n * sizeof *ids)) return;
    o->head = 0;
    memcpy(o->ids, ids, (size_t)n * sizeof *ids);
    if (n) read_together(o, &(struct owl_stretch){.ids = ids, .rows = n}, 1);
    if (kern_ok(o->k)) o->head = n;
}

/* Where the logits go by which the next id of question i is chosen. */
static float *logits_of(const struct owl *o, const struct owl_question *q, int i)
{
    const int64_t vocabulary = o->c.decoder.vocabulary;
    return q->logits ? q->logits + q->made * vocabulary : o->logits + i * vocabulary;
}

/* Chooses an id of the answer. Whether another one is to follow. */
static bool go_on(struct owl *o, struct owl_question *q, float *logits, bool rounded)
{
    const int32_t id = choose(o, logits, rounded);
    if (id == o->c.decoder.end) return false;
    q->answer[q->made++] = id;
    return q->made < q->max_new;
}

/* Questions whose prompts and answers fit in the memory for keys, one after the other. */
static void answer_group(struct owl *o, struct owl_question *q, int count, const int end[2], bool rounded)
{
    struct owl_stretch next[1 + TOGETHER];
    int64_t at[TOGETHER] = {0};
    bool ends[TOGETHER] = {0};
    int n = 0;
    next[n++] = (struct owl_stretch){.ids = q->ids + end[0], .rows = end[1] - end[0], .first = end[0]};
    for (int i = 0; i < count; i++) {
        if (i) at[i] = at[i - 1] + q[i - 1].n + q[i - 1].max_new;
        q[i].made = 0;
        if (q[i].n == end[1])
            next[0].logits = logits_of(o, q, 0);
        else
            next[n++] = (struct owl_stretch){.ids = q[i].ids + end[1],
                                             .rows = q[i].n - end[1],
                                             .first = end[1],
                                             .at = at[i],
                                             .shared = i ? end[1] : 0,
                                             .logits = logits_of(o, &q[i], i)};
    }
    read_head(o, q->ids, end[0]);
    while (n && kern_ok(o->k)) {
        read_stretches(o, next, n);
        n = 0;
        for (int i = 0; i < count && kern_ok(o->k); i++) {
            ends[i] = ends[i] || !go_on(o, &q[i], logits_of(o, &q[i], i), rounded);
            if (!ends[i])
                next[n++] = (struct owl_stretch){.ids = &q[i].answer[q[i].made - 1],
                                                 .rows = 1,
                                                 .first = q[i].n + q[i].made - 1,
                                                 .at = at[i],
                                                 .logits = logits_of(o, &q[i], i)};
        }
    }
}

/* How many of them fit: one at least. One that ends with its video goes alone: the video's stretch is its last. */
static int group_of(const struct owl *o, const struct owl_question *q, int count, int video_end)
{
    int64_t room = o->c.decoder.positions - q->n - q->max_new;
    int n = 1;
    if (q->n == video_end) return 1;
    while (n < count && n < TOGETHER && q[n].n > video_end && (room -= q[n].n + q[n].max_new) >= 0) n++;
    return n;
}

bool owl_answer(struct owl *o, struct owl_question *q, int count, bool rounded)
{
    int end[2];
    if (!acceptable(o, q, count, end)) return false;
    for (int i = 0, n; i < count && kern_ok(o->k); i += n) {
        n = group_of(o, q + i, count - i, end[1]);
        answer_group(o, q + i, n, end, rounded);
    }
    return kern_ok(o->k);
}
