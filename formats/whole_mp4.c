#include <string.h>

#include <libavutil/common.h>

#include "formats/error.h"
#include "formats/whole.h"

/* ISO/IEC 14496-12. A file of fragments: moov (trak .., mvex (mehd, trex ..)), then moof (traf (tfhd, tfdt,
 * trun) ..), mdat over and over, with sidx and styp between them, mfra at the end. */

#define BOX(a, b, c, d) MKBETAG(a, b, c, d)

enum { TRACKS = 16 };
struct fragments {
    bool any, told;     /* there is mvex; the end can be told without mfra */
    bool closed;        /* there is mfra */
    uint32_t timescale; /* of the movie */
    uint64_t duration;  /* by mehd, in its units; 0: it does not say */
    int tracks;
    struct track {
        uint32_t id, timescale, step; /* step: of a sample */
        uint64_t end;
    } track[TRACKS], *now;
    uint32_t step; /* of the samples of the fragment at hand */
};

static struct track *find_track(struct fragments *f, uint32_t id)
{
    for (int i = 0; i < f->tracks; i++)
        if (f->track[i].id == id) return &f->track[i];
    if (f->tracks == TRACKS) return NULL;
    f->track[f->tracks] = (struct track){.id = id};
    return &f->track[f->tracks++];
}

static uint64_t number(AVIOContext *io, bool wide)
{
    return wide ? avio_rb64(io) : avio_rb32(io);
}

/* How long the samples of a trun are. */
static uint64_t samples(AVIOContext *io, uint32_t flags, uint32_t step, int64_t end)
{
    uint32_t count = avio_rb32(io);
    uint64_t sum = 0;
    if (!(flags & 0x100)) return (uint64_t)count * step;
    int rest = 4 * (!!(flags & 0x200) + !!(flags & 0x400) + !!(flags & 0x800));
    avio_skip(io, 4 * (!!(flags & 1) + !!(flags & 4)));
    for (; count > 0 && avio_tell(io) < end; count--) {
        sum += avio_rb32(io);
        avio_skip(io, rest);
    }
    return sum;
}

/* A box with a version and flags, from behind these on. */
static void read_full_box(AVIOContext *io, struct fragments *f, uint32_t name, int64_t end)
{
    uint32_t version = (uint32_t)avio_r8(io), flags = avio_rb24(io), id;
    struct track *t;
    switch (name) {
    case BOX('m', 'v', 'h', 'd'): /* after two times */
        avio_skip(io, version ? 16 : 8);
        f->timescale = avio_rb32(io);
        break;
    case BOX('m', 'e', 'h', 'd'): f->duration = number(io, version); break;
    case BOX('t', 'k', 'h', 'd'):
        avio_skip(io, version ? 16 : 8);
        f->now = find_track(f, avio_rb32(io));
        break;
    case BOX('m', 'd', 'h', 'd'):
        avio_skip(io, version ? 16 : 8);
        if (f->now) f->now->timescale = avio_rb32(io);
        break;
    case BOX('s', 't', 't', 's'): /* what is no fragment's */
        for (uint32_t n = avio_rb32(io); f->now && n > 0 && avio_tell(io) < end; n--) {
            uint64_t count = avio_rb32(io);
            f->now->end += count * avio_rb32(io);
        }
        break;
    case BOX('t', 'r', 'e', 'x'):
        id = avio_rb32(io);
        avio_skip(io, 4);
        if ((t = find_track(f, id))) t->step = avio_rb32(io);
        break;
    case BOX('t', 'f', 'h', 'd'):
        f->now = find_track(f, avio_rb32(io));
        avio_skip(io, (flags & 1 ? 8 : 0) + (flags & 2 ? 4 : 0));
        f->step = flags & 8 ? avio_rb32(io) : f->now ? f->now->step : 0;
        break;
    case BOX('t', 'f', 'd', 't'):
        if (f->now) f->now->end = number(io, version);
        break;
    case BOX('t', 'r', 'u', 'n'):
        if (f->now) f->now->end += samples(io, flags, f->step, end);
    }
}

/* The boxes within a box that ends there; as deep as they go in a sound file. */
static void read_boxes(AVIOContext *io, struct fragments *f, int64_t end, int deeper)
{
    while (avio_tell(io) + 8 <= end && !avio_feof(io)) {
        int64_t at = avio_tell(io);
        uint32_t size = avio_rb32(io), name = avio_rb32(io);
        if (size < 8 || size > end - at) return;
        switch (name) {
        case BOX('m', 'v', 'e', 'x'): f->any = true; /* fall through */
        case BOX('t', 'r', 'a', 'k'):
        case BOX('m', 'd', 'i', 'a'):
        case BOX('m', 'i', 'n', 'f'):
        case BOX('s', 't', 'b', 'l'):
        case BOX('t', 'r', 'a', 'f'):
            if (deeper > 0) read_boxes(io, f, at + size, deeper - 1);
            break;
        default: read_full_box(io, f, name, at + size);
        }
        avio_seek(io, at + size, SEEK_SET);
    }
}

/* Whether what an index promises, from behind it on, is there. */
static bool read_index(struct whole *w, int64_t end)
{
    bool wide = avio_r8(w->io);
    avio_skip(w->io, 3 + 8);
    number(w->io, wide);
    uint64_t first = number(w->io, wide), last = FFMIN(first, (uint64_t)INT64_MAX / 2) + (uint64_t)end;
    avio_skip(w->io, 2);
    for (uint32_t n = avio_rb16(w->io); n > 0 && avio_tell(w->io) < end; n--) {
        last += avio_rb32(w->io) & INT32_MAX;
        avio_skip(w->io, 8);
    }
    return whole_until(w, (int64_t)last, "what its index (sidx) lists");
}

/* Whether the longest track is as long as mehd has it, but for half a second, which rounding and edits may
 * take. */
static bool long_enough(struct whole *w, const struct fragments *f)
{
    double told = f->timescale ? (double)f->duration / f->timescale : 0, there = 0;
    for (int i = 0; i < f->tracks; i++)
        if (f->track[i].timescale) there = FFMAX(there, (double)f->track[i].end / f->track[i].timescale);
    return told <= there + 0.5 ||
           fail(w->err, w->errlen, "the file is cut short: fragments for %.2f of %.2f seconds", there, told);
}

bool whole_mp4(struct whole *w)
{
    struct fragments f = {0};
    for (int64_t at = 0; at + 8 <= w->size; avio_seek(w->io, at, SEEK_SET)) {
        int64_t start = at;
        uint64_t size = avio_rb32(w->io);
        uint32_t name = avio_rb32(w->io);
        if (size == 1) size = avio_rb64(w->io);
        if (size == 0) size = (uint64_t)(w->size - at); /* to the end */
        if (size < 8 || size > INT64_MAX / 2) return true;
        at += (int64_t)size;
        if (at > w->size) { /* a file with one index for all is compared with that (video.c) */
            return !f.any || whole_until(w, at, "its last box");
        }
        if (name == BOX('m', 'o', 'o', 'v') || name == BOX('m', 'o', 'o', 'f')) read_boxes(w->io, &f, at, 4);
        if (name == BOX('s', 'i', 'd', 'x') && !read_index(w, at)) return false;
        f.told |= name == BOX('s', 'i', 'd', 'x') || name == BOX('s', 't', 'y', 'p');
        f.closed |= name == BOX('m', 'f', 'r', 'a');
        if (at <= start) return true;
    }
    if (!f.any || f.closed) return true;
    if (f.duration) return long_enough(w, &f);
    return f.told || fail(w->err, w->errlen, "the file is cut short: fragments without an end (mfra)");
}
