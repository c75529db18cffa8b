/* The grader's network: mPLUG-Owl-Video's own code (reference/make_owl.py) answers the same,
 * and what must hold of any weights does. Everything is F32 through a few layers: 1e-5 is some
 * twenty times what was seen. */
#include "filters/nets/owl_net.h"

#include "kernels/backend.h"
#include "tests/cases.h"
#include "tests/device.h"
#include "tests/scratch.h"

static struct kern *k;
static char err[1024];
static const double TOLERANCE = 1e-5;

/* ---- what the tests are made of ------------------------------------------------------------------------ */

static struct model *open_folder(const char *name)
{
    char path[4096];
    struct model *m = model_open(strchr(name, ':') ? name : data_file(path, "owl", name), err, sizeof err);
    if (!m) printf("Bail out! %s\n", err), exit(1);
    return m;
}

static struct owl *open_owl_on(struct kern *on, const char *name, bool exact_rope, const char *lora)
{
    struct model *m = open_folder(name);
    struct owl *o = owl_open(on, m, exact_rope, lora, err, sizeof err);
    if (!o) printf("Bail out! %s: %s\n", name, err), exit(1);
    model_close(m);
    return o;
}

static struct owl *open_owl(const char *name)
{
    return open_owl_on(k, name, false, NULL);
}

/* A fixed clip that moves, all its own for every seed. */
static struct tensor make_clip(const struct owl *o, int64_t frames, uint32_t seed)
{
    const int64_t side = owl_side(o);
    struct tensor t = tensor_of(DT_U8, NULL, 4, frames, side, side, 3);
    uint8_t *to = t.data = malloc((size_t)tensor_count(&t));
    for (int64_t i = 0; i < tensor_count(&t); i++) {
        seed = seed * 1664525 + 1013904223;
        to[i] = (uint8_t)(seed >> 24);
    }
    return t;
}

enum { ROOM = 400 };
struct prompt {
    int32_t ids[ROOM];
    int n, end[2];
};

/* `head` ids, the video, `tail` ids; other seeds have other ids. */
static struct prompt make_prompt(const struct owl *o, int head, uint32_t seed, int tail, uint32_t tail_seed)
{
    struct prompt p = {.end = {head, head + (int)owl_video_ids(o)}};
    for (; p.n < p.end[1] + tail; p.n++) {
        uint32_t *s = p.n < head ? &seed : &tail_seed;
        *s = *s * 1664525 + 1013904223;
        p.ids[p.n] = p.n >= head && p.n < p.end[1] ? OWL_VIDEO : (int32_t)((*s >> 8) % owl_vocabulary(o));
    }
    return p;
}

enum { NEW = 12 };
struct answer {
    int n;
    int32_t ids[NEW];
    float logits[NEW * 1024];
};

/* One prompt's answer: how many ids, or -1. */
static int answer(struct owl *o, const struct prompt *p, int32_t *ids, float *logits, int max_new,
                  bool rounded)
{
    struct owl_question q = {.ids = p->ids, .n = p->n, .max_new = max_new, .answer = ids, .logits = logits};
    return owl_answer(o, &q, 1, rounded) ? q.made : -1;
}

/* Poisoned first: what is not written shows. */
static struct answer *ask(struct owl *o, const struct prompt *p)
{
    struct answer *a = malloc(sizeof *a);
    memset(a, 0xFF, sizeof *a);
    a->n = answer(o, p, a->ids, a->logits, NEW, false);
    if (a->n < 0) printf("# %s\n", kern_error(o->k)), kern_clear(o->k);
    return a;
}

/* Every bit of two answers, logits too; frees them. */
static bool same_answers(struct answer *a, struct answer *b)
{
    bool same = a->n >= 0 && !memcmp(a, b, sizeof *a);
    free(a);
    free(b);
    return same;
}

static bool look_at(struct owl *o, int64_t frames, uint32_t seed)
{
    struct tensor clip = make_clip(o, frames, seed);
    bool good = owl_look(o, &clip);
    if (!good) printf("# %s\n", kern_error(o->k)), kern_clear(o->k);
    free(clip.data);
    return good;
}

/* Plans the call, with nothing of the result in place, then does it in poisoned scratch memory. */
#define PLANNED(o, call)                                                                                     \
    do {                                                                                                     \
        kern_plan_begin((o)->k);                                                                             \
        call;                                                                                                \
        kern_reserve((o)->k, kern_plan_end((o)->k));                                                         \
        call;                                                                                                \
        if (!kern_ok((o)->k)) printf("# %s\n", kern_error((o)->k));                                          \
    } while (0)

static struct tensor host_copy(struct owl *o, const struct tensor *t)
{
    struct tensor h = *t;
    h.dtype = DT_F32;
    h.data = malloc(tensor_bytes(&h) + 1);
    kern_download(o->k, &h, t);
    return h;
}

static double off(const struct tensor *got, const struct tensor *want)
{
    return relative_l2(got->data, want->data, (size_t)tensor_count(want));
}

/* ---- the public code ----------------------------------------------------------------------------------- */

