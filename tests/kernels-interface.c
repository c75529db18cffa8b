/* What all operations have in common: wrong arguments are named, errors stick, planning touches nothing. And
 * the rest of the interface: devices, memory, the scratch stack. */
#include "tests/kernels.h"

#include <sys/resource.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* gcc's name for it */
#endif
#endif

/* One call of each operation. `arguments` names its tensors in the order in which t[] holds them: name, ?
 * when it may be missing, & when it goes with another, dtype and shape; ~ before a size that nothing else
 * depends on. An operation without an entry does not compile. */
enum { MAX_ARGUMENTS = 32 };
struct op {
    const char *name, *arguments;
    void (*call)(struct kern *k, struct tensor **t);
};
#define OP(name) static void call_##name(struct kern *k, struct tensor **t);
KERNEL_OPS(OP)
#undef OP
#define CALL(name, text, ...)                                                                                \
    static const char arguments_##name[] = text;                                                             \
    static void call_##name(struct kern *k, struct tensor **t)                                               \
    {                                                                                                        \
        name(k, __VA_ARGS__);                                                                                \
    }

static double sink;

/* Weights that go together in one array; a missing one is all zeros. */
static struct tensor *weights_of(struct tensor **t, int n)
{
    static struct tensor all[2][GDN_PARAMS];
    static int turn;
    struct tensor *w = all[turn = !turn];
    for (int i = 0; i < n; i++) w[i] = t[i] ? *t[i] : (struct tensor){0};
    return w;
}

CALL(matmul, "c F32 3 5, a F32 3 4, b F32 4 5", t[0], t[1], false, t[2], false, 1, 0)
CALL(thin_down_forward, "z F32 3 2, x F32 3 4, a F32 2 4", t[0], t[1], t[2], 1)
CALL(thin_down_backward, "dx? F32 3 4, da F32 2 4, dz F32 3 2, x F32 3 4, a F32 2 4", t[0], t[1], t[2], t[3],
     t[4], 1)
CALL(thin_up_forward, "y F32 3 5, z F32 3 2, b F32 5 2", t[0], t[1], t[2], 0.5, 1)
CALL(thin_up_backward, "dz F32 3 2, db F32 5 2, dy F32 3 5, z F32 3 2, b F32 5 2", t[0], t[1], t[2], t[3],
     t[4], 0.5, 1)
CALL(linear_forward, "y F32 3 5, x F32 3 4, w F32 5 4, b? F32 5", t[0], t[1], t[2], t[3])
CALL(linear_backward, "dx F32 3 4, dy F32 3 5, w F32 5 4", t[0], t[1], t[2], false)
CALL(linear_gelu_forward, "y F32 3 5, pre? F32 3 5, x F32 3 4, w F32 5 4, b? F32 5", t[0], t[1], t[2], t[3],
     t[4])
CALL(linear_gelu_backward, "dpre F32 3 4, dy F32 3 5, w F32 5 4, pre F32 3 4", t[0], t[1], t[2], t[3])
CALL(fp8_rows, "codes U8 3 4, scale F32 3, x F32 3 4", t[0], t[1], t[2])
CALL(fp8_gelu_rows, "codes U8 3 4, scale F32 3, x F32 3 4", t[0], t[1], t[2])
CALL(linear_fp8_forward, "y F32 3 5, x U8 3 4, x_scale F32 3, w U8 5 4, w_scale F32 5, b? F32 5", t[0], t[1],
     t[2], t[3], t[4], t[5])
CALL(embedding_forward, "y F32 3 4, table F32 ~7 4, ids I32 3", t[0], t[1], t[2])
CALL(layer_norm_forward, "y F32 3 4, x F32 3 4, w& F32 4, b& F32 4, scale& F32 4, shift& F32 4", t[0], t[1],
     t[2], t[3], t[4], t[5], 1e-5f)
CALL(layer_norm_backward, "dx F32 3 4, dy F32 3 4, x F32 3 4, w? F32 4, scale? F32 4", t[0], t[1], t[2], t[3],
     t[4], 1e-5f, false)
CALL(rms_norm_forward, "y F32 3 4, x F32 3 4, w F32 4", t[0], t[1], t[2], 1e-5f)
CALL(qk_norm_rope_forward, "y F32 3 8, x F32 3 8, w F32 4, b F32 4, cos& F32 2 4, sin& F32 2 4", t[0], t[1],
     t[2], t[3], t[4], t[5], 1, 1e-6f, 1)
CALL(qk_norm_rope_backward, "dx F32 3 8, dy F32 3 8, x F32 3 8, w F32 4, cos& F32 2 4, sin& F32 2 4", t[0],
     t[1], t[2], t[3], t[4], t[5], 1, 1e-6f, 1)
