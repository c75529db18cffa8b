/* gdn_cssm - a LoRA with a gated delta rule over time between its projections, in the 2-D spectral domain of
 * each frame: on video tokens D(x) = U o, o = gdn_cssm_forward(V x) in kernels.h; on text tokens D = 0.
 *
 * Settings: k, the size of the spatial kernel whose spectrum the learned kernel starts as (1); rope, rotate
 * by position (0); dk, channels of a head (4). The kernel lies on the spectral grid, so an adapter belongs to
 * one size of frame, and k changes no count of parameters.
 *
 *   lora_A.weight V [r,in], lora_B.weight U [out,r]
 *   qkv.weight [3r,r], qkv.bias, gate.weight [r,r], gate.bias
 *   alpha_h.weight [H,r], alpha_h.bias, alpha_w.weight [F,r], alpha_w.bias, and beta_h, beta_w; F = W/2 + 1
 *   norm.weight [r], kernel [r/dk,H,F,2]: real and imaginary part */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/learning/adapter.h"
#include "formats/error.h"

enum { V, U, OWN, PARAMS = OWN + GDN_PARAMS };

enum { K, ROPE, DK };
static const struct adapter_setting settings[] = {
    [K] = {"k", 1, 65535, 1}, [ROPE] = {"rope", 0, 1, 0}, [DK] = {"dk", 1, 65535, 4}, {0}};

static int declare(struct adapter *a, struct adapter_layout *l, char *err, size_t errlen)
{
    int64_t r = a->rank, H = a->base.rows, W = a->base.cols, F = W / 2 + 1;
    int64_t k = a->set[K], dk = a->set[DK];
    if (r % dk)
        return fail(err, errlen, "adapter gdn_cssm: dk=%lld does not divide rank %lld", (long long)dk,
                    (long long)r);
    if (a->set[ROPE] && dk % 4)
        return fail(err, errlen, "adapter gdn_cssm: rope needs dk divisible by 4, not %lld", (long long)dk);
    if (k > H || k > W)
        snprintf(a->warning, sizeof a->warning,
                 "adapter gdn_cssm: a kernel of %lldx%lld is larger than the grid of %lldx%lld tokens: only "
                 "its middle is used",
                 (long long)k, (long long)k, (long long)H, (long long)W);
    const struct adapter_param params[PARAMS] = {
        [V] = {"lora_A.weight", 2, {r, l->in}, INIT_KAIMING_UNIFORM, 0},
        [U] = {"lora_B.weight", 2, {l->out, r}, INIT_ZERO, 0},
        [OWN + GDN_QKV] = {"qkv.weight", 2, {3 * r, r}, INIT_XAVIER_UNIFORM, 0},
        [OWN + GDN_QKV_BIAS] = {"qkv.bias", 1, {3 * r}, INIT_ZERO, 0},
        [OWN + GDN_GATE] = {"gate.weight", 2, {r, r}, INIT_XAVIER_UNIFORM, 0},
        [OWN + GDN_GATE_BIAS] = {"gate.bias", 1, {r}, INIT_ZERO, 0},
        [OWN + GDN_ALPHA_H] = {"alpha_h.weight", 2, {H, r}, INIT_XAVIER_UNIFORM, 0},
        [OWN + GDN_ALPHA_H_BIAS] = {"alpha_h.bias", 1, {H}, INIT_ZERO, 0},
        [OWN + GDN_ALPHA_W] = {"alpha_w.weight", 2, {F, r}, INIT_XAVIER_UNIFORM, 0},
        [OWN + GDN_ALPHA_W_BIAS] = {"alpha_w.bias", 1, {F}, INIT_ZERO, 0},
        [OWN + GDN_BETA_H] = {"beta_h.weight", 2, {H, r}, INIT_XAVIER_UNIFORM, 0},
        [OWN + GDN_BETA_H_BIAS] = {"beta_h.bias", 1, {H}, INIT_ZERO, 0},
        [OWN + GDN_BETA_W] = {"beta_w.weight", 2, {F, r}, INIT_XAVIER_UNIFORM, 0},
        [OWN + GDN_BETA_W_BIAS] = {"beta_w.bias", 1, {F}, INIT_ZERO, 0},
        [OWN + GDN_NORM] = {"norm.weight", 1, {r}, INIT_ONE, 0},
        [OWN + GDN_KERNEL] = {"kernel", 4, {r / dk, H, F, 2}, INIT_OWN, 0},
    };
    memcpy(l->param, params, sizeof params);
    return PARAMS;
}

