/* video - frames out of a video file, by libav*: no external process, nothing but this one file opened. */
#ifndef FORMATS_VIDEO_H
#define FORMATS_VIDEO_H

#include "formats/tensor.h"

/* Which of a clip's `total` frames to take, in rising order: fills index[0..count). */
typedef void video_choice(int64_t *index, int64_t count, int64_t total);
/* Spread over the whole clip, first and last included: floor(k (total-1) / (count-1)); a single one is the
 * first. A clip that is too short repeats frames. */
video_choice video_spread;

/* How frames are scaled; all are area-aware when they shrink. VIDEO_PLAIN: the triangle as VideoPhy-2's own
 * reader has it (decord 0.6: libswscale without any flag for exactness, turned before it is scaled), byte for
 * byte on x86: one level darker than VIDEO_TRIANGLE on the average, which is right to a hundredth. */
enum video_kernel { VIDEO_BICUBIC, VIDEO_TRIANGLE, VIDEO_PLAIN };

struct video_info {
    int width, height; /* of the file, upright */
    int64_t frames;    /* that decode, whatever the container claims */
    double fps;        /* 0: the file does not say */
};

/* Decodes the file at path and fills out, U8 [count,height,width,3] RGB, with the frames chosen, stretched to
 * its size (libav_scaler(): by that kernel; the file's colour matrix, range and chroma location). Frames are
 * numbered in the order they are shown; a display matrix of quarter turns and mirrorings is obeyed, any other
 * refused (painter_find_turn()); the pixels' aspect ratio and timing are not looked at.
 *
 * Whatever the decoder reports as damaged fails the whole clip, as does a picture built on one that is not
 * there, and a file that is cut short, if its container has an end (whole.h): no frame is guessed. Pictures
 * before the first that can be decoded are none (a recording may begin anywhere). The result does not depend
 * on threads (0: one per processor). false with the reason in err. */
bool video_read(const char *path, int threads, video_choice *choose, enum video_kernel kernel,
                struct tensor *out, struct video_info *info, char *err, size_t errlen);

#endif