CALL(rms_norm_rope_forward, "y F32 3 8, x F32 3 8, w F32 8, cos& F32 3 2, sin& F32 3 2", t[0], t[1], t[2],
     t[3], t[4], 1e-6f, 1)
CALL(rms_norm_rope_backward, "dx F32 3 8, dy F32 3 8, x F32 3 8, w F32 8, cos& F32 3 2, sin& F32 3 2", t[0],
     t[1], t[2], t[3], t[4], t[5], 1e-6f, 1)
CALL(group_norm_silu_forward, "y F32 2 3 2 4, x F32 2 3 2 4, w F32 4, b F32 4", t[0], t[1], t[2], t[3], 2,
     1e-6f)
CALL(spatial_norm_silu_forward,
     "y F32 2 3 2 4, x F32 2 3 2 4, w F32 4, b F32 4, mul F32 1 1 1 4, add F32 1 1 1 4", t[0], t[1], t[2],
     t[3], t[4], t[5], 2, 1e-6f)
CALL(channel_norm_forward, "y F32 2 3 2 4, x F32 2 3 2 4, w F32 4", t[0], t[1], t[2], true)
CALL(attention_forward, "o F32 3 8, lse? F32 2 3, q F32 3 8, kk F32 3 8, v F32 3 8, bias? F32 2 5", t[0],
     t[1], t[2], t[3], t[4], t[5], &(struct attention){2, 0.5f, 1, false})
CALL(attention_backward,
     "dq F32 3 8, dk& F32 3 8, dv& F32 3 8, dout F32 3 8, o F32 3 8, lse F32 2 3, q F32 3 8, kk F32 3 8, v "
     "F32 3 8",
     t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], &(struct attention){2, 0.5f, 1, false})
CALL(gated_add_forward, "out F32 3 4, x F32 3 4, y F32 3 4, gate F32 4", t[0], t[1], t[2], t[3])
CALL(gated_add_backward, "dy F32 3 4, dx F32 3 4, gate F32 4", t[0], t[1], t[2])
CALL(add, "y F32 3 4, x F32 3 4", t[0], t[1])
CALL(axpby, "y F32 3 4, x F32 3 4", t[0], 2, t[1], 3)
CALL(silu_forward, "y F32 3 4, x F32 3 4", t[0], t[1])
CALL(gelu_forward, "y F32 3 4, x F32 3 4", t[0], t[1])
CALL(gelu_backward, "dx F32 3 4, dy F32 3 4, x F32 3 4", t[0], t[1], t[2])
CALL(gelu_mul_forward, "y F32 3 4, a F32 3 4, b F32 3 4", t[0], t[1], t[2])
CALL(silu_mul_forward, "y F32 3 4, a F32 3 4, b F32 3 4", t[0], t[1], t[2])
CALL(linear_quick_gelu_forward, "y F32 3 5, x F32 3 4, w F32 5 4, b F32 5", t[0], t[1], t[2], t[3])
CALL(linear_parts_forward, "y F32 3 2 5, x F32 2 4, w F32 15 4", t[0], t[1], t[2])
CALL(linear_add_forward, "y F32 3 5, x F32 3 4, w F32 5 4", t[0], t[1], t[2])
CALL(linear_gelu_mul_forward, "y F32 3 5, x F32 3 4, w F32 10 4", t[0], t[1], t[2])
CALL(linear_silu_mul_forward, "y F32 3 5, x F32 3 4, w F32 10 4", t[0], t[1], t[2])
CALL(rope_forward, "y F32 3 8, x F32 3 8, cos F32 5 2, sin F32 5 2", t[0], t[1], t[2], t[3], 1)
CALL(pixel_patches, "y F32 12 12, u8 U8 2 4 6 3", t[0], t[1], 2, (float[3]){0}, (float[3]){1, 1, 1})
CALL(class_tokens_forward, "y F32 6 4, x F32 4 4, cls F32 4, pos F32 3 4", t[0], t[1], t[2], t[3])
CALL(time_conv_quick_gelu_forward, "y F32 3 2 4, x F32 3 2 4, w F32 4 3, b F32 4", t[0], t[1], t[2], t[3])
CALL(random_normal, "y F32 ~3 ~4", t[0], &(struct random_normal){.std = 1})
CALL(patchify, "y F32 4 12, x F32 2 3 2 4", t[0], t[1], 2)
CALL(unpatchify, "x F32 2 3 2 4, y F32 4 12", t[0], t[1], 2)
CALL(causal_conv3d_forward,
     "y F32 2 3 4 5, x F32 4 3 4 2, history F32 2 3 4 2, w F32 5 3 3 3 2, b F32 5, "
     "residual? F32 2 3 4 5",
     t[0], t[1], t[2], true, t[3], t[4], t[5])
