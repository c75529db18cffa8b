/* Convolutions. BF16 goes to cuDNN, bias and residual in the same pass; behind a doubling of rows and
 * columns, as four convolutions of 2x2. F32, few channels, and what cuDNN has no engine for, are laid out as
 * rows that a product multiplies: for F32 slower than could be, and right for every shape. Few results are a
 * product, whose columns are then added up. */
#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/image.h"

#include <string.h>

enum { ROWS_BYTES = 32 << 20, EIGHT = 8 };

struct conv {
    int64_t T, H, W, C; /* frames of the result; a frame of x */
    int64_t out_h, out_w, out;
    int64_t depth, stride; /* taps in time, steps in space */
    int up, phase;         /* each pixel of x stands for 2^up by 2^up; of four parts, for cuDNN */
    bool residual;
    int step = 0; /* not 0: the taps are in time alone, and this is the step there */
};

static int64_t taps_of(const struct conv *g)
{
    return g->step ? g->depth : g->depth * 9;
}

static int64_t to_eight(int64_t n)
{
    return ceil_div(n, EIGHT) * EIGHT;
}

/* to [rows,wide] from [n,C]: zeros beyond n and C. */
template <typename T>
__global__ static void widen(T *to, const T *from, int64_t n, int64_t C, int64_t rows, int64_t wide)
{
    for (int64_t i = grid_index(); i < rows * wide; i += grid_stride())
        to[i] = i / wide < n && i % wide < C ? from[i / wide * C + i % wide] : from_float<T>(0);
}

static struct tensor scratch(struct kern *k, enum dtype d, int64_t rows, int64_t cols)
{
    const int64_t shape[] = {2, rows, cols};
    return kern_tensor_shape(k, d, shape);
}

/* t, seen as [n,C], as scratch [rows,wide]; itself when that is what it is */
static struct tensor widened(struct kern *k, const struct tensor *t, int64_t n, int64_t C, int64_t rows,
                             int64_t wide)
{
    const int64_t shape[] = {2, n, C};
    if (n == rows && C == wide) return tensor_reshaped(t, shape);
    struct tensor to = scratch(k, t->dtype, rows, wide);
    if (to.data)
        CALL_BY_DTYPE(t->dtype, T,
                      widen<<<blocks_for(rows * wide), ACROSS, 0, stream_of(k)>>>(
                          (T *)to.data, (const T *)t->data, n, C, rows, wide));
    return to;
}

/* ---- as products ---- */

/* Row r: the neighbourhood of result `first` + r, [depth,3,3,C], zero outside the frame and up to `wide`,
 * which is a multiple of EIGHT. A thread writes eight values. CHANNELS is C where that is to be known
 * beforehand, else 0. */
template <typename T, int CHANNELS>
__global__ static void unfold(T *to, const T *x, const struct conv g, int64_t first, int64_t rows, int wide)
{
    const unsigned C = CHANNELS ? CHANNELS : (unsigned)g.C, width = (unsigned)g.depth * 9 * C,
                   packs = wide / EIGHT;
    const int pad = g.stride == 1;
    for (int64_t at = grid_index(); at < rows * packs; at += grid_stride()) {
        const int64_t r = at / packs, p = first + r, frame = g.out_h * g.out_w, t = p / frame;
        const unsigned n0 = (unsigned)(at % packs) * EIGHT, within = (unsigned)(p % frame),
                       out_w = (unsigned)g.out_w;
        const int i0 = (int)(within / out_w * g.stride) - pad, j0 = (int)(within % out_w * g.stride) - pad;
        vec<T, EIGHT> v;
        for (int e = 0; e < EIGHT; e++) {
            const unsigned n = n0 + e, tap = n / C;
            const int i = i0 + (int)(tap / 3 % 3), j = j0 + (int)(tap % 3);
            const bool inside = n < width && i >= 0 && i < g.H << g.up && j >= 0 && j < g.W << g.up;
            v.v[e] = inside ? x[(((t + tap / 9) * g.H + (i >> g.up)) * g.W + (j >> g.up)) * C + n % C]
                            : from_float<T>(0);
        }
        *(vec<T, EIGHT> *)(to + r * wide + n0) = v;
    }
}