static struct tensor to_pixels(struct tensor wide)
{
    struct tensor t = wide;
    t.dtype = DT_U8;
    t.data = malloc((size_t)tensor_count(&t));
    for (int64_t i = 0; i < tensor_count(&t); i++) ((uint8_t *)t.data)[i] = (uint8_t)((float *)wide.data)[i];
    free(wide.data);
    return t;
}

static double allowed(void)
{
    return tolerance(k, TOLERANCE, 0.05);
}

/* The case's ids and logits, against an answer to its prompt. In BF16 the ids may part, and then the logits
 * do: only those of the first id are compared. */
static void compare_answer(struct owl *o, const struct cases *c, const char *name, int prompt,
                           const char *model)
{
    struct tensor ids = cases_tensor(c, "prompt.%d", prompt), made = cases_tensor(c, "%s.answer", name),
                  logits = cases_tensor(c, "%s.logits", name);
    struct prompt p = {.n = (int)ids.shape[0]};
    for (int i = 0; i < p.n; i++) p.ids[i] = (int32_t)((float *)ids.data)[i];
    struct answer *a = ask(o, &p);
    const bool exact = kern_compute(k) == DT_F32;
    bool same = exact ? a->n == made.shape[0] : a->n >= 0;
    for (int i = 0; same && exact && i < a->n; i++) same = a->ids[i] == (int32_t)((float *)made.data)[i];
    double distance =
        relative_l2(a->logits, logits.data, (size_t)(exact ? tensor_count(&logits) : owl_vocabulary(o)));
    ok(same && distance < allowed(), "%s %s: the same %d ids, logits off by %.1e", model, name, a->n,
       distance);
    free(a), free(ids.data), free(made.data), free(logits.data);
}

static void compare_video(struct owl *o, const struct cases *c, int v, const char *model)
{
    struct tensor pixels = to_pixels(cases_tensor(c, "video.%d.pixels", v));
    struct tensor seen = cases_tensor(c, "video.%d.seen", v), tokens = cases_tensor(c, "video.%d.tokens", v);
    const int64_t rows = pixels.shape[0] * owl_frame_tokens(&o->c), width = o->c.vision.width;
    const int64_t step = pixels.shape[0] < 8 ? 1 : 37; /* of many rows the reference keeps every 37th */
    struct tensor y = {0};
    kern_reserve(k, 64 << 20);
    size_t mark = kern_mark(k);
    y = kern_tensor(k, kern_compute(k), 2, rows, width);
    struct tensor frames = kern_tensor(k, DT_U8, 4, pixels.shape[0], owl_side(o), owl_side(o), 3);
    kern_upload(k, &frames, &pixels);
    owl_vision(o, &y, &frames);
    struct tensor some = seen, got = host_copy(o, &y);
    some.data = malloc(tensor_bytes(&seen));
    for (int64_t i = 0; i < seen.shape[0]; i++)
        memcpy((float *)some.data + i * width, (float *)got.data + i * step * width, (size_t)width * 4);
    free(got.data);
    kern_release(k, mark);
    ok(off(&some, &seen) < allowed(), "%s video %d: the tower is off by %.1e", model, v, off(&some, &seen));

    ok(owl_look(o, &pixels), "%s video %d: looked at %s", model, v, kern_error(k));
    got = host_copy(o, &o->video);
    ok(off(&got, &tokens) < allowed(), "%s video %d: its embedding is off by %.1e", model, v,
       off(&got, &tokens));
    free(pixels.data), free(seen.data), free(tokens.data), free(some.data), free(got.data);
}

static void test_reference(const char *model)
{
    char folder[64], name[16];
    snprintf(folder, sizeof folder, "owl/%s", model);
    struct cases c = cases_open(folder);
    struct owl *o = open_owl(model);
    for (int v = 0; v < 2; v++) {
        compare_video(o, &c, v, model);
        for (int p = 0; p < 4; p++) {
            snprintf(name, sizeof name, "%d.%d", v, p);
            compare_answer(o, &c, name, p, model);
        }
    }
    owl_close(o);

    struct tensor pixels = to_pixels(cases_tensor(&c, "video.0.pixels"));
    o = open_owl_on(k, model, true, NULL);
    owl_look(o, &pixels);
    compare_answer(o, &c, "exact", 1, model);
    owl_close(o);
    free(pixels.data);
    cases_close(&c);
}

/* ---- the vision tower ---------------------------------------------------------------------------------- */

static void zero(const struct affine *a)
{
    memset(a->w.data, 0, tensor_bytes(&a->w));
    memset(a->b.data, 0, tensor_bytes(&a->b));
}

/* Where nothing is added to it, a patch stays what it is and a class token doubles in every layer. */
static void test_class_tokens(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    const int64_t frames = 3, tokens = owl_frame_tokens(&o->c), width = o->c.vision.width;
    float *x = malloc((size_t)(frames * tokens * width) * sizeof *x);
    for (int64_t i = 0; i < frames * tokens * width; i++) x[i] = (float)sin((double)i);
    struct tensor t = tensor_of(DT_F32, x, 2, frames * tokens, width);
    for (int n = 0; n < o->c.vision.layers; n++) {
        struct owl_vision_layer *l = &o->vision.layer[n];
        zero(&l->up), zero(&l->dense), zero(&l->fc2);
        PLANNED(o, owl_vision_layer(o, l, &t, frames));
        bool good = kern_ok(k);
        for (int64_t i = 0; i < frames * tokens * width; i++)
            good = good && x[i] == (float)sin((double)i) * (i / width % tokens ? 1 : (float)(2 << n));
        ok(good, "after layer %d class tokens are %d times what they were, patches as they were", n, 2 << n);
    }
    free(x);
    owl_close(o);
}

