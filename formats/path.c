#include "formats/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/io.h"

enum path_kind path_kind(const char *path, char *err, size_t errlen)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return S_ISREG(st.st_mode) ? PATH_FILE : S_ISDIR(st.st_mode) ? PATH_FOLDER : PATH_OTHER;
    if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG) return PATH_ABSENT;
    fail(err, errlen, "%s: %s", path, strerror(errno));
    return PATH_UNKNOWN;
}

FILE *open_regular(const char *path, char *err, size_t errlen)
{
    struct stat st;
    FILE *f = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const bool odd = fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
    if (fd >= 0 && !odd && (f = fdopen(fd, "r"))) return f;
    const int error = odd ? EINVAL : errno;
    fail(err, errlen, "%s: %s", path, odd ? "not a regular file" : strerror(error));
    if (fd >= 0) close(fd);
    errno = error;
    return NULL;
}

/* The folder that a file is in, from the root. */
static char *folder_of(const char *file)
{
    char *path = strdup(file ? file : "."), *slash = file && path ? strrchr(path, '/') : NULL;
    if (slash) slash[slash == path] = 0; /* "/file" is in "/" */
    char *whole = path ? realpath(slash ? path : ".", NULL) : NULL;
    free(path);
    return whole;
}

char *path_beside(const char *file, const char *other)
{
    char *from = folder_of(other), *to = realpath(file, NULL), *path = NULL;
    size_t size, shared = 0;
    FILE *f = from && to ? open_memstream(&path, &size) : NULL;
    if (f) {
        for (size_t i = 0; i == 0 || from[i - 1]; i++) { /* up to the last / at which both are the same */
            if ((from[i] == '/' || !from[i]) && to[i] == '/') shared = i;
            if (from[i] != to[i]) break;
        }
        for (const char *p = from + shared; *p; p++)
            if (p[0] == '/' && p[1]) fputs("../", f);
        fputs(to + shared + 1, f);
        if (!close_memory(f, &path)) free(path), path = NULL;
    }
    free(from);
    free(to);
    return path;
}
