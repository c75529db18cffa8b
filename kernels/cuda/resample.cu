/* Resampling in time and space, windows and the blending of tiles. */
#include "kernels/cuda/image.h"

/* y[t] = (x[2t] + x[2t+1]) / 2, frames of `size` values */
template <typename T, int N> __global__ static void halve_time(T *y, const T *x, int64_t frames, int64_t size)
{
    for (int64_t t = blockIdx.z; t < frames; t += gridDim.z)
        for (int64_t i = (blockIdx.x * (int64_t)ACROSS + threadIdx.x) * N; i < size;
             i += (int64_t)gridDim.x * ACROSS * N) {
            vec<T, N> a = load<N>(x + 2 * t * size + i), b = load<N>(x + (2 * t + 1) * size + i);
            for (int n = 0; n < N; n++) a.v[n] = from_float<T>(0.5f * (to_float(a.v[n]) + to_float(b.v[n])));
            store<N>(y + t * size + i, a);
        }
}

void cuda_halve_time_forward(struct kern *k, struct tensor *y, const struct tensor *x)
{
    const int64_t odd = x->shape[0] % 2, frames = x->shape[0] / 2,
                  size = x->shape[1] * x->shape[2] * x->shape[3];
    const int64_t across = size < 1 << 24 ? size : 1 << 24; /* threads loop from there on */
    if (!size) return;
    struct tensor to = tensor_rows(y, 0, odd), from = tensor_rows(x, 0, odd);
    if (odd && !cuda_good(k, __func__,
                          cudaMemcpyAsync(to.data, from.data, tensor_bytes(&from), cudaMemcpyDeviceToDevice,
                                          stream_of(k))))
        return;
    to = tensor_rows(y, odd, frames);
    from = tensor_rows(x, odd, 2 * frames);
    if (!frames) return;
    CALL_VECTORIZED(x->dtype, vectorizable(size, &to, &from), T, N,
                    halve_time<T, N><<<image_grid(ceil_div(across, N), 1, frames), ACROSS, 0, stream_of(k)>>>(
                        (T *)to.data, (const T *)from.data, frames, size));
    CUDA_LAUNCHED(k);
}

/* `rows` rows of `width` values a frame; the rows and frames of y and x start so many values apart. */
template <typename T, int N>
__global__ static void copy_rows(T *y, const T *x, int64_t width, int64_t rows, int64_t frames, int64_t y_row,
                                 int64_t y_frame, int64_t x_row, int64_t x_frame)
{
    const int64_t c = (blockIdx.x * (int64_t)ACROSS + threadIdx.x) * N;
    if (c >= width) return;
    for (int64_t t = blockIdx.z; t < frames; t += gridDim.z)
        for (int64_t i = blockIdx.y; i < rows; i += gridDim.y)
            store<N>(y + t * y_frame + i * y_row + c, load<N>(x + t * x_frame + i * x_row + c));
}

void cuda_copy_window(struct kern *k, struct tensor *y, int64_t y0, int64_t x0, const struct tensor *x,
                      int64_t i0, int64_t j0, int64_t rows, int64_t cols)
{
    const int64_t C = x->shape[3], y_row = y->shape[2] * C, x_row = x->shape[2] * C;
    if (!x->shape[0] || !rows || !cols || !C) return;
    CALL_VECTORIZED(x->dtype, vectorizable(C, y, x), T, N,
                    copy_rows<T, N><<<image_grid(cols * C / N, rows, x->shape[0]), ACROSS, 0, stream_of(k)>>>(
                        (T *)y->data + y0 * y_row + x0 * C, (const T *)x->data + i0 * x_row + j0 * C,
                        cols * C, rows, x->shape[0], y_row, y->shape[1] * y_row, x_row, x->shape[1] * x_row));
    CUDA_LAUNCHED(k);
}

/* The first `extent` rows or columns of b: `rows` rows of `width` values a frame. a points
 * at what fades out. */
template <typename T>
__global__ static void blend(T *b, const T *a, int64_t width, int64_t rows, int64_t frames, int64_t b_row,
                             int64_t b_frame, int64_t a_row, int64_t a_frame, int64_t C, int64_t extent,
                             bool vertical)
{
    const int64_t c = blockIdx.x * (int64_t)ACROSS + threadIdx.x;
    if (c >= width) return;
    for (int64_t t = blockIdx.z; t < frames; t += gridDim.z)
        for (int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
            const double share = (double)(vertical ? i : c / C) / (double)extent;
            T *to = b + t * b_frame + i * b_row + c;
            *to = from_float<T>(to_float(a[t * a_frame + i * a_row + c]) * (float)(1 - share) +
                                to_float(*to) * (float)share);
        }
}

void cuda_blend_edge(struct kern *k, struct tensor *b, const struct tensor *a, int64_t extent, bool vertical)
{
    const int64_t C = b->shape[3], b_row = b->shape[2] * C, a_row = a->shape[2] * C, frames = b->shape[0],
                  rows = vertical ? extent : b->shape[1], width = vertical ? b_row : extent * C,
                  from = vertical ? (a->shape[1] - extent) * a_row : (a->shape[2] - extent) * C;
    if (!frames || !rows || !width) return;
    CALL_BY_DTYPE(b->dtype, T,
                  blend<<<image_grid(width, rows, frames), ACROSS, 0, stream_of(k)>>>(
                      (T *)b->data, (const T *)a->data + from, width, rows, frames, b_row,
                      b->shape[1] * b_row, a_row, a->shape[1] * a_row, C, extent, vertical));
    CUDA_LAUNCHED(k);
}
