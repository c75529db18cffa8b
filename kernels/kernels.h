/* kernels - the operations, at the grain of one pass over memory.
 *
 * Row-major. Result first, then inputs, learned weights, scalars. Shapes are written beside the names; shapes
 * and dtypes are checked once, in the shared entry (kernels.c), which then calls the device's table of
 * function pointers (backend.h). cpu/ defines the answer; any other backend has to agree with it.
 *
 * Activations and the networks' weights have the device's compute dtype, kern_compute(): F32 on the CPU, BF16
 * or F32 on a GPU. What has another dtype says so below: statistics, position tables, latents between steps,
 * and all that an optimiser adds up are F32. *_backward overwrites activation gradients unless its comment
 * says "adds", and always adds into weight gradients.
 *
 * Errors stick: an operation that cannot be done records why, and every later one does nothing, so a network
 * reads like its paper and asks kern_ok() once, at its end. The same silence makes planning free: between
 * kern_plan_begin() and kern_plan_end() operations only check shapes and tensors only count bytes, so running
 * a network once that way says how much memory it needs before any is touched. */
#ifndef KERNELS_H
#define KERNELS_H

#include <math.h>

#include "formats/tensor.h"

struct kern;

/* ---- device and memory ------------------------------------------------------------------------------ */

/* device: "cpu", "cuda", "cuda:N" or "auto" (cuda when there is one, else cpu, and err says why). threads: 0
 * for all cores. NULL with the reason in err. For tests, SLUICE_MEMORY=GIB in the environment takes away what
 * the device has more than that. */
struct kern *kern_open(const char *device, int threads, char *err, size_t errlen);
void kern_close(struct kern *k);               /* frees everything made with it; NULL is fine */
const char *kern_device(const struct kern *k); /* "cpu", "cuda:0" */
const char *kern_card(const struct kern *k);   /* its PCI address, "" of the CPU; for tests, $SLUICE_BUS */
/* The dtype of activations and weights. Asking for one that the device does not compute in
 * changes nothing. */
enum dtype kern_compute(const struct kern *k);
void kern_compute_in(struct kern *k, enum dtype d);

/* Networks that are loaded from here on hold in FP8 those weights that they can, see fp8_rows(). false, and the device
 * fails, where it has no products for them. */
bool kern_hold_fp8(struct kern *k);
bool kern_holds_fp8(const struct kern *k);

/* All that the bits of a result may depend on besides what was asked for: the device, the versions of its
 * libraries, the ways that operations take there, and which of our kernels' bits these are. A line of text without
 * quotes or backslashes, which belongs to k: "NVIDIA H200, compute capability 9.0, code for 9.0, cuBLASLt 13.1.0,
 * cuDNN 9.19.0, cuFFT 12.0.0, attention hopper,mma,f32, kernels 1". */
const char *kern_basis(struct kern *k);

/* tell is called with a line of text, once for each thing that is much slower on this device than it could be:
 * at once for what is known, then as operations are met. */
void kern_on_note(struct kern *k, void (*tell)(const char *note));

void kern_wait(struct kern *k); /* until everything asked for is done: for clocks, not for correctness */

/* Time by operation and way from here on, from nothing: each operation is then waited for, so that its own time is
 * known. */
void kern_profile_start(struct kern *k);
void kern_profile_stop(struct kern *k);
struct kern_profile_line {
    const char *operation;
    const char *way; /* that it took, where the device has several; else NULL */
    double seconds;
    int64_t calls;
};
/* The lines so far, the longest first; *count of them. They belong to the device. NULL when not started. */
const struct kern_profile_line *kern_profile(struct kern *k, int *count);

