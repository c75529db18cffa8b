/* Between ids, pixels, latents and tokens. Small against what follows them: a thread for
 * each value, or vector. */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/vectors.h"

enum { THREADS = 256 };

static unsigned blocks_for(int64_t n)
{
    return (unsigned)ceil_div(n, THREADS);
}

__device__ static int64_t global_index()
{
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

template <typename T, int N>
__global__ static void look_up(T *y, const T *table, const int32_t *ids, int64_t vectors, int64_t width)
{
    const int64_t i = global_index() * N;
    if (i < vectors * N) store<N>(y + i, load<N>(table + ids[i / width] * width + i % width));
}

extern "C" void cuda_embedding_forward(struct kern *k, struct tensor *y, const struct tensor *table,
                                       const struct tensor *ids)
{
    const int64_t width = table->shape[1], count = tensor_count(y);
    if (count == 0) return;
    CALL_VECTORIZED(y->dtype, vectorizable(width, y, table), T, N,
                    look_up<T, N><<<blocks_for(count / N), THREADS, 0, stream_of(k)>>>(
                        (T *)y->data, (const T *)table->data, (const int32_t *)ids->data, count / N, width));
    cuda_good(k, "embedding_forward", cudaGetLastError());
}

/* ---- patches of latents -------------------------------------------------------------------------------- */

/* I counts within a frame: 32 bits divide faster. */
template <typename I> struct patches {
    int64_t count;
    I C, h, w, P;
};

/* Where value i of the tokens lies in the latents. */
template <typename I> __device__ static int64_t in_latents(const struct patches<I> &s, int64_t i)
{
    const I frame = s.C * s.h * s.w, cols = s.w / s.P;
    const int64_t f = i / frame;
    I at = (I)(i - f * frame);
    const I q = at % s.P, p = (at /= s.P) % s.P, c = (at /= s.P) % s.C, x = (at /= s.C) % cols, y = at / cols;
    return f * frame + (c * s.h + s.P * y + p) * s.w + s.P * x + q;
}

template <typename T, typename I> __global__ static void to_tokens(T *y, const float *x, struct patches<I> s)
{
    const int64_t i = global_index();
    if (i < s.count) y[i] = from_float<T>(x[in_latents(s, i)]);
}

template <typename T, typename I> __global__ static void to_latents(T *y, float *x, struct patches<I> s)
{
    const int64_t i = global_index();
    if (i < s.count) x[in_latents(s, i)] = to_float(y[i]);
}

template <typename I>
static void move_patches(struct kern *k, const struct tensor *y, const struct tensor *x, int patch,
                         bool tokens)
{
    const struct patches<I> s = {
        tensor_count(x), (I)x->shape[1], (I)x->shape[2], (I)x->shape[3], (I)patch
    };
    if (tokens)
        CALL_BY_DTYPE(y->dtype, T,
                      to_tokens<<<blocks_for(s.count), THREADS, 0, stream_of(k)>>>(
                          (T *)y->data, (const float *)x->data, s));
    else
        CALL_BY_DTYPE(
            y->dtype, T,
            to_latents<<<blocks_for(s.count), THREADS, 0, stream_of(k)>>>((T *)y->data, (float *)x->data, s));
    cuda_good(k, tokens ? "patchify" : "unpatchify", cudaGetLastError());
}

static void patches_of(struct kern *k, const struct tensor *y, const struct tensor *x, int patch, bool tokens)
{
    if (tensor_count(x) == 0) return;
    if (tensor_count(x) / x->shape[0] < UINT32_MAX)
        move_patches<uint32_t>(k, y, x, patch, tokens);
    else
        move_patches<int64_t>(k, y, x, patch, tokens);
}

extern "C" void cuda_patchify(struct kern *k, struct tensor *y, const struct tensor *x, int patch)
{
    patches_of(k, y, x, patch, true);
}

extern "C" void cuda_unpatchify(struct kern *k, struct tensor *x, const struct tensor *y, int patch)
{
    patches_of(k, y, x, patch, false);
}

/* ---- a vision tower over frames ------------------------------------------------------------------------ */

struct scale {
    float mean[3], std[3];
};

__device__ static float of_channel(const float v[3], int64_t c)
{
    return c == 0 ? v[0] : c == 1 ? v[1] : v[2];
}

template <typename T>
__global__ static void from_pixels(T *y, const uint8_t *u8, int64_t H, int64_t W, int64_t P, int64_t count,
                                   struct scale s)
{
    const int64_t i = global_index();
    if (i >= count) return;
    const int64_t q = i % P, p = i / P % P, c = i / (P * P) % 3, token = i / (P * P * 3), cols = W / P,
                  rows = H / P;
    const int64_t at = (token / (cols * rows) * H + token / cols % rows * P + p) * W + token % cols * P + q;
    y[i] = from_float<T>(((float)u8[at * 3 + c] / 255 - of_channel(s.mean, c)) / of_channel(s.std, c));
}

extern "C" void cuda_pixel_patches(struct kern *k, struct tensor *y, const struct tensor *u8, int patch,
                                   const float mean[3], const float std[3])
{
    const int64_t count = tensor_count(y);
    struct scale s;
    for (int c = 0; c < 3; c++) s.mean[c] = mean[c], s.std[c] = std[c];
    if (count == 0) return;
    CALL_BY_DTYPE(y->dtype, T,
                  from_pixels<<<blocks_for(count), THREADS, 0, stream_of(k)>>>(
                      (T *)y->data, (const uint8_t *)u8->data, u8->shape[1], u8->shape[2], patch, count, s));
    cuda_good(k, "pixel_patches", cudaGetLastError());
}

template <typename T, int N>
__global__ static void class_tokens(T *y, const T *x, const T *cls, const T *pos, int64_t vectors,
                                    int64_t tokens, int64_t width)
{
    const int64_t i = global_index() * N, row = i / width, token = row % tokens, col = i % width;
    if (i >= vectors * N) return;
    float u[N];
    const vec<T, N> a = load<N>(token ? x + (row - row / tokens - 1) * width + col : cls + col);
    const vec<T, N> b = load<N>(pos + token * width + col);
    for (int j = 0; j < N; j++) u[j] = to_float(a.v[j]) + to_float(b.v[j]);
    store<N>(y + i, u);
}

extern "C" void cuda_class_tokens_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                          const struct tensor *cls, const struct tensor *pos)
{
    const int64_t width = x->shape[1], count = tensor_count(y);
    const bool wide = vectorizable(width, y, x, cls, pos);
    if (count == 0) return;
    CALL_VECTORIZED(y->dtype, wide, T, N,
                    class_tokens<T, N><<<blocks_for(count / N), THREADS, 0, stream_of(k)>>>(
                        (T *)y->data, (const T *)x->data, (const T *)cls->data, (const T *)pos->data,
                        count / N, pos->shape[0], width));
    cuda_good(k, "class_tokens_forward", cudaGetLastError());
}