static struct tensor tower(struct owl *o, const struct tensor *pixels)
{
    const int64_t tokens = pixels->shape[0] * owl_frame_tokens(&o->c), width = o->c.vision.width;
    struct tensor y = tensor_of(DT_F32, NULL, 2, tokens, width);
    y.data = malloc(tensor_bytes(&y));
    PLANNED(o, owl_vision(o, &y, pixels));
    return y;
}

/* The frames of t, each of so many bytes, in reverse order. */
static void reverse(struct tensor *t, int64_t frames)
{
    const size_t frame = tensor_bytes(t) / (size_t)frames;
    char *from = t->data, *other = malloc(tensor_bytes(t));
    for (int64_t i = 0; i < frames; i++)
        memcpy(other + (size_t)i * frame, from + (size_t)(frames - 1 - i) * frame, frame);
    t->data = other;
    free(from);
}

static void test_time(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    const int64_t frames = 4;
    struct tensor clip = make_clip(o, frames, 1), forward = tower(o, &clip);
    reverse(&clip, frames);
    struct tensor backward = tower(o, &clip);
    for (int n = 0; n < o->c.vision.layers; n++) {
        struct tensor *w = &o->vision.layer[n].conv.w;
        for (int64_t i = 0; i < w->shape[0]; i++) {
            float *tap = (float *)w->data + 3 * i, first = tap[0];
            tap[0] = tap[2], tap[2] = first;
        }
    }
    struct tensor turned = tower(o, &clip);
    reverse(&backward, frames), reverse(&turned, frames);
    ok(off(&turned, &forward) < TOLERANCE, "a clip and the taps of time turned round: off by %.1e",
       off(&turned, &forward));
    ok(off(&backward, &forward) > 1e-2, "the clip alone turned round is another: off by %.1e",
       off(&backward, &forward));
    free(clip.data), free(forward.data), free(backward.data), free(turned.data);
    owl_close(o);
}

/* Rows of the file are head by head q, k, v: with q, k and v taken as thirds of it, another
 * tower comes out. */
static void test_interleaving(void)
{
    char path[4096];
    static const char name[] = "vision_model.encoder.layers.1.self_attn.query_key_value.weight";
    struct owl *o = open_owl("plain");
    struct safetensors *file =
        safetensors_open(data_file(path, "owl/plain", "model.safetensors"), err, sizeof err);
    const struct safetensors_entry *e = safetensors_find(file, name);
    float *stored = malloc(e->bytes);
    safetensors_read(file, e, stored, err, sizeof err);
    struct tensor *w = &o->vision.layer[1].qkv.w;
    const int64_t width = o->c.vision.width, heads = o->c.vision.heads, d = width / heads;
    bool good = true;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t j = 0; j < 3; j++)
            for (int64_t i = 0; i < d; i++)
                good = good && !memcmp((float *)w->data + (j * width + h * d + i) * width,
                                       stored + (h * 3 * d + j * d + i) * width, (size_t)width * 4);
    ok(good, "channel h 3d + j d + i of the file is channel h d + i of q, k or v");
    struct tensor clip = make_clip(o, 2, 1), parted = tower(o, &clip);
    memcpy(w->data, stored, e->bytes);
    struct tensor thirds = tower(o, &clip);
    ok(off(&thirds, &parted) > 1e-3, "in thirds it is another tower: off by %.1e", off(&thirds, &parted));
    free(stored), free(clip.data), free(parted.data), free(thirds.data);
    safetensors_close(file);
    owl_close(o);
}

/* ---- the abstractor ------------------------------------------------------------------------------------ */

static struct tensor embedding(struct owl *o, const struct tensor *seen)
{
    PLANNED(o, owl_abstractor(o, &o->video, seen));
    return host_copy(o, &o->video);
}

static void test_abstractor(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    struct tensor clip = make_clip(o, 4, 1), seen = tower(o, &clip), first = embedding(o, &seen);
    const int64_t rows = seen.shape[0], width = seen.shape[1];
    struct tensor shuffled = seen;
    shuffled.data = malloc(tensor_bytes(&seen));
    for (int64_t i = 0; i < rows; i++) /* 5 has no divisor with the number of rows in common */
        memcpy((float *)shuffled.data + i * 5 % rows * width, (float *)seen.data + i * width,
               (size_t)width * 4);
    struct tensor other = embedding(o, &shuffled);
    ok(rows % 5 && off(&other, &first) < TOLERANCE, "the order of what was seen does not matter: off by %.1e",
       off(&other, &first));
    free(other.data);
    for (int64_t i = 0; i < tensor_count(&o->abstractor.queries); i++) {
        ((float *)o->abstractor.queries.data)[i] *= 30;
        ((float *)o->abstractor.time_queries.data)[i] *= 30;
    }
    other = embedding(o, &seen);
    ok(off(&other, &first) < 1e-4, "only the normalised queries do (but for their norm's eps): off by %.1e",
       off(&other, &first));
    free(other.data);
    memset(seen.data, 0, tensor_bytes(&seen) / 2);
    other = embedding(o, &seen);
    ok(off(&other, &first) > 1e-3, "and what was seen: off by %.1e", off(&other, &first));
    free(clip.data), free(seen.data), free(first.data), free(shuffled.data), free(other.data);
    owl_close(o);
}

