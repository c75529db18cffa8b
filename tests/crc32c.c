/* CRC-32C: known answers, and every length and alignment against the sum one bit at a time. */
#include "formats/crc32c.c" /* its tables, too, which a processor with the instruction does not come to */

#include <string.h>

#include "tests/tap.h"

static uint32_t bit_by_bit(uint32_t crc, const uint8_t *p, size_t n)
{
    for (crc = ~crc; n--; p++)
        for (int bit = 0; bit < 8; bit++) {
            uint32_t carry = (crc ^ *p >> bit) & 1;
            crc = crc >> 1 ^ (carry ? 0x82f63b78u : 0);
        }
    return ~crc;
}

static uint32_t tables(uint32_t crc, const void *data, size_t n)
{
    return ~by_tables(~crc, data, n);
}

int main(void)
{
    enum { LONGEST = 3 * 1360 + 9, EDGE = 64, SIZE = 3 * LONGEST };
    static uint8_t bytes[SIZE + 16], zeros[32];
    uint8_t ones[32], up[32], down[32];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    memset(ones, 0xff, sizeof ones);
    for (uint8_t i = 0; i < 32; i++) up[i] = i, down[i] = 31 - i;

    ok(crc32c(0, "123456789", 9) == 0xe3069283, "the check value");
    ok(crc32c(0, zeros, 32) == 0x8a9136aa && crc32c(0, ones, 32) == 0x62a8ab43 &&
           crc32c(0, up, 32) == 0x46dd794e && crc32c(0, down, 32) == 0x113fdb5c,
       "the examples of RFC 3720, B.4");
    ok(crc32c(0, NULL, 0) == 0 && crc32c(0x12345678, bytes, 0) == 0x12345678, "of nothing");

    int bad = 0;
    for (size_t n = 0; n <= LONGEST; n++) {
        if (n == 200) n = LONGEST - 200; /* around the length from which three streams are interleaved */
        for (size_t at = 0; at < 8; at++) {
            uint32_t sum = bit_by_bit(0, bytes + at, n);
            bad += crc32c(0, bytes + at, n) != sum || tables(0, bytes + at, n) != sum;
        }
    }
    ok(bad == 0, "all short lengths, and those about three lanes, at all alignments (%d wrong)", bad);

    uint32_t whole = bit_by_bit(0, bytes, SIZE);
    ok(crc32c(0, bytes, SIZE) == whole && tables(0, bytes, SIZE) == whole, "three rounds of three lanes");
    bad = 0;
    for (size_t n = 0; n <= SIZE; n += n < EDGE || n + EDGE > SIZE ? 1 : 61)
        bad += crc32c(crc32c(0, bytes, n), bytes + n, SIZE - n) != whole;
    ok(bad == 0, "a sum can be taken up anywhere (%d wrong)", bad);
    return done();
}
