#include "filters/nets/owl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/nets/families.h"
#include "filters/nets/owl_net.h"

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
    o->logits = malloc((size_t)o->c.decoder.vocabulary * sizeof *o->logits);
    if (!o->ids || !o->logits) kern_fail(o->k, "out of memory");
}

static void read_block(struct owl *o, const int32_t *ids, int64_t first, int64_t rows, float *logits);

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
    /* The longest prompt that there are positions for: what has no room is refused here. */
    if (kern_ok(o->k)) {
        kern_plan_begin(o->k);
        read_block(o, o->ids, 0, o->c.decoder.positions, o->logits);
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
    if (o->kept > 1) o->kept = 1; /* what was read before the video is the same for the next one */
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

/* Reads ids at positions first .. first+rows-1; logits: of the last one, or NULL. */
static void read_block(struct owl *o, const int32_t *ids, int64_t first, int64_t rows, float *logits)
{
    struct kern *k = o->k;
    size_t mark = kern_mark(k);
    struct tensor x = kern_tensor(k, kern_compute(k), 2, rows, o->c.decoder.width);
    struct tensor id = kern_tensor(k, DT_I32, 1, rows), host = id;
    struct tensor row = kern_tensor(k, DT_F32, 2, 1, o->c.decoder.vocabulary), on_host = row;
    host.data = (void *)ids;
    on_host.data = logits;
    if (!kern_planning(k) && ids[0] == OWL_VIDEO) {
        kern_copy(k, &x, &o->video);
    } else {
        kern_upload(k, &id, &host);
        embedding_forward(k, &x, &o->decoder.embedding, &id);
    }
    owl_decoder(o, &x, first);
    if (logits) {
        struct tensor last = tensor_rows(&x, rows - 1, 1);
        owl_head(o, &row, &last);
        kern_download(k, &on_host, &row);
    }
    kern_release(k, mark);
}

/* Where the first two blocks of a prompt end: at its video's two ends. */
static bool find_blocks(struct owl *o, const int32_t *ids, int n, int end[2])
{
    const int video = (int)owl_video_ids(o);
    int runs = 0;
    for (int i = 0; i < n; i++) {
        if (ids[i] == OWL_VIDEO && (i == 0 || ids[i - 1] != OWL_VIDEO)) runs++, end[0] = end[1] = i;
        if (ids[i] == OWL_VIDEO) end[1]++;
        if (ids[i] != OWL_VIDEO && (ids[i] < 0 || ids[i] >= o->c.decoder.vocabulary))
            kern_fail(o->k, "id %d at %d is not in the vocabulary of %lld", ids[i], i,
                      (long long)o->c.decoder.vocabulary);
    }
    if (runs != 1 || end[1] - end[0] != video)
        kern_fail(o->k, "a prompt needs its video once, as %d ids in a row", video);
    return kern_ok(o->k);
}

/* Reads a prompt but for the blocks that it begins with as the last one did. Blocks are cut, and computed, in
 * the same way whatever was read before, so that no bit depends on it. */
static void read_prompt(struct owl *o, const int32_t *ids, int n, const int end[2], float *logits)
{
    const int from[3] = {0, end[0], end[1]}, to[3] = {end[0], end[1], n}, last = n > end[1] ? 2 : 1;
    int same = 0;
    while (same < o->kept && same < last && o->end[same] == end[same] &&
           !memcmp(o->ids, ids, (size_t)end[same] * sizeof *ids))
        same++;
    o->kept = same;
    memcpy(o->ids, ids, (size_t)end[1] * sizeof *ids);
    memcpy(o->end, end, sizeof o->end);
    for (int i = same; i <= last; i++) {
        if (to[i] > from[i])
            read_block(o, ids + from[i], from[i], to[i] - from[i], i == last ? logits : NULL);
        if (kern_ok(o->k) && i < 2) o->kept = i + 1;
    }
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

int owl_answer(struct owl *o, const int32_t *ids, int n, int32_t *answer, float *logits, int max_new,
               bool rounded)
{
    int end[2], made = 0;
    if (!o->looked) kern_fail(o->k, "no clip has been looked at");
    if (n < 1 || max_new < 1 || n > o->c.decoder.positions - max_new)
        kern_fail(o->k, "a prompt of %d ids and %d for its answer: at least one each, %lld at most together",
                  n, max_new, (long long)o->c.decoder.positions);
    if (!kern_ok(o->k) || !find_blocks(o, ids, n, end)) return -1;

    read_prompt(o, ids, n, end, logits ? logits : o->logits);
    while (kern_ok(o->k)) {
        float *row = logits ? logits + made * o->c.decoder.vocabulary : o->logits;
        const int32_t id = choose(o, row, rounded);
        if (id == o->c.decoder.end) break;
        answer[made++] = id;
        if (made == max_new) break;
        read_block(o, &answer[made - 1], n + made - 1, 1, logits ? row + o->c.decoder.vocabulary : row);
    }
    return kern_ok(o->k) ? made : -1;
}
