/* path - whether a path names a file, a folder, something else or nothing. */
#ifndef FORMATS_PATH_H
#define FORMATS_PATH_H

#include <stddef.h>

/* Links are followed. UNKNOWN: the system call failed (reason in err). That is not ABSENT: to go on without a
 * file that exists would give another result. */
enum path_kind { PATH_UNKNOWN, PATH_ABSENT, PATH_FILE, PATH_FOLDER, PATH_OTHER };
enum path_kind path_kind(const char *path, char *err, size_t errlen);

#endif
