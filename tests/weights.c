#include "filters/nets/weights.h"

#include <omp.h>
#include <sys/stat.h>

#include "tests/scratch.h"
#include "tests/tap.h"

static char err[1024];
static struct kern *k;

/* A network of five parameters: a matrix of several pieces, a convolution, a scalar, an empty one, one not
 * loaded. */
static struct tensor matrix, conv, scalar, empty;
enum { FEW = 700, MANY = 9000, COLS = 1200 }; /* two pieces of a tensor are under way, or more than all */
static int64_t rows = FEW;

static struct params network(void)
{
    struct params list = {0};
    param_add(&list, &matrix, shape_of(2, rows, COLS), 0, 0.5, "layer.%d.weight", 3);
    param_add(&list, &conv, shape_of(5, 2, 3, 1, 2, 2), 0, 1, "conv.weight")->channels_last = true;
    param_add(&list, &scalar, shape_of(0), 2, 0, "scalar");
    param_add(&list, &empty, shape_of(2, 0, 7), 0, 1, "empty");
    param_add(&list, NULL, shape_of(1, 4), 1, 0.25, "unused");
    return list;
}

/* Values that every 16-bit type holds. */
static float value(int64_t i)
{
    return (float)(i * 7919 % 255 - 127) / 64;
}

static struct safetensors_item item(const char *name, enum dtype d, struct tensor shape)
{
    struct tensor t = shape, f = shape;
    int64_t n = tensor_count(&shape);
    t.dtype = d;
    t.data = malloc((size_t)n * dtype_size(d) + 1);
    f.data = malloc((size_t)n * 4 + 1);
    for (int64_t i = 0; i < n; i++) ((float *)f.data)[i] = value(i);
    tensor_convert(&t, &f);
    free(f.data);
    return (struct safetensors_item){name, t};
}

enum { ITEMS = 5 };
static struct safetensors_item items[ITEMS + 1];

static void make_items(enum dtype d)
{
    items[0] = item("layer.3.weight", d, shape_of(2, rows, COLS));
    items[1] = item("conv.weight", d, shape_of(5, 2, 3, 1, 2, 2));
    items[2] = item("scalar", d, shape_of(0));
    items[3] = item("empty", d, shape_of(2, 0, 7));
    items[4] = item("unused", d, shape_of(1, 4));
    items[5] = item("extra", d, shape_of(1, 2));
}

static void free_items(void)
{
    for (int i = 0; i <= ITEMS; i++) free(items[i].t.data);
}

static void put_model(const char *folder, int from, int count)
{
    char path[200];
    snprintf(path, sizeof path, "%s/net", folder);
    mkdir(folder, 0777);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/net/config.json", folder);
    put_text(path, "{\"b\":1,\"a\":2}");
    snprintf(path, sizeof path, "%s/net/model.safetensors", folder);
    if (!safetensors_write(path, items + from, count, NULL, err, sizeof err)) puts(err), exit(1);
}

static bool load(const char *name, const char *const *alias, char id[17])
{
    struct model *m = model_open(name, err, sizeof err);
    struct params list = network();
    kern_clear(k);
    bool good = m && weights_load(k, &list, m, "net", alias, id, err, sizeof err);
    params_free(&list);
    model_close(m);
    return good;
}

static bool refuses(const char *name, const char *because)
{
    char id[17];
    return !load(name, NULL, id) && strstr(err, because);
}

static float *download(const struct tensor *t)
{
    float *host = malloc((size_t)tensor_count(t) * 4 + 1);
    struct tensor h = *t;
    h.data = host;
    kern_download(k, &h, t);
    return host;
}

static bool holds_values(void)
{
    float *m = download(&matrix), *c = download(&conv), *s = download(&scalar);
    bool good = *s == value(0);
    for (int64_t i = 0; i < rows * COLS; i++) good &= m[i] == value(i);
    for (int o = 0; o < 2; o++) /* stored [2,3,1,2,2], wanted [2,1,2,2,3] */
        for (int i = 0; i < 3; i++)
            for (int tap = 0; tap < 4; tap++)
                good &= c[(o * 4 + tap) * 3 + i] == value((o * 3 + i) * 4 + tap);
    free(m);
    free(c);
    free(s);
    return good && tensor_is(&conv, DT_F32, 5, 2, 1, 2, 2, 3) && tensor_is(&matrix, DT_F32, 2, rows, COLS) &&
           tensor_is(&empty, DT_F32, 2, 0, 7);
}

