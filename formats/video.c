#include "formats/video.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/clip.h"
#include "formats/error.h"
#include "formats/libav.h"
#include "formats/painter.h"

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

/* Decodes all of the clip and keeps frame index[k] as out[k]; how many there were into decoded. */
static bool decode(struct clip *c, struct painter *p, const int64_t *index, struct tensor *out,
                   int64_t *decoded, char *err, size_t errlen)
{
    int64_t count = out->shape[0], k = 0;
    int height = (int)out->shape[1], width = (int)out->shape[2], got;
    size_t bytes = 3 * (size_t)height * (size_t)width;
    for (*decoded = 0; (got = clip_next(c, *decoded, err, errlen)) > 0; ++*decoded) {
        int64_t first = k;
        for (; k < count && index[k] == *decoded; k++) {
            uint8_t *to = (uint8_t *)out->data + (size_t)k * bytes;
            if (k > first)
                memcpy(to, to - bytes, bytes);
            else if (!painter_paint(p, c->frame, to, height, width, err, errlen))
                return false;
        }
    }
    return got == 0;
}

/* Decodes it in the way given, and again where the packets misled about how many frames there are: which ones
 * are wanted depends on that, and it is known at the end only. */
static bool read_clip(struct clip *c, struct painter *p, const char *path, const struct clip_way *way,
                      video_choice *choose, int64_t *index, struct tensor *out, int64_t *decoded, char *err,
                      size_t errlen)
{
    int64_t total = 0;
    bool counted = false;
    if (!clip_open(c, path, way, err, errlen) || !painter_find_turn(p, c->stream, err, errlen) ||
        !clip_is_whole(c, err, errlen) || !clip_count(c, &total, err, errlen))
        return false;
    for (;;) {
        clip_close(c);
        choose(index, out->shape[0], total > 0 ? total : 1);
        if (!clip_open(c, path, way, err, errlen) || !decode(c, p, index, out, decoded, err, errlen))
            return false;
        if (*decoded == 0) return fail(err, errlen, "no frame of it can be decoded");
        if (*decoded == total) return true;
        if (counted) return fail(err, errlen, "the file changes while it is read");
        total = *decoded, counted = true;
    }
}

bool video_read(const char *path, int threads, video_choice *choose, enum video_kernel kernel,
                struct tensor *out, struct video_info *info, char *err, size_t errlen)
{
    const int refusals = libav_refusals();
    libav_quiet();
    if (!check_file(path, err, errlen)) return false;
    struct clip c = {0};
    struct clip_way way = {.threads = threads};
    struct painter p = {.kernel = kernel, .threads = threads};
    int64_t decoded = 0, *index = calloc((size_t)out->shape[0], sizeof *index);
    if (!index) return fail(err, errlen, "%s", strerror(ENOMEM));
    bool good;
    for (;;) {
        good = read_clip(&c, &p, path, &way, choose, index, out, &decoded, err, errlen);
        if (way.threads != 1 && (!good || libav_complaints())) {
            /* Which frame carries the mark of damage, or whether any does, is a race between a decoder's
             * threads. What they say is none: should they say anything, let one alone look again. */
            way.threads = 1;
        } else if (!good && !way.plain && clip_has_metadata(&c)) {
            way.plain = true; /* what is damaged may be no picture */
        } else {
            break;
        }
        clip_close(&c);
    }
    if (good && libav_refusals() != refusals) good = libav_error(err, errlen, "decoder", AVERROR(ENOMEM));
    if (good) {
        AVRational fps = av_guess_frame_rate(c.format, c.stream, NULL);
        info->width = p.turn.transpose ? c.codec->height : c.codec->width;
        info->height = p.turn.transpose ? c.codec->width : c.codec->height;
        info->frames = decoded;
        info->fps = fps.num > 0 && fps.den > 0 ? av_q2d(fps) : 0;
    }
    clip_close(&c);
    painter_free(&p);
    free(index);
    return good;
}
