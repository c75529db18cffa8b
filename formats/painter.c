#include "formats/painter.h"

#include <math.h>
#include <string.h>

#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>

#include "formats/error.h"
#include "formats/libav.h"

void painter_free(struct painter *p)
{
    for (int i = 0; i < 2; i++) {
        struct stage *s = i ? &p->last : &p->even;
        sws_freeContext(s->scaler);
        av_frame_free(&s->to);
    }
    av_frame_free(&p->turned);
}

/* ---- turning ------------------------------------------------------------------------------------------- */

static const int32_t *display_matrix(const AVStream *s)
{
    const size_t bytes = 9 * sizeof(int32_t);
#if LIBAVFORMAT_VERSION_INT >= AV_VERSION_INT(60, 15, 100)
    const AVPacketSideData *side = av_packet_side_data_get(
        s->codecpar->coded_side_data, s->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    return side && side->size >= bytes ? (const int32_t *)side->data : NULL;
#else
    size_t size = 0;
    const uint8_t *side = av_stream_get_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, &size);
    return side && size >= bytes ? (const int32_t *)side : NULL;
#endif
}

/* VideoPhy-2's reader takes the angle in which the picture's upper edge is shown, and no mirroring. */
static void turn_by_angle(struct turn *t, const int32_t *m)
{
    int quarters = (int)lrint(-av_display_rotation_get(m) / 90) & 3;
    *t = (struct turn){
        .transpose = quarters & 1, .flip_x = quarters == 1 || quarters == 2, .flip_y = quarters >= 2};
}

bool painter_find_turn(struct painter *p, const AVStream *s, char *err, size_t errlen)
{
    const double little = tan(M_PI / 180);
    const int32_t *m = display_matrix(s);
    if (!m || (int64_t)m[0] * m[4] == (int64_t)m[1] * m[3]) return true;
    double a = m[0], b = m[1], c = m[3], d = m[4];
    if (fabs(b) <= little * fabs(a) && fabs(c) <= little * fabs(d))
        p->turn = (struct turn){.flip_x = a < 0, .flip_y = d < 0};
    else if (fabs(a) <= little * fabs(b) && fabs(d) <= little * fabs(c))
        p->turn = (struct turn){.transpose = true, .flip_x = c < 0, .flip_y = b < 0};
    else
        return fail(err, errlen, "to be shown turned by something else than quarter turns");
    if (p->kernel == VIDEO_PLAIN) turn_by_angle(&p->turn, m);
    return true;
}

/* Where the pixel that comes to (0,0) is in a plane, and how far it is from there to the next ones across and
 * down. width, height: of what comes out. */
static ptrdiff_t find_way(const struct turn *t, int width, int height, ptrdiff_t step, ptrdiff_t line,
                          ptrdiff_t *across, ptrdiff_t *down)
{
    ptrdiff_t start = 0;
    *across = t->transpose ? line : step, *down = t->transpose ? step : line;
    if (t->flip_x) start += (width - 1) * *across, *across = -*across;
    if (t->flip_y) start += (height - 1) * *down, *down = -*down;
    return start;
}

/* GBRP planes into out, U8 [height,width,3], turned. */
static void interleave(const struct turn *t, const AVFrame *planes, uint8_t *out, int height, int width)
{
    ptrdiff_t across, down, at = find_way(t, width, height, 1, planes->linesize[0], &across, &down);
    const uint8_t *g = planes->data[0] + at, *b = planes->data[1] + at, *r = planes->data[2] + at;
    for (int y = 0; y < height; y++, r += down, g += down, b += down) {
        for (int x = 0; x < width; x++, out += 3) {
            out[0] = r[x * across];
            out[1] = g[x * across];
            out[2] = b[x * across];
        }
    }
}

/* Whether pictures of this format can be turned plane by plane. */
static bool is_even(enum AVPixelFormat format)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    const uint64_t odd = AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_BITSTREAM;
    return d && !(d->flags & odd) && d->log2_chroma_w == d->log2_chroma_h;
}

/* The nearest format of which that is so. */
static enum AVPixelFormat even_format(enum AVPixelFormat format)
{
    const AVPixFmtDescriptor *of = av_pix_fmt_desc_get(format);
    enum AVPixelFormat best = AV_PIX_FMT_NONE;
    for (const AVPixFmtDescriptor *d = NULL; (d = av_pix_fmt_desc_next(d));) {
        enum AVPixelFormat f = av_pix_fmt_desc_get_id(d);
        if (is_even(f) && sws_isSupportedOutput(f) && sws_isSupportedInput(f))
            best = av_find_best_pix_fmt_of_2(best, f, format, of->nb_components % 2 == 0, NULL);
    }
    return best;
}

