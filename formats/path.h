/* path - whether a path names a file, a folder, something else or nothing. */
#ifndef FORMATS_PATH_H
#define FORMATS_PATH_H

#include <stddef.h>
#include <stdio.h>

/* Links are followed. UNKNOWN: the system call failed (reason in err). That is not ABSENT: to go on without a
 * file that exists would give another result. */
enum path_kind { PATH_UNKNOWN, PATH_ABSENT, PATH_FILE, PATH_FOLDER, PATH_OTHER };
enum path_kind path_kind(const char *path, char *err, size_t errlen);

/* Opens a file that a folder has, to be read. What is no regular one is refused: at a pipe the program would wait, for
 * ever perhaps. NULL with the reason in err, and errno, of which ENOENT and ENOTDIR say that there is none. */
FILE *open_regular(const char *path, char *err, size_t errlen);

/* The path of a file as seen from the folder of another file, which need not be there; NULL: from the current folder.
 * Links are followed. A new text; NULL: one of the folders or the file is not there, or no memory. */
char *path_beside(const char *file, const char *other);

#endif