bool kern_ok(const struct kern *k);
const char *kern_error(const struct kern *k);
void kern_clear(struct kern *k); /* forget the error: the next record may be fine */
/* Record why; the first one wins. */
void kern_fail(struct kern *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Long-lived memory (weights, adapter state), freed with the device. Zeroed. */
#define kern_alloc(k, dtype, ...) kern_alloc_shape(k, dtype, (const int64_t[]){__VA_ARGS__})
struct tensor kern_alloc_shape(struct kern *k, enum dtype d, const int64_t *rank_then_shape);

/* Is there room for so much more? Refuses at once, with the numbers, before many allocations are begun. */
bool kern_room(struct kern *k, const char *what, size_t bytes);

/* Scratch: a stack. kern_tensor(k, DT_F32, 2, rows, width) takes from the top, contents undefined, 64-byte
 * aligned; kern_release() gives back everything taken since the mark. kern_reserve() sets the stack's size,
 * once or growing while it is empty, and refuses at once, with the numbers, what the machine cannot hold. */
#define kern_tensor(k, dtype, ...) kern_tensor_shape(k, dtype, (const int64_t[]){__VA_ARGS__})
struct tensor kern_tensor_shape(struct kern *k, enum dtype d, const int64_t *rank_then_shape);
size_t kern_mark(const struct kern *k);
void kern_release(struct kern *k, size_t mark);
bool kern_reserve(struct kern *k, size_t bytes);

/* How many bytes kern_reserve() could give now. */
size_t kern_available(struct kern *k);

void kern_plan_begin(struct kern *k);
size_t kern_plan_end(struct kern *k); /* bytes of scratch that the planned calls would have needed at most */
bool kern_planning(const struct kern *k); /* for code that would look at results */

/* Host tensor -> device tensor and back, converting between float dtypes; counts agree. */
void kern_upload(struct kern *k, struct tensor *dst, const struct tensor *host);
void kern_download(struct kern *k, struct tensor *host, const struct tensor *src);
/* The same from memory of kern_host_alloc(), dtypes alike: it need not have happened before kern_wait(), and
 * until then that memory is not to be changed. A GPU fetches by itself what lies there. NULL: no memory. */
void kern_send(struct kern *k, struct tensor *dst, const struct tensor *host);
void *kern_host_alloc(struct kern *k, size_t bytes);
void kern_host_free(struct kern *k, void *p);                                 /* NULL is fine */
void kern_copy(struct kern *k, struct tensor *dst, const struct tensor *src); /* converts, too */
void kern_zero(struct kern *k, struct tensor *t);

/* ---- products --------------------------------------------------------------------------------------- */

/* c = alpha op(a) op(b) + beta c      op(a) [m,k], op(b) [k,n], c [m,n]; op transposes when ta, tb is set.
 * F32 everywhere, or F64 everywhere, or a and b of the compute dtype and c of that or F32. */
void matmul(struct kern *k, struct tensor *c, const struct tensor *a, bool ta, const struct tensor *b,
            bool tb, double alpha, double beta);

/* What adapters of rank r add to n linear layers of one input: y[i] += scale (x a[i]ᵀ) b[i]ᵀ, as its two products, each
 * for all n at once, so that a GPU goes over x and dx once. Arrays have n items, 1 to THIN_MODULES; a[i] are of one
 * shape, b[i] and y[i] may differ in out. On the CPU each is n matmul() one after the other, and so it is on a GPU in
 * F32 and for ranks other than 16 and 32; in BF16 these add up in F32, and dx is rounded once for every 64 ranks.
 * x, dx [rows,in]  z[i], dz[i] [rows,r]  a[i] [r,in]  b[i] [out,r]  y[i], dy[i] [rows,out]  da[i], db[i] F32 */
enum { THIN_MODULES = 8 };
/* z[i] = x a[i]ᵀ */
void thin_down_forward(struct kern *k, struct tensor *z, const struct tensor *x, const struct tensor *a,
                       int n);
/* da[i] += dz[i]ᵀ x,  dx += Σ dz[i] a[i]; dx NULL: not wanted */
void thin_down_backward(struct kern *k, struct tensor *dx, struct tensor *da, const struct tensor *dz,
                        const struct tensor *x, const struct tensor *a, int n);
/* y[i] += scale z[i] b[i]ᵀ */
void thin_up_forward(struct kern *k, struct tensor *y, const struct tensor *z, const struct tensor *b,
                     double scale, int n);
/* db[i] += scale dy[i]ᵀ z[i],  dz[i] = scale dy[i] b[i] */
void thin_up_backward(struct kern *k, struct tensor *dz, struct tensor *db, const struct tensor *dy,
                      const struct tensor *z, const struct tensor *b, double scale, int n);

/* y = x wᵀ + b                        x [n,in]  w [out,in]  b [out] or NULL  y [n,out] */
void linear_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                    const struct tensor *b);
/* dx = dy w; with add: dx += dy w     dy [n,out]  w [out,in]  dx [n,in] */
void linear_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *w,
                     bool add);

