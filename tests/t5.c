/* The text encoders against transformers' T5EncoderModel and UMT5EncoderModel (reference/make_t5.py), and against
 * their own promises. */
#include "filters/nets/t5.h"

#include <string.h>

#include "tests/device.h"

extern const struct text_encoder_kind t5_encoder, umt5_encoder;

static char err[512];

static struct tensor read_case(const struct safetensors *file, const char *what, int n)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%d", what, n);
    const struct safetensors_entry *e = safetensors_find(file, name);
    struct tensor t = e ? e->shape : (struct tensor){0};
    t.data = malloc(e ? e->bytes : 1);
    if (!e || !safetensors_read(file, e, t.data, err, sizeof err))
        printf("# no %s: %s\n", name, err), exit(1);
    return t;
}

static float *encode(struct text_encoder *t, const struct tensor *ids)
{
    int64_t rows = ids->shape[0];
    float *out = malloc((size_t)(rows * t->width) * sizeof *out);
    struct tensor embeds = tensor_of(DT_F32, out, 2, rows, t->width);
    if (!text_encode(t, &embeds, ids)) out[0] = NAN;
    return out;
}

/* `longest`: of an encoder whose texts are of many lengths; 0: each of these has its own. */
static void test_reference(const char *model, int64_t longest)
{
    char path[256];
    snprintf(path, sizeof path, "tests/data/t5/%s", model);
    struct model *m = model_open(path, err, sizeof err);
    snprintf(path, sizeof path, "tests/data/t5/%s/cases.safetensors", model);
    struct safetensors *cases = safetensors_open(path, err, sizeof err);
    if (!ok(m && cases, "%s opens %s", model, m && cases ? "" : err)) return;
    for (int n = 0; n < 4; n++) {
        struct tensor ids = read_case(cases, "ids", n), want = read_case(cases, "out", n);
        float *got[2];
        double allowed = 0;
        for (int threads = 1; threads <= 2; threads++) {
            struct kern *k = test_device(threads);
            struct text_encoder *t =
                text_encoder_open(k, m, longest ? longest : ids.shape[0], err, sizeof err);
            if (!t) printf("# %s\n", err), exit(1);
            got[threads - 1] = encode(t, &ids);
            allowed = tolerance(k, 1e-5, 3e-2);
            text_encoder_close(t);
            kern_close(k);
        }
        double off = relative_l2(got[0], want.data, (size_t)tensor_count(&want));
        ok(off < allowed, "%s, %d ids: relative error %.1e", model, (int)ids.shape[0],
           off); /* F32 rounding, 2-3 layers */
        ok(!memcmp(got[0], got[1], tensor_bytes(&want)), "%s, %d ids: the same bytes with 1 and 2 threads",
           model, (int)ids.shape[0]);
        free(got[0]), free(got[1]), free(ids.data), free(want.data);
    }
    safetensors_close(cases);
    model_close(m);
}

/* The table of the published configuration, worked out in 80-bit logarithms and written down once. */
static void test_buckets(void)
{
    static const int64_t from[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
    int good = 0;
    for (int64_t d = 0; d < 1000; d++) {
        int bucket = 15;
        while (from[bucket] > d) bucket--;
        good += t5_bucket(-d, 32, 128) == bucket && t5_bucket(d, 32, 128) == bucket + (d > 0 ? 16 : 0);
    }
    ok(good == 1000, "relative position buckets of 1000 distances, both ways");
}

static void test_published(const char *preset, const struct text_encoder_kind *kind, int tensors,
                           int64_t parameters)
{
    struct model *m = model_open(preset, err, sizeof err);
    json_t *config = m ? model_config(m, "text_encoder", err, sizeof err) : NULL;
    struct params list = {0};
    bool declared = config && network_declare(&kind->network, &list, config, "config.json", err, sizeof err);
    ok(declared && list.count == tensors && params_count(&list) == parameters,
       "%s: %d tensors, %lld parameters %s", preset, list.count,
       declared ? (long long)params_count(&list) : 0, declared ? "" : err);
    params_free(&list);
    json_decref(config);
    model_close(m);
}

/* One encoder, opened for 512 ids: lengths that follow each other in any order, alone or several texts at once. */
static void test_lengths(void)
{
    struct kern *k = test_device(1);
    struct model *m = model_open("tests/data/t5/umt5", err, sizeof err);
    struct text_encoder *t = text_encoder_open(k, m, 512, err, sizeof err);
    static const int64_t lengths[] = {512, 3, 40, 1, 512};
    static int32_t many[2 * 512];
    static float alone[2 * 512 * 32], together[2 * 512 * 32];
    if (!ok(t != NULL, "umt5 opens for 512 ids")) return;
    for (int i = 0; i < 2 * 512; i++) many[i] = 7 * i % 512;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const int64_t n = lengths[i];
        struct tensor all = tensor_of(DT_I32, many, 2, 2, n), to = tensor_of(DT_F32, together, 3, 2, n, 32);
        bool good = text_encode(t, &to, &all);
        for (int64_t j = 0; j < 2; j++) {
            struct tensor one = tensor_of(DT_I32, many + j * n, 1, n),
                          y = tensor_of(DT_F32, alone + j * n * 32, 2, n, 32);
            good = good && text_encode(t, &y, &one);
        }
        ok(good && !memcmp(alone, together, sizeof(float) * (size_t)(2 * n * 32)),
           "two texts of %d ids have the bytes that they have alone", (int)n);
    }
    struct tensor long_ids = tensor_of(DT_I32, many, 1, 513), y = tensor_of(DT_F32, alone, 2, 513, 32);
    ok(!text_encode(t, &y, &long_ids) && strstr(kern_error(k), "not I32 [1..512]"), "513 ids: %s",
       kern_error(k));
    kern_clear(k);
    long_ids.shape[0] = y.shape[0] = 0;
    ok(!text_encode(t, &y, &long_ids) && strstr(kern_error(k), "not I32 [1..512]"), "none: %s",
       kern_error(k));
    text_encoder_close(t);
    model_close(m);
    kern_close(k);
}

