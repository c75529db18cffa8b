/* clip - a video file's frames one by one, in the order they are shown, or why it is damaged. For video.c. */
#ifndef FORMATS_CLIP_H
#define FORMATS_CLIP_H

#include <stdbool.h>
#include <stdint.h>

#include <libavcodec/avcodec.h>
#include <libavcodec/bsf.h>
#include <libavformat/avformat.h>

struct clip {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVBSFContext *filter; /* NULL: packets go to the decoder as they are */
    AVPacket *packet;
    AVFrame *frame; /* the latest */
    bool numbered;  /* a picture's pts is its packet's number, so that the two find each other */
    int64_t sent;   /* packets */
    struct losses { /* numbers of packets whose pictures are built on others that are not there */
        int64_t *number;
        int count, room;
    } lost;
    bool losing; /* each one that comes is such a packet */
};

/* How to read it. threads: of the decoder; 0: one per processor. plain: without the metadata between a
 * picture's bytes, which can be malformed where the picture is not. */
struct clip_way {
    int threads;
    bool plain;
};

/* Opens the file and its decoder. false: reason in err; clip_close() all the same. */
bool clip_open(struct clip *c, const char *path, const struct clip_way *way, char *err, size_t errlen);
void clip_close(struct clip *c);

/* Whether the file is cut short, as far as it can be told without reading it. */
bool clip_is_whole(const struct clip *c, char *err, size_t errlen);

/* How many frames there should be: packets that are to be shown. A guess, for some codecs put two pictures
 * into a packet, or one into two. */
bool clip_count(struct clip *c, int64_t *count, char *err, size_t errlen);

/* The next frame into c->frame; number is for the message. 1, 0 at the end, -1 with the reason in err. */
int clip_next(struct clip *c, int64_t number, char *err, size_t errlen);

/* Whether reading it without metadata is possible and may do. */
bool clip_has_metadata(const struct clip *c);

#endif