/* pre = x wᵀ + b, y = gelu(pre)       gelu(u) = u/2 (1 + tanh(√(2/π) (u + 0.044715 u³)))
 * pre [n,out] is kept for the backward pass; NULL when there is none. */
void linear_gelu_forward(struct kern *k, struct tensor *y, struct tensor *pre, const struct tensor *x,
                         const struct tensor *w, const struct tensor *b);
/* dpre = (dy w) ⊙ gelu'(pre)          dy [n,out] is the gradient of z = gelu(pre) wᵀ
 * w [out,hidden]  pre, dpre [n,hidden] */
void linear_gelu_backward(struct kern *k, struct tensor *dpre, const struct tensor *dy,
                          const struct tensor *w, const struct tensor *pre);

/* y = quick_gelu(x wᵀ + b)            quick_gelu(u) = u σ(1.702 u), as CLIP has it
 * x [n,in]  w [out,in]  b [out]  y [n,out] */
void linear_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                               const struct tensor *w, const struct tensor *b);

/* On a GPU a row of the next four's results has the same bits however many rows there are: up to FEW_ROWS of them, which
 * take a way of their own, and above. On the CPU it has not. */
enum { FEW_ROWS = 4 };
/* The products of several matrices of one shape with the same x, part by part: y[p] = x w[p]ᵀ
 * x [n,in]  w [parts*out,in]  y [parts,n,out] */
void linear_parts_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w);
/* y += x wᵀ                           x [n,in]  w [out,in]  y [n,out] */
void linear_add_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w);
/* y = gelu(x w[0]ᵀ) ⊙ x w[1]ᵀ; and with silu for gelu
 * x [n,in]  w [2*out,in]  y [n,out] */
void linear_gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                             const struct tensor *w);
void linear_silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                             const struct tensor *w);

/* Rows in FP8: e4m3 codes in bytes (sign, 4 bits of exponent with bias 7, 3 of mantissa; the largest is 448, 0x7F a NaN,
 * nothing is infinite) and a scale for each row. With a = max(2^-100, max_i |x[r,i]|):
 *   scale[r] = a / 448, codes[r,i] = e4m3(x[r,i] (448 / a))
 * Each quotient and product is rounded to F32. e4m3() rounds to nearest, ties to even, subnormals too; what is beyond
 * 448 becomes 448. So a row of zeros has codes 0. A NaN is 0x7F, and is not counted in the maximum.
 * x [n,in]                            codes U8 [n,in]  scale F32 [n] */
void fp8_rows(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x);
/* The same of gelu(x), as gelu_forward() rounds it. */
void fp8_gelu_rows(struct kern *k, struct tensor *codes, struct tensor *scale, const struct tensor *x);
/* y[r,c] = x_scale[r] w_scale[c] Σ_i x[r,i] w[c,i] + b[c] over the values of codes, the sum in F32. On a GPU BF16 alone,
 * and in and out multiples of 16.
 * x U8 [n,in]  x_scale F32 [n]        w U8 [out,in]  w_scale F32 [out]  b [out] or NULL  y [n,out] */
void linear_fp8_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                        const struct tensor *x_scale, const struct tensor *w, const struct tensor *w_scale,
                        const struct tensor *b);

/* y[i,:] = table[ids[i],:]            table [vocab,width]  ids I32 [n], each < vocab (the caller checks) */
void embedding_forward(struct kern *k, struct tensor *y, const struct tensor *table,
                       const struct tensor *ids);

/* ---- normalisation ---------------------------------------------------------------------------------- */