/* The same where the taps are in time alone: row r has [depth,C], N values that a thread writes of one of them. */
template <typename T, int N>
__global__ static void unfold_time(T *to, const T *x, const struct conv g, int64_t first, int64_t rows,
                                   int wide)
{
    const unsigned C = (unsigned)g.C, packs = (unsigned)wide / N;
    const int64_t frame = g.H * g.W;
    for (int64_t at = grid_index(); at < rows * packs; at += grid_stride()) {
        const int64_t r = at / packs, p = first + r, t = p / frame;
        const unsigned n = (unsigned)(at % packs) * N, tap = n / C;
        vec<T, N> v;
        if (tap < g.depth)
            v = load<N>(x + ((t * g.step + tap) * frame + p % frame) * C + n % C);
        else
            for (int e = 0; e < N; e++) v.v[e] = from_float<T>(0);
        store<N>(to + r * wide + n, v);
    }
}

static void unfold_times(struct kern *k, const struct tensor *rows, const struct tensor *x,
                         const struct conv *g, int64_t first, int64_t wide)
{
    const int64_t n = rows->shape[0];
    CALL_VECTORIZED(x->dtype, vectorizable(g->C, x, rows), T, N,
                    unfold_time<T, N><<<blocks_for(n * wide / N), ACROSS, 0, stream_of(k)>>>(
                        (T *)rows->data, (const T *)x->data, *g, first, n, (int)wide));
}

template <typename T, int CHANNELS>
static void unfold_by(struct kern *k, const struct tensor *rows, const struct tensor *x, const struct conv *g,
                      int64_t first, int64_t wide)
{
    const int64_t n = rows->shape[0];
    unfold<T, CHANNELS><<<blocks_for(n * wide / EIGHT), ACROSS, 0, stream_of(k)>>>(
        (T *)rows->data, (const T *)x->data, *g, first, n, (int)wide);
}

/* y = sum + b + residual; y may be the residual */
template <typename T>
__global__ static void add_up(T *y, const float *sum, const T *b, const T *residual, int64_t n, int64_t C)
{
    for (int64_t i = grid_index(); i < n; i += grid_stride())
        y[i] = from_float<T>(sum[i] + to_float(b[i % C]) + (residual ? to_float(residual[i]) : 0));
}

static void convolve_rows(struct kern *k, struct tensor *y, const struct tensor *x, const struct conv *g,
                          const struct tensor *w, const struct tensor *b, const struct tensor *residual)
{
    const enum dtype d = x->dtype;
    const int64_t width = taps_of(g) * g->C, wide = to_eight(width), pixels = g->T * g->out_h * g->out_w;
    const int64_t fit = ROWS_BYTES / (int64_t)(wide * dtype_size(d)) + 1, tile = fit < pixels ? fit : pixels;
    struct tensor rows = scratch(k, d, tile, wide), taps = widened(k, w, g->out, width, g->out, wide),
                  sum = {};
    const bool sums = residual || g->out % EIGHT; /* else the product adds the bias, too */
    if (sums) sum = scratch(k, DT_F32, tile, g->out);
    if (g->out_h * g->out_w > INT32_MAX || wide > INT32_MAX)
        kern_fail(k, "frames of %lldx%lld are too large for a convolution", (long long)g->W, (long long)g->H);
    if (k->planning) return;
    for (int64_t p = 0; p < pixels && kern_ok(k); p += tile) {
        const int64_t n = rows.shape[0] = pixels - p < tile ? pixels - p : tile, values = n * g->out;
        const int64_t all[] = {2, pixels, g->out};
        struct tensor to = tensor_reshaped(y, all);
        to = tensor_rows(&to, p, n);
        if (g->step)
            unfold_times(k, &rows, x, g, p, wide);
        else if (d == DT_BF16 && g->C == 3)
            unfold_by<bf16, 3>(k, &rows, x, g, p, wide);
        else
            CALL_BY_DTYPE(d, T, unfold_by<T, 0>(k, &rows, x, g, p, wide));
        if (!sums) {
            cuda_linear_forward(k, &to, &rows, &taps, b);
            continue;
        }
        sum.shape[0] = n;
        cuda_matmul(k, &sum, &rows, false, &taps, true, 1, 0);
        CALL_BY_DTYPE(d, T,
                      add_up<<<blocks_for(values), ACROSS, 0, stream_of(k)>>>(
                          (T *)to.data, (const float *)sum.data, (const T *)b->data,
                          residual ? (const T *)residual->data + p * g->out : NULL, values, g->out));
    }
    cuda_good(k, "convolution", cudaGetLastError());
}