static void there(void)
{
    static const enum dtype dtypes[] = {DT_F32, DT_F16, DT_BF16};
    char id[3][17];
    for (int i = 0; i < 3; i++) {
        rows = dtypes[i] == DT_BF16 ? MANY : FEW;
        make_items(dtypes[i]);
        put_model("plain", 0, ITEMS);
        ok(load("plain", NULL, id[i]) && holds_values(),
           "%s weights come to the device, convolutions channels last: %s", dtype_name(dtypes[i]), err);
        free_items();
    }
    ok(strlen(id[0]) == 16 && strcmp(id[0], id[1]) && strcmp(id[1], id[2]) && strcmp(id[0], id[2]),
       "other bytes are another model: %s, %s, %s", id[0], id[1], id[2]);
}

static void identity(void)
{
    char first[17], again[17];
    rows = FEW;
    make_items(DT_BF16);
    put_model("whole", 0, ITEMS);
    load("whole", NULL, first);
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    ok(load("whole", NULL, again) && !strcmp(first, again), "threads do not change the id %s", first);
    omp_set_num_threads(threads);

    put_model("sharded", 0, 2);
    rename("sharded/net/model.safetensors", "sharded/net/a.safetensors");
    put_model("sharded", 2, ITEMS - 2);
    rename("sharded/net/model.safetensors", "sharded/net/b.safetensors");
    put_text("sharded/net/model.safetensors.index.json",
             "{\"metadata\":{\"total_size\":0},\"weight_map\":{\"layer.3.weight\":\"a.safetensors\",\"conv."
             "weight\":"
             "\"a.safetensors\",\"scalar\":\"b.safetensors\",\"empty\":\"b.safetensors\",\"unused\":\"b."
             "safetensors\"}}");
    ok(load("sharded", NULL, again) && !strcmp(first, again) && holds_values(), "nor do shards: %s", err);

    put_text("whole/net/config.json", "{\"a\": 2,\n \"b\": 1}");
    ok(load("whole", NULL, again) && !strcmp(first, again), "nor white space and order in the config");
    put_text("whole/net/config.json", "{\"a\":2,\"b\":3}");
    ok(load("whole", NULL, again) && strcmp(first, again), "the config's values do");
    put_model("whole", 0, ITEMS);
    ((uint16_t *)items[4].t.data)[3] ^= 1;
    put_model("whole", 0, ITEMS);
    ok(load("whole", NULL, again) && strcmp(first, again),
       "and one bit of a weight, even of one that is not loaded");
    free_items();
}