/* y = (LN(x) w + b) (1 + scale) + shift           x, y [rows,width]  w, b, scale, shift [width]
 * Biased variance. w and b both NULL: 1 and 0; scale and shift both NULL: 0. Those that are there are of the compute
 * dtype, or all F32. (CogVideoX: norm1, norm2, norm_out; Wan: the same) */
void layer_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                        const struct tensor *b, const struct tensor *scale, const struct tensor *shift,
                        float eps);
/* With g = dy (1+scale) w:  dx = rstd (g - mean(g) - x̂ mean(g x̂)); with add: dx += */
void layer_norm_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x,
                         const struct tensor *w, const struct tensor *scale, float eps, bool add);

/* y[r,:] = x[r,:] / √(mean(x²) + eps) w           T5's norm: no mean, no bias */
void rms_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                      float eps);

/* Per head: LayerNorm over its `d` channels (w, b [d] shared by all heads), then on rows >= first the
 * rotation of adjacent pairs: y₂ᵢ = x₂ᵢ cos₂ᵢ - x₂ᵢ₊₁ sin₂ᵢ, y₂ᵢ₊₁ = x₂ᵢ₊₁ cos₂ᵢ₊₁ + x₂ᵢ sin₂ᵢ₊₁, all of it `times`,
 * before it is rounded. (CogVideoX: queries, of which `times` is attention_times(), and keys, of which it is 1)
 * x, y [rows,heads*d]                 cos, sin F32 [rows-first,d], or both NULL: no rotation */
void qk_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                          const struct tensor *b, const struct tensor *cos, const struct tensor *sin,
                          int64_t first, float eps, float times);
void qk_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x,
                           const struct tensor *w, const struct tensor *cos, const struct tensor *sin,
                           int64_t first, float eps, float times);

/* rms_norm over the whole row, and then, in each of its heads of `d` channels, the rotation of adjacent pairs:
 * y₂ᵢ = u₂ᵢ cosᵢ - u₂ᵢ₊₁ sinᵢ, y₂ᵢ₊₁ = u₂ᵢ₊₁ cosᵢ + u₂ᵢ sinᵢ, all of it `times`. (Wan: queries and keys)
 * x, y [rows,heads*d]  w [heads*d]    cos, sin F32 [rows,d/2], or both NULL: no rotation */
void rms_norm_rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                           const struct tensor *cos, const struct tensor *sin, float eps, float times);
/* With g = times w dy turned back, r = 1/√(mean(x²) + eps):  dx = r (g - x r² mean(g x)) */
void rms_norm_rope_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                            const struct tensor *x, const struct tensor *w, const struct tensor *cos,
                            const struct tensor *sin, float eps, float times);

/* Rotation of the pairs (i, i + d/2) of each head, as LLaMA has it; row r is at position first + r:
 * yᵢ = xᵢ cosᵢ - xᵢ₊d/₂ sinᵢ, yᵢ₊d/₂ = xᵢ₊d/₂ cosᵢ + xᵢ sinᵢ
 * x, y [rows,heads*d]                 cos, sin F32 [positions,d/2]     y may be x */
void rope_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *cos,
                  const struct tensor *sin, int64_t first);

/* y = silu(GroupNorm(x) w + b), silu(u) = u / (1 + e^-u)    x, y [T,H,W,C]  w, b [C]
 * Statistics over (T,H,W,C/groups). y may be x. */
void group_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                             const struct tensor *b, int groups, float eps);
/* y = silu((GroupNorm(x) w + b) mul' + add')      x, y [T,H,W,C]  mul, add [Tz,h,w,C] at latent resolution
 * ' is nearest resizing: per axis src = floor(dst in / out), but when T > 1 is odd, frame 0 comes from frame
 * 0 and the others from the others. y may be x. CogVideoX SpatialNorm3D: 1x1x1 convolutions commute with
 * nearest resizing, so they are done before it. */
void spatial_norm_silu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                               const struct tensor *w, const struct tensor *b, const struct tensor *mul,
                               const struct tensor *add, int groups, float eps);

