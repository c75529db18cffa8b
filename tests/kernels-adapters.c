/* The adapters' operations: the double build against formulas written a second time, with complex numbers and
 * sums as they stand in the books, and against finite differences; the float build against the double one. */
#include "tests/kernels.h"

#include <complex.h>

typedef double complex cplx;

/* ---- the spectral adapter, plainly --------------------------------------------------------------------- */

struct shape {
    int T, H, W, r, d, rope;
};

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

/* out [rows,n] = x [rows,m] wᵀ + b */
static double *affine(const double *x, int rows, int m, const double *w, const double *b, int n)
{
    double *out = wide_array((int64_t)rows * n);
    for (int i = 0; i < rows; i++)
        for (int o = 0; o < n; o++) {
            out[i * n + o] = b[o];
            for (int j = 0; j < m; j++) out[i * n + o] += w[o * m + j] * x[i * m + j];
        }
    return out;
}

static cplx *complex_array(int64_t n)
{
    return (cplx *)wide_array(2 * n);
}

/* X[u,f] = Σ x[h,w] e^(-2πi (u h / H + f w / W)), f <= W/2 */
static void rfft2(cplx *X, const double *x, int H, int W)
{
    int F = W / 2 + 1;
    cplx half[H][F];
    for (int h = 0; h < H; h++)
        for (int f = 0; f < F; f++) {
            half[h][f] = 0;
            for (int w = 0; w < W; w++) half[h][f] += x[h * W + w] * cexp(-2 * M_PI * I * f * w / W);
        }
    for (int u = 0; u < H; u++)
        for (int f = 0; f < F; f++) {
            X[u * F + f] = 0;
            for (int h = 0; h < H; h++) X[u * F + f] += half[h][f] * cexp(-2 * M_PI * I * u * h / H);
        }
}

/* As NumPy does it: a complex inverse over h, then a real one over w. */
static void irfft2(double *x, const cplx *X, int H, int W)
{
    int F = W / 2 + 1;
    for (int h = 0; h < H; h++) {
        cplx row[F];
        for (int f = 0; f < F; f++) {
            row[f] = 0;
            for (int u = 0; u < H; u++) row[f] += X[u * F + f] * cexp(2 * M_PI * I * u * h / H) / H;
        }
        for (int w = 0; w < W; w++) {
            double s = creal(row[0]);
            for (int f = 1; f < F; f++)
                s += 2 * f == W ? creal(row[f]) * (w % 2 ? -1 : 1)
                                : 2 * creal(row[f] * cexp(2 * M_PI * I * f * w / W));
            x[h * W + w] = s / W;
        }
    }
}

static double largest_state;

