/* mp4 - frames into an H.264 (or MPEG-4) file, by libav*. */
#ifndef FORMATS_MP4_H
#define FORMATS_MP4_H

#include "formats/tensor.h"

/* The encoder that will be used: wanted, or when that is NULL the best that this libavcodec has of libx264,
 * libopenh264 and mpeg4. NULL with the reason in err. */
const char *mp4_encoder(const char *wanted, char *err, size_t errlen);

/* Writes video, U8 [F,H,W,3] RGB with even H and W, to path: yuv420p by BT.709, limited range, and tagged so;
 * index in front (faststart). libx264 works at crf 18, mpeg4 at quantiser 2, libopenh264 at one bit a pixel.
 * The same frames give the same bytes whatever the machine's processors, given the same libraries. The file
 * appears whole or not at all. false with the reason in err. */
bool mp4_write(const char *path, const struct tensor *video, const char *encoder, double fps, char *err,
               size_t errlen);

#endif