/* y = x / max(‖x‖, 1e-12) √C w, ‖x‖ over a pixel's channels, and silu of that when asked for. y may be x.
 * x, y [T,H,W,C]  w [C]               (Wan's VAE: WanRMS_norm) */
void channel_norm_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                          bool silu);

/* ---- attention -------------------------------------------------------------------------------------- */

/* Per head: o = softmax(scale q kᵀ + bias) v      q, o [batch*queries,heads*d]  kk, v [batch*keys,heads*d]
 * bias by distance, F32 [heads,2n-1] with n >= queries, keys, or NULL: key j adds bias[h,n-1+j-i] to the score of query
 * i. lse F32 [heads,batch*queries] keeps log Σ exp of each score row for the backward pass; NULL when there is none. In
 * BF16 it may be of weights as they were rounded, each by 2^-9 of itself at most. */
struct attention {
    int heads;
    float scale;   /* 1/√d, or LOG_2 of queries that are attention_times() what they would be */
    int64_t batch; /* sequences, one after the other, each seeing itself alone; 0 is 1 */
    bool causal;   /* query i sees keys 0 .. i + keys - queries; keys >= queries */
};
/* Where a norm makes queries, these are best multiplied by 1 / (√d log 2) there, and scaled by log 2 here: a weight is then
 * 2^(q kᵀ), which takes the fastest way a fifth fewer instructions. Queries are rounded once either way. */
#define LOG_2 0.69314718f
static inline float attention_times(int64_t d)
{
    return 1 / (sqrtf((float)d) * LOG_2);
}
void attention_forward(struct kern *k, struct tensor *o, struct tensor *lse, const struct tensor *q,
                       const struct tensor *kk, const struct tensor *v, const struct tensor *bias,
                       const struct attention *a);
/* The gradients of attention_forward without bias: dq, and with dk and dv (both or neither may be NULL) theirs.
 * dq, q, o, dout [batch*queries,heads*d]  dk, dv, kk, v [batch*keys,heads*d]  lse F32 [heads,batch*queries]
 * δ = rowsum(do ⊙ o), P from lse; dv = Pᵀ do, dS = P ⊙ (do vᵀ - δ), dq = scale dS k, dk = scale dSᵀ q */
void attention_backward(struct kern *k, struct tensor *dq, struct tensor *dk, struct tensor *dv,
                        const struct tensor *dout, const struct tensor *o, const struct tensor *lse,
                        const struct tensor *q, const struct tensor *kk, const struct tensor *v,
                        const struct attention *a);

/* ---- adapters, between their two projections ---------------------------------------------------------- */

/* The weights and their gradients are F32. For the double build these two pairs take F64 everywhere, too.
 * Nothing of the forward pass is kept.
 *
 * Attention between frames: p_t = mean over a frame's S tokens of z; q, k, v = p Wᵀ; per head
 * a = softmax(q kᵀ / √(r/heads)) v over the T frames; y = z + a_t.
 * z, y, dy, dz [T,S,r]                w: q, k, v, each [r,r]; dw likewise */
void temporal_attention_forward(struct kern *k, struct tensor *y, const struct tensor *z,
                                const struct tensor w[3], int heads);
void temporal_attention_backward(struct kern *k, struct tensor *dz, struct tensor dw[3],
                                 const struct tensor *dy, const struct tensor *z, const struct tensor w[3],
                                 int heads);

/* Gated delta rule over time in the 2-D spectral domain. d = head_dim, n = r/d heads, F = W/2 + 1:
 *   q, k, v = Wqkv z + b, with `rope` q and k rotated by position; g = silu(Wg z + b)
 *   alpha_t[u,f] = 0.1 + 0.89 σ((Ah c_t + ..)[u] + (Aw c_t + ..)[f]), c_t the mean of frame t of z
 *   beta_t[u,f] = σ((Bh c_t + ..)[u] + (Bw c_t + ..)[f])
 *   Q, K, V = rfft2; each channel of Q, K to unit energy over (u,f), then K over a head's channels
 *   Phat = 0.999 P / (1 + |P|); at each head and frequency, from S = 0 [d,d]:
 *       S_t = alpha_t Phat (S_t-1 - beta_t (S_t-1 K_t) K_tᴴ) + beta_t V_t K_tᴴ,  o_t = S_t Q_t
 *   o = RMSNorm(irfft2(o)) ⊙ g. irfft2 is complex over h, then real over w: of columns 0 and W/2 that
 *   one sees the real part only.
 * Every eps is 1e-6. The rotation: of each head's pairs the first half by the row, the others by the
 * column, pair i of an axis by position 10000^(-2i/(d/2)); d divisible by 4.
 * z, o, dout, dz [T,H,W,r]            w and dw: GDN_PARAMS tensors of the shapes below
 * Several modules of one shape may go at once, which spares a GPU launches and changes no bit: o, z, dout, dz
 * are arrays of that many, w and dw of that many times GDN_PARAMS. */