/* ---- few results ---- */

/* to [wide,C], row tap out + o from w [out,taps,C]; zeros from taps out on */
template <typename T>
__global__ static void by_tap(T *to, const T *w, int64_t out, int64_t taps, int64_t C, int64_t wide)
{
    for (int64_t i = grid_index(); i < wide * C; i += grid_stride()) {
        const int64_t row = i / C, tap = row / out, o = row % out;
        to[i] = tap < taps ? w[(o * taps + tap) * C + i % C] : from_float<T>(0);
    }
}

/* What every tap makes of every pixel, frame by frame, [pixels,wide] */
struct shares {
    const float *frame[3];
};

/* One frame of y [H,W,out]: what the taps made of the neighbours, and b */
template <typename T>
__global__ static void gather(T *y, const struct shares s, const T *b, const T *residual, int H, int W,
                              int out, int depth, int64_t wide)
{
    for (int64_t at = grid_index(); at < (int64_t)H * W * out; at += grid_stride()) {
        const int o = (int)(at % out), j = (int)(at / out % W), i = (int)(at / out / W);
        float sum = to_float(b[o]) + (residual ? to_float(residual[at]) : 0);
        for (int d = 0; d < depth; d++)
            for (int p = -1; p <= 1; p++)
                for (int q = -1; q <= 1; q++)
                    if (i + p >= 0 && i + p < H && j + q >= 0 && j + q < W)
                        sum += s.frame[d][((int64_t)(i + p) * W + j + q) * wide +
                                          ((d * 3 + p + 1) * 3 + q + 1) * out + o];
        y[at] = from_float<T>(sum);
    }
}

/* A product with all taps reads x once, where cuDNN would for each tap fill tiles of 64 results with
 * three: 1.5 ms instead of 2.2 for 8x480x720x128 (2026-11-22, one H200). */
static void convolve_few(struct kern *k, struct tensor *y, const struct tensor *x, const struct conv *g,
                         const struct tensor *w, const struct tensor *b, const struct tensor *residual)
{
    const int64_t taps = g->depth * 9, wide = to_eight(taps * g->out), pixels = g->H * g->W,
                  values = pixels * g->out;
    const int64_t rows[] = {2, x->shape[0] * pixels, g->C};
    struct tensor all = tensor_reshaped(x, rows), by = scratch(k, x->dtype, wide, g->C), share[3];
    for (int64_t d = 0; d < g->depth; d++) share[d] = scratch(k, DT_F32, pixels, wide);
    if (k->planning || !kern_ok(k)) return;
    CALL_BY_DTYPE(x->dtype, T,
                  by_tap<<<blocks_for(wide * g->C), ACROSS, 0, stream_of(k)>>>(
                      (T *)by.data, (const T *)w->data, g->out, taps, g->C, wide));
    for (int64_t f = 0; f < x->shape[0]; f++) {
        const int64_t t = f - (g->depth - 1);
        struct tensor frame = tensor_rows(&all, f * pixels, pixels);
        cuda_matmul(k, &share[f % g->depth], &frame, false, &by, true, 1, 0);
        struct shares s = {};
        for (int64_t d = 0; d < g->depth; d++)
            s.frame[d] = (const float *)share[(t + d + g->depth) % g->depth].data;
        if (t < 0) continue;
        CALL_BY_DTYPE(x->dtype, T,
                      gather<<<blocks_for(values), ACROSS, 0, stream_of(k)>>>(
                          (T *)y->data + t * values, s, (const T *)b->data,
                          residual ? (const T *)residual->data + t * values : NULL, (int)g->H, (int)g->W,
                          (int)g->out, (int)g->depth, wide));
    }
    cuda_good(k, "convolution", cudaGetLastError());
}

/* ---- cuDNN ---- */

#if HAVE_CUDNN

enum { X = 1, WEIGHT, BIAS, RESIDUAL, Y };

/* Channels last in memory, but first among the dimensions, as cuDNN counts them. `space`
 * axes of `size` each. */
