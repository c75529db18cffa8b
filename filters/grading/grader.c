#include "filters/grading/grader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/error.h"
#include "formats/resize.h"
#include "formats/video.h"

struct grader {
    struct kern *k;
    struct owl *owl;
    struct tokenizer *tokenizer;
    struct grader_settings set;
    int32_t digit[OWL_SCORES];
    struct {
        int32_t *answer;
        float *logits; /* [longest answer, vocabulary] */
    } asked[GRADER_TASKS];
};

struct grader *grader_open(struct kern *k, const struct model *m, const struct grader_settings *s, char *err,
                           size_t errlen)
{
    struct grader *g = calloc(1, sizeof *g);
    if (!g) return fail(err, errlen, "out of memory"), NULL;
    *g = (struct grader){.k = k, .set = *s};
    if (!(g->tokenizer = owl_tokenizer_open(m, err, errlen)) ||
        !owl_digit_ids(g->tokenizer, g->digit, err, errlen) ||
        !(g->owl = owl_open(k, m, s->exact_rope, s->lora, err, errlen)))
        goto failed;

    const int64_t vocabulary = owl_vocabulary(g->owl);
    if (tokenizer_size(g->tokenizer) > vocabulary) {
        fail(err, errlen, "the tokenizer has %d pieces, the network knows %lld", tokenizer_size(g->tokenizer),
             (long long)vocabulary);
        goto failed;
    }
    if (owl_video_ids(g->owl) != OWL_MEDIA_TOKENS) {
        fail(err, errlen, "%lld ids stand for a video in the network, %d in the prompt",
             (long long)owl_video_ids(g->owl), OWL_MEDIA_TOKENS);
        goto failed;
    }
    const int64_t longest = s->max_new ? s->max_new : GRADER_LENGTH;
    bool room = true;
    for (int i = 0; i < GRADER_TASKS; i++) {
        g->asked[i].answer = malloc((size_t)longest * sizeof *g->asked[i].answer);
        g->asked[i].logits = malloc((size_t)(longest * vocabulary) * sizeof *g->asked[i].logits);
        room = room && g->asked[i].answer && g->asked[i].logits;
    }
    if (room) return g;
    fail(err, errlen, "out of memory");
failed:
    grader_close(g);
    return NULL;
}

void grader_close(struct grader *g)
{
    if (!g) return;
    owl_close(g->owl);
    tokenizer_close(g->tokenizer);
    for (int i = 0; i < GRADER_TASKS; i++) free(g->asked[i].answer), free(g->asked[i].logits);
    free(g);
}

const char *grader_id(const struct grader *g)
{
    return owl_id(g->owl);
}

/* ---- looking ------------------------------------------------------------------------------------------- */

static bool device_failed(struct grader *g, char *err, size_t errlen)
{
    fail(err, errlen, "%s", kern_error(g->k));
    kern_clear(g->k);
    return false;
}

static void choose(int64_t *index, int64_t count, int64_t total)
{
    owl_frames(total, (int)count, index);
}

int64_t grader_side(const struct grader *g)
{
    return owl_side(g->owl);
}

bool grader_frames_file(const struct grader *g, const char *path, struct tensor *frames, char *err,
                        size_t errlen)
{
    struct video_info info;
    enum video_kernel kernel = g->set.exact_frames ? VIDEO_TRIANGLE : VIDEO_PLAIN;
    return video_read(path, 1, choose, kernel, frames, &info, err, errlen);
}

bool grader_frames(const struct grader *g, const struct tensor *video, struct tensor *frames, char *err,
                   size_t errlen)
{
    if (!tensor_is(video, DT_U8, 4, -1, -1, -1, 3) || tensor_count(video) == 0)
        return fail(err, errlen, "its video is not U8 [F,H,W,3] with something to see");
    int64_t *index = malloc((size_t)g->set.frames * sizeof *index);
    if (index) choose(index, g->set.frames, video->shape[0]);
    bool good = index != NULL;
    for (int64_t i = 0; i < g->set.frames && good; i++) {
        struct tensor from = tensor_rows(video, index[i], 1), to = tensor_rows(frames, i, 1);
        good = resize_triangle(&to, &from);
    }
    free(index);
    return good || fail(err, errlen, "out of memory");
}