CALL(conv2d_forward, "y F32 2 3 4 5, x F32 2 3 4 2, w F32 5 3 3 2, b F32 5", t[0], t[1], t[2], t[3], 1)
CALL(time_conv_forward, "y F32 2 3 4 5, x F32 4 3 4 2, w F32 5 3 1 1 2, b F32 5", t[0], t[1], t[2], t[3], 1)
CALL(halve_time_forward, "y F32 2 3 4 2, x F32 3 3 4 2", t[0], t[1])
CALL(upsample_conv2d_forward, "y F32 2 6 8 5, x F32 2 3 4 2, w F32 5 3 3 2, b F32 5", t[0], t[1], t[2], t[3])
CALL(channels_last, "y F32 2 4 5 3, x F32 2 3 4 5", t[0], t[1], 1)
CALL(channels_second, "y F32 2 3 4 5, x F32 2 4 5 3", t[0], t[1], 1)
CALL(pixels_to_unit, "y F32 3 4, u8 U8 3 4", t[0], t[1])
CALL(unit_to_pixels, "u8 U8 3 4, y F32 3 4", t[0], t[1])
CALL(fold_pixels, "y F32 2 3 4 20, x F32 2 6 8 5", t[0], t[1], 2)
CALL(unfold_pixels, "x F32 2 6 8 5, y F32 2 3 4 20", t[0], t[1], 2)
CALL(average_blocks_forward, "y F32 2 3 4 12, x F32 3 6 8 3", t[0], t[1], 2, 2)
CALL(repeat_blocks_add, "y F32 3 6 8 3, x F32 2 3 4 12", t[0], t[1], 2, 2)
CALL(copy_window, "y F32 2 ~4 ~5 3, x F32 2 ~6 ~7 3", t[0], 1, 2, t[1], 3, 4, 3, 3)
CALL(blend_edge, "b F32 2 ~4 5 3, a F32 2 ~3 5 3", t[0], t[1], 2, true)
CALL(mse_forward_backward, "dpred? F32 3 4, pred F32 3 4, target F32 3 4", &sink, t[0], t[1], t[2], 1)
CALL(sum_squares, "x F32 ~3 ~4", &sink, t[0])
CALL(temporal_attention_forward, "y F32 2 3 4, z F32 2 3 4, q F32 4 4, k F32 4 4, v F32 4 4", t[0], t[1],
     weights_of(t + 2, 3), 2)
CALL(temporal_attention_backward,
     "dz F32 2 3 4, dq F32 4 4, dk F32 4 4, dv F32 4 4, dy F32 2 3 4, z F32 2 3 4, q F32 4 4, k F32 4 4, v "
     "F32 4 4",
     t[0], weights_of(t + 1, 3), t[4], t[5], weights_of(t + 6, 3), 2)
#define GDN_WEIGHTS(d)                                                                                       \
#d "qkv F32 12 4, " #d "qkv_bias F32 12, " #d "gate F32 4 4, " #d "gate_bias F32 4, " #d                 \
       "alpha_h F32 3 4, " #d "alpha_h_bias F32 3, " #d "alpha_w F32 2 4, " #d "alpha_w_bias F32 2, " #d     \
       "beta_h F32 3 4, " #d "beta_h_bias F32 3, " #d "beta_w F32 2 4, " #d "beta_w_bias F32 2, " #d         \
       "norm F32 4, " #d "kernel F32 1 3 2 2"
CALL(gdn_cssm_forward, "o F32 2 3 2 4, z F32 2 3 2 4, " GDN_WEIGHTS(), t[0], t[1],
     weights_of(t + 2, GDN_PARAMS), 1, 4, true)
CALL(gdn_cssm_backward, "dz F32 2 3 2 4, " GDN_WEIGHTS(d) ", dout F32 2 3 2 4, z F32 2 3 2 4, " GDN_WEIGHTS(),
     t[0], weights_of(t + 1, GDN_PARAMS), t[1 + GDN_PARAMS], t[2 + GDN_PARAMS],
     weights_of(t + 3 + GDN_PARAMS, GDN_PARAMS), 1, 4, true)
CALL(adamw_step, "p F32 3 4, m F32 3 4, v F32 3 4, g F32 3 4", t[0], t[1], t[2], t[3], 1, 1,
     &(struct adamw){1e-3, 0.9, 0.999, 1e-8, 0})

static const struct op ops[] = {
#define OP(name) {#name, arguments_##name, call_##name},
    KERNEL_OPS(OP)
#undef OP
};

struct argument {
    char name[16];
    bool optional, paired, loose[TENSOR_MAX_RANK];
    struct tensor tensor, *passed;
};

/* The arguments that the text describes, with memory of their own: zeros, which every
 * operation can work on. */