/* ---- prompts and answers ------------------------------------------------------------------------------- */

enum { PROMPTS = 8, CLIPS = 2 };

/* Prompts that share stretches in every way: head and tail, head alone, some ids of the head, nothing; without a
 * head, without a tail; with a head that goes on where another's ends. */
static void make_prompts(const struct owl *o, struct prompt p[PROMPTS])
{
    p[0] = make_prompt(o, 9, 1, 14, 1);
    p[1] = make_prompt(o, 9, 1, 20, 2);
    p[2] = make_prompt(o, 9, 3, 14, 1);
    p[3] = make_prompt(o, 9, 1, 14, 1);
    p[3].ids[8] ^= 1;
    p[4] = make_prompt(o, 10, 1, 5, 5);
    p[5] = make_prompt(o, 0, 1, 14, 1);
    p[6] = make_prompt(o, 9, 1, 0, 1);
    p[7] = make_prompt(o, 3, 1, 40, 7);
}

/* Whatever was looked at and asked before, an answer has the same bits: those of a network that was asked
 * nothing else. */
static void test_independence(void)
{
    struct answer *alone[CLIPS][PROMPTS];
    struct prompt p[PROMPTS];
    for (int c = 0; c < CLIPS; c++)
        for (int i = 0; i < PROMPTS; i++) {
            struct owl *o = open_owl("random:owl-tiny");
            make_prompts(o, p);
            alone[c][i] = look_at(o, 2 + c, (uint32_t)c) ? ask(o, &p[i]) : NULL;
            if (!alone[c][i] || alone[c][i]->n < 0) printf("Bail out! no answer\n"), exit(1);
            owl_close(o);
        }
    struct owl *o = open_owl("random:owl-tiny");
    uint32_t state = 7;
    int good = 0, asked = 0, clip = -1;
    for (int step = 0; step < 300; step++) {
        state = state * 1664525 + 1013904223;
        if (clip < 0 || state >> 28 == 0) {
            clip = (int)(state >> 27 & 1);
            look_at(o, 2 + clip, (uint32_t)clip);
        }
        struct prompt *q = &p[state >> 16 & (PROMPTS - 1)];
        if (state >> 24 & 1) { /* with something refused in between */
            struct prompt bad = *q;
            bad.ids[0] = -1;
            if (answer(o, &bad, alone[0][0]->ids, NULL, 1, false) >= 0) break;
            kern_clear(k);
        }
        struct answer *a = ask(o, q);
        good += !memcmp(a, alone[clip][q - p], sizeof *a);
        asked++;
        free(a);
    }
    ok(asked == 300 && good == asked, "%d of %d answers do not depend on those before", good, asked);
    owl_close(o);
    for (int c = 0; c < CLIPS; c++)
        for (int i = 0; i < PROMPTS; i++) free(alone[c][i]);
}