/* o [T,H,W,r] from in[0] = z and in[1..GDN_PARAMS] = the weights */
static void plain_gdn(double *o, double *const *in, const void *shape)
{
    const struct shape *s = shape;
    int T = s->T, H = s->H, W = s->W, r = s->r, d = s->d, n = r / d, area = H * W, F = W / 2 + 1, HF = H * F;
    const double *z = in[0];
    double *const *w = in + 1;
    int kept = wide_count;
    double *qkv = affine(z, T * area, r, w[GDN_QKV], w[GDN_QKV_BIAS], 3 * r);
    double *gate = affine(z, T * area, r, w[GDN_GATE], w[GDN_GATE_BIAS], r), *plane = wide_array(area);
    cplx *X = complex_array((int64_t)3 * r * HF), *S = complex_array((int64_t)n * HF * d * d),
         *O = complex_array((int64_t)r * HF);
    largest_state = 0;
    for (int t = 0; t < T; t++) {
        double c[r];
        for (int i = 0; i < r; i++) {
            c[i] = 0;
            for (int at = 0; at < area; at++) c[i] += z[(t * area + at) * r + i] / area;
        }
        double *ah = affine(c, 1, r, w[GDN_ALPHA_H], w[GDN_ALPHA_H_BIAS], H),
               *aw = affine(c, 1, r, w[GDN_ALPHA_W], w[GDN_ALPHA_W_BIAS], F);
        double *bh = affine(c, 1, r, w[GDN_BETA_H], w[GDN_BETA_H_BIAS], H),
               *bw = affine(c, 1, r, w[GDN_BETA_W], w[GDN_BETA_W_BIAS], F);
        for (int j = 0; j < 3 * r; j++) {
            for (int at = 0; at < area; at++) {
                const double *v = qkv + (t * area + at) * 3 * r;
                plane[at] = v[j];
                if (!s->rope || j >= 2 * r) continue;
                int pair = j % d / 2, of_axis = pair % (d / 4), position = pair < d / 4 ? at / W : at % W;
                double angle = position * pow(10000, -2.0 * of_axis / (d / 2.0));
                plane[at] = j % 2 ? v[j - 1] * sin(angle) + v[j] * cos(angle)
                                  : v[j] * cos(angle) - v[j + 1] * sin(angle);
            }
            rfft2(X + j * HF, plane, H, W);
            double energy = 1e-6;
            for (int i = 0; i < HF; i++) energy += creal(X[j * HF + i] * conj(X[j * HF + i]));
            for (int i = 0; i < HF && j < 2 * r; i++) X[j * HF + i] /= sqrt(energy);
        }
        for (int head = 0; head < n; head++)
            for (int i = 0; i < HF; i++) {
                cplx Q[d], K[d], V[d], SK[d], *M = S + (head * HF + i) * d * d;
                double energy = 1e-6, alpha = 0.1 + 0.89 * logistic(ah[i / F] + aw[i % F]),
                       beta = logistic(bh[i / F] + bw[i % F]);
                const double *p = w[GDN_KERNEL] + (head * HF + i) * 2;
                cplx P = p[0] + p[1] * I, bounded = 0.999 * P / (1 + cabs(P));
                for (int a = 0; a < d; a++) {
                    Q[a] = X[(head * d + a) * HF + i], K[a] = X[(r + head * d + a) * HF + i],
                    V[a] = X[(2 * r + head * d + a) * HF + i];
                    energy += creal(K[a] * conj(K[a]));
                }
                for (int a = 0; a < d; a++) K[a] /= sqrt(energy);
                for (int a = 0; a < d; a++) {
                    SK[a] = 0;
                    for (int b = 0; b < d; b++) SK[a] += M[a * d + b] * K[b];
                }
                for (int a = 0; a < d; a++) {
                    cplx *out = &O[(head * d + a) * HF + i];
                    *out = 0;
                    for (int b = 0; b < d; b++) {
                        M[a * d + b] = alpha * bounded * (M[a * d + b] - beta * SK[a] * conj(K[b])) +
                                       beta * V[a] * conj(K[b]);
                        *out += M[a * d + b] * Q[b];
                        largest_state = fmax(largest_state, cabs(M[a * d + b]));
                    }
                }
            }
        double *raw = wide_array((int64_t)r * area);
        for (int j = 0; j < r; j++) irfft2(raw + j * area, O + j * HF, H, W);
        for (int at = 0; at < area; at++) {
            double square = 0;
            for (int j = 0; j < r; j++) square += raw[j * area + at] * raw[j * area + at] / r;
            for (int j = 0; j < r; j++) {
                double g = gate[(t * area + at) * r + j];
                o[(t * area + at) * r + j] =
                    raw[j * area + at] / sqrt(square + 1e-6) * w[GDN_NORM][j] * g * logistic(g);
            }
        }
        while (wide_count > kept + 6) free(wide_arrays[--wide_count]);
    }
    while (wide_count > kept) free(wide_arrays[--wide_count]);
}

/* ---- the operations as functions of a list of arrays of doubles
 * --------------------------------------------- */

enum { MAX_INPUTS = 1 + GDN_PARAMS };

/* An operation: its input z and its weights as F64 tensors, whatever they mean. */
struct operation {
    struct shape s;
    bool spectral;
    int inputs; /* z, then the weights */
    struct tensor in[MAX_INPUTS], grad[MAX_INPUTS], out, slope;
    double *array[MAX_INPUTS];
};