static int make_arguments(struct argument *a, const char *text)
{
    int n = 0;
    fresh();
    while (*text) {
        char name[16], dtype[8];
        int used;
        sscanf(text, "%15s %7s%n", name, dtype, &used);
        struct argument *it = &a[n++];
        *it = (struct argument){
            .optional = strchr(name, '?'), .paired = strchr(name, '&'), .passed = &it->tensor};
        snprintf(it->name, sizeof it->name, "%.*s", (int)strcspn(name, "?&"), name);
        dtype_parse(&it->tensor.dtype, dtype);
        for (text += used; *text == ' '; text += used) {
            int64_t *size = &it->tensor.shape[it->tensor.rank];
            text += 1;
            it->loose[it->tensor.rank++] = *text == '~';
            text += *text == '~';
            *size = strtol(text, (char **)&text, 10);
            used = 0;
        }
        int64_t shape[1 + TENSOR_MAX_RANK] = {it->tensor.rank};
        memcpy(shape + 1, it->tensor.shape, sizeof it->tensor.shape);
        it->tensor = buffer_shape(it->tensor.dtype, shape);
        memset(it->tensor.data, 0, tensor_bytes(&it->tensor));
        text += *text == ',' ? 2 : 0;
    }
    return n;
}

static void call(const struct op *op, struct kern *k, struct argument *a, int n)
{
    struct tensor *t[MAX_ARGUMENTS];
    for (int i = 0; i < n; i++) t[i] = a[i].passed;
    op->call(k, t);
}

/* The call must be refused with a message that begins with the operation's name and says `word`, and must
 * write nothing. */
static bool refused(const struct op *op, struct argument *a, int n, const char *word)
{
    struct kern *k = kerns[0];
    char start[64];
    snprintf(start, sizeof start, "%s: ", op->name);
    memcpy(snapshot, arena, arena_used + RED_ZONE);
    kern_clear(k);
    call(op, k, a, n);
    bool good = !strncmp(kern_error(k), start, strlen(start)) && strstr(kern_error(k), word) &&
                !memcmp(snapshot, arena, arena_used + RED_ZONE);
    if (!good) printf("# %s: %s is not refused as it should: \"%s\"\n", op->name, word, kern_error(k));
    kern_clear(k);
    return good;
}

static void test_arguments(const struct op *op)
{
    struct argument a[MAX_ARGUMENTS];
    int n = make_arguments(a, op->arguments);
    bool missing = true, shapes = true, dtypes = true, memory = true, optional = true;
    for (int i = 0; i < n; i++) {
        struct tensor good = a[i].tensor;
        a[i].passed = NULL;
        if (a[i].optional) {
            call(op, kerns[0], a, n);
            optional = optional && kern_ok(kerns[0]);
        } else {
            missing = missing && refused(op, a, n, a[i].paired ? " go together" : " is missing");
        }
        a[i].passed = &a[i].tensor;
        for (int d = 0; d < good.rank; d++) {
            if (a[i].loose[d]) continue;
            a[i].tensor.shape[d]--; /* fewer, so that even an operation that does not notice stays within the
                                       buffer */
            shapes = shapes && refused(op, a, n, "");
            a[i].tensor = good;
        }
        a[i].tensor.dtype = good.dtype == DT_I32 ? DT_F32 : DT_I32;
        dtypes = dtypes && refused(op, a, n, a[i].name);
        a[i].tensor = good;
        a[i].tensor.data = NULL;
        memory = memory && refused(op, a, n, " has no memory");
        a[i].tensor = good;
    }
    ok(missing, "%s: a missing argument is named", op->name);
    ok(optional, "%s: what may be missing may", op->name);
    ok(shapes, "%s: every wrong size is refused", op->name);
    ok(dtypes, "%s: every wrong dtype is named", op->name);
    ok(memory, "%s: a tensor without memory is refused", op->name);
}

/* After an error nothing is done, and the first message stays; planning neither reads nor writes. */
static void test_silence(const struct op *op)
{
    struct argument a[MAX_ARGUMENTS];
    struct kern *k = kerns[1];
    int n = make_arguments(a, op->arguments);
    kern_fail(k, "first");
    kern_fail(k, "second");
    mprotect(arena, ARENA, PROT_NONE);
    call(op, k, a, n);
    bool stuck = !strcmp(kern_error(k), "first");
    kern_clear(k);
    kern_plan_begin(k);
    for (int i = 0; i < n; i++) a[i].tensor.data = NULL;
    call(op, k, a, n);
    size_t planned = kern_plan_end(k);
    mprotect(arena, ARENA, PROT_READ | PROT_WRITE);
    ok(stuck, "%s: does nothing after an error", op->name);
    ok(kern_ok(k), "%s: plans without memory", op->name);
    make_arguments(a, op->arguments);
    kern_reserve(k, planned);
    k->peak = 0;
    call(op, k, a, n);
    ok(kern_ok(k) && k->peak == planned && k->used == 0, "%s: uses the %zu bytes of scratch it planned",
       op->name, planned);
}