static void test_refusals(void)
{
    struct model *m = model_open("tests/data/t5/wide", err, sizeof err);
    static const struct {
        const char *field, *value;
    } wrong[] = {{"feed_forward_proj", "\"relu\""}, {"feed_forward_proj", "\"gated-silu\""},
                 {"dense_act_fn", "\"relu\""},      {"num_layers", "0"},
                 {"d_model", "\"wide\""},           {"relative_attention_num_buckets", "30"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct params list = {0};
        json_t *config = model_config(m, "text_encoder", err, sizeof err);
        json_object_set_new(config, wrong[i].field, json_loads(wrong[i].value, JSON_DECODE_ANY, NULL));
        bool refused = !network_declare(&t5_encoder.network, &list, config, "some.json", err, sizeof err);
        ok(refused && strstr(err, "some.json") && (strstr(err, wrong[i].field) || strstr(err, "buckets")),
           "%s %s is refused: %s", wrong[i].field, wrong[i].value, refused ? err : "no");
        params_free(&list);
        json_decref(config);
    }

    struct kern *k = test_device(1);
    struct text_encoder *t = text_encoder_open(k, m, 3, err, sizeof err);
    if (ok(t != NULL, "wide opens for 3 ids")) {
        int32_t ids[3] = {5, 300, 0};
        float out[3 * 24];
        struct tensor x = tensor_of(DT_I32, ids, 1, 3), y = tensor_of(DT_F32, out, 2, 3, 24);
        ok(!text_encode(t, &y, &x) && strstr(kern_error(k), "300"), "an id beyond the vocabulary: %s",
           kern_error(k));
        kern_clear(k);
        ids[1] = -1;
        ok(!text_encode(t, &y, &x), "a negative id: %s", kern_error(k));
        kern_clear(k);
        x.shape[0] = 2;
        ok(!text_encode(t, &y, &x), "another length: %s", kern_error(k));
        kern_clear(k);
        x.shape[0] = 3;
        ids[1] = 299;
        ok(text_encode(t, &y, &x), "and a good record after them");

        int32_t many[5 * 3];
        float together[5 * 3 * 24];
        int same = 0;
        for (int i = 0; i < 15; i++) many[i] = 7 * i % 300;
        struct tensor all = tensor_of(DT_I32, many, 2, 5, 3),
                      several = tensor_of(DT_F32, together, 3, 5, 3, 24);
        bool encoded = text_encode(t, &several, &all);
        for (int i = 0; i < 5; i++) {
            x.data = many + 3 * i;
            same += text_encode(t, &y, &x) && !memcmp(out, together + i * 3 * 24, sizeof out);
        }
        ok(encoded && same == 5, "five at once: %d have the bytes that they have alone", same);
    }
    text_encoder_close(t);
    kern_close(k);
    model_close(m);
}

int main(void)
{
    test_buckets();
    test_reference("square", 0);
    test_reference("wide", 0);
    test_reference("umt5", 512);
    test_reference("umt5_wide", 600);
    test_lengths();
    test_published("random:cogvideox-5b", &t5_encoder, 219, 4762310656);
    test_published("random:wan-1.3b", &umt5_encoder, 242, 5680910336);
    test_refusals();
    return done();
}
