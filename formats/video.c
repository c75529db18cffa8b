#include "formats/video.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>

#include "formats/error.h"
#include "formats/libav.h"

enum { MAX_PIXELS = 1 << 26 }; /* of one frame: a header's lie costs no more memory than 8192x8192 */

/* Demuxers that read the one file they are given: none of those that are lists of other files. */
static const char containers[] = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,gif,nut,yuv4mpegpipe";

struct clip {
    AVFormatContext *format;
    AVCodecContext *codec;
    AVStream *stream;
    AVPacket *packet;
    AVFrame *frame;
};

/* From the decoder's frames to the tensor's: scaled into planes, then turned upright and interleaved. */
struct painter {
    struct SwsContext *scaler;
    struct look { /* of the frames that it was made for */
        int width, height, format, matrix, range, chroma;
    } look;
    AVFrame *
        planes; /* GBRP, for which libswscale has vector code; as large as the tensor's frames once upright */
    int kernel, threads; /* libav_scaler()'s */
    bool transpose, flip_x, flip_y;
};

void video_spread(int64_t *index, int64_t count, int64_t total)
{
    for (int64_t k = 0; k < count; k++) index[k] = count > 1 ? k * (total - 1) / (count - 1) : 0;
}

/* What libav* would call "Invalid data", or wait for. */
static bool check_file(const char *path, char *err, size_t errlen)
{
    struct stat st;
    if (stat(path, &st) != 0) return fail(err, errlen, "%s", strerror(errno));
    if (S_ISDIR(st.st_mode)) return fail(err, errlen, "%s", strerror(EISDIR));
    if (!S_ISREG(st.st_mode)) return fail(err, errlen, "not a regular file");
    if (st.st_size == 0) return fail(err, errlen, "the file is empty");
    return true;
}

static void clip_close(struct clip *c)
{
    av_frame_free(&c->frame);
    av_packet_free(&c->packet);
    avcodec_free_context(&c->codec);
    avformat_close_input(&c->format);
}

/* Codecs to decode with several threads. Others (HEVC, VP8) leave in a damaged frame whatever lay in its
 * memory, which depends on threads, and not always with a word about it; MPEG-4's decoder can abort on
 * damage. */
static bool can_share(enum AVCodecID id)
{
    return id == AV_CODEC_ID_H264 || id == AV_CODEC_ID_VP9 || id == AV_CODEC_ID_AV1;
}