/* ---- the kernel's initial values ----------------------------------------------------------------------- */

/* A standard normal cut off at ±2, by bisection of its distribution function, scaled to unit deviation: as
 * JAX's truncated_normal and its variance scaling. u in [0,1) */
static double truncated_normal(double u)
{
    const double deviation = 0.87962566103423978; /* of the cut-off normal itself */
    double low = -2, high = 2, wanted = (2 * u - 1) * erf(sqrt(2));
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (erf(middle / sqrt(2)) < wanted)
            low = middle;
        else
            high = middle;
    }
    return low / deviation;
}

/* rfft2 of k x k spatial values in the middle of the grid, zero around them. The middle is not moved to the
 * origin: the state then travels round the frame by half its size each step, as in the public model of the
 * same authors. */
static void fill(const struct adapter *a, const struct adapter_param *p, const struct rng *r, float *values)
{
    int64_t heads = p->shape[0], H = p->shape[1], F = p->shape[2], W = a->base.cols, k = a->set[K];
    int64_t top = (H - k) / 2, left = (W - k) / 2; /* negative where the kernel is cropped */
    double scale = 1 / sqrt((double)(heads * k));
    for (int64_t i = 0; i < heads * H * F * 2; i++) values[i] = 0;
    double *spectrum = calloc((size_t)(2 * F), sizeof *spectrum);
    for (int64_t head = 0; spectrum && head < heads; head++)
        for (int64_t h = top > 0 ? top : 0; h < H && h < top + k; h++) {
            for (int64_t f = 0; f < F; f++) { /* of this row of the grid */
                spectrum[2 * f] = spectrum[2 * f + 1] = 0;
                for (int64_t w = left > 0 ? left : 0; w < W && w < left + k; w++) {
                    double x = scale * truncated_normal(
                                           rng_uniform(r, (uint64_t)((head * k + h - top) * k + w - left)));
                    double angle = 2 * M_PI * (double)(w * f % W) / (double)W;
                    spectrum[2 * f] += x * cos(angle);
                    spectrum[2 * f + 1] -= x * sin(angle);
                }
            }
            for (int64_t u = 0; u < H; u++) {
                double angle = 2 * M_PI * (double)(h * u % H) / (double)H, c = cos(angle), s = sin(angle);
                for (int64_t f = 0; f < F; f++) {
                    float *to = values + ((head * H + u) * F + f) * 2;
                    to[0] += (float)(spectrum[2 * f] * c + spectrum[2 * f + 1] * s);
                    to[1] += (float)(spectrum[2 * f + 1] * c - spectrum[2 * f] * s);
                }
            }
        }
    free(spectrum);
}

/* ---- forward and backward ------------------------------------------------------------------------------ */

/* z and o of the video; all between them is computed again */
static int64_t saved_count(const struct adapter *a, const struct token_rows *r)
{
    return 2 * grid_tokens(r) * a->rank;
}

/* The operation's own parameters of a module, as the optimiser has them. */
static void view_own(const struct adapter *a, const struct tensor *flat, int module, struct tensor *own)
{
    for (int i = 0; i < GDN_PARAMS; i++) own[i] = adapter_view(a, flat, module, OWN + i);
}

static struct tensor frames(const struct tensor *flat, const struct adapter *a, const struct token_rows *r)
{
    return tensor_as(flat, 4, r->frames, r->rows, r->cols, a->rank);
}

/* The i-th half of saved. */
static struct tensor half(const struct tensor *saved, int i, const struct adapter *a,
                          const struct token_rows *r)
{
    struct tensor t = tensor_rows(saved, i * grid_tokens(r) * a->rank, grid_tokens(r) * a->rank);
    return tensor_as(&t, 2, grid_tokens(r), a->rank);
}

