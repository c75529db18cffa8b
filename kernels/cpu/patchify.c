#include "kernels/cpu/cpu.h"

/* Both directions: the runs of P values that lie together in the latents and in a token. */
static void move_patches(struct kern *k, float *tokens, float *latents, const int64_t latents_shape[4],
                         int64_t P, bool to_tokens)
{
    int64_t C = latents_shape[1], h = latents_shape[2], w = latents_shape[3],
            rows = latents_shape[0] * (h / P);
    PARALLEL_FOR(k, rows * P * C * w)
    for (int64_t row = 0; row < rows; row++) { /* a row of patches */
        int64_t f = row / (h / P), i = row % (h / P);
        for (int64_t c = 0; c < C; c++)
            for (int64_t p = 0; p < P; p++)
                for (int64_t j = 0; j < w / P; j++) {
                    float *latent = latents + ((f * C + c) * h + P * i + p) * w + P * j;
                    float *token = tokens + ((row * (w / P) + j) * C + c) * P * P + p * P;
                    memcpy(to_tokens ? token : latent, to_tokens ? latent : token, (size_t)P * sizeof(float));
                }
    }
}

void cpu_patchify(struct kern *k, struct tensor *y, const struct tensor *x, int patch)
{
    move_patches(k, f32(y), f32(x), x->shape, patch, true);
}

void cpu_unpatchify(struct kern *k, struct tensor *x, const struct tensor *y, int patch)
{
    move_patches(k, f32(y), f32(x), x->shape, patch, false);
}