enum gdn_cssm_param {
    GDN_QKV,          /* [3r,r] */
    GDN_QKV_BIAS,     /* [3r] */
    GDN_GATE,         /* [r,r] */
    GDN_GATE_BIAS,    /* [r] */
    GDN_ALPHA_H,      /* [H,r] */
    GDN_ALPHA_H_BIAS, /* [H] */
    GDN_ALPHA_W,      /* [F,r] */
    GDN_ALPHA_W_BIAS, /* [F] */
    GDN_BETA_H,       /* [H,r] */
    GDN_BETA_H_BIAS,  /* [H] */
    GDN_BETA_W,       /* [F,r] */
    GDN_BETA_W_BIAS,  /* [F] */
    GDN_NORM,         /* [r] */
    GDN_KERNEL,       /* [n,H,F,2]: P */
    GDN_PARAMS
};
void gdn_cssm_forward(struct kern *k, struct tensor *o, const struct tensor *z, const struct tensor *w,
                      int modules, int64_t head_dim, bool rope);
void gdn_cssm_backward(struct kern *k, struct tensor *dz, struct tensor *dw, const struct tensor *dout,
                       const struct tensor *z, const struct tensor *w, int modules, int64_t head_dim,
                       bool rope);

/* ---- elementwise ------------------------------------------------------------------------------------ */

/* out = x + gate ⊙ y; out may be x    out, x, y [rows,width]  gate [width], of the compute dtype or F32 */
void gated_add_forward(struct kern *k, struct tensor *out, const struct tensor *x, const struct tensor *y,
                       const struct tensor *gate);
/* dy = gate ⊙ dx */
void gated_add_backward(struct kern *k, struct tensor *dy, const struct tensor *dx,
                        const struct tensor *gate);
void add(struct kern *k, struct tensor *y, const struct tensor *x); /* y += x, same count */
/* y = a x + b y, both F32 or both of the compute dtype; with b = 0, y is not read */
void axpby(struct kern *k, struct tensor *y, double a, const struct tensor *x, double b);
/* y = silu(x), of the compute dtype or F32; y may be x */
void silu_forward(struct kern *k, struct tensor *y, const struct tensor *x);
void gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x); /* y = gelu(x); y may be x */
/* dx = dy gelu'(x); dx may be dy */
void gelu_backward(struct kern *k, struct tensor *dx, const struct tensor *dy, const struct tensor *x);
/* y = gelu(a) b */
void gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a, const struct tensor *b);
/* y = silu(a) b                       y may be a or b */
void silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *a, const struct tensor *b);

/* ---- between latents and tokens --------------------------------------------------------------------- */

/* y[(f,i,j), (c,p,q)] = x[f, c, P i + p, P j + q]    x F32 [F,C,h,w]  y [F (h/P) (w/P), C P P]
 * Each undoes the other, and is the other's backward pass. */
void patchify(struct kern *k, struct tensor *y, const struct tensor *x, int patch);
void unpatchify(struct kern *k, struct tensor *x, const struct tensor *y, int patch);

/* ---- a vision tower over frames ------------------------------------------------------------------------ */

/* y[(t,i,j), (c,p,q)] = (u8[t, P i + p, P j + q, c] / 255 - mean[c]) / std[c]
 * u8 U8 [T,H,W,3]                     y [T (H/P) (W/P), 3 P P] */
