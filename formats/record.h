/* record - the wire: a stream of msgpack-framed records of named tensors.
 *
 * A stream is a sequence of msgpack objects. A header is an ext object of type 83 ('S') whose payload is a
 * u32 little-endian CRC-32C of the map's bytes, then those bytes, one msgpack map:
 *
 *   begin   {"kind":"begin", "sluice":1, "program":str, "version":str, "settings":map}
 *   record  {"kind":"record", "seq":n, "key":str, "meta":map,
 *            "tensors":[{"name":str, "dtype":str, "shape":[..], "nbytes":n, "crc32c":u32}, ...]}
 *           followed by one msgpack bin per tensor, in that order: raw little-endian row-major bytes
 *   end     {"kind":"end", "records":n, "failed":m, "crc32c":u32}   the last of the u32 little-endian header
 *           CRCs of begin and records
 *
 * Streams may follow one another (cat a.mp b.mp). End of file anywhere but after an end is an error. */
#ifndef FORMATS_RECORD_H
#define FORMATS_RECORD_H

#include <jansson.h>

#include "formats/tensor.h"

#define SLUICE_VERSION "0.1.0"

enum {
    RECORD_EXT_TYPE = 83, /* 'S' */
    RECORD_MAX_TENSORS = 256,
    RECORD_MAX_HEADER = 1 << 20,
    RECORD_MAX_NAME = 64,
};

/* One record. Its tensors' memory belongs to it and is reused by the next record_read() into it. */
struct record {
    json_t *head; /* the header map: kind, key, meta and whatever else it holds, kept when passed on */
    int count;
    struct record_tensor {
        char name[RECORD_MAX_NAME];
        struct tensor t;
        size_t capacity; /* bytes allocated at t.data */
        uint32_t crc;    /* of the bytes, when known */
        bool crc_known;  /* false after record_add(): computed when written */
        json_t *entry;   /* what its header entry said, unknown fields included */
    } * tensor;          /* RECORD_MAX_TENSORS slots, allocated with the first record */
    char error[512];     /* why the last call on this record failed */
    bool unread; /* for want of memory or by the system's fault: nothing is known to be wrong with it */
};
#define RECORD_INIT                                                                                          \
    {                                                                                                        \
        0                                                                                                    \
    }

void record_free(struct record *f);
const char *record_key(const struct record *f);
json_t *record_meta(struct record *f); /* borrowed; edit in place */
/* A meta string without zero bytes, or NULL. */
const char *record_text(const struct record *f, const char *field);

/* Start an empty record (drops tensors, keeps their memory for reuse). The key is copied. */
void record_new(struct record *f, const char *key);

/* The tensor called name, or NULL. */
struct tensor *record_find(struct record *f, const char *name);
/* The same, but missing, or of another rank or dtype, is an error, with the reason in f->error. DT_COUNT: any
 * float. */
struct tensor *record_want(struct record *f, const char *name, enum dtype d, int rank);
/* A new tensor, its memory owned by the record and not yet set: record_add(&f, "latents", DT_BF16, 4, t, c,
 * h, w). One of that name is replaced. NULL with f->error: no good name (1 to 63 bytes of UTF-8), out of
 * memory or too many tensors. The returned pointer is good until the next record_add or record_drop. Writing
 * into a tensor that was read needs record_add of the same name first. */
#define record_add(f, name, dtype, ...) record_add_shape(f, name, dtype, (const int64_t[]){__VA_ARGS__})
struct tensor *record_add_shape(struct record *f, const char *name, enum dtype d,
                                const int64_t *rank_then_shape);
/* The same, of the shape and with the values of another tensor of the host. false as above. */
bool record_put(struct record *f, const char *name, enum dtype d, const struct tensor *from);
void record_drop(struct record *f, const char *name); /* nothing happens when there is none */

/* ---- reading ------------------------------------------------------------------------------------------- */

struct record_reader; /* of records on the wire, or of JSON lines: the first byte decides */
struct record_reader *record_reader_open(int fd, const char *name); /* name is for messages: "stdin" */
void record_reader_close(struct record_reader *r);                  /* does not close fd */

enum record_got {
    RECORD_DAMAGED = -1, /* the stream cannot be trusted any further: f->error says where and why */
    RECORD_END = 0,      /* a clean end */
    RECORD_GOT = 1,
    RECORD_BAD_LINE = 2, /* one JSON line is not a record: f->error says which; reading may go on */
};
enum record_got record_read(struct record_reader *r, struct record *f);

/* Whether record_read() has something to begin with within so many milliseconds, or a signal came; else it would wait. An
 * end is nothing to begin with: what matters is whether something follows it. After the first record_read(). */
bool record_reader_ready(struct record_reader *r, int ms);
bool record_reader_is_jsonl(const struct record_reader *r);  /* known after the first record_read() */
int64_t record_reader_failed(const struct record_reader *r); /* sum of the ends' `failed` seen so far */
json_t *record_reader_begin(const struct record_reader *r);  /* the latest begin header, borrowed, or NULL */
int64_t record_reader_bytes(const struct record_reader *r);  /* position in the input */

/* For an index over files of records: where the header of the record just read begins, and its checksum; and
 * a reader that starts at such a place, in the middle of a stream. It reads records; an end, whose checksum
 * is of the whole stream, is damage to it. NULL: out of memory, or errno of lseek. */
int64_t record_reader_last_at(const struct record_reader *r, uint32_t *header_crc);
struct record_reader *record_reader_open_at(int fd, const char *name, int64_t offset);

/* ---- writing ------------------------------------------------------------------------------------------- */

struct record_writer;
/* settings is borrowed and may be NULL. Nothing is written before the first record or the end. */
struct record_writer *record_writer_open(int fd, const char *program, json_t *settings);
/* Renumbers seq. false with the reason in record_writer_error() and errno: EMSGSIZE for a record that no
 * header can hold, or that has no key (nothing of it was written), ENOMEM, anything else from write(2). A
 * tensor's bytes must not change once written. */
bool record_write(struct record_writer *w, struct record *f);
bool record_write_end(struct record_writer *w, int64_t failed);
const char *record_writer_error(const struct record_writer *w);
void record_writer_close(struct record_writer *w); /* does not close fd */

#endif
