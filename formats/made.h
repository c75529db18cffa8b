/* made - JSON lines that tell what was made of the lines of a list, and the files that they speak of.
 *
 *   {"key":"k","prompt":"p"}                                                        a line of the list
 *   {"key":"k","prompt":"p","path":"videos/k.mp4","bytes":1234,"crc32c":567, ..}    what was made of it
 *
 * It is made of it when it has its key and its words: caption, prompt and rule (rule_asked, once a score has
 * the rule's place) are the same, or in neither; what the list says of path (source, once another path has
 * its place) and crc32c, it says, too. It is good when the file at path is there with that many bytes and
 * that checksum, as far as it tells them. */
#ifndef FORMATS_MADE_H
#define FORMATS_MADE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many bytes a file has, and their CRC-32C. false with the reason, which starts with the path, in err. */
bool file_checksum(const char *path, int64_t *bytes, uint32_t *crc, char *err, size_t errlen);

/* Adds the lines of the file at path to made, an object, by their keys; of one key the last line counts. No
 * such file: no lines. A last line without its end, which a killed writer leaves, does not count. false with
 * the reason, which starts with the path, in err. */
bool made_read(json_t *made, const char *path, char *err, size_t errlen);

/* Whether line, which may be NULL, is made of item, a line of the list, and good; if not, what is wrong with it is
 * in why, or why that cannot be told now. */
enum made { MADE, MADE_NOT, MADE_UNKNOWN };
enum made made_good(const json_t *line, const json_t *item, char *why, size_t size);

#endif
