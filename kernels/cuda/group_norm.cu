/* Group norms over a chunk of video, channels last: one read for the statistics, then one read and write.
 * 8x480x720x128 takes 0.55 ms, modulated 0.60, where memory alone would 0.49 (2026-11-22, one H200).
 *
 * Threads own channels and walk over pixels. N is the number of channels in one access: 16 bytes of them, or
 * one where rows are ragged. */
#include "kernels/cuda/image.h"

enum { THREADS = ACROSS, RUN = 8, MAX_PARTS = 792, MIN_PIXELS = 64, ROWS = 8 };

/* Σx and Σx² of each channel over one part of the pixels, parts [part][x, x²][C]. Each of a quarter of a
 * million threads adds up a few hundred values in F32; from there on it is double. The order depends on the
 * shape alone. */
template <typename T, int N>
__global__ static void __launch_bounds__(THREADS, 3)
    part_sums(double *parts, const T *x, int64_t pixels, int64_t part, int64_t C)
{
    __shared__ double sums[2 * N][THREADS];
    const int64_t first_pack = (int64_t)blockIdx.y * THREADS;
    const int packs = (int)(C / N - first_pack < THREADS ? C / N - first_pack : THREADS),
              lanes = THREADS / packs;
    const int pack_of = threadIdx.x % packs, lane = threadIdx.x / packs;
    const int64_t end = (blockIdx.x + 1) * part < pixels ? (blockIdx.x + 1) * part : pixels;
    float s[N] = {}, q[N] = {};
    for (int64_t p = blockIdx.x * part + lane; lane < lanes && p < end; p += RUN * lanes) {
        const T *from = x + p * C + (first_pack + pack_of) * N;
        vec<T, N> v[RUN];
#pragma unroll
        for (int r = 0; r < RUN; r++) {
            if (p + r * lanes < end)
                v[r] = load<N>(from + r * lanes * C);
            else
                v[r] = {};
        }
#pragma unroll
        for (int r = 0; r < RUN; r++)
            for (int n = 0; n < N; n++) {
                const float u = to_float(v[r].v[n]);
                s[n] += u;
                q[n] += u * u;
            }
    }
    for (int n = 0; n < N; n++) {
        sums[n][threadIdx.x] = s[n];
        sums[N + n][threadIdx.x] = q[n];
    }
    __syncthreads();
    for (int o = threadIdx.x; o < 2 * N * packs; o += THREADS) {
        const int n = o / packs, k = o % packs;
        double sum = 0;
        for (int l = 0; l < lanes; l++) sum += sums[n][l * packs + k];
        parts[(blockIdx.x * 2 + n / N) * C + (first_pack + k) * N + n % N] = sum;
    }
}

/* mean[c] and gain[c] = rstd of its group times w[c], of one group a block */
template <typename T>
__global__ static void __launch_bounds__(THREADS)
    group_gains(float *mean, float *gain, const double *parts, const T *w, int count, int64_t pixels,
                int64_t C, int size, float eps)
{
    __shared__ double sums[2][THREADS];
    const int64_t c0 = (int64_t)blockIdx.x * size;
    double s = 0, q = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < count * size; i += THREADS) {
        const double *p = parts + i / size * (2 * C) + c0 + i % size;
        s += p[0];
        q += p[C];
    }
    sums[0][threadIdx.x] = s;
    sums[1][threadIdx.x] = q;
    for (int n = THREADS / 2; n; n /= 2) {
        __syncthreads();
        if (threadIdx.x < n)
            for (int i = 0; i < 2; i++) sums[i][threadIdx.x] += sums[i][threadIdx.x + n];
    }
    __syncthreads();
    const double n = (double)pixels * size, m = sums[0][0] / n, v = sums[1][0] / n - m * m;
    const double rstd = 1 / sqrt((v > 0 ? v : 0) + eps);
    for (int64_t c = c0 + threadIdx.x; c < c0 + size; c += THREADS) {
        mean[c] = (float)m;
        gain[c] = (float)(rstd * to_float(w[c]));
    }
}

template <typename T> __device__ static inline float silu(float u)
{
    return sizeof(T) == 4 ? u / (1 + expf(-u)) : __fdividef(u, 1 + __expf(-u));
}

struct image { /* x, and the latents that modulate it; without them, bands of rows */
    int64_t T, H, W, C, Tz, h, w;
};

/* The first of `out` places that nearest resizing takes from place z of `in` */
__device__ static inline int64_t first_of(int64_t z, int64_t in, int64_t out)
{
    return (z * out + in - 1) / in;
}

/* The first frame that shows latent frame z: when T > 1 is odd, frame 0 shows the first, and the rest the
 * rest. */
__device__ static inline int64_t first_frame(int64_t z, int64_t T, int64_t Tz)
{
    if (T == 1 || T % 2 == 0) return first_of(z, Tz, T);
    return z == 0 ? 0 : 1 + (z == 1 ? 0 : first_of(z - 1, Tz - 1, T - 1));
}

/* A thread keeps what N channels of one latent pixel need, and goes down its column of all frames that show
 * it. */