static void faults(void)
{
    static const char *const alias[] = {"other", "extra", NULL};
    char id[17];
    make_items(DT_F32);
    put_model("bad", 0, ITEMS + 1);
    ok(refuses("bad", "net: tensor extra is none of this network's"), "%s", err);
    ok(load("bad", alias, id), "an alias may be there");
    put_model("bad", 0, ITEMS);
    ok(load("bad", alias, id), "or not");
    put_model("bad", 1, ITEMS - 1);
    ok(refuses("bad", "net: tensor layer.3.weight is missing"), "%s", err);
    put_model("bad", 2, ITEMS - 1);
    ok(refuses("bad", "net: tensor conv.weight is missing, and 2 more faults"), "%s", err);

    struct safetensors_item keep = items[4];
    items[4].t.shape[0] = 3;
    put_model("bad", 0, ITEMS);
    ok(refuses("bad", "net: tensor unused is F32 [3], must be F32, F16 or BF16 [4]"), "%s", err);
    items[4].t = tensor_of(DT_F32, keep.t.data, 2, 2, 2);
    put_model("bad", 0, ITEMS);
    ok(refuses("bad", "is F32 [2,2]"), "%s", err);
    items[4].t = tensor_of(DT_I32, keep.t.data, 1, 4);
    put_model("bad", 0, ITEMS);
    ok(refuses("bad", "is I32 [4], must be"), "%s", err);
    items[4] = keep;
    unlink("bad/net/model.safetensors");
    ok(refuses("bad", "bad/net: no weights"), "%s", err);
    unlink("bad/net/config.json");
    ok(refuses("bad", "bad/net/config.json: No such file"), "%s", err);

    /* the last element of a tensor of many pieces, then of one that is not loaded */
    ((float *)items[0].t.data)[rows * COLS - 1] = -INFINITY;
    put_model("bad", 0, ITEMS);
    ok(refuses("bad", "tensor layer.3.weight holds a NaN or an infinity"), "%s", err);
    free_items();
    static const enum dtype dtypes[] = {DT_F32, DT_F16, DT_BF16};
    for (int i = 0; i < 3; i++) {
        make_items(dtypes[i]);
        float nan = NAN;
        struct tensor last = tensor_rows(&items[4].t, 3, 1), source = tensor_of(DT_F32, &nan, 1, 1);
        tensor_convert(&last, &source);
        put_model("bad", 0, ITEMS);
        ok(refuses("bad", "tensor unused holds a NaN"), "%s: %s", dtype_name(dtypes[i]), err);
        free_items();
    }
}

static void random_weights(void)
{
    char id[17], again[17], other[17];
    mkdir("preset", 0777);
    mkdir("preset/net", 0777);
    put_text("preset/net/config.json", "{}");
    ok(load("random:./preset:7", NULL, id), "a model is made up: %s", err);
    float *first = download(&matrix), *c = download(&conv), *s = download(&scalar), stored[24];
    ok(load("random:./preset:7", NULL, again), "and again");
    float *second = download(&matrix);
    ok(!strcmp(id, again) && !memcmp(first, second, (size_t)rows * COLS * 4),
       "the same seed gives the same model %s", id);
    free(second);
    load("random:./preset:8", NULL, other);
    second = download(&matrix);
    ok(strcmp(id, other) && memcmp(first, second, (size_t)rows * COLS * 4), "another seed another: %s",
       other);

    struct params list = network();
    weights_random(&list.param[0], 7, second);
    ok(!memcmp(first, second, (size_t)rows * COLS * 4), "it holds what weights_random() says");
    weights_random(&list.param[1], 7, stored);
    bool same = true;
    for (int i = 0; i < 24; i++) same &= c[(i / 12 * 4 + i % 4) * 3 + i / 4 % 3] == stored[i];
    ok(same, "also where channels go last");
    ok(*s == 2, "a deviation of 0 gives the mean");
    double mean = 0, square = 0;
    same = true;
    for (int64_t i = 0; i < rows * COLS; i++) {
        mean += first[i];
        square += (double)first[i] * first[i];
        same &= f32_from_bf16(bf16_from_f32(first[i])) == first[i];
    }
    mean /= rows * COLS, square /= rows * COLS;
    ok(fabs(mean) < 0.003 && fabs(square - 0.25) < 0.003, "mean %g, variance %g", mean, square);
    ok(same, "BF16 holds every value");
    ok(params_count(&list) == rows * COLS + 24 + 1 + 0 + 4, "the parameters are counted");
    ok(!strcmp(list.param[0].name, "layer.3.weight"), "names are formatted");
    params_free(&list);
    free(first);
    free(second);
    free(c);
    free(s);
}

/* Rows that are stored head by head as q, k, v, a piece of them ending anywhere; a bias, too, and made-up
 * ones. */
