#include "filters/lib/describe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "filters/lib/tensors.h"
#include "formats/plain.h"

static void put_name(FILE *out, const char *name, int width)
{
    int n = (int)strlen(name);
    put_plain(out, name);
    fprintf(out, "%*s ", width > n ? width - n : 0, "");
}

void describe_tensor(FILE *out, const char *name, int width, const struct tensor *t, bool values)
{
    char is[160];
    put_name(out, name, width);
    fputs(tensor_describe(is, sizeof is, t), out);
    if (values && tensor_count(t)) {
        struct tensor_range v = tensor_range(t);
        fprintf(out, "  min %.4g max %.4g mean %.4g", v.low, v.high, v.mean);
    }
    putc('\n', out);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *describe_tensor_json(const struct tensor *t, bool values)
{
    json_t *shape = json_array();
    for (int a = 0; a < t->rank; a++) json_array_append_new(shape, json_integer(t->shape[a]));
    json_t *entry = json_pack("{s:s, s:o}", "dtype", dtype_name(t->dtype), "shape", shape);
    if (values && tensor_count(t)) {
        struct tensor_range v = tensor_range(t);
        json_object_set_new(entry, "min", number(v.low));
        json_object_set_new(entry, "max", number(v.high));
        json_object_set_new(entry, "mean", number(v.mean));
    }
    return entry;
}

void describe_record(FILE *out, struct record *f, int64_t position, bool values)
{
    enum { WIDTH = 16 };
    const char *field;
    json_t *value;
    fprintf(out, "%-6lld ", (long long)position);
    put_plain(out, record_key(f));
    putc('\n', out);
    for (int i = 0; i < f->count; i++) {
        fputs("       ", out);
        describe_tensor(out, f->tensor[i].name, WIDTH, &f->tensor[i].t, values);
    }
    json_object_foreach (record_meta(f), field, value) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        fputs("       ", out);
        put_name(out, field, WIDTH);
        put_plain(out, text ? text : "");
        putc('\n', out);
        free(text);
    }
}

void describe_begin(FILE *out, const json_t *begin)
{
    char *settings = json_dumps(json_object_get(begin, "settings"), JSON_COMPACT);
    fputs("begin  ", out);
    put_plain(out, json_string_value(json_object_get(begin, "program")));
    putc(' ', out);
    put_plain(out, json_string_value(json_object_get(begin, "version")));
    putc(' ', out);
    put_plain(out, settings ? settings : "");
    putc('\n', out);
    free(settings);
}
