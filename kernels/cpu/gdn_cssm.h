/* gdn_cssm - the body of the spectral adapter's operation, for real = float (gdn_cssm.c) and real = double
 * (gdn_cssm_f64.c): the double one is what finite differences and plain references check to the last digits.
 *
 * Nothing of the forward pass is kept: backward computes it again, this time keeping the state of every step.
 * A DFT here is two small dense products, one with a table for each axis. Its adjoint is the inverse without
 * normalisation, and the other way about, so two functions serve all four directions; which columns count
 * twice, and the 1/(HW), lie in the table `cols_inverse`.
 *
 * Gradients of complex numbers are dL/dRe + i dL/dIm: for y = A x, dx = Aᴴ dy. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

struct cx {
    real re, im;
};

struct pass {
    struct kern *k;
    int64_t T, H, W, F, HF, tokens, r, d, heads;
    bool rope;
    const real *z;
    const struct tensor *w;
    struct cx *rows;            /* [H,H] e^(-2πi u h / H) */
    real *cols, *cols_inverse;  /* [W,F] e^(-2πi f w / W) as pairs; the second times (1 or 2) / (HW) */
    struct cx *angle;           /* [max(H,W), d/4] cos and sin of the rotation */
    real *qkv, *gate, *raw;     /* [tokens,3r], [tokens,r] before silu, [tokens,r] before the norm */
    struct cx *x, *between, *o; /* spectra [T,3r,HF] of q, k, v; half-transformed planes; [T,r,HF] */
    double *norm, *norm_k;      /* [T,2r] of q and k; [T,heads,HF] of k over the channels of a head */
    real *mean, *logit_h, *logit_w, *sigmoid; /* [T,r]; [2,T,H], [2,T,F] and [2,T,HF] of alpha, beta */
    struct cx *phat;                          /* [heads,HF] */
    struct cx *state, *work; /* [heads,HF,T+1,d,d] when kept; of one (head, row): [heads,H, dd + 7d] */
};

static const double eps = 1e-6;

