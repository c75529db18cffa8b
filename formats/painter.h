/* painter - a clip's frames into a tensor: scaled, converted to RGB, turned upright. For video.c. */
#ifndef FORMATS_PAINTER_H
#define FORMATS_PAINTER_H

#include <libavformat/avformat.h>
#include <libswscale/swscale.h>

#include "formats/video.h"

struct painter {
    enum video_kernel kernel;
    int threads;  /* of the scaler; 0: one per processor */
    struct turn { /* transposed first, then flipped */
        bool transpose, flip_x, flip_y;
    } turn;
    struct stage { /* of the way there: a scaler and what it scales to */
        struct SwsContext *scaler;
        struct look { /* of the frames that it was made for */
            int width, height, format, matrix, range, chroma;
        } look;
        AVFrame *to;
    } even, last;
    AVFrame *turned;
};

/* How the stream's display matrix, [a b u; c d v; x y w], wants it turned: it takes a pixel (p,q) to
 * (a p + c q, b p + d q). Quarter turns, but for a degree, and mirrorings are obeyed; one that takes pictures
 * to a line or a point means nothing. With VIDEO_PLAIN the angle alone is obeyed, not the mirroring. false:
 * it is turned otherwise; the reason in err. */
bool painter_find_turn(struct painter *p, const AVStream *s, char *err, size_t errlen);

/* A frame into out, U8 [height,width,3] RGB. */
bool painter_paint(struct painter *p, const AVFrame *frame, uint8_t *out, int height, int width, char *err,
                   size_t errlen);
void painter_free(struct painter *p);

#endif