/* Scratch that is too small by one byte is an error with the numbers, not a crash. */
static void test_no_scratch(const struct op *op)
{
    char err[256];
    struct argument a[MAX_ARGUMENTS];
    int n = make_arguments(a, op->arguments);
    struct kern *k = kern_open("cpu", 2, err, sizeof err);
    kern_plan_begin(k);
    call(op, k, a, n);
    size_t planned = kern_plan_end(k);
    if (planned) {
        kern_reserve(k, planned - 64);
        call(op, k, a, n);
        ok(strstr(kern_error(k), "scratch memory is too small"), "%s: %s", op->name, kern_error(k));
    }
    kern_close(k);
}

/* Wrong scalars, and sizes that agree with each other but not with them. */
static void test_scalars(void)
{
    struct kern *k = kerns[0];
    static const int64_t odd[] = {4, 3, 2, 2, 4}, one[] = {4, 1, 1, 1, 4};
    fresh();
    struct tensor x = given(2, 3, 8), y = given(2, 3, 8), w = given(1, 3), w4 = given(1, 4),
                  table = given(2, 3, 3);
    struct tensor video = given_shape(X, odd), out = given_shape(X, odd), z = given_shape(X, one),
                  gain = given(1, 4), none = given(1, 0);
#define REFUSES(word, call)                                                                                  \
    do {                                                                                                     \
        kern_clear(k);                                                                                       \
        call;                                                                                                \
        ok(strstr(kern_error(k), word), "refused: %s", kern_error(k));                                       \
    } while (0)
    REFUSES("no whole heads", qk_norm_rope_forward(k, &y, &x, &w, &w, NULL, NULL, 0, 1e-6f, 1));
    REFUSES("cannot rotate", qk_norm_rope_forward(k, &y, &x, &w4, &w4, &table, &table, 4, 1e-6f, 1));
    struct tensor w8 = given(1, 8);
    REFUSES("no whole heads of 6", rms_norm_rope_forward(k, &y, &x, &w8, &table, &table, 1e-6f, 1));
    struct tensor keys = given(2, 2, 8);
#define ATTEND(keys, ...)                                                                                    \
    attention_forward(k, &y, NULL, &x, keys, keys, NULL, &(struct attention){__VA_ARGS__})
    REFUSES("heads", ATTEND(&x, .heads = 3));
    REFUSES("heads", ATTEND(&x, .heads = 0));
    REFUSES("in 2 sequences", ATTEND(&x, .heads = 2, .batch = 2));
    REFUSES("in -1 sequences", ATTEND(&x, .heads = 2, .batch = -1));
    REFUSES("causal attention of 3 queries to 2 keys", ATTEND(&keys, .heads = 2, .causal = true));
    struct tensor even = given(2, 2, 6), few = given(2, 2, 3);
#define BIASED(bias)                                                                                         \
    attention_forward(k, &y, NULL, &x, &x, &x, bias, &(struct attention){.heads = 2, .scale = 1})
    REFUSES("a bias of 6 distances", BIASED(&even));
    REFUSES("a bias of 3 distances for 3 queries", BIASED(&few));
    struct tensor w3[3] = {w4, w4, w4}, many[GDN_PARAMS] = {w4};
    struct tensor frames = tensor_as(&video, 3, 3, 4, 4), spread = tensor_as(&out, 3, 3, 4, 4);
    REFUSES("rows of 4 in 3 heads", temporal_attention_forward(k, &spread, &frames, w3, 3));
    REFUSES("rank 4 is not in whole heads of 3", gdn_cssm_forward(k, &out, &video, many, 1, 3, false));
    REFUSES("rank 4 is not in whole heads of 0", gdn_cssm_forward(k, &out, &video, many, 1, 0, false));
    REFUSES("0 modules", gdn_cssm_forward(k, &out, &video, many, 0, 4, false));
    REFUSES("cannot rotate heads of 2", gdn_cssm_forward(k, &out, &video, many, 1, 2, true));
    REFUSES("groups", group_norm_silu_forward(k, &out, &video, &gain, &gain, 3, 1e-6f));
    REFUSES("groups", group_norm_silu_forward(k, &out, &video, &gain, &gain, 0, 1e-6f));
    REFUSES("3 frames cannot be led by one",
            spatial_norm_silu_forward(k, &out, &video, &gain, &gain, &z, &z, 2, 1e-6f));
    REFUSES("patches of 3", patchify(k, &y, &video, 3));
    REFUSES("patches of 0", patchify(k, &y, &video, 0));
    struct tensor pixels = buffer_shape(DT_U8, (int64_t[]){4, 1, 2, 4, 3});
    REFUSES("frames of 4x2 in patches of 4", pixel_patches(k, &y, &pixels, 4, (float[3]){0}, (float[3]){0}));
    REFUSES("patches of -2", pixel_patches(k, &y, &pixels, -2, (float[3]){0}, (float[3]){0}));
    struct tensor angles = given(2, 4, 2), wide_angles = given(2, 4, 3), no_angles = given(2, 4, 0);
    REFUSES("no whole heads of 6", rope_forward(k, &y, &x, &wide_angles, &wide_angles, 0));
    REFUSES("no whole heads of 0", rope_forward(k, &y, &x, &no_angles, &no_angles, 0));
    REFUSES("3 rows from position 2 of 4", rope_forward(k, &y, &x, &angles, &angles, 2));
    REFUSES("3 rows from position -1 of 4", rope_forward(k, &y, &x, &angles, &angles, -1));
    REFUSES("from position 9223372036854775807", rope_forward(k, &y, &x, &angles, &angles, INT64_MAX));
    struct tensor alone = given(2, 1, 8);
    struct tensor eight = given(1, 8);
    REFUSES("no channels to go last",
            random_normal(k, &eight, &(struct random_normal){.channels_last = true}));
    REFUSES("tokens in frames of 0", class_tokens_forward(k, &y, &x, &eight, &alone));
    struct tensor kernel = given(4, 4, 3, 3, 4);
    REFUSES("stride 3", conv2d_forward(k, &out, &video, &kernel, &gain, 3));
    struct tensor in_time = given(5, 4, 3, 1, 1, 4), no_frame = given(4, 0, 2, 2, 4);
    REFUSES("stride 3", time_conv_forward(k, &out, &video, &in_time, &gain, 3));
    REFUSES("no frames", time_conv_forward(k, &no_frame, &video, &in_time, &gain, 1));
    REFUSES("squares of 3", fold_pixels(k, &out, &video, 3));
    REFUSES("squares of 0", unfold_pixels(k, &out, &video, 0));
    REFUSES("blocks of 0 frames of 1x1", average_blocks_forward(k, &out, &video, 0, 1));
    REFUSES("blocks of 1 frames of -1x-1", repeat_blocks_add(k, &out, &video, 1, -1));
    REFUSES("[3,2,2] is not [3,2,2] blocks of 2 frames", average_blocks_forward(k, &out, &video, 2, 1));
    struct tensor three = given(4, 3, 2, 2, 3), unseen = given(4, 3, 2, 2, 0);
    REFUSES("blocks of 4 channels give no 3", average_blocks_forward(k, &three, &video, 1, 1));
    REFUSES("blocks of 4 channels give no 0", repeat_blocks_add(k, &video, &unseen, 1, 1));
    REFUSES("copy_window: ", copy_window(k, &out, 0, 0, &video, 1, 0, 2, 1));
    REFUSES("copy_window: ", copy_window(k, &out, -1, 0, &video, 0, 0, 1, 1));
    REFUSES("copy_window: ", copy_window(k, &out, 0, INT64_MAX, &video, 0, 0, 1, 1));
    REFUSES("blend_edge: ", blend_edge(k, &out, &video, 3, true));
    REFUSES("nothing to compare", mse_forward_backward(k, &sink, NULL, &none, &none, 1));
    REFUSES("count from 1", adamw_step(k, &w, &w, &w, &w, 1, 0, &(struct adamw){0}));
    ok(sink == 0, "a loss that could not be had is 0");
    struct tensor empty = given(4, 0, 2, 2, 4), weights = given(5, 4, 3, 3, 3, 4),
                  history = given(4, 2, 2, 2, 4);
    REFUSES("no frames", causal_conv3d_forward(k, &empty, &empty, &history, true, &weights, &gain, NULL));
    kern_clear(k);
}