static struct tensor video_rows(const struct tensor *t, const struct token_rows *r)
{
    return tensor_rows(t, r->text, grid_tokens(r));
}

/* The projections of n modules, z and o. */
struct views {
    struct tensor v[LINEAR_CALLS], u[LINEAR_CALLS], z[LINEAR_CALLS], o[LINEAR_CALLS];
    struct tensor z4[LINEAR_CALLS], o4[LINEAR_CALLS], own[LINEAR_CALLS * GDN_PARAMS];
};

static void view(struct views *w, const struct adapter *a, const struct adapter_call *c, int n)
{
    const struct token_rows *r = c->rows;
    for (int i = 0; i < n; i++) {
        w->v[i] = adapter_working(a, c[i].module, V), w->u[i] = adapter_working(a, c[i].module, U);
        w->z[i] = half(c[i].saved, 0, a, r), w->o[i] = half(c[i].saved, 1, a, r);
        w->z4[i] = frames(&w->z[i], a, r), w->o4[i] = frames(&w->o[i], a, r);
        view_own(a, &a->values, c[i].module, w->own + i * GDN_PARAMS);
    }
}

static void forward(struct adapter *a, const struct adapter_call *c, int n)
{
    struct views w = {0};
    struct tensor x = video_rows(c->x, c->rows), y[LINEAR_CALLS] = {{0}};
    view(&w, a, c, n);
    for (int i = 0; i < n; i++) y[i] = video_rows(c[i].y, c->rows);
    thin_down_forward(a->k, w.z, &x, w.v, n);
    gdn_cssm_forward(a->k, w.o4, w.z4, w.own, n, a->set[DK], a->set[ROPE]);
    thin_up_forward(a->k, y, w.o, w.u, adapter_scale(a), n);
}

/* dU = s dyᵀ o,  do = s dy U,  dz through the operation,  dV = dzᵀ x,  dx += dz V */
static void backward(struct adapter *a, const struct adapter_call *c, int n)
{
    const struct token_rows *r = c->rows;
    struct views w = {0};
    struct tensor du[LINEAR_CALLS] = {{0}}, dv[LINEAR_CALLS] = {{0}},
                  d_own[LINEAR_CALLS * GDN_PARAMS] = {{0}};
    struct tensor dy[LINEAR_CALLS] = {{0}}, d_o[LINEAR_CALLS] = {{0}}, dz[LINEAR_CALLS] = {{0}};
    struct tensor do4[LINEAR_CALLS] = {{0}}, dz4[LINEAR_CALLS] = {{0}};
    struct tensor x = video_rows(c->x, r), dx = c->dx ? video_rows(c->dx, r) : x;
    size_t mark = kern_mark(a->k);
    view(&w, a, c, n);
    for (int i = 0; i < n; i++) {
        du[i] = adapter_view(a, &a->grads, c[i].module, U),
        dv[i] = adapter_view(a, &a->grads, c[i].module, V);
        view_own(a, &a->grads, c[i].module, d_own + i * GDN_PARAMS);
        dy[i] = video_rows(c[i].dy, r);
        d_o[i] = kern_tensor(a->k, kern_compute(a->k), 2, grid_tokens(r), a->rank);
        dz[i] = kern_tensor(a->k, kern_compute(a->k), 2, grid_tokens(r), a->rank);
        do4[i] = frames(&d_o[i], a, r), dz4[i] = frames(&dz[i], a, r);
    }
    thin_up_backward(a->k, d_o, du, dy, w.o, w.u, adapter_scale(a), n);
    gdn_cssm_backward(a->k, dz4, d_own, do4, w.z4, w.own, n, a->set[DK], a->set[ROPE]);
    thin_down_backward(a->k, c->dx ? &dx : NULL, dv, dz, &x, w.v, n);
    kern_release(a->k, mark);
}

const struct adapter_kind adapter_gdn_cssm = {.name = "gdn_cssm",
                                              .grid = true,
                                              .bound = true,
                                              .setting = settings,
                                              .declare = declare,
                                              .saved_count = saved_count,
                                              .forward = forward,
                                              .backward = backward,
                                              .together = true,
                                              .fill = fill};
