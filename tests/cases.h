/* cases.h - reading the reference data under tests/data: tensors by name, and the list in cases.json. */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include <stdlib.h>
#include <string.h>

#include "formats/safetensors.h"
#include "tests/tap.h"

struct cases {
    struct safetensors *file;
    json_t *list;
};

/* folder: below tests/data, which $TESTS_DATA may move. Ends the test when it is missing: the data are part
 * of the tests. */
__attribute__((unused)) static char *data_file(char path[4096], const char *folder, const char *name)
{
    const char *root = getenv("TESTS_DATA");
    snprintf(path, 4096, "%s/%s/%s", root ? root : "tests/data", folder, name);
    return path;
}

__attribute__((unused)) static struct cases cases_open(const char *folder)
{
    char path[4096], err[512];
    struct cases c;
    c.list = json_load_file(data_file(path, folder, "cases.json"), 0, NULL);
    c.file = safetensors_open(data_file(path, folder, "cases.safetensors"), err, sizeof err);
    if (!c.list || !c.file) {
        printf("Bail out! no reference data in %s\n", path);
        exit(1);
    }
    return c;
}

__attribute__((unused)) static void cases_close(struct cases *c)
{
    safetensors_close(c->file);
    json_decref(c->list);
}

/* A field of a case; NULL and 0 where it has none. */
__attribute__((unused)) static const char *text_of(json_t *o, const char *field)
{
    return json_string_value(json_object_get(o, field));
}

__attribute__((unused)) static double number_of(json_t *o, const char *field)
{
    return json_number_value(json_object_get(o, field));
}

/* A tensor by printf-made name, as F32; data is malloc'ed. Without one: data NULL. */
__attribute__((format(printf, 2, 3), unused)) static struct tensor cases_tensor(const struct cases *c,
                                                                                const char *fmt, ...)
{
    char name[256], err[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const struct safetensors_entry *e = safetensors_find(c->file, name);
    if (!e) return (struct tensor){0};
    struct tensor raw = e->shape, f32 = e->shape;
    raw.data = malloc(e->bytes + 1);
    f32.dtype = DT_F32;
    f32.data = malloc(tensor_bytes(&f32) + 1);
    if (!safetensors_read(c->file, e, raw.data, err, sizeof err)) {
        printf("Bail out! %s\n", err);
        exit(1);
    }
    tensor_convert(&f32, &raw);
    free(raw.data);
    return f32;
}

#endif