/* Another device than the CPU, in F32: the same ids. */
static void test_same_as_cpu(void)
{
    struct kern *cpu = kern_open("cpu", 0, err, sizeof err);
    struct owl *on[2] = {open_owl("random:owl-tiny"), open_owl_on(cpu, "random:owl-tiny", false, NULL)};
    struct prompt p[PROMPTS];
    double worst = 0;
    int same = 0;
    make_prompts(on[0], p);
    for (int c = 0; c < CLIPS; c++) {
        for (int d = 0; d < 2; d++) look_at(on[d], 2 + c, (uint32_t)c);
        for (int i = 0; i < PROMPTS; i++) {
            struct answer *a = ask(on[0], &p[i]), *b = ask(on[1], &p[i]);
            same += a->n > 0 && a->n == b->n && !memcmp(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
            worst = fmax(worst, relative_l2(a->logits, b->logits, (size_t)(b->n * owl_vocabulary(on[1]))));
            free(a), free(b);
        }
    }
    ok(same == CLIPS * PROMPTS && worst < 1e-4, "%d of %d answers are the CPU's, logits off by %.1e", same,
       CLIPS * PROMPTS, worst);
    owl_close(on[0]), owl_close(on[1]);
    kern_close(cpu);
}

enum { QUESTIONS = 5, MOST = 9 };
static const struct group {
    int count, of[MOST];
} groups[] = {{2, {0, 1}}, {3, {1, 0, 2}}, {2, {2, 2}}, {4, {3, 0, 4, 1}}, /* 3 and 4: no room for both */
              {2, {4, 3}}, {1, {3}},       {2, {1, 2}}, {9, {0, 1, 2, 0, 1, 2, 0, 1, 2}}};

/* How many of a group's answers have the same bits as alone; the last one gets no room for logits. */
static int ask_group(struct owl *o, const struct group *g, const struct prompt *p,
                     struct answer *const *alone)
{
    struct answer *a[MOST];
    struct owl_question q[MOST];
    int same = 0;
    for (int i = 0; i < g->count; i++) {
        a[i] = malloc(sizeof *a[i]);
        memset(a[i], 0xFF, sizeof *a[i]);
        q[i] = (struct owl_question){p[g->of[i]].ids, p[g->of[i]].n, NEW, a[i]->ids, a[i]->logits, 0};
    }
    q[g->count - 1].logits = NULL;
    bool good = owl_answer(o, q, g->count, false);
    if (!good) printf("# %s\n", kern_error(k)), kern_clear(k);
    for (int i = 0; i < g->count; i++) {
        const struct answer *want = alone[g->of[i]];
        a[i]->n = q[i].made;
        same += good && (q[i].logits ? !memcmp(a[i], want, sizeof *want)
                                     : a[i]->n == want->n && !memcmp(a[i]->ids, want->ids, sizeof want->ids));
        free(a[i]);
    }
    return same;
}

/* Asked together, prompts have the answers that they have alone, to the bit. */
static void test_together(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    const struct prompt p[QUESTIONS] = {make_prompt(o, 9, 1, 14, 1), make_prompt(o, 9, 1, 20, 2),
                                        make_prompt(o, 9, 1, 0, 3), make_prompt(o, 9, 1, 100, 4),
                                        make_prompt(o, 9, 1, 100, 5)};
    struct answer *alone[QUESTIONS];
    o->c.decoder.positions = 300;
    look_at(o, 3, 1);
    for (int i = 0; i < QUESTIONS; i++) alone[i] = ask(o, &p[i]);
    o->c.decoder.end = alone[1]->ids[2]; /* so that one ends before the others */
    for (int i = 0; i < QUESTIONS; i++) free(alone[i]), alone[i] = ask(o, &p[i]);
    ok(alone[1]->n < NEW && alone[0]->n > alone[1]->n, "answers of %d and %d ids", alone[0]->n, alone[1]->n);
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        int same = ask_group(o, &groups[g], p, alone);
        ok(same == groups[g].count, "of %d prompts asked together, %d are answered as they are alone",
           groups[g].count, same);
    }
    for (int i = 0; i < QUESTIONS; i++) free(alone[i]);
    owl_close(o);
}

static int64_t attentions(void)
{
    int count;
    const struct kern_profile_line *line = kern_profile(k, &count);
    for (int i = 0; i < count; i++)
        if (!strcmp(line[i].operation, "attention_forward")) return line[i].calls;
    return 0;
}

/* What is shared is not computed again: the video is read once for all that is asked about it; keys before it
 * that are spoilt stay so until they are read again. */
static void test_reuse(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    struct prompt p[PROMPTS];
    make_prompts(o, p);
    look_at(o, 3, 1);
    struct answer *first = ask(o, &p[0]), *other = ask(o, &p[1]);
    const struct group both = {2, {0, 1}};
    kern_profile_start(k);
    ask_group(o, &both, p, (struct answer *const[]){first, other});
    const int64_t reads = attentions() / o->c.decoder.layers;
    ok(reads == 1 + first->n + other->n, "two answers of %d and %d ids: %lld stretches are read", first->n,
       other->n, (long long)reads);
    kern_profile_stop(k);
    struct tensor head = tensor_rows(&o->decoder.layer[0].keys, 0, p[0].end[0]);
    kern_zero(k, &head);
    look_at(o, 3, 1);
    ok(!same_answers(ask(o, &p[1]), first), "what comes before the video is not read again for another clip");
    free(ask(o, &p[5]));
    ok(same_answers(ask(o, &p[1]), other), "it is after a prompt that begins otherwise");
    owl_close(o);
}

/* Reading id by id what has been answered gives what reading it at once gives. */
static void test_cache(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    struct prompt p = make_prompt(o, 9, 1, 14, 1);
    look_at(o, 3, 1);
    struct answer *a = ask(o, &p);
    double worst = 0;
    bool same = a->n == NEW;
    for (int i = 0; i + 1 < a->n; i++) {
        p.ids[p.n++] = a->ids[i];
        struct answer *next = ask(o, &p);
        worst = fmax(worst, relative_l2(next->logits, a->logits + (i + 1) * owl_vocabulary(o),
                                        (size_t)owl_vocabulary(o)));
        same = same && next->n > 0 && next->ids[0] == a->ids[i + 1];
        free(next);
    }
    ok(same && worst < TOLERANCE, "id by id or at once: the same ids, logits off by %.1e", worst);
    free(a);
    owl_close(o);
}