static void plain_attention(double *y, double *const *in, const void *shape)
{
    const struct shape *s = shape;
    int T = s->T, area = s->H * s->W, r = s->r, d = s->d;
    double p[T][r], q[T][r], k[T][r], v[T][r];
    for (int t = 0; t < T; t++)
        for (int c = 0; c < r; c++) {
            p[t][c] = 0;
            for (int i = 0; i < area; i++) p[t][c] += in[0][(t * area + i) * r + c] / area;
        }
    for (int t = 0; t < T; t++)
        for (int c = 0; c < r; c++) {
            q[t][c] = k[t][c] = v[t][c] = 0;
            for (int j = 0; j < r; j++) {
                q[t][c] += in[1][c * r + j] * p[t][j];
                k[t][c] += in[2][c * r + j] * p[t][j];
                v[t][c] += in[3][c * r + j] * p[t][j];
            }
        }
    for (int t = 0; t < T; t++)
        for (int c = 0; c < r; c++) {
            double over = 0, a = 0;
            for (int other = 0; other < T; other++) {
                double score = 0;
                for (int j = c / d * d; j < (c / d + 1) * d; j++) score += q[t][j] * k[other][j] / sqrt(d);
                over += exp(score);
                a += exp(score) * v[other][c];
            }
            for (int i = 0; i < area; i++)
                y[(t * area + i) * r + c] = in[0][(t * area + i) * r + c] + a / over;
        }
}

static void forward(struct kern *k, struct operation *o)
{
    struct tensor y = o->out, z = o->in[0];
    const struct shape *s = &o->s;
    if (o->spectral)
        gdn_cssm_forward(k, &y, &z, o->in + 1, 1, s->d, s->rope);
    else
        y = tensor_as(&y, 3, s->T, s->H * s->W, s->r), z = tensor_as(&z, 3, s->T, s->H * s->W, s->r),
        temporal_attention_forward(k, &y, &z, o->in + 1, s->r / s->d);
}

static void backward(struct kern *k, struct operation *o)
{
    struct tensor dz = o->grad[0], dy = o->slope, z = o->in[0];
    const struct shape *s = &o->s;
    if (o->spectral)
        gdn_cssm_backward(k, &dz, o->grad + 1, &dy, &z, o->in + 1, 1, s->d, s->rope);
    else
        dz = tensor_as(&dz, 3, s->T, s->H * s->W, s->r), dy = tensor_as(&dy, 3, s->T, s->H * s->W, s->r),
        z = tensor_as(&z, 3, s->T, s->H * s->W, s->r),
        temporal_attention_backward(k, &dz, o->grad + 1, &dy, &z, o->in + 1, s->r / s->d);
}

/* Everything drawn: also gates and biases, and a kernel without symmetry. Doubles everywhere, or activations
 * of the compute dtype and weights in F32. */
static void make_another(struct operation *o, bool doubles, bool spectral, struct shape s)
{
    const enum dtype active = doubles ? DT_F64 : X, weight = doubles ? DT_F64 : DT_F32;
    int64_t r = s.r, F = s.W / 2 + 1;
    const int64_t shapes[MAX_INPUTS][6] = {{4, s.T, s.H, s.W, r},
                                           {2, 3 * r, r},
                                           {1, 3 * r},
                                           {2, r, r},
                                           {1, r},
                                           {2, s.H, r},
                                           {1, s.H},
                                           {2, F, r},
                                           {1, F},
                                           {2, s.H, r},
                                           {1, s.H},
                                           {2, F, r},
                                           {1, F},
                                           {1, r},
                                           {4, r / s.d, s.H, F, 2}};
    *o = (struct operation){.s = s, .spectral = spectral, .inputs = spectral ? MAX_INPUTS : 4};
    for (int i = 0; i < o->inputs; i++) {
        o->in[i] = given_shape(i ? weight : active, i && !spectral ? (const int64_t[]){2, r, r} : shapes[i]);
        o->array[i] = o->in[i].data;
    }
    /* One token's spectrum at unit energy is nothing but signs: smaller numbers, where the eps counts, are no
     * cliff. */
    for (int i = 1 + GDN_QKV; spectral && s.H * s.W == 1 && i <= 1 + GDN_QKV_BIAS; i++)
        for (int64_t j = 0; j < tensor_count(&o->in[i]); j++)
            set(&o->in[i], j, 1e-3 * tensor_get(&o->in[i], j));
    o->slope = given_shape(active, shapes[0]);
    o->out = result_shape(active, shapes[0]);
    for (int i = 0; i < o->inputs; i++) {
        o->grad[i] =
            buffer_shape(i ? weight : active, i && !spectral ? (const int64_t[]){2, r, r} : shapes[i]);
        memset(o->grad[i].data, 0, tensor_bytes(&o->grad[i]));
        updated(&o->grad[i]);
    }
}