static void parted(void)
{
    enum { HEADS = 3, DEPTH = 250, ALL = 3 * HEADS * DEPTH };
    struct tensor w, b;
    struct params list = {0};
    param_swap(param_add(&list, &w, shape_of(2, ALL, COLS), 0, 1, "w"), HEADS, 3);
    param_swap(param_add(&list, &b, shape_of(1, ALL), 0, 1, "b"), HEADS, 3);
    items[0] = item("w", DT_F32, shape_of(2, ALL, COLS));
    items[1] = item("b", DT_BF16, shape_of(1, ALL));
    put_model("heads", 0, 2);
    for (int made_up = 0; made_up < 2; made_up++) {
        struct model *m = model_open(made_up ? "random:./heads:3" : "heads", err, sizeof err);
        kern_clear(k);
        bool good = weights_load(k, &list, m, "net", NULL, NULL, err, sizeof err);
        float *got = download(&w), *bias = download(&b), *stored = malloc(sizeof(float[ALL]) * COLS),
              *stored_bias = malloc(sizeof(float[ALL]));
        for (int64_t i = 0; i < ALL * COLS; i++) stored[i] = value(i);
        for (int64_t i = 0; i < ALL; i++) stored_bias[i] = value(i);
        if (made_up)
            weights_random(&list.param[0], 3, stored), weights_random(&list.param[1], 3, stored_bias);
        for (int64_t r = 0; r < ALL; r++) {
            int64_t to = (r / DEPTH % 3 * HEADS + r / DEPTH / 3) * DEPTH + r % DEPTH;
            good = good && bias[to] == stored_bias[r] &&
                   !memcmp(got + to * COLS, stored + r * COLS, COLS * sizeof *got);
        }
        ok(good, "q, k and v of each head are parted, %s", made_up ? "made up" : "from a file");
        free(got), free(bias), free(stored), free(stored_bias);
        model_close(m);
    }
    for (int i = 0; i < 2; i++) free(items[i].t.data);
    params_free(&list);
}

/* A model at the top of its folder, and weights in a file elsewhere. */
static void elsewhere(void)
{
    static const char *const some[] = {"layer.*.other", NULL}, *const all[] = {"extra", "layer.*.other",
                                                                               NULL};
    char id[17], other[17];
    struct params list = network();
    rows = FEW;
    make_items(DT_F32);
    mkdir("top", 0777);
    put_text("top/config.json", "{\"a\": 1}");
    bool good = safetensors_write("top/model.safetensors", items, ITEMS, NULL, err, sizeof err) &&
                safetensors_write("top/more.safetensors", items, ITEMS + 1, NULL, err, sizeof err);
    struct model *m = model_open("top", err, sizeof err);
    kern_clear(k);
    good = good && weights_load(k, &list, m, "", NULL, id, err, sizeof err);
    ok(good && holds_values(), "a part may be the folder itself");
    ok(!weights_load_file(k, &list, m, "", "top/more.safetensors", some, id, err, sizeof err) &&
           strstr(err, "top/more.safetensors: tensor extra is none of this network's"),
       "%s", err);
    good = weights_load_file(k, &list, m, "", "top/more.safetensors", all, other, err, sizeof err);
    ok(good && holds_values() && !strcmp(id, other), "weights may be in a file elsewhere");
    put_text("top/config.json", "{\"a\": 2}");
    good = weights_load_file(k, &list, m, "", "top/more.safetensors", all, other, err, sizeof err);
    ok(good && strcmp(id, other), "the config is the model's all the same");
    model_close(m);
    m = model_open("random:./top", err, sizeof err);
    good = weights_load_file(k, &list, m, "", "top/more.safetensors", all, id, err, sizeof err);
    ok(good && holds_values() && !strcmp(id, other), "also of a model that is made up otherwise");
    items[5].name = "layer.77.other";
    safetensors_write("top/more.safetensors", items, ITEMS + 1, NULL, err, sizeof err);
    ok(weights_load_file(k, &list, m, "", "top/more.safetensors", some, id, err, sizeof err),
       "an alias may be a pattern");
    ok(!weights_load_file(k, &list, m, "", "top/absent", some, id, err, sizeof err) &&
           strstr(err, "top/absent"),
       "%s", err);
    model_close(m);
    free_items();
    params_free(&list);
}