static inline struct cx mul(struct cx a, struct cx b)
{
    return (struct cx){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

/* conj(a) b */
static inline struct cx conj_mul(struct cx a, struct cx b)
{
    return (struct cx){a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}

/* Re(conj(a) b): the product of a and b as plane vectors */
static inline real inner(struct cx a, struct cx b)
{
    return a.re * b.re + a.im * b.im;
}

static inline struct cx scaled(real s, struct cx a)
{
    return (struct cx){s * a.re, s * a.im};
}

static inline struct cx plus(struct cx a, struct cx b)
{
    return (struct cx){a.re + b.re, a.im + b.im};
}

static inline struct cx minus(struct cx a, struct cx b)
{
    return (struct cx){a.re - b.re, a.im - b.im};
}

static inline real *reals(const struct tensor *t)
{
    return t->data;
}

static real *take(struct pass *p, int64_t count)
{
    return cpu_scratch(p->k, REAL, count);
}

static struct cx *take_complex(struct pass *p, int64_t count)
{
    return cpu_scratch(p->k, REAL, 2 * count);
}

/* c [m,n] = op(a) op(b) + beta c, the inner size being `inner_size` */
static void product(struct pass *p, real *c, int64_t m, int64_t n, int64_t inner_size, const real *a, bool ta,
                    const real *b, bool tb, double beta)
{
    struct gemm g = {.dtype = REAL,
                     .m = m,
                     .n = n,
                     .k = inner_size,
                     .ta = ta,
                     .tb = tb,
                     .alpha = 1,
                     .beta = beta,
                     .a = a,
                     .b = b,
                     .c = c};
    cpu_gemm(p->k, &g);
}

/* y [n,out] = x [n,in] wᵀ + b, parameters w and w + 1 */
static void project(struct pass *p, real *y, int64_t n, int64_t out, int64_t in, const real *x,
                    enum gdn_cssm_param w)
{
    const real *b = reals(&p->w[w + 1]);
    product(p, y, n, out, in, x, false, reals(&p->w[w]), true, 0);
    for (int64_t i = 0; i < n; i++)
        for (int64_t o = 0; o < out; o++) y[i * out + o] += b[o];
}

/* ---- tables and memory ------------------------------------------------------------------------------ */

/* e^(-2πi m / n), exact at the quarters: the sines that must be zero for the inverse to see only the real
 * part of columns 0 and W/2 are zero. */
static struct cx root(int64_t m, int64_t n)
{
    static const struct cx quarter[] = {{1, 0}, {0, -1}, {-1, 0}, {0, 1}};
    m %= n;
    if (4 * m % n == 0) return quarter[4 * m / n];
    double a = 2 * M_PI * (double)m / (double)n;
    return (struct cx){(real)cos(a), (real)-sin(a)};
}

static void fill_tables(struct pass *p)
{
    for (int64_t u = 0; u < p->H; u++)
        for (int64_t h = 0; h < p->H; h++) p->rows[u * p->H + h] = root(u * h, p->H);
    for (int64_t w = 0; w < p->W; w++)
        for (int64_t f = 0; f < p->F; f++) {
            struct cx e = root(w * f, p->W);
            double weight = (f == 0 || 2 * f == p->W ? 1 : 2) / (double)(p->H * p->W);
            ((struct cx *)p->cols)[w * p->F + f] = e;
            ((struct cx *)p->cols_inverse)[w * p->F + f] = scaled((real)weight, e);
        }
    int64_t pairs = p->d / 4, positions = p->H > p->W ? p->H : p->W;
    for (int64_t at = 0; p->rope && at < positions; at++)
        for (int64_t i = 0; i < pairs; i++) {
            double a = (double)at * pow(10000, -2 * (double)i / ((double)p->d / 2));
            p->angle[at * pairs + i] = (struct cx){(real)cos(a), (real)sin(a)};
        }
}

/* Sizes and memory of a forward pass; false while planning, or when there is no room. */
static bool prepare(struct pass *p, struct kern *k, const struct tensor *z, const struct tensor *w,
                    int64_t head_dim, bool rope, bool keep)
{
    int64_t T = z->shape[0], H = z->shape[1], W = z->shape[2], r = z->shape[3], F = W / 2 + 1, HF = H * F;
    int64_t tokens = T * H * W, d = head_dim, n = r / d;
    *p = (struct pass){.k = k,
                       .T = T,
                       .H = H,
                       .W = W,
                       .F = F,
                       .HF = HF,
                       .tokens = tokens,
                       .r = r,
                       .d = d,
                       .heads = n,
                       .rope = rope,
                       .z = z->data,
                       .w = w};
    p->rows = take_complex(p, H * H);
    p->cols = take(p, W * F * 2);
    p->cols_inverse = take(p, W * F * 2);
    p->angle = take_complex(p, rope ? (H > W ? H : W) * (d / 4) : 0);
    p->qkv = take(p, tokens * 3 * r);
    p->gate = take(p, tokens * r);
    p->raw = take(p, tokens * r);
    p->x = take_complex(p, T * 3 * r * HF);
    p->between = take_complex(p, T * 3 * r * HF);
    p->o = take_complex(p, T * r * HF);
    p->norm = cpu_scratch(k, DT_F64, T * 2 * r);
    p->norm_k = cpu_scratch(k, DT_F64, T * n * HF);
    p->mean = take(p, T * r);
    p->logit_h = take(p, 2 * T * H);
    p->logit_w = take(p, 2 * T * F);
    p->sigmoid = take(p, 2 * T * HF);
    p->phat = take_complex(p, n * HF);
    p->state = keep ? take_complex(p, n * HF * (T + 1) * d * d) : NULL;
    p->work = take_complex(p, n * H * (d * d + 7 * d));
    if (!p->work) return false; /* after one that fails, all do */
    fill_tables(p);
    return true;
}

/* ---- between space and spectrum --------------------------------------------------------------------- */

/* x[u,f] = Σ_h rows[u,h] Σ_w cols[w,f] in[h,w]; in has `stride` between neighbours, y [H,F] is scratch */
HOT static void plane_to_spectrum(const struct pass *p, struct cx *x, struct cx *y, const real *in,
                                  int64_t stride, const real *cols)
{
    int64_t H = p->H, W = p->W, F = p->F;
    memset(y, 0, (size_t)(H * F) * sizeof *y);
    memset(x, 0, (size_t)(H * F) * sizeof *x);
    for (int64_t h = 0; h < H; h++)
        for (int64_t w = 0; w < W; w++) {
            real *restrict to = &y[h * F].re, v = in[(h * W + w) * stride];
            const real *restrict e = cols + w * 2 * F;
            for (int64_t i = 0; i < 2 * F; i++) to[i] += v * e[i];
        }
    for (int64_t u = 0; u < H; u++)
        for (int64_t h = 0; h < H; h++) {
            struct cx *restrict to = x + u * F, a = p->rows[u * H + h];
            const struct cx *restrict from = y + h * F;
            for (int64_t f = 0; f < F; f++) to[f] = plus(to[f], mul(a, from[f]));
        }
}

/* out[h,w] = Re Σ_f conj(cols[w,f]) Σ_u conj(rows[u,h]) x[u,f] */
HOT static void plane_from_spectrum(const struct pass *p, real *out, int64_t stride, struct cx *y,
                                    const struct cx *x, const real *cols)
{
    int64_t H = p->H, W = p->W, F = p->F;
    memset(y, 0, (size_t)(H * F) * sizeof *y);
    for (int64_t h = 0; h < H; h++)
        for (int64_t u = 0; u < H; u++) {
            struct cx *restrict to = y + h * F, a = p->rows[u * H + h];
            const struct cx *restrict from = x + u * F;
            for (int64_t f = 0; f < F; f++) to[f] = plus(to[f], conj_mul(a, from[f]));
        }
    for (int64_t h = 0; h < H; h++)
        for (int64_t w = 0; w < W; w++) {
            const struct cx *from = y + h * F, *e = (const struct cx *)(cols + w * 2 * F);
            real sum[4] = {0};
            for (int64_t f = 0; f < F; f++) sum[f % 4] += inner(e[f], from[f]);
            out[(h * W + w) * stride] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
}

/* Spectra x [T,channels,HF] of tokens [T,HW,channels], and back. */
static void to_spectrum(struct pass *p, struct cx *x, const real *tokens, int64_t channels, const real *cols)
{
    PARALLEL_FOR(p->k, p->T * channels * p->HF * (p->W + p->H))
    for (int64_t i = 0; i < p->T * channels; i++)
        plane_to_spectrum(p, x + i * p->HF, p->between + i * p->HF,
                          tokens + i / channels * p->H * p->W * channels + i % channels, channels, cols);
}

static void from_spectrum(struct pass *p, real *tokens, const struct cx *x, int64_t channels,
                          const real *cols)
{
    PARALLEL_FOR(p->k, p->T * channels * p->HF * (p->W + p->H))
    for (int64_t i = 0; i < p->T * channels; i++)
        plane_from_spectrum(p, tokens + i / channels * p->H * p->W * channels + i % channels, channels,
                            p->between + i * p->HF, x + i * p->HF, cols);
}

/* Rotate q and k by position: of each head the pairs of the first half by the row, the others by the column;
 * back with sign -1. */
static void rotate(struct pass *p, real *qkv, real sign)
{
    int64_t pairs = p->d / 4;
    PARALLEL_FOR(p->k, p->tokens * 2 * p->r)
    for (int64_t row = 0; row < p->T * p->H; row++)
        for (int64_t w = 0; w < p->W; w++)
            for (int64_t i = 0; i < 2 * p->r / 2; i++) {
                real *v = qkv + (row * p->W + w) * 3 * p->r + 2 * i, a = v[0], b = v[1];
                int64_t pair = i % (2 * pairs);
                struct cx e =
                    pair < pairs ? p->angle[row % p->H * pairs + pair] : p->angle[w * pairs + pair - pairs];
                v[0] = a * e.re - b * (sign * e.im);
                v[1] = b * e.re + a * (sign * e.im);
            }
}

/* ---- normalisation ---------------------------------------------------------------------------------- */

static double squares(const struct cx *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i].re * x[i].re + (double)x[i].im * x[i].im;
    return s;
}

static double inner_sum(const struct cx *a, const struct cx *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)a[i].re * b[i].re + (double)a[i].im * b[i].im;
    return s;
}

/* Q and K of each channel to unit energy, then K over the channels of a head at each frequency. */
static void normalise(struct pass *p)
{
    int64_t HF = p->HF, d = p->d;
    PARALLEL_FOR(p->k, p->T * 2 * p->r * HF)
    for (int64_t i = 0; i < p->T * p->heads; i++) {
        int64_t t = i / p->heads, head = i % p->heads;
        for (int64_t which = 0; which < 2; which++)
            for (int64_t c = which * p->r + head * d; c < which * p->r + (head + 1) * d; c++) {
                struct cx *x = p->x + (t * 3 * p->r + c) * HF;
                double s = p->norm[t * 2 * p->r + c] = sqrt(squares(x, HF) + eps);
                for (int64_t j = 0; j < HF; j++) x[j] = scaled((real)(1 / s), x[j]);
            }
        struct cx *key = p->x + (t * 3 * p->r + p->r + head * d) * HF;
        for (int64_t j = 0; j < HF; j++) {
            double s = eps;
            for (int64_t c = 0; c < d; c++) s += squares(&key[c * HF + j], 1);
            s = p->norm_k[i * HF + j] = sqrt(s);
            for (int64_t c = 0; c < d; c++) key[c * HF + j] = scaled((real)(1 / s), key[c * HF + j]);
        }
    }
}

/* For y = x / s, s = √(Σ|x|² + eps): dx = (dy - y <dy, y>) / s, here with y = times x̂, in place. */
static void norm_back(struct cx *dx, const struct cx *y, double s, int64_t n)
{
    real along = (real)inner_sum(dx, y, n), scale = (real)(1 / s);
    for (int64_t i = 0; i < n; i++) dx[i] = scaled(scale, minus(dx[i], scaled(along, y[i])));
}

/* dx [T,3r,HF]: gradients of the normalised Q and K on entry, of the spectra on return. Writes over K. */
static void normalise_back(struct pass *p, struct cx *dx)
{
    int64_t HF = p->HF, d = p->d;
    PARALLEL_FOR(p->k, p->T * 2 * p->r * HF)
    for (int64_t i = 0; i < p->T * p->heads; i++) {
        int64_t t = i / p->heads, head = i % p->heads, q = t * 3 * p->r + head * d, key = q + p->r;
        for (int64_t j = 0; j < HF; j++) {
            double s = p->norm_k[i * HF + j], along = 0;
            for (int64_t c = 0; c < d; c++)
                along += inner_sum(&dx[(key + c) * HF + j], &p->x[(key + c) * HF + j], 1);
            for (int64_t c = 0; c < d; c++) {
                struct cx *g = &dx[(key + c) * HF + j], *y = &p->x[(key + c) * HF + j];
                *g = scaled((real)(1 / s), minus(*g, scaled((real)along, *y)));
                *y = scaled((real)s, *y); /* as it was before this norm */
            }
        }
        for (int64_t c = 0; c < d; c++) {
            norm_back(dx + (q + c) * HF, p->x + (q + c) * HF, p->norm[t * 2 * p->r + head * d + c], HF);
            norm_back(dx + (key + c) * HF, p->x + (key + c) * HF, p->norm[t * 2 * p->r + p->r + head * d + c],
                      HF);
        }
    }
}

/* ---- gates and kernel ------------------------------------------------------------------------------- */

static real sigmoid(real x)
{
    return (real)(1 / (1 + exp(-(double)x)));
}

/* c_t, and the sigmoids of the factored logits of alpha and beta. */
static void gates(struct pass *p)
{
    int64_t area = p->H * p->W;
    for (int64_t t = 0; t < p->T; t++)
        for (int64_t c = 0; c < p->r; c++) {
            double s = 0;
            for (int64_t i = 0; i < area; i++) s += p->z[(t * area + i) * p->r + c];
            p->mean[t * p->r + c] = (real)(s / (double)area);
        }
    for (int g = 0; g < 2; g++) {
        real *rows = p->logit_h + g * p->T * p->H, *cols = p->logit_w + g * p->T * p->F;
        project(p, rows, p->T, p->H, p->r, p->mean, g ? GDN_BETA_H : GDN_ALPHA_H);
        project(p, cols, p->T, p->F, p->r, p->mean, g ? GDN_BETA_W : GDN_ALPHA_W);
        for (int64_t i = 0; i < p->T * p->H; i++)
            for (int64_t f = 0; f < p->F; f++)
                p->sigmoid[(g * p->T * p->H + i) * p->F + f] = sigmoid(rows[i] + cols[i / p->H * p->F + f]);
    }
}

static inline real alpha_at(const struct pass *p, int64_t t, int64_t uf)
{
    return (real)0.1 + (real)0.89 * p->sigmoid[t * p->HF + uf];
}

static inline real beta_at(const struct pass *p, int64_t t, int64_t uf)
{
    return p->sigmoid[(p->T + t) * p->HF + uf];
}

static void bound_kernel(struct pass *p)
{
    const struct cx *kernel = p->w[GDN_KERNEL].data;
    for (int64_t i = 0; i < p->heads * p->HF; i++)
        p->phat[i] = scaled((real)(0.999 / (1 + sqrt(squares(&kernel[i], 1)))), kernel[i]);
}

/* dP = 0.999 (g / (1+m) - P <g, P> / (m (1+m)²)), m = |P|; the second term is 0 at P = 0 */
static void bound_kernel_back(struct pass *p, struct cx *dkernel, const struct cx *dphat)
{
    const struct cx *kernel = p->w[GDN_KERNEL].data;
    for (int64_t i = 0; i < p->heads * p->HF; i++) {
        double m = sqrt(squares(&kernel[i], 1)), along = inner_sum(&dphat[i], &kernel[i], 1);
        double inward = m > 0 ? along / (m * (1 + m) * (1 + m)) : 0;
        dkernel[i] = plus(dkernel[i], minus(scaled((real)(0.999 / (1 + m)), dphat[i]),
                                            scaled((real)(0.999 * inward), kernel[i])));
    }
}

/* ---- the delta rule over time ----------------------------------------------------------------------- */

/* The d channels of part `which` (0 q, 1 k, 2 v) of a head at time t and one frequency; HF apart. */
static inline struct cx *channels(const struct pass *p, struct cx *x, int64_t t, int64_t which, int64_t head,
                                  int64_t uf)
{
    return x + (t * 3 * p->r + which * p->r + head * p->d) * p->HF + uf;
}

static void gather(const struct pass *p, struct cx *to, const struct cx *from)
{
    for (int64_t i = 0; i < p->d; i++) to[i] = from[i * p->HF];
}

/* S_t = decay (S - beta (S K) Kᴴ) + beta V Kᴴ; next may be last */
HOT static void step(struct cx *next, const struct cx *last, const struct cx *key, const struct cx *v,
                     int64_t d, struct cx decay, real beta)
{
    for (int64_t i = 0; i < d; i++) {
        struct cx read = {0, 0};
        for (int64_t j = 0; j < d; j++) read = plus(read, mul(last[i * d + j], key[j]));
        struct cx erase = scaled(beta, read), write = scaled(beta, v[i]);
        for (int64_t j = 0; j < d; j++)
            next[i * d + j] =
                plus(mul(decay, minus(last[i * d + j], conj_mul(key[j], erase))), conj_mul(key[j], write));
    }
}

/* All time steps of one row of frequencies of a head. */
static void run_row(struct pass *p, int64_t head, int64_t u)
{
    int64_t d = p->d, dd = d * d;
    struct cx *work = p->work + (head * p->H + u) * (dd + 7 * d), *q = work + dd, *key = q + d, *v = key + d;
    for (int64_t uf = u * p->F; uf < (u + 1) * p->F; uf++) {
        struct cx *s = p->state ? p->state + (head * p->HF + uf) * (p->T + 1) * dd : work;
        memset(s, 0, (size_t)dd * sizeof *s);
        for (int64_t t = 0; t < p->T; t++) {
            struct cx *next = p->state ? s + dd : s;
            gather(p, q, channels(p, p->x, t, 0, head, uf));
            gather(p, key, channels(p, p->x, t, 1, head, uf));
            gather(p, v, channels(p, p->x, t, 2, head, uf));
            step(next, s, key, v, d, scaled(alpha_at(p, t, uf), p->phat[head * p->HF + uf]),
                 beta_at(p, t, uf));
            s = next;
            for (int64_t i = 0; i < d; i++) {
                struct cx o = {0, 0};
                for (int64_t j = 0; j < d; j++) o = plus(o, mul(s[i * d + j], q[j]));
                p->o[(t * p->r + head * d + i) * p->HF + uf] = o;
            }
        }
    }
}

struct row_grads {       /* where the backward pass of the delta rule leaves its results */
    struct cx *x, *phat; /* [T,3r,HF], [heads,HF] */
    real *alpha, *beta;  /* [heads,T,HF] */
};

/* With M = S - b (S K) Kᴴ and S' = a P M + b V Kᴴ, o = S' Q, from the last step to the first:
 *   dS' += do Qᴴ, dQ = S'ᴴ do, dV = b dS' K, dM = a conj(P) dS', da = <dS', P M>, dP += a Σ conj(M) dS',
 *   du = -b dM K, dS = dM + du Kᴴ, db = <dS', V Kᴴ> - <dM, u Kᴴ>,
 *   dK = b dS'ᴴ V - b dMᴴ u + Sᴴ du, u = S K. */
HOT static void step_back(struct cx *ds, struct cx *dk, struct cx *dv, struct cx *dphat, real *dalpha,
                          real *dbeta, const struct cx *last, const struct cx *key, const struct cx *v,
                          int64_t d, struct cx phat, real alpha, real beta)
{
    real da = 0, db = 0;
    struct cx dp = {0, 0}, decay = scaled(alpha, phat);
    for (int64_t j = 0; j < d; j++) dk[j] = (struct cx){0, 0};
    for (int64_t i = 0; i < d; i++) {
        struct cx u = {0, 0}, du = {0, 0}, written = {0, 0};
        for (int64_t j = 0; j < d; j++) {
            u = plus(u, mul(last[i * d + j], key[j]));
            written = plus(written, mul(ds[i * d + j], key[j]));
            du = plus(du, mul(conj_mul(decay, ds[i * d + j]), key[j]));
        }
        dv[i] = scaled(beta, written);
        db += inner(written, v[i]) - inner(du, u);
        du = scaled(-beta, du);
        for (int64_t j = 0; j < d; j++) {
            struct cx g = ds[i * d + j], dm = conj_mul(decay, g), s = last[i * d + j];
            struct cx m = minus(s, scaled(beta, conj_mul(key[j], u)));
            da += inner(g, mul(phat, m));
            dp = plus(dp, scaled(alpha, conj_mul(m, g)));
            dk[j] = plus(dk[j], scaled(beta, minus(conj_mul(g, v[i]), conj_mul(dm, u))));
            dk[j] = plus(dk[j], conj_mul(s, du));
            ds[i * d + j] = plus(dm, conj_mul(key[j], du));
        }
    }
    *dphat = plus(*dphat, dp);
    *dalpha = da;
    *dbeta = db;
}

static void run_row_back(struct pass *p, const struct row_grads *g, const struct cx *dout, int64_t head,
                         int64_t u)
{
    int64_t d = p->d, dd = d * d;
    struct cx *work = p->work + (head * p->H + u) * (dd + 7 * d), *ds = work, *q = work + dd, *key = q + d,
              *v = key + d;
    struct cx *dq = v + d, *dk = dq + d, *dv = dk + d, *go = dv + d;
    for (int64_t uf = u * p->F; uf < (u + 1) * p->F; uf++) {
        const struct cx *states = p->state + (head * p->HF + uf) * (p->T + 1) * dd;
        memset(ds, 0, (size_t)dd * sizeof *ds);
        struct cx *dphat = &g->phat[head * p->HF + uf];
        *dphat = (struct cx){0, 0};
        for (int64_t t = p->T - 1; t >= 0; t--) {
            const struct cx *last = states + t * dd, *now = last + dd;
            int64_t at = (head * p->T + t) * p->HF + uf;
            gather(p, q, channels(p, p->x, t, 0, head, uf));
            gather(p, key, channels(p, p->x, t, 1, head, uf));
            gather(p, v, channels(p, p->x, t, 2, head, uf));
            gather(p, go, dout + (t * p->r + head * d) * p->HF + uf);
            for (int64_t j = 0; j < d; j++) {
                dq[j] = (struct cx){0, 0};
                for (int64_t i = 0; i < d; i++) dq[j] = plus(dq[j], conj_mul(now[i * d + j], go[i]));
            }
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = 0; j < d; j++) ds[i * d + j] = plus(ds[i * d + j], conj_mul(q[j], go[i]));
            step_back(ds, dk, dv, dphat, &g->alpha[at], &g->beta[at], last, key, v, d,
                      p->phat[head * p->HF + uf], alpha_at(p, t, uf), beta_at(p, t, uf));
            for (int64_t j = 0; j < d; j++) {
                channels(p, g->x, t, 0, head, uf)[j * p->HF] = dq[j];
                channels(p, g->x, t, 1, head, uf)[j * p->HF] = dk[j];
                channels(p, g->x, t, 2, head, uf)[j * p->HF] = dv[j];
            }
        }
    }
}

/* ---- norm and output gate --------------------------------------------------------------------------- */

static double inverse_rms(const real *x, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    return 1 / sqrt(s / (double)n + eps);
}

/* o = raw / rms(raw) w ⊙ silu(gate) */
static void finish(struct pass *p, real *o)
{
    const real *w = reals(&p->w[GDN_NORM]);
    PARALLEL_FOR(p->k, p->tokens * p->r * 4)
    for (int64_t row = 0; row < p->T * p->H; row++)
        for (int64_t i = row * p->W; i < (row + 1) * p->W; i++) {
            real s = (real)inverse_rms(p->raw + i * p->r, p->r);
            for (int64_t c = 0; c < p->r; c++) {
                real g = p->gate[i * p->r + c];
                o[i * p->r + c] = p->raw[i * p->r + c] * s * w[c] * (g * sigmoid(g));
            }
        }
}

/* In place: gate -> its gradient, raw -> its gradient. sums [T,r]: of each frame, the gradient of w. */
static void finish_back(struct pass *p, double *sums, const real *dout)
{
    const real *w = reals(&p->w[GDN_NORM]);
    memset(sums, 0, (size_t)(p->T * p->r) * sizeof *sums);
    PARALLEL_FOR(p->k, p->tokens * p->r * 4)
    for (int64_t t = 0; t < p->T; t++)
        for (int64_t i = t * p->H * p->W; i < (t + 1) * p->H * p->W; i++) {
            real *raw = p->raw + i * p->r, *gate = p->gate + i * p->r;
            const real *dy = dout + i * p->r;
            double s = inverse_rms(raw, p->r), along = 0;
            for (int64_t c = 0; c < p->r; c++) {
                double sig = sigmoid(gate[c]), silu = gate[c] * sig, unit = raw[c] * s;
                along += dy[c] * silu * w[c] * unit;
                sums[t * p->r + c] += dy[c] * silu * unit;
            }
            for (int64_t c = 0; c < p->r; c++) {
                double sig = sigmoid(gate[c]), silu = gate[c] * sig, unit = raw[c] * s;
                raw[c] = (real)(s * (dy[c] * silu * w[c] - unit * along / (double)p->r));
                gate[c] = (real)(dy[c] * unit * w[c] * (sig + silu * (1 - sig)));
            }
        }
}

/* ---- the whole -------------------------------------------------------------------------------------- */

/* Everything up to the norm. */
static void run_forward(struct pass *p)
{
    project(p, p->qkv, p->tokens, 3 * p->r, p->r, p->z, GDN_QKV);
    project(p, p->gate, p->tokens, p->r, p->r, p->z, GDN_GATE);
    if (p->rope) rotate(p, p->qkv, 1);
    gates(p);
    bound_kernel(p);
    to_spectrum(p, p->x, p->qkv, 3 * p->r, p->cols);
    normalise(p);
    PARALLEL_FOR(p->k, p->T * p->r * p->HF * p->d)
    for (int64_t i = 0; i < p->heads * p->H; i++) run_row(p, i / p->H, i % p->H);
    from_spectrum(p, p->raw, p->o, p->r, p->cols_inverse);
}

FORWARD(struct kern *k, struct tensor *o, const struct tensor *z, const struct tensor *w, int modules,
        int64_t head_dim, bool rope)
{
    struct pass p;
    size_t mark = kern_mark(k);
    for (int m = 0; m < modules && prepare(&p, k, &z[m], w + m * GDN_PARAMS, head_dim, rope, false); m++) {
        run_forward(&p);
        finish(&p, reals(&o[m]));
        kern_release(k, mark);
    }
}

/* to [cols] += the sums of m's columns; `sums` is scratch for them */
static void add_columns(real *to, const real *m, int64_t rows, int64_t cols, double *sums)
{
    memset(sums, 0, (size_t)cols * sizeof *sums);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c++) sums[c] += m[i * cols + c];
    for (int64_t c = 0; c < cols; c++) to[c] += (real)sums[c];
}

