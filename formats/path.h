/* path - what a path names. */
#ifndef FORMATS_PATH_H
#define FORMATS_PATH_H

#include <stddef.h>

/* Links are followed. UNKNOWN: the system cannot tell now (the reason is in err), which is not the same as
 * ABSENT: what is done without a file that is there is another result. */
enum path_kind { PATH_UNKNOWN, PATH_ABSENT, PATH_FILE, PATH_FOLDER, PATH_OTHER };
enum path_kind path_kind(const char *path, char *err, size_t errlen);

#endif