static void make(struct operation *o, bool doubles, bool spectral, struct shape s)
{
    fresh();
    make_another(o, doubles, spectral, s);
}

static const char *describe(char *text, size_t size, const struct operation *o)
{
    const struct shape *s = &o->s;
    snprintf(text, size, "%s T=%d %dx%d r=%d d=%d%s", o->spectral ? "gdn_cssm" : "temporal_attention", s->T,
             s->H, s->W, s->r, s->d, s->rope ? " rope" : "");
    return text;
}

/* The change of Σ slope out per step along a direction, by central differences of fourth order. Differences
 * come before the sum, which would drown them in its own rounding. */
static double slope_along(struct operation *o, int which, const double *at, const double *direction, double h)
{
    static const double side[] = {1, -1, 2, -2}, factor[] = {8, -8, -1, 1};
    int64_t n = tensor_count(&o->out), moved = tensor_count(&o->in[which]);
    double *difference = calloc((size_t)n, sizeof *difference), sum = 0;
    for (int i = 0; i < 4; i++) {
        for (int64_t j = 0; j < moved; j++) o->array[which][j] = at[j] + side[i] * h * direction[j];
        forward(kerns[0], o);
        for (int64_t j = 0; j < n; j++) difference[j] += factor[i] * ((double *)o->out.data)[j];
    }
    for (int64_t j = 0; j < moved; j++) o->array[which][j] = at[j];
    for (int64_t j = 0; j < n; j++) sum += difference[j] * ((double *)o->slope.data)[j];
    free(difference);
    return sum / (12 * h);
}

/* The gradients that backward left against central differences along random directions; errors are
 * relative to the length of the gradient, which is what a random direction sees of it. */
static void check_directions(struct operation *o, int directions, const char *name)
{
    const double h = 2e-5;
    double worst = 0;
    for (int which = 0; which < o->inputs; which++) {
        int64_t n = tensor_count(&o->in[which]);
        double *at = wide(&o->in[which]), *v = wide_array(n), length = 0, size = 0;
        const double *g = o->grad[which].data;
        for (int64_t i = 0; i < n; i++) length += g[i] * g[i], size = fmax(size, fabs(at[i]));
        for (int trial = 0; trial < directions; trial++) {
            double along = 0;
            for (int64_t i = 0; i < n; i++) along += g[i] * (v[i] = random_unit() * sqrt(3) * size);
            double error = fabs(slope_along(o, which, at, v, h) - along) / (sqrt(length) * size + 1e-9);
            worst = error > worst || error != error ? error : worst;
        }
        free(wide_arrays[--wide_count]), free(wide_arrays[--wide_count]);
    }
    ok(worst <= 1e-6, "%s: differs from finite differences along %d directions of each input by %.1g", name,
       directions, worst);
}

static void test_double(bool spectral, struct shape s, int directions)
{
    struct operation o;
    char name[96];
    make(&o, true, spectral, s);
    describe(name, sizeof name, &o);
    double *expected = wide_array(tensor_count(&o.out));
    (spectral ? plain_gdn : plain_attention)(expected, o.array, &s);
    RUN(name, forward(k, &o); backward(k, &o));
    near(&o.out, expected, 1e-9, name);
    check_directions(&o, directions, name);
}

