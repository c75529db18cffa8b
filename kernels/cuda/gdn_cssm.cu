/* The spectral adapter, for up to MODULES modules of one shape in one set of launches: six forward, twelve
 * backward. What each launch computes stands in kernels.h and, line by line, in kernels/cpu/gdn_cssm.h.
 *
 * Frames of all modules count through: frame = module T + t. Between the launches everything is F32: planes
 * of tokens by channel, their spectra, one scalar per frame and channel. Sums over tokens are partial sums of
 * tiles of TILE tokens of a frame, added up in their order at the end: no result depends on how many modules
 * go together. */

#include "kernels/cuda/spectrum.h"

enum { MODULES = 4, TILE = 128, CHUNK = 16, POINTS = 128, THREADS = 256 };

struct gdn {
    int T, H, W, F, HF, area, r, d, heads, modules, tiles;
    bool rope;
    const void *z[MODULES], *dout[MODULES];
    void *out[MODULES], *dz[MODULES];
    const float *w[MODULES][GDN_PARAMS];
    float *dw[MODULES][GDN_PARAMS];
    stack<float> qkv, gate, raw; /* [frames 3r], [frames r] before silu, [frames r] before the norm */
    stack<float2> x, o, dx;      /* spectra of q, k, v, of the output, and x's gradients */
    float *inverse_norm;         /* [frames, 2r] of q and k */
    float *sums;                 /* [frames tiles, r]: of z */
    float *mean, *logit;  /* [frames, r]; [frames, 2, H + F] of alpha and beta: by row, then by column */
    float2 *state, *work; /* [modules heads T, slots, HF] when kept; of one thread: see `scan` */
    float *dgate, *dlogit, *dmean; /* [modules, heads, 2, T, HF] of alpha and beta; as logit, mean */
    float *partial;                /* [frames tiles, partials()] of the weights' gradients */
};

static const float eps = 1e-6f;

/* ---- complex numbers ---------------------------------------------------------------------------------- */

__device__ static inline float2 operator+(float2 a, float2 b)
{
    return make_float2(a.x + b.x, a.y + b.y);
}

__device__ static inline float2 operator-(float2 a, float2 b)
{
    return make_float2(a.x - b.x, a.y - b.y);
}

__device__ static inline float2 operator*(float2 a, float2 b)
{
    return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

__device__ static inline float2 operator*(float s, float2 a)
{
    return make_float2(s * a.x, s * a.y);
}

__device__ static inline float2 conj(float2 a)
{
    return make_float2(a.x, -a.y);
}

/* Re(conj(a) b): the product of a and b as plane vectors */
__device__ static inline float inner(float2 a, float2 b)
{
    return a.x * b.x + a.y * b.y;
}

__device__ static inline float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* ---- tokens and channels ------------------------------------------------------------------------------ */

/* Channels 0 .. 3r of a token are q, k, v; the r after them the gate. */
__device__ static inline float &channel(const gdn &g, int64_t frame, int c, int h, int w)
{
    return c < 3 * g.r ? g.qkv(frame * 3 * g.r + c, h, w) : g.gate(frame * g.r + c - 3 * g.r, h, w);
}

/* The row of weights that makes channel c, and its bias. */
__device__ static inline const float *weights_of(const gdn &g, int m, int c)
{
    return c < 3 * g.r ? g.w[m][GDN_QKV] + (int64_t)c * g.r : g.w[m][GDN_GATE] + (int64_t)(c - 3 * g.r) * g.r;
}

__device__ static inline float bias_of(const gdn &g, int m, int c)
{
    return c < 3 * g.r ? g.w[m][GDN_QKV_BIAS][c] : g.w[m][GDN_GATE_BIAS][c - 3 * g.r];
}

/* CHUNK elements from p, those from n on being 0; 16 bytes at a time where that can be. */
template <typename E> __device__ static void load_chunk(float (&v)[CHUNK], const E *p, int n)
{
    if (n >= CHUNK && (uintptr_t)p % 16 == 0) {
#pragma unroll
        for (int i = 0; i < CHUNK; i += pack<E>::N) {
            const pack<E> x = load_pack(p + i);
#pragma unroll
            for (int j = 0; j < pack<E>::N; j++) v[i + j] = to_float(x.v[j]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < CHUNK; i++) v[i] = i < n ? to_float(p[i]) : 0;
    }
}

template <typename E> __device__ static void store_chunk(E *p, const float (&v)[CHUNK], int n)
{
    if (n >= CHUNK && (uintptr_t)p % 16 == 0) {
#pragma unroll
        for (int i = 0; i < CHUNK; i += pack<E>::N) {
            pack<E> x;
#pragma unroll
            for (int j = 0; j < pack<E>::N; j++) x.v[j] = from_float<E>(v[i + j]);
            store_pack(p + i, x);
        }
    } else {
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            if (i < n) p[i] = from_float<E>(v[i]);
    }
}

/* to[i] = Σ v[i] over a block of TILE threads, i < n */
__device__ static void sum_chunk(float *to, const float (&v)[CHUNK], int n)
{
    __shared__ float sums[TILE / 32][CHUNK];
    const int tid = (int)threadIdx.x;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
        const float sum = warp_sum(v[i]);
        if (tid % 32 == 0) sums[tid / 32][i] = sum;
    }
    __syncthreads();
    if (tid < CHUNK && tid < n) to[tid] = (sums[0][tid] + sums[1][tid]) + (sums[2][tid] + sums[3][tid]);
    __syncthreads();
}

/* Where a thread of a block of TILE stands: its token of its frame. */
struct place {
    int64_t frame, token; /* the token counts from its module's first */
    int m, h, w;
    bool inside;
};

__device__ static inline place place_of(const gdn &g)
{
    const int64_t frame = blockIdx.x / g.tiles;
    const int i = (int)(blockIdx.x % g.tiles) * TILE + (int)threadIdx.x;
    return {frame, frame % g.T * g.area + i, (int)(frame / g.T), i / g.W, i % g.W, i < g.area};
}

/* cos and sin of the angle by which pair c/2 of q or k turns */
__device__ static inline float2 turn_of(const gdn &g, int c, int h, int w)
{
    const int pair = c % g.d / 2, pairs = g.d / 4, i = pair % pairs;
    float2 e;
    sincosf((float)(pair < pairs ? h : w) * powf(10000, -4.0f * (float)i / (float)g.d), &e.y, &e.x);
    return e;
}

/* The CHUNK channels from c0 on, q and k turned back or forth. */
__device__ static void rotate(const gdn &g, float (&v)[CHUNK], int c0, const place &at, bool back)
{
#pragma unroll
    for (int i = 0; i < CHUNK; i += 2)
        if (g.rope && c0 + i < 2 * g.r) {
            const float2 e = turn_of(g, c0 + i, at.h, at.w),
                         y = make_float2(v[i], v[i + 1]) * (back ? conj(e) : e);
            v[i] = y.x, v[i + 1] = y.y;
        }
}

/* q, k, v and the gate: CHUNK channels of a tile of tokens; and once the sums of z. */
template <typename E> __global__ static void __launch_bounds__(TILE) project(const gdn g)
{
    alignas(16) __shared__ float w[CHUNK][CHUNK]; /* [in][out] */
    const place at = place_of(g);
    const int c0 = (int)blockIdx.y * CHUNK;
    float y[CHUNK] = {}, z[CHUNK] = {};
    for (int j0 = 0; j0 < g.r; j0 += CHUNK) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < CHUNK * CHUNK; i += TILE) {
            const int c = i / CHUNK, j = i % CHUNK;
            w[j][c] = c0 + c < 4 * g.r && j0 + j < g.r ? weights_of(g, at.m, c0 + c)[j0 + j] : 0;
        }
        __syncthreads();
        if (at.inside) load_chunk(z, (const E *)g.z[at.m] + at.token * g.r + j0, g.r - j0);
        if (c0 == 0) sum_chunk(g.sums + blockIdx.x * (int64_t)g.r + j0, z, g.r - j0);
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
#pragma unroll
            for (int c = 0; c < CHUNK; c++) y[c] += z[j] * w[j][c];
    }
    if (!at.inside) return;
