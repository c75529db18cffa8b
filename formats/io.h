/* io - reads and writes on a descriptor that go on after short counts, EINTR, and EAGAIN (by poll). */
#ifndef FORMATS_IO_H
#define FORMATS_IO_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

extern volatile sig_atomic_t io_interrupted; /* set by a handler: a wait ends with EINTR, not going on */

/* What there is, up to n bytes: how many, 0 at end of file, -1 with errno. */
ssize_t read_some(int fd, void *buf, size_t n);
/* n bytes: how many were read, less only at end of file; -1 with errno. */
ssize_t read_full(int fd, void *buf, size_t n);
/* All of them; false with errno. */
bool write_full(int fd, const void *buf, size_t n);

#endif
