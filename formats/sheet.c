#include "formats/sheet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libavcodec/avcodec.h>

#include "formats/atomic.h"
#include "formats/error.h"
#include "formats/gnuplot.h"
#include "formats/io.h"
#include "formats/libav.h"
#include "formats/video.h"

enum { WIDTH = SHEET_COLUMNS * SHEET_CELL, GAP = 2, TALLEST = 4 * SHEET_CELL };

static void copy_rows(uint8_t *to, ptrdiff_t to_stride, const uint8_t *from, ptrdiff_t from_stride,
                      size_t bytes, int rows)
{
    for (int y = 0; y < rows; y++, to += to_stride, from += from_stride) memcpy(to, from, bytes);
}

/* More pixels below, white. */
static bool grow(struct sheet *s, int added, char *err, size_t errlen)
{
    const size_t stride = 3 * WIDTH, old = stride * (size_t)s->height, more = stride * (size_t)added;
    uint8_t *rgb = realloc(s->rgb, old + more);
    if (!rgb) return fail(err, errlen, "no memory for the contact sheet");
    s->rgb = rgb;
    memset(rgb + old, 0xff, more);
    s->height += added;
    return true;
}

bool sheet_add(struct sheet *s, const struct tensor *video, char *err, size_t errlen)
{
    if (s->rows == SHEET_ROWS) return true;
    int64_t index[SHEET_COLUMNS];
    int height = (int)video->shape[1], width = (int)video->shape[2], cell = SHEET_CELL - GAP;
    int64_t fitting = ((int64_t)cell * height + width / 2) / width;
    int tall = (int)(fitting < 1 ? 1 : fitting > TALLEST ? TALLEST : fitting);
    const size_t stride = 3 * WIDTH, old = stride * (size_t)s->height;
    if (!grow(s, tall + GAP, err, errlen)) return false;

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
        copy_rows(s->rgb + old + (size_t)(3 * i * SHEET_CELL), (ptrdiff_t)stride, to->data[0],
                  to->linesize[0], 3 * (size_t)cell, tall);
    }
    sws_freeContext(scaler);
    av_frame_free(&from);
    av_frame_free(&to);
    if (good)
        s->rows++;
    else
        s->height -= tall + GAP;
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

/* ---- words --------------------------------------------------------------------------------------------- */

enum { LINE = 20 /* pixels */, LINES = 3 /* of a caption */ };
static const double ROOM = WIDTH / (44 / 3.0) - 1; /* em of a line */

/* The bytes of a text that one line has room for: whole words where there are any. */
static size_t line_of(const char *text, double room)
{
    char part[4096];
    size_t fitting = 0, words = 0;
    for (size_t n = 1; n < sizeof part && text[n - 1]; n++) {
        if (((unsigned char)text[n] & 0xc0) == 0x80) continue; /* in the middle of a character */
        memcpy(part, text, n);
        part[n] = 0;
        if (gnuplot_width(part) > room) break;
        fitting = n;
        if (text[n] == ' ' || !text[n]) words = n;
    }
    return words ? words : fitting ? fitting : strlen(text);
}

/* A label at x em, in line k of the words above the row; right: its end is there. */
static void add_label(FILE *f, struct sheet_words *w, int k, const char *text, bool right)
{
    fprintf(f, "set label %d at screen %s, first %d %s ", ++w->count, right ? "0.997" : "0.003",
            w->height + LINE * k + LINE / 2 + 2, right ? "right" : "left");
    gnuplot_text(f, text);
    fputs(k ? " textcolor rgb '#505050'\n" : "\n", f);
}

/* The caption's lines, below the first; returns how many. */
static int add_caption(FILE *f, struct sheet_words *w, const char *caption)
{
    char line[4096];
    int lines = 0;
    char *text = strdup(caption), *rest = text;
    for (char *p = text; p && *p; p++)
        if (*p == '\n' || *p == '\t' || *p == '\r') *p = ' ';
    while (rest && *rest && lines < LINES) {
        size_t n = line_of(rest, ROOM);
        if (++lines == LINES)
            gnuplot_shorten(line, sizeof line, rest, sizeof line / 4 - 2, ROOM);
        else
            snprintf(line, sizeof line, "%.*s", (int)n, rest);
        add_label(f, w, lines, line, false);
        rest += n;
        while (*rest == ' ') rest++;
    }
    free(text);
    return lines;
}

bool sheet_caption(struct sheet *s, const char *key, const char *about, const char *caption, char *err,
                   size_t errlen)
{
    struct sheet_words *w = &s->words;
    char text[1024], *labels = NULL;
    size_t size = 0;
    if (w->bands == SHEET_ROWS) return true;
    FILE *f = open_memstream(&labels, &size);
    if (!f) return fail(err, errlen, "no memory for the contact sheet");
    if (w->labels) fwrite(w->labels, 1, w->size, f);
    gnuplot_shorten(text, sizeof text, about, 120, ROOM / 2);
    add_label(f, w, 0, text, true);
    gnuplot_shorten(text, sizeof text, key, 120, ROOM / 2 - 1);
    add_label(f, w, 0, text, false);
    const int tall = LINE * (1 + (caption ? add_caption(f, w, caption) : 0)) + 6;
    if (!close_memory(f, &labels)) return free(labels), fail(err, errlen, "no memory for the contact sheet");
    free(w->labels);
    w->labels = labels, w->size = size;
    w->at[w->bands] = s->height, w->tall[w->bands++] = tall;
    w->height += tall;
    return grow(s, tall, err, errlen);
}

