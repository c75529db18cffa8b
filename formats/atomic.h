/* atomic - files that appear whole or not at all: a temporary name in the same folder, fsync, rename, fsync
 * of the folder. */
#ifndef FORMATS_ATOMIC_H
#define FORMATS_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct atomic_file {
    char path[4096], temporary[4096 + 32];
    FILE *f;                  /* write here */
    struct atomic_file *next; /* of the files that exit() removes: the struct must not move until then */
};

/* false with the reason in err. A link's target is replaced, not the link; what is there and no regular file
 * (a device, a pipe) is refused. */
bool atomic_open(struct atomic_file *a, const char *path, char *err, size_t errlen);
/* Flushes, syncs and renames; on failure nothing is left behind and the old file, if any, still stands. */
bool atomic_commit(struct atomic_file *a, char *err, size_t errlen);
void atomic_abort(struct atomic_file *a); /* removes the temporary; harmless after a commit */

/* The bytes of one file as another; false with the reason in err. */
bool atomic_copy(const char *from, const char *to, char *err, size_t errlen);

/* For writers that must open the file themselves (a muxer): the temporary name to write, then this. */
bool atomic_temporary(struct atomic_file *a, const char *path, char *err,
                      size_t errlen); /* a->f stays NULL */

/* The same for a folder, one at a time: make it under a->temporary, then commit. One that is there already must
 * be empty. */
struct atomic_folder {
    char path[4096], temporary[4096 + 32];
};
bool atomic_folder_open(struct atomic_folder *a, const char *path, char *err, size_t errlen);
bool atomic_folder_commit(struct atomic_folder *a, char *err, size_t errlen);
void atomic_folder_abort(struct atomic_folder *a); /* removes all of it; harmless after a commit */

/* Removes temporaries that killed writers left in a folder. Only the holder of the folder's lock may call it:
 * it also removes the files of writers at work. What is registered with atexit() after this can still commit
 * files when the program ends: unfinished ones go when it has run. */
void atomic_sweep(const char *folder);

bool make_folder(const char *path, char *err, size_t errlen); /* with parents; an existing one is fine */

/* A record's key as a file name: every byte outside [A-Za-z0-9._-], and a leading dot, becomes %XX. Two keys
 * never share a name. false when it would not fit (255 bytes with the suffix) or the key is empty. */
bool key_filename(char *buf, size_t size, const char *key, const char *suffix);

#endif
