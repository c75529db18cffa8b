#include "formats/hash.h"

#include <string.h>

uint64_t hash_more(uint64_t h, const void *data, size_t n)
{
    for (const uint8_t *p = data; n--; p++) h = (h ^ *p) * 0x100000001b3;
    return h;
}

/* XXH64 (Yann Collet, xxHash specification 0.1.1). Reads are little-endian, as everything here is. */
static const uint64_t P1 = 0x9E3779B185EBCA87, P2 = 0xC2B2AE3D27D4EB4F, P3 = 0x165667B19E3779F9,
                      P4 = 0x85EBCA77C2B2AE63, P5 = 0x27D4EB2F165667C5;

static uint64_t rotate(uint64_t v, int bits)
{
    return v << bits | v >> (64 - bits);
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t lane_round(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * P2, 31) * P1;
}

uint64_t hash64(uint64_t seed, const void *data, size_t n)
{
    const uint8_t *p = data, *end = p + n;
    uint64_t h = seed + P5;
    if (n >= 32) {
        uint64_t lane[4] = {seed + P1 + P2, seed + P2, seed, seed - P1};
        for (; end - p >= 32; p += 32)
            for (int i = 0; i < 4; i++) lane[i] = lane_round(lane[i], load64(p + 8 * i));
        h = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
        for (int i = 0; i < 4; i++) h = (h ^ lane_round(0, lane[i])) * P1 + P4;
    }
    h += n;
    for (; end - p >= 8; p += 8) h = rotate(h ^ lane_round(0, load64(p)), 27) * P1 + P4;
    for (; end - p >= 4; p += 4) h = rotate(h ^ load32(p) * P1, 23) * P2 + P3;
    for (; p < end; p++) h = rotate(h ^ *p * P5, 11) * P1;
    h = (h ^ h >> 33) * P2;
    h = (h ^ h >> 29) * P3;
    return h ^ h >> 32;
}