/* The float build, and any other device's, may differ from the CPU's double one by rounding only. */
static void test_float(bool spectral, struct shape s)
{
    struct operation o;
    char name[96], what[128];
    double *in[MAX_INPUTS + 1], *grad[MAX_INPUTS], *out, *before[MAX_INPUTS];
    make(&o, false, spectral, s);
    describe(name, sizeof name, &o);
    RUN(name, forward(k, &o); backward(k, &o));
    for (int i = 0; i < o.inputs; i++)
        in[i] = wide(&o.in[i]), grad[i] = wide_array(tensor_count(&o.in[i])), before[i] = grad[i];
    in[o.inputs] = wide(&o.slope);
    out = wide_array(tensor_count(&o.out));
    struct operation w = o; /* the same numbers in double */
    for (int i = 0; i < o.inputs; i++) {
        w.in[i].dtype = w.grad[i].dtype = DT_F64;
        w.in[i].data = in[i], w.grad[i].data = before[i];
    }
    w.slope.dtype = w.out.dtype = DT_F64;
    w.slope.data = in[o.inputs], w.out.data = out;
    kern_plan_begin(host);
    backward(host, &w);
    kern_reserve(host, kern_plan_end(host));
    forward(host, &w);
    backward(host, &w);
    if (!kern_ok(host)) bail(kern_error(host));
    snprintf(what, sizeof what, "%s in float", name);
    near(&o.out, out, 5e-5, what);
    double size = 0;
    for (int i = 0; i < o.inputs; i++) {
        /* Sums of the same terms, one of which may be the small rest of large ones, have one scale. */
        int p = i - 1;
        if (!spectral || p == GDN_QKV || p == GDN_GATE || p == GDN_ALPHA_H || p == GDN_BETA_H ||
            p >= GDN_NORM)
            size = 0;
        for (int64_t j = 0; j < tensor_count(&o.grad[i]); j++) size = fmax(size, fabs(grad[i][j]));
        snprintf(what, sizeof what, "%s in float, gradient %d", name, i);
        near_size(&o.grad[i], grad[i], size, 1e-4,
                  what); /* frequency 0 is nearly all that the norm removes */
    }
}

enum { MODULES = 5 };

struct modules {
    struct operation each[MODULES];
    struct tensor out[MODULES], z[MODULES], dz[MODULES], slope[MODULES];
    struct tensor w[MODULES * GDN_PARAMS], dw[MODULES * GDN_PARAMS];
};

static void run_modules(struct kern *k, struct modules *a, bool together)
{
    const struct shape *s = &a->each[0].s;
    if (together) {
        gdn_cssm_forward(k, a->out, a->z, a->w, MODULES, s->d, s->rope);
        gdn_cssm_backward(k, a->dz, a->dw, a->slope, a->z, a->w, MODULES, s->d, s->rope);
    }
    for (int m = 0; m < MODULES && !together; m++) {
        forward(k, &a->each[m]);
        backward(k, &a->each[m]);
    }
}

/* RUN compares its two runs: modules that go together get the bits that each gets alone. */
static void test_modules(struct shape s)
{
    struct modules a;
    fresh();
    for (int m = 0; m < MODULES; m++) {
        struct operation *o = &a.each[m];
        make_another(o, false, true, s);
        a.out[m] = o->out, a.z[m] = o->in[0], a.dz[m] = o->grad[0], a.slope[m] = o->slope;
        memcpy(a.w + m * GDN_PARAMS, o->in + 1, GDN_PARAMS * sizeof *a.w);
        memcpy(a.dw + m * GDN_PARAMS, o->grad + 1, GDN_PARAMS * sizeof *a.dw);
    }
    RUN("gdn_cssm, five modules together and one by one", run_modules(k, &a, run_ == 0));
}

/* On a GPU small grids have products of their own, others cuFFT; it must be able to do theirs as well. */
static void test_fft(const int grids[][2], int count)
{
    bool (*only)(struct kern *, bool);
    *(void **)&only = cuda_symbol("cuda_test_fft");
    if (!only || !only(kerns[0], true) || !only(kerns[1], true)) bail("the backend has no cuFFT");
    printf("# with cuFFT:\n");
    for (int g = 0; g < count; g++) test_float(true, (struct shape){2, grids[g][0], grids[g][1], 8, 4, 1});
    only(kerns[0], false);
    only(kerns[1], false);
}