static void too_large(void)
{
    struct params list = {0};
    struct tensor slot;
    struct model *m = model_open("random:./preset", err, sizeof err);
    for (int i = 0; i < 1000; i++) param_add(&list, &slot, shape_of(2, 1 << 20, 1 << 16), 0, 1, "big.%d", i);
    kern_clear(k);
    ok(!weights_load(k, &list, m, "net", NULL, NULL, err, sizeof err) && strstr(err, "the weights of net") &&
           strstr(err, "MiB needed"),
       "what no machine holds is refused before it is begun: %s", err);
    params_free(&list);
    model_close(m);

    char name[200] = "";
    memset(name, 'n', sizeof name - 1);
    param_add(&list, &slot, shape_of(1, 1), 0, 1, "%s", name);
    m = model_open("random:./preset", err, sizeof err);
    kern_clear(k);
    ok(!weights_load(k, &list, m, "net", NULL, NULL, err, sizeof err),
       "a name that was cut is not looked for: %s", err);
    params_free(&list);
    model_close(m);
}

/* Some rows of the matrix, from a model's file or made up, against those that were loaded. */
static void some_rows(const char *name, const char *what)
{
    static const int32_t index[] = {699, 0, 3, 0, 3, 3};
    enum { N = sizeof index / sizeof *index };
    struct params list = network();
    struct model *m = model_open(name, err, sizeof err);
    char id[17];
    kern_clear(k);
    struct weight_rows *r =
        load(name, NULL, id) && m ? weight_rows_open(m, "net", &list.param[0], err, sizeof err) : NULL;
    struct tensor to = kern_alloc(k, DT_F32, 2, N, COLS);
    kern_plan_begin(k);
    if (r) weight_rows_read(k, &to, r, index);
    kern_reserve(k, kern_plan_end(k));
    if (r) weight_rows_read(k, &to, r, index);
    float *got = download(&to), *all = download(&matrix);
    bool same = r && kern_ok(k);
    for (int i = 0; i < N; i++) same &= !memcmp(got + i * COLS, all + index[i] * COLS, COLS * sizeof *got);
    ok(same, "rows of a table %s, read when they are asked for, are those that would be loaded: %s", what,
       err);
    if (!m->random && r) {
        truncate("rows/net/model.safetensors", 4096);
        weight_rows_read(k, &to, r, index);
        ok(!kern_ok(k) && strstr(kern_error(k), "rows/net/model.safetensors"),
           "a file that has been cut meanwhile is refused: %s", kern_error(k));
        kern_clear(k);
    }
    weight_rows_close(r);
#ifndef __SANITIZE_ADDRESS__ /* which ends the program instead */
    if (m->random) {
        list.param[0].shape.shape[0] = (int64_t)1 << 45;
        r = weight_rows_open(m, "net", &list.param[0], err, sizeof err);
        weight_rows_read(k, &to, r, index);
        ok(!kern_ok(k) && strstr(kern_error(k), "out of memory for 6 rows"),
           "no memory to tell the different rows: %s", kern_error(k));
        kern_clear(k);
        weight_rows_close(r);
    }
#endif
    params_free(&list);
    model_close(m);
    free(got), free(all);
}

static void tables(void)
{
    rows = FEW;
    for (int i = 0; i < 2; i++) {
        make_items(i ? DT_BF16 : DT_F32);
        put_model("rows", 0, ITEMS);
        some_rows("rows", i ? "of a BF16 file" : "of an F32 file");
        free_items();
    }
    some_rows("random:./preset:7", "that is made up");
    struct params list = network();
    struct model *m = model_open("whole", err, sizeof err);
    list.param[0].shape.shape[0]++;
    ok(m && !weight_rows_open(m, "net", &list.param[0], err, sizeof err) && strstr(err, "layer.3.weight"),
       "another shape is refused: %s", err);
    params_free(&list);
    model_close(m);
}

int main(void)
{
    scratch_enter();
    k = kern_open("cpu", 0, err, sizeof err);
    if (!k) return puts(err), 1;
    there();
    identity();
    faults();
    random_weights();
    parted();
    elsewhere();
    too_large();
    tables();
    kern_close(k);
    ok(scratch_leave(), "cleaned up");
    return done();
}
