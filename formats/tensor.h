/* tensor - a typed, shaped piece of memory: what formats read and write and what kernels compute on.
 *
 * Row-major, little-endian, no strides. A tensor does not own its memory; whoever made it does (a record, a
 * kernel arena, a weight store). Dtypes go by safetensors' names. */
#ifndef FORMATS_TENSOR_H
#define FORMATS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype { DT_U8, DT_I32, DT_I64, DT_F16, DT_BF16, DT_F32, DT_F64, DT_COUNT };
enum { TENSOR_MAX_RANK = 8 };

struct tensor {
    enum dtype dtype;
    int rank;
    int64_t shape[TENSOR_MAX_RANK];
    void *data;
};

size_t dtype_size(enum dtype d);
const char *dtype_name(enum dtype d);
bool dtype_parse(enum dtype *d, const char *name); /* false: no such dtype */
bool dtype_is_float(enum dtype d);

/* A tensor over existing memory, e.g. tensor_of(DT_F32, data, 2, rows, width). The dimensions are int64_t. */
#define tensor_of(dtype, data, ...) tensor_make(dtype, data, (const int64_t[]){__VA_ARGS__})
struct tensor tensor_make(enum dtype d, void *data, const int64_t *rank_then_shape);

/* Elements and bytes. Only for shapes that are known to be sound (see tensor_bytes_checked). */
int64_t tensor_count(const struct tensor *t);
size_t tensor_bytes(const struct tensor *t);

/* Bytes of a shape from outside; false when a dimension is negative or a product overflows 63 bits. */
bool tensor_bytes_checked(enum dtype d, int rank, const int64_t *shape, size_t *bytes);

/* Rows [from, from+rows) along the first axis, sharing memory. */
struct tensor tensor_rows(const struct tensor *t, int64_t from, int64_t rows);

/* The same elements under another shape: tensor_as(&t, 2, rows, width). Counts must agree (asserted). */
#define tensor_as(t, ...) tensor_reshaped(t, (const int64_t[]){__VA_ARGS__})
struct tensor tensor_reshaped(const struct tensor *t, const int64_t *rank_then_shape);

bool tensor_same_shape(const struct tensor *a, const struct tensor *b);
/* true when t has this rank and shape; -1 matches any size: tensor_is(&t, DT_F32, 4, -1, 16, h, w) */
#define tensor_is(t, dtype, ...) tensor_matches(t, dtype, (const int64_t[]){__VA_ARGS__})
bool tensor_matches(const struct tensor *t, enum dtype d, const int64_t *rank_then_shape);

/* "F32 [3,4]" into buf; returns buf. */
char *tensor_describe(char *buf, size_t size, const struct tensor *t);

float f32_from_bf16(uint16_t v);
uint16_t bf16_from_f32(float v); /* round to nearest even; NaN stays NaN */
float f32_from_f16(uint16_t v);
uint16_t f16_from_f32(float v); /* round to nearest even; overflow to infinity */

/* Element i of any dtype as a double (exact but for I64 beyond 2^53). */
double tensor_get(const struct tensor *t, int64_t i);

/* dst = src, element by element, between any two dtypes; a value passes through F32 when either is 16 bits
 * wide. Counts must agree (asserted). Integers saturate. */
void tensor_convert(struct tensor *dst, const struct tensor *src);

#endif
