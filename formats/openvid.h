/* openvid - a CSV of clips with the columns of OpenVid-1M.
 *
 * Columns go by name (formats/csv.h): video and caption, which must be there, and any of the numbers below
 * and camera motion. */
#ifndef FORMATS_OPENVID_H
#define FORMATS_OPENVID_H

#include <jansson.h>

#include "formats/csv.h"

enum openvid_number {
    OPENVID_AESTHETIC,
    OPENVID_MOTION,
    OPENVID_CONSISTENCY,
    OPENVID_FRAME,
    OPENVID_FPS,
    OPENVID_SECONDS,
    OPENVID_NUMBERS
};

struct openvid {
    struct csv *csv;                                     /* csv_next() reads the rows */
    int video, caption, camera, number[OPENVID_NUMBERS]; /* columns; -1: not there */
};

/* Reads the header from fd. false with the reason in err, which starts with the line. Does not close fd. */
bool openvid_open(struct openvid *t, int fd, char *err, size_t errlen);
void openvid_close(struct openvid *t);

/* Of the latest row: the video's name, which may be empty; a number, false when there is none. */
const char *openvid_video(const struct openvid *t);
bool openvid_number(const struct openvid *t, enum openvid_number which, double *value);

/* The latest row as a new object: key (the video), path (folder/video, of no folder the video), caption, and
 * what else the row tells, numbers as numbers. NULL: out of memory, or a folder that is not UTF-8. */
json_t *openvid_json(const struct openvid *t, const char *folder);

#endif
