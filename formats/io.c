#include "formats/io.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

enum { STEP = 64 << 20 }; /* of one read(2) or write(2) */

volatile sig_atomic_t io_interrupted;

/* A sibling process may have made our descriptor non-blocking (the flag belongs to the open file): wait and
 * go on. */
static bool wait_for(int fd, short events)
{
    if (errno == EINTR) return !io_interrupted;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
    struct pollfd p = {fd, events, 0};
    return poll(&p, 1, -1) >= 0 || (errno == EINTR && !io_interrupted);
}

ssize_t read_some(int fd, void *buf, size_t n)
{
    for (;;) {
        ssize_t got = read(fd, buf, n < STEP ? n : STEP);
        if (got >= 0 || !wait_for(fd, POLLIN)) return got;
    }
}

ssize_t read_full(int fd, void *buf, size_t n)
{
    size_t have = 0;
    while (have < n) {
        ssize_t got = read_some(fd, (char *)buf + have, n - have);
        if (got < 0) return -1;
        if (got == 0) break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

bool write_full(int fd, const void *buf, size_t n)
{
    for (const char *p = buf; n;) {
        ssize_t put = write(fd, p, n < STEP ? n : STEP);
        if (put < 0 && !wait_for(fd, POLLOUT)) return false;
        if (put > 0) p += put, n -= (size_t)put;
    }
    return true;
}

ssize_t read_text_line(FILE *f, char **text, size_t *room)
{
    errno = 0;
    ssize_t n = getline(text, room, f);
    if (n > 0) return n;
    if (!ferror(f) && errno != ENOMEM) return 0;
    if (!errno) errno = EIO;
    return -1;
}

bool close_memory(FILE *f, char *const *bytes)
{
    bool lost = ferror(f);
    if (fclose(f)) return false;
    if (!lost && *bytes) return true;
    errno = ENOMEM;
    return false;
}