void pixel_patches(struct kern *k, struct tensor *y, const struct tensor *u8, int patch, const float mean[3],
                   const float std[3]);
/* y[t,0] = cls + pos[0], y[t,1+i] = x[t,i] + pos[1+i]
 * y [T (1+n),width]  x [T n,width]  cls [width]  pos [1+n,width] */
void class_tokens_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *cls,
                          const struct tensor *pos);
/* y = quick_gelu(b + w₀ x[t-1] + w₁ x[t] + w₂ x[t+1]), channel by channel, zero outside of 0 .. T-1
 * x, y [T,n,width]                    w [width,3]  b [width] */
void time_conv_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                  const struct tensor *w, const struct tensor *b);

/* ---- convolution and resampling, channels last ------------------------------------------------------ */

/* Causal 3x3x3: y[t] sees x[t..t+2], zero padding in space only; with `residual`, it is added to y and may be
 * y.    x [2+T,H,W,Ci]  w [Co,3,3,3,Ci] (conv_weight)  b [Co]  y, residual [T,H,W,Co]
 * history [2,H,W,Ci]: the two frames before, which this writes in front, into x[0] and x[1]; with first set
 * they are x[2], x[2] instead (a history of zeros is Wan's first chunk). On return it holds the last two frames of x, ready for the next chunk. */
void causal_conv3d_forward(struct kern *k, struct tensor *y, struct tensor *x, struct tensor *history,
                           bool first, const struct tensor *w, const struct tensor *b,
                           const struct tensor *residual);
/* Per frame 3x3: stride 1 with zero padding 1 all round, or stride 2 with a zero row below and column right.
 * x [T,H,W,Ci]  w [Co,3,3,Ci]  b [Co]  y [T,H/stride,W/stride,Co] */
void conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                    const struct tensor *b, int stride);
/* Three taps in time alone: y[t] = Σ_a w[:,a] x[stride t + a] + b, no padding
 * x [stride (T - 1) + 3,H,W,Ci]  w [Co,3,1,1,Ci]  b [Co]  y [T,H,W,Co] */
void time_conv_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                       const struct tensor *b, int stride);
/* Halve time: T odd keeps frame 0 and averages (1,2),(3,4)..; T even averages (0,1),(2,3)..
 * x [T,H,W,C]  y [(T+1)/2,H,W,C] */
void halve_time_forward(struct kern *k, struct tensor *y, const struct tensor *x);
/* Nearest 2x in space, then per frame 3x3 with stride 1 and zero padding 1. A device may first add up the
 * weights that fall on one pixel of x, and round the sum to its compute dtype.
 * x [T,H,W,Ci]  w [Co,3,3,Ci]  b [Co]  y [T,2H,2W,Co] */
void upsample_conv2d_forward(struct kern *k, struct tensor *y, const struct tensor *x, const struct tensor *w,
                             const struct tensor *b);

/* y [T,H,W,C] = x F32 [T,C,H,W] times `scale`, and y F32 [T,C,H,W] = x [T,H,W,C] times it: between the
 * latents' layout and the convolutions'. */
void channels_last(struct kern *k, struct tensor *y, const struct tensor *x, float scale);
void channels_second(struct kern *k, struct tensor *y, const struct tensor *x, float scale);

/* Pixels: y = u8/127.5 - 1, and back: round-half-even(clamp(y/2 + 1/2, 0, 1) 255). Any shape. */
void pixels_to_unit(struct kern *k, struct tensor *y, const struct tensor *u8);
void unit_to_pixels(struct kern *k, struct tensor *u8, const struct tensor *y);

/* Squares of P x P pixels as channels, and back: y[t,i,j,(c,q,p)] = x[t,P i + p,P j + q,c]
 * x [T,H,W,C]  y [T,H/P,W/P,C P P]    (Wan 2.2's VAE: patchify, whose column is slower than its row) */