/* w [width,3] */
template <typename T, int N>
__global__ static void time_conv(T *y, const T *x, const T *w, const T *b, int64_t vectors, int64_t frame,
                                 int64_t width)
{
    const int64_t i = global_index() * N, count = vectors * N, col = i % width;
    if (i >= count) return;
    const vec<T, N> before = i >= frame ? load<N>(x + i - frame) : vec<T, N>{}, now = load<N>(x + i),
                    after = i + frame < count ? load<N>(x + i + frame) : vec<T, N>{};
    const vec<T, N> bias = load<N>(b + col);
    vec<T, N> tap[3];
    float u[N];
    for (int t = 0; t < 3; t++) tap[t] = load<N>(w + 3 * col + t * N);
    const T *taps = &tap[0].v[0];
    for (int j = 0; j < N; j++)
        u[j] = quick_gelu(to_float(bias.v[j]) + to_float(taps[3 * j]) * to_float(before.v[j]) +
                          to_float(taps[3 * j + 1]) * to_float(now.v[j]) +
                          to_float(taps[3 * j + 2]) * to_float(after.v[j]));
    store<N>(y + i, u);
}

extern "C" void cuda_time_conv_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                                  const struct tensor *w, const struct tensor *b)
{
    const int64_t width = x->shape[2], count = tensor_count(x);
    const bool wide = vectorizable(width, y, x, w, b);
    if (count == 0) return;
    CALL_VECTORIZED(y->dtype, wide, T, N,
                    time_conv<T, N><<<blocks_for(count / N), THREADS, 0, stream_of(k)>>>(
                        (T *)y->data, (const T *)x->data, (const T *)w->data, (const T *)b->data, count / N,
                        x->shape[1] * width, width));
    cuda_good(k, "time_conv_quick_gelu_forward", cudaGetLastError());
}
