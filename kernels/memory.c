/* Long-lived blocks, the scratch stack, planning, and copies between host and device. */
#include "kernels/backend.h"

#include <assert.h>
#include <stdlib.h>

enum { ALIGN = 64 };

struct kern_block {
    struct kern_block *next;
    void *data;
    size_t bytes;
};

void kern_close(struct kern *k)
{
    if (!k) return;
    while (k->blocks) {
        struct kern_block *b = k->blocks;
        k->blocks = b->next;
        k->backend->free(k, b->data);
        free(b);
    }
    if (k->stack) k->backend->free(k, k->stack);
    k->backend->close(k);
    kern_profile_stop(k);
    free(k);
}

static size_t available(struct kern *k)
{
    const size_t bytes = k->backend->available(k), left = k->limit > k->taken ? k->limit - k->taken : 0;
    return k->limit && left < bytes ? left : bytes;
}

/* A system that overcommits would say yes now and kill the program later. */
bool kern_room(struct kern *k, const char *what, size_t bytes)
{
    const double mib = 1 << 20;
    if (!kern_ok(k) || k->planning) return kern_ok(k);
    const size_t left = available(k);
    if (bytes > left)
        kern_fail(k, "%s: %.1f MiB needed, %.1f MiB available on %s", what, (double)bytes / mib,
                  (double)left / mib, k->device);
    return kern_ok(k);
}

static void *take(struct kern *k, const char *what, size_t bytes)
{
    if (!kern_room(k, what, bytes)) return NULL;
    void *p = k->backend->alloc(k, bytes ? bytes : 1);
    if (p)
        k->taken += bytes;
    else
        kern_fail(k, "%s: %.1f MiB needed, and %s refuses them (a memory limit?)", what,
                  (double)bytes / (1 << 20), k->device);
    return p;
}

/* The tensor without memory, and its size rounded up to the alignment; false when no memory could hold it. */
static bool shape_of(struct kern *k, struct tensor *t, size_t *bytes, enum dtype d,
                     const int64_t *rank_then_shape)
{
    char text[128];
    *t = tensor_make(d, NULL, rank_then_shape);
    if (!kern_ok(k)) return false;
    if (tensor_bytes_checked(d, t->rank, t->shape, bytes) && *bytes <= SIZE_MAX / 4) {
        *bytes = (*bytes + ALIGN - 1) / ALIGN * ALIGN;
        return true;
    }
    kern_fail(k, "%s: no tensor can have this shape", tensor_describe(text, sizeof text, t));
    return false;
}

struct tensor kern_alloc_shape(struct kern *k, enum dtype d, const int64_t *rank_then_shape)
{
    struct tensor t;
    size_t bytes;
    char text[128];
    if (!shape_of(k, &t, &bytes, d, rank_then_shape) || k->planning) return t;
    struct kern_block *b = malloc(sizeof *b);
    void *data = b ? take(k, tensor_describe(text, sizeof text, &t), bytes) : NULL;
    if (!data) {
        kern_fail(k, "out of memory");
        free(b);
        return t;
    }
    *b = (struct kern_block){k->blocks, data, bytes};
    k->blocks = b;
    t.data = data;
    return t;
}

struct tensor kern_tensor_shape(struct kern *k, enum dtype d, const int64_t *rank_then_shape)
{
    struct tensor t;
    size_t bytes;
    char text[128];
    if (!shape_of(k, &t, &bytes, d, rank_then_shape)) return t;
    if (!k->planning && bytes > k->size - k->used) {
        kern_fail(k, "scratch memory is too small: %s needs %zu bytes, %zu of %zu are left",
                  tensor_describe(text, sizeof text, &t), bytes, k->size - k->used, k->size);
        return t;
    }
    if (!k->planning && k->stack) t.data = k->stack + k->used;
    k->used += bytes;
    if (k->used > k->peak) k->peak = k->used;
    return t;
}

size_t kern_mark(const struct kern *k)
{
    return k->used;
}

void kern_release(struct kern *k, size_t mark)
{
    assert(mark <= k->used);
    k->used = mark;
}

size_t kern_available(struct kern *k)
{
    const size_t left = available(k);
    return left < SIZE_MAX - k->size ? left + k->size
                                     : SIZE_MAX; /* the old stack goes before the new one comes */
}

bool kern_reserve(struct kern *k, size_t bytes)
{
    if (!kern_ok(k)) return false;
    if (k->planning || bytes <= k->size) return true;
    if (k->used) {
        kern_fail(k, "scratch memory cannot grow from %zu to %zu bytes while %zu are in use", k->size, bytes,
                  k->used);
        return false;
    }
    if (k->stack) k->backend->free(k, k->stack);
    k->taken -= k->size;
    k->size = k->peak = 0;
    k->stack = take(k, "scratch memory", bytes);
    if (k->stack) k->size = bytes;
    return k->stack != NULL;
}

void kern_plan_begin(struct kern *k)
{
    assert(!k->planning);
    k->planning = true;
    k->saved_used = k->used;
    k->saved_peak = k->peak;
    k->used = k->peak = 0;
}

size_t kern_plan_end(struct kern *k)
{
    size_t bytes = k->peak;
    assert(k->planning);
    k->planning = false;
    k->used = k->saved_used;
    k->peak = k->saved_peak;
    return bytes;
}

bool kern_planning(const struct kern *k)
{
    return k->planning;
}

/* May src be copied to dst? Nothing to do, too, for empty tensors and while planning. */
static bool copyable(struct kern *k, const char *op, const struct tensor *dst, const struct tensor *src)
{
    char a[128], b[128];
    if (!kern_ok(k)) return false;
    int64_t n = tensor_count(src);
    bool dtypes = dst->dtype == src->dtype || (dtype_is_float(dst->dtype) && dtype_is_float(src->dtype));
    if (!dtypes || tensor_count(dst) != n) {
        kern_fail(k, "%s: %s into %s", op, tensor_describe(a, sizeof a, src),
                  tensor_describe(b, sizeof b, dst));
        return false;
    }
    if (k->planning || n == 0) return false;
    if (!dst->data || !src->data)
        kern_fail(k, "%s: %s has no memory", op, dst->data ? "the source" : "the target");
    return kern_ok(k);
}

void kern_upload(struct kern *k, struct tensor *dst, const struct tensor *host)
{
    if (copyable(k, __func__, dst, host)) k->backend->upload(k, dst, host);
}

void kern_send(struct kern *k, struct tensor *dst, const struct tensor *host)
{
    if (!copyable(k, __func__, dst, host)) return;
    if (dst->dtype == host->dtype)
        k->backend->send(k, dst, host);
    else
        kern_fail(k, "kern_send: %s into %s", dtype_name(host->dtype), dtype_name(dst->dtype));
}

void *kern_host_alloc(struct kern *k, size_t bytes)
{
    return k->backend->host_alloc(k, bytes ? bytes : 1);
}

void kern_host_free(struct kern *k, void *p)
{
    if (p) k->backend->host_free(k, p);
}

void kern_download(struct kern *k, struct tensor *host, const struct tensor *src)
{
    if (copyable(k, __func__, host, src)) k->backend->download(k, host, src);
}

void kern_copy(struct kern *k, struct tensor *dst, const struct tensor *src)
{
    if (copyable(k, __func__, dst, src)) k->backend->copy(k, dst, src);
}

void kern_zero(struct kern *k, struct tensor *t)
{
    if (copyable(k, __func__, t, t)) k->backend->zero(k, t);
}