/* The frame turned, into p->turned. */
static bool turn_planes(struct painter *p, const AVFrame *frame)
{
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(frame->format);
    int step[4], planes = av_pix_fmt_count_planes(frame->format);
    bool across_is_down = p->turn.transpose;
    int width = across_is_down ? frame->height : frame->width,
        height = across_is_down ? frame->width : frame->height;
    av_frame_free(&p->turned);
    if (!(p->turned = libav_picture(frame->format, width, height))) return false;
    p->turned->colorspace = frame->colorspace;
    p->turned->color_range = frame->color_range;
    p->turned->chroma_location = frame->chroma_location;
    av_image_fill_max_pixsteps(step, NULL, d);
    for (int i = 0; i < planes; i++) {
        bool chroma = i == 1 || i == 2;
        int w = chroma ? AV_CEIL_RSHIFT(width, d->log2_chroma_w) : width,
            h = chroma ? AV_CEIL_RSHIFT(height, d->log2_chroma_h) : height;
        ptrdiff_t across, down, at = find_way(&p->turn, w, h, step[i], frame->linesize[i], &across, &down);
        for (int y = 0; y < h; y++) {
            const uint8_t *from = frame->data[i] + at + y * down;
            uint8_t *to = p->turned->data[i] + y * p->turned->linesize[i];
            for (int x = 0; x < w; x++, from += across, to += step[i]) memcpy(to, from, (size_t)step[i]);
        }
    }
    return true;
}

/* ---- scaling ------------------------------------------------------------------------------------------- */

/* The frame scaled and converted into s->to, which is of that format and size. */
static bool scale(struct stage *s, const AVFrame *frame, int format, int width, int height, int flags,
                  int threads, char *err, size_t errlen)
{
    if (s->to && (s->to->width != width || s->to->height != height || s->to->format != format))
        av_frame_free(&s->to);
    if (!s->to && !(s->to = libav_picture(format, width, height)))
        return libav_error(err, errlen, "scaler", AVERROR(ENOMEM));
    struct look look = {frame->width,      frame->height,      frame->format,
                        frame->colorspace, frame->color_range, frame->chroma_location};
    if (!s->scaler || memcmp(&look, &s->look, sizeof look)) { /* the first, or of another size or colours */
        sws_freeContext(s->scaler);
        s->scaler = libav_scaler(frame, s->to, flags, threads, err, errlen);
        if (!s->scaler) return false;
        s->look = look;
    }
    int r = sws_scale_frame(s->scaler, s->to, frame);
    return r >= 0 || libav_error(err, errlen, "cannot scale it", r);
}

/* Scaled into planes, for which libswscale has vector code, then turned. */
static bool paint_exact(struct painter *p, const AVFrame *frame, uint8_t *out, int height, int width,
                        char *err, size_t errlen)
{
    int kernel = p->kernel == VIDEO_TRIANGLE ? SWS_BILINEAR : SWS_BICUBIC;
    bool lies = p->turn.transpose;
    if (!scale(&p->last, frame, AV_PIX_FMT_GBRP, lies ? height : width, lies ? width : height,
               kernel | LIBAV_EXACT, p->threads, err, errlen))
        return false;
    interleave(&p->turn, p->last.to, out, height, width);
    return true;
}

/* Turned as it is, or in a format whose planes can be turned; then scaled into pixels. */
static bool paint_plain(struct painter *p, const AVFrame *frame, uint8_t *out, int height, int width,
                        char *err, size_t errlen)
{
    bool turned = p->turn.transpose || p->turn.flip_x || p->turn.flip_y;
    if (turned && !is_even(frame->format)) {
        enum AVPixelFormat format = even_format(frame->format);
        if (!scale(&p->even, frame, format, frame->width, frame->height, SWS_BILINEAR, p->threads, err,
                   errlen))
            return false;
        p->even.to->colorspace = frame->colorspace;
        frame = p->even.to;
    }
    if (turned && !turn_planes(p, frame)) return libav_error(err, errlen, "scaler", AVERROR(ENOMEM));
    if (!scale(&p->last, turned ? p->turned : frame, AV_PIX_FMT_RGB24, width, height, SWS_BILINEAR,
               p->threads, err, errlen))
        return false;
    const AVFrame *to = p->last.to;
    for (int y = 0; y < height; y++)
        memcpy(out + (ptrdiff_t)y * width * 3, to->data[0] + y * to->linesize[0], 3 * (size_t)width);
    return true;
}

bool painter_paint(struct painter *p, const AVFrame *frame, uint8_t *out, int height, int width, char *err,
                   size_t errlen)
{
    return p->kernel == VIDEO_PLAIN ? paint_plain(p, frame, out, height, width, err, errlen)
                                    : paint_exact(p, frame, out, height, width, err, errlen);
}