static desc last(struct cudnn_graph *g, int64_t id, int64_t batch, int64_t channels, int space,
                 const int64_t *size)
{
    int64_t dims[5] = {batch, channels}, strides[5] = {0, 1}, n = channels;
    for (int i = space - 1; i >= 0; i--) {
        dims[2 + i] = size[i];
        strides[2 + i] = n;
        n *= size[i];
    }
    strides[0] = n;
    return id ? cudnn_tensor(g, id, CUDNN_DATA_BFLOAT16, 2 + space, dims, strides)
              : cudnn_virtual(g, CUDNN_DATA_FLOAT, 2 + space, dims, strides);
}

/* Over space, with frames as a batch, or over time and space. Bias comes last: so the engines know it. */
static struct cudnn_graph *build(struct kern *k, const struct conv *c)
{
    const bool time = c->depth > 1;
    const int space = time ? 3 : 2, skip = time ? 0 : 1;
    const int64_t batch = time ? 1 : c->T, one[] = {1, 1, 1}, taps[] = {3, c->up ? 2 : 3, c->up ? 2 : 3};
    const int64_t in[] = {c->T + 2, c->H, c->W}, out[] = {c->T, c->out_h >> c->up, c->out_w >> c->up};
    const int64_t strides[] = {1, c->stride, c->stride};
    int64_t before[] = {0, c->stride == 1, c->stride == 1}, after[] = {0, 1, 1};
    if (c->up) { /* a pixel of an even row or column sees one more before it, of an odd one after it */
        before[1] = !(after[1] = c->phase / 2);
        before[2] = !(after[2] = c->phase % 2);
    }
    struct cudnn_graph *g = cudnn_begin(k);
    desc x = last(g, X, batch, c->C, space, in + skip), w = last(g, WEIGHT, c->out, c->C, space, taps + skip),
         b = last(g, BIAS, 1, c->out, space, one), y = last(g, Y, batch, c->out, space, out + skip),
         sum = last(g, 0, batch, c->out, space, out + skip);
    cudnn_convolution(g, x, w, sum, space, before + skip, after + skip, strides + skip);
    if (c->residual) {
        desc r = last(g, RESIDUAL, batch, c->out, space, out + skip),
             more = last(g, 0, batch, c->out, space, out + skip);
        cudnn_pointwise(g, CUDNN_POINTWISE_ADD, sum, r, more);
        sum = more;
    }
    cudnn_pointwise(g, CUDNN_POINTWISE_ADD, sum, b, y);
    return g;
}

/* Engine 41 is the one for Hopper that adds bias and residual. Its heuristics' first choice runs at 675, 538, 718 TFLOP/s
 * where these knobs reach 788, 788, 794 (2026-11-22, one H200; 128 and 256 channels to 128 at 480x720, 256 to 256 at
 * 120x180, 8 frames). Channels that are multiples of 96, Wan's, fill other tiles: 96 to 96 at 480x832 520 instead of 287,
 * 96 to 192 at 240x416 590 instead of 256, 192 to 192 there 627 instead of 358, 384 to 384 at 120x208, 4 frames, 763 instead
 * of 439 (2026-11-29, the best of 78 sets of knobs). */
static const struct cudnn_engine *best_engine(const struct cuda *cuda, const struct conv *c)
{
#define KNOBS(tile, depth, workspace, m, n)                                                                  \
    {                                                                                                        \
        41, {{CUDNN_KNOB_TYPE_TILE_SIZE, tile}, {CUDNN_KNOB_TYPE_TILEK, depth},                              \
             {CUDNN_KNOB_TYPE_IDX_MODE, 0},     {CUDNN_KNOB_TYPE_WORKSPACE, workspace},                      \
             {CUDNN_KNOB_TYPE_TILE_CGA_M, m},   {CUDNN_KNOB_TYPE_TILE_CGA_N, n}},                            \
            6                                                                                                \
    }
    static const struct cudnn_engine narrow = KNOBS(0, 1, 0, 1, 1), narrow_residual = KNOBS(0, 1, 0, 2, 1),
                                     few = KNOBS(6, 1, 0, 2, 1), wide = KNOBS(0, 1, 0, 1, 2),
                                     many = KNOBS(3, 1, 1, 1, 2), to_96 = KNOBS(3, 0, 1, 2, 1),
                                     double_96 = KNOBS(3, 0, 0, 1, 2), to_192 = KNOBS(6, 1, 1, 2, 1),
                                     to_384 = KNOBS(3, 0, 0, 2, 1);
#undef KNOBS
    const int64_t pixels = c->T * c->out_h * c->out_w >> 2 * c->up;
    if (!cuda_card_is(cuda, "NVIDIA H200") || c->C < 64) return NULL;
    if (c->C % 96 == 0 && c->out % 96 == 0 && c->depth > 1) { /* what was measured */
        if (c->out == 96) return &to_96;
        if (c->out == 192) return c->C == 96 ? &double_96 : &to_192;
        return &to_384;
    }
    if (c->out < 128) return NULL;
    if (c->out < 256) return c->residual ? &narrow_residual : &narrow;
    return pixels < 65536 ? &few : pixels < 400000 || c->residual ? &wide : &many;
}

