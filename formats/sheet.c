#include "formats/sheet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libavcodec/avcodec.h>

#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/libav.h"
#include "formats/video.h"

enum { WIDTH = SHEET_COLUMNS * SHEET_CELL, GAP = 2, TALLEST = 4 * SHEET_CELL };

static void copy_rows(uint8_t *to, ptrdiff_t to_stride, const uint8_t *from, ptrdiff_t from_stride,
                      size_t bytes, int rows)
{
    for (int y = 0; y < rows; y++, to += to_stride, from += from_stride) memcpy(to, from, bytes);
}

bool sheet_add(struct sheet *s, const struct tensor *video, char *err, size_t errlen)
{
    if (s->rows == SHEET_ROWS) return true;
    int64_t index[SHEET_COLUMNS];
    int height = (int)video->shape[1], width = (int)video->shape[2], cell = SHEET_CELL - GAP;
    int64_t fitting = ((int64_t)cell * height + width / 2) / width;
    int tall = (int)(fitting < 1 ? 1 : fitting > TALLEST ? TALLEST : fitting);
    size_t stride = 3 * WIDTH, old = stride * (size_t)s->height, added = stride * (size_t)(tall + GAP);
    uint8_t *rgb = realloc(s->rgb, old + added);
    if (!rgb) return fail(err, errlen, "no memory for the contact sheet");
    s->rgb = rgb;
    memset(rgb + old, 0, added);

    libav_quiet();
    AVFrame *from = libav_picture(AV_PIX_FMT_RGB24, width, height),
            *to = libav_picture(AV_PIX_FMT_RGB24, cell, tall);
    struct SwsContext *scaler = NULL;
    bool good = from && to;
    if (!good) libav_error(err, errlen, "contact sheet", AVERROR(ENOMEM));
    good = good && (scaler = libav_scaler(from, to, SWS_BICUBIC | LIBAV_EXACT, 1, err, errlen));
    video_spread(index, SHEET_COLUMNS, video->shape[0]);
    for (int i = 0; i < SHEET_COLUMNS && good; i++) {
        const uint8_t *frame = (const uint8_t *)video->data + index[i] * 3 * height * width;
        copy_rows(from->data[0], from->linesize[0], frame, 3 * (ptrdiff_t)width, 3 * (size_t)width, height);
        int r = sws_scale_frame(scaler, to, from);
        good = r >= 0 || libav_error(err, errlen, "contact sheet", r);
        copy_rows(rgb + old + (size_t)(3 * i * SHEET_CELL), (ptrdiff_t)stride, to->data[0], to->linesize[0],
                  3 * (size_t)cell, tall);
    }
    sws_freeContext(scaler);
    av_frame_free(&from);
    av_frame_free(&to);
    if (good) s->height += tall + GAP, s->rows++;
    return good;
}

bool sheet_add_file(struct sheet *s, const char *path, char *err, size_t errlen)
{
    struct video_info info;
    uint8_t small[16 * 16 * 3]; /* the file's size is known once it has been decoded */
    struct tensor probe = tensor_of(DT_U8, small, 4, (int64_t)1, (int64_t)16, (int64_t)16, (int64_t)3);
    if (!video_read(path, 1, video_spread, VIDEO_BICUBIC, &probe, &info, err, errlen)) return false;
    struct tensor frames = tensor_of(DT_U8, NULL, 4, (int64_t)SHEET_COLUMNS, (int64_t)info.height,
                                     (int64_t)info.width, (int64_t)3);
    frames.data = malloc(tensor_bytes(&frames));
    bool good = frames.data || fail(err, errlen, "no memory for the contact sheet");
    good = good && video_read(path, 1, video_spread, VIDEO_BICUBIC, &frames, &info, err, errlen) &&
           sheet_add(s, &frames, err, errlen);
    free(frames.data);
    return good;
}

/* The picture as one packet of PNG. */
static int encode_png(AVCodecContext *c, const AVFrame *picture, AVPacket *packet)
{
    c->width = picture->width;
    c->height = picture->height;
    c->pix_fmt = picture->format;
    c->time_base = (AVRational){1, 1};
    c->thread_count = 1;
    c->flags |= AV_CODEC_FLAG_BITEXACT;
    int r = avcodec_open2(c, NULL, NULL);
    if (r >= 0) r = avcodec_send_frame(c, picture);
    if (r >= 0) r = avcodec_send_frame(c, NULL);
    return r < 0 ? r : avcodec_receive_packet(c, packet);
}

/* The sheet as a new packet; NULL with the reason, which starts with name, in err. */
static AVPacket *encode(const struct sheet *s, const char *name, char *err, size_t errlen)
{
    const int refusals = libav_refusals();
    libav_quiet();
    const AVCodec *png = avcodec_find_encoder(AV_CODEC_ID_PNG);
    if (!png) return fail(err, errlen, "%s: no png encoder in this libavcodec", name), NULL;
    AVCodecContext *c = avcodec_alloc_context3(png);
    AVPacket *packet = av_packet_alloc();
    AVFrame *picture = libav_picture(AV_PIX_FMT_RGB24, WIDTH, s->height);
    int r = AVERROR(ENOMEM);
    if (c && packet && picture) {
        copy_rows(picture->data[0], picture->linesize[0], s->rgb, 3 * WIDTH, 3 * WIDTH, s->height);
        r = encode_png(c, picture, packet);
        if (libav_refusals() != refusals) r = AVERROR(ENOMEM);
    }
    if (r < 0) libav_error(err, errlen, name, r), av_packet_free(&packet);
    avcodec_free_context(&c);
    av_frame_free(&picture);
    return packet;
}

bool sheet_put(const struct sheet *s, FILE *f, char *err, size_t errlen)
{
    AVPacket *packet = encode(s, "contact sheet", err, errlen);
    bool good = packet && (fwrite(packet->data, 1, (size_t)packet->size, f) == (size_t)packet->size ||
                           fail(err, errlen, "contact sheet: %s", strerror(errno)));
    av_packet_free(&packet);
    return good;
}

bool sheet_write(const struct sheet *s, const char *path, char *err, size_t errlen)
{
    struct atomic_file file;
    AVPacket *packet = encode(s, path, err, errlen);
    bool good = packet && atomic_open(&file, path, err, errlen);
    if (good) {
        fwrite(packet->data, 1, (size_t)packet->size, file.f); /* a short write sticks to the stream */
        good = atomic_commit(&file, err, errlen);
    }
    av_packet_free(&packet);
    return good;
}

void sheet_free(struct sheet *s)
{
    free(s->rgb);
    *s = (struct sheet){0};
}
