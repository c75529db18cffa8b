#include "formats/libav.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/log.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>

/* What was said to a thread that listens: by libav* in this thread, and by the threads of its codecs. */
struct said {
    char last[256];
    int complaints, heard;
};
static _Thread_local struct said here;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all texts */

/* Libav* has no other sign of these. */
static int meaning(const char *fmt)
{
    static const struct {
        const char *text;
        int meaning;
    } known[] = {{"Could not find ref with POC", LIBAV_NO_REFERENCE},              /* hevc */
                 {"Missing reference picture", LIBAV_NO_REFERENCE},                /* h264 */
                 {"reference picture missing during reorder", LIBAV_NO_REFERENCE}, /* h264 */
                 {"warning: first frame is no keyframe", LIBAV_NO_REFERENCE},      /* mpeg4 and its kin */
                 {"vp3: first frame not a keyframe", LIBAV_NO_REFERENCE},          /* theora */
                 {"Frame num gap", LIBAV_NUMBER_GAP},                              /* h264 */
                 {"Continuity check failed", LIBAV_COUNTER_GAP}};                  /* mpegts */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(fmt, known[i].text, strlen(known[i].text))) return known[i].meaning;
    return 0;
}

static void keep_last(void *context, int level, const char *fmt, va_list ap)
{
    const AVClass *from = context ? *(const AVClass **)context : NULL;
    bool codec = from && !strcmp(from->class_name, "AVCodecContext");
    struct said *to = codec ? ((AVCodecContext *)context)->opaque : NULL;
    if (!to) to = &here;
    int what = meaning(fmt);
    if (what) __atomic_or_fetch(&to->heard, what, __ATOMIC_RELAXED);
    if (level > AV_LOG_INFO && !what) return;
    if (codec) __atomic_add_fetch(&to->complaints, 1, __ATOMIC_RELAXED);
    if (level > AV_LOG_ERROR) return;
    char line[sizeof to->last];
    vsnprintf(line, sizeof line, fmt, ap);
    size_t n = strlen(line);
    while (n && strchr("\n\r. ", line[n - 1])) line[--n] = 0;
    if (!n) return;
    pthread_mutex_lock(&lock);
    memcpy(to->last, line, n + 1);
    pthread_mutex_unlock(&lock);
}

static void take_over(void)
{
    av_log_set_callback(keep_last);
}

void libav_quiet(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, take_over);
    pthread_mutex_lock(&lock);
    here.last[0] = 0;
    pthread_mutex_unlock(&lock);
    __atomic_store_n(&here.complaints, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&here.heard, 0, __ATOMIC_RELAXED);
}

void *libav_listener(void)
{
    return &here;
}

int libav_heard(void)
{
    return __atomic_exchange_n(&here.heard, 0, __ATOMIC_RELAXED);
}

int libav_complaints(void)
{
    return __atomic_load_n(&here.complaints, __ATOMIC_RELAXED);
}

/* Of libav_memory.c, in the programs that it is linked into. */
extern int libav_refused __attribute__((weak));

int libav_refusals(void)
{
    return &libav_refused ? __atomic_load_n(&libav_refused, __ATOMIC_RELAXED) : 0;
}

bool libav_error(char *err, size_t errlen, const char *what, int code)
{
    char name[AV_ERROR_MAX_STRING_SIZE] = "", said[sizeof here.last];
    if (code < 0) av_strerror(code, name, sizeof name);
    pthread_mutex_lock(&lock);
    memcpy(said, here.last, sizeof said);
    pthread_mutex_unlock(&lock);
    snprintf(err, errlen, "%s%s%s%s%s%s", what, name[0] ? ": " : "", name, said[0] ? " (" : "", said,
             said[0] ? ")" : "");
    return false;
}

