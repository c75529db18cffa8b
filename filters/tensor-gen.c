/* tensor-gen - make test tensors.
 *
 *   stdin   nothing, or with --add records
 *   stdout  records with one tensor, or the same records with one more */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/filter.h"
#include "filters/lib/rng.h"

static const char help[] =
    "tensor-gen - make test tensors\n"
    "usage: tensor-gen --name NAME --shape N,N,.. [options] >records\n"
    "       tensor-gen --add --name NAME --shape N,N,.. [options] <records >records\n"
    "      --name NAME      of the tensor                             required\n"
    "      --shape N,N,..   its shape; an empty text makes a scalar   required\n"
    "      --dtype TYPE     u8 i32 i64 f16 bf16 f32 f64               [f32]\n"
    "      --fill KIND      normal | uniform in [0,1) | ramp | zero   [normal]\n"
    "                       a ramp rises from 0 to 1 over the tensor; u8 takes 255 times the value\n"
    "      --scale X        multiplies the values                     [1]\n"
    "      --count N        how many records                          [1]\n"
    "      --key TEXT       their key; with several, TEXT0, TEXT1 ..  [gen]\n"
    "      --meta NAME=JSON a meta field (text when it is no JSON); may be repeated\n"
    "      --add            add the tensor to the records of stdin    [off]\n"
    "COMMON\n"
    "values  depend on the seed, the key and the name alone\n"
    "exit    0 done, 1 something failed, 2 wrong usage\n"
    "e.g.    tensor-gen --name video --dtype u8 --fill ramp --shape 9,64,96,3 | vae-encode -m random:tiny | show\n"
    "see also: tensor-eq, show\n";

static const char *name, *shape, *type = "f32", *fill = "normal", *key;
static int64_t count = -1;
static double scale = 1;
static bool adding;
static struct text_list fields;

static const struct option_spec options[] = {
    {.name = "name", .kind = OPT_TEXT, .dest = &name, .setting = true},
    {.name = "shape", .kind = OPT_TEXT, .dest = &shape, .setting = true},
    {.name = "dtype",
     .kind = OPT_CHOICE,
     .dest = &type,
     .choices = "u8|i32|i64|f16|bf16|f32|f64",
     .setting = true},
    {.name = "fill",
     .kind = OPT_CHOICE,
     .dest = &fill,
     .choices = "normal|uniform|ramp|zero",
     .setting = true},
    {.name = "scale", .kind = OPT_REAL, .dest = &scale, .low = -1e38, .high = 1e38, .setting = true},
    {.name = "count", .kind = OPT_INT, .dest = &count, .high = 1e12},
    {.name = "key", .kind = OPT_TEXT, .dest = &key},
    {.name = "meta", .kind = OPT_LIST, .dest = &fields},
    {.name = "add", .kind = OPT_FLAG, .dest = &adding},
    {0}};

static void parse_shape(int64_t *dims)
{
    char *end = "";
    for (const char *p = shape; *p || *end; p = end + (*end == ',')) {
        if (dims[0] == TENSOR_MAX_RANK) usage_error("--shape has more than %d dimensions", TENSOR_MAX_RANK);
        errno = 0;
        dims[++dims[0]] = strtoll(p, &end, 10);
        if (end == p || (*end && *end != ',') || dims[dims[0]] < 0 || errno)
            usage_error("--shape `%s` is not a list of sizes", shape);
    }
}

/* false with the reason in f->error */
static bool add_tensor(struct record *f, enum dtype d, const int64_t *dims)
{
    struct tensor *t = record_add_shape(f, name, d, dims);
    if (!t) return false;
    int64_t n = tensor_count(t);
    float *v = calloc((size_t)n + 1, sizeof *v);
    if (!v) die("no memory for %lld values", (long long)n);
    struct rng r = rng_make((uint64_t)filter.seed, record_key(f), name, 0);
    if (!strcmp(fill, "normal")) rng_normal(&r, v, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        if (!strcmp(fill, "uniform")) v[i] = (float)rng_uniform(&r, (uint64_t)i);
        if (!strcmp(fill, "ramp")) v[i] = (float)i / (float)(n > 1 ? n - 1 : 1);
        v[i] = (float)(scale * v[i]);
        if (d == DT_U8) v[i] = v[i] * 255 + 0.5f;
    }
    struct tensor made = tensor_of(DT_F32, v, 1, n);
    tensor_convert(t, &made);
    free(v);
    return true;
}

static void parse_fields(json_t *meta)
{
    for (int i = 0; i < fields.count; i++) {
        const char *item = fields.item[i], *equals = strchr(item, '=');
        if (!equals || equals == item) usage_error("--meta wants NAME=JSON, not `%s`", item);
        json_t *value = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
        if (!value) value = json_string(equals + 1);
        if (json_object_setn_new(meta, item, (size_t)(equals - item), value))
            usage_error("--meta %s is not UTF-8", item);
    }
}

int main(int argc, char **argv)
{
    struct record f = RECORD_INIT;
    int64_t dims[1 + TENSOR_MAX_RANK] = {0};
    char upper[8] = "";
    enum dtype d;

    filter_start(argc, argv, help, options, FILTER_RECORDS_OUT | FILTER_SEED);
    if (!name) usage_error("--name is required");
    if (!shape) usage_error("--shape is required");
    if (adding && (key || count >= 0))
        usage_error("the records of --add have their keys: neither --key nor --count");
    if (!key) key = "gen";
    if (count < 0) count = 1;
    if (!*key) usage_error("--key is empty");
    parse_shape(dims);
    for (int i = 0; type[i]; i++) upper[i] = (char)toupper(type[i]);
    dtype_parse(&d, upper);
    json_t *meta = json_object();
    parse_fields(meta);
    filter_checked();

    for (int64_t i = 0; adding ? filter_next(&f) : i < count; i++) {
        if (!adding) {
            json_t *made = count > 1 ? json_sprintf("%s%lld", key, (long long)i) : json_string(key);
            if (!made) usage_error("--key is not UTF-8");
            record_new(&f, json_string_value(made));
            json_decref(made);
        }
        json_object_update(record_meta(&f), meta);
        if (add_tensor(&f, d, dims))
            filter_emit(&f);
        else
            filter_fail(&f, "%s", f.error);
    }
    json_decref(meta);
    record_free(&f);
    return filter_finish();
}