static void test_scratch(void)
{
    char err[256];
    struct kern *k = kern_open("cpu", 1, err, sizeof err);
    ok(kern_reserve(k, 1000 * 4 + 64), "scratch is reserved");
    struct tensor a = kern_tensor(k, DT_F32, 2, 10, 50);
    size_t mark = kern_mark(k);
    struct tensor b = kern_tensor(k, DT_U8, 1, 1), c = kern_tensor(k, DT_F64, 0);
    ok((uintptr_t)a.data % 64 == 0 && (uintptr_t)b.data % 64 == 0 && (uintptr_t)c.data % 64 == 0,
       "tensors are aligned");
    ok((char *)b.data >= (char *)a.data + 2000 && (char *)c.data > (char *)b.data && tensor_count(&c) == 1,
       "and lie apart");
    kern_release(k, mark);
    struct tensor d = kern_tensor(k, DT_U8, 1, 1);
    ok(d.data == b.data, "what is released is taken again");
    ok(!kern_reserve(k, 100000) && strstr(kern_error(k), "cannot grow"), "%s", kern_error(k));
    kern_clear(k);
    struct tensor e = kern_tensor(k, DT_F32, 1, 1000);
    ok(!e.data && strstr(kern_error(k), "too small: F32 [1000] needs 4032 bytes, 1952 of 4064"), "%s",
       kern_error(k));
    ok(!kern_tensor(k, DT_F32, 1, 1).data, "after an error there is no more");
    kern_clear(k);
    ok(!kern_tensor(k, DT_F32, 2, INT64_MAX, INT64_MAX).data && strstr(kern_error(k), "no tensor can"), "%s",
       kern_error(k));
    kern_clear(k);
    ok(!kern_tensor(k, DT_F32, 1, -1).data && strstr(kern_error(k), "F32 [-1]"), "%s", kern_error(k));
    kern_clear(k);

    size_t used = kern_mark(k);
    kern_plan_begin(k);
    struct tensor f = kern_tensor(k, DT_F32, 1, 1 << 20);
    size_t half = kern_mark(k);
    kern_tensor(k, DT_F32, 1, 100);
    kern_release(k, half);
    kern_tensor(k, DT_F32, 1, 1);
    ok(!f.data && kern_planning(k) && kern_reserve(k, 1), "planning has no memory to give");
    ok(!kern_alloc(k, DT_F32, 1, 8).data && kern_ok(k), "nor of the lasting kind");
    ok(kern_plan_end(k) == (4 << 20) + 448 && kern_mark(k) == used && !kern_planning(k),
       "a plan is its highest point");
    kern_release(k, 0);
    ok(kern_reserve(k, 100000) && kern_tensor(k, DT_F32, 1, 20000).data, "an empty stack grows");
    kern_close(k);
    kern_close(NULL);
}

