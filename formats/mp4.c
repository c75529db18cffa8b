#include "formats/mp4.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>

#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/libav.h"

/* The number of threads changes what an encoder writes, so it is not the machine's to choose. */
enum { ENCODER_THREADS = 4 };

/* A file as libav reads or writes it. Its own protocols seek by lseek() and go on where that failed, with bytes in
 * the wrong place; this one keeps its place itself, and a failure sticks. */
struct port {
    int fd;
    int64_t at;
    int *error; /* the first errno; of all ports of a writer */
};

struct writer {
    AVCodecContext *codec;
    AVPacket **packet; /* all that the encoder made, in its order */
    int64_t packets;
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

/* ---- the file ------------------------------------------------------------------------------------------ */

static int port_failed(struct port *p)
{
    if (!*p->error) *p->error = errno ? errno : EIO;
    return AVERROR(*p->error);
}

static int port_read(void *port, uint8_t *to, int n)
{
    struct port *p = port;
    ssize_t got = pread(p->fd, to, (size_t)n, p->at);
    if (got < 0) return port_failed(p);
    p->at += got;
    return got ? (int)got : AVERROR_EOF;
}

#if LIBAVFORMAT_VERSION_MAJOR < 61
#define WRITTEN uint8_t
#else
#define WRITTEN const uint8_t
#endif

static int port_write(void *port, WRITTEN *from, int n)
{
    struct port *p = port;
    for (int put = 0; put < n;) {
        ssize_t some = pwrite(p->fd, from + put, (size_t)(n - put), p->at);
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) return port_failed(p);
        put += (int)some, p->at += some;
    }
    return n;
}

static int64_t port_seek(void *port, int64_t offset, int from)
{
    struct port *p = port;
    struct stat st;
    from &= ~AVSEEK_FORCE;
    if ((from == AVSEEK_SIZE || from == SEEK_END) && fstat(p->fd, &st)) return port_failed(p);
    if (from == AVSEEK_SIZE) return st.st_size;
    return p->at = offset + (from == SEEK_CUR ? p->at : from == SEEK_END ? st.st_size : 0);
}