/* Nothing is read that was not written, neither scratch nor keys and values; nor do threads matter. */
static void test_poison(void)
{
    struct answer *a[3];
    for (int i = 0; i < 3; i++) {
        struct kern *on = kern_open("cpu", i < 2 ? 2 : 1, err, sizeof err);
        struct owl *o = open_owl_on(on, "random:owl-tiny", false, NULL);
        struct prompt p = make_prompt(o, 9, 1, 200, 1);
        if (i == 0) look_at(o, 9, 2); /* now all scratch there is has been reserved */
        for (int n = 0; i == 0 && n < o->c.decoder.layers; n++) {
            memset(o->decoder.layer[n].keys.data, 0xFF, tensor_bytes(&o->decoder.layer[n].keys));
            memset(o->decoder.layer[n].values.data, 0xFF, tensor_bytes(&o->decoder.layer[n].values));
        }
        if (i == 0) memset(on->stack, 0xFF, on->size);
        look_at(o, 9, 1);
        if (i == 0) memset(on->stack, 0xFF, on->size);
        a[i] = ask(o, &p);
        owl_close(o);
        kern_close(on);
    }
    ok(a[0]->n >= 0 && !memcmp(a[0], a[1], sizeof *a[0]), "poisoned memory changes no bit");
    ok(same_answers(a[0], a[2]), "one thread or two change none");
    free(a[1]);
}

static void test_choice(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    const int64_t ids = owl_vocabulary(o), width = o->c.decoder.width;
    struct prompt p = make_prompt(o, 9, 1, 14, 1);
    int32_t made[2] = {-1, -1};
    float *logits = malloc((size_t)(2 * ids) * sizeof *logits), *head = o->decoder.head.data;
    look_at(o, 3, 1);
    answer(o, &p, made, NULL, 1, false);
    const int32_t best = made[0], twin = best > ids / 2 ? best - 5 : best + 5,
                  low = best < twin ? best : twin, high = best + twin - low;
    memcpy(head + twin * width, head + best * width, (size_t)width * sizeof *head);
    int n = answer(o, &p, made, logits, 1, false);
    ok(n == 1 && made[0] == low && logits[low] == logits[high], "of two equal logits the smaller id wins");
    for (int64_t i = 0; i < width; i++) head[low * width + i] *= 1 - 0x1p-12f;
    n = answer(o, &p, made, logits, 1, false);
    ok(n == 1 && made[0] == high && logits[low] < logits[high], "a larger one wins by little, %.7g over %.7g",
       (double)logits[high], (double)logits[low]);
    n = answer(o, &p, made, logits, 1, true);
    ok(n == 1 && made[0] == low && logits[low] == logits[high] &&
           logits[low] == f32_from_bf16(bf16_from_f32(logits[low])),
       "but not when both are rounded, to %.7g", (double)logits[low]);

    o->c.decoder.end = low;
    logits[ids] = 17;
    n = answer(o, &p, made, logits, 2, true);
    ok(n == 0 && logits[low] == logits[high] && logits[ids] == 17,
       "the end is chosen like any other id, and not counted");
    head[11 * width] = NAN;
    n = answer(o, &p, made, NULL, 1, true);
    ok(n == -1 && strstr(kern_error(k), "the logit of id 11 is"), "%s", kern_error(k));
    kern_clear(k);
    free(logits);
    owl_close(o);
}

static void test_refusals(void)
{
    struct owl *o = open_owl("random:owl-tiny");
    int32_t made[NEW];
    struct prompt good = make_prompt(o, 9, 1, 14, 1), p = good;
#define REFUSED(word, call)                                                                                  \
    do {                                                                                                     \
        bool done_ = (call);                                                                                 \
        ok(!done_ && strstr(kern_error(k), word), "refused: %s", kern_error(k));                             \
        kern_clear(k);                                                                                       \
    } while (0)
#define ASK(p, max_new) (answer(o, &(p), made, NULL, max_new, false) >= 0)
    REFUSED("no clip", ASK(good, NEW));
    look_at(o, 2, 1);
    struct answer *first = ask(o, &good);

    const int64_t side = owl_side(o);
    struct tensor clip = make_clip(o, 4, 1), one = tensor_rows(&clip, 0, 1), none = tensor_rows(&clip, 0, 0);
    struct tensor flat = tensor_as(&clip, 3, 4 * side, side, 3),
                  narrow = tensor_as(&clip, 4, 8, side, side / 2, 3),
                  wide = tensor_of(DT_F32, clip.data, 4, 1, side, side, 3);
    REFUSED("U8 [1,56,56,3], not U8 [2 or more,56,56,3]", owl_look(o, &one));
    REFUSED("no clip", ASK(good, NEW));
    REFUSED("[0,56,56,3]", owl_look(o, &none));
    REFUSED("[224,56,3]", owl_look(o, &flat));
    REFUSED("[8,56,28,3]", owl_look(o, &narrow));
    REFUSED("F32", owl_look(o, &wide));
    look_at(o, 2, 1);

    p.ids[20] = 5;
    REFUSED("once", ASK(p, NEW)); /* two runs */
    p = make_prompt(o, 9, 1, 14, 1);
    p.ids[9] = 5;
    REFUSED("65 ids", ASK(p, NEW)); /* too short a one */
    p.ids[9] = OWL_VIDEO, p.ids[8] = OWL_VIDEO;
    REFUSED("65 ids", ASK(p, NEW));
    for (int i = 0; i < p.n; i++) p.ids[i] = 5;
    REFUSED("once", ASK(p, NEW));
    p = good, p.ids[3] = 1024;
    REFUSED("id 1024 at 3 is not in the vocabulary of 1024", ASK(p, NEW));
    p = good, p.ids[p.n - 1] = -1;
    REFUSED("id -1", ASK(p, NEW));
    p = good, p.n = 0;
    REFUSED("0 ids", ASK(p, NEW));
    for (int i = 0; i < 2; i++) {
        p = i ? make_prompt(o, 8, 1, 14, 1) : good;
        if (!i) p.ids[8] ^= 1;
        struct owl_question two[] = {{good.ids, good.n, NEW, made, NULL, 0},
                                     {p.ids, p.n, NEW, made, NULL, 0}};
        REFUSED("prompts that are asked together differ before their video's end",
                owl_answer(o, two, 2, false));
    }
    REFUSED("1961 for its answer: at least one each, 2048", ASK(good, 2048 - good.n + 1));
    REFUSED("and 0 for its answer", ASK(good, 0));
    ok(same_answers(ask(o, &good), first), "a good prompt after them has its answer");
    free(clip.data);
    owl_close(o);
}