/* The plan for this convolution, made when it is first met; NULL when no engine does it, or
 * after a failure. */
static struct cudnn_graph *plan_of(struct kern *k, const struct conv *c)
{
    struct cuda *cuda = cuda_of(k);
    const int64_t key[CUDNN_MAX_KEY] = {c->T,     c->H,      c->W,  c->C,     c->out,
                                        c->depth, c->stride, c->up, c->phase, c->residual};
    struct cudnn_graph *g = cuda->convolutions;
    while (g && memcmp(g->key, key, sizeof key)) g = g->next;
    if (!g) {
        g = build(k, c);
        if (!g) return NULL;
        memcpy(g->key, key, sizeof key);
        cudnn_plan(g, best_engine(cuda, c));
        g->next = cuda->convolutions;
        cuda->convolutions = g;
    }
    return g->plan.p ? g : NULL;
}

/* to [n,C] from [n,wide] */
__global__ static void narrow(bf16 *to, const bf16 *from, int64_t n, int64_t C, int64_t wide)
{
    for (int64_t i = grid_index(); i < n * C; i += grid_stride()) to[i] = from[i / C * wide + i % C];
}

/* As many frames at a time as keep every tensor within 2^31 values; 0 when not even one does. */
static int64_t frames_at_once(const struct conv *g)
{
    const int64_t in = INT32_MAX / (g->H * g->W * g->C) - (g->depth - 1),
                  out = INT32_MAX / (g->out_h * g->out_w * g->out), n = in < out ? in : out;
    return n < 0 ? 0 : n < g->T ? n : g->T;
}

/* Piece by piece; without tensors only the plans are made. false: no engine does it. */
static bool run_pieces(struct kern *k, struct conv g, const struct tensor *y, const struct tensor *x,
                       const struct tensor *w, const struct tensor *b, const struct tensor *residual)
{
    const int64_t T = g.T, step = frames_at_once(&g);
    for (int64_t t = 0; t < T; t += step) {
        g.T = T - t < step ? T - t : step;
        struct cudnn_graph *p = step ? plan_of(k, &g) : NULL;
        if (!p) return false;
        if (!y) continue;
        const int64_t ids[] = {X, WEIGHT, BIAS, Y, RESIDUAL};
        void *data[] = {tensor_rows(x, t, 1).data, w->data, b->data, tensor_rows(y, t, 1).data,
                        residual ? tensor_rows(residual, t, 1).data : NULL};
        cudnn_run(p, residual ? 5 : 4, ids, data);
    }
    return true;
}

static bool cudnn_does(struct kern *k, struct conv g)
{
    g.out = to_eight(g.out); /* what is missing is filled up with zeros */
    for (g.phase = 0; g.phase < (g.up ? 4 : 1); g.phase++)
        if (g.C % EIGHT || !run_pieces(k, g, NULL, NULL, NULL, NULL, NULL)) return false;
    return true;
}

