/* json_file - whole JSON files (configs, indices): read up to a bound, written whole or not at all. */
#ifndef FORMATS_JSON_FILE_H
#define FORMATS_JSON_FILE_H

#include <jansson.h>
#include <stdbool.h>

/* An object of at most `max` bytes of text, no name twice. NULL with the reason in err, which starts with the
 * path. */
json_t *json_file_read(const char *path, long long max, char *err, size_t errlen);

/* Indented, with a line end. false: reason in err. */
bool json_file_write(const char *path, json_t *value, char *err, size_t errlen);

#endif
