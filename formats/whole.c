#include "formats/whole.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/imgutils.h>
#include <libavutil/intfloat.h>

#include "formats/error.h"

bool whole_until(struct whole *w, int64_t end, const char *what)
{
    return end <= w->size || fail(w->err, w->errlen, "the file is cut short: %lld bytes, but %s ends at %lld",
                                  (long long)w->size, what, (long long)end);
}

static bool no_end(struct whole *w, const char *what)
{
    return fail(w->err, w->errlen, "the file is cut short: %s", what);
}

/* From `at` on, n bytes further, or nowhere when that is no place in any file. */
static int64_t after(int64_t at, uint64_t n)
{
    return n > (uint64_t)(INT64_MAX - at) ? INT64_MAX : at + (int64_t)n;
}

/* ---- Matroska ------------------------------------------------------------------------------------------ */

/* A number of EBML: its length is in the first byte, as the place of the highest bit, which belongs to an id
 * but not to a size. *unknown: all its bits are set. false: there is none here. */
static bool ebml(AVIOContext *io, bool is_id, uint64_t *value, bool *unknown)
{
    int first = avio_r8(io), length = 1;
    while (length <= 8 && !(first & 0x80 >> (length - 1))) length++;
    if (length > (is_id ? 4 : 8)) return false;
    *value = is_id ? (uint64_t)first : (uint64_t)(first & (0x7f >> (length - 1)));
    for (int i = 1; i < length; i++) *value = *value << 8 | (unsigned)avio_r8(io);
    *unknown = *value == (UINT64_C(1) << 7 * length) - 1;
    return true;
}

static bool whole_matroska(struct whole *w)
{
    enum { SEGMENT = 0x18538067 };
    int64_t end = 0; /* of the segment, when that is known */
    bool unknown;
    for (uint64_t id, size; avio_tell(w->io) < w->size && (!end || avio_tell(w->io) < end);) {
        bool good = ebml(w->io, true, &id, &unknown) && ebml(w->io, false, &size, &unknown);
        if (avio_feof(w->io)) return no_end(w, "it ends in the head of an element");
        if (!good) return true;
        if (unknown) continue; /* a segment's or a cluster's: its parts come next */
        int64_t next = after(avio_tell(w->io), size);
        if (!whole_until(w, next, id == SEGMENT ? "its segment" : "one of its elements")) return false;
        if (id == SEGMENT) return true;
        avio_seek(w->io, next, SEEK_SET);
    }
    return true;
}

/* ---- GIF ----------------------------------------------------------------------------------------------- */

static bool skip_blocks(struct whole *w)
{
    for (int n; (n = avio_r8(w->io)) > 0 && !avio_feof(w->io);) avio_skip(w->io, n);
    return !avio_feof(w->io) && avio_tell(w->io) <= w->size;
}

static void skip_colours(AVIOContext *io, int flags)
{
    if (flags & 0x80) avio_skip(io, 3 << ((flags & 7) + 1));
}

static bool whole_gif(struct whole *w)
{
    enum { EXTENSION = 0x21, IMAGE = 0x2c, TRAILER = 0x3b };
    avio_skip(w->io, 10);
    int flags = avio_r8(w->io), block;
    avio_skip(w->io, 2);
    skip_colours(w->io, flags);
    while (!avio_feof(w->io) && (block = avio_r8(w->io)) != TRAILER) {
        if (avio_feof(w->io)) break;
        if (block == EXTENSION) {
            avio_skip(w->io, 1);
        } else if (block == IMAGE) {
            avio_skip(w->io, 8);
            skip_colours(w->io, avio_r8(w->io));
            avio_skip(w->io, 1);
        } else {
            return true;
        }
        if (!skip_blocks(w)) break;
    }
    return !avio_feof(w->io) || no_end(w, "no trailer at its end");
}

/* ---- Ogg ----------------------------------------------------------------------------------------------- */

static bool whole_ogg(struct whole *w)
{
    enum { STREAMS = 64, LAST = 4 };
    uint32_t serial[STREAMS];
    bool ended[STREAMS] = {false};
    int streams = 0, i;
    while (avio_tell(w->io) < w->size) {
        if (avio_rb32(w->io) != 0x4f676753) return true; /* OggS */
        avio_skip(w->io, 1);
        int flags = avio_r8(w->io);
        avio_skip(w->io, 8);
        uint32_t number = avio_rl32(w->io);
        avio_skip(w->io, 8);
        int segments = avio_r8(w->io), bytes = 0;
        for (int k = 0; k < segments; k++) bytes += avio_r8(w->io);
        if (avio_feof(w->io)) return no_end(w, "it ends in the head of a page");
        if (!whole_until(w, after(avio_tell(w->io), (uint64_t)bytes), "its last page")) return false;
        avio_skip(w->io, bytes);
        for (i = 0; i < streams && serial[i] != number; i++) {}
        if (i == STREAMS) return true;
        if (i == streams) serial[streams++] = number;
        ended[i] = flags & LAST;
    }
    i = w->video->id; /* the demuxer numbers streams as they appear */
    return i < 0 || i >= streams || ended[i] || no_end(w, "no page ends its stream");
}

/* ---- YUV4MPEG ------------------------------------------------------------------------------------------ */

/* Skips up to and with a line's end; false: there is none. */
static bool skip_line(AVIOContext *io)
{
    int c;
    do c = avio_r8(io);
    while (c != '\n' && !avio_feof(io));
    return !avio_feof(io);
}

static bool whole_y4m(struct whole *w)
{
    const AVCodecParameters *p = w->video->codecpar;
    int bytes = av_image_get_buffer_size(p->format, p->width, p->height, 1);
    if (bytes <= 0 || !skip_line(w->io)) return true;
    while (avio_tell(w->io) < w->size) {
        if (!skip_line(w->io)) return no_end(w, "it ends in the head of a frame");
        if (!whole_until(w, avio_tell(w->io) + bytes, "its last frame")) return false;
        avio_skip(w->io, bytes);
    }
    return true;
}