AVFrame *libav_picture(int format, int width, int height)
{
    AVFrame *p = av_frame_alloc();
    if (!p) return NULL;
    p->format = format;
    p->width = width;
    p->height = height;
    if (av_pix_fmt_desc_get(format)->flags & AV_PIX_FMT_FLAG_RGB) p->color_range = AVCOL_RANGE_JPEG;
    if (av_frame_get_buffer(p, 0) < 0) av_frame_free(&p);
    return p;
}

static bool is_rgb(const AVFrame *p)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(p->format);
    return d && d->flags & AV_PIX_FMT_FLAG_RGB;
}

/* Where subsampled chroma lies, in 1/256 of a luma pixel. Left and half-way down is what MPEG-2 and its
 * successors mean when they say nothing. */
static void chroma_position(const AVFrame *p, bool exact, int *x, int *y)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(p->format);
    int location =
        p->chroma_location == AVCHROMA_LOC_UNSPECIFIED ? AVCHROMA_LOC_LEFT : (int)p->chroma_location;
    *x = *y = -513; /* libswscale's "no matter" */
    if (!d || d->flags & AV_PIX_FMT_FLAG_RGB) return;
    if (!exact) { /* FFmpeg's scale filter, up to version 7.0 */
        if (p->format == AV_PIX_FMT_YUV420P) *y = 128;
        return;
    }
    if (d->log2_chroma_w == 1)
        *x = (location - 1) % 2 ? 128 : 0; /* left, center, topleft, top, bottomleft, bottom */
    if (d->log2_chroma_h == 1) *y = (int[]){128, 0, 256}[(location - 1) / 2 % 3];
}

/* Whether black is 0. Gray without a word is so, as in pictures, whose formats have it. */
static bool is_full(const AVFrame *p)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(p->format);
    uint64_t other = AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM;
    bool gray = d && d->nb_components <= 2 && !(d->flags & other);
    return p->color_range == AVCOL_RANGE_JPEG || (gray && p->color_range == AVCOL_RANGE_UNSPECIFIED);
}

struct SwsContext *libav_scaler(const AVFrame *from, const AVFrame *to, int flags, int threads, char *err,
                                size_t errlen)
{
    bool from_rgb = is_rgb(from);
    if (!from_rgb && (from->colorspace == AVCOL_SPC_YCGCO || from->colorspace > AVCOL_SPC_BT2020_CL)) {
        snprintf(err, errlen, "colour matrix %s is not supported", av_color_space_name(from->colorspace));
        return NULL;
    }
    struct SwsContext *s = sws_alloc_context();
    if (!s) {
        libav_error(err, errlen, "scaler", AVERROR(ENOMEM));
        return NULL;
    }
    int fx, fy, tx, ty;
    chroma_position(from, flags & LIBAV_EXACT, &fx, &fy);
    chroma_position(to, flags & LIBAV_EXACT, &tx, &ty);
    const struct {
        const char *name;
        int value;
    } option[] = {
        {"srcw", from->width}, {"srch", from->height},     {"src_format", from->format},
        {"src_h_chr_pos", fx}, {"src_v_chr_pos", fy},      {"dstw", to->width},
        {"dsth", to->height},  {"dst_format", to->format}, {"dst_h_chr_pos", tx},
        {"dst_v_chr_pos", ty}, {"threads", threads},       {"sws_flags", flags},
    };
    int r = 0;
    for (size_t i = 0; i < sizeof option / sizeof *option && r >= 0; i++)
        r = av_opt_set_int(s, option[i].name, option[i].value, 0);
    if (r >= 0) r = sws_init_context(s, NULL, NULL);
    /* One matrix at both ends: RGB has none, but goes by way of YUV even to RGB. Where neither end has one,
     * libswscale says no, and that is all that it means. */
    const int *matrix = sws_getCoefficients(from_rgb ? to->colorspace : from->colorspace);
    if (r >= 0) sws_setColorspaceDetails(s, matrix, is_full(from), matrix, is_full(to), 0, 1 << 16, 1 << 16);
    if (r < 0) {
        libav_error(err, errlen, "cannot scale such pictures", r);
        sws_freeContext(s);
        return NULL;
    }
    return s;
}
