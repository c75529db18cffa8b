/* store - a folder of records that a run can read in any order: shards and one index.
 *
 *   000000.mp ...   shards: streams of records (formats/record.h), complete in themselves, never changed once there
 *   index.jsonl     line 1: {"sluice_store":1,"records":n,"shards":s,"replaced":d,"crc32c":c}
 *                   then one line a record, in the order of the shards:
 *                   {"key","shard","offset","bytes","crc32c","content","tensors":[{"name","dtype","shape"}]}
 *   .lock           held (flock) by the one program that writes here
 *
 * `crc32c` of line 1 is over all bytes after it; `shards` is how many shards the index accounts for;
 * `replaced` how many records in them are dead, because a newer one has their key. A record's `crc32c` is its
 * header's, which covers its key, its meta and its tensors' checksums; `content` is a hash of all it says and
 * holds, wherever it lies.
 *
 * A shard appears first, whole, and then an index that knows it. A shard that no index knows, because the
 * writer died in between, is read through and taken up by the next writer; so a lost index is made anew from
 * the shards, too.
 *
 * Folders below that are stores themselves (train/0, train/1: one for each of several writers) are read as
 * one. */
#ifndef FORMATS_STORE_H
#define FORMATS_STORE_H

#include "formats/record.h"

struct store {
    char *folder;
    int64_t count;
    struct store_record {    /* sorted by key, bytewise; keys are unique */
        char *key, *tensors; /* tensors: the index's list as JSON text */
        int shard;
        int64_t offset, bytes; /* where in the shard's file; header and tensors together */
        uint32_t crc;
        uint64_t content;
    } * record;
    int shards;
    char **shard; /* paths below folder */
};

/* NULL with the reason in err: no store, a damaged index, a shard that is missing or too short, a key in two
 * places. */
struct store *store_open(const char *folder, char *err, size_t errlen);
/* The same for one who can make good what is missing: a folder that is no store yet is an empty one, and
 * shards are not looked at before a record is read. */
struct store *store_open_any(const char *folder, char *err, size_t errlen);
void store_close(struct store *s); /* NULL is fine */

int64_t store_find(const struct store *s, const char *key); /* -1: not there */

/* Record i into f, every checksum compared, and the index with what is found. false with the reason in
 * f->error. */
bool store_read(const struct store *s, int64_t i, struct record *f);

/* One number for all that the store holds: equal whatever the shards and the order of packing. */
uint64_t store_content(const struct store *s);

/* Reads every byte. Each damaged record is reported by its key, a shard damaged elsewhere by its name.
 * Returns how many were reported, or -1 with the reason in err when the store does not open. */
typedef void store_report(void *context, const char *where, const char *why);
int64_t store_check(const char *folder, store_report *report, void *context, char *err, size_t errlen);

/* ---- writing ------------------------------------------------------------------------------------------ */

struct store_writer;
/* A shard is closed, and what it holds is safe, when it has reached shard_bytes or commit_every records. The
 * index follows at once, but where that would cost much more than the shard it waits until the store has
 * grown by an eighth, or for store_commit(). Makes the folder, takes the lock (another's is an error), takes
 * up shards that no index knows. */
struct store_writer *store_writer_open(const char *folder, int64_t shard_bytes, int64_t commit_every,
                                       char *err, size_t errlen);
enum store_put {
    STORE_FAILED = -1, /* reason in err; the open shard is gone, what was committed stands */
    STORE_ADDED,
    STORE_KEPT,      /* was there, with the same content, and read back well */
    STORE_REPLACED,  /* was there with another content, or damaged */
    STORE_DUPLICATE, /* this writer has been given the key before */
};
enum store_put store_put(struct store_writer *w, struct record *f, char *err, size_t errlen);
/* Closes the open shard now, and writes the index. */
bool store_commit(struct store_writer *w, char *err, size_t errlen);
/* Drops what was not committed. */
void store_writer_close(struct store_writer *w);

#endif