static void convolve_cudnn(struct kern *k, struct tensor *y, const struct tensor *x, struct conv g,
                           const struct tensor *w, const struct tensor *b, const struct tensor *residual)
{
    const int64_t out = g.out, width = g.depth * 9 * g.C, pixels = g.T * g.out_h * g.out_w;
    struct tensor wide = *y, more = *y;
    g.out = wide.shape[3] = more.shape[3] = to_eight(out);
    const struct tensor taps = widened(k, w, out, width, g.out, width),
                        bias = widened(k, b, 1, out, 1, g.out);
    if (g.out != out) wide.data = cuda_scratch(k, DT_BF16, tensor_count(&wide));
    if (residual) more.data = widened(k, residual, pixels, out, pixels, g.out).data;
    if (k->planning || !kern_ok(k)) return;
    run_pieces(k, g, &wide, x, &taps, &bias, residual ? &more : NULL);
    if (g.out != out)
        narrow<<<blocks_for(pixels * out), ACROSS, 0, stream_of(k)>>>(
            (bf16 *)y->data, (const bf16 *)wide.data, pixels, out, g.out);
    cuda_good(k, "convolution", cudaGetLastError());
}

/* to [4,rows,2,2,C] from w [out,3,3,C]: what falls on the same pixel of x is added up, for even and odd rows
 * and columns; zeros from `out` on. */
__global__ static void phases(bf16 *to, const bf16 *w, int64_t out, int64_t rows, int64_t C)
{
    for (int64_t at = grid_index(); at < 16 * rows * C; at += grid_stride()) {
        const int64_t c = at % C, o = at / (4 * C) % rows;
        const int q = (int)(at / C % 2), p = (int)(at / (2 * C) % 2), phase = (int)(at / (4 * C * rows));
        const int i0 = p * (1 + phase / 2), i1 = phase / 2 + p * (2 - phase / 2), j0 = q * (1 + phase % 2),
                  j1 = phase % 2 + q * (2 - phase % 2);
        float sum = 0;
        for (int i = i0; o < out && i <= i1; i++)
            for (int j = j0; j <= j1; j++) sum += to_float(w[((o * 3 + i) * 3 + j) * C + c]);
        to[at] = from_float<bf16>(sum);
    }
}

/* y [T,2H,2W,C] at every second row and column from part [T,H,W,wide]; y points at the first of them. */
template <typename T, int N>
__global__ static void spread(T *y, const T *part, int64_t frames, int64_t H, int64_t W, int64_t C,
                              int64_t wide)
{
    const unsigned at = blockIdx.x * ACROSS + threadIdx.x, j = at / (unsigned)(C / N),
                   c = at % (unsigned)(C / N) * N;
    if (j >= W) return;
    for (int64_t t = blockIdx.z; t < frames; t += gridDim.z)
        for (int64_t i = blockIdx.y; i < H; i += gridDim.y)
            store<N>(y + (((t * H + i) * 2) * 2 * W + 2 * j) * C + c,
                     load<N>(part + ((t * H + i) * W + j) * wide + c));
}

/* cuDNN would write every second row and column itself, at 13 TFLOP/s where it reaches 739 (2026-11-22). */
static void convolve_phases(struct kern *k, struct tensor *y, const struct tensor *x, struct conv g,
                            const struct tensor *w, const struct tensor *b)
{
    const int64_t out = g.out, shape[] = {4, g.T, g.H, g.W, to_eight(out)};
    g.out = shape[4];
    const struct tensor taps = scratch(k, DT_BF16, 4, g.out * 4 * g.C),
                        bias = widened(k, b, 1, out, 1, g.out), part = kern_tensor_shape(k, DT_BF16, shape);
    if (k->planning || !kern_ok(k) || !row_fits(k, "upsample_conv2d_forward", g.W * out)) return;
    phases<<<blocks_for(tensor_count(&taps)), ACROSS, 0, stream_of(k)>>>(
        (bf16 *)taps.data, (const bf16 *)w->data, out, g.out, g.C);
    for (g.phase = 0; g.phase < 4; g.phase++) {
        const struct tensor tap = tensor_rows(&taps, g.phase, 1);
        bf16 *to = (bf16 *)y->data + (g.phase / 2 * g.out_w + g.phase % 2) * out;
        run_pieces(k, g, &part, x, &tap, &bias, NULL);
        CALL_VECTORIZED(y->dtype, vectorizable(out, y, &part), T, N,
                        spread<T, N><<<image_grid(g.W * out / N, g.H, g.T), ACROSS, 0, stream_of(k)>>>(
                            (T *)to, (const T *)part.data, g.T, g.H, g.W, out, g.out));
    }
    cuda_good(k, "convolution", cudaGetLastError());
}

