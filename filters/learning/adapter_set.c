/* The several adapters of adapter.h as one hook onto a network's linears. */
#include <stdlib.h>

#include "filters/learning/adapter.h"
#include "formats/error.h"

enum { ALIGNED = 128 }; /* elements: where each adapter's part of what is saved may begin */

/* Elements that adapter `item` saves at this linear; 0: it is no target of its. */
static int64_t saved_by(const struct adapter_set *s, int item, int linear, const struct token_rows *rows)
{
    const struct adapter *a = s->item[item];
    return a->module_of[linear] < 0 ? 0 : a->kind->saved_count(a, rows);
}

/* Where adapter `item`'s part begins; with item = count, what all of them take. */
static int64_t saved_before(const struct adapter_set *s, int item, int linear, const struct token_rows *rows)
{
    int64_t at = 0, end = 0;
    for (int i = 0; i <= item && i < s->count; i++) {
        int64_t n = saved_by(s, i, linear, rows);
        at = (end + ALIGNED - 1) / ALIGNED * ALIGNED;
        if (n) end = at + n;
    }
    return item < s->count ? at : end;
}

static int64_t saved_count(const void *context, int linear, const struct token_rows *rows)
{
    const struct adapter_set *s = context;
    return saved_before(s, s->count, linear, rows);
}

/* The calls of one adapter, of those linears that are its targets. */
static int calls_of(const struct adapter_set *s, int item, const struct linear_call *c, int n,
                    struct adapter_call *call, struct tensor *saved)
{
    int calls = 0;
    for (int i = 0; i < n; i++) {
        int64_t count = saved_by(s, item, c[i].linear, c[i].rows);
        if (!count) continue;
        saved[calls] = tensor_rows(c[i].saved, saved_before(s, item, c[i].linear, c[i].rows), count);
        call[calls] = (struct adapter_call){.module = s->item[item]->module_of[c[i].linear],
                                            .rows = c[i].rows,
                                            .x = c[i].x,
                                            .dy = c[i].dy,
                                            .y = c[i].y,
                                            .dx = c[i].dx,
                                            .saved = &saved[calls]};
        calls++;
    }
    return calls;
}

static void call_each(const struct adapter_set *s, const struct linear_call *c, int n, bool back)
{
    for (int a = 0; a < s->count; a++) {
        struct adapter_call call[LINEAR_CALLS];
        struct tensor saved[LINEAR_CALLS];
        const int calls = calls_of(s, a, c, n, call, saved);
        if (calls) (back ? s->item[a]->kind->backward : s->item[a]->kind->forward)(s->item[a], call, calls);
    }
}

static void forward(void *context, const struct linear_call *c, int n)
{
    call_each(context, c, n, false);
}

static void backward(void *context, const struct linear_call *c, int n)
{
    call_each(context, c, n, true);
}

bool adapter_set_add(struct adapter_set *s, struct adapter *a)
{
    if (s->count == ADAPTERS_MAX) return adapter_close(a), false;
    s->item[s->count++] = a;
    s->hook = (struct linear_hook){.context = s,
                                   .together = (s->count > 1 && s->hook.together) || a->kind->together,
                                   .saved_count = saved_count,
                                   .forward = forward,
                                   .backward = backward};
    return true;
}

void adapter_set_close(struct adapter_set *s)
{
    while (s->count) adapter_close(s->item[--s->count]);
}

bool adapter_set_fits(const struct adapter_set *s, const struct token_rows *rows, char *err, size_t errlen)
{
    for (int i = 0; i < s->count; i++) {
        const struct adapter *a = s->item[i];
        if (a->kind->bound && (a->base.rows != rows->rows || a->base.cols != rows->cols))
            return fail(err, errlen, "adapter %s was made for frames of %lldx%lld tokens, this has %lldx%lld",
                        a->kind->name, (long long)a->base.rows, (long long)a->base.cols,
                        (long long)rows->rows, (long long)rows->cols);
    }
    return true;
}

/* ---- merging ------------------------------------------------------------------------------------------- */

static void merge(struct adapter_set *s, struct kern *k, int linear, struct tensor *host)
{
    const struct linear *l = &s->item[0]->base.linears->linear[linear];
    size_t mark = kern_mark(k);
    struct tensor sum = kern_tensor(k, DT_F32, 2, l->out, l->in);
    kern_download(k, host, l->weight);
    kern_upload(k, &sum, host);
    for (int i = 0; i < s->count; i++) {
        struct adapter *a = s->item[i];
        if (a->module_of[linear] >= 0) a->kind->merge(a, a->module_of[linear], &sum);
    }
    kern_download(k, host, &sum);
    kern_upload(k, l->weight, host);
    kern_release(k, mark);
}

bool adapter_set_merge(struct adapter_set *s, struct kern *k, char *err, size_t errlen)
{
    const struct linears *linears = s->count ? s->item[0]->base.linears : NULL;
    int64_t largest = 0;
    for (int i = 0; i < s->count; i++)
        if (!s->item[i]->kind->merge)
            return fail(err, errlen, "adapter %s is no matrix that could be merged into a weight",
                        s->item[i]->kind->name);
    for (int i = 0; linears && i < linears->count; i++) {
        int64_t n = linears->linear[i].in * linears->linear[i].out;
        if (n > largest) largest = n;
    }
    float *values = malloc((size_t)largest * sizeof *values + 1);
    if (!values) return fail(err, errlen, "no memory for merging adapters");
    for (int pass = 0; pass < 2; pass++) { /* plan, then merge */
        if (!pass) kern_plan_begin(k);
        for (int i = 0; linears && i < linears->count; i++) {
            struct tensor host = tensor_of(DT_F32, values, 2, linears->linear[i].out, linears->linear[i].in);
            bool any = false;
            for (int a = 0; a < s->count; a++) any = any || s->item[a]->module_of[i] >= 0;
            if (any) merge(s, k, i, &host);
        }
        if (!pass && !kern_reserve(k, kern_plan_end(k))) break;
    }
    free(values);
    return kern_ok(k) || fail(err, errlen, "%s", kern_error(k));
}

json_t *adapter_set_description(const struct adapter_set *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->count; i++) {
        const struct adapter *a = s->item[i];
        json_t *entry = adapter_description(a);
        json_object_set_new(entry, "weight", json_real(a->weight));
        json_object_set_new(entry, "values", json_sprintf("%016llx", (unsigned long long)a->hash));
        json_array_append_new(list, entry);
    }
    return list;
}
