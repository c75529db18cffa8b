/* Blocks of pixels: as channels, averaged, repeated. Small against the convolutions around them: a thread for each value
 * that is written, neighbours side by side. */
#include "kernels/cuda/image.h"

/* What is cut into blocks: a frame's columns and channels, a block's frames and side, and the frames of the first block
 * that are not there. */
struct blocks {
    int W, C, frames, side, missing;
};

/* Rows of `width` values of folded [T,h,w,C P P], value n = (c,q,p) of pixel (i,j), and their place in plain. */
template <typename T, bool FOLD>
__global__ static void move_squares(T *folded, T *plain, int w, int C, int P, int64_t rows)
{
    const int D = C * P * P, at = blockIdx.x * ACROSS + threadIdx.x, j = at / D, n = at % D;
    const int p = n % P, q = n / P % P, c = n / P / P;
    if (at >= w * D) return;
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        T *one = plain + ((row * P + p) * w * P + j * P + q) * C + c, *other = folded + row * w * D + at;
        *(FOLD ? other : one) = *(FOLD ? one : other);
    }
}

template <bool FOLD>
static void squares(struct kern *k, const char *op, struct tensor *folded, struct tensor *plain, int patch)
{
    const int64_t rows = folded->shape[0] * folded->shape[1], w = folded->shape[2], C = plain->shape[3],
                  width = w * folded->shape[3];
    if (!rows || !width || !row_fits(k, op, width)) return;
    CALL_BY_DTYPE(plain->dtype, T,
                  move_squares<T, FOLD><<<image_grid(width, rows, 1), ACROSS, 0, stream_of(k)>>>(
                      (T *)folded->data, (T *)plain->data, (int)w, (int)C, patch, rows));
    cuda_good(k, op, cudaGetLastError());
}

void cuda_fold_pixels(struct kern *k, struct tensor *y, const struct tensor *x, int patch)
{
    struct tensor plain = *x;
    squares<true>(k, "fold_pixels", y, &plain, patch);
}

void cuda_unfold_pixels(struct kern *k, struct tensor *x, const struct tensor *y, int patch)
{
    struct tensor folded = *y;
    squares<false>(k, "unfold_pixels", &folded, x, patch);
}

/* y [made,h,w,O], each of `group` values of a block in the order (channel, frame, row, column) */
template <typename T>
__global__ static void average(T *y, const T *x, struct blocks b, int group, int64_t made, int64_t h, int w,
                               int O)
{
    const int at = blockIdx.x * ACROSS + threadIdx.x, j = at / O, first = at % O * group;
    if (at >= w * O) return;
    for (int64_t t = blockIdx.z; t < made; t += gridDim.z)
        for (int64_t i = blockIdx.y; i < h; i += gridDim.y) {
            float sum = 0;
            for (int n = first; n < first + group; n++) {
                const int q = n % b.side, p = n / b.side % b.side, a = n / b.side / b.side % b.frames,
                          c = n / b.side / b.side / b.frames;
                const int64_t frame = t * b.frames + a - b.missing;
                if (frame >= 0)
                    sum +=
                        to_float(x[((frame * h + i) * b.side + p) * b.W * b.C + (j * b.side + q) * b.C + c]);
            }
            y[(t * h + i) * w * O + at] = from_float<T>(sum / (float)group);
        }
}

/* y [made,H,W,C] += x [.,h,w,I] */
template <typename T>
__global__ static void repeat(T *y, const T *x, struct blocks b, int group, int64_t made, int64_t H, int w,
                              int I)
{
    const int at = blockIdx.x * ACROSS + threadIdx.x, j = at / b.C, o = at % b.C;
    if (at >= b.W * b.C) return;
    for (int64_t t = blockIdx.z; t < made; t += gridDim.z)
        for (int64_t i = blockIdx.y; i < H; i += gridDim.y) {
            const int64_t from = (t + b.missing) / b.frames;
            const int a = (int)((t + b.missing) % b.frames), p = (int)(i % b.side), q = j % b.side,
                      n = ((o * b.frames + a) * b.side + p) * b.side + q;
            T *to = y + (t * H + i) * b.W * b.C + at;
            *to = from_float<T>(
                to_float(*to) +
                to_float(x[((from * (H / b.side) + i / b.side) * w + j / b.side) * I + n / group]));
        }
}

static struct blocks blocks_of(const struct tensor *cut, int64_t count, int frames, int side)
{
    return {(int)cut->shape[2], (int)cut->shape[3], frames, side, (int)(count * frames - cut->shape[0])};
}

/* Values of a row of either, and of a block, are counted in 32 bits. */
static bool fits(struct kern *k, const char *op, const struct tensor *cut, const struct tensor *blocks,
                 int frames, int side)
{
    return tensor_count(cut) && tensor_count(blocks) && row_fits(k, op, cut->shape[2] * cut->shape[3]) &&
           row_fits(k, op, blocks->shape[2] * blocks->shape[3]) &&
           row_fits(k, op, cut->shape[3] * frames * side * side);
}

void cuda_average_blocks_forward(struct kern *k, struct tensor *y, const struct tensor *x, int frames,
                                 int side)
{
    const int64_t *n = y->shape, group = x->shape[3] * frames * side * side / n[3];
    if (!fits(k, "average_blocks_forward", x, y, frames, side)) return;
    CALL_BY_DTYPE(y->dtype, T,
                  average<<<image_grid(n[2] * n[3], n[1], n[0]), ACROSS, 0, stream_of(k)>>>(
                      (T *)y->data, (const T *)x->data, blocks_of(x, n[0], frames, side), (int)group, n[0],
                      n[1], (int)n[2], (int)n[3]));
    CUDA_LAUNCHED(k);
}

void cuda_repeat_blocks_add(struct kern *k, struct tensor *y, const struct tensor *x, int frames, int side)
{
    const int64_t *n = y->shape, group = n[3] * frames * side * side / x->shape[3];
    if (!fits(k, "repeat_blocks_add", y, x, frames, side)) return;
    CALL_BY_DTYPE(y->dtype, T,
                  repeat<<<image_grid(n[2] * n[3], n[1], n[0]), ACROSS, 0, stream_of(k)>>>(
                      (T *)y->data, (const T *)x->data, blocks_of(y, x->shape[0], frames, side), (int)group,
                      n[0], n[1], (int)x->shape[2], (int)x->shape[3]));
    CUDA_LAUNCHED(k);
}