bool grader_look(struct grader *g, const struct tensor *frames, char *err, size_t errlen)
{
    return owl_look(g->owl, frames) || device_failed(g, err, errlen);
}

/* ---- asking -------------------------------------------------------------------------------------------- */

/* Which of the digits an id is, or -1. */
static int digit_of(const struct grader *g, int32_t id)
{
    for (int d = 0; d < OWL_SCORES; d++)
        if (g->digit[d] == id) return d;
    return -1;
}

static void weigh(const struct grader *g, const float *logits, struct verdict *v)
{
    int64_t n = owl_vocabulary(g->owl);
    double top = -INFINITY, sum = 0, digits = 0, mean = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, logits[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(logits[i] - top);
    for (int d = 0; d < OWL_SCORES; d++) {
        v->p[d] = exp(logits[g->digit[d]] - top) / sum;
        digits += v->p[d];
        mean += d * v->p[d];
    }
    v->expected = mean / digits; /* one of them was the likeliest of all */
}

static int longest_answer(const struct grader *g, int prompt)
{
    if (g->set.max_new) return (int)g->set.max_new;
    return prompt < GRADER_LENGTH ? GRADER_LENGTH - prompt : GRADER_LENGTH;
}

/* What an answer says. */
static bool judge(struct grader *g, const struct owl_question *q, struct verdict *v, char *err, size_t errlen)
{
    for (int i = 0; i < q->made && !v->digit; i++)
        if ((v->digit = digit_of(g, q->answer[i]) >= 0)) weigh(g, q->logits + i * owl_vocabulary(g->owl), v);
    for (int i = 0; i < q->made; i++) /* a made-up network may know more ids than there are pieces */
        if (q->answer[i] >= tokenizer_size(g->tokenizer)) q->answer[i] = LLAMA_UNK;
    v->text = tokenizer_decode(g->tokenizer, q->answer, q->made, err, errlen);
    if (v->text) v->score = owl_score(v->text, &v->fallback);
    return v->text != NULL;
}

bool grader_ask(struct grader *g, int count, const char *const *task, const char *const *text,
                struct verdict *v, char *err, size_t errlen)
{
    int32_t *ids[GRADER_TASKS] = {0};
    struct owl_question q[GRADER_TASKS];
    bool good = count <= GRADER_TASKS || fail(err, errlen, "%d tasks at once", count);
    for (int i = 0, n; i < count && good; i++) {
        if (!(good = owl_prompt_ids(g->tokenizer, task[i], text[i], &ids[i], &n, err, errlen))) break;
        q[i] = (struct owl_question){.ids = ids[i],
                                     .n = n,
                                     .max_new = longest_answer(g, n),
                                     .answer = g->asked[i].answer,
                                     .logits = g->asked[i].logits};
        v[i] = (struct verdict){.prompt = n};
    }
    good = good && (owl_answer(g->owl, q, count, !g->set.exact_logits) || device_failed(g, err, errlen));
    for (int i = 0; i < GRADER_TASKS; i++) free(ids[i]);
    for (int i = 0; i < count && good; i++) {
        good = judge(g, &q[i], &v[i], err, errlen);
        while (!good && i) free(v[--i].text);
    }
    return good;
}

/* ---- telling ------------------------------------------------------------------------------------------- */

static bool put(json_t *line, const char *task, const char *what, json_t *value)
{
    char name[32];
    snprintf(name, sizeof name, "%s%s", task, what);
    return json_object_set_new(line, name, value) == 0;
}

bool verdict_tell(const struct verdict *v, const char *task, const char *text, json_t *line)
{
    json_t *probs = v->digit ? json_array() : json_null();
    for (int d = 0; v->digit && d < OWL_SCORES; d++) json_array_append_new(probs, json_real(v->p[d]));
    bool good = strcmp(task, "rule") || put(line, task, "_asked", json_string(text));
    good &= put(line, task, "", json_integer(v->score));
    good &= put(line, task, "_text", json_string(v->text));
    good &= put(line, task, "_probs", probs);
    good &= put(line, task, "_expected", v->digit ? json_real(v->expected) : json_null());
    good &= put(line, task, "_fallback", json_boolean(v->fallback));
    if (v->prompt >= GRADER_LENGTH) good &= put(line, task, "_too_long", json_true());
    return good;
}
