/* zip_parts - the archives that a data set comes in: every *.zip of a folder, and those that were cut into
 * files called NAME_partaa, NAME_partab, .. */
#ifndef FORMATS_ZIP_PARTS_H
#define FORMATS_ZIP_PARTS_H

#include "formats/zip.h"

struct zip_parts {
    int count;
    struct zip_part { /* ordered as people order names: part2 before part10 */
        char *name;   /* without the folder; of the first piece */
        int pieces;
        char **path;
    } * part;
};

/* Looks into subfolders, too, but not into hidden ones. false with the reason in err: the folder cannot be
 * read, or a piece is missing between others. */
bool zip_parts_list(struct zip_parts *p, const char *folder, char *err, size_t errlen);
void zip_parts_free(struct zip_parts *p);

#endif
