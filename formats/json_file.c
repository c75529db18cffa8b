#include "formats/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/atomic.h"
#include "formats/error.h"

json_t *json_file_read(const char *path, long long max, char *err, size_t errlen)
{
    json_error_t why;
    json_t *root = NULL;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0)
        fail(err, errlen, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        fail(err, errlen, "%s: not a regular file", path);
    else if (st.st_size > max)
        fail(err, errlen, "%s: %lld bytes, more than %lld", path, (long long)st.st_size, max);
    else if (!(root = json_loadfd(fd, JSON_REJECT_DUPLICATES, &why)))
        fail(err, errlen, "%s: line %d: %s", path, why.line, why.text);
    else if (!json_is_object(root)) {
        fail(err, errlen, "%s: not a JSON object", path);
        json_decref(root);
        root = NULL;
    }
    if (fd >= 0) close(fd);
    return root;
}

bool json_file_write(const char *path, json_t *value, char *err, size_t errlen)
{
    struct atomic_file a;
    if (!atomic_open(&a, path, err, errlen)) return false;
    if ((json_dumpf(value, a.f, JSON_INDENT(2)) == 0 && fputc('\n', a.f) != EOF) ||
        fail(err, errlen, "%s: %s", path, strerror(errno)))
        return atomic_commit(&a, err, errlen);
    atomic_abort(&a);
    return false;
}
