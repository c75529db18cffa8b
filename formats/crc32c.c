/* Three ways to the same sum: SSE4.2 and ARMv8 have an instruction for this polynomial; elsewhere eight
 * tables (slicing by eight). The instruction has a latency of three cycles and a throughput of one, so long
 * inputs run as three interleaved streams whose sums are joined by a multiplication in GF(2)[x]: x^(8 n) mod
 * P shifts a sum over n bytes that follow. */
#include "formats/crc32c.h"

#include <string.h>
#include <stdbool.h>

#define POLYNOMIAL 0x82f63b78u

static uint32_t table[8][256];

__attribute__((constructor)) static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
        table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++) table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 255];
}

static uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t by_tables(uint32_t c, const uint8_t *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = load64(p) ^ c;
        c = 0;
        for (int i = 0; i < 8; i++) c ^= table[7 - i][v >> (8 * i) & 255];
    }
    while (n--) c = c >> 8 ^ table[0][(c ^ *p++) & 255];
    return c;
}

#if defined __x86_64__ || defined __ARM_FEATURE_CRC32

#ifdef __x86_64__
#include <nmmintrin.h>
#define WITH_INSTRUCTION __attribute__((target("sse4.2")))
#define STEP8(c, v)      (uint32_t) _mm_crc32_u64(c, v)
#define STEP1(c, v)      _mm_crc32_u8(c, v)
static bool have_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#else
#include <arm_acle.h>
#define WITH_INSTRUCTION
#define STEP8(c, v) __crc32cd(c, v)
#define STEP1(c, v) __crc32cb(c, v)
static bool have_instruction(void)
{
    return true;
}
#endif

enum { LANE = 1360 }; /* three of them make a 4 KiB page, all but 16 bytes */

/* a b mod P for reflected 32-bit polynomials: bit 31 is x^0 */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* shift[lanes][byte position][byte]: the product with x^(8 LANE lanes), a table lookup per byte of the sum */
static uint32_t shift[2][4][256];

__attribute__((constructor)) static void make_shifts(void)
{
    uint32_t lane = 1u << 31, square = 1u << 23; /* 1 and x^8 */
    for (size_t n = LANE; n; n >>= 1, square = multiply(square, square))
        if (n & 1) lane = multiply(lane, square);
    for (int lanes = 0; lanes < 2; lanes++)
        for (int byte = 0; byte < 4; byte++)
            for (uint32_t v = 0; v < 256; v++)
                shift[lanes][byte][v] = multiply(v << (8 * byte), lanes ? multiply(lane, lane) : lane);
}

static uint32_t shifted(int lanes, uint32_t c)
{
    uint32_t(*s)[256] = shift[lanes - 1];
    return s[0][c & 255] ^ s[1][c >> 8 & 255] ^ s[2][c >> 16 & 255] ^ s[3][c >> 24];
}

WITH_INSTRUCTION static uint32_t by_instruction(uint32_t c, const uint8_t *p, size_t n)
{
    for (; n >= 3 * LANE; p += 3 * LANE, n -= 3 * LANE) {
        uint32_t c1 = 0, c2 = 0;
        for (int i = 0; i < LANE; i += 8) {
            c = STEP8(c, load64(p + i));
            c1 = STEP8(c1, load64(p + LANE + i));
            c2 = STEP8(c2, load64(p + 2 * LANE + i));
        }
        c = shifted(2, c) ^ shifted(1, c1) ^ c2;
    }
    for (; n >= 8; p += 8, n -= 8) c = STEP8(c, load64(p));
    while (n--) c = STEP1(c, *p++);
    return c;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    return ~(have_instruction() ? by_instruction : by_tables)(~crc, data, n);
}

#else

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    return ~by_tables(~crc, data, n);
}

#endif
