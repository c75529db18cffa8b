#include "formats/mp4.h"

#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>

#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/libav.h"

/* The number of threads changes what an encoder writes, so it is not the machine's to choose. */
enum { ENCODER_THREADS = 4 };

struct writer {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVPacket *packet;
    AVFrame *rgb, *yuv;
    struct SwsContext *scaler;
};

const char *mp4_encoder(const char *wanted, char *err, size_t errlen)
{
    static const char *const best[] = {"libx264", "libopenh264", "mpeg4"};
    for (size_t i = 0; i < sizeof best / sizeof *best; i++)
        if ((!wanted || !strcmp(wanted, best[i])) && avcodec_find_encoder_by_name(best[i])) return best[i];
    fail(err, errlen, "no encoder %s in this libavcodec", wanted ? wanted : "for mp4");
    return NULL;
}

static void close_writer(struct writer *w)
{
    sws_freeContext(w->scaler);
    av_frame_free(&w->rgb);
    av_frame_free(&w->yuv);
    av_packet_free(&w->packet);
    avcodec_free_context(&w->codec);
    if (w->format) avio_closep(&w->format->pb);
    avformat_free_context(w->format);
}

static bool open_codec(struct writer *w, const char *name, int width, int height, double fps, char *err,
                       size_t errlen)
{
    const AVCodec *encoder = avcodec_find_encoder_by_name(name);
    AVCodecContext *c = w->codec = avcodec_alloc_context3(encoder);
    if (!encoder || !c)
        return libav_error(err, errlen, name, encoder ? AVERROR(ENOMEM) : AVERROR_ENCODER_NOT_FOUND);
    c->width = width;
    c->height = height;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->framerate = av_d2q(fps, 1001000);
    c->time_base = av_inv_q(c->framerate);
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_BT709;
    c->chroma_sample_location = AVCHROMA_LOC_LEFT;
    c->thread_count = ENCODER_THREADS;
    c->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_GLOBAL_HEADER;

    AVDictionary *options = NULL;
    if (!strcmp(name, "libx264")) {
        av_dict_set(&options, "crf", "18", 0);
        av_dict_set(&options, "x264-params", "cpu-independent=1", 0);
    } else if (!strcmp(name, "mpeg4")) {
        c->flags |= AV_CODEC_FLAG_QSCALE;
        c->global_quality = 2 * FF_QP2LAMBDA;
    } else {
        c->bit_rate = (int64_t)(fps * width * height);
    }
    int r = avcodec_open2(c, encoder, &options);
    av_dict_free(&options);
    return r >= 0 || libav_error(err, errlen, name, r);
}

static bool open_file(struct writer *w, const char *path, char *err, size_t errlen)
{
    char url[4096 + 64]; /* the prefix keeps a folder like "a:b" from being taken for a protocol */
    snprintf(url, sizeof url, "file:%s", path);
    int r = avformat_alloc_output_context2(&w->format, NULL, "mp4", url);
    if (r >= 0 && !(w->stream = avformat_new_stream(w->format, NULL))) r = AVERROR(ENOMEM);
    if (r >= 0) r = avcodec_parameters_from_context(w->stream->codecpar, w->codec);
    if (r >= 0) r = avio_open(&w->format->pb, url, AVIO_FLAG_WRITE);
    if (r < 0) return libav_error(err, errlen, path, r);
    w->format->flags |= AVFMT_FLAG_BITEXACT; /* no version, no time of day */
    w->stream->time_base = w->codec->time_base;
    w->stream->avg_frame_rate = w->codec->framerate;

    AVDictionary *options = NULL;
    av_dict_set(&options, "movflags", "+faststart", 0);
    r = avformat_write_header(w->format, &options);
    av_dict_free(&options);
    return r >= 0 || libav_error(err, errlen, path, r);
}