/* ---- FLV ----------------------------------------------------------------------------------------------- */

/* A number out of the metadata that a script tag holds, or 0. */
static double flv_number(const char *tag, size_t n, const char *name)
{
    char key[32];
    size_t length = (size_t)snprintf(key, sizeof key, "%c%c%s%c", 0, (int)strlen(name), name, 0);
    const char *at = memmem(tag, n, key, length);
    if (!at || (size_t)(tag + n - at) < length + 8) return 0;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits = bits << 8 | (uint8_t)at[length + (size_t)i];
    return av_int2double(bits);
}

static bool whole_flv(struct whole *w)
{
    enum { VIDEO = 9, SCRIPT = 18, TAG = 11, MAX_SCRIPT = 1 << 16 };
    double duration = 0, bytes = 0, last = 0, gap = 0, shown = 0; /* in seconds */
    char script[MAX_SCRIPT];
    avio_skip(w->io, 5);
    avio_seek(w->io, (int64_t)avio_rb32(w->io) + 4, SEEK_SET);
    while (avio_tell(w->io) < w->size) {
        int64_t at = avio_tell(w->io);
        int type = avio_r8(w->io), n = (int)avio_rb24(w->io);
        double time = (avio_rb24(w->io) | (unsigned)avio_r8(w->io) << 24) / 1000.0;
        avio_skip(w->io, 3);
        if (!whole_until(w, at + TAG + n, "its last tag")) return false;
        if (type == SCRIPT && n <= MAX_SCRIPT && !duration && avio_read(w->io, (uint8_t *)script, n) == n) {
            duration = flv_number(script, (size_t)n, "duration");
            bytes = flv_number(script, (size_t)n, "filesize");
        }
        if (type == VIDEO && time > shown) gap = time - shown > gap ? time - shown : gap, shown = time;
        if (type != SCRIPT && time > last) last = time;
        avio_seek(w->io, at + TAG + n + 4, SEEK_SET); /* behind a tag is its length */
    }
    /* Durations are rounded in many ways. A second is too much to be lost, and a little is, where the size
     * says so, too. */
    double missing = duration - last - 2 * gap;
    if (missing < (bytes > (double)w->size ? 0.1 : 1)) return true;
    return fail(w->err, w->errlen, "the file is cut short: it ends after %.2f of %.2f seconds", last,
                duration);
}

/* ---- RIFF and ASF -------------------------------------------------------------------------------------- */

static bool whole_avi(struct whole *w)
{
    while (avio_tell(w->io) + 12 <= w->size) {
        uint32_t name = avio_rb32(w->io), n = avio_rl32(w->io);
        int64_t end = avio_tell(w->io) + n;
        if (n == 0 || n == UINT32_MAX) return true; /* still to be filled in when it was written */
        if (name == MKBETAG('R', 'I', 'F', 'F')) {
            avio_skip(w->io, 4); /* AVI, AVIX: its chunks come next */
        } else if (name == MKBETAG('L', 'I', 'S', 'T') && avio_rb32(w->io) == MKBETAG('m', 'o', 'v', 'i') &&
                   !whole_until(w, end, "its list of frames")) {
            return false;
        } else {
            avio_seek(w->io, end + (end & 1), SEEK_SET);
        }
    }
    return true;
}

static bool whole_asf(struct whole *w)
{
    enum { GUID = 16, BROADCAST = 1 };
    static const uint8_t properties[GUID] = {0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11,
                                             0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65};
    uint8_t guid[GUID];
    avio_skip(w->io, GUID);
    int64_t end = after(0, avio_rl64(w->io));
    avio_skip(w->io, 6);
    while (avio_tell(w->io) + GUID + 8 <= end && avio_read(w->io, guid, GUID) == GUID) {
        int64_t at = avio_tell(w->io) - GUID;
        uint64_t size = avio_rl64(w->io);
        if (size < GUID + 8) return true;
        if (!memcmp(guid, properties, GUID)) {
            avio_skip(w->io, GUID);
            uint64_t bytes = avio_rl64(w->io);
            avio_skip(w->io, 40);
            bool live = avio_rl32(w->io) & BROADCAST;
            return live || avio_feof(w->io) || whole_until(w, after(0, bytes), "it");
        }
        avio_seek(w->io, after(at, size), SEEK_SET);
    }
    return true;
}

/* -------------------------------------------------------------------------------------------------------- */

bool whole_file(AVFormatContext *format, const AVStream *video, char *err, size_t errlen)
{
    static const struct {
        const char *name;
        bool (*look)(struct whole *w);
    } container[] = {{"matroska,webm", whole_matroska},
                     {"mov,mp4", whole_mp4},
                     {"avi", whole_avi},
                     {"flv", whole_flv},
                     {"ogg", whole_ogg},
                     {"gif", whole_gif},
                     {"nut", whole_nut},
                     {"yuv4mpegpipe", whole_y4m},
                     {"asf", whole_asf}};
    struct whole w = {.video = video, .size = avio_size(format->pb), .err = err, .errlen = errlen};
    bool good = true;
    for (size_t i = 0; i < sizeof container / sizeof *container; i++) {
        if (strncmp(format->iformat->name, container[i].name, strlen(container[i].name))) continue;
        int r = avio_open(&w.io, format->url, AVIO_FLAG_READ);
        if (r < 0) return fail(err, errlen, "it cannot be opened again: %s", av_err2str(r));
        good = container[i].look(&w);
        avio_closep(&w.io);
        return good;
    }
    return good;
}
