/* Tensors: the 16-bit types by all their values, sizes from outside, conversion. */
#include "formats/tensor.h"

#include <string.h>

#include "tests/tap.h"

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Every 16-bit pattern comes back, and what lies between two neighbours goes to the nearer one, ties to the
 * even. */
static int sixteen_bits(float (*wide)(uint16_t), uint16_t (*narrow)(float), uint16_t infinity)
{
    int bad = 0;
    for (int v = 0; v < infinity; v++) {
        double low = wide((uint16_t)v),
               high = v + 1 < infinity ? wide((uint16_t)(v + 1)) : 2 * low - wide((uint16_t)(v - 1));
        float middle = (float)((low + high) / 2);
        int even = v & 1 ? v + 1 : v;
        bad += narrow((float)low) != v || narrow(-(float)low) != (v | 0x8000) || narrow(middle) != even;
        bad += narrow(nextafterf(middle, 0)) != v || narrow(nextafterf(middle, INFINITY)) != v + 1;
        bad += wide((uint16_t)(v | 0x8000)) != -wide((uint16_t)v);
    }
    bad += narrow(INFINITY) != infinity || !isinf(wide(infinity)) || narrow(-INFINITY) != (infinity | 0x8000);
    for (int v = infinity + 1; v < 0x8000; v++) /* NaN stays NaN, both ways, and keeps its sign */
        for (int sign = 0; sign <= 0x8000; sign += 0x8000) {
            float f = wide((uint16_t)(v | sign));
            uint16_t again = narrow(f);
            bad += !isnan(f) || !isnan(wide(again)) || (again & 0x8000) != sign;
        }
    bad += !isnan(wide(narrow(float_of(0x7f800001)))); /* a NaN all of whose bits are among those cut off */
    return bad;
}

static void test_sizes(void)
{
    size_t bytes = 7;
    ok(tensor_bytes_checked(DT_F32, 2, (int64_t[]){3, 5}, &bytes) && bytes == 60, "3 x 5 F32 are 60 bytes");
    ok(tensor_bytes_checked(DT_F64, 0, NULL, &bytes) && bytes == 8, "a scalar has its size");
    ok(tensor_bytes_checked(DT_F32, 2, (int64_t[]){0, 5}, &bytes) && bytes == 0, "an empty tensor has none");
    ok(!tensor_bytes_checked(DT_U8, 3, (int64_t[]){0, INT64_MAX, 2}, &bytes),
       "a zero hides no absurd neighbour");
    ok(!tensor_bytes_checked(DT_U8, 1, (int64_t[]){-1}, &bytes), "a negative dimension is refused");
    ok(!tensor_bytes_checked(DT_U8, 2, (int64_t[]){INT64_MAX, 2}, &bytes), "an overflow is refused");
    ok(!tensor_bytes_checked(DT_F64, 1, (int64_t[]){INT64_MAX / 4}, &bytes),
       "one by the element's size, too");
    ok(!tensor_bytes_checked(DT_U8, 9, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, &bytes) &&
           !tensor_bytes_checked(DT_U8, -1, NULL, &bytes),
       "a rank is 0 to 8");
    ok(tensor_bytes_checked(DT_U8, 1, (int64_t[]){INT64_MAX}, &bytes) && bytes == INT64_MAX,
       "63 bits are the limit");
    ok(tensor_bytes_checked(DT_U8, 3, (int64_t[]){INT64_MAX, 0, 1}, &bytes) && bytes == 0,
       "of an empty tensor, too");
}

static void test_convert(void)
{
    float in[] = {0, -1.5f, 300, 2.5f, -0.0f, 65504}, out[6];
    uint16_t half[6], brain[6];
    uint8_t bytes[6];
    struct tensor f = tensor_of(DT_F32, in, 1, 6), h = tensor_of(DT_F16, half, 1, 6),
                  b = tensor_of(DT_BF16, brain, 1, 6), u = tensor_of(DT_U8, bytes, 1, 6),
                  o = tensor_of(DT_F32, out, 1, 6);
    tensor_convert(&h, &f);
    tensor_convert(&o, &h);
    ok(!memcmp(in, out, sizeof in), "what F16 can hold comes back from it, zeros and signs too");
    tensor_convert(&b, &h);
    tensor_convert(&o, &b);
    ok(out[0] == 0 && out[1] == -1.5f && out[2] == 300 && signbit(out[4]) && out[5] == 65536,
       "BF16 from F16 is rounded");
    tensor_convert(&u, &f);
    ok(bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 255, "integers saturate");
}

