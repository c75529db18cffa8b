/* safetensors - named tensors in a file: u64 header length N, N bytes of JSON, then the tensors' bytes.
 *
 * The reader trusts nothing: sizes are bounded and overflow-checked before any allocation, the byte ranges
 * must tile the rest of the file with no hole, overlap or tail, and names must be unique. Bytes are read with
 * pread, so a file that shrinks underneath is an error and not a signal. */
#ifndef FORMATS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_H

#include <jansson.h>

#include "formats/tensor.h"

enum {
    SAFETENSORS_MAX_HEADER = 16 << 20,
    SAFETENSORS_MAX_TENSORS = 65536,
    SAFETENSORS_MAX_NAME = 512,
};

struct safetensors {
    char *path;
    int fd;
    json_t *metadata; /* __metadata__: strings to strings; never NULL (empty when absent) */
    int count;
    struct safetensors_entry { /* in file order */
        char *name;
        struct tensor shape; /* data NULL */
        uint64_t offset;     /* in the file */
        size_t bytes;
    } * entry;
};

/* Whether a file looks like one: a small header length, then `{`, which no stream of records starts with. */
bool safetensors_is(int fd);

/* NULL with the reason in err, which names the file and, where there is one, the tensor. Dtypes other than
 * those of tensor.h (BOOL, I8, F8_E4M3, ...) are refused. Tensors need not be aligned. */
struct safetensors *safetensors_open(const char *path, char *err, size_t errlen);
void safetensors_close(struct safetensors *s); /* NULL is fine */
const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name); /* or NULL */
/* The entry's bytes into data (entry->bytes of it). */
bool safetensors_read(const struct safetensors *s, const struct safetensors_entry *e, void *data, char *err,
                      size_t errlen);
/* n of them from byte `from` on, within the entry (the caller's care). Safe from several threads at once. */
bool safetensors_read_part(const struct safetensors *s, const struct safetensors_entry *e, size_t from,
                           void *data, size_t n, char *err, size_t errlen);

/* Write a file, atomically; tensors in the order given except that larger dtypes come first, as other writers
 * do. metadata: strings to strings; NULL or empty: none is written. */
struct safetensors_item {
    const char *name;
    struct tensor t;
};
bool safetensors_write(const char *path, const struct safetensors_item *items, int count, json_t *metadata,
                       char *err, size_t errlen);
/* The same of tensors that need not be in memory together: load() fills in item i's bytes when they are
 * needed, or returns false with the reason in err. The items' own data are not used. */
typedef bool safetensors_load(void *context, int i, void *data, char *err, size_t errlen);
bool safetensors_write_each(const char *path, const struct safetensors_item *items, int count,
                            json_t *metadata, safetensors_load *load, void *context, char *err,
                            size_t errlen);

#endif
