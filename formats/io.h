/* io - reads and writes on a descriptor that go on after short counts, EINTR, and EAGAIN (by poll); and what of
 * stdio says too little about failures. */
#ifndef FORMATS_IO_H
#define FORMATS_IO_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

extern volatile sig_atomic_t io_interrupted; /* set by a handler: a wait ends with EINTR, not going on */

/* What there is, up to n bytes: how many, 0 at end of file, -1 with errno. */
ssize_t read_some(int fd, void *buf, size_t n);
/* n bytes: how many were read, less only at end of file; -1 with errno. */
ssize_t read_full(int fd, void *buf, size_t n);
/* All of them; false with errno. */
bool write_full(int fd, const void *buf, size_t n);

/* The next line into *text, which is the caller's to free: its length with the line end, 0 at the end of file, -1
 * with errno. getline() alone does not tell a lack of memory from the end. */
ssize_t read_text_line(FILE *f, char **text, size_t *room);
/* Closes what was written; false with errno when any of it was lost. Of a stream in memory fclose() tells only of
 * the last bytes. */
bool close_written(FILE *f);

#endif
