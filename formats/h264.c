#include "formats/h264.h"

#include <string.h>

/* The bits of a NAL unit. Beyond its end they are 0. */
struct bits {
    const uint8_t *at, *end;
    int left;   /* of the byte at `at` */
    int zeroes; /* bytes of 0 just before it: after two, a 3 is no part of the data */
};

static int bit(struct bits *b)
{
    if (b->left == 0) {
        b->zeroes = *b->at ? 0 : b->zeroes + 1;
        b->at++, b->left = 8;
        if (b->at < b->end && b->zeroes >= 2 && *b->at == 3) b->at++, b->zeroes = 0;
    }
    if (b->at >= b->end) return b->left = 8, 0;
    return *b->at >> --b->left & 1;
}

static unsigned take(struct bits *b, int n)
{
    unsigned v = 0;
    while (n-- > 0) v = v << 1 | (unsigned)bit(b);
    return v;
}

static unsigned golomb(struct bits *b) /* ue(v) */
{
    int zeroes = 0;
    while (zeroes < 31 && !bit(b)) zeroes++;
    return (1u << zeroes) - 1 + take(b, zeroes);
}

static int signed_golomb(struct bits *b) /* se(v) */
{
    unsigned v = golomb(b);
    return v & 1 ? (int)(v / 2 + 1) : -(int)(v / 2);
}

static void skip_scaling_lists(struct bits *b, int lists)
{
    for (int i = 0; i < lists; i++) {
        int last = 8, next = 8;
        if (!bit(b)) continue;
        for (int k = 0; k < (i < 6 ? 16 : 64) && next; k++) {
            next = (last + signed_golomb(b) + 256) & 255;
            if (next) last = next;
        }
    }
}

static bool has_chroma_format(unsigned profile)
{
    static const uint8_t high[] = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135};
    return memchr(high, (int)profile, sizeof high) != NULL;
}

/* A sequence parameter set's flag, from the byte behind the NAL unit's header on. */
static bool gaps_allowed(const uint8_t *sps, size_t n)
{
    if (n < 4) return false;
    struct bits b = {.at = sps, .end = sps + n, .left = 8};
    unsigned profile = take(&b, 8);
    take(&b, 16);
    golomb(&b);
    if (has_chroma_format(profile)) {
        unsigned chroma = golomb(&b);
        if (chroma == 3) bit(&b);
        golomb(&b), golomb(&b), bit(&b);
        if (bit(&b)) skip_scaling_lists(&b, chroma == 3 ? 12 : 8);
    }
    golomb(&b);
    unsigned order = golomb(&b);
    if (order == 0) golomb(&b);
    if (order == 1) {
        bit(&b), golomb(&b), golomb(&b);
        for (unsigned k = golomb(&b); k > 0 && b.at < b.end; k--) golomb(&b);
    }
    golomb(&b); /* reference frames */
    return bit(&b);
}

enum { TYPE = 31, SPS = 7 };

static bool in_avcc(const uint8_t *h, size_t n)
{
    int sets = n > 5 ? h[5] & 31 : 0;
    bool allowed = false;
    for (size_t at = 6; sets > 0 && at + 2 <= n; sets--) {
        size_t length = (size_t)h[at] << 8 | h[at + 1];
        at += 2;
        if (length == 0 || length > n - at) break;
        if ((h[at] & TYPE) == SPS) allowed |= gaps_allowed(h + at + 1, length - 1);
        at += length;
    }
    return allowed;
}

bool h264_may_leave_out(const uint8_t *header, int bytes)
{
    size_t n = bytes > 0 ? (size_t)bytes : 0;
    bool allowed = false;
    if (n > 0 && header[0] == 1) return in_avcc(header, n);
    for (size_t i = 0; i + 4 < n; i++)
        if (header[i] == 0 && header[i + 1] == 0 && header[i + 2] == 1 && (header[i + 3] & TYPE) == SPS)
            allowed |= gaps_allowed(header + i + 4, n - i - 4);
    return allowed;
}
