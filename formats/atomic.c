#include "formats/atomic.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "formats/error.h"

/* The folder part of a path, "." when there is none. */
static void folder_of(char *folder, size_t size, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, size, ".");
    else
        snprintf(folder, size, "%.*s", (int)(slash == path ? 1 : slash - path), path);
}

/* Creates the temporary, so that the name is ours, and returns its descriptor; -1 with the reason in err. */
static int create_temporary(struct atomic_file *a, const char *path, char *err, size_t errlen)
{
    static unsigned serial;
    struct stat st;
    struct timespec now;
    char folder[sizeof a->path];
    *a = (struct atomic_file){0};

    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) /* never rename over a device or a pipe */
        return fail(err, errlen, "%s: is there and is not a regular file", path), -1;
    char *real = realpath(path, NULL); /* what a link points to is replaced, not the link */
    int n = snprintf(a->path, sizeof a->path, "%s", real ? real : path);
    free(real);
    if (n >= (int)sizeof a->path) return fail(err, errlen, "%s: %s", path, strerror(ENAMETOOLONG)), -1;

    folder_of(folder, sizeof folder, a->path);
    for (int attempt = 0; attempt < 100; attempt++) {
        clock_gettime(CLOCK_REALTIME, &now);
        unsigned salt = (unsigned)now.tv_nsec ^ __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED) << 30;
        /* A short name of its own, since the final name may already be as long as a name can be. */
        snprintf(a->temporary, sizeof a->temporary, "%s/.tmp-%ld-%08x", folder, (long)getpid(), salt);
        int fd = open(a->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) return fd;
        if (errno != EEXIST) break;
    }
    a->temporary[0] = 0;
    return fail(err, errlen, "%s: %s", path, strerror(errno)), -1;
}

bool atomic_open(struct atomic_file *a, const char *path, char *err, size_t errlen)
{
    int fd = create_temporary(a, path, err, errlen);
    if (fd < 0) return false;
    a->f = fdopen(fd, "wb");
    if (a->f) return true;
    fail(err, errlen, "%s: %s", path, strerror(errno));
    close(fd);
    atomic_abort(a);
    return false;
}

bool atomic_temporary(struct atomic_file *a, const char *path, char *err, size_t errlen)
{
    int fd = create_temporary(a, path, err, errlen);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* Makes what was written last: our own stream's bytes, or those that a muxer left under the
 * temporary name. */
static bool sync_contents(struct atomic_file *a)
{
    if (!a->f) {
        int fd = open(a->temporary, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return false;
        bool good = fsync(fd) == 0;
        int why = errno;
        close(fd);
        errno = why;
        return good;
    }
    if (ferror(a->f) && errno != ENOSPC && errno != EDQUOT && errno != EFBIG)
        errno = EIO; /* may be of another call */
    bool good = !ferror(a->f) && fflush(a->f) == 0 && fsync(fileno(a->f)) == 0;
    int why = errno;
    if (fclose(a->f) != 0 && good) good = false, why = errno;
    a->f = NULL;
    errno = why;
    return good;
}

static bool sync_folder(const char *path)
{
    char folder[4096];
    folder_of(folder, sizeof folder, path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool good = fsync(fd) == 0 || errno == EINVAL; /* some file systems cannot sync a folder */
    int why = errno;
    close(fd);
    errno = why;
    return good;
}

bool atomic_commit(struct atomic_file *a, char *err, size_t errlen)
{
    if (sync_contents(a) && rename(a->temporary, a->path) == 0) {
        a->temporary[0] = 0;
        if (sync_folder(a->path)) return true;
    }
    fail(err, errlen, "%s: %s", a->path, strerror(errno));
    atomic_abort(a);
    return false;
}

void atomic_abort(struct atomic_file *a)
{
    if (a->f) fclose(a->f);
    if (a->temporary[0]) unlink(a->temporary);
    a->f = NULL;
    a->temporary[0] = 0;
}

bool atomic_copy(const char *from, const char *to, char *err, size_t errlen)
{
    char block[1 << 16];
    size_t n;
    struct atomic_file a = {0};
    FILE *in = fopen(from, "rbe");
    if (!in) return fail(err, errlen, "%s: %s", from, strerror(errno));
    bool good = atomic_open(&a, to, err, errlen);
    while (good && (n = fread(block, 1, sizeof block, in)) > 0)
        if (fwrite(block, 1, n, a.f) != n) good = fail(err, errlen, "%s: %s", to, strerror(errno));
    if (good && ferror(in)) good = fail(err, errlen, "%s: %s", from, strerror(errno));
    good = good && atomic_commit(&a, err, errlen);
    if (!good) atomic_abort(&a);
    fclose(in);
    return good;
}

bool make_folder(const char *path, char *err, size_t errlen)
{
    char part[4096];
    struct stat st;
    size_t n = strlen(path);
    if (n >= sizeof part) return fail(err, errlen, "%s: %s", path, strerror(ENAMETOOLONG));
    for (size_t i = 1; i <= n; i++) {
        if (path[i] && path[i] != '/') continue;
        snprintf(part, sizeof part, "%.*s", (int)i, path);
        if (mkdir(part, 0777) == 0) continue;
        int why = errno;
        if (stat(part, &st) != 0) return fail(err, errlen, "%s: %s", part, strerror(why));
        if (!S_ISDIR(st.st_mode)) return fail(err, errlen, "%s: %s", part, strerror(ENOTDIR));
    }
    return n > 0 || fail(err, errlen, "a folder's name is empty");
}

bool folder_is_empty(const char *path, char *err, size_t errlen)
{
    DIR *d = opendir(path);
    bool empty = true;
    if (!d) return errno == ENOENT || fail(err, errlen, "%s: %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) empty = false;
    closedir(d);
    return empty || fail(err, errlen, "%s: not empty; a model is made in a folder of its own", path);
}

bool key_filename(char *buf, size_t size, const char *key, const char *suffix)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char name[256];
    size_t n = 0;
    for (const char *p = key; *p; p++) {
        bool safe = strchr(plain, *p) && !(p == key && *p == '.');
        if (n + (safe ? 1 : 3) > 255) return false;
        n += (size_t)snprintf(name + n, sizeof name - n, safe ? "%c" : "%%%02X", (unsigned char)*p);
    }
    if (n == 0 || n + strlen(suffix) > 255 || n + strlen(suffix) >= size) return false;
    snprintf(buf, size, "%s%s", name, suffix);
    return true;
}

void atomic_sweep(const char *folder)
{
    char path[4096];
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, ".tmp-", 5) &&
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name) < (int)sizeof path)
            unlink(path);
    if (d) closedir(d);
}