/* Hands the encoder a frame (NULL: no more will come) and the file all packets that come out. */
static int encode(struct writer *w, const AVFrame *frame)
{
    int r = avcodec_send_frame(w->codec, frame);
    while (r >= 0 && (r = avcodec_receive_packet(w->codec, w->packet)) >= 0) {
        w->packet->duration = 1; /* frame; else players cut the last one short */
        av_packet_rescale_ts(w->packet, w->codec->time_base, w->stream->time_base);
        r = av_interleaved_write_frame(w->format, w->packet);
    }
    return r == AVERROR(EAGAIN) || r == AVERROR_EOF ? 0 : r;
}

/* libswscale may read past a row's end: give it rows of its own. */
static int convert(struct writer *w, const uint8_t *pixels, int64_t number)
{
    for (int y = 0; y < w->rgb->height; y++, pixels += 3 * w->rgb->width)
        memcpy(w->rgb->data[0] + (ptrdiff_t)y * w->rgb->linesize[0], pixels, 3 * (size_t)w->rgb->width);
    int r = av_frame_make_writable(w->yuv); /* the encoder may still hold the last one */
    w->yuv->pts = number;
    return r < 0 ? r : sws_scale_frame(w->scaler, w->yuv, w->rgb);
}

static bool write_frames(struct writer *w, const char *path, const struct tensor *video, char *err,
                         size_t errlen)
{
    int64_t frames = video->shape[0], bytes = video->shape[1] * video->shape[2] * 3;
    int height = (int)video->shape[1], width = (int)video->shape[2], r = 0;
    w->packet = av_packet_alloc();
    w->rgb = libav_picture(AV_PIX_FMT_RGB24, width, height);
    w->yuv = libav_picture(AV_PIX_FMT_YUV420P, width, height);
    if (!w->packet || !w->rgb || !w->yuv) return libav_error(err, errlen, path, AVERROR(ENOMEM));
    w->yuv->color_range = w->codec->color_range;
    w->yuv->colorspace = w->codec->colorspace;
    w->yuv->color_primaries = w->codec->color_primaries;
    w->yuv->color_trc = w->codec->color_trc;
    w->yuv->chroma_location = w->codec->chroma_sample_location;
    if (!(w->scaler = libav_scaler(w->rgb, w->yuv, SWS_BICUBIC | LIBAV_EXACT, 1, err, errlen))) return false;

    for (int64_t i = 0; i < frames && r >= 0; i++) {
        r = convert(w, (const uint8_t *)video->data + i * bytes, i);
        if (r >= 0) r = encode(w, w->yuv);
    }
    if (r >= 0) r = encode(w, NULL);
    if (r >= 0) r = av_write_trailer(w->format);
    if (r >= 0) r = w->format->pb->error;
    int closed = avio_closep(&w->format->pb);
    if (r >= 0) r = closed;
    return r >= 0 || libav_error(err, errlen, path, r);
}

bool mp4_write(const char *path, const struct tensor *video, const char *encoder, double fps, char *err,
               size_t errlen)
{
    int64_t frames = video->shape[0], height = video->shape[1], width = video->shape[2];
    if (!tensor_is(video, DT_U8, 4, -1, -1, -1, 3)) return fail(err, errlen, "video is not U8 [F,H,W,3]");
    if (frames < 1) return fail(err, errlen, "a video without frames");
    if (width < 2 || height < 2 || width % 2 || height % 2 || width > 16384 || height > 16384)
        return fail(err, errlen, "frames of %lldx%lld: mp4 wants even sizes of 2 to 16384", (long long)width,
                    (long long)height);
    libav_quiet();
    struct writer w = {0};
    struct atomic_file file;
    if (!atomic_temporary(&file, path, err, errlen)) return false;
    bool good = open_codec(&w, encoder, (int)width, (int)height, fps, err, errlen) &&
                open_file(&w, file.temporary, err, errlen) && write_frames(&w, path, video, err, errlen);
    close_writer(&w);
    if (good) return atomic_commit(&file, err, errlen);
    atomic_abort(&file);
    return false;
}
