/* unpack - extracts the wanted files from a data set's archives (zip_parts.h). */
#ifndef FORMATS_UNPACK_H
#define FORMATS_UNPACK_H

#include "formats/names.h"

enum unpack_event {
    UNPACK_BEGUN,  /* a file is being unpacked; text: the archive's name */
    UNPACK_AGAIN,  /* another file of that name is left out; text: where it is */
    UNPACK_FAILED, /* a file, or with name NULL an archive; text: the reason */
};

struct unpack {
    const char *from, *to;      /* folders: of the archives, and for the files; both must exist */
    const struct names *wanted; /* file names, in whatever folder of an archive they are */
    double growth;              /* what comes out of an archive is at most so many times as large as it */
    bool *there;                /* [wanted->count], all false: set for what is in place in the end */
    void (*tell)(enum unpack_event event, const char *name, const char *text);
    int archives;
    int64_t unpacked, present, again; /* present: was there already, as long as its member */
};

/* Goes through the archives one by one; each file appears whole or not at all. What fails is reported, and
 * the others are unpacked. false with the reason in err: the archives cannot be listed, or there are none. */
bool unpack_wanted(struct unpack *u, char *err, size_t errlen);

#endif
