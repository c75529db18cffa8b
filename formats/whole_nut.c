#include "formats/whole.h"

/* NUT, version 3 and 4 (its specification, nut.txt): packets that begin with N and say how long they are, and frames,
 * whose first byte says by the main header's table what is to come. */

enum { HEADERS = 128, CHECKED = 4096 };
struct nut {
    struct code {
        uint64_t flags, mul, size, reserved, header;
    } code[256];
    uint64_t header[HEADERS]; /* lengths of what frames may begin with and leave out */
};

static uint64_t coded(AVIOContext *io)
{
    uint64_t v = 0;
    int c, bytes = 0;
    do c = avio_r8(io), v = v << 7 | (unsigned)(c & 0x7f);
    while (c & 0x80 && ++bytes < 10);
    return v;
}

/* The table out of a main header; false: it is none that is known here. */
static bool read_table(AVIOContext *io, struct nut *n)
{
    if (coded(io) > 3) coded(io);
    coded(io), coded(io);
    for (uint64_t k = coded(io); k > 0 && !avio_feof(io); k--) coded(io), coded(io);
    uint64_t mul = 1, header = 0;
    for (int i = 0; i < 256 && !avio_feof(io);) {
        uint64_t flags = coded(io), fields = coded(io), size = 0, reserved = 0;
        if (fields > 0) coded(io);
        if (fields > 1) mul = coded(io);
        if (fields > 2) coded(io);
        if (fields > 3) size = coded(io);
        if (fields > 4) reserved = coded(io);
        uint64_t count = fields > 5 ? coded(io) : mul - size;
        if (fields > 6) coded(io);
        if (fields > 7) header = coded(io);
        for (uint64_t k = 8; k < fields && !avio_feof(io); k++) coded(io);
        if (count == 0 || count > 256 || header >= HEADERS) return false;
        for (uint64_t k = 0; k < count && i < 256; i++)
            if (i != 'N') n->code[i] = (struct code){flags, mul, size + k++, reserved, header};
    }
    uint64_t headers = coded(io) + 1;
    if (headers > HEADERS) return false;
    for (uint64_t k = 1; k < headers && !avio_feof(io); k++) {
        n->header[k] = coded(io);
        avio_skip(io, (int64_t)(n->header[k] & 0xffff));
    }
    return !avio_feof(io);
}

/* How many bytes follow a frame's head, which begins with this code; -1: there is no such frame. */
static int64_t read_frame(AVIOContext *io, const struct nut *n, const struct code *c)
{
    enum {
        PTS = 8,
        STREAM = 16,
        SIZE = 32,
        CHECKSUM = 64,
        RESERVED = 256,
        HEADER = 1024,
        TIME = 2048,
        CODED = 4096
    };
    uint64_t flags = c->flags, size = c->size, header = c->header, reserved = c->reserved;
    if (flags & CODED) flags ^= coded(io);
    if (flags & STREAM) coded(io);
    if (flags & PTS) coded(io);
    if (flags & SIZE) size += c->mul * coded(io);
    if (flags & TIME) coded(io);
    if (flags & HEADER) header = coded(io);
    if (flags & RESERVED) reserved = coded(io);
    for (; reserved > 0 && !avio_feof(io); reserved--) coded(io);
    if (flags & CHECKSUM) avio_skip(io, 4);
    if (flags & 8192 || header >= HEADERS || size > INT32_MAX) return -1;
    if (size > CHECKED) header = 0;
    return size < n->header[header] ? -1 : (int64_t)(size - n->header[header]);
}

bool whole_nut(struct whole *w)
{
    const uint64_t main_header = 0x4e4d7a561f5f04ad;
    struct nut n = {0};
    bool known = false;
    while (avio_r8(w->io) > 0 && !avio_feof(w->io)) {} /* the file's name, and a zero */
    while (avio_tell(w->io) < w->size) {
        int first = avio_r8(w->io);
        int64_t length, at;
        if (first == 'N') {
            uint64_t mark = (uint64_t)first << 56 | (uint64_t)avio_rb24(w->io) << 32 | avio_rb32(w->io);
            length = (int64_t)(coded(w->io) & INT64_MAX >> 8);
            if (length > CHECKED) avio_skip(w->io, 4);
            at = avio_tell(w->io);
            if (mark == main_header && at + length <= w->size && !known && !(known = read_table(w->io, &n)))
                return true;
        } else {
            length = known ? read_frame(w->io, &n, &n.code[first]) : -1;
            at = avio_tell(w->io);
        }
        if (length < 0) return true;
        if (!whole_until(w, at + length, "its last packet")) return false;
        avio_seek(w->io, at + length, SEEK_SET);
    }
    return true;
}
