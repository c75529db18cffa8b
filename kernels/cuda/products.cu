/* Products, through cuBLASLt; few rows, of which it makes less than memory allows, through
 * row_product.cu.
 *
 * cuBLASLt counts by columns: its D [n,m] is our C [m,n], and its first operand our second. The algorithm for
 * a shape is the first of its heuristics' list, which is the same every time, or the one that `preferred`
 * below names; never one found by timing, since bits would then depend on it. Parts of a sum along k are
 * added up in F32, in order; in FP8 too, whose faster sums of fewer bits are not asked for. */
#include "kernels/cuda/activations.h"
#include "kernels/cuda/map.h"
#include "kernels/cuda/row_product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETS = 128, WAYS = 4, CANDIDATES = 16 };

/* All that an algorithm may depend on; compared byte by byte. */
struct product {
    int64_t m, n, k, parts;        /* of a result in parts, each by its own b; else 1 */
    int64_t part_step;             /* from one to the next, in elements */
    int64_t chosen_for;            /* rows that the algorithm is chosen for, if not m: then n and k decide */
    uint8_t ta, tb, in, out, adds; /* dtypes; adds: beta is not 0 */
    uint8_t alignment;             /* that all operands share, up to 16 bytes */
    uint16_t epilogue;
};

struct plan {
    struct product of;
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t first, second, result;
    cublasLtMatmulAlgo_t algo;
    bool as_preferred; /* made from `preferred` alone, whatever the heuristics say */
};

struct matmul_plans { /* a new shape takes the place of its set's oldest */
    struct plan *plan[SETS][WAYS];
    int next[SETS];
};

static void plan_clear(struct plan *p)
{
    if (p->what) cublasLtMatmulDescDestroy(p->what);
    if (p->first) cublasLtMatrixLayoutDestroy(p->first);
    if (p->second) cublasLtMatrixLayoutDestroy(p->second);
    if (p->result) cublasLtMatrixLayoutDestroy(p->result);
}

static void plan_free(struct plan *p)
{
    if (p) plan_clear(p);
    free(p);
}

void cuda_products_close(struct cuda *c)
{
    for (int i = 0; c->products && i < SETS; i++)
        for (int j = 0; j < WAYS; j++) plan_free(c->products->plan[i][j]);
    free(c->products);
    c->products = NULL;
}

static cudaDataType_t cuda_type(int d)
{
    return d == DT_U8 ? CUDA_R_8F_E4M3 : d == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

template <typename T>
static cublasStatus_t set(cublasLtMatmulDesc_t what, cublasLtMatmulDescAttributes_t name, T value)
{
    return cublasLtMatmulDescSetAttribute(what, name, &value, sizeof value);
}

template <typename T>
static cublasStatus_t prefer(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t name, T value)
{
    return cublasLtMatmulPreferenceSetAttribute(p, name, &value, sizeof value);
}

/* A matrix of `rows` contiguous rows of `width` elements each, which cuBLASLt sees as columns; `parts` of them, each
 * `step` elements after the one before. */
static cublasStatus_t layout(cublasLtMatrixLayout_t *l, int dtype, int64_t rows, int64_t width, int64_t parts,
                             int64_t step)
{
    const int32_t count = (int32_t)parts;
    cublasStatus_t e =
        cublasLtMatrixLayoutCreate(l, cuda_type(dtype), (uint64_t)width, (uint64_t)rows, width);
    if (e || parts == 1) return e;
    e = cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    return e ? e
             : cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                                                sizeof step);
}

/* Codes of FP8, with a scale for each row of either operand; as above, only how they are aligned counts here. */
static cublasStatus_t describe_fp8(cublasLtMatmulDesc_t what)
{
    const int32_t by_row = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    cublasStatus_t e = set(what, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, by_row);
    if (!e) e = set(what, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, by_row);
    if (!e) e = set(what, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, (const void *)16);
    if (!e) e = set(what, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, (const void *)16);
    return e;
}

