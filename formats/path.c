#include "formats/path.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/error.h"

enum path_kind path_kind(const char *path, char *err, size_t errlen)
{
    struct stat st;
    if (stat(path, &st) == 0)
        return S_ISREG(st.st_mode) ? PATH_FILE : S_ISDIR(st.st_mode) ? PATH_FOLDER : PATH_OTHER;
    if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG) return PATH_ABSENT;
    fail(err, errlen, "%s: %s", path, strerror(errno));
    return PATH_UNKNOWN;
}