template <typename T, int N, bool SPATIAL>
__global__ static void __launch_bounds__(THREADS, 4)
    apply(T *y, const T *x, const float *mean, const float *gain, const T *b, const T *mul, const T *add,
          const struct image g)
{
    enum { AT_ONCE = 2 };
    const unsigned packs = (unsigned)(g.C / N), at = blockIdx.x * THREADS + threadIdx.x;
    const unsigned j = at / packs, c = at % packs * N;
    if (j >= g.W) return;
    for (int64_t z = blockIdx.z; z < g.Tz; z += gridDim.z)
        for (int64_t band = blockIdx.y; band < g.h; band += gridDim.y) {
            float m[N], scale[N], shift[N]; /* y = silu((x - m) scale + shift) */
            const vec<T, N> s = load<N>(b + c);
            load_floats<N>(m, mean + c);
            load_floats<N>(scale, gain + c);
            for (int n = 0; n < N; n++) shift[n] = to_float(s.v[n]);
            if (SPATIAL) {
                const int64_t from = ((z * g.h + band) * g.w + j * g.w / g.W) * g.C + c;
                const vec<T, N> by = load<N>(mul + from), plus = load<N>(add + from);
                for (int n = 0; n < N; n++) {
                    scale[n] *= to_float(by.v[n]);
                    shift[n] = shift[n] * to_float(by.v[n]) + to_float(plus.v[n]);
                }
            }
            const int64_t row = g.W * g.C, top = first_of(band, g.h, g.H), t0 = first_frame(z, g.T, g.Tz);
            const int rows = (int)(first_of(band + 1, g.h, g.H) - top),
                      count = rows * (int)(first_frame(z + 1, g.T, g.Tz) - t0);
            int64_t p = ((t0 * g.H + top) * g.W + j) * g.C + c;
            for (int e = 0, i = 0; e < count; e += AT_ONCE) {
                int64_t place[AT_ONCE];
                vec<T, N> v[AT_ONCE];
#pragma unroll
                for (int r = 0; r < AT_ONCE; r++) {
                    place[r] = p;
                    p += row;
                    if (++i == rows) i = 0, p += (g.H - rows) * row; /* on to the next frame */
                    if (e + r < count) v[r] = load<N>(x + place[r]);
                }
#pragma unroll
                for (int r = 0; r < AT_ONCE; r++) {
                    if (e + r >= count) break;
                    for (int n = 0; n < N; n++)
                        v[r].v[n] =
                            from_float<T>(silu<T>((to_float(v[r].v[n]) - m[n]) * scale[n] + shift[n]));
                    store<N>(y + place[r], v[r]);
                }
            }
        }
}

template <typename T, int N>
static void norm_silu(struct kern *k, T *y, const T *x, const T *w, const T *b, const T *mul, const T *add,
                      const struct image *g, int groups, float eps, float *mean, double *parts, int64_t count,
                      int64_t part)
{
    cudaStream_t s = stream_of(k);
    const int64_t pixels = g->T * g->H * g->W, packs = g->C / N;
    const dim3 blocks = image_grid(g->W * packs, g->h, g->Tz);
    part_sums<T, N><<<dim3((unsigned)count, (unsigned)ceil_div(packs, THREADS)), THREADS, 0, s>>>(
        parts, x, pixels, part, g->C);
    group_gains<<<groups, THREADS, 0, s>>>(mean, mean + g->C, parts, w, (int)count, pixels, g->C,
                                           (int)(g->C / groups), eps);
    if (mul)
        apply<T, N, true><<<blocks, THREADS, 0, s>>>(y, x, mean, mean + g->C, b, mul, add, *g);
    else
        apply<T, N, false><<<blocks, THREADS, 0, s>>>(y, x, mean, mean + g->C, b, mul, add, *g);
}

static void norm(struct kern *k, const char *op, struct tensor *y, const struct tensor *x,
                 const struct tensor *w, const struct tensor *b, const struct tensor *mul,
                 const struct tensor *add, int groups, float eps)
{
    const int64_t *n = x->shape, pixels = n[0] * n[1] * n[2], least = ceil_div(pixels, MIN_PIXELS);
    struct image g = {n[0], n[1], n[2], n[3], n[0], ceil_div(n[1], ROWS), 1};
    if (mul) g.Tz = mul->shape[0], g.h = mul->shape[1], g.w = mul->shape[2];
    if (!tensor_count(x)) return;
    const int64_t part = ceil_div(pixels, least < MAX_PARTS ? least : (int64_t)MAX_PARTS),
                  count = ceil_div(pixels, part);
    float *mean = (float *)cuda_scratch(k, DT_F32, 2 * g.C);
    double *parts = (double *)cuda_scratch(k, DT_F64, count * 2 * g.C);
    if (!mean || !parts) return;
    if (!row_fits(k, op, g.W * g.C)) return;
    const void *m = mul ? mul->data : NULL, *a = add ? add->data : NULL;
    CALL_VECTORIZED(x->dtype, vectorizable(g.C, y, x, b, mul, add), T, N,
                    norm_silu<T, N>(k, (T *)y->data, (const T *)x->data, (const T *)w->data,
                                    (const T *)b->data, (const T *)m, (const T *)a, &g, groups, eps, mean,
                                    parts, count, part));
    cuda_good(k, op, cudaGetLastError());
}

void cuda_group_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                  const struct tensor *w, const struct tensor *b, int groups, float eps)
{
    norm(k, "group_norm_silu_forward", y, x, w, b, NULL, NULL, groups, eps);
}

void cuda_spatial_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                    const struct tensor *w, const struct tensor *b, const struct tensor *mul,
                                    const struct tensor *add, int groups, float eps)
{
    norm(k, "spatial_norm_silu_forward", y, x, w, b, mul, add, groups, eps);
}