#pragma unroll
    for (int c = 0; c < CHUNK; c++)
        if (c0 + c < 4 * g.r) y[c] += bias_of(g, at.m, c0 + c);
    rotate(g, y, c0, at, false);
#pragma unroll
    for (int c = 0; c < CHUNK; c++)
        if (c0 + c < 4 * g.r) channel(g, at.frame, c0 + c, at.h, at.w) = y[c];
}

/* ---- of a frame: norms, means, gates ------------------------------------------------------------------ */

/* Entry i of a gate's logits (0 alpha, 1 beta): rows come first, then columns. */
__device__ static inline enum gdn_cssm_param logit_weight(const gdn &g, int gate, int i)
{
    return gate ? (i < g.H ? GDN_BETA_H : GDN_BETA_W) : (i < g.H ? GDN_ALPHA_H : GDN_ALPHA_W);
}

__device__ static inline float sigmoid_at(const gdn &g, int64_t frame, int gate, int u, int f)
{
    const float *logit = g.logit + (frame * 2 + gate) * (g.H + g.F);
    return sigmoid(logit[u] + logit[g.H + f]);
}

/* Of each frame (blockIdx.x) the norm of channel blockIdx.y of q and k; the block after them means and
 * logits. */
__global__ static void __launch_bounds__(THREADS) statistics(const gdn g)
{
    __shared__ float shared[32];
    const int64_t frame = blockIdx.x;
    const int c = (int)blockIdx.y, m = (int)(frame / g.T);
    if (c < 2 * g.r) {
        float energy = 0;
        for (int i = (int)threadIdx.x; i < g.HF; i += THREADS) {
            const float2 v = g.x(frame * 3 * g.r + c, i / g.F, i % g.F);
            energy += inner(v, v);
        }
        energy = block_sum(energy, shared);
        if (threadIdx.x == 0) g.inverse_norm[frame * 2 * g.r + c] = 1 / sqrtf(energy + eps);
        return;
    }
    float *mean = g.mean + frame * g.r;
    for (int j = (int)threadIdx.x; j < g.r; j += THREADS) {
        float s = 0;
#pragma unroll 8
        for (int i = 0; i < g.tiles; i++) s += g.sums[(frame * g.tiles + i) * g.r + j];
        mean[j] = s / (float)g.area;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < 2 * (g.H + g.F); i += THREADS) {
        const int gate = i / (g.H + g.F), at = i % (g.H + g.F), row = at < g.H ? at : at - g.H;
        const enum gdn_cssm_param p = logit_weight(g, gate, at);
        float s = g.w[m][p + 1][row];
#pragma unroll 8
        for (int j = 0; j < g.r; j++) s += g.w[m][p][(int64_t)row * g.r + j] * mean[j];
        g.logit[(frame * 2 + gate) * (g.H + g.F) + at] = s;
    }
}