/* Frames of any number: each has the scratch memory that it needs. */
static void test_sizes(void)
{
    static const int frames[] = {2, 40, 3, 33};
    struct kern *on = kern_open("cpu", 1, err, sizeof err);
    struct owl *o = open_owl_on(on, "plain", false, NULL);
    for (int i = 0; i < 4; i++) {
        const size_t before = on->size;
        on->peak = 0;
        bool good = look_at(o, frames[i], 1);
        ok(good && on->used == 0 && (on->size == before || on->peak == on->size),
           "%d frames take the %zu bytes of scratch that were planned", frames[i], on->peak);
    }
    owl_close(o);
    kern_close(on);
}

/* ---- LoRA ---------------------------------------------------------------------------------------------- */

enum { MANY = 400 };
struct checkpoint {
    struct safetensors_item item[MANY];
    char name[MANY][160];
    int count;
};

/* Every tensor of the checkpoint that the public code made, to change and write elsewhere. */
static struct checkpoint *read_checkpoint(void)
{
    char path[4096];
    struct checkpoint *c = calloc(1, sizeof *c);
    struct safetensors *file =
        safetensors_open(data_file(path, "owl/wide", "lora.safetensors"), err, sizeof err);
    for (; c->count < file->count; c->count++) {
        const struct safetensors_entry *e = &file->entry[c->count];
        struct tensor t = e->shape;
        t.data = malloc(e->bytes);
        safetensors_read(file, e, t.data, err, sizeof err);
        snprintf(c->name[c->count], sizeof c->name[0], "%s", e->name);
        c->item[c->count] = (struct safetensors_item){c->name[c->count], t};
    }
    safetensors_close(file);
    return c;
}

static void free_checkpoint(struct checkpoint *c)
{
    for (int i = 0; i < c->count; i++) free(c->item[i].t.data);
    free(c);
}

static void keep_adapter(struct checkpoint *c)
{
    int n = 0;
    for (int i = 0; i < c->count; i++)
        if (strstr(c->name[i], ".lora_")) {
            memmove(c->name[n], c->name[i], sizeof c->name[0]);
            c->item[n] = (struct safetensors_item){c->name[n], c->item[i].t};
            n++;
        } else {
            free(c->item[i].t.data);
        }
    c->count = n;
}

static struct tensor *find_item(struct checkpoint *c, const char *part)
{
    for (int i = 0; i < c->count; i++)
        if (strstr(c->name[i], part)) return &c->item[i].t;
    return NULL;
}

static char written[300];
static const char *write_checkpoint(struct checkpoint *c)
{
    snprintf(written, sizeof written, "%s/lora.safetensors", scratch);
    if (!safetensors_write(written, c->item, c->count, NULL, err, sizeof err))
        printf("Bail out! %s\n", err), exit(1);
    return written;
}

static struct answer *ask_adapted(const char *lora, char id[17])
{
    struct owl *o = open_owl_on(k, "wide", false, lora);
    struct prompt p = make_prompt(o, 5, 1, 9, 1);
    look_at(o, 3, 1);
    struct answer *a = ask(o, &p);
    memcpy(id, owl_id(o), 17);
    owl_close(o);
    return a;
}

static void test_lora_reference(void)
{
    char path[4096];
    struct cases c = cases_open("owl/wide");
    struct owl *o = open_owl_on(k, "wide", false, data_file(path, "owl/wide", "lora.safetensors"));
    struct tensor pixels = to_pixels(cases_tensor(&c, "video.0.pixels"));
    owl_look(o, &pixels);
    compare_answer(o, &c, "lora", 0, "wide");
    free(pixels.data);
    owl_close(o);
    cases_close(&c);
}

