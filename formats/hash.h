/* hash - two hash functions, neither of them cryptographic. */
#ifndef FORMATS_HASH_H
#define FORMATS_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH64, for values that are stored and compared: ids of weights, keys of random numbers. */
uint64_t hash64(uint64_t seed, const void *data, size_t n);

/* FNV-1a, 64 bits (Fowler, Noll, Vo), piece by piece from HASH_START on, for small inputs: to notice a
 * change, and for hash tables, whose sizes may be powers of two. */
#define HASH_START 0xcbf29ce484222325
uint64_t hash_more(uint64_t h, const void *data, size_t n);

#endif
