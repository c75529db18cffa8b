#include "formats/atomic.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "formats/error.h"
#include "formats/path.h"

/* The folder part of a path, "." when there is none. */
static void folder_of(char *folder, size_t size, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, size, ".");
    else
        snprintf(folder, size, "%.*s", (int)(slash == path ? 1 : slash - path), path);
}

/* ---- what exit() removes ------------------------------------------------------------------------------- */

/* A program that ends for want of memory, or because a record failed, may be in the middle of a file. */
static struct atomic_file *unfinished;
static struct atomic_folder *unfinished_folder;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void remove_unfinished(void)
{
    for (struct atomic_file *a = unfinished; a; a = a->next) unlink(a->temporary);
    if (unfinished_folder) atomic_folder_abort(unfinished_folder);
}

static void enter(struct atomic_file *file, struct atomic_folder *folder)
{
    static bool registered;
    pthread_mutex_lock(&lock);
    if (!registered) registered = atexit(remove_unfinished) == 0;
    if (folder) unfinished_folder = folder;
    if (file) {
        file->next = unfinished;
        unfinished = file;
    }
    pthread_mutex_unlock(&lock);
}

/* Its temporary is no more. */
static void leave(struct atomic_file *a)
{
    pthread_mutex_lock(&lock);
    for (struct atomic_file **at = &unfinished; *at; at = &(*at)->next)
        if (*at == a) {
            *at = a->next;
            break;
        }
    pthread_mutex_unlock(&lock);
    a->temporary[0] = 0;
}

/* ---- files --------------------------------------------------------------------------------------------- */

/* What is to be replaced: where a link points to, not the link; room: of `real`, PATH_MAX at least. */
static bool resolve(char *real, const char *path, char *err, size_t errlen)
{
    char found[PATH_MAX];
    bool there = realpath(path, found);
    if (!there && errno != ENOENT) return fail(err, errlen, "%s: %s", path, strerror(errno));
    int n = snprintf(real, PATH_MAX, "%s", there ? found : path);
    return n < PATH_MAX || fail(err, errlen, "%s: %s", path, strerror(ENAMETOOLONG));
}

/* A short name in the folder of a path, since the final name may already be as long as a name can be. */
static void name_temporary(char *temporary, size_t size, const char *path)
{
    static unsigned serial;
    struct timespec now;
    char folder[PATH_MAX];
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned salt = (unsigned)now.tv_nsec ^ __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED) << 30;
    folder_of(folder, sizeof folder, path);
    snprintf(temporary, size, "%s/.tmp-%ld-%08x", folder, (long)getpid(), salt);
}

/* Creates the temporary, so that the name is ours, and returns its descriptor; -1 with the reason in err. */
static int create_temporary(struct atomic_file *a, const char *path, char *err, size_t errlen)
{
    *a = (struct atomic_file){0};
    enum path_kind kind = path_kind(path, err, errlen);
    if (kind == PATH_UNKNOWN) return -1;
    if (kind != PATH_FILE && kind != PATH_ABSENT) /* never rename over a device or a pipe */
        return fail(err, errlen, "%s: is there and is not a regular file", path), -1;
    if (!resolve(a->path, path, err, errlen)) return -1;
    for (int attempt = 0; attempt < 100; attempt++) {
        name_temporary(a->temporary, sizeof a->temporary, a->path);
        int fd = open(a->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            enter(a, NULL);
            return fd;
        }
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
        leave(a);
        if (sync_folder(a->path)) return true;
    }
    fail(err, errlen, "%s: %s", a->path, strerror(errno));
    atomic_abort(a);
    return false;
}

void atomic_abort(struct atomic_file *a)
{
    if (a->f) fclose(a->f);
    if (a->temporary[0]) {
        unlink(a->temporary);
        leave(a);
    }
    a->f = NULL;
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

/* ---- folders ------------------------------------------------------------------------------------------- */

/* Nothing is in it, or it is not there. */
static bool is_empty(const char *path, char *err, size_t errlen)
{
    DIR *d = opendir(path);
    bool empty = true;
    if (!d) return errno == ENOENT || fail(err, errlen, "%s: %s", path, strerror(errno));
    errno = 0;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) empty = false;
    bool read = errno == 0 || fail(err, errlen, "%s: %s", path, strerror(errno));
    closedir(d);
    return read && (empty || fail(err, errlen, "%s: not empty: it is made in a folder of its own", path));
}

bool atomic_folder_open(struct atomic_folder *a, const char *path, char *err, size_t errlen)
{
    char parent[PATH_MAX];
    *a = (struct atomic_folder){0};
    if (!is_empty(path, err, errlen) || !resolve(a->path, path, err, errlen)) return false;
    for (size_t n = strlen(a->path); n > 1 && a->path[n - 1] == '/';) a->path[--n] = 0;
    folder_of(parent, sizeof parent, a->path);
    if (!make_folder(parent, err, errlen)) return false;
    for (int attempt = 0; attempt < 100; attempt++) {
        name_temporary(a->temporary, sizeof a->temporary, a->path);
        if (mkdir(a->temporary, 0777) == 0) {
            enter(NULL, a);
            return true;
        }
        if (errno != EEXIST) break;
    }
    a->temporary[0] = 0;
    return fail(err, errlen, "%s: %s", path, strerror(errno));
}

/* The files in it are synced as they are written, so are the folders that hold them, and this puts it in place. */
bool atomic_folder_commit(struct atomic_folder *a, char *err, size_t errlen)
{
    if (rename(a->temporary, a->path) == 0) {
        if (sync_folder(a->path)) {
            unfinished_folder = NULL;
            a->temporary[0] = 0;
            return true;
        }
        int why = errno;
        if (rename(a->path, a->temporary)) a->temporary[0] = 0; /* it stays, and is whole */
        errno = why;
    }
    fail(err, errlen, "%s: %s", a->path, strerror(errno));
    atomic_folder_abort(a);
    return false;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    remove(path);
    return 0;
}

void atomic_folder_abort(struct atomic_folder *a)
{
    if (a->temporary[0]) nftw(a->temporary, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (a == unfinished_folder) unfinished_folder = NULL;
    a->temporary[0] = 0;
}

/* ---- names --------------------------------------------------------------------------------------------- */

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
    enter(NULL, NULL);
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (!strncmp(e->d_name, ".tmp-", 5) &&
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name) < (int)sizeof path)
            unlink(path);
    if (d) closedir(d);
}