/* From every dtype to every other, by what a double can say; what does not fit is the nearest that does. */
static void test_every_pair(void)
{
    static const double values[] = {
        0,      1,       -1,    2.5,    -2.5,       127,           255,          256,
        -256,   65504,   1e5,   -1e5,   2147483647, -2147483648.0, 4294967296.0, 1e18,
        0x1p62, -0x1p63, 1e300, -1e300, 1e-30,      INFINITY,      -INFINITY,    NAN};
    static const double limits[DT_COUNT][2] = {
        [DT_U8] = {0, 255}, [DT_I32] = {INT32_MIN, INT32_MAX}, [DT_I64] = {-0x1p63, 0x1p63}};
    enum { N = sizeof values / sizeof values[0] };
    double in[N], from[N], to[N];
    int bad = 0;
    for (int a = 0; a < DT_COUNT; a++)
        for (int b = 0; b < DT_COUNT; b++) {
            struct tensor d = tensor_of(DT_F64, in, 1, N), s = tensor_of(a, from, 1, N),
                          t = tensor_of(b, to, 1, N);
            memcpy(in, values, sizeof in);
            tensor_convert(&s, &d);
            tensor_convert(&t, &s);
            for (int i = 0; i < N; i++) {
                double x = tensor_get(&s, i), y = tensor_get(&t, i), want = x;
                if (b == DT_F32) want = (float)x;
                if (b == DT_F16) want = f32_from_f16(f16_from_f32((float)x));
                if (b == DT_BF16) want = f32_from_bf16(bf16_from_f32((float)x));
                if (!dtype_is_float(b)) {
                    want = isnan(x) ? 0 : trunc(fmax(limits[b][0], fmin(limits[b][1], x)));
                }
                if (!(y == want || (isnan(y) && isnan(want))) && !bad++)
                    printf("# %s %g to %s: %g, not %g\n", dtype_name(a), x, dtype_name(b), y, want);
            }
        }
    ok(bad == 0, "from every dtype to every other (%d wrong)", bad);
    int64_t big[2] = {INT64_MAX, INT64_MIN}, same[2];
    struct tensor l = tensor_of(DT_I64, big, 1, 2), m = tensor_of(DT_I64, same, 1, 2);
    tensor_convert(&m, &l);
    ok(!memcmp(big, same, sizeof big), "a copy loses nothing");
}

static void test_views(void)
{
    char text[64], little[12];
    uint16_t data[24];
    struct tensor t = tensor_of(DT_F16, data, 3, 2, 3, 4), rows = tensor_rows(&t, 1, 1),
                  flat = tensor_as(&t, 2, 6, 4);
    struct tensor empty = tensor_of(DT_F32, NULL, 2, 3, 0), none = tensor_rows(&empty, 1, 2),
                  scalar = tensor_of(DT_I64, data, 0);
    ok(rows.data == data + 12 && tensor_is(&rows, DT_F16, 3, 1, 3, 4) && tensor_count(&rows) == 12,
       "rows of the first axis");
    ok(flat.data == data && tensor_is(&flat, DT_F16, 2, 6, 4) && !tensor_same_shape(&flat, &t),
       "the same elements, otherwise cut");
    ok(tensor_count(&empty) == 0 && tensor_bytes(&none) == 0 && tensor_is(&none, DT_F32, 2, 2, 0),
       "rows of nothing");
    ok(tensor_count(&scalar) == 1 && tensor_bytes(&scalar) == 8, "a scalar has one element");
    ok(tensor_is(&t, DT_F16, 3, -1, 3, -1) && !tensor_is(&t, DT_F16, 2, -1, 3) &&
           !tensor_is(&t, DT_F32, 3, 2, 3, 4) && !tensor_is(&t, DT_F16, 3, 2, 3, 5),
       "a shape is wanted, any size where -1 stands");
    ok(!strcmp(tensor_describe(text, sizeof text, &t), "F16 [2,3,4]") &&
           !strcmp(tensor_describe(text, sizeof text, &scalar), "I64 []"),
       "it is described");
    ok(strlen(tensor_describe(little, sizeof little, &t)) < sizeof little, "in the room there is");
    enum dtype d = DT_U8;
    ok(dtype_parse(&d, "BF16") && d == DT_BF16 && !dtype_parse(&d, "bf16") && !dtype_parse(&d, "") &&
           d == DT_BF16,
       "a dtype has one name");
}

int main(void)
{
    int bad = sixteen_bits(f32_from_f16, f16_from_f32, 0x7c00);
    ok(bad == 0, "F16: all values, and what lies between them (%d wrong)", bad);
    bad = sixteen_bits(f32_from_bf16, bf16_from_f32, 0x7f80);
    ok(bad == 0, "BF16: all values, and what lies between them (%d wrong)", bad);
    test_sizes();
    test_views();
    test_every_pair();
    test_convert();
    return done();
}
