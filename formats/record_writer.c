#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/crc32c.h"
#include "formats/record.h"
#include "formats/io.h"
#include "formats/msgpack_json.h"

struct record_writer {
    int fd;
    json_t *begin;
    bool begun;
    uint32_t crc;
    int64_t records;
    msgpack_sbuffer out;
    char error[160];
};

struct record_writer *record_writer_open(int fd, const char *program, json_t *settings)
{
    struct record_writer *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->fd = fd;
    w->begin =
        json_pack("{s:s, s:i, s:s, s:s, s:o}", "kind", "begin", "sluice", 1, "program", program, "version",
                  SLUICE_VERSION, "settings", settings ? json_incref(settings) : json_object());
    msgpack_sbuffer_init(&w->out);
    fcntl(fd, F_SETPIPE_SZ, 1 << 20);
    return w;
}

const char *record_writer_error(const struct record_writer *w)
{
    return w->error;
}

void record_writer_close(struct record_writer *w)
{
    if (!w) return;
    json_decref(w->begin);
    msgpack_sbuffer_destroy(&w->out);
    free(w);
}

static bool write_error(struct record_writer *w, const char *what)
{
    int saved = errno;
    snprintf(w->error, sizeof w->error, "%s", what ? what : strerror(errno));
    errno = saved;
    return false;
}

static bool put(struct record_writer *w, const void *data, size_t n)
{
    return write_full(w->fd, data, n) || write_error(w, NULL);
}

static bool no_header(struct record_writer *w, const char *why)
{
    errno = EMSGSIZE;
    return write_error(w, why);
}

static bool write_header(struct record_writer *w, json_t *head)
{
    static const char room[4];
    msgpack_packer p;
    msgpack_sbuffer_clear(&w->out);
    msgpack_packer_init(&p, &w->out, msgpack_sbuffer_write);
    if (!head || msgpack_sbuffer_write(&w->out, room, sizeof room) || msgpack_from_json(&p, head)) {
        errno = ENOMEM;
        return write_error(w, NULL);
    }
    const char *map = w->out.data + 4;
    size_t size = w->out.size;
    if (size > RECORD_MAX_HEADER) return no_header(w, "its header would pass 1 MiB");
    if (!msgpack_json_fits(map, size - 4))
        return no_header(w, "its header would nest too deep, or hold too many values");
    uint32_t crc = crc32c(0, map, size - 4);
    memcpy(w->out.data, &crc, sizeof crc);

    /* The marker that goes before these bytes stands behind them. */
    if (msgpack_pack_ext(&p, size, RECORD_EXT_TYPE)) return write_error(w, NULL);
    w->crc = crc32c(w->crc, &crc, sizeof crc);
    w->begun = true;
    return put(w, w->out.data + size, w->out.size - size) && put(w, w->out.data, size);
}

static bool write_payload(struct record_writer *w, const struct tensor *t)
{
    msgpack_packer p;
    msgpack_sbuffer_clear(&w->out);
    msgpack_packer_init(&p, &w->out, msgpack_sbuffer_write);
    msgpack_pack_bin(&p, tensor_bytes(t)); /* cannot fail: there is room, a header stood here */
    return put(w, w->out.data, w->out.size) && put(w, t->data, tensor_bytes(t));
}

/* json_object_update_missing(), which keeps it to itself when there is no memory. */
static int add_missing(json_t *object, json_t *other)
{
    const char *key;
    json_t *value;
    int bad = !object || !other;
    json_object_foreach (other, key, value)
        if (!json_object_get(object, key)) bad |= json_object_set(object, key, value);
    return bad;
}

/* The header's entry of a tensor, NULL when out of memory. */
static json_t *tensor_entry(struct record_tensor *slot)
{
    json_t *shape = json_array();
    int bad = 0;
    for (int a = 0; a < slot->t.rank; a++)
        bad |= json_array_append_new(shape, json_integer(slot->t.shape[a]));
    if (!slot->crc_known) slot->crc = crc32c(0, slot->t.data, tensor_bytes(&slot->t));
    slot->crc_known = true;
    json_t *entry = json_pack("{s:s, s:s, s:o, s:I, s:I}", "name", slot->name, "dtype",
                              dtype_name(slot->t.dtype), "shape", shape, "nbytes",
                              (json_int_t)tensor_bytes(&slot->t), "crc32c", (json_int_t)slot->crc);
    if (!bad && !add_missing(entry, slot->entry)) return entry;
    json_decref(entry);
    return NULL;
}

bool record_write(struct record_writer *w, struct record *f)
{
    if (!w->begun && !write_header(w, w->begin)) return false;
    if (!*record_key(f)) return no_header(w, "it has no key");
    json_t *head = json_pack("{s:s, s:I}", "kind", "record", "seq", (json_int_t)w->records),
           *tensors = json_array();
    int bad = add_missing(head, f->head);
    for (int i = 0; i < f->count; i++) bad |= json_array_append_new(tensors, tensor_entry(&f->tensor[i]));
    bad |= json_object_set_new(head, "tensors", tensors);
    bool good = write_header(w, bad ? NULL : head);
    json_decref(head);
    for (int i = 0; good && i < f->count; i++) good = write_payload(w, &f->tensor[i].t);
    w->records += good;
    return good;
}

bool record_write_end(struct record_writer *w, int64_t failed)
{
    if (!w->begun && !write_header(w, w->begin)) return false;
    json_t *head = json_pack("{s:s, s:I, s:I, s:I}", "kind", "end", "records", (json_int_t)w->records,
                             "failed", (json_int_t)failed, "crc32c", (json_int_t)w->crc);
    bool good = write_header(w, head);
    json_decref(head);
    return good;
}