void fold_pixels(struct kern *k, struct tensor *y, const struct tensor *x, int patch);
void unfold_pixels(struct kern *k, struct tensor *x, const struct tensor *y, int patch);
/* Blocks of f frames of s x s pixels. A block's values in the order n = (c,a,p,q), channel, frame, row, column, are as
 * many equal groups as y has channels, and y's are their means:
 *   y[t,i,j,o] = 1/G Σ_g x[f t + a - e,s i + p,s j + q,c], o G + g = (c,a,p,q), G = Ci f s² / Co
 * e = f T' - T frames of zeros stand before x, fewer than f.
 * x [T,H,W,Ci]  y [T',H/s,W/s,Co]     (AvgDown3D) */
void average_blocks_forward(struct kern *k, struct tensor *y, const struct tensor *x, int frames, int side);
/* The same blocks of y, each group given one value of x; of the frames that come of it the first e are left out:
 *   y[f t + a - e,s i + p,s j + q,o] += x[t,i,j,⌊(o,a,p,q) / R⌋], R = Co f s² / Ci
 * x [T,h,w,Ci]  y [f T - e,s h,s w,Co], e < f     (DupUp3D) */
void repeat_blocks_add(struct kern *k, struct tensor *y, const struct tensor *x, int frames, int side);

/* Copy a window: y[:, y0+i, x0+j, :] = x[:, i0+i, j0+j, :] for i < rows, j < cols.     x, y [T,.,.,C] */
void copy_window(struct kern *k, struct tensor *y, int64_t y0, int64_t x0, const struct tensor *x, int64_t i0,
                 int64_t j0, int64_t rows, int64_t cols);
/* Fade tile b in from its neighbour a over the first `extent` rows (vertical) or columns of b, in place:
 * b[e] = a[n-extent+e] (1 - e/extent) + b[e] e/extent, n = rows (columns) of a.         a, b [T,.,.,C] */
void blend_edge(struct kern *k, struct tensor *b, const struct tensor *a, int64_t extent, bool vertical);

/* ---- made-up weights -------------------------------------------------------------------------------- */

/* y[i] = mean + std N(first + i), rounded to F32 and that to BF16, whether y is of the compute dtype or F32: the
 * same values on every device. N are the standard normals of philox.h by key and stream, in double rounded to F32.
 * With channels_last y is a convolution's [out,k..,in], and i counts in its file's order [out,in,k..]. */
struct random_normal {
    uint32_t key[2];
    uint64_t stream, first;
    double mean, std;
    bool channels_last;
};
void random_normal(struct kern *k, struct tensor *y, const struct random_normal *r);
/* The same on the host: n values from number `from` after r->first on, F32, in the file's order. */
void random_normal_fill(const struct random_normal *r, uint64_t from, float *y, size_t n);

/* ---- training --------------------------------------------------------------------------------------- */

/* *loss = weight mean((pred - target)²); dpred = its gradient, NULL when only the loss is wanted.
 * F32 of any shape; sums in double, fixed order. While planning, and after an error, *loss is 0. */
void mse_forward_backward(struct kern *k, double *loss, struct tensor *dpred, const struct tensor *pred,
                          const struct tensor *target, double weight);
/* *sum = Σ x² over F32 of any shape, in double, fixed order; 0 while planning and after an error. */
void sum_squares(struct kern *k, double *sum, const struct tensor *x);
/* The device fails, with `what` named, unless every value of a float tensor is finite. For what leaves a network:
 * later a NaN may look like a value (a pixel, an index). Reads x once; scratch for x in F32 when it is not. */
void expect_finite(struct kern *k, const char *what, const struct tensor *x);
/* One AdamW step on flat F32 tensors (Loshchilov & Hutter; PyTorch's order), t >= 1. With g' = gscale g:
 * p -= lr wd p;  m = β₁m + (1-β₁)g';  v = β₂v + (1-β₂)g'²;  p -= lr (m/(1-β₁ᵗ)) / (√(v/(1-β₂ᵗ)) + eps) */
struct adamw {
    double lr, beta1, beta2, eps, weight_decay;
};
void adamw_step(struct kern *k, struct tensor *p, struct tensor *m, struct tensor *v, const struct tensor *g,
                double gscale, int64_t t, const struct adamw *o);

#endif