void cuda_convolutions_close(struct cuda *c)
{
    while (c->convolutions) {
        struct cudnn_graph *g = c->convolutions;
        c->convolutions = g->next;
        cudnn_free(g);
    }
}

#else

static bool cudnn_does(struct kern *, struct conv)
{
    return false;
}
static void convolve_cudnn(struct kern *, struct tensor *, const struct tensor *, struct conv,
                           const struct tensor *, const struct tensor *, const struct tensor *)
{
}
static void convolve_phases(struct kern *, struct tensor *, const struct tensor *, struct conv,
                            const struct tensor *, const struct tensor *)
{
}
void cuda_convolutions_close(struct cuda *) {}

#endif

static void convolve(struct kern *k, struct tensor *y, const struct tensor *x, const struct conv *g,
                     const struct tensor *w, const struct tensor *b, const struct tensor *residual)
{
    const bool few = g->out <= 4 && g->C >= 64 && g->stride == 1 && !g->up;
    if (!tensor_count(y) || !g->C) return;
    const bool cudnn = !few && x->dtype == DT_BF16 && cudnn_does(k, *g);
    if (few)
        convolve_few(k, y, x, g, w, b, residual);
    else if (!cudnn)
        convolve_rows(k, y, x, g, w, b, residual);
    else if (g->up)
        convolve_phases(k, y, x, *g, w, b);
    else
        convolve_cudnn(k, y, x, *g, w, b, residual);
    kern_took(k, few      ? "product of all taps"
                 : !cudnn ? "product of rows"
                 : g->up  ? "cudnn, 4 phases"
                          : "cudnn");
    if (!few && !cudnn && x->dtype == DT_BF16 && g->C % EIGHT == 0 && kern_ok(k))
        kern_note(k, "convolutions of %lld to %lld channels go without cuDNN on this card: slow",
                  (long long)g->C, (long long)g->out);
}

/* ---- the operations ---- */

static void move(struct kern *k, struct tensor to, struct tensor from)
{
    cuda_good(
        k, "causal_conv3d_forward",
        cudaMemcpyAsync(to.data, from.data, tensor_bytes(&from), cudaMemcpyDeviceToDevice, stream_of(k)));
}

void cuda_causal_conv3d_forward(struct kern *k, struct tensor *y, struct tensor *x, struct tensor *history,
                                bool first, const struct tensor *w, const struct tensor *b,
                                const struct tensor *residual)
{
    const int64_t T = x->shape[0] - 2, H = x->shape[1], W = x->shape[2];
    const struct conv g = {T, H, W, x->shape[3], H, W, w->shape[0], 3, 1, 0, 0, residual != NULL};
    if (!k->planning && tensor_count(x)) {
        if (first)
            for (int i = 0; i < 2; i++) move(k, tensor_rows(x, i, 1), tensor_rows(x, 2, 1));
        else
            move(k, tensor_rows(x, 0, 2), *history);
        move(k, *history, tensor_rows(x, T, 2));
    }
    convolve(k, y, x, &g, w, b, residual);
}

void cuda_conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                         const struct tensor *b, int stride)
{
    const int64_t *n = x->shape;
    const struct conv g = {n[0],        n[1], n[2],   n[3], y->shape[1], y->shape[2],
                           w->shape[0], 1,    stride, 0,    0,           false};
    convolve(k, y, x, &g, w, b, NULL);
}

void cuda_upsample_conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                  const struct tensor *w, const struct tensor *b)
{
    const int64_t *n = x->shape;
    const struct conv g = {n[0], n[1], n[2], n[3], y->shape[1], y->shape[2], w->shape[0], 1, 1, 1, 0, false};
    convolve(k, y, x, &g, w, b, NULL);
}

void cuda_time_conv_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                            const struct tensor *b, int stride)
{
    const int64_t *n = y->shape;
    const struct conv g = {n[0], n[1], n[2], x->shape[3], n[1], n[2], n[3], 3, 1, 0, 0, false, stride};
    if (!tensor_count(y) || !g.C) return;
    convolve_rows(k, y, x, &g, w, b, NULL);
    kern_took(k, "product of rows");
}
