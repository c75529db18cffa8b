/* io - reads and writes on a descriptor that go on after short counts, EINTR, and EAGAIN (by poll); and calls
 * of stdio that report every failure. */
#ifndef FORMATS_IO_H
#define FORMATS_IO_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

extern volatile sig_atomic_t io_interrupted; /* set by a signal handler; a wait then ends with EINTR */

/* Reads up to n bytes, as many as are there. Returns how many, 0 at end of file, -1 with errno. */
ssize_t read_some(int fd, void *buf, size_t n);
/* Reads n bytes. Returns how many, fewer only at end of file; -1 with errno. */
ssize_t read_full(int fd, void *buf, size_t n);
/* Writes all n bytes; false with errno. */
bool write_full(int fd, const void *buf, size_t n);

/* Reads the next line into *text, which the caller frees. Returns its length with the line end, 0 at the end
 * of file, -1 with errno. getline() alone does not tell a lack of memory from the end. */
ssize_t read_text_line(FILE *f, char **text, size_t *room);
/* Closes a stream of open_memstream(&bytes, ..); false with errno when any write failed. fclose() alone reports a failure
 * of the last bytes alone, and not even that when it has no memory to cut them to size: then bytes is NULL. */
bool close_memory(FILE *f, char *const *bytes);

#endif
