#include "formats/tensor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[DT_COUNT] = {
    [DT_U8] = {"U8", 1},     [DT_I32] = {"I32", 4}, [DT_I64] = {"I64", 8}, [DT_F16] = {"F16", 2},
    [DT_BF16] = {"BF16", 2}, [DT_F32] = {"F32", 4}, [DT_F64] = {"F64", 8}};

size_t dtype_size(enum dtype d)
{
    return dtypes[d].size;
}

const char *dtype_name(enum dtype d)
{
    return dtypes[d].name;
}

bool dtype_parse(enum dtype *d, const char *name)
{
    for (int i = 0; i < DT_COUNT; i++)
        if (!strcmp(name, dtypes[i].name)) return *d = (enum dtype)i, true;
    return false;
}

bool dtype_is_float(enum dtype d)
{
    return d == DT_F16 || d == DT_BF16 || d == DT_F32 || d == DT_F64;
}

struct tensor tensor_make(enum dtype d, void *data, const int64_t *rank_then_shape)
{
    struct tensor t = {.dtype = d, .rank = (int)rank_then_shape[0], .data = data};
    assert(t.rank >= 0 && t.rank <= TENSOR_MAX_RANK);
    memcpy(t.shape, rank_then_shape + 1, (size_t)t.rank * sizeof t.shape[0]);
    return t;
}

int64_t tensor_count(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

size_t tensor_bytes(const struct tensor *t)
{
    return (size_t)tensor_count(t) * dtype_size(t->dtype);
}

bool tensor_bytes_checked(enum dtype d, int rank, const int64_t *shape, size_t *bytes)
{
    int64_t n = (int64_t)dtype_size(d);
    bool empty = false; /* a zero anywhere makes the size 0, but must not hide an absurd neighbour */
    if (rank < 0 || rank > TENSOR_MAX_RANK) return false;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(n, shape[i], &n))
            return false;
    }
    *bytes = empty ? 0 : (size_t)n;
    return true;
}

struct tensor tensor_rows(const struct tensor *t, int64_t from, int64_t rows)
{
    struct tensor r = *t;
    assert(t->rank > 0 && from >= 0 && rows >= 0 && from + rows <= t->shape[0]);
    r.shape[0] = 1;
    size_t row = tensor_bytes(&r);
    r.shape[0] = rows;
    if (t->data) r.data = (char *)t->data + (size_t)from * row;
    return r;
}

struct tensor tensor_reshaped(const struct tensor *t, const int64_t *rank_then_shape)
{
    struct tensor r = tensor_make(t->dtype, t->data, rank_then_shape);
    assert(tensor_count(&r) == tensor_count(t));
    return r;
}

bool tensor_same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]);
}

bool tensor_matches(const struct tensor *t, enum dtype d, const int64_t *rank_then_shape)
{
    if (t->dtype != d || t->rank != rank_then_shape[0]) return false;
    for (int i = 0; i < t->rank; i++)
        if (rank_then_shape[1 + i] >= 0 && t->shape[i] != rank_then_shape[1 + i]) return false;
    return true;
}

char *tensor_describe(char *buf, size_t size, const struct tensor *t)
{
    size_t n = (size_t)snprintf(buf, size, "%s [", dtype_name(t->dtype));
    for (int i = 0; i < t->rank && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%lld", i ? "," : "", (long long)t->shape[i]);
    if (n < size) snprintf(buf + n, size - n, "]");
    return buf;
}

float f32_from_bf16(uint16_t v)
{
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t bf16_from_f32(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* quiet NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The bits of magnitude moved to where F32 has them are the value times 2^-112, subnormals included. */
float f32_from_f16(uint16_t v)
{
    uint32_t bits = (uint32_t)(v & 0x7fff) << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    f *= 0x1p112f;
    memcpy(&bits, &f, sizeof bits);
    if ((v & 0x7c00) == 0x7c00) bits |= 0x7f800000; /* infinity, NaN */
    bits |= (uint32_t)(v & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t f16_from_f32(float v)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    float a = fabsf(v);
    if (isnan(v)) return sign | 0x7e00;
    if (a >= 65520) return sign | 0x7c00;
    int exponent;
    frexpf(a, &exponent); /* a = m * 2^exponent, m in [0.5, 1) */
    int unit =
        a == 0 || exponent < -13 ? -24 : exponent - 11; /* weight of the last bit, one for all subnormals */
    int steps = (int)nearbyintf(ldexpf(a, -unit));      /* to nearest even; 2048 carries into the exponent */
    if (unit == -24) return (uint16_t)(sign | steps);
    return (uint16_t)(sign | (((unit + 24) << 10) + steps));
}

double tensor_get(const struct tensor *t, int64_t i)
{
    switch (t->dtype) {
    case DT_U8: return ((const uint8_t *)t->data)[i];
    case DT_I32: return ((const int32_t *)t->data)[i];
    case DT_I64: return (double)((const int64_t *)t->data)[i];
    case DT_F16: return f32_from_f16(((const uint16_t *)t->data)[i]);
    case DT_BF16: return f32_from_bf16(((const uint16_t *)t->data)[i]);
    case DT_F32: return ((const float *)t->data)[i];
    case DT_F64: return ((const double *)t->data)[i];
    case DT_COUNT: break;
    }
    return NAN;
}

static double clamp(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v == v ? v : 0;
}

static void tensor_set(struct tensor *t, int64_t i, double v)
{
    switch (t->dtype) {
    case DT_U8: ((uint8_t *)t->data)[i] = (uint8_t)clamp(v, 0, 255); break;
    case DT_I32: ((int32_t *)t->data)[i] = (int32_t)clamp(v, INT32_MIN, INT32_MAX); break;
    case DT_I64:
        ((int64_t *)t->data)[i] = v >= 0x1p63 ? INT64_MAX : (int64_t)clamp(v, -0x1p63, 0x1p63);
        break;
    case DT_F16: ((uint16_t *)t->data)[i] = f16_from_f32((float)v); break;
    case DT_BF16: ((uint16_t *)t->data)[i] = bf16_from_f32((float)v); break;
    case DT_F32: ((float *)t->data)[i] = (float)v; break;
    case DT_F64: ((double *)t->data)[i] = v; break;
    case DT_COUNT: break;
    }
}

void tensor_convert(struct tensor *dst, const struct tensor *src)
{
    int64_t n = tensor_count(src);
    assert(tensor_count(dst) == n);
    if (n == 0) return;
    if (dst->dtype == src->dtype) {
        memmove(dst->data, src->data, tensor_bytes(src));
    } else if (src->dtype == DT_BF16 &&
               dst->dtype == DT_F32) { /* the common pairs, without the switch per element */
        for (int64_t i = 0; i < n; i++)
            ((float *)dst->data)[i] = f32_from_bf16(((const uint16_t *)src->data)[i]);
    } else if (src->dtype == DT_F16 && dst->dtype == DT_F32) {
        for (int64_t i = 0; i < n; i++)
            ((float *)dst->data)[i] = f32_from_f16(((const uint16_t *)src->data)[i]);
    } else if (src->dtype == DT_F32 && dst->dtype == DT_BF16) {
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)dst->data)[i] = bf16_from_f32(((const float *)src->data)[i]);
    } else {
        for (int64_t i = 0; i < n; i++) tensor_set(dst, i, tensor_get(src, i));
    }
}