static void test_memory(void)
{
    char err[256];
    struct kern *k = kern_open("cpu", 1, err, sizeof err);
    struct tensor t = kern_alloc(k, DT_F32, 2, 1000, 1000);
    bool zero = t.data && (uintptr_t)t.data % 64 == 0;
    for (int64_t i = 0; zero && i < 1000000; i++) zero = ((float *)t.data)[i] == 0;
    ok(zero, "lasting memory is aligned and zero");
    ok(!kern_reserve(k, (size_t)1 << 50) && strstr(kern_error(k), "1073741824.0 MiB needed") &&
           strstr(kern_error(k), "available"),
       "%s", kern_error(k));
    ok(!kern_alloc(k, DT_F32, 1, 8).data, "after an error there is none");
    kern_clear(k);
    ok(!kern_alloc(k, DT_F32, 1, (int64_t)1 << 48).data && strstr(kern_error(k), "F32 [281474976710656]"),
       "%s", kern_error(k));
    kern_clear(k);

#if !defined(__SANITIZE_ADDRESS__) /* which reserves address space beyond any limit */
    struct rlimit old, low;
    getrlimit(RLIMIT_AS, &old);
    low = old;
    low.rlim_cur = 4096;
    setrlimit(RLIMIT_AS, &low);
    bool reserved = kern_reserve(k, 200 << 20);
    setrlimit(RLIMIT_AS, &old);
    ok(!reserved && strstr(kern_error(k), "200.0 MiB needed, and cpu refuses them"), "%s", kern_error(k));
    kern_clear(k);
    ok(kern_reserve(k, 1 << 20), "and after that there may be enough for less");
#endif

    struct tensor u = kern_alloc(k, DT_U8, 1, 4), v = kern_alloc(k, DT_F32, 1, 4),
                  w = kern_alloc(k, DT_BF16, 1, 5);
    kern_upload(k, &v, &u);
    ok(strstr(kern_error(k), "kern_upload: U8 [4] into F32 [4]"), "%s", kern_error(k));
    kern_clear(k);
    kern_download(k, &w, &v);
    ok(strstr(kern_error(k), "kern_download: F32 [4] into BF16 [5]"), "%s", kern_error(k));
    kern_clear(k);
    w.shape[0] = 4;
    kern_copy(k, &w, &v);
    ok(kern_ok(k), "kern_copy converts between float dtypes");
    struct tensor bytes = w;
    bytes.dtype = DT_U8;
    kern_copy(k, &bytes, &v);
    ok(strstr(kern_error(k), "kern_copy: F32 [4] into U8 [4]"), "%s", kern_error(k));
    kern_clear(k);
    v.data = NULL;
    kern_zero(k, &v);
    ok(strstr(kern_error(k), "no memory"), "%s", kern_error(k));
    kern_close(k);
}