static bool clip_open(struct clip *c, const char *path, int threads, char *err, size_t errlen)
{
    *c = (struct clip){0};
    char url[4096 + 8]; /* the prefix keeps a name like "a:b.mp4" from being taken for a protocol */
    int n = snprintf(url, sizeof url, "file:%s", path);
    /* Into the context itself: of options in a dictionary, libavformat goes on without those that it has no
     * memory for. */
    int r = n < (int)sizeof url ? 0 : AVERROR(ENAMETOOLONG);
    if (r >= 0 && !(c->format = avformat_alloc_context())) r = AVERROR(ENOMEM);
    if (r >= 0) r = av_opt_set(c->format, "protocol_whitelist", "file", 0);
    if (r >= 0) r = av_opt_set(c->format, "format_whitelist", containers, 0);
    if (r >= 0 && !(c->format->protocol_whitelist && c->format->format_whitelist)) r = AVERROR(ENOMEM);
    if (r >= 0) r = avformat_open_input(&c->format, url, NULL, NULL);
    if (r == AVERROR(EINVAL)) return fail(err, errlen, "none of the containers read here: %s", containers);
    if (r < 0) return libav_error(err, errlen, "not a video file", r);

    const AVCodec *decoder = NULL;
    if ((r = avformat_find_stream_info(c->format, NULL)) < 0)
        return libav_error(err, errlen, "no streams", r);
    r = av_find_best_stream(c->format, AVMEDIA_TYPE_VIDEO, -1, -1, &decoder, 0);
    if (r == AVERROR_DECODER_NOT_FOUND) return libav_error(err, errlen, "no decoder for its video stream", 0);
    if (r < 0 || c->format->streams[r]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return fail(err, errlen, "no video stream");
    c->stream = c->format->streams[r];
    for (unsigned i = 0; i < c->format->nb_streams; i++)
        if ((int)i != r) c->format->streams[i]->discard = AVDISCARD_ALL;

    c->packet = av_packet_alloc();
    c->frame = av_frame_alloc();
    c->codec = avcodec_alloc_context3(decoder);
    if (!c->packet || !c->frame || !c->codec) return libav_error(err, errlen, "decoder", AVERROR(ENOMEM));
    bool threadable = can_share(decoder->id);
    c->codec->thread_count = threadable ? threads : 1;
    c->codec->err_recognition =
        threadable ? 0 : AV_EF_EXPLODE; /* some keep errors to themselves without it */
    c->codec->max_pixels = MAX_PIXELS;
    c->codec->pkt_timebase = c->stream->time_base;
    r = avcodec_parameters_to_context(c->codec, c->stream->codecpar);
    if (r >= 0) r = avcodec_open2(c->codec, decoder, NULL);
    if (r < 0) return libav_error(err, errlen, "cannot decode it", r);
    libav_quiet(); /* what was said up to here is no complaint about a frame */
    return true;
}

/* The stream's next packet: 1, 0 at the end, -1 with the reason in err. */
static int next_packet(struct clip *c, char *err, size_t errlen)
{
    for (;;) {
        av_packet_unref(c->packet);
        int r = av_read_frame(c->format, c->packet);
        if (r == AVERROR_EOF) return 0;
        if (r < 0) return libav_error(err, errlen, "the file is damaged", r) - 1;
        if (c->packet->stream_index != c->stream->index) continue;
        if (c->packet->flags & AV_PKT_FLAG_CORRUPT)
            return libav_error(err, errlen, "the file is damaged or cut short", 0) - 1;
        return 1;
    }
}

/* Its next frame, in the order they are shown; number is for the message. The same three answers. */
static int next_frame(struct clip *c, int64_t number, char *err, size_t errlen)
{
    char what[64];
    snprintf(what, sizeof what, "damaged near frame %lld", (long long)number);
    for (;;) {
        int r = avcodec_receive_frame(c->codec, c->frame);
        if (r >= 0 && (c->frame->decode_error_flags || c->frame->flags & AV_FRAME_FLAG_CORRUPT))
            return libav_error(err, errlen, what, 0) - 1;
        if (r >= 0) return 1;
        if (r == AVERROR_EOF) return 0;
        if (r == AVERROR(EAGAIN)) {
            int got = next_packet(c, err, errlen);
            if (got < 0) return got;
            r = avcodec_send_packet(c->codec, got ? c->packet : NULL);
        }
        if (r < 0) return libav_error(err, errlen, what, r) - 1;
    }
}

/* A file cut between two packets reads like a short one, so look where its index says that the frames are. */
static bool check_index(const struct clip *c, char *err, size_t errlen)
{
    int64_t size = avio_size(c->format->pb);
    int n = avformat_index_get_entries_count(c->stream);
    for (int i = 0; size > 0 && i < n; i++) {
        const AVIndexEntry *e = avformat_index_get_entry(c->stream, i);
        if (e->pos <= size && e->size <= size - e->pos) continue;
        return fail(err, errlen, "the file is cut short: %lld bytes, but frame %d lies beyond",
                    (long long)size, i);
    }
    return true;
}

/* How many frames there should be: packets that are to be shown. A guess, for some codecs put two pictures
 * into a packet, or one into two. */
static bool count_packets(struct clip *c, int64_t *count, char *err, size_t errlen)
{
    int got;
    for (*count = 0; (got = next_packet(c, err, errlen)) > 0;)
        *count += !(c->packet->flags & AV_PKT_FLAG_DISCARD);
    return got == 0;
}

/* The stream's display matrix, [a b u; c d v; x y w], takes a pixel (p,q) to (a p + c q, b p + d q). */
static bool find_turn(const AVStream *s, struct painter *p, char *err, size_t errlen)
{
    const int32_t *m = NULL;
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData *side = av_packet_side_data_get(
        s->codecpar->coded_side_data, s->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    if (side && side->size >= 9 * sizeof *m) m = (const int32_t *)side->data;
#else
    size_t size = 0;
    const uint8_t *side = av_stream_get_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (side && size >= 9 * sizeof *m) m = (const int32_t *)side;
#endif
    if (!m) return true;
    double a = m[0], b = m[1], c = m[3], d = m[4];
    if (a * d != 0 && b == 0 && c == 0) {
        p->flip_x = a < 0;
        p->flip_y = d < 0;
    } else if (b * c != 0 && a == 0 && d == 0) {
        p->transpose = true;
        p->flip_x = c < 0;
        p->flip_y = b < 0;
    } else {
        return fail(err, errlen, "to be shown turned by something else than quarter turns");
    }
    return true;
}

/* The planes into out, U8 [height,width,3], turned. */
static void upright(const struct painter *p, uint8_t *out, int height, int width)
{
    ptrdiff_t across = 1, down = p->planes->linesize[0], start = 0;
    if (p->transpose) across = down, down = 1;
    if (p->flip_x) start += (width - 1) * across, across = -across;
    if (p->flip_y) start += (height - 1) * down, down = -down;
    const uint8_t *g = p->planes->data[0] + start, *b = p->planes->data[1] + start,
                  *r = p->planes->data[2] + start;
    for (int y = 0; y < height; y++, r += down, g += down, b += down) {
        for (int x = 0; x < width; x++, out += 3) {
            out[0] = r[x * across];
            out[1] = g[x * across];
            out[2] = b[x * across];
        }
    }
}

/* One frame of the tensor, U8 [height,width,3]. */
static bool paint(struct painter *p, const AVFrame *frame, uint8_t *out, int height, int width, char *err,
                  size_t errlen)
{
    if (!p->planes && !(p->planes = libav_picture(AV_PIX_FMT_GBRP, p->transpose ? height : width,
                                                  p->transpose ? width : height)))
        return libav_error(err, errlen, "scaler", AVERROR(ENOMEM));
    struct look look = {frame->width,      frame->height,      frame->format,
                        frame->colorspace, frame->color_range, frame->chroma_location};
    if (!p->scaler || memcmp(&look, &p->look, sizeof look)) { /* the first, or of another size or colours */
        sws_freeContext(p->scaler);
        p->scaler = libav_scaler(frame, p->planes, p->kernel, p->threads, err, errlen);
        if (!p->scaler) return false;
        p->look = look;
    }
    int r = sws_scale_frame(p->scaler, p->planes, frame);
    if (r < 0) return libav_error(err, errlen, "cannot scale it", r);

    upright(p, out, height, width);
    return true;
}

/* Decodes all of the clip and keeps frame index[k] as out[k]; how many there were into decoded. */
static bool decode(struct clip *c, struct painter *p, const int64_t *index, struct tensor *out,
                   int64_t *decoded, char *err, size_t errlen)
{
    int64_t count = out->shape[0], height = out->shape[1], width = out->shape[2], k = 0;
    size_t bytes = 3 * (size_t)height * (size_t)width;
    int got;
    for (*decoded = 0; (got = next_frame(c, *decoded, err, errlen)) > 0; ++*decoded) {
        int64_t first = k;
        for (; k < count && index[k] == *decoded; k++) {
            uint8_t *to = (uint8_t *)out->data + k * bytes;
            if (k > first)
                memcpy(to, to - bytes, bytes);
            else if (!paint(p, c->frame, to, height, width, err, errlen))
                return false;
        }
    }
    return got == 0;
}

bool video_read(const char *path, int threads, video_choice *choose, enum video_kernel kernel,
                struct tensor *out, struct video_info *info, char *err, size_t errlen)
{
    const int refusals = libav_refusals();
    libav_quiet();
    if (!check_file(path, err, errlen)) return false;
    struct clip c = {0};
    struct painter p = {.kernel = kernel == VIDEO_TRIANGLE ? SWS_BILINEAR : SWS_BICUBIC, .threads = threads};
    int64_t total = 0, decoded = -1, *index = calloc((size_t)out->shape[0], sizeof *index);
    bool good = index || fail(err, errlen, "%s", strerror(ENOMEM)), counted = false;
    good = good && clip_open(&c, path, threads, err, errlen) && find_turn(c.stream, &p, err, errlen) &&
           check_index(&c, err, errlen) && count_packets(&c, &total, err, errlen);

    while (good && decoded != total) {
        clip_close(&c);
        good = clip_open(&c, path, threads, err, errlen);
        choose(index, out->shape[0], total > 0 ? total : 1);
        bool whole = good && decode(&c, &p, index, out, &decoded, err, errlen);
        if (threads != 1 && (!whole || libav_complaints())) {
            /* Which frame carries the mark of damage, or whether any does, is a race between a decoder's
             * threads. What they say is none: should they say anything, let one alone look again. */
            threads = 1, decoded = -1;
            continue;
        }
        good = whole && (decoded > 0 || fail(err, errlen, "no frame of it can be decoded")) &&
               (!counted || decoded == total || fail(err, errlen, "the file changes while it is read"));
        /* Which frames are wanted depends on how many there are, and that is known at the end only: where the
         * packets misled, once more. */
        if (good && decoded != total) total = decoded, decoded = -1, counted = true;
    }
    if (good && libav_refusals() != refusals) good = libav_error(err, errlen, "decoder", AVERROR(ENOMEM));
    if (good) {
        AVRational fps = av_guess_frame_rate(c.format, c.stream, NULL);
        info->width = p.transpose ? c.codec->height : c.codec->width;
        info->height = p.transpose ? c.codec->width : c.codec->height;
        info->frames = decoded;
        info->fps = fps.num > 0 && fps.den > 0 ? av_q2d(fps) : 0;
    }
    clip_close(&c);
    sws_freeContext(p.scaler);
    av_frame_free(&p.planes);
    free(index);
    return good;
}
