#include "formats/clip.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/opt.h>

#include "formats/error.h"
#include "formats/h264.h"
#include "formats/libav.h"
#include "formats/whole.h"

enum { MAX_PIXELS = 1 << 26 }; /* of one frame: a header's lie costs no more memory than 8192x8192 */

/* Demuxers that read the one file they are given: none of those that are lists of other files. */
static const char containers[] = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,gif,nut,yuv4mpegpipe";

void clip_close(struct clip *c)
{
    av_frame_free(&c->frame);
    av_packet_free(&c->packet);
    av_bsf_free(&c->filter);
    avcodec_free_context(&c->codec);
    avformat_close_input(&c->format);
    free(c->lost.number);
    *c = (struct clip){0};
}

/* ---- opening ------------------------------------------------------------------------------------------- */

/* Codecs to decode with several threads. Others (HEVC, VP8) leave in a damaged frame whatever lay in its
 * memory, which depends on threads, and not always with a word about it; MPEG-4's decoder can abort on
 * damage. */
static bool can_share(enum AVCodecID id)
{
    return id == AV_CODEC_ID_H264 || id == AV_CODEC_ID_VP9 || id == AV_CODEC_ID_AV1;
}

/* Codecs whose decoders make up what a picture is built on, when it is not there, and go on. */
static bool makes_up(enum AVCodecID id)
{
    switch (id) {
    case AV_CODEC_ID_H264:
    case AV_CODEC_ID_HEVC:
    case AV_CODEC_ID_THEORA:
    case AV_CODEC_ID_MPEG4:
    case AV_CODEC_ID_H263:
    case AV_CODEC_ID_H263P:
    case AV_CODEC_ID_FLV1:
    case AV_CODEC_ID_MSMPEG4V1:
    case AV_CODEC_ID_MSMPEG4V2:
    case AV_CODEC_ID_MSMPEG4V3:
    case AV_CODEC_ID_WMV1:
    case AV_CODEC_ID_WMV2: return true;
    default: return false;
    }
}

bool clip_has_metadata(const struct clip *c)
{
    return c->stream && c->stream->codecpar->codec_id == AV_CODEC_ID_HEVC;
}

static bool open_file(struct clip *c, const char *path, char *err, size_t errlen)
{
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
    return true;
}