/* The backward pass of project(): dx (+)= dy w, and adds into the gradients of w and b. */
static void project_back(struct pass *p, real *dx, bool add, struct tensor *dw, const real *dy, int64_t n,
                         int64_t out, int64_t in, const real *x, enum gdn_cssm_param w, double *sums)
{
    product(p, reals(&dw[w]), out, in, n, dy, true, x, false, 1);
    add_columns(reals(&dw[w + 1]), dy, n, out, sums);
    product(p, dx, n, in, out, dy, false, reals(&p->w[w]), false, add);
}

/* From the heads' gradients of alpha and beta [heads,T,HF] to those of the projections, and of the mean.
 * Writes over the logits. */
static void gates_back(struct pass *p, struct tensor *dw, real *dmean, const struct row_grads *g,
                       double *sums)
{
    for (int gate = 0; gate < 2; gate++) {
        const real *from = gate ? g->beta : g->alpha;
        real *rows = p->logit_h + gate * p->T * p->H, *cols = p->logit_w + gate * p->T * p->F;
        memset(rows, 0, (size_t)(p->T * p->H) * sizeof *rows);
        memset(cols, 0, (size_t)(p->T * p->F) * sizeof *cols);
        for (int64_t i = 0; i < p->T * p->HF; i++) {
            real s = p->sigmoid[gate * p->T * p->HF + i], d = 0;
            for (int64_t head = 0; head < p->heads; head++) d += from[head * p->T * p->HF + i];
            d *= (gate ? (real)1 : (real)0.89) * s * (1 - s);
            rows[i / p->F] += d;
            cols[i / p->HF * p->F + i % p->F] += d;
        }
        project_back(p, dmean, gate, dw, rows, p->T, p->H, p->r, p->mean, gate ? GDN_BETA_H : GDN_ALPHA_H,
                     sums);
        project_back(p, dmean, true, dw, cols, p->T, p->F, p->r, p->mean, gate ? GDN_BETA_W : GDN_ALPHA_W,
                     sums);
    }
}