static cublasStatus_t describe(struct plan *p)
{
    const struct product *o = &p->of;
    cublasStatus_t e = cublasLtMatmulDescCreate(&p->what, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (!e) e = set(p->what, CUBLASLT_MATMUL_DESC_TRANSA, o->tb ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!e) e = set(p->what, CUBLASLT_MATMUL_DESC_TRANSB, o->ta ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (!e) e = set(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE, (cublasLtEpilogue_t)o->epilogue);
    if (!e && o->epilogue & CUBLASLT_EPILOGUE_BIAS) /* here only how it is aligned counts */
        e = set(p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, (const void *)(uintptr_t)o->alignment);
    if (!e && o->epilogue & 128) e = set(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, o->n);
    if (!e && o->epilogue & 128)
        e = set(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (void *)(uintptr_t)o->alignment);
    if (!e && o->in == DT_U8) e = describe_fp8(p->what);
    if (!e) e = layout(&p->first, o->in, o->tb ? o->n : o->k, o->tb ? o->k : o->n, o->parts, o->n * o->k);
    if (!e) e = layout(&p->second, o->in, o->ta ? o->k : o->m, o->ta ? o->m : o->k, o->parts, 0);
    if (!e) e = layout(&p->result, o->out, o->m, o->n, o->parts, o->part_step);
    return e;
}

/* All by which an algorithm is known: cublasLtMatmulAlgoConfigAttributes_t, without split sums. */
struct knobs {
    int32_t id;
    uint32_t tile, stages;
    uint16_t cluster;
    uint32_t custom, swizzle;
    uint16_t inner;
};

static const char h200[] = "NVIDIA H200";

/* Measured better than the first of the heuristics' list by 2% and more, of all that cuBLASLt's check takes (13.1.0, one
 * H200 as warm as training makes it, 2026-11-30), in ms. Of CogVideoX-5B's products, with 17,776 rows, the slope of GELU:
 * 2.17 after 2.22; the others stay at the first (README.md). Of T5's, before and now; before, all had what the heuristics
 * take for 226 rows:
 *
 *               gate, up        down            q, k, v         o
 *     226 rows  0.0754 0.0696   0.0472 0.0365   0.0511 0.0434   0.0214 0.0181
 *   1,808 rows  0.521  0.458    0.312  0.225    0.315  0.271    0.130  0.0945
 *   7,232 rows  1.923  1.759    1.158  0.878    1.160  1.032    0.448  0.358
 *
 * Where a row's bits must not depend on how many rows there are (multiply_rows), 60 or 300 rows, which have no line, get
 * the algorithm of 226, by its line or by the heuristics. A line for more rows counts only beside one for 226, and both
 * have to give the same bits, as all of T5's do, each adding up k in one order: tests/gpu/nets.c compares them. */
static const struct preferred {
    const char *card;
    int epilogue;
    bool tb; /* b is [n,k], as in a forward pass */
    int64_t parts, rows_least, rows_most, n, k;
    struct knobs knobs;
} preferred[] = {
    {h200, CUBLASLT_EPILOGUE_DGELU, false, 1, 8192, INT64_MAX, 12288, 3072, {39, 20, 35, 3, 0, 1, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 2, 129, 256, 10240, 4096, {66, 30, 35, 2, 0, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 2, 1024, 4096, 10240, 4096, {66, 407, 35, 5, 5, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 2, 4097, INT64_MAX, 10240, 4096, {66, 176, 35, 3, 5, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 1, 129, 256, 4096, 10240, {66, 322, 35, 5, 1, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 1, 1024, 4096, 4096, 10240, {66, 415, 35, 5, 5, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 1, 4097, INT64_MAX, 4096, 10240, {66, 423, 35, 3, 7, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 3, 129, 256, 4096, 4096, {66, 31, 35, 5, 7, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 3, 1024, 4096, 4096, 4096, {66, 408, 35, 2, 5, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 3, 4097, INT64_MAX, 4096, 4096, {66, 407, 35, 3, 1, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 1, 129, 256, 4096, 4096, {66, 18, 35, 3, 0, 0, 0}},
    {h200, CUBLASLT_EPILOGUE_DEFAULT, true, 1, 1024, INT64_MAX, 4096, 4096, {66, 407, 35, 3, 1, 0, 0}},
};

static const struct preferred *preferred_for(const struct cuda *c, const struct product *o)
{
    if (o->in != DT_BF16 || o->out != DT_BF16 || o->ta || o->alignment < 16) return NULL;
    for (const struct preferred &p : preferred)
        if (cuda_card_is(c, p.card) && p.epilogue == o->epilogue && p.tb == o->tb && p.parts == o->parts &&
            o->m >= p.rows_least && o->m <= p.rows_most && p.n == o->n && p.k == o->k)
            return &p;
    return NULL;
}

static struct knobs knobs_of(const cublasLtMatmulAlgo_t *algo)
{
    struct knobs n = {};
#define GET(name, to)                                                                                        \
    cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_CONFIG_##name, &n.to, sizeof n.to, NULL)
    GET(ID, id), GET(TILE_ID, tile), GET(STAGES_ID, stages), GET(CLUSTER_SHAPE_ID, cluster);
    GET(CUSTOM_OPTION, custom), GET(CTA_SWIZZLING, swizzle), GET(INNER_SHAPE_ID, inner);
#undef GET
    return n;
}

static bool algorithm_fits(const struct cuda *c, const struct plan *p, const cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulHeuristicResult_t can;
    return !cublasLtMatmulAlgoCheck(c->blas, p->what, p->first, p->second, p->result, p->result, algo,
                                    &can) &&
           can.workspaceSize <= c->workspace_size;
}

/* The plan's algorithm becomes this one; false where this version of cuBLASLt or the shape does not take it. */
static bool algorithm_of(const struct cuda *c, struct plan *p, const struct knobs *n)
{
    const cudaDataType_t in = cuda_type(p->of.in), out = cuda_type(p->of.out);
    cublasLtMatmulAlgo_t algo;
    if (cublasLtMatmulAlgoInit(c->blas, CUBLAS_COMPUTE_32F, CUDA_R_32F, in, in, out, out, n->id, &algo))
        return false;
#define SET(name, from)                                                                                      \
    !cublasLtMatmulAlgoConfigSetAttribute(&algo, CUBLASLT_ALGO_CONFIG_##name, &n->from, sizeof n->from)
    const bool good = SET(TILE_ID, tile) && SET(STAGES_ID, stages) && SET(CLUSTER_SHAPE_ID, cluster) &&
                      SET(CUSTOM_OPTION, custom) && SET(CTA_SWIZZLING, swizzle) && SET(INNER_SHAPE_ID, inner);
#undef SET
    if (!good || !algorithm_fits(c, p, &algo)) return false;
    p->algo = algo;
    return true;
}

/* The heuristics' list; `count` is 1 at least where there is no error. */
static cublasStatus_t list(struct cuda *c, const struct plan *p,
                           cublasLtMatmulHeuristicResult_t found[CANDIDATES], int *count)
{
    cublasLtMatmulPreference_t wish;
    cublasStatus_t e = cublasLtMatmulPreferenceCreate(&wish);
    if (e) return e;
    const uint32_t aligned = p->of.alignment;
    e = prefer(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (uint64_t)c->workspace_size);
    if (!e)
        e = prefer(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                   p->of.chosen_for ? (uint32_t)CUBLASLT_REDUCTION_SCHEME_NONE
                                    : (uint32_t)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    if (!e) e = prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned);
    if (!e) e = prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned);
    if (!e) e = prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned);
    if (!e) e = prefer(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned);
    if (!e)
        e = cublasLtMatmulAlgoGetHeuristic(c->blas, p->what, p->first, p->second, p->result, p->result, wish,
                                           CANDIDATES, found, count);
    cublasLtMatmulPreferenceDestroy(wish);
    return !e && !*count ? CUBLAS_STATUS_NOT_SUPPORTED : e;
}

/* The one that is preferred, or the first of the heuristics' list. */
static cublasStatus_t choose(struct cuda *c, struct plan *p)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    const struct preferred *wish = c->candidate < 0 ? preferred_for(c, &p->of) : NULL;
    int count = 0;
    p->as_preferred = wish && algorithm_of(c, p, &wish->knobs);
    if (!p->as_preferred) {
        const cublasStatus_t e = list(c, p, found, &count);
        if (e) return e;
        if (c->candidate >= count) return CUBLAS_STATUS_NOT_SUPPORTED;
        p->algo = found[c->candidate < 0 ? 0 : c->candidate].algo;
    }
    const struct knobs n = knobs_of(&p->algo);
    snprintf(c->chosen, sizeof c->chosen, "{%d, %u, %u, %u, %u, %u, %u}", n.id, n.tile, n.stages, n.cluster,
             n.custom, n.swizzle, n.inner);
    return CUBLAS_STATUS_SUCCESS;
}

/* The algorithm that another number of rows gets: its tiles and its order of terms do not depend on m, nor do
 * a row's bits then. Or, where that one is preferred, the one that is preferred for these rows. */
static cublasStatus_t choose_for(struct cuda *c, struct plan *p)
{
    struct plan other = {};
    other.of = p->of;
    other.of.m = p->of.chosen_for;
    other.of.part_step = other.of.m * other.of.n;
    cublasStatus_t e = describe(&other);
    if (!e) e = choose(c, &other);
    p->algo = other.algo;
    plan_clear(&other);
    if (e) return e;
    const struct preferred *wish = other.as_preferred ? preferred_for(c, &p->of) : NULL;
    if (wish && algorithm_of(c, p, &wish->knobs)) return CUBLAS_STATUS_SUCCESS;
    return algorithm_fits(c, p, &p->algo) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static unsigned hash(const struct product *o)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *o; i++) h = (h ^ ((const uint8_t *)o)[i]) * 1099511628211u;
    return (unsigned)(h >> 32) % SETS;
}

/* NULL with the reason in e. */
static struct plan *plan_for(struct cuda *c, const struct product *o, cublasStatus_t *e)
{
    const unsigned set = hash(o);
    *e = CUBLAS_STATUS_ALLOC_FAILED;
    if (!c->products) c->products = (struct matmul_plans *)calloc(1, sizeof *c->products);
    if (!c->products) return NULL;
    for (int i = 0; i < WAYS; i++) {
        struct plan *p = c->products->plan[set][i];
        if (p && !memcmp(&p->of, o, sizeof *o)) return p;
    }
    struct plan *p = (struct plan *)calloc(1, sizeof *p);
    if (!p) return NULL;
    p->of = *o;
    *e = describe(p);
    if (!*e) *e = o->chosen_for ? choose_for(c, p) : choose(c, p);
    if (*e) {
        plan_free(p);
        return NULL;
    }
    struct plan **slot = &c->products->plan[set][c->products->next[set]++ % WAYS];
    plan_free(*slot);
    return *slot = p;
}

/* c [m,n] = alpha op(a) op(b) + beta c, then the epilogue with bias and aux. */
struct arguments {
    struct product of;
    const void *a, *b, *bias, *a_scale, *b_scale; /* scales, F32, of FP8 alone */
    void *c, *aux;
    float alpha, beta;
};

static struct arguments arguments(struct tensor *c, const struct tensor *a, bool ta, const struct tensor *b,
                                  bool tb)
{
    struct arguments g;
    memset(&g, 0, sizeof g); /* the padding, too: plans are compared by bytes */
    g.of.m = c->shape[0], g.of.n = c->shape[1], g.of.k = a->shape[!ta], g.of.parts = 1;
    g.of.part_step = g.of.m * g.of.n;
    g.of.ta = ta, g.of.tb = tb, g.of.in = (uint8_t)a->dtype, g.of.out = (uint8_t)c->dtype;
    g.of.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    g.a = a->data, g.b = b->data, g.c = c->data;
    g.alpha = 1;
    return g;
}

template <typename T>
__global__ static void without_products(T *c, const T *bias, float beta, int64_t n, int64_t count)
{
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= count) return;
    c[i] = from_float<T>((beta != 0 ? beta * to_float(c[i]) : 0) + (bias ? to_float(bias[i % n]) : 0));
}

/* CUBLAS_STATUS_NOT_SUPPORTED where cuBLASLt has no algorithm for it. */
static cublasStatus_t multiply(struct kern *k, struct arguments *g)
{
    struct cuda *c = cuda_of(k);
    const int64_t count = g->of.m * g->of.n * g->of.parts;
    if (count == 0) return CUBLAS_STATUS_SUCCESS;
    if (g->of.k == 0 && g->of.epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
        g->of.epilogue != CUBLASLT_EPILOGUE_BIAS)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (g->of.k == 0) {
        CALL_BY_DTYPE(g->of.out, T,
                      without_products<<<(unsigned)ceil_div(count, 256), 256, 0, c->stream>>>(
                          (T *)g->c, (const T *)g->bias, g->beta, g->of.n, count));
        return cudaGetLastError() ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
    }
    g->of.adds = g->beta != 0;
    uintptr_t together =
        (uintptr_t)g->a | (uintptr_t)g->b | (uintptr_t)g->c | (uintptr_t)g->bias | (uintptr_t)g->aux | 16;
    if (g->of.parts > 1) /* every part begins so, however many rows it has */
        together |= (uintptr_t)(g->of.n * g->of.k) * dtype_size((enum dtype)g->of.in) |
                    (uintptr_t)g->of.n * dtype_size((enum dtype)g->of.out);
    g->of.alignment = (uint8_t)(together & -together);
    cublasStatus_t e;
    kern_took(k, "cuBLASLt");
    struct plan *p = plan_for(c, &g->of, &e);
    if (!p) return e;
    e = CUBLAS_STATUS_SUCCESS;
    if (g->bias) e = set(p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g->bias);
    if (g->aux && !e) e = set(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, g->aux);
    if (g->a_scale && !e) e = set(p->what, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, g->b_scale);
    if (g->a_scale && !e) e = set(p->what, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, g->a_scale);
    if (e) return e;
    return cublasLtMatmul(c->blas, p->what, &g->alpha, g->b, p->first, g->a, p->second, &g->beta, g->c,
                          p->result, g->c, p->result, &p->algo, c->workspace, c->workspace_size, c->stream);
}

extern "C" void cuda_matmul(struct kern *k, struct tensor *c, const struct tensor *a, bool ta,
                            const struct tensor *b, bool tb, double alpha, double beta)
{
    if (c->dtype == DT_F64) {
        kern_fail(k, "matmul: products in F64 are for the CPU, not %s", k->device);
        return;
    }
    struct arguments g = arguments(c, a, ta, b, tb);
    g.alpha = (float)alpha, g.beta = (float)beta;
    cublas_good(k, "matmul", multiply(k, &g));
}

static struct arguments linear(struct tensor *y, const struct tensor *x, const struct tensor *w,
                               const struct tensor *b)
{
    struct arguments g = arguments(y, x, false, w, true);
    if (b) g.bias = b->data, g.of.epilogue = CUBLASLT_EPILOGUE_BIAS;
    return g;
}

extern "C" void cuda_linear_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                    const struct tensor *w, const struct tensor *b)
{
    if (x->shape[0] == 1 && cuda_row_product(k, y, x, w, b, false)) return;
    struct arguments g = linear(y, x, w, b);
    cublas_good(k, "linear_forward", multiply(k, &g));
}

extern "C" void cuda_linear_fp8_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                        const struct tensor *x_scale, const struct tensor *w,
                                        const struct tensor *w_scale, const struct tensor *b)
{
    if (k->planning) return;
    if (y->dtype != DT_BF16 || w->shape[0] % 16 || w->shape[1] % 16) {
        kern_fail(k, "linear_fp8_forward: %s, %lld to %lld: on %s it is for BF16 and multiples of 16",
                  dtype_name(y->dtype), (long long)w->shape[1], (long long)w->shape[0], k->device);
        return;
    }
    struct arguments g = linear(y, x, w, b);
    g.a_scale = x_scale->data, g.b_scale = w_scale->data;
    cublas_good(k, "linear_fp8_forward", multiply(k, &g));
}

/* Cards and versions of cuBLASLt without these products have no algorithm for one of them. */
bool cuda_can_fp8(struct kern *k)
{
    struct cuda *c = cuda_of(k);
    struct product o;
    cublasStatus_t e = CUBLAS_STATUS_NOT_SUPPORTED;
    memset(&o, 0, sizeof o);
    o.m = o.n = o.k = 256, o.parts = 1, o.part_step = o.m * o.n, o.tb = true;
    o.in = DT_U8, o.out = DT_BF16, o.alignment = 16, o.epilogue = CUBLASLT_EPILOGUE_BIAS;
    if (c->capability >= 89 && plan_for(c, &o, &e)) return true;
    kern_fail(
        k,
        "FP8: %s is a %s of compute capability %d.%d; cuBLASLt has products of rows with scales for 9.0 "
        "alone, from 12.9 on",
        k->device, c->card, c->capability / 10, c->capability % 10);
    return false;
}

/* Whatever the number of rows above FEW_ROWS, a row of the result has the same bits: the algorithm is that of so many
 * rows, and where it does not take all of them they go so many at a time. */
static cublasStatus_t multiply_rows(struct kern *k, struct arguments *g)
{
    const int64_t ROWS = 226; /* a prompt's */
    const struct arguments all = *g;
    const size_t x_row = (size_t)all.of.k * dtype_size((enum dtype)all.of.in),
                 y_row = (size_t)all.of.n * dtype_size((enum dtype)all.of.out);
    g->of.chosen_for = ROWS;
    cublasStatus_t e = multiply(k, g);
    if (e == CUBLAS_STATUS_SUCCESS) return e;
    if (all.of.m <= ROWS) {
        g->of.chosen_for = 0;
        return multiply(k, g);
    }
    e = CUBLAS_STATUS_SUCCESS;
    for (int64_t row = 0; row < all.of.m && !e; row += ROWS) {
        g->of.m = all.of.m - row < ROWS ? all.of.m - row : ROWS;
        g->a = (const char *)all.a + (size_t)row * x_row;
        g->c = (char *)all.c + (size_t)row * y_row;
        e = multiply(k, g);
    }
    return e;
}

/* 226 rows by T5's q, k and v: 41 us, where the three take 65 one by one, 2 x 10240 61 us
 * where they take 73. */
extern "C" void cuda_linear_parts_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                          const struct tensor *w)
{
    if (cuda_row_product(k, y, x, w, NULL, false)) return;
    struct tensor part = *y;
    part.rank = 2, part.shape[0] = y->shape[1], part.shape[1] = y->shape[2];
    struct arguments g = arguments(&part, x, false, w, true);
    g.of.parts = y->shape[0];
    cublas_good(k, "linear_parts_forward", multiply_rows(k, &g));
}

extern "C" void cuda_linear_add_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                        const struct tensor *w)
{
    if (cuda_row_product(k, y, x, w, NULL, true)) return;
    struct arguments g = linear(y, x, w, NULL);
    g.beta = 1;
    cublas_good(k, "linear_add_forward", multiply_rows(k, &g));
}

/* Both products of a gated layer, [2,n,out] in scratch; false when there is none (planning). */
static bool both_products(struct kern *k, struct tensor half[2], const struct tensor *y,
                          const struct tensor *x, const struct tensor *w)
{
    const int64_t shape[] = {3, 2, y->shape[0], y->shape[1]};
    struct tensor both = kern_tensor_shape(k, y->dtype, shape);
    for (int i = 0; i < 2; i++) half[i] = tensor_rows(&both, i, 1);
    if (!both.data) return false;
    cuda_linear_parts_forward(k, &both, x, w);
    return kern_ok(k);
}

extern "C" void cuda_linear_gelu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                             const struct tensor *w)
{
    struct tensor half[2];
    if (both_products(k, half, y, x, w)) cuda_gelu_mul_forward(k, y, &half[0], &half[1]);
}

extern "C" void cuda_linear_silu_mul_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                             const struct tensor *w)
{
    struct tensor half[2];
    if (both_products(k, half, y, x, w)) cuda_silu_mul_forward(k, y, &half[0], &half[1]);
}

extern "C" void cuda_linear_backward(struct kern *k, struct tensor *dx, const struct tensor *dy,
                                     const struct tensor *w, bool add)
{
    struct arguments g = arguments(dx, dy, false, w, false);
    g.beta = add;
    cublas_good(k, "linear_backward", multiply(k, &g));
}

/* Where cuBLASLt has no epilogue for a shape or dtype, what it would do is a pass of its own. */
struct quick_gelu_of {
    __device__ float operator()(float u, float) const { return quick_gelu(u); }
};

template <typename F>
static void activated(struct kern *k, const char *what, struct tensor *y, struct tensor *pre,
                      const struct tensor *x, const struct tensor *w, const struct tensor *b, F f)
{
    struct arguments g = linear(pre, x, w, b);
    if (cublas_good(k, what, multiply(k, &g))) map_all<false>(k, what, y, pre, NULL, f);
}

extern "C" void cuda_linear_gelu_forward(struct kern *k, struct tensor *y, struct tensor *pre,
                                         const struct tensor *x, const struct tensor *w,
                                         const struct tensor *b)
{
    struct arguments g = linear(y, x, w, b);
    g.of.epilogue = (uint16_t)((b ? CUBLASLT_EPILOGUE_BIAS : 0) |
                               (pre ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU));
    g.aux = pre ? pre->data : NULL;
    cublasStatus_t e = CUBLAS_STATUS_NOT_SUPPORTED;
    if (y->dtype == DT_BF16 && y->shape[1] % 8 == 0) e = multiply(k, &g);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED)
        activated(k, "linear_gelu_forward", y, pre ? pre : y, x, w, b, gelu_of());
    else
        cublas_good(k, "linear_gelu_forward", e);
}

extern "C" void cuda_linear_quick_gelu_forward(struct kern *k, struct tensor *y, const struct tensor *x,
                                               const struct tensor *w, const struct tensor *b)
{
    activated(k, "linear_quick_gelu_forward", y, y, x, w, b, quick_gelu_of());
}

extern "C" void cuda_linear_gelu_backward(struct kern *k, struct tensor *dpre, const struct tensor *dy,
                                          const struct tensor *w, const struct tensor *pre)
{
    struct arguments g = arguments(dpre, dy, false, w, false);
    cublasStatus_t e = CUBLAS_STATUS_NOT_SUPPORTED;
    if (dpre->dtype == DT_BF16 && dpre->shape[1] % 8 == 0) {
        g.of.epilogue = CUBLASLT_EPILOGUE_DGELU;
        g.aux = pre->data;
        e = multiply(k, &g);
    }
    if (e != CUBLAS_STATUS_NOT_SUPPORTED) {
        cublas_good(k, "linear_gelu_backward", e);
        return;
    }
    g.of.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    g.aux = NULL;
    if (cublas_good(k, "linear_gelu_backward", multiply(k, &g)))
        map_all<true>(k, "linear_gelu_backward", dpre, dpre, pre, times_gelu_slope());
}
