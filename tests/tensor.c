/* Tensors: the 16-bit types by all their values, sizes from outside, conversion. */
#include "formats/tensor.h"

#include <string.h>

#include "tests/tap.h"

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
    bad += !isnan(wide(narrow(NAN))) || !isnan(wide(infinity + 1));
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

int main(void)
{
    int bad = sixteen_bits(f32_from_f16, f16_from_f32, 0x7c00);
    ok(bad == 0, "F16: all values, and what lies between them (%d wrong)", bad);
    bad = sixteen_bits(f32_from_bf16, bf16_from_f32, 0x7f80);
    ok(bad == 0, "BF16: all values, and what lies between them (%d wrong)", bad);
    test_sizes();
    test_convert();
    return done();
}
