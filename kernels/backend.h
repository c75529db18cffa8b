/* backend - what a device must provide: memory, copies, and one function for each operation of kernels.h.
 * The shared entries have already checked shapes and dtypes; a backend only computes, and reports failure
 * with kern_fail(). Those that kernels.c runs RUN_WITH_SCRATCH are called while planning too, when no tensor
 * has memory: they take what they need from kern_tensor() first, and return when it has no data.
 *
 * Adding an operation: declare it in kernels.h, add it to KERNEL_OPS, write its checks in
 * kernels.c and its body in cpu/. */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "kernels/kernels.h"

/* clang-format off */
#define KERNEL_OPS(OP)                                                                                       \
    OP(matmul) OP(linear_forward) OP(linear_backward) OP(linear_gelu_forward) OP(linear_gelu_backward)       \
    OP(embedding_forward) OP(layer_norm_forward) OP(layer_norm_backward) OP(rms_norm_forward)                \
    OP(qk_norm_rope_forward) OP(qk_norm_rope_backward) OP(group_norm_silu_forward)                           \
    OP(rms_norm_rope_forward) OP(rms_norm_rope_backward) OP(gelu_forward) OP(gelu_backward)                  \
    OP(spatial_norm_silu_forward) OP(attention_forward) OP(attention_backward) OP(gated_add_forward)         \
    OP(gated_add_backward) OP(add) OP(axpby) OP(silu_forward) OP(gelu_mul_forward) OP(patchify)              \
    OP(unpatchify) OP(causal_conv3d_forward) OP(conv2d_forward) OP(halve_time_forward) OP(upsample_conv2d_forward)  \
    OP(channels_last) OP(channels_second) OP(pixels_to_unit) OP(unit_to_pixels) OP(copy_window)              \
    OP(blend_edge) OP(mse_forward_backward) OP(sum_squares) OP(adamw_step)           \
    OP(temporal_attention_forward) OP(temporal_attention_backward) OP(gdn_cssm_forward)                      \
    OP(gdn_cssm_backward) OP(linear_quick_gelu_forward) OP(rope_forward) OP(silu_mul_forward)                \
    OP(linear_parts_forward) OP(linear_add_forward) OP(linear_gelu_mul_forward)                             \
    OP(linear_silu_mul_forward) OP(pixel_patches) OP(class_tokens_forward) OP(time_conv_quick_gelu_forward)  \
    OP(random_normal) OP(channel_norm_forward) OP(time_conv_forward) OP(fp8_rows) OP(fp8_gelu_rows)           \
    OP(linear_fp8_forward) OP(fold_pixels) OP(unfold_pixels) OP(average_blocks_forward) OP(repeat_blocks_add) \
    OP(thin_down_forward) OP(thin_down_backward) OP(thin_up_forward) OP(thin_up_backward)
/* clang-format on */

/* A backend in a file of its own may be of another build: it states first which operations it was made for. */
#define OP(name) #name " "
static const char kernel_operations[] __attribute__((unused)) = KERNEL_OPS(OP);
#undef OP

struct backend {
    const char *operations; /* kernel_operations */
    const char *name;
    bool bf16;                               /* computes in BF16, too, and does so by default */
    bool (*open)(struct kern *k, int index); /* device `index`; false with kern_fail() */
    void (*close)(struct kern *k);
    void *(*alloc)(struct kern *k, size_t bytes); /* 64-byte aligned, zeroed; NULL when there is no room */
    void (*free)(struct kern *k, void *p);
    size_t (*available)(struct kern *k);               /* bytes that an allocation may reasonably ask for */
    void *(*host_alloc)(struct kern *k, size_t bytes); /* see kern_send(); NULL when there is none */
    void (*host_free)(struct kern *k, void *p);
    void (*upload)(struct kern *k, struct tensor *dst, const struct tensor *host);
    void (*send)(struct kern *k, struct tensor *dst, const struct tensor *host);
    void (*download)(struct kern *k, struct tensor *host, const struct tensor *src);
    void (*copy)(struct kern *k, struct tensor *dst, const struct tensor *src); /* converts, too */
    void (*zero)(struct kern *k, struct tensor *t);
    bool (*can_fp8)(struct kern *k); /* whether linear_fp8_forward() works; false with kern_fail() */
    void (*wait)(struct kern *k);    /* until all that was asked for is done */
    void (*basis)(struct kern *k, char *text, size_t size); /* see kern_basis() */
    /* Which bits its own kernels give: one more with each release in which a result's bits are others than before,
     * so that a training state of before goes on with a line that says so. 0 before any was: not told. */
    int kernels;
#define OP(name) __typeof__(name) *name;
    KERNEL_OPS(OP)
#undef OP
};

enum { MAX_NOTES = 8, NOTE_LENGTH = 200 };

struct kern {
    const struct backend *backend;
    void *state; /* the backend's own */
    char device[16];
    enum dtype compute; /* set by open; see kern_compute() */
    bool fp8;           /* see kern_hold_fp8() */
    int threads;
    char error[256]; /* empty: fine */
    bool planning;
    struct kern_profile *profile; /* NULL: no profile is kept */
    const char *way;              /* that the operation at work has taken; see kern_took() */
    char basis[600];
    void (*tell)(const char *note);
    char note[MAX_NOTES][NOTE_LENGTH];
    int notes;
    char *stack; /* scratch: base, size, top, and the highest top seen */
    size_t size, used, peak;
    size_t saved_used, saved_peak; /* the real ones, while planning counts on a stack of its own */
    struct kern_block *blocks;     /* long-lived allocations */
    size_t limit, taken;           /* of memory, in bytes: by $SLUICE_MEMORY (0: none), and in use */
    char card[32];                 /* see kern_card(); set by open */
};

/* For backends: the operation at work is computed in this one of several ways, a constant ("mma"). */
static inline void kern_took(struct kern *k, const char *way)
{
    k->way = way;
}
/* For backends: says once that something is much slower on this device than it could be, and why. */
void kern_note(struct kern *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Around an operation that is to be timed; kernels.c does it. */
void kern_profile_begin(struct kern *k);
void kern_profile_end(struct kern *k, const char *operation);

extern const struct backend cpu_backend;

#endif
