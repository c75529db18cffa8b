/* hash - what bytes are known by, and where they belong in a table. Neither is cryptographic. */
#ifndef FORMATS_HASH_H
#define FORMATS_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH64: of what is kept and compared, ids of weights and keys of random numbers. */
uint64_t hash64(uint64_t seed, const void *data, size_t n);

/* FNV-1a, 64 bits (Fowler, Noll, Vo), piece by piece from HASH_START on: of small things, enough to see that
 * something changed. Its low bits are mixed well enough for a table of a power of two. */
#define HASH_START 0xcbf29ce484222325
uint64_t hash_more(uint64_t h, const void *data, size_t n);

#endif