/* 512 steps: |S| cannot grow past what the writes of about 1 / (1 - 0.99) steps put there. */
static void test_long(void)
{
    struct operation o;
    struct shape s = {512, 3, 4, 4, 4, 0};
    make(&o, true, true, s);
    for (int64_t i = 0; i < tensor_count(&o.in[1 + GDN_KERNEL]); i++)
        o.array[1 + GDN_KERNEL][i] *= 1e6; /* as near 1 as |Phat| comes */
    double *expected = wide_array(tensor_count(&o.out));
    plain_gdn(expected, o.array, &s);
    RUN("512 steps with |Phat| near 0.999", forward(k, &o); backward(k, &o));
    near(&o.out, expected, 1e-9, "512 steps");
    ok(largest_state < 100 * 4 * s.H * s.W, "the state stays bounded: %.3g", largest_state);
    bool finite = true;
    for (int i = 0; i < o.inputs; i++)
        for (int64_t j = 0; j < tensor_count(&o.grad[i]); j++)
            finite = finite && isfinite(((double *)o.grad[i].data)[j]);
    ok(finite, "and so do all gradients");
}

/* P = 0: the kernel's gradient there is 0.999 of that of Phat, and |P| adds nothing. */
static void test_zero_kernel(void)
{
    struct operation o;
    make(&o, true, true, (struct shape){3, 4, 5, 4, 4, 0});
    memset(o.in[1 + GDN_KERNEL].data, 0, tensor_bytes(&o.in[1 + GDN_KERNEL]));
    RUN("a kernel of zeros", forward(k, &o); backward(k, &o));
    double at[2 * 4 * 3], v[2 * 4 * 3], along = 0, h = 1e-6;
    const double *g = o.grad[1 + GDN_KERNEL].data;
    for (int i = 0; i < 2 * 4 * 3; i++) at[i] = 0, along += g[i] * (v[i] = random_unit());
    double slope = slope_along(&o, 1 + GDN_KERNEL, at, v, h);
    ok(along != 0 && fabs(slope - along) <= 1e-5 * fabs(along),
       "the gradient at |P| = 0: %.6g, by differences %.6g", along, slope);
}

int main(void)
{
    static const int grids[][2] = {{1, 1}, {7, 9}, {8, 12}, {30, 45}, {1, 6}, {5, 1}, {2, 2}},
                     steps[] = {1, 2, 13};
    static const struct shape heads[] = {
        {0, 0, 0, 8, 4, 0}, {0, 0, 0, 8, 8, 1}, {0, 0, 0, 6, 3, 0}, {0, 0, 0, 8, 4, 1}, {0, 0, 0, 5, 1, 0}};
    while (next_mode()) {
        for (int g = 0; g < 7; g++)
            for (int t = 0; t < 3; t++)
                for (int i = 0; i < 5; i++) {
                    bool large = grids[g][0] == 30;
                    if (large ? i != (t + 3) % 5 && i != 0 : g > 3 && t != 1) continue;
                    struct shape s = {steps[t],
                                      grids[g][0],
                                      grids[g][1],
                                      large ? 4 : heads[i].r,
                                      large ? 4 : heads[i].d,
                                      heads[i].rope};
                    if (mode == modes) test_double(true, s, 8);
                    test_float(true, s);
                }
        test_float(true, (struct shape){13, 30, 45, 16, 4, 1}); /* the full size */
        for (int g = 0; g < 4; g++)
            for (int t = 0; t < 3; t++) {
                struct shape s = {steps[t], grids[g][0], grids[g][1], 16, 8, 0};
                if (mode == modes) test_double(false, s, 8);
                test_float(false, s);
            }
        test_modules((struct shape){3, 7, 9, 8, 4, 1});
        test_float(true, (struct shape){2, 3, 700, 4, 4, 0});
        test_float(true, (struct shape){2, 700, 3, 4, 4, 0});
        if (mode != modes) test_fft(grids, 7);
        if (mode != modes) continue; /* doubles are for the CPU */
        test_double(false, (struct shape){4, 3, 2, 6, 3, 0}, 8);
        test_long();
        test_zero_kernel();
    }
    return done();
}