/* W + B A, by hand, in every projection of a network without an adapter. */
static void merge_by_hand(struct owl *o, struct checkpoint *c)
{
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    for (int n = 0; n < o->c.decoder.layers; n++) {
        struct owl_decoder_layer *l = &o->decoder.layer[n];
        const int64_t width = o->c.decoder.width, hidden = o->c.decoder.hidden;
        const struct tensor to[] = {tensor_rows(&l->qkv, 0, width),
                                    tensor_rows(&l->qkv, width, width),
                                    tensor_rows(&l->qkv, 2 * width, width),
                                    l->o,
                                    tensor_rows(&l->gate_up, 0, hidden),
                                    tensor_rows(&l->gate_up, hidden, hidden),
                                    l->down};
        for (int i = 0; i < 7; i++) {
            char name[100];
            snprintf(name, sizeof name, "layers.%d.%s.lora_A", n, names[i]);
            const struct tensor *a = find_item(c, name);
            *strrchr(name, 'A') = 'B';
            const struct tensor *b = find_item(c, name);
            for (int64_t row = 0; row < to[i].shape[0]; row++)
                for (int64_t col = 0; col < to[i].shape[1]; col++) {
                    double sum = 0;
                    for (int64_t r = 0; r < 32; r++)
                        sum += tensor_get(b, row * 32 + r) * tensor_get(a, r * a->shape[1] + col);
                    ((float *)to[i].data)[row * to[i].shape[1] + col] += (float)sum;
                }
        }
    }
}

static void test_lora(void)
{
    char path[4096], base_id[17], id[17], other_id[17];
    struct answer *without = ask_adapted(NULL, base_id);
    struct answer *full = ask_adapted(data_file(path, "owl/wide", "lora.safetensors"), id);
    ok(memcmp(without, full, sizeof *full) && strcmp(base_id, id),
       "a LoRA checkpoint makes another network, %s of %s", id, base_id);

    struct checkpoint *c = read_checkpoint();
    for (int i = 0; i < c->count; i++) { /* as the older library names them */
        char *layer = strstr(c->name[i], ".base_layer");
        if (layer) memmove(layer, layer + 11, strlen(layer + 11) + 1);
    }
    ok(same_answers(full, ask_adapted(write_checkpoint(c), other_id)), "the same by the older names");
    keep_adapter(c);
    struct answer *adapted = ask_adapted(write_checkpoint(c), other_id);
    ok(memcmp(without, adapted, sizeof *adapted) && strcmp(other_id, id) && strcmp(other_id, base_id),
       "an adapter alone is put on the folder's weights: %s", other_id);
    free(ask_adapted(write_checkpoint(c), id));
    ok(!strcmp(id, other_id), "the same files have the same id");

    struct owl *o = open_owl("wide");
    struct prompt p = make_prompt(o, 5, 1, 9, 1);
    merge_by_hand(o, c);
    look_at(o, 3, 1);
    struct answer *by_hand = ask(o, &p);
    double distance = relative_l2(adapted->logits, by_hand->logits, (size_t)owl_vocabulary(o));
    ok(by_hand->ids[0] == adapted->ids[0] && distance < TOLERANCE, "as by hand: logits off by %.1e",
       distance);
    owl_close(o);
    free(by_hand), free(adapted), free(without);
    free_checkpoint(c);
}

static void lora_refused(struct checkpoint *c, const char *word)
{
    struct model *m = open_folder("wide");
    struct owl *o = owl_open(k, m, false, write_checkpoint(c), err, sizeof err);
    ok(!o && strstr(err, "lora.safetensors") && strstr(err, word), "refused: %s", err);
    owl_close(o);
    kern_clear(k);
    model_close(m);
}

static void test_lora_faults(void)
{
    struct checkpoint *c = read_checkpoint();
    snprintf(c->name[3], sizeof c->name[3], "base_model.model.other");
    lora_refused(c, "and 1 more faults"); /* one is missing, one is none of it */
    keep_adapter(c);
    struct tensor *a = find_item(c, "layers.1.mlp.up_proj.lora_A");
    struct tensor keep = *a;
    a->shape[0] = 16;
    lora_refused(
        c, "layers.1.mlp.up_proj.lora_A.default.weight is BF16 [16,32], must be F32, F16 or BF16 [32,32]");
    *a = keep;
    ((uint16_t *)a->data)[5] = 0x7fc0;
    lora_refused(c, "holds a NaN");
    ((uint16_t *)a->data)[5] = 0;
    free(c->item[--c->count].t.data);
    lora_refused(c, "is missing");
    free_checkpoint(c);
    struct model *m = open_folder("wide");
    ok(!owl_open(k, m, false, "absent.safetensors", err, sizeof err) && strstr(err, "absent.safetensors"),
       "%s", err);
    model_close(m);
}

int main(void)
{
    char here[4096], data[4096 + 16];
    if (!getenv("TESTS_DATA") && getcwd(here, sizeof here)) {
        snprintf(data, sizeof data, "%s/tests/data", here);
        setenv("TESTS_DATA", data, 1);
    }
    k = test_device(0);
    scratch_enter();
    test_reference("plain");
    test_reference("wide");
    test_independence();
    test_together();
    if (!on_cpu(k)) {
        if (kern_compute(k) == DT_F32) test_same_as_cpu();
        kern_close(k);
        ok(scratch_leave(), "cleaned up");
        return done();
    }
    test_class_tokens();
    test_time();
    test_interleaving();
    test_abstractor();
    test_reuse();
    test_cache();
    test_poison();
    test_choice();
    test_refusals();
    test_sizes();
    test_lora_reference();
    test_lora();
    test_lora_faults();
    kern_close(k);
    ok(scratch_leave(), "cleaned up");
    return done();
}