static bool find_stream(struct clip *c, const AVCodec **decoder, char *err, size_t errlen)
{
    int r = avformat_find_stream_info(c->format, NULL);
    if (r < 0) return libav_error(err, errlen, "no streams", r);
    r = av_find_best_stream(c->format, AVMEDIA_TYPE_VIDEO, -1, -1, decoder, 0);
    if (r == AVERROR_DECODER_NOT_FOUND) return libav_error(err, errlen, "no decoder for its video stream", 0);
    if (r < 0 || c->format->streams[r]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        return fail(err, errlen, "no video stream");
    c->stream = c->format->streams[r];
    for (unsigned i = 0; i < c->format->nb_streams; i++)
        if ((int)i != r) c->format->streams[i]->discard = AVDISCARD_ALL;
    return true;
}

/* What takes HEVC's SEI out. */
static int open_filter(struct clip *c)
{
    int r = av_bsf_list_parse_str("filter_units=remove_types=39|40", &c->filter);
    if (r >= 0) r = avcodec_parameters_copy(c->filter->par_in, c->stream->codecpar);
    if (r < 0) return r;
    c->filter->time_base_in = c->stream->time_base;
    return av_bsf_init(c->filter);
}

static bool open_decoder(struct clip *c, const AVCodec *decoder, const struct clip_way *way, char *err,
                         size_t errlen)
{
    bool threadable = can_share(decoder->id), plain = way->plain && clip_has_metadata(c);
    c->packet = av_packet_alloc();
    c->frame = av_frame_alloc();
    c->codec = avcodec_alloc_context3(decoder);
    if (!c->packet || !c->frame || !c->codec) return libav_error(err, errlen, "decoder", AVERROR(ENOMEM));
    c->codec->opaque = libav_listener();
    c->codec->thread_count = threadable ? way->threads : 1;
    c->codec->err_recognition =
        threadable ? 0 : AV_EF_EXPLODE; /* some keep errors to themselves without it */
    c->codec->max_pixels = MAX_PIXELS;
    c->codec->pkt_timebase = c->stream->time_base;
    c->numbered = makes_up(decoder->id);
    int r = plain ? open_filter(c) : 0;
    if (r >= 0) r = avcodec_parameters_to_context(c->codec, plain ? c->filter->par_out : c->stream->codecpar);
    if (r >= 0) r = avcodec_open2(c->codec, decoder, NULL);
    return r >= 0 || libav_error(err, errlen, "cannot decode it", r);
}

bool clip_open(struct clip *c, const char *path, const struct clip_way *way, char *err, size_t errlen)
{
    const AVCodec *decoder = NULL;
    *c = (struct clip){0};
    bool good = open_file(c, path, err, errlen) && find_stream(c, &decoder, err, errlen) &&
                open_decoder(c, decoder, way, err, errlen);
    libav_quiet(); /* what was said up to here is no complaint about a frame */
    return good;
}

/* ---- whether all is there ------------------------------------------------------------------------------ */

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

bool clip_is_whole(const struct clip *c, char *err, size_t errlen)
{
    return check_index(c, err, errlen) && whole_file(c->format, c->stream, err, errlen);
}

/* ---- packets and frames -------------------------------------------------------------------------------- */

/* The stream's next packet: 1, 0 at the end, -1 with the reason in err. */
static int read_packet(struct clip *c, char *err, size_t errlen)
{
    for (;;) {
        av_packet_unref(c->packet);
        int r = av_read_frame(c->format, c->packet);
        if (r == AVERROR_EOF) return 0;
        if (r < 0) return libav_error(err, errlen, "the file is damaged", r) - 1;
        if (c->packet->stream_index != c->stream->index) continue;
        if (!(c->packet->flags & AV_PKT_FLAG_CORRUPT)) return 1;
        bool gap = libav_heard() & LIBAV_COUNTER_GAP;
        return libav_error(err, errlen,
                           gap ? "packets are missing in its transport stream, as after a loss or where two "
                                 "recordings were joined with cat (they are read one by one)"
                               : "the file is damaged or cut short",
                           0) -
               1;
    }
}

bool clip_count(struct clip *c, int64_t *count, char *err, size_t errlen)
{
    int got;
    for (*count = 0; (got = read_packet(c, err, errlen)) > 0;)
        *count += !(c->packet->flags & AV_PKT_FLAG_DISCARD);
    return got == 0;
}

/* The next packet for the decoder. */
static int next_packet(struct clip *c, char *err, size_t errlen)
{
    while (c->filter) {
        int r = av_bsf_receive_packet(c->filter, c->packet), got;
        if (r >= 0) return 1;
        if (r == AVERROR_EOF) return 0;
        if (r == AVERROR(EAGAIN)) {
            if ((got = read_packet(c, err, errlen)) < 0) return got;
            r = av_bsf_send_packet(c->filter, got ? c->packet : NULL);
        }
        if (r < 0) return libav_error(err, errlen, "the file is damaged", r) - 1;
    }
    return read_packet(c, err, errlen);
}

static bool add_loss(struct losses *l, int64_t number)
{
    if (l->count == l->room) {
        int room = l->room ? 2 * l->room : 16;
        int64_t *grown = realloc(l->number, (size_t)room * sizeof *grown);
        if (!grown) return false;
        l->number = grown, l->room = room;
    }
    l->number[l->count++] = number;
    return true;
}

/* Hears whether the packet that was decoded last lacked something. Between a first picture and those before
 * it there is no gap. HEVC's decoder tells it once of a picture that is missing, and what it makes up for it
 * serves others, too: all are lost up to the next that stands alone. */
static bool note_losses(struct clip *c)
{
    int heard = libav_heard();
    if (heard & LIBAV_NUMBER_GAP && c->sent > 1 &&
        !h264_may_leave_out(c->stream->codecpar->extradata, c->stream->codecpar->extradata_size))
        heard |= LIBAV_NO_REFERENCE;
    if (!c->numbered || !(heard & LIBAV_NO_REFERENCE)) return true;
    c->losing = c->codec->codec_id == AV_CODEC_ID_HEVC;
    return add_loss(&c->lost, c->sent - 1);
}

/* Sends the packet, or with `got` 0 the end. */
static int send_packet(struct clip *c, int got)
{
    if (got && c->numbered) c->packet->pts = c->packet->dts = c->sent;
    if (got && c->packet->flags & AV_PKT_FLAG_KEY) c->losing = false;
    if (got && c->losing && !add_loss(&c->lost, c->sent)) return AVERROR(ENOMEM);
    c->sent += got;
    return avcodec_send_packet(c->codec, got ? c->packet : NULL);
}

static bool is_lost(const struct clip *c)
{
    for (int i = 0; i < c->lost.count; i++)
        if (c->lost.number[i] == c->frame->pts) return true;
    return false;
}

int clip_next(struct clip *c, int64_t number, char *err, size_t errlen)
{
    char what[96];
    snprintf(what, sizeof what, "damaged near frame %lld", (long long)number);
    for (;;) {
        int r = avcodec_receive_frame(c->codec, c->frame);
        if (!note_losses(c)) return fail(err, errlen, "out of memory") - 1;
        if (r >= 0 && (c->frame->decode_error_flags || c->frame->flags & AV_FRAME_FLAG_CORRUPT))
            return libav_error(err, errlen, what, 0) - 1;
        if (r >= 0 && is_lost(c))
            return fail(err, errlen, "%s: a picture that it is built on is missing", what) - 1;
        if (r >= 0) return 1;
        if (r == AVERROR_EOF) return 0;
        if (r == AVERROR(EAGAIN)) {
            int got = next_packet(c, err, errlen);
            if (got < 0) return got;
            r = send_packet(c, got);
            if (!note_losses(c)) return fail(err, errlen, "out of memory") - 1;
        }
        if (r < 0) return libav_error(err, errlen, what, r) - 1;
    }
}