/* ---- the delta rule over time ------------------------------------------------------------------------- */

/* D threads go through time with one head at one frequency, each with one row of the state; the
 * head's d <= D channels, padded by zeros, lie in registers. With D = 0 it is one thread for any d,
 * and all lies in `work`. */
struct point {
    int m, head, u, f, i; /* i = u F + f */
    int row;              /* the thread's own, of D */
    int64_t thread;       /* D = 0: of all */
};

template <int D> __device__ static inline point point_of(const gdn &g)
{
    const int lanes = D ? D : 1, tid = (int)(blockIdx.x * POINTS + threadIdx.x), i = tid / lanes;
    const int head = (int)blockIdx.y, m = (int)blockIdx.z;
    return {m, head, i / g.F, i % g.F, i, tid % lanes, ((int64_t)m * g.heads + head) * g.HF + i};
}

/* Σ over the threads of a point */
template <int D> __device__ static inline float over_rows(float x)
{
#pragma unroll
    for (int n = D / 2; n; n /= 2) x += __shfl_xor_sync(0xffffffff, x, n); /* of a warp, points end whole */
    return x;
}

template <int D> __device__ static inline float2 over_rows(float2 x)
{
    return make_float2(over_rows<D>(x.x), over_rows<D>(x.y));
}

/* to[j] = scale[j] times channel j of a head, whose first is `first` */
template <int D>
__device__ static inline void gather(float2 *to, const gdn &g, stack<float2> x, int64_t first,
                                     const float *scale, const point &p)
{
#pragma unroll
    for (int j = 0; j < (D ? D : g.d); j++)
        to[j] = !D || j < g.d ? __ldg(scale + j) * __ldg(&x(first + j, p.u, p.f)) : make_float2(0, 0);
}

/* of the rows that are the thread's own */
template <int D>
__device__ static inline void gather_own(float2 *to, const gdn &g, stack<float2> x, int64_t first,
                                         const point &p)
{
    for (int n = 0; n < (D ? 1 : g.d); n++) {
        const int i = D ? p.row : n;
        to[n] = i < g.d ? __ldg(&x(first + i, p.u, p.f)) : make_float2(0, 0);
    }
}

/* q, k, v at one time; q and k of unit energy, then k over its channels, the norm of which is returned */
template <int D>
__device__ static inline float gather_all(float2 *q, float2 *key, float2 *v, const gdn &g, int64_t frame,
                                          const point &p)
{
    const int64_t first = frame * 3 * g.r + (int64_t)p.head * g.d;
    const float *scale = g.inverse_norm + frame * 2 * g.r + (int64_t)p.head * g.d;
    gather<D>(q, g, g.x, first, scale, p);
    gather<D>(key, g, g.x, first + g.r, scale + g.r, p);
    gather_own<D>(v, g, g.x, first + 2 * g.r, p);
    float energy = eps;
#pragma unroll
    for (int j = 0; j < (D ? D : g.d); j++) energy += inner(key[j], key[j]);
    const float norm = sqrtf(energy), scaled = 1 / norm;
#pragma unroll
    for (int j = 0; j < (D ? D : g.d); j++) key[j] = scaled * key[j];
    return norm;
}

__device__ static inline float2 bounded(float2 kernel)
{
    return 0.999f / (1 + sqrtf(inner(kernel, kernel))) * kernel;
}

/* The thread's rows of S after time t. */
template <int D> __device__ static inline float2 *state_of(const gdn &g, const point &p, int t)
{
    const int64_t d = D ? D : g.d, slot = (((int64_t)p.m * g.heads + p.head) * g.T + t) * d + (D ? p.row : 0);
    return g.state + slot * d * g.HF + p.i;
}

/* S = decay (S - beta (S K) Kᴴ) + beta V Kᴴ, one row of it */
template <int D>
__device__ static inline void step(float2 *s, const float2 *key, float2 v, int any_d, float2 decay,
                                   float beta)
{
    const int d = D ? D : any_d;
    float2 read = make_float2(0, 0);
#pragma unroll
    for (int j = 0; j < d; j++) read = read + s[j] * key[j];
    const float2 erase = beta * read, write = beta * v;
#pragma unroll
    for (int j = 0; j < d; j++) s[j] = decay * (s[j] - conj(key[j]) * erase) + conj(key[j]) * write;
}

template <int D> __global__ static void __launch_bounds__(POINTS) scan(const gdn g, bool keep)
{
    const point p = point_of<D>(g);
    if (p.i >= g.HF) return;
    const int d = D ? D : g.d, rows = D ? 1 : g.d;
    float2 own[D ? 3 * D + 1 : 1];
    float2 *s = D ? own : g.work + p.thread * (d * d + 3 * d), *q = s + rows * d, *key = q + d, *v = key + d;
    const float2 phat = bounded(((const float2 *)g.w[p.m][GDN_KERNEL])[(int64_t)p.head * g.HF + p.i]);
#pragma unroll
    for (int j = 0; j < rows * d; j++) s[j] = make_float2(0, 0);
    for (int t = 0; t < g.T; t++) {
        const int64_t frame = (int64_t)p.m * g.T + t, out = frame * g.r + (int64_t)p.head * g.d;
        gather_all<D>(q, key, v, g, frame, p);
        const float2 decay = (0.1f + 0.89f * sigmoid_at(g, frame, 0, p.u, p.f)) * phat;
        const float beta = sigmoid_at(g, frame, 1, p.u, p.f);
        for (int n = 0; n < rows; n++) {
            const int i = D ? p.row : n;
            float2 o = make_float2(0, 0);
            step<D>(s + n * d, key, v[n], d, decay, beta);
#pragma unroll
            for (int j = 0; j < d; j++) {
                if (keep) state_of<D>(g, p, t)[(int64_t)(n * d + j) * g.HF] = s[n * d + j];
                o = o + s[n * d + j] * q[j];
            }
            if (i < g.d) g.o(out + i, p.u, p.f) = o;
        }
    }
}

