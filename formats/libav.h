/* libav - what the users of FFmpeg's libraries share: messages kept off stderr and told as reasons, and one
 * way to scale and convert pictures. */
#ifndef FORMATS_LIBAV_H
#define FORMATS_LIBAV_H

#include <stdbool.h>
#include <stddef.h>

#include <libavutil/frame.h>
#include <libswscale/swscale.h>

/* From here on libav* prints nothing; the last error it would have printed is kept for libav_error(), and
 * what was kept so far is forgotten. All of this is a thread's own: it hears what it makes libav* say. */
void libav_quiet(void);

/* For a codec's `opaque`: what the codec's own threads say is heard by the thread that asks for this. */
void *libav_listener(void);

/* How many messages, from mere information up, codecs have uttered since libav_quiet(). */
int libav_complaints(void);

/* What some decoders and demuxers tell in messages only, since the last time it was asked for, as a sum. */
enum {
    LIBAV_NO_REFERENCE = 1, /* a picture is built on one that is not there */
    LIBAV_NUMBER_GAP = 2,   /* H.264: numbers of reference pictures are left out */
    LIBAV_COUNTER_GAP = 4   /* MPEG-TS: packets are missing, or another recording begins */
};
int libav_heard(void);

/* How often this process, in any thread, was refused memory in the way that libav* asks for it. libav* goes on where
 * it has none for a reference, an option or a part of an index: when this has grown, what came out may be another
 * thing. */
int libav_refusals(void);

/* "what: the error's name (what libav* said last)" into err; code is an AVERROR, or 0 when there is none.
 * Always false, so that a caller can return it. */
bool libav_error(char *err, size_t errlen, const char *what, int code);

/* A picture with memory of its own, rows aligned and padded as libswscale's vector code likes them; NULL: no
 * memory. */
AVFrame *libav_picture(int format, int width, int height);

/* A scaler between two pictures like these. Matrix and range are taken from color_range and colorspace; when
 * they say nothing: BT.601, limited, but gray full. A picture that is RGB has no matrix.
 *
 * flags: one of libswscale's kernels, say SWS_BICUBIC (area-aware when they shrink), and perhaps what is in
 * LIBAV_EXACT: rounded exactly, chroma at full resolution and where its location says. Without that it is
 * what FFmpeg's scale filter makes with these flags: chroma of 4:2:0 half-way down and centred, results on
 * the average one level darker. The result does not depend on threads (0: one per processor). NULL with the
 * reason in err. */
enum { LIBAV_EXACT = SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP };
struct SwsContext *libav_scaler(const AVFrame *from, const AVFrame *to, int flags, int threads, char *err,
                                size_t errlen);

#endif
