/* error - how library code reports a failure: the reason into err, false to the caller. */
#ifndef FORMATS_ERROR_H
#define FORMATS_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "formats/plain.h"

/* Text from a file (a tensor's name, a field) may be part of it, so what a terminal would obey is not
 * passed on (plain.h).
 *
 *   return fail(err, errlen, "%s: %s", path, strerror(errno)); */
__attribute__((format(printf, 3, 4))) static inline bool fail(char *err, size_t errlen, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, errlen, fmt, ap);
    va_end(ap);
    if (errlen > 0) make_plain(err);
    return false;
}

#endif