/* For the muxer, which reads back what it wrote when it puts the index in front. */
static int port_open(AVFormatContext *format, AVIOContext **io, const char *url, int flags,
                     AVDictionary **options)
{
    enum { BUFFER = 1 << 16 };
    bool write = flags & AVIO_FLAG_WRITE;
    struct port *p = av_mallocz(sizeof *p);
    uint8_t *buffer = av_malloc(BUFFER);
    (void)options;
    if (p) *p = (struct port){.fd = -1, .error = format->opaque};
    if (p && buffer) p->fd = open(url, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    int r = !p || !buffer ? AVERROR(ENOMEM) : p->fd < 0 ? port_failed(p) : 0;
    *io = r < 0
              ? NULL
              : avio_alloc_context(buffer, BUFFER, write, p, port_read, write ? port_write : NULL, port_seek);
    if (*io) return 0;
    if (p && p->fd >= 0) close(p->fd);
    av_free(buffer);
    av_free(p);
    return r < 0 ? r : AVERROR(ENOMEM);
}

static int port_close(AVFormatContext *format, AVIOContext *io)
{
    (void)format;
    if (!io) return 0;
    struct port *p = io->opaque;
    avio_flush(io);
    int r = io->error;
    if (close(p->fd) && !r) r = port_failed(p);
    av_free(p);
    av_freep(&io->buffer);
    avio_context_free(&io);
    return r;
}

/* ---- the encoder --------------------------------------------------------------------------------------- */

static void close_writer(struct writer *w)
{
    sws_freeContext(w->scaler);
    av_frame_free(&w->rgb);
    av_frame_free(&w->yuv);
    for (int64_t i = 0; i < w->packets; i++) av_packet_free(&w->packet[i]);
    free(w->packet);
    avcodec_free_context(&w->codec);
}

static bool open_codec(struct writer *w, const char *name, int width, int height, double fps, char *err,
                       size_t errlen)
{
    const AVCodec *encoder = avcodec_find_encoder_by_name(name);
    AVCodecContext *c = w->codec = avcodec_alloc_context3(encoder);
    if (!encoder || !c)
        return libav_error(err, errlen, name, encoder ? AVERROR(ENOMEM) : AVERROR_ENCODER_NOT_FOUND);
    c->opaque = libav_listener();
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

    /* Into the context itself, and each that is relied on: what libavcodec has no memory for, a default or an
     * option of a dictionary, it goes on without. */
    int r = 0;
    if (!strcmp(name, "libx264")) {
        static const char *const option[][2] = {
            {"preset", "medium"}, {"crf", "18"}, {"x264-params", "cpu-independent=1"}};
        for (int i = 0; i < 3 && r >= 0; i++) r = av_opt_set(c->priv_data, option[i][0], option[i][1], 0);
    } else if (!strcmp(name, "mpeg4")) {
        c->flags |= AV_CODEC_FLAG_QSCALE;
        c->global_quality = 2 * FF_QP2LAMBDA;
    } else {
        c->bit_rate = (int64_t)(fps * width * height);
    }
    if (r >= 0) r = avcodec_open2(c, encoder, NULL);
    return r >= 0 || libav_error(err, errlen, name, r);
}

/* Hands the encoder a frame (NULL: no more will come) and keeps all packets that come out. */
static int encode(struct writer *w, const AVFrame *frame)
{
    int r = avcodec_send_frame(w->codec, frame);
    while (r >= 0) {
        AVPacket **grown = realloc(w->packet, ((size_t)w->packets + 1) * sizeof *grown);
        if (!grown) return AVERROR(ENOMEM);
        w->packet = grown;
        AVPacket *p = grown[w->packets] = av_packet_alloc();
        if (!p) return AVERROR(ENOMEM);
        w->packets++;
        if ((r = avcodec_receive_packet(w->codec, p)) >= 0)
            p->duration = 1; /* frame; else players cut the last one short */
    }
    if (w->packets && !w->packet[w->packets - 1]->data) av_packet_free(&w->packet[--w->packets]);
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

static bool encode_frames(struct writer *w, const struct tensor *video, char *err, size_t errlen)
{
    int64_t frames = video->shape[0], bytes = video->shape[1] * video->shape[2] * 3;
    int height = (int)video->shape[1], width = (int)video->shape[2], r = 0;
    w->rgb = libav_picture(AV_PIX_FMT_RGB24, width, height);
    w->yuv = libav_picture(AV_PIX_FMT_YUV420P, width, height);
    if (!w->rgb || !w->yuv) return libav_error(err, errlen, "pictures", AVERROR(ENOMEM));
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
    return r >= 0 || libav_error(err, errlen, w->codec->codec->name, r);
}

/* ---- the muxer ----------------------------------------------------------------------------------------- */

/* A stream with the encoder's parameters, and the file's header. */
static int begin_file(AVFormatContext *f, const struct writer *w)
{
    AVStream *s = avformat_new_stream(f, NULL);
    int r = s ? avcodec_parameters_from_context(s->codecpar, w->codec) : AVERROR(ENOMEM);
    if (r < 0) return r;
    f->flags |= AVFMT_FLAG_BITEXACT; /* no version, no time of day */
    s->time_base = w->codec->time_base;
    s->avg_frame_rate = w->codec->framerate;
    r = av_opt_set(f->priv_data, "movflags", "+faststart", 0);
    return r < 0 ? r : avformat_write_header(f, NULL);
}

static int put_packets(AVFormatContext *f, const struct writer *w)
{
    int r = 0;
    for (int64_t i = 0; i < w->packets && r >= 0; i++) {
        AVPacket *p = av_packet_clone(w->packet[i]);
        if (!p) return AVERROR(ENOMEM);
        av_packet_rescale_ts(p, w->codec->time_base, f->streams[0]->time_base);
        r = av_interleaved_write_frame(f, p);
        av_packet_free(&p);
    }
    return r;
}

/* `name` is for the message. */
static bool write_file(const struct writer *w, const char *path, const char *name, char *err, size_t errlen)
{
    int error = 0; /* of the ports */
    AVFormatContext *f = NULL;
    int r = avformat_alloc_output_context2(&f, NULL, "mp4", path);
    if (r < 0) return libav_error(err, errlen, name, r);
    f->opaque = &error;
    f->io_open = port_open;
    f->io_close2 = port_close;
    r = port_open(f, &f->pb, path, AVIO_FLAG_WRITE, NULL);
    if (r >= 0) r = begin_file(f, w);
    if (r >= 0) r = put_packets(f, w);
    if (r >= 0) r = av_write_trailer(f);
    int closed = port_close(f, f->pb);
    avformat_free_context(f);
    if (r >= 0) r = closed;
    if (error) return fail(err, errlen, "%s: %s", name, strerror(error));
    return r >= 0 || libav_error(err, errlen, name, r);
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
    const int refusals = libav_refusals();
    libav_quiet();
    struct writer w = {0};
    struct atomic_file file;
    if (!atomic_temporary(&file, path, err, errlen)) return false;
    bool good = open_codec(&w, encoder, (int)width, (int)height, fps, err, errlen) &&
                encode_frames(&w, video, err, errlen) && write_file(&w, file.temporary, path, err, errlen);
    if (good && libav_refusals() != refusals) good = libav_error(err, errlen, path, AVERROR(ENOMEM));
    close_writer(&w);
    if (good) return atomic_commit(&file, err, errlen);
    atomic_abort(&file);
    return false;
}