static void test_devices(void)
{
    static const struct {
        const char *device, *error;
        int threads;
    } wrong[] = {{"gpu", "gpu: no such device", 0},
                 {"", ": no such device", 0},
                 {"cuda:", "no such device", 0},
                 {"cuda:x", "no such device", 0},
                 {"cuda:-1", "no such device", 0},
                 {"cuda:1x", "no such device", 0},
                 {"cuda:99999999999", "no such device", 0},
                 {"cpu:0", "no such device", 0},
                 {"cpu", "-1 threads", -1},
                 {"cpu", "100000 threads", 100000}};
    char err[256];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err[0] = 0;
        struct kern *k = kern_open(wrong[i].device, wrong[i].threads, err, sizeof err);
        ok(!k && strstr(err, wrong[i].error), "\"%s\", %d threads: %s", wrong[i].device, wrong[i].threads,
           err);
    }
    struct kern *k = kern_open("cuda", 0, err, sizeof err);
    ok(k || err[0], "cuda: %s", k ? kern_device(k) : err);
    kern_close(k);
    k = kern_open("auto", 0, err, sizeof err);
    ok(k && k->threads >= 1 && kern_ok(k), "auto is %s", k ? kern_device(k) : err);
    kern_close(k);
}

static int told;
static char told_last[256];
static void tell(const char *note)
{
    told++;
    snprintf(told_last, sizeof told_last, "%s", note);
}

/* What is said of a device, and one of less memory. */
static void test_descriptions(void)
{
    char err[256] = "";
    int count;
    struct kern *k = kern_open("cpu", 1, err, sizeof err);
    ok(!strncmp(kern_basis(k), "CPU, OpenBLAS ", 14) && strlen(kern_basis(k)) > 16 &&
           !strpbrk(kern_basis(k), "\"\\\n"),
       "what results depend on here: %s", kern_basis(k));
    const struct backend *const own = k->backend;
    struct backend other = *own;
    char before[600];
    k->backend = &other;
    other.kernels = 0;
    snprintf(before, sizeof before, "%s", kern_basis(k));
    other.kernels = 7;
    ok(!strstr(before, "kernels") && !strncmp(kern_basis(k), before, strlen(before)) &&
           !strcmp(kern_basis(k) + strlen(before), ", kernels 7"),
       "kernels that once gave other bits are told by a number: %s", kern_basis(k));
    k->backend = own;
    kern_note(k, "early %d", 1);
    kern_on_note(k, tell);
    ok(told == 1 && !strcmp(told_last, "early 1"), "a note from before anybody listened is told");
    for (int i = 0; i < 3; i++) kern_note(k, "slow %d", 2);
    ok(told == 2 && !strcmp(told_last, "slow 2"), "a note is told once");
    kern_profile_start(k);
    for (int i = 0; i < 3; i++) {
        kern_profile_begin(k);
        if (i) kern_took(k, i == 1 ? "one way" : "another");
        kern_profile_end(k, "operation");
    }
    const struct kern_profile_line *line = kern_profile(k, &count);
    bool seen[3] = {false};
    for (int i = 0; i < count; i++)
        seen[!line[i].way ? 0 : !strcmp(line[i].way, "one way") ? 1 : 2] = line[i].calls == 1;
    ok(count == 3 && seen[0] && seen[1] && seen[2], "a profile has a line for each way of an operation");
    kern_close(k);

    setenv("SLUICE_MEMORY", "0.001", 1); /* 1.024 MiB */
    k = kern_open("cpu", 1, err, sizeof err);
    ok(kern_alloc(k, DT_U8, 1, 512 << 10).data && kern_reserve(k, 256 << 10) && kern_ok(k),
       "within SLUICE_MEMORY");
    ok(kern_reserve(k, 500 << 10), "scratch that grows first gives back what it had");
    ok(!kern_alloc(k, DT_U8, 1, 200 << 10).data && strstr(kern_error(k), "0.2 MiB needed, 0.0 MiB available"),
       "and no more than that: %s", kern_error(k));
    kern_close(k);
    setenv("SLUICE_MEMORY", "lots", 1);
    ok(!kern_open("cpu", 1, err, sizeof err) && strstr(err, "SLUICE_MEMORY=lots"), "%s", err);
    unsetenv("SLUICE_MEMORY");
}

int main(void)
{
    kernels_open();
    kern_reserve(kerns[0], 1 << 20);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        test_arguments(&ops[i]);
        test_silence(&ops[i]);
        test_no_scratch(&ops[i]);
    }
    test_scalars();
    test_scratch();
    test_memory();
    test_devices();
    test_descriptions();
    return kernels_close();
}