/* One row; the formulas stand over step_back() of the CPU. ds: from the gradient of S' to that of S; adds the
 * row's share of the other gradients. Returns dv. */
template <int D>
__device__ static inline float2 step_back(float2 *ds, float2 *dk, float2 *dphat, float *dalpha, float *dbeta,
                                          const float2 *last, const float2 *key, float2 v, int any_d,
                                          float2 phat, float alpha, float beta)
{
    const int d = D ? D : any_d;
    const float2 decay = alpha * phat;
    float2 u = make_float2(0, 0), written = u;
#pragma unroll
    for (int j = 0; j < d; j++) {
        u = u + last[j] * key[j];
        written = written + ds[j] * key[j];
    }
    float2 du = conj(decay) * written;
    *dbeta += inner(written, v) - inner(du, u);
    du = -beta * du;
#pragma unroll
    for (int j = 0; j < d; j++) {
        const float2 grad = ds[j], dm = conj(decay) * grad, s = last[j];
        const float2 m = s - beta * (conj(key[j]) * u);
        *dalpha += inner(grad, phat * m);
        *dphat = *dphat + alpha * (conj(m) * grad);
        dk[j] = dk[j] + beta * (conj(grad) * v - conj(dm) * u) + conj(s) * du;
        ds[j] = dm + conj(key[j]) * du;
    }
    return beta * written;
}

/* g.o holds the gradient of the scan's output. Leaves those of q and k of unit energy and of v in dx, of
 * alpha and beta in dgate, and adds that of the kernel. */
template <int D> __global__ static void __launch_bounds__(POINTS) scan_back(const gdn g)
{
    const point p = point_of<D>(g);
    if (p.i >= g.HF) return;
    const int d = D ? D : g.d, rows = D ? 1 : g.d;
    float2 own[D ? 7 * D + 2 : 1];
    float2 *ds = D ? own : g.work + p.thread * (3 * d * d + 6 * d), *last = ds + rows * d,
           *now = last + rows * d;
    float2 *q = now + rows * d, *key = q + d, *dq = key + d, *dk = dq + d, *v = dk + d, *go = v + rows;
    const int64_t at_kernel = (int64_t)p.head * g.HF + p.i;
    const float2 none = make_float2(0, 0), kernel = ((const float2 *)g.w[p.m][GDN_KERNEL])[at_kernel];
    const float2 phat = bounded(kernel);
    float2 dphat = none;
#pragma unroll
    for (int j = 0; j < rows * d; j++) ds[j] = none, now[j] = state_of<D>(g, p, g.T - 1)[(int64_t)j * g.HF];
    for (int t = g.T - 1; t >= 0; t--) {
        const int64_t frame = (int64_t)p.m * g.T + t, first = frame * 3 * g.r + (int64_t)p.head * g.d;
        const float norm = gather_all<D>(q, key, v, g, frame, p);
        gather_own<D>(go, g, g.o, frame * g.r + (int64_t)p.head * g.d, p);
#pragma unroll
        for (int j = 0; j < rows * d; j++)
            last[j] = t ? __ldg(state_of<D>(g, p, t - 1) + (int64_t)j * g.HF) : none;
        const float alpha = 0.1f + 0.89f * sigmoid_at(g, frame, 0, p.u, p.f);
        const float beta = sigmoid_at(g, frame, 1, p.u, p.f);
        float dalpha = 0, dbeta = 0, along = 0;
#pragma unroll
        for (int j = 0; j < d; j++) dq[j] = dk[j] = none;
        for (int n = 0; n < rows; n++) {
            const int i = D ? p.row : n;
#pragma unroll
            for (int j = 0; j < d; j++) {
                dq[j] = dq[j] + conj(now[n * d + j]) * go[n];
                ds[n * d + j] = ds[n * d + j] + conj(q[j]) * go[n];
            }
            const float2 dv = step_back<D>(ds + n * d, dk, &dphat, &dalpha, &dbeta, last + n * d, key, v[n],
                                           d, phat, alpha, beta);
            if (i < g.d) g.dx(first + 2 * g.r + i, p.u, p.f) = dv;
        }
        dalpha = over_rows<D>(dalpha), dbeta = over_rows<D>(dbeta);
#pragma unroll
        for (int j = 0; j < d; j++) {
            dq[j] = over_rows<D>(dq[j]), dk[j] = over_rows<D>(dk[j]);
            along += inner(dk[j], key[j]);
        }
#pragma unroll
        for (int j = 0; j < d; j++)
            if (j < g.d && (!D || j == p.row)) {
                g.dx(first + j, p.u, p.f) = dq[j];
                g.dx(first + g.r + j, p.u, p.f) = 1 / norm * (dk[j] - along * key[j]);
            }
        float *dgate = g.dgate + (((int64_t)p.m * g.heads + p.head) * 2 * g.T + t) * g.HF + p.i;
        if (p.row == 0) dgate[0] = dalpha, dgate[(int64_t)g.T * g.HF] = dbeta;
#pragma unroll
        for (int j = 0; j < rows * d; j++) now[j] = last[j];
    }
    /* dP = 0.999 (g / (1+m) - P <g, P> / (m (1+m)²)), m = |P|; the second term is 0 at P = 0 */
    dphat = over_rows<D>(dphat);
    const float m = sqrtf(inner(kernel, kernel));
    const float inward = m > 0 ? inner(dphat, kernel) / (m * (1 + m) * (1 + m)) : 0;
    float2 *dkernel = (float2 *)g.dw[p.m][GDN_KERNEL] + at_kernel;
    if (p.row == 0) *dkernel = *dkernel + 0.999f * (1 / (1 + m) * dphat - inward * kernel);
}

