#include <stdlib.h>
#include <string.h>

#include "filters/nets/weights.h"

struct weight_rows {
    struct param param;
    uint64_t seed;                     /* of a random: model, */
    struct model_weights *files;       /* which has none */
    const struct model_tensor *tensor; /* in files */
};

struct weight_rows *weight_rows_open(const struct model *m, const char *part, const struct param *p,
                                     char *err, size_t errlen)
{
    struct weight_rows *r = calloc(1, sizeof *r);
    if (!r) {
        fail(err, errlen, "out of memory");
        return NULL;
    }
    r->param = *p;
    r->seed = m->seed;
    if (m->random) return r;
    r->files = model_weights_open(m, part, err, errlen);
    r->tensor = r->files ? model_weights_find(r->files, p->name) : NULL;
    if (r->tensor && tensor_same_shape(&r->tensor->entry->shape, &p->shape)) return r;
    if (r->files) fail(err, errlen, "%s: tensor %s is not what it was", part, p->name);
    weight_rows_close(r);
    return NULL;
}

void weight_rows_close(struct weight_rows *r)
{
    if (r) model_weights_close(r->files);
    free(r);
}

static void make_up(struct kern *k, struct tensor *to, const struct weight_rows *r, const int32_t *index)
{
    struct random_normal draws = weights_draws(&r->param, r->seed);
    for (int64_t i = 0; i < to->shape[0]; i++) {
        struct tensor row = tensor_rows(to, i, 1);
        draws.first = (uint64_t)(index[i] * to->shape[1]);
        random_normal(k, &row, &draws);
    }
}

static bool read_rows(const struct weight_rows *r, struct tensor *rows, const int32_t *index, char *err,
                      size_t errlen)
{
    const size_t bytes = (size_t)rows->shape[1] * dtype_size(rows->dtype);
    for (int64_t i = 0; i < rows->shape[0]; i++)
        if (!safetensors_read_part(r->tensor->file, r->tensor->entry, (size_t)index[i] * bytes,
                                   (char *)rows->data + (size_t)i * bytes, bytes, err, errlen))
            return false;
    return true;
}

/* Row index[i] of each i, on the device. */
static void fetch(struct kern *k, struct tensor *to, const struct weight_rows *r, const int32_t *index)
{
    char err[512];
    if (!r->files) {
        make_up(k, to, r, index);
        return;
    }
    struct tensor rows = tensor_of(r->tensor->entry->shape.dtype, NULL, 2, to->shape[0], to->shape[1]);
    rows.data = malloc(tensor_bytes(&rows) + 1);
    if (!rows.data)
        kern_fail(k, "out of memory for %lld rows of %s", (long long)rows.shape[0], r->param.name);
    else if (read_rows(r, &rows, index, err, sizeof err))
        kern_upload(k, to, &rows);
    else
        kern_fail(k, "%s", err);
    free(rows.data);
}

/* The different ones of n numbers, in the order in which they first appear, and where each number stands among them.
 * How many there are, or -1 without memory. */
static int64_t different(int32_t *each, int32_t *place, const int32_t *index, int64_t n, int64_t below)
{
    int32_t *found = calloc((size_t)below, sizeof *found), count = 0; /* from 1 on */
    for (int64_t i = 0; found && i < n; i++) {
        int32_t *at = &found[index[i]];
        if (!*at) each[count] = index[i], *at = ++count;
        place[i] = *at - 1;
    }
    free(found);
    return found ? count : -1;
}

/* Most of a text's ids are padding, and its words come again: each row is read once. */
void weight_rows_read(struct kern *k, struct tensor *to, const struct weight_rows *r, const int32_t *index)
{
    const int64_t n = to->shape[0];
    const size_t mark = kern_mark(k);
    struct tensor table = kern_tensor(k, to->dtype, 2, n, to->shape[1]), at = kern_tensor(k, DT_I32, 1, n);
    if (!kern_planning(k) && kern_ok(k)) {
        int32_t *each = malloc(2 * (size_t)n * sizeof *each + 1), *place = each ? each + n : NULL;
        const int64_t count = each ? different(each, place, index, n, r->param.shape.shape[0]) : -1;
        if (count < 0) {
            kern_fail(k, "out of memory for %lld rows of %s", (long long)n, r->param.name);
        } else {
            struct tensor few = tensor_rows(&table, 0, count), places = tensor_of(DT_I32, place, 1, n);
            fetch(k, &few, r, each);
            kern_upload(k, &at, &places);
            embedding_forward(k, to, &few, &at);
        }
        free(each);
    }
    kern_release(k, mark);
}
