/* crc32c - CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), by hardware where the processor has it.
 * crc32c(0, "123456789", 9) == 0xe3069283. Continue over more bytes by passing the last result as crc. */
#ifndef FORMATS_CRC32C_H
#define FORMATS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t n);

#endif