/* ---- back through norms and gates ---------------------------------------------------------------------- */

/* The gradients of one frame's logits, and through them of its mean. dgate of head 0 is written over. */
__device__ static void gates_back(const gdn &g, int64_t frame)
{
    const int m = (int)(frame / g.T), sides = g.H + g.F;
    const int64_t of_head = (int64_t)2 * g.T * g.HF;
    for (int gate = 0; gate < 2; gate++) {
        float *grad = g.dgate + m * g.heads * of_head + (gate * g.T + frame % g.T) * g.HF;
        float *dlogit = g.dlogit + (frame * 2 + gate) * sides;
        for (int i = (int)threadIdx.x; i < g.HF; i += THREADS) {
            const float s = sigmoid_at(g, frame, gate, i / g.F, i % g.F);
            float sum = 0;

#pragma unroll 4
            for (int head = 0; head < g.heads; head++) sum += grad[head * of_head + i];
            grad[i] = sum * (gate ? 1 : 0.89f) * s * (1 - s);
        }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < sides; i += THREADS) {
            const bool row = i < g.H;
            const float *from = row ? grad + (int64_t)i * g.F : grad + i - g.H;
            float sum = 0;

#pragma unroll 8
            for (int j = 0; j < (row ? g.F : g.H); j++) sum += from[row ? j : (int64_t)j * g.F];
            dlogit[i] = sum;
        }
        __syncthreads();
    }
    for (int c = (int)threadIdx.x / 32; c < g.r; c += THREADS / 32) {
        float sum = 0;
        for (int i = (int)threadIdx.x % 32; i < 2 * sides; i += 32) {
            const int gate = i / sides, at = i % sides, row = at < g.H ? at : at - g.H;
            sum += g.dlogit[(frame * 2 + gate) * sides + at] *
                   g.w[m][logit_weight(g, gate, at)][(int64_t)row * g.r + c];
        }
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) g.dmean[frame * g.r + c] = sum;
    }
}

/* With y = x / s, s = √(Σ|x|² + eps): dx = (dy - y <dy, y>) / s, in place, for channel blockIdx.y of q and k
 * of frame blockIdx.x; the block after them does the gates. */
__global__ static void __launch_bounds__(THREADS) statistics_back(const gdn g)
{
    __shared__ float shared[32];
    const int64_t frame = blockIdx.x, plane = frame * 3 * g.r + blockIdx.y;
    if (blockIdx.y == 2 * (unsigned)g.r) {
        gates_back(g, frame);
        return;
    }
    const float scale = g.inverse_norm[frame * 2 * g.r + blockIdx.y];
    float along = 0;
    for (int i = (int)threadIdx.x; i < g.HF; i += THREADS)
        along += inner(g.dx(plane, i / g.F, i % g.F), scale * g.x(plane, i / g.F, i % g.F));
    along = block_sum(along, shared);
    for (int i = (int)threadIdx.x; i < g.HF; i += THREADS) {
        float2 *dx = &g.dx(plane, i / g.F, i % g.F);
        *dx = scale * (*dx - along * scale * g.x(plane, i / g.F, i % g.F));
    }
}

/* ---- norm and output gate ------------------------------------------------------------------------------ */

/* CHUNK channels of a token from planes; 0 from n on. */
__device__ static inline void load_planes(float (&v)[CHUNK], stack<float> planes, int64_t first, int n,
                                          const place &at)
{
#pragma unroll
    for (int i = 0; i < CHUNK; i++) v[i] = i < n ? planes(first + i, at.h, at.w) : 0;
}

__device__ static inline float inverse_rms(const gdn &g, const place &at)
{
    float s = 0;
    float raw[CHUNK];
    for (int c0 = 0; c0 < g.r; c0 += CHUNK) {
        load_planes(raw, g.raw, at.frame * g.r + c0, g.r - c0, at);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) s += raw[i] * raw[i];
    }
    return 1 / sqrtf(s / (float)g.r + eps);
}

/* out = raw / rms(raw) w ⊙ silu(gate) */
template <typename E> __global__ static void __launch_bounds__(TILE) finish(const gdn g)
{
    const place at = place_of(g);
    if (!at.inside) return;
    const float s = inverse_rms(g, at), *w = g.w[at.m][GDN_NORM];
    float y[CHUNK], gate[CHUNK];
    for (int c0 = 0; c0 < g.r; c0 += CHUNK) {
        load_planes(y, g.raw, at.frame * g.r + c0, g.r - c0, at);
        load_planes(gate, g.gate, at.frame * g.r + c0, g.r - c0, at);
#pragma unroll
        for (int i = 0; i < CHUNK; i++)
            if (c0 + i < g.r) y[i] *= s * w[c0 + i] * gate[i] * sigmoid(gate[i]);
        store_chunk((E *)g.out[at.m] + at.token * g.r + c0, y, g.r - c0);
    }
}

