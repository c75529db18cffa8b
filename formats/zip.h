/* zip - the members of a zip archive: stored or deflated, the archive of any size (zip64), in one file or cut
 * into several.
 *
 *   local header, bytes | local header, bytes | ... | directory | [zip64 end, its locator] | end
 *
 * The directory at the end is what counts; a local header is only asked where its member's bytes start, and
 * must have the member's name. Every count and offset is checked against the archive's size before it is
 * used, and the directory must reach just to the end records: nothing can hide behind it. Encrypted members,
 * other compression and archives over several disks are refused. */
#ifndef FORMATS_ZIP_H
#define FORMATS_ZIP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { ZIP_MAX_DIRECTORY = 256 << 20 }; /* bytes */

struct zip {
    char *path;         /* of the archive, or of its first piece */
    uint64_t bytes;     /* all pieces together */
    uint64_t directory; /* where it starts: members end before */
    int count;
    struct zip_entry { /* in the directory's order */
        char *name;    /* never empty; not always UTF-8 */
        int method, flags;
        uint32_t crc; /* CRC-32 of the member, unpacked */
        uint64_t packed, bytes, header;
    } * entry;
    int pieces;
    struct zip_piece {
        int fd;
        uint64_t start, bytes;
    } * piece;
    struct zip_entry **by_name;
};

/* The archive that these files are, one after another. NULL with the reason in err, which starts with the
 * file's path. */
struct zip *zip_open(const char *const *path, int pieces, char *err, size_t errlen);
void zip_close(struct zip *z); /* NULL is fine */

/* The first member of that name, or NULL. */
const struct zip_entry *zip_find(const struct zip *z, const char *name);

/* Unpacks a member into `to`, or to nowhere when that is NULL, and checks its size and CRC. false: reason in
 * err, which does not name the member. */
bool zip_unpack(const struct zip *z, const struct zip_entry *e, FILE *to, char *err, size_t errlen);

/* Of a stored member: where its e->bytes bytes are, and n bytes from a place of the archive. */
bool zip_locate(const struct zip *z, const struct zip_entry *e, uint64_t *at, char *err, size_t errlen);
bool zip_read(const struct zip *z, uint64_t at, void *data, size_t n, char *err, size_t errlen);

#endif
