#include "kernels/cpu/cpu.h"

/* Both directions: plain [T,H,W,C] and folded [T,H/P,W/P,C P P], row by row of plain. */
static void move_squares(struct kern *k, float *folded, float *plain, const int64_t plain_shape[4], int64_t P,
                         bool fold)
{
    const int64_t rows = plain_shape[0] * plain_shape[1], W = plain_shape[2], C = plain_shape[3];
    PARALLEL_FOR(k, rows * W * C)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t j = 0; j < W; j++)
            for (int64_t c = 0; c < C; c++) {
                float *one = plain + (row * W + j) * C + c;
                float *other = folded + ((row / P * (W / P) + j / P) * C + c) * P * P + j % P * P + row % P;
                *(fold ? other : one) = *(fold ? one : other);
            }
}

void cpu_fold_pixels(struct kern *k, struct tensor *y, const struct tensor *x, int patch)
{
    move_squares(k, f32(y), f32(x), x->shape, patch, true);
}

void cpu_unfold_pixels(struct kern *k, struct tensor *x, const struct tensor *y, int patch)
{
    move_squares(k, f32(y), f32(x), x->shape, patch, false);
}

struct blocks {
    int64_t frames, side, missing; /* of a block; frames of the first that are not there */
    int64_t H, W, C;               /* of what is cut into blocks */
};

static struct blocks blocks_of(const struct tensor *cut, int64_t count, int frames, int side)
{
    return (struct blocks){frames,        side,          count * frames - cut->shape[0],
                           cut->shape[1], cut->shape[2], cut->shape[3]};
}

/* Where value n, (c,a,p,q), of block (t,i,j) is; -1 where its frame is missing */
static int64_t place(const struct blocks *b, int64_t t, int64_t i, int64_t j, int64_t n)
{
    const int64_t q = n % b->side, p = n / b->side % b->side, a = n / b->side / b->side % b->frames,
                  c = n / b->side / b->side / b->frames, frame = t * b->frames + a - b->missing;
    return frame < 0 ? -1 : ((frame * b->H + i * b->side + p) * b->W + j * b->side + q) * b->C + c;
}

void cpu_average_blocks_forward(struct kern *k, struct tensor *y, const struct tensor *x, int frames,
                                int side)
{
    const struct blocks b = blocks_of(x, y->shape[0], frames, side);
    const int64_t h = y->shape[1], w = y->shape[2], O = y->shape[3], group = b.C * frames * side * side / O;
    PARALLEL_FOR(k, tensor_count(x))
    for (int64_t row = 0; row < y->shape[0] * h; row++)
        for (int64_t m = 0; m < w * O; m++) {
            double sum = 0;
            for (int64_t n = 0; n < group; n++) {
                const int64_t at = place(&b, row / h, row % h, m / O, m % O * group + n);
                sum += at < 0 ? 0 : f32(x)[at];
            }
            f32(y)[row * w * O + m] = (float)(sum / (double)group);
        }
}

void cpu_repeat_blocks_add(struct kern *k, struct tensor *y, const struct tensor *x, int frames, int side)
{
    const struct blocks b = blocks_of(y, x->shape[0], frames, side);
    const int64_t h = x->shape[1], w = x->shape[2], I = x->shape[3], group = b.C * frames * side * side / I;
    PARALLEL_FOR(k, tensor_count(y))
    for (int64_t row = 0; row < x->shape[0] * h; row++)
        for (int64_t m = 0; m < w * I; m++)
            for (int64_t n = 0; n < group; n++) {
                const int64_t at = place(&b, row / h, row % h, m / I, m % I * group + n);
                if (at >= 0) f32(y)[at] += f32(x)[row * w * I + m];
            }
}