/* What a tile of tokens leaves of the weights' gradients: for each of the 4r channels r weights and the bias,
 * then the norm's r weights. */
__host__ __device__ static inline int64_t partials(int64_t r)
{
    return 4 * r * (r + 1) + r;
}

/* In place: gate -> its gradient, raw -> its gradient. In double: what the norm takes out of a gradient may
 * be nearly all of it. */
template <typename E> __global__ static void __launch_bounds__(TILE) finish_back(const gdn g)
{
    const place at = place_of(g);
    const float s = at.inside ? inverse_rms(g, at) : 0;
    const float *w = g.w[at.m][GDN_NORM];
    float *partial = g.partial + blockIdx.x * partials(g.r) + 4 * g.r * (g.r + 1);
    float raw[CHUNK], gate[CHUNK], dy[CHUNK], dnorm[CHUNK];
    float along = 0;
    for (int twice = 0; twice < 2; twice++) /* first for `along`, then for all else */
        for (int c0 = 0; c0 < g.r; c0 += CHUNK) {
            const int64_t first = at.frame * g.r + c0;
            const int n = at.inside ? g.r - c0 : 0;
            load_planes(raw, g.raw, first, n, at);
            load_planes(gate, g.gate, first, n, at);
            load_chunk(dy, (const E *)g.dout[at.m] + at.token * g.r + c0, n);
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                dnorm[i] = 0;
                if (i >= n) continue;
                const float sig = sigmoid(gate[i]), silu = gate[i] * sig;
                const float unit = raw[i] * s, slope = dy[i] * w[c0 + i];
                if (!twice) {
                    along += slope * silu * unit;
                } else {
                    dnorm[i] = dy[i] * silu * unit;
                    g.raw(first + i, at.h, at.w) = s * (slope * silu - unit * along / (float)g.r);
                    g.gate(first + i, at.h, at.w) = slope * unit * (sig + silu * (1 - sig));
                }
            }
            if (twice) sum_chunk(partial + c0, dnorm, g.r - c0);
        }
}

/* ---- back through the projections ---------------------------------------------------------------------- */

/* dz of a tile of tokens, CHUNK of its channels, and what those add to the gradients of the projections. */
template <typename E> __global__ static void __launch_bounds__(TILE) project_back(const gdn g)
{
    alignas(16) __shared__ float w[CHUNK][CHUNK];                        /* [out][in] */
    __shared__ float4 dys[CHUNK][TILE / 4 + 1], zs[CHUNK][TILE / 4 + 1]; /* [channel][token] */
    const place at = place_of(g);
    const int tid = (int)threadIdx.x, j0 = (int)blockIdx.y * CHUNK, n = g.r - j0;
    float *partial = g.partial + blockIdx.x * partials(g.r);
    float dz[CHUNK] = {}, v[CHUNK] = {};
    if (at.inside) load_chunk(v, (const E *)g.z[at.m] + at.token * g.r + j0, n);
#pragma unroll
    for (int j = 0; j < CHUNK; j++) ((float *)zs[j])[tid] = v[j];
    for (int c0 = 0; c0 < 4 * g.r; c0 += CHUNK) {
        for (int i = tid; i < CHUNK * CHUNK; i += TILE) {
            const int c = i / CHUNK, j = i % CHUNK;
            w[c][j] = c0 + c < 4 * g.r && j < n ? weights_of(g, at.m, c0 + c)[j0 + j] : 0;
        }
#pragma unroll
        for (int c = 0; c < CHUNK; c++)
            v[c] = at.inside && c0 + c < 4 * g.r ? channel(g, at.frame, c0 + c, at.h, at.w) : 0;
        rotate(g, v, c0, at, true);
#pragma unroll
        for (int c = 0; c < CHUNK; c++) ((float *)dys[c])[tid] = v[c];
        __syncthreads();
#pragma unroll
        for (int c = 0; c < CHUNK; c++)
#pragma unroll
            for (int j = 0; j < CHUNK; j++) dz[j] += v[c] * w[c][j];
        /* Eight threads to a channel of dy, two channels of z to a thread. */
        const int c = tid / 8, a = tid % 8, b = a + 8;
        float of_a = 0, of_b = 0, bias = 0;

#pragma unroll 4
        for (int i = 0; i < TILE / 4; i++) {
            const float4 y = dys[c][i], za = zs[a][i], zb = zs[b][i];
            of_a += y.x * za.x + y.y * za.y + y.z * za.z + y.w * za.w;
            of_b += y.x * zb.x + y.y * zb.y + y.z * zb.z + y.w * zb.w;
            bias += y.x + y.y + y.z + y.w;
        }
        float *to = partial + (int64_t)(c0 + c) * (g.r + 1) + j0;
        if (c0 + c < 4 * g.r) {
            if (a < n) to[a] = of_a;
            if (b < n) to[b] = of_b;
            if (a == 0 && j0 == 0) to[g.r] = bias;
        }
        __syncthreads();
    }
    if (!at.inside) return;
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
        if (j < n) dz[j] += g.dmean[at.frame * g.r + j0 + j] / (float)g.area;
    store_chunk((E *)g.dz[at.m] + at.token * g.r + j0, dz, n);
}

