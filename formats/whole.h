/* whole - whether a video file is all there, by what its container says of its end. Demuxers read a file that
 * was cut between two frames, and some a file that was cut in one, like a shorter file. */
#ifndef FORMATS_WHOLE_H
#define FORMATS_WHOLE_H

#include <stdbool.h>
#include <stddef.h>

#include <libavformat/avformat.h>

/* The file that format was opened from, seen from the video stream. What is looked at:
 *
 *   Matroska, WebM   the segment's size; where that is unknown, as of a live file, the sizes of its elements
 *   mp4, mov         of fragments: every box, what sidx promises, the duration in mehd; one that has neither,
 *                    and is not made of segments (styp), has to end with mfra
 *   AVI              the list of frames
 *   FLV              every tag; the duration, and the file's size with it
 *   Ogg              the page that ends the stream
 *   GIF              the trailer
 *   NUT              every packet and frame
 *   YUV4MPEG         the last frame
 *   ASF, WMV         the file's size
 *
 * A transport or program stream, a live file and one without the above say nothing of their end, and are
 * whole. So is what cannot be made sense of: that is the demuxer's to tell. false: it is cut short, or cannot
 * be read; the reason in err. */
bool whole_file(AVFormatContext *format, const AVStream *video, char *err, size_t errlen);

/* For whole.c, whole_mp4.c and whole_nut.c. */
struct whole {
    AVIOContext *io;
    const AVStream *video;
    int64_t size;
    char *err;
    size_t errlen;
};
/* Whether bytes up to `end` are there; else false, with the reason: `what` would end there. */
bool whole_until(struct whole *w, int64_t end, const char *what);
bool whole_mp4(struct whole *w);
bool whole_nut(struct whole *w);

#endif