/* The picture in a PNG file, as RGB24; NULL with the reason in err. */
static AVFrame *decode(char *bytes, size_t size, char *err, size_t errlen)
{
    libav_quiet();
    const AVCodec *png = avcodec_find_decoder(AV_CODEC_ID_PNG);
    AVCodecContext *c = png ? avcodec_alloc_context3(png) : NULL;
    AVPacket *packet = av_packet_alloc();
    AVFrame *got = av_frame_alloc(), *rgb = NULL;
    struct SwsContext *scaler = NULL;
    int r = c && packet && got ? av_new_packet(packet, (int)size) : AVERROR(ENOMEM);
    if (r >= 0) memcpy(packet->data, bytes, size), r = avcodec_open2(c, png, NULL);
    if (r >= 0) r = avcodec_send_packet(c, packet);
    if (r >= 0) r = avcodec_send_packet(c, NULL);
    if (r >= 0) r = avcodec_receive_frame(c, got);
    if (r >= 0) r = (rgb = libav_picture(AV_PIX_FMT_RGB24, got->width, got->height)) ? 0 : AVERROR(ENOMEM);
    if (r < 0) libav_error(err, errlen, "contact sheet", r);
    bool good = r >= 0 && (scaler = libav_scaler(got, rgb, SWS_POINT | LIBAV_EXACT, 1, err, errlen));
    if (good && (r = sws_scale_frame(scaler, rgb, got)) < 0)
        good = libav_error(err, errlen, "contact sheet", r);
    if (!good) av_frame_free(&rgb);
    sws_freeContext(scaler);
    avcodec_free_context(&c);
    av_packet_free(&packet);
    av_frame_free(&got);
    return rgb;
}

/* The labels; with a ? for each character of three bytes or more, as gnuplot_text() writes these, where no font has it. */
static void put_labels(FILE *f, const struct sheet_words *w, bool few)
{
    for (const char *p = w->labels; *p; p++) {
        const bool wide = few && p[0] == '\\' && p[1] == '3' && p[2] >= '4';
        fputc(wide ? '?' : *p, f);
        if (wide) p += 3;
        while (wide && p[1] == '\\' && p[2] == '2') p += 4;
    }
}

/* What is left of all words is white; but not where a font lacks a character: then cairo draws over everything. */
static bool is_spoilt(const AVFrame *picture)
{
    for (int y = 0; y < picture->height; y++)
        if (picture->data[0][(ptrdiff_t)y * picture->linesize[0]] != 0xff) return true;
    return false;
}

/* All words as one picture. */
static AVFrame *draw_words(const struct sheet_words *w, bool few, char *err, size_t errlen)
{
    char *bytes = NULL;
    size_t size = 0;
    AVFrame *picture = NULL;
    FILE *script = tmpfile(), *f = open_memstream(&bytes, &size);
    bool good = (script && f) || fail(err, errlen, "contact sheet: a temporary file: %s", strerror(errno));
    if (good) {
        gnuplot_terminal(script, GNUPLOT_PNG, WIDTH, w->height, 0);
        fprintf(
            script,
            "unset border\nunset tics\nunset key\nset margins 0,0,0,0\nset xrange [0:1]\nset yrange [%d:0]\n",
            w->height);
        put_labels(script, w, few);
        fputs("plot NaN notitle\n", script);
        good = gnuplot_draw(script, f, err, errlen);
    }
    if (script) fclose(script);
    if (f && !close_memory(f, &bytes)) good = fail(err, errlen, "no memory for the contact sheet");
    if (good) picture = decode(bytes, size, err, errlen);
    free(bytes);
    if (!picture || few || !is_spoilt(picture)) return picture;
    av_frame_free(&picture);
    return draw_words(w, true, err, errlen);
}

/* Puts the words into the sheet, for which there is room above their rows. */
static bool put_words(struct sheet *s, char *err, size_t errlen)
{
    const struct sheet_words *w = &s->words;
    if (!w->count) return true;
    AVFrame *picture = draw_words(w, false, err, errlen);
    int from = 0;
    for (int i = 0; picture && i < w->bands; i++) {
        copy_rows(s->rgb + (size_t)w->at[i] * 3 * WIDTH, 3 * WIDTH,
                  picture->data[0] + (ptrdiff_t)from * picture->linesize[0], picture->linesize[0], 3 * WIDTH,
                  w->tall[i]);
        from += w->tall[i];
    }
    bool good = picture != NULL;
    av_frame_free(&picture);
    return good;
}

bool sheet_words_ready(char *err, size_t errlen)
{
    struct sheet s = {0};
    bool good = sheet_caption(&s, "key", "run", NULL, err, errlen);
    AVFrame *picture = good ? draw_words(&s.words, false, err, errlen) : NULL;
    good = picture != NULL;
    av_frame_free(&picture);
    sheet_free(&s);
    return good;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

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
static AVPacket *encode(struct sheet *s, const char *name, char *err, size_t errlen)
{
    const int refusals = libav_refusals();
    libav_quiet();
    if (!put_words(s, err, errlen)) return NULL;
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

bool sheet_put(struct sheet *s, FILE *f, char *err, size_t errlen)
{
    AVPacket *packet = encode(s, "contact sheet", err, errlen);
    bool good = packet && (fwrite(packet->data, 1, (size_t)packet->size, f) == (size_t)packet->size ||
                           fail(err, errlen, "contact sheet: %s", strerror(errno)));
    av_packet_free(&packet);
    return good;
}

bool sheet_write(struct sheet *s, const char *path, char *err, size_t errlen)
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
    free(s->words.labels);
    *s = (struct sheet){0};
}