/* Which gradient partial sum e belongs to. */
__device__ static float *partial_target(const gdn &g, int m, int64_t e)
{
    const int64_t c = e / (g.r + 1), j = e % (g.r + 1), gate = c - 3 * g.r;
    if (e >= 4 * g.r * (g.r + 1)) return g.dw[m][GDN_NORM] + e - 4 * g.r * (g.r + 1);
    if (gate < 0) return j < g.r ? g.dw[m][GDN_QKV] + c * g.r + j : g.dw[m][GDN_QKV_BIAS] + c;
    return j < g.r ? g.dw[m][GDN_GATE] + gate * g.r + j : g.dw[m][GDN_GATE_BIAS] + gate;
}

/* Adds up what the frames' tiles left, and over the frames what the logits' gradients make of alpha's and
 * beta's weights. A block sums for 32 numbers: its eight warps every eighth term, then those eight. */
__global__ static void __launch_bounds__(THREADS) add_gradients(const gdn g)
{
    __shared__ float sums[THREADS / 32][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, m = (int)blockIdx.y,
              sides = g.H + g.F;
    const int64_t e = blockIdx.x * (int64_t)32 + lane, size = partials(g.r), l = e - size;
    float s = 0, *to = NULL;
    if (e < size) {
        const int64_t rows = (int64_t)g.T * g.tiles;
        const float *from = g.partial + m * rows * size + e;
#pragma unroll 4
        for (int64_t i = warp; i < rows; i += THREADS / 32) s += from[i * size];
        to = partial_target(g, m, e);
    } else if (l < (int64_t)2 * sides * (g.r + 1)) {
        const int64_t line = l / (g.r + 1), j = l % (g.r + 1), at = line % sides,
                      row = at < g.H ? at : at - g.H;
        const enum gdn_cssm_param p = logit_weight(g, (int)(line / sides), (int)at);
        for (int t = warp; t < g.T; t += THREADS / 32) {
            const int64_t frame = (int64_t)m * g.T + t;
            s += g.dlogit[frame * 2 * sides + line] * (j < g.r ? g.mean[frame * g.r + j] : 1);
        }
        to = j < g.r ? g.dw[m][p] + row * g.r + j : g.dw[m][p + 1] + row;
    }
    sums[warp][lane] = s;
    __syncthreads();
    if (warp || !to) return;
    for (int i = 1; i < THREADS / 32; i++) s += sums[i][lane];
    *to += s;
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

struct call {
    struct gdn g;
    struct kern *k;
    enum dtype dtype;
    struct cuda_spectrum many, few; /* of q, k, v; of the output */
    bool padded;                    /* heads of at most four channels, in registers */
};

static float *floats(struct kern *k, int64_t count)
{
    return (float *)cuda_scratch(k, DT_F32, count);
}

/* Sizes and scratch; false while planning or when there is no room. */
static bool prepare(struct call *c, struct kern *k, int modules, const struct tensor *z,
                    const struct tensor *w, int64_t head_dim, bool rope, bool backward)
{
    const int64_t T = z->shape[0], H = z->shape[1], W = z->shape[2], r = z->shape[3], heads = r / head_dim;
    const int64_t F = W / 2 + 1, HF = H * F, frames = modules * T;
    if (z->dtype == DT_F64) {
        kern_fail(k, "gdn_cssm: sums in doubles are for the CPU");
        return false;
    }
    *c = {};
    c->k = k;
    c->dtype = z->dtype;
    c->padded = head_dim <= 4;
    if (!cuda_spectrum_make(k, &c->many, H, W, frames * 3 * r) ||
        !cuda_spectrum_make(k, &c->few, H, W, frames * r))
        return false;
    struct gdn *g = &c->g;
    g->T = (int)T, g->H = (int)H, g->W = (int)W, g->F = (int)F, g->HF = (int)HF, g->area = (int)(H * W);
    g->r = (int)r, g->d = (int)head_dim, g->heads = (int)heads, g->modules = modules, g->rope = rope;
    g->tiles = (int)ceil_div(H * W, TILE);
    for (int m = 0; m < modules; m++) {
        g->z[m] = z[m].data;
        for (int p = 0; p < GDN_PARAMS; p++) g->w[m][p] = (const float *)w[m * GDN_PARAMS + p].data;
    }
    const int64_t d = c->padded ? 4 : head_dim, threads = modules * heads * HF;
    g->qkv = cuda_spectrum_space(&c->many);
    g->gate = cuda_spectrum_space(&c->few);
    g->raw = cuda_spectrum_space(&c->few);
    g->x = cuda_spectrum_frequencies(&c->many);
    g->o = cuda_spectrum_frequencies(&c->few);
    g->inverse_norm = floats(k, frames * 2 * r);
    g->sums = floats(k, frames * g->tiles * r);
    g->mean = floats(k, frames * r);
    g->logit = floats(k, frames * 2 * (H + F));
    if (!c->padded)
        g->work = (float2 *)floats(k, 2 * threads * (backward ? 3 * d * d + 6 * d : d * d + 3 * d));
    if (backward) {
        g->dx = cuda_spectrum_frequencies(&c->many);
        g->state = (float2 *)floats(k, 2 * threads * T * d * d);
        g->dgate = floats(k, threads * 2 * T);
        g->dlogit = floats(k, frames * 2 * (H + F));
        g->dmean = floats(k, frames * r);
        g->partial = floats(k, frames * g->tiles * partials(r));
    }
    return kern_ok(k) && !kern_planning(k);
}

/* Launches a kernel, one over tokens for the dtype of z. */
#define LAUNCH(kernel, grid, block, ...)                                                                     \
    do {                                                                                                     \
        kernel<<<grid, block, 0, stream_of(c->k)>>>(__VA_ARGS__);                                            \
        CUDA_LAUNCHED(c->k);                                                                                 \
    } while (0)
#define LAUNCH_FOR(kernel, grid, block, ...)                                                                 \
    CALL_BY_DTYPE(c->dtype, E, LAUNCH(kernel<E>, grid, block, __VA_ARGS__))

static dim3 grid_of_tiles(const struct gdn *g, int64_t channels)
{
    return dim3((unsigned)((int64_t)g->modules * g->T * g->tiles), (unsigned)ceil_div(channels, CHUNK));
}

static dim3 grid_of_frames(const struct gdn *g)
{
    return dim3((unsigned)(g->modules * g->T), (unsigned)(2 * g->r + 1));
}

static dim3 grid_of_points(const struct gdn *g, int lanes)
{
    return dim3((unsigned)ceil_div((int64_t)lanes * g->HF, POINTS), (unsigned)g->heads, (unsigned)g->modules);
}

/* Everything up to the norm. */
static void run_forward(struct call *c, bool keep)
{
    const struct gdn *g = &c->g;
    LAUNCH_FOR(project, grid_of_tiles(g, 4 * g->r), TILE, *g);
    cuda_to_spectrum(&c->many, g->x, g->qkv, false);
    LAUNCH(statistics, grid_of_frames(g), THREADS, *g);
    if (c->padded)
        LAUNCH(scan<4>, grid_of_points(g, 4), POINTS, *g, keep);
    else
        LAUNCH(scan<0>, grid_of_points(g, 1), POINTS, *g, keep);
    cuda_from_spectrum(&c->few, g->raw, g->o, true);
}

static void run_backward(struct call *c)
{
    const struct gdn *g = &c->g;
    LAUNCH_FOR(finish_back, grid_of_tiles(g, 1), TILE, *g);
    cuda_to_spectrum(&c->few, g->o, g->raw, true); /* the adjoint of the inverse */
    if (c->padded)
        LAUNCH(scan_back<4>, grid_of_points(g, 4), POINTS, *g);
    else
        LAUNCH(scan_back<0>, grid_of_points(g, 1), POINTS, *g);
    LAUNCH(statistics_back, grid_of_frames(g), THREADS, *g);
    cuda_from_spectrum(&c->many, g->qkv, g->dx, false);
    LAUNCH_FOR(project_back, grid_of_tiles(g, g->r), TILE, *g);
    const int64_t numbers = partials(g->r) + (int64_t)2 * (g->H + g->F) * (g->r + 1);
    LAUNCH(add_gradients, dim3((unsigned)ceil_div(numbers, 32), (unsigned)g->modules), THREADS, *g);
}

static void forward(struct call *c, struct kern *k, struct tensor *o, const struct tensor *z,
                    const struct tensor *w, int modules, int64_t head_dim, bool rope)
{
    if (!prepare(c, k, modules, z, w, head_dim, rope, false)) return;
    for (int m = 0; m < modules; m++) c->g.out[m] = o[m].data;
    run_forward(c, false);
    LAUNCH_FOR(finish, grid_of_tiles(&c->g, 1), TILE, c->g);
}

static void backward(struct call *c, struct kern *k, struct tensor *dz, struct tensor *dw,
                     const struct tensor *dout, const struct tensor *z, const struct tensor *w, int modules,
                     int64_t head_dim, bool rope)
{
    if (!prepare(c, k, modules, z, w, head_dim, rope, true)) return;
    for (int m = 0; m < modules; m++) {
        c->g.dz[m] = dz[m].data, c->g.dout[m] = dout[m].data;
        for (int p = 0; p < GDN_PARAMS; p++) c->g.dw[m][p] = (float *)dw[m * GDN_PARAMS + p].data;
    }
    run_forward(c, true);
    run_backward(c);
}

void cuda_gdn_cssm_forward(struct kern *k, struct tensor *o, const struct tensor *z, const struct tensor *w,
                           int modules, int64_t head_dim, bool rope)
{
    struct call c;
    const size_t mark = kern_mark(k);
    for (int m = 0; m < modules; m += MODULES, kern_release(k, mark))
        forward(&c, k, o + m, z + m, w + m * GDN_PARAMS, min(modules - m, (int)MODULES), head_dim, rope);
    kern_took(k, c.many.plans ? "cuFFT" : "folded transform");
}

void cuda_gdn_cssm_backward(struct kern *k, struct tensor *dz, struct tensor *dw, const struct tensor *dout,
                            const struct tensor *z, const struct tensor *w, int modules, int64_t head_dim,
                            bool rope)
{
    struct call c;
    const size_t mark = kern_mark(k);
    for (int m = 0; m < modules; m += MODULES, kern_release(k, mark))
        backward(&c, k, dz + m, dw + m * GDN_PARAMS, dout + m, z + m, w + m * GDN_PARAMS,
                 min(modules - m, (int)MODULES), head_dim, rope);
    kern_took(k, c.many.plans ? "cuFFT" : "folded transform");
}