/* false while planning, or when there is no room */
static bool backward(struct kern *k, struct tensor *dz, struct tensor *dw, const struct tensor *dout,
                     const struct tensor *z, const struct tensor *w, int64_t head_dim, bool rope)
{
    struct pass p;
    bool ready = prepare(&p, k, z, w, head_dim, rope, true);
    struct row_grads g = {.x = take_complex(&p, p.T * 3 * p.r * p.HF),
                          .phat = take_complex(&p, p.heads * p.HF),
                          .alpha = take(&p, p.heads * p.T * p.HF),
                          .beta = take(&p, p.heads * p.T * p.HF)};
    real *dmean = take(&p, p.T * p.r);
    double *norms = cpu_scratch(k, DT_F64, p.T * p.r);
    double *sums = cpu_scratch(k, DT_F64, 3 * p.r + p.H + p.F); /* as many columns as any matrix here has */
    if (!ready || !sums) return false;

    run_forward(&p);
    finish_back(&p, norms, reals(dout));
    for (int64_t i = 0; i < p.T * p.r; i++) reals(&dw[GDN_NORM])[i % p.r] += (real)norms[i];

    to_spectrum(&p, p.o, p.raw, p.r, p.cols_inverse); /* the adjoint of the inverse; o is done with */
    PARALLEL_FOR(k, p.T * p.r * p.HF * p.d)
    for (int64_t i = 0; i < p.heads * p.H; i++) run_row_back(&p, &g, p.o, i / p.H, i % p.H);
    bound_kernel_back(&p, dw[GDN_KERNEL].data, g.phat);
    gates_back(&p, dw, dmean, &g, sums);
    normalise_back(&p, g.x);
    from_spectrum(&p, p.qkv, g.x, 3 * p.r, p.cols);
    if (rope) rotate(&p, p.qkv, -1);

    project_back(&p, reals(dz), false, dw, p.qkv, p.tokens, 3 * p.r, p.r, p.z, GDN_QKV, sums);
    project_back(&p, reals(dz), true, dw, p.gate, p.tokens, p.r, p.r, p.z, GDN_GATE, sums);
    for (int64_t i = 0; i < p.tokens; i++)
        for (int64_t c = 0; c < p.r; c++)
            reals(dz)[i * p.r + c] += dmean[i / (p.H * p.W) * p.r + c] / (real)(p.H * p.W);
    return true;
}

BACKWARD(struct kern *k, struct tensor *dz, struct tensor *dw, const struct tensor *dout,
         const struct tensor *z, const struct tensor *w, int modules, int64_t head_dim, bool rope)
{
    size_t mark = kern_mark(k);
    for (int m = 0; m < modules && backward(k, &dz[m], dw + m * GDN_PARAMS, &dout[m], &z[m],
                                            w + m * GDN_PARAMS, head_dim, rope);
         m++)
        kern_release(k, mark);
}
